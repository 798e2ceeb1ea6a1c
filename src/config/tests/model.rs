//! What the typed model is after loading.

use std::time::Duration;

use super::{bridge, json, read, said, server};
use crate::config::{
    Authentication, Bridge, Config, CpuQuota, Format, ManagerChoice, MemoryLimit, Scope, Share, Size,
    Transport, sample, schema, show,
};

const JSON: &str = r#"{
  "mcpServers": {
    "zeta": {"command": "npx", "args": ["-y", "x"], "env": {"A": "${TOKEN}"}, "timeout": 1.5, "retryDelay": 250},
    "alpha": {"url": "https://h/mcp", "headers": {"X-A": "b"}, "authentication": {"type": "bearer", "token": "${TOKEN}"}},
    "old": {"transport": "sse", "url": "https://h/sse", "healthCheck": {"toolArguments": {"a": [1, null, "${PORT}"]}}}
  },
  "bridge": {
    "port": 9001, "conflictResolution": "priority", "allowed_hosts": ["a.example"],
    "daemon": {
      "manager": "systemd", "scope": "system", "user": "u", "stop_timeout": 5,
      "limits": {"memory_max": "1G", "memory_high": "50%", "cpu_quota": "150%", "tasks_max": 100}
    }
  }
}"#;

const TOML: &str = r#"
[mcpServers.zeta]
command = "npx"
args = ["-y", "x"]
env = { A = "${TOKEN}" }
timeout = 1.5
retryDelay = 250

[mcpServers.alpha]
url = "https://h/mcp"
headers.X-A = "b"
authentication = { type = "bearer", token = "${TOKEN}" }

[mcpServers.old]
transport = "sse"
url = "https://h/sse"
# TOML has no null: the twin below is compared without it.
healthCheck.toolArguments.a = [1, "${PORT}"]

[bridge]
port = 9_001
conflictResolution = "priority"
allowed_hosts = ["a.example"]

[bridge.daemon]
manager = "systemd"
scope = "system"
user = "u"
stop_timeout = 5

[bridge.daemon.limits]
memory_max = "1G"
memory_high = "50%"
cpu_quota = "150%"
tasks_max = 100
"#;

#[test]
fn json_and_toml_twins_give_the_same_model_in_the_same_order() {
    let (from_json, _) = read(&JSON.replace("null, ", ""), Format::Json).unwrap();
    let (from_toml, _) = read(TOML, Format::Toml).unwrap();
    assert_eq!(from_json, from_toml);
    assert_eq!(from_toml.upstreams.keys().collect::<Vec<_>>(), ["zeta", "alpha", "old"]);
}

#[test]
fn values_arrive_typed() {
    let (config, _) = json(JSON).unwrap();
    let zeta = &config.upstreams["zeta"];
    assert_eq!((zeta.timeout, zeta.retry_delay), (Duration::from_millis(1500), Duration::from_millis(250)));
    assert_eq!(zeta.env["A"].expose(), "s3cret");
    let daemon = &config.bridge.daemon;
    assert_eq!((daemon.manager, daemon.scope), (ManagerChoice::Systemd, Some(Scope::System)));
    assert_eq!(daemon.stop_timeout, Duration::from_secs(5));
    assert_eq!(daemon.limits.memory_max, Some(MemoryLimit::Size(Size(1 << 30))));
    assert_eq!(daemon.limits.memory_high, Some(MemoryLimit::Share(Share(5000))));
    assert_eq!(daemon.limits.cpu_quota, Some(CpuQuota(Share(15000))));
}

