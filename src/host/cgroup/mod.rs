//! Control groups (cgroups(7), version 2): where the service manager has delegated its own to us, the bridge and each
//! upstream have one each, so that an upstream is counted, limited and killed with all that it has ever started.
//!
//! ```text
//! foxxy-bridge-work.service    the service manager's; no process stays in it
//! ├─ .control                  what the service manager runs for a reload
//! ├─ bridge
//! └─ upstreams
//!    ├─ memory
//!    └─ memory~2               started anew, while the one before still answers what it was asked
//! ```

mod enter;
mod group;
mod limits;
mod place;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

pub use self::enter::{enter, why_not_entered};
pub use self::group::{Group, Usage};
pub use self::limits::{Limits, Memory};
use self::place::Place;
use super::unit;

/// The controllers that something is done with: a limit, or a number that is shown.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Where the bridge itself is.
const BRIDGE: &str = "bridge";
/// Where the groups of the upstreams are.
const UPSTREAMS: &str = "upstreams";
/// Groups of one name: more would be runs of one upstream whose processes cannot be ended.
const NAMESAKES: usize = 8;

/// The control groups of this process's upstreams, or why they have none.
#[derive(Debug)]
pub struct Groups {
    place: Result<Place, String>,
}

impl Groups {
    /// No groups, for this reason.
    #[must_use]
    pub fn none(why: &str) -> Self {
        Self { place: Err(why.to_owned()) }
    }

    /// Takes over the control group that the service manager has delegated to this process, moves the process one down,
    /// and ends what an earlier life has left there. To be called once, before any child is started; needs a tokio
    /// runtime.
    pub async fn take() -> Self {
        let Some(unit) = unit::own() else { return Self::none("no service manager runs the bridge") };
        let groups = Self::at(place::take(&unit).await);
        if let Err(why) = &groups.place {
            tracing::info!("upstreams have no control groups, only process groups: {why}");
        }
        groups
    }

    /// Makes a control group of that name, where this process may, and moves the process into it. Otherwise as
    /// [`Groups::take`].
    pub async fn make(name: &str) -> Self {
        let groups = Self::at(place::make(name).await);
        if let Err(why) = &groups.place {
            // As is usual for who is not root.
            tracing::debug!("upstreams have no control groups, only process groups: {why}");
        }
        groups
    }

    fn at(place: Result<Place, String>) -> Self {
        match place {
            Ok(place) => {
                let lacking = CONTROLLERS.iter().filter(|controller| !place.has(controller));
                let lacking: Vec<_> = lacking.copied().collect();
                if lacking.is_empty() {
                    tracing::debug!("each upstream has a control group");
                } else {
                    let lacking = lacking.join(", ");
                    tracing::debug!("each upstream has a control group; not there: {lacking}");
                }
                Self { place: Ok(place) }
            }
            Err(why) => Self { place: Err(why) },
        }
    }

    /// Which of these limits cannot be kept here, a sentence each.
    #[must_use]
    pub fn unenforced(&self, limits: &Limits) -> Vec<String> {
        let settings = limits.settings(None);
        match &self.place {
            Err(why) => {
                settings.iter().map(|setting| format!("{} is not in force: {why}", setting.limit)).collect()
            }
            Ok(place) => settings
                .iter()
                .filter(|setting| !place.has(setting.controller))
                .map(|setting| {
                    format!(
                        "{} is not in force: the bridge was given no `{}` controller",
                        setting.limit, setting.controller
                    )
                })
                .collect(),
        }
    }

    /// Makes the group of one run of an upstream, with those of the limits that can be kept; `None` where there are no
    /// groups. With it come the limits that the kernel did not take, a sentence each.
    ///
    /// # Errors
    /// From the system, when there should be one and cannot.
    pub fn open(&self, upstream: &str, limits: &Limits) -> io::Result<Option<(Group, Vec<String>)>> {
        let Ok(place) = &self.place else { return Ok(None) };
        let (folder, name) = place.make(upstream)?;
        let group = Group::new(folder, name, place);
        let refused = group.limit(place, limits);
        Ok(Some((group, refused)))
    }
}

/// Where [`Groups::make`] makes a group of that name, if it can.
#[must_use]
pub fn below_own(name: &str) -> Option<PathBuf> {
    place::below_own(name).ok()
}

/// Kills all processes in a group, and removes it. One that is not there is fine.
///
/// # Errors
/// From the system, and when a process stays.
pub async fn end(group: &Path) -> io::Result<()> {
    if group.is_dir() { group::end(group).await } else { Ok(()) }
}

/// Names of groups that are there, so that nobody takes one that is still empty for one that is left over.
type Taken = Arc<Mutex<HashSet<String>>>;

/// What an upstream's group is called. A leading `_` keeps it apart from the files that the kernel has in each group:
/// those are called `CONTROLLER.…`, and no controller's name begins with a `_`.
fn group_name(upstream: &str) -> String {
    let is_controller = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let first = upstream.split_once('.').map(|(first, _)| first);
    if upstream.starts_with(['_', '.']) || first.is_some_and(is_controller) {
        format!("_{upstream}")
    } else {
        upstream.to_owned()
    }
}

/// Writes a value into one of a group's files.
fn write(file: &Path, value: &str) -> io::Result<()> {
    // Not `fs::write`: a file that is not there must not be made, and cannot be cut off.
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Removes a group that no process is in, with those in it. One that is gone already is fine.
fn remove(group: &Path) -> io::Result<()> {
    for inner in inner_groups(group) {
        remove(&inner)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The groups right below that one.
fn inner_groups(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// The value of a key in one of a group's files that have a key and a number on each line.
fn number_of(text: &str, key: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

/// Whether making a group failed because one of that name is there.
fn is_there(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_has_the_name_of_a_file_that_the_kernel_has_or_may_have() {
        for (upstream, group) in [
            ("memory", "memory"),
            ("memory.max", "_memory.max"),
            ("cgroup.kill", "_cgroup.kill"),
            ("perf_event.x", "_perf_event.x"),
            ("docs.v2", "_docs.v2"),
            ("Docs.v2", "Docs.v2"),
            ("my-docs.v2", "my-docs.v2"),
            ("_memory.max", "__memory.max"),
            ("..", "_.."),
            (".control", "_.control"),
        ] {
            assert_eq!(group_name(upstream), group, "{upstream}");
        }
    }

    #[test]
    fn a_number_is_found_by_its_whole_key() {
        let events = "low 0\nhigh 3\nmax 12\noom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(number_of(events, "oom_kill"), Some(2));
        assert_eq!(number_of(events, "oom"), Some(4));
        assert_eq!(number_of(events, "kill"), None);
        assert_eq!(number_of("usage_usec", "usage_usec"), None);
    }

    #[test]
    fn limits_without_groups_are_told_with_the_reason() {
        let limits = Limits { tasks_max: Some(5), cpu_quota: Some(500_000), memory_max: None };
        let told = Groups::none("no service manager runs the bridge").unenforced(&limits);
        assert_eq!(
            told,
            [
                "cpu_quota is not in force: no service manager runs the bridge",
                "tasks_max is not in force: no service manager runs the bridge"
            ]
        );
        assert!(Groups::none("so").unenforced(&Limits::default()).is_empty());
    }
}
