//! `server start --daemon`: the main job, on real MCP servers, and what may differ about it.

use serde_json::{Value, json};

use crate::bridge::{
    NPM, client, config, connected, everything, foxxy, get, list, lives, names, nothing_is_left, processes,
    property, refused, status, text,
};
use crate::machine::Machine;

crate::tests![
    five_real_servers_are_served_and_nothing_is_left_after_the_stop,
    without_a_config_the_bridge_reports_on_itself,
    a_second_start_says_that_it_runs,
    two_configs_are_two_bridges,
    a_secret_of_the_caller_reaches_the_server_and_nobody_else,
    a_command_that_only_the_caller_finds_is_found,
    limits_and_restarts_become_properties_of_the_unit,
    a_path_with_odd_characters_is_kept,
    a_start_without_a_runtime_folder_in_the_environment_finds_it,
];

fn five_real_servers_are_served_and_nothing_is_left_after_the_stop(machine: &Machine) {
    const UNIT: &str = "foxxy-bridge-five.service";
    let script = format!("{NPM}/server-everything/dist/index.js");
    let remote =
        ["systemd-run", "--user", "--quiet", "--collect", "--unit=remote-everything", "-E", "PORT=3901"];
    machine.user(&[&remote[..], &["node", &script, "streamableHttp"]].concat()).success();
    let servers = json!({
        "everything": everything(),
        "files": { "command": "node", "args": [format!("{NPM}/server-filesystem/dist/index.js"), "/tmp"] },
        "memory": { "command": "node", "args": [format!("{NPM}/server-memory/dist/index.js")],
                    "env": { "MEMORY_FILE_PATH": "/tmp/memory.jsonl" } },
        "time": { "command": "/opt/servers/venv/bin/python", "args": ["-m", "mcp_server_time"] },
        "remote": { "url": "http://127.0.0.1:3901/mcp", "transport": "http" },
    });
    let path = config(
        machine,
        "five.json",
        &json!({ "mcpServers": servers, "bridge": { "port": 8300 } }).to_string(),
    );

    // The first thing after the return is the question whether it serves.
    let start = format!("foxxy-bridge server start --daemon --config {path}");
    let curl = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8300/readyz";
    let said = machine.user_sh(&format!("{start} && {curl}")).success();
    let (line, code) = said.rsplit_once('\n').expect("two lines");
    assert_eq!(code, "200");
    assert!(line.starts_with("started five: http://127.0.0.1:8300/mcp (PID "), "{line}");

    assert!(property(machine, UNIT, "Type").starts_with("notify"));
    assert_eq!(property(machine, UNIT, "ActiveState"), "active");
    assert_eq!(property(machine, UNIT, "SubState"), "running");
    let first = connected(machine, "five");
    assert_eq!(
        property(machine, UNIT, "StatusText"),
        "http://127.0.0.1:8300/mcp: 5 of 5 upstreams connected"
    );

    all_five_answer(machine);
    what_is_told_of_it(machine, &first);

    let said = foxxy(machine, &["server", "restart", "five"]).success();
    let second = connected(machine, "five");
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(said, format!("restarted five: http://127.0.0.1:8300/mcp (PID {})\n", second["pid"]));

    let before = processes(machine, UNIT);
    assert!(before.len() >= 5, "the bridge and four servers: {before:?}");
    assert_eq!(foxxy(machine, &["server", "stop"]).success(), "stopped five\n");
    assert!(!before.iter().any(|pid| lives(machine, pid)), "one of {before:?} is left");
    assert_eq!(foxxy(machine, &["server", "list"]).stderr, "no bridge is running\n");
    assert_eq!(foxxy(machine, &["server", "list", "--format", "json"]).success(), "[]\n");
    nothing_is_left(machine);
    machine.user(&["systemctl", "--user", "stop", "remote-everything"]).success();
}

