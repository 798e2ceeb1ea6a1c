//! What a bridge and its servers log, how much of it, and how it is read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bridge::{client, config, foxxy, get, nothing_is_left, refused, status};
use crate::machine::Machine;

crate::tests![
    lines_carry_their_fields_and_each_is_there_once,
    systemctl_asks_for_the_level_and_sets_it,
    debug_on_a_running_bridge_changes_its_level,
    a_log_is_cut_by_lines_and_times_and_printed_as_is_asked,
    following_ends_with_its_reader_and_with_its_user,
    who_may_not_read_the_journal_is_told_so,
    a_server_that_floods_the_log_stops_neither_the_others_nor_the_bridge,
    a_journal_that_hangs_does_not_hang_the_bridge,
    the_machines_bridges_have_a_level_for_root,
];

const SOON: Duration = Duration::from_secs(15);

/// A server that is none: it says something and reads until the end.
fn saying(script: &str) -> Value {
    json!({ "command": "sh", "args": ["-c", format!("{script}; cat >/dev/null")] })
}

/// Starts a bridge with the built-in server and these others; it need not get on with them.
fn start(machine: &Machine, name: &str, port: u16, servers: &Value) -> String {
    let mut servers = servers.clone();
    servers["foxxy"] = json!({ "transport": "builtin" });
    let text = json!({ "mcpServers": servers, "bridge": { "port": port } });
    let path = config(machine, &format!("{name}.json"), &text.to_string());
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    path
}

fn stop(machine: &Machine, name: &str) {
    foxxy(machine, &["server", "stop", name]).success();
    nothing_is_left(machine);
}

