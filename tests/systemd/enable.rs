//! Bridges that come back with the machine: the files that `server enable` writes, and what systemd makes of them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{
    config, connected, everything, foxxy, get, list, nothing_is_kept, nothing_is_left, plain, property,
    refused, status,
};
use crate::machine::Machine;

crate::tests![
    an_enabled_bridge_serves_after_a_boot_before_any_login,
    a_dry_run_shows_all_and_changes_nothing,
    what_cannot_be_enabled_leaves_nothing,
    enabling_again_brings_the_unit_up_to_date,
    a_start_of_an_enabled_bridge_starts_its_unit,
    enabling_now_takes_over_from_a_transient_unit,
    a_name_is_not_taken_from_another_config_unasked,
    a_forced_start_that_cannot_be_leaves_what_runs,
    a_bridge_that_was_disabled_can_still_be_restarted,
    enabling_one_bridge_leaves_the_others_as_they_are,
    one_that_was_given_up_does_not_hide_its_successor,
    commands_at_the_same_time_take_turns,
    one_that_is_enabled_and_stopped_is_known,
    what_was_removed_by_hand_is_disabled_all_the_same,
    linger_is_switched_on_when_asked_and_only_ours_is_undone,
    folders_of_the_shell_are_those_of_the_bridge,
];

const SOON: Duration = Duration::from_secs(15);
const UNITS: &str = "/home/tester/.config/systemd/user";

fn an_enabled_bridge_serves_after_a_boot_before_any_login(machine: &Machine) {
    let text = json!({
        "mcpServers": { "e": { "command": "node", "args": everything()["args"], "env": { "KEY": "${TOKEN}" } } },
        "bridge": { "port": 8631, "daemon": { "environment": { "OF_ALL": "x y" } } },
    });
    config(machine, ".config/foxxy-bridge/boot.json", &text.to_string());
    let said =
        machine.user(&["env", "TOKEN=s3cr3t $1 \"", "foxxy-bridge", "server", "enable", "boot", "--now"]);
    assert!(said.stderr.contains("kept for the boot: TOKEN"), "{said}");
    assert!(
        said.success().contains("enabled boot: foxxy-bridge@boot.service starts with this user's systemd\n")
    );
    machine.reboot();
    machine.wait_until(SOON, "it serves", || get(machine, "http://127.0.0.1:8631/readyz") == "200");
    let sessions = machine.root(&["loginctl", "list-sessions", "--no-legend"]).success();
    // The newer version counts the manager's own.
    assert!(
        sessions.lines().all(|session| session.contains(" manager ")),
        "somebody has logged in: {sessions}"
    );
    connected(machine, "boot");
    let steps = json!([["call", "get-env"]]);
    let env = crate::bridge::client(machine, "http://127.0.0.1:8631/mcp/e", &steps);
    let env: Value = serde_json::from_str(crate::bridge::text(&env[0])).expect("JSON");
    assert_eq!((&env["KEY"], &env["OF_ALL"]), (&json!("s3cr3t $1 \""), &json!("x y")));
    assert_eq!(list(machine)[0]["unit"], "foxxy-bridge@boot.service");
    let all = machine.user(&[
        "sh",
        "-c",
        "systemctl --user show foxxy-bridge@boot; cat ~/.config/systemd/user/*/*",
    ]);
    assert!(!all.success().contains("s3cr3t"), "the secret is in the unit");

    assert_eq!(foxxy(machine, &["server", "disable", "boot", "--now"]).success(), "disabled boot\n");
    nothing_is_kept(machine);
    nothing_is_left(machine);
    machine.reboot();
    assert_eq!(get(machine, "http://127.0.0.1:8631/readyz"), "000");
    nothing_is_kept(machine);
    machine.user_sh("rm -r ~/.config/foxxy-bridge").success();
}

