//! Why a bridge does not serve, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::instance::Holder;

/// Why a bridge does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance runs already.
    #[error("the bridge `{name}` is already running{}", held_by(.by.as_ref()))]
    AlreadyRunning {
        /// The instance.
        name: String,
        /// Who holds its lock.
        by: Option<Holder>,
    },
    /// The port is another's.
    #[error("{host}:{port} is already in use{}", .holder.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    PortTaken {
        /// As asked for.
        host: String,
        /// As asked for.
        port: u16,
        /// The process that has it.
        holder: Option<String>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {host}:{port}: {source}")]
    Bind {
        /// As asked for.
        host: String,
        /// As asked for.
        port: u16,
        /// From the system.
        source: io::Error,
    },
    /// A file of the instance cannot be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// To do what.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// The process cannot do its work at all.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning { name, .. } => Some(format!(
                "`foxxy-bridge server stop {name}` ends it; a second bridge needs a config of its own"
            )),
            Self::PortTaken { .. } => Some(
                "stop what has the port, or take another with --port or `bridge.port` in the config"
                    .to_owned(),
            ),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 are for root: take another with --port".to_owned())
            }
            Self::Bind { .. } => Some("give an address of this machine with --host".to_owned()),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check who owns it".to_owned())
            }
            Self::File { .. } | Self::Runtime(_) => None,
        }
    }
}

fn held_by(holder: Option<&Holder>) -> String {
    holder.map(|by| format!(" (PID {}, {})", by.pid, by.config.display())).unwrap_or_default()
}
