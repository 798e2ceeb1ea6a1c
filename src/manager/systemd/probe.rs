//! What a sandbox is worth on this host: systemd takes many directives that it then leaves out without a word, and
//! others keep a unit from starting. So a trial unit is run with those of a bridge's unit, and a process in it looks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use zbus::{OwnedVariant, Variant};

use super::state::UnitState;
use super::unit::directive_properties;
use super::unit::sandbox::{Directive, Value, directives};
use super::{Systemd, failure};
use crate::host::sandbox::{Call, REFUSAL, View};
use crate::manager::{Error, UnitSpec};

/// How long a trial may take; it takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command of this program that looks around in a trial.
pub const LOOK: &str = "look-around";

/// The syslog priority of errors.
const LOG_ERR: i32 = 3;

/// Capabilities, by their bit (capabilities(7)).
const CAP_SYS_MODULE: u64 = 1 << 16;
const CAP_SYS_TIME: u64 = 1 << 25;
const CAP_SYSLOG: u64 = 1 << 34;

/// The directive that others need in a user's unit.
const USERS: &str = "PrivateUsers";

/// The directive that refuses system calls, and the one that says with which error.
const FILTER: &str = "SystemCallFilter";
const REFUSES_WITH: &str = "SystemCallErrorNumber";

/// What became of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enforcement {
    /// What it asks for holds: by its doing, or because it does anyway, as where a container has no clock to set.
    Enforced,
    /// The unit runs, and nothing is different in it.
    Ignored,
    /// A unit with it does not run, for this reason.
    Fails(String),
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trial {
    /// It ran, and this was seen in it.
    Ran(Box<View>),
    /// It did not run, for this reason.
    Failed(String),
}

/// Whether a directive can be told only by the filters that it adds: it must be tried by itself.
fn is_unseen(directive: &Directive) -> bool {
    matches!(directive.key, "RestrictRealtime" | "LockPersonality" | "SystemCallArchitectures")
}

/// Whether a directive holds where this is seen, and that without any; `None` where nothing of it is seen from inside.
fn holds(directive: &Directive, seen: &View, plain: &View) -> Option<bool> {
    let refused = |call| seen.refused.contains(&call);
    let read_only = |places: &[&str]| places.iter().all(|place| seen.read_only.contains(*place));
    let lacks = |capability: u64| seen.capabilities & capability == 0;
    Some(match directive.key {
        _ if is_unseen(directive) => seen.filters > plain.filters,
        "NoNewPrivileges" => seen.no_new_privileges,
        "RestrictNamespaces" => refused(Call::Setns),
        "RestrictSUIDSGID" => refused(Call::SetuidBit),
        "RestrictAddressFamilies" => refused(Call::PacketSocket),
        FILTER => refused(Call::PivotRoot),
        USERS => seen.users != plain.users,
        "ProtectSystem" if directive.value == Value::Word("strict") => {
            read_only(&["/", "/etc", "/usr", "/var"])
        }
        "ProtectSystem" => read_only(&["/etc", "/usr"]),
        "ProtectHome" => seen.home != plain.home,
        "PrivateTmp" => seen.tmp != plain.tmp,
        "PrivateMounts" => seen.mounts != plain.mounts,
        "PrivateDevices" => seen.dev != plain.dev,
        "ProtectKernelTunables" => read_only(&["/proc/sys"]),
        "ProtectKernelModules" => lacks(CAP_SYS_MODULE),
        "ProtectKernelLogs" => lacks(CAP_SYSLOG),
        "ProtectClock" => lacks(CAP_SYS_TIME),
        "ProtectHostname" => seen.names != plain.names,
        "ProtectProc" => seen.processes_hidden,
        "CapabilityBoundingSet" => seen.capabilities == 0,
        "AmbientCapabilities" => seen.ambient == 0,
        _ => return None,
    })
}

impl Systemd {
    /// What the sandbox of that bridge's unit is worth here: its directives by name, as far as a process in it can see
    /// them, and each that keeps a unit from starting. Runs a few units that do nothing, of which none is left.
    ///
    /// # Errors
    /// When even a unit without any of them does not run, and for a folder that is not UTF-8.
    pub async fn enforced(&self, spec: &UnitSpec) -> Result<Vec<(&'static str, Enforcement)>, Error> {
        let mut set = directives(spec, self.scope, self.version)?;
        // A trial has another error, by which a refusal is known.
        set.retain(|directive| directive.key != REFUSES_WITH);
        judge(&set, async |tried: &[Directive]| self.trial(tried).await).await
    }

