//! Files that are read and replaced whole, in folders that are held open meanwhile. Such a folder may be another user's,
//! who can put links into it: those are not followed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// A folder that stays the one that was opened, whatever is put in its place.
#[derive(Debug)]
pub struct Folder(File);

/// Whom a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Folder {
    /// Opens a folder. Links on the way are followed: it must be such that nobody else can put any there.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?.into()))
    }

    /// Opens a folder below `base`, of which alone links are followed.
    ///
    /// # Errors
    /// From the system; a path that is not below `base`.
    pub fn below(base: &Path, path: &Path) -> io::Result<Self> {
        let below = path.strip_prefix(base).map_err(io::Error::other)?;
        below.components().try_fold(Self::open(base)?, |folder, part| match part {
            Component::Normal(name) => folder.folder(name),
            _ => Err(io::ErrorKind::InvalidFilename.into()),
        })
    }

    /// Opens a folder in this one that is no link.
    ///
    /// # Errors
    /// From the system.
    pub fn folder(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?.into()))
    }

    /// Makes a folder in this one, for its owner alone. False when there is something of that name.
    ///
    /// # Errors
    /// From the system.
    pub fn make(&self, name: &OsStr) -> io::Result<bool> {
        match mkdirat(&self.0, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }

    /// Whose it is; none when it is the caller's own.
    ///
    /// # Errors
    /// From the system.
    pub fn other_owner(&self) -> io::Result<Option<Owner>> {
        let found = self.0.metadata()?;
        let other = found.uid() != rustix::process::geteuid().as_raw();
        Ok(other.then(|| Owner { user: found.uid(), group: found.gid() }))
    }

    /// Gives it away.
    ///
    /// # Errors
    /// From the system.
    pub fn give(&self, owner: Owner) -> io::Result<()> {
        fchown(&self.0, Some(owner.user), Some(owner.group))
    }

    /// What is in a file of this folder that is no link, has no other name and is of a bearable length, and the uid of its
    /// owner.
    ///
    /// # Errors
    /// From the system; `InvalidInput` for what is no such file.
    pub fn read(&self, name: &OsStr) -> io::Result<(Vec<u8>, u32)> {
        // A pipe would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        plain(&file)?;
        let owner = file.metadata()?.uid();
        let mut bytes = Vec::new();
        let length = file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        match u64::try_from(length) {
            Ok(length) if length <= LONGEST => Ok((bytes, owner)),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    /// Puts these bytes there as a file of that mode, whatever the umask is, and of that owner: all of it, or nothing.
    ///
    /// # Errors
    /// From the system; the file is then what it was.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        // Written beside its place first: whoever reads at this moment has the old one or the new one, never half of
        // one. Nobody can have put anything under a name that they cannot guess, and it would not be opened.
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let mut fresh = OsString::from(".");
        fresh.push(name);
        fresh.push(format!(".{random:016x}"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, &fresh, flags, Mode::RUSR | Mode::WUSR)?);
        let mut write = || {
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            if let Some(owner) = owner {
                fchown(&file, Some(owner.user), Some(owner.group))?;
            }
            file.sync_all()?;
            Ok(renameat(&self.0, &fresh, &self.0, name)?)
        };
        write().inspect_err(|_: &io::Error| {
            // It is of no use to anybody; that it cannot be removed either changes nothing.
            let _ = unlinkat(&self.0, &fresh, AtFlags::empty());
        })
    }
}

/// What is in that file, as [`Folder::read`] has it. The folder that it is in is no link either.
///
/// # Errors
/// As there.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_with_owner(path).map(|(bytes, _)| bytes)
}

/// The same with the uid of the file's owner.
///
/// # Errors
/// As there.
pub fn read_with_owner(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let (folder, name) = parts(path)?;
    let (above, _) = parts(folder)?;
    Folder::below(above, folder)?.read(name)
}

/// Puts these bytes there as a file of the caller's, as [`Folder::replace`] does.
///
/// # Errors
/// As there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (folder, name) = parts(path)?;
    Folder::open(folder)?.replace(name, bytes, mode, None)
}

