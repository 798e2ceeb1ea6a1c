//! Who is let in over HTTP, and what anybody may ask.

use hyper::Method;
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client;

fn bridge(settings: &Value) -> Bridge {
    Bridge::with(&json!({ "mcpServers": { "foxxy": { "type": "builtin" } }, "bridge": settings }), &[])
}

async fn status_for(bridge: &Bridge, headers: &[(&str, &str)]) -> u16 {
    client::get(&bridge.address, "/status", headers).await.status.as_u16()
}

#[tokio::test]
async fn only_names_of_this_machine_are_let_in() {
    let bridge = bridge(&json!({ "allowed_hosts": ["bridge.example.org"] }));
    for host in ["localhost", "127.0.0.1:1", "[::1]:8080", "bridge.example.org"] {
        assert_eq!(status_for(&bridge, &[("Host", host)]).await, 200, "{host}");
    }
    for host in ["evil.example.com", "localhost.evil.com", "192.168.1.7", "intranet"] {
        assert_eq!(status_for(&bridge, &[("Host", host)]).await, 403, "{host}");
    }
}

#[tokio::test]
async fn only_pages_of_this_machine_and_those_allowed_are_let_in() {
    let bridge = bridge(&json!({ "allowed_origins": ["https://app.example.org"] }));
    for origin in ["http://localhost:6274", "https://app.example.org"] {
        assert_eq!(status_for(&bridge, &[("Origin", origin)]).await, 200, "{origin}");
    }
    for origin in ["https://evil.example.com", "null", "http://localhost.evil.com", "http://203.0.113.5"] {
        assert_eq!(status_for(&bridge, &[("Origin", origin)]).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn on_a_network_pages_of_other_machines_are_still_turned_away() {
    let bridge = bridge(&json!({ "host": "0.0.0.0" }));
    let port = bridge.address.rsplit(':').next().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let ask = async |host: &str, origin: &str| {
        let headers = [("Host", host), ("Origin", origin)];
        client::get(&address, "/status", &headers).await.status.as_u16()
    };
    assert_eq!(ask("192.168.1.7:8080", "http://192.168.1.7:8080").await, 200);
    assert_eq!(ask("192.168.1.7:8080", "http://203.0.113.5").await, 403);
    assert_eq!(ask("192.168.1.7:8080", "http://wiki").await, 403);
}

#[tokio::test]
async fn every_door_is_guarded() {
    let bridge = bridge(&json!({}));
    let evil = [("Host", "evil.example.com"), ("Content-Type", "application/json")];
    for path in ["/mcp", "/mcp/", "/mcp/foxxy", "/livez", "/readyz", "/status", "/nothing"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = client::send(&bridge.address, method.clone(), path, &evil, "{}").await;
            assert_eq!(answer.status, 403, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_browser_is_told_whose_pages_may_read() {
    let bridge = bridge(&json!({}));
    let ask = async |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,mcp-session-id"),
        ];
        client::send(&bridge.address, Method::OPTIONS, "/mcp", &headers, "").await
    };
    let ours = ask("http://localhost:6274").await;
    assert_eq!(ours.header("access-control-allow-origin"), Some("http://localhost:6274"));
    assert_eq!(ask("https://evil.example.com").await.header("access-control-allow-origin"), None);
    let read = client::get(&bridge.address, "/status", &[("Origin", "http://localhost:6274")]).await;
    assert_eq!(read.header("access-control-expose-headers"), Some("mcp-session-id"));
}

#[tokio::test]
async fn health_and_status_are_there_for_anybody_on_this_machine() {
    let bridge = bridge(&json!({}));
    let live = client::get(&bridge.address, "/livez", &[]).await;
    assert_eq!((live.status.as_u16(), live.text().await.as_str()), (200, "{\"alive\":true}\n"));
    assert_eq!(client::get(&bridge.address, "/readyz", &[]).await.status, 200);
    let status = bridge.status().await;
    assert_eq!(status["state"], "running");
    assert_eq!(status["address"], format!("http://{}/mcp", bridge.address));
    assert_eq!(status["upstreams"][0]["tools"], 3);
}
