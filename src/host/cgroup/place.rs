//! The control group that was delegated to us: found, cleared of what is left over, and laid out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::getxattr;

use super::{
    BRIDGE, CONTROLLERS, NAMESAKES, Taken, UPSTREAMS, group, group_name, inner_groups, is_there, remove,
};

/// Where the groups of upstreams are made.
#[derive(Debug)]
pub(super) struct Place {
    /// The group that they are in.
    pub(super) upstreams: PathBuf,
    /// The controllers that they have.
    pub(super) controllers: Vec<String>,
    pub(super) taken: Taken,
}

impl Place {
    /// Whether groups of upstreams have that controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|there| there == controller)
    }

    /// Makes an empty group for an upstream; its folder, and the name to give back once it is removed.
    pub(super) fn make(&self, upstream: &str) -> io::Result<(PathBuf, String)> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let name = group_name(upstream);
        let names = (1..=NAMESAKES).map(|number| match number {
            1 => name.clone(),
            // No upstream's name has this character.
            _ => format!("{name}~{number}"),
        });
        let mut failure = None;
        for name in names.filter(|name| !taken.contains(name)).collect::<Vec<_>>() {
            let folder = self.upstreams.join(&name);
            let made = fs::create_dir(&folder).or_else(|error| match is_there(&error) {
                // It is nobody's, and what it has counted is not this run's.
                true => remove(&folder).and_then(|()| fs::create_dir(&folder)),
                false => Err(error),
            });
            match made {
                Ok(()) => {
                    taken.insert(name.clone());
                    return Ok((folder, name));
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::other("too many of its groups cannot be removed")))
    }
}

/// Takes over the group of `unit`, which this process is the main process of; or says why not.
pub(super) async fn take(unit: &str) -> Result<Place, String> {
    let (groups, mounts) = own()?;
    let root = folder_of(unit, &groups, &mounts).ok_or("the unit has no control group of version 2")?;
    if !root.join("cgroup.kill").exists() {
        return Err("the kernel is older than Linux 5.14".to_owned());
    }
    if !is_delegated(&root) {
        return Err("the unit has no `Delegate=yes`".to_owned());
    }
    lay_out(&root).await
}

/// Makes a group of that name below this process's own, where nobody else has all of them in hand; or says why not.
pub(super) async fn make(name: &str) -> Result<Place, String> {
    let root = below_own(name)?;
    fs::create_dir(&root)
        .or_else(|error| if is_there(&error) { Ok(()) } else { Err(error) })
        .map_err(|error| format!("cannot make {}: {error}", root.display()))?;
    let place = match root.join("cgroup.kill").exists() {
        true => lay_out(&root).await,
        false => Err("the kernel is older than Linux 5.14".to_owned()),
    };
    // What cannot be used is not left behind.
    place.inspect_err(|_| drop(remove(&root)))
}

/// Where a group of that name would be; or why there can be none.
pub(super) fn below_own(name: &str) -> Result<PathBuf, String> {
    if Path::new("/run/systemd/system").is_dir() {
        return Err("the control groups are systemd's, which has not given any".to_owned());
    }
    let (groups, mounts) = own()?;
    let own = own_folder(&groups, &mounts).ok_or("there are no control groups of version 2")?;
    Ok(own.join(name))
}

/// What the kernel says of this process's groups and mounts.
fn own() -> Result<(String, String), String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    Ok((read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?))
}

/// Clears a group of what is left over in it, moves this process one down, and makes room for the upstreams.
async fn lay_out(root: &Path) -> Result<Place, String> {
    let (groups, mounts) = own()?;
    let failed = |what: &str, error: &io::Error| format!("{what} {}: {error}", root.display());
    // The service manager's own begin with a dot.
    let ours =
        |group: &PathBuf| !group.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let here = own_folder(&groups, &mounts);
    for left_over in inner_groups(root).into_iter().filter(ours) {
        if here.as_ref().is_some_and(|here| here.starts_with(&left_over)) {
            continue;
        }
        tracing::warn!("ending what an earlier bridge has left in {}", left_over.display());
        if let Err(error) = group::end(&left_over).await {
            tracing::warn!("{}: {error}", left_over.display());
        }
    }
    let (bridge, upstreams) = (root.join(BRIDGE), root.join(UPSTREAMS));
    for group in [&bridge, &upstreams] {
        fs::create_dir(group)
            .or_else(|error| if is_there(&error) { Ok(()) } else { Err(error) })
            .map_err(|error| failed("cannot make groups in", &error))?;
    }
    if let Err(error) = super::write(&bridge.join("cgroup.procs"), "0") {
        for group in [&bridge, &upstreams] {
            // What cannot be used is not left behind; nobody is in it.
            let _ = remove(group);
        }
        return Err(failed("cannot leave", &error));
    }
    hand_down(root);
    hand_down(&upstreams);
    let controllers = read_words(&upstreams.join("cgroup.subtree_control"));
    Ok(Place { upstreams, controllers, taken: Taken::default() })
}

