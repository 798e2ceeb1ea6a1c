//! Which instances there are: locks say who lives, files beside them what they are at.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use super::pid_file::{self, Holder, Seen};
use super::record::{Ended, Record};
use super::state::{Phase, State};
use super::{STATE, Supervisors, log};
use crate::control::Manager;
use crate::host::process::{Identity, Process};
use crate::instance::{Name, lock as instance_lock};
use crate::manager::{Error, LogQuery, LogStream, Managed, State as Stands};

/// A file that is about to be written says nothing for so long; how often it is looked at again.
const GLANCE: Duration = Duration::from_millis(10);
const GLANCES: u32 = 5;

/// All that is known of an instance.
#[derive(Debug)]
pub(super) struct Found {
    /// Its supervisor, if it lives.
    pub(super) supervisor: Option<Supervisor>,
    /// What that, or the last one, has said of the bridge.
    pub(super) state: Option<State>,
    /// What it has said of itself, where it does not live any more.
    stale: Option<Record>,
    /// Somebody else has the lock: their process, where the kernel tells it.
    pub(super) stranger: Option<Option<u32>>,
    /// Where its PID file is.
    pub(super) pid_file: PathBuf,
}

/// A supervisor that lives, and why that is sure.
#[derive(Debug)]
pub(super) enum Supervisor {
    /// It holds the lock of its PID file.
    Locks(Holder),
    /// Its PID file was taken from it, and it is the process that it said it was.
    Is(Identity),
}

impl Supervisor {
    /// Its number.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Locks(holder) => holder.number,
            Self::Is(identity) => identity.pid,
        }
    }

    /// Its process; `None` when it has just ended.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn process(&self) -> io::Result<Option<Process>> {
        let identity = match self {
            Self::Locks(holder) => return holder.process(),
            Self::Is(identity) => identity,
        };
        let Some(pid) = Pid::from_raw(identity.pid.cast_signed()) else { return Ok(None) };
        let process = match Process::open(pid) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // Who has the number now, and is the one that was started then, is the one that was opened in between.
        Ok((Identity::of(identity.pid).as_ref() == Some(identity)).then_some(process))
    }

    /// How it has ended, where it could still say so.
    pub(super) fn ended(&self) -> Option<Ended> {
        match self {
            Self::Locks(holder) => holder.record()?.ended,
            Self::Is(_) => None,
        }
    }
}

impl Found {
    /// The word of the supervisor that lives.
    pub(super) fn current(&self) -> Option<&State> {
        let number = self.supervisor.as_ref()?.number();
        self.state.as_ref().filter(|state| state.supervisor.pid == number)
    }

    /// How long it may take to stop; zero when it does not run.
    pub(super) fn stop_timeout(&self) -> Duration {
        self.current().map(|state| state.stop_timeout).unwrap_or_default()
    }

    /// Why it is down though nobody has stopped it, if so.
    fn failure(&self) -> Option<String> {
        // What was before this boot ended with the machine.
        let state = self.state.as_ref().filter(|state| state.supervisor.is_of_this_boot());
        let stale = self
            .stale
            .as_ref()
            .filter(|record| record.identity().is_of_this_boot() && record.ended.is_none());
        match (state, stale) {
            (Some(State { phase: Phase::Failed, failure, .. }), _) => {
                Some(failure.clone().unwrap_or_default())
            }
            (Some(State { supervisor: Identity { pid, .. }, .. }), _) | (None, Some(Record { pid, .. })) => {
                Some(format!("its supervisor (PID {pid}) was killed"))
            }
            (None, None) => None,
        }
    }

