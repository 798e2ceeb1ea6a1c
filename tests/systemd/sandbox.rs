//! What a bridge and its servers may do, and what they are given: sandboxes, credentials, limits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{NPM, client, config, connected, everything, foxxy, nothing_is_left, property, refused};
use crate::machine::Machine;

crate::tests![
    a_sandbox_keeps_servers_from_the_machine_as_far_as_the_config_says,
    a_credential_reaches_the_server_and_nobody_else,
    a_credential_that_is_not_there_is_told,
    a_restart_puts_changed_settings_in_force,
    an_enabled_bridge_says_when_its_settings_have_changed,
];

const SOON: Duration = Duration::from_secs(15);

fn a_sandbox_keeps_servers_from_the_machine_as_far_as_the_config_says(machine: &Machine) {
    machine.root(&["install", "-d", "-m", "0777", "/srv/open"]).success();
    let script = format!(
        "for file in /srv/open/x /tmp/in-a-sandbox ~/x; do (: > $file) 2>/dev/null && echo \"wrote $file\" >&2; done\n\
         grep NoNewPrivs /proc/self/status >&2\nexec node {NPM}/server-memory/dist/index.js\n"
    );
    let script = config(machine, "tries.sh", &script);
    let cases = [
        ("off", "NoNewPrivs:\t0", true, true),
        ("auto", "NoNewPrivs:\t1", true, true),
        ("strict", "NoNewPrivs:\t1", false, false),
    ];
    for (sandbox, privileges, writes_elsewhere, shares_tmp) in cases {
        machine.root(&["rm", "-f", "/srv/open/x", "/tmp/in-a-sandbox", "/home/tester/x"]).success();
        // A name for each, so that each has a log of its own.
        let name = format!("box-{sandbox}");
        let text = json!({
            "mcpServers": { "tries": { "command": "sh", "args": [script] } },
            "bridge": { "port": 8660, "daemon": { "sandbox": sandbox } },
        });
        let path = config(machine, &format!("{name}.json"), &text.to_string());
        foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
        connected(machine, &name);
        let mut said = String::new();
        machine.wait_until(SOON, "its lines are in the journal", || {
            said = foxxy(machine, &["server", "logs", &name, "--upstream", "tries"]).stdout;
            said.contains("NoNewPrivs")
        });
        let there = |file: &str| machine.root(&["test", "-e", file]).code == Some(0);
        assert!(said.contains(privileges), "{sandbox}: {said}");
        assert_eq!(there("/srv/open/x"), writes_elsewhere, "{sandbox}: {said}");
        assert_eq!(there("/tmp/in-a-sandbox"), shares_tmp, "{sandbox}: {said}");
        assert!(there("/home/tester/x"), "{sandbox}: its home is its own");
        foxxy(machine, &["server", "stop", &name]).success();
    }
    nothing_is_left(machine);
}

fn a_credential_reaches_the_server_and_nobody_else(machine: &Machine) {
    let folder = "/home/tester/.config/foxxy-bridge";
    let mut server = everything();
    server["env"] = json!({ "KEY": "${credential:token}" });
    let text = json!({
        "mcpServers": { "e": server },
        "bridge": { "port": 8661, "daemon": { "credentials": { "token": "secrets/token" } } },
    });
    config(machine, ".config/foxxy-bridge/secrets/token", "s3cr3t");
    config(machine, ".config/foxxy-bridge/cred.json", &text.to_string());
    let reaches = |value: &str| {
        connected(machine, "cred");
        let env = client(machine, "http://127.0.0.1:8661/mcp/e", &json!([["call", "get-env"]]));
        let env: Value = serde_json::from_str(crate::bridge::text(&env[0])).expect("JSON");
        assert_eq!(env["KEY"], value);
        assert_eq!(env.get("CREDENTIALS_DIRECTORY"), None);
    };
    foxxy(machine, &["server", "start", "--daemon", "--config", &format!("{folder}/cred.json")]).success();
    reaches("s3cr3t");
    let shown = machine.user(&["systemctl", "--user", "show", "foxxy-bridge-cred"]).success();
    assert!(!shown.contains("s3cr3t"), "{shown}");
    foxxy(machine, &["server", "stop", "cred"]).success();

    foxxy(machine, &["server", "enable", "cred", "--now"]).success();
    reaches("s3cr3t");
    // It is read at each start.
    config(machine, ".config/foxxy-bridge/secrets/token", "another");
    foxxy(machine, &["server", "restart", "cred"]).success();
    reaches("another");
    foxxy(machine, &["server", "disable", "cred", "--now"]).success();
    machine.user_sh("rm -r ~/.config/foxxy-bridge").success();
    nothing_is_left(machine);
}

