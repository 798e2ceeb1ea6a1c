//! `server start`: serve here, or have the service manager keep a bridge.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::survey::{Known, Survey};
use super::unit::{self, Address};
use super::{Context, Whose, name_of, stop};
use crate::cli::context::{self, Read};
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, GOOD, STRONG};
use crate::config::{Loaded, Scope as ConfigScope};
use crate::control::client;
use crate::daemon::{self, Served};
use crate::host::log::Level;
use crate::host::signals::Termination;
use crate::instance::environment::{self, Variables};
use crate::instance::{Instance, Name, Paths, Scope, lock};
use crate::manager::{Enablement, Run, ServiceManager, StartRequest, Started, State};

/// How long a start may take, unless something else is typed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Have the service manager keep it, and return once it serves
    #[arg(long, alias = "detach")]
    pub(super) daemon: bool,
    /// Its name [default: from the config's file name]
    #[arg(short, long, value_parser = name_of)]
    name: Option<Name>,
    /// The one whose config in the config folder has that name, as in units of foxxy-bridge@.service
    #[arg(long, value_name = "NAME", value_parser = name_of, conflicts_with_all = ["name", "config"])]
    instance: Option<Name>,
    /// The address to listen on [default: the config's, 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// The port to listen on, 0 for any free one [default: the config's, 8080]
    #[arg(short, long)]
    port: Option<u16>,
    #[command(flatten)]
    whose: Whose,
    /// Restart it when it runs already
    #[arg(long, requires = "daemon")]
    force: bool,
    /// Remove first what bridges that were killed have left behind
    #[arg(long)]
    cleanup: bool,
    /// Return at once, without knowing whether it will serve
    #[arg(long, requires = "daemon")]
    no_wait: bool,
    /// Print what the service manager would be asked, and start nothing
    #[arg(long, requires = "daemon")]
    dry_run: bool,
    /// How long it may take until it serves
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT.as_secs(), requires = "daemon")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// That no config has that name.
pub(super) fn no_config_of(name: &Name, paths: &Paths) -> Error {
    let (folder, config) = (paths.config_dir().display(), paths.named_config(name));
    Error::new(Exit::BadConfig, format!("there is no config for the bridge `{name}`"))
        .because(format!("neither {name}.json nor {name}.toml is in {folder}"))
        .hint(format!("write one: foxxy-bridge config init --config {}", config.display()))
}

impl Options {
    /// The name that was typed, and the config that goes with it.
    fn meant(&self, context: &Context, paths: &Paths) -> Result<(Option<Name>, Context), Error> {
        let Some(name) = &self.instance else { return Ok((self.name.clone(), context.clone())) };
        let config = paths.named_config(name);
        // Of the default one there is always a config: a built-in one.
        if name.is_default() && !config.exists() {
            return Ok((Some(name.clone()), context.clone()));
        }
        if !config.exists() {
            return Err(no_config_of(name, paths));
        }
        Ok((Some(name.clone()), context.with_config(config)))
    }
}

/// Starts an instance as its config has it.
pub(super) async fn start_plainly(
    survey: &mut Survey,
    instance: &Instance,
    context: &Context,
) -> Result<(), Error> {
    let read = context.read(instance.config())?;
    launch(survey, instance, &read, &Address::default(), context, TIMEOUT, true).await?;
    Ok(())
}

/// Serves in the foreground, until it is told to stop.
pub(super) fn serve(options: &Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let (name, context) = options.meant(context, &paths).inspect_err(tell_manager)?;
    if options.cleanup {
        clean_up(&paths)?;
    }
    let instance = context.instance(&paths, name);
    // What is wrong with the config says more than that there is no instance of it.
    let given = instance.as_ref().map(given_variables).unwrap_or_default();
    let (read, instance) = (read(&context, &paths, &given)?, instance?);
    let bridge = &read.loaded.config.bridge;
    let (again, own, level) = (context.clone(), instance.clone(), context.level());
    daemon::run(daemon::Options {
        instance,
        host: options.host.clone().unwrap_or_else(|| bridge.host.as_str().to_owned()),
        port: options.port.unwrap_or(bridge.port),
        served: served(read),
        read: Arc::new(move || {
            let read = again.read_with(again.config_path(&paths).as_deref(), &given_variables(&own));
            read.map(served).map_err(|invalid| words(&invalid.into()))
        }),
        level,
    })?;
    Ok(Exit::Ok)
}

/// The variables that the instance was given for its config.
fn given_variables(instance: &Instance) -> Variables {
    let path = instance.variables_file();
    environment::read(&path).unwrap_or_else(|error| {
        output::warn(format!("{}: {error}", path.display()));
        Variables::new()
    })
}

/// Reads the config; when it cannot be, that is also what the service manager is told.
fn read(context: &Context, paths: &Paths, given: &Variables) -> Result<Read, Error> {
    let read = context.read_with(context.config_path(paths).as_deref(), given);
    read.map_err(context::told).inspect_err(tell_manager)
}

