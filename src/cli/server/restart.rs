//! `server restart`.

use std::time::Duration;

use clap::Args;

use super::survey::Survey;
use super::{Context, Whose, name_of, start, unit};
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::control::client;
use crate::instance::{Instance, Name, Paths};

/// How long a restart may take: the old one ends, and the new one serves.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    names: Vec<Name>,
    /// All that are running
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    whose: Whose,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let mut survey = Survey::take(&paths).await?;
    let names = if options.all {
        survey.known.iter().filter(|known| known.managed.is_some()).map(|known| known.name.clone()).collect()
    } else if options.names.is_empty() {
        vec![survey.meant(context, &paths)?]
    } else {
        options.names
    };
    if names.is_empty() {
        survey.tell_none()?;
    }
    for name in names {
        restart(&mut survey, &paths, &name, context).await?;
    }
    Ok(Exit::Ok)
}

async fn restart(survey: &mut Survey, paths: &Paths, name: &Name, context: &Context) -> Result<(), Error> {
    let Some(known) = survey.get(name) else {
        let own = context.instance(paths, None)?;
        if own.name() == name {
            output::note(format!("{name} is not running: it is started"));
            return start::start_plainly(survey, &own, context).await;
        }
        return Err(survey.unknown(name, Exit::Failed));
    };
    if known.managed.is_none() {
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
    }
    let config = known.config().filter(|path| path.exists());
    // A config that is broken by now must not cost a bridge that runs.
    let read = context.read(config.as_deref()).map_err(|mut error| {
        error.why.push(format!("{name} is left running as it is"));
        error
    })?;
    let instance = Instance::new(name.clone(), config, paths.clone())?;
    unit::write_environment(&instance, &read)?;
    survey.manager()?.restart(name, PATIENCE).await?;
    match client::status(&instance.control_socket()).await {
        Ok((status, _)) => output::say(format!("restarted {name}: {} (PID {})", status.address, status.pid)),
        Err(_) => output::say(format!("restarted {name}")),
    }
    Ok(())
}
