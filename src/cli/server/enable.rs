//! `server enable`: a bridge that comes back with the machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs as _};

use clap::Args;

use super::launch::Launch;
use super::survey::{Known, Survey, enabled_config};
use super::unit::{self, Address};
use super::{Context, Whose, name_of, start, stop, turn};
use crate::cli::context::{Read, told};
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, GOOD};
use crate::control::Manager;
use crate::instance::{Instance, Name, Paths, Scope, environment};
use crate::manager::{self, EnableRequest, Enablement, Plan, ServiceManager, SocketSpec};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which: one that runs or is enabled, or that of NAME.json in the config folder [default: that of the config]
    #[arg(value_parser = name_of)]
    name: Option<Name>,
    /// Start it now as well
    #[arg(long)]
    now: bool,
    /// Have systemd listen, and start it when its first client connects
    #[arg(long)]
    socket: bool,
    /// Have this user's bridges run without a login, from boot on
    #[arg(long)]
    linger: bool,
    /// The address to listen on [default: the config's, 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// The port to listen on [default: the config's, 8080]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Print what would be written and called, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    whose: Whose,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let survey = Survey::take(&paths).await?;
    let instance = meant(&options, &survey, &paths, context).await?.keeping();
    let read = context.read_for(&instance).map_err(told)?;
    for warning in &read.loaded.warnings {
        output::warn(warning.to_string());
    }
    let manager = with_systemd(&survey, instance.name())?;
    let _turn = turn::wait(&paths).await?;
    let changes_owner = changes_owner(&options, manager, &instance).await?;
    let request = request(&options, &instance, &read, context, manager).await?;
    let plan = manager.plan_enable(&request).await?;
    if options.dry_run {
        show(&plan, instance.name(), "enabled");
        return Ok(Exit::Ok);
    }
    if changes_owner {
        // What was kept for the config before is none of this one's business.
        environment::forget(&instance).map_err(|error| not_kept(&instance, &error))?;
    }
    apply(manager, &instance, &read, &plan).await?;
    tell(&instance, &plan, &request);
    match instance.scope() {
        Scope::User => super::linger::offer(&instance, options.linger).await?,
        Scope::System if options.linger => {
            output::note("--linger is for users: the machine's bridges run without a login as it is");
        }
        Scope::System => {}
    }
    let known = survey.get(instance.name());
    let runs = known.is_some_and(Known::is_running);
    let runs_unit = runs && known.and_then(Known::unit) == Some(&instance.name().template_unit());
    let changed = !plan.steps.is_empty();
    // systemd cannot begin to listen where the bridge does, and a socket whose unit has changed answers nobody.
    let stays = runs_unit && !(changed && request.socket.is_some());
    let moves = changed && known.is_some_and(Known::is_listening);
    if moves || options.now && !stays {
        start_now(&survey, &instance, &read, context).await?;
    } else if runs && changed {
        output::note(format!(
            "it goes on running as it was started; put the unit in force with `foxxy-bridge server restart {}`",
            instance.name()
        ));
    } else if options.now {
        output::note(format!("{} is already running", instance.name()));
    }
    Ok(Exit::Ok)
}

/// systemd, which alone starts a bridge at boot.
fn with_systemd<'a>(survey: &'a Survey, name: &Name) -> Result<&'a dyn ServiceManager, Error> {
    match &survey.systemd {
        Err(manager::Error::NotBooted { .. }) => {
            Err(manager::Error::NotEnabledHere { name: name.clone() }.into())
        }
        _ => survey.systemd(),
    }
}

/// The instance that the options mean.
async fn meant(
    options: &Options,
    survey: &Survey,
    paths: &Paths,
    context: &Context,
) -> Result<Instance, Error> {
    let Some(name) = &options.name else { return context.instance(paths, None) };
    if context.names_config() {
        return context.instance(paths, Some(name.clone()));
    }
    survey.instance(name, paths, context).await
}

async fn request(
    options: &Options,
    instance: &Instance,
    read: &Read,
    context: &Context,
    manager: &dyn ServiceManager,
) -> Result<EnableRequest, Error> {
    let bridge = &read.loaded.config.bridge;
    let address = Address { host: options.host.clone(), port: options.port };
    let mut spec = unit::spec(instance, &bridge.daemon, &address, context, start::TIMEOUT, manager).await?;
    unit::keep_account(&mut spec, instance.scope());
    let program = spec.exec.first().cloned().unwrap_or_default();
    let socket = options.socket.then(|| {
        let host = options.host.as_deref().unwrap_or(bridge.host.as_str());
        let address = resolve(host, options.port.unwrap_or(bridge.port))?;
        Ok::<_, Error>(SocketSpec { instance: instance.name().to_string(), address })
    });
    let mut command = Address::default().enable(instance.name());
    if let Some(config) = instance.config().filter(|_| !instance.is_named_after_config()) {
        command.push_str(&format!(" --config {}", output::quoted(&config.display().to_string())));
    }
    // What is left out the next time is the config's again.
    command.push_str(&address.options());
    if options.socket {
        command.push_str(" --socket");
    }
    Ok(EnableRequest {
        name: instance.name().clone(),
        spec,
        template: unit::packaged(&program, instance.scope()),
        socket: socket.transpose()?,
        command,
    })
}

