//! Whatever is posted, the bridge answers and lives on.

use hyper::Method;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};
use proptest::{prop_assert, prop_oneof};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bridge::Bridge;
use crate::client::{self, Client};
use crate::scripted::{Script, tools};

/// Anything, from mere bytes to what is nearly a message.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let members = prop::sample::select(vec![
        r#""jsonrpc":"2.0""#,
        r#""id":1"#,
        r#""id":"\ud800""#,
        r#""id":{}"#,
        r#""id":-1e999"#,
        r#""method":"tools/call""#,
        r#""method":"tools/list""#,
        r#""method":"resources/read""#,
        r#""method":"completion/complete""#,
        r#""method":"notifications/cancelled""#,
        r#""method":"initialize""#,
        r#""method":"\u0000""#,
        r#""params":{"name":"up__say"}"#,
        r#""params":{"name":"up__say","_meta":{"progressToken":{}}}"#,
        r#""params":{"name":7,"uri":[],"ref":null}"#,
        r#""params":{"requestId":1}"#,
        r#""params":{"ref":{"name":"\udfff"}}"#,
        r#""params":[]"#,
        r#""params":null"#,
        r#""result":{}"#,
        r#""error":{}"#,
        "\"\u{fffd}\":1",
    ]);
    let message =
        prop::collection::vec(members, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")));
    let deep = (1_usize..3000).prop_map(|depth| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    });
    let cut = (message.clone(), any::<prop::sample::Index>())
        .prop_map(|(text, at)| text.as_bytes()[..at.index(text.len())].to_vec());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        message.clone().prop_map(String::into_bytes),
        prop::collection::vec(message, 0..4).prop_map(|all| format!("[{}]", all.join(",")).into_bytes()),
        deep.prop_map(String::into_bytes),
        cut,
        Just(Vec::new()),
    ]
}

#[test]
fn whatever_is_posted_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let script = Script::new(&json!({ "tools/list": tools(&["say"]) }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let clients = runtime.block_on(async {
        [Client::at(&bridge, "/mcp", "2025-03-26").await, Client::at(&bridge, "/mcp/up", "2025-11-25").await]
    });
    let answer = |path: &str, session: Option<&str>, body: Vec<u8>| {
        runtime.block_on(async {
            let mut headers = vec![("Content-Type", "application/json")];
            headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
            let mut answer = client::send(&bridge.address, Method::POST, path, &headers, body).await;
            let status = answer.status.as_u16();
            let text = match answer.header("content-type") {
                Some("text/event-stream") => answer.event().await.unwrap_or_default(),
                _ => answer.text().await,
            };
            (status, text)
        })
    };
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(noise(), 0..3_usize), |(body, which)| {
        let (path, session) = match which {
            0 => ("/mcp", Some(clients[0].session.as_str())),
            1 => ("/mcp/up", Some(clients[1].session.as_str())),
            _ => ("/mcp", None),
        };
        let (status, text) = answer(path, session, body);
        match status {
            202 => prop_assert!(text.is_empty()),
            200 | 400 => prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "{text}"),
            other => prop_assert!(false, "HTTP {other}: {text}"),
        }
        Ok(())
    });
    outcome.expect("an answer to everything");
    runtime.block_on(async {
        for client in &clients {
            assert_eq!(client.call("ping", json!({})).await["result"], json!({}));
        }
        assert_eq!(bridge.until("up", "connected").await["restarts"], 0);
    });
}
