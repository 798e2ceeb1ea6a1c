//! What a manager is to run: plain values, made from the config by the caller, rendered by each manager.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A bridge to be kept running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitSpec {
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
    /// The user to run as; only the system's manager can change it.
    pub user: Option<String>,
    /// The group to run as; only the system's manager can change it.
    pub group: Option<String>,
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

impl Default for Restart {
    fn default() -> Self {
        Self { attempts: Some(5), delay: Duration::from_secs(2), max_delay: Some(Duration::from_secs(30)) }
    }
}
