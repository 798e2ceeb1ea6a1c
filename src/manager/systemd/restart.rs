//! Restarting, with the settings that the config asks for by now.

use std::time::Duration;

use tokio::time::Instant;

use super::jobs::JobError;
use super::start::End;
use super::{Systemd, unit};
use crate::instance::Name;
use crate::manager::{Error, Managed, Restarted, Run, StartRequest, Started, State, UnitSpec};

/// What a running unit was made with, as far as a restart is to keep or to compare it.
struct MadeWith {
    /// `NAME=value`
    environment: Vec<String>,
    digest: Option<String>,
}

impl Systemd {
    /// Restarts the instance's running unit. A failure leaves it to the unit's own restart policy.
    pub(super) async fn restart_instance(
        &self,
        name: &Name,
        spec: &UnitSpec,
        timeout: Duration,
    ) -> Result<Restarted, Error> {
        let Some(managed) = self.find_instance(name).await? else {
            return Err(Error::NotRunning { name: name.clone() });
        };
        let unit = match managed.state {
            State::Listening => name.template_unit(),
            _ => managed.unit.clone(),
        };
        let made_with = self.made_with(&unit).await?;
        let wanted = unit::digest(spec, self.scope, self.version)?;
        let outdated = made_with.digest.as_ref().is_some_and(|digest| *digest != wanted);
        if outdated && managed.transient {
            let managed = self.make_anew(managed, spec, made_with, timeout).await?;
            return Ok(Restarted { managed, outdated: false });
        }
        self.restart_unit(name, &unit, timeout).await.map(|managed| Restarted { managed, outdated })
    }

    async fn restart_unit(&self, name: &Name, unit: &str, timeout: Duration) -> Result<Managed, Error> {
        let timeout = timeout + self.stop_timeout_of(name).await?;
        let deadline = Instant::now() + timeout;
        self.hold(unit).await;
        self.reset_failed(unit).await?;
        let restart = self.manager.restart_unit(unit.to_owned(), "replace".into());
        let end = match self.enqueue(unit, restart).await {
            Ok(job) => job.finish(deadline).await,
            Err(error) => Err(error),
        };
        let outcome = match end {
            Ok(result) => self.outcome(name, unit, "restart", End::Job(result)).await,
            Err(JobError::Deadline) => self.outcome(name, unit, "restart", End::Deadline(timeout)).await,
            Err(error) => Err(self.job_error(format!("restart {unit}"), timeout, error)),
        };
        self.release(unit).await;
        outcome
    }

    /// A transient unit cannot be given other settings: another takes its place, which runs the same.
    async fn make_anew(
        &self,
        managed: Managed,
        spec: &UnitSpec,
        made_with: MadeWith,
        timeout: Duration,
    ) -> Result<Managed, Error> {
        let mut spec = UnitSpec { exec: managed.argv, ..spec.clone() };
        // What whoever started it had around them, not what the settings say.
        let environment = made_with.environment.iter().filter_map(|assignment| assignment.split_once('='));
        let typed = environment.filter(|(key, _)| *key == "PATH" || key.starts_with("XDG_"));
        spec.environment.extend(typed.map(|(key, value)| (key.to_owned(), value.to_owned())));
        self.stop_instance(&managed.name, false, timeout).await?;
        let run = Run::Transient(Box::new(spec));
        let request = StartRequest { name: managed.name, run, timeout, wait: true };
        match self.start_instance(&request).await? {
            Started::Running(managed) | Started::AlreadyRunning(managed) => Ok(managed),
            Started::Queued { .. } => Err(Error::NotRunning { name: request.name }),
        }
    }

    async fn made_with(&self, unit: &str) -> Result<MadeWith, Error> {
        let failed = |error| self.error(format!("look up {unit}"), error);
        let path = self.manager.load_unit(unit.to_owned()).await.map_err(failed)?;
        let service = self.service_at(path).await.map_err(failed)?;
        let (environment, fields) =
            tokio::try_join!(service.environment(), service.log_extra_fields()).map_err(failed)?;
        Ok(MadeWith { environment, digest: unit::digest_in(&fields) })
    }
}
