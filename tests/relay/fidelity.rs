//! Nothing that one side says is lost, reordered or respelled on its way to the other.

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::Client;
use crate::scripted::{Script, id_of, result};

/// What typed models lose: fields they do not know, the order of keys, nulls, spellings of numbers and of letters.
const TOOL: &str = r#"{"zeta":[],"title":"T\u00e9l\u00e9 \/ é","name":"odd","annotations":{"readOnlyHint":true,"x":null},"inputSchema":{"type":"object","$defs":{"b":{},"a":{}}},"outputSchema":{"type":"object","maximum":1.10},"execution":{"taskSupport":"optional"},"_meta":{"io.example/k":[1e400,-0,0.10]},"unknown":null,"alpha":123456789012345678901234567890}"#;
const RESULT: &str = r#"{"structuredContent":{"big":123456789012345678901234567890,"price":1.10,"exp":1E+2,"z":null,"a":-0.0},"content":[{"type":"text","text":"\ud83d\ude00 \u0041\/😀","annotations":null,"_meta":{}},{"type":"hologram","x":[]}],"isError":false,"_meta":{"y":1,"b":2},"title":"t"}"#;
const PARAMS: &str = r#"{"task":{"ttl":1.50},"arguments":{"z":null,"n":98765432109876543210987,"s":"\u00e9\/","a":[ 1 , 2 ]},"name":"NAME","_meta":{"b":1,"progressToken":"TOKEN","a":2},"zz":null}"#;

fn rules() -> Value {
    json!({
        "tools/list": result(&format!(r#"{{"tools":[{TOOL}]}}"#)),
        "tools/call odd": result(RESULT),
        "tools/call wrong": [{ "error": r#"{"code":-32099,"data":{"z":1.0,"a":null},"message":"\u0041"}"# }],
    })
}

async fn an_item_of_a_list_is_kept(bridge: &Bridge) {
    let client = Client::of(bridge).await;
    let listed = client.ask(r#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#).await;
    let tool = TOOL.replace(r#""name":"odd""#, r#""name":"up__odd""#);
    assert_eq!(listed, format!(r#"{{"jsonrpc":"2.0","id":"l","result":{{"tools":[{tool}]}}}}"#));
    let one = Client::at(bridge, "/mcp/up", "2025-11-25").await;
    let listed = one.ask(r#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#).await;
    assert_eq!(listed, format!(r#"{{"jsonrpc":"2.0","id":"l","result":{{"tools":[{TOOL}]}}}}"#));
}

async fn a_call_is_kept_both_ways(bridge: &Bridge, script: &Script) {
    let client = Client::of(bridge).await;
    let params = PARAMS.replace("NAME", "up__odd");
    let call = format!(
        r#"{{ "vendor":0.10, "params":{params},"id":"a\u0062","method":"tools/call","jsonrpc":"2.0"}}"#
    );
    let mut answer = client.post(&call, &[]).await;
    let answer = match answer.header("content-type") {
        Some("text/event-stream") => answer.event().await.expect("an answer"),
        _ => answer.text().await,
    };
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":"a\u0062","result":{RESULT}}}"#));

    let received = script.received("tools/call").pop().expect("a call");
    let id = id_of(&received);
    let params = PARAMS.replace("NAME", "odd").replace(r#""TOKEN""#, &id);
    assert_eq!(
        received,
        format!(r#"{{ "vendor":0.10, "params":{params},"id":{id},"method":"tools/call","jsonrpc":"2.0"}}"#)
    );
}

#[tokio::test]
async fn a_tool_in_the_list_keeps_every_byte_but_its_name() {
    let script = Script::new(&rules());
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    an_item_of_a_list_is_kept(&bridge).await;
}

#[tokio::test]
async fn a_call_and_its_result_keep_every_byte_but_id_name_and_token() {
    let script = Script::new(&rules());
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    a_call_is_kept_both_ways(&bridge, &script).await;
}

#[tokio::test]
async fn the_same_is_so_over_http() {
    let script = Script::new(&rules());
    let server = script.serve();
    let bridge = Bridge::start(&json!({ "up": server.config() }));
    an_item_of_a_list_is_kept(&bridge).await;
    a_call_is_kept_both_ways(&bridge, &script).await;
}

#[tokio::test]
async fn an_error_is_handed_on_as_it_is() {
    let script = Script::new(&rules());
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::at(&bridge, "/mcp/up", "2025-11-25").await;
    let answer =
        client.ask(r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"wrong"}}"#).await;
    assert_eq!(
        answer,
        r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32099,"data":{"z":1.0,"a":null},"message":"\u0041"}}"#
    );
}

#[tokio::test]
async fn a_message_over_several_lines_reaches_a_child_as_one() {
    let script = Script::new(&rules());
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let call = "{\n \"jsonrpc\": \"2.0\",\r\n \"id\": 5,\n \"method\": \"tools/call\",\n \"params\": {\n \"name\": \"up__odd\", \"arguments\": {\"t\": \"a\\nb\"}\n}\n}\n";
    assert_eq!(client.ask(call).await, format!(r#"{{"jsonrpc":"2.0","id":5,"result":{RESULT}}}"#));
    let received = script.received("tools/call").pop().expect("a call");
    assert!(received.contains(r#""t": "a\nb""#), "{received}");
}

#[tokio::test]
async fn methods_that_the_bridge_does_not_know_reach_the_one_server() {
    let script = Script::new(&json!({ "vendor/thing": result(r#"{"n":1.00}"#) }));
    let bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::at(&bridge, "/mcp/up", "2025-11-25").await;
    let request = r#"{"jsonrpc":"2.0","id":3,"method":"vendor/thing","params":{"x":1.10}}"#;
    assert_eq!(client.ask(request).await, r#"{"jsonrpc":"2.0","id":3,"result":{"n":1.00}}"#);
    assert!(script.received("vendor/thing")[0].contains(r#""x":1.10"#));
}
