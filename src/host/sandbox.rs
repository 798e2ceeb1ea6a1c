//! What a sandbox looks like from inside: a process can tell what holds for it, whatever its unit asks for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{MemfdFlags, Mode, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use super::notify;

/// The error that a refused system call is to give in a trial (`SystemCallErrorNumber=`): no kernel gives it by itself.
pub const REFUSAL: i32 = Errno::ADV.raw_os_error();

/// Places that may be read-only.
const PLACES: [&str; 5] = ["/", "/etc", "/proc/sys", "/usr", "/var"];

/// Something that a system call filter may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Entering a namespace.
    Setns,
    /// Giving a file the set-user-ID bit.
    SetuidBit,
    /// A socket of a family that no bridge needs.
    PacketSocket,
    /// Taking another root folder.
    PivotRoot,
}

/// What holds for a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Whether no program that it runs gets more rights than it has.
    pub no_new_privileges: bool,
    /// How many system call filters there are.
    pub filters: u32,
    /// The capabilities that it could ever have, as a mask.
    pub capabilities: u64,
    /// Those that the programs it runs keep, as a mask.
    pub ambient: u64,
    /// Its user namespace.
    pub users: String,
    /// Its namespace of host names.
    pub names: String,
    /// Its namespace of mounts.
    pub mounts: String,
    /// Which folder its `/tmp` is.
    pub tmp: String,
    /// Which folder its `/dev` is.
    pub dev: String,
    /// Which folder its `/home` is.
    pub home: String,
    /// Whether its `/proc` does not have the processes of others.
    pub processes_hidden: bool,
    /// The places that it cannot write to, whatever their permissions.
    pub read_only: BTreeSet<String>,
    /// What a filter refuses.
    pub refused: BTreeSet<Call>,
}

impl View {
    /// Looks around in this process. Changes nothing.
    #[must_use]
    pub fn take() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let namespace = |kind: &str| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}"));
            link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let folder = |path: &str| {
            fs::metadata(path).map(|found| format!("{}:{}", found.dev(), found.ino())).unwrap_or_default()
        };
        let read_only = |place: &&str| {
            rustix::fs::statvfs(*place).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
        };
        let field = |name: &str| field(&status, name);
        let mask =
            |name: &str| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
        Self {
            no_new_privileges: field("NoNewPrivs") == Some("1"),
            filters: field("Seccomp_filters").and_then(|count| count.parse().ok()).unwrap_or_default(),
            capabilities: mask("CapBnd"),
            ambient: mask("CapAmb"),
            users: namespace("user"),
            names: namespace("uts"),
            mounts: namespace("mnt"),
            tmp: folder("/tmp"),
            dev: folder("/dev"),
            home: folder("/home"),
            processes_hidden: fs::read_to_string("/proc/self/mountinfo")
                .is_ok_and(|mounts| hides_processes(&mounts)),
            read_only: PLACES.iter().filter(|place| read_only(place)).map(ToString::to_string).collect(),
            refused: [Call::Setns, Call::SetuidBit, Call::PacketSocket, Call::PivotRoot]
                .into_iter()
                .filter(|call| call.is_refused())
                .collect(),
        }
    }

    /// Says it to the service manager, as the status of this process.
    pub fn tell(&self) {
        // Plain numbers and strings become JSON.
        notify::status(&serde_json::to_string(self).unwrap_or_default());
    }

    /// Reads what [`View::tell`] said.
    #[must_use]
    pub fn read(status: &str) -> Option<Self> {
        serde_json::from_str(status).ok()
    }
}

impl Call {
    /// Whether a filter refuses it. What is tried cannot work without one either, but fails in another way.
    fn is_refused(self) -> bool {
        match self {
            Self::Setns => File::open("/proc/self/status").is_ok_and(|file| {
                rustix::thread::move_into_link_name_space(file.as_fd(), None) == Err(Errno::PERM)
            }),
            Self::SetuidBit => {
                rustix::fs::memfd_create("foxxy-bridge", MemfdFlags::CLOEXEC).is_ok_and(|file| {
                    rustix::fs::fchmod(&file, Mode::SUID | Mode::RUSR | Mode::WUSR) == Err(Errno::PERM)
                })
            }
            Self::PacketSocket => {
                rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, None).err()
                    == Some(Errno::AFNOSUPPORT)
            }
            Self::PivotRoot => {
                let error = rustix::process::pivot_root("/proc/self/nowhere", "/proc/self/nowhere").err();
                error.map(Errno::raw_os_error) == Some(REFUSAL)
            }
        }
    }
}

/// The value of a field of `/proc/PID/status` (proc(5)).
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether the `/proc` on top of those in `/proc/PID/mountinfo` (proc(5)) is one that hides processes.
fn hides_processes(mounts: &str) -> bool {
    let top = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = top.and_then(|line| line.split_once(" - ")?.1.split(' ').nth(2));
    let hides = |option| matches!(option, "hidepid=invisible" | "hidepid=2");
    options.is_some_and(|options| options.split(',').any(hides))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_says_whether_processes_are_hidden() {
        let plain =
            "21 26 0:19 / /proc rw,nosuid shared:12 - proc proc rw\n22 26 0:20 / /sys rw - sysfs sysfs rw\n";
        let hidden = "90 80 0:60 / /proc rw,nosuid shared:99 - proc proc rw,hidepid=invisible\n";
        assert!(!hides_processes(plain));
        assert!(hides_processes(&format!("{plain}{hidden}")));
        assert!(!hides_processes(&format!("{hidden}{plain}")));
        assert!(hides_processes(&hidden.replace("invisible", "2")));
        assert!(!hides_processes(&hidden.replace("invisible", "noaccess")));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t7\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "Seccomp_filters"), Some("7"));
        assert_eq!(field(status, "Cap"), None);
    }

    #[test]
    fn what_is_seen_can_be_told_in_one_line() {
        let view = View::take();
        assert!(view.users.starts_with("user:["), "{view:?}");
        let line = serde_json::to_string(&view).unwrap();
        assert!(!line.contains(char::is_whitespace), "{line}");
        assert_eq!(View::read(&line), Some(view));
        assert_eq!(View::read("serving"), None);
    }

    #[test]
    fn without_a_filter_nothing_is_refused() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        if field(&status, "Seccomp") == Some("0") {
            assert_eq!(View::take().refused, BTreeSet::new());
        }
    }
}