/// Leaves the service manager with why there is no bridge.
fn tell_manager(error: &Error) {
    crate::host::notify::status(&words(error));
}

fn served(read: Read) -> Served {
    let Loaded { config, path, warnings } = read.loaded;
    Served { config, path, warnings: warnings.iter().map(ToString::to_string).collect() }
}

/// What is wrong, and below it why.
fn words(error: &Error) -> String {
    format!("{}:\n{}", error.what, error.why.join("\n"))
}

/// Has the service manager start a bridge.
pub(super) async fn start(options: &Options, context: &Context) -> Result<Exit, Error> {
    let (mut paths, mut read) = (context.paths(options.whose.scope())?, None);
    let (name, context) = &options.meant(context, &paths)?;
    if options.whose.typed().is_none() {
        // The config may say whose it is; it is looked for where the caller's own are.
        let first = context.read(context.config_path(&paths).as_deref())?;
        if let Some(scope) = first.loaded.config.bridge.daemon.scope {
            let scope = match scope {
                ConfigScope::User => Scope::User,
                ConfigScope::System => Scope::System,
            };
            if scope != paths.scope() {
                paths = context.paths(scope)?;
            }
        }
        read = Some(first);
    }
    let read = match read {
        Some(read) => read,
        None => context.read(context.config_path(&paths).as_deref())?,
    };
    for warning in &read.loaded.warnings {
        output::warn(warning.to_string());
    }
    if options.cleanup && !options.dry_run {
        clean_up(&paths)?;
    }
    let mut survey = Survey::take(&paths).await?;
    let instance = context.instance(&paths, name.clone())?;
    let address = Address { host: options.host.clone(), port: options.port };
    let starting =
        |known: &Known| matches!(&known.managed, Some(managed) if managed.state == State::Starting);
    // One that somebody else is just starting is waited for, by the manager.
    if let Some(known) = same(&survey, &instance).filter(|known| options.force || !starting(known)) {
        if !options.force {
            let instance = Instance::new(known.name.clone(), None, paths.clone())?;
            return already(known, &instance, &read, &address, context).await;
        }
        let name = known.name.clone();
        if options.dry_run {
            output::say(format!("stop {name}"));
        } else {
            stop::stop_one(&mut survey, &paths, &name, false).await?;
        }
    }
    let timeout = Duration::from_secs(options.timeout);
    if options.dry_run {
        let manager = survey.manager()?;
        let request =
            request(manager, &instance, &read, &address, context, timeout, !options.no_wait).await?;
        output::say(manager.preview(&request)?);
        return Ok(Exit::Ok);
    }
    launch(&mut survey, &instance, &read, &address, context, timeout, !options.no_wait).await
}

/// A bridge that serves the same config, or has the same name.
fn same<'a>(survey: &'a Survey, instance: &Instance) -> Option<&'a Known> {
    let identity = instance.identity();
    let running = || survey.known.iter().filter(|known| known.is_running());
    running()
        .find(|known| known.config().as_ref() == Some(&identity))
        .or_else(|| running().find(|known| known.name == *instance.name()))
}

/// It runs already: that is as good, unless it is not what was asked for.
async fn already(
    known: &Known,
    instance: &Instance,
    read: &Read,
    wanted: &Address,
    context: &Context,
) -> Result<Exit, Error> {
    let bridge = &read.loaded.config.bridge;
    let Ok(status) = &known.status else {
        let what = format!("the bridge `{}` is {}", known.name, known.state());
        let hint = format!(
            "restart it: foxxy-bridge server start --daemon --force, or see `server logs {}`",
            known.name
        );
        return Err(Error::new(Exit::Failed, what).hint(hint));
    };
    let host = wanted.host.clone().unwrap_or_else(|| bridge.host.as_str().to_owned());
    let asked = daemon::address(&host, wanted.port.unwrap_or(bridge.port));
    if wanted.port != Some(0) && asked != status.address && (wanted.host.is_some() || wanted.port.is_some()) {
        let what =
            format!("the bridge `{}` is already running at {}, not at {asked}", known.name, status.address);
        return Err(Error::new(Exit::Failed, what).hint("restart it there with --force"));
    }
    let level = debugging(&instance.control_socket(), context).await?;
    output::say(format!("{} is already running: {} (PID {}){level}", known.name, status.address, status.pid));
    Ok(Exit::Ok)
}

/// Has a bridge that runs log what a developer wants to know, where that was typed, and gives the words for it.
pub(super) async fn debugging(socket: &Path, context: &Context) -> Result<&'static str, Error> {
    if !context.debug {
        return Ok("");
    }
    match client::set_log_level(socket, Level::Debug).await {
        Ok(()) => Ok("; it now logs at debug level"),
        Err(error) => Err(Error::new(Exit::Failed, "the bridge runs, and its log level stays as it is")
            .because(error.to_string())
            .hint("a bridge of an older version must be restarted for that")),
    }
}

