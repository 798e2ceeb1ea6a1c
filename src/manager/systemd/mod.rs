//! Keeping an instance running with systemd.

mod access;
mod connection;
mod enable;
mod failure;
#[cfg(test)]
mod fake;
mod features;
mod jobs;
mod journal;
pub mod linger;
mod list;
pub mod probe;
mod restart;
mod start;
mod state;
mod stop;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use zbus::DBusError;
use zbus::proxy::CacheProperties;
use zbus_systemd::systemd1::ManagerProxy;

pub use connection::Host;
pub use features::{MINIMUM, Version};

use super::{
    Account, Drift, EnableRequest, Enablement, Error, LogQuery, LogStream, Managed, Plan, Restarted,
    ServiceManager, StartRequest, Started, Stopped, UnitSpec,
};
use crate::control::Manager;
use crate::instance::{Name, Scope};

/// A systemd that we can talk to.
#[derive(Debug, Clone)]
pub struct Systemd {
    scope: Scope,
    version: Version,
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
    /// Whether systemd was asked for its signals.
    listening: Arc<OnceCell<()>>,
}

impl Systemd {
    /// The manager of `scope` on `host`, reached within `timeout`.
    ///
    /// # Errors
    /// What is missing on the way to it, or a systemd that is too old.
    pub async fn connect(scope: Scope, host: &Host, timeout: Duration) -> Result<Self, Error> {
        let (connection, version) = connection::connect(scope, host, timeout).await?;
        Self::over(connection, scope, &version).await
    }

    /// The manager at the other end of a connection.
    async fn over(connection: zbus::Connection, scope: Scope, version: &str) -> Result<Self, Error> {
        // A version that is none we can read is a newer one or a rebuilt one: it gets what every version can do.
        let version = Version::parse(version).unwrap_or(Version(MINIMUM));
        if version < Version(MINIMUM) {
            return Err(Error::TooOld { version: version.0, minimum: MINIMUM });
        }
        let failed = |error| call_error("listen to systemd", scope, error);
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed)?;
        Ok(Self { scope, version, connection, manager, listening: Arc::default() })
    }

    /// Has systemd send its signals, which it does not do unasked. It ends with the connection.
    async fn listen(&self) -> Result<(), Error> {
        let subscribed = self.listening.get_or_try_init(|| self.manager.subscribe()).await;
        subscribed.map(drop).map_err(|error| self.error("listen to systemd", error))
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The control group that the manager has everything in, as `/proc/PID/cgroup` writes it.
    ///
    /// # Errors
    /// From the call.
    pub async fn control_group(&self) -> Result<String, Error> {
        self.manager.control_group().await.map_err(|error| self.error("tell its control group", error))
    }

    /// The variables of the manager itself, which every unit gets (org.freedesktop.systemd1(5), `Environment`).
    async fn variables(&self) -> Result<BTreeMap<String, String>, Error> {
        let variables = self.manager.environment().await;
        let variables = variables.map_err(|error| self.error("tell the variables of its units", error))?;
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// An error of a call, in our words.
    fn error(&self, action: impl Into<String>, error: zbus::Error) -> Error {
        call_error(action, self.scope, error)
    }
}

impl ServiceManager for Systemd {
    fn kind(&self) -> Manager {
        Manager::Systemd
    }

    fn describe(&self) -> String {
        format!("systemd {} ({})", self.version.0, self.scope)
    }

    fn environment(&self) -> BoxFuture<'_, Result<BTreeMap<String, String>, Error>> {
        self.variables().boxed()
    }

    fn unheeded(&self, spec: &UnitSpec) -> Vec<String> {
        let files = [("pid_file", spec.pid_file.is_some()), ("log_file", spec.log_file.is_some())];
        let files = files.into_iter().filter(|(_, set)| *set);
        let unheeded = files.map(|(key, _)| {
            format!("bridge.daemon.{key} is for where there is no systemd, which has units and the journal")
        });
        let account = matches!(spec.account, Account::Named { .. }) && self.scope == Scope::User;
        let account = account.then(|| {
            "bridge.daemon.user and group are for the machine's bridges (--system): this one runs as its caller".to_owned()
        });
        unheeded.chain(account).collect()
    }

    fn prepare<'a>(&'a self, _: &'a StartRequest) -> BoxFuture<'a, Result<(), Error>> {
        std::future::ready(Ok(())).boxed()
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
        self.stop_timeout_of(name).boxed()
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
        self.list_instances().boxed()
    }

    fn find<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Managed>, Error>> {
        self.find_instance(name).boxed()
    }

    fn plan_enable<'a>(&'a self, request: &'a EnableRequest) -> BoxFuture<'a, Result<Plan, Error>> {
        Systemd::plan_enable(self, request).boxed()
    }

    fn plan_disable<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Plan, Error>> {
        Systemd::plan_disable(self, name).boxed()
    }

    fn carry_out<'a>(&'a self, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        self.carry_out_plan(plan).boxed()
    }

    fn drift<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Drift>, Error>> {
        self.drift_of(name).boxed()
    }

    fn enablement<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Enablement, Error>> {
        self.enablement_of(name).boxed()
    }

    fn enabled(&self) -> BoxFuture<'_, Result<Vec<(Name, Enablement)>, Error>> {
        Systemd::enabled(self).boxed()
    }

    fn enabled_config<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<PathBuf>, Error>> {
        self.config_of(name).boxed()
    }

    fn logs<'a>(&'a self, query: &'a LogQuery) -> BoxFuture<'a, Result<LogStream, Error>> {
        async {
            let since = self.find_instance(&query.name).await?.and_then(|managed| managed.since);
            let hidden = access::hidden(self.scope, since).map(|why| Error::JournalHidden {
                why,
                scope: self.scope,
                unit: query.name.unit(),
            });
            match hidden {
                // It would wait for ever.
                Some(hidden) if query.follow => Err(hidden),
                hidden => journal::stream(query, self.scope, hidden),
            }
        }
        .boxed()
    }
}

