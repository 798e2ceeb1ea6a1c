//! `server restart`.

use std::time::Duration;

use clap::Args;

use super::launch::Launch;
use super::survey::Survey;
use super::unit::{self, Address};
use super::{Context, Outcomes, Targets, enable, start, stop};
use crate::cli::context::told;
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::control::{Manager, client};
use crate::instance::{Instance, Name, Paths};
use crate::manager::{Enablement, State};

/// How long a restart may take, beyond what its unit allows the old one to end: the new one serves.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    targets: Targets,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let (paths, survey, names) = options.targets.find(context).await?;
    // Nobody would start again what runs in the foreground of a terminal.
    let kept = |name: &Name| survey.get(name).is_some_and(|known| known.managed.is_some());
    let names: Vec<Name> = names.into_iter().filter(|name| !options.targets.all || kept(name)).collect();
    let mut outcomes = Outcomes::of(&names, "restarted");
    for name in names {
        outcomes.add(restart(&survey, &paths, &name, context).await)?;
    }
    outcomes.end()
}

async fn restart(survey: &Survey, paths: &Paths, name: &Name, context: &Context) -> Result<(), Error> {
    let Some(known) = survey.get(name) else {
        let instance = match context.instance(paths, None)? {
            own if own.name() == name => own,
            _ => {
                survey.instance(name, paths, context).await.map_err(|_| survey.unknown(name, Exit::Failed))?
            }
        };
        output::note(format!("{name} is not running: it is started"));
        let read = context.read_for(&instance).map_err(told)?;
        return Launch::plain(&instance, &read, context).run(survey).await.map(drop);
    };
    if known
        .managed
        .as_ref()
        .is_some_and(|managed| managed.manager == Manager::Pidfile && managed.state == State::Failed)
    {
        // Nobody keeps it any more.
        let instance =
            Instance::new(name.clone(), known.config().filter(|path| path.exists()), paths.clone())?;
        let read = context.read_for(&instance).map_err(told)?;
        stop::stop_one(survey, paths, name, false).await?;
        let launch = Launch { manager: Some(Manager::Pidfile), ..Launch::plain(&instance, &read, context) };
        return launch.run(survey).await.map(drop);
    }
    let Some(kind) = known.managed.as_ref().map(|managed| managed.manager) else {
        return Err(match known.unit() {
            Some(unit) => {
                Error::new(Exit::Failed, format!("the bridge `{name}` runs in a unit of your own, {unit}"))
                    .hint(format!("systemctl {} restart {unit}", paths.scope().flag()))
            }
            None => {
                let pid = known.pid().unwrap_or_default();
                Error::new(Exit::Failed, format!("the bridge `{name}` runs in the foreground, as PID {pid}"))
                    .hint("end it there, or with `server stop`, and start it again")
            }
        });
    };
    let config = known.config().filter(|path| path.exists());
    let identity = known.config();
    let instance = Instance::new(name.clone(), config, paths.clone())?;
    // A config that is broken by now must not cost a bridge that runs.
    let read = context.read_for(&instance).map_err(|invalid| {
        let mut error = told(invalid);
        error.why.push(format!("{name} is left running as it is"));
        error
    })?;
    unit::write_environment(&instance, &read, kind)?;
    let manager = survey.keeper(kind)?;
    let enablement = manager.enablement(name).await?;
    let Some(managed) = manager.find(name).await? else {
        return Err(survey.unknown(name, Exit::Failed));
    };
    // What it runs in was taken away since, or would serve another config the next time.
    let comes_back = managed.fragment.as_ref().is_some_and(|file| file.exists())
        && Some(managed.config.clone().unwrap_or_else(|| paths.named_config(name))) == identity;
    let homeless = !managed.transient && enablement == Enablement::No && !comes_back;
    // A socket is no part of what is restarted, and answers nobody once its unit has changed.
    let other_socket = enablement == Enablement::FirstClient && manager.drift(name).await?.is_some();
    if managed.transient && enablement != Enablement::No || other_socket || homeless {
        // It was enabled or disabled since it was started, and moves to the unit that it has now.
        stop::stop_one(survey, paths, name, false).await?;
        unit::write_environment(&instance, &read, kind)?;
        Launch { timeout: PATIENCE, ..Launch::plain(&instance, &read, context) }.run(survey).await?;
        return Ok(());
    }
    let daemon = &read.loaded.config.bridge.daemon;
    let spec = unit::spec(&instance, daemon, &Address::default(), context, start::TIMEOUT, manager).await?;
    if managed.transient {
        unit::tell_of_root(&spec, paths.scope(), kind);
    }
    let restarted = manager.restart(name, &spec, PATIENCE).await?;
    match client::status(&instance.control_socket()).await {
        Ok((status, _)) => output::say(format!("restarted {name}: {} (PID {})", status.address, status.pid)),
        Err(_) => output::say(format!("restarted {name}")),
    }
    if restarted.outdated && kind == Manager::Pidfile {
        output::warn(
            "what bridge.daemon says of its files, account and limits is in force in a new container only",
        );
    } else if restarted.outdated {
        output::warn(format!(
            "its unit is not what bridge.daemon in its config asks for: `{}` brings it up to date",
            enable::again(name, &enablement, &managed.argv)
        ));
    }
    Ok(())
}