    /// As everybody sees it.
    pub(super) fn managed(&self, name: &Name) -> Option<Managed> {
        let (state, stands) = match &self.supervisor {
            Some(supervisor) => match self.current() {
                Some(state) => (Some(state), state.phase.into()),
                // It has removed its word on the bridge with what else was of use, and is about to end.
                None if supervisor.ended().is_some() => (None, Stands::Stopping),
                None => (None, Stands::Starting),
            },
            None => (self.state.as_ref(), Stands::Failed),
        };
        let failure = match &self.supervisor {
            Some(_) => state.and_then(|state| state.failure.clone()),
            None => Some(self.failure()?),
        };
        let config = self.stale.as_ref().map(|record| record.config.clone());
        Some(Managed {
            name: name.clone(),
            manager: Manager::Pidfile,
            unit: self.pid_file.display().to_string(),
            pid: state.filter(|_| self.supervisor.is_some()).and_then(|state| state.bridge),
            state: stands,
            since: state.map(State::since),
            config: state.map(|state| state.config.clone()).or(config),
            argv: state.map(|state| state.argv.clone()).unwrap_or_default(),
            restarts: Some(state.map(|state| state.restarts).unwrap_or_default()),
            status_text: state.and_then(|state| state.status_text.clone()),
            failure,
            transient: true,
            fragment: None,
            own_unit: state.and_then(|state| state.unit.clone()),
        })
    }
}

impl Supervisors {
    /// The file with a supervisor's word on its bridge.
    pub(super) fn state_file(&self, name: &Name) -> PathBuf {
        self.paths.runtime_dir(name).join(STATE)
    }

    /// What there is of an instance.
    ///
    /// # Errors
    /// From the system: what is in the place of its PID file is none.
    pub(super) fn look_up(&self, name: &Name) -> Result<Found, Error> {
        let own = self.paths.pid_file(name);
        for glance in 1.. {
            let state = State::read(&self.state_file(name));
            // It may have one of its own choice.
            let chosen = state.as_ref().map(|state| state.pid_file.clone()).filter(|path| *path != own);
            let mut pid_file = chosen.unwrap_or_else(|| own.clone());
            let mut seen = look(&pid_file)?;
            if pid_file != own && !is_of(&seen, name) {
                (pid_file, seen) = (own.clone(), look(&own)?);
            }
            let mut found = Found { supervisor: None, state, stale: None, stranger: None, pid_file };
            match seen {
                Seen::Held(holder) => found.supervisor = Some(Supervisor::Locks(holder)),
                Seen::Foreign { .. } if glance < GLANCES => {
                    std::thread::sleep(GLANCE);
                    continue;
                }
                Seen::Foreign { pid, record } => {
                    found.stranger = Some(pid);
                    found.stale = record;
                }
                Seen::Stale(record) => found.stale = record,
                Seen::Missing => {
                    let said = found.state.as_ref().map(|state| state.supervisor.clone());
                    let lives = said.filter(|said| Identity::of(said.pid).as_ref() == Some(said));
                    found.supervisor = lives.map(Supervisor::Is);
                }
            }
            return Ok(found);
        }
        unreachable!("the loop returns")
    }

    /// All that run, start, or have failed.
    pub(super) fn list_instances(&self) -> Vec<Managed> {
        let names: BTreeSet<Name> =
            instance_lock::names(&self.paths).into_iter().chain(self.paths.names_of_pid_files()).collect();
        // What is no PID file is nobody's: a start in its place says so.
        names.iter().filter_map(|name| self.look_up(name).ok()?.managed(name)).collect()
    }

    /// What an instance has logged.
    pub(super) fn logs_of(&self, query: &LogQuery) -> Result<LogStream, Error> {
        let found = self.look_up(&query.name)?;
        if found.current().is_some_and(|state| state.log_file.is_none()) {
            return Err(Error::LogElsewhere { name: query.name.clone() });
        }
        let said = found.state.and_then(|state| state.log_file).or_else(|| query.file.clone());
        log::stream(&said.unwrap_or_else(|| self.paths.log_file(&query.name)), query)
    }
}

/// Whether a PID file, of which anybody could say that it is this instance's, says so itself.
fn is_of(seen: &Seen, name: &Name) -> bool {
    let (Seen::Held(Holder { record: Some(record), .. }) | Seen::Stale(Some(record))) = seen else {
        return false;
    };
    record.name == name.as_str()
}

fn look(path: &Path) -> Result<Seen, Error> {
    pid_file::look(path).map_err(|source| Error::PidFile { path: path.to_owned(), source })
}
