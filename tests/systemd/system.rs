//! The machine's own bridge: kept by the system manager, run as a user who is not root.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{everything, get, refused};
use crate::machine::Machine;

crate::tests![
    roots_bridge_is_the_machines_and_runs_as_the_user_of_its_config,
    a_bridges_user_does_not_choose_what_root_restarts,
    a_config_that_the_bridges_user_may_not_read_is_a_matter_of_permission,
    without_its_account_a_bridge_is_root_only_with_a_warning,
];

fn roots_bridge_is_the_machines_and_runs_as_the_user_of_its_config(machine: &Machine) {
    let text = json!({
        "mcpServers": { "e": everything() },
        "bridge": { "port": 8350, "daemon": { "user": "loner", "environment": { "WHO": "${CALLER}" } } },
    });
    let script = "install -d /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/config.json";
    machine.root(&["sh", "-euc", script, "sh", &text.to_string()]).success();
    let foxxy = |arguments: &[&str]| machine.root(&[&["foxxy-bridge", "server"], arguments].concat());

    let start = ["env", "CALLER=s3cr3t", "foxxy-bridge", "server", "start", "--daemon"];
    let said = machine.root(&start).success();
    assert!(said.starts_with("started default: http://127.0.0.1:8350/mcp (PID "), "{said}");
    assert_eq!(get(machine, "http://127.0.0.1:8350/readyz"), "200");
    let list: Value = serde_json::from_str(&foxxy(&["list", "--format", "json"]).success()).expect("JSON");
    assert_eq!(list[0]["config"], "/etc/foxxy-bridge/config.json");
    let mut status = Value::Null;
    machine.wait_until(Duration::from_secs(30), "its server is connected", || {
        let said = foxxy(&["server-status", "--format", "json"]).stdout;
        status = serde_json::from_str(&said).unwrap_or_default();
        status["healthy"] == true
    });
    for pid in [&status["pid"], &status["upstreams"][0]["pid"]] {
        let user = machine.root(&["ps", "-o", "user=", "-p", &pid.to_string()]).success();
        assert_eq!(user.trim(), "loner", "process {pid}");
    }
    let show = ["systemctl", "show", "foxxy-bridge-default", "--property=User,Type,ActiveState"];
    let show = machine.root(&show).success();
    for property in ["User=loner", "ActiveState=active"] {
        assert!(show.lines().any(|line| line == property), "{property}: {show}");
    }
    assert!(show.contains("Type=notify"), "{show}");
    assert!(!machine.user(&["systemctl", "show", "foxxy-bridge-default"]).success().contains("s3cr3t"));
    assert!(foxxy(&["logs"]).success().contains("e: connected: "));
    for command in
        ["start --daemon", "start --daemon --force", "stop", "restart", "reload", "enable", "status"]
    {
        let typed = format!("foxxy-bridge server {command} --system");
        let stderr = refused(machine.user(&typed.split(' ').collect::<Vec<_>>()), 77);
        assert!(stderr.contains("hint: use sudo"), "{command}: {stderr}");
    }
    let said = machine.user(&["foxxy-bridge", "server", "status", "--system", "--format", "json"]);
    assert_eq!(said.code, Some(77), "{said}");

    foxxy(&["restart"]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8350/readyz"), "200");
    assert_eq!(foxxy(&["stop"]).success(), "stopped default\n");
    assert_eq!(foxxy(&["list", "--format", "json"]).success(), "[]\n");
    assert_eq!(machine.root(&["pgrep", "--list-full", "--exact", "foxxy-bridge"]).stdout, "");
    let units = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "foxxy-bridge*"];
    assert_eq!(machine.root(&units).success(), "");
    assert_eq!(machine.root(&["find", "/run/foxxy-bridge", "-mindepth", "1"]).stdout, "");
    machine.root(&["rm", "-r", "/etc/foxxy-bridge"]).success();
}

fn a_bridges_user_does_not_choose_what_root_restarts(machine: &Machine) {
    let config = |user: &str| {
        json!({ "mcpServers": {}, "bridge": { "port": 8840, "daemon": { "user": user } } }).to_string()
    };
    let write = "mkdir -p /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/work.json";
    machine.root(&["sh", "-euc", write, "sh", &config("loner")]).success();
    let foxxy = |arguments: &[&str]| machine.root(&[&["foxxy-bridge"], arguments].concat());
    foxxy(&["--config", "/etc/foxxy-bridge/work.json", "server", "start", "--daemon"]).success();
    let lie = "printf '%s' \"$1\" > ~/other.json; \
        printf '{\"pid\":1,\"config\":\"%s/other.json\"}' ~ > /run/foxxy-bridge/work/lock";
    machine.loner(&["sh", "-euc", lie, "sh", &config("root")]).success();

    let list = foxxy(&["server", "list", "--format", "json"]).success();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list[0]["config"], "/etc/foxxy-bridge/work.json");
    for command in ["restart", "reload"] {
        foxxy(&["server", command, "work"]).success();
        let pid = machine.root(&["systemctl", "show", "--value", "--property=MainPID", "foxxy-bridge-work"]);
        let user = machine.root(&["ps", "-o", "user=", "-p", pid.success().trim()]).success();
        assert_eq!(user.trim(), "loner", "after a {command}");
        machine.loner(&["sh", "-euc", lie, "sh", &config("root")]).success();
    }
    foxxy(&["server", "stop", "work"]).success();
    machine.root(&["rm", "-r", "/etc/foxxy-bridge", "/home/loner/other.json"]).success();
}

