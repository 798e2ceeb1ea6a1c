//! Each upstream has a control group of its own, and ends with all that it has ever started.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{
    CONNECT_DEADLINE, NPM, config, connected, everything, foxxy, list, lives, nothing_is_left, property,
    status,
};
use crate::machine::Machine;

crate::tests![
    the_bridge_and_each_server_have_a_group_of_their_own,
    what_leaves_its_session_ends_with_its_server,
    a_bridge_that_comes_back_finds_nothing_of_its_earlier_life,
    what_an_earlier_bridge_left_is_ended,
    limits_that_cannot_be_kept_are_told,
    a_program_that_cannot_be_executed_is_told_as_one,
    the_machines_bridge_has_groups_also_as_another_user,
    without_delegation_there_are_no_groups,
];

const SOON: Duration = Duration::from_secs(15);

/// What the user sees of a bridge's control groups: those below its unit, with how many processes are in each.
fn groups(machine: &Machine, unit: &str) -> Vec<String> {
    let group = property(machine, unit, "ControlGroup");
    let script = "cd \"/sys/fs/cgroup$1\"; find . -type d | sort | \
        while read -r group; do echo \"$group $(wc -l < \"$group/cgroup.procs\")\"; done";
    let said = machine.root(&["sh", "-euc", script, "sh", &group]).success();
    said.lines().map(str::to_owned).collect()
}

fn processes_in(machine: &Machine, unit: &str, group: &str) -> Vec<String> {
    let unit = property(machine, unit, "ControlGroup");
    let said = machine.root(&["cat", &format!("/sys/fs/cgroup{unit}/{group}/cgroup.procs")]).success();
    said.lines().map(str::to_owned).collect()
}

/// Starts a bridge with those servers.
fn start(machine: &Machine, name: &str, port: u16, servers: &Value) {
    write(machine, name, port, servers);
    let path = format!("/home/tester/{name}.json");
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
}

fn write(machine: &Machine, name: &str, port: u16, servers: &Value) {
    let text = json!({ "mcpServers": servers, "bridge": { "port": port } }).to_string();
    config(machine, &format!("{name}.json"), &text);
}

/// A server whose offspring leaves its process group, its session and its parent, and minds no signal.
fn haunted(machine: &Machine) -> Value {
    let script = format!(
        "setsid sh -c 'trap \"\" TERM HUP INT; sh -c \"echo \\$\\$ >> ghosts; while :; do sleep 1; done\" & ' \
         </dev/null >/dev/null 2>&1\nexec node {NPM}/server-memory/dist/index.js\n"
    );
    let script = config(machine, "haunted.sh", &script);
    machine.user(&["rm", "-f", "ghosts"]).success();
    json!({ "command": "sh", "args": [script] })
}

/// The last ghost, once it is there.
fn ghost(machine: &Machine, number: usize) -> String {
    let mut ghosts = Vec::new();
    machine.wait_until(SOON, "there is a ghost", || {
        let said = machine.user(&["cat", "ghosts"]).stdout;
        ghosts = said.lines().map(str::to_owned).collect();
        ghosts.len() == number
    });
    let ghost = ghosts.remove(number - 1);
    assert!(lives(machine, &ghost));
    let parent = format!("ps -o comm= -p $(ps -o ppid= -p {ghost})");
    assert_eq!(machine.user_sh(&parent).success(), "systemd\n", "it has left its parent");
    ghost
}