    /// Runs one unit with these directives.
    async fn trial(&self, directives: &[Directive]) -> Result<Trial, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not a name that an instance could have.
        let unit = format!("foxxy-trial-{}-{number}.service", std::process::id());
        let properties = properties(directives)?;
        let start = self.manager.start_transient_unit(unit.clone(), "fail".into(), properties, Vec::new());
        let action = format!("start {unit}");
        let job = match self.enqueue(&unit, start).await {
            Ok(job) => job,
            Err(error) => {
                return match self.job_error(action, PATIENCE, error) {
                    Error::Rejected { detail, .. } => Ok(Trial::Failed(detail)),
                    error => Err(error),
                };
            }
        };
        let ended = job.finish(Instant::now() + 2 * PATIENCE).await;
        let outcome = match ended {
            Ok(_) => self.state_of(&unit).await.map(|state| outcome(&state.unwrap_or_else(UnitState::blank))),
            Err(error) => Err(self.job_error(action, 2 * PATIENCE, error)),
        };
        if outcome.is_err() {
            self.clear_away(&unit).await;
        }
        // One that failed is collected once it is reset; that there is nothing to reset is well.
        let _ = self.reset_failed(&unit).await;
        self.release(&unit).await;
        outcome
    }
}

/// The properties of a trial unit: this program, looking around.
fn properties(directives: &[Directive]) -> Result<Vec<(String, OwnedVariant)>, Error> {
    let program = std::env::current_exe().map_err(|source| Error::Rejected {
        action: "start a trial unit".into(),
        detail: format!("the path of this program is not known: {source}"),
    })?;
    let program = program.to_str().ok_or_else(|| Error::NotText { path: program.clone() })?.to_owned();
    let patience = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
    let mut properties: Vec<(&str, Variant<'_>)> = vec![
        ("Description", "foxxy-bridge looks at what a sandbox is worth".into()),
        ("CollectMode", "inactive-or-failed".into()),
        // Held until it has been looked at; ends with the connection.
        ("AddRef", true.into()),
        ("Type", "oneshot".into()),
        ("NotifyAccess", "main".into()),
        ("TimeoutStartUSec", patience.into()),
        ("TimeoutStopUSec", patience.into()),
        // What keeps one from starting is worth a line in the journal; that one was run is not.
        ("LogLevelMax", LOG_ERR.into()),
        ("StandardOutput", "null".into()),
        ("StandardError", "null".into()),
        ("ExecStart", vec![(program.clone(), vec![program, LOOK.to_owned()], false)].into()),
    ];
    if directives.iter().any(|directive| directive.key == FILTER) {
        properties.push((REFUSES_WITH, REFUSAL.into()));
    }
    // Only a file descriptor can fail to be owned, and there is none here.
    let owned = properties.into_iter().map(|(name, value)| Some((name.to_owned(), value.try_into().ok()?)));
    Ok(owned.flatten().chain(directive_properties(directives)).collect())
}

/// How a trial ended, by the state that its unit is left in.
fn outcome(state: &UnitState) -> Trial {
    if let Some(reason) = failure::explain_run(state) {
        return Trial::Failed(reason);
    }
    match View::read(&state.status_text) {
        Some(view) => Trial::Ran(Box::new(view)),
        // As with a hidden /run/user: a bridge could not say that it is ready either.
        None => Trial::Failed("what runs in it cannot reach the service manager".into()),
    }
}

/// Tries the directives together and judges each by what is seen; when nothing runs with them, finds out which are to
/// blame.
async fn judge(
    directives: &[Directive],
    trial: impl AsyncFn(&[Directive]) -> Result<Trial, Error>,
) -> Result<Vec<(&'static str, Enforcement)>, Error> {
    if directives.is_empty() {
        return Ok(Vec::new());
    }
    let plain = match trial(&[]).await? {
        Trial::Ran(plain) => plain,
        Trial::Failed(detail) => {
            return Err(Error::Rejected { action: "run a trial unit".into(), detail });
        }
    };
    let mut found = blame(directives, &plain, &trial).await?;
    let users = found.iter().find(|(one, became)| one.key == USERS && *became == Some(Enforcement::Enforced));
    let users = users.map(|(users, _)| users.clone());
    for (directive, together) in &mut found {
        // A unit with all of them tells more than one with it alone, when it does not run.
        if !is_unseen(directive) || matches!(together, Some(Enforcement::Fails(_))) {
            continue;
        }
        let tried: Vec<Directive> = users.iter().chain([&*directive]).cloned().collect();
        *together = match trial(&tried).await? {
            Trial::Ran(seen) => became(directive, &seen, &plain),
            Trial::Failed(reason) => Some(Enforcement::Fails(reason)),
        };
    }
    let of = |directive: &Directive| {
        let (one, became) = found.iter().find(|(one, _)| one == directive)?;
        Some((one.key, became.clone()?))
    };
    Ok(directives.iter().filter_map(of).collect())
}

