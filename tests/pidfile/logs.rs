//! What a bridge and its servers say, in files that are turned over meanwhile.

use std::fs;
use std::io::{BufRead as _, BufReader};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, signal, wait_until};

/// Lines of a server, fewer than are left out of the log as too many.
const LINES: u32 = 4_000;

/// A server that says so many numbered lines, with pauses in which its log can be moved away.
fn talkative() -> Value {
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo \"line $i\"; [ $((i % 200)) != 0 ] || sleep 0.05; done >&2; exec sleep 1000"
    );
    json!({ "talks": { "command": "sh", "args": ["-c", script] } })
}

/// The numbers in all that the log has.
fn numbers(home: &Home) -> Vec<u32> {
    let said =
        home.foxxy(&["server", "logs", "work", "-n", "100000", "--upstream", "talks", "-o", "cat"]).success();
    said.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

#[test]
fn no_line_of_a_server_is_lost_however_often_the_files_are_turned_over() {
    let home = Home::new();
    let log = json!({ "max_size": "16K", "keep": 1000 });
    home.config("work", &json!({ "mcpServers": talkative(), "bridge": { "daemon": { "log": log } } }));
    home.start("work").success();
    let (supervisor, file) = (home.supervisor("work"), home.own("logs/work.log"));
    // As logrotate does it, over and over, besides.
    let (mut turned, mut all) = (0, Vec::new());
    wait_until("all lines are in the log", || {
        if fs::rename(&file, home.own(&format!("logs/moved.{turned}"))).is_ok() {
            turned += 1;
            signal(supervisor, Signal::USR1);
        }
        let moved = (0..turned).map(|number| home.own(&format!("logs/moved.{number}")));
        let moved: String = moved.map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
        let moved = moved
            .lines()
            .filter_map(|line| line.split("]").nth(1)?.rsplit_once("line ")?.1.parse::<u32>().ok());
        all = numbers(&home);
        all.extend(moved);
        all.sort_unstable();
        all.dedup();
        all.len() >= LINES as usize
    });
    assert_eq!(all, (1..=LINES).collect::<Vec<_>>());
    assert!(turned > 1, "nothing was moved away");
    assert!(home.own("logs/work.log.1").exists(), "no file was full");
    home.stop("work").success();
}

#[test]
fn a_log_is_asked_for_as_systemds_is() {
    let home = Home::new();
    home.config("work", &json!({ "mcpServers": talkative() }));
    home.start("work").success();
    wait_until("all is said", || numbers(&home).last() == Some(&LINES));
    let logs = |more: &[&str]| home.foxxy(&[&["server", "logs", "work"], more].concat());
    assert_eq!(logs(&["-n", "2", "--upstream", "talks", "-o", "cat"]).success(), "line 3999\nline 4000\n");
    assert_eq!(logs(&["--since", "tomorrow"]).success(), "");
    assert_eq!(logs(&["--until", "yesterday"]).success(), "");
    assert_eq!(logs(&["--level", "error"]).success(), "");
    assert_eq!(logs(&["--since", "1 hour ago", "-n", "1", "-o", "cat"]).success().lines().count(), 1);
    let line = logs(&["-n", "1", "--upstream", "talks", "-o", "json"]).success();
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let told = ["level", "upstream", "identifier", "message"].map(|key| line[key].clone());
    assert_eq!(told, ["info", "talks", "foxxy-bridge/talks", "line 4000"]);
    assert_eq!(line["pid"], home.bridge("work").expect("a bridge"));
    logs(&["--since", "soon"]).refused(1);
    // Of one that is stopped, too.
    home.stop("work").success();
    assert!(logs(&["-n", "1", "-o", "cat"]).success().ends_with("stopped\n"));
}

#[test]
fn who_follows_a_log_sees_what_comes_across_a_turn_of_the_files() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.start("work").success();
    let mut follower = home
        .command(&["server", "logs", "work", "-f", "-n", "0", "-o", "cat"], &[])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("its output")).lines().map_while(Result::ok);
    for _ in 0..3 {
        // Until it looks, it has missed nothing: it begins with what is there when it comes.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let line = lines.find(|line| line.contains("reloaded: "));
                drop(tell.send(line));
            });
            wait_until("it tells of a reload", || {
                home.foxxy(&["server", "reload", "work"]).success();
                told.recv_timeout(std::time::Duration::from_millis(500)).is_ok_and(|line| line.is_some())
            });
        });
        fs::rename(home.own("logs/work.log"), home.own("logs/work.log.1")).expect("a log");
        signal(home.supervisor("work"), Signal::USR1);
        wait_until("it has another file", || home.own("logs/work.log").exists());
    }
    signal(follower.id(), Signal::TERM);
    assert_eq!(follower.wait().expect("it ends").code(), Some(0));
    home.stop("work").success();
}

#[test]
fn the_log_of_the_default_bridge_is_also_where_people_look_for_it() {
    let home = Home::new();
    home.config("config", &json!({}));
    let debug = ["--debug", "server", "start", "--daemon", "--user"];
    home.foxxy(&debug).success();
    home.foxxy(&["server", "stop", "default"]).success();
    let log = fs::read_to_string(home.own("logs/bridge.log")).expect("a log");
    assert!(log.lines().any(|line| line.contains(" DEBUG ")), "{log}");
    assert_eq!(log, fs::read_to_string(home.own("logs/default.log")).expect("a log"));
    // A bridge that is called so has the name for itself.
    home.config("bridge", &json!({}));
    home.start("bridge").success();
    home.stop("bridge").success();
    assert!(!home.own("logs/bridge.log").is_symlink());
    assert_eq!(log, fs::read_to_string(home.own("logs/default.log")).expect("a log"));
}

#[test]
fn a_log_file_of_ones_own_choice_is_written_and_found() {
    let home = Home::new();
    let daemon = json!({ "log_file": "~/here/my.log", "pid_file": "~/here/my.pid" });
    home.config("work", &json!({ "bridge": { "daemon": daemon } }));
    home.start("work").success();
    let pid = fs::read_to_string(home.path("here/my.pid")).expect("a PID file");
    assert!(crate::home::lives(pid.lines().next().expect("a number").parse().expect("a number")));
    home.stop("work").success();
    assert!(!home.path("here/my.pid").exists());
    assert!(fs::read_to_string(home.path("here/my.log")).expect("a log").ends_with("stopped\n"));
    let said = home.foxxy(&["server", "logs", "work", "-n", "1", "-o", "cat"]).success();
    assert_eq!(said, "stopped\n");
}