fn the_bridge_and_each_server_have_a_group_of_their_own(machine: &Machine) {
    let unit = "foxxy-bridge-groups.service";
    // A name that a file of the kernel's has, too.
    start(machine, "groups", 8400, &json!({ "e": everything(), "cpu.stat": everything() }));
    let status = connected(machine, "groups");
    assert_eq!(
        groups(machine, unit),
        [". 0", "./bridge 1", "./upstreams 0", "./upstreams/_cpu.stat 1", "./upstreams/e 1"]
    );
    let main = property(machine, unit, "MainPID");
    assert_eq!(processes_in(machine, unit, "bridge"), std::slice::from_ref(&main));
    assert_eq!(json!(main.parse::<u64>().expect("a number")), status["pid"]);
    let pid = status["upstreams"][0]["pid"].to_string();
    assert_eq!(processes_in(machine, unit, "upstreams/e"), std::slice::from_ref(&pid));
    let argv = machine.user(&["cat", &format!("/proc/{pid}/cmdline")]).success();
    assert!(argv.starts_with("/usr/bin/node\0") || argv.starts_with("/usr/local/bin/node\0"), "{argv}");

    for upstream in status["upstreams"].as_array().expect("a list") {
        assert!(upstream["cpu_microseconds"].as_u64().is_some_and(|time| time > 10_000), "{upstream}");
        assert_eq!(upstream["processes"], 1, "{upstream}");
        assert_eq!(upstream["unenforced_limits"], json!([]));
    }
    let table = foxxy(machine, &["server", "status", "groups"]).success();
    let line = |start: &str| {
        let line = table.lines().find(|line| line.trim_start().starts_with(start));
        line.unwrap_or_else(|| panic!("no {start}: {table}")).to_owned()
    };
    for column in ["CPU", "Processes"] {
        assert!(line("Server").contains(column), "{table}");
    }
    let row = line("e ");
    let times = row.split_whitespace().filter_map(|cell| cell.strip_suffix('s'));
    assert_eq!(times.filter(|time| time.parse::<f64>().is_ok()).count(), 1, "its processor time: {table}");
    let served = machine.user(&["curl", "-sf", "http://127.0.0.1:8400/status"]).success();
    assert!(served.contains("\"cpu_microseconds\": "), "{served}");

    let shown = machine.user(&["systemctl", "--user", "status", unit]).success();
    assert!(shown.contains(&format!("Main PID: {main} (foxxy-bridge)")), "{shown}");
    assert!(shown.contains("─bridge") && shown.contains("─upstreams"), "{shown}");
    assert!(shown.contains("2 of 2 upstreams connected"), "{shown}");
    let shown = machine.user(&["systemd-cgls", "--user-unit", unit]).success();
    assert!(shown.contains("─cpu.stat") && shown.contains("node "), "{shown}");

    // systemd runs `ExecReload=` in a group of its own, and hears of the new state from the main process.
    write(machine, "groups", 8400, &json!({ "e": everything() }));
    machine.user(&["systemctl", "--user", "reload", unit]).success();
    machine.wait_until(SOON, "the group is gone", || {
        let groups = groups(machine, unit);
        !groups.iter().any(|group| group.contains("cpu.stat"))
    });
    assert_eq!(property(machine, unit, "MainPID"), main);
    assert!(property(machine, unit, "StatusText").contains("1 of 1 upstreams connected"));
    foxxy(machine, &["server", "stop", "groups"]).success();
    nothing_is_left(machine);
}

fn what_leaves_its_session_ends_with_its_server(machine: &Machine) {
    let unit = "foxxy-bridge-haunted.service";
    let haunted = haunted(machine);
    start(machine, "haunted", 8401, &json!({ "h": haunted, "e": everything() }));
    let first = connected(machine, "haunted");
    let ghost_of_first = ghost(machine, 1);
    let pid = first["upstreams"][0]["pid"].to_string();
    assert!(processes_in(machine, unit, "upstreams/h").contains(&ghost_of_first));
    assert!(first["upstreams"][0]["processes"].as_u64().is_some_and(|count| count >= 2), "{first}");

    // It dies: what it leaves is gone before it is there again.
    machine.user(&["kill", "-9", &pid]).success();
    let ghost_of_second = ghost(machine, 2);
    assert!(!lives(machine, &ghost_of_first), "a ghost");
    connected(machine, "haunted");

    // It is changed: the new one does not wait for the end of the old.
    let mut changed = haunted.clone();
    changed["env"] = json!({ "A": "b" });
    write(machine, "haunted", 8401, &json!({ "h": changed, "e": everything() }));
    foxxy(machine, &["server", "reload", "haunted"]).success();
    let ghost_of_third = ghost(machine, 3);
    machine.wait_until(SOON, "the second ghost is gone", || !lives(machine, &ghost_of_second));
    connected(machine, "haunted");
    machine.wait_until(SOON, "one group is left of two", || {
        groups(machine, unit).iter().filter(|group| group.starts_with("./upstreams/h")).count() == 1
    });

    // It is removed.
    write(machine, "haunted", 8401, &json!({ "e": everything() }));
    foxxy(machine, &["server", "reload", "haunted"]).success();
    machine.wait_until(SOON, "the third ghost is gone", || !lives(machine, &ghost_of_third));
    machine.wait_until(SOON, "its group is gone", || groups(machine, unit).len() == 4);

    // The bridge stops, and itself sees to it: systemd kills whatever outlives it.
    write(machine, "haunted", 8401, &json!({ "h": haunted, "e": everything() }));
    foxxy(machine, &["server", "reload", "haunted"]).success();
    connected(machine, "haunted");
    let ghost_of_fourth = ghost(machine, 4);
    foxxy(machine, &["server", "stop", "haunted"]).success();
    assert!(!lives(machine, &ghost_of_fourth), "a ghost");
    let journal = machine.user(&["journalctl", "--user-unit", unit]).success();
    assert!(!journal.contains("Killing process"), "systemd had to end it: {journal}");
    assert!(!journal.contains("cannot be removed"), "{journal}");
    nothing_is_left(machine);
}

