//! What a person reads when something is wrong.

use super::{said, server};
use crate::config::Format::{Json, Toml};

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    let text = r#"{
  // several mistakes, in one run
  "mcpServers": {
    "github": { "command": ["npx"], "timeout": "soon", "comand": "x" },
    "My Server": { "command": "x" },
    "remote": { "url": "htp://x", "headers": { "a b": "c" }, "timeout": 0 },
    "empty": {},
    "auth": { "url": "http://h/", "authentication": { "type": "bearer" } },
    "kind": { "url": "http://h/", "authentication": { "type": "magic" } },
    "pipe": { "transport": "pipe" },
    "both": { "command": "x", "url": "http://h/" },
  },
  "bridge": {
    "port": 80808,
    "host": "0.0.0.0:80",
    "prot": 1,
    "conflictResolution": "frist",
    "readOnlyMode": "yes",
    "aggregation": [],
    "daemon": {
      "limits": { "memory_max": "lots", "cpu_quota": 2, "memory_high": "101%", "tasks_max": 0.5 },
      "restart": { "delay": 90, "attempts": -1 },
      "scope": "user", "user": "foxxy",
    },
  },
}"#;
    insta::assert_snapshot!(said(text, Json));
}

#[test]
fn toml_places_are_those_of_toml() {
    let text = r#"
[mcpServers.github]
comand = "npx"
timeout = "soon"

[bridge]
port = 0
when = 2020-01-01
host = 2020-01-01
"#;
    insta::assert_snapshot!(said(text, Toml));
}

#[test]
fn syntax_errors_have_line_and_column() {
    let cases = [
        ("{\n  \"a\": 1\n  \"b\": 2\n}", Json),
        ("{\n  \"a\": 'x'\n}", Json),
        ("{\r\n  a: 1\r\n}", Json),
        ("{ \"a\": }", Json),
        ("{ \"a\": [1", Json),
        ("{ \"a\": 1e999 }", Json),
        ("{} {}", Json),
        ("{\"ä\": tru }", Json),
        ("{\"a\": 1, \"b\": 2,\n \"a\": 3}", Json),
        ("", Json),
        (" \r\n", Json),
        ("// nothing\n", Json),
        ("", Toml),
        ("a = \n", Toml),
        ("a = 1\na = 2\n", Toml),
        ("[t]\n[t]\n", Toml),
        ("a = inf\n", Toml),
        ("a = 99999999999999999999\n", Toml),
        ("[]", Json),
        ("1", Json),
        ("{}", Json),
        ("x = 1", Toml),
    ];
    let said: String =
        cases.iter().map(|(text, format)| format!("{text:?}\n{}\n", said(text, *format))).collect();
    insta::assert_snapshot!(said);
}

#[test]
fn names_that_clients_cannot_tell_apart_are_named_both() {
    insta::assert_snapshot!(said(
        r#"{"mcpServers": {
  "My Server": {"command": "x"},
  "my_server": {"command": "x"},
  "my-server": {"command": "x"},
  "a__b": {"command": "x"},
  "": {"command": "x"},
  "//off": {"command": 1}
}}"#,
        Json
    ));
}

#[test]
fn unknown_keys_warn_and_name_the_nearest() {
    insta::assert_snapshot!(said(
        r#"{
  "$schema": "x", "_note": 1, "x-mine": 1, "//": "comment",
  "mcpServers": {"s": {"command": "x", "headres": {}, "disabled": true, "zzz": "${UNSET}"}},
  "bridge": {"daemon": {"restart": {"atempts": 1}}},
  "brigde": {}
}"#,
        Json
    ));
}

#[test]
fn one_key_under_two_spellings_is_an_error() {
    insta::assert_snapshot!(said(&server(r#""command": "x", "callTimeout": 5, "call_timeout": 6"#), Json));
}

#[test]
fn keys_without_function_yet_warn_once_each_and_only_when_they_ask_for_something() {
    insta::assert_snapshot!(said(
        r#"{
  "mcpServers": {
    "a": {"command": "x", "healthCheck": {}, "tags": ["t"], "security": {"tools": {"block_tools": ["x"]}}},
    "b": {"command": "x", "healthCheck": {"interval": 1000}, "oauth": {"enabled": false}, "tags": []},
    "c": {"command": "x", "healthCheck": {"interval": 1000}, "oauth": {"enabled": true}},
    "d": {"command": "x", "healthCheck": {"interval": 1000}}
  },
  "bridge": {
    "oauth_port": 1234, "failover": {"maxFailures": 2}, "configReload": {"enabled": true}, "mcp_log_level": "info",
    "read_only_mode": true, "security": {"read_only_mode": true}, "allow_command_substitution": true,
    "allowed_commands": ["id"], "allow_dangerous_commands": false,
    "daemon": {
      "manager": "pidfile", "pid_file": "~/p", "log_file": "~/l", "log": {"max_size": "1M"},
      "credentials": {"T": "/t"}, "sandbox": "strict", "watchdog": 10,
      "user": "foxxy-bridge", "group": "foxxy-bridge", "limits": {"nofile": 1024}, "stop_timeout": 5,
      "environment": {"A": "b"}, "environment_file": "/e", "restart": {"attempts": 1}
    }
  }
}"#,
        Json
    ));
}

#[test]
fn keys_of_another_transport_warn() {
    insta::assert_snapshot!(said(
        r#"{"mcpServers": {
  "a": {"command": "x", "transport": "stdio", "url": "http://h/"},
  "b": {"transport": "http", "command": "x", "url": "http://h/"},
  "c": {"transport": "builtin", "args": [], "headers": {}},
  "d": {"transport": "http", "url": "http://h/", "limits": {"tasks_max": 9}}
}}"#,
        Json
    ));
}

#[test]
fn a_line_of_the_report_is_one_short_line_whatever_the_file_holds() {
    let long = format!("a\n{}", "x".repeat(5000));
    let plain = "x".repeat(5000);
    for value in [
        serde_json::json!({ &long: { "command": 1 } }),
        serde_json::json!({ &plain: { "command": 1 } }),
        serde_json::json!({ "s": { "command": "x", "timeout": &long } }),
        serde_json::json!({ "s": { "url": &long } }),
        serde_json::json!({ "s": { "command": "x", "env": { &long: "x" } } }),
        serde_json::json!({ "s": { "command": "x", &long: "x" } }),
        serde_json::json!({ "s": { "command": format!("${{{plain}}}") } }),
        serde_json::json!({ "s": { "command": format!("${{file:{long}}}") } }),
    ] {
        let said = said(&serde_json::json!({ "mcpServers": value }).to_string(), Json);
        for line in said.lines() {
            assert!(
                line.starts_with("error: config.json:1:") || line.starts_with("warning: config.json:1:"),
                "{said}"
            );
            assert!(line.chars().count() < 1000, "{said}");
        }
    }
}