#[test]
fn a_server_has_limits_of_its_own() {
    let limits = |text: &str| {
        let (config, warnings) = json(&server(&format!(r#""command": "x", "limits": {text}"#)))?;
        assert_eq!(warnings, []);
        Ok::<_, crate::config::Invalid>(config.upstreams.into_values().next().unwrap().limits)
    };
    let read = limits(r#"{"memoryMax": "256M", "cpu_quota": "50%", "tasks_max": 64}"#).unwrap();
    assert_eq!(read.memory_max, Some(MemoryLimit::Size(Size(256 << 20))));
    assert_eq!((read.cpu_quota, read.tasks_max), (Some(CpuQuota(Share(5000))), Some(64)));
    for wrong in [r#"{"memory_max": "lots"}"#, r#"{"cpu_quota": 2}"#, r#"{"tasks_max": 0}"#, "5"] {
        assert!(limits(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn defaults_are_filled_in() {
    let (config, warnings) = json(&server(r#""command": "x""#)).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.bridge, Bridge::default());
    insta::assert_snapshot!(show(&config));
}

#[test]
fn any_spelling_of_a_key_is_that_key() {
    let plain = json(&server(
        r#""command": "x", "cwd": "d", "callTimeout": 5, "verify_ssl": false, "log_level": "WARNING",
           "oauth_config": {"keepAliveInterval": 5}"#,
    ));
    let varied = json(&server(
        r#""Command": "x", "working_directory": "d", "call-timeout": 5, "verifySsl": false, "logLevel": "warn",
           "oauth": {"keep_alive_interval": 5}"#,
    ));
    assert_eq!(plain.unwrap().0, varied.unwrap().0);
}

#[test]
fn transports_are_read_in_every_spelling_and_seen_from_the_url() {
    let url = r#", "url": "http://h/""#;
    for (keys, transport) in [
        (r#""command": "x""#.to_owned(), Transport::Stdio),
        (r#""url": "http://h/""#.to_owned(), Transport::Http),
        (r#""command": null, "url": "http://h/""#.to_owned(), Transport::Http),
        (format!(r#""transport": "http"{url}"#), Transport::Http),
        (format!(r#""type": "http"{url}"#), Transport::Http),
        (format!(r#""transport": "streamable-http"{url}"#), Transport::Http),
        (format!(r#""transport": "streamablehttp"{url}"#), Transport::Http),
        (format!(r#""transport": "streamable_http"{url}"#), Transport::Http),
        (format!(r#""type": "streamableHttp"{url}"#), Transport::Http),
        (format!(r#""type": "SSE"{url}"#), Transport::Sse),
        (r#""transport": "builtin""#.to_owned(), Transport::Builtin),
    ] {
        let (config, _) = json(&server(&keys)).unwrap_or_else(|invalid| panic!("{keys}: {invalid}"));
        assert_eq!(config.upstreams["s"].transport, transport, "{keys}");
    }
}

#[test]
fn authentication_is_one_of_three_kinds() {
    let read = |keys: &str| {
        let (config, _) =
            json(&server(&format!(r#""url": "http://h/", "authentication": {{{keys}}}"#))).unwrap();
        config.upstreams["s"].authentication.clone().unwrap()
    };
    assert!(
        matches!(read(r#""type": "bearer", "token": "t""#), Authentication::Bearer { token } if token.expose() == "t")
    );
    match read(r#""Type": "API-Key", "key": "k""#) {
        Authentication::ApiKey { key, header } => {
            assert_eq!((key.expose(), header.as_str()), ("k", "X-API-Key"));
        }
        other => panic!("{other:?}"),
    }
    match read(r#""type": "basic", "username": "u", "password": "p""#) {
        Authentication::Basic { username, password } => {
            assert_eq!((username.as_str(), password.expose()), ("u", "p"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_floats_are_integers_and_edges_of_ranges_hold() {
    for (keys, good) in [
        (r#""port": 8080.0"#, true),
        (r#""port": 8080.5"#, false),
        (r#""port": 1"#, true),
        (r#""port": 65535"#, true),
        (r#""port": 0"#, false),
        (r#""port": 65536"#, false),
        (r#""port": -1"#, false),
        (r#""port": 1e400"#, false),
        (r#""port": 18446744073709551616"#, false),
        (r#""port": true"#, false),
        (r#""port": null"#, false),
        (r#""oauth_port": null"#, true),
        (r#""daemon": {"restart": {"attempts": 4294967295}}"#, true),
        (r#""daemon": {"restart": {"attempts": 4294967296}}"#, false),
        (r#""daemon": {"limits": {"tasks_max": 18446744073709551615}}"#, true),
        (r#""daemon": {"limits": {"memory_max": 1.5}}"#, false),
        (r#""daemon": {"limits": {"memory_max": "10 M"}}"#, false),
        (r#""daemon": {"stop_timeout": 1e300}"#, false),
        (r#""daemon": {"watchdog": 0}"#, true),
        (r#""daemon": {"environment": {"A=B": "x"}}"#, false),
        (r#""daemon": {"credentials": {"a/b": "x"}}"#, false),
        (r#""daemon": {"limits": {"memory_max": "1M", "memory_high": "2M"}}"#, false),
        (r#""host": """#, false),
        (r#""host": "::1""#, true),
        (r#""host": "a b""#, false),
        (r#""allowed_origins": ["https://a.example"]"#, true),
        (r#""allowed_origins": ["a.example"]"#, false),
    ] {
        let said = said(&bridge(keys), Format::Json);
        assert_eq!(!said.contains("error"), good, "{keys}: {said}");
    }
}

#[test]
fn a_nul_character_is_refused_wherever_it_stands() {
    for keys in [
        r#""command": "a\u0000b""#,
        r#""command": "x", "args": ["\u0000"]"#,
        r#""command": "x", "env": {"A": "\u0000"}"#,
    ] {
        let invalid = json(&server(keys)).unwrap_err();
        assert!(invalid.to_string().contains("NUL"), "{invalid}");
    }
}

#[test]
fn the_builtin_config_serves_the_builtin_upstream_on_the_loopback() {
    let config = Config::builtin();
    assert_eq!((config.bridge.host.as_str(), config.bridge.port), ("127.0.0.1", 8080));
    assert_eq!(config.upstreams["foxxy"].transport, Transport::Builtin);
    assert_eq!(json(&show(&config)).unwrap(), (config, Vec::new()));
}

#[test]
fn the_sample_loads_clean_and_is_the_builtin_config() {
    let (config, warnings) = json(sample()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config, Config::builtin());
    // With its example uncommented it must load, too.
    let uncommented: String = sample()
        .lines()
        .map(|line| match line.split_once("// ") {
            Some((indent, rest)) if rest.contains(['"', '}']) && !rest.contains('`') => {
                format!("{indent}{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let (config, _) = json(&uncommented).unwrap();
    assert_eq!(config.upstreams.keys().collect::<Vec<_>>(), ["foxxy", "everything"]);
}

#[test]
fn the_schema_describes_every_key_and_holds_none_of_our_own_keywords() {
    let text = serde_json::to_string_pretty(&schema()).unwrap();
    assert!(!text.contains("\"x-"), "{text}");
    assert!(!text.contains("$id"));
    insta::assert_snapshot!(text);
}