/// A tool of each server answers a client, under its prefixed name and at its own address.
fn all_five_answer(machine: &Machine) {
    let steps = json!([
        ["tools"],
        ["call", "everything__echo", { "message": "first light" }],
        ["call", "files__list_directory", { "path": "/tmp" }],
        ["call", "memory__read_graph"],
        ["call", "time__get_current_time", { "timezone": "UTC" }],
        ["call", "remote__get-sum", { "a": 2, "b": 40 }],
    ]);
    let results = client(machine, "http://127.0.0.1:8300/mcp", &steps);
    let tools = names(&results[0]);
    for server in ["everything", "files", "memory", "time", "remote"] {
        assert!(tools.iter().any(|tool| tool.starts_with(&format!("{server}__"))), "{server}: {tools:?}");
    }
    assert_eq!(text(&results[1]), "Echo: first light");
    assert!(
        text(&results[2]).contains("memory.jsonl") || text(&results[2]).contains("[DIR]"),
        "{}",
        results[2]
    );
    assert!(text(&results[3]).contains("entities"), "{}", results[3]);
    assert!(text(&results[4]).contains("UTC"), "{}", results[4]);
    assert_eq!(text(&results[5]), "The sum of 2 and 40 is 42.");

    let steps = json!([["tools"], ["call", "echo", { "message": "without a prefix" }]]);
    let results = client(machine, "http://127.0.0.1:8300/mcp/everything", &steps);
    assert!(names(&results[0]).contains(&"echo"), "{}", results[0]);
    assert_eq!(text(&results[1]), "Echo: without a prefix");
}

/// `list`, `server-status` and `logs` of the bridge with five servers.
fn what_is_told_of_it(machine: &Machine, status: &Value) {
    let pid = status["pid"].to_string();
    let table = foxxy(machine, &["server", "list"]).success();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["Name", "PID", "Status", "Config File", "Manager", "Address", "Uptime"]);
    assert_eq!(
        rows[1][..6],
        ["five", &pid, "running", "~/five.json", "systemd", "http://127.0.0.1:8300/mcp"]
    );
    assert_eq!(rows.len(), 2);
    let listed = list(machine);
    assert_eq!(listed[0]["unit"], "foxxy-bridge-five.service");
    assert_eq!(listed[0]["config"], "/home/tester/five.json");
    assert_eq!(listed[0]["pid"], status["pid"]);

    let upstreams = status["upstreams"].as_array().expect("upstreams");
    let told: Vec<_> =
        upstreams.iter().map(|upstream| (upstream["name"].as_str(), upstream["state"].as_str())).collect();
    let all = ["everything", "files", "memory", "time", "remote"];
    assert_eq!(told, all.map(|name| (Some(name), Some("connected"))), "in the order of the config");
    let shown = foxxy(machine, &["server", "server-status", "five"]).success();
    assert!(shown.contains("Status    running, healthy\n"), "{shown}");

    let log = foxxy(machine, &["server", "logs", "five"]).success();
    assert!(log.contains("INFO  serving http://127.0.0.1:8300/mcp"), "{log}");
    assert!(log.contains("INFO  time: connected: 2 tools"), "{log}");
    let of_memory = foxxy(machine, &["server", "logs", "five", "--upstream", "memory"]).success();
    assert!(of_memory.contains("Knowledge Graph MCP Server"), "what it wrote to stderr: {of_memory}");
    assert!(of_memory.lines().all(|line| line.contains("memory: ")), "{of_memory}");
    let followed = machine.user(&["timeout", "1", "foxxy-bridge", "server", "logs", "five", "-f", "-n", "3"]);
    assert_eq!((followed.code, followed.stdout.lines().count()), (Some(124), 3), "{followed}");
}

fn without_a_config_the_bridge_reports_on_itself(machine: &Machine) {
    // As on a machine without node or anything else: nothing but the program itself is needed.
    let said =
        machine.user(&["env", "PATH=/nowhere", "/usr/local/bin/foxxy-bridge", "server", "start", "--daemon"]);
    let said = said.success();
    assert!(said.starts_with("started default: http://127.0.0.1:8080/mcp (PID "), "{said}");
    let results =
        client(machine, "http://127.0.0.1:8080/mcp", &json!([["tools"], ["call", "foxxy__list_servers"]]));
    assert!(names(&results[0]).contains(&"foxxy__list_servers"), "{}", results[0]);
    assert_eq!(results[1]["structuredContent"]["servers"][0]["name"], "foxxy");
    assert_eq!(list(machine)[0]["config"], Value::Null);
    assert_eq!(foxxy(machine, &["server", "stop"]).success(), "stopped default\n");
    nothing_is_left(machine);
}

