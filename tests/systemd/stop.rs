//! A stop ends everything, and as gently as it can.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bridge::{
    NPM, config, connected, everything, foxxy, lives, nothing_is_left, processes, property, status,
};
use crate::machine::Machine;

crate::tests![
    a_server_that_ignores_the_signal_is_ended_all_the_same,
    a_forced_stop_asks_nobody,
    a_call_under_way_gets_its_answer,
];

fn a_server_that_ignores_the_signal_is_ended_all_the_same(machine: &Machine) {
    start_a_stubborn_one(machine, "stubborn", 8360);
    let processes = processes(machine, "foxxy-bridge-stubborn.service");
    let begun = Instant::now();
    assert_eq!(foxxy(machine, &["server", "stop", "stubborn"]).success(), "stopped stubborn\n");
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {} s", begun.elapsed().as_secs());
    // Ended by the bridge, which asks first; systemd kills whatever outlives it, and does not ask.
    let journal = ["journalctl", "--user-unit", "foxxy-bridge-stubborn.service"];
    let journal = machine.user(&journal).success();
    assert!(journal.contains("its input has ended"), "it was not asked: {journal}");
    assert!(!journal.contains("Killing process"), "systemd had to end it: {journal}");
    assert!(!processes.iter().any(|pid| lives(machine, pid)), "one of {processes:?} is left");
    nothing_is_left(machine);
}

fn a_forced_stop_asks_nobody(machine: &Machine) {
    start_a_stubborn_one(machine, "forced", 8361);
    let processes = processes(machine, "foxxy-bridge-forced.service");
    let begun = Instant::now();
    assert_eq!(foxxy(machine, &["server", "stop", "forced", "--force"]).success(), "killed forced\n");
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {} s", begun.elapsed().as_secs());
    assert!(!processes.iter().any(|pid| lives(machine, pid)), "one of {processes:?} is left");
    nothing_is_left(machine);
}

/// Starts a bridge with a server that answers, and then neither ends with its input nor minds a SIGTERM.
fn start_a_stubborn_one(machine: &Machine, name: &str, port: u16) {
    let script = format!(
        "trap '' TERM HUP\nnode {NPM}/server-memory/dist/index.js\necho its input has ended >&2\n\
         while :; do sleep 1; done\n"
    );
    let script = config(machine, "stubborn.sh", &script);
    let servers = json!({ "stubborn": { "command": "sh", "args": [script] } });
    let text = json!({ "mcpServers": servers, "bridge": { "port": port } }).to_string();
    let path = config(machine, &format!("{name}.json"), &text);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    connected(machine, name);
}

fn a_call_under_way_gets_its_answer(machine: &Machine) {
    let text = json!({ "mcpServers": { "e": everything() }, "bridge": { "port": 8362 } }).to_string();
    let path = config(machine, "under-way.json", &text);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    connected(machine, "under-way");
    // The client knows the tools beforehand: it would ask for them after the call, of a bridge that is gone.
    let steps =
        json!([["tools"], ["call", "e__trigger-long-running-operation", { "duration": 3, "steps": 3 }]]);
    let steps = ["steps", &steps.to_string()];
    let client = ["/opt/servers/venv/bin/python", "/opt/servers/client.py", "http://127.0.0.1:8362/mcp"];
    let unit = ["systemd-run", "--user", "--quiet", "--unit=a-call", "--property=RemainAfterExit=yes"];
    let output = ["--property=StandardOutput=file:/home/tester/a-call.json"];
    machine.user(&[&unit[..], &output, &client, &steps].concat()).success();
    machine.wait_until(Duration::from_secs(20), "the call is under way", || {
        status(machine, "under-way")["upstreams"][0]["in_flight"] == 1
    });
    // Whoever waits at a terminal is told for what.
    let typed =
        ["script", "--quiet", "--return", "--command", "foxxy-bridge server stop under-way", "/dev/null"];
    let said = machine.user(&typed).success().replace('\r', "");
    let waiting = "waiting for under-way to end what it is doing, for which it has 20 s\n";
    assert_eq!(said, format!("{waiting}stopped under-way\n"));
    machine.wait_until(Duration::from_secs(10), "the client has ended", || {
        property(machine, "a-call", "SubState") != "running"
    });
    let answer = machine.user(&["cat", "/home/tester/a-call.json"]).success();
    assert!(answer.contains("Long running operation completed. Duration: 3 seconds"), "{answer}");
    machine.user(&["sh", "-c", "systemctl --user stop a-call; systemctl --user reset-failed a-call"]);
    nothing_is_left(machine);
}
