//! Starting, until the bridge serves or it is known why it does not.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::jobs::JobError;
use super::state::{ActiveState, JobResult, LoadState, UnitState};
use super::{Systemd, failure, is_systemd_error, journal, unit};
use crate::instance::Name;
use crate::manager::{Enablement, Error, Managed, Run, StartFailure, StartRequest, Started};

/// How many of its last log lines a failure carries.
const LAST_WORDS: u32 = 20;

/// How often a start is tried anew when the unit turns out to be there and then not to be.
const START_TRIES: u32 = 5;

/// How a start or restart came to its end.
pub(super) enum End {
    /// With its job's.
    Job(JobResult),
    /// With that of a job that somebody else made.
    OthersJob,
    /// With the caller's patience.
    Deadline(Duration),
}

impl Systemd {
    /// Starts an instance: as a transient unit, or the unit that it is enabled with.
    pub(super) async fn start_instance(&self, request: &StartRequest) -> Result<Started, Error> {
        let deadline = Instant::now() + request.timeout;
        let (transient, kept) = (request.name.unit(), request.name.template_unit());
        for unit in [&kept, &transient] {
            if let Some(running) =
                self.already_running(&request.name, unit, request.timeout, deadline).await?
            {
                return Ok(Started::AlreadyRunning(running));
            }
        }
        let (unit, properties) = match &request.run {
            Run::Transient(spec) => {
                (transient, Some(unit::transient_properties(spec, self.scope, self.version)?))
            }
            Run::Enabled(_) => (kept, None),
        };
        let mut opened = false;
        if let Run::Enabled(Enablement::FirstClient) = request.run {
            let listens = self.active_state(&request.name.template_socket()).await?;
            opened = listens.is_none_or(|state| !state.is_up());
            self.open_socket(&request.name, request.timeout, deadline).await?;
        }
        for _ in 0..START_TRIES {
            self.reset_failed(&unit).await?;
            let enqueued = match properties.clone() {
                Some(properties) => {
                    let start = self.manager.start_transient_unit(
                        unit.clone(),
                        "fail".into(),
                        properties,
                        Vec::new(),
                    );
                    self.enqueue(&unit, start).await
                }
                None => {
                    // The transient one is held by its properties.
                    self.hold(&unit).await;
                    self.enqueue(&unit, self.manager.start_unit(unit.clone(), "replace".into())).await
                }
            };
            let job = match enqueued {
                Ok(job) => job,
                // Left over from a failed run, or somebody else was faster.
                Err(JobError::Refused(error)) if is_systemd_error(&error, "UnitExists") => {
                    match self.already_running(&request.name, &unit, request.timeout, deadline).await? {
                        Some(running) => return Ok(Started::AlreadyRunning(running)),
                        None => {
                            self.may_be_made(&unit).await?;
                            continue;
                        }
                    }
                }
                Err(error) => return Err(self.job_error(format!("start {unit}"), request.timeout, error)),
            };
            if !request.wait {
                return Ok(Started::Queued { unit });
            }
            let end = match job.finish(deadline).await {
                Ok(result) => End::Job(result),
                Err(JobError::Deadline) => End::Deadline(request.timeout),
                Err(error) => return Err(self.job_error(format!("start {unit}"), request.timeout, error)),
            };
            let outcome = self.outcome(&request.name, &unit, "start", end).await;
            if outcome.is_err() {
                if opened {
                    // Or each client would start it again.
                    self.clear_away(&request.name.template_socket()).await;
                }
                self.clear_away(&unit).await;
            }
            self.release(&unit).await;
            return outcome.map(Started::Running);
        }
        Err(Error::Rejected {
            action: format!("start {unit}"),
            detail: "a unit of this name is there each time, and gone when looked at".into(),
        })
    }

    /// That no unit file stands in the place of a transient unit.
    async fn may_be_made(&self, unit: &str) -> Result<(), Error> {
        let Some(state) = self.state_of(unit).await? else { return Ok(()) };
        if state.load == LoadState::Masked {
            return Err(Error::Masked { unit: unit.to_owned(), scope: self.scope });
        }
        if state.transient || state.fragment_path.is_empty() {
            return Ok(());
        }
        let detail = format!("there is a unit file of that name already: {}", state.fragment_path);
        Err(Error::Rejected { action: format!("start {unit}"), detail })
    }

