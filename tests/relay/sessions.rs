//! Streamable HTTP as the revisions with sessions have it: how a session begins, goes on and ends, and what is refused.

use hyper::Method;
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{self, Client, initialize};
use crate::scripted::{Script, text, tools};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn bridge() -> Bridge {
    Bridge::start(&json!({ "foxxy": { "type": "builtin" } }))
}

#[tokio::test]
async fn every_version_with_sessions_is_spoken() {
    let bridge = bridge();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        for path in ["/mcp", "/mcp/foxxy"] {
            let client = Client::at(&bridge, path, version).await;
            assert_eq!(client.welcome["protocolVersion"], version);
            let answer = client.post(PING, &[("MCP-Protocol-Version", version)]).await;
            assert_eq!(answer.text().await, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        }
    }
}

#[tokio::test]
async fn a_version_that_nobody_knows_gets_the_latest() {
    let bridge = bridge();
    let client = Client::at(&bridge, "/mcp", "2099-01-01").await;
    assert_eq!(client.welcome["protocolVersion"], "2025-11-25");
}

#[tokio::test]
async fn initialize_without_its_parameters_begins_nothing() {
    let bridge = bridge();
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":7}}"#,
    ] {
        let answer = client::send(&bridge.address, Method::POST, "/mcp", &[JSON], message).await;
        assert_eq!(answer.header("mcp-session-id"), None);
        let answer: Value = serde_json::from_str(&answer.text().await).expect("JSON");
        assert_eq!(answer["error"]["code"], -32602);
    }
    assert_eq!(bridge.status().await["sessions"], 0);
}

#[tokio::test]
async fn without_a_session_nothing_but_initialize_is_taken() {
    let bridge = bridge();
    let post = client::send(&bridge.address, Method::POST, "/mcp", &[JSON], PING).await;
    assert_eq!(post.status, 400);
    let get = client::get(&bridge.address, "/mcp", &[("Accept", "text/event-stream")]).await;
    assert_eq!(get.status, 400);
    let delete = client::send(&bridge.address, Method::DELETE, "/mcp", &[], "").await;
    assert_eq!(delete.status, 400);
}

#[tokio::test]
async fn a_session_that_is_not_there_is_not_found() {
    let bridge = bridge();
    let unknown = ("Mcp-Session-Id", "0123456789abcdef");
    let post = client::send(&bridge.address, Method::POST, "/mcp", &[JSON, unknown], PING).await;
    assert_eq!(post.status, 404);
    let get = client::get(&bridge.address, "/mcp", &[("Accept", "text/event-stream"), unknown]).await;
    assert_eq!(get.status, 404);
}

#[tokio::test]
async fn a_session_is_good_only_at_the_path_where_it_began() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let session = ("Mcp-Session-Id", client.session.as_str());
    let elsewhere = client::send(&bridge.address, Method::POST, "/mcp/foxxy", &[JSON, session], PING).await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn delete_ends_a_session_and_its_stream() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let mut stream = client.listen().await;
    assert_eq!(bridge.status().await["sessions"], 1);
    assert_eq!(client.end().await, 204);
    assert_eq!(stream.event().await, None);
    assert_eq!(client.post(PING, &[]).await.status, 404);
    assert_eq!(client.end().await, 404);
    assert_eq!(bridge.status().await["sessions"], 0);
}

#[tokio::test]
async fn a_new_stream_takes_the_place_of_the_old_one() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let mut old = client.listen().await;
    let mut new = client.listen().await;
    assert_eq!(old.event().await, None);
    assert!(new.is_silent().await);
}

#[tokio::test]
async fn a_version_in_the_header_that_is_not_spoken_is_refused() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    for version in ["2099-01-01", "nonsense", "2026-07-28"] {
        let answer = client.post(PING, &[("MCP-Protocol-Version", version)]).await;
        assert_eq!(answer.status, 400, "{version}");
        assert!(answer.text().await.contains("2025-11-25"));
    }
}

