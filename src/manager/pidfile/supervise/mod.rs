//! The supervisor: a small process of ours that keeps one bridge, and has one only as long as it lives itself.
//!
//! It is this program, started anew with nothing but its order, and becomes what it has to be before any thread or
//! runtime is there: the leader of a session, another user, the one to whom all orphans of the bridge come home.

mod budget;
mod ears;
mod keeper;
mod log;
mod run;
mod wishes;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Resource, Rlimit};

use self::keeper::Keeper;
use super::order::{Order, Report};
use super::pid_file::{self, ClaimError, PidFile};
use crate::host::fault;

/// What the first argument is instead of a command that a person could type.
const WORD: &str = "(keep a bridge)";

/// How it ends when it could not begin.
const NOT_BEGUN: u8 = 1;

/// The command that becomes a supervisor: its order is a line of its standard input, where that is a socket its reports
/// go the other way.
pub(super) fn command() -> Command {
    // Also when the file was replaced meanwhile: it is this very program.
    let mut command = Command::new("/proc/self/exe");
    command.arg(WORD);
    command
}

/// Whether that process was started as a supervisor, by its command line.
pub(super) fn is_one(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(WORD.as_bytes())
}

/// When this process was started to keep a bridge, does that to its end; else `None`.
pub fn enter(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1)? != WORD {
        return None;
    }
    let mut line = String::new();
    let order = match io::stdin().lock().read_line(&mut line) {
        Ok(_) => serde_json::from_str::<Order>(&line).ok(),
        Err(_) => None,
    };
    // Only a person who types it gets here without one.
    let Some(order) = order else { return Some(ExitCode::from(2)) };
    let mut reports = Reports::new(order.foreground);
    Some(match begin(&order, &mut reports) {
        Ok(pid_file) => keep(order, pid_file, reports),
        Err(report) => {
            reports.tell(&report);
            ExitCode::from(NOT_BEGUN)
        }
    })
}

/// Becomes what a supervisor is, and takes its PID file.
fn begin(order: &Order, reports: &mut Reports) -> Result<PidFile, Report> {
    let refused = |action: &str| {
        let action = action.to_owned();
        move |error: io::Error| Report::refused(action, &error)
    };
    // As `ps` and `pgrep` show it; it would be `exe`.
    let _ = rustix::thread::set_name(c"foxxy-bridge");
    // No terminal's end is its own, and no signal of a terminal is meant for it. A container's first process has begun
    // one already, as a rule.
    match rustix::process::setsid() {
        Err(error) if !order.foreground => return Err(Report::refused("begin a session", &error.into())),
        _ => {}
    }
    if let Some(nofile) = order.nofile {
        let limit = Rlimit { current: Some(nofile), maximum: Some(nofile) };
        rustix::process::setrlimit(Resource::Nofile, limit)
            .map_err(|error| Report::refused("set the limit of open files", &error.into()))?;
    }
    if let Some(account) = &order.account {
        account.become_it().map_err(refused(&format!("become the user `{}`", account.name)))?;
    }
    if !order.may_gain_privileges {
        // A kernel that cannot do that is older than all that have the rest of what is needed.
        let _ = rustix::thread::set_no_new_privs(true);
    }
    let own = Pid::from_raw(std::process::id().cast_signed());
    rustix::process::set_child_subreaper(own)
        .map_err(|error| Report::refused("adopt the orphans of the bridge", &error.into()))?;
    // It must not keep a file system from being unmounted.
    let _ = std::env::set_current_dir(Path::new("/"));
    let pid_file = PidFile::claim(&order.pid_file, order.own_pid_file).map_err(|error| match error {
        ClaimError::Held(by) => Report::Held(by),
        ClaimError::Foreign => {
            Report::refused(format!("use {}", order.pid_file.display()), &pid_file::foreign())
        }
        ClaimError::Io(error) => {
            Report::refused(format!("use the PID file {}", order.pid_file.display()), &error)
        }
    })?;
    fault::point("supervisor:claimed");
    reports.tell(&Report::Claimed);
    Ok(pid_file)
}

fn keep(order: Order, pid_file: PidFile, mut reports: Reports) -> ExitCode {
    // Signals and children come through it; what may wait for a disk has threads of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            reports.tell(&Report::refused("start", &error));
            pid_file.remove();
            return ExitCode::from(NOT_BEGUN);
        }
    };
    runtime.block_on(async {
        match Keeper::open(order, pid_file, reports) {
            Ok(keeper) => keeper.keep().await,
            Err(code) => code,
        }
    })
}

/// Whoever has started this process, as long as they want to know how that goes.
struct Reports {
    to: Option<File>,
    foreground: bool,
}

impl Reports {
    fn new(foreground: bool) -> Self {
        let own = || Some(io::stdin().as_fd().try_clone_to_owned().ok()?.into());
        Self { to: if foreground { None } else { own() }, foreground }
    }

    /// Tells them; in the foreground a person, and only of what went wrong.
    fn tell(&mut self, report: &Report) {
        if let Some(to) = &mut self.to {
            let mut line = serde_json::to_string(report).unwrap_or_default();
            line.push('\n');
            // Whoever has gone needs no report.
            let _ = to.write_all(line.as_bytes());
        } else if self.foreground {
            let said = match report {
                Report::Refused { action, detail, .. } => format!("cannot {action}: {detail}"),
                Report::Held(Some(by)) => format!("the bridge is running already, kept by process {by}"),
                Report::Held(None) => "the bridge is running already".to_owned(),
                Report::Claimed | Report::Ready | Report::Failed { .. } => return,
            };
            // Where nobody can be told, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {said}");
        }
    }

    /// There is nothing more to tell.
    fn end(&mut self) {
        self.to = None;
        // The other end waits for the last descriptor to be closed.
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdin(null);
        }
    }
}