pub(super) async fn launch(
    survey: &mut Survey,
    instance: &Instance,
    read: &Read,
    address: &Address,
    context: &Context,
    timeout: Duration,
    wait: bool,
) -> Result<Exit, Error> {
    let manager = survey.manager().map_err(|error| in_foreground(error, instance))?;
    let request = request(manager, instance, read, address, context, timeout, wait).await?;
    unit::write_environment(instance, read)?;
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
            let level = debugging(&socket, context).await?;
            let status = client::status(&socket).await;
            let at = status.map_or_else(
                |_| String::new(),
                |(status, _)| format!(": {} (PID {})", status.address, status.pid),
            );
            output::say(format!("{} is already running{at}{level}", instance.name()));
        }
        Started::Running(_) => tell_started(instance).await,
    }
    Ok(Exit::Ok)
}

/// What is asked of the manager: a unit of its own for this run, or the one that the instance is enabled with.
async fn request(
    manager: &dyn ServiceManager,
    instance: &Instance,
    read: &Read,
    address: &Address,
    context: &Context,
    timeout: Duration,
    wait: bool,
) -> Result<StartRequest, Error> {
    let daemon = &read.loaded.config.bridge.daemon;
    if daemon.manager == crate::config::ManagerChoice::Pidfile {
        let what = "the manager `pidfile`, which the config asks for, is not there yet";
        return Err(Error::new(Exit::Failed, what).hint("take `auto` or `systemd` as bridge.daemon.manager"));
    }
    let run = match manager.enablement(instance.name()).await? {
        Enablement::No => Run::Transient(Box::new(unit::spec(instance, daemon, address, context, timeout)?)),
        enablement => {
            agrees(manager, instance, address).await?;
            Run::Enabled(enablement)
        }
    };
    Ok(StartRequest { name: instance.name().clone(), run, timeout, wait })
}

/// Checks that the unit that the instance is enabled with runs what is asked for.
async fn agrees(manager: &dyn ServiceManager, instance: &Instance, address: &Address) -> Result<(), Error> {
    let name = instance.name();
    let unit = name.template_unit();
    let config = manager.enabled_config(name).await?;
    let config = config.unwrap_or_else(|| instance.paths().named_config(name));
    let config = std::fs::canonicalize(&config).unwrap_or(config);
    if config != instance.identity() {
        let what = format!("the name `{name}` is in use by {unit}, which serves {}", config.display());
        return Err(Error::new(Exit::Failed, what)
            .hint(format!("choose another --name, or undo that: foxxy-bridge server disable {name}")));
    }
    if address.host.is_some() || address.port.is_some() {
        let what = format!("the bridge `{name}` is enabled: its address is in the files of {unit}");
        let typed = [
            address.host.as_ref().map(|host| format!(" --host {host}")),
            address.port.map(|port| format!(" --port {port}")),
        ];
        let typed: String = typed.into_iter().flatten().collect();
        return Err(Error::new(Exit::Failed, what)
            .hint(format!("change it there: foxxy-bridge server enable {name}{typed}, then start it")));
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
async fn tell_started(instance: &Instance) {
    let name = instance.name();
    let Ok((status, _)) = client::status(&instance.control_socket()).await else {
        return output::say(format!("{name} is running"));
    };
    let unit = status.unit.as_deref().unwrap_or_default();
    output::say(format!(
        "{GOOD}started{GOOD:#} {name}: {STRONG}{}{STRONG:#} (PID {}, {unit})",
        status.address, status.pid
    ));
    let (connected, all) = status.connected();
    if connected < all {
        output::note(format!(
            "{connected} of {all} servers are connected; see `foxxy-bridge server status {name}`"
        ));
    }
}

/// Adds what to type where there is no service manager.
fn in_foreground(mut error: Error, instance: &Instance) -> Error {
    let config =
        instance.config().map(|path| format!(" --config {}", output::short_path(path))).unwrap_or_default();
    let command = format!("foxxy-bridge server start{config}");
    match &mut error.hint {
        Some(hint) if hint.contains("foreground") => {
            *hint = hint.replace("foxxy-bridge server start", &command);
        }
        Some(hint) => hint.push_str(&format!("; or serve in the foreground: {command}")),
        None => error.hint = Some(format!("serve in the foreground: {command}")),
    }
    error
}

/// Removes what bridges that are gone have left, and says so.
fn clean_up(paths: &Paths) -> Result<(), Error> {
    for name in lock::names(paths) {
        let instance = Instance::new(name, None, paths.clone())?;
        if lock::clean_up(&instance)? {
            output::note(format!(
                "removed what {} had left: {}",
                instance.name(),
                instance.runtime_dir().display()
            ));
        }
    }
    Ok(())
}
