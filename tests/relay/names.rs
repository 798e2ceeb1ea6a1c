//! What things are called in front of the bridge, and who is asked for them.

use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::client::{Client, initialize};
use crate::scripted::{Script, result, text, tools};

/// A server that has one of everything, and says who it is.
fn server(name: &str) -> Script {
    let uri = format!("{name}://one");
    Script::new(&json!({
        "tools/list": tools(&["same", name]),
        "tools/call": result(&text(name)),
        "prompts/list": result(&json!({ "prompts": [{ "name": "ask" }] }).to_string()),
        "prompts/get": result(&json!({ "messages": [], "description": name }).to_string()),
        "resources/list": result(&json!({ "resources": [{ "uri": uri, "name": "one" }] }).to_string()),
        "resources/read": result(&json!({ "contents": [{ "uri": uri, "text": name }] }).to_string()),
        "resources/templates/list": result(
            &json!({ "resourceTemplates": [{ "uriTemplate": format!("{name}-t://x/{{id}}"), "name": "t" }] }).to_string(),
        ),
        "completion/complete": result(&json!({ "completion": { "values": [name] } }).to_string()),
    }))
}

/// Two of them, `a` and `b`, with those settings of the bridge and of `b`.
fn two(settings: &Value, of_b: &Value) -> (Bridge, [Script; 2]) {
    let scripts = [server("a"), server("b")];
    let mut b = scripts[1].stdio();
    let members = b.as_object_mut().expect("an object");
    members.extend(of_b.as_object().expect("an object").clone());
    let servers = json!({ "a": scripts[0].stdio(), "b": b });
    (Bridge::with(&json!({ "mcpServers": servers, "bridge": settings }), &[]), scripts)
}

async fn tool_names(client: &Client) -> Vec<String> {
    client.names("tools/list", "tools", "name").await
}

fn said(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

#[tokio::test]
async fn tools_carry_their_servers_name_and_lead_back_to_it() {
    let (bridge, scripts) = two(&json!({}), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(tool_names(&client).await, ["a__same", "a__a", "b__same", "b__b"]);
    assert_eq!(said(&client.tool("a__same").await), "a");
    assert_eq!(said(&client.tool("b__same").await), "b");
    assert!(scripts[1].received("tools/call")[0].contains(r#""name":"same""#));
    let unknown = client.call("tools/call", json!({ "name": "same" })).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[tokio::test]
async fn prompts_and_their_completion_lead_back_to_their_server() {
    let (bridge, scripts) = two(&json!({}), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(client.names("prompts/list", "prompts", "name").await, ["a__ask", "b__ask"]);
    assert_eq!(client.call("prompts/get", json!({ "name": "b__ask" })).await["result"]["description"], "b");
    let ask = json!({ "ref": { "type": "ref/prompt", "name": "b__ask" }, "argument": { "name": "x", "value": "" } });
    assert_eq!(client.call("completion/complete", ask).await["result"]["completion"]["values"][0], "b");
    assert!(scripts[1].received("completion/complete")[0].contains(r#""name":"ask""#));
}

#[tokio::test]
async fn resources_and_templates_keep_their_uris_and_lead_back_to_their_server() {
    let (bridge, _scripts) = two(&json!({}), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(client.names("resources/list", "resources", "uri").await, ["a://one", "b://one"]);
    let templates = client.names("resources/templates/list", "resourceTemplates", "uriTemplate").await;
    assert_eq!(templates, ["a-t://x/{id}", "b-t://x/{id}"]);
    for (uri, who) in [("a://one", "a"), ("b://one", "b"), ("b-t://x/7", "b")] {
        let read = client.call("resources/read", json!({ "uri": uri })).await;
        assert_eq!(read["result"]["contents"][0]["text"], who, "{uri}");
    }
    let by_template = json!({
        "ref": { "type": "ref/resource", "uri": "b-t://x/{id}" }, "argument": { "name": "id", "value": "" },
    });
    let completed = client.call("completion/complete", by_template).await;
    assert_eq!(completed["result"]["completion"]["values"][0], "b");
    let unknown = client.call("resources/read", json!({ "uri": "c://one" })).await;
    assert_eq!(unknown["error"]["code"], -32002);
}

#[tokio::test]
async fn one_server_is_there_under_its_own_names() {
    let (bridge, _scripts) = two(&json!({}), &json!({}));
    for path in ["/mcp/b", "/mcp/b/"] {
        let client = Client::at(&bridge, path, "2025-11-25").await;
        assert_eq!(client.welcome["serverInfo"]["name"], "scripted");
        assert_eq!(tool_names(&client).await, ["same", "b"]);
        assert_eq!(said(&client.tool("same").await), "b");
    }
    let unknown = initialize(&bridge, "/mcp/nobody", "2025-11-25").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().await.contains("there is no server `nobody`"));
}

#[tokio::test]
async fn a_slash_at_the_end_changes_nothing() {
    let (bridge, _scripts) = two(&json!({}), &json!({}));
    let client = Client::at(&bridge, "/mcp/", "2025-11-25").await;
    assert_eq!(tool_names(&client).await.len(), 4);
    assert_eq!(client.end().await, 204);
}

#[tokio::test]
async fn without_namespaces_only_names_that_clash_get_one() {
    let (bridge, _scripts) = two(&json!({ "defaultNamespace": false }), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(tool_names(&client).await, ["a__same", "a", "b__same", "b"]);
    assert_eq!(said(&client.tool("b__same").await), "b");
    assert_eq!(said(&client.tool("a").await), "a");
}

#[tokio::test]
async fn the_first_server_has_a_name_that_clashes_when_the_config_says_first() {
    let (bridge, _scripts) =
        two(&json!({ "defaultNamespace": false, "conflictResolution": "first" }), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(tool_names(&client).await, ["same", "a", "b"]);
    assert_eq!(said(&client.tool("same").await), "a");
}

#[tokio::test]
async fn the_lowest_number_has_a_name_that_clashes_when_the_config_says_priority() {
    let (bridge, _scripts) = two(
        &json!({ "defaultNamespace": false, "conflictResolution": "priority" }),
        &json!({ "priority": 1 }),
    );
    let client = Client::of(&bridge).await;
    assert_eq!(said(&client.tool("same").await), "b");
    assert_eq!(tool_names(&client).await.len(), 3);
}

#[tokio::test]
async fn nobody_has_a_name_that_clashes_when_the_config_says_error() {
    let (bridge, _scripts) =
        two(&json!({ "defaultNamespace": false, "conflictResolution": "error" }), &json!({}));
    let client = Client::of(&bridge).await;
    assert_eq!(tool_names(&client).await, ["a", "b"]);
    assert!(bridge.log().contains("`same` is offered more than once"), "{}", bridge.log());
}

#[tokio::test]
async fn a_server_may_be_given_another_namespace() {
    let (bridge, _scripts) = two(&json!({}), &json!({ "toolNamespace": "beta", "promptNamespace": "bee" }));
    let client = Client::of(&bridge).await;
    assert_eq!(tool_names(&client).await, ["a__same", "a__a", "beta__same", "beta__b"]);
    assert_eq!(client.names("prompts/list", "prompts", "name").await, ["a__ask", "bee__ask"]);
}
