//! Whether this user may read what a bridge has logged: `journalctl` says nothing both of what is not there and of what
//! it may not show.

use std::fs;
use std::path::Path;

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

/// What hides the lines of that scope's bridges from this process, if anything does.
pub(super) fn hidden(scope: Scope) -> Option<Hidden> {
    let machine = fs::read_to_string("/etc/machine-id").ok()?;
    let uid = rustix::process::geteuid().as_raw();
    let readable = |file: &Path| access(file, Access::READ_OK).is_ok();
    hidden_in(Path::new("/"), machine.trim(), scope, uid, readable)
}

fn hidden_in(
    root: &Path,
    machine: &str,
    scope: Scope,
    uid: u32,
    readable: impl Fn(&Path) -> bool,
) -> Option<Hidden> {
    // What is in memory is moved to the disk once that is there: as long as it is not, nothing new is on the disk.
    let places = [("run/log/journal", Hidden::Volatile), ("var/log/journal", Hidden::Machines)];
    let (folder, reason) = places
        .map(|(folder, reason)| (root.join(folder).join(machine), reason))
        .into_iter()
        .find(|(folder, _)| folder.join("system.journal").exists())?;
    if readable(&folder.join("system.journal")) {
        return None;
    }
    if scope == Scope::System {
        return Some(Hidden::Machines);
    }
    let (now, before) = (format!("user-{uid}.journal"), format!("user-{uid}@"));
    let own = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok).any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        (name == now || name.starts_with(&before)) && readable(&file.path())
    });
    (!own).then_some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    fn looked_at(files: &[&str], scope: Scope, readable: &str) -> Option<Hidden> {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let (folder, name) = file.split_once(' ').unwrap();
            let folder = root.path().join(folder).join(MACHINE);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), "").unwrap();
        }
        let readable =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(readable));
        hidden_in(root.path(), MACHINE, scope, 1000, readable)
    }

    #[test]
    fn a_user_may_read_their_own_part_and_nobody_elses() {
        let disk = ["var/log/journal system.journal", "var/log/journal user-1000.journal"];
        assert_eq!(looked_at(&disk, Scope::User, "user-"), None);
        assert_eq!(looked_at(&disk, Scope::System, "user-"), Some(Hidden::Machines));
        assert_eq!(looked_at(&disk, Scope::System, ".journal"), None);
        let rotated = ["var/log/journal system.journal", "var/log/journal user-1000@0-1-2.journal"];
        assert_eq!(looked_at(&rotated, Scope::User, "user-"), None);
        let anothers = ["var/log/journal system.journal", "var/log/journal user-10000.journal"];
        assert_eq!(looked_at(&anothers, Scope::User, "user-"), Some(Hidden::Machines));
    }

    #[test]
    fn what_was_on_the_disk_does_not_count_while_the_journal_is_in_memory() {
        let files = [
            "run/log/journal system.journal",
            "var/log/journal system.journal",
            "var/log/journal user-1000.journal",
        ];
        assert_eq!(looked_at(&files, Scope::User, "user-"), Some(Hidden::Volatile));
        assert_eq!(looked_at(&files, Scope::User, "system"), None);
    }

    #[test]
    fn where_there_is_no_journal_nothing_is_hidden() {
        assert_eq!(looked_at(&[], Scope::User, ""), None);
    }
}
