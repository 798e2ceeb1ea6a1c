//! The config as the rest of the program sees it: plain data, all defaults filled in.
//!
//! The doc lines here are also the descriptions in the JSON Schema, so they speak to the person who writes the file.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::daemon::Daemon;
use super::text::{Secret, Text};
use super::units::millis;
use super::upstream::{Transport, Upstream};

/// The config of one foxxy-bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "foxxy-bridge config")]
pub struct Config {
    /// The MCP servers behind the bridge, by name.
    #[serde(rename = "mcpServers")]
    #[schemars(extend("x-aliases" = ["servers"]))]
    pub upstreams: IndexMap<String, Upstream>,
    /// The bridge itself.
    #[serde(default)]
    pub bridge: Bridge,
}

impl Config {
    /// The config of a bridge that was given none: the built-in upstream `foxxy` on 127.0.0.1:8080.
    pub fn builtin() -> Self {
        let foxxy = Upstream { transport: Transport::Builtin, ..Upstream::default() };
        Self { upstreams: IndexMap::from([("foxxy".to_owned(), foxxy)]), bridge: Bridge::default() }
    }
}

/// Where the bridge listens, whom it serves, and how it joins what the servers offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Bridge {
    /// The address to listen on: an IP address or a host name.
    pub host: Text,
    /// The TCP port to listen on.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The port for OAuth callbacks; `port` when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub oauth_port: Option<u16>,
    /// Host names, beside the loopback ones, that requests may name in `Host` (`name` or `name:port`; `*` allows all).
    pub allowed_hosts: Vec<Text>,
    /// Origins that browsers may call from, such as `https://app.example` (`*` allows all).
    pub allowed_origins: Vec<Text>,
    /// What happens when two servers offer the same name.
    #[serde(rename = "conflictResolution")]
    pub conflict_resolution: ConflictResolution,
    /// Whether names get the server's name as prefix (`server__tool`) where the server sets no namespace.
    #[serde(rename = "defaultNamespace")]
    pub default_namespace: bool,
    /// Which kinds of things the common endpoint offers.
    pub aggregation: Aggregation,
    /// What happens when servers fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Whether changes of the file are taken up while running.
    #[serde(rename = "configReload", skip_serializing_if = "Option::is_none")]
    pub config_reload: Option<ConfigReload>,
    /// How much of the MCP traffic is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_log_level: Option<LogLevel>,
    /// Whether tools that write are hidden and refused.
    pub read_only_mode: bool,
    /// Which tools are hidden and refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Whether `$(command)` in strings is run.
    pub allow_command_substitution: bool,
    /// The commands that `$(command)` may run, each written exactly as allowed.
    pub allowed_commands: Vec<Text>,
    /// Whether `$(command)` may run any command.
    pub allow_dangerous_commands: bool,
    /// How the bridge is kept running.
    pub daemon: Daemon,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            oauth_port: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            conflict_resolution: ConflictResolution::Namespace,
            default_namespace: true,
            aggregation: Aggregation::default(),
            failover: None,
            config_reload: None,
            mcp_log_level: None,
            read_only_mode: false,
            security: None,
            allow_command_substitution: false,
            allowed_commands: Vec::new(),
            allow_dangerous_commands: false,
            daemon: Daemon::default(),
        }
    }
}

/// What happens when two servers offer the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ConflictResolution {
    /// The server with the lowest `priority` number wins.
    Priority,
    /// Both are offered, each under its server's prefix.
    Namespace,
    /// The server that comes first in the file wins.
    First,
    /// The later one is left out and reported.
    Error,
}

/// Which kinds of things the common endpoint offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Aggregation {
    /// Tools.
    pub tools: bool,
    /// Resources and resource templates.
    pub resources: bool,
    /// Prompts.
    pub prompts: bool,
}

impl Default for Aggregation {
    fn default() -> Self {
        Self { tools: true, resources: true, prompts: true }
    }
}

/// What happens when servers fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Failover {
    /// Whether a failing server is taken out of service.
    pub enabled: bool,
    /// Failures in a row after which it is taken out.
    #[serde(rename = "maxFailures")]
    #[schemars(range(min = 1))]
    pub max_failures: u32,
    /// Milliseconds until it is tried again.
    #[serde(rename = "recoveryInterval", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub recovery_interval: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Self { enabled: true, max_failures: 3, recovery_interval: Duration::from_secs(60) }
    }
}

/// Whether changes of the file are taken up while running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConfigReload {
    /// Whether the file is watched.
    pub enabled: bool,
    /// Milliseconds without a further change before the file is read.
    #[serde(rename = "debounceMs", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub debounce: Duration,
    /// Whether a change is only checked and reported.
    #[serde(rename = "validateOnly")]
    pub validate_only: bool,
}

impl Default for ConfigReload {
    fn default() -> Self {
        Self { enabled: false, debounce: Duration::from_secs(1), validate_only: false }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline, extend("x-spellings" = { "WARN": "WARNING" }))]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warning,
    /// What went wrong.
    Error,
    /// What stops the work.
    Critical,
    /// Nothing.
    Quiet,
}

/// Which tools are hidden and refused.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Security {
    /// Whether tools that write are hidden and refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_mode: Option<bool>,
    /// Tools by name and pattern.
    #[schemars(extend("x-aliases" = ["tools", "tool"]))]
    pub tool_security: ToolSecurity,
}

/// Tools by name and pattern: block lists first, then allow lists, then the class.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ToolSecurity {
    /// Patterns of tools that are allowed; when any allow list is set, all others are not.
    pub allow_patterns: Vec<Text>,
    /// Patterns of tools that are never allowed.
    pub block_patterns: Vec<Text>,
    /// Tools that are allowed.
    pub allow_tools: Vec<Text>,
    /// Tools that are never allowed.
    pub block_tools: Vec<Text>,
    /// Which class a tool is of, where its name says it wrongly.
    pub classification_overrides: IndexMap<String, ToolClass>,
}

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ToolClass {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
    /// Not known; treated as one that writes.
    Unknown,
}

/// How the bridge proves who it is to a remote server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Authentication {
    /// `Authorization: Bearer TOKEN`
    Bearer {
        /// The token.
        token: Secret,
    },
    /// A key in a header.
    ApiKey {
        /// The key.
        key: Secret,
        /// The header that carries it.
        #[serde(default = "api_key_header")]
        header: Text,
    },
    /// `Authorization: Basic …`
    Basic {
        /// The user name.
        username: Text,
        /// The password.
        password: Secret,
    },
}

fn api_key_header() -> Text {
    "X-API-Key".into()
}