fn a_credential_that_is_not_there_is_told(machine: &Machine) {
    let daemon = json!({ "credentials": { "token": "/home/tester/no-such-token" } });
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8662, "daemon": daemon } }).to_string();
    let path = config(machine, "uncred.json", &text);
    // Which of them it is, systemd says only from 254 on; one that is used is told before it is asked.
    let stderr = refused(foxxy(machine, &["server", "start", "--daemon", "--config", &path]), 1);
    assert!(stderr.contains("systemd could not load the credentials for it"), "{stderr}");
    let text = text.replace(
        "\"mcpServers\":{}",
        "\"mcpServers\":{\"a\":{\"command\":\"true\",\"args\":[\"${credential:token}\"]}}",
    );
    let path = config(machine, "uncred.json", &text);
    for command in [&["server", "start", "--daemon"][..], &["config", "validate"]] {
        let stderr = refused(foxxy(machine, &[command, &["--config", &path]].concat()), 78);
        assert!(
            stderr.contains("`${credential:token}`: /home/tester/no-such-token: no such file"),
            "{stderr}"
        );
    }
    nothing_is_left(machine);
}

/// A config without servers.
fn plain(machine: &Machine, name: &str, port: u16, daemon: &Value) -> String {
    let text = json!({ "mcpServers": {}, "bridge": { "port": port, "daemon": daemon } });
    config(machine, name, &text.to_string())
}

fn a_restart_puts_changed_settings_in_force(machine: &Machine) {
    let unit = "foxxy-bridge-changes";
    let path = plain(machine, "changes.json", 8663, &json!({ "limits": { "memory_max": "256M" } }));
    let start = ["server", "start", "--daemon", "--config", &path, "--port", "8664"];
    foxxy(machine, &start).success();
    assert_eq!(property(machine, unit, "MemoryMax"), "268435456");
    // As it was: the same unit goes on, and keeps its socket.
    let has_stopped = || !property(machine, unit, "InactiveEnterTimestampMonotonic").starts_with('0');
    assert!(!has_stopped());
    foxxy(machine, &["server", "restart", "changes"]).success();
    assert_eq!((&*property(machine, unit, "MemoryMax"), has_stopped()), ("268435456", true));
    plain(machine, "changes.json", 8663, &json!({ "limits": { "memory_max": "512M" }, "watchdog": 77 }));
    let said = foxxy(machine, &["server", "reload", "changes"]).success();
    assert!(said.contains("a restart is needed for bridge.daemon"), "{said}");
    // From a bare shell, which must not cost the bridge its PATH, nor the port that was typed.
    let bare = ["env", "PATH=/usr/bin", "/usr/local/bin/foxxy-bridge", "server", "restart", "changes"];
    let said = machine.user(&bare).success();
    assert!(said.contains("restarted changes: http://127.0.0.1:8664/mcp"), "{said}");
    assert_eq!(
        (&*property(machine, unit, "MemoryMax"), has_stopped()),
        ("536870912", false),
        "it is another unit"
    );
    assert_eq!(property(machine, unit, "WatchdogUSec"), "1min 17s");
    assert!(property(machine, unit, "Environment").starts_with("PATH=/usr/local/bin:"));
    foxxy(machine, &["server", "stop", "changes"]).success();
    nothing_is_left(machine);
}

fn an_enabled_bridge_says_when_its_settings_have_changed(machine: &Machine) {
    let unit = "foxxy-bridge@older";
    let path = plain(machine, "older.json", 8665, &json!({}));
    foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
    assert!(!foxxy(machine, &["server", "restart", "older"]).stderr.contains("is not what"));
    plain(machine, "older.json", 8665, &json!({ "limits": { "tasks_max": 99 } }));
    let said = foxxy(machine, &["server", "restart", "older"]);
    assert!(said.stderr.contains("`foxxy-bridge server enable older` brings it up to date"), "{said}");
    assert_ne!(property(machine, unit, "TasksMax"), "99");
    foxxy(machine, &["server", "enable", "older"]).success();
    assert!(!foxxy(machine, &["server", "restart", "older"]).stderr.contains("is not what"));
    assert_eq!(property(machine, unit, "TasksMax"), "99");
    foxxy(machine, &["server", "disable", "older", "--now"]).success();
    nothing_is_left(machine);
}
