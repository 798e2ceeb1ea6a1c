//! Whether the limits of the configs can have an effect.

use super::facts::Facts;
use super::finding::Finding;
use crate::config::Limits;
use crate::host;
use crate::instance::Scope;

/// The service manager was given the controllers that the limits need.
pub(super) async fn in_force(facts: &Facts) -> Vec<Finding> {
    let Ok(systemd) = &facts.systemd else { return Vec::new() };
    let Ok(group) = systemd.control_group().await else { return Vec::new() };
    let there = host::machine::controllers(&group).unwrap_or_default();
    let of_machine = host::machine::controllers("").unwrap_or_default();
    let mut found = Vec::new();
    for config in &facts.configs {
        let Some(read) = config.config() else { continue };
        for (key, controller) in needs(&read.bridge.daemon.limits) {
            if !there.iter().any(|have| have == controller) {
                let machine_has = of_machine.iter().any(|have| have == controller);
                found.push(tell(&config.shown(), key, controller, facts.scope(), machine_has));
            }
        }
    }
    if found.is_empty() {
        let usable = ["memory", "cpu", "pids"].into_iter().filter(|one| there.iter().any(|have| have == one));
        let usable: Vec<&str> = usable.collect();
        found.push(Finding::ok(match usable.as_slice() {
            [] => "none can be set here, and no config sets one".to_owned(),
            usable => format!("can be set for {}", usable.join(", ")),
        }));
    }
    found
}

/// The limits that are set, each with the controller that it needs.
fn needs(limits: &Limits) -> Vec<(&'static str, &'static str)> {
    let set = [
        ("memory_max", "memory", limits.memory_max.is_some()),
        ("memory_high", "memory", limits.memory_high.is_some()),
        ("cpu_quota", "cpu", limits.cpu_quota.is_some()),
        ("tasks_max", "pids", limits.tasks_max.is_some()),
    ];
    set.into_iter().filter(|(.., set)| *set).map(|(key, controller, _)| (key, controller)).collect()
}

fn tell(config: &str, key: &str, controller: &str, scope: Scope, machine_has: bool) -> Finding {
    let found = format!("{config}: bridge.daemon.limits.{key} has no effect: ");
    match (scope, machine_has) {
        (Scope::User, true) => Finding::warning(
            format!("{found}users are not given the controller `{controller}`"),
            "sudo systemctl edit user@.service, put in `[Service]` and `Delegate=cpu cpuset io memory pids`, then log \
             in again",
        ),
        _ => Finding::warning(
            format!("{found}this machine has no controller `{controller}` in control groups of version 2"),
            "boot with systemd.unified_cgroup_hierarchy=1; in a container, have it given the controllers",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_are_set_need_a_controller() {
        assert_eq!(needs(&Limits::default()), []);
        let limits = Limits { tasks_max: Some(9), nofile: Some(99), ..Limits::default() };
        assert_eq!(needs(&limits), [("tasks_max", "pids")]);
    }

    #[test]
    fn who_can_give_a_controller_is_told() {
        let found = tell("c.json", "cpu_quota", "cpu", Scope::User, true);
        assert!(found.fix.unwrap().starts_with("sudo systemctl edit user@.service"));
        let found = tell("c.json", "cpu_quota", "cpu", Scope::User, false);
        assert!(found.fix.unwrap().starts_with("boot with"));
    }
}
