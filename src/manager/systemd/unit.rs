//! What a unit says: decided once from a [`UnitSpec`], then rendered as the properties of a transient unit or as files.

mod drop_in;
mod file;
mod properties;
pub(super) mod sandbox;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use self::sandbox::Directive;
use super::features::{Feature, Version};
use crate::instance::{Name, Scope};
use crate::manager::{ANY_INSTANCE, Account, Error, Limits, Memory, OWN_ACCOUNT, UnitSpec, exit};

pub(super) use drop_in::UnitText;
pub(super) use file::{DROP_IN, drop_in, is_ours, service_file, socket_file};
pub(super) use properties::{directive_properties, transient_properties};

/// Messages within [`LOG_INTERVAL`] before journald drops some: twice its default, for upstreams that talk a lot.
const LOG_BURST: u32 = 20_000;

/// In seconds.
const LOG_INTERVAL: u64 = 30;

/// Sockets that are kept over a restart.
const KEPT_SOCKETS: u32 = 8;

/// A bridge that lives this long does not fail at once.
const SHORT_LIFE: Duration = Duration::from_secs(3);

/// Into how many steps the growth of the restart delay is cut.
const RESTART_STEPS: u32 = 5;

/// All that a service's unit says, with nothing left to decide. Times are in microseconds.
#[derive(Debug, Clone, Serialize)]
struct Settings {
    description: String,
    /// Units that it is started after.
    after: Option<&'static str>,
    start_limit_interval: u64,
    start_limit_burst: u32,
    /// `Type=`
    kind: &'static str,
    start: Vec<String>,
    /// None where SIGHUP does it.
    reload: Option<Vec<String>>,
    start_timeout: u64,
    stop_timeout: u64,
    /// 0 is off.
    watchdog: u64,
    /// `Restart=`
    restart: &'static str,
    restart_delay: u64,
    restart_steps: Option<u32>,
    restart_max_delay: Option<u64>,
    hopeless_exits: [i32; 3],
    kept_sockets: u32,
    /// `NAME=value`
    environment: Vec<String>,
    environment_files: Vec<String>,
    /// Their names and files.
    credentials: Vec<(String, String)>,
    working_directory: Option<String>,
    slice: Option<&'static str>,
    user: Option<String>,
    group: Option<String>,
    runtime_directory: Option<String>,
    state_directory: Option<String>,
    #[serde(skip)]
    limits: Limits,
    sandbox: Vec<Directive>,
    identifier: &'static str,
    /// In seconds.
    log_interval: u64,
    log_burst: u32,
}

/// The journal field that says by which settings a unit was made, where people see what it is about.
const DIGEST_FIELD: &str = "FOXXY_BRIDGE_UNIT=";

impl Settings {
    /// What the unit of `spec` says under a manager of this scope and version.
    ///
    /// # Errors
    /// [`Error::NotText`] for a path that is not UTF-8, which neither D-Bus nor a unit file can carry.
    fn new(spec: &UnitSpec, scope: Scope, version: Version) -> Result<Self, Error> {
        let own = spec.account == Account::Own;
        let folder = format!("{OWN_ACCOUNT}/{}", spec.instance);
        let mut environment: Vec<String> =
            spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if own {
            environment.push(format!("HOME=/var/lib/{folder}"));
        }
        let (user, group) = match (&spec.account, scope) {
            (Account::Own, Scope::System) => (Some(OWN_ACCOUNT.to_owned()), Some(OWN_ACCOUNT.to_owned())),
            (Account::Named { user, group }, Scope::System) => (user.clone(), group.clone()),
            _ => (None, None),
        };
        let restart = &spec.restart;
        let grows = restart
            .max_delay
            .filter(|max| *max > restart.delay && restart.attempts != Some(0))
            .filter(|_| version.has(Feature::RestartSteps));
        let (interval, burst) = match restart.attempts {
            // Without restarts there is nothing to limit but starts by hand.
            None | Some(0) => (Duration::ZERO, 0),
            Some(attempts) => start_limit(attempts, grows.unwrap_or(restart.delay)),
        };
        Ok(Self {
            description: spec.description.clone(),
            after: (scope == Scope::System).then_some("network.target"),
            start_limit_interval: micros(interval),
            start_limit_burst: burst,
            kind: if version.has(Feature::NotifyReload) { "notify-reload" } else { "notify" },
            start: spec.exec.clone(),
            reload: (!version.has(Feature::NotifyReload)).then(|| spec.reload.clone()),
            start_timeout: micros(spec.start_timeout),
            stop_timeout: micros(spec.stop_timeout),
            watchdog: micros(spec.watchdog.unwrap_or_default()),
            restart: if restart.attempts == Some(0) { "no" } else { "on-failure" },
            restart_delay: micros(restart.delay),
            restart_steps: grows.map(|_| restart.attempts.unwrap_or(RESTART_STEPS).clamp(1, RESTART_STEPS)),
            restart_max_delay: grows.map(micros),
            hopeless_exits: exit::HOPELESS,
            kept_sockets: KEPT_SOCKETS,
            environment,
            environment_files: spec
                .environment_files
                .iter()
                .map(|path| text(path))
                .collect::<Result<_, _>>()?,
            credentials: spec
                .credentials
                .iter()
                .map(|(id, path)| Ok((id.clone(), credential_path(path, version)?)))
                .collect::<Result<_, Error>>()?,
            working_directory: spec.working_directory.as_deref().map(text).transpose()?,
            // Where desktops and `systemd-oomd` expect what a person started.
            slice: (scope == Scope::User).then_some("app.slice"),
            user,
            group,
            // The bridge's user may not make its own folder in /run.
            runtime_directory: (scope == Scope::System).then(|| folder.clone()),
            state_directory: (scope == Scope::System).then_some(folder),
            limits: spec.limits.clone(),
            sandbox: sandbox::directives(spec, scope, version)?,
            identifier: OWN_ACCOUNT,
            log_interval: LOG_INTERVAL,
            log_burst: LOG_BURST,
        })
    }
}

