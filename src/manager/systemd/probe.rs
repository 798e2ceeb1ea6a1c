//! What a sandbox is worth on this host: systemd takes many directives that it then leaves out without a word, and
//! others keep a unit from starting. So a trial unit is run with them, and a process in it looks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use zbus::{OwnedVariant, Variant};

use super::state::UnitState;
use super::{Systemd, failure};
use crate::host::sandbox::{self, Call, View};
use crate::manager::Error;

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

/// A directive that shuts a service off from the machine (systemd.exec(5)), with the value that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Directive {
    /// `NoNewPrivileges=yes`
    NoNewPrivileges,
    /// `RestrictNamespaces=yes`
    RestrictNamespaces,
    /// `RestrictRealtime=yes`
    RestrictRealtime,
    /// `RestrictSUIDSGID=yes`
    RestrictSuidSgid,
    /// `LockPersonality=yes`
    LockPersonality,
    /// `SystemCallArchitectures=native`
    SystemCallArchitectures,
    /// `RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK`
    RestrictAddressFamilies,
    /// `SystemCallFilter=@system-service`
    SystemCallFilter,
    /// `PrivateUsers=yes`
    PrivateUsers,
    /// `ProtectSystem=strict`
    ProtectSystem,
    /// `ProtectHome=read-only`
    ProtectHomeReadOnly,
    /// `ProtectHome=tmpfs`
    ProtectHomeTmpfs,
    /// `PrivateTmp=yes`
    PrivateTmp,
    /// `PrivateDevices=yes`
    PrivateDevices,
    /// `ProtectKernelTunables=yes`
    ProtectKernelTunables,
    /// `ProtectKernelModules=yes`
    ProtectKernelModules,
    /// `ProtectKernelLogs=yes`
    ProtectKernelLogs,
    /// `ProtectControlGroups=yes`
    ProtectControlGroups,
    /// `ProtectClock=yes`
    ProtectClock,
    /// `ProtectHostname=yes`
    ProtectHostname,
    /// `CapabilityBoundingSet=`, none at all
    CapabilityBoundingSet,
}

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

