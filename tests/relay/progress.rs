//! Progress finds its way to the one who asked for it, and to nobody else.

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Client, call_with_progress};
use crate::scripted::{Script, text, tools};

/// A tool that tells its progress twice, with what the caller gave as its name, and waits for `gate` before it ends.
fn worker(name: &str, gate: Option<&str>) -> Value {
    let progress = |done: u8| {
        json!({ "say": format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":$TOKEN,"progress":{done}.0,"x":null,"message":"{name}"}}}}"#
        ) })
    };
    let mut steps = vec![progress(1)];
    steps.extend(gate.map(|gate| json!({ "wait": gate })));
    steps.push(progress(2));
    steps.push(json!({ "result": text(name) }));
    steps.into()
}

fn said(token: &str, done: u8, name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{done}.0,"x":null,"message":"{name}"}}}}"#
    )
}

fn answered(id: &str, name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, text(name))
}

#[tokio::test]
async fn progress_comes_before_the_answer_under_the_clients_own_token() {
    let script =
        Script::new(&json!({ "tools/list": tools(&["work"]), "tools/call work": worker("w", None) }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let mut answer = client.post(&call_with_progress("9", "up__work", r#""my\u0020token""#), &[]).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.event().await, Some(said(r#""my\u0020token""#, 1, "w")));
    assert_eq!(answer.event().await, Some(said(r#""my\u0020token""#, 2, "w")));
    assert_eq!(answer.event().await, Some(answered("9", "w")));
    assert_eq!(answer.event().await, None);
}

#[tokio::test]
async fn progress_is_told_while_the_work_goes_on() {
    let script = Script::new(&json!({
        "tools/list": tools(&["work", "finish"]),
        "tools/call work": worker("w", Some("finish")),
        "tools/call finish": [{ "open": "finish" }, { "result": text("finished") }],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let mut answer = client.post(&call_with_progress("9", "up__work", "1"), &[]).await;
    assert_eq!(answer.event().await, Some(said("1", 1, "w")));
    client.tool("up__finish").await;
    assert_eq!(answer.event().await, Some(said("1", 2, "w")));
    assert_eq!(answer.event().await, Some(answered("9", "w")));
}

#[tokio::test]
async fn clients_with_the_same_ids_and_tokens_are_not_mixed_up() {
    let script = Script::new(&json!({
        "tools/list": tools(&["one", "two", "finish"]),
        "tools/call one": worker("one", Some("finish")),
        "tools/call two": worker("two", Some("finish")),
        "tools/call finish": [{ "open": "finish" }, { "result": text("finished") }],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let (first, second) = (Client::of(&bridge).await, Client::of(&bridge).await);
    let mut one = first.post(&call_with_progress("1", "up__one", "1"), &[]).await;
    let mut two = second.post(&call_with_progress("1", "up__two", "1"), &[]).await;
    assert_eq!(one.event().await, Some(said("1", 1, "one")));
    assert_eq!(two.event().await, Some(said("1", 1, "two")));
    Client::of(&bridge).await.tool("up__finish").await;
    for (answer, name) in [(&mut one, "one"), (&mut two, "two")] {
        assert_eq!(answer.event().await, Some(said("1", 2, name)));
        assert_eq!(answer.event().await, Some(answered("1", name)));
        assert_eq!(answer.event().await, None);
    }
}

#[tokio::test]
async fn progress_that_a_client_cannot_read_reaches_no_other_client() {
    let script = Script::new(&json!({
        "tools/list": tools(&["one", "two", "finish"]),
        "tools/call one": worker("one", Some("finish")),
        "tools/call two": worker("two", None),
        "tools/call finish": [{ "open": "finish" }, { "result": text("finished") }],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let (first, second) = (Client::of(&bridge).await, Client::of(&bridge).await);
    let mut one = first.post(&call_with_progress("1", "up__one", "1"), &[]).await;
    assert_eq!(one.event().await, Some(said("1", 1, "one")));
    let id = crate::scripted::id_of(&script.received("tools/call")[0]);
    // Its token is what the bridge made of the other's.
    let two = second.post(&call_with_progress("1", "up__two", &id), &[("Accept", "application/json")]).await;
    assert_eq!(two.text().await, answered("1", "two"));
    second.tool("up__finish").await;
    assert_eq!(one.event().await, Some(said("1", 2, "one")));
}

#[tokio::test]
async fn a_call_that_tells_of_progress_does_not_time_out() {
    let step = json!({ "say": r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}"# });
    let pause = json!({ "sleep": 0.6 });
    let script = Script::new(&json!({
        "tools/list": tools(&["slow", "silent"]),
        "tools/call slow": [pause, step, pause, step, pause, { "result": text("done") }],
        "tools/call silent": [{ "wait": "never" }],
    }));
    let mut config = script.stdio();
    config["callTimeout"] = json!(1);
    let bridge = Bridge::start(&json!({ "up": config }));
    let client = Client::of(&bridge).await;
    let mut answer = client.post(&call_with_progress("1", "up__slow", "1"), &[]).await;
    for _ in 0..2 {
        assert!(answer.event().await.is_some_and(|event| event.contains("notifications/progress")));
    }
    assert_eq!(answer.event().await, Some(answered("1", "done")));

    let silent = client.tool("up__silent").await;
    assert_eq!(silent["isError"], true);
    assert!(silent["content"][0]["text"].as_str().is_some_and(|text| text.contains("no answer within 1 s")));
    let id = crate::scripted::id_of(&script.received("tools/call")[1]);
    assert!(script.receives("notifications/cancelled", 1).await[0].contains(&format!(r#""requestId":{id}"#)));
}