/// The files of the units that packages ship: the service's and the socket's. They are for every version.
///
/// # Errors
/// None for texts that a unit file can have.
#[cfg(test)]
pub(crate) fn packaged_units(spec: &UnitSpec, scope: Scope) -> Result<[(&'static str, String); 2], Error> {
    let socket = super::SocketSpec::of_any_instance();
    Ok([
        ("service", unit::service_file(spec, scope, Version(MINIMUM))?),
        ("socket", unit::socket_file(&socket)?),
    ])
}

/// The D-Bus name of an error that systemd or the bus answered with.
fn error_name(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.as_str().to_owned()),
        zbus::Error::FDO(error) => Some(error.name().as_str().to_owned()),
        _ => None,
    }
}

/// What an error says, without its name.
fn said(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::FDO(error) => error.description().map_or_else(|| error.to_string(), str::to_owned),
        other => other.to_string(),
    }
}

/// Whether an error is this one of systemd's own.
fn is_systemd_error(error: &zbus::Error, name: &str) -> bool {
    error_name(error).is_some_and(|full| full.strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

fn call_error(action: impl Into<String>, scope: Scope, error: zbus::Error) -> Error {
    let action = action.into();
    if let zbus::Error::InputOutput(io) = &error {
        return match io.kind() {
            std::io::ErrorKind::TimedOut => Error::NoAnswer { after: connection::METHOD_TIMEOUT },
            _ => Error::Lost { action },
        };
    }
    let name = error_name(&error).unwrap_or_default();
    let detail = said(&error);
    match name.strip_prefix("org.freedesktop.DBus.Error.") {
        Some("AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed") => {
            Error::NotPermitted { action, scope, detail }
        }
        Some("InvalidArgs" | "PropertyReadOnly" | "UnknownProperty" | "NotSupported") => {
            Error::Rejected { action, detail }
        }
        _ => Error::Bus { action, source: error },
    }
}
