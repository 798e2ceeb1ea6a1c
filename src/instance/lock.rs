//! Who runs an instance: the process that holds its lock, and no other.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Instance, Name, Paths};
use crate::host::file;

/// Whoever cleans up holds a lock for a moment: a start tries again for this long before it believes in a bridge.
const ATTEMPTS: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(50);

/// What the holder of a lock says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The config it serves, or where the default config would be.
    pub config: PathBuf,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("it is held by another process")]
    Held(Option<Holder>),
    /// A file or folder cannot be used.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
}

/// An instance's lock. What stands in its folder is gone when this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of that instance, and makes its folder, which is for this user alone.
    pub fn take(instance: &Instance) -> Result<Self, LockError> {
        let path = instance.lock_file();
        let failed = |source| LockError::Io { path: path.clone(), source };
        for attempt in 1.. {
            instance.paths().make_runtime_dir(instance.name()).map_err(failed)?;
            let file = match open(&path) {
                Ok(file) => file,
                // The folder was cleaned up in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => continue,
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) if is_the_one(&file, &path) => {
                    let holder = Holder { pid: std::process::id(), config: instance.identity() };
                    write(&file, &holder).map_err(failed)?;
                    return Ok(Self { _file: file, path });
                }
                // It was removed by the one who held it before us.
                Ok(()) if attempt < ATTEMPTS => {}
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(BETWEEN),
                Ok(()) | Err(TryLockError::WouldBlock) => return Err(LockError::Held(read(&path))),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        unreachable!("the loop returns")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Both fail only where somebody else was faster, or has put more into the folder, which is then kept.
        let _ = fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Who runs the instance of that name now. It is not waited for: a bridge that hangs runs, too.
#[must_use]
pub fn holder(paths: &Paths, name: &Name) -> Option<Holder> {
    // A connection is made by the kernel, without the bridge; the lock itself must not be touched, since a bridge that
    // starts at this moment would find it taken.
    UnixStream::connect(paths.control_socket(name)).ok()?;
    told(paths, name)
}

/// What the last holder of that lock has said of itself, for one who knows that it runs.
#[must_use]
pub fn told(paths: &Paths, name: &Name) -> Option<Holder> {
    read(&paths.lock_file(name))
}

/// The names that have a folder, running or not.
#[must_use]
pub fn names(paths: &Paths) -> Vec<Name> {
    let entries = fs::read_dir(paths.runtime_base()).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<Name> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    names
}

/// Removes what a bridge that is gone has left. False when it is there and runs, or there is nothing.
pub fn clean_up(instance: &Instance) -> Result<bool, LockError> {
    if !instance.runtime_dir().exists() {
        return Ok(false);
    }
    match Lock::take(instance) {
        Ok(_lock) => {
            for file in instance.runtime_files() {
                match fs::remove_file(&file) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(LockError::Io { path: file, source });
                    }
                    _ => {}
                }
            }
            Ok(true)
        }
        Err(LockError::Held(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_link)
        .open(path)?;
    // Who holds the lock writes to it.
    file::plain(&file)?;
    Ok(file)
}

/// Whether the file that was locked is still the one that others would lock.
fn is_the_one(file: &File, path: &Path) -> bool {
    let same = |(ours, theirs): (fs::Metadata, fs::Metadata)| {
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
    };
    file.metadata().ok().zip(fs::symlink_metadata(path).ok()).is_some_and(same)
}

fn write(mut file: &File, holder: &Holder) -> io::Result<()> {
    let line = serde_json::to_string(holder).map_err(io::Error::other)?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{line}")
}

fn read(path: &Path) -> Option<Holder> {
    serde_json::from_slice(&file::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::instance::Scope;

    fn instance(root: &Path) -> Instance {
        let paths = Paths::from_env(Scope::User, Some(root), |_| None).expect("paths");
        Instance::new("work".parse().expect("a name"), None, paths).expect("an instance")
    }

    #[test]
    fn a_second_taker_is_told_who_the_first_is() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        let lock = Lock::take(&instance).expect("free");
        match Lock::take(&instance) {
            Err(LockError::Held(Some(holder))) => assert_eq!(holder.pid, std::process::id()),
            other => panic!("taken twice: {other:?}"),
        }
        drop(lock);
        assert!(!instance.runtime_dir().exists(), "nothing stays behind");
        Lock::take(&instance).expect("free again");
    }

    #[test]
    fn what_a_dead_bridge_left_is_no_obstacle_and_is_cleaned_up() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        fs::create_dir_all(instance.runtime_dir()).expect("a folder");
        fs::write(instance.lock_file(), "{\"pid\":1,\"config\":\"/x\"}").expect("a file");
        fs::write(instance.environment_file(), "TOKEN=x").expect("a file");
        assert_eq!(holder(instance.paths(), instance.name()), None, "nobody listens");
        assert!(clean_up(&instance).expect("possible"));
        assert!(!instance.runtime_dir().exists());
        assert!(!clean_up(&instance).expect("possible"), "nothing is left to do");
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_neither_taken_nor_read() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        let target = root.path().join("target");
        let text = "{\"pid\":1,\"config\":\"/x\"}";
        fs::write(&target, text).expect("a file");
        fs::create_dir_all(instance.runtime_dir()).expect("a folder");
        let links: [fn(&Path, &Path) -> io::Result<()>; 2] =
            [|target, path| symlink(target, path), |target, path| fs::hard_link(target, path)];
        for link in links {
            link(&target, &instance.lock_file()).expect("a link");
            assert!(matches!(Lock::take(&instance), Err(LockError::Io { .. })));
            assert_eq!(told(instance.paths(), instance.name()), None);
            clean_up(&instance).expect_err("not ours to clean up");
            assert_eq!(fs::read_to_string(&target).expect("a file"), text);
            fs::remove_file(instance.lock_file()).expect("the link");
        }
    }

    #[test]
    fn a_running_bridge_is_not_cleaned_up() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        let _lock = Lock::take(&instance).expect("free");
        fs::write(instance.environment_file(), "TOKEN=x").expect("a file");
        assert!(!clean_up(&instance).expect("possible"));
        assert!(instance.environment_file().exists());
    }
}
