//! What the config keeps secret is in no status and no log.

use serde_json::json;

use crate::bridge::Bridge;
use crate::client::Client;
use crate::scripted::{Script, tools};

/// Nothing else has this in it.
const MARK: &str = "hunter2-9d1f";

#[tokio::test]
async fn no_secret_of_the_config_shows_in_status_or_log() {
    let script = Script::new(&json!({ "tools/list": tools(&["say"]) }));
    let server = script.serve();
    let mut child = script.stdio();
    child["env"] = json!({ "API_TOKEN": format!("env-{MARK}") });
    child["args"].as_array_mut().expect("a list").truncate(5);
    let with_arg = json!({ "command": "sh", "args": ["-c", "exit 1", "${ARG_SECRET}"], "retryAttempts": 1 });
    let port = server.url.rsplit(':').next().expect("a port").trim_end_matches("/mcp").to_owned();
    let remote = json!({
        "url": format!("http://user:{MARK}@127.0.0.1:{port}/mcp?key={MARK}"),
        "headers": { "X-Key": MARK },
    });
    let keyed = json!({
        "url": "http://127.0.0.1:${PORT}/mcp?key=literal-hunter2-9d1f&more=${ARG_SECRET}",
        "authentication": { "type": "bearer", "token": MARK },
    });
    let refused = json!({
        "url": format!("http://{MARK}:{MARK}@127.0.0.1:1/mcp?key={MARK}"),
        "authentication": { "type": "basic", "username": "me", "password": MARK }, "retryAttempts": 1,
    });
    let bridge = Bridge::with(
        &json!({ "mcpServers": {
            "child": child, "arg": with_arg, "remote": remote, "keyed": keyed, "refused": refused,
            "foxxy": { "type": "builtin" },
        } }),
        &[("ARG_SECRET", MARK), ("PORT", &port)],
    );
    for (name, state) in [("child", "connected"), ("remote", "connected"), ("keyed", "connected")] {
        bridge.until(name, state).await;
    }
    for name in ["arg", "refused"] {
        bridge.until(name, "failed").await;
    }
    let client = Client::of(&bridge).await;
    let told = [
        ("status", bridge.status().await.to_string()),
        ("server_status", client.tool("foxxy__server_status").await.to_string()),
        ("recent_log", client.tool("foxxy__recent_log").await.to_string()),
        ("log", bridge.log()),
    ];
    for (where_told, text) in told {
        assert!(!text.contains(MARK), "{where_told}: {text}");
    }
    // It was not there by chance: the upstream had it.
    assert!(script.record().iter().any(|entry| entry["headers"]["x-key"] == MARK));
}
