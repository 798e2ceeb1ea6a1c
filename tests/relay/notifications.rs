//! What an upstream says unasked, and who hears it.

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::Client;
use crate::scripted::{Script, result, text, tools};

fn log_line(level: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":{{"n":1.10}}}}}}"#
    )
}

/// A server whose tool `talk` logs a line of three levels.
fn talker() -> Script {
    let lines: Vec<Value> = ["debug", "info", "error"].map(|level| json!({ "tell": log_line(level) })).into();
    let mut steps = lines;
    steps.push(json!({ "result": text("said") }));
    Script::new(&json!({ "tools/list": tools(&["talk"]), "tools/call talk": steps }))
}

#[tokio::test]
async fn ping_is_answered_on_both_sides() {
    let script = Script::new(&json!({
        "tools/list": tools(&["x"]),
        "tools/call x": [{ "say": r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"# }, { "sleep": 0.3 }, { "result": text("x") }],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    assert_eq!(client.call("ping", json!({})).await["result"], json!({}));
    client.tool("up__x").await;
    let pong = r#"{"jsonrpc":"2.0","id":"p","result":{}}"#;
    assert!(script.record().iter().any(|entry| entry["body"] == pong));
}

#[tokio::test]
async fn log_messages_reach_each_client_from_its_own_level_on() {
    let script = talker();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let (all, few, plain) = (Client::of(&bridge).await, Client::of(&bridge).await, Client::of(&bridge).await);
    assert_eq!(few.call("logging/setLevel", json!({ "level": "error" })).await["result"], json!({}));
    assert_eq!(all.call("logging/setLevel", json!({ "level": "debug" })).await["result"], json!({}));
    assert_eq!(all.call("logging/setLevel", json!({ "level": "loud" })).await["error"]["code"], -32602);
    let (mut all_hears, mut few_hears, mut plain_hears) =
        (all.listen().await, few.listen().await, plain.listen().await);
    plain.tool("up__talk").await;
    for level in ["debug", "info", "error"] {
        assert_eq!(all_hears.event().await, Some(log_line(level)));
    }
    assert_eq!(few_hears.event().await, Some(log_line("error")));
    assert_eq!(plain_hears.event().await, Some(log_line("info")));
    assert_eq!(plain_hears.event().await, Some(log_line("error")));
    assert!(few_hears.is_silent().await);
}

#[tokio::test]
async fn an_upstream_is_told_the_most_verbose_level_that_any_client_wants() {
    let script = talker();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let (first, second) = (Client::of(&bridge).await, Client::of(&bridge).await);
    first.call("logging/setLevel", json!({ "level": "error" })).await;
    // The second has not asked: it gets `info` and what is worse.
    assert!(script.receives("logging/setLevel", 1).await[0].contains(r#""level":"info""#));
    second.call("logging/setLevel", json!({ "level": "critical" })).await;
    assert!(script.receives("logging/setLevel", 2).await[1].contains(r#""level":"error""#));
}

#[tokio::test]
async fn what_is_said_before_a_client_listens_is_kept_for_it() {
    let script = talker();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    client.tool("up__talk").await;
    assert_eq!(client.listen().await.event().await, Some(log_line("info")));
}

#[tokio::test]
async fn updates_of_a_resource_reach_who_has_subscribed_to_it() {
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"title":"t","uri":"up://one"}}"#;
    let script = Script::new(&json!({
        "tools/list": tools(&["update"]),
        "tools/call update": [{ "tell": updated }, { "result": text("updated") }],
        "resources/list": result(r#"{"resources":[{"uri":"up://one","name":"one"}]}"#),
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let (one, two, other) = (Client::of(&bridge).await, Client::of(&bridge).await, Client::of(&bridge).await);
    let uri = json!({ "uri": "up://one" });
    assert_eq!(one.call("resources/subscribe", uri.clone()).await["result"], json!({}));
    assert_eq!(two.call("resources/subscribe", uri.clone()).await["result"], json!({}));
    let (mut one_hears, mut two_hears, mut other_hears) =
        (one.listen().await, two.listen().await, other.listen().await);
    other.tool("up__update").await;
    assert_eq!(one_hears.event().await.as_deref(), Some(updated));
    assert_eq!(two_hears.event().await.as_deref(), Some(updated));
    assert!(other_hears.is_silent().await);

    // The upstream hears that nobody wants it any more when nobody does.
    assert_eq!(one.call("resources/unsubscribe", uri).await["result"], json!({}));
    assert!(script.received("resources/unsubscribe").is_empty());
    other.tool("up__update").await;
    assert_eq!(two_hears.event().await.as_deref(), Some(updated));
    assert!(one_hears.is_silent().await);
    assert_eq!(two.end().await, 204);
    assert_eq!(script.receives("resources/unsubscribe", 1).await.len(), 1);
    assert_eq!(script.received("resources/subscribe").len(), 1);
}

#[tokio::test]
async fn clients_hear_that_a_list_changed_once_the_new_one_is_served() {
    let script = Script::new(&json!({
        "tools/list": tools(&["grow"]),
        "tools/call grow": [
            { "rule": { "on": "tools/list", "steps": tools(&["grow", "new"]) } },
            { "tell": r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"# },
            { "result": text("grown") },
        ],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio(), "foxxy": { "type": "builtin" } }));
    let client = Client::of(&bridge).await;
    let (one, elsewhere) = (
        Client::at(&bridge, "/mcp/up", "2025-11-25").await,
        Client::at(&bridge, "/mcp/foxxy", "2025-11-25").await,
    );
    let (mut hears, mut one_hears, mut elsewhere_hears) =
        (client.listen().await, one.listen().await, elsewhere.listen().await);
    client.tool("up__grow").await;
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    assert_eq!(hears.event().await.as_deref(), Some(changed));
    let names = client.names("tools/list", "tools", "name").await;
    assert!(names.contains(&"up__new".to_owned()), "{names:?}");
    assert_eq!(one_hears.event().await.as_deref(), Some(changed));
    assert!(elsewhere_hears.is_silent().await);
}

#[tokio::test]
async fn a_list_in_pages_is_read_to_its_end() {
    let page = |names: &[&str], next: &str| {
        let tools: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        json!({ "tools": tools, "nextCursor": next }).to_string()
    };
    let script = Script::new(&json!({
        "tools/list": [
            { "rule": { "on": "tools/list", "steps": tools(&["c"]) } },
            { "result": page(&["a", "b"], "more\"") },
        ],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    assert_eq!(client.names("tools/list", "tools", "name").await, ["up__a", "up__b", "up__c"]);
    assert!(script.received("tools/list")[1].contains(r#"{"cursor":"more\""}"#));
}
