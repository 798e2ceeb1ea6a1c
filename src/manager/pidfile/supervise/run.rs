//! One run of the bridge: its process, and all that is left of it afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::Signal as Listener;

use crate::host::{env_file, process};
use crate::manager::exit;
use crate::manager::pidfile::order::Settings;

/// What systemd or another supervisor has set for this process, and would mislead the bridge.
const NOT_FOR_BRIDGE: [&str; 9] = [
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
];

/// Between two looks at who is left.
const GLANCE: Duration = Duration::from_millis(50);

/// A bridge that was started, and not reaped yet: its number is its own.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) pid: Pid,
}

/// How a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl End {
    fn of(status: WaitStatus) -> Option<Self> {
        status.exit_status().map(Self::Code).or_else(|| status.terminating_signal().map(Self::Signal))
    }

    /// The exit code, when it ended with one.
    pub(super) fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// In words.
    pub(super) fn explain(self) -> String {
        match self {
            Self::Code(0) => "it ended at once, without an error".to_owned(),
            Self::Code(code) => exit::explain_code(code),
            Self::Signal(signal) => format!("it was killed by {}", exit::signal_name(signal)),
        }
    }

    /// Whether another try cannot help.
    pub(super) fn is_hopeless(self) -> bool {
        self.code().is_some_and(|code| exit::HOPELESS.contains(&code))
    }
}

impl Bridge {
    /// Starts it. Its words go to the socket at `ears`, its log comes out of the pipe; `kept` is the socket that clients
    /// connect to, from its last run.
    pub(super) fn start(
        settings: &Settings,
        variables: &BTreeMap<String, String>,
        ears: &Path,
        kept: Option<&OwnedFd>,
    ) -> io::Result<(Self, PipeReader)> {
        let [program, arguments @ ..] = &settings.exec[..] else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (log, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--supervisor", &std::process::id().to_string()]);
        for name in NOT_FOR_BRIDGE {
            command.env_remove(name);
        }
        command.envs(&settings.environment).envs(variables).env("NOTIFY_SOCKET", ears);
        if let Some(patience) = settings.watchdog {
            command.env("WATCHDOG_USEC", patience.as_micros().to_string());
        }
        command.current_dir(&settings.working_directory).process_group(0);
        command.stdin(match kept {
            Some(socket) => Stdio::from(socket.try_clone()?),
            None => Stdio::null(),
        });
        command.stdout(writer.try_clone()?).stderr(writer);
        let child =
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        Ok((Self { pid: Pid::from_child(&child) }, log))
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // Not reaped, so that it can be no other; one that has ended needs none.
        let _ = kill_process(self.pid, signal);
    }

    /// Waits until it has ended, and reaps whoever else has meanwhile.
    pub(super) async fn ended(&self, children: &mut Listener) -> End {
        loop {
            while let Some((pid, status)) = reap() {
                if let (true, Some(end)) = (pid == self.pid, End::of(status)) {
                    return end;
                }
            }
            children.recv().await;
        }
    }
}

/// The variables in these files, the last one first in rank; one that is not there has none.
///
/// # Errors
/// From the system, with the file's name.
pub(super) fn variables(files: &[impl AsRef<Path>]) -> io::Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for file in files.iter().map(AsRef::as_ref) {
        match fs::read_to_string(file) {
            Ok(text) => variables.extend(env_file::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }
    Ok(variables)
}

/// Kills all that a bridge that is gone has left, until nobody is there. As those whose parents have ended are this
/// process's children, none gets away by starting others. With `session` only those of this process's session: as a
/// container's first process it is given the orphans of strangers.
///
/// False when some are left after that time, which the kernel does not let go.
pub(super) async fn end_rest(session: bool, within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        while reap().is_some() {}
        let own = process::session(std::process::id());
        let left: Vec<Pid> = process::children()
            .into_iter()
            .filter(|pid| !session || process::session(*pid) == own)
            .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
            .collect();
        if left.is_empty() {
            return true;
        }
        for pid in left {
            // They are not reaped yet, so that none of them can be another.
            let _ = kill_process(pid, Signal::KILL);
        }
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// The next child that has ended.
pub(super) fn reap() -> Option<(Pid, WaitStatus)> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(ended) => return ended,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