fn a_bridge_that_comes_back_finds_nothing_of_its_earlier_life(machine: &Machine) {
    let unit = "foxxy-bridge-again.service";
    let haunted = haunted(machine);
    start(machine, "again", 8402, &json!({ "h": haunted }));
    connected(machine, "again");
    let ghost_of_first = ghost(machine, 1);
    foxxy(machine, &["server", "restart", "again"]).success();
    assert!(!lives(machine, &ghost_of_first), "a ghost");
    connected(machine, "again");
    let ghost_of_second = ghost(machine, 2);
    let expected = [". 0", "./bridge 1", "./upstreams 0"];
    assert_eq!(groups(machine, unit)[..3], expected);

    machine.user(&["kill", "-9", &property(machine, unit, "MainPID")]).success();
    machine.wait_until(SOON, "systemd has brought it back", || {
        list(machine).first().is_some_and(|bridge| bridge["restarts"] == 1 && bridge["status"] == "running")
    });
    connected(machine, "again");
    assert!(!lives(machine, &ghost_of_second), "a ghost");
    let now = groups(machine, unit);
    assert_eq!((&now[..3], now.len()), (&expected.map(str::to_owned)[..], 4), "{now:?}");
    assert!(now[3].starts_with("./upstreams/h "), "{now:?}");
    foxxy(machine, &["server", "stop", "again"]).success();
    nothing_is_left(machine);
}

fn what_an_earlier_bridge_left_is_ended(machine: &Machine) {
    // systemd leaves nothing behind itself: what it runs before the bridge takes the part of an earlier one.
    let before = "cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); mkdir -p upstreams/old bridge; \
        sleep 1000 & echo $! > ~/left; echo $! > upstreams/old/cgroup.procs";
    let before = config(machine, "before.sh", before);
    write(machine, "left", 8403, &json!({ "foxxy": { "transport": "builtin" } }));
    let file = format!(
        "[Service]\nType=notify\nDelegate=yes\nExecStartPre=/bin/sh -eu {before}\n\
         ExecStart=/usr/local/bin/foxxy-bridge server start --config /home/tester/left.json\n"
    );
    config(machine, ".config/systemd/user/left.service", &file);
    machine.user(&["systemctl", "--user", "daemon-reload"]).success();
    machine.user(&["systemctl", "--user", "start", "left"]).success();
    let left = machine.user(&["cat", "left"]).success();
    assert!(!lives(machine, left.trim()), "it is left");
    let groups = groups(machine, "left.service");
    let ours: Vec<_> = groups.iter().filter(|group| !group.starts_with("./.")).collect();
    assert_eq!(ours, [". 0", "./bridge 1", "./upstreams 0"]);
    let journal = machine.user(&["journalctl", "--user-unit", "left.service"]).success();
    assert!(journal.contains("ending what an earlier bridge has left in /sys/fs/cgroup/"), "{journal}");
    machine.user(&["systemctl", "--user", "stop", "left"]).success();
    machine.user_sh("rm ~/.config/systemd/user/left.service; systemctl --user daemon-reload").success();
    nothing_is_left(machine);
}

fn limits_that_cannot_be_kept_are_told(machine: &Machine) {
    let mut limited = everything();
    limited["limits"] = json!({ "memory_max": "256M", "cpu_quota": "50%", "tasks_max": 64 });
    start(machine, "limited", 8404, &json!({ "l": limited, "e": everything() }));
    let status = connected(machine, "limited");
    let group = property(machine, "foxxy-bridge-limited.service", "ControlGroup");
    let given = machine.root(&["cat", &format!("/sys/fs/cgroup{group}/cgroup.controllers")]).success();
    let told = &status["upstreams"][0]["unenforced_limits"];
    let journal = machine.user(&["journalctl", "--user-unit", "foxxy-bridge-limited.service"]).success();
    let table = foxxy(machine, &["server", "status", "limited"]).success();
    let limits = [
        ("memory_max", "memory", "memory.max", "268435456"),
        ("cpu_quota", "cpu", "cpu.max", "50000 100000"),
        ("tasks_max", "pids", "pids.max", "64"),
    ];
    for (limit, controller, file, value) in limits {
        // Which controllers there are is the host's choice.
        if given.split_whitespace().any(|given| given == controller) {
            let file = format!("/sys/fs/cgroup{group}/upstreams/l/{file}");
            assert_eq!(machine.root(&["cat", &file]).success().trim(), value);
            assert!(!told.to_string().contains(limit), "{told}");
        } else {
            let expected =
                format!("{limit} is not in force: the bridge was given no `{controller}` controller");
            assert!(told.as_array().expect("a list").contains(&json!(expected)), "{told}");
            assert!(table.contains(&format!("l: {expected}")), "{table}");
            assert!(journal.contains(&expected), "{journal}");
        }
    }
    assert_eq!(status["upstreams"][1]["unenforced_limits"], json!([]));
    foxxy(machine, &["server", "stop", "limited"]).success();
    nothing_is_left(machine);
}

