//! A bridge's unit in its two renderings, properties and a file: systemd makes the same of both, whatever is in them.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bridge::{config, foxxy, list, nothing_is_kept, nothing_is_left, plain, status};
use crate::machine::Machine;

crate::tests![
    a_file_and_a_transient_unit_say_the_same,
    a_path_with_every_odd_character_is_kept_in_a_unit_file,
];

/// What differs between any two runs of any unit, or by the kind of unit that it is.
const OF_THE_RUN: [&str; 23] = [
    // Two units may not have the same name on the bus, and this one has files elsewhere.
    "BusName",
    "LogExtraFields",
    "ControlGroup",
    "ControlGroupId",
    "CanFreeze",
    "DropInPaths",
    "FragmentPath",
    "Id",
    "InvocationID",
    "Job",
    "MainPID",
    "Names",
    "NFileDescriptorStore",
    "Perpetual",
    "RefUs",
    "Refs",
    "StatusText",
    "TasksCurrent",
    "Transient",
    "UnitFilePreset",
    "UnitFileState",
    "EffectiveMemoryMax",
    "StateChange",
];

fn a_file_and_a_transient_unit_say_the_same(machine: &Machine) {
    let folder = "/home/tester/50% of \"my\" bridges/wörk %n 'a' #";
    let daemon = json!({
        "limits": { "memory_max": "256M", "memory_high": "50%", "tasks_max": 99, "cpu_quota": "150%", "nofile": 4096 },
        "restart": { "attempts": 3, "delay": 7.5 },
        "environment": { "A": "b c" },
        "credentials": { "token": "/home/tester/token" },
        "stop_timeout": 33,
        "watchdog": 60,
    });
    config(machine, "token", "s3cr3t");
    for sandbox in ["auto", "off", "strict"] {
        let mut daemon = daemon.clone();
        daemon["sandbox"] = sandbox.into();
        let text = json!({ "mcpServers": {}, "bridge": { "port": 8630, "daemon": daemon } }).to_string();
        let path =
            config(machine, &format!("{}/odd.json", folder.trim_start_matches("/home/tester/")), &text);
        foxxy(machine, &["server", "start", "--daemon", "--config", &path]).success();
        let transient = show(machine, "foxxy-bridge-odd.service");
        foxxy(machine, &["server", "stop", "odd"]).success();

        foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
        assert_eq!(status(machine, "odd")["config"], path);
        let kept = show(machine, "foxxy-bridge@odd.service");
        let same = |key: &str| kept.get(key) == transient.get(key);
        let differ: Vec<String> = kept
            .keys()
            .chain(transient.keys())
            .filter(|key| !same(key) && !["Before", "WantedBy"].contains(&key.as_str()))
            .map(|key| format!("{key}: {:?} became {:?}", transient.get(key), kept.get(key)))
            .collect();
        assert_eq!(differ, Vec::<String>::new(), "{sandbox}");
        // Read anew, it is still the same.
        machine.user(&["systemctl", "--user", "daemon-reload"]).success();
        assert_eq!(without_links(show(machine, "foxxy-bridge@odd.service")), without_links(kept));
        foxxy(machine, &["server", "disable", "odd", "--now"]).success();
        nothing_is_kept(machine);
    }
    nothing_is_left(machine);
}

/// Read anew, a unit knows of the target that it is linked to.
fn without_links(mut properties: BTreeMap<String, String>) -> BTreeMap<String, String> {
    properties.retain(|key, _| !["Before", "WantedBy"].contains(&key.as_str()));
    properties
}

/// The properties of a unit, but for those of its run.
fn show(machine: &Machine, unit: &str) -> BTreeMap<String, String> {
    let shown = machine.user(&["systemctl", "--user", "show", unit]).success();
    let properties = shown.lines().filter_map(|line| line.split_once('='));
    properties
        .filter(|(key, _)| !OF_THE_RUN.contains(key))
        .filter(|(key, _)| {
            !["Timestamp", "TimestampMonotonic", "NSec", "USec"].iter().any(|end| {
                key.ends_with(end)
                    && (key.contains("Timestamp")
                        || key.starts_with("CPUUsage")
                        || key.starts_with("Watchdog"))
            })
        })
        .filter(|(key, _)| {
            !key.starts_with("IO") && !key.starts_with("Memory")
                || key.ends_with("Max")
                || key.ends_with("High")
        })
        .filter(|(key, _)| !key.starts_with("ExecMain") && !key.starts_with("IP"))
        .map(|(key, value)| {
            // How often and when a command was run stands behind it.
            let value = if key.starts_with("Exec") {
                value.split(" ; start_time=").next().unwrap_or(value)
            } else {
                value
            };
            // The old version cannot keep a flag of a transient unit's command.
            let value = value.replace(" ; flags=no-env-expand", " ; flags=");
            // What is to be there after a boot is kept elsewhere.
            let value = match key {
                "EnvironmentFiles" => value.rsplit('/').next().unwrap_or_default().to_owned(),
                "After" | "Requires" => {
                    let mut units: Vec<&str> = value.split(' ').collect();
                    units.sort_unstable();
                    units.join(" ")
                }
                _ => value,
            };
            (key.to_owned(), value)
        })
        .collect()
}

fn a_path_with_every_odd_character_is_kept_in_a_unit_file(machine: &Machine) {
    // Also those that the older version cannot keep in a transient unit.
    let path = plain(machine, "$HOME ${X} ;x \\ \\n \"q\" 'a' %h %% # wörk\u{1f98a}/odd.json", 8642);
    foxxy(machine, &["server", "enable", "--config", &path, "--now"]).success();
    assert_eq!(status(machine, "odd")["config"], path);
    machine.user(&["systemctl", "--user", "daemon-reload"]).success();
    foxxy(machine, &["server", "restart", "odd"]).success();
    foxxy(machine, &["server", "reload", "odd"]).success();
    assert_eq!(list(machine)[0]["config"], path);
    foxxy(machine, &["server", "disable", "odd", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}
