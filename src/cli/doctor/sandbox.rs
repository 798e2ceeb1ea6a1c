//! Which protections this host's systemd really gives a bridge.

use super::facts::Facts;
use super::finding::Finding;
use crate::config::Sandbox;
use crate::instance::Scope;
use crate::manager::systemd::Systemd;
use crate::manager::systemd::probe::{Directive, Enforcement};
use crate::manager::{Error, ErrorKind};

/// What filters do: no rights of more than the user's own are needed.
const CALLS: [Directive; 8] = [
    Directive::NoNewPrivileges,
    Directive::RestrictNamespaces,
    Directive::RestrictRealtime,
    Directive::RestrictSuidSgid,
    Directive::LockPersonality,
    Directive::SystemCallArchitectures,
    Directive::RestrictAddressFamilies,
    Directive::SystemCallFilter,
];
const FILES: [Directive; 3] =
    [Directive::ProtectSystem, Directive::ProtectHomeReadOnly, Directive::PrivateTmp];
const KERNEL: [Directive; 7] = [
    Directive::PrivateDevices,
    Directive::ProtectKernelTunables,
    Directive::ProtectKernelModules,
    Directive::ProtectKernelLogs,
    Directive::ProtectControlGroups,
    Directive::ProtectClock,
    Directive::ProtectHostname,
];
const CAPABILITIES: [Directive; 1] = [Directive::CapabilityBoundingSet];

/// What became of each directive.
type Outcome = Vec<(Directive, Enforcement)>;

/// Each group of directives, tried in units that do nothing.
pub(super) async fn enforced(facts: &Facts) -> Vec<Finding> {
    let Ok(systemd) = &facts.systemd else { return Vec::new() };
    let wanted = facts.configs.iter().filter_map(|config| Some(config.config()?.bridge.daemon.sandbox));
    let strict = wanted.into_iter().any(|sandbox| sandbox == Sandbox::Strict);
    match look(systemd, facts.scope()).await {
        Ok(groups) => groups.into_iter().map(|(holds, found)| judged(holds, found, strict)).collect(),
        Err(error) if error.kind() == ErrorKind::NotPermitted => {
            vec![Finding::warning(format!("not known: {error}"), "sudo foxxy-bridge doctor --system")]
        }
        Err(error) => {
            let why = error.why().map(|why| format!(": {why}")).unwrap_or_default();
            let log = format!("journalctl {} --lines=20", facts.scope().flag());
            vec![Finding::warning(format!("not known: {error}{why}"), format!("see why: {log}"))]
        }
    }
}

/// For each group whether all of it holds, and a line about it.
async fn look(systemd: &Systemd, scope: Scope) -> Result<Vec<(bool, String)>, Error> {
    let version = systemd.version().0;
    let calls = systemd.enforced(&CALLS).await?;
    let others = [&FILES[..], &KERNEL, &CAPABILITIES].concat();
    let names =
        [("file system", &FILES[..]), ("devices and kernel", &KERNEL), ("capabilities", &CAPABILITIES)];
    let mut lines = vec![tell("system calls", &calls, "", version)];
    if scope == Scope::System {
        let found = systemd.enforced(&others).await?;
        lines.extend(names.map(|(name, group)| tell(name, &part(&found, group), "", version)));
        return Ok(lines);
    }
    // A user's manager can do these only in a namespace of users, which newer versions make by themselves: where the
    // first group holds without a word about that, the others may as well.
    let files = systemd.enforced(&FILES).await?;
    let alone = if files.iter().all(is_enforced) { systemd.enforced(&others).await? } else { files.clone() };
    let all: Vec<Directive> = [&[Directive::PrivateUsers][..], &others].concat();
    let found = systemd.enforced(&all).await?;
    let with_users = part(&found, &[Directive::PrivateUsers]).iter().all(is_enforced);
    for (name, group) in names {
        // Only of a group that was tried by itself it is known what a namespace of users adds.
        let by_itself = part(&alone, group);
        let together = part(&found, group);
        let tried = by_itself.len() == group.len();
        lines.push(if tried && holding(&by_itself) >= holding(&together) {
            tell(name, &by_itself, "", version)
        } else {
            let how = match (with_users, tried) {
                (true, false) => " with PrivateUsers=yes",
                (true, true) => " with PrivateUsers=yes, not without it",
                (false, _) => " (nor does PrivateUsers=yes work here)",
            };
            tell(name, &together, how, version)
        });
    }
    Ok(lines)
}

