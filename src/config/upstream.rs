//! One MCP server in the config: how to reach it and how to treat it.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Authentication, LogLevel, Security};
use super::text::{Json, Secret, Text};
use super::units::{CpuQuota, MemoryLimit, millis, seconds};

/// One MCP server behind the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Upstream {
    /// Whether the bridge connects to it.
    pub enabled: bool,
    /// How to reach it; `http` when only `url` is given, else `stdio`.
    #[schemars(extend("x-aliases" = ["type"]))]
    pub transport: Transport,
    /// The program to run (stdio).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Text>,
    /// The program's arguments (stdio).
    pub args: Vec<Text>,
    /// Environment variables of the program (stdio).
    pub env: IndexMap<String, Secret>,
    /// The program's working directory (stdio); relative to the config's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-aliases" = ["working_directory"]))]
    pub cwd: Option<Text>,
    /// What the program and all that it starts may use (stdio).
    pub limits: UpstreamLimits,
    /// The server's address (http, sse).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Text>,
    /// Headers for every request (http, sse).
    pub headers: IndexMap<String, Secret>,
    /// Whether the server's certificate must be valid (http, sse).
    pub verify_ssl: bool,
    /// How the bridge proves who it is (http, sse).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// Seconds for connecting and the handshake.
    #[serde(with = "seconds")]
    #[schemars(with = "f64", range(min = 1, max = 86_400))]
    pub timeout: Duration,
    /// Seconds for one call.
    #[serde(rename = "callTimeout", with = "seconds")]
    #[schemars(with = "f64", range(min = 1, max = 86_400))]
    pub call_timeout: Duration,
    /// How often a failed connection is tried again before a longer pause.
    #[serde(rename = "retryAttempts")]
    pub retry_attempts: u32,
    /// Milliseconds before the first new try.
    #[serde(rename = "retryDelay", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub retry_delay: Duration,
    /// Prefix of its tools; the server's name when not set.
    #[serde(rename = "toolNamespace", skip_serializing_if = "Option::is_none")]
    pub tool_namespace: Option<Text>,
    /// Prefix of its resources; the server's name when not set.
    #[serde(rename = "resourceNamespace", skip_serializing_if = "Option::is_none")]
    pub resource_namespace: Option<Text>,
    /// Prefix of its prompts; the server's name when not set.
    #[serde(rename = "promptNamespace", skip_serializing_if = "Option::is_none")]
    pub prompt_namespace: Option<Text>,
    /// Which server wins when names collide: the lower number.
    pub priority: i64,
    /// Words to select servers by.
    pub tags: Vec<Text>,
    /// Which of its log lines are kept.
    pub log_level: LogLevel,
    /// How its health is checked.
    #[serde(rename = "healthCheck", skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// OAuth for this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-aliases" = ["oauth"]))]
    pub oauth_config: Option<OauthConfig>,
    /// Which of its tools are hidden and refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            enabled: true,
            transport: Transport::Stdio,
            command: None,
            args: Vec::new(),
            env: IndexMap::new(),
            cwd: None,
            limits: UpstreamLimits::default(),
            url: None,
            headers: IndexMap::new(),
            verify_ssl: true,
            authentication: None,
            timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(600),
            retry_attempts: 3,
            retry_delay: Duration::from_secs(1),
            tool_namespace: None,
            resource_namespace: None,
            prompt_namespace: None,
            priority: 100,
            tags: Vec::new(),
            log_level: LogLevel::Error,
            health_check: None,
            oauth_config: None,
            security: None,
        }
    }
}

/// What one server may use; what is not set is not limited. It needs control groups, which systemd gives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpstreamLimits {
    /// Memory; a server that needs more is killed, and started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<MemoryLimit>,
    /// CPU time; `100%` is one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tasks_max: Option<u64>,
}

/// How the bridge speaks to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline, extend("x-spellings" = { "streamable-http": "http" }))]
pub enum Transport {
    /// A program that the bridge starts and speaks to over its standard input and output.
    Stdio,
    /// Server-sent events, as of MCP 2024-11-05.
    Sse,
    /// Streamable HTTP.
    Http,
    /// The bridge's own tools.
    Builtin,
}

