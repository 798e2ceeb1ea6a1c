//! A bridge that nobody started with `--daemon`: typed in a terminal, or the command of a unit written by hand.

use std::time::Duration;

use serde_json::Value;

use crate::bridge::{foxxy, get, list, nothing_is_left, plain, property, refused};
use crate::machine::Machine;

crate::tests![
    a_unit_written_by_hand_gets_ready_and_can_be_stopped,
    a_bridge_in_a_terminal_is_listed_and_stopped,
    a_second_one_of_the_same_config_is_refused,
    a_lock_that_root_made_for_a_moment_is_waited_for,
];

fn a_unit_written_by_hand_gets_ready_and_can_be_stopped(machine: &Machine) {
    let path = plain(machine, "hand.json", 8340);
    let unit = ["systemd-run", "--user", "--quiet", "--property=Type=notify", "--unit=by-hand"];
    // Returns when the unit is active, and so only once the bridge is ready.
    machine.user(&[&unit[..], &["foxxy-bridge", "server", "start", "--config", &path]].concat()).success();
    assert_eq!(get(machine, "http://127.0.0.1:8340/readyz"), "200");
    let listed = list(machine);
    let told = ["name", "status", "manager", "unit"].map(|key| listed[0][key].clone());
    assert_eq!(told, ["hand", "running", "systemd", "by-hand.service"]);
    let stderr = refused(foxxy(machine, &["server", "restart", "hand"]), 1);
    assert!(stderr.contains("systemctl --user restart by-hand.service"), "{stderr}");
    let stderr = refused(foxxy(machine, &["server", "logs", "hand"]), 1);
    assert!(stderr.contains("journalctl --user-unit by-hand.service"), "{stderr}");

    assert_eq!(foxxy(machine, &["server", "stop", "hand"]).success(), "stopped hand\n");
    machine.wait_until(Duration::from_secs(5), "the unit is gone", || {
        property(machine, "by-hand", "LoadState") == "not-found"
    });
    nothing_is_left(machine);
}

fn a_bridge_in_a_terminal_is_listed_and_stopped(machine: &Machine) {
    let path = plain(machine, "front.json", 8341);
    let log = in_the_background(machine, &path);
    let listed = list(machine);
    let told = ["name", "status", "manager", "config"].map(|key| listed[0][key].clone());
    assert_eq!(told, ["front", "running", "foreground", path.as_str()]);
    assert_eq!(listed[0]["unit"], Value::Null);
    foxxy(machine, &["server", "server-status", "front"]).success();
    for command in ["restart", "logs"] {
        let stderr = refused(foxxy(machine, &["server", command, "front"]), 1);
        assert!(stderr.contains("the bridge `front` runs in the foreground"), "{stderr}");
    }
    assert_eq!(foxxy(machine, &["server", "stop", "front"]).success(), "stopped front\n");
    let log = machine.user(&["cat", &log]).success();
    assert!(log.contains("stopping: SIGTERM") && log.ends_with("stopped\n[0]\n"), "{log}");
    nothing_is_left(machine);
}

fn a_lock_that_root_made_for_a_moment_is_waited_for(machine: &Machine) {
    let path = plain(machine, "late.json", 8843);
    let folder = machine
        .user_sh("cd \"$XDG_RUNTIME_DIR\"; mkdir -p foxxy-bridge/late; cd foxxy-bridge/late; pwd")
        .success();
    let lock = format!("{}/lock", folder.trim_end());
    machine.root(&["install", "-m", "0600", "/dev/null", &lock]).success();
    let script = "(sleep 0.2; rm -f \"$1\") & \
        exec timeout --preserve-status 3 foxxy-bridge server start --config \"$2\"";
    let said = machine.user(&["sh", "-euc", script, "sh", &lock, &path]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.stderr.contains("stopping: SIGTERM") || said.stdout.contains("stopping: SIGTERM"), "{said}");
    nothing_is_left(machine);
}

fn a_second_one_of_the_same_config_is_refused(machine: &Machine) {
    let path = plain(machine, "once.json", 8342);
    in_the_background(machine, &path);
    let pid = list(machine)[0]["pid"].clone();
    let again = ["server", "start", "--config", &path, "--port", "8343"];
    let stderr = refused(foxxy(machine, &again), 1);
    let first = format!("the bridge `once` is already running (PID {pid}, {path})");
    assert!(stderr.contains(&first), "{stderr}");
    assert_eq!(get(machine, "http://127.0.0.1:8343/readyz"), "000");
    // To have it running is all that was wanted.
    let said = foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    assert_eq!(said, format!("once is already running: http://127.0.0.1:8342/mcp (PID {pid})\n"));
    assert_eq!(foxxy(machine, &["server", "stop", "--force"]).success(), "killed once\n");
    nothing_is_left(machine);
}

/// Starts a bridge as a shell does with `&`; waits until it is listed, and tells where its log and exit code go.
fn in_the_background(machine: &Machine, config: &str) -> String {
    let log = format!("{config}.log");
    let script = format!(
        "(setsid sh -c 'foxxy-bridge server start --config {config}; echo \"[$?]\"' </dev/null >{log} 2>&1 &)"
    );
    machine.user_sh(&script).success();
    machine.wait_until(Duration::from_secs(10), "it runs", || !list(machine).is_empty());
    log
}
