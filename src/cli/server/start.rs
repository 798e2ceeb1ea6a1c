//! `server start --daemon`: have the service manager keep a bridge.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::launch::{Launch, asked};
use super::survey::{Known, Survey};
use super::unit::Address;
use super::{Context, Whose, name_of, stop};
use crate::cli::context::{Read, told};
use crate::cli::error::{AS_ROOT, Error, Exit};
use crate::cli::output;
use crate::config::{ManagerChoice, Scope as ConfigScope};
use crate::control::Manager;
use crate::control::client::{self, AskError};
use crate::daemon;
use crate::host::log::Level;
use crate::instance::{Instance, Name, Paths, Scope, lock};
use crate::manager::State;

/// How long a start may take, unless something else is typed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Have the service manager keep it, and return once it serves
    #[arg(long, alias = "detach")]
    pub(super) daemon: bool,
    /// Its name [default: from the config's file name]
    #[arg(short, long, value_parser = name_of)]
    pub(super) name: Option<Name>,
    /// The one whose config in the config folder has that name, as in units of foxxy-bridge@.service
    #[arg(long, value_name = "NAME", value_parser = name_of, conflicts_with_all = ["name", "config"])]
    instance: Option<Name>,
    /// The address to listen on [default: the config's, 127.0.0.1]
    #[arg(long)]
    pub(super) host: Option<String>,
    /// The port to listen on, 0 for any free one [default: the config's, 8080]
    #[arg(short, long)]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// What keeps it; auto is systemd where it runs and can be asked, else pidfile [default: the config's, auto]
    #[arg(long, value_enum, requires = "daemon")]
    manager: Option<Keeper>,
    /// Restart it when it runs already
    #[arg(long, requires = "daemon")]
    force: bool,
    /// Remove first what bridges that were killed have left behind
    #[arg(long)]
    pub(super) cleanup: bool,
    /// Return at once, without knowing whether it will serve
    #[arg(long, requires = "daemon")]
    no_wait: bool,
    /// Print what the service manager would be asked, and start nothing
    #[arg(long, requires = "daemon")]
    dry_run: bool,
    /// The process that keeps this one, and gets its log
    #[arg(long, value_name = "PID", hide = true, conflicts_with = "daemon")]
    pub(super) supervisor: Option<u32>,
    /// How long it may take until it serves
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT.as_secs(), requires = "daemon")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// What a person may ask for as the manager.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Keeper {
    Auto,
    Systemd,
    Pidfile,
}

