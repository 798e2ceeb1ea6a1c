//! What kind of machine this is.

use std::fs;
use std::path::Path;

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
