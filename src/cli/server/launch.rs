//! Having the service manager start a bridge, and telling how that went.

use std::time::Duration;

use super::Context;
use super::start::{TIMEOUT, debugging};
use super::survey::{Survey, enabled_config};
use super::unit::{self, Address};
use crate::cli::context::Read;
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, GOOD, STRONG};
use crate::config::ManagerChoice;
use crate::control::{Manager, client};
use crate::host::signals::Termination;
use crate::instance::{Instance, lock};
use crate::manager::{Enablement, Managed, Run, ServiceManager, StartRequest, Started};

/// A start: of what, and how long somebody waits for it.
pub(super) struct Launch<'a> {
    pub(super) instance: &'a Instance,
    pub(super) read: &'a Read,
    pub(super) address: Address,
    pub(super) context: &'a Context,
    pub(super) timeout: Duration,
    pub(super) wait: bool,
    /// The manager that is asked for; otherwise there is a choice.
    pub(super) manager: Option<Manager>,
}

impl<'a> Launch<'a> {
    /// Of an instance as its config has it.
    pub(super) fn plain(instance: &'a Instance, read: &'a Read, context: &'a Context) -> Self {
        Self {
            instance,
            read,
            address: Address::default(),
            context,
            timeout: TIMEOUT,
            wait: true,
            manager: asked(None, read),
        }
    }

    /// Starts it, and says what became of that.
    pub(super) async fn run(&self, survey: &Survey) -> Result<Exit, Error> {
        let instance = self.instance;
        let manager = survey.keeper(survey.choice(self.manager))?;
        let request = self.request(manager).await?;
        Self::tell_unheeded(manager, &request);
        manager.prepare(&request).await?;
        unit::write_environment(instance, self.read, manager.kind())?;
        let mut termination = Termination::listen()?;
        let started = tokio::select! {
            started = manager.start(&request) => started,
            signal = termination.next() => return Err(take_back(manager, instance, signal).await),
        };
        if started.is_err() {
            // What was written for it is of no use to anybody now.
            lock::clean_up(instance)?;
        }
        match started? {
            Started::Queued { unit } => output::say(format!("{}: starting as {unit}", instance.name())),
            Started::AlreadyRunning(_) => {
                let socket = instance.control_socket();
                let level = debugging(&socket, self.context).await?;
                let status = client::status(&socket).await;
                let at = status.map_or_else(
                    |_| String::new(),
                    |(status, _)| format!(": {} (PID {})", status.address, status.pid),
                );
                output::say(format!("{} is already running{at}{level}", instance.name()));
            }
            Started::Running(managed) => tell_started(instance, &managed).await,
        }
        Ok(Exit::Ok)
    }

    /// Says what of the config the manager cannot put in force.
    pub(super) fn tell_unheeded(manager: &dyn ServiceManager, request: &StartRequest) {
        if let Run::Transient(spec) = &request.run {
            manager.unheeded(spec).into_iter().for_each(output::warn);
        }
    }

    /// What is asked of the manager: a unit of its own for this run, or the one that the instance is enabled with.
    pub(super) async fn request(&self, manager: &dyn ServiceManager) -> Result<StartRequest, Error> {
        let daemon = &self.read.loaded.config.bridge.daemon;
        let name = self.instance.name();
        let run = match manager.enablement(name).await? {
            Enablement::No => {
                let (instance, address) = (self.instance, &self.address);
                let spec = unit::spec(instance, daemon, address, self.context, self.timeout, manager).await?;
                unit::tell_of_root(&spec, instance.scope(), manager.kind());
                Run::Transient(Box::new(spec))
            }
            enablement => {
                agrees(manager, self.instance, &self.address).await?;
                Run::Enabled(enablement)
            }
        };
        Ok(StartRequest { name: name.clone(), run, timeout: self.timeout, wait: self.wait })
    }
}

/// Checks that the unit that the instance is enabled with runs what is asked for.
async fn agrees(manager: &dyn ServiceManager, instance: &Instance, address: &Address) -> Result<(), Error> {
    let name = instance.name();
    let unit = name.template_unit();
    let config = enabled_config(manager, instance.paths(), name).await?;
    let config = std::fs::canonicalize(&config).unwrap_or(config);
    if config != instance.identity() {
        let what = format!("the name `{name}` is in use by {unit}, which serves {}", config.display());
        return Err(Error::new(Exit::Failed, what)
            .hint(format!("choose another --name, or undo that: foxxy-bridge server disable {name}")));
    }
    if address.host.is_some() || address.port.is_some() {
        let what = format!("the bridge `{name}` is enabled: its address is in the files of {unit}");
        return Err(Error::new(Exit::Failed, what)
            .hint(format!("change it there: {}, then start it", address.enable(name))));
    }
    Ok(())
}

/// Ends what an interrupted start has begun: nobody waits for it any more.
async fn take_back(manager: &dyn ServiceManager, instance: &Instance, signal: &str) -> Error {
    let name = instance.name();
    let what = format!("the start of `{name}` was interrupted by {signal}");
    let stopped = manager.stop(name, false, TIMEOUT).await.map_err(Error::from);
    match stopped.and_then(|_| lock::clean_up(instance).map_err(Error::from)) {
        Ok(_) => Error::new(Exit::Failed, what)
            .because("what had been started is stopped again")
            .hint("--no-wait does not wait until it serves, --timeout SECONDS not as long"),
        Err(error) => Error::new(Exit::Failed, what)
            .because(error.what)
            .hint(format!("see how it is: foxxy-bridge server status {name}")),
    }
}

/// Says where it serves, and how far its servers are.
async fn tell_started(instance: &Instance, managed: &Managed) {
    let name = instance.name();
    let Ok((status, _)) = client::status(&instance.control_socket()).await else {
        return output::say(format!("{name} is running"));
    };
    let keeper = match managed.manager {
        Manager::Pidfile => format!("PID file {}", output::short_path(managed.unit.as_ref())),
        Manager::Systemd | Manager::Foreground => managed.unit.clone(),
    };
    output::say(format!(
        "{GOOD}started{GOOD:#} {name}: {STRONG}{}{STRONG:#} (PID {}, {keeper})",
        status.address, status.pid
    ));
    let (connected, all) = status.connected();
    if connected < all {
        output::note(format!(
            "{connected} of {all} servers are connected; see `foxxy-bridge server status {name}`"
        ));
    }
}

/// The manager that is asked for: by what was typed, else by the config.
pub(super) fn asked(typed: Option<ManagerChoice>, read: &Read) -> Option<Manager> {
    match typed.unwrap_or(read.loaded.config.bridge.daemon.manager) {
        ManagerChoice::Auto => None,
        ManagerChoice::Systemd => Some(Manager::Systemd),
        ManagerChoice::Pidfile => Some(Manager::Pidfile),
    }
}
