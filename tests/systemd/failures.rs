//! What goes wrong is said in words, with the documented exit code, and leaves nothing behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bridge::{config, foxxy, get, hold_port, nothing_is_left, property, refused, status};
use crate::machine::Machine;

crate::tests![
    a_taken_port_is_named_with_its_holder,
    a_config_that_is_not_there,
    a_config_that_is_no_json_is_told_by_line_and_column,
    all_wrong_values_are_told_at_once,
    a_name_that_nobody_has,
    a_name_that_cannot_be_one,
    a_user_without_a_bus_is_told_what_to_do,
    a_command_that_is_not_there_fails_that_server_alone,
    a_bridge_that_does_not_get_ready_is_no_success,
    an_interrupted_start_is_taken_back,
];

fn a_taken_port_is_named_with_its_holder(machine: &Machine) {
    hold_port(machine, "--user", 8330);
    let pid = property(machine, "port-holder", "MainPID");
    let start = ["server", "start", "--daemon", "--name", "taken", "--port", "8330"];
    let stderr = refused(foxxy(machine, &start), 1);
    assert_eq!(
        stderr,
        format!(
            "error: the bridge `taken` did not start\n  it ended with exit code 1; it said last: 127.0.0.1:8330 is \
             already in use by python3 (PID {pid})\nhint: stop what has the port, or take another with --port or \
             `bridge.port` in the config\n"
        )
    );
    nothing_is_left(machine);
    machine.user(&["systemctl", "--user", "stop", "port-holder"]).success();
}

fn a_config_that_is_not_there(machine: &Machine) {
    let stderr = refused(foxxy(machine, &["server", "start", "--daemon", "--config", "nowhere.json"]), 78);
    assert!(stderr.contains("nowhere.json: no such file"), "{stderr}");
    nothing_is_left(machine);
}

fn a_config_that_is_no_json_is_told_by_line_and_column(machine: &Machine) {
    let path =
        config(machine, "broken.json", "{\n  \"mcpServers\": {\n    \"a\": { \"command\": }\n  }\n}\n");
    let stderr = refused(foxxy(machine, &["server", "start", "--daemon", "--config", &path]), 78);
    assert!(stderr.contains("broken.json:3:23: not valid JSON"), "{stderr}");
    nothing_is_left(machine);
}

fn all_wrong_values_are_told_at_once(machine: &Machine) {
    let text = json!({ "mcpServers": { "a": { "command": 5, "args": "x" } }, "bridge": { "port": "http" } });
    let path = config(machine, "wrong.json", &text.to_string());
    let stderr = refused(foxxy(machine, &["server", "start", "--daemon", "--config", &path]), 78);
    assert!(stderr.starts_with("error: the config has 3 errors\n"), "{stderr}");
    for found in [
        "mcpServers.a.command: found 5, expected a string",
        "mcpServers.a.args: found the string \"x\", expected a list of strings",
        "bridge.port: found the string \"http\", expected a whole number",
    ] {
        assert!(stderr.contains(found), "{found} is missing in: {stderr}");
    }
    nothing_is_left(machine);
}

fn a_name_that_nobody_has(machine: &Machine) {
    for (command, code) in [("stop", 1), ("restart", 1), ("server-status", 4)] {
        let stderr = refused(foxxy(machine, &["server", command, "nobody"]), code);
        assert!(stderr.contains("`nobody`"), "{stderr}");
    }
    let said = foxxy(machine, &["server", "server-status", "nobody", "--format", "json"]);
    assert_eq!((said.code, &*status(machine, "nobody")["state"].to_string()), (Some(4), "\"unknown\""));
    // A name that is known, as its config is there, but does not run.
    config(machine, ".config/foxxy-bridge/idle.json", "{}");
    refused(foxxy(machine, &["server", "server-status", "idle"]), 3);
    assert_eq!(status(machine, "idle")["state"], "not running");
    machine.user_sh("rm -r ~/.config/foxxy-bridge").success();
    nothing_is_left(machine);
}

fn a_name_that_cannot_be_one(machine: &Machine) {
    for name in ["a/b", "", "a b", "../x", "-x", "wörk"] {
        let argument = format!("--name={name}");
        let output = foxxy(machine, &["server", "start", "--daemon", &argument]);
        assert_eq!(output.stdout, "");
        let stderr = output.failure(2);
        assert!(stderr.contains("error: invalid value"), "{stderr}");
    }
    nothing_is_left(machine);
}

