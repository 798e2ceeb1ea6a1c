//! `initialize`: what an upstream says of itself.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CallError, Connection, Link, find_member};
use crate::bridge::wire::{self, Edit, Message};
use crate::bridge::{LATEST_PROTOCOL, PROTOCOLS};

/// What an upstream said in its answer to `initialize`; JSON parts as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handshake {
    /// The version it speaks.
    #[serde(rename = "protocolVersion")]
    pub(crate) protocol: String,
    /// What it can do.
    pub(crate) capabilities: Box<RawValue>,
    /// Who it is.
    pub(crate) server_info: Option<Box<RawValue>>,
    /// What a model should know of it.
    pub(crate) instructions: Option<String>,
    /// All that it said.
    #[serde(skip)]
    whole: String,
}

#[derive(Deserialize)]
struct ServerInfo {
    name: String,
    #[serde(default)]
    version: String,
}

impl Handshake {
    /// Whether it has that capability.
    pub(crate) fn offers(&self, capability: &str) -> bool {
        self.capability(capability).is_some()
    }

    fn capability(&self, name: &str) -> Option<serde_json::Value> {
        let mut all: serde_json::Value = serde_json::from_str(self.capabilities.get()).ok()?;
        all.get_mut(name).map(serde_json::Value::take)
    }

    /// All that it said, with another protocol version in the place of its own.
    pub(crate) fn under(&self, protocol: &str) -> Option<String> {
        let whole: &RawValue = serde_json::from_str(&self.whole).ok()?;
        let version = find_member(whole, "protocolVersion")?;
        let protocol = wire::quote(protocol);
        String::from_utf8(wire::spliced(whole.get(), &mut [Edit::of(whole.get(), version, &protocol)])).ok()
    }

    /// Name and version, for people.
    pub(crate) fn title(&self) -> Option<String> {
        let info: ServerInfo = serde_json::from_str(self.server_info.as_ref()?.get()).ok()?;
        Some(format!("{} {}", info.name, info.version).trim_end().to_owned())
    }
}

/// Introduces the bridge to the upstream.
pub(super) async fn shake_hands(
    connection: &Arc<Connection>,
    timeout: Duration,
) -> Result<Handshake, String> {
    let params = format!(
        r#"{{"protocolVersion":"{LATEST_PROTOCOL}","capabilities":{{}},"clientInfo":{{"name":"foxxy-bridge","version":"{}"}}}}"#,
        env!("CARGO_PKG_VERSION")
    );
    let write = |id| wire::request(id, "initialize", &params).into_bytes();
    let reply = connection.request(write, None, timeout, |_| {}).await.map_err(|error| match error {
        CallError::TimedOut(within) => format!("no answer to `initialize` within {} s", within.as_secs()),
        error => error.to_string(),
    })?;
    let answer = match wire::parse(reply.text()) {
        Ok(Message::Response { result: Some(result), .. }) => result,
        Ok(Message::Response { error: Some(error), .. }) => {
            return Err(format!("it refused `initialize`: {error}"));
        }
        _ => return Err("its answer to `initialize` is not a response".to_owned()),
    };
    let mut server: Handshake = serde_json::from_str(answer.get())
        .map_err(|error| format!("its answer to `initialize` does not fit: {error}"))?;
    answer.get().clone_into(&mut server.whole);
    if !PROTOCOLS.contains(&server.protocol.as_str()) {
        return Err(format!("it speaks MCP {}, the bridge speaks {}", server.protocol, PROTOCOLS.join(", ")));
    }
    let initialized = wire::notification("notifications/initialized", "");
    match connection.link() {
        Some(Link::Http(http)) => {
            http.agreed_on(&server.protocol);
            // Each POST stands alone: without this wait the first request could overtake it.
            http.post(connection, None, initialized.into_bytes()).await;
        }
        _ => connection.notify(initialized),
    }
    Ok(server)
}