fn a_config_that_the_bridges_user_may_not_read_is_a_matter_of_permission(machine: &Machine) {
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8841, "daemon": { "user": "loner" } } });
    let write = "mkdir -p /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/shut.json; \
        chmod 0600 /etc/foxxy-bridge/shut.json";
    machine.root(&["sh", "-euc", write, "sh", &text.to_string()]).success();
    let foxxy = |arguments: &[&str]| {
        let typed = [&["foxxy-bridge", "--config", "/etc/foxxy-bridge/shut.json", "server"], arguments];
        machine.root(&typed.concat())
    };
    let stderr = refused(foxxy(&["start", "--daemon"]), 77);
    assert!(stderr.contains("(exit code 77)") && stderr.contains("shut.json"), "{stderr}");
    // Nor does it help to try again.
    foxxy(&["enable"]).success();
    machine.root(&["systemctl", "start", "foxxy-bridge@shut"]).failure(1);
    let show = ["systemctl", "show", "--value", "--property=NRestarts,ActiveState", "foxxy-bridge@shut"];
    let shown = machine.root(&show).success();
    let mut lines: Vec<&str> = shown.split_whitespace().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "failed"]);
    assert_eq!(foxxy(&["stop"]).success(), "stopped shut: it had failed and was given up\n");
    let state = ["systemctl", "show", "--value", "--property=ActiveState", "foxxy-bridge@shut"];
    assert_eq!(machine.root(&state).success(), "inactive\n");
    foxxy(&["disable"]).success();
    for command in ["enable", "stop", "restart", "start --daemon"] {
        let typed = format!("foxxy-bridge --config nope.json server {command}");
        refused(machine.root(&typed.split(' ').collect::<Vec<_>>()), 78);
    }
    machine.root(&["rm", "-r", "/etc/foxxy-bridge"]).success();
}

fn without_its_account_a_bridge_is_root_only_with_a_warning(machine: &Machine) {
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8864 } }).to_string();
    let script = "install -d /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/orphan.json";
    machine.root(&["sh", "-euc", script, "sh", &text]).success();
    let foxxy = |arguments: &[&str]| machine.root(&[&["foxxy-bridge", "server"], arguments].concat());
    let user =
        |unit: &str| machine.root(&["systemctl", "show", "--value", "--property=User", unit]).success();
    let config = ["--config", "/etc/foxxy-bridge/orphan.json"];
    let root = "orphan runs as root: there is no account foxxy-bridge; `systemd-sysusers` makes it";

    let said = foxxy(&[&["start", "--daemon"][..], &config].concat());
    assert_eq!(said.stderr.matches(root).count(), 1, "{said}");
    said.success();
    let said = foxxy(&["restart", "orphan"]);
    assert_eq!(said.stderr.matches(root).count(), 1, "{said}");
    foxxy(&["stop", "orphan"]).success();

    // One that is enabled waits for its account, and does not become root meanwhile.
    let said = foxxy(&["enable", "orphan"]);
    let makes = said.stderr.split("or: ").nth(1).and_then(|rest| rest.split(';').next()).map(str::to_owned);
    assert!(said.stderr.contains("orphan cannot start yet"), "{said}");
    said.success();
    assert_eq!(user("foxxy-bridge@orphan"), "foxxy-bridge\n");
    machine.root(&["systemctl", "start", "foxxy-bridge@orphan"]).failure(1);
    machine.root(&["systemctl", "stop", "foxxy-bridge@orphan"]).success();
    machine.root(&["sh", "-euc", &makes.expect("a command that makes it")]).success();
    let said = foxxy(&["start", "--daemon", "--config", "/etc/foxxy-bridge/orphan.json"]);
    assert!(!said.stderr.contains("account"), "{said}");
    said.success();
    assert_eq!(get(machine, "http://127.0.0.1:8864/readyz"), "200");
    let group = ["sh", "-c", "ps -o user:20=,group:20= -p $(pgrep --oldest --exact foxxy-bridge)"];
    let runs_as = machine.root(&group).success();
    assert_eq!(runs_as.split_whitespace().collect::<Vec<_>>(), ["foxxy-bridge", "foxxy-bridge"]);
    foxxy(&["disable", "orphan", "--now"]).success();
    machine
        .root(&["sh", "-c", "userdel foxxy-bridge; rm -r /etc/foxxy-bridge /var/lib/foxxy-bridge"])
        .success();
}