#[tokio::test]
async fn what_is_not_json_is_a_bad_request_with_the_code_for_it() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    for (message, code) in [
        ("{", -32700),
        ("", -32700),
        ("nonsense", -32700),
        ("{}", -32600),
        ("7", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
    ] {
        let answer = client.post(message, &[]).await;
        assert_eq!(answer.status, 400, "{message}");
        let answer: Value = serde_json::from_str(&answer.text().await).expect("JSON");
        assert_eq!(answer["error"]["code"], code, "{message}");
        assert_eq!(answer["id"], Value::Null);
    }
    let first = client::send(&bridge.address, Method::POST, "/mcp", &[JSON], "{").await;
    assert_eq!(first.status, 400);
    assert_eq!(client.call("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn a_method_that_nobody_has_is_not_found() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    assert_eq!(client.call("no/such", json!({})).await["error"]["code"], -32601);
}

#[tokio::test]
async fn only_json_is_taken() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let session = ("Mcp-Session-Id", client.session.as_str());
    for headers in [&[session][..], &[session, ("Content-Type", "text/plain")]] {
        let answer = client::send(&bridge.address, Method::POST, "/mcp", headers, PING).await;
        assert_eq!(answer.status, 415);
    }
    let fine = [session, ("Content-Type", "Application/JSON; charset=utf-8")];
    assert_eq!(client::send(&bridge.address, Method::POST, "/mcp", &fine, PING).await.status, 200);
}

#[tokio::test]
async fn what_a_client_cannot_read_is_not_acceptable() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let session = ("Mcp-Session-Id", client.session.as_str());
    let answer = client::get(&bridge.address, "/mcp", &[session, ("Accept", "application/json")]).await;
    assert_eq!(answer.status, 406);
    assert_eq!(client.post(PING, &[("Accept", "text/html")]).await.status, 406);
    assert_eq!(client.post(PING, &[("Accept", "application/json")]).await.status, 200);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let large =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#, "x".repeat(33 << 20));
    let answer = client.post(&large, &[]).await;
    assert_eq!(answer.status, 413);
    assert_eq!(client.call("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let bridge = bridge();
    assert_eq!(client::send(&bridge.address, Method::PUT, "/mcp", &[], "").await.status, 405);
    assert_eq!(client::get(&bridge.address, "/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn a_batch_is_answered_where_the_version_has_batches() {
    let bridge = bridge();
    let client = Client::at(&bridge, "/mcp", "2025-03-26").await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/x"},
        {"jsonrpc":"2.0","id":"b","method":"tools/call","params":{"name":"foxxy__list_servers"}},7]"#;
    let answers: Value = serde_json::from_str(&client.ask(batch).await).expect("JSON");
    let answers = answers.as_array().expect("a batch");
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert_eq!(answers[1]["id"], "b");
    assert!(answers[1]["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("foxxy")));
    assert_eq!(answers[2]["error"]["code"], -32600);
    client.tell(r#"[{"jsonrpc":"2.0","method":"notifications/x"}]"#).await;
    assert_eq!(client.post("[]", &[]).await.status, 400);
}

#[tokio::test]
async fn a_batch_is_refused_where_the_version_has_none() {
    let bridge = bridge();
    let client = Client::at(&bridge, "/mcp", "2025-06-18").await;
    let answer = client.post(&format!("[{PING}]"), &[]).await;
    assert_eq!(answer.status, 400);
    let answer: Value = serde_json::from_str(&answer.text().await).expect("JSON");
    assert_eq!(answer["error"]["code"], -32600);
}

#[tokio::test]
async fn a_second_initialize_in_a_session_is_refused() {
    let bridge = bridge();
    let client = Client::of(&bridge).await;
    let again = client.call("initialize", json!({ "protocolVersion": "2025-11-25" })).await;
    assert_eq!(again["error"]["code"], -32600);
    assert_eq!(initialize(&bridge, "/mcp", "2025-11-25").await.status, 200);
}

#[tokio::test]
async fn sixty_four_clients_at_once_get_each_their_answers() {
    let echo = Script::new(&json!({
        "tools/list": tools(&["say"]), "tools/call say": [{ "result": text("well") }],
    }));
    let bridge = Bridge::start(&json!({ "up": echo.stdio() }));
    bridge.until("up", "connected").await;
    let talks = (0..64).map(|_| async {
        let client = Client::of(&bridge).await;
        for _ in 0..5 {
            assert_eq!(client.tool("up__say").await["content"][0]["text"], "well");
        }
    });
    futures_util::future::join_all(talks).await;
    assert_eq!(echo.received("tools/call").len(), 64 * 5);
}
