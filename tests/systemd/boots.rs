//! The machine is what the other tests take it for.

use std::time::Duration;

use serde_json::json;

use crate::machine::Machine;

crate::tests![
    the_user_manager_takes_transient_units,
    users_read_their_own_journal,
    a_user_without_a_manager_has_no_bus,
    the_binary_runs_as_the_user,
    real_mcp_servers_answer_a_client_of_the_user,
    an_enabled_unit_of_who_lingers_is_up_after_a_reboot,
];

/// How long what was logged may take to show up.
const JOURNAL_DEADLINE: Duration = Duration::from_secs(10);

fn the_user_manager_takes_transient_units(machine: &Machine) {
    assert_eq!(machine.user(&["systemctl", "--user", "is-system-running"]).success(), "running\n");
    machine.user(&["systemd-run", "--user", "--wait", "--quiet", "true"]).success();
    machine.user(&["systemd-run", "--user", "--wait", "--quiet", "sh", "-c", "exit 7"]).failure(7);
}

fn users_read_their_own_journal(machine: &Machine) {
    // It lives until it was read: the journal may lose which unit a process was of that is gone too soon.
    let says = ["sh", "-c", "echo a word; exec sleep infinity"];
    machine.user(&[&["systemd-run", "--user", "--unit=boots-says"], &says[..]].concat()).success();
    let log = ["journalctl", "--user", "--user-unit=boots-says", "--output=cat"];
    machine.wait_until(JOURNAL_DEADLINE, "the user's journal has what their unit wrote", || {
        machine.user(&log).stdout.lines().any(|line| line == "a word")
    });
    assert!(!machine.loner(&log).stdout.contains("a word"), "another user reads it too");
    machine.user(&["systemctl", "--user", "stop", "boots-says"]).success();
}

fn a_user_without_a_manager_has_no_bus(machine: &Machine) {
    let stderr = machine.loner(&["systemctl", "--user", "is-system-running"]).failure(1);
    assert!(stderr.starts_with("Failed to connect to "), "{stderr}");
    machine.loner(&["sh", "-c", "test ! -e /run/user/$(id -u)"]).success();
}

fn the_binary_runs_as_the_user(machine: &Machine) {
    machine.user_sh("test $(id -un) = tester; foxxy-bridge --version").success();
}

fn real_mcp_servers_answer_a_client_of_the_user(machine: &Machine) {
    const NPM: &str = "node /opt/servers/node_modules/@modelcontextprotocol";
    let servers = [
        (format!("{NPM}/server-everything/dist/index.js stdio"), "mcp-servers/everything"),
        (format!("{NPM}/server-filesystem/dist/index.js /tmp"), "secure-filesystem-server"),
        (format!("{NPM}/server-memory/dist/index.js"), "memory-server"),
        ("/opt/servers/venv/bin/python -m mcp_server_time".to_owned(), "mcp-time"),
    ];
    for (command, name) in servers {
        let session = machine.mcp(&command, &json!([["tools"]]));
        assert_eq!(session["serverInfo"]["name"], name);
        assert_ne!(session["results"][0], json!([]), "{name} offers no tools");
    }
}

fn an_enabled_unit_of_who_lingers_is_up_after_a_reboot(machine: &Machine) {
    let boot = || machine.root(&["cat", "/proc/sys/kernel/random/boot_id"]).success();
    let unit = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=default.target\n";
    let script = format!(
        "mkdir -p ~/.config/systemd/user; printf '%s' '{unit}' > ~/.config/systemd/user/early.service\n\
         systemctl --user daemon-reload; systemctl --user enable early"
    );
    machine.user_sh(&script).success();
    let before = boot();
    machine.reboot();
    assert_ne!(boot(), before);
    // Nobody has logged in, and nobody has started it.
    assert_eq!(machine.user(&["systemctl", "--user", "is-active", "early"]).success(), "active\n");
    machine
        .user_sh("systemctl --user disable --now early; rm ~/.config/systemd/user/early.service")
        .success();
    the_user_manager_takes_transient_units(machine);
}