impl Directive {
    /// Its name, as in a unit file.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "NoNewPrivileges",
            Self::RestrictNamespaces => "RestrictNamespaces",
            Self::RestrictRealtime => "RestrictRealtime",
            Self::RestrictSuidSgid => "RestrictSUIDSGID",
            Self::LockPersonality => "LockPersonality",
            Self::SystemCallArchitectures => "SystemCallArchitectures",
            Self::RestrictAddressFamilies => "RestrictAddressFamilies",
            Self::SystemCallFilter => "SystemCallFilter",
            Self::PrivateUsers => "PrivateUsers",
            Self::ProtectSystem => "ProtectSystem",
            Self::ProtectHomeReadOnly | Self::ProtectHomeTmpfs => "ProtectHome",
            Self::PrivateTmp => "PrivateTmp",
            Self::PrivateDevices => "PrivateDevices",
            Self::ProtectKernelTunables => "ProtectKernelTunables",
            Self::ProtectKernelModules => "ProtectKernelModules",
            Self::ProtectKernelLogs => "ProtectKernelLogs",
            Self::ProtectControlGroups => "ProtectControlGroups",
            Self::ProtectClock => "ProtectClock",
            Self::ProtectHostname => "ProtectHostname",
            Self::CapabilityBoundingSet => "CapabilityBoundingSet",
        }
    }

    /// As D-Bus carries it.
    fn value(self) -> Variant<'static> {
        match self {
            // Which kinds of namespaces stay allowed, and which capabilities.
            Self::RestrictNamespaces | Self::CapabilityBoundingSet => 0_u64.into(),
            Self::SystemCallArchitectures => vec!["native"].into(),
            Self::RestrictAddressFamilies => {
                (true, vec!["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]).into()
            }
            Self::SystemCallFilter => (true, vec!["@system-service"]).into(),
            Self::ProtectSystem => "strict".into(),
            Self::ProtectHomeReadOnly => "read-only".into(),
            Self::ProtectHomeTmpfs => "tmpfs".into(),
            _ => true.into(),
        }
    }

    /// Whether it can be told only by the filters that it adds: it must be tried by itself.
    fn is_unseen(self) -> bool {
        matches!(self, Self::RestrictRealtime | Self::LockPersonality | Self::SystemCallArchitectures)
    }

    /// Whether it holds where this is seen, and that without any directive.
    fn holds(self, seen: &View, plain: &View) -> bool {
        let refused = |call| seen.refused.contains(&call);
        let read_only = |places: &[&str]| places.iter().all(|place| seen.read_only.contains(*place));
        let lacks = |capability: u64| seen.capabilities & capability == 0;
        match self {
            Self::NoNewPrivileges => seen.no_new_privileges,
            Self::RestrictNamespaces => refused(Call::Setns),
            Self::RestrictSuidSgid => refused(Call::SetuidBit),
            Self::RestrictAddressFamilies => refused(Call::PacketSocket),
            Self::SystemCallFilter => refused(Call::PivotRoot),
            Self::RestrictRealtime | Self::LockPersonality | Self::SystemCallArchitectures => {
                seen.filters > plain.filters
            }
            Self::PrivateUsers => seen.users != plain.users,
            Self::ProtectSystem => read_only(&["/", "/etc", "/usr", "/var"]),
            Self::ProtectHomeReadOnly => read_only(&["/home"]),
            Self::ProtectHomeTmpfs => seen.home_hidden,
            Self::PrivateTmp => seen.tmp != plain.tmp,
            Self::PrivateDevices => seen.dev != plain.dev,
            Self::ProtectKernelTunables => read_only(&["/proc/sys"]),
            Self::ProtectKernelModules => lacks(CAP_SYS_MODULE),
            Self::ProtectKernelLogs => lacks(CAP_SYSLOG),
            Self::ProtectControlGroups => read_only(&["/sys/fs/cgroup"]),
            Self::ProtectClock => lacks(CAP_SYS_TIME),
            Self::ProtectHostname => seen.names != plain.names,
            Self::CapabilityBoundingSet => seen.capabilities == 0,
        }
    }
}

