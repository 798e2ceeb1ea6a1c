//! Several people at the same time.

use std::sync::Barrier;
use std::thread;

use serde_json::json;

use crate::family::{family, members};
use crate::home::{Home, Output, for_each_at_once, get, wait_until};

/// What came of commands that begin at the same moment.
fn at_once<const N: usize>(commands: [&(dyn Fn() -> Output + Sync); N]) -> [Output; N] {
    let barrier = Barrier::new(N);
    thread::scope(|scope| {
        let typed = commands.map(|command| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                command()
            })
        });
        typed.map(|typed| typed.join().expect("an output"))
    })
}

#[test]
fn of_many_starts_at_once_one_starts_it_and_all_are_told_of_it() {
    let home = Home::new();
    home.config("work", &json!({}));
    let start = || home.start("work");
    for round in 0..25 {
        let said = at_once([&start as &(dyn Fn() -> Output + Sync); 8]);
        let bridge = home.bridge("work").expect("a bridge");
        let (mut started, mut running) = (0, 0);
        for said in said {
            assert!(said.stdout.contains(&format!("(PID {bridge}")), "round {round}: {said}");
            let said = said.success();
            started += u32::from(said.starts_with("started work: "));
            running += u32::from(said.starts_with("work is already running: "));
        }
        assert_eq!((started, running), (1, 7), "round {round}");
        home.one_runs("work");
        assert_eq!(home.stop("work").success(), "stopped work\n", "round {round}");
        home.nothing_is_left();
    }
}

#[test]
fn a_start_and_a_stop_at_once_are_both_told_the_truth() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    for round in 0..30 {
        // From either state.
        if round % 2 == 0 {
            home.start("work").success();
        }
        let [start, stop] = at_once([&|| home.start("work"), &|| home.stop("work")]);
        let both = format!("round {round}:\n{start}\n{stop}");
        let (started, ran) =
            (start.stdout.starts_with("started "), start.stdout.contains("is already running"));
        let stopped = ["stopped work\n", "killed work\n"].contains(&&*stop.stdout);
        match start.code {
            Some(0) => assert!(started || ran, "{both}"),
            _ => drop(start.refused(1)),
        }
        match stop.code {
            Some(0) => assert!(stopped, "{both}"),
            _ => assert!(stop.refused(1).contains("is not running"), "{both}"),
        }
        if get(port, "/livez") == Ok(200) {
            assert!(started || ran && !stopped, "it runs: {both}");
            home.one_runs("work");
            assert_eq!(home.stop("work").success(), "stopped work\n");
        } else {
            assert!(stopped, "it does not run: {both}");
        }
        home.nothing_is_left();
    }
}

#[test]
fn two_stops_at_once_leave_nothing_and_none_of_them_fails_for_the_other() {
    let home = Home::new();
    home.config("work", &json!({}));
    let stop = || home.foxxy(&["server", "stop", "work"]);
    for round in 0..10 {
        home.start("work").success();
        let said = at_once([&stop as &(dyn Fn() -> Output + Sync); 3]);
        let mut stopped = 0;
        for said in said {
            match said.code {
                Some(0) => stopped += 1,
                _ => assert!(said.refused(1).contains("the bridge `work` is not running"), "round {round}"),
            }
        }
        assert!(stopped > 0, "round {round}");
        home.nothing_is_left();
    }
}

#[test]
fn restarts_at_once_end_with_one_bridge() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.start("work").success();
    let restart = || home.foxxy(&["server", "restart", "work"]);
    for _ in 0..5 {
        for said in at_once([&restart as &(dyn Fn() -> Output + Sync); 3]) {
            assert!(said.success().starts_with("restarted work: "));
        }
        home.one_runs("work");
    }
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_start_while_a_bridge_stops_waits_for_that_and_starts_another() {
    for_each_at_once([&[][..], &["--force"], &["--no-wait"]], |more: &[&str]| {
        let home = Home::new();
        home.config("work", &json!({ "mcpServers": family(&home) }));
        home.start("work").success();
        members(&home, "work");
        let (supervisor, stop) = (home.supervisor("work"), home.begin(&["server", "stop", "work"], &[]));
        wait_until("it stops", || home.listed("work")["status"] == "stopping");
        let said = home.start_with("work", more, &[]).success();
        let word = if more == ["--no-wait"] { "work: starting as " } else { "started work: " };
        assert!(said.starts_with(word), "{said}");
        assert_eq!(stop.end().success(), "stopped work\n");
        assert_ne!(home.supervisor("work"), supervisor);
        wait_until("it serves", || home.listed("work")["status"] == "running");
        home.foxxy(&["server", "stop", "-F", "work"]).success();
        home.nothing_is_left();
    });
}

#[test]
fn a_start_while_a_bridge_stops_keeps_the_variables_that_it_brings() {
    let home = Home::new();
    let mut servers = family(&home);
    let says = "echo \"the key is $KEY\" >&2; exec sleep 1000";
    servers["says"] = json!({ "command": "sh", "args": ["-c", says], "env": { "KEY": "${TOKEN}" } });
    home.config("work", &json!({ "mcpServers": servers }));
    home.start_with("work", &[], &[("TOKEN", "one")]).success();
    members(&home, "work");
    let stop = home.begin(&["server", "stop", "work"], &[]);
    wait_until("it stops", || home.listed("work")["status"] == "stopping");
    home.start_with("work", &[], &[("TOKEN", "two")]).success();
    assert_eq!(stop.end().success(), "stopped work\n");
    let log = ["server", "logs", "work", "--upstream", "says", "-o", "cat"];
    wait_until("the server has its key", || home.foxxy(&log).success().ends_with("the key is two\n"));
    home.foxxy(&["server", "stop", "-F", "work"]).success();
    home.nothing_is_left();
}
