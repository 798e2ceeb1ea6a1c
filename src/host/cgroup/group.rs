//! The control group of one run of an upstream.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::limits::machine_memory;
use super::place::Place;
use super::{Limits, Taken, enter, inner_groups, number_of, remove, write};

/// How long killed processes may take to be gone: one that the kernel holds on to is not waited for.
const EMPTYING: Duration = Duration::from_secs(5);

/// See the module. It is there until `end` or `abandon` removes it.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    name: String,
    taken: Taken,
}

/// What the processes of a group use; what is not known is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all that were ever in it.
    pub cpu: Option<Duration>,
    /// Bytes of memory, the cache of files that they read included; needs the `memory` controller.
    pub memory: Option<u64>,
    /// Processes.
    pub processes: Option<usize>,
}

impl Group {
    pub(super) fn new(folder: PathBuf, name: String, place: &Place) -> Self {
        Self { folder, name, taken: Taken::clone(&place.taken) }
    }

    /// Sets the limits that there are controllers for; which of them the kernel did not take, a sentence each.
    pub(super) fn limit(&self, place: &Place, limits: &Limits) -> Vec<String> {
        // One that starved without one of its processes would be of no use to anyone.
        if place.has("memory")
            && let Err(error) = write(&self.folder.join("memory.oom.group"), "1")
        {
            tracing::debug!("{}: memory.oom.group: {error}", self.folder.display());
        }
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
        let settings = limits.settings(machine).into_iter().filter(|setting| place.has(setting.controller));
        settings
            .filter_map(|setting| {
                let error = write(&self.folder.join(setting.file), &setting.value).err()?;
                Some(format!("{} is not in force: {error}", setting.limit))
            })
            .collect()
    }

    /// A command that first goes into the group, and then becomes `program` in the same process: whatever it starts is
    /// in the group from its first instruction.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        enter::command(&self.folder, program)
    }

    /// What its processes use now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).ok();
        Usage {
            cpu: read("cpu.stat").and_then(|text| number_of(&text, "usage_usec")).map(Duration::from_micros),
            memory: read("memory.current").and_then(|text| text.trim().parse().ok()),
            processes: processes(&self.folder),
        }
    }

    /// Why the kernel killed processes in it for want of memory, if it did.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<String> {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        starved(&read("memory.events"), &read("memory.max"))
    }

    /// Kills all that is in it, whatever group, session or parent a process has given itself.
    pub fn kill(&self) {
        kill(&self.folder);
    }

    /// Kills all that is in it, waits until nothing is, and removes it.
    ///
    /// # Errors
    /// When a process stays, or from the system.
    pub async fn end(&self) -> io::Result<()> {
        end(&self.folder).await?;
        self.give_back();
        Ok(())
    }

    /// Removes it when nothing was ever started in it.
    pub fn abandon(&self) {
        match remove(&self.folder) {
            Ok(()) => self.give_back(),
            Err(error) => tracing::debug!("{}: {error}", self.folder.display()),
        }
    }

    fn give_back(&self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn kill(group: &Path) {
    match write(&group.join("cgroup.kill"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{}: cgroup.kill: {error}", group.display());
        }
        _ => {}
    }
}

/// Kills all that is in a group, waits until nothing is, and removes it.
pub(super) async fn end(group: &Path) -> io::Result<()> {
    kill(group);
    let folder = group.to_owned();
    tokio::task::spawn_blocking(move || emptied(&folder)).await??;
    remove(group)
}

/// Waits until no process is in a group or below it.
fn emptied(group: &Path) -> io::Result<()> {
    let events = match File::open(group.join("cgroup.events")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let until = Instant::now() + EMPTYING;
    let mut text = [0_u8; 256];
    loop {
        let length = events.read_at(&mut text, 0)?;
        let text = str::from_utf8(&text[..length]).unwrap_or_default();
        if number_of(text, "populated") == Some(0) {
            return Ok(());
        }
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap_or_default();
        // The kernel tells of each change after the last look.
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed process stays")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many processes are in a group and below it.
fn processes(group: &Path) -> Option<usize> {
    let text = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let below = inner_groups(group).into_iter().filter_map(|inner| processes(&inner));
    Some(text.lines().count() + below.sum::<usize>())
}

/// What `memory.events` and `memory.max` tell of a group whose processes the kernel has killed.
fn starved(events: &str, max: &str) -> Option<String> {
    number_of(events, "oom_kill").filter(|kills| *kills > 0)?;
    Some(match max.trim().parse::<u64>() {
        Ok(max) => format!("the kernel killed it: it needed more memory than its memory_max of {max} bytes"),
        Err(_) => "the kernel killed it: there was no memory left".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    #[test]
    fn limits_are_set_each_on_its_own_and_what_is_refused_is_told() {
        let root = tempfile::tempdir().unwrap();
        let controllers = ["memory", "pids"].map(str::to_owned).to_vec();
        let place = Place { upstreams: root.path().to_owned(), controllers, taken: Taken::default() };
        let (folder, name) = place.make("up").unwrap();
        for file in ["pids.max", "memory.oom.group", "cpu.max"] {
            fs::write(folder.join(file), "").unwrap();
        }
        let limits =
            Limits { memory_max: Some(Memory::Bytes(1)), cpu_quota: Some(1_000_000), tasks_max: Some(64) };
        let refused = Group::new(folder.clone(), name, &place).limit(&place, &limits);
        assert_eq!(refused, ["memory_max is not in force: No such file or directory (os error 2)"]);
        let written = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        // Nothing is written for a controller that is not there.
        assert_eq!([written("pids.max"), written("memory.oom.group"), written("cpu.max")], ["64", "1", ""]);
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_with_the_limit() {
        let events = |kills| format!("low 0\nhigh 0\nmax 9\noom 1\noom_kill {kills}\noom_group_kill 1\n");
        assert_eq!(
            starved(&events(2), "1048576\n").as_deref(),
            Some("the kernel killed it: it needed more memory than its memory_max of 1048576 bytes")
        );
        assert_eq!(
            starved(&events(1), "max\n").as_deref(),
            Some("the kernel killed it: there was no memory left")
        );
        // The limit was met, but something else could be given up.
        assert_eq!(starved(&events(0), "1048576\n"), None);
        assert_eq!(starved("", ""), None);
    }
}