impl Systemd {
    /// What these directives are worth when they are set together, in the order they are given in. Runs a few units that
    /// do nothing, of which none is left.
    ///
    /// # Errors
    /// When even a unit without any of them does not run.
    pub async fn enforced(&self, directives: &[Directive]) -> Result<Vec<(Directive, Enforcement)>, Error> {
        judge(directives, async |tried: &[Directive]| self.trial(tried).await).await
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
    for directive in directives {
        properties.push((directive.name(), directive.value()));
        if *directive == Directive::SystemCallFilter {
            properties.push(("SystemCallErrorNumber", sandbox::REFUSAL.into()));
        }
    }
    // Only a file descriptor can fail to be owned, and there is none here.
    let owned = properties.into_iter().map(|(name, value)| Some((name.to_owned(), value.try_into().ok()?)));
    Ok(owned.flatten().collect())
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
) -> Result<Vec<(Directive, Enforcement)>, Error> {
    let plain = match trial(&[]).await? {
        Trial::Ran(plain) => plain,
        Trial::Failed(detail) => {
            return Err(Error::Rejected { action: "run a trial unit".into(), detail });
        }
    };
    // One value only can be set of a directive.
    let twice = |directive: &Directive| {
        *directive == Directive::ProtectHomeTmpfs && directives.contains(&Directive::ProtectHomeReadOnly)
    };
    let together: Vec<Directive> = directives.iter().copied().filter(|directive| !twice(directive)).collect();
    let mut found = blame(&together, &plain, &trial).await?;
    let users = Directive::PrivateUsers;
    let has_users = found.iter().any(|(one, became)| *one == users && *became == Enforcement::Enforced);
    let apart = directives.iter().copied().filter(|directive| directive.is_unseen() || twice(directive));
    for directive in apart {
        let tried = if has_users { vec![users, directive] } else { vec![directive] };
        let alone = match trial(&tried).await? {
            Trial::Ran(seen) => became(directive, &seen, &plain),
            Trial::Failed(reason) => Enforcement::Fails(reason),
        };
        match found.iter_mut().find(|(one, _)| *one == directive) {
            // A unit with all of them tells more than one with it alone, when it does not run.
            Some((_, Enforcement::Fails(_))) => {}
            Some((_, together)) => *together = alone,
            None => found.push((directive, alone)),
        }
    }
    Ok(directives
        .iter()
        .filter_map(|directive| found.iter().find(|(one, _)| one == directive).cloned())
        .collect())
}

/// What becomes of each directive, all of them together as far as a unit runs with them.
async fn blame(
    directives: &[Directive],
    plain: &View,
    trial: &impl AsyncFn(&[Directive]) -> Result<Trial, Error>,
) -> Result<Vec<(Directive, Enforcement)>, Error> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    // Halves that are still to be tried, each beside what is known to run: the others may need a namespace of users.
    let mut open: Vec<Vec<Directive>> = vec![directives.to_vec()];
    let mut seen = Box::new(plain.clone());
    while let Some(mut some) = open.pop() {
        if some.is_empty() {
            continue;
        }
        let tried: Vec<Directive> = good.iter().chain(&some).copied().collect();
        match trial(&tried).await? {
            Trial::Ran(view) => {
                good = tried;
                seen = view;
            }
            Trial::Failed(reason) if some.len() == 1 => bad.push((some[0], Enforcement::Fails(reason))),
            Trial::Failed(_) => {
                // The one that others need goes first, by itself.
                let users = some.iter().position(|directive| *directive == Directive::PrivateUsers);
                let first = match users {
                    Some(at) => vec![some.remove(at)],
                    None => some.drain(..some.len() / 2).collect(),
                };
                open.push(some);
                open.push(first);
            }
        }
    }
    let mut found: Vec<_> =
        good.into_iter().map(|directive| (directive, became(directive, &seen, plain))).collect();
    found.append(&mut bad);
    Ok(found)
}

