//! What a manager is to run: plain values, made from the config by the caller, rendered by each manager.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What stands for the instance's name in the texts of a spec that is for every instance; no path, argument or variable
/// can have it.
pub const ANY_INSTANCE: &str = "\0";

/// A bridge to be kept running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSpec {
    /// Its name, or [`ANY_INSTANCE`].
    pub instance: String,
    /// Its config, or where the default config would be; empty for any instance.
    pub config: PathBuf,
    /// One line for people.
    pub description: String,
    /// The program, by absolute path, and its arguments, all taken literally.
    pub exec: Vec<String>,
    /// The program, and its arguments, that has the running bridge read its config anew and waits until it has.
    pub reload: Vec<String>,
    /// Variables of the bridge, taken literally. Anyone who may ask the manager can read them: no secrets.
    pub environment: BTreeMap<String, String>,
    /// Files of variables, read by the manager at each start; their content stays private.
    pub environment_files: Vec<PathBuf>,
    /// Credentials by name, each from a file that the manager reads at each start.
    pub credentials: BTreeMap<String, PathBuf>,
    /// The folder to run in; the manager's default when `None`.
    pub working_directory: Option<PathBuf>,
    /// Whom it runs as.
    pub account: Account,
    /// How far it is shut off from the machine.
    pub sandbox: Sandbox,
    /// Folders that a strict sandbox leaves writable.
    pub writable: Vec<PathBuf>,
    /// When to start it again.
    pub restart: Restart,
    /// What it may use.
    pub limits: Limits,
    /// How long it may take until it serves.
    pub start_timeout: Duration,
    /// How long it may take to stop before it is killed.
    pub stop_timeout: Duration,
    /// How long it may be silent before it is taken for hung, ended and restarted; `None` for ever.
    pub watchdog: Option<Duration>,
    /// Where its process id is written, where its manager does that; `None` is the usual place.
    pub pid_file: Option<PathBuf>,
    /// Where its log is written, where its manager has files for it; `None` is the usual place.
    pub log_file: Option<PathBuf>,
    /// The size in bytes at which a new log file is begun.
    pub log_size: u64,
    /// How many old log files are kept.
    pub log_keep: u32,
}

/// Whom a bridge runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// Whoever the manager runs as: the user, or root.
    Managers,
    /// The system account that is there for bridges, with a home of the instance's own.
    Own,
    /// Another user, group or both; only the system's manager can change to them.
    Named {
        /// The user.
        user: Option<String>,
        /// The group.
        group: Option<String>,
    },
}

/// The system account of the machine's bridges, its group, and the name of their folders.
pub const OWN_ACCOUNT: &str = "foxxy-bridge";

/// How far a bridge and its upstreams are shut off from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// As far as the usual work of MCP servers allows.
    Auto,
    /// Not at all.
    Off,
    /// As far as systemd can.
    Strict,
}

/// When a bridge that failed is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// How many times in a row; `None` for ever, 0 never.
    pub attempts: Option<u32>,
    /// The wait before the first.
    pub delay: Duration,
    /// The wait grows up to this, where the manager can do that.
    pub max_delay: Option<Duration>,
}

/// What a bridge and its upstreams may use together; `None` leaves the manager's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory beyond which it is killed.
    pub memory_max: Option<Memory>,
    /// Memory beyond which it is slowed down.
    pub memory_high: Option<Memory>,
    /// Processor time in microseconds a second: 1,500,000 is one processor and a half.
    pub cpu_quota: Option<u64>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
    /// Open files of one process.
    pub nofile: Option<u64>,
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// So much of the machine's, in hundredths of a percent.
    Share(u32),
    /// As much as there is.
    Unlimited,
}

/// A socket that systemd listens on for a bridge, which is started by its first client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSpec {
    /// The bridge's name, or [`ANY_INSTANCE`].
    pub instance: String,
    /// Where.
    pub address: SocketAddr,
}

impl SocketSpec {
    /// What the template of all instances says, for each that says nothing else.
    pub fn of_any_instance() -> Self {
        Self { instance: ANY_INSTANCE.to_owned(), address: SocketAddr::from(([127, 0, 0, 1], 8080)) }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self { attempts: Some(5), delay: Duration::from_secs(2), max_delay: Some(Duration::from_secs(30)) }
    }
}

#[cfg(test)]
impl UnitSpec {
    /// A bridge with nothing special about it.
    pub(crate) fn example() -> Self {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        Self {
            instance: "work".into(),
            config: "/home/ada/work.json".into(),
            description: "foxxy-bridge work".into(),
            exec: words("/usr/bin/foxxy-bridge server start --instance work"),
            reload: words("/usr/bin/foxxy-bridge server reload work"),
            environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            environment_files: Vec::new(),
            credentials: BTreeMap::new(),
            working_directory: None,
            account: Account::Managers,
            sandbox: Sandbox::Off,
            writable: Vec::new(),
            restart: Restart::default(),
            limits: Limits::default(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(20),
            watchdog: None,
            pid_file: None,
            log_file: None,
            log_size: 10 << 20,
            log_keep: 5,
        }
    }
}
