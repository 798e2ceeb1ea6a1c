//! Whether the bridges that there are do their work, and what those that are gone have left.

use super::facts::Facts;
use super::finding::Finding;
use crate::cli::server::survey::Known;
use crate::control::UpstreamState;
use crate::instance::Name;
use crate::manager::State;

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Every bridge that runs answers, and all of its servers are connected.
pub(super) async fn healthy(facts: &Facts) -> Vec<Finding> {
    let running: Vec<&Known> = facts.bridges.iter().filter(|bridge| bridge.is_running()).collect();
    if running.is_empty() {
        let who = if facts.systemd.is_ok() { "none is running" } else { "none is running in the foreground" };
        return vec![Finding::ok(who)];
    }
    running.into_iter().map(|bridge| health(facts, bridge)).collect()
}

fn health(facts: &Facts, bridge: &Known) -> Finding {
    let name = &bridge.name;
    let log = facts.server("logs", name);
    let managed = bridge.managed.as_ref();
    let status = match &bridge.status {
        Ok(status) => status,
        Err(error) => {
            let (state, why) = match managed {
                Some(managed) if managed.state != State::Running => {
                    let why = managed.failure.clone().or(managed.status_text.clone());
                    (managed.state.to_string(), why.unwrap_or_else(|| error.to_string()))
                }
                _ => ("running and does not answer".to_owned(), error.to_string()),
            };
            let fix = format!("see why: {log}; then {}", facts.server("restart", name));
            return Finding::problem(format!("{name} is {state}: {why}"), fix);
        }
    };
    if let Some(Err(reason)) = facts.answers.get(name) {
        let found = format!("{name} does not answer its clients at {}: {reason}", status.address);
        return Finding::problem(found, facts.server("restart", name));
    }
    let waiting = |state| matches!(state, UpstreamState::Connected | UpstreamState::Disabled);
    let ill = status.upstreams.iter().filter(|upstream| !waiting(upstream.state)).map(|upstream| {
        let error = upstream.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{} is {}{error}", upstream.name, upstream.state.as_str())
    });
    let ill: Vec<String> = ill.collect();
    if ill.is_empty() {
        let (connected, all) = status.connected();
        return Finding::ok(format!("{name} is healthy: {connected} of {all} servers connected"));
    }
    Finding::problem(format!("{name} is not healthy: {}", ill.join("; ")), format!("see why: {log}"))
}

/// Every bridge that runs is of the version of this program.
pub(super) async fn up_to_date(facts: &Facts) -> Vec<Finding> {
    let running = facts.bridges.iter().filter_map(|bridge| Some((bridge, bridge.status.as_ref().ok()?)));
    let other = running.filter_map(|(bridge, status)| {
        other_version(bridge.name.as_str(), &status.version, facts.server("restart", &bridge.name))
    });
    let other: Vec<Finding> = other.collect();
    if other.is_empty() { vec![Finding::ok(format!("{VERSION}, everywhere"))] } else { other }
}

/// A bridge that runs another version than this program is of.
fn other_version(name: &str, version: &str, restart: String) -> Option<Finding> {
    let found = || format!("{name} runs version {version}, and this program is {VERSION}");
    (version != VERSION).then(|| Finding::warning(found(), restart))
}

/// No unit of ours has failed for good.
pub(super) async fn none_failed(facts: &Facts) -> Vec<Finding> {
    if facts.systemd.is_err() {
        return Vec::new();
    }
    let failed = facts.bridges.iter().filter_map(|bridge| {
        let managed = bridge.managed.as_ref().filter(|managed| managed.state == State::Failed)?;
        let why = managed.failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let (unit, scope) = (&managed.unit, facts.scope().flag());
        Some(Finding::problem(
            format!("{unit} has failed{why}"),
            format!(
                "see why: {}; then start it again, or have it forgotten: systemctl {scope} reset-failed {unit}",
                facts.server("logs", &bridge.name)
            ),
        ))
    });
    let failed: Vec<Finding> = failed.collect();
    if failed.is_empty() { vec![Finding::ok("none")] } else { failed }
}

/// Bridges that were killed have left nothing, such as the variables that they were given.
pub(super) async fn nothing_left(facts: &Facts) -> Vec<Finding> {
    if facts.leftovers.is_empty() {
        return vec![Finding::ok("none")];
    }
    let names: Vec<&str> = facts.leftovers.iter().map(Name::as_str).collect();
    let base = facts.paths.runtime_base().display();
    vec![Finding::warning(
        format!("bridges that are gone have left files in {base}: {}", names.join(", ")),
        format!("foxxy-bridge server start --daemon --cleanup{}", facts.flag()),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_of_another_version_is_to_be_restarted() {
        let restart = || "foxxy-bridge server restart work".to_owned();
        assert_eq!(other_version("work", VERSION, restart()), None);
        let found = other_version("work", "0.0.9", restart()).unwrap();
        assert_eq!(found.found, format!("work runs version 0.0.9, and this program is {VERSION}"));
        assert_eq!(found.fix, Some(restart()));
    }
}
