//! `server stop`.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::survey::{Known, Survey};
use super::{Context, Outcomes, Targets};
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::control::{Manager, client};
use crate::host;
use crate::host::process::Process;
use crate::instance::{Instance, Name, Paths, lock};
use crate::manager::{ServiceManager, Stopped};

/// After this long a person is told what is waited for.
const SILENT: Duration = Duration::from_secs(1);

/// How long a bridge may take to stop, beyond what its unit allows itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long one may take whose supervisor was killed.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// At once, without asking it
    #[arg(short = 'F', long)]
    force: bool,
    #[command(flatten)]
    targets: Targets,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let (paths, survey, names) = options.targets.find(context).await?;
    if options.targets.is_open() && host::unit::own().is_some() && survey.of_own_unit().is_none() {
        // This is how a unit ends whose bridge has ended before. What runs elsewhere is none of its business.
        output::note("nothing of this unit is running");
        return Ok(Exit::Ok);
    }
    let mut outcomes = Outcomes::of(&names, "stopped");
    for name in names {
        let stopped = stop_one(&survey, &paths, &name, options.force).await;
        outcomes.add(stopped.and_then(|stopped| tell(stopped, &survey, &name, options.targets.all)))?;
    }
    outcomes.end()
}

fn tell(stopped: Stopped, survey: &Survey, name: &Name, all: bool) -> Result<(), Error> {
    match stopped {
        Stopped::Clean => output::say(format!("stopped {name}")),
        Stopped::Killed => output::say(format!("killed {name}")),
        Stopped::GivenUp => output::say(format!("stopped {name}: it had failed and was given up")),
        // It ended by itself in between, which is what was wanted.
        Stopped::NotRunning if all => output::say(format!("{name} was not running any more")),
        Stopped::NotRunning => return Err(survey.unknown(name, Exit::Failed)),
    }
    Ok(())
}

/// Stops one, under whatever keeps it, and removes what it leaves.
pub(super) async fn stop_one(
    survey: &Survey,
    paths: &Paths,
    name: &Name,
    force: bool,
) -> Result<Stopped, Error> {
    let stopped = match survey.get(name) {
        None => return Ok(Stopped::NotRunning),
        Some(known) => match &known.managed {
            Some(managed) => {
                let orphan = match known.is_orphan() {
                    true => Some(stop_foreground(known, paths, force).await?),
                    false => None,
                };
                let stopped = stop_managed(survey.keeper(managed.manager)?, name, force).await?;
                // It may have ended in between, as it was about to.
                orphan.filter(|ended| *ended != Stopped::NotRunning).unwrap_or(stopped)
            }
            None => stop_foreground(known, paths, force).await?,
        },
    };
    let instance = Instance::new(name.clone(), None, paths.clone())?;
    // A supervisor removes it all itself, and what is there after its end is of one that was just started.
    let supervised = survey.get(name).is_some_and(|known| known.manager() == Manager::Pidfile);
    if !supervised || instance.control_socket().exists() {
        lock::clean_up(&instance)?;
    }
    Ok(stopped)
}

/// Stops a bridge that a manager keeps, and tells on a terminal what is waited for.
async fn stop_managed(manager: &dyn ServiceManager, name: &Name, force: bool) -> Result<Stopped, Error> {
    let mut stop = manager.stop(name, force, PATIENCE);
    if let Ok(stopped) = tokio::time::timeout(SILENT, &mut stop).await {
        return Ok(stopped?);
    }
    // One that has ended in between is none to wait for.
    if std::io::stderr().is_terminal()
        && let Ok(within) = manager.stop_timeout(name).await
    {
        let within = within.as_secs();
        output::note(format!("waiting for {name} to end what it is doing, for which it has {within} s"));
    }
    Ok(stop.await?)
}

/// Stops a bridge that nobody keeps, by the process that the kernel says is behind its socket.
async fn stop_foreground(known: &Known, paths: &Paths, force: bool) -> Result<Stopped, Error> {
    let name = &known.name;
    let listening = client::peer(&paths.control_socket(name)).await;
    let Ok(pid) = listening else { return Ok(Stopped::NotRunning) };
    let what = || format!("the bridge `{name}` (PID {pid}) cannot be stopped");
    let failed = |error: std::io::Error| Error::new(Exit::Failed, what()).because(error.to_string());
    // From here on it means this process, whatever becomes of its number.
    let process = Process::open(pid).map_err(failed)?;
    if client::peer(&paths.control_socket(name)).await.ok() != Some(pid) {
        return Ok(Stopped::NotRunning);
    }
    let signals = if force { &[Signal::KILL][..] } else { &[Signal::TERM, Signal::KILL] };
    for signal in signals {
        process.signal(*signal).map_err(failed)?;
        let patience = match *signal {
            // It has been told to end already, by the end of its supervisor.
            Signal::TERM if known.is_orphan() => ORPHANS_PATIENCE,
            Signal::TERM => PATIENCE,
            _ => Duration::from_secs(5),
        };
        if process.wait(patience).map_err(failed)? {
            return Ok(if *signal == Signal::TERM { Stopped::Clean } else { Stopped::Killed });
        }
    }
    Err(Error::new(Exit::Failed, what()).because(format!("process {pid} lives on after SIGKILL")))
}