impl From<Keeper> for ManagerChoice {
    fn from(keeper: Keeper) -> Self {
        match keeper {
            Keeper::Auto => Self::Auto,
            Keeper::Systemd => Self::Systemd,
            Keeper::Pidfile => Self::Pidfile,
        }
    }
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
    pub(super) fn meant(&self, context: &Context, paths: &Paths) -> Result<(Option<Name>, Context), Error> {
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

/// Has the service manager start a bridge.
pub(super) async fn run(options: &Options, context: &Context) -> Result<Exit, Error> {
    let mut paths = context.paths(options.whose.scope())?;
    let (name, mut context) = options.meant(context, &paths)?;
    let read = context.read(context.config_path(&paths).as_deref())?;
    // The config may say whose it is; it is looked for where the caller's own are, and is the one that is meant.
    let scope = read.loaded.config.bridge.daemon.scope.map(|scope| match scope {
        ConfigScope::User => Scope::User,
        ConfigScope::System => Scope::System,
    });
    if let (None, Some(scope)) = (options.whose.typed(), scope)
        && scope != paths.scope()
    {
        paths = context.paths(scope)?;
        context = read.loaded.path.clone().map_or(context.clone(), |config| context.with_config(config));
    }
    let context = &context;
    let mut survey = Survey::take(&paths).await?;
    if options.cleanup && !options.dry_run {
        clean_up(&paths, &survey).await?;
        survey = Survey::take(&paths).await?;
    }
    let instance = context.instance(&paths, name.clone())?;
    let read = context.read_for(&instance).map_err(told)?;
    for warning in &read.loaded.warnings {
        output::warn(warning.to_string());
    }
    let address = Address { host: options.host.clone(), port: options.port };
    let mut launch = Launch {
        instance: &instance,
        read: &read,
        address: address.clone(),
        context,
        timeout: Duration::from_secs(options.timeout),
        wait: !options.no_wait,
        manager: asked(options.manager.map(Into::into), &read),
    };
    let awaited = |known: &Known| {
        known.managed.as_ref().is_some_and(|managed| match managed.state {
            State::Starting => true,
            State::Stopping => managed.manager == Manager::Pidfile,
            _ => false,
        })
    };
    if let Some(orphan) = same(&survey, &instance).filter(|known| known.is_orphan() && !options.dry_run) {
        let name = orphan.name.clone();
        output::note(format!("{name} was left by a supervisor that was killed: it is ended first"));
        stop::stop_one(&survey, &paths, &name, false).await?;
        survey = Survey::take(&paths).await?;
    }
    // One that somebody else is just starting, or stopping, is waited for, by the manager.
    if let Some(known) = same(&survey, &instance).filter(|known| options.force || !awaited(known)) {
        if !options.force {
            keeps(known, launch.manager)?;
            let instance = Instance::new(known.name.clone(), None, paths.clone())?;
            return already(known, &instance, &read, &address, context).await;
        }
        let name = known.name.clone();
        // What cannot be started must not cost what runs.
        launch.manager = Some(survey.choice(launch.manager));
        let manager = survey.keeper(survey.choice(launch.manager))?;
        manager.preview(&launch.request(manager).await?)?;
        if options.dry_run {
            output::say(format!("stop {name}"));
        } else {
            stop::stop_one(&survey, &paths, &name, false).await?;
        }
    }
    if options.dry_run {
        let manager = survey.keeper(survey.choice(launch.manager))?;
        let request = launch.request(manager).await?;
        Launch::tell_unheeded(manager, &request);
        output::say(manager.preview(&request)?);
        return Ok(Exit::Ok);
    }
    launch.run(&survey).await
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
    let status = known.status.as_ref().map_err(|error| {
        let name = &known.name;
        if let AskError::NotPermitted { .. } = error {
            let what = format!("the bridge `{name}` runs already, and this user may not ask it how it is");
            return Error::new(Exit::NotPermitted, what).because(error.to_string()).hint(AS_ROOT);
        }
        Error::new(Exit::Failed, format!("the bridge `{name}` is {}", known.state()))
            .because(error.to_string())
            .hint(format!(
                "restart it: foxxy-bridge server restart {name}; its log: foxxy-bridge server logs {name}"
            ))
    })?;
    let host = wanted.host.clone().unwrap_or_else(|| bridge.host.as_str().to_owned());
    let asked = daemon::address(&host, wanted.port.unwrap_or(bridge.port));
    if wanted.port != Some(0) && asked != status.address && (wanted.host.is_some() || wanted.port.is_some()) {
        let what =
            format!("the bridge `{}` is already running at {}, not at {asked}", known.name, status.address);
        let enabled = known.unit() == Some(&known.name.template_unit());
        return Err(Error::new(Exit::Failed, what).hint(match enabled {
            true => format!("change it in its unit: {}", wanted.enable(&known.name)),
            false => "restart it there with --force".to_owned(),
        }));
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

/// Removes what bridges that are gone have left, and says so.
pub(super) async fn clean_up(paths: &Paths, survey: &Survey) -> Result<(), Error> {
    let runs = |name: &Name| survey.get(name).is_some_and(|known| known.is_running() || known.is_listening());
    let supervisors = &survey.supervisors;
    let mut names = [lock::names(paths), paths.names_of_pid_files()].concat();
    names.sort();
    names.dedup();
    for name in names.into_iter().filter(|name| !runs(name)) {
        match supervisors.keeps(&name) {
            Ok(false) => {}
            Ok(true) => continue,
            // What is in its place is for whoever starts it.
            Err(error) => {
                output::warn(format!("{}: {}", error, error.why().unwrap_or_default()));
                continue;
            }
        }
        let instance = Instance::new(name, None, paths.clone())?;
        let folder = instance.runtime_dir();
        let mut removed = supervisors.clear(instance.name()).await?;
        if lock::clean_up(&instance)? {
            removed.push(folder);
        }
        let removed: Vec<_> = removed.iter().map(|path| path.display().to_string()).collect();
        if !removed.is_empty() {
            output::note(format!("removed what {} had left: {}", instance.name(), removed.join(", ")));
        }
    }
    Ok(())
}

/// Checks that what runs is kept by the manager that was asked for, if any was.
fn keeps(known: &Known, asked: Option<Manager>) -> Result<(), Error> {
    let (Some(asked), Some(managed)) = (asked, &known.managed) else { return Ok(()) };
    if managed.manager == asked {
        return Ok(());
    }
    let (name, other) = (&known.name, managed.manager.as_str());
    let what = format!("the bridge `{name}` runs already, kept by {other} ({})", managed.unit);
    Err(Error::new(Exit::Failed, what)
        .hint(format!("stop it there first: foxxy-bridge server stop {name}; --force does both")))
}
