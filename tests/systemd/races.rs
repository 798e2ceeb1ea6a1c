//! Several things at the same time: starts, reloads under a load of calls, and a config that is broken as it restarts.

use serde_json::{Value, json};

use crate::bridge::{config, connected, everything, foxxy, get, list, nothing_is_left, property, refused};
use crate::machine::Machine;

crate::tests![
    of_two_starts_at_the_same_time_one_bridge_comes_and_both_are_told_of_it,
    a_config_broken_on_disk_fails_a_restart_once_and_is_mended_by_a_start,
    reloads_lose_no_call,
];

/// Rounds of two starts, each at the same time, and what was wrong with them.
const RACE: &str = r#"
import json, os, re, subprocess, sys, threading
config, rounds = sys.argv[1], int(sys.argv[2])
bridge = lambda *args: subprocess.run(["foxxy-bridge", "server", *args], capture_output=True, text=True)
wrong = []
for number in range(rounds):
    barrier, ends = threading.Barrier(2), []
    def start():
        barrier.wait(10)
        ends.append(bridge("start", "--daemon", "--config", config))
    threads = [threading.Thread(target=start) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    running = json.loads(bridge("list", "--format", "json").stdout)
    processes = subprocess.run(["pgrep", "--exact", "foxxy-bridge"], capture_output=True, text=True).stdout.split()
    told = [(end.returncode, (re.search(r"\(PID (\d+)", end.stdout) or [0, 0])[1]) for end in ends]
    if len(running) != 1 or processes != [str(running[0]["pid"])] or told != [(0, processes[0])] * 2:
        wrong.append([number, [[e.returncode, e.stdout, e.stderr] for e in ends], running, processes])
    stop = bridge("stop", "--all")
    if stop.returncode != 0 or stop.stdout != "stopped race\n":
        wrong.append([number, stop.returncode, stop.stdout, stop.stderr])
    if len(wrong) > 2: break
print(json.dumps(wrong, indent=1))
"#;

/// Calls a tool over and over in four sessions until a file is there; how many answers came, and what was wrong.
const CALLS: &str = r#"
import asyncio, json, os, sys
from mcp import Client
url, enough, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
done, wrong = [0], []
async def session(number):
    async with Client(url, read_timeout_seconds=20, cache=None) as client:
        for call in range(most):
            if os.path.exists(enough): break
            message = f"{number}-{call}"
            try:
                answer = await client.call_tool("e__echo", {"message": message})
                if answer.content[0].text == f"Echo: {message}": done[0] += 1
                else: wrong.append(repr(answer))
            except Exception as error:
                wrong.append(f"{message}: {error!r}")
async def main():
    await asyncio.wait_for(asyncio.gather(*map(session, range(4))), 50)
asyncio.run(main())
print(json.dumps({"done": done[0], "wrong": wrong[:3]}))
"#;

fn of_two_starts_at_the_same_time_one_bridge_comes_and_both_are_told_of_it(machine: &Machine) {
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8500 } }).to_string();
    let path = config(machine, "race.json", &text);
    let said = machine.user(&["python3", "-c", RACE, &path, "50"]).success();
    assert_eq!(said, "[]\n", "rounds that went wrong");
    nothing_is_left(machine);
}

fn a_config_broken_on_disk_fails_a_restart_once_and_is_mended_by_a_start(machine: &Machine) {
    const UNIT: &str = "foxxy-bridge-broken.service";
    let good = json!({ "mcpServers": {}, "bridge": { "port": 8501 } }).to_string();
    let path = config(machine, "broken.json", &good);
    let start = ["server", "start", "--daemon", "--config", &path];
    foxxy(machine, &start).success();
    let log = || machine.user(&["journalctl", "--user-unit", UNIT, "--output=cat"]).stdout;
    let before = log().lines().count();

    config(machine, "broken.json", "{ nonsense");
    let stderr = machine.user(&["systemctl", "--user", "restart", UNIT]).failure(1);
    assert!(stderr.contains("failed"), "{stderr}");
    // Long enough for the restart that must not come.
    machine.user(&["sleep", "4"]).success();
    assert_eq!(property(machine, UNIT, "NRestarts"), "0");
    let listed = list(machine);
    assert_eq!((listed.len(), &listed[0]["status"]), (1, &json!("failed")), "{listed:?}");
    let log: Vec<String> = log().lines().skip(before).map(str::to_owned).collect();
    let count = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    assert_eq!(count("broken.json:1:3: not valid JSON"), 1, "{log:#?}");
    assert_eq!((count("status=78"), count("Scheduled restart")), (1, 0), "{log:#?}");
    refused(foxxy(machine, &start), 78);

    config(machine, "broken.json", &good);
    foxxy(machine, &start).success();
    assert_eq!(get(machine, "http://127.0.0.1:8501/readyz"), "200");
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}

fn reloads_lose_no_call(machine: &Machine) {
    let text = |more: bool| {
        let mut servers = json!({ "e": everything() });
        if more {
            servers["sleepy"] = json!({ "command": "sleep", "args": ["1000"] });
        }
        json!({ "mcpServers": servers, "bridge": { "port": 8502 } }).to_string()
    };
    let path = config(machine, "calls.json", &text(false));
    foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
    connected(machine, "calls");
    config(machine, "calls.py", CALLS);
    let client = "/opt/servers/venv/bin/python calls.py http://127.0.0.1:8502/mcp enough 100000";
    let script = format!(
        "cd; rm -f enough; {client} > calls.out 2>&1 & client=$!\n\
         for round in $(seq 10); do\n\
         printf '%s' '{}' > {path}; foxxy-bridge server reload calls; sleep 0.2\n\
         printf '%s' '{}' > {path}; foxxy-bridge server reload calls; sleep 0.2\n\
         done; touch enough; wait $client; tail -n 1 calls.out",
        text(true),
        text(false)
    );
    let said = machine.user_sh(&script).success();
    assert_eq!(said.matches("reloaded calls: added sleepy\n").count(), 10, "{said}");
    assert_eq!(said.matches("reloaded calls: removed sleepy\n").count(), 10, "{said}");
    let told: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("what came of it");
    assert_eq!(told["wrong"], json!([]));
    assert!(told["done"].as_u64() > Some(100), "too few calls to show anything: {told}");
    foxxy(machine, &["server", "stop"]).success();
    nothing_is_left(machine);
}
