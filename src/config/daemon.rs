//! `bridge.daemon`: how the bridge is kept running.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Secret, Text};
use super::units::{CpuQuota, MemoryLimit, Size, seconds};

/// How the bridge is kept running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Daemon {
    /// Where the process id is written, without systemd; by default in `pids` beside the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<Text>,
    /// Where the log is written, without systemd; by default in `logs` beside the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<Text>,
    /// The user to run as: for root alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// The group to run as: for root alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Text>,
    /// What keeps the bridge running; `auto` is systemd where there is one.
    pub manager: ManagerChoice,
    /// Which systemd: the user's own or the machine's; by default the machine's for root, else the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What happens when the bridge fails.
    pub restart: Restart,
    /// How large log files grow, without systemd.
    pub log: LogFiles,
    /// What the bridge and its servers may use, together.
    pub limits: Limits,
    /// Environment variables of the bridge.
    pub environment: IndexMap<String, Secret>,
    /// A file with more of them, one `NAME=value` a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_file: Option<Text>,
    /// Credentials by name: the file that each is read from.
    pub credentials: IndexMap<String, Text>,
    /// How far the service is shut off from the machine.
    pub sandbox: Sandbox,
    /// Seconds without a sign of life after which the bridge is restarted; 0 is off.
    #[serde(with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub watchdog: Duration,
    /// Seconds for an orderly stop, after which the bridge is killed.
    #[serde(with = "seconds")]
    #[schemars(with = "f64", range(min = 1, max = 86_400))]
    pub stop_timeout: Duration,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            pid_file: None,
            log_file: None,
            user: None,
            group: None,
            manager: ManagerChoice::Auto,
            scope: None,
            restart: Restart::default(),
            log: LogFiles::default(),
            limits: Limits::default(),
            environment: IndexMap::new(),
            environment_file: None,
            credentials: IndexMap::new(),
            sandbox: Sandbox::Auto,
            watchdog: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(20),
        }
    }
}

/// What keeps the bridge running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ManagerChoice {
    /// systemd where there is one, else a PID file.
    Auto,
    /// systemd.
    Systemd,
    /// A supervisor of our own with a PID file.
    Pidfile,
}

/// Which systemd manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Scope {
    /// The user's own.
    User,
    /// The machine's.
    System,
}

/// What happens when the bridge fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Restart {
    /// How often in a row it is restarted before it is given up; 0 is never.
    pub attempts: u32,
    /// Seconds before the first restart.
    #[serde(with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub delay: Duration,
    /// Seconds before a restart at most, as the pauses grow.
    #[serde(with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub max_delay: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self { attempts: 10, delay: Duration::from_secs(2), max_delay: Duration::from_secs(15) }
    }
}

/// How large log files grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogFiles {
    /// The size at which a new file is begun.
    pub max_size: Size,
    /// How many old files are kept.
    pub keep: u32,
}

impl Default for LogFiles {
    fn default() -> Self {
        Self { max_size: Size(10 * 1024 * 1024), keep: 5 }
    }
}

/// What the bridge and its servers may use, together; what is not set is not limited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Memory that is never exceeded: who would, is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<MemoryLimit>,
    /// Memory above which everything is slowed down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<MemoryLimit>,
    /// CPU time; `100%` is one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tasks_max: Option<u64>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64))]
    pub nofile: Option<u64>,
}

/// How far the service is shut off from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Sandbox {
    /// As far as the usual work of servers allows.
    Auto,
    /// Not at all.
    Off,
    /// As far as systemd can; what the servers need must be opened.
    Strict,
}