/// Makes a folder of that mode, whatever the umask is, and those above it. One that is there stays as it is.
///
/// # Errors
/// From the system.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Refuses what is no file, and a file with a second name: under this one it may be there for the sake of a user who may
/// not read or write it.
///
/// # Errors
/// `InvalidInput`, and from the system.
pub fn plain(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if found.is_file() && found.nlink() <= 1 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file of one name"))
}

/// The folder of a file, and its name there.
pub fn parts(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent().zip(path.file_name()).ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const NAME: &str = "environment";

    /// A folder with a file `target` outside of the one that is written to.
    fn folders() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("own")).unwrap();
        fs::write(root.path().join("target"), "untouched").unwrap();
        let folder = Folder::below(root.path(), &root.path().join("own")).unwrap();
        (root, folder)
    }

    fn names(path: &Path) -> Vec<OsString> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_has_the_mode_that_was_asked_for_whatever_the_umask_is() {
        let (root, folder) = folders();
        folder.replace(NAME.as_ref(), b"one", 0o644, None).unwrap();
        // The usual umask would take the writing by others from it.
        folder.replace(NAME.as_ref(), b"two", 0o666, None).unwrap();
        let path = root.path().join("own").join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(names(&root.path().join("own")), [NAME]);
        let below = root.path().join("a/b");
        make_folder(&below, 0o777).unwrap();
        assert_eq!(fs::metadata(&below).unwrap().mode() & 0o7777, 0o777);
    }

    #[test]
    fn what_cannot_be_put_in_its_place_leaves_nothing_beside_it() {
        let (root, folder) = folders();
        let own = root.path().join("own");
        fs::create_dir(own.join(NAME)).unwrap();
        folder.replace(NAME.as_ref(), b"text", 0o600, None).unwrap_err();
        assert_eq!(names(&own), [NAME]);
    }

    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_is_left_alone() {
        let (root, folder) = folders();
        let path = root.path().join("own").join(NAME);
        symlink("../target", &path).unwrap();
        folder.replace(NAME.as_ref(), b"text", 0o600, None).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_to_string(root.path().join("target")).unwrap(), "untouched");
    }

    #[test]
    fn links_pipes_and_files_with_a_second_name_are_not_read() {
        let (root, folder) = folders();
        let own = root.path().join("own");
        symlink("../target", own.join("soft")).unwrap();
        fs::hard_link(root.path().join("target"), own.join("hard")).unwrap();
        mkfifo(&own.join("pipe"));
        fs::write(own.join("plain"), "text").unwrap();
        for name in ["soft", "hard", "pipe"] {
            folder.read(name.as_ref()).expect_err(name);
        }
        assert_eq!(folder.read("plain".as_ref()).unwrap().0, b"text");
        assert_eq!(folder.read("none".as_ref()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_without_an_end_is_not_read() {
        let (root, folder) = folders();
        let file = File::create(root.path().join("own/long")).unwrap();
        file.set_len(LONGEST + 1).unwrap();
        assert_eq!(folder.read("long".as_ref()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        file.set_len(3).unwrap();
        assert_eq!(folder.read("long".as_ref()).unwrap().0, [0; 3]);
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_followed() {
        let (root, folder) = folders();
        fs::create_dir(root.path().join("other")).unwrap();
        symlink("../other", root.path().join("own/kept")).unwrap();
        folder.folder("kept".as_ref()).unwrap_err();
        fs::write(root.path().join("other/plain"), "text").unwrap();
        read(&root.path().join("own/kept/plain")).unwrap_err();
        assert!(!folder.make("kept".as_ref()).unwrap());
        Folder::below(root.path(), &root.path().join("own/kept")).unwrap_err();
        Folder::below(&root.path().join("own"), root.path()).unwrap_err();
        Folder::below(root.path(), &root.path().join("own/../other")).unwrap_err();
        // The base may be one, and is the only one that may.
        Folder::below(&root.path().join("own/kept"), &root.path().join("own/kept")).unwrap();
    }

    fn mkfifo(path: &Path) {
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
}