fn a_dry_run_shows_all_and_changes_nothing(machine: &Machine) {
    let path = plain(machine, "dry.json", 8632);
    let dry = foxxy(machine, &["server", "enable", "--config", &path, "--dry-run"]).success();
    for line in [
        &*format!("write {UNITS}/foxxy-bridge@.service:"),
        "    ExecStart=:/usr/local/bin/foxxy-bridge server start --instance %i --user",
        &format!("write {UNITS}/foxxy-bridge@dry.service.d/50-foxxy-bridge.conf:"),
        &format!("    ExecStart=:/usr/local/bin/foxxy-bridge --config {path} server start --name dry --user"),
        "call Reload()",
        "call EnableUnitFiles([\"foxxy-bridge@dry.service\"], false, false)",
    ] {
        assert!(dry.lines().any(|shown| shown == line), "{line:?} is not in: {dry}");
    }
    nothing_is_kept(machine);
    foxxy(machine, &["server", "enable", "--config", &path]).success();
    let again = foxxy(machine, &["server", "enable", "--config", &path]).success();
    assert!(again.starts_with("dry is enabled already"), "{again}");
    let dry = foxxy(machine, &["server", "disable", "dry", "--dry-run"]).success();
    assert!(dry.contains("call DisableUnitFiles([\"foxxy-bridge@dry.service\"], false)\n"), "{dry}");
    assert_eq!(
        machine.user(&["systemctl", "--user", "is-enabled", "foxxy-bridge@dry"]).success(),
        "enabled\n"
    );
    assert_eq!(foxxy(machine, &["server", "disable", "dry"]).success(), "disabled dry\n");
    assert_eq!(foxxy(machine, &["server", "disable", "dry"]).stderr, "dry is not enabled\n");
    nothing_is_kept(machine);
}

fn what_cannot_be_enabled_leaves_nothing(machine: &Machine) {
    let path = plain(machine, "masked.json", 8633);
    machine.user(&["systemctl", "--user", "mask", "foxxy-bridge@masked.service"]).success();
    let stderr = refused(foxxy(machine, &["server", "enable", "--config", &path]), 1);
    assert!(stderr.contains("is masked"), "{stderr}");
    machine.user(&["systemctl", "--user", "unmask", "foxxy-bridge@masked.service"]).success();
    nothing_is_kept(machine);
    let stderr = refused(foxxy(machine, &["server", "enable", "nobody"]), 78);
    assert!(stderr.contains("neither nobody.json nor nobody.toml"), "{stderr}");
    refused(machine.user(&["foxxy-bridge", "server", "enable", "--system", "--config", &path]), 77);
    let system = ["find", "/etc/systemd/system", "/var/lib", "-path", "*masked*", "-path", "*foxxy*"];
    assert_eq!(machine.root(&system).stdout, "");
    nothing_is_kept(machine);
}

