//! Whoever is killed, wherever: the next start works, what is listed is so, and a stop leaves nothing.

use serde_json::{Value, json};

use crate::family::{family, members};
use crate::home::{Home, for_each_at_once, get, lives, wait_until};

/// That what `server list` says of the bridge is so.
fn list_is_truthful(home: &Home, port: u16, point: &str) {
    let row = home.listed("work");
    match row["status"].as_str() {
        Some("running") => {
            let pid = u32::try_from(row["pid"].as_u64().expect("a PID")).expect("a PID");
            assert!(lives(pid) && get(port, "/livez") == Ok(200), "{point}: {row}");
        }
        // What ends by itself may be anywhere on its way.
        Some("starting" | "stopping" | "unresponsive") => {}
        Some("failed") => assert_eq!(
            home.called("foxxy-bridge").len(),
            usize::from(!row["pid"].is_null()),
            "{point}: {row}"
        ),
        None => assert_eq!(row, Value::Null, "{point}"),
        other => panic!("{point}: {other:?}"),
    }
}

/// That all goes on as if nothing had been.
fn goes_on(home: &Home, port: u16, point: &str) {
    let said = home.start("work");
    assert_eq!(said.code, Some(0), "{point}: {said}");
    assert_eq!(get(port, "/livez"), Ok(200), "{point}");
    home.one_runs("work");
    let said = home.stop("work");
    assert_eq!(said.code, Some(0), "{point}: {said}");
    home.nothing_is_left();
}

#[test]
fn after_a_death_on_the_way_to_a_start_the_next_one_works() {
    const POINTS: [(&str, bool); 8] = [
        ("start:ordered", true),
        ("start:claimed", true),
        ("supervisor:claimed", false),
        ("supervisor:bridge-started", false),
        ("supervisor:ready", false),
        ("bridge:locked", false),
        ("bridge:listening", false),
        ("bridge:serving", false),
    ];
    for_each_at_once(POINTS, |(point, is_starts_own)| {
        let home = Home::new();
        let port = home.config("work", &json!({}));
        let said = home.start_with("work", &[], &[("FOXXY_BRIDGE_KILL_AT", point)]);
        if is_starts_own {
            assert_eq!(said.code, None, "{point}: {said}");
        } else {
            let said = said.refused(1);
            assert!(said.starts_with("error: the bridge `work` did not start\n"), "{point}: {said}");
        }
        list_is_truthful(&home, port, point);
        goes_on(&home, port, point);
    });
}

#[test]
fn a_start_that_is_refused_since_the_bridge_died_leaves_nothing() {
    for point in ["bridge:locked", "bridge:listening", "bridge:serving"] {
        let home = Home::new();
        home.config("work", &json!({}));
        let said = home.start_with("work", &[], &[("FOXXY_BRIDGE_KILL_AT", point)]).refused(1);
        assert!(said.contains("it was killed by SIGKILL"), "{point}: {said}");
        home.nothing_is_left();
    }
}

#[test]
fn after_a_death_on_the_way_to_a_stop_the_next_start_works() {
    const POINTS: [&str; 5] = [
        "supervisor:stopping",
        "bridge:stopping",
        "supervisor:bridge-ended",
        "supervisor:leaving",
        "supervisor:left",
    ];
    for_each_at_once(POINTS, |point| {
        let home = Home::new();
        let port = home.config("work", &json!({ "mcpServers": family(&home) }));
        home.start_with("work", &[], &[("FOXXY_BRIDGE_KILL_AT", point)]).success();
        members(&home, "work");
        let said = home.stop("work");
        assert_eq!(said.code, Some(0), "{point}: {said}");
        // Whoever was killed: what it says is so.
        home.nothing_is_left();
        home.config("work", &json!({ "bridge": { "port": port } }));
        goes_on(&home, port, point);
    });
}

#[test]
fn a_stop_that_is_killed_has_the_bridge_stop_all_the_same() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    home.start("work").success();
    let supervisor = home.supervisor("work");
    let said = home.begin(&["server", "stop", "work"], &[("FOXXY_BRIDGE_KILL_AT", "stop:asked")]).end();
    assert_eq!(said.code, None, "{said}");
    wait_until("the supervisor has ended", || !lives(supervisor));
    home.nothing_is_left();
    goes_on(&home, port, "stop:asked");
}

#[test]
fn what_was_killed_is_cleaned_up_by_a_start_of_another_when_that_is_asked_for() {
    let home = Home::new();
    for name in ["work", "other"] {
        home.config(name, &json!({}));
    }
    home.start("work").success();
    for pid in home.processes() {
        crate::home::signal(pid, rustix::process::Signal::KILL);
    }
    wait_until("all have ended", || home.processes().is_empty());
    assert!(home.pid_file("work").exists());
    let said = home.start_with("other", &["--cleanup"], &[]);
    assert!(said.stderr.contains("removed what work had left: "), "{said}");
    said.success();
    assert!(!home.pid_file("work").exists() && !home.own("run/work").exists());
    home.one_runs("other");
    home.stop("other").success();
    home.nothing_is_left();
}