/// What becomes of each directive, all of them together as far as a unit runs with them.
async fn blame(
    directives: &[Directive],
    plain: &View,
    trial: &impl AsyncFn(&[Directive]) -> Result<Trial, Error>,
) -> Result<Vec<(Directive, Option<Enforcement>)>, Error> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    // Halves that are still to be tried, each beside what is known to run: the others may need a namespace of users.
    let mut open: Vec<Vec<Directive>> = vec![directives.to_vec()];
    let mut seen = Box::new(plain.clone());
    while let Some(mut some) = open.pop() {
        if some.is_empty() {
            continue;
        }
        let tried: Vec<Directive> = good.iter().chain(&some).cloned().collect();
        match trial(&tried).await? {
            Trial::Ran(view) => {
                good = tried;
                seen = view;
            }
            Trial::Failed(reason) if some.len() == 1 => {
                bad.extend(some.pop().map(|one| (one, Some(Enforcement::Fails(reason)))));
            }
            Trial::Failed(_) => {
                // The one that others need goes first, by itself.
                let users = some.iter().position(|directive| directive.key == USERS);
                let first = match users {
                    Some(at) => vec![some.remove(at)],
                    None => some.drain(..some.len() / 2).collect(),
                };
                open.push(some);
                open.push(first);
            }
        }
    }
    let judged = good.into_iter().map(|directive| {
        let became = became(&directive, &seen, plain);
        (directive, became)
    });
    Ok(judged.chain(bad).collect())
}