fn part(found: &Outcome, group: &[Directive]) -> Outcome {
    found.iter().filter(|(directive, _)| group.contains(directive)).cloned().collect()
}

fn is_enforced((_, became): &(Directive, Enforcement)) -> bool {
    *became == Enforcement::Enforced
}

/// How many of them hold.
fn holding(outcome: &Outcome) -> usize {
    outcome.iter().filter(|one| is_enforced(one)).count()
}

/// A line about a group; `how` is what else it takes.
fn tell(group: &str, found: &Outcome, how: &str, version: u32) -> (bool, String) {
    let names = |wanted: fn(&Enforcement) -> bool| {
        let names = found.iter().filter(|(_, became)| wanted(became)).map(|(directive, _)| directive.name());
        names.collect::<Vec<_>>().join(", ")
    };
    let ignored = names(|became| *became == Enforcement::Ignored);
    let failing = names(|became| matches!(became, Enforcement::Fails(_)));
    let others = names(|became| *became == Enforcement::Enforced);
    if ignored.is_empty() && failing.is_empty() {
        return (true, format!("{group}: enforced by systemd {version}{how}"));
    }
    let mut parts = Vec::new();
    if !ignored.is_empty() {
        parts.push(format!("not enforced: {ignored}"));
    }
    if !failing.is_empty() {
        let reason = found.iter().find_map(|(_, became)| match became {
            Enforcement::Fails(reason) => Some(reason.as_str()),
            _ => None,
        });
        parts.push(format!("keeps a unit from starting: {failing} ({})", reason.unwrap_or_default()));
    }
    if !others.is_empty() {
        parts.push(format!("enforced: {others}"));
    }
    (false, format!("{group}: systemd {version}{how}: {}", parts.join("; ")))
}

/// What does not hold matters where the config insists on it.
fn judged(holds: bool, found: String, strict: bool) -> Finding {
    if holds || !strict {
        return Finding::ok(found);
    }
    Finding::warning(
        found,
        "the config says `bridge.daemon.sandbox: strict`: use `auto`, or a newer systemd (257 has it all), or the \
         machine's manager: --system",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn outcome(became: [Enforcement; 3]) -> Outcome {
        FILES.into_iter().zip(became).collect()
    }

    #[test]
    fn a_group_is_told_in_one_line() {
        let all = outcome([Enforcement::Enforced, Enforcement::Enforced, Enforcement::Enforced]);
        assert_eq!(tell("file system", &all, "", 257).1, "file system: enforced by systemd 257");
        assert_eq!(
            tell("file system", &all, " with PrivateUsers=yes", 252),
            (true, "file system: enforced by systemd 252 with PrivateUsers=yes".to_owned())
        );
        let fails = Enforcement::Fails("226/NAMESPACE".into());
        let some = outcome([Enforcement::Ignored, fails, Enforcement::Enforced]);
        assert_eq!(
            tell("file system", &some, "", 252),
            (
                false,
                "file system: systemd 252: not enforced: ProtectSystem; keeps a unit from starting: ProtectHome \
                 (226/NAMESPACE); enforced: PrivateTmp"
                    .to_owned()
            )
        );
    }

    #[test]
    fn only_a_config_that_insists_makes_it_a_warning() {
        assert_eq!(judged(false, "x".into(), false).state, State::Ok);
        assert_eq!(judged(true, "x".into(), true).state, State::Ok);
        assert_eq!(judged(false, "x".into(), true).state, State::Warning);
    }
}
