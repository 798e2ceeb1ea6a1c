//! What a running bridge tells of itself: one model, shown by its control socket, `/status` and the command line.

pub mod client;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::log::Level;

/// A running bridge, as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The instance's name.
    pub name: String,
    /// The config in force; none is the built-in default.
    pub config: Option<String>,
    /// The process that serves.
    pub pid: u32,
    /// Of the program that runs, which may be older than the one installed.
    pub version: String,
    /// What keeps it running.
    pub manager: Manager,
    /// The unit that it runs in, under systemd.
    pub unit: Option<String>,
    /// Where MCP clients connect.
    pub address: String,
    /// Serving or on its way out.
    pub state: BridgeState,
    /// Whether every enabled upstream is connected.
    pub healthy: bool,
    /// When it began to serve, RFC 3339.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// MCP sessions that clients hold.
    pub sessions: usize,
    /// How much it logs.
    #[serde(default)]
    pub log_level: Level,
    /// The folders that upstream commands are looked for in.
    pub path: String,
    /// In the order of the config.
    pub upstreams: Vec<UpstreamStatus>,
}

impl Status {
    /// How many enabled upstreams there are, and how many of them are connected.
    #[must_use]
    pub fn connected(&self) -> (usize, usize) {
        let enabled = self.upstreams.iter().filter(|upstream| upstream.state != UpstreamState::Disabled);
        let (all, connected) = enabled.fold((0, 0), |(all, connected), upstream| {
            (all + 1, connected + usize::from(upstream.state == UpstreamState::Connected))
        });
        (connected, all)
    }
}

/// One upstream of a running bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its key in the config.
    pub name: String,
    /// stdio, http, sse or builtin.
    pub transport: String,
    /// The command or the address, without anything secret.
    pub target: String,
    /// Where it stands.
    pub state: UpstreamState,
    /// Why it is not connected, or was not at the last attempt.
    pub error: Option<String>,
    /// Its process, when it is one of ours.
    pub pid: Option<u32>,
    /// Name and version as it gave them.
    pub server: Option<String>,
    /// The MCP version agreed on.
    pub protocol: Option<String>,
    /// How many it offers.
    pub tools: usize,
    /// Resources and templates that it offers.
    pub resources: usize,
    /// How many it offers.
    pub prompts: usize,
    /// Requests that wait for its answer.
    pub in_flight: usize,
    /// Connections after the first.
    pub restarts: u32,
    /// CPU time of its process and of all that it has started, in microseconds, since that process was started; only
    /// where it has a control group, as for the next two.
    pub cpu_microseconds: Option<u64>,
    /// Memory of them, in bytes, with the files that the kernel keeps for them; needs the `memory` controller.
    pub memory_bytes: Option<u64>,
    /// How many they are.
    pub processes: Option<usize>,
    /// Which of its limits are not in force and why, a sentence each.
    #[serde(default)]
    pub unenforced_limits: Vec<String>,
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Servers that are new.
    pub added: Vec<String>,
    /// Servers that are gone.
    pub removed: Vec<String>,
    /// Servers that are connected anew, as they are reached in another way.
    pub changed: Vec<String>,
    /// Keys whose new value is in force after a restart only.
    pub needs_restart: Vec<String>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        let mut parts: Vec<String> = lists
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if parts.is_empty() {
            parts.push("no server touched".to_owned());
        }
        if !self.needs_restart.is_empty() {
            parts.push(format!("a restart is needed for {}", self.needs_restart.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// What keeps a bridge running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// A systemd unit.
    Systemd,
    /// A supervisor of our own.
    Pidfile,
    /// Nobody: it runs where it was typed.
    Foreground,
}

impl Manager {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Pidfile => "pidfile",
            Self::Foreground => "foreground",
        }
    }
}

/// Where a bridge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BridgeState {
    /// It serves.
    Running,
    /// It finishes what it has and takes nothing new.
    Stopping,
}

/// Where an upstream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamState {
    /// A connection is being made.
    Connecting,
    /// It answers.
    Connected,
    /// It was lost or refused, and is tried again soon.
    Retrying,
    /// It was tried often enough; it is still tried, but rarely, and what it offered is withdrawn.
    Failed,
    /// The config says so.
    Disabled,
    /// The bridge is on its way out.
    Stopped,
}

impl UpstreamState {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
        }
    }
}
