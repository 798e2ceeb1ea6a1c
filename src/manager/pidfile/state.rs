//! What a supervisor tells of its bridge, in a file beside the control socket: it is there before the bridge answers for
//! itself, and says why when it never does. Of one that was given up it stays behind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::host::file;
use crate::host::process::Identity;
use crate::instance::Name;
use crate::manager;

/// A supervisor's word on its bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Where the bridge stands.
    pub(super) phase: Phase,
    /// Since when, in microseconds since 1970.
    pub(super) since: u64,
    /// The bridge's process, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<u32>,
    /// How often it was restarted after a failure.
    pub(super) restarts: u32,
    /// The bridge's own last word on itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_text: Option<String>,
    /// Why its last run failed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    /// The exit code of that run, when it ended with one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    /// Its config, or where the default config would be.
    pub(super) config: PathBuf,
    /// Its command line.
    pub(super) argv: Vec<String>,
    /// The supervisor's PID file.
    pub(super) pid_file: PathBuf,
    /// Its log; none where that goes to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_file: Option<PathBuf>,
    /// The control group of the bridge, where there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) control_group: Option<PathBuf>,
    /// The unit of somebody's own that the supervisor runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<String>,
    /// What tells its settings from others.
    pub(super) digest: String,
    /// Whether other settings can be put in force while the supervisor lives.
    pub(super) adaptable: bool,
    /// How long it may take to stop before it is killed.
    pub(super) stop_timeout: Duration,
    /// The supervisor.
    pub(super) supervisor: Identity,
}

/// Where a bridge stands with its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// It was started and does not serve yet.
    Starting,
    /// It serves.
    Running,
    /// It failed and will be started again.
    Restarting,
    /// It was told to stop.
    Stopping,
    /// It was given up.
    Failed,
}

impl From<Phase> for manager::State {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Starting => Self::Starting,
            Phase::Running => Self::Running,
            Phase::Restarting => Self::Restarting,
            Phase::Stopping => Self::Stopping,
            Phase::Failed => Self::Failed,
        }
    }
}

impl State {
    /// Reads such a file; `None` when there is none, or none that makes sense.
    pub(super) fn read(path: &Path) -> Option<Self> {
        toml::from_str(std::str::from_utf8(&file::read(path).ok()?).ok()?).ok()
    }

    /// Writes it: all of it or nothing.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        file::replace(path, text.as_bytes(), 0o600)
    }

    /// Since when.
    pub(super) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.since)
    }
}

/// The control group that a bridge of that name was in whose supervisor is gone, by its last word.
pub(super) fn left_group(path: &Path, name: &Name) -> Option<PathBuf> {
    // Of another user's file root is not to believe it.
    let (_, owner) = file::read_with_owner(path).ok()?;
    let state = State::read(path).filter(|_| owner == rustix::process::geteuid().as_raw())?;
    let own = name.control_group(&state.supervisor);
    let is_its = |group: &PathBuf| group.file_name().is_some_and(|of| *of == *own);
    state.control_group.filter(is_its).filter(|group| group.is_dir())
}

/// The time, in microseconds since 1970.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
