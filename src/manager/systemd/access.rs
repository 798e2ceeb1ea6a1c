//! Whether this user may read what a bridge has logged: `journalctl` says nothing both of what is not there and of what
//! it may not show.

use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use rustix::fs::{Access, access};

use crate::instance::Scope;
use crate::manager::Hidden;

/// A file of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    name: String,
    /// Whether this user may read it.
    readable: bool,
    /// When something was last put into it.
    modified: Option<SystemTime>,
}

/// What hides the lines of that scope's bridges from this process, if anything does; `since` is when the one that is
/// meant has got ready.
pub(super) fn hidden(scope: Scope, since: Option<SystemTime>) -> Option<Hidden> {
    let machine = fs::read_to_string("/etc/machine-id").ok()?;
    let folders =
        ["/run/log/journal", "/var/log/journal"].map(|folder| Path::new(folder).join(machine.trim()));
    hidden_in(folders.map(|folder| look(&folder)), scope, rustix::process::geteuid().as_raw(), since)
}

fn look(folder: &Path) -> io::Result<Vec<File>> {
    let files = fs::read_dir(folder)?.filter_map(Result::ok);
    let files = files.map(|file| File {
        name: file.file_name().to_string_lossy().into_owned(),
        readable: access(file.path(), Access::READ_OK).is_ok(),
        modified: file.metadata().and_then(|about| about.modified()).ok(),
    });
    Ok(files.collect())
}

/// Whether the machine's journal in that folder may be read; `None` when there is none.
fn machines(folder: &io::Result<Vec<File>>) -> Option<bool> {
    match folder {
        Ok(files) => files.iter().find(|file| file.name == "system.journal").map(|file| file.readable),
        Err(error) => (error.kind() == io::ErrorKind::PermissionDenied).then_some(false),
    }
}

/// The folders are those in memory and on the disk.
fn hidden_in(
    folders: [io::Result<Vec<File>>; 2],
    scope: Scope,
    uid: u32,
    since: Option<SystemTime>,
) -> Option<Hidden> {
    let [in_memory, on_disk] = folders.each_ref().map(machines);
    if in_memory == Some(true) || on_disk == Some(true) {
        return None;
    }
    if scope == Scope::System {
        return in_memory.or(on_disk).map(|_| Hidden::Machines);
    }
    let (now, before) = (format!("user-{uid}.journal"), format!("user-{uid}@"));
    let [_, on_disk_files] = folders;
    let own = on_disk_files
        .into_iter()
        .flatten()
        .filter(|file| file.readable && (file.name == now || file.name.starts_with(&before)));
    match (own.map(|file| file.modified).max(), in_memory) {
        (None, Some(_)) => Some(Hidden::Volatile),
        (None, None) => on_disk.map(|_| Hidden::Machines),
        (Some(_), None) => None,
        // One of the two is from another time. systemd logs that the bridge is ready: it is not where that is not.
        (Some(modified), Some(_)) => (since > modified && since.is_some()).then_some(Hidden::Volatile),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SYSTEM: (&str, bool) = ("system.journal", false);
    const OWN: (&str, bool) = ("user-1000.journal", true);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn files(files: &[(&str, bool)]) -> io::Result<Vec<File>> {
        let file = |(name, readable): &(&str, bool)| File {
            name: (*name).to_owned(),
            readable: *readable,
            modified: Some(at(100)),
        };
        Ok(files.iter().map(file).collect())
    }

    fn failed(kind: io::ErrorKind) -> io::Result<Vec<File>> {
        Err(kind.into())
    }

    fn on_disk(there: &[(&str, bool)], scope: Scope) -> Option<Hidden> {
        hidden_in([failed(io::ErrorKind::NotFound), files(there)], scope, 1000, Some(at(200)))
    }

    #[test]
    fn a_user_may_read_their_own_part_and_nobody_elses() {
        assert_eq!(on_disk(&[SYSTEM, OWN], Scope::User), None);
        assert_eq!(on_disk(&[SYSTEM, OWN], Scope::System), Some(Hidden::Machines));
        assert_eq!(on_disk(&[("system.journal", true)], Scope::System), None);
        assert_eq!(on_disk(&[SYSTEM, ("user-1000@0-1-2.journal", true)], Scope::User), None);
        let anothers = [SYSTEM, ("user-10000.journal", true), ("user-1000.journal", false)];
        assert_eq!(on_disk(&anothers, Scope::User), Some(Hidden::Machines));
    }

    #[test]
    fn a_journal_in_memory_hides_what_is_newer_than_the_users_own_on_the_disk() {
        let hidden =
            |memory, disk: &[(&str, bool)], since| hidden_in([memory, files(disk)], Scope::User, 1000, since);
        let locked = || failed(io::ErrorKind::PermissionDenied);
        assert_eq!(hidden(files(&[SYSTEM]), &[], None), Some(Hidden::Volatile));
        assert_eq!(hidden(locked(), &[], None), Some(Hidden::Volatile));
        assert_eq!(hidden(locked(), &[SYSTEM, OWN], Some(at(101))), Some(Hidden::Volatile));
        assert_eq!(hidden(locked(), &[SYSTEM, OWN], Some(at(99))), None, "what is in memory is old");
        assert_eq!(hidden(locked(), &[SYSTEM, OWN], None), None);
        assert_eq!(hidden(files(&[("system.journal", true)]), &[SYSTEM, OWN], Some(at(101))), None);
        assert_eq!(hidden(files(&[]), &[SYSTEM, OWN], Some(at(101))), None, "it has been moved");
    }

    #[test]
    fn where_there_is_no_journal_nothing_is_hidden() {
        let none = || failed(io::ErrorKind::NotFound);
        for scope in [Scope::User, Scope::System] {
            assert_eq!(hidden_in([none(), none()], scope, 1000, None), None);
        }
    }
}
