//! What systemd says about a unit.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use zbus::OwnedObjectPath;
use zbus::proxy::CacheProperties;
use zbus_systemd::systemd1::{ServiceProxy, UnitProxy};

use super::failure;
use crate::control::Manager;
use crate::instance::{Name, Paths, Scope};
use crate::manager::{Managed, State};

/// An enum of the words that systemd sends, with room for the ones that a newer systemd will send.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum $name { $($variant,)+ Other(String) }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                })
            }
        }
    };
}

words! {
    /// How a job ended.
    JobResult {
        Done = "done", Canceled = "canceled", Timeout = "timeout", Failed = "failed", Dependency = "dependency",
        Skipped = "skipped", Invalid = "invalid", Assert = "assert", Unsupported = "unsupported",
        Collected = "collected", Once = "once", Frozen = "frozen",
    }
}

words! {
    /// How a service's last run ended.
    ServiceResult {
        Success = "success", Resources = "resources", Protocol = "protocol", Timeout = "timeout",
        ExitCode = "exit-code", Signal = "signal", CoreDump = "core-dump", Watchdog = "watchdog",
        StartLimitHit = "start-limit-hit", OomKill = "oom-kill", ExecCondition = "exec-condition",
    }
}

words! {
    /// Whether a unit runs.
    ActiveState {
        Active = "active", Reloading = "reloading", Inactive = "inactive", Failed = "failed",
        Activating = "activating", Deactivating = "deactivating", Maintenance = "maintenance",
        Refreshing = "refreshing",
    }
}

words! {
    /// Whether systemd knows a unit's definition.
    LoadState {
        Stub = "stub", Loaded = "loaded", NotFound = "not-found", BadSetting = "bad-setting", Error = "error",
        Merged = "merged", Masked = "masked",
    }
}

impl ActiveState {
    /// Whether it serves.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Active | Self::Reloading | Self::Refreshing)
    }

    /// Whether it is on its way to another state.
    pub(super) fn is_changing(&self) -> bool {
        matches!(self, Self::Activating | Self::Deactivating)
    }

    /// Whether nothing of it runs.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// A service's properties at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitState {
    pub(super) load: LoadState,
    pub(super) active: ActiveState,
    pub(super) sub: String,
    pub(super) result: ServiceResult,
    pub(super) main_pid: u32,
    pub(super) exec_main_pid: u32,
    /// `CLD_EXITED` and its kin, 0 when it has not ended.
    pub(super) exec_main_code: i32,
    /// An exit code or a signal's number, as `exec_main_code` says.
    pub(super) exec_main_status: i32,
    pub(super) status_text: String,
    pub(super) restarts: u32,
    /// Microseconds since 1970, 0 for never.
    pub(super) active_enter: u64,
    /// Microseconds since 1970, 0 for never.
    pub(super) state_change: u64,
    /// 32 hex digits; empty when it never ran.
    pub(super) invocation_id: String,
    pub(super) transient: bool,
    pub(super) fragment_path: String,
    pub(super) argv: Vec<String>,
}

impl UnitState {
    /// Asks systemd for the state of the service at `path`.
    pub(super) async fn read(connection: &zbus::Connection, path: &OwnedObjectPath) -> zbus::Result<Self> {
        let unit = UnitProxy::builder(connection)
            .path(path.clone())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let service = ServiceProxy::builder(connection)
            .path(path.clone())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        // At once, and not with GetAll: the properties that are not asked for are many, and dear to systemd.
        let (
            load,
            active,
            sub,
            active_enter,
            state_change,
            invocation_id,
            transient,
            fragment_path,
            result,
            main_pid,
            exec_main_pid,
            exec_main_code,
            exec_main_status,
            status_text,
            restarts,
            exec_start,
        ) = tokio::try_join!(
            unit.load_state(),
            unit.active_state(),
            unit.sub_state(),
            unit.active_enter_timestamp(),
            unit.state_change_timestamp(),
            unit.invocation_id(),
            unit.transient(),
            unit.fragment_path(),
            service.result(),
            service.main_pid(),
            service.exec_main_pid(),
            service.exec_main_code(),
            service.exec_main_status(),
            service.status_text(),
            service.n_restarts(),
            service.exec_start(),
        )?;
        Ok(Self {
            load: load.into(),
            active: active.into(),
            sub,
            result: result.into(),
            main_pid,
            exec_main_pid,
            exec_main_code,
            exec_main_status,
            status_text,
            restarts,
            active_enter,
            state_change,
            invocation_id: invocation_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            transient,
            fragment_path,
            argv: exec_start.into_iter().next().map(|command| command.1).unwrap_or_default(),
        })
    }