/// How a server's health is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthCheck {
    /// Whether it is checked.
    pub enabled: bool,
    /// Milliseconds between two checks.
    #[serde(with = "millis")]
    #[schemars(with = "u64", range(min = 100, max = 86_400_000))]
    pub interval: Duration,
    /// Milliseconds for one check.
    #[serde(with = "millis")]
    #[schemars(with = "u64", range(min = 1, max = 86_400_000))]
    pub timeout: Duration,
    /// Milliseconds between two signs of life.
    #[serde(with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub keep_alive_interval: Duration,
    /// Milliseconds for one sign of life.
    #[serde(with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub keep_alive_timeout: Duration,
    /// Failed checks in a row that make a server unhealthy.
    #[schemars(range(min = 1))]
    pub max_consecutive_failures: u32,
    /// Whether an unhealthy server is restarted.
    pub auto_restart: bool,
    /// Milliseconds before a restart.
    #[serde(with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub restart_delay: Duration,
    /// How often it is restarted before it is given up.
    pub max_restart_attempts: u32,
    /// What is asked of the server.
    pub operation: HealthOperation,
    /// The tool to call (`call_tool`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<Text>,
    /// Its arguments.
    pub tool_arguments: IndexMap<String, Json>,
    /// The resource to read (`read_resource`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_uri: Option<Text>,
    /// The prompt to get (`get_prompt`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_name: Option<Text>,
    /// Its arguments.
    pub prompt_arguments: IndexMap<String, Json>,
    /// The path to ask for (`health`, `status`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_path: Option<Text>,
    /// The method to ask with.
    pub http_method: Text,
    /// The status that means healthy.
    #[schemars(range(min = 100, max = 599))]
    pub expected_status: u16,
    /// Text that the answer must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_content: Option<Text>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(10),
            max_consecutive_failures: 3,
            auto_restart: true,
            restart_delay: Duration::from_secs(5),
            max_restart_attempts: 5,
            operation: HealthOperation::ListTools,
            tool_name: None,
            tool_arguments: IndexMap::new(),
            resource_uri: None,
            prompt_name: None,
            prompt_arguments: IndexMap::new(),
            http_path: None,
            http_method: "GET".into(),
            expected_status: 200,
            expected_content: None,
        }
    }
}

/// What a health check asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are those of the MCP requests")]
pub enum HealthOperation {
    ListTools,
    ListResources,
    ListPrompts,
    CallTool,
    ReadResource,
    GetPrompt,
    Ping,
    Health,
    Status,
}

/// OAuth for a remote server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OauthConfig {
    /// Whether OAuth is used.
    pub enabled: bool,
    /// The issuer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Text>,
    /// The kind of OAuth, such as `dynamic` or `passthrough`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Text>,
    /// Whether the issuer's certificate must be valid.
    pub verify_ssl: bool,
    /// The client's id; registered dynamically when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Text>,
    /// The client's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// Where the person agrees; discovered when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_url: Option<Text>,
    /// Where tokens are given; discovered when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<Text>,
    /// Milliseconds between two signs of life.
    #[serde(rename = "keepAliveInterval", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub keep_alive_interval: Duration,
    /// Milliseconds between two refreshes of the token.
    #[serde(rename = "tokenRefreshInterval", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub token_refresh_interval: Duration,
    /// Milliseconds between two checks of the connection.
    #[serde(rename = "connectionCheckInterval", with = "millis")]
    #[schemars(with = "u64", range(max = 86_400_000))]
    pub connection_check_interval: Duration,
}

impl Default for OauthConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            issuer: None,
            kind: None,
            verify_ssl: true,
            client_id: None,
            client_secret: None,
            authorization_url: None,
            token_url: None,
            keep_alive_interval: Duration::from_secs(20),
            token_refresh_interval: Duration::from_secs(1800),
            connection_check_interval: Duration::from_secs(10),
        }
    }
}
