//! The bridge as an MCP server of its own: tools that report on the bridge, answered in place.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Connection;
use crate::bridge::wire::{self, Message, Params};
use crate::control::Status;
use crate::host::log::Recent;

/// Log lines that `recent_log` gives unless asked for another number.
const DEFAULT_LINES: usize = 50;

/// What the tools report from.
#[derive(Clone)]
pub(crate) struct Builtin {
    status: Arc<dyn Fn() -> Option<Status> + Send + Sync>,
    log: Recent,
}

impl std::fmt::Debug for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builtin")
    }
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Option<Value>,
}

impl Builtin {
    /// Tools that report what `status` and `log` say at the time of the call.
    pub(crate) fn new(status: Arc<dyn Fn() -> Option<Status> + Send + Sync>, log: Recent) -> Self {
        Self { status, log }
    }

    /// Answers a request at once.
    pub(super) fn answer(&self, connection: &Arc<Connection>, message: &[u8]) {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let Ok(Message::Request { id, method, params }) = wire::parse(text) else { return };
        let answer = match &*method {
            "initialize" => {
                let result = json!({
                    "protocolVersion": crate::bridge::LATEST_PROTOCOL,
                    "capabilities": { "tools": {} },
                    "serverInfo": { "name": "foxxy-bridge", "version": env!("CARGO_PKG_VERSION") },
                });
                wire::result(id.get(), &result.to_string())
            }
            "ping" => wire::result(id.get(), "{}"),
            "tools/list" => wire::result(id.get(), &tools().to_string()),
            "tools/call" => match Params::parse(params)
                .and_then(|_| self.call(params.map_or("", |params| params.get())))
            {
                Ok(result) => wire::result(id.get(), &result.to_string()),
                Err(reason) => wire::error(id.get(), wire::INVALID_PARAMS, &reason),
            },
            _ => wire::error(id.get(), wire::METHOD_NOT_FOUND, &format!("`{method}` is not offered here")),
        };
        if let Err(reason) = connection.receive(answer.into()) {
            tracing::error!("the built-in upstream answered what is no message: {reason}");
        }
    }

    fn status(&self) -> Result<Status, String> {
        (self.status)().ok_or_else(|| "the bridge is stopping".to_owned())
    }

    fn call(&self, params: &str) -> Result<Value, String> {
        let call: Call =
            serde_json::from_str(params).map_err(|error| format!("`params` do not fit: {error}"))?;
        let argument = |name: &str| call.arguments.as_ref().and_then(|arguments| arguments.get(name));
        let wanted = argument("server").and_then(Value::as_str);
        let found = match call.name.as_str() {
            "list_servers" => {
                let status = self.status()?;
                let servers: Vec<Value> = status
                    .upstreams
                    .iter()
                    .map(|upstream| {
                        json!({
                            "name": upstream.name,
                            "transport": upstream.transport,
                            "state": upstream.state,
                            "tools": upstream.tools,
                            "resources": upstream.resources,
                            "prompts": upstream.prompts,
                        })
                    })
                    .collect();
                json!({ "servers": servers })
            }
            "server_status" => {
                let status = self.status()?;
                match wanted {
                    None => json!(status),
                    Some(name) => match status.upstreams.iter().find(|upstream| upstream.name == name) {
                        Some(upstream) => json!(upstream),
                        None => return Ok(failed(&format!("there is no server `{name}`"))),
                    },
                }
            }
            "recent_log" => {
                let lines =
                    argument("lines").and_then(Value::as_u64).and_then(|lines| usize::try_from(lines).ok());
                json!({ "lines": self.log.last(lines.unwrap_or(DEFAULT_LINES), wanted) })
            }
            other => return Err(format!("there is no tool `{other}`")),
        };
        let text = serde_json::to_string_pretty(&found).unwrap_or_default();
        Ok(json!({ "content": [{ "type": "text", "text": text }], "structuredContent": found }))
    }
}

fn failed(reason: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": reason }], "isError": true })
}

fn tools() -> Value {
    let read_only = json!({ "readOnlyHint": true, "openWorldHint": false });
    let server = json!({ "type": "string", "description": "The name of a server behind the bridge" });
    json!({ "tools": [
        {
            "name": "list_servers",
            "title": "List servers",
            "description": "Lists the MCP servers behind this bridge, with their state and how much each offers.",
            "inputSchema": { "type": "object", "properties": {}, "additionalProperties": false },
            "annotations": read_only,
        },
        {
            "name": "server_status",
            "title": "Server status",
            "description": "Tells all the bridge knows of one server, or of itself and all servers when none is named.",
            "inputSchema": { "type": "object", "properties": { "server": server }, "additionalProperties": false },
            "annotations": read_only,
        },
        {
            "name": "recent_log",
            "title": "Recent log",
            "description": "Gives the last lines of the bridge's log, of one server's when it is named.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "server": server,
                    "lines": { "type": "integer", "minimum": 1, "maximum": 500, "default": DEFAULT_LINES },
                },
                "additionalProperties": false,
            },
            "annotations": read_only,
        },
    ] })
}
