//! What a supervisor is told when it is started, and what it answers to whoever started it: a line of JSON each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::account::Account;
use crate::host::file;
use crate::manager::Entry;

/// What to keep, and how. Times are `Duration`s, sizes bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// The instance's name.
    pub(super) name: String,
    /// Its config, or where the default config would be.
    pub(super) config: PathBuf,
    /// The folder of its socket and lock.
    pub(super) runtime_dir: PathBuf,
    /// Where the supervisor writes its number.
    pub(super) pid_file: PathBuf,
    /// Whether that is a place of ours, and not one that somebody has named.
    pub(super) own_pid_file: bool,
    /// Where the log goes; none for standard output.
    pub(super) log_file: Option<PathBuf>,
    /// The size at which a new log file is begun.
    pub(super) log_size: u64,
    /// How many old ones are kept.
    pub(super) log_keep: u32,
    /// Whether the supervisor is the process that was typed, such as a container's first.
    pub(super) foreground: bool,
    /// The unit of somebody's own that all of it runs in.
    pub(super) unit: Option<String>,
    /// Whom it runs as, when that is another user.
    pub(super) account: Option<Account>,
    /// Whether programs may gain rights that the bridge does not have, as by `sudo`.
    pub(super) may_gain_privileges: bool,
    /// Open files of one process.
    pub(super) nofile: Option<u64>,
    /// The file that the bridge holds locked.
    pub(super) lock_file: PathBuf,
    /// Files that are of use only while the bridge runs, and are removed with its end.
    pub(super) leftovers: Vec<PathBuf>,
    /// What tells its settings from others.
    pub(super) digest: String,
    /// The bridge's settings, which a restart may change.
    pub(super) settings: Settings,
}

/// What a restart may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The program and its arguments.
    pub(super) exec: Vec<String>,
    /// Its variables, besides those of the supervisor.
    pub(super) environment: BTreeMap<String, String>,
    /// Files with more of them, read at each start.
    pub(super) environment_files: Vec<PathBuf>,
    /// Where it runs.
    pub(super) working_directory: PathBuf,
    /// How many failures in a row are mended; `None` is any number.
    pub(super) attempts: Option<u32>,
    /// The wait before the first restart.
    pub(super) delay: Duration,
    /// The wait before a restart at most.
    pub(super) max_delay: Duration,
    /// How long it may take until it serves.
    pub(super) start_timeout: Duration,
    /// How long it may take to stop before it is killed.
    pub(super) stop_timeout: Duration,
    /// How long it may be silent.
    pub(super) watchdog: Option<Duration>,
}

/// Other settings for the next run of the bridge, in a file beside its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revision {
    /// What is to be in force.
    pub(super) settings: Settings,
    /// What tells them from others.
    pub(super) digest: String,
}

impl Revision {
    /// Writes it down.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        file::replace(path, serde_json::to_string(self).map_err(io::Error::other)?.as_bytes(), 0o600)
    }

    /// Reads and removes it; `None` when there is none.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let text = match file::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        std::fs::remove_file(path)?;
        serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
    }
}

/// What a supervisor tells whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// It has the PID file, and starts the bridge.
    Claimed,
    /// Another process has it: that one, where it is one of this PID namespace.
    Held(Option<u32>),
    /// The bridge serves.
    Ready,
    /// The supervisor cannot do its work.
    Refused {
        /// What it cannot do, as in `cannot …`.
        action: String,
        /// What the system said.
        detail: String,
        /// Whether it is for want of rights.
        not_permitted: bool,
    },
    /// The bridge does not serve, and nothing of it is left.
    Failed {
        /// Why, in a sentence.
        reason: String,
        /// Its exit code, when it ended with one of its own.
        exit_code: Option<i32>,
        /// Its own last word on itself.
        status_text: Option<String>,
        /// Its last log lines, oldest first.
        log: Vec<Entry>,
    },
}

impl Report {
    /// That something could not be done.
    pub(super) fn refused(action: impl Into<String>, error: &io::Error) -> Self {
        Self::Refused {
            action: action.into(),
            detail: error.to_string(),
            not_permitted: error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

#[cfg(test)]
impl Settings {
    /// Settings with nothing special about them.
    pub(super) fn example() -> Self {
        Self {
            exec: vec!["/usr/bin/foxxy-bridge".to_owned()],
            environment: BTreeMap::new(),
            environment_files: Vec::new(),
            working_directory: "/".into(),
            attempts: Some(10),
            delay: Duration::from_secs(2),
            max_delay: Duration::from_secs(15),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(20),
            watchdog: None,
        }
    }
}