fn became(directive: Directive, seen: &View, plain: &View) -> Enforcement {
    if directive.holds(seen, plain) { Enforcement::Enforced } else { Enforcement::Ignored }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const MANY: [Directive; 8] = [
        Directive::PrivateUsers,
        Directive::ProtectSystem,
        Directive::ProtectHomeReadOnly,
        Directive::PrivateTmp,
        Directive::PrivateDevices,
        Directive::ProtectHostname,
        Directive::ProtectClock,
        Directive::CapabilityBoundingSet,
    ];

    fn plain() -> View {
        View { users: "u1".into(), names: "n1".into(), tmp: "1".into(), dev: "1".into(), ..all(u64::MAX) }
    }

    fn all(capabilities: u64) -> View {
        View { capabilities, ..View::default() }
    }

    /// What a process sees where every one of these holds.
    fn with(directives: &[Directive]) -> View {
        let mut view = plain();
        for directive in directives {
            match directive {
                Directive::PrivateUsers => view.users = "u2".into(),
                Directive::ProtectSystem => {
                    view.read_only.extend(["/", "/etc", "/usr", "/var"].map(str::to_owned));
                }
                Directive::ProtectHomeReadOnly => view.read_only.extend(["/home".to_owned()]),
                Directive::PrivateTmp => view.tmp = "2".into(),
                Directive::PrivateDevices => view.dev = "2".into(),
                Directive::ProtectHostname => view.names = "n2".into(),
                Directive::ProtectClock => view.capabilities &= !CAP_SYS_TIME,
                Directive::CapabilityBoundingSet => view.capabilities = 0,
                Directive::RestrictRealtime | Directive::LockPersonality => view.filters += 1,
                other => panic!("not in these tests: {other:?}"),
            }
        }
        view
    }

    /// Judges them on a host where a unit with any of `failing` does not run; tells how many units that took.
    async fn judged(
        directives: &[Directive],
        failing: &[Directive],
    ) -> (Vec<(Directive, Enforcement)>, usize) {
        let trials = RefCell::new(0);
        let trial = async |tried: &[Directive]| {
            *trials.borrow_mut() += 1;
            let bad = tried.iter().any(|directive| failing.contains(directive));
            let needs_users =
                tried.len() > 1 && failing.is_empty() && !tried.contains(&Directive::PrivateUsers);
            Ok(match bad || needs_users {
                true => Trial::Failed("218/CAPABILITIES".into()),
                false => Trial::Ran(Box::new(with(tried))),
            })
        };
        let found = judge(directives, trial).await.unwrap();
        (found, trials.into_inner())
    }

    #[tokio::test]
    async fn where_all_of_them_run_two_units_tell_it() {
        let (found, trials) = judged(&MANY, &[]).await;
        assert_eq!(found, MANY.map(|directive| (directive, Enforcement::Enforced)));
        assert_eq!(trials, 2);
    }

    #[tokio::test]
    async fn the_ones_to_blame_are_found_and_the_others_are_judged_together() {
        let failing = [Directive::PrivateDevices, Directive::CapabilityBoundingSet];
        let (found, trials) = judged(&MANY, &failing).await;
        for (directive, became) in &found {
            let expected = match failing.contains(directive) {
                true => Enforcement::Fails("218/CAPABILITIES".into()),
                false => Enforcement::Enforced,
            };
            assert_eq!(*became, expected, "{directive:?}");
        }
        assert_eq!(found.len(), MANY.len());
        assert!(trials <= 12, "{trials} units");
    }

    #[tokio::test]
    async fn without_a_namespace_of_users_the_others_are_still_judged() {
        let (found, _) = judged(&MANY, &[Directive::PrivateUsers]).await;
        assert_eq!(found[0], (Directive::PrivateUsers, Enforcement::Fails("218/CAPABILITIES".into())));
        assert!(found[1..].iter().all(|(_, became)| *became == Enforcement::Enforced), "{found:?}");
    }

    #[tokio::test]
    async fn what_changes_nothing_is_ignored() {
        let trial = async |_: &[Directive]| Ok(Trial::Ran(Box::new(plain())));
        let found = judge(&MANY, trial).await.unwrap();
        assert_eq!(found, MANY.map(|directive| (directive, Enforcement::Ignored)));
    }

    #[tokio::test]
    async fn filters_that_cannot_be_told_apart_are_counted_one_by_one() {
        let directives = [Directive::RestrictRealtime, Directive::LockPersonality];
        let trial = async |tried: &[Directive]| {
            let real = tried.iter().copied().filter(|directive| *directive == directives[0]);
            Ok(Trial::Ran(Box::new(with(&real.collect::<Vec<_>>()))))
        };
        let found = judge(&directives, trial).await.unwrap();
        assert_eq!(found[0].1, Enforcement::Enforced);
        assert_eq!(found[1].1, Enforcement::Ignored);
    }

    #[tokio::test]
    async fn a_host_where_no_unit_runs_is_an_error() {
        let trial = async |_: &[Directive]| Ok(Trial::Failed("it was killed by SIGSYS".into()));
        let error = judge(&MANY, trial).await.unwrap_err();
        assert_eq!(error.why().unwrap(), "it was killed by SIGSYS");
    }

    #[test]
    fn a_unit_that_said_nothing_is_no_success() {
        let state = UnitState { status_text: String::new(), ..UnitState::blank() };
        assert!(matches!(outcome(&state), Trial::Failed(_)));
    }
}
