//! An upstream that is not easily got rid of.

use std::fs;

use serde_json::{Value, json};

use crate::home::{Home, children, lives, wait_for};

/// An upstream with a process in a session of its own, which writes its number to a file; neither listens to SIGTERM.
pub(crate) fn family(home: &Home) -> Value {
    let stubborn = "trap \"\" TERM HUP; exec sleep 1000";
    let file = home.path("grandchild").display().to_string();
    let script =
        format!("setsid sh -c 'echo $$ >{file}; {stubborn}' </dev/null >/dev/null 2>&1 & {stubborn}");
    json!({ "up": { "command": "sh", "args": ["-c", script] } })
}

/// Waits until they are there.
pub(crate) fn members(home: &Home, name: &str) -> [u32; 2] {
    let grandchild =
        wait_for("a grandchild", || fs::read_to_string(home.path("grandchild")).ok()?.trim().parse().ok());
    let bridge = home.bridge(name).expect("a bridge");
    let members = [*children(bridge).first().expect("an upstream"), grandchild];
    assert!(members.iter().all(|pid| lives(*pid)), "{members:?}");
    members
}
