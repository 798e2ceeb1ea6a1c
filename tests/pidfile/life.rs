//! A bridge from its start to its stop, and what is said when it does not start.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::home::{Finally, Home, children, get, is_halted, lives, signal, wait_for, wait_until};

/// Has the bridge stand still before it serves.
const NEVER_READY: &[(&str, &str)] = &[("FOXXY_BRIDGE_HALT_AT", "bridge:locked")];

#[test]
fn a_bridge_is_started_listed_restarted_reloaded_and_stopped() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    let address = format!("http://127.0.0.1:{port}/mcp");

    let said = home.start("work").success();
    let pid = home.bridge("work").expect("a bridge");
    let pid_file = "~/.config/foxxy-bridge/pids/work.pid";
    assert_eq!(said, format!("started work: {address} (PID {pid}, PID file {pid_file})\n"));
    assert_eq!(get(port, "/readyz"), Ok(200));
    let supervisor = home.supervisor("work");
    assert_eq!(children(supervisor), [pid]);
    home.one_runs("work");

    let row = home.listed("work");
    assert_eq!(
        (&row["pid"], &row["status"], &row["manager"]),
        (&json!(pid), &json!("running"), &json!("pidfile"))
    );
    assert_eq!((&row["address"], &row["restarts"], &row["unit"]), (&json!(address), &json!(0), &json!(null)));
    assert_eq!(row["config"], home.config_of("work").to_str().expect("a path"));
    let table = home.foxxy(&["server", "list"]).success();
    assert!(table.lines().count() == 2 && table.contains("work") && table.contains("running"), "{table}");
    let said = home.status("work").success();
    assert!(said.contains("running, healthy") && said.contains(&format!("pidfile ({pid_file})")), "{said}");
    assert_eq!(home.status_of("work")["manager"], "pidfile");

    assert_eq!(home.foxxy(&["server", "reload", "work"]).success(), "reloaded work: no server touched\n");
    assert_eq!(home.bridge("work"), Some(pid));

    let said = home.foxxy(&["server", "restart", "work"]).success();
    let restarted = home.bridge("work").expect("a bridge");
    assert_eq!(said, format!("restarted work: {address} (PID {restarted})\n"));
    assert_ne!(restarted, pid);
    assert_eq!((home.supervisor("work"), home.listed("work")["restarts"].clone()), (supervisor, json!(0)));
    home.one_runs("work");

    assert_eq!(home.stop("work").success(), "stopped work\n");
    home.nothing_is_left();
    let said = home.stop("work").refused(1);
    assert!(said.contains("the bridge `work` is not running"), "{said}");
    let said = home.status("work").refused(3);
    assert!(said.contains("the bridge `work` is not running"), "{said}");
    home.nothing_is_left();
}

#[test]
fn a_second_start_says_that_it_runs_and_one_with_force_starts_it_anew() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    home.start("work").success();
    let (supervisor, bridge) = (home.supervisor("work"), home.bridge("work").expect("a bridge"));
    let said = home.start("work").success();
    assert_eq!(said, format!("work is already running: http://127.0.0.1:{port}/mcp (PID {bridge})\n"));
    home.one_runs("work");
    assert_eq!((home.supervisor("work"), home.bridge("work")), (supervisor, Some(bridge)));

    let said = home.start_with("work", &["--force"], &[]).success();
    assert!(said.starts_with("started work: "), "{said}");
    assert!(home.supervisor("work") != supervisor && home.bridge("work") != Some(bridge), "{said}");
    home.one_runs("work");
    assert_eq!(home.stop("work").success(), "stopped work\n");
    home.nothing_is_left();
}

