//! `server server-status`, also `server status`: one bridge and its servers.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::survey::{Known, Survey};
use super::{Context, Format, Whose, name_of};
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, BAD, DOUBTFUL, FAINT, GOOD, STRONG};
use crate::cli::table;
use crate::control::client;
use crate::control::{Status, UpstreamState};
use crate::host::log::Level;
use crate::instance::{Name, Paths};

/// Between two looks with `--watch`.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    name: Option<Name>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Look again every two seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    whose: Whose,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    loop {
        let paths = context.paths(options.whose.scope())?;
        let survey = Survey::take(&paths).await?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => survey.meant(context, &paths)?,
        };
        if options.watch && output::is_terminal() {
            output::clear_screen();
        }
        let exit = tell(&survey, &paths, context, &name, options.format).await?;
        if !options.watch {
            return Ok(exit);
        }
        tokio::time::sleep(WATCH).await;
    }
}

async fn tell(
    survey: &Survey,
    paths: &Paths,
    context: &Context,
    name: &Name,
    format: Format,
) -> Result<Exit, Error> {
    let Some(known) = survey.get(name) else {
        if let Some(error) = survey.blind() {
            return Err(error.into());
        }
        let own = context.instance(paths, None)?;
        let exit =
            if own.name() == name || has_config(paths, name) { Exit::NotRunning } else { Exit::UnknownName };
        if format == Format::Json {
            let state = if exit == Exit::NotRunning { "not running" } else { "unknown" };
            output::say_json(&json!({ "name": name.as_str(), "state": state }));
            return Ok(exit);
        }
        return Err(match exit {
            Exit::NotRunning => survey.unknown(name, exit),
            _ => {
                let mut error = survey.unknown(name, exit);
                error.what = format!("there is no bridge `{name}`");
                error
            }
        });
    };
    match &known.status {
        Ok(status) => {
            let answers = client::answers(&status.address, "/readyz").await;
            match format {
                Format::Json => output::say_json(status),
                Format::Table => output::say(render(status, known, &answers)),
            }
            Ok(if status.healthy && answers.is_ok() { Exit::Ok } else { Exit::Failed })
        }
        Err(error) => {
            let reason = known
                .managed
                .as_ref()
                .and_then(|managed| managed.failure.clone().or(managed.status_text.clone()));
            if format == Format::Json {
                let reason = reason.unwrap_or_else(|| error.to_string());
                output::say_json(
                    &json!({ "name": name.as_str(), "state": known.state(), "pid": known.pid(), "error": reason }),
                );
            } else {
                let mut told = Error::new(Exit::Failed, format!("the bridge `{name}` is {}", known.state()));
                told.why.extend(reason);
                told.why.push(error.to_string());
                output::complain(&told.hint(format!("see its log: foxxy-bridge server logs {name}")));
            }
            Ok(if known.is_running() { Exit::Failed } else { Exit::NotRunning })
        }
    }
}

/// Whether a config of that name is in the folder: then the name is known, running or not.
fn has_config(paths: &Paths, name: &Name) -> bool {
    ["json", "toml"].iter().any(|kind| paths.config_dir().join(format!("{name}.{kind}")).exists())
}

fn render(status: &Status, known: &Known, answers: &Result<(), String>) -> String {
    let mut lines = vec![format!("{STRONG}{}{STRONG:#}", status.name)];
    let mut line = |label: &str, text: String| lines.push(format!("  {FAINT}{label:<9}{FAINT:#} {text}"));
    let health = match status.healthy && answers.is_ok() {
        true => format!("{GOOD}{}, healthy{GOOD:#}", known.state()),
        false => format!("{DOUBTFUL}{}, not healthy{DOUBTFUL:#}", known.state()),
    };
    line("Status", health);
    line("PID", status.pid.to_string());
    let unit = status.unit.as_ref().map(|unit| format!(" ({unit})")).unwrap_or_default();
    line("Manager", format!("{}{unit}", status.manager.as_str()));
    match answers {
        Ok(()) => line("Address", status.address.clone()),
        Err(reason) => line("Address", format!("{} {BAD}does not answer: {reason}{BAD:#}", status.address)),
    }
    let config = status.config.as_ref().map(|path| output::short_path(path.as_ref()));
    line("Config", config.unwrap_or_else(|| "(built in)".to_owned()));
    line("Uptime", output::span(status.uptime_seconds));
    line("Sessions", status.sessions.to_string());
    if status.log_level != Level::default() {
        line("Log level", format!("{DOUBTFUL}{}{DOUBTFUL:#}", status.log_level));
    }
    line("Version", status.version.clone());
    if !status.upstreams.is_empty() {
        let header = ["Server", "State", "Tools", "Resources", "Prompts", "Restarts", "Transport", "Runs"];
        let rows = status.upstreams.iter().map(|upstream| {
            let counts = [upstream.tools, upstream.resources, upstream.prompts];
            let mut row = vec![upstream.name.clone(), upstream.state.as_str().to_owned()];
            row.extend(counts.map(|count| count.to_string()));
            row.extend([upstream.restarts.to_string(), upstream.transport.clone(), upstream.target.clone()]);
            row
        });
        lines.push(String::new());
        let spare = ["Runs", "Transport", "Restarts", "Prompts", "Resources"];
        lines.push(table::render(&header, rows.collect(), &spare));
    }
    for upstream in &status.upstreams {
        if let (Some(error), false) = (&upstream.error, upstream.state == UpstreamState::Connected) {
            lines.push(format!("{BAD}{}:{BAD:#} {}", upstream.name, output::tame(error)));
        }
    }
    lines.join("\n")
}