fn a_second_start_says_that_it_runs(machine: &Machine) {
    let start = ["server", "start", "--daemon", "--port", "8301"];
    foxxy(machine, &start).success();
    let pid = list(machine)[0]["pid"].clone();
    let running = format!("default is already running: http://127.0.0.1:8301/mcp (PID {pid})\n");
    assert_eq!(foxxy(machine, &start).success(), running);
    // With no address typed there is nothing that would differ.
    assert_eq!(foxxy(machine, &start[..3]).success(), running);

    let other = [&start[..4], &["8302"]].concat();
    let stderr = refused(foxxy(machine, &other), 1);
    assert!(
        stderr.contains("already running at http://127.0.0.1:8301/mcp, not at http://127.0.0.1:8302/mcp")
    );
    assert_eq!(list(machine)[0]["pid"], pid, "it is left alone");

    foxxy(machine, &[&other[..], &["--force"]].concat()).success();
    assert_eq!((get(machine, "http://127.0.0.1:8302/readyz"), list(machine).len()), ("200".into(), 1));
    assert_ne!(list(machine)[0]["pid"], pid);
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn two_configs_are_two_bridges(machine: &Machine) {
    let text = |port: u16| json!({ "mcpServers": {}, "bridge": { "port": port } }).to_string();
    let one = config(machine, "one/work.json", &text(8303));
    let two = config(machine, "two/work.json", &text(8304));
    foxxy(machine, &["server", "start", "--daemon", "--config", &one]).success();
    foxxy(machine, &["server", "start", "--daemon", "--config", &two]).success();
    let both = list(machine);
    let (first, second) = (&both[0]["name"], &both[1]["name"]);
    assert_eq!(first, "work");
    let other = second.as_str().and_then(|name| name.strip_prefix("work-")).expect("the stem and a hash");
    assert!(other.len() == 8 && other.bytes().all(|byte| byte.is_ascii_hexdigit()), "{other}");

    let stderr = refused(foxxy(machine, &["server", "stop"]), 1);
    assert!(stderr.contains(&format!("hint: name one: work, work-{other}")), "{stderr}");
    // Each config still means its own.
    let said = foxxy(machine, &["server", "stop", "--config", &two]).success();
    assert_eq!(said, format!("stopped work-{other}\n"));
    foxxy(machine, &["server", "start", "--daemon", "--config", &two]).success();
    let said = foxxy(machine, &["server", "stop", "--all"]).success();
    assert_eq!(said, format!("stopped work\nstopped work-{other}\n"));
    nothing_is_left(machine);
}

fn a_secret_of_the_caller_reaches_the_server_and_nobody_else(machine: &Machine) {
    // With all that environment files, shells and systemd could trip over.
    const SECRET: &str = r#"s3cr3t $HOME "q" 'a' `b` \ %n # ü"#;
    let mut server = everything();
    server["env"] = json!({ "KEY": "${TOKEN}" });
    let text = json!({ "mcpServers": { "e": server }, "bridge": { "port": 8305 } });
    let path = config(machine, "secret.json", &text.to_string());
    let token = format!("TOKEN={SECRET}");
    machine
        .user(&["env", &token, "foxxy-bridge", "server", "start", "--daemon", "--config", &path])
        .success();
    connected(machine, "secret");
    let reaches = || {
        let env = client(machine, "http://127.0.0.1:8305/mcp/e", &json!([["call", "get-env"]]));
        let env: Value = serde_json::from_str(super::bridge::text(&env[0])).expect("get-env prints JSON");
        assert_eq!(env["KEY"], SECRET);
        // Only by the name that the config gives it: other servers inherit nothing of it.
        assert_eq!(env.get("TOKEN"), None);
    };
    reaches();

    let unit = "foxxy-bridge-secret.service";
    let all = machine.user(&["systemctl", "--user", "show", unit]).success();
    assert!(!all.contains("s3cr3t"), "systemctl show tells it");
    let pid = property(machine, unit, "MainPID");
    let old = status(machine, "secret")["pid"].clone();
    assert_eq!(old.to_string(), pid);
    assert!(!machine.user(&["cat", &format!("/proc/{pid}/cmdline")]).success().contains("s3cr3t"));
    assert!(!status(machine, "secret").to_string().contains("s3cr3t"));
    assert!(!foxxy(machine, &["server", "logs", "secret"]).success().contains("s3cr3t"));
    let modes = machine.user_sh("find $XDG_RUNTIME_DIR/foxxy-bridge -printf '%m\\n' | sort -u").success();
    assert!(modes.lines().all(|mode| matches!(mode, "700" | "600")), "others may read: {modes}");

    // After a crash the caller, and what they had exported, may be long gone.
    machine.user(&["kill", "-9", &pid]).success();
    machine.wait_until(super::bridge::CONNECT_DEADLINE, "it is back", || {
        let now = status(machine, "secret");
        now["healthy"] == true && now["pid"] != old
    });
    reaches();
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn a_command_that_only_the_caller_finds_is_found(machine: &Machine) {
    let text = json!({
        "mcpServers": { "own": { "command": "own-server" } },
        "bridge": { "port": 8306 },
    });
    let path = config(machine, "own.json", &text.to_string());
    let script = format!("#!/bin/sh\nexec node {NPM}/server-memory/dist/index.js\n");
    config(machine, "tools of mine/own-server", &script);
    machine
        .user_sh(&format!(
            "chmod +x ~/tools*/own-server; PATH=\"$HOME/tools of mine:$PATH\" foxxy-bridge server start --daemon -c {path}"
        ))
        .success();
    let status = connected(machine, "own");
    assert!(status["path"].as_str().is_some_and(|path| path.starts_with("/home/tester/tools of mine:")));
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn limits_and_restarts_become_properties_of_the_unit(machine: &Machine) {
    let daemon = json!({
        "limits": { "memory_max": "256M", "memory_high": "128M", "tasks_max": 99, "cpu_quota": "150%", "nofile": 4096 },
        "restart": { "attempts": 3, "delay": 7 },
        "stop_timeout": 33,
    });
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8307, "daemon": daemon } });
    let path = config(machine, "limits.json", &text.to_string());
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    let expected = [
        ("MemoryMax", "268435456"),
        ("MemoryHigh", "134217728"),
        ("TasksMax", "99"),
        ("CPUQuotaPerSecUSec", "1.500000s"),
        ("LimitNOFILE", "4096"),
        ("Restart", "on-failure"),
        ("RestartUSec", "7s"),
        ("StartLimitBurst", "4"),
        ("TimeoutStopUSec", "33s"),
    ];
    for (name, value) in expected {
        assert_eq!(
            property(machine, "foxxy-bridge-limits.service", name).trim_end_matches(' '),
            value,
            "{name}"
        );
    }
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn a_path_with_odd_characters_is_kept(machine: &Machine) {
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8308 } }).to_string();
    let path = config(machine, "50% of my bridges/wörk %n \"q\" 'a' \\x41 #.json", &text);
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    let listed = list(machine);
    assert_eq!(listed[0]["config"], path);
    let name = listed[0]["name"].as_str().expect("a name");
    // systemd has to find it again after it has read its units anew.
    machine.user(&["systemctl", "--user", "daemon-reload"]).success();
    foxxy(machine, &["server", "restart", name]).success();
    assert_eq!(status(machine, name)["config"], path);
    foxxy(machine, &["server", "stop", "--config", &path]).success();
    nothing_is_left(machine);
}

fn a_start_without_a_runtime_folder_in_the_environment_finds_it(machine: &Machine) {
    // As in a job of cron.
    let bare = ["env", "--unset=XDG_RUNTIME_DIR", "foxxy-bridge", "server"];
    machine.user(&[&bare[..], &["start", "--daemon", "--port", "8309"]].concat()).success();
    assert_eq!(list(machine)[0]["address"], "http://127.0.0.1:8309/mcp");
    machine.user(&[&bare[..], &["stop"]].concat()).success();
    nothing_is_left(machine);
}
