//! A [`UnitSpec`] as the properties of a transient unit.
//!
//! The values go over D-Bus as they are: systemd escapes them itself where it writes its own copy of the unit.

use std::path::Path;
use std::time::Duration;

use zbus::{OwnedVariant, Variant};

use super::features::{Feature, Version};
use crate::instance::{Name, Scope};
use crate::manager::{Error, UnitSpec};

/// Properties as `StartTransientUnit` takes them.
pub(super) type Properties = Vec<(String, OwnedVariant)>;

/// Exit codes after which another try cannot help: bad usage (2) and a bad config (78, `EX_CONFIG`).
const HOPELESS_EXITS: [i32; 2] = [2, 78];

/// Messages within 30 s before journald drops some: twice its default, for upstreams that talk a lot on stderr.
const LOG_BURST: u32 = 20_000;

/// Into how many steps the growth of the restart delay is cut.
const RESTART_STEPS: u32 = 5;

/// The properties of the unit that runs `spec` as instance `name` under a manager of this scope and version.
///
/// # Errors
/// [`Error::NotText`] for a path that is not UTF-8, which D-Bus cannot carry.
pub(super) fn transient_properties(
    name: &Name,
    spec: &UnitSpec,
    scope: Scope,
    version: Version,
) -> Result<Properties, Error> {
    let mut unit = Builder::default();
    unit.put("Description", spec.description.as_str());
    unit.put("Documentation", vec!["man:foxxy-bridge(1)"]);
    unit.put("CollectMode", "inactive-or-failed");
    // We hold on to the unit while we watch it, or a failed one would be collected before its result is read.
    unit.put("AddRef", true);

    unit.put("Type", "notify");
    unit.put("NotifyAccess", "main");
    // Without this flag systemd would put its own variables in place of a `$` in the arguments.
    let program = spec.exec.first().cloned().unwrap_or_default();
    unit.put("ExecStartEx", vec![(program, spec.exec.clone(), vec!["no-env-expand"])]);
    unit.put("TimeoutStartUSec", micros(spec.start_timeout));
    unit.put("TimeoutStopUSec", micros(spec.stop_timeout));
    // SIGTERM is for the bridge, which ends its upstreams itself; what is left after it gets SIGKILL.
    unit.put("KillMode", "mixed");
    // One upstream that ate all memory must not take the bridge with it.
    unit.put("OOMPolicy", "continue");
    unit.restart(spec, version);

    if !spec.environment.is_empty() {
        unit.put(
            "Environment",
            spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        );
    }
    if !spec.environment_files.is_empty() {
        let files = spec.environment_files.iter().map(|path| Ok((text(path)?, false)));
        unit.put("EnvironmentFiles", files.collect::<Result<Vec<_>, Error>>()?);
    }
    if !spec.credentials.is_empty() {
        let credentials = spec.credentials.iter().map(|(id, path)| Ok((id.clone(), text(path)?)));
        unit.put("LoadCredential", credentials.collect::<Result<Vec<_>, Error>>()?);
    }
    if let Some(dir) = &spec.working_directory {
        unit.put("WorkingDirectory", text(dir)?);
    }
    match scope {
        // Where desktops and `systemd-oomd` expect what a person started.
        Scope::User => unit.put("Slice", "app.slice"),
        Scope::System => unit.system_only(name, spec),
    }
    unit.limits(spec);

    unit.put("UMask", 0o077_u32);
    unit.put("SyslogIdentifier", "foxxy-bridge");
    unit.put("LogRateLimitIntervalUSec", micros(Duration::from_secs(30)));
    unit.put("LogRateLimitBurst", LOG_BURST);
    Ok(unit.properties)
}

#[derive(Default)]
struct Builder {
    properties: Properties,
}

impl Builder {
    fn put<'a>(&mut self, name: &str, value: impl Into<Variant<'a>>) {
        // Only a file descriptor can fail to be owned, and there is none here.
        if let Ok(value) = OwnedVariant::try_from(value.into()) {
            self.properties.push((name.to_owned(), value));
        }
    }

    fn restart(&mut self, spec: &UnitSpec, version: Version) {
        let restart = &spec.restart;
        if restart.attempts == Some(0) {
            self.put("Restart", "no");
            return;
        }
        self.put("Restart", "on-failure");
        self.put("RestartUSec", micros(restart.delay));
        let max_delay = restart.max_delay.filter(|max| *max > restart.delay);
        let grows = max_delay.filter(|_| version.has(Feature::RestartSteps));
        if let Some(max) = grows {
            self.put("RestartSteps", restart.attempts.unwrap_or(RESTART_STEPS).clamp(1, RESTART_STEPS));
            self.put("RestartMaxDelayUSec", micros(max));
        }
        self.put("RestartPreventExitStatus", (HOPELESS_EXITS.to_vec(), Vec::<i32>::new()));
        let (interval, burst) = match restart.attempts {
            None => (Duration::ZERO, 0),
            Some(attempts) => start_limit(attempts, grows.unwrap_or(restart.delay), spec.start_timeout),
        };
        self.put("StartLimitIntervalUSec", micros(interval));
        self.put("StartLimitBurst", burst);
    }

    fn system_only(&mut self, name: &Name, spec: &UnitSpec) {
        if let Some(user) = &spec.user {
            self.put("User", user.as_str());
        }
        if let Some(group) = &spec.group {
            self.put("Group", group.as_str());
        }
        // The bridge's user may not make its own folder in /run. It is kept after the stop: a lock file that is
        // removed while somebody holds it no longer locks anything.
        self.put("RuntimeDirectory", vec![format!("foxxy-bridge/{name}")]);
        self.put("RuntimeDirectoryMode", 0o700_u32);
        self.put("RuntimeDirectoryPreserve", "yes");
    }

    fn limits(&mut self, spec: &UnitSpec) {
        let limits = &spec.limits;
        let numbers = [
            ("MemoryMax", limits.memory_max),
            ("MemoryHigh", limits.memory_high),
            ("TasksMax", limits.tasks_max),
            ("CPUQuotaPerSecUSec", limits.cpu_quota.map(|percent| u64::from(percent) * 10_000)),
            ("LimitNOFILE", limits.nofile),
            ("LimitNOFILESoft", limits.nofile),
        ];
        for (property, number) in numbers {
            if let Some(number) = number {
                self.put(property, number);
            }
        }
    }
}

/// The interval and burst with which `attempts` restarts in a row are the last.
///
/// The interval must be longer than all of these tries can take, waits included, or the limit can never be reached.
fn start_limit(attempts: u32, longest_delay: Duration, start_timeout: Duration) -> (Duration, u32) {
    let burst = attempts.saturating_add(1);
    let tries = longest_delay.saturating_add(start_timeout).saturating_mul(burst);
    (tries.saturating_add(Duration::from_secs(10)), burst)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::NotText { path: path.to_owned() })
}
