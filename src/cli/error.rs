//! How a command ends: an exit code, and what to say about it.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use crate::config::{Invalid, InvalidKind};
use crate::instance::{InstanceError, LockError, NameError, PathsError, Scope};
use crate::manager::systemd::linger::LingerError;
use crate::{daemon, manager};

/// An exit code (sysexits.h from 64 on; 3 and 4 as LSB has them for `status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Ok,
    /// It was tried and failed; `server-status`: it runs, but something is wrong.
    Failed,
    /// `server-status`: it does not run.
    NotRunning,
    /// `server-status`: no bridge has that name.
    UnknownName,
    /// It was asked for what does not go together; clap ends with the same.
    Usage,
    /// There is no service manager to ask.
    Unavailable,
    /// This user may not do that.
    NotPermitted,
    /// The config has errors.
    BadConfig,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotRunning => 3,
            Exit::UnknownName => 4,
            Exit::Unavailable => 69,
            Exit::NotPermitted => 77,
            Exit::BadConfig => 78,
        })
    }
}

impl From<manager::ErrorKind> for Exit {
    fn from(kind: manager::ErrorKind) -> Self {
        match kind {
            manager::ErrorKind::Unreachable => Self::Unavailable,
            manager::ErrorKind::NotPermitted => Self::NotPermitted,
            manager::ErrorKind::NotRunning | manager::ErrorKind::Failed => Self::Failed,
        }
    }
}

/// What to do where only root may.
pub(crate) const AS_ROOT: &str = "use sudo, or your own manager: --user";

/// Why a command did not do what it was asked: what, why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    /// Lines, each a sentence.
    pub(crate) why: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl Error {
    /// One that says what; `because` and `hint` add to it.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), hint: None }
    }

    /// That a file of an instance of that scope cannot be used: `why` names it.
    pub(crate) fn of_file(what: impl Into<String>, why: String, error: &io::Error, scope: Scope) -> Self {
        match (error.kind(), scope) {
            (ErrorKind::PermissionDenied, Scope::System) => {
                Self::new(Exit::NotPermitted, what).because(why).hint(AS_ROOT)
            }
            (ErrorKind::PermissionDenied, Scope::User) => {
                Self::new(Exit::NotPermitted, what).because(why).hint("check who owns it")
            }
            _ => Self::new(Exit::Failed, what).because(why),
        }
    }

    /// Adds why.
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        let exit = match invalid.kind {
            InvalidKind::Missing | InvalidKind::Content => Exit::BadConfig,
            InvalidKind::Unreadable => Exit::NotPermitted,
        };
        let count = invalid.problems.len();
        let what = match (invalid.kind, count) {
            (InvalidKind::Content, 1) => "the config has an error".to_owned(),
            (InvalidKind::Content, _) => format!("the config has {count} errors"),
            _ => "the config cannot be read".to_owned(),
        };
        let mut error = Self::new(exit, what);
        let mut problems = invalid.problems;
        let hint = match invalid.kind {
            InvalidKind::Missing => Some("check the path after --config".to_owned()),
            // The file itself is the only problem, and its own hint is the better one.
            InvalidKind::Unreadable => problems.iter_mut().find_map(|problem| problem.hint.take()),
            InvalidKind::Content => {
                Some("mend it, and check it with `foxxy-bridge config validate`".to_owned())
            }
        };
        error.why = problems.iter().map(ToString::to_string).collect();
        error.hint = hint;
        error
    }
}

impl From<manager::Error> for Error {
    fn from(error: manager::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&manager::Error> for Error {
    fn from(error: &manager::Error) -> Self {
        let mut told = Self::new(error.kind().into(), error.to_string());
        told.why.extend(error.why());
        told.hint = error.hint();
        if let manager::Error::DidNotStart(failure) = error {
            match failure.exit_code {
                Some(77) => told.exit = Exit::NotPermitted,
                Some(78) => told.exit = Exit::BadConfig,
                _ => {}
            }
            let said = failure.status_text.as_deref().unwrap_or_default();
            for message in failure.log.iter().map(|entry| entry.message.as_str()) {
                // The bridge ends as every command does, with `complain`: its hint is the better one, and what is in
                // its last word to the service manager needs no second mention.
                if let Some(hint) = message.strip_prefix("hint: ") {
                    told.hint = Some(hint.to_owned());
                } else if !said.contains(message.trim_start_matches("error: ").trim()) {
                    told.why.push(format!("log: {message}"));
                }
            }
        }
        told
    }
}

impl From<LingerError> for Error {
    fn from(error: LingerError) -> Self {
        let mut told = Self::new(error.kind().into(), error.to_string());
        told.why.extend(error.why());
        told.hint = error.hint();
        told
    }
}

impl From<daemon::Error> for Error {
    fn from(error: daemon::Error) -> Self {
        let mut told = Self::new(Exit::Failed, error.to_string());
        told.hint = error.hint();
        told
    }
}

impl From<InstanceError> for Error {
    fn from(error: InstanceError) -> Self {
        let exit = match &error {
            InstanceError::Config { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied => Exit::NotPermitted,
                _ => Exit::BadConfig,
            },
            InstanceError::NameHeld { .. } | InstanceError::SocketPathTooLong { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string()).hint(error.hint())
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<PathsError> for Error {
    fn from(error: PathsError) -> Self {
        Self::new(Exit::Failed, error.to_string()).hint(error.hint())
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Self::new(Exit::NotPermitted, error.to_string()).hint("check who owns it, or use sudo")
            }
            _ => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
