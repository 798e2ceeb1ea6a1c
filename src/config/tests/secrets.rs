//! Nothing that may be secret shows anywhere.

use std::path::Path;

use super::sources;
use crate::config::{Format, Sources, parse, show};

const MARKER: &str = "hunter2";

/// A literal secret in every place that is one, and `${SECRET}` in every string there is.
const PLANTED: &str = r#"{
  "mcpServers": {
    "stdio": {
      "command": "run-${SECRET}", "args": ["--key", "${SECRET}"], "cwd": "/${SECRET}",
      "env": {"A": "hunter2", "B": "${SECRET}", "C": "hunter2-${SECRET}", "D": "${NOPE:hunter2}", "E": "$${hunter2}"},
      "toolNamespace": "${SECRET}", "tags": ["${SECRET}"],
      "healthCheck": {"toolName": "${SECRET}", "toolArguments": {"a": ["${SECRET}"], "b": {"c": "${SECRET}"}}},
      "oauth_config": {"issuer": "${SECRET}", "client_id": "${SECRET}", "client_secret": "hunter2"},
      "security": {"tool_security": {"allow_tools": ["${SECRET}"]}}
    },
    "bearer": {
      "url": "https://u:${SECRET}@h/", "headers": {"A": "hunter2", "Authorization": "Bearer ${SECRET}"},
      "authentication": {"type": "bearer", "token": "hunter2"}
    },
    "key": {"url": "https://h/", "authentication": {"type": "api_key", "key": "hunter2", "header": "${SECRET}"}},
    "basic": {"url": "https://h/", "authentication": {"type": "basic", "username": "${SECRET}", "password": "hunter2"}}
  },
  "bridge": {
    "host": "${SECRET}", "allowed_hosts": ["${SECRET}"], "allowed_origins": ["https://${SECRET}"],
    "daemon": {
      "pid_file": "${SECRET}", "log_file": "${SECRET}", "user": "${SECRET}", "group": "${SECRET}",
      "environment": {"A": "hunter2", "B": "${SECRET}"}, "environment_file": "${SECRET}",
      "credentials": {"A": "/${SECRET}"}
    }
  }
}"#;

fn planted() -> Sources<'static> {
    Sources { env: &|name| (name == "SECRET").then(|| MARKER.to_owned()), ..sources() }
}

#[test]
fn nothing_secret_shows_in_debug_show_or_warnings() {
    let (config, warnings) = parse(PLANTED, Format::Json, Path::new("f"), Path::new("/"), &planted())
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.upstreams["stdio"].env["C"].expose(), "hunter2-hunter2");
    for seen in [format!("{config:?}"), format!("{config:#?}"), show(&config), format!("{warnings:?}")] {
        assert!(!seen.contains(MARKER), "{seen}");
    }
    insta::assert_snapshot!(show(&config));
}

#[test]
fn nothing_secret_shows_in_problems() {
    // Every planted string, in turn, where a string of its form is wrong.
    let text = r#"{
  "mcpServers": {
    "a": {"url": "${SECRET}", "headers": {"A": "hunter2\n", "B": "${SECRET}ä"}, "timeout": "${SECRET}", "env": {"X": ["hunter2"]}},
    "b": {"transport": "${SECRET}", "authentication": {"type": "${SECRET}", "token": "hunter2"}},
    "c": {"url": "http://h/", "authentication": {"type": "api_key", "key": {"hunter": 2}, "header": "${SECRET} x"}},
    "d": {"command": "x", "env": {"A": "hunter2\u0000"}, "toolNamespace": "${SECRET} x"}
  },
  "bridge": {
    "host": "${SECRET} x", "port": "${SECRET}", "allowed_hosts": ["${SECRET} x"], "allowed_origins": ["${SECRET}"],
    "daemon": {"user": "${SECRET} x", "environment": {"A": true}, "limits": {"memory_max": "${SECRET}"}, "watchdog": "${SECRET}"}
  }
}"#;
    let invalid = parse(text, Format::Json, Path::new("f"), Path::new("/"), &planted()).unwrap_err();
    for seen in [invalid.to_string(), format!("{invalid:?}")] {
        assert!(!seen.contains(MARKER), "{seen}");
    }
    insta::assert_snapshot!(invalid.to_string());
}
