//! A bridge that hangs is ended and started again.

use std::time::Duration;

use crate::machine::Machine;

crate::tests![a_stopped_bridge_is_restarted];

/// The watchdog's patience, the pause before a restart, and some more.
const SOON: Duration = Duration::from_secs(30);

fn a_stopped_bridge_is_restarted(machine: &Machine) {
    let property = |name: &str| {
        let show = ["systemctl", "--user", "show", "foxxy-bridge-watched", "--value", "--property", name];
        machine.user(&show).success().trim().to_owned()
    };
    let config = r#"{ "mcpServers": { "foxxy": { "transport": "builtin" } },
        "bridge": { "port": 8211, "daemon": { "watchdog": 2, "restart": { "delay": 1 } } } }"#;
    machine
        .user_sh(&format!("mkdir -p ~/watched && cat > ~/watched/watched.json <<'END'\n{config}\nEND"))
        .success();
    machine.user_sh("foxxy-bridge server start --daemon --config ~/watched/watched.json").success();
    let pid = property("MainPID");
    // One that works is left alone for longer than the patience.
    machine.user(&["sleep", "5"]).success();
    assert_eq!((property("MainPID"), property("NRestarts")), (pid.clone(), "0".to_owned()));
    machine.user(&["kill", "-STOP", &pid]).success();
    machine.wait_until(SOON, "another bridge serves", || {
        property("MainPID") != pid
            && machine.user(&["curl", "-sf", "http://127.0.0.1:8211/livez"]).code == Some(0)
    });
    assert_eq!(property("NRestarts"), "1");
    machine.user(&["foxxy-bridge", "server", "stop", "watched"]).success();
}
