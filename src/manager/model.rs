//! What managers are asked and what they answer.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{Error, SocketSpec, UnitSpec};
use crate::control::Manager;
use crate::instance::Name;

/// What an instance is doing, in the words of `server list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Running,
    /// It has been started and does not serve yet.
    Starting,
    /// It failed and will be started again.
    Restarting,
    /// It has been told to stop.
    Stopping,
    /// It failed and stays down.
    Failed,
    /// It does not run before its first client connects, for whom its manager listens.
    Listening,
    /// It is not running.
    Stopped,
    /// A state that this version does not know.
    Other(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Listening => "listening",
            Self::Stopped => "stopped",
            Self::Other(state) => state,
        })
    }
}

/// One instance as its manager knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// The instance.
    pub name: Name,
    /// Which manager keeps it.
    pub manager: Manager,
    /// The manager's own name for it: a unit, or a PID file.
    pub unit: String,
    /// The bridge's process, while there is one.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: State,
    /// Since when it has been running, or else since when it is in this state.
    pub since: Option<SystemTime>,
    /// The config that its command line names, by itself or by its folder.
    pub config: Option<PathBuf>,
    /// Its command line.
    pub argv: Vec<String>,
    /// How often it was restarted after a failure, if the manager was asked.
    pub restarts: Option<u32>,
    /// The bridge's own last word on itself.
    pub status_text: Option<String>,
    /// Why its last run failed, in words.
    pub failure: Option<String>,
    /// Whether it is gone once stopped; the other kind comes from a unit file.
    pub transient: bool,
    /// The file that defines it.
    pub fragment: Option<PathBuf>,
    /// The unit of somebody's own that its supervisor runs in.
    pub own_unit: Option<String>,
}

/// Whether, and when, an instance is started without anybody typing a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Enablement {
    /// Never.
    No,
    /// With its manager: at boot, or at the user's first login where the manager does not linger.
    Boot,
    /// When its first client connects.
    #[serde(rename = "socket")]
    FirstClient,
}

/// How a running unit differs from its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// They were changed after the bridge was started.
    Newer,
    /// They were changed, and the manager has not read them yet.
    Unread,
}

/// An instance to be enabled.
#[derive(Debug, Clone)]
pub struct EnableRequest {
    /// Whom.
    pub name: Name,
    /// What its unit is to say.
    pub spec: UnitSpec,
    /// What the template of all instances is to say, where no package has brought one.
    pub template: UnitSpec,
    /// Where the manager is to listen for it, if it is to be started by its first client.
    pub socket: Option<SocketSpec>,
    /// The command that does the same again, for whoever opens the file.
    pub command: String,
}

/// What enabling or disabling does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// None when there is nothing to do.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Those steps, after which the manager has to look at the files again.
    pub(super) fn then_reload(mut steps: Vec<Step>) -> Self {
        if !steps.is_empty() {
            steps.push(Step::Reload);
        }
        Self { steps }
    }
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write a unit file.
    Write {
        /// Where.
        path: PathBuf,
        /// All of it.
        text: String,
    },
    /// Remove a unit file.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Have the manager read all unit files anew.
    Reload,
    /// Link units to where the manager starts them.
    Enable {
        /// Which.
        units: Vec<String>,
    },
    /// Remove those links.
    Disable {
        /// Which.
        units: Vec<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, text } => {
                write!(f, "write {}:", path.display())?;
                text.lines().try_for_each(|line| write!(f, "\n    {line}").map(drop))
            }
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::Reload => f.write_str("call Reload()"),
            Self::Enable { units } => write!(f, "call EnableUnitFiles({units:?}, false, false)"),
            Self::Disable { units } => write!(f, "call DisableUnitFiles({units:?}, false)"),
        }
    }
}

/// What a start runs.
#[derive(Debug, Clone)]
pub enum Run {
    /// A unit that is gone once stopped.
    Transient(Box<UnitSpec>),
    /// The unit of an enabled instance, as its files have it.
    Enabled(Enablement),
}

/// An instance to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Whom.
    pub name: Name,
    /// What to run and how.
    pub run: Run,
    /// How long to wait until it serves.
    pub timeout: Duration,
    /// Whether to wait at all.
    pub wait: bool,
}

/// How a start ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It serves.
    Running(Managed),
    /// It was running before; nothing was changed. Its config may be another one.
    AlreadyRunning(Managed),
    /// It was handed to the manager and nobody waited.
    Queued {
        /// The manager's name for it.
        unit: String,
    },
}

/// How a restart ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    /// What serves again.
    pub managed: Managed,
    /// Whether the settings of its unit are not those that it should have by its config.
    pub outdated: bool,
}

/// How a stop ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It stopped when asked.
    Clean,
    /// It had to be killed.
    Killed,
    /// It had failed and was given up, which is forgotten now.
    GivenUp,
    /// It was not running.
    NotRunning,
}

/// Which log lines are wanted.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// Whose.
    pub name: Name,
    /// Whether to wait for more.
    pub follow: bool,
    /// At most this many of the last lines; `None` for all.
    pub lines: Option<u32>,
    /// From this time on, in the forms that `journalctl --since` reads.
    pub since: Option<String>,
    /// Up to this time, in the same forms.
    pub until: Option<String>,
    /// Only of this upstream.
    pub upstream: Option<String>,
    /// The file that it is in, where its manager has files and does not know it better.
    pub file: Option<PathBuf>,
    /// Only this syslog priority (0 emergency … 7 debug) and what is more urgent.
    pub priority: Option<u8>,
}

/// One log line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in microseconds since 1970.
    pub time: u64,
    /// Its syslog priority: 0 emergency … 7 debug.
    pub priority: u8,
    /// The upstream that it is about.
    pub upstream: Option<String>,
    /// The session that it is about, as the log calls it.
    pub session: Option<String>,
    /// The client's request that it is about, its id as JSON.
    pub request: Option<String>,
    /// The text.
    pub message: String,
    /// The program that said it.
    pub identifier: Option<String>,
    /// The process that said it.
    pub pid: Option<u32>,
}

/// Why the lines of a scope's bridges are hidden from this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// They are in the machine's journal, which is for root and the group `systemd-journal`.
    Machines,
    /// The journal is in memory only, where it is not kept by user.
    Volatile,
}

impl Hidden {
    /// In a sentence.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Machines => "the machine's journal is for root and the group systemd-journal",
            Self::Volatile => {
                "the journal is kept in memory only, and as a whole for root and the group systemd-journal"
            }
        }
    }
}

/// Log lines as they come.
pub type LogStream = BoxStream<'static, Result<Entry, Error>>;
