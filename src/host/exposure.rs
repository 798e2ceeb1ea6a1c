//! What other users may do with a file.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const READ: u32 = 0o004;
const WRITE: u32 = 0o002;
const ENTER: u32 = 0o001;
/// Only who owns a file may put another in its place.
const STICKY: u32 = 0o1000;

/// What users may do who neither own a file nor are of its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exposure {
    /// They can read it.
    pub readable: bool,
    /// They can write to it.
    pub writable: bool,
    /// They can put another in its place.
    pub replaceable: bool,
}

/// What they may do with the file at that path, which is canonical.
///
/// # Errors
/// From the system.
pub fn of(path: &Path) -> io::Result<Exposure> {
    let own = mode(path)?;
    let folder = path.parent().map(mode).transpose()?.unwrap_or_default();
    let mut reached = true;
    for above in path.ancestors().skip(1) {
        reached &= mode(above)? & ENTER != 0;
    }
    Ok(Exposure {
        readable: reached && own & READ != 0,
        writable: reached && own & WRITE != 0,
        replaceable: reached && folder & WRITE != 0 && folder & STICKY == 0,
    })
}

/// The permissions of the file at that path.
///
/// # Errors
/// From the system.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_nobody_enters_shuts_off_what_is_in_it() {
        // Below the root folder: the one of the test is for its owner alone.
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let file = root.path().join("config.json");
        fs::write(&file, "{}").unwrap();
        let file = fs::canonicalize(file).unwrap();
        for (folder, own, expected) in [
            (0o755, 0o644, (true, false, false)),
            (0o755, 0o600, (false, false, false)),
            (0o700, 0o666, (false, false, false)),
            (0o777, 0o600, (false, false, true)),
            (0o1777, 0o602, (false, true, false)),
        ] {
            set(root.path(), folder);
            set(&file, own);
            let found = of(&file).unwrap();
            let found = (found.readable, found.writable, found.replaceable);
            assert_eq!(found, expected, "{folder:o} {own:o}");
        }
    }
}