#[test]
fn a_restart_of_what_does_not_run_starts_it() {
    let home = Home::new();
    home.config("work", &json!({}));
    let said = home.foxxy(&["server", "restart", "work"]).success();
    assert!(said.starts_with("started work: "), "{said}");
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn all_are_stopped_at_once() {
    let home = Home::new();
    for name in ["one", "two", "three"] {
        home.config(name, &json!({}));
        home.start(name).success();
    }
    let listed = home.list();
    if !listed.iter().all(|row| home.is_ours(row)) {
        // On this machine that would stop somebody's bridges.
        return ["one", "two", "three"].iter().for_each(|name| drop(home.stop(name).success()));
    }
    assert_eq!(listed.len(), 3);
    let said = home.foxxy(&["server", "stop", "--all"]).success();
    assert_eq!(said, "stopped one\nstopped three\nstopped two\n");
    home.nothing_is_left();
    let said = home.foxxy(&["server", "stop", "--all"]);
    assert_eq!((said.code, &*said.stderr), (Some(0), "no bridge is running\n"), "{said}");
}

#[test]
fn a_taken_port_is_named_with_its_holder() {
    let home = Home::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("an address").port();
    home.config("work", &json!({ "bridge": { "port": port } }));
    let said = home.start("work").refused(1);
    assert!(
        said.starts_with("error: the bridge `work` did not start\n  it ended with exit code 1;"),
        "{said}"
    );
    let (reason, by) =
        (format!("127.0.0.1:{port} is already in use by "), format!("(PID {})", std::process::id()));
    assert!(said.contains(&reason) && said.contains(&by), "{said}");
    assert!(said.ends_with(
        "hint: stop what has the port, or take another with --port or `bridge.port` in the config\n"
    ));
    drop(holder);
    home.nothing_is_left();
    home.start("work").success();
    home.stop("work").success();
}

#[test]
fn a_config_that_cannot_be_used_is_told_before_anything_is_started() {
    let home = Home::new();
    home.write(&home.config_of("broken"), "{\n  \"mcpServers\": {\n    \"a\": { \"command\": }\n  }\n}\n");
    let said = home.start("broken").refused(78);
    assert!(said.contains("broken.json:3:23: not valid JSON"), "{said}");
    home.write(
        &home.config_of("wrong"),
        r#"{ "mcpServers": { "a": { "command": 5 } }, "bridge": { "port": "http" } }"#,
    );
    let said = home.start("wrong").refused(78);
    assert!(said.starts_with("error: the config has 2 errors\n"), "{said}");
    let said = home.start("missing").refused(78);
    assert!(said.contains("missing.json: no such file"), "{said}");
    for untouched in ["pids", "run", "logs"] {
        assert!(!home.own(untouched).exists(), "{untouched}");
    }
    home.nothing_is_left();
}

#[test]
fn a_config_that_may_not_be_read_is_told_before_anything_is_started() {
    let home = Home::of_a_plain_user();
    home.config("work", &json!({}));
    fs::set_permissions(home.config_of("work"), fs::Permissions::from_mode(0o0)).expect("a mode");
    let said = home.start("work").refused(77);
    assert!(said.contains("work.json"), "{said}");
    assert!(!home.own("pids").exists());
    home.nothing_is_left();
}

#[test]
fn an_upstream_whose_command_is_not_there_fails_alone() {
    let home = Home::new();
    let port = home.config("work", &json!({ "mcpServers": { "gone": { "command": "no-such-server" } } }));
    let said = home.start("work").success();
    assert!(said.starts_with("started work: "), "{said}");
    assert_eq!(get(port, "/readyz"), Ok(200));
    wait_until("the server has failed", || home.status_of("work")["upstreams"][0]["state"] == "failed");
    let said = home.status("work");
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.stdout.contains("gone: command `no-such-server` was not found on PATH"), "{said}");
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_bridge_that_does_not_get_ready_in_time_is_ended() {
    let home = Home::new();
    home.config("work", &json!({}));
    let said = home.start_with("work", &["--timeout", "2"], NEVER_READY).refused(1);
    assert!(said.contains("it did not report within 2 s that it is ready"), "{said}");
    home.nothing_is_left();
}

#[test]
fn an_interrupted_start_is_taken_back() {
    for (interruption, word) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let home = Home::new();
        home.config("work", &json!({ "bridge": { "daemon": { "stop_timeout": 1 } } }));
        let start = home.begin_start("work", &[], NEVER_READY);
        let bridge =
            wait_for("a bridge that stands still", || home.bridge("work").filter(|pid| is_halted(*pid)));
        assert_eq!(home.listed("work")["status"], "starting");
        signal(start.pid(), interruption);
        let said = start.end().refused(1);
        assert!(said.contains(&format!("the start of `work` was interrupted by {word}")), "{said}");
        assert!(!lives(bridge));
        home.nothing_is_left();
    }
}

