//! Which protections this host's systemd really gives a bridge.

use std::time::Duration;

use super::facts::{Config, Facts};
use super::finding::Finding;
use crate::cli::error::Error;
use crate::cli::server::unit::{self, Address};
use crate::config;
use crate::instance::Scope;
use crate::manager::systemd::Systemd;
use crate::manager::systemd::probe::Enforcement;
use crate::manager::{self, ErrorKind, Sandbox, UnitSpec};

/// What a line is about, in the order in which they are told.
const GROUPS: [&str; 5] =
    ["system calls", "file system", "devices and kernel", "users and capabilities", "the rest"];

/// What became of each directive of a sandbox, by its name.
type Outcome = Vec<(&'static str, Enforcement)>;

/// A sandbox of the config, tried.
struct Tried {
    /// Which; two where they come to the same.
    sandboxes: Vec<Sandbox>,
    outcome: Outcome,
}

/// A group of a sandbox, in words.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    text: String,
    /// Whether all of it holds.
    holds: bool,
    /// Whether a unit with it runs.
    runs: bool,
}

/// Each sandbox that a config can ask for is tried in units that do nothing, with what the unit of the bridge would set.
pub(super) async fn enforced(facts: &Facts) -> Vec<Finding> {
    let Ok(systemd) = &facts.systemd else { return Vec::new() };
    let Some(spec) = spec(facts, systemd).await else { return Vec::new() };
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            let fix = error.hint.unwrap_or_else(|| "use another path for it".to_owned());
            return vec![Finding::warning(format!("not known: {}", error.what), fix)];
        }
    };
    let configs = facts.configs.iter().filter_map(Config::config);
    let wanted: Vec<Sandbox> = configs.map(|config| unit::sandbox(&config.bridge.daemon)).collect();
    let tried = match look(systemd, &spec).await {
        Ok(tried) => tried,
        Err(error) if error.kind() == ErrorKind::NotPermitted => {
            return vec![Finding::warning(
                format!("not known: {error}"),
                "sudo foxxy-bridge doctor --system",
            )];
        }
        Err(error) => {
            let why = error.why().map(|why| format!(": {why}")).unwrap_or_default();
            let log = format!("journalctl {} --lines=20", facts.scope().flag());
            return vec![Finding::warning(format!("not known: {error}{why}"), format!("see why: {log}"))];
        }
    };
    let version = systemd.version().0;
    let findings = tried.into_iter().flat_map(|Tried { sandboxes, outcome }| {
        let asked: Vec<Sandbox> = sandboxes.iter().copied().filter(|one| wanted.contains(one)).collect();
        let fix = fix(&sandboxes, facts.scope());
        let told = tell(&sandboxes, &outcome, version);
        told.into_iter().map(|told| judged(told, &asked, &fix)).collect::<Vec<_>>()
    });
    findings.collect()
}

/// What would run the bridge of the config that is meant; nothing where that bridge is not known.
async fn spec(facts: &Facts, systemd: &Systemd) -> Option<Result<UnitSpec, Error>> {
    let instance = facts.instance.as_ref()?;
    // One that cannot be read says nothing of a user.
    let config = facts.configs.first().and_then(Config::config);
    let daemon = config.map_or_else(config::Daemon::default, |config| config.bridge.daemon.clone());
    // How long a start may take makes no difference to a trial.
    let timeout = Duration::ZERO;
    Some(unit::spec(instance, &daemon, &Address::default(), &facts.context, timeout, systemd).await)
}

/// Tries the sandboxes that there are.
async fn look(systemd: &Systemd, spec: &UnitSpec) -> Result<Vec<Tried>, manager::Error> {
    let mut tried: Vec<Tried> = Vec::new();
    for sandbox in [Sandbox::Auto, Sandbox::Strict] {
        let outcome = systemd.enforced(&UnitSpec { sandbox, ..spec.clone() }).await?;
        match tried.iter_mut().find(|one| one.outcome == outcome) {
            Some(same) => same.sandboxes.push(sandbox),
            None => tried.push(Tried { sandboxes: vec![sandbox], outcome }),
        }
    }
    Ok(tried)
}

/// What a directive is about: one of [`GROUPS`].
fn group(directive: &str) -> &'static str {
    match directive {
        "NoNewPrivileges"
        | "LockPersonality"
        | "RestrictRealtime"
        | "RestrictSUIDSGID"
        | "RestrictNamespaces"
        | "RestrictAddressFamilies"
        | "SystemCallArchitectures"
        | "SystemCallFilter" => GROUPS[0],
        "ProtectSystem" | "ProtectHome" | "ReadWritePaths" | "PrivateTmp" | "PrivateMounts" => GROUPS[1],
        "PrivateDevices"
        | "DevicePolicy"
        | "ProtectKernelTunables"
        | "ProtectKernelModules"
        | "ProtectKernelLogs"
        | "ProtectClock"
        | "ProtectHostname"
        | "ProtectProc" => GROUPS[2],
        "PrivateUsers" | "CapabilityBoundingSet" | "AmbientCapabilities" => GROUPS[3],
        _ => GROUPS[4],
    }
}

/// The word for it in a config.
fn word(sandbox: Sandbox) -> &'static str {
    match sandbox {
        Sandbox::Auto => "auto",
        Sandbox::Off => "off",
        Sandbox::Strict => "strict",
    }
}

