//! Keeping an instance running where there is no service manager: by a supervisor of our own with a PID file.
//!
//! ```text
//! foxxy-bridge (keep a bridge)      the supervisor: holds the lock on the PID file for life
//! └─ foxxy-bridge server start …    the bridge: tells it by sd_notify(3) how it is, as it would tell systemd
//!    └─ upstreams
//! ```

mod list;
mod log;
mod order;
mod pid_file;
mod record;
mod start;
mod state;
mod stop;
mod supervise;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

pub use supervise::enter;

use super::{
    Drift, EnableRequest, Enablement, Error, LogQuery, LogStream, Managed, Plan, Restarted, ServiceManager,
    StartRequest, Started, Stopped, UnitSpec,
};
use crate::control::Manager;
use crate::instance::{Name, Paths};

/// The socket on which a supervisor hears its bridge, in the instance's runtime folder.
const NOTIFY: &str = "notify";
/// The supervisor's word on its bridge, there too.
const STATE: &str = "state";
/// Settings for the next run of the bridge, there too.
const REVISION: &str = "revision";

/// What keeps instances by supervisors of our own.
#[derive(Debug, Clone)]
pub struct Supervisors {
    paths: Paths,
}

impl Supervisors {
    /// Of the instances that have these folders.
    #[must_use]
    pub fn of(paths: &Paths) -> Self {
        Self { paths: paths.clone() }
    }

    /// Whether one keeps the instance of that name now.
    ///
    /// # Errors
    /// When what is in the place of its PID file cannot be looked at.
    pub fn keeps(&self, name: &Name) -> Result<bool, Error> {
        let found = self.look_up(name)?;
        Ok(found.supervisor.is_some() || found.stranger.is_some())
    }
}

impl ServiceManager for Supervisors {
    fn kind(&self) -> Manager {
        Manager::Pidfile
    }

    fn describe(&self) -> String {
        "a PID file and a supervisor of foxxy-bridge".to_owned()
    }

    fn environment(&self) -> BoxFuture<'_, Result<BTreeMap<String, String>, Error>> {
        // What cannot be text is inherited all the same.
        let variables = std::env::vars_os();
        let texts =
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        ready(Ok(texts.collect())).boxed()
    }

    fn unheeded(&self, spec: &UnitSpec) -> Vec<String> {
        start::unheeded(spec)
    }

    fn prepare<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<(), Error>> {
        self.make_room(request).boxed()
    }

    fn start<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<Started, Error>> {
        self.start_instance(request).boxed()
    }

    fn preview(&self, request: &StartRequest) -> Result<String, Error> {
        self.preview_of(request)
    }

    fn stop<'a>(
        &'a self,
        name: &'a Name,
        force: bool,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Stopped, Error>> {
        self.stop_instance(name, force, timeout).boxed()
    }

    fn stop_timeout<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Duration, Error>> {
        ready(self.look_up(name).map(|found| found.stop_timeout())).boxed()
    }

    fn restart<'a>(
        &'a self,
        name: &'a Name,
        spec: &'a UnitSpec,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Restarted, Error>> {
        self.restart_instance(name, spec, timeout).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, Error>> {
        ready(Ok(self.list_instances())).boxed()
    }

    fn find<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Managed>, Error>> {
        ready(self.look_up(name).map(|found| found.managed(name))).boxed()
    }

    fn plan_enable<'a>(&'a self, request: &'a EnableRequest) -> BoxFuture<'a, Result<Plan, Error>> {
        ready(Err(Error::NotEnabledHere { name: request.name.clone() })).boxed()
    }

    fn plan_disable<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Plan, Error>> {
        ready(Ok(Plan { steps: Vec::new() })).boxed()
    }

    fn carry_out<'a>(&'a self, _: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(())).boxed()
    }

    fn drift<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Option<Drift>, Error>> {
        ready(Ok(None)).boxed()
    }

    fn enablement<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Enablement, Error>> {
        ready(Ok(Enablement::No)).boxed()
    }

    fn enabled(&self) -> BoxFuture<'_, Result<Vec<(Name, Enablement)>, Error>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn enabled_config<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<Option<PathBuf>, Error>> {
        ready(Ok(None)).boxed()
    }

    fn logs<'a>(&'a self, query: &'a LogQuery) -> BoxFuture<'a, Result<LogStream, Error>> {
        ready(self.logs_of(query)).boxed()
    }
}
