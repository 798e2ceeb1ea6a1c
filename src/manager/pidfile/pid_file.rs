//! The PID file: whoever holds the lock on it keeps the instance. The number in it is a hint, the lock is the truth, and
//! the kernel says who holds it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use super::record::{Record, parse_pid};
use super::supervise;
use crate::host::file;
use crate::host::process::{Identity, Process};

/// The longest that is read, in bytes; ours are far shorter.
const LONGEST: u64 = 64 << 10;

/// How often a file is opened anew that another supervisor has just removed.
const ATTEMPTS: u32 = 10;

/// A PID file that is this process's own until it ends.
///
/// The lock is one of fcntl(2): no child inherits it, and to look who has it disturbs nobody. It would be lost with the
/// first descriptor of the file that this process closes, so that nothing else here may open it.
#[derive(Debug)]
pub(super) struct PidFile {
    file: File,
    path: PathBuf,
}

/// Why a PID file was not had.
#[derive(Debug)]
pub(super) enum ClaimError {
    /// Another process holds it: that one, where it is one of this PID namespace.
    Held(Option<u32>),
    /// It is no PID file, and is left as it is.
    Foreign,
    /// From the system.
    Io(io::Error),
}

impl From<io::Error> for ClaimError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl PidFile {
    /// Takes the file, and makes it and its folder where they are missing, for this user alone. `own` is whether it is in a
    /// place where nobody but a supervisor has anything to write: there it may say anything.
    pub(super) fn claim(path: &Path, own: bool) -> Result<Self, ClaimError> {
        for _ in 0..ATTEMPTS {
            let (folder, _) = file::parts(path)?;
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags)
                .open(path)
                .map_err(no_link)?;
            file::plain(&file)?;
            if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's").into());
            }
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    return Err(ClaimError::Held(holder(&file)?.and_then(Held::pid)));
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if !is_there(&file, path) {
                // Its last holder has removed it.
                continue;
            }
            let text = read(&file)?;
            // Elsewhere it may be somebody's letters.
            let is_pid_file = own || text.is_empty() || text.lines().next().and_then(parse_pid).is_some();
            if !is_pid_file {
                return Err(ClaimError::Foreign);
            }
            // What its last holder said of itself must not be taken for this one's word.
            file.set_len(0)?;
            (&file).rewind()?;
            writeln!(&file, "{}", std::process::id())?;
            return Ok(Self { file, path: path.to_owned() });
        }
        Err(ClaimError::Held(None))
    }

    /// Writes what it says.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = record.render();
        // In place, as the lock is on this file. The number at its beginning never changes.
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or_default())
    }

    /// Removes it, or where its folder does not let this user do that, what is in it.
    pub(super) fn remove(self) {
        if is_there(&self.file, &self.path) && fs::remove_file(&self.path).is_err() {
            // Nobody can be told any more.
            let _ = self.file.set_len(0);
        }
    }
}

/// What is in the place of a PID file.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nothing.
    Missing,
    /// A file that nobody holds, and what it says if it is one of ours.
    Stale(Option<Record>),
    /// One that a supervisor holds.
    Held(Holder),
    /// One that somebody else holds: no bridge, or one in another PID namespace, whose processes cannot be reached.
    Foreign {
        /// Their process, where the kernel tells it.
        pid: Option<u32>,
        /// What the file says.
        record: Option<Record>,
    },
}

/// A supervisor that lives.
#[derive(Debug)]
pub(super) struct Holder {
    file: File,
    pid: Pid,
    /// Its number.
    pub(super) number: u32,
    /// What it says; while it has just been started, nothing yet.
    pub(super) record: Option<Record>,
}

/// The lock of a file that is held, by whom as far as the kernel tells it.
struct Held(Option<Pid>);

impl Held {
    fn pid(self) -> Option<u32> {
        self.0.and_then(number)
    }
}

/// A process's number; a lock that no process has a share in alone is shown as one of -1.
fn number(pid: Pid) -> Option<u32> {
    u32::try_from(pid.as_raw_nonzero().get()).ok()
}

/// Looks at a PID file, and changes nothing.
///
/// # Errors
/// From the system; `InvalidInput` for what is no plain file: links are not followed.
pub(super) fn look(path: &Path) -> io::Result<Seen> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::Missing),
        opened => opened.map_err(no_link)?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    // It may be written at this moment, at its beginning and at its end.
    let mut record = None;
    for _ in 0..3 {
        record = Record::parse(&read(&file)?);
        if record.is_some() {
            break;
        }
    }
    let Some(Held(pid)) = holder(&file)? else { return Ok(Seen::Stale(record)) };
    let number = pid.and_then(number);
    let is_supervisor = |number: u32| match &record {
        Some(record) => Some(record.identity()) == Identity::of(number),
        // It says nothing before it has written it; but nor does the file of anybody else who holds it.
        None => supervise::is_one(number),
    };
    match pid.zip(number) {
        Some((pid, number)) if is_supervisor(number) => Ok(Seen::Held(Holder { file, pid, number, record })),
        _ => Ok(Seen::Foreign { pid: number, record }),
    }
}

impl Holder {
    /// Its process; `None` when it has just ended.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn process(&self) -> io::Result<Option<Process>> {
        let process = match Process::open(self.pid) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // Who held the lock before and after is the one that was opened in between.
        let still = holder(&self.file)?.is_some_and(|Held(pid)| pid == Some(self.pid));
        Ok(still.then_some(process))
    }

    /// What it says by now, also when it has removed the file.
    pub(super) fn record(&self) -> Option<Record> {
        Record::parse(&read(&self.file).ok()?).or_else(|| self.record.clone())
    }
}

/// That something else is in the place of a PID file, in words.
pub(super) fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no PID file, and left as it is")
}

/// That a link was not followed, in words.
fn no_link(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::new(io::ErrorKind::InvalidInput, "it is a link"),
        _ => error,
    }
}

/// Who holds the lock of that file; `None` when nobody does.
fn holder(file: &File) -> io::Result<Option<Held>> {
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(lock.filter(|lock| lock.typ != FlockType::Unlocked).map(|lock| Held(lock.pid)))
}

/// Whether the file is still the one of that path.
fn is_there(file: &File, path: &Path) -> bool {
    let same = |(ours, theirs): (fs::Metadata, fs::Metadata)| {
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
    };
    file.metadata().ok().zip(fs::symlink_metadata(path).ok()).is_some_and(same)
}

fn read(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
