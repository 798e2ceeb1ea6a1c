//! Putting another config in force, and saying how the bridge is.

use std::sync::Arc;
use std::time::Duration;

use super::Served;
use crate::bridge::Bridge;
use crate::control::{Changes, Status, UpstreamState};
use crate::host::notify;
use crate::http::Guard;

/// How long reading the config anew may take, also from a slow disk.
const READING: Duration = Duration::from_secs(20);

/// How a bridge comes by its config anew, or by the reasons why there is none; it may block.
pub type Read = Arc<dyn Fn() -> Result<Served, String> + Send + Sync>;

/// How a bridge comes by another config.
pub(super) struct Reload<'a> {
    bridge: &'a Bridge,
    guard: &'a Guard,
    read: Read,
    /// Why the config on disk is not the one in force.
    refused: Option<String>,
}

impl<'a> Reload<'a> {
    /// For a bridge that serves the config that was read first.
    pub(super) fn new(bridge: &'a Bridge, guard: &'a Guard, read: Read) -> Self {
        Self { bridge, guard, read, refused: None }
    }

    /// The bridge that it is for.
    pub(super) fn bridge(&self) -> &'a Bridge {
        self.bridge
    }

    /// Puts the whole config in force as it is on disk now, or nothing of it, and says which to the service manager.
    pub(super) async fn run(&mut self) -> Result<Changes, String> {
        notify::reloading();
        let read = Arc::clone(&self.read);
        let reading = tokio::task::spawn_blocking(move || read());
        let outcome = match tokio::time::timeout(READING, reading).await {
            Ok(Ok(Ok(served))) => {
                served.warn();
                served.tell(self.guard);
                Ok(self.bridge.reload(served.config, served.path).await)
            }
            Ok(Ok(Err(reason))) => Err(reason),
            Ok(Err(fault)) => Err(format!("a fault of the bridge's own: {fault}")),
            Err(_) => Err(format!("it could not be read within {} s", READING.as_secs())),
        };
        match &outcome {
            Ok(changes) => tracing::info!("reloaded: {changes}"),
            Err(reason) => tracing::error!("not reloaded, the config from before stays in force: {reason}"),
        }
        self.refused = outcome.as_ref().err().cloned();
        notify::ready(&self.summary());
        outcome
    }

    /// The bridge and its config in one line, for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let mut line = summary(&self.bridge.status());
        if let Some(reason) = &self.refused {
            line.push_str(&format!("; the config on disk is refused: {reason}"));
        }
        line
    }
}

fn summary(status: &Status) -> String {
    let (connected, all) = status.connected();
    let mut line = format!("{}: {connected} of {all} upstreams connected", status.address);
    for upstream in &status.upstreams {
        if matches!(upstream.state, UpstreamState::Failed | UpstreamState::Retrying) {
            line.push_str(&format!("; {} {}", upstream.name, upstream.state.as_str()));
        }
    }
    line
}