/// All lines of a bridge's unit that the bridge has written, with all of their fields.
fn lines(machine: &Machine, name: &str) -> Vec<Value> {
    let unit = format!("--user-unit=foxxy-bridge-{name}");
    let journal = ["journalctl", "--quiet", "--all", "--output=json", &unit, "_COMM=foxxy-bridge"];
    let lines = machine.user(&journal);
    lines.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The one line with these words, once it is there.
#[track_caller]
fn line(machine: &Machine, name: &str, words: &str) -> Value {
    let mut found = Vec::new();
    machine.wait_until(SOON, &format!("`{words}` is logged"), || {
        found = lines(machine, name);
        found.retain(|line| line["MESSAGE"].as_str().is_some_and(|message| message.contains(words)));
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn lines_carry_their_fields_and_each_is_there_once(machine: &Machine) {
    let said =
        "echo 'plain words' >&2; echo '<3>broken pieces' >&2; echo '<5>a notice' >&2; echo '<7>a detail' >&2";
    start(machine, "fields", 8450, &json!({ "talker": saying(said) }));
    let serving = line(machine, "fields", "serving http://127.0.0.1:8450/mcp");
    assert_eq!(serving["SYSLOG_IDENTIFIER"], "foxxy-bridge");
    assert_eq!([&serving["INSTANCE"], &serving["PRIORITY"]], ["fields", "6"]);
    assert_eq!([&serving["CODE_FILE"], &serving["TARGET"]], ["src/daemon.rs", "foxxy_bridge::daemon"]);
    assert!(serving["CODE_LINE"].as_str().is_some_and(|line| line.parse::<u32>().is_ok()), "{serving}");
    assert_eq!(serving["_TRANSPORT"], "journal");
    assert_eq!(serving["UPSTREAM"], Value::Null);

    for (words, priority) in [("plain words", "6"), ("broken pieces", "3"), ("a notice", "5")] {
        // Exactly that line, and once: its prefix is gone, and systemd has not taken it as well.
        let line = line(machine, "fields", words);
        assert_eq!([&line["MESSAGE"], &line["PRIORITY"]], [words, priority]);
        assert_eq!(line["SYSLOG_IDENTIFIER"], "foxxy-bridge/talker");
        assert_eq!([&line["UPSTREAM"], &line["INSTANCE"]], ["talker", "fields"]);
        assert_eq!(line["CODE_FILE"], Value::Null);
        assert_eq!(
            machine.root(&["sh", "-c", &format!("journalctl -o cat | grep -c '{words}'")]).stdout,
            "1\n"
        );
    }
    let tagged = machine.user(&[
        "journalctl",
        "--user-unit=foxxy-bridge-fields",
        "-o",
        "cat",
        "-t",
        "foxxy-bridge/talker",
    ]);
    assert_eq!(tagged.success(), "plain words\nbroken pieces\na notice\n");
    stop(machine, "fields");
}

fn systemctl_asks_for_the_level_and_sets_it(machine: &Machine) {
    const UNIT: &str = "foxxy-bridge-level.service";
    let path = start(
        machine,
        "level",
        8451,
        &json!({ "talker": saying("while sleep 0.2; do echo '<7>tick' >&2; done") }),
    );
    let level =
        |set: &[&str]| machine.user(&[&["systemctl", "--user", "service-log-level", UNIT], set].concat());
    machine.wait_until(SOON, "it is on the bus", || level(&[]).code == Some(0));
    assert_eq!(level(&[]).success(), "info\n");
    let get = |property: &str| {
        let get =
            ["busctl", "--user", "get-property", "foxxy_bridge.t_level", "/org/freedesktop/LogControl1"];
        machine.user(&[&get[..], &["org.freedesktop.LogControl1", property]].concat()).success()
    };
    assert_eq!(get("LogTarget"), "s \"journal\"\n");
    assert_eq!(get("SyslogIdentifier"), "s \"foxxy-bridge\"\n");
    assert_eq!(machine.user(&["systemctl", "--user", "service-log-target", UNIT]).success(), "journal\n");
    let steps = json!([["tools"], ["call", "foxxy__server_status", "{}"]]);
    let address = "http://127.0.0.1:8451/mcp";
    client(machine, address, &steps);
    let debugging = |line: &Value| line["PRIORITY"] == "7";
    assert!(!lines(machine, "level").iter().any(debugging), "nothing of that level so far");
    assert!(!foxxy(machine, &["server", "status", "level"]).stdout.contains("Log level"));

    level(&["debug"]).success();
    assert_eq!(level(&[]).success(), "debug\n");
    assert_eq!(status(machine, "level")["log_level"], "debug");
    assert!(foxxy(machine, &["server", "status", "level"]).stdout.contains("Log level debug"));
    client(machine, address, &steps);
    let begun = line(machine, "level", "a session has begun");
    let session = begun["SESSION"].as_str().expect("a session");
    assert_eq!(session.len(), 8, "an id would let its reader act as the client");
    let answered = line(machine, "level", "a request was answered");
    assert_eq!([&answered["UPSTREAM"], &answered["SESSION"]], ["foxxy", session]);
    assert!(answered["REQUEST_ID"].is_string(), "{answered}");
    let read =
        foxxy(machine, &["server", "logs", "level", "--output", "json", "--upstream", "foxxy"]).success();
    let read: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let read = read.iter().find(|line| line["request"] == answered["REQUEST_ID"]).expect("the same line");
    assert_eq!([&read["session"], &read["level"]], [session, "debug"]);
    machine.wait_until(SOON, "also what a server says at that level is logged", || {
        lines(machine, "level").iter().any(|line| line["MESSAGE"] == "tick" && debugging(line))
    });

    level(&["warning"]).success();
    foxxy(machine, &["server", "reload", "level"]).success();
    assert!(
        !lines(machine, "level")
            .iter()
            .any(|line| line["MESSAGE"].as_str() == Some("reloaded: no server touched"))
    );
    assert_ne!(level(&["loud"]).code, Some(0));
    assert_eq!(level(&[]).success(), "warning\n");
    level(&["info"]).success();
    foxxy(machine, &["server", "reload", "level"]).success();
    line(machine, "level", "reloaded: no server touched");
    foxxy(machine, &["server", "start", "--daemon", "--force", "--config", &path]).success();
    machine.wait_until(SOON, "it is on the bus again", || level(&[]).code == Some(0));
    stop(machine, "level");
}

fn debug_on_a_running_bridge_changes_its_level(machine: &Machine) {
    let path = start(machine, "louder", 8452, &json!({}));
    let pid = status(machine, "louder")["pid"].clone();
    let start = ["--debug", "server", "start", "--daemon", "--config", &path];
    let running = format!("louder is already running: http://127.0.0.1:8452/mcp (PID {pid})");
    assert_eq!(foxxy(machine, &start[1..]).success(), format!("{running}\n"));
    assert_eq!(status(machine, "louder")["log_level"], "info");
    assert_eq!(foxxy(machine, &start).success(), format!("{running}; it now logs at debug level\n"));
    assert_eq!(status(machine, "louder")["log_level"], "debug");
    line(machine, "louder", "logging at debug level from now on");

    foxxy(machine, &["server", "restart", "louder"]).success();
    assert_eq!(status(machine, "louder")["log_level"], "info", "it is for the run");
    let said = foxxy(machine, &["--debug", "server", "reload", "louder"]).success();
    assert_eq!(said, "reloaded louder: no server touched; it now logs at debug level\n");
    assert_eq!(status(machine, "louder")["log_level"], "debug");
    stop(machine, "louder");

    // One that was started so has that level, and a reload by systemd leaves another alone.
    foxxy(machine, &start).success();
    assert_eq!(status(machine, "louder")["log_level"], "debug");
    let socket = "curl --silent --fail --unix-socket $XDG_RUNTIME_DIR/foxxy-bridge/louder/control.sock";
    let set = |level: &str| {
        machine.user_sh(&format!("{socket} -X POST 'http://localhost/log-level?level={level}'"))
    };
    assert_eq!(set("notice").success(), r#"{"level":"info"}"#);
    assert_ne!(set("loud").code, Some(0));
    machine.user(&["systemctl", "--user", "reload", "foxxy-bridge-louder"]).success();
    assert_eq!(status(machine, "louder")["log_level"], "info");
    stop(machine, "louder");
}

fn a_log_is_cut_by_lines_and_times_and_printed_as_is_asked(machine: &Machine) {
    let said = r"echo one >&2; echo '<4>two' >&2; echo '<3>three' >&2; printf '\033[2Jfour\n' >&2";
    start(machine, "cut", 8453, &json!({ "talker": saying(said) }));
    line(machine, "cut", "three");
    machine.wait_until(SOON, "all is logged", || {
        lines(machine, "cut").iter().any(|line| {
            line["UPSTREAM"] == "talker" && line["MESSAGE"].is_array()
                || line["MESSAGE"].as_str().is_some_and(|m| m.contains("four"))
        })
    });
    let logs = |options: &[&str]| foxxy(machine, &[&["server", "logs", "cut"], options].concat());
    let of_talker =
        |options: &[&str]| logs(&[&["--upstream", "talker", "--output", "cat"], options].concat()).success();
    assert_eq!(of_talker(&["-n", "4"]), "one\ntwo\nthree\n\u{fffd}[2Jfour\n");
    assert_eq!(of_talker(&["--level", "warning"]), "two\nthree\n");
    assert_eq!(of_talker(&["--level", "err"]), "three\n");
    assert_eq!(of_talker(&["-n", "1", "--since", "1 hour ago"]), "\u{fffd}[2Jfour\n");
    assert_eq!(of_talker(&["--since", "1 hour ago", "--until", "now", "-n2"]), "three\n\u{fffd}[2Jfour\n");
    let none = logs(&["--until", "2001-01-01"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "nothing is logged of cut\n"));
    none.success();

    let lines = logs(&["-o", "json"]).success();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let three = lines.iter().find(|line| line["message"] == "three").expect("the line");
    let keys: Vec<_> = three.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["time", "level", "upstream", "session", "request", "identifier", "pid", "message"]);
    assert_eq!(
        [&three["level"], &three["upstream"], &three["identifier"]],
        ["error", "talker", "foxxy-bridge/talker"]
    );
    assert_eq!(three["pid"], status(machine, "cut")["pid"]);
    let time = three["time"].as_str().expect("a time");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{time}");
    assert!(logs(&[]).success().contains(" ERROR talker: three\n"));

    for option in ["--since", "--until"] {
        let stderr = refused(logs(&[option, "sometime"]), 1);
        assert!(stderr.contains("error: the time after --since or --until cannot be used\n"), "{stderr}");
        assert!(stderr.contains("sometime") && stderr.contains("10 min ago"), "{stderr}");
    }
    stop(machine, "cut");
}

fn following_ends_with_its_reader_and_with_its_user(machine: &Machine) {
    start(machine, "follow", 8454, &json!({}));
    // Nothing more is logged: it must see by itself that nobody reads.
    let follow = "foxxy-bridge server logs follow --follow -n 1 2>&1; echo \"[$?]\" > ~/followed";
    let first = machine.user_sh(&format!("({follow}) | head -n 1"));
    assert!(first.took < Duration::from_secs(5), "{first}");
    assert_eq!(first.success().lines().count(), 1);
    machine.wait_until(SOON, "it has ended", || machine.user(&["cat", "followed"]).stdout == "[0]\n");
    let many = machine
        .user_sh("foxxy-bridge server logs follow | head -n 1; foxxy-bridge server logs follow | true");
    assert_eq!(many.stderr, "");
    many.success();

    let interrupted = machine.user(&[
        "timeout",
        "--preserve-status",
        "--signal=INT",
        "2",
        "foxxy-bridge",
        "server",
        "logs",
        "follow",
        "-f",
    ]);
    assert_eq!(interrupted.stderr, "");
    assert!(interrupted.took >= Duration::from_secs(2), "{interrupted}");
    assert!(interrupted.success().contains("serving"));
    machine.wait_until(SOON, "no journalctl is left", || {
        machine.user(&["pgrep", "--exact", "journalctl"]).code == Some(1)
    });
    let stderr = refused(foxxy(machine, &["server", "logs", "follow", "-f", "-n1", "--since", "now"]), 2);
    assert!(stderr.contains("--since or by --lines"), "{stderr}");
    stop(machine, "follow");
}

fn who_may_not_read_the_journal_is_told_so(machine: &Machine) {
    start(machine, "hidden", 8455, &json!({}));
    assert!(foxxy(machine, &["server", "logs", "hidden"]).success().contains("serving"));
    for command in [&["-f"][..], &[]] {
        for system in [
            machine.loner(&[&["foxxy-bridge", "server", "logs", "x", "--system"], command].concat()),
            foxxy(machine, &[&["server", "logs", "x", "--system"], command].concat()),
        ] {
            let stderr = refused(system, 77);
            assert!(stderr.starts_with("error: this user may not read all of the log\n"), "{stderr}");
            assert!(
                stderr.contains("systemd-journal") && stderr.contains("_SYSTEMD_UNIT=foxxy-bridge-x.service"),
                "{stderr}"
            );
        }
    }
    stop(machine, "hidden");

    let volatile = "mkdir -p /run/systemd/journald.conf.d; \
        printf '[Journal]\\nStorage=volatile\\n' > /run/systemd/journald.conf.d/test.conf; \
        systemctl restart systemd-journald";
    machine.root(&["sh", "-euc", volatile]).success();
    start(machine, "hidden", 8455, &json!({}));
    let said = machine.root(&[
        "journalctl",
        "--output=cat",
        "_SYSTEMD_USER_UNIT=foxxy-bridge-hidden.service",
        "--lines=1",
    ]);
    // What was on the disk before is shown, and is not all there is.
    let old = foxxy(machine, &["server", "logs", "hidden"]);
    let persistent =
        "rm /run/systemd/journald.conf.d/test.conf; systemctl restart systemd-journald; journalctl --flush";
    machine.root(&["sh", "-euc", persistent]).success();
    assert!(said.success().contains("connected"), "it is there");
    assert!(old.stdout.contains("stopping: SIGTERM"), "{old}");
    let stderr = old.failure(77);
    assert!(stderr.contains("the journal is kept in memory only"), "{stderr}");
    assert!(stderr.contains("sudo journalctl _SYSTEMD_USER_UNIT=foxxy-bridge-hidden.service"), "{stderr}");
    stop(machine, "hidden");
    assert_eq!(machine.root(&["systemctl", "is-active", "systemd-journald"]).success(), "active\n");
}

fn a_server_that_floods_the_log_stops_neither_the_others_nor_the_bridge(machine: &Machine) {
    let flood = r"head -c 3000000 /dev/zero | tr '\0' x >&2; echo >&2; head -c 2000 /dev/urandom >&2; echo >&2;
        i=0; while [ $i -lt 8 ]; do yes 'the same again' | head -n 100000 >&2; i=$((i+1)); done; echo 'at last' >&2";
    start(
        machine,
        "flood",
        8456,
        &json!({ "flooder": saying(flood), "calm": saying("sleep 1; echo 'still here' >&2") }),
    );
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        let time = [
            "curl",
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{time_total}",
            "http://127.0.0.1:8456/readyz",
        ];
        let took: f64 = machine.user(&time).success().parse().expect("seconds");
        slowest = slowest.max(Duration::from_secs_f64(took));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    line(machine, "flood", "still here");
    assert_eq!(status(machine, "flood")["state"], "running");
    stop(machine, "flood");

    let left_out = line(machine, "flood", "lines of its standard error are left out");
    assert_eq!([&left_out["UPSTREAM"], &left_out["PRIORITY"]], ["flooder", "4"]);
    line(machine, "flood", "stopping: SIGTERM");
    let of_flooder = || {
        lines(machine, "flood").into_iter().filter(|line| line["SYSLOG_IDENTIFIER"] == "foxxy-bridge/flooder")
    };
    assert!(of_flooder().count() <= 5000, "{}", of_flooder().count());
    let long = of_flooder()
        .find(|line| line["MESSAGE"].as_str().is_some_and(|message| message.starts_with("xxx")))
        .expect("the long line");
    let long = long["MESSAGE"].as_str().expect("text").to_owned();
    assert!(
        long.len() < 9000 && long.ends_with("x… (2991808 bytes more)"),
        "{} {}",
        long.len(),
        &long[long.len() - 40..]
    );
    let shown =
        foxxy(machine, &["server", "logs", "flood", "--upstream", "flooder", "--since", "1 hour ago"])
            .success();
    assert!(!shown.bytes().any(|byte| byte.is_ascii_control() && byte != b'\n' && byte != b'\t'), "noise");
}

fn a_journal_that_hangs_does_not_hang_the_bridge(machine: &Machine) {
    // As much as two servers may say, once they are let loose.
    let talker = saying(
        "until [ -e loose ]; do sleep 0.1; done; \
        while :; do printf 'and so on %500s\\n' . >&2; done",
    );
    machine.user(&["rm", "-f", "loose"]);
    start(machine, "stuck", 8457, &json!({ "a": talker, "b": talker }));
    line(machine, "stuck", "serving");
    let show = ["systemctl", "show", "--value", "--property=MainPID", "systemd-journald"];
    let journald = machine.root(&show).success();
    machine.root(&["kill", "-STOP", journald.trim()]).success();
    machine.user(&["touch", "loose"]).success();
    let began = Instant::now();
    let mut answers = HashSet::new();
    while began.elapsed() < Duration::from_secs(5) {
        answers.insert(get(machine, "http://127.0.0.1:8457/readyz"));
    }
    let reloaded = foxxy(machine, &["server", "reload", "stuck"]);
    machine.root(&["kill", "-CONT", journald.trim()]).success();
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["200"]);
    assert!(reloaded.took < Duration::from_secs(5), "{reloaded}");
    reloaded.success();
    line(machine, "stuck", "lines before this one are missing");
    // Of both together: the one that is let loose first may have the whole queue.
    let said = ["foxxy-bridge/a", "foxxy-bridge/b"].map(|identifier| {
        let lines = lines(machine, "stuck");
        lines.into_iter().filter(|line| line["SYSLOG_IDENTIFIER"] == identifier).count()
    });
    let kept: usize = said.iter().sum();
    assert!((1000..10000).contains(&kept), "{said:?}");
    stop(machine, "stuck");
}

fn the_machines_bridges_have_a_level_for_root(machine: &Machine) {
    let policy = include_str!("../../contrib/dbus-1/foxxy-bridge.conf");
    let foxxy = |arguments: &[&str]| machine.root(&[&["foxxy-bridge", "server"], arguments].concat());
    let level = ["systemctl", "service-log-level", "foxxy-bridge-default.service"];
    // Without the policy the bus gives no such name, and the bridge serves all the same.
    foxxy(&["start", "--daemon", "--debug", "--port", "8458"]).success();
    machine.wait_until(SOON, "it has tried", || foxxy(&["logs"]).success().contains("not on the bus"));
    assert_ne!(machine.root(&level).code, Some(0));
    foxxy(&["stop"]).success();

    let script = "printf '%s' \"$1\" > /etc/dbus-1/system.d/foxxy-bridge.conf; systemctl reload dbus";
    machine.root(&["sh", "-euc", script, "sh", policy]).success();
    foxxy(&["start", "--daemon", "--port", "8458"]).success();
    machine.wait_until(SOON, "it is on the bus", || machine.root(&level).code == Some(0));
    assert_eq!(machine.root(&level).success(), "info\n");
    machine.root(&[&level[..], &["debug"]].concat()).success();
    assert_eq!(machine.root(&level).success(), "debug\n");
    assert_ne!(machine.user(&[&level[..], &["info"]].concat()).code, Some(0));
    assert_eq!(machine.root(&level).success(), "debug\n", "that is for root");
    foxxy(&["stop"]).success();
    machine
        .root(&["sh", "-euc", "rm /etc/dbus-1/system.d/foxxy-bridge.conf; systemctl reload dbus"])
        .success();
}
