//! Upstreams that misbehave: the others and the bridge go on, and who asked is told.

use std::time::Instant;

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Client, initialize};
use crate::scripted::{Script, text, tools};

fn well() -> Script {
    Script::new(&json!({ "tools/list": tools(&["say"]), "tools/call say": [{ "result": text("well") }] }))
}

fn mortal() -> Script {
    Script::new(&json!({
        "tools/list": tools(&["die", "say"]),
        "tools/call die": [{ "log": "out of cheese" }, { "exit": 3 }],
        "tools/call say": [{ "result": text("alive") }],
    }))
}

fn said(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

#[tokio::test]
async fn a_call_that_kills_its_server_is_an_error_for_the_model_and_others_go_on() {
    let (mortal, well) = (mortal(), well());
    let bridge = Bridge::start(&json!({ "mortal": mortal.stdio(), "well": well.stdio() }));
    let client = Client::of(&bridge).await;
    let died = client.tool("mortal__die").await;
    assert_eq!(died["isError"], true);
    assert!(said(&died).contains("`mortal`") && said(&died).contains("status 3"), "{died}");
    assert!(said(&died).contains("out of cheese"), "{died}");
    assert_eq!(said(&client.tool("well__say").await), "well");
    // Not sent again: it may have done its work.
    assert_eq!(mortal.received("tools/call").len(), 1);
}

#[tokio::test]
async fn a_server_that_died_comes_back_by_itself_with_what_clients_wanted_of_it() {
    let script = mortal();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    client.call("logging/setLevel", json!({ "level": "debug" })).await;
    script.receives("logging/setLevel", 1).await;
    let before = bridge.until("up", "connected").await;
    client.tool("up__die").await;
    let after = bridge.upstream("up", |up| up["state"] == "connected" && up["restarts"] == 1).await;
    assert_ne!(before["pid"], after["pid"]);
    assert_eq!(script.received("logging/setLevel").len(), 2);
    assert_eq!(said(&client.tool("up__say").await), "alive");
}

#[tokio::test]
async fn a_server_that_takes_long_to_say_hello_has_the_time_that_its_timeout_gives() {
    let hello = json!({
        "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "slow", "version": "1" },
    });
    let slow = Script::new(&json!({
        "initialize": [{ "sleep": 9 }, { "result": hello.to_string() }],
        "tools/list": tools(&["say"]),
        "tools/call say": [{ "result": text("at last") }],
    }));
    let mut upstream = slow.stdio();
    upstream["timeout"] = json!(60);
    let bridge = Bridge::start(&json!({ "slow": upstream }));
    let connected = bridge.until("slow", "connected").await;
    assert_eq!((&connected["restarts"], &connected["error"]), (&json!(0), &Value::Null));
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("slow__say").await), "at last");
}

#[tokio::test]
async fn a_call_right_after_a_server_died_waits_for_it() {
    let script = mortal();
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    for _ in 0..2 {
        assert_eq!(client.tool("up__die").await["isError"], true);
        assert_eq!(said(&client.tool("up__say").await), "alive");
    }
}

#[tokio::test]
async fn lines_that_are_no_messages_are_logged_and_do_no_harm() {
    let script = Script::new(&json!({
        "tools/list": tools(&["chat"]),
        "tools/call chat": [
            { "say": "Listening on stdio!" }, { "say": "" }, { "say": "{\"jsonrpc\":\"2.0\"}" }, { "say": "[]" },
            { "say": "{\"jsonrpc\":\"2.0\",\"id\":999999,\"result\":{}}" },
            { "say": "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}" },
            { "result": text("chatted") },
        ],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("up__chat").await), "chatted");
    assert!(bridge.log().contains("Listening on stdio!"), "{}", bridge.log());
    assert_eq!(bridge.until("up", "connected").await["restarts"], 0);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_with_the_path_it_was_looked_for_on() {
    let well = well();
    let bridge = Bridge::start(&json!({ "bad": { "command": "no-such-mcp-server" }, "well": well.stdio() }));
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("well__say").await), "well");
    let bad = bridge.until("bad", "failed").await;
    let error = bad["error"].as_str().expect("an error");
    let path = std::env::var("PATH").expect("PATH");
    assert!(error.contains("`no-such-mcp-server` was not found on PATH") && error.contains(&path), "{error}");
    assert_eq!(bridge.status().await["healthy"], false);
    let refused = initialize(&bridge, "/mcp/bad", "2025-11-25").await;
    assert!(refused.text().await.contains("no-such-mcp-server"));
}

#[tokio::test]
async fn a_server_that_never_says_hello_is_given_up_in_time() {
    let (hanging, well) = (Script::new(&json!({ "initialize": [{ "wait": "never" }] })), well());
    let mut config = hanging.stdio();
    config["timeout"] = json!(1);
    config["retryAttempts"] = json!(1);
    let bridge = Bridge::start(&json!({ "hanging": config, "well": well.stdio() }));
    let began = Instant::now();
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("well__say").await), "well");
    assert!(began.elapsed().as_secs() < 9, "the others must not wait for it: {:?}", began.elapsed());
    let failed = bridge.until("hanging", "failed").await;
    assert_eq!(failed["error"], "no answer to `initialize` within 1 s");
    // It is tried again, and shown as failed meanwhile.
    hanging.receives("initialize", 2).await;
    assert_eq!(bridge.until("hanging", "failed").await["restarts"], 0);
    assert_eq!(bridge.status().await["upstreams"][0]["state"], "failed");
}

#[tokio::test]
async fn a_server_that_speaks_another_protocol_or_refuses_says_so() {
    let other = Script::new(&json!({
        "initialize": [{ "result": r#"{"protocolVersion":"1999-01-01","capabilities":{}}"# }],
    }));
    let refusing =
        Script::new(&json!({ "initialize": [{ "error": r#"{"code":-32000,"message":"not today"}"# }] }));
    let bridge = Bridge::start(&json!({ "other": other.stdio(), "refusing": refusing.stdio() }));
    let error = bridge.upstream("other", |up| up["error"].is_string()).await;
    assert!(error["error"].as_str().is_some_and(|error| error.contains("it speaks MCP 1999-01-01")));
    let error = bridge.upstream("refusing", |up| up["error"].is_string()).await;
    assert!(error["error"].as_str().is_some_and(|error| error.contains("not today")));
}

#[tokio::test]
async fn the_transport_sse_has_its_own_clear_error() {
    let well = well();
    let bridge = Bridge::start(&json!({
        "old": { "type": "sse", "url": "http://127.0.0.1:9/sse" }, "well": well.stdio(),
    }));
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("well__say").await), "well");
    let old = bridge.until("old", "failed").await;
    assert!(old["error"].as_str().is_some_and(|error| error.contains("`sse`") && error.contains("`http`")));
}

#[tokio::test]
async fn a_server_whose_list_cannot_be_had_again_keeps_the_one_that_is_known() {
    let script = Script::new(&json!({
        "tools/list": tools(&["shake"]),
        "tools/call shake": [
            { "rule": { "on": "tools/list", "steps": [{ "error": r#"{"code":-32603,"message":"not now"}"# }] } },
            { "tell": r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"# },
            { "result": text("shaken") },
        ],
    }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    client.tool("up__shake").await;
    script.receives("tools/list", 2).await;
    crate::bridge::eventually("a warning", || bridge.log().contains("not now")).await;
    assert_eq!(client.names("tools/list", "tools", "name").await, ["up__shake"]);
}