/// A line about each group of which those sandboxes have something.
fn tell(sandboxes: &[Sandbox], outcome: &Outcome, version: u32) -> Vec<Told> {
    let which = sandboxes.iter().map(|sandbox| word(*sandbox)).collect::<Vec<_>>().join(" and ");
    let line = |name: &&str| {
        let part: Outcome = outcome.iter().filter(|(one, _)| group(one) == *name).cloned().collect();
        (!part.is_empty()).then(|| tell_group(&format!("{which}: {name}"), &part, version))
    };
    GROUPS.iter().filter_map(line).collect()
}

fn tell_group(name: &str, found: &Outcome, version: u32) -> Told {
    let names = |wanted: fn(&Enforcement) -> bool| {
        let names = found.iter().filter(|(_, became)| wanted(became)).map(|(directive, _)| *directive);
        names.collect::<Vec<_>>().join(", ")
    };
    let ignored = names(|became| *became == Enforcement::Ignored);
    let failing = names(|became| matches!(became, Enforcement::Fails(_)));
    let others = names(|became| *became == Enforcement::Enforced);
    if ignored.is_empty() && failing.is_empty() {
        return Told { text: format!("{name}: enforced by systemd {version}"), holds: true, runs: true };
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
    let text = format!("{name}: systemd {version}: {}", parts.join("; "));
    Told { text, holds: false, runs: failing.is_empty() }
}

/// What to do where a config asks for one of these.
fn fix(sandboxes: &[Sandbox], scope: Scope) -> String {
    match (sandboxes, scope) {
        ([Sandbox::Strict], Scope::User) => {
            "the config says `bridge.daemon.sandbox: strict`: use `auto`, or the machine's manager: --system"
                .to_owned()
        }
        ([Sandbox::Strict], Scope::System) => {
            "the config says `bridge.daemon.sandbox: strict`: use `auto`".to_owned()
        }
        _ => "set `bridge.daemon.sandbox: \"off\"` in the config".to_owned(),
    }
}

/// What keeps a unit from starting matters where a config asks for it, and what does not hold where one insists on it.
fn judged(told: Told, asked: &[Sandbox], fix: &str) -> Finding {
    if !told.runs && !asked.is_empty() {
        return Finding::problem(told.text, fix);
    }
    if !told.holds && asked.contains(&Sandbox::Strict) {
        return Finding::warning(told.text, fix);
    }
    Finding::ok(told.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn files(became: [Enforcement; 3]) -> Outcome {
        ["ProtectSystem", "ReadWritePaths", "PrivateTmp"].into_iter().zip(became).collect()
    }

    fn all() -> Outcome {
        files([Enforcement::Enforced, Enforcement::Enforced, Enforcement::Enforced])
    }

    #[test]
    fn a_group_is_told_in_one_line() {
        let told = tell(&[Sandbox::Strict], &all(), 257);
        let expected = "strict: file system: enforced by systemd 257".to_owned();
        assert_eq!(told, [Told { text: expected, holds: true, runs: true }]);
        let fails = Enforcement::Fails("226/NAMESPACE".into());
        let some = files([Enforcement::Ignored, fails, Enforcement::Enforced]);
        let expected =
            "strict: file system: systemd 252: not enforced: ProtectSystem; keeps a unit from starting: \
             ReadWritePaths (226/NAMESPACE); enforced: PrivateTmp"
                .to_owned();
        let told = tell(&[Sandbox::Strict], &some, 252);
        assert_eq!(told, [Told { text: expected, holds: false, runs: false }]);
    }

    #[test]
    fn a_group_of_which_a_sandbox_has_nothing_is_not_told() {
        let calls = vec![("NoNewPrivileges", Enforcement::Enforced)];
        let lines = |outcome: &Outcome| {
            let told = tell(&[Sandbox::Auto, Sandbox::Strict], outcome, 252);
            told.into_iter().map(|told| told.text).collect::<Vec<_>>()
        };
        assert_eq!(lines(&calls), ["auto and strict: system calls: enforced by systemd 252"]);
        assert_eq!(lines(&Vec::new()), Vec::<String>::new());
        let both = lines(&[all(), calls].concat());
        assert_eq!(both.len(), 2);
        assert!(both[0].contains("system calls") && both[1].contains("file system"), "{both:?}");
    }

    #[test]
    fn only_a_config_that_insists_makes_it_a_warning() {
        let judged =
            |holds, asked: &[Sandbox]| judged(Told { text: "x".into(), holds, runs: true }, asked, "y").state;
        assert_eq!(judged(false, &[]), State::Ok);
        assert_eq!(judged(false, &[Sandbox::Auto]), State::Ok);
        assert_eq!(judged(true, &[Sandbox::Strict]), State::Ok);
        assert_eq!(judged(false, &[Sandbox::Auto, Sandbox::Strict]), State::Warning);
    }

    #[test]
    fn what_keeps_a_unit_from_starting_is_a_problem_of_a_config_that_asks_for_it() {
        let judged = |asked: &[Sandbox]| {
            judged(Told { text: "x".into(), holds: false, runs: false }, asked, "y").state
        };
        assert_eq!(judged(&[]), State::Ok);
        assert_eq!(judged(&[Sandbox::Auto]), State::Problem);
        assert_eq!(judged(&[Sandbox::Strict]), State::Problem);
    }

    #[test]
    fn the_way_out_of_a_sandbox_is_one_that_is_open() {
        assert!(fix(&[Sandbox::Strict], Scope::User).contains("--system"));
        assert!(!fix(&[Sandbox::Strict], Scope::System).contains("--system"));
        // Where they come to the same, `auto` is none.
        for same in [&[Sandbox::Auto][..], &[Sandbox::Auto, Sandbox::Strict]] {
            assert!(fix(same, Scope::System).contains("\"off\""));
        }
    }
}
