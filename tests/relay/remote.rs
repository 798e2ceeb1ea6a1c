//! Upstreams over HTTP: answers in both forms, sessions that are forgotten, streams that break, and credentials.

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Client, call_with_progress};
use crate::scripted::{Script, text, tools};

const PROGRESS: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}"#;

fn said(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

#[tokio::test]
async fn an_answer_may_come_as_json_or_as_events() {
    let script = Script::new(&json!({
        "tools/list": tools(&["plain", "stream"]),
        "tools/call plain": [{ "result": text("plain") }],
        "tools/call stream": [{ "stream": 1 }, { "say": PROGRESS }, { "result": text("streamed") }],
    }));
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("up__plain").await), "plain");
    let mut answer = client.post(&call_with_progress("4", "up__stream", r#""t""#), &[]).await;
    assert_eq!(answer.event().await, Some(PROGRESS.replace("$TOKEN", r#""t""#)));
    assert!(answer.event().await.is_some_and(|event| event.contains("streamed")));
    // It is one client with one session, and says which version it speaks.
    let record = script.record();
    let sessions: std::collections::HashSet<_> =
        record.iter().skip(1).map(|entry| entry["headers"]["mcp-session-id"].to_string()).collect();
    let call = record.iter().find(|entry| entry["body"].as_str().is_some_and(|body| body.contains("plain")));
    assert_eq!(call.expect("a call")["headers"]["mcp-protocol-version"], "2025-11-25");
    assert!(sessions.iter().filter(|id| *id != "null").count() == 1, "{sessions:?}");
}

async fn a_forgotten_session(status: u16) {
    let script = Script::new(&json!({
        "tools/list": tools(&["forget", "say"]),
        "tools/call forget": [{ "result": text("who are you?") }, { "forget": status }],
        "tools/call say": [{ "result": text("welcome back") }],
    }));
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    let client = Client::of(&bridge).await;
    for round in 2..4 {
        client.tool("up__forget").await;
        assert_eq!(said(&client.tool("up__say").await), "welcome back");
        assert_eq!(script.received("initialize").len(), round);
    }
    let calls = script.record();
    let calls =
        calls.iter().filter(|entry| entry["body"].as_str().is_some_and(|body| body.contains("\"say\"")));
    assert_eq!(calls.count(), 4, "each is sent twice: refused unread, then answered");
}

#[tokio::test]
async fn a_server_that_forgot_its_session_is_greeted_anew_and_the_call_succeeds() {
    a_forgotten_session(404).await;
}

#[tokio::test]
async fn so_it_is_with_servers_that_say_so_by_a_bad_request() {
    a_forgotten_session(400).await;
}

#[tokio::test]
async fn a_broken_answer_is_taken_up_where_it_broke() {
    let script = Script::new(&json!({
        "tools/list": tools(&["work"]),
        "tools/call work": [
            { "stream": 1 }, { "say": PROGRESS }, { "break": 1 }, { "sleep": 0.2 }, { "say": PROGRESS },
            { "result": text("at last") },
        ],
    }));
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    let client = Client::of(&bridge).await;
    let mut answer = client.post(&call_with_progress("1", "up__work", "1"), &[]).await;
    for _ in 0..2 {
        assert!(answer.event().await.is_some_and(|event| event.contains("progress")));
    }
    assert!(answer.event().await.is_some_and(|event| event.contains("at last")));
    let resumed = script.record();
    let resumed: Vec<_> =
        resumed.iter().filter(|entry| entry["headers"]["last-event-id"].is_string()).collect();
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    assert_eq!(script.received("tools/call").len(), 1);
}

#[tokio::test]
async fn a_broken_answer_that_cannot_be_taken_up_is_an_error() {
    let script = Script::new(&json!({
        "tools/list": tools(&["work", "say"]),
        "tools/call work": [{ "stream": 1 }, { "break": 1 }, { "result": text("nobody hears") }],
        "tools/call say": [{ "result": text("well") }],
    }));
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    let client = Client::of(&bridge).await;
    let answer = client.tool("up__work").await;
    assert_eq!(answer["isError"], true);
    assert_eq!(said(&client.tool("up__say").await), "well");
}

#[tokio::test]
async fn what_is_said_on_the_get_stream_reaches_the_clients() {
    let message =
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.10}}"#;
    let script = Script::new(&json!({
        "tools/list": tools(&["grow"]),
        "tools/call grow": [
            { "rule": { "on": "tools/list", "steps": tools(&["grow", "new"]) } },
            { "tell": message }, { "tell": r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"# },
            { "result": text("grown") },
        ],
    }));
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    let client = Client::of(&bridge).await;
    let mut hears = client.listen().await;
    crate::bridge::eventually("a GET stream", || {
        script.record().iter().any(|entry| entry["http"] == "LISTENING")
    })
    .await;
    client.tool("up__grow").await;
    assert_eq!(hears.event().await.as_deref(), Some(message));
    assert!(hears.event().await.is_some_and(|event| event.contains("list_changed")));
    assert_eq!(client.names("tools/list", "tools", "name").await, ["up__grow", "up__new"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_connected_when_it_comes() {
    let script =
        Script::new(&json!({ "tools/list": tools(&["say"]), "tools/call": [{ "result": text("here") }] }));
    let gone = script.serve();
    let config = gone.config();
    drop(gone);
    let bridge = Bridge::start(&json!({ "up": config }));
    let up = bridge.upstream("up", |up| up["error"].is_string()).await;
    assert!(up["error"].as_str().is_some_and(|error| error.contains("refused")), "{up}");
    let client = Client::of(&bridge).await;
    assert_eq!(client.names("tools/list", "tools", "name").await, Vec::<String>::new());
}

#[tokio::test]
async fn each_kind_of_credential_arrives_with_every_request() {
    for (authentication, header, value) in [
        (json!({ "type": "bearer", "token": "sesame" }), "authorization", "Bearer sesame"),
        (json!({ "type": "api_key", "key": "sesame" }), "x-api-key", "sesame"),
        (json!({ "type": "api_key", "key": "sesame", "header": "X-Mine" }), "x-mine", "sesame"),
        (
            json!({ "type": "basic", "username": "ali", "password": "s:é" }),
            "authorization",
            "Basic YWxpOnM6w6k=",
        ),
    ] {
        let script = Script::new(&json!({ "tools/list": tools(&["say"]) }));
        let server = script.serve();
        let mut config = server.config();
        config["authentication"] = authentication;
        config["headers"] = json!({ "X-Extra": "more" });
        let bridge = Bridge::start(&json!({ "up": config }));
        bridge.until("up", "connected").await;
        crate::bridge::eventually("a GET stream", || {
            script.record().iter().any(|entry| entry["http"] == "LISTENING")
        })
        .await;
        drop(bridge);
        let record = script.record();
        for http in ["POST", "GET", "DELETE"] {
            assert!(record.iter().any(|entry| entry["http"] == http), "no {http}");
        }
        for entry in record.iter().filter(|entry| entry["http"] != "LISTENING") {
            assert_eq!(entry["headers"][header], value);
            assert_eq!(entry["headers"]["x-extra"], "more");
        }
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_gets_no_credentials() {
    let elsewhere = Script::new(&json!({}));
    let there = elsewhere.serve();
    let script = Script::new(&json!({ "initialize": [{ "redirect": there.url }] }));
    let server = script.serve();
    let mut config = server.config();
    config["authentication"] = json!({ "type": "api_key", "key": "sesame" });
    let bridge = Bridge::start(&json!({ "up": config }));
    let up = bridge.upstream("up", |up| up["error"].is_string()).await;
    assert!(up["error"].as_str().is_some_and(|error| error.contains("307")), "{up}");
    assert!(elsewhere.record().is_empty());
}
