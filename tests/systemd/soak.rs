//! What many starts and stops leave behind. Long, and so only run when asked for: `make soak`.

use serde_json::json;

use crate::bridge::{config, nothing_is_left};
use crate::machine::Machine;

crate::tests![a_thousand_starts_and_stops_leave_nothing];

const BATCHES: u32 = 40;
const ROUNDS_IN_A_BATCH: u32 = 25;

fn a_thousand_starts_and_stops_leave_nothing(machine: &Machine) {
    let text = json!({ "mcpServers": {}, "bridge": { "port": 8505 } }).to_string();
    let path = config(machine, "soak.json", &text);
    let rounds = |count: u32| {
        let script = format!(
            "for round in $(seq {count}); do\n\
             foxxy-bridge server start --daemon --config {path} >/dev/null; foxxy-bridge server stop soak >/dev/null\n\
             done"
        );
        machine.user_sh(&script).success();
    };
    // What the first one needs, it may keep: a folder for the next, and what the user manager has learnt.
    rounds(1);
    let before = traces(machine);
    for _ in 0..BATCHES {
        rounds(ROUNDS_IN_A_BATCH);
    }
    assert_eq!(traces(machine), before);
    nothing_is_left(machine);
}

/// What could pile up: descriptors of the user's manager and bus, units, failed ones, control groups, files.
fn traces(machine: &Machine) -> String {
    let script = r#"
        user=$(id -u tester)
        for name in systemd dbus-daemon; do
            pid=$(pgrep --exact --uid tester $name)
            echo "$name: $(ls /proc/$pid/fd | wc -l) descriptors"
        done
        echo "$(find /sys/fs/cgroup/user.slice/user-$user.slice -type d | wc -l) control groups"
        echo "$(find /run/user/$user /home/tester /tmp /var/tmp | wc -l) files"
    "#;
    let seen = machine.root(&["sh", "-euc", script]).success();
    let units = r#"
        echo "$(systemctl --user list-units --all --plain --no-legend | wc -l) units"
        echo "$(systemctl --user list-units --failed --plain --no-legend | wc -l) failed units"
    "#;
    seen + &machine.user_sh(units).success()
}