#[test]
fn a_start_that_nobody_waits_for_is_carried_out() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    let said = home.start_with("work", &["--no-wait"], &[]).success();
    assert_eq!(said, format!("work: starting as {}\n", home.pid_file("work").display()));
    wait_until("it serves", || home.listed("work")["status"] == "running");
    assert_eq!(get(port, "/livez"), Ok(200));
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let home = Home::new();
    home.config("work", &json!({}));
    let said = home.start_with("work", &["--dry-run"], &[]).success();
    assert!(said.contains(home.pid_file("work").to_str().expect("a path")), "{said}");
    for untouched in ["pids", "run", "logs"] {
        assert!(!home.own(untouched).exists(), "{untouched}");
    }
    home.start("work").success();
    let before = (home.supervisor("work"), home.bridge("work"));
    let said = home.start_with("work", &["--dry-run", "--force"], &[]).success();
    assert!(said.starts_with("stop work\n"), "{said}");
    assert_eq!((home.supervisor("work"), home.bridge("work")), before);
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_restart_refuses_no_connection() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    home.start("work").success();
    let (enough, answers) = (AtomicBool::new(false), AtomicU32::new(0));
    let failures: Vec<String> = thread::scope(|scope| {
        // Also when something here fails: the clients are waited for.
        let _end = Finally(|| enough.store(true, Ordering::Relaxed));
        let client = || {
            let mut failures = Vec::new();
            while !enough.load(Ordering::Relaxed) {
                match get(port, "/livez") {
                    Ok(200) => drop(answers.fetch_add(1, Ordering::Relaxed)),
                    other => failures.push(format!("{other:?}")),
                }
            }
            failures
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let mut pids = vec![home.bridge("work")];
        for _ in 0..5 {
            let before = answers.load(Ordering::Relaxed);
            // Each restart comes under load.
            wait_until("answers", || answers.load(Ordering::Relaxed) > before + 8);
            home.foxxy(&["server", "restart", "work"]).success();
            pids.push(home.bridge("work"));
        }
        enough.store(true, Ordering::Relaxed);
        pids.dedup();
        assert_eq!(pids.len(), 6, "{pids:?}");
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    assert_eq!(failures, Vec::<String>::new(), "of {} answers", answers.into_inner());
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_restart_puts_in_force_what_has_changed_in_the_config() {
    let home = Home::new();
    let old = home.config("work", &json!({}));
    home.start("work").success();
    let supervisor = home.supervisor("work");
    let new = home.config("work", &json!({ "bridge": { "daemon": { "stop_timeout": 1 } } }));
    let said = home.foxxy(&["server", "restart", "work"]).success();
    assert!(said.starts_with(&format!("restarted work: http://127.0.0.1:{new}/mcp ")), "{said}");
    assert_eq!((get(new, "/livez"), get(old, "/livez").is_ok()), (Ok(200), false));
    assert_eq!(home.supervisor("work"), supervisor);
    home.one_runs("work");

    // What a supervisor has for life takes another one.
    home.config("work", &json!({ "bridge": { "port": new, "daemon": { "log": { "keep": 1 } } } }));
    home.foxxy(&["server", "restart", "work"]).success();
    assert_ne!(home.supervisor("work"), supervisor);
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn a_restart_with_a_broken_config_leaves_the_bridge_as_it_is() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.start("work").success();
    let before = (home.supervisor("work"), home.bridge("work"));
    home.write(&home.config_of("work"), "{ nonsense");
    for command in ["restart", "reload"] {
        let said = home.foxxy(&["server", command, "work"]);
        assert_eq!(said.code, Some(78), "{said}");
        assert!(said.stderr.contains("work.json:1:3: not valid JSON"), "{said}");
    }
    let said = home.start_with("work", &["--force"], &[]).refused(78);
    assert!(said.contains("work.json:1:3: not valid JSON"), "{said}");
    assert_eq!((home.supervisor("work"), home.bridge("work")), before);
    home.one_runs("work");
    home.stop("work").success();
    home.nothing_is_left();
}
