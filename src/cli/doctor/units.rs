//! Whether the units of enabled bridges are what runs, and can be started at all.

use super::facts::Facts;
use super::finding::Finding;
use crate::cli::server::survey::enabled_config;
use crate::instance::Name;
use crate::manager::{Drift, ServiceManager as _};

/// Every enabled bridge has a config, and runs as the files of its unit have it.
pub(super) async fn up_to_date(facts: &Facts) -> Vec<Finding> {
    let Ok(systemd) = &facts.systemd else { return Vec::new() };
    let enabled = match systemd.enabled().await {
        Ok(enabled) => enabled,
        Err(error) => {
            return vec![Finding::warning(format!("not known: {error}"), error.hint().unwrap_or_default())];
        }
    };
    let mut findings = Vec::new();
    for (name, _) in &enabled {
        let config = enabled_config(systemd, &facts.paths, name).await;
        let config = config.unwrap_or_else(|_| facts.paths.named_config(name));
        // The default one has a config built in.
        if !config.exists() && !name.is_default() {
            let found = format!("{name} is enabled, and its config {} is not there", config.display());
            findings.push(Finding::problem(
                found,
                format!("put it there, or: {}", facts.server("disable", name)),
            ));
        }
    }
    for bridge in facts.bridges.iter().filter(|bridge| bridge.is_running() && bridge.managed.is_some()) {
        // That systemd does not answer is told elsewhere.
        if let Ok(Some(drift)) = systemd.drift(&bridge.name).await {
            findings.push(tell(facts, &bridge.name, drift));
        }
    }
    if findings.is_empty() {
        let names: Vec<&str> = enabled.iter().map(|(name, _)| name.as_str()).collect();
        findings.push(Finding::ok(match names.is_empty() {
            true => "no bridge is enabled".to_owned(),
            false => format!("enabled, with units as they should be: {}", names.join(", ")),
        }));
    }
    findings
}

fn tell(facts: &Facts, name: &Name, drift: Drift) -> Finding {
    let restart = facts.server("restart", name);
    match drift {
        Drift::Newer => {
            Finding::warning(format!("{name} was started before the files of its unit were changed"), restart)
        }
        Drift::Unread => Finding::warning(
            format!("systemd has not read the changed files of {name}'s unit"),
            format!("systemctl {} daemon-reload, then {restart}", facts.scope().flag()),
        ),
    }
}
