//! `doctor` finds what is wrong on a real machine, names the way out, and changes nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{NPM, config, connected, foxxy, hold_port, nothing_is_left, property, status};
use crate::machine::Machine;
use crate::output::Output;

crate::tests![
    a_healthy_machine_has_nothing_to_mend,
    a_user_without_a_bus_is_told_how_to_get_one,
    a_runtime_folder_of_another_user_is_named,
    lingering_matters_once_a_bridge_runs,
    a_taken_port_is_told_with_who_has_it,
    a_command_that_is_not_found_is_told_with_where_it_was_looked_for,
    a_command_that_the_sandbox_takes_rights_from_is_told,
    a_failed_unit_is_told_until_it_is_forgotten,
    a_journal_that_cannot_be_read_is_told,
    all_that_is_wrong_with_a_config_is_told_and_the_rest_is_looked_at,
    a_secret_that_everybody_may_read_is_told,
    what_a_killed_bridge_left_is_told_until_it_is_cleaned_up,
    a_bridge_that_is_ill_or_hangs_is_told,
    limits_that_have_no_effect_here_are_told,
    the_sandbox_is_probed_and_leaves_no_unit,
    a_sandbox_that_keeps_a_bridge_from_starting_is_told,
    without_systemd_it_says_so,
    a_bus_that_never_answers_holds_nothing_up,
];

/// What `doctor` found, and that its exit code says the same.
#[track_caller]
fn findings(output: &Output) -> Vec<Value> {
    let found: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"));
    let well = found.iter().all(|finding| finding["state"] == "ok");
    assert_eq!(output.code, Some(i32::from(!well)), "{output}");
    found
}

/// Types `foxxy-bridge doctor` as `tester`.
#[track_caller]
fn doctor(machine: &Machine, arguments: &[&str]) -> Vec<Value> {
    findings(&foxxy(machine, &[&["doctor", "--format", "json"], arguments].concat()))
}

/// The first finding of a check that is not ok, else the first of it.
#[track_caller]
fn of<'f>(found: &'f [Value], check: &str) -> &'f Value {
    let mut of_check = found.iter().filter(|finding| finding["check"] == check);
    let first = of_check.next().unwrap_or_else(|| panic!("no {check} in {found:?}"));
    std::iter::once(first).chain(of_check).find(|finding| finding["state"] != "ok").unwrap_or(first)
}

/// That a check found this, and names this way out.
#[track_caller]
fn told(found: &[Value], check: &str, state: &str, what: &str, fix: &str) {
    let finding = of(found, check);
    assert_eq!(finding["state"], state, "{finding}");
    assert!(finding["found"].as_str().is_some_and(|found| found.contains(what)), "{what}: {finding}");
    assert!(finding["fix"].as_str().is_some_and(|told| told.contains(fix)), "{fix}: {finding}");
}

/// That nothing but these checks found anything.
#[track_caller]
fn only(found: &[Value], checks: &[&str]) {
    let wrong: Vec<_> = found.iter().filter(|finding| finding["state"] != "ok").collect();
    let other = wrong.iter().find(|finding| !checks.iter().any(|check| finding["check"] == *check));
    assert_eq!(other, None);
}

