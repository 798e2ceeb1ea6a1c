//! Options of `server` that change how it goes about its work.

use std::time::Duration;

use crate::machine::Machine;

crate::tests![
    no_wait_returns_at_once_and_it_serves_later,
    cleanup_removes_what_a_killed_bridge_left_and_nothing_else,
    watch_looks_again_until_it_is_interrupted,
];

const SOON: Duration = Duration::from_secs(15);

fn no_wait_returns_at_once_and_it_serves_later(machine: &Machine) {
    let said = machine
        .user(&["foxxy-bridge", "server", "start", "--daemon", "--no-wait", "--port", "8231"])
        .success();
    assert_eq!(said, "default: starting as foxxy-bridge-default.service\n");
    machine.wait_until(SOON, "it serves", || {
        machine.user(&["curl", "-sf", "http://127.0.0.1:8231/readyz"]).code == Some(0)
    });
    machine.user(&["foxxy-bridge", "server", "stop"]).success();
}

fn cleanup_removes_what_a_killed_bridge_left_and_nothing_else(machine: &Machine) {
    machine
        .user(&["foxxy-bridge", "server", "start", "--daemon", "--name", "alive", "--port", "8232"])
        .success();
    // Killed in the foreground, where nobody starts it again.
    let script = "cd; echo '{\"mcpServers\": {\"foxxy\": {\"transport\": \"builtin\"}}}' > dead.json\n\
        foxxy-bridge -c dead.json server start --port 8233 & bridge=$!\n\
        until curl -sf http://127.0.0.1:8233/livez; do sleep 0.1; done; kill -9 $bridge; wait $bridge || true";
    machine.user_sh(script).success();
    let folders = || machine.user_sh("ls $XDG_RUNTIME_DIR/foxxy-bridge").success();
    assert_eq!(folders(), "alive\ndead\n");
    let start =
        ["foxxy-bridge", "server", "start", "--daemon", "--cleanup", "--name", "alive", "--port", "8232"];
    let started = machine.user(&start);
    assert!(started.stderr.contains("removed what dead had left"), "{}", started.stderr);
    assert!(started.success().contains("already running"));
    assert_eq!(folders(), "alive\n");
    machine.user(&["foxxy-bridge", "server", "stop", "alive"]).success();
}

fn watch_looks_again_until_it_is_interrupted(machine: &Machine) {
    machine.user(&["foxxy-bridge", "server", "start", "--daemon", "--port", "8234"]).success();
    let watched = machine.user(&["timeout", "5", "foxxy-bridge", "server", "server-status", "--watch"]);
    assert_eq!(watched.code, Some(124), "it went on until it was ended");
    assert!(watched.stdout.matches("running, healthy").count() >= 2, "{}", watched.stdout);
    machine.user(&["foxxy-bridge", "server", "stop"]).success();
}
