//! The answer to `initialize`: who the bridge is, and what can be done with it.

use serde_json::json;

use super::Core;

impl Core {
    /// The answer to `initialize` at `/mcp`.
    pub(super) fn welcome(&self, protocol: &str) -> String {
        let setup = self.setup();
        let shared = &setup.config.bridge.aggregation;
        let mut capabilities = json!({ "logging": {}, "completions": {} });
        if shared.tools {
            capabilities["tools"] = json!({ "listChanged": true });
        }
        if shared.prompts {
            capabilities["prompts"] = json!({ "listChanged": true });
        }
        if shared.resources {
            capabilities["resources"] = json!({ "listChanged": true, "subscribe": true });
        }
        let mut welcome = json!({
            "protocolVersion": protocol,
            "capabilities": capabilities,
            "serverInfo": { "name": "foxxy-bridge", "version": env!("CARGO_PKG_VERSION") },
        });
        let instructions: Vec<String> = self
            .setup()
            .upstreams
            .values()
            .filter_map(|upstream| {
                let live = upstream.live()?;
                let instructions = live.server.instructions.as_ref()?;
                Some(format!("# {}\n\n{}", upstream.spec.name, instructions.trim()))
            })
            .collect();
        if !instructions.is_empty() {
            welcome["instructions"] = instructions.join("\n\n").into();
        }
        welcome.to_string()
    }

    /// The answer to `initialize` at `/mcp/NAME`: what that upstream said, as it said it.
    pub(super) async fn welcome_to(&self, name: &str, protocol: &str) -> Result<String, String> {
        let upstream = self
            .setup()
            .upstreams
            .get(name)
            .cloned()
            .ok_or_else(|| format!("there is no upstream `{name}`"))?;
        let live = upstream.reach().await.map_err(|error| error.to_string())?;
        live.server.under(protocol).ok_or_else(|| "its answer to `initialize` cannot be handed on".to_owned())
    }
}
