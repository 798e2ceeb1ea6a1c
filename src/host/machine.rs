//! What kind of machine this is.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// The name of PID 1: `systemd`, `init`, or what a container was started with.
#[must_use]
pub fn init() -> String {
    let name = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    Some(name.trim()).filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned()
}

/// Whether this is a container, as far as its runtime left a sign that everybody can read.
#[must_use]
pub fn is_container() -> bool {
    ["/run/systemd/container", "/run/.containerenv", "/.dockerenv"]
        .iter()
        .any(|sign| Path::new(sign).exists())
}

/// The first processes of containers that do nothing but hand on signals to one child, and reap.
const INITS: [&str; 6] = ["catatonit", "docker-init", "dumb-init", "podman-init", "tini", "tini-static"];

/// Whether a container lives for as long as this process does: it is the first one, or the one for which the first one
/// is there.
#[must_use]
pub fn is_first_process() -> bool {
    let is_child_of_first = || rustix::process::getppid().is_some_and(Pid::is_init);
    std::process::id() == 1 || is_child_of_first() && INITS.contains(&init().as_str())
}

/// Whether the journal is kept on disk. One that is not has no files of each user, which these could read.
#[must_use]
pub fn keeps_journal() -> bool {
    Path::new("/var/log/journal").is_dir()
}

/// The controllers that systemd can limit the units below a control group with; none where the group is not in a
/// hierarchy of version 2 (cgroups(7)).
#[must_use]
pub fn controllers(group: &str) -> Option<Vec<String>> {
    let file = format!("/sys/fs/cgroup/{}/cgroup.controllers", group.trim_matches('/'));
    let words = fs::read_to_string(file).ok()?;
    Some(words.split_whitespace().map(str::to_owned).collect())
}