fn a_program_that_cannot_be_executed_is_told_as_one(machine: &Machine) {
    let script = config(machine, "unusable", "#!/no/such/interpreter\n");
    machine.user(&["chmod", "+x", &script]).success();
    start(machine, "unusable", 8405, &json!({ "u": { "command": script, "retryAttempts": 1 } }));
    let mut told = Value::Null;
    machine.wait_until(SOON, "it has failed", || {
        told = status(machine, "unusable")["upstreams"][0].clone();
        told["state"] == "failed"
    });
    let expected = format!("`{script}` did not start: No such file or directory (os error 2)");
    assert_eq!(told["error"], expected);
    assert_eq!(groups(machine, "foxxy-bridge-unusable.service").len(), 3, "its group is gone");
    foxxy(machine, &["server", "stop", "unusable"]).success();
    nothing_is_left(machine);
}

fn the_machines_bridge_has_groups_also_as_another_user(machine: &Machine) {
    let text = json!({
        "mcpServers": { "e": everything() }, "bridge": { "port": 8407, "daemon": { "user": "loner" } },
    });
    let script = "install -d /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/owned.json";
    machine.root(&["sh", "-euc", script, "sh", &text.to_string()]).success();
    let config = "/etc/foxxy-bridge/owned.json";
    machine.root(&["foxxy-bridge", "server", "start", "--daemon", "--config", config]).success();
    machine.wait_until(CONNECT_DEADLINE, "its server is in its group", || {
        let said = machine.root(&["curl", "-s", "http://127.0.0.1:8407/status"]).stdout;
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        status["upstreams"][0]["processes"] == 1
    });
    let root = "/sys/fs/cgroup/system.slice/foxxy-bridge-owned.service";
    for (group, count) in [(".", 0), ("bridge", 1), ("upstreams/e", 1)] {
        let said = machine.root(&["cat", &format!("{root}/{group}/cgroup.procs")]).success();
        assert_eq!(said.lines().count(), count, "{group}");
    }
    machine.root(&["foxxy-bridge", "server", "stop", "owned"]).success();
    machine.root(&["rm", "-r", "/etc/foxxy-bridge"]).success();
}

fn without_delegation_there_are_no_groups(machine: &Machine) {
    let mut limited = everything();
    limited["limits"] = json!({ "tasks_max": 64 });
    let text = json!({ "mcpServers": { "l": limited }, "bridge": { "port": 8406 } }).to_string();
    machine.root(&["sh", "-euc", "printf '%s' \"$1\" > /root/plain.json", "sh", &text]).success();
    // The system manager marks what it delegates.
    let run = ["systemd-run", "--quiet", "--unit=plain", "--property=Type=notify"];
    let bridge = ["foxxy-bridge", "server", "start", "--config", "/root/plain.json"];
    machine.root(&[&run[..], &bridge].concat()).success();
    let mut status = Value::Null;
    machine.wait_until(CONNECT_DEADLINE, "its server is connected", || {
        let said = machine.root(&["curl", "-s", "http://127.0.0.1:8406/status"]).stdout;
        status = serde_json::from_str(&said).unwrap_or_default();
        status["healthy"] == true
    });
    let folders =
        machine.root(&["find", "/sys/fs/cgroup/system.slice/plain.service", "-type", "d"]).success();
    assert_eq!(folders.lines().count(), 1, "{folders}");
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["processes"], Value::Null);
    let expected = "tasks_max is not in force: the unit has no `Delegate=yes`";
    assert_eq!(upstream["unenforced_limits"], json!([expected]));
    let table = machine.root(&["foxxy-bridge", "server", "status", "plain"]).success();
    assert!(!table.contains("Processes") && table.contains(expected), "{table}");
    machine.root(&["systemctl", "stop", "plain"]).success();
    machine.root(&["sh", "-c", "rm -r /root/plain.json /run/foxxy-bridge"]).success();
}
