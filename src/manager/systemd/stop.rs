//! Stopping, until no process is left.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::jobs::JobError;
use super::list::has_gone;
use super::state::{ActiveState, ServiceResult, UnitState};
use super::{Systemd, is_systemd_error};
use crate::instance::Name;
use crate::manager::{Error, Stopped};

/// How long a bridge that failed to start may take to stop before it is killed.
const CLEAR_AWAY_GRACE: Duration = Duration::from_secs(5);

/// The longest that a config can allow; a unit of somebody's own may say `infinity`.
const LONGEST_STOP: Duration = Duration::from_secs(86_400);

/// How long the kernel may take to end processes that were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Systemd {
    /// Stops every unit of an instance.
    pub(super) async fn stop_instance(
        &self,
        name: &Name,
        force: bool,
        timeout: Duration,
    ) -> Result<Stopped, Error> {
        let timeout = timeout + self.stop_timeout_of(name).await?;
        let deadline = Instant::now() + timeout;
        let mut outcome = Stopped::NotRunning;
        // The next client would start it again.
        if self.stop_listening(name, timeout, deadline).await? {
            outcome = Stopped::Clean;
        }
        for unit in [name.unit(), name.template_unit()] {
            let Some(state) = self.state_of(&unit).await? else { continue };
            if state.active.is_down() && self.processes(&unit).await.is_empty() {
                self.reset_failed(&unit).await?;
                if state.active == ActiveState::Failed && outcome == Stopped::NotRunning {
                    outcome = Stopped::GivenUp;
                }
                continue;
            }
            // Held, so that how it ended can be read when it has.
            self.hold(&unit).await;
            let stopped = self.stop_unit(&unit, force, deadline).await;
            let stopped = match stopped {
                Ok(()) => self.stopped(name, &unit, force, timeout).await,
                Err(JobError::Deadline) => Err(self.not_stopped(name, &unit, timeout).await),
                Err(error) => Err(self.job_error(format!("stop {unit}"), timeout, error)),
            };
            self.release(&unit).await;
            match stopped? {
                Stopped::Killed => outcome = Stopped::Killed,
                Stopped::Clean if outcome != Stopped::Killed => outcome = Stopped::Clean,
                Stopped::Clean | Stopped::GivenUp | Stopped::NotRunning => {}
            }
        }
        Ok(outcome)
    }

    /// How long the units of an instance that are there may take to stop, together, before systemd kills what is left.
    pub(super) async fn stop_timeout_of(&self, name: &Name) -> Result<Duration, Error> {
        let mut all = Duration::ZERO;
        for unit in [name.unit(), name.template_unit()] {
            let Some(path) = self.unit_path(&unit).await? else { continue };
            let timeout = async { self.service_at(path).await?.timeout_stop_u_sec().await };
            match timeout.await {
                Ok(micros) => all += Duration::from_micros(micros).min(LONGEST_STOP),
                Err(error) if has_gone(&error) => {}
                Err(error) => return Err(self.error(format!("look up {unit}"), error)),
            }
        }
        Ok(all)
    }

    /// Has systemd listen no more for an instance's first client; false when it did not.
    async fn stop_listening(&self, name: &Name, timeout: Duration, deadline: Instant) -> Result<bool, Error> {
        let socket = name.template_socket();
        if self.active_state(&socket).await?.is_none_or(|state| state.is_down()) {
            return Ok(false);
        }
        match self.stop_unit(&socket, false, deadline).await {
            Ok(()) => Ok(true),
            Err(JobError::Deadline) => Err(self.not_stopped(name, &socket, timeout).await),
            Err(error) => Err(self.job_error(format!("stop {socket}"), timeout, error)),
        }
    }

    /// Ends what a failed start has left, as far as it can be ended; the failure itself is what the caller is told.
    pub(super) async fn clear_away(&self, unit: &str) {
        let grace = Instant::now() + CLEAR_AWAY_GRACE;
        if let Err(JobError::Deadline) = self.stop_unit(unit, false, grace).await {
            let _ = self.stop_unit(unit, true, Instant::now() + KILL_TIMEOUT).await;
        }
        let _ = self.reset_failed(unit).await;
    }

    /// Forgets that a unit failed: its restart counter, and the unit itself when nothing else holds it.
    pub(super) async fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        match self.manager.reset_failed_unit(unit.to_owned()).await {
            Err(error) if !is_systemd_error(&error, "NoSuchUnit") => {
                Err(self.error(format!("reset {unit}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps systemd from forgetting a unit while we watch it. Without it some answers are lost, no more.
    pub(super) async fn hold(&self, unit: &str) {
        let _ = self.manager.ref_unit(unit.to_owned()).await;
    }

    /// Ends [`Systemd::hold`], and the hold that `AddRef` took at the start.
    pub(super) async fn release(&self, unit: &str) {
        let _ = self.manager.unref_unit(unit.to_owned()).await;
    }

    /// Stops a unit and waits for the end of that job.
    async fn stop_unit(&self, unit: &str, force: bool, deadline: Instant) -> Result<(), JobError> {
        let stop = self.manager.stop_unit(unit.to_owned(), "replace".into());
        let job = match self.enqueue(unit, stop).await {
            Ok(job) => job,
            Err(JobError::Refused(error)) if is_systemd_error(&error, "NoSuchUnit") => return Ok(()),
            Err(error) => return Err(error),
        };
        if force {
            // After the stop is queued: a bridge killed before it would be started again. That nothing is left to
            // kill is no failure.
            let kill = Signal::KILL.as_raw();
            let _ = self.manager.kill_unit(unit.to_owned(), "all".into(), kill).await;
        }
        job.finish(deadline).await.map(drop)
    }

    /// How a unit that was told to stop has ended.
    async fn stopped(
        &self,
        name: &Name,
        unit: &str,
        force: bool,
        timeout: Duration,
    ) -> Result<Stopped, Error> {
        let state = self.state_of(unit).await?.unwrap_or_else(UnitState::blank);
        if !state.active.is_down() || !self.processes(unit).await.is_empty() {
            return Err(self.not_stopped(name, unit, timeout).await);
        }
        self.reset_failed(unit).await?;
        let killed = force || matches!(state.result, ServiceResult::Timeout | ServiceResult::Watchdog);
        Ok(if killed { Stopped::Killed } else { Stopped::Clean })
    }

    async fn not_stopped(&self, name: &Name, unit: &str, after: Duration) -> Error {
        let pids = self.processes(unit).await;
        Error::DidNotStop { name: name.clone(), after, pids }
    }

    /// The processes in a unit's cgroup; none when the unit is gone, for systemd keeps one that has any.
    async fn processes(&self, unit: &str) -> Vec<u32> {
        let found = self.manager.get_unit_processes(unit.to_owned()).await.unwrap_or_default();
        found.into_iter().map(|(_, pid, _)| pid).collect()
    }
}