fn enabling_again_brings_the_unit_up_to_date(machine: &Machine) {
    let path = plain(machine, "again.json", 8634);
    foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8634/readyz"), "200");
    // A person's own drop-in comes after ours.
    let script = "mkdir -p ~/.config/systemd/user/foxxy-bridge@again.service.d; \
        printf '[Service]\\nEnvironment=MINE=1\\n' > ~/.config/systemd/user/foxxy-bridge@again.service.d/override.conf";
    machine.user_sh(script).success();
    let said = foxxy(machine, &["server", "enable", "--config", &path, "--port", "8635"]);
    assert!(said.stderr.contains("put the unit in force with `foxxy-bridge server restart again`"), "{said}");
    said.success();
    let told = foxxy(machine, &["server", "server-status", "again"]).success();
    assert!(told.contains("Its unit files are newer than the bridge"), "{told}");
    assert_eq!(status(machine, "again")["drift"], "newer");
    foxxy(machine, &["server", "restart", "again"]).success();
    assert_eq!(status(machine, "again")["drift"], Value::Null);
    assert_eq!(status(machine, "again")["enabled"], "boot");
    assert_eq!(get(machine, "http://127.0.0.1:8635/readyz"), "200");
    assert!(property(machine, "foxxy-bridge@again", "Environment").contains("MINE=1"));
    foxxy(machine, &["server", "disable", "again", "--now"]).success();
    // What is not ours is not removed.
    machine
        .user_sh("rm -r ~/.config/systemd/user/foxxy-bridge@again.service.d; systemctl --user daemon-reload")
        .success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_start_of_an_enabled_bridge_starts_its_unit(machine: &Machine) {
    let path = plain(machine, "kept.json", 8636);
    foxxy(machine, &["server", "enable", "--config", &path]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8636/readyz"), "000");
    let said = foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    assert!(said.contains("foxxy-bridge@kept.service"), "{said}");
    assert_eq!(foxxy(machine, &["server", "stop", "kept"]).success(), "stopped kept\n");
    // Its address is in its unit, and nothing that is typed is passed over in silence.
    let typed = ["server", "start", "--daemon", "--config", &path, "--port", "8637"];
    let stderr = refused(foxxy(machine, &typed), 1);
    assert!(stderr.contains("server enable kept --port 8637"), "{stderr}");
    // The name is its own, also while it does not run.
    let other = plain(machine, "elsewhere/kept.json", 8638);
    let stderr = refused(foxxy(machine, &["server", "start", "--daemon", "--config", &other]), 1);
    assert!(
        stderr.contains(&format!("is in use by foxxy-bridge@kept.service, which serves {path}")),
        "{stderr}"
    );
    foxxy(machine, &["server", "disable"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn enabling_now_takes_over_from_a_transient_unit(machine: &Machine) {
    let path = plain(machine, "moves.json", 8639);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    foxxy(machine, &["server", "enable", "moves", "--now"]).success();
    assert_eq!(list(machine)[0]["unit"], "foxxy-bridge@moves.service");
    assert_eq!(list(machine).len(), 1);
    // Without --now it goes on as it is, and moves with the next restart.
    foxxy(machine, &["server", "disable", "moves", "--now"]).success();
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    foxxy(machine, &["server", "enable", "moves"]).success();
    assert_eq!(list(machine)[0]["unit"], "foxxy-bridge-moves.service");
    foxxy(machine, &["server", "restart", "moves"]).success();
    assert_eq!(list(machine)[0]["unit"], "foxxy-bridge@moves.service");
    foxxy(machine, &["server", "disable", "moves", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_name_is_not_taken_from_another_config_unasked(machine: &Machine) {
    let (one, two) = (plain(machine, "a/team.json", 8643), plain(machine, "b/team.json", 8644));
    foxxy(machine, &["server", "enable", "--config", &one]).success();
    let stderr = refused(foxxy(machine, &["server", "enable", "--config", &two]), 1);
    assert!(stderr.contains(&format!("the name `team` is enabled for another config, {one}")), "{stderr}");
    foxxy(machine, &["server", "enable", "team", "--config", &two, "--now"]).success();
    assert_eq!(status(machine, "team")["config"], two);
    foxxy(machine, &["server", "disable", "team", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_forced_start_that_cannot_be_leaves_what_runs(machine: &Machine) {
    let path = plain(machine, "firm.json", 8645);
    foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
    let pid = list(machine)[0]["pid"].clone();
    let start = ["server", "start", "--daemon", "--config", &path, "--port", "8646"];
    let stderr = refused(foxxy(machine, &start), 1);
    assert!(stderr.contains("foxxy-bridge server enable firm --port 8646"), "{stderr}");
    refused(foxxy(machine, &[&start[..], &["--force"]].concat()), 1);
    assert_eq!(list(machine)[0]["pid"], pid);
    foxxy(machine, &["server", "disable", "firm", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_bridge_that_was_disabled_can_still_be_restarted(machine: &Machine) {
    let mut server = everything();
    server["env"] = json!({ "KEY": "${TOKEN}" });
    let text = json!({ "mcpServers": { "e": server }, "bridge": { "port": 8647 } }).to_string();
    let path = config(machine, "loose.json", &text);
    let reaches = || {
        connected(machine, "loose");
        let steps = json!([["call", "get-env"]]);
        let env = crate::bridge::client(machine, "http://127.0.0.1:8647/mcp/e", &steps);
        let env: Value = serde_json::from_str(crate::bridge::text(&env[0])).expect("JSON");
        assert_eq!(env["KEY"], "s3cr3t");
    };
    let enable = ["env", "TOKEN=s3cr3t", "foxxy-bridge", "server", "enable", "--config", &path, "--now"];
    machine.user(&enable).success();
    reaches();
    let said = foxxy(machine, &["server", "disable", "loose"]);
    assert!(said.stderr.contains("it goes on running"), "{said}");
    nothing_is_kept(machine);
    // What it was given at that time, it still has.
    foxxy(machine, &["server", "reload", "loose"]).success();
    reaches();
    foxxy(machine, &["server", "restart", "loose"]).success();
    reaches();
    assert_eq!(list(machine)[0]["unit"], "foxxy-bridge-loose.service");
    assert_eq!(status(machine, "loose")["config"], path);
    foxxy(machine, &["server", "stop", "loose"]).success();
    nothing_is_left(machine);
}

fn enabling_one_bridge_leaves_the_others_as_they_are(machine: &Machine) {
    let (one, two) = (plain(machine, "first.json", 8648), plain(machine, "second.json", 8649));
    foxxy(machine, &["server", "enable", "--config", &one]).success();
    let shown = || machine.user(&["systemctl", "--user", "cat", "foxxy-bridge@first"]).success();
    let before = shown();
    // As from a build folder that is gone tomorrow.
    machine.user_sh("mkdir -p build; cp /usr/local/bin/foxxy-bridge build/").success();
    machine.user(&["/home/tester/build/foxxy-bridge", "server", "enable", "--config", &two]).success();
    assert_eq!(shown(), before);
    assert!(
        property(machine, "foxxy-bridge@second", "ExecStart").contains("/home/tester/build/foxxy-bridge")
    );
    foxxy(machine, &["server", "disable", "--all"]).success();
    machine.user_sh("rm -r build").success();
    nothing_is_kept(machine);
}

fn one_that_was_given_up_does_not_hide_its_successor(machine: &Machine) {
    let path = plain(machine, "heir.json", 8651);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    config(machine, "heir.json", "{ nonsense");
    machine.user(&["systemctl", "--user", "restart", "foxxy-bridge-heir"]).failure(1);
    assert_eq!(list(machine)[0]["status"], "failed");
    let path = plain(machine, "heir.json", 8651);
    foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
    let listed = list(machine);
    let told = ["status", "unit"].map(|key| listed[0][key].clone());
    assert_eq!((listed.len(), told), (1, [json!("running"), json!("foxxy-bridge@heir.service")]));
    foxxy(machine, &["server", "disable", "heir", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn commands_at_the_same_time_take_turns(machine: &Machine) {
    plain(machine, "turn.json", 8652);
    // Somebody else has the turn, until `go` is there.
    let script = "rm -f go held\n\
        flock \"$XDG_RUNTIME_DIR\" sh -c 'touch held; until [ -e go ]; do sleep 0.1; done' & first=$!\n\
        until [ -e held ]; do sleep 0.1; done\n\
        foxxy-bridge server enable -c turn.json >said 2>&1 & second=$!\n\
        sleep 1; ls ~/.config/systemd/user | grep foxxy && exit 7\n\
        touch go; wait $first; wait $second; cat said; rm go held said";
    let said = machine.user_sh(script).success();
    assert!(said.contains("enabled turn: "), "{said}");
    foxxy(machine, &["server", "disable", "--all"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn one_that_is_enabled_and_stopped_is_known(machine: &Machine) {
    let path = plain(machine, "rests.json", 8722);
    foxxy(machine, &["server", "enable", "--config", &path, "--port", "8723", "--now"]).success();
    let drop_in = "head -1 ~/.config/systemd/user/foxxy-bridge@rests.service.d/50-foxxy-bridge.conf";
    let command = format!("server enable rests --config {path} --port 8723`;");
    assert!(machine.user_sh(drop_in).success().contains(&command));
    foxxy(machine, &["server", "stop", "rests"]).success();
    let listed = list(machine);
    let told = ["name", "status", "unit", "config"].map(|key| listed[0][key].clone());
    assert_eq!(told, ["rests", "stopped", "foxxy-bridge@rests.service", &path]);
    let told = foxxy(machine, &["server", "status", "rests", "--format", "json"]);
    assert!(told.stdout.contains("\"enabled\": \"boot\""), "{told}");
    let stderr = refused(foxxy(machine, &["server", "status", "rests"]), 3);
    let start = format!("start it now: foxxy-bridge server start --daemon --config {path}\n");
    assert!(
        stderr.contains("it is enabled: it starts by itself, with systemd") && stderr.ends_with(&start),
        "{stderr}"
    );
    // Its config is the one that it is enabled with, which no folder tells.
    foxxy(machine, &["server", "enable", "rests", "--now"]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8722/readyz"), "200");
    foxxy(machine, &["server", "stop", "rests"]).success();
    let said = foxxy(machine, &["server", "restart", "rests"]);
    assert!(said.stderr.contains("rests is not running: it is started"), "{said}");
    assert_eq!(get(machine, "http://127.0.0.1:8722/readyz"), "200");
    foxxy(machine, &["server", "disable", "rests", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn what_was_removed_by_hand_is_disabled_all_the_same(machine: &Machine) {
    let path = plain(machine, "halved.json", 8724);
    for remove in [
        "foxxy-bridge@.service",
        "foxxy-bridge@halved.service.d",
        "default.target.wants/foxxy-bridge@halved.service",
    ] {
        foxxy(machine, &["server", "enable", "--config", &path]).success();
        machine.user(&["rm", "-r", &format!("{UNITS}/{remove}")]).success();
        machine.user(&["systemctl", "--user", "daemon-reload"]).success();
        assert_eq!(
            foxxy(machine, &["server", "disable", "halved"]).success(),
            "disabled halved\n",
            "{remove}"
        );
        nothing_is_kept(machine);
    }
}

fn linger_is_switched_on_when_asked_and_only_ours_is_undone(machine: &Machine) {
    let path = plain(machine, "lingers.json", 8641);
    let lingers = || {
        machine.root(&["loginctl", "show-user", "tester", "--value", "--property=Linger"]).success()
            == "yes\n"
    };
    // It lingered before: that stays.
    foxxy(machine, &["server", "enable", "--config", &path, "--linger"]).success();
    foxxy(machine, &["server", "disable", "lingers"]).success();
    assert!(lingers());
    nothing_is_kept(machine);
    // A session keeps the manager while nobody lingers.
    let session = ["--unit=a-session", "--property=User=tester", "--property=PAMName=login", "sleep", "1000"];
    machine.root(&[&["systemd-run", "--quiet"], &session[..]].concat()).success();
    // In a unit, as logind asks in which session its caller is, and one from outside the machine is in none.
    let inside = ["systemd-run", "--quiet", "--wait", "--pipe"];
    machine.root(&[&inside[..], &["loginctl", "disable-linger", "tester"]].concat()).success();
    let foxxy = |machine: &Machine, arguments: &[&str]| {
        machine.user(&[&inside[..], &["--user", "foxxy-bridge"], arguments].concat())
    };
    let said = foxxy(machine, &["server", "enable", "--config", &path]);
    assert!(said.stderr.contains("this user does not linger: it starts at the first login"), "{said}");
    said.success();
    let said = foxxy(machine, &["server", "enable", "--config", &path, "--linger"]);
    assert!(said.stderr.contains("this user lingers from now on"), "{said}");
    said.success();
    assert!(lingers());
    let said = foxxy(machine, &["server", "disable", "lingers"]);
    assert!(said.stderr.contains("this user does not linger any more"), "{said}");
    assert!(!lingers());
    nothing_is_kept(machine);
    machine.root(&[&inside[..], &["loginctl", "enable-linger", "tester"]].concat()).success();
    machine.root(&["systemctl", "stop", "a-session"]).success();
}

fn folders_of_the_shell_are_those_of_the_bridge(machine: &Machine) {
    let foxxy = |variables: &[&str], arguments: &[&str]| {
        machine.user(&[&["env"], variables, &["foxxy-bridge", "server"], arguments].concat())
    };
    let text = |port: u16| {
        let daemon = json!({ "environment": { "KEY": "${TOKEN}" } });
        json!({ "mcpServers": {}, "bridge": { "host": "${TOKEN:0.0.0.0}", "port": port, "daemon": daemon } })
            .to_string()
    };
    config(machine, ".config/foxxy-bridge/away.json", &text(8861));
    let set = |variables: &[&str]| {
        let words = if variables.is_empty() { "unset-environment" } else { "set-environment" };
        let variables = if variables.is_empty() { &["XDG_CONFIG_HOME", "XDG_STATE_HOME"] } else { variables };
        machine.user(&[&["systemctl", "--user", words], variables].concat()).success();
    };
    machine.user_sh("mkdir -m 700 ~/run; mkdir -p ~/elsewhere").success();
    let moved = ["XDG_STATE_HOME=/home/tester/elsewhere", "XDG_RUNTIME_DIR=/home/tester/run"];
    let managers = ["XDG_CONFIG_HOME=/home/tester/nowhere", "XDG_STATE_HOME=/home/tester/nowhere"];
    for (shell, manager, is_said) in
        [(&[][..], &[][..], false), (&moved, &[], true), (&[], &managers, true), (&moved, &managers, true)]
    {
        set(manager);
        let enable = ["enable", "away", "--now"];
        foxxy(&[shell, &["TOKEN=127.0.0.1"]].concat(), &enable).success();
        let status = foxxy(shell, &["status", "away", "--format", "json"]).success();
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["config"], "/home/tester/.config/foxxy-bridge/away.json");
        // The bridge, too, has found what was kept for it.
        assert_eq!(status["address"], "http://127.0.0.1:8861/mcp", "{shell:?} {manager:?}");
        let drop_in = "cat ~/.config/systemd/user/foxxy-bridge@away.service.d/50-foxxy-bridge.conf";
        let drop_in = machine.user_sh(drop_in).success();
        assert_eq!(drop_in.contains("XDG_") || drop_in.contains("--config-dir"), is_said, "{drop_in}");
        foxxy(shell, &["reload", "away"]).success();
        foxxy(shell, &["disable", "away", "--now"]).success();
    }
    set(&[]);
    machine.user_sh("rm -r ~/run ~/elsewhere ~/.config/foxxy-bridge").success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}
