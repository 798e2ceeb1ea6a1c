//! A unit of an administrator's own that has `server start --daemon` fork, as the guide prints it: what it runs asks
//! systemd for no other unit.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use serde_json::Value;

use crate::bridge::{get, nothing_is_left};
use crate::machine::Machine;

crate::tests![
    the_guides_unit_is_ready_when_it_is_started_and_stops_its_bridge,
    the_guides_unit_is_restarted_on_failure_and_only_then,
    a_bridge_that_cannot_start_fails_the_guides_unit,
    two_units_of_one_user_stop_each_its_own,
];

const SOON: Duration = Duration::from_secs(30);

/// Word for word.
const UNIT: &str = "\
# /etc/systemd/system/foxxy-bridge.service
[Unit]
Description=MCP Foxxy Bridge
After=network.target

[Service]
Type=forking
User=foxxy-bridge
Group=foxxy-bridge
ExecStart=/usr/local/bin/foxxy-bridge server start --daemon --config /etc/foxxy-bridge/config.json
ExecStop=/usr/local/bin/foxxy-bridge server stop
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
";

/// Makes the account that the unit names, the config and the unit, then does that, then takes all of it back.
fn with_unit(machine: &Machine, act: impl FnOnce()) {
    let make = "useradd --system --create-home --home-dir /home/foxxy-bridge foxxy-bridge
        mkdir -p /etc/foxxy-bridge
        printf '%s' '{ \"mcpServers\": {}, \"bridge\": { \"port\": 8860 } }' > /etc/foxxy-bridge/config.json
        printf '%s' \"$1\" > /etc/systemd/system/foxxy-bridge.service
        systemctl daemon-reload";
    machine.root(&["sh", "-euc", make, "sh", UNIT]).success();
    let outcome = catch_unwind(AssertUnwindSafe(act));
    let undo = "systemctl stop foxxy-bridge foxxy-other
        systemctl disable foxxy-bridge
        rm -rf /etc/systemd/system/foxxy-*.service /etc/foxxy-bridge
        systemctl daemon-reload; systemctl reset-failed; userdel --remove foxxy-bridge";
    machine.root(&["sh", "-c", undo]);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn property(machine: &Machine, property: &str) -> String {
    let show = ["systemctl", "show", "--value", "--property", property, "foxxy-bridge.service"];
    machine.root(&show).success().trim_end().to_owned()
}

/// Types `foxxy-bridge` as the account of the unit.
fn foxxy(machine: &Machine, arguments: &[&str]) -> crate::output::Output {
    let run = ["setpriv", "--reuid", "foxxy-bridge", "--regid", "foxxy-bridge", "--init-groups", "--"];
    let home = ["env", "HOME=/home/foxxy-bridge", "foxxy-bridge"];
    machine.root(&[&run[..], &home, arguments].concat())
}

fn the_guides_unit_is_ready_when_it_is_started_and_stops_its_bridge(machine: &Machine) {
    with_unit(machine, || {
        machine.root(&["systemctl", "enable", "foxxy-bridge"]).success();
        machine.root(&["systemctl", "start", "foxxy-bridge"]).success();
        assert_eq!(get(machine, "http://127.0.0.1:8860/readyz"), "200");
        machine.root(&["systemctl", "status", "foxxy-bridge"]).success();
        // systemd has found out by itself which process it has to watch.
        let pid = "head -1 /home/foxxy-bridge/.config/foxxy-bridge/pids/foxxy-bridge.pid";
        let pid = machine.root(&["sh", "-euc", pid]).success();
        assert_eq!(property(machine, "MainPID"), pid.trim_end());
        let listed = foxxy(machine, &["server", "list", "--format", "json"]).success();
        let listed: Value = serde_json::from_str(&listed).expect("a list");
        let told = ["name", "status", "manager", "unit"].map(|key| listed[0][key].clone());
        assert_eq!(told, ["foxxy-bridge", "running", "pidfile", "foxxy-bridge.service"]);
        // Both places that people look at have its log.
        let journal = machine.root(&["journalctl", "--unit", "foxxy-bridge", "--output", "cat"]).success();
        assert!(journal.contains("serving http://127.0.0.1:8860/mcp"), "{journal}");
        let log = "cat /home/foxxy-bridge/.config/foxxy-bridge/logs/foxxy-bridge.log";
        let log = machine.root(&["sh", "-euc", log]).success();
        assert!(log.contains("serving http://127.0.0.1:8860/mcp"), "{log}");

        machine.root(&["systemctl", "stop", "foxxy-bridge"]).success();
        let ended = ["ActiveState", "Result"].map(|name| property(machine, name));
        assert_eq!(ended, ["inactive", "success"]);
        let files = "find /home/foxxy-bridge/.config/foxxy-bridge -type f -o -type s";
        let files = machine.root(&["sh", "-euc", files]).success();
        assert_eq!(files, "/home/foxxy-bridge/.config/foxxy-bridge/logs/foxxy-bridge.log\n");
        nothing_is_left(machine);
    });
}

fn the_guides_unit_is_restarted_on_failure_and_only_then(machine: &Machine) {
    with_unit(machine, || {
        machine.root(&["systemctl", "start", "foxxy-bridge"]).success();
        let before = property(machine, "MainPID");
        machine.root(&["kill", "-KILL", &before]).success();
        machine.wait_until(SOON, "systemd has started it again", || {
            property(machine, "NRestarts") == "1" && property(machine, "ActiveState") == "active"
        });
        assert_ne!(property(machine, "MainPID"), before);
        assert_eq!(get(machine, "http://127.0.0.1:8860/readyz"), "200");
        // Who stops it by hand is not contradicted.
        assert_eq!(foxxy(machine, &["server", "stop"]).success(), "stopped foxxy-bridge\n");
        machine.wait_until(SOON, "the unit has ended", || property(machine, "ActiveState") == "inactive");
        let ended = ["Result", "SubState"].map(|name| property(machine, name));
        assert_eq!(ended, ["success", "dead"]);
        nothing_is_left(machine);
    });
}

fn a_bridge_that_cannot_start_fails_the_guides_unit(machine: &Machine) {
    with_unit(machine, || {
        machine.root(&["sh", "-euc", "echo '{' > /etc/foxxy-bridge/config.json"]).success();
        machine.root(&["systemctl", "start", "foxxy-bridge"]).failure(1);
        assert_eq!(property(machine, "ExecMainStatus"), "0", "no main process was taken for one");
        let journal = machine.root(&["journalctl", "--unit", "foxxy-bridge", "--output", "cat"]).success();
        assert!(journal.contains("/etc/foxxy-bridge/config.json:1:1: not valid JSON"), "{journal}");
        nothing_is_left(machine);
    });
}

fn two_units_of_one_user_stop_each_its_own(machine: &Machine) {
    with_unit(machine, || {
        let other = "sed 's,config.json,other.json,' /etc/systemd/system/foxxy-bridge.service \
            > /etc/systemd/system/foxxy-other.service
            printf '%s' '{ \"mcpServers\": {}, \"bridge\": { \"port\": 8861 } }' > /etc/foxxy-bridge/other.json
            systemctl daemon-reload; systemctl start foxxy-bridge foxxy-other";
        machine.root(&["sh", "-euc", other]).success();
        machine.root(&["systemctl", "stop", "foxxy-other"]).success();
        assert_eq!(get(machine, "http://127.0.0.1:8861/readyz"), "000");
        assert_eq!(get(machine, "http://127.0.0.1:8860/readyz"), "200");
        // Nothing of this one is left to stop: the other one is none of its business.
        let run = [
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            "--uid=foxxy-bridge",
            "foxxy-bridge",
            "server",
            "stop",
        ];
        let said = machine.root(&run);
        assert_eq!(said.code, Some(0), "{said}");
        assert_eq!(get(machine, "http://127.0.0.1:8860/readyz"), "200");
        machine.root(&["systemctl", "stop", "foxxy-bridge"]).success();
        assert_eq!(get(machine, "http://127.0.0.1:8860/readyz"), "000");
        nothing_is_left(machine);
    });
}
