//! Another config is put in force while the bridge runs, all of it or nothing.

use std::time::Duration;

use crate::machine::Machine;

crate::tests![
    reload_touches_only_what_changed,
    a_bad_config_is_refused_and_the_status_says_why,
    systemctl_reload_tells_the_truth,
    sighup_reloads,
    a_config_written_after_the_start_is_found,
    a_bare_shell_takes_no_variable_away,
];

const SOON: Duration = Duration::from_secs(15);
const UNIT: &str = "foxxy-bridge-reload";
const FOXXY: &str = r#""foxxy": { "transport": "builtin" }"#;
const SLEEPY: &str = r#""sleepy": { "command": "sleep", "args": ["1000"] }"#;

/// Runs a bridge with those servers on that port, does `act`, and stops it.
fn with_bridge(machine: &Machine, port: u16, servers: &str, act: impl FnOnce(&dyn Fn(&str))) {
    let write = |text: &str| {
        let script = format!("mkdir -p ~/reload && cat > ~/reload/reload.json <<'END'\n{text}\nEND");
        machine.user_sh(&script).success();
    };
    let config =
        |servers: &str| format!(r#"{{ "mcpServers": {{ {servers} }}, "bridge": {{ "port": {port} }} }}"#);
    write(&config(servers));
    machine.user_sh("foxxy-bridge server start --daemon --config ~/reload/reload.json").success();
    act(&|text: &str| write(&if text.starts_with('"') { config(text) } else { text.to_owned() }));
    machine.user(&["foxxy-bridge", "server", "stop", "reload"]).success();
}

fn property(machine: &Machine, name: &str) -> String {
    let shown = machine.user(&["systemctl", "--user", "show", UNIT, "--value", "--property", name]).success();
    shown.trim().to_owned()
}

/// The process of an upstream, as the status has it.
fn child(machine: &Machine, name: &str) -> Option<u64> {
    let status = machine.user(&["foxxy-bridge", "server", "status", "reload", "--format", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let upstreams = status["upstreams"].as_array().expect("a list").clone();
    upstreams.iter().find(|upstream| upstream["name"] == name).and_then(|upstream| upstream["pid"].as_u64())
}

fn memory(extra: &str) -> String {
    let program = "/opt/servers/node_modules/@modelcontextprotocol/server-memory/dist/index.js";
    format!(r#""memory": {{ "command": "node", "args": ["{program}"] {extra} }}"#)
}

fn reload_touches_only_what_changed(machine: &Machine) {
    with_bridge(machine, 8201, &format!("{FOXXY}, {}", memory("")), |rewrite| {
        machine.wait_until(SOON, "the server is connected", || child(machine, "memory").is_some());
        let (bridge, before) = (property(machine, "MainPID"), child(machine, "memory"));
        // Its name among the tools is no part of how it is reached.
        rewrite(&format!("{}, {}", memory(r#", "toolNamespace": "mem""#), SLEEPY));
        let said = machine.user(&["foxxy-bridge", "server", "reload", "reload"]).success();
        assert_eq!(said, "reloaded reload: added sleepy; removed foxxy\n");
        assert_eq!(child(machine, "memory"), before, "the server was not touched");
        assert_eq!(property(machine, "MainPID"), bridge);
        let tools = machine.mcp("http://127.0.0.1:8201/mcp", &serde_json::json!([["tools"]])).to_string();
        assert!(
            tools.contains("\"mem__") && !tools.contains("memory__") && !tools.contains("foxxy__"),
            "{tools}"
        );
        // A changed definition is connected anew.
        rewrite(&memory(r#", "env": { "A": "b" }"#));
        let said = machine.user(&["foxxy-bridge", "server", "reload", "reload"]).success();
        assert_eq!(said, "reloaded reload: removed sleepy; changed memory\n");
        machine.wait_until(SOON, "a new process serves", || {
            child(machine, "memory").is_some_and(|now| Some(now) != before)
        });
    });
}

fn a_bad_config_is_refused_and_the_status_says_why(machine: &Machine) {
    with_bridge(machine, 8202, FOXXY, |rewrite| {
        rewrite(r#"{ "mcpServers": { "a": 3 } }"#);
        let refused = machine.user(&["foxxy-bridge", "server", "reload", "reload"]).failure(78);
        assert!(refused.contains("reload.json:1:24: mcpServers.a: found 3, expected an object"), "{refused}");
        assert!(refused.contains("goes on with the config from before"), "{refused}");
        let status = property(machine, "StatusText");
        assert!(status.contains("1 of 1 upstreams connected"), "{status}");
        assert!(status.contains("refused") && status.contains("mcpServers.a"), "{status}");
        machine.user(&["curl", "-sf", "http://127.0.0.1:8202/readyz"]).success();
        // Once it is mended, nothing of it is left.
        rewrite(FOXXY);
        machine.user(&["foxxy-bridge", "server", "reload", "reload"]).success();
        assert!(!property(machine, "StatusText").contains("refused"));
    });
}

fn systemctl_reload_tells_the_truth(machine: &Machine) {
    with_bridge(machine, 8203, FOXXY, |rewrite| {
        rewrite(&format!("{FOXXY}, {SLEEPY}"));
        machine.user(&["systemctl", "--user", "reload", UNIT]).success();
        assert!(property(machine, "StatusText").contains("of 2 upstreams"));
        rewrite("{ nonsense");
        let reload = machine.user(&["systemctl", "--user", "reload", UNIT]);
        // With `notify-reload` systemd learns that a reload is over, and not what became of it.
        let code = if property(machine, "Type") == "notify" { 1 } else { 0 };
        assert_eq!(reload.code, Some(code), "{reload}");
        assert!(property(machine, "StatusText").contains("refused"));
        assert_eq!(property(machine, "ActiveState"), "active");
        assert_eq!(property(machine, "NRestarts"), "0");
    });
}

fn sighup_reloads(machine: &Machine) {
    with_bridge(machine, 8204, FOXXY, |rewrite| {
        let pid = property(machine, "MainPID");
        rewrite(&format!("{FOXXY}, {SLEEPY}"));
        machine.user(&["kill", "-HUP", &pid]).success();
        machine
            .wait_until(SOON, "the new server is known", || property(machine, "StatusText").contains("of 2"));
        assert_eq!(
            (property(machine, "MainPID"), property(machine, "SubState")),
            (pid, "running".to_owned())
        );
    });
}

fn a_config_written_after_the_start_is_found(machine: &Machine) {
    let bridge = |arguments: &str| machine.user_sh(&format!("foxxy-bridge -C ~/later {arguments}")).success();
    bridge("server start --daemon --port 8205");
    let servers = format!(r#"{{ "mcpServers": {{ {SLEEPY} }} }}"#);
    machine.user_sh(&format!("mkdir -p ~/later && echo '{servers}' > ~/later/config.json")).success();
    assert_eq!(bridge("server reload"), "reloaded default: added sleepy; removed foxxy\n");
    let list: serde_json::Value = serde_json::from_str(&bridge("server list --format json")).expect("JSON");
    assert!(list[0]["config"].as_str().expect("a path").ends_with("/later/config.json"), "{list}");
    bridge("server stop");
}

fn a_bare_shell_takes_no_variable_away(machine: &Machine) {
    let daemon = r#"{ "environment": { "API_KEY": "${TOKEN}", "TOKEN": "t-${TOKEN}" } }"#;
    let text = format!(r#"{{ "mcpServers": {{}}, "bridge": {{ "port": 8860, "daemon": {daemon} }} }}"#);
    crate::bridge::config(machine, "bare.json", &text);
    let here = "/run/user/$(id -u)/foxxy-bridge/bare/environment";
    let kept = "~/.local/state/foxxy-bridge/bare/kept/environment";
    for (typed, file, token) in [
        ("TOKEN=x foxxy-bridge server start --daemon --config bare.json", here, "x"),
        ("foxxy-bridge server restart bare", here, "x"),
        ("foxxy-bridge server reload bare", here, "x"),
        // What runs here on an older systemd has the unit's variables, which are not those that it was given.
        ("systemctl --user reload foxxy-bridge-bare", here, "x"),
        ("TOKEN=y foxxy-bridge server reload bare", here, "y"),
        ("foxxy-bridge server enable bare", kept, "y"),
        ("foxxy-bridge server restart bare", kept, "y"),
        ("systemctl --user reload foxxy-bridge@bare", kept, "y"),
        ("foxxy-bridge server stop bare; foxxy-bridge server start --daemon --config bare.json", kept, "y"),
        ("foxxy-bridge server stop bare; foxxy-bridge server restart bare", kept, "y"),
    ] {
        let said = machine.user_sh(typed);
        assert!(
            !said.stderr.contains("TOKEN is not set") && !said.stderr.contains("kept for the boot"),
            "{said}"
        );
        said.success();
        let given = machine.user_sh(&format!("cat {file}")).success();
        assert_eq!(given, format!("API_KEY=\"{token}\"\nTOKEN=\"t-{token}\"\n"), "{typed}");
    }
    machine.user_sh("foxxy-bridge server disable bare --now; rm bare.json").success();
}
