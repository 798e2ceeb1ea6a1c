//! Processes, known by more than their number: numbers are used again, after each boot above all.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What tells a process from all others, before and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// Clock ticks from the boot to its start (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// The boot that it was started in.
    pub boot_id: String,
}

impl Identity {
    /// Of the process that has that number now; `None` when there is none, or only one that has ended and waits to be
    /// reaped: the first process of a container may never do that.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, boot_id: boot_id() })
    }

    /// Of this process.
    ///
    /// # Errors
    /// When there is no `/proc` to read it from.
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id()).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))
    }

    /// Whether it was started in this boot.
    #[must_use]
    pub fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }
}

/// A process that is meant whatever becomes of its number.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process that has that number now.
    ///
    /// # Errors
    /// From the system: there is none of that number.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self { fd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Sends it a signal. One that has ended gets none.
    ///
    /// # Errors
    /// From the system: it is another user's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Err(Errno::SRCH) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Waits for its end, but no longer than that; whether it has ended.
    ///
    /// # Errors
    /// From the system.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for its end, in a tokio runtime.
    ///
    /// # Errors
    /// From the system.
    pub async fn ended(self) -> io::Result<()> {
        #[expect(unsafe_code, reason = "tokio has nothing safe for a descriptor of this kind")]
        // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) }
            .map_err(io::Error::from)?;
        let ready = fd.readable().await?;
        drop(ready);
        Ok(())
    }
}

/// The processes that have this one among their ancestors, those nearest to it first.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in all() {
        children.entry(parent).or_default().push(pid);
    }
    let (mut found, mut at) = (vec![pid], 0);
    while let Some(pid) = found.get(at) {
        // Read one by one, so that what came and went meanwhile may seem to go in a circle.
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found.split_off(1)
}

/// Those of them that have not ended.
#[must_use]
pub fn living_descendants(pid: u32) -> Vec<u32> {
    let lives =
        |pid: &u32| stat(*pid).and_then(|stat| field::<char>(&stat, 3)).is_some_and(|state| state != 'Z');
    descendants(pid).into_iter().filter(lives).collect()
}

/// The children of this process, those that have ended and were not reaped among them.
#[must_use]
pub fn children() -> Vec<u32> {
    let own = std::process::id();
    all().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect()
}

/// All processes that this user may see, and their parents.
fn all() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, field(&stat(pid)?, 4)?)))
}

/// The session that a process is in; 0 for one of another PID namespace.
#[must_use]
pub fn session(pid: u32) -> Option<u32> {
    field(&stat(pid)?, 6)
}

/// Which boot this is.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = stat(pid)?;
    let has_ended = matches!(field::<char>(&stat, 3), Some('Z' | 'X'));
    field(&stat, 22).filter(|_| !has_ended)
}

fn stat(pid: u32) -> Option<String> {
    // The program's name in it need not be text.
    Some(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned())
}

/// A field of `/proc/PID/stat`, by its number in proc_pid_stat(5), from 3 on.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    // The second one is a name in brackets, which may have blanks and brackets in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_cannot_fake_the_fields_by_its_name() {
        let stat = "7 (a) S 1 (b)) S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!((field::<u32>(stat, 4), field::<u64>(stat, 22)), (Some(42), Some(98765)));
        assert_eq!(field::<u32>("7 (a", 4), None);
    }

    #[test]
    fn a_process_is_itself_and_ends_once() {
        let own = Identity::own().unwrap();
        assert!(own.is_of_this_boot());
        assert_eq!(Identity::of(own.pid), Some(own));
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        let process = Process::open(Pid::from_child(&child)).unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap());
        process.signal(Signal::KILL).unwrap();
        assert!(process.wait(Duration::from_secs(20)).unwrap());
        assert_eq!(Identity::of(child.id()), None, "nobody has reaped it, and it has ended");
        child.wait().unwrap();
        process.signal(Signal::KILL).unwrap();
        assert_eq!(Identity::of(child.id()), None);
    }
}
