//! A bridge that dies is brought back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{
    client, config, connected, everything, foxxy, list, lives, nothing_is_left, processes, property, text,
};
use crate::machine::Machine;

crate::tests![
    a_killed_bridge_is_brought_back_with_its_servers,
    a_bridge_that_dies_time_and_again_is_given_up_and_can_be_started_anew,
];

/// Two seconds of pause, and time to start.
const DEADLINE: Duration = Duration::from_secs(20);

fn a_killed_bridge_is_brought_back_with_its_servers(machine: &Machine) {
    let config = config(
        machine,
        "killed.json",
        &json!({ "mcpServers": { "e": everything() }, "bridge": { "port": 8320 } }).to_string(),
    );
    foxxy(machine, &["server", "start", "--daemon", "--config", &config]).success();
    connected(machine, "killed");
    let before = list(machine)[0].clone();
    let processes = processes(machine, "foxxy-bridge-killed.service");
    machine.user(&["kill", "-9", &before["pid"].to_string()]).success();

    let mut now = Value::Null;
    machine.wait_until(DEADLINE, "systemd has brought it back", || {
        now = list(machine).into_iter().next().unwrap_or_default();
        now["status"] == "running" && now["pid"] != before["pid"]
    });
    assert_eq!((&now["restarts"], &now["config"]), (&json!(1), &before["config"]));
    assert!(!processes.iter().any(|pid| lives(machine, pid)), "one of {processes:?} outlived it");

    connected(machine, "killed");
    let steps = json!([["call", "e__echo", { "message": "again" }]]);
    assert_eq!(text(&client(machine, "http://127.0.0.1:8320/mcp", &steps)[0]), "Echo: again");
    foxxy(machine, &["server", "stop", "killed"]).success();
    nothing_is_left(machine);
}

fn a_bridge_that_dies_time_and_again_is_given_up_and_can_be_started_anew(machine: &Machine) {
    let unit = "foxxy-bridge-dies";
    let daemon = json!({ "restart": { "attempts": 2, "delay": 0.2 } });
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8321, "daemon": daemon } }).to_string();
    let path = config(machine, "dies.json", &text);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    for restarts in ["1", "2", ""] {
        machine.user(&["kill", "-9", &property(machine, unit, "MainPID")]).success();
        machine.wait_until(DEADLINE, "it is back, or given up", || {
            let (state, count) =
                (property(machine, unit, "ActiveState"), property(machine, unit, "NRestarts"));
            state == "failed" || (state == "active" && count == restarts)
        });
    }
    let listed = list(machine);
    assert_eq!((&listed[0]["name"], &listed[0]["status"]), (&json!("dies"), &json!("failed")), "{listed:?}");
    let said = foxxy(machine, &["server", "status", "dies"]);
    assert!(said.stderr.contains("the bridge `dies` is failed"), "{said}");
    said.failure(3);
    let said = foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    assert!(said.starts_with("started dies: "), "{said}");
    foxxy(machine, &["server", "stop", "dies"]).success();
    nothing_is_left(machine);
}
