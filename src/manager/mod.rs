//! Keeping an instance running.
//!
//! One trait, [`ServiceManager`], for whatever keeps bridges on this host: [`systemd`], or where that is not,
//! [`pidfile`].

mod error;
mod exit;
mod model;
pub mod pidfile;
mod spec;
pub mod systemd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use error::{Error, ErrorKind, StartFailure};
pub use model::{
    Drift, EnableRequest, Enablement, Entry, Hidden, LogQuery, LogStream, Managed, Plan, Restarted, Run,
    StartRequest, Started, State, Step, Stopped,
};
pub use spec::{ANY_INSTANCE, Account, Limits, Memory, OWN_ACCOUNT, Restart, Sandbox, SocketSpec, UnitSpec};

use crate::control::Manager;
use crate::instance::{Name, Scope};

/// What keeps instances running. Every call has a deadline of its own and an error that says what to do.
pub trait ServiceManager: Send + Sync {
    /// Which it is.
    fn kind(&self) -> Manager;

    /// What it is, for people: `systemd 252 (user)`.
    fn describe(&self) -> String;

    /// The variables that it gives to every process that it starts.
    fn environment(&self) -> BoxFuture<'_, Result<BTreeMap<String, String>, Error>>;

    /// What of a spec this manager cannot put in force, a sentence each.
    fn unheeded(&self, spec: &UnitSpec) -> Vec<String>;

    /// Makes what must be there before an instance is given its variables and started.
    fn prepare<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<(), Error>>;

    /// Starts an instance and waits until it serves; a start that fails leaves nothing behind.
    fn start<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<Started, Error>>;

    /// What [`ServiceManager::start`] would ask of the manager, for people.
    fn preview(&self, request: &StartRequest) -> Result<String, Error>;

    /// Stops an instance and all of its processes; with `force` at once, without asking them.
    ///
    /// `timeout` is how long it may take beyond [`ServiceManager::stop_timeout`].
    fn stop<'a>(
        &'a self,
        name: &'a Name,
        force: bool,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Stopped, Error>>;

    /// How long an instance may take to stop before its manager kills it; zero when it does not run.
    fn stop_timeout<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Duration, Error>>;

    /// Restarts a running instance and waits until it serves again. A unit without files gets the settings of `spec`,
    /// but goes on running what it runs, with the variables that it has. `timeout` is how long it may take beyond
    /// [`ServiceManager::stop_timeout`].
    fn restart<'a>(
        &'a self,
        name: &'a Name,
        spec: &'a UnitSpec,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Restarted, Error>>;

    /// Every instance that is not simply stopped, by name. Of one that serves no more than its unit: the rest it tells
    /// itself, or [`ServiceManager::find`] does.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Managed>, Error>>;

    /// The instance of this name, `None` when nothing of it is running, starting or failed.
    fn find<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Managed>, Error>>;

    /// What it takes to have an instance started by itself from now on, or its unit brought up to date.
    fn plan_enable<'a>(&'a self, request: &'a EnableRequest) -> BoxFuture<'a, Result<Plan, Error>>;

    /// What it takes to undo that.
    fn plan_disable<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Plan, Error>>;

    /// Does what a plan says, all of it or nothing.
    fn carry_out<'a>(&'a self, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>>;

    /// What differs between a running instance's unit and the files that it comes from; `None` when nothing does.
    fn drift<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Drift>, Error>>;

    /// Whether an instance is enabled.
    fn enablement<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Enablement, Error>>;

    /// All instances that are enabled, running or not.
    fn enabled(&self) -> BoxFuture<'_, Result<Vec<(Name, Enablement)>, Error>>;

    /// The config that an enabled instance's unit names; `None` where it is the one of its name.
    fn enabled_config<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<PathBuf>, Error>>;

    /// What an instance has logged, oldest first; with `follow` the stream ends when it is dropped.
    fn logs<'a>(&'a self, query: &'a LogQuery) -> BoxFuture<'a, Result<LogStream, Error>>;
}

/// The service manager of this host for `scope`, reached and asked its version within `timeout`.
///
/// # Errors
/// One of kind [`ErrorKind::Unreachable`] that says what is missing and how to get it.
pub async fn detect(scope: Scope, timeout: Duration) -> Result<Box<dyn ServiceManager>, Error> {
    let systemd = systemd::Systemd::connect(scope, &systemd::Host::read(), timeout).await?;
    Ok(Box::new(systemd))
}
