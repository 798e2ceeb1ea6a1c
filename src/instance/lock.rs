//! Who runs an instance: the process that holds its lock, and no other.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
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
    /// Whether the file that says so is the caller's own: another user's may say anything.
    #[serde(skip)]
    pub is_own: bool,
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
        let missing = || LockError::Io { path: instance.lock_file(), source: io::ErrorKind::NotFound.into() };
        Self::acquire(instance, true)?.ok_or_else(missing)
    }

    /// Takes the lock, which is made where it is missing if `make` says so; `None` where it is missing otherwise.
    fn acquire(instance: &Instance, make: bool) -> Result<Option<Self>, LockError> {
        let path = instance.lock_file();
        let failed = |source| LockError::Io { path: path.clone(), source };
        for attempt in 1.. {
            if make {
                instance.paths().make_runtime_dir(instance.name()).map_err(failed)?;
            }
            let file = match open(&path, make) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
                // The folder was cleaned up in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => continue,
                // It is another user's, who may be about to remove it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && attempt < ATTEMPTS => {
                    std::thread::sleep(BETWEEN);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) if is_the_one(&file, &path) => {
                    let holder =
                        Holder { pid: std::process::id(), config: instance.identity(), is_own: true };
                    write(&file, &holder).map_err(failed)?;
                    return Ok(Some(Self { _file: file, path }));
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
    if listens(&paths.control_socket(name)) { told(paths, name) } else { None }
}

/// Whether somebody listens on that socket, even if so many wait to be let in that there is no room for another.
fn listens(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    let connected = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| net::connect(&socket, &address));
    matches!(connected, Ok(()) | Err(Errno::AGAIN))
}

/// What the last holder of that lock has said of itself, for one who knows that it runs.
#[must_use]
pub fn told(paths: &Paths, name: &Name) -> Option<Holder> {
    read(&paths.lock_file(name))
}

/// The names that have a folder, running or not.
#[must_use]
pub fn names(paths: &Paths) -> Vec<Name> {
    let entries = paths.runtime_bases().into_iter().flat_map(fs::read_dir).flatten().filter_map(Result::ok);
    let mut names: Vec<Name> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    names.dedup();
    names
}

/// Removes what a bridge that is gone has left. False when it is there and runs, or there is nothing.
pub fn clean_up(instance: &Instance) -> Result<bool, LockError> {
    if !instance.runtime_dir().exists() {
        return Ok(false);
    }
    match Lock::acquire(instance, false) {
        Ok(Some(_lock)) => remove(&instance.runtime_files()).map(|()| true),
        // A lock that is made here would be the caller's, and keep out a bridge of another user that starts at this
        // moment. Where there is none, no bridge was killed: one that ends by itself takes it along, after its socket.
        Ok(None) => {
            let [_, environment, variables] = instance.runtime_files();
            remove(&[environment, variables])?;
            // It fails where there is more in it.
            Ok(fs::remove_dir(instance.runtime_dir()).is_ok())
        }
        Err(LockError::Held(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the lock that a bridge has left which was killed, and these files of its; all stays where one holds it now.
///
/// # Errors
/// From the system.
pub fn clear(lock: &Path, files: &[PathBuf]) -> io::Result<()> {
    let held = match open(lock, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    match held.as_ref().map(File::try_lock) {
        Some(Err(TryLockError::WouldBlock)) => return Ok(()),
        Some(Err(TryLockError::Error(error))) => return Err(error),
        None | Some(Ok(())) => {}
    }
    let own = held.as_ref().filter(|held| is_the_one(held, lock)).map(|_| lock);
    for file in files.iter().map(PathBuf::as_path).chain(own) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes those of these files that are there.
fn remove(files: &[PathBuf]) -> Result<(), LockError> {
    for file in files {
        match fs::remove_file(file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LockError::Io { path: file.clone(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn open(path: &Path, make: bool) -> io::Result<File> {
    let no_link = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options()
        .read(true)
        .write(true)
        .create(make)
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
    let (text, owner) = file::read_with_owner(path).ok()?;
    let holder: Holder = serde_json::from_slice(&text).ok()?;
    Some(Holder { is_own: owner == rustix::process::geteuid().as_raw(), ..holder })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

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
    fn cleaning_up_makes_no_lock() {
        use rustix::fs::inotify;
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        fs::create_dir_all(instance.runtime_dir()).expect("a folder");
        fs::write(instance.environment_file(), "TOKEN=x").expect("a file");
        let kept = instance.runtime_dir().join("kept");
        fs::write(&kept, "").expect("a file");
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("a watch");
        inotify::add_watch(&watch, instance.runtime_dir(), inotify::WatchFlags::CREATE).expect("watched");
        assert!(!clean_up(&instance).expect("possible"), "something is left");
        assert!(!instance.environment_file().exists() && kept.exists());
        let seen = rustix::io::read(&watch, &mut [0_u8; 4096]);
        assert_eq!(seen, Err(Errno::AGAIN), "a file was made");
        fs::remove_file(&kept).expect("removed");
        assert!(clean_up(&instance).expect("possible"));
        assert!(!instance.runtime_dir().exists());
    }

    #[test]
    fn a_bridge_that_lets_nobody_in_runs() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        let _lock = Lock::take(&instance).expect("free");
        let address = SocketAddrUnix::new(instance.control_socket()).expect("an address");
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        net::bind(&socket, &address).expect("bound");
        assert_eq!(holder(instance.paths(), instance.name()), None, "nobody listens yet");
        net::listen(&socket, 0).expect("listening");
        // The first fills the backlog; there is no room for those after it.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let others = [(); 4].map(|()| {
            let other = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
            let other = other.expect("a socket");
            let full = net::connect(&other, &address) == Err(Errno::AGAIN);
            (other, full)
        });
        assert!(others.iter().any(|(_, full)| *full), "the backlog is not full");
        assert!(holder(instance.paths(), instance.name()).is_some());
    }

    #[test]
    fn a_pipe_in_place_of_the_lock_holds_nobody_up() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        fs::create_dir_all(instance.runtime_dir()).expect("a folder");
        let read_write = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, instance.lock_file(), FileType::Fifo, read_write, 0).expect("a pipe");
        assert_eq!(told(instance.paths(), instance.name()), None);
        assert!(matches!(Lock::take(&instance), Err(LockError::Io { .. })));
    }

    #[test]
    fn a_lock_of_another_user_is_known_as_such() {
        let root = tempfile::tempdir().expect("a folder");
        let instance = instance(root.path());
        let _lock = Lock::take(&instance).expect("free");
        let is_own = || told(instance.paths(), instance.name()).expect("it says who it is").is_own;
        assert!(is_own());
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(instance.lock_file(), Some(65534), None).expect("given away");
            assert!(!is_own());
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
