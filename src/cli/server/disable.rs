//! `server disable`: the undoing of `server enable`, and of nothing else.

use clap::Args;

use super::survey::{Known, Survey};
use super::{Context, Whose, enable, linger, name_of, stop, turn};
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::instance::{Instance, Name, Paths, environment};
use crate::manager;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    names: Vec<Name>,
    /// All that are enabled
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Stop it now as well
    #[arg(long)]
    now: bool,
    /// Print what would be removed and called, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    whose: Whose,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let survey = Survey::take(&paths).await?;
    if let Err(manager::Error::NotBooted { .. }) = survey.systemd {
        output::note("no bridge is enabled: that takes systemd, which does not run here");
        return Ok(Exit::Ok);
    }
    let enabled = survey.systemd()?.enabled().await?;
    let enabled: Vec<Name> = enabled.into_iter().map(|(name, _)| name).collect();
    for name in meant(&options, &enabled, &paths, context)? {
        disable(&options, &survey, &paths, &name).await?;
    }
    Ok(Exit::Ok)
}

fn meant(options: &Options, enabled: &[Name], paths: &Paths, context: &Context) -> Result<Vec<Name>, Error> {
    if options.all {
        if enabled.is_empty() {
            output::note("no bridge is enabled");
        }
        return Ok(enabled.to_vec());
    }
    if !options.names.is_empty() {
        return Ok(options.names.clone());
    }
    let own = context.instance(paths, None)?.name().clone();
    match enabled {
        [only] if !context.names_config() => Ok(vec![only.clone()]),
        several if several.contains(&own) || several.is_empty() || context.names_config() => Ok(vec![own]),
        several => {
            let names: Vec<&str> = several.iter().map(Name::as_str).collect();
            let what = format!("several bridges are enabled, and `{own}` is not one of them");
            Err(Error::new(Exit::Failed, what).hint(format!("name one: {}", names.join(", "))))
        }
    }
}

async fn disable(options: &Options, survey: &Survey, paths: &Paths, name: &Name) -> Result<(), Error> {
    let instance = Instance::new(name.clone(), None, paths.clone())?;
    let _turn = turn::wait(paths).await?;
    let plan = survey.systemd()?.plan_disable(name).await?;
    if options.dry_run {
        enable::show(&plan, name, "disabled");
        return Ok(());
    }
    let running = survey.get(name).is_some_and(|known| known.unit() == Some(&name.template_unit()));
    // A socket without its unit's files answers nobody.
    let listening = survey.get(name).is_some_and(Known::is_listening);
    if listening || options.now && running {
        stop::stop_one(survey, paths, name, false).await?;
    }
    let manager = survey.systemd()?;
    manager.carry_out(&plan).await?;
    let was_kept = instance.is_kept();
    let goes_on = running && !options.now;
    let outcome =
        if goes_on { environment::hand_back(&instance) } else { environment::forget(&instance).map(drop) };
    outcome.map_err(|error| {
        let what = format!("what was kept for `{name}` cannot be removed");
        Error::new(Exit::Failed, what).because(format!("{}: {error}", instance.kept_dir().display()))
    })?;
    if plan.steps.is_empty() && !was_kept {
        output::note(format!("{name} is not enabled"));
    } else {
        output::say(format!("disabled {name}"));
    }
    linger::take_back(paths, manager).await?;
    if goes_on {
        output::note(format!(
            "it goes on running, but is not restarted any more should it fail: `foxxy-bridge server stop {name}` ends it"
        ));
    }
    Ok(())
}
