//! Why a manager could not do what was asked: what, why and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Entry, Hidden};
use crate::host::account::AccountError;
use crate::instance::{Name, Scope};

/// What a caller does differently about; one exit code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no service manager, or it does not answer (exit code 69).
    Unreachable,
    /// The service manager does not let this user do it (77).
    NotPermitted,
    /// There is no such running instance (3 where a status is asked, else 1).
    NotRunning,
    /// It was tried and failed (1).
    Failed,
}

/// Why a manager could not do what was asked. The text is the "what"; [`Error::why`] and [`Error::hint`] go with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd is not PID 1 here.
    #[error("systemd is not running on this machine")]
    NotBooted {
        /// Whether this is Windows Subsystem for Linux, where it can be switched on.
        wsl: bool,
    },
    /// The calling user has no bus, and so no reachable user manager.
    #[error("the systemd user manager of uid {uid} cannot be reached")]
    NoUserBus {
        /// The calling user.
        uid: u32,
        /// `XDG_RUNTIME_DIR`, where the bus would be.
        runtime_dir: Option<PathBuf>,
        /// Who called sudo, when somebody did.
        sudo_user: Option<String>,
    },
    /// `XDG_RUNTIME_DIR` is another user's, as after `su`.
    #[error("the systemd user manager of uid {uid} cannot be reached")]
    ForeignRuntimeDir {
        /// The calling user.
        uid: u32,
        /// `XDG_RUNTIME_DIR`.
        runtime_dir: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A bus socket is there and nobody answers on it.
    #[error("the {scope} bus at {address} cannot be reached")]
    BusUnreachable {
        /// Whose bus.
        scope: Scope,
        /// Where.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// The bus answers, and systemd is not on it.
    #[error("systemd is not on the {scope} bus at {address}")]
    NotOnBus {
        /// Whose bus.
        scope: Scope,
        /// Where.
        address: String,
    },
    /// systemd did not answer in time.
    #[error("systemd did not answer within {} s", after.as_secs_f32())]
    NoAnswer {
        /// How long we waited.
        after: Duration,
    },
    /// The connection ended in the middle of the work.
    #[error("the connection to systemd was lost in the attempt to {action}")]
    Lost {
        /// What was tried.
        action: String,
    },
    /// This systemd lacks what we need.
    #[error("systemd {version} is too old: {minimum} or newer is needed")]
    TooOld {
        /// What is running.
        version: u32,
        /// What is needed.
        minimum: u32,
    },
    /// This user may not do that.
    #[error("this user may not {action}")]
    NotPermitted {
        /// What was tried.
        action: String,
        /// Whose manager refused.
        scope: Scope,
        /// What it said.
        detail: String,
    },
    /// systemd does not take the unit as we describe it.
    #[error("systemd refused to {action}")]
    Rejected {
        /// What was tried.
        action: String,
        /// What it said.
        detail: String,
    },
    /// A path cannot be handed to systemd.
    #[error("the path {} cannot be given to systemd", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action}")]
    File {
        /// To do what, with its path.
        action: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An administrator has said that a unit is not to be started.
    #[error("{unit} is masked, so that it is never started")]
    Masked {
        /// Which.
        unit: String,
        /// Whose manager.
        scope: Scope,
    },
    /// The manager names no folder for unit files of its user's own.
    #[error("systemd has no folder for unit files")]
    NoUnitFolder,
    /// A path cannot stand in a unit file.
    #[error("the unit file cannot be written")]
    NotInUnitFile {
        /// Which, and why.
        detail: String,
    },
    /// A command line cannot be kept by this systemd.
    #[error("the argument `{argument}` cannot be given to systemd")]
    LostCharacter {
        /// The argument.
        argument: String,
        /// What it cannot have in it.
        character: char,
        /// The version that cannot do it.
        version: u32,
    },
    /// The bridge was started and does not serve.
    #[error("the bridge `{}` did not {}", .0.name, .0.verb)]
    DidNotStart(Box<StartFailure>),
    /// systemd does not listen for a bridge that its first client would start.
    #[error("systemd does not listen for the bridge `{name}`")]
    DidNotListen {
        /// The instance.
        name: Name,
        /// Its socket.
        unit: String,
        /// Whose manager tried.
        scope: Scope,
        /// How the attempt ended, in systemd's word.
        result: String,
    },
    /// There is nothing to restart or signal.
    #[error("the bridge `{name}` is not running")]
    NotRunning {
        /// The instance.
        name: Name,
    },
    /// It was told to stop and still runs.
    #[error("the bridge `{name}` did not stop within {} s", after.as_secs())]
    DidNotStop {
        /// The instance.
        name: Name,
        /// How long we waited.
        after: Duration,
        /// The processes that are left.
        pids: Vec<u32>,
    },
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal {
        /// What `journalctl` said.
        detail: String,
    },
    /// There are lines, perhaps, that this user may not see.
    #[error("this user may not read all of the log")]
    JournalHidden {
        /// What hides them.
        why: Hidden,
        /// Whose manager keeps the bridge.
        scope: Scope,
        /// The bridge's unit.
        unit: String,
    },
    /// A time that the log is to begin or end at.
    #[error("the time after --since or --until cannot be used")]
    BadTime {
        /// What is wrong with it.
        detail: String,
    },
    /// `journalctl` cannot be run.
    #[error("`journalctl` cannot be run")]
    NoJournalctl {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What only systemd can do was asked of another manager.
    #[error("the bridge `{name}` cannot be enabled")]
    NotEnabledHere {
        /// The instance.
        name: Name,
    },
    /// The log is where no command of ours can read it.
    #[error("the log of `{name}` is in no file")]
    LogElsewhere {
        /// The instance.
        name: Name,
    },
    /// A supervisor of ours cannot do its work.
    #[error("cannot {action}")]
    Refused {
        /// To do what.
        action: String,
        /// What the system said.
        detail: String,
        /// Whether it is for want of rights.
        not_permitted: bool,
    },
    /// What is in the place of a PID file cannot be one.
    #[error("the PID file {} cannot be used", path.display())]
    PidFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        #[source]
        source: io::Error,
    },
    /// A PID file is held by a process that is no supervisor of the bridge.
    #[error("the PID file {} is held by another process", path.display())]
    Stranger {
        /// Which file.
        path: PathBuf,
        /// The process, where the kernel tells it.
        pid: Option<u32>,
    },
    /// The user or group that a bridge is to run as is not there.
    #[error("the bridge `{name}` cannot run as its config says")]
    Account {
        /// The instance.
        name: Name,
        /// What is missing.
        source: AccountError,
    },
    /// Only root can run a bridge as another user.
    #[error("the bridge `{name}` cannot be started as the user `{user}`")]
    NotRoot {
        /// The instance.
        name: Name,
        /// As the config has it.
        user: String,
    },
    /// systemd answered with an error that we have no words for.
    #[error("systemd could not {action}")]
    Bus {
        /// What was tried.
        action: String,
        /// What it said.
        #[source]
        source: zbus::Error,
    },
}

/// All that is known of a start that failed.
#[derive(Debug, Clone)]
pub struct StartFailure {
    /// The instance.
    pub name: Name,
    /// `start` or `restart`.
    pub verb: &'static str,
    /// Why, in a sentence.
    pub reason: String,
    /// The exit code of the bridge, when it ended with one of its own.
    pub exit_code: Option<i32>,
    /// The bridge's own last word on itself.
    pub status_text: Option<String>,
    /// Its last log lines, oldest first.
    pub log: Vec<Entry>,
    /// Who goes on trying, if anybody does.
    pub retrying: Option<&'static str>,
    /// What to type to see all that it has logged.
    pub whole_log: String,
}

impl Error {
    /// What a caller does differently about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotBooted { .. }
            | Self::NoUserBus { .. }
            | Self::ForeignRuntimeDir { .. }
            | Self::BusUnreachable { .. }
            | Self::NotOnBus { .. }
            | Self::NoAnswer { .. }
            | Self::Lost { .. }
            | Self::TooOld { .. } => ErrorKind::Unreachable,
            Self::NotPermitted { .. } | Self::JournalHidden { .. } => ErrorKind::NotPermitted,
            Self::File { source, .. } | Self::PidFile { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::NotPermitted
            }
            Self::NotRoot { .. } | Self::Refused { not_permitted: true, .. } => ErrorKind::NotPermitted,
            Self::NotRunning { .. } => ErrorKind::NotRunning,
            Self::Rejected { .. }
            | Self::NotText { .. }
            | Self::LostCharacter { .. }
            | Self::NotInUnitFile { .. }
            | Self::File { .. }
            | Self::NoUnitFolder
            | Self::Masked { .. }
            | Self::DidNotStart(_)
            | Self::DidNotListen { .. }
            | Self::DidNotStop { .. }
            | Self::Journal { .. }
            | Self::BadTime { .. }
            | Self::NoJournalctl { .. }
            | Self::NotEnabledHere { .. }
            | Self::LogElsewhere { .. }
            | Self::Refused { .. }
            | Self::PidFile { .. }
            | Self::Stranger { .. }
            | Self::Account { .. }
            | Self::Bus { .. } => ErrorKind::Failed,
        }
    }

    /// Why, in a sentence, where the text does not say it already.
    pub fn why(&self) -> Option<String> {
        Some(match self {
            Self::NotBooted { .. } => {
                "there is no /run/systemd/system: another init runs here, or none".into()
            }
            Self::NoUserBus { runtime_dir: None, .. } => {
                "XDG_RUNTIME_DIR is not set and /run/user has no bus of this user".into()
            }
            Self::NoUserBus { runtime_dir: Some(dir), .. } => {
                format!("there is no bus at {}/bus", dir.display())
            }
            Self::ForeignRuntimeDir { runtime_dir, owner, .. } => {
                format!("XDG_RUNTIME_DIR is {}, which belongs to uid {owner}", runtime_dir.display())
            }
            Self::BusUnreachable { detail, .. }
            | Self::NotPermitted { detail, .. }
            | Self::Rejected { detail, .. }
            | Self::BadTime { detail }
            | Self::Journal { detail } => detail.clone(),
            Self::JournalHidden { why, .. } => why.why().into(),
            Self::NotOnBus { .. } => "the bus was started by something else, such as dbus-run-session".into(),
            Self::NotText { .. } => "it is not UTF-8".into(),
            Self::LostCharacter { character, version, .. } => {
                format!("systemd {version} does not keep the `{character}` when it reloads its units")
            }
            Self::DidNotStart(failure) => failure.why(),
            Self::DidNotListen { unit, result, .. } => format!("the start of {unit} ended with `{result}`"),
            Self::DidNotStop { pids, .. } if pids.is_empty() => "systemd has not finished stopping it".into(),
            Self::NotEnabledHere { .. } => "that takes systemd: nothing else starts it at boot".into(),
            Self::LogElsewhere { .. } => "it goes to the standard output of its container".into(),
            Self::Refused { detail, .. } => detail.clone(),
            Self::Stranger { pid: Some(pid), .. } => format!("process {pid} is no supervisor of this bridge"),
            Self::Stranger { pid: None, .. } => "it is in another container, or ends again each time".into(),
            Self::Account { source, .. } => source.to_string(),
            Self::NotRoot { .. } => "only root can become another user".into(),
            Self::DidNotStop { pids, .. } => format!("these processes are left: {}", join(pids)),
            Self::NoJournalctl { source } | Self::File { source, .. } | Self::PidFile { source, .. } => {
                source.to_string()
            }
            Self::NotInUnitFile { detail } => detail.clone(),
            Self::Bus { source, .. } => source.to_string(),
            Self::NoAnswer { .. }
            | Self::Lost { .. }
            | Self::TooOld { .. }
            | Self::NotRunning { .. }
            | Self::NoUnitFolder
            | Self::Masked { .. } => return None,
        })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotBooted { wsl: true } => "put `[boot]` and `systemd=true` in /etc/wsl.conf, then run \
                `wsl --shutdown` in Windows; or leave it to a PID file: --manager pidfile"
                .into(),
            Self::NotBooted { wsl: false } | Self::TooOld { .. } => {
                "leave it to a PID file: --manager pidfile".into()
            }
            Self::NoUserBus { sudo_user: Some(user), .. } => {
                format!("run it as {user}, without sudo; or use the machine's manager: --system")
            }
            Self::NoUserBus { uid: 0, .. } => "use the machine's manager: --system".into(),
            Self::NoUserBus { uid, runtime_dir: Some(_), .. } => format!(
                "see that the package dbus-user-session (or dbus-broker) is installed and \
                 `systemctl status user@{uid}.service` is active, then log in again"
            ),
            Self::NoUserBus { runtime_dir: None, .. } | Self::ForeignRuntimeDir { .. } => {
                "log in as this user (ssh, or `machinectl shell USER@`) rather than with su or sudo -u; \
                 for a user who never logs in: `sudo loginctl enable-linger USER`"
                    .into()
            }
            Self::BusUnreachable { scope, .. } | Self::NotOnBus { scope, .. } => match scope {
                Scope::User => {
                    "`unset DBUS_SESSION_BUS_ADDRESS`, or log in again; then try `systemctl --user status`"
                        .into()
                }
                Scope::System => "try `systemctl status dbus.socket`".into(),
            },
            Self::NoAnswer { .. } | Self::Lost { .. } => "try again; it may be busy or reloading".into(),
            Self::NotPermitted { scope: Scope::System, .. } => "use sudo, or your own manager: --user".into(),
            Self::NotRunning { .. } => "see what is running: foxxy-bridge server list".into(),
            Self::DidNotStart(failure) => {
                format!("see all of its log: {}", failure.whole_log)
            }
            Self::DidNotListen { unit, scope, .. } => {
                format!("something else may have the port; see: systemctl {} status {unit}", scope.flag())
            }
            Self::DidNotStop { name, .. } => format!("kill it: foxxy-bridge server stop {name} --force"),
            Self::Journal { .. } => "add this user to the group systemd-journal, or read it with sudo".into(),
            Self::JournalHidden { scope, unit, .. } => {
                let field = match scope {
                    Scope::User => "_SYSTEMD_USER_UNIT",
                    Scope::System => "_SYSTEMD_UNIT",
                };
                format!(
                    "have this user added to it (`sudo usermod -aG systemd-journal USER`) and log in again; \
                     or, this once, `sudo journalctl {field}={unit}`"
                )
            }
            Self::BadTime { .. } => {
                "write \"2026-01-31 12:00\", \"10 min ago\", yesterday or now; systemd.time(7) has all forms"
                    .into()
            }
            Self::LostCharacter { character, .. } => {
                format!("use a path without `{character}`; a link to the file or folder will do")
            }
            Self::NotInUnitFile { .. } => "use another path; a link to the file or folder will do".into(),
            Self::Masked { unit, scope } => {
                format!("if that is not meant any more: systemctl {} unmask {unit}", scope.flag())
            }
            Self::NoJournalctl { .. } => "install systemd's journalctl, and see that it is on PATH".into(),
            Self::NotEnabledHere { name } => format!(
                "have your init run `foxxy-bridge server start --daemon` at boot; this once: \
                 foxxy-bridge server start --daemon --name {name}"
            ),
            Self::Stranger { pid: Some(pid), path } => {
                format!("see what it is: ps -fp {pid}; or take another PID file than {}", path.display())
            }
            Self::LogElsewhere { .. } => {
                "outside of the container: docker logs, podman logs or kubectl logs".into()
            }
            Self::Account { .. } => "mend bridge.daemon.user and bridge.daemon.group in the config".into(),
            Self::NotRoot { user, .. } => {
                format!("start it as root or as {user}, or take bridge.daemon.user out of the config")
            }
            Self::Refused { action, .. } if action.contains("open files") => {
                "take a lower bridge.daemon.limits.nofile, or raise the hard limit (ulimit -Hn)".into()
            }
            Self::Refused { not_permitted: true, .. } => {
                "see who owns it, or name another place in bridge.daemon (pid_file, log_file)".into()
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check who owns it".into()
            }
            Self::PidFile { path, .. } => format!(
                "see what it is (ls -ld {}) and remove it, or name another one in bridge.daemon.pid_file",
                path.display()
            ),
            Self::Refused { action, .. } if action.contains('/') => {
                "see what is there, or name another place in bridge.daemon (pid_file, log_file)".into()
            }
            Self::Stranger { pid: None, .. } => {
                "see who has it there, or name another one in bridge.daemon.pid_file".into()
            }
            Self::Refused { .. }
            | Self::NotPermitted { scope: Scope::User, .. }
            | Self::Rejected { .. }
            | Self::NotText { .. }
            | Self::File { .. }
            | Self::NoUnitFolder
            | Self::Bus { .. } => return None,
        })
    }
}

impl StartFailure {
    /// The reason, the bridge's last word, and whether it is over, in a sentence or two.
    fn why(&self) -> String {
        let mut why = self.reason.clone();
        if let Some(text) = &self.status_text {
            why = format!("{why}; it said last: {text}");
        }
        if let Some(who) = self.retrying {
            why.push_str(&format!("; {who} goes on trying"));
        }
        why
    }
}

fn join(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
