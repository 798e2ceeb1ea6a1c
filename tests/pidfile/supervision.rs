//! What a supervisor does for its bridge, and what becomes of both where one of them does not do its part.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::family::{family, members};
use crate::home::{Home, for_each_at_once, get, is_halted, lives, signal, wait_for, wait_until};

/// Pauses that a test can wait for.
fn restart(attempts: u32) -> Value {
    json!({ "attempts": attempts, "delay": 0.05, "max_delay": 0.1 })
}

/// Kills the bridge, and waits until there is another.
fn kill(home: &Home, name: &str) -> u32 {
    let bridge = home.bridge(name).expect("a bridge");
    signal(bridge, Signal::KILL);
    wait_for("another bridge that serves", || {
        let row = home.listed(name);
        (row["status"] == "running").then(|| home.bridge(name)).flatten().filter(|pid| *pid != bridge)
    })
}

/// What its supervisor notes of the last run of a bridge.
fn failure(home: &Home, name: &str) -> String {
    let state = fs::read_to_string(home.own("run").join(name).join("state")).expect("a state");
    let state: toml::Table = state.parse().expect("TOML");
    state.get("failure").and_then(|failure| failure.as_str()).unwrap_or_default().to_owned()
}

#[test]
fn a_killed_bridge_is_brought_back_without_the_servers_of_the_old_one() {
    let home = Home::new();
    let port = home.config(
        "work",
        &json!({
            "mcpServers": family(&home), "bridge": { "daemon": { "restart": restart(3) } }
        }),
    );
    home.start("work").success();
    let supervisor = home.supervisor("work");
    let members = members(&home, "work");
    fs::remove_file(home.path("grandchild")).expect("a file");
    kill(&home, "work");
    assert!(!members.iter().any(|pid| lives(*pid)), "one of {members:?} outlived the bridge");
    assert_eq!((home.supervisor("work"), &home.listed("work")["restarts"]), (supervisor, &json!(1)));
    assert_eq!(get(port, "/livez"), Ok(200));
    assert_eq!(failure(&home, "work"), "it was killed by SIGKILL");
    let members = crate::family::members(&home, "work");
    assert_eq!(home.stop("work").success(), "stopped work\n");
    assert!(!members.iter().any(|pid| lives(*pid)), "one of {members:?} outlived the bridge");
    home.nothing_is_left();
}

