//! Whether this user may read what a bridge has logged: `journalctl` says nothing both of what is not there and of what
//! it may not show.

use std::path::Path;
use std::{fs, io};

use rustix::fs::{Access, access};

use crate::instance::Scope;

/// Why the lines of a scope's bridges are hidden from this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// They are in the machine's journal, which is for root and the group `systemd-journal`.
    Machines,
    /// The journal is in memory only, where it is not kept by user.
    Volatile,
}

impl Hidden {
    /// In a sentence.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Machines => "the machine's journal is for root and the group systemd-journal",
            Self::Volatile => {
                "the journal is kept in memory only, and as a whole for root and the group systemd-journal"
            }
        }
    }
}

/// The files of a folder, and whether this user may read each.
type Files = Vec<(String, bool)>;

/// What hides the lines of that scope's bridges from this process, if anything does.
pub(super) fn hidden(scope: Scope) -> Option<Hidden> {
    let machine = fs::read_to_string("/etc/machine-id").ok()?;
    let folders =
        ["/run/log/journal", "/var/log/journal"].map(|folder| Path::new(folder).join(machine.trim()));
    hidden_in(folders.map(|folder| look(&folder)), scope, rustix::process::geteuid().as_raw())
}

fn look(folder: &Path) -> io::Result<Files> {
    let files = fs::read_dir(folder)?.filter_map(Result::ok);
    let readable = |file: &Path| access(file, Access::READ_OK).is_ok();
    Ok(files.map(|file| (file.file_name().to_string_lossy().into_owned(), readable(&file.path()))).collect())
}

/// The folders are those in memory and on the disk.
fn hidden_in(folders: [io::Result<Files>; 2], scope: Scope, uid: u32) -> Option<Hidden> {
    // What is in memory is moved to the disk once that is there: as long as it is not, nothing new is on the disk.
    for (folder, reason) in folders.into_iter().zip([Hidden::Volatile, Hidden::Machines]) {
        let reason = if scope == Scope::System { Hidden::Machines } else { reason };
        match folder {
            Ok(files) => {
                let Some((_, readable)) = files.iter().find(|(name, _)| name == "system.journal") else {
                    continue;
                };
                let (now, before) = (format!("user-{uid}.journal"), format!("user-{uid}@"));
                let own = |(name, readable): &(String, bool)| {
                    *readable && (*name == now || name.starts_with(&before))
                };
                let seen = *readable || scope == Scope::User && files.iter().any(own);
                return (!seen).then_some(reason);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Some(reason),
            Err(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: (&str, bool) = ("system.journal", false);

    fn files(files: &[(&str, bool)]) -> io::Result<Files> {
        Ok(files.iter().map(|(name, readable)| ((*name).to_owned(), *readable)).collect())
    }

    fn none() -> io::Result<Files> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn on_disk(there: &[(&str, bool)], scope: Scope) -> Option<Hidden> {
        hidden_in([none(), files(there)], scope, 1000)
    }

    #[test]
    fn a_user_may_read_their_own_part_and_nobody_elses() {
        let own = [SYSTEM, ("user-1000.journal", true)];
        assert_eq!(on_disk(&own, Scope::User), None);
        assert_eq!(on_disk(&own, Scope::System), Some(Hidden::Machines));
        assert_eq!(on_disk(&[("system.journal", true)], Scope::System), None);
        assert_eq!(on_disk(&[SYSTEM, ("user-1000@0-1-2.journal", true)], Scope::User), None);
        let anothers = [SYSTEM, ("user-10000.journal", true), ("user-1000.journal", false)];
        assert_eq!(on_disk(&anothers, Scope::User), Some(Hidden::Machines));
    }

    #[test]
    fn what_was_on_the_disk_does_not_count_while_the_journal_is_in_memory() {
        let disk = || files(&[SYSTEM, ("user-1000.journal", true)]);
        let memory = |memory| hidden_in([memory, disk()], Scope::User, 1000);
        assert_eq!(memory(files(&[SYSTEM])), Some(Hidden::Volatile));
        assert_eq!(memory(Err(io::ErrorKind::PermissionDenied.into())), Some(Hidden::Volatile));
        assert_eq!(memory(files(&[("system.journal", true)])), None);
        assert_eq!(memory(files(&[])), None, "it has been moved");
    }

    #[test]
    fn where_there_is_no_journal_nothing_is_hidden() {
        assert_eq!(hidden_in([none(), none()], Scope::User, 1000), None);
    }
}