/// Gives the groups in `group` the controllers that it has, each on its own: one that cannot be had costs no other.
fn hand_down(group: &Path) {
    let there = read_words(&group.join("cgroup.controllers"));
    for controller in CONTROLLERS.iter().filter(|controller| there.iter().any(|there| there == *controller)) {
        if let Err(error) = super::write(&group.join("cgroup.subtree_control"), &format!("+{controller}")) {
            tracing::warn!("no `{controller}` for what is in {}: {error}", group.display());
        }
    }
}

fn read_words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether the group is ours to use. systemd marks those that are with `delegate`, beside the `invocation_id` that it
/// marks all with: `user.…` since version 251, `trusted.…`, which only root can read, before.
///
/// A user's manager writes neither, in 252 and 257. There all groups are the user's, and that one can be used has to
/// do.
fn is_delegated(group: &Path) -> bool {
    let mark = |name: &str| {
        let mut value = [0_u8; 64];
        let length = getxattr(group, name, &mut value).ok()?;
        value.get(..length).map(<[u8]>::to_vec)
    };
    let is_marked =
        ["user.invocation_id", "trusted.invocation_id"].into_iter().any(|name| mark(name).is_some());
    let says_so = |name: &str| mark(name).is_some_and(|value| value == b"1");
    !is_marked || says_so("user.delegate") || says_so("trusted.delegate")
}

/// The folder of the group of `unit`, which this process is in or below, from `/proc/self/cgroup` and
/// `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn folder_of(unit: &str, groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = own_folder(groups, mounts)?;
    own.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == unit)).map(Path::to_owned)
}

/// The folder of this process's group.
fn own_folder(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        if !filesystem.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // What is mounted may be a part only. A point with special characters is not where a cgroup2 belongs.
        let below = Path::new(group).strip_prefix(root).ok().filter(|_| !point.contains('\\'))?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_an_upstream_never_share_a_group() {
        let root = tempfile::tempdir().unwrap();
        let place =
            Place { upstreams: root.path().to_owned(), controllers: Vec::new(), taken: Taken::default() };
        let make = || place.make("memory").map(|(_, name)| name).map_err(|error| error.to_string());
        assert_eq!(make().as_deref(), Ok("memory"));
        assert_eq!(make().as_deref(), Ok("memory~2"));
        // The first is over, and its group is gone; or is still there, and empty.
        for _ in 0..2 {
            place.taken.lock().unwrap().remove("memory");
            assert_eq!(make().as_deref(), Ok("memory"));
        }
        // One that cannot be removed is left alone.
        place.taken.lock().unwrap().remove("memory");
        fs::write(root.path().join("memory/a-process"), "").unwrap();
        assert_eq!(make().as_deref(), Ok("memory~3"));
        let names: Vec<_> = std::iter::repeat_with(make).take(6).collect();
        assert_eq!(names[4].as_deref(), Ok("memory~8"));
        assert!(names[5].is_err(), "{names:?}");
    }

    const UNIT: &str = "foxxy-bridge-work.service";
    const MOUNTS: &str = "\
        24 30 0:22 / /proc rw,nosuid - proc proc rw\n\
        33 24 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_units_group_is_found_from_within_it_and_from_below() {
        let slice = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        let expected = PathBuf::from(format!("/sys/fs/cgroup{slice}/{UNIT}"));
        for below in ["", "/bridge"] {
            let groups = format!("0::{slice}/{UNIT}{below}\n");
            assert_eq!(folder_of(UNIT, &groups, MOUNTS), Some(expected.clone()));
        }
        assert_eq!(folder_of("other.service", &format!("0::{slice}/{UNIT}\n"), MOUNTS), None);
    }

    #[test]
    fn the_second_version_is_found_beside_the_first_and_where_a_part_of_it_is_mounted() {
        let hybrid = "9:memory:/a\n1:name=systemd:/system.slice/foxxy-bridge-work.service\n0::/\n";
        assert_eq!(folder_of(UNIT, hybrid, MOUNTS), None);
        let unified = "40 24 0:30 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        let groups = format!("0::/system.slice/{UNIT}\n");
        let expected = PathBuf::from(format!("/sys/fs/cgroup/unified/system.slice/{UNIT}"));
        assert_eq!(folder_of(UNIT, &groups, unified), Some(expected));
        let part = "40 24 0:30 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folder_of(UNIT, &groups, part), Some(PathBuf::from(format!("/sys/fs/cgroup/{UNIT}"))));
        let elsewhere = "40 24 0:30 /machine.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folder_of(UNIT, &groups, elsewhere), None);
        assert_eq!(folder_of(UNIT, &groups, "24 30 0:22 / /proc rw - proc proc rw\n"), None);
        assert_eq!(folder_of(UNIT, "", MOUNTS), None);
    }
}