/// What to type to have a unit written anew, with what it was enabled with; `argv` is what it runs.
pub(super) fn again(name: &Name, enablement: &Enablement, argv: &[String]) -> String {
    let value = |option| argv.iter().skip_while(|argument| *argument != option).nth(1);
    let port = value("--port").and_then(|port| port.parse().ok());
    let mut command = Address { host: value("--host").cloned(), port }.enable(name);
    if *enablement == Enablement::FirstClient {
        command.push_str(" --socket");
    }
    command
}

/// systemd listens on addresses, not on names.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let what = || format!("systemd cannot listen on {host}:{port}");
    let hint = "give an IP address of this machine with --host";
    let found = (host.trim_matches(['[', ']']), port).to_socket_addrs();
    let mut found =
        found.map_err(|error| Error::new(Exit::Failed, what()).because(error.to_string()).hint(hint))?;
    found.next().ok_or_else(|| Error::new(Exit::Failed, what()).because("it has no address").hint(hint))
}

/// Whether the name is enabled for another config so far, which only somebody who names it can want to change.
async fn changes_owner(
    options: &Options,
    manager: &dyn ServiceManager,
    instance: &Instance,
) -> Result<bool, Error> {
    let name = instance.name();
    if manager.enablement(name).await? == Enablement::No {
        return Ok(false);
    }
    let config = enabled_config(manager, instance.paths(), name).await?;
    let config = std::fs::canonicalize(&config).unwrap_or(config);
    if config == instance.identity() {
        return Ok(false);
    }
    if options.name.is_some() {
        return Ok(true);
    }
    let what = format!("the name `{name}` is enabled for another config, {}", config.display());
    let own = output::quoted(&instance.identity().display().to_string());
    Err(Error::new(Exit::Failed, what).hint(format!(
        "give this one a name of its own: foxxy-bridge server enable NAME --config {own}; or that name: \
         foxxy-bridge server enable {name} --config {own}"
    )))
}

fn not_kept(instance: &Instance, error: &std::io::Error) -> Error {
    let what = format!("what `{}` needs at boot cannot be kept", instance.name());
    let why = format!("{}: {error}", instance.kept_dir().display());
    match (error.kind(), instance.scope()) {
        (ErrorKind::PermissionDenied, Scope::System) => {
            Error::new(Exit::NotPermitted, what).because(why).hint("use sudo, or your own manager: --user")
        }
        _ => Error::new(Exit::Failed, what).because(why),
    }
}

/// Carries the plan out; when that fails, nothing is kept that was not there before.
async fn apply(
    manager: &dyn ServiceManager,
    instance: &Instance,
    read: &Read,
    plan: &Plan,
) -> Result<(), Error> {
    let is_new = environment::keep(instance).map_err(|error| not_kept(instance, &error))?;
    let outcome = match unit::write_environment(instance, read, Manager::Systemd) {
        Ok(()) => manager.carry_out(plan).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    if outcome.is_err() && is_new {
        environment::forget(instance).map_err(|error| not_kept(instance, &error))?;
    }
    outcome?;
    let from_here = |name: &&str| std::env::var_os(name).is_some();
    let names: Vec<&str> = read.variables.keys().map(String::as_str).filter(from_here).collect();
    if !names.is_empty() {
        output::note(format!(
            "kept for the boot: {}, from this shell, in {} (for this user alone)",
            names.join(", "),
            output::short_path(&instance.variables_file())
        ));
    }
    Ok(())
}

fn tell(instance: &Instance, plan: &Plan, request: &EnableRequest) {
    let name = instance.name();
    let (unit, when) = match &request.socket {
        Some(socket) => {
            (name.template_socket(), format!("starts when a client connects to {}", socket.address))
        }
        None if instance.scope() == Scope::User => {
            (name.template_unit(), "starts with this user's systemd".to_owned())
        }
        None => (name.template_unit(), "starts at boot".to_owned()),
    };
    if plan.steps.is_empty() {
        output::say(format!("{name} is enabled already: {unit} {when}"));
    } else {
        output::say(format!("{GOOD}enabled{GOOD:#} {name}: {unit} {when}"));
    }
}

/// Prints a plan.
pub(super) fn show(plan: &Plan, name: &Name, outcome: &str) {
    if plan.steps.is_empty() {
        output::note(format!("nothing to do: {name} is {outcome} already"));
    }
    for step in &plan.steps {
        output::say(step.to_string());
    }
}

/// Starts the unit; what runs of the same bridge makes way for it.
async fn start_now(
    survey: &Survey,
    instance: &Instance,
    read: &Read,
    context: &Context,
) -> Result<(), Error> {
    let name = instance.name();
    if survey.get(name).is_some_and(|known| known.is_running() || known.is_listening()) {
        stop::stop_one(survey, instance.paths(), name, false).await?;
        unit::write_environment(instance, read, Manager::Systemd)?;
    }
    Launch::plain(instance, read, context).run(survey).await?;
    Ok(())
}
