//! The same with MCP servers that other people wrote.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bridge::{Bridge, PATIENCE, beside, eventually};
use crate::client::{Client, call_with_progress};

/// The program of a server of npm.
fn npm(name: &str) -> String {
    installed(&format!("servers/node_modules/@modelcontextprotocol/{name}/dist/index.js"))
}

fn installed(path: &str) -> String {
    let path = beside(path);
    assert!(path.exists(), "{} is not there: run `make servers`", path.display());
    path.display().to_string()
}

/// server-everything over HTTP, on a port of its own.
struct Everything {
    child: Child,
    port: u16,
}

impl Everything {
    fn start() -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        Self { child: Self::spawn(port), port }
    }

    fn spawn(port: u16) -> Child {
        Command::new("node")
            .args([&npm("server-everything"), "streamableHttp"])
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts")
    }

    async fn serves(&self) {
        eventually("server-everything listens", || {
            std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), PATIENCE).is_ok()
        })
        .await;
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        self.kill();
    }
}

fn said(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

#[tokio::test]
async fn real_servers_offer_and_do_through_the_bridge_what_they_offer_and_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("a path");
    std::fs::write(root.join("note"), "hello from a file").expect("a file");
    let bridge = Bridge::start(&json!({
        "everything": { "command": "node", "args": [npm("server-everything")] },
        "files": { "command": "node", "args": [npm("server-filesystem"), root] },
        "memory": {
            "command": "node", "args": [npm("server-memory")], "env": { "MEMORY_FILE_PATH": root.join("memory") },
        },
        "time": { "command": installed("servers/venv/bin/mcp-server-time"), "args": ["--local-timezone=UTC"] },
    }));
    let client = Client::of(&bridge).await;
    for (tool, arguments, expected) in [
        ("everything__echo", json!({ "message": "tschüss" }), "tschüss"),
        ("files__read_text_file", json!({ "path": root.join("note") }), "hello from a file"),
        ("memory__read_graph", json!({}), "entities"),
        ("time__get_current_time", json!({ "timezone": "Asia/Tokyo" }), "Asia/Tokyo"),
    ] {
        let answer = client.call("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        assert!(said(&answer["result"]).contains(expected), "{tool}: {answer}");
    }
    let prompts = client.names("prompts/list", "prompts", "name").await;
    assert!(prompts.contains(&"everything__simple-prompt".to_owned()), "{prompts:?}");

    let request = call_with_progress("1", "everything__trigger-long-running-operation", r#""t""#)
        .replace(r#""_meta""#, r#""arguments":{"duration":0.2,"steps":2},"_meta""#);
    let mut answer = client.post(&request, &[]).await;
    for step in 1..=2 {
        let event: Value = serde_json::from_str(&answer.event().await.expect("progress")).expect("JSON");
        assert_eq!(
            (&event["params"]["progress"], &event["params"]["progressToken"]),
            (&json!(step), &json!("t"))
        );
    }
    let last: Value = serde_json::from_str(&answer.event().await.expect("an answer")).expect("JSON");
    assert!(said(&last["result"]).contains("completed"), "{last}");
}

#[tokio::test]
async fn a_real_server_over_http_may_be_restarted_between_two_calls() {
    let mut server = Everything::start();
    server.serves().await;
    let bridge = Bridge::start(&json!({
        "everything": { "url": format!("http://127.0.0.1:{}/mcp", server.port), "retryDelay": 100 },
    }));
    let client = Client::of(&bridge).await;
    let echo = json!({ "name": "everything__echo", "arguments": { "message": "still here" } });
    let first = client.call("tools/call", echo.clone()).await;
    assert!(said(&first["result"]).contains("still here"), "{first}");
    server.kill();
    server.child = Everything::spawn(server.port);
    server.serves().await;
    let second = client.call("tools/call", echo).await;
    assert!(said(&second["result"]).contains("still here"), "{second}");
}
