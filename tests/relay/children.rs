//! No process of an upstream outlives the bridge.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use crate::bridge::{Bridge, eventually};
use crate::client::Client;
use crate::scripted::{Script, text, tools};

fn lives(pid: Pid) -> bool {
    // A zombie that waits for its parent is no longer at work.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
    test_kill_process(pid).is_ok() && state != Some('Z')
}

fn pid_in(script: &Script, file: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(script.folder().join(file)).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// A server that has a process of its own that does not listen to SIGTERM.
fn family() -> (Script, serde_json::Value) {
    let script = Script::new(&json!({ "tools/list": tools(&["die"]), "tools/call die": [{ "exit": 0 }] }));
    let file = script.folder().join("grandchild").display().to_string();
    let command = format!(
        "sh -c 'trap \"\" TERM HUP; echo $$ >{file}; while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1 & exec {}",
        script.shell()
    );
    let config = json!({ "command": "sh", "args": ["-c", command] });
    (script, config)
}

async fn family_of(bridge: &Bridge, script: &Script) -> [Pid; 2] {
    let pid = bridge.until("up", "connected").await["pid"].as_i64().expect("a pid");
    eventually("a grandchild", || pid_in(script, "grandchild").is_some()).await;
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    [pid, pid_in(script, "grandchild").expect("a pid")]
}

#[tokio::test]
async fn sigterm_leaves_no_process_of_an_upstream() {
    let (script, config) = family();
    let mut bridge = Bridge::start(&json!({ "up": config }));
    let family = family_of(&bridge, &script).await;
    assert!(family.iter().all(|pid| lives(*pid)));
    bridge.end();
    for pid in family {
        eventually("its end", || !lives(pid)).await;
    }
}

#[tokio::test]
async fn an_upstream_that_listens_to_nothing_is_killed() {
    let script = Script::new(&json!({}));
    let command = format!("trap '' TERM; {}; while :; do sleep 0.1; done", script.shell());
    let mut bridge = Bridge::start(&json!({ "up": { "command": "sh", "args": ["-c", command] } }));
    let pid = bridge.until("up", "connected").await["pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    bridge.end();
    assert!(!lives(pid));
    assert!(bridge.log().contains("stopped"), "{}", bridge.log());
}

#[tokio::test]
async fn what_a_dead_upstream_leaves_behind_is_ended_before_it_starts_anew() {
    let (script, config) = family();
    let bridge = Bridge::start(&json!({ "up": config }));
    let [_, grandchild] = family_of(&bridge, &script).await;
    Client::of(&bridge).await.tool("up__die").await;
    eventually("its end", || !lives(grandchild)).await;
}

#[tokio::test]
async fn children_end_when_the_bridge_is_killed() {
    let script = Script::new(&json!({}));
    let mut bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let pid = bridge.until("up", "connected").await["pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    bridge.kill();
    eventually("its end", || !lives(pid)).await;
}

#[tokio::test]
async fn a_call_under_way_gets_its_answer_before_the_bridge_ends() {
    let script = Script::new(&json!({
        "tools/list": tools(&["work"]), "tools/call work": [{ "sleep": 0.5 }, { "result": text("done") }],
    }));
    let mut bridge = Bridge::start(&json!({ "up": script.stdio() }));
    let client = Client::of(&bridge).await;
    let _open = client.listen().await;
    let call = tokio::spawn(async move { client.tool("up__work").await });
    script.receives("tools/call", 1).await;
    kill_process(bridge.pid(), Signal::TERM).expect("it lives");
    assert_eq!(call.await.expect("an answer")["content"][0]["text"], "done");
    bridge.end();
}

#[tokio::test]
async fn children_see_nothing_of_the_bridges_own_service_manager() {
    let script = Script::new(&json!({}));
    let file = script.folder().join("env").display().to_string();
    let command = format!("env >{file}; exec {}", script.shell());
    let bridge = Bridge::with(
        &json!({ "mcpServers": {
            "up": { "command": "sh", "args": ["-c", command], "env": { "MINE": "1" } },
        } }),
        &[("LISTEN_FDS", "0"), ("INVOCATION_ID", "x"), ("KEPT", "1")],
    );
    bridge.until("up", "connected").await;
    let env = std::fs::read_to_string(&file).expect("an environment");
    let names: Vec<&str> =
        env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for (name, expected) in [
        ("NOTIFY_SOCKET", false),
        ("LISTEN_FDS", false),
        ("INVOCATION_ID", false),
        ("MINE", true),
        ("KEPT", true),
    ] {
        assert_eq!(names.contains(&name), expected, "{name}");
    }
}