fn a_user_without_a_bus_is_told_what_to_do(machine: &Machine) {
    let start = ["foxxy-bridge", "server", "start", "--daemon", "--port", "8335"];
    let stderr = refused(machine.loner(&[&start[..], &["--manager", "systemd"]].concat()), 69);
    assert!(stderr.contains("the systemd user manager of uid"), "{stderr}");
    assert!(stderr.contains("loginctl enable-linger"), "{stderr}");
    // Nobody who cannot look may say that nothing is there.
    for command in ["stop", "restart", "server-status", "logs"] {
        let stderr = refused(machine.loner(&["foxxy-bridge", "server", command, "work"]), 69);
        assert!(stderr.contains("the systemd user manager of uid"), "{command}: {stderr}");
    }
    let output = machine.loner(&["foxxy-bridge", "server", "list", "--format", "json"]);
    assert!(output.stderr.contains("warning: the systemd user manager of uid"), "{output}");
    assert_eq!(output.success(), "[]\n");
    assert_eq!(machine.loner(&["find", ".", "-name", "*foxxy*"]).success(), "", "a file is left");

    // Who does not insist on systemd gets a bridge all the same, and is told what keeps it.
    let said = machine.loner(&start);
    assert!(said.stderr.contains("warning: the systemd user manager of uid"), "{said}");
    assert!(said.stderr.contains("a PID file is used instead"), "{said}");
    assert!(said.success().contains("PID file ~/.config/foxxy-bridge/pids/default.pid"));
    assert_eq!(get(machine, "http://127.0.0.1:8335/readyz"), "200");
    assert_eq!(machine.loner(&["foxxy-bridge", "server", "stop"]).success(), "stopped default\n");
    machine.loner(&["rm", "-r", ".config/foxxy-bridge"]).success();
    nothing_is_left(machine);
}

fn a_command_that_is_not_there_fails_that_server_alone(machine: &Machine) {
    let text =
        json!({ "mcpServers": { "gone": { "command": "no-such-server" } }, "bridge": { "port": 8331 } });
    let path = config(machine, "gone.json", &text.to_string());
    let start = ["/usr/local/bin/foxxy-bridge", "server", "start", "--daemon", "--config", &path];
    machine.user(&[&["env", "PATH=/usr/bin:/bin"], &start[..]].concat()).success();
    assert_eq!(get(machine, "http://127.0.0.1:8331/readyz"), "200");
    let reason = "command `no-such-server` was not found on PATH (/usr/bin:/bin)";
    let mut told = status(machine, "gone");
    machine.wait_until(Duration::from_secs(10), "the server has failed", || {
        told = status(machine, "gone");
        told["upstreams"][0]["state"] == "failed"
    });
    assert_eq!(told["upstreams"][0]["error"], reason);
    let shown = foxxy(machine, &["server", "server-status", "gone"]);
    assert_eq!(shown.code, Some(1), "{shown}");
    assert!(shown.stdout.contains(&format!("gone: {reason}")), "{shown}");
    let status = property(machine, "foxxy-bridge-gone.service", "StatusText");
    assert!(
        status.starts_with("http://127.0.0.1:8331/mcp: 0 of 1 upstreams connected; gone failed"),
        "{status}"
    );
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

/// A bridge that waits for the name of its address to be looked up: nobody answers.
fn with_a_deaf_name_server(machine: &Machine, test: impl FnOnce()) {
    let deaf = "import socket, time; s = socket.socket(2, 2); s.bind(('127.0.0.1', 53)); time.sleep(60)";
    machine.root(&["systemctl", "stop", "deaf"]);
    machine
        .root(&["systemd-run", "--quiet", "--collect", "--unit=deaf", "/usr/bin/python3", "-c", deaf])
        .success();
    machine.root(&["sh", "-c", "echo nameserver 127.0.0.1 > /etc/resolv.conf"]).success();
    test();
    machine.root(&["systemctl", "stop", "deaf"]).success();
}

fn a_bridge_that_does_not_get_ready_is_no_success(machine: &Machine) {
    with_a_deaf_name_server(machine, || {
        let begun = Instant::now();
        let start =
            ["server", "start", "--daemon", "--host", "nobody.test", "--name", "never", "--timeout", "2"];
        let stderr = refused(foxxy(machine, &start), 1);
        assert!(stderr.contains("it did not report within 2 s that it is ready"), "{stderr}");
        assert!(begun.elapsed() < Duration::from_secs(6), "it took {} s", begun.elapsed().as_secs());
        nothing_is_left(machine);
    });
}

fn an_interrupted_start_is_taken_back(machine: &Machine) {
    with_a_deaf_name_server(machine, || {
        let interrupted = ["timeout", "--preserve-status", "--signal=INT", "1", "foxxy-bridge"];
        let start = ["server", "start", "--daemon", "--host", "nobody.test", "--name", "never"];
        let stderr = refused(machine.user(&[&interrupted[..], &start].concat()), 1);
        assert!(stderr.contains("the start of `never` was interrupted by SIGINT"), "{stderr}");
        nothing_is_left(machine);
    });
}