    /// The state of a unit that systemd no longer has.
    pub(super) fn blank() -> Self {
        Self {
            load: LoadState::NotFound,
            active: ActiveState::Inactive,
            sub: "dead".into(),
            result: ServiceResult::Success,
            main_pid: 0,
            exec_main_pid: 0,
            exec_main_code: 0,
            exec_main_status: 0,
            status_text: String::new(),
            restarts: 0,
            active_enter: 0,
            state_change: 0,
            invocation_id: String::new(),
            transient: false,
            fragment_path: String::new(),
            argv: Vec::new(),
        }
    }

    /// The state in our words.
    pub(super) fn state(&self) -> State {
        match &self.active {
            ActiveState::Active | ActiveState::Reloading | ActiveState::Refreshing => State::Running,
            // `auto-restart`, and since 254 also `auto-restart-queued`.
            ActiveState::Activating if self.sub.starts_with("auto-restart") => State::Restarting,
            ActiveState::Activating => State::Starting,
            ActiveState::Deactivating => State::Stopping,
            ActiveState::Failed => State::Failed,
            ActiveState::Inactive => State::Stopped,
            other => State::Other(other.to_string()),
        }
    }

    /// The state as an answer for people and programs.
    pub(super) fn into_managed(self, name: Name, unit: String) -> Managed {
        let state = self.state();
        let since = if state == State::Running { self.active_enter } else { self.state_change };
        let failure =
            matches!(state, State::Failed | State::Restarting).then(|| failure::explain_run(&self)).flatten();
        let config = config_argument(&self.argv, &name);
        Managed {
            name,
            manager: Manager::Systemd,
            unit,
            pid: (self.main_pid != 0).then_some(self.main_pid),
            state,
            since: (since != 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_micros(since)),
            config,
            argv: self.argv,
            restarts: Some(self.restarts),
            status_text: (!self.status_text.is_empty()).then_some(self.status_text),
            failure,
            transient: self.transient,
            fragment: (!self.fragment_path.is_empty()).then(|| PathBuf::from(self.fragment_path)),
            own_unit: None,
        }
    }
}

/// The config that a bridge's command line names, by itself or by its folder.
fn config_argument(argv: &[String], name: &Name) -> Option<PathBuf> {
    let value = |short: &str, long: &str| {
        let mut arguments = argv.iter().skip(1).take_while(|argument| *argument != "--");
        while let Some(argument) = arguments.next() {
            if argument == short || argument == long {
                return arguments.next().map(PathBuf::from);
            }
            let value = argument.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
            if let Some(value) = value {
                return Some(PathBuf::from(value));
            }
        }
        None
    };
    value("-c", "--config").or_else(|| {
        let folder = value("-C", "--config-dir")?;
        Some(Paths::from_env(Scope::System, Some(&folder), |_| None).ok()?.named_config(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_config_is_found_in_every_spelling() {
        let name: Name = "work".parse().unwrap();
        for line in ["b -c /a.json x", "b server start --config /a.json", "b --config=/a.json server start"] {
            assert_eq!(config_argument(&argv(line), &name), Some(PathBuf::from("/a.json")), "{line}");
        }
        for line in ["b -C /d server start --instance work", "b --config-dir=/d x", "b --config-dir /d"] {
            assert_eq!(config_argument(&argv(line), &name), Some(PathBuf::from("/d/work.json")), "{line}");
        }
        for line in ["b server start", "b -- --config /a.json", "b --config"] {
            assert_eq!(config_argument(&argv(line), &name), None, "{line}");
        }
    }

    #[test]
    fn a_word_of_a_newer_systemd_is_kept() {
        let result = ServiceResult::from("eaten-by-a-grue".to_owned());
        assert_eq!(result, ServiceResult::Other("eaten-by-a-grue".into()));
        assert_eq!(result.to_string(), "eaten-by-a-grue");
        assert_eq!(JobResult::from("done".to_owned()), JobResult::Done);
    }
}