    /// The calls that start an instance.
    pub(super) fn preview_of(&self, request: &StartRequest) -> Result<String, Error> {
        let (unit, socket) = (request.name.template_unit(), request.name.template_socket());
        Ok(match &request.run {
            Run::Enabled(Enablement::FirstClient) => {
                format!("call StartUnit({socket:?}, \"replace\")\ncall StartUnit({unit:?}, \"replace\")")
            }
            Run::Enabled(_) => format!("call StartUnit({unit:?}, \"replace\")"),
            Run::Transient(spec) => {
                let mut call = format!("call StartTransientUnit({:?}, \"fail\") with", request.name.unit());
                for (name, value) in unit::transient_properties(spec, self.scope, self.version)? {
                    call.push_str(&format!("\n    {name} = {}", &*value));
                }
                call
            }
        })
    }

    /// Has systemd listen for an instance that its first client starts.
    async fn open_socket(&self, name: &Name, timeout: Duration, deadline: Instant) -> Result<(), Error> {
        let socket = name.template_socket();
        let failed = |error| self.job_error(format!("start {socket}"), timeout, error);
        let start = self.manager.start_unit(socket.clone(), "replace".into());
        match self.enqueue(&socket, start).await.map_err(failed)?.finish(deadline).await.map_err(failed)? {
            JobResult::Done | JobResult::Skipped => Ok(()),
            result => Err(Error::DidNotListen {
                name: name.clone(),
                unit: socket,
                scope: self.scope,
                result: result.to_string(),
            }),
        }
    }

    /// The config that the unit names which an instance is enabled with.
    pub(super) async fn config_of(&self, name: &Name) -> Result<Option<PathBuf>, Error> {
        let unit = name.template_unit();
        let failed = |error| self.error(format!("look up {unit}"), error);
        let path = self.manager.load_unit(unit.clone()).await.map_err(failed)?;
        let state = UnitState::read(&self.connection, &path).await.map_err(failed)?;
        Ok(state.into_managed(name.clone(), unit.clone()).config)
    }

    /// The instance when this unit of it is up, or comes up by the deadline without our doing.
    async fn already_running(
        &self,
        name: &Name,
        unit: &str,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Option<Managed>, Error> {
        let Some(state) = self.state_of(unit).await? else { return Ok(None) };
        if state.active.is_up() {
            return Ok(Some(state.into_managed(name.clone(), unit.to_owned())));
        }
        if state.active == ActiveState::Failed {
            // It was given up, which is over now.
            self.reset_failed(unit).await?;
        }
        if !state.active.is_changing() {
            return Ok(None);
        }
        let was_starting = state.active == ActiveState::Activating;
        self.hold(unit).await;
        let outcome = match self.settle(unit, deadline).await {
            Ok(Some(state)) if state.is_up() => self.managed(name, unit).await,
            // It was stopping: now it can be started.
            Ok(Some(_)) if !was_starting => Ok(None),
            Ok(Some(_)) => Err(self.failure(name, unit, "start", &End::OthersJob).await),
            Ok(None) => Err(self.failure(name, unit, "start", &End::Deadline(timeout)).await),
            Err(error) => Err(error),
        };
        self.release(unit).await;
        outcome
    }

    /// What became of the unit now that its job has ended, whatever the job said: it may be done and the unit failed.
    pub(super) async fn outcome(
        &self,
        name: &Name,
        unit: &str,
        verb: &'static str,
        end: End,
    ) -> Result<Managed, Error> {
        match self.managed(name, unit).await? {
            Some(managed) => Ok(managed),
            None => Err(self.failure(name, unit, verb, &end).await),
        }
    }

    /// The instance when this unit of it is up.
    async fn managed(&self, name: &Name, unit: &str) -> Result<Option<Managed>, Error> {
        let state = self.state_of(unit).await?.filter(|state| state.active.is_up());
        Ok(state.map(|state| state.into_managed(name.clone(), unit.to_owned())))
    }

    /// Why a unit does not serve, with all that can be found out.
    async fn failure(&self, name: &Name, unit: &str, verb: &'static str, end: &End) -> Error {
        let state = match self.state_of(unit).await {
            Ok(state) => state.unwrap_or_else(UnitState::blank),
            Err(error) => return error,
        };
        let reason = match end {
            End::Job(result) => failure::explain_start(result, &state),
            // Whoever started it may have cleared away the traces by now.
            End::OthersJob => failure::explain_run(&state)
                .unwrap_or_else(|| "another start of it was under way and has failed".into()),
            End::Deadline(after) => {
                format!("it did not report within {} s that it is ready", after.as_secs_f32())
            }
        };
        Error::DidNotStart(Box::new(StartFailure {
            name: name.clone(),
            verb,
            reason,
            exit_code: failure::own_exit_code(&state),
            status_text: Some(state.status_text.clone()).filter(|text| !text.is_empty()),
            log: journal::last_words(&state, self.scope, LAST_WORDS).await,
            retrying: (verb == "restart" && state.active == ActiveState::Activating).then_some("systemd"),
            whole_log: format!("journalctl {} {unit}", self.scope.journal_flag()),
        }))
    }
}
