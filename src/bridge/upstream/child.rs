//! Child processes: started without what is meant for the bridge, and never left behind.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::host;
use crate::host::cgroup::{Group, Groups, Limits};

/// What is set for the bridge by its own service manager, and would mislead a child (sd_notify(3), systemd.exec(5)).
const NOT_FOR_CHILDREN: [&str; 13] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "CREDENTIALS_DIRECTORY",
];

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// For the log.
    pub(crate) name: String,
    /// A path, or a name to be found on PATH.
    pub(crate) command: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Set on top of the bridge's own environment.
    pub(crate) env: Vec<(String, String)>,
    /// Where it runs.
    pub(crate) cwd: Option<PathBuf>,
    /// What it may use, where there are control groups.
    pub(crate) limits: Limits,
    /// Where its control group is made.
    pub(crate) groups: Arc<Groups>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// No such command.
    #[error("command `{command}` was not found on PATH ({path})")]
    NotFound {
        /// As configured.
        command: String,
        /// Where it was looked for.
        path: String,
    },
    /// No such folder to run in.
    #[error("its folder {} cannot be used: {source}", .cwd.display())]
    Folder {
        /// As configured.
        cwd: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// Anything else.
    #[error("`{command}` did not start: {source}")]
    Other {
        /// As configured.
        command: String,
        /// From the system.
        source: io::Error,
    },
}

impl SpawnError {
    /// Whether the next attempt will end the same unless a person does something.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Folder { .. })
    }
}

/// A program that was started.
pub(super) struct Started {
    pub(super) child: Child,
    /// Where all that it starts is.
    pub(super) group: Option<Arc<Group>>,
    /// Limits that this time are not in force, a sentence each.
    pub(super) unenforced: Vec<String>,
}

/// Starts the program in a process group of its own and, where there are any, a control group.
pub(super) fn spawn(program: &Program) -> Result<Started, SpawnError> {
    let configured =
        program.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, path)| OsString::from(path));
    let path = configured.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let Some(found) = host::path::find(&program.command, &path, program.cwd.as_deref()) else {
        return Err(SpawnError::NotFound {
            command: program.command.clone(),
            path: path.to_string_lossy().into_owned(),
        });
    };
    if let Some(cwd) = &program.cwd
        && let Err(source) = std::fs::read_dir(cwd)
    {
        return Err(SpawnError::Folder { cwd: cwd.clone(), source });
    }
    let (group, unenforced) = open_group(program);
    let mut command = Command::from(match &group {
        Some(group) => group.command(&found),
        None => std::process::Command::new(found),
    });
    command.args(&program.args).envs(program.env.iter().map(|(key, value)| (key, value)));
    for name in NOT_FOR_CHILDREN {
        if !program.env.iter().any(|(key, _)| key == name) {
            command.env_remove(name);
        }
    }
    if let Some(cwd) = &program.cwd {
        command.current_dir(cwd);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    match command.spawn() {
        Ok(child) => Ok(Started { child, group: group.map(Arc::new), unenforced }),
        Err(source) => {
            if let Some(group) = group {
                group.abandon();
            }
            Err(SpawnError::Other { command: program.command.clone(), source })
        }
    }
}

/// The control group for one run of the program; with it come the limits that are not in force. That there is none is
/// no reason not to run it: a process group it has anyway.
fn open_group(program: &Program) -> (Option<Group>, Vec<String>) {
    let (group, unenforced) = match program.groups.open(&program.name, &program.limits) {
        Ok(None) => return (None, Vec::new()),
        Ok(Some((group, refused))) => (Some(group), refused),
        Err(error) => (None, vec![format!("without a control group no limit is in force: {error}")]),
    };
    for limit in &unenforced {
        tracing::warn!(upstream = program.name, "{limit}");
    }
    (group, unenforced)
}

/// Signals the process group of a child that has not been reaped yet, so that its id cannot be another's.
pub(super) fn signal_group(pid: u32, signal: Signal) {
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only when nobody is left in the group.
        let _ = kill_process_group(group, signal);
    }
}

/// Waits for the child's end, kills what is left of its group, and only then reaps it: until then no stranger can have
/// its id.
pub(super) async fn exited(child: &mut Child, pid: u32) -> Option<ExitStatus> {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Ok(mut a_child_ended) = signal(SignalKind::child())
    {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while matches!(waitid(WaitId::Pid(pid), look), Ok(None)) {
            a_child_ended.recv().await;
        }
        // Fails only when nobody is left in the group.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    child.wait().await.ok()
}

/// How a process ended, in words.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("its process ended with status {code}"),
        Some((None, Some(signal))) => format!("its process was ended by signal {signal}"),
        _ => "its process ended".to_owned(),
    }
}
