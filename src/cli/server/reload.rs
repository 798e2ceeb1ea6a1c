//! `server reload`.

use clap::Args;

use super::survey::{Known, Survey};
use super::{Context, Outcomes, Targets, start, unit};
use crate::cli::error::{AS_ROOT, Error, Exit};
use crate::cli::output;
use crate::control::client::{self, AskError};
use crate::instance::{Instance, Name, Paths};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    targets: Targets,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let (paths, survey, names) = options.targets.find(context).await?;
    let runs = |name: &Name| survey.get(name).is_some_and(Known::is_running);
    let names: Vec<Name> = names.into_iter().filter(|name| !options.targets.all || runs(name)).collect();
    let mut outcomes = Outcomes::of(&names, "reloaded");
    for name in names {
        outcomes.add(reload(&survey, &paths, &name, context).await)?;
    }
    outcomes.end()
}

async fn reload(survey: &Survey, paths: &Paths, name: &Name, context: &Context) -> Result<(), Error> {
    let Some(known) = survey.get(name) else { return Err(survey.unknown(name, Exit::Failed)) };
    let config = known.config().filter(|path| path.exists());
    let instance = Instance::new(name.clone(), config, paths.clone())?;
    // Variables that the config names only now are in this shell, not in the bridge's environment. What is wrong with
    // the config is for the bridge to say, so that its status says it too. Of another user's bridge that no manager keeps
    // the config is not known.
    if known.config().is_some()
        && let Ok(read) = context.read_for(&instance)
    {
        unit::write_environment(&instance, &read, known.manager())?;
    }
    match client::reload(&instance.control_socket()).await {
        Ok(changes) => {
            let level = start::debugging(&instance.control_socket(), context).await?;
            output::say(format!("reloaded {name}: {changes}{level}"));
        }
        Err(client::ReloadError::Refused(reason)) => {
            let mut error =
                Error::new(Exit::BadConfig, format!("{name} goes on with the config from before"));
            error.why = reason.lines().map(str::to_owned).collect();
            return Err(error);
        }
        Err(client::ReloadError::NotAsked(error)) => {
            let what = format!("the bridge `{name}` could not be asked");
            return Err(match &error {
                AskError::NotPermitted { .. } => {
                    Error::new(Exit::NotPermitted, what).because(error.to_string()).hint(AS_ROOT)
                }
                _ => Error::new(Exit::Failed, what).because(error.to_string()),
            });
        }
    }
    Ok(())
}