impl Settings {
    /// What tells these settings from others: all that a config decides, but not whom the unit runs and with which
    /// PATH, which were typed.
    fn digest(&self) -> String {
        let typed = Self {
            description: String::new(),
            start: Vec::new(),
            reload: None,
            start_timeout: 0,
            environment: Vec::new(),
            ..self.clone()
        };
        // The limits are no part of the texts.
        let digest = Sha256::digest(format!("{}{:?}", json!(typed), self.limits).as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the unit of `spec` has in its [`DIGEST_FIELD`].
///
/// # Errors
/// As [`transient_properties`].
pub(super) fn digest(spec: &UnitSpec, scope: Scope, version: Version) -> Result<String, Error> {
    Ok(Settings::new(spec, scope, version)?.digest())
}

/// The digest among the extra journal fields of a unit; `None` for one that was not made by us.
pub(super) fn digest_in(fields: &[Vec<u8>]) -> Option<String> {
    let fields = fields.iter().filter_map(|field| std::str::from_utf8(field).ok());
    fields.filter_map(|field| field.strip_prefix(DIGEST_FIELD)).map(str::to_owned).next()
}

/// The interval and burst with which `attempts` restarts in a row are the last.
///
/// The interval must be longer than the waits between the tries, and the time that a bridge lives which fails at once,
/// or the limit can never be reached. It must not be much longer, for restarts by hand count as well.
fn start_limit(attempts: u32, longest_delay: Duration) -> (Duration, u32) {
    let burst = attempts.saturating_add(1);
    (longest_delay.saturating_add(SHORT_LIFE).saturating_mul(burst), burst)
}

/// The names on the bus of an instance's bridge: in a transient unit, and in one with a file.
fn bus_names(instance: &str) -> Option<[String; 2]> {
    match instance {
        ANY_INSTANCE => Some(Name::bus_names_of(instance)),
        name => name.parse::<Name>().ok()?.bus_names(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::NotText { path: path.to_owned() })
}

/// The path of a credential's file. Newer versions hand it to the process that loads it in a form that they do not read
/// back. Measured: right in 252, broken in 257; the hand-over came with 255.
fn credential_path(path: &Path, version: Version) -> Result<String, Error> {
    let path = text(path)?;
    match path.chars().find(|character| matches!(character, ' ' | '\\')) {
        Some(character) if version.has(Feature::Executor) => {
            Err(Error::LostCharacter { argument: path, character, version: version.0 })
        }
        _ => Ok(path),
    }
}

/// A limit of memory as a unit file has it.
fn memory_text(amount: Memory) -> String {
    match amount {
        Memory::Bytes(bytes) => bytes.to_string(),
        Memory::Share(share) => format!("{}.{:02}%", share / 100, share % 100),
        Memory::Unlimited => "infinity".to_owned(),
    }
}

#[cfg(test)]
mod tests;