#[test]
fn one_that_dies_time_and_again_is_given_up_and_can_be_started_anew() {
    let home = Home::new();
    home.config("work", &json!({ "bridge": { "daemon": { "restart": restart(2) } } }));
    home.start("work").success();
    let supervisor = home.supervisor("work");
    for restarts in 1..=2 {
        kill(&home, "work");
        assert_eq!(home.listed("work")["restarts"], restarts);
    }
    signal(home.bridge("work").expect("a bridge"), Signal::KILL);
    wait_until("the supervisor has ended", || !lives(supervisor));
    let row = home.listed("work");
    assert_eq!((&row["status"], &row["pid"], &row["restarts"]), (&json!("failed"), &json!(null), &json!(2)));
    let reason = "it failed too often in a row, at last so: it was killed by SIGKILL";
    let said = home.status("work").refused(3);
    assert!(said.contains("the bridge `work` is failed") && said.contains(reason), "{said}");
    let told = home.status_of("work");
    assert_eq!((&told["state"], &told["error"]), (&json!("failed"), &json!(reason)));

    let said = home.start("work").success();
    assert!(said.starts_with("started work: "), "{said}");
    assert_eq!(home.listed("work")["restarts"], 0);
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

/// A bridge that was given up.
fn given_up(home: &Home, name: &str) {
    home.config(name, &json!({ "bridge": { "daemon": { "restart": restart(0) } } }));
    home.start(name).success();
    let supervisor = home.supervisor(name);
    signal(home.bridge(name).expect("a bridge"), Signal::KILL);
    wait_until("the supervisor has ended", || !lives(supervisor));
    assert_eq!(home.listed(name)["status"], "failed");
}

#[test]
fn one_that_was_given_up_is_forgotten_by_a_stop_or_a_cleanup_and_started_by_a_restart() {
    let home = Home::new();
    given_up(&home, "work");
    assert_eq!(home.stop("work").success(), "stopped work: it had failed and was given up\n");
    home.nothing_is_left();

    given_up(&home, "work");
    home.config("other", &json!({}));
    home.start_with("other", &["--cleanup"], &[]).success();
    assert_eq!(home.listed("work"), Value::Null);
    home.one_runs("other");
    home.stop("other").success();
    home.nothing_is_left();

    given_up(&home, "work");
    home.foxxy(&["server", "restart", "work"]).success();
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_config_that_is_broken_by_now_is_not_tried_over_and_over() {
    let home = Home::new();
    home.config("work", &json!({ "bridge": { "daemon": { "restart": restart(5) } } }));
    let good = fs::read(home.config_of("work")).expect("a config");
    home.start("work").success();
    let supervisor = home.supervisor("work");
    home.write(&home.config_of("work"), "{ nonsense");
    signal(home.bridge("work").expect("a bridge"), Signal::KILL);
    wait_until("the supervisor has ended", || !lives(supervisor));
    let row = home.listed("work");
    assert_eq!((&row["status"], &row["restarts"]), (&json!("failed"), &json!(1)), "{row}");
    let said = home.status("work").refused(3);
    assert!(said.contains("exit code 78"), "{said}");
    home.start("work").refused(78);

    home.write(&home.config_of("work"), good);
    home.start("work").success();
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_hangup_has_the_bridge_read_its_config_anew() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    home.start("work").success();
    let before = (home.supervisor("work"), home.bridge("work"));
    let servers = json!({ "more": { "command": "sleep", "args": ["1000"] } });
    home.config("work", &json!({ "mcpServers": servers, "bridge": { "port": port } }));
    signal(home.supervisor("work"), Signal::HUP);
    wait_until("it has the server", || home.status_of("work")["upstreams"][0]["name"] == "more");
    assert_eq!((home.supervisor("work"), home.bridge("work")), before);
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_bridge_that_stands_still_is_killed_and_brought_back() {
    let home = Home::new();
    home.config("work", &json!({ "bridge": { "daemon": { "watchdog": 1, "restart": restart(3) } } }));
    home.start("work").success();
    let bridge = home.bridge("work").expect("a bridge");
    signal(bridge, Signal::STOP);
    wait_until("there is another", || home.bridge("work").is_some_and(|pid| pid != bridge));
    wait_until("it serves", || home.listed("work")["status"] == "running");
    assert_eq!(home.listed("work")["restarts"], 1);
    assert_eq!(failure(&home, "work"), "it stopped answering the watchdog and was killed");
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn with_a_bridge_that_ends_by_itself_its_supervisor_goes_too() {
    for ending in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        home.config("work", &json!({}));
        home.start("work").success();
        let supervisor = home.supervisor("work");
        signal(home.bridge("work").expect("a bridge"), ending);
        wait_until("the supervisor has ended", || !lives(supervisor));
        home.nothing_is_left();
    }
}

#[test]
fn a_bridge_that_does_not_end_is_killed_in_time() {
    let home = Home::new();
    let daemon = json!({ "stop_timeout": 1, "watchdog": 0 });
    home.config("work", &json!({ "mcpServers": family(&home), "bridge": { "daemon": daemon } }));
    home.start("work").success();
    let members = members(&home, "work");
    signal(home.bridge("work").expect("a bridge"), Signal::STOP);
    assert_eq!(home.stop("work").success(), "killed work\n");
    assert!(!members.iter().any(|pid| lives(*pid)), "one of {members:?} is left");
    home.nothing_is_left();
}

#[test]
fn a_forced_stop_asks_nobody() {
    let home = Home::new();
    home.config("work", &json!({ "mcpServers": family(&home), "bridge": { "daemon": { "watchdog": 0 } } }));
    home.start("work").success();
    members(&home, "work");
    signal(home.bridge("work").expect("a bridge"), Signal::STOP);
    assert_eq!(home.foxxy(&["server", "stop", "--force", "work"]).success(), "killed work\n");
    home.nothing_is_left();
}

#[test]
fn a_halted_supervisor_hears_a_stop() {
    for (arguments, word) in
        [(&["server", "stop", "work"][..], "stopped"), (&["server", "stop", "-F", "work"], "killed")]
    {
        let home = Home::new();
        home.config("work", &json!({}));
        home.start("work").success();
        signal(home.supervisor("work"), Signal::STOP);
        assert_eq!(home.foxxy(arguments).success(), format!("{word} work\n"));
        home.nothing_is_left();
    }
}

#[test]
fn a_supervisor_that_hangs_is_killed_with_all_that_it_has() {
    let home = Home::new();
    home.config("work", &json!({ "mcpServers": family(&home) }));
    home.start_with("work", &[], &[("FOXXY_BRIDGE_HALT_AT", "supervisor:bridge-ended")]).success();
    let members = members(&home, "work");
    assert_eq!(home.foxxy(&["server", "stop", "--force", "work"]).success(), "killed work\n");
    assert!(!members.iter().any(|pid| lives(*pid)), "one of {members:?} is left");
    home.nothing_is_left();
}

#[test]
fn a_bridge_whose_supervisor_was_killed_ends_and_is_started_anew() {
    let home = Home::new();
    home.config("work", &json!({ "mcpServers": family(&home) }));
    home.start("work").success();
    members(&home, "work");
    let (supervisor, bridge) = (home.supervisor("work"), home.bridge("work").expect("a bridge"));
    signal(supervisor, Signal::KILL);
    wait_until("the bridge has ended", || !lives(bridge));
    let row = home.listed("work");
    assert_eq!((&row["status"], &row["pid"]), (&json!("failed"), &json!(null)), "{row}");
    let said = home.status("work").refused(3);
    assert!(said.contains(&format!("its supervisor (PID {supervisor}) was killed")), "{said}");

    home.config("work", &json!({}));
    let said = home.start("work").success();
    assert!(said.starts_with("started work: "), "{said}");
    home.stop("work").success();
}

#[test]
fn a_bridge_that_hangs_without_a_supervisor_is_ended_before_another_starts() {
    for_each_at_once(["start", "stop"], |command| {
        let home = Home::new();
        home.config("work", &json!({}));
        home.start_with("work", &[], &[("FOXXY_BRIDGE_HALT_AT", "bridge:stopping")]).success();
        let bridge = home.bridge("work").expect("a bridge");
        signal(home.supervisor("work"), Signal::KILL);
        wait_until("the bridge stands still", || is_halted(bridge));
        let row = home.listed("work");
        assert_eq!((&row["pid"], row["status"] == "running"), (&json!(bridge), false), "{row}");
        if command == "start" {
            let said = home.start("work");
            assert!(said.stdout.starts_with("started work: "), "{said}");
            assert!(said.stderr.contains("was left by a supervisor that was killed"), "{said}");
            assert!(!lives(bridge));
            home.one_runs("work");
        }
        home.stop("work").success();
        assert!(!lives(bridge));
        home.nothing_is_left();
    });
}