fn became(directive: &Directive, seen: &View, plain: &View) -> Option<Enforcement> {
    let holds = holds(directive, seen, plain)?;
    Some(if holds { Enforcement::Enforced } else { Enforcement::Ignored })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::instance::Scope;
    use crate::manager::Sandbox;
    use crate::manager::systemd::Version;

    /// What a user's strict unit sets, as far as it is seen from inside.
    const STRICT: [&str; 14] = [
        "NoNewPrivileges",
        "LockPersonality",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "SystemCallArchitectures",
        "RestrictNamespaces",
        "RestrictAddressFamilies",
        "SystemCallFilter",
        "PrivateUsers",
        "PrivateTmp",
        "PrivateMounts",
        "ProtectKernelTunables",
        "ProtectSystem",
        "PrivateDevices",
    ];

    fn unit(scope: Scope, version: u32) -> Vec<Directive> {
        let writable = vec!["/home/ada".into()];
        let spec = UnitSpec { sandbox: Sandbox::Strict, writable, ..UnitSpec::example() };
        directives(&spec, scope, Version(version)).unwrap()
    }

    fn plain() -> View {
        let own = |which: &str| which.to_owned();
        View {
            users: own("u1"),
            mounts: own("m1"),
            names: own("n1"),
            tmp: own("1"),
            dev: own("1"),
            capabilities: u64::MAX,
            ambient: 1,
            ..View::default()
        }
    }

    /// What a process sees where every one of these holds.
    fn with(directives: &[Directive]) -> View {
        let mut view = plain();
        for directive in directives {
            match directive.key {
                "NoNewPrivileges" => view.no_new_privileges = true,
                "LockPersonality" | "RestrictRealtime" | "SystemCallArchitectures" => view.filters += 1,
                "RestrictSUIDSGID" => view.refused.extend([Call::SetuidBit]),
                "RestrictNamespaces" => view.refused.extend([Call::Setns]),
                "RestrictAddressFamilies" => view.refused.extend([Call::PacketSocket]),
                "SystemCallFilter" => view.refused.extend([Call::PivotRoot]),
                "PrivateUsers" => view.users = "u2".into(),
                "PrivateTmp" => view.tmp = "2".into(),
                "PrivateMounts" => view.mounts = "m2".into(),
                "ProtectKernelTunables" => view.read_only.extend(["/proc/sys".to_owned()]),
                "ProtectSystem" => {
                    view.read_only.extend(["/", "/etc", "/usr", "/var"].map(str::to_owned));
                }
                "PrivateDevices" => view.dev = "2".into(),
                "ReadWritePaths" | "SystemCallErrorNumber" => {}
                other => panic!("not in these tests: {other}"),
            }
        }
        view
    }

    /// Judges a user's strict unit on a host where none with any of `failing` runs; tells how many units that took.
    async fn judged(failing: &[&str]) -> (Vec<(&'static str, Enforcement)>, usize) {
        let trials = RefCell::new(0);
        let trial = async |tried: &[Directive]| {
            *trials.borrow_mut() += 1;
            let bad = tried.iter().any(|directive| failing.contains(&directive.key));
            let has_users = tried.iter().any(|directive| directive.key == USERS);
            let needs_users = tried.len() > 1 && failing.is_empty() && !has_users;
            Ok(match bad || needs_users {
                true => Trial::Failed("218/CAPABILITIES".into()),
                false => Trial::Ran(Box::new(with(tried))),
            })
        };
        let found = judge(&unit(Scope::User, 257), trial).await.unwrap();
        (found, trials.into_inner())
    }

    fn fails() -> Enforcement {
        Enforcement::Fails("218/CAPABILITIES".into())
    }

    #[tokio::test]
    async fn where_all_of_them_run_one_unit_tells_it_and_one_for_each_that_is_not_seen() {
        let (found, trials) = judged(&[]).await;
        assert_eq!(found, STRICT.map(|name| (name, Enforcement::Enforced)));
        assert_eq!(trials, 5);
    }

    #[tokio::test]
    async fn the_ones_to_blame_are_found_and_the_others_are_judged_together() {
        let failing = ["PrivateDevices", "SystemCallFilter"];
        let (found, trials) = judged(&failing).await;
        let expected =
            STRICT.map(|name| (name, if failing.contains(&name) { fails() } else { Enforcement::Enforced }));
        assert_eq!(found, expected);
        assert!(trials <= 20, "{trials} units");
    }

    #[tokio::test]
    async fn what_is_not_seen_from_inside_is_told_where_it_is_to_blame() {
        let (found, _) = judged(&["ReadWritePaths"]).await;
        let told = found.iter().filter(|(_, became)| *became != Enforcement::Enforced);
        assert_eq!(told.collect::<Vec<_>>(), [&("ReadWritePaths", fails())]);
    }

    #[tokio::test]
    async fn without_a_namespace_of_users_the_others_are_still_judged() {
        let (found, _) = judged(&[USERS]).await;
        let expected = STRICT.map(|name| (name, if name == USERS { fails() } else { Enforcement::Enforced }));
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn what_changes_nothing_is_ignored() {
        let trial = async |_: &[Directive]| Ok(Trial::Ran(Box::new(plain())));
        let found = judge(&unit(Scope::User, 257), trial).await.unwrap();
        assert_eq!(found, STRICT.map(|name| (name, Enforcement::Ignored)));
    }

    #[tokio::test]
    async fn only_what_the_unit_of_that_version_sets_is_told() {
        let names = async |set: Vec<Directive>| {
            let trial = async |_: &[Directive]| Ok(Trial::Ran(Box::new(plain())));
            let found = judge(&set, trial).await.unwrap();
            found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(unit(Scope::User, 252)).await, STRICT[..13]);
        let of_machine = names(unit(Scope::System, 252)).await;
        // Neither is seen from inside.
        for unseen in ["DevicePolicy", "RemoveIPC"] {
            assert!(unit(Scope::System, 252).iter().any(|directive| directive.key == unseen));
            assert!(!of_machine.contains(&unseen), "{of_machine:?}");
        }
        for name in ["ProtectProc", "ProtectClock", "AmbientCapabilities", "PrivateDevices"] {
            assert!(of_machine.contains(&name), "{name}: {of_machine:?}");
        }
        assert_eq!(names(Vec::new()).await, Vec::<&str>::new());
    }

    #[tokio::test]
    async fn filters_that_cannot_be_told_apart_are_counted_one_by_one() {
        let trial = async |tried: &[Directive]| {
            let real = tried.iter().filter(|directive| directive.key == "RestrictRealtime").cloned();
            Ok(Trial::Ran(Box::new(with(&real.collect::<Vec<_>>()))))
        };
        let found = judge(&unit(Scope::User, 257), trial).await.unwrap();
        let of = |name: &str| found.iter().find(|(one, _)| *one == name).map(|(_, became)| became);
        assert_eq!(of("RestrictRealtime"), Some(&Enforcement::Enforced));
        assert_eq!(of("LockPersonality"), Some(&Enforcement::Ignored));
    }

    #[tokio::test]
    async fn a_host_where_no_unit_runs_is_an_error() {
        let trial = async |_: &[Directive]| Ok(Trial::Failed("it was killed by SIGSYS".into()));
        let error = judge(&unit(Scope::User, 257), trial).await.unwrap_err();
        assert_eq!(error.why().unwrap(), "it was killed by SIGSYS");
    }

    #[test]
    fn a_unit_that_said_nothing_is_no_success() {
        let state = UnitState { status_text: String::new(), ..UnitState::blank() };
        assert!(matches!(outcome(&state), Trial::Failed(_)));
    }
}
