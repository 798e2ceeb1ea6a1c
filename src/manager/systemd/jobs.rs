//! Jobs: how systemd does what it is told, and how it says that it has.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use zbus::OwnedObjectPath;
use zbus_systemd::systemd1::{JobRemovedStream, UnitProxy};

use super::Systemd;
use super::state::{ActiveState, JobResult};
use crate::manager::Error;

/// Why a job's end was not seen.
#[derive(Debug)]
pub(super) enum JobError {
    /// The call that makes the job was refused.
    Refused(zbus::Error),
    /// The job has not ended by the deadline; it goes on.
    Deadline,
    /// Anything else.
    Other(Error),
}

/// A job on its way, watched since before it was made: a short one ends before its caller knows its name.
pub(super) struct Job {
    unit: String,
    path: OwnedObjectPath,
    removed: JobRemovedStream,
}

impl Systemd {
    /// Makes a job for `unit` with `call` and starts to watch it.
    pub(super) async fn enqueue(
        &self,
        unit: &str,
        call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<Job, JobError> {
        self.listen().await.map_err(JobError::Other)?;
        // Only of this unit: signals that nobody reads would hold up the whole connection.
        let removed = self
            .manager
            .receive_job_removed_with_args(&[(2, unit)])
            .await
            .map_err(|error| JobError::Other(self.error("listen to systemd", error)))?;
        let path = call.await.map_err(JobError::Refused)?;
        Ok(Job { unit: unit.to_owned(), path, removed })
    }

    /// Why a job that was to `action` was not seen to end, for a caller who has waited for that long.
    pub(super) fn job_error(&self, action: String, waited: Duration, error: JobError) -> Error {
        match error {
            JobError::Refused(error) => self.error(action, error),
            JobError::Deadline => Error::NoAnswer { after: waited },
            JobError::Other(error) => error,
        }
    }

    /// Waits until a unit that is on its way to a state has reached one; `None` when it has not by the deadline.
    pub(super) async fn settle(&self, unit: &str, deadline: Instant) -> Result<Option<ActiveState>, Error> {
        self.listen().await?;
        let Some(path) = self.unit_path(unit).await? else { return Ok(Some(ActiveState::Inactive)) };
        let failed = |error| self.error(format!("watch {unit}"), error);
        let proxy = UnitProxy::builder(&self.connection).path(path).build().await.map_err(failed)?;
        // The first one is the present state.
        let mut changes = proxy.receive_active_state_changed().await;
        let settled = async {
            while let Some(change) = changes.next().await {
                let state = ActiveState::from(change.get().await.map_err(failed)?);
                if !state.is_changing() {
                    return Ok(state);
                }
            }
            Err(Error::Lost { action: format!("watch {unit}") })
        };
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(state) => state.map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Job {
    /// How the job ended.
    pub(super) async fn finish(mut self, deadline: Instant) -> Result<JobResult, JobError> {
        loop {
            let removed = match tokio::time::timeout_at(deadline, self.removed.next()).await {
                Ok(Some(removed)) => removed,
                Ok(None) => {
                    let action = format!("watch the job of {}", self.unit);
                    return Err(JobError::Other(Error::Lost { action }));
                }
                Err(_) => return Err(JobError::Deadline),
            };
            // One that cannot be read is none that we wait for.
            let Ok(job) = removed.args() else { continue };
            if job.job == self.path {
                return Ok(JobResult::from(job.result));
            }
        }
    }
}
