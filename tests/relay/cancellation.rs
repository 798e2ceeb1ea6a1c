//! A client that changes its mind.

use serde_json::json;

use crate::bridge::Bridge;
use crate::client::Client;
use crate::scripted::{Script, id_of, text, tools};

fn script() -> Script {
    Script::new(&json!({
        "tools/list": tools(&["wait", "open"]),
        "tools/call wait": [{ "wait": "gate" }, { "result": text("waited") }],
        "tools/call open": [{ "open": "gate" }, { "result": text("opened") }],
    }))
}

const WAIT: &str = r#"{"jsonrpc":"2.0","id":"w","method":"tools/call","params":{"name":"up__wait"}}"#;
const CANCEL: &str = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"reason":"no\u0020more","requestId":"w","x":1.0}}"#;

#[tokio::test]
async fn a_cancelled_call_is_cancelled_upstream_under_the_upstreams_id_and_ends_here() {
    let script = script();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.ask(WAIT).await });
    let id = id_of(&script.receives("tools/call", 1).await[0]);
    client.tell(CANCEL).await;
    assert_eq!(script.receives("notifications/cancelled", 1).await, [CANCEL.replace(r#""w""#, &id)]);
    // The upstream says no more: the client must not wait for it.
    let answer = call.await.expect("an answer");
    assert!(answer.contains("cancelled"), "{answer}");
    assert_eq!(bridge.upstream("up", |up| up["in_flight"] == 0).await["in_flight"], 0);
}

#[tokio::test]
async fn a_client_cannot_cancel_what_another_asked_for() {
    let script = script();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.ask(WAIT).await });
    script.receives("tools/call", 1).await;
    Client::of(&bridge).await.tell(CANCEL).await;
    client.tool("up__open").await;
    assert!(call.await.expect("an answer").contains("waited"));
    assert!(script.received("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn an_id_that_is_still_in_use_is_refused() {
    let script = script();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.ask(WAIT).await });
    script.receives("tools/call", 1).await;
    assert!(client.ask(WAIT).await.contains("still under way"));
    client.tool("up__open").await;
    assert!(call.await.expect("an answer").contains("waited"));
}
