//! Both managers on one machine: the same commands for the bridges of both.

use serde_json::Value;

use crate::bridge::{foxxy, get, list, nothing_is_left, plain, refused};
use crate::machine::Machine;

crate::tests![
    bridges_of_both_managers_are_one_list,
    what_runs_under_one_manager_is_not_started_under_the_other
];

fn start(machine: &Machine, config: &str, manager: &str) -> crate::output::Output {
    foxxy(machine, &["server", "start", "--daemon", "--config", config, "--manager", manager])
}

fn bridges_of_both_managers_are_one_list(machine: &Machine) {
    let (one, other) = (plain(machine, "one.json", 8870), plain(machine, "other.json", 8871));
    start(machine, &one, "auto").success();
    let said = start(machine, &other, "pidfile").success();
    assert!(said.contains("PID file ~/.config/foxxy-bridge/pids/other.pid"), "{said}");
    let listed = list(machine);
    let told: Vec<_> =
        listed.iter().map(|row| ["name", "status", "manager"].map(|key| row[key].clone())).collect();
    assert_eq!(told, [["one", "running", "systemd"], ["other", "running", "pidfile"]]);
    assert_eq!(listed[1]["unit"], Value::Null);
    for (name, port) in [("one", 8870), ("other", 8871)] {
        foxxy(machine, &["server", "status", name]).success();
        foxxy(machine, &["server", "reload", name]).success();
        let log = foxxy(machine, &["server", "logs", name, "-o", "cat"]).success();
        assert!(log.contains(&format!("serving http://127.0.0.1:{port}/mcp")), "{log}");
    }
    let said = foxxy(machine, &["server", "restart", "--all"]).success();
    assert!(said.contains("restarted one: ") && said.contains("restarted other: "), "{said}");
    assert_eq!(get(machine, "http://127.0.0.1:8871/readyz"), "200");
    // A logout does not take it along, nor does a shell without a runtime folder lose it.
    let bare = ["env", "--unset=XDG_RUNTIME_DIR", "foxxy-bridge", "server", "status", "other"];
    machine.user(&bare).success();
    assert_eq!(foxxy(machine, &["server", "stop", "--all"]).success(), "stopped one\nstopped other\n");
    machine.user(&["rm", "-r", ".config/foxxy-bridge"]).success();
    nothing_is_left(machine);
}

fn what_runs_under_one_manager_is_not_started_under_the_other(machine: &Machine) {
    let config = plain(machine, "moved.json", 8872);
    for (first, other) in [("systemd", "pidfile"), ("pidfile", "systemd")] {
        start(machine, &config, first).success();
        let stderr = refused(start(machine, &config, other), 1);
        assert!(stderr.contains(&format!("the bridge `moved` runs already, kept by {first}")), "{stderr}");
        // Who has no wish is content with what there is.
        let said = start(machine, &config, "auto").success();
        assert!(said.starts_with("moved is already running"), "{said}");
        let force = ["server", "start", "--daemon", "--config", &config, "--manager", other, "--force"];
        foxxy(machine, &force).success();
        assert_eq!(list(machine)[0]["manager"], other);
        foxxy(machine, &["server", "stop", "moved"]).success();
    }
    machine.user(&["rm", "-r", ".config/foxxy-bridge"]).success();
    nothing_is_left(machine);
}