/// The version of the machine's systemd.
fn version(machine: &Machine) -> u32 {
    let said = machine.root(&["systemctl", "--version"]).success();
    said.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn plain(port: u16) -> String {
    json!({ "mcpServers": { "foxxy": { "transport": "builtin" } }, "bridge": { "port": port } }).to_string()
}

fn a_healthy_machine_has_nothing_to_mend(machine: &Machine) {
    only(&doctor(machine, &[]), &[]);
    let memory = json!({ "command": "node", "args": [format!("{NPM}/server-memory/dist/index.js")] });
    let text = json!({ "mcpServers": { "memory": memory }, "bridge": { "port": 8580 } });
    let path = config(machine, ".config/foxxy-bridge/config.json", &text.to_string());
    foxxy(machine, &["server", "start", "--daemon"]).success();
    connected(machine, "default");

    let found = doctor(machine, &[]);
    only(&found, &[]);
    for finding in &found {
        let keys: Vec<&str> = finding.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["check", "state", "found", "fix"]);
        assert_eq!(finding["fix"], Value::Null, "{finding}");
    }
    assert_eq!(of(&found, "service manager")["found"], format!("systemd {} (user)", version(machine)));
    assert_eq!(of(&found, "port")["found"], "http://127.0.0.1:8580/mcp is served by default");
    assert_eq!(of(&found, "bridges")["found"], "default is healthy: 1 of 1 servers connected");
    assert_eq!(of(&found, "config")["found"], "~/.config/foxxy-bridge/config.json: 1 of 1 servers enabled");

    // The same for people: a line each, and colour only where it is asked for.
    let table = foxxy(machine, &["doctor"]).success();
    assert_eq!(table.lines().count(), found.len(), "{table}");
    assert!(table.lines().all(|line| line.starts_with("ok       ")), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert!(foxxy(machine, &["doctor", "--color", "always"]).success().contains('\u{1b}'));
    // The machine's own manager.
    only(&findings(&machine.root(&["foxxy-bridge", "doctor", "--format", "json"])), &[]);
    // Who may not ask it for a trial is told whom to ask.
    let found = doctor(machine, &["--system"]);
    told(&found, "sandbox", "warning", "this user may not", "sudo foxxy-bridge doctor --system");

    let before = status(machine, "default")["pid"].clone();
    foxxy(machine, &["server", "stop"]).success();
    assert_eq!(of(&doctor(machine, &[]), "port")["found"], "127.0.0.1:8580 is free", "after {before}");
    machine.user(&["rm", &path]).success();
    nothing_is_left(machine);
}

fn a_user_without_a_bus_is_told_how_to_get_one(machine: &Machine) {
    let output = machine.loner(&["foxxy-bridge", "doctor", "--format", "json"]);
    assert!(output.took < Duration::from_secs(5), "{output}");
    let found = findings(&output);
    let linger = "sudo loginctl enable-linger loner";
    told(&found, "service manager", "problem", "the systemd user manager of uid", linger);
    told(&found, "environment", "problem", "XDG_RUNTIME_DIR is not set, and there is no /run/user/", linger);
    only(&found, &["service manager", "environment"]);
    assert_eq!(machine.loner(&["find", ".", "-name", "*foxxy*"]).success(), "", "a file is left");
    // As after `sudo`.
    let sudo = ["env", "SUDO_USER=tester", "foxxy-bridge", "doctor", "--user", "--format", "json"];
    told(
        &findings(&machine.root(&sudo)),
        "service manager",
        "problem",
        "uid 0",
        "run it as tester, without sudo",
    );
}

fn a_runtime_folder_of_another_user_is_named(machine: &Machine) {
    let tester = machine.user_sh("echo $XDG_RUNTIME_DIR").success();
    let tester = tester.trim();
    // As after `su`.
    let foreign = format!("XDG_RUNTIME_DIR={tester}");
    let found = findings(&machine.loner(&["env", &foreign, "foxxy-bridge", "doctor", "--format", "json"]));
    let what = format!("XDG_RUNTIME_DIR is {tester}, which belongs to tester");
    told(&found, "environment", "problem", &what, "loginctl enable-linger loner");
    told(&found, "service manager", "problem", "which belongs to uid", "loginctl enable-linger loner");

    // Whoever has a manager has a way to it.
    let export = format!("export XDG_RUNTIME_DIR={tester}");
    for wrong in [&["env", "XDG_RUNTIME_DIR=/run"][..], &["env", "--unset=XDG_RUNTIME_DIR"]] {
        let typed = [wrong, &["foxxy-bridge", "doctor", "--format", "json"]].concat();
        let found = findings(&machine.user(&typed));
        told(&found, "environment", "warning", "XDG_RUNTIME_DIR is", &export);
        only(&found, &["environment"]);
    }
    machine.root(&["chmod", "755", tester]).success();
    told(&doctor(machine, &[]), "environment", "warning", "mode 0755", &format!("chmod 700 {tester}"));
    machine.root(&["chmod", "700", tester]).success();
    // It is not used where there is a better one.
    let bus = ["env", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere", "foxxy-bridge", "doctor"];
    assert!(machine.user(&bus).success().contains("leads to unix:path=/nowhere"));
}

fn lingering_matters_once_a_bridge_runs(machine: &Machine) {
    let uid = machine.root(&["id", "-u", "loner"]).success().trim().to_owned();
    let manager = format!("user@{uid}.service");
    // As with a login: a manager that does not linger.
    machine.root(&["systemctl", "start", &manager]).success();
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
    let loner = |typed: &[&str]| machine.loner(&[&["env", &runtime, "foxxy-bridge"], typed].concat());
    machine.wait_until(Duration::from_secs(20), "the manager is up", || {
        loner(&["server", "list"]).stderr == "no bridge is running\n"
    });
    let look = || findings(&loner(&["doctor", "--format", "json"]));

    let found = look();
    only(&found, &[]);
    assert!(of(&found, "linger")["found"].as_str().is_some_and(|found| found.starts_with("off: ")));
    loner(&["server", "start", "--daemon", "--port", "8582"]).success();
    let found = look();
    told(
        &found,
        "linger",
        "warning",
        "off: default ends when loner logs out",
        "loginctl enable-linger loner",
    );
    only(&found, &["linger"]);
    // What it says to do helps, and needs neither a session nor a password.
    // From a unit: logind 257 does not listen to who is in no control group of its machine's, as these tests are.
    let unit = ["systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect"];
    let fix = ["loginctl", "enable-linger", "loner"];
    machine.loner(&[&["env", &runtime], &unit[..], &fix].concat()).success();
    let found = look();
    only(&found, &[]);
    assert_eq!(of(&found, "linger")["found"], "on: the bridges of loner run without a login");

    loner(&["server", "stop"]).success();
    let unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"];
    machine.root(&[&unit[..], &["loginctl", "disable-linger", "loner"]].concat()).success();
    machine.root(&["systemctl", "stop", &manager]).success();
    machine.wait_until(Duration::from_secs(20), "the manager is gone", || {
        machine.root(&["test", "-e", &format!("/run/user/{uid}")]).code != Some(0)
    });
}

fn a_taken_port_is_told_with_who_has_it(machine: &Machine) {
    hold_port(machine, "--user", 8583);
    let pid = property(machine, "port-holder", "MainPID");
    let path = config(machine, "taken.json", &plain(8583));
    let what = format!("127.0.0.1:8583 is taken by python3 (PID {pid})");
    let found = doctor(machine, &["--config", &path]);
    told(&found, "port", "problem", &what, "set another `bridge.port` in ~/taken.json");
    only(&found, &["port"]);
    machine.user(&["systemctl", "--user", "stop", "port-holder"]).success();
    only(&doctor(machine, &["--config", &path]), &[]);

    // By another bridge of ours.
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    let other = config(machine, "other.json", &plain(8583));
    let found = doctor(machine, &["--config", &other]);
    told(&found, "port", "problem", "is taken by the bridge taken", "foxxy-bridge server stop taken");
    only(&found, &["port"]);
    only(&doctor(machine, &["--config", &path]), &[]);
    foxxy(machine, &["server", "stop"]).success();
    // By somebody whose processes cannot be looked at.
    hold_port(machine, "--system", 8583);
    let found = doctor(machine, &["--config", &other]);
    told(&found, "port", "problem", "is taken by another user's process", "sudo ss -ltnp 'sport = :8583'");
    machine.root(&["systemctl", "stop", "port-holder"]).success();
    nothing_is_left(machine);
}

fn a_command_that_is_not_found_is_told_with_where_it_was_looked_for(machine: &Machine) {
    let text = json!({
        "mcpServers": { "own": { "command": "own-server" }, "off": { "command": "none", "enabled": false } },
        "bridge": { "port": 8584 },
    });
    let path = config(machine, "own.json", &text.to_string());
    let found = doctor(machine, &["--config", &path]);
    told(
        &found,
        "commands",
        "problem",
        "own: `own-server` is not on PATH here (/usr/local/bin:",
        "install it",
    );
    only(&found, &["commands"]);

    // As with nvm: only some shells find it.
    let script = format!("#!/bin/sh\nexec node {NPM}/server-memory/dist/index.js\n");
    config(machine, "tools/own-server", &script);
    machine.user_sh("chmod +x ~/tools/own-server").success();
    let typed = |arguments: &str| {
        machine.user_sh(&format!("PATH=\"$HOME/tools:$PATH\" foxxy-bridge {arguments} --config {path}"))
    };
    only(&findings(&typed("doctor --format json")), &[]);
    typed("server start --daemon").success();
    connected(machine, "own");
    let found = doctor(machine, &[]);
    told(&found, "commands", "warning", "the bridge that runs finds it", "`command -v own-server` finds it");
    only(&found, &["commands"]);
    foxxy(machine, &["server", "stop"]).success();

    // The bridge was started from the wrong one.
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    let found = findings(&typed("doctor --format json"));
    told(
        &found,
        "commands",
        "problem",
        "is not on the PATH of the bridge own (/usr/local/bin:",
        "it is on yours",
    );
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn a_command_that_the_sandbox_takes_rights_from_is_told(machine: &Machine) {
    let text = |sandbox: &str| {
        // `unshare` is there in every Debian, and runs newuidmap.
        let server = json!({ "command": "unshare", "args": ["--user", "node"] });
        let bridge = json!({ "port": 8800, "daemon": { "sandbox": sandbox } });
        json!({ "mcpServers": { "own": server }, "bridge": bridge }).to_string()
    };
    for sandbox in ["auto", "strict"] {
        let path = config(machine, "rights.json", &text(sandbox));
        let found = doctor(machine, &["--config", &path]);
        let what = format!("`unshare` may need more rights than its user has, which the sandbox `{sandbox}`");
        told(&found, "commands", "warning", &what, "set `bridge.daemon.sandbox: \"off\"` in ~/rights.json");
        only(&found, &["commands"]);
    }
    let path = config(machine, "rights.json", &text("off"));
    only(&doctor(machine, &["--config", &path]), &[]);
    machine.user(&["rm", &path]).success();
}

fn a_failed_unit_is_told_until_it_is_forgotten(machine: &Machine) {
    let unit = ".config/systemd/user/foxxy-bridge@broken.service";
    config(machine, unit, "[Service]\nExecStart=/bin/false\n");
    machine
        .user_sh("systemctl --user daemon-reload; systemctl --user start foxxy-bridge@broken || true")
        .success();
    machine.wait_until(Duration::from_secs(10), "the unit has failed", || {
        property(machine, "foxxy-bridge@broken", "ActiveState") == "failed"
    });
    let found = doctor(machine, &[]);
    let what = "foxxy-bridge@broken.service has failed: it ended with exit code 1";
    told(&found, "failed units", "problem", what, "foxxy-bridge server logs broken");
    only(&found, &["failed units"]);
    let fix = of(&found, "failed units")["fix"].as_str().expect("a fix");
    let (_, forget) = fix.rsplit_once("forgotten: ").expect("a command");
    machine.user_sh(forget).success();
    only(&doctor(machine, &[]), &[]);
    machine.user_sh(&format!("rm {unit}; systemctl --user daemon-reload")).success();
    nothing_is_left(machine);
}

fn a_journal_that_cannot_be_read_is_told(machine: &Machine) {
    machine.root(&["chmod", "700", "/var/log/journal"]).success();
    let found = doctor(machine, &[]);
    machine.root(&["chmod", "755", "/var/log/journal"]).success();
    let group = "sudo usermod --append --groups systemd-journal tester";
    told(&found, "journal", "problem", "this user may not read all of the log: ", group);
    only(&found, &["journal"]);
    only(&doctor(machine, &[]), &[]);
    let without = ["env", "PATH=/nowhere", "/usr/local/bin/foxxy-bridge", "doctor", "--format", "json"];
    told(&findings(&machine.user(&without)), "journal", "problem", "`journalctl` cannot be run", "install");
}

fn all_that_is_wrong_with_a_config_is_told_and_the_rest_is_looked_at(machine: &Machine) {
    let text = json!({ "mcpServers": { "a": { "command": 5 } }, "bridge": { "port": "http", "prot": 1 } });
    let path = config(machine, "wrong.json", &text.to_string());
    let found = doctor(machine, &["--config", &path]);
    let of_config: Vec<_> = found.iter().filter(|finding| finding["check"] == "config").collect();
    let states: Vec<_> = of_config.iter().map(|finding| &finding["state"]).collect();
    assert_eq!(states, ["problem", "problem", "warning"], "{of_config:?}");
    told(&found, "config", "problem", "wrong.json:1:", "edit ~/wrong.json");
    assert!(of_config[2]["fix"].as_str().is_some_and(|fix| fix.contains("`port`")), "{of_config:?}");
    only(&found, &["config"]);
    assert_eq!(of(&found, "journal")["state"], "ok");

    let found = doctor(machine, &["--config", "nowhere.json"]);
    told(&found, "config", "problem", "nowhere.json: no such file", "foxxy-bridge config init");
    config(machine, "closed.json", "{}");
    machine.user(&["chmod", "000", "closed.json"]).success();
    let found = doctor(machine, &["--config", "closed.json"]);
    told(&found, "config", "problem", "closed.json: cannot be read", "must be able to read it");
    // The default one of a user is looked at as well.
    let default = config(machine, ".config/foxxy-bridge/config.json", "{");
    told(&doctor(machine, &[]), "config", "problem", "not valid JSON", "edit ~/.config/foxxy-bridge");
    machine.user(&["rm", "-f", &default, "closed.json"]).success();
}

fn a_secret_that_everybody_may_read_is_told(machine: &Machine) {
    let server = json!({ "url": "http://127.0.0.1:9/mcp", "headers": { "Authorization": "Bearer s3cr3t" } });
    let text = json!({ "mcpServers": { "docs": server }, "bridge": { "port": 8585 } }).to_string();
    let path = config(machine, "../../tmp/shared/open.json", &text);
    let path = path.replace("/home/tester/../..", "");
    machine.user(&["chmod", "755", "/tmp/shared"]).success();
    machine.user(&["chmod", "644", &path]).success();
    let found = doctor(machine, &["--config", &path]);
    told(
        &found,
        "permissions",
        "warning",
        "mcpServers.docs.headers.Authorization",
        &format!("chmod 600 {path}"),
    );
    assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
    only(&found, &["permissions"]);
    machine.user(&["chmod", "600", &path]).success();
    only(&doctor(machine, &["--config", &path]), &[]);
    machine.user(&["chmod", "777", "/tmp/shared"]).success();
    told(
        &doctor(machine, &["--config", &path]),
        "permissions",
        "problem",
        "replaced",
        "chmod o-w /tmp/shared",
    );
    machine.user(&["rm", "-r", "/tmp/shared"]).success();
}

fn what_a_killed_bridge_left_is_told_until_it_is_cleaned_up(machine: &Machine) {
    // In the foreground there is nobody who starts it again.
    machine
        .user_sh("foxxy-bridge server start --name gone --port 8586 2>/dev/null & sleep 1; kill -9 $!; wait $! || true")
        .success();
    let found = doctor(machine, &[]);
    told(&found, "leftovers", "warning", "foxxy-bridge: gone", "server start --daemon --cleanup");
    only(&found, &["leftovers"]);
    foxxy(machine, &["server", "start", "--daemon", "--cleanup", "--port", "8586"]).success();
    only(&doctor(machine, &[]), &[]);
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn a_bridge_that_is_ill_or_hangs_is_told(machine: &Machine) {
    let text = json!({
        "mcpServers": { "gone": { "url": "http://127.0.0.1:9/mcp", "retryAttempts": 0 } },
        "bridge": { "port": 8587, "daemon": { "watchdog": 0 } },
    });
    let path = config(machine, "ill.json", &text.to_string());
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    machine.wait_until(Duration::from_secs(20), "the server has failed", || {
        status(machine, "ill")["upstreams"][0]["state"] == "failed"
    });
    let found = doctor(machine, &[]);
    told(
        &found,
        "bridges",
        "problem",
        "ill is not healthy: gone is failed: ",
        "foxxy-bridge server logs ill",
    );
    only(&found, &["bridges"]);
    let pid = property(machine, "foxxy-bridge-ill", "MainPID");
    machine.user(&["kill", "-STOP", &pid]).success();
    let output = foxxy(machine, &["doctor", "--format", "json"]);
    assert!(output.took < Duration::from_secs(20), "{output}");
    let found = findings(&output);
    told(
        &found,
        "bridges",
        "problem",
        "ill is running and does not answer",
        "foxxy-bridge server restart ill",
    );
    machine.user(&["kill", "-CONT", &pid]).success();
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn limits_that_have_no_effect_here_are_told(machine: &Machine) {
    let limits = json!({ "memory_max": "256M", "nofile": 4096 });
    let servers = json!({ "foxxy": { "transport": "builtin" } });
    let text = json!({ "mcpServers": servers, "bridge": { "port": 8588, "daemon": { "limits": limits } } });
    let path = config(machine, "limits.json", &text.to_string());
    let found = doctor(machine, &["--config", &path]);
    let file = machine.user_sh(
        "cat /sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/cgroup.controllers",
    );
    if file.success().split_whitespace().any(|controller| controller == "memory") {
        only(&found, &[]);
    } else {
        told(&found, "limits", "warning", "limits.memory_max has no effect", "boot with");
        only(&found, &["limits"]);
    }
}

fn the_sandbox_is_probed_and_leaves_no_unit(machine: &Machine) {
    let since = machine.root(&["date", "+%s"]).success();
    let lines = |found: &[Value]| {
        let of_sandbox = found.iter().filter(|finding| finding["check"] == "sandbox");
        of_sandbox.map(|finding| finding["found"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let version = version(machine);
    let enforced = |of: &str| format!("{of}: enforced by systemd {version}");
    // As measured of 252 and of 257; no more is tried than a unit of that version sets, and that holds.
    let expected = [
        "auto: system calls",
        "strict: system calls",
        "strict: file system",
        "strict: devices and kernel",
        "strict: users and capabilities",
    ];
    assert_eq!(lines(&doctor(machine, &[])), expected.map(enforced));
    let root = lines(&findings(&machine.root(&["foxxy-bridge", "doctor", "--format", "json"])));
    assert_eq!(root, expected.map(enforced));
    // A unit with an account of its own is as strict with `auto`, and hides the homes.
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8802, "daemon": { "user": "foxxy-bridge" } } });
    let path = config(machine, "account.json", &text.to_string());
    let own = machine.root(&["foxxy-bridge", "doctor", "--format", "json", "--config", &path]);
    let groups = ["system calls", "file system", "devices and kernel", "users and capabilities"];
    assert_eq!(lines(&findings(&own)), groups.map(|group| enforced(&format!("auto and strict: {group}"))));
    machine.user(&["rm", &path]).success();

    let trials = ["list-units", "--all", "--plain", "--no-legend", "foxxy-trial*"];
    assert_eq!(machine.user(&[&["systemctl", "--user"], &trials[..]].concat()).success(), "");
    assert_eq!(machine.root(&[&["systemctl"], &trials[..]].concat()).success(), "");
    // Those that ran are not worth a line.
    let log = [
        "journalctl",
        "--quiet",
        &format!("--since=@{}", since.trim()),
        "--grep=(Starting|Finished) foxxy-trial",
    ];
    assert_eq!(machine.root(&log).stdout, "");
}

fn a_sandbox_that_keeps_a_bridge_from_starting_is_told(machine: &Machine) {
    let text = |sandbox: &str| {
        let servers = json!({ "foxxy": { "transport": "builtin" } });
        json!({ "mcpServers": servers, "bridge": { "port": 8801, "daemon": { "sandbox": sandbox } } })
            .to_string()
    };
    // As where the home is on a disk that is not there now.
    let homeless =
        |command: &[&str]| machine.user(&[&["env", "HOME=/nowhere", "foxxy-bridge"], command].concat());
    let path = config(machine, "homeless.json", &text("strict"));
    let look = || findings(&homeless(&["doctor", "--format", "json", "--config", &path]));
    let found = look();
    let what = "strict: file system: systemd";
    told(&found, "sandbox", "problem", what, "use `auto`");
    told(&found, "sandbox", "problem", "keeps a unit from starting: ReadWritePaths (", "use `auto`");
    only(&found, &["sandbox"]);
    // It is true.
    let start = ["server", "start", "--daemon", "--config", &path];
    assert_eq!(homeless(&start).code, Some(1));
    config(machine, "homeless.json", &text("auto"));
    only(&look(), &[]);
    homeless(&start).success();
    homeless(&["server", "stop"]).success();
    machine.user(&["rm", &path]).success();
    nothing_is_left(machine);
}

fn without_systemd_it_says_so(machine: &Machine) {
    let hidden = "mount -t tmpfs tmpfs /run/systemd && exec foxxy-bridge doctor --format json";
    let found = findings(&machine.root(&["unshare", "--mount", "sh", "-c", hidden]));
    let found_so = of(&found, "service manager")["found"].as_str().expect("a text");
    assert!(found_so.contains("bridges are kept with PID files"), "{found_so}");
    only(&found, &[]);
}

fn a_bus_that_never_answers_holds_nothing_up(machine: &Machine) {
    let deaf = "import os, socket, time; os.makedirs('/tmp/deaf', 0o700); s = socket.socket(socket.AF_UNIX); \
        s.bind('/tmp/deaf/bus'); s.listen(); time.sleep(60)";
    let unit = ["systemd-run", "--user", "--quiet", "--collect", "--unit=deaf-bus"];
    machine.user(&[&unit[..], &["/usr/bin/python3", "-c", deaf]].concat()).success();
    machine.wait_until(Duration::from_secs(10), "the bus is there", || {
        machine.user(&["test", "-S", "/tmp/deaf/bus"]).code == Some(0)
    });
    let output =
        machine.user(&["env", "XDG_RUNTIME_DIR=/tmp/deaf", "foxxy-bridge", "doctor", "--format", "json"]);
    assert!(output.took < Duration::from_secs(15), "{output}");
    told(&findings(&output), "service manager", "problem", "systemd did not answer within 5 s", "try again");
    machine.user(&["systemctl", "--user", "stop", "deaf-bus"]).success();
    machine.user(&["rm", "-r", "/tmp/deaf"]).success();
}
