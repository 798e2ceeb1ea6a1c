//! `server server-status`, also `server status`: one bridge and its servers.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::survey::{Known, Survey};
use super::{Context, Format, Whose, name_of};
use crate::cli::error::{AS_ROOT, Error, Exit};
use crate::cli::output::{self, BAD, DOUBTFUL, FAINT, GOOD, STRONG};
use crate::cli::table;
use crate::control::client::{self, AskError};
use crate::control::{Manager, Status, UpstreamState, UpstreamStatus};
use crate::host::log::Level;
use crate::instance::{Name, Paths, Scope};
use crate::manager::{Drift, Enablement};

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
        let enabled = survey.enabled(paths, name).await?;
        let is_known = enabled.is_some() || own.name() == name || paths.named_config(name).exists();
        let exit = if is_known { Exit::NotRunning } else { Exit::UnknownName };
        if format == Format::Json {
            let state = if exit == Exit::NotRunning { "not running" } else { "unknown" };
            let mut told = json!({ "name": name.as_str(), "state": state });
            if let Some((enablement, _)) = &enabled {
                told["enabled"] = json!(enablement);
            }
            output::say_json(&told);
            return Ok(exit);
        }
        return Err(match exit {
            Exit::NotRunning => match enabled {
                Some((enablement, config)) => Error::new(exit, format!("the bridge `{name}` is not running"))
                    .because(format!("it is enabled: it starts {}", when(enablement, name.as_str())))
                    .hint(format!("start it now: {}", start_of(name, &config, context, paths))),
                None => survey.unknown(name, exit),
            },
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
            let unit = UnitFiles::look_up(survey, known).await?;
            match format {
                Format::Json => output::say_json(&Told { status, unit }),
                Format::Table => output::say(render(status, known, unit, paths.scope(), &answers)),
            }
            Ok(if status.healthy && answers.is_ok() { Exit::Ok } else { Exit::Failed })
        }
        Err(_) if known.is_listening() => {
            if format == Format::Json {
                output::say_json(&json!({ "name": name.as_str(), "state": known.state() }));
            } else {
                output::say(format!("{STRONG}{name}{STRONG:#} is listening: its first client starts it"));
            }
            Ok(Exit::NotRunning)
        }
        Err(error) => {
            let not_permitted = known.is_running() && matches!(error, AskError::NotPermitted { .. });
            let reason = known
                .managed
                .as_ref()
                .and_then(|managed| managed.failure.clone().or(managed.status_text.clone()));
            if format == Format::Json {
                let reason = reason.unwrap_or_else(|| error.to_string());
                output::say_json(
                    &json!({ "name": name.as_str(), "state": known.state(), "pid": known.pid(), "error": reason }),
                );
            } else if not_permitted {
                let what = format!("this user may not ask the bridge `{name}` how it is");
                let hint = match paths.scope() {
                    Scope::System => AS_ROOT,
                    Scope::User => "check who owns it",
                };
                return Err(Error::new(Exit::NotPermitted, what).because(error.to_string()).hint(hint));
            } else {
                let mut told = Error::new(Exit::Failed, format!("the bridge `{name}` is {}", known.state()));
                told.why.extend(reason);
                told.why.push(error.to_string());
                output::complain(&told.hint(format!("see its log: foxxy-bridge server logs {name}")));
            }
            if not_permitted {
                return Ok(Exit::NotPermitted);
            }
            Ok(if known.is_running() { Exit::Failed } else { Exit::NotRunning })
        }
    }
}

/// How a bridge is, for programs.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(flatten)]
    unit: UnitFiles,
}

/// What the files of a bridge's unit say.
#[derive(Clone, Copy, Default, Serialize)]
struct UnitFiles {
    /// Whether, and when, it is started by itself.
    enabled: Option<Enablement>,
    /// How they differ from what runs.
    drift: Option<Drift>,
}

fn when(enabled: Enablement, name: &str) -> String {
    match enabled {
        Enablement::No => format!("by hand (by itself: foxxy-bridge server enable {name})"),
        Enablement::Boot => "by itself, with systemd".to_owned(),
        Enablement::FirstClient => "by itself, when its first client connects".to_owned(),
    }
}

impl UnitFiles {
    async fn look_up(survey: &Survey, known: &Known) -> Result<Self, Error> {
        let (Ok(manager), Manager::Systemd, Some(_)) = (&survey.systemd, known.manager(), &known.managed)
        else {
            return Ok(Self::default());
        };
        let enabled = Some(manager.enablement(&known.name).await?);
        Ok(Self { enabled, drift: manager.drift(&known.name).await? })
    }
}

/// What to type to start an instance that is enabled.
fn start_of(name: &Name, config: &Path, context: &Context, paths: &Paths) -> String {
    let mut command = "foxxy-bridge server start --daemon".to_owned();
    if *config != paths.default_config() {
        command.push_str(&format!(" --config {}", output::quoted(&config.display().to_string())));
    }
    let named = context.with_config(config.to_owned()).instance(paths, None);
    if named.is_ok_and(|named| named.name() != name) {
        command.push_str(&format!(" --name {name}"));
    }
    command
}

fn render(
    status: &Status,
    known: &Known,
    files: UnitFiles,
    scope: Scope,
    answers: &Result<(), String>,
) -> String {
    let mut lines = vec![format!("{STRONG}{}{STRONG:#}", status.name)];
    let mut line = |label: &str, text: String| lines.push(format!("  {FAINT}{label:<9}{FAINT:#} {text}"));
    let health = match status.healthy && answers.is_ok() {
        true => format!("{GOOD}{}, healthy{GOOD:#}", known.state()),
        false => format!("{DOUBTFUL}{}, not healthy{DOUBTFUL:#}", known.state()),
    };
    line("Status", health);
    line("PID", status.pid.to_string());
    let keeper = match &known.managed {
        Some(managed) if managed.manager == Manager::Pidfile => {
            Some(output::short_path(managed.unit.as_ref()))
        }
        _ => status.unit.clone(),
    };
    let keeper = keeper.map(|keeper| format!(" ({keeper})")).unwrap_or_default();
    line("Manager", format!("{}{keeper}", status.manager.as_str()));
    if let Some(enabled) = files.enabled {
        line("Starts", when(enabled, &status.name));
    }
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
    let restart = format!("foxxy-bridge server restart {}", status.name);
    match files.drift {
        Some(Drift::Newer) => lines.push(format!(
            "{DOUBTFUL}Its unit files are newer than the bridge:{DOUBTFUL:#} put them in force with `{restart}`"
        )),
        Some(Drift::Unread) => lines.push(format!(
            "{DOUBTFUL}systemd has not read its changed unit files:{DOUBTFUL:#} \
             `systemctl {} daemon-reload`, then `{restart}`",
            scope.flag()
        )),
        None => {}
    }
    if !status.upstreams.is_empty() {
        lines.push(String::new());
        lines.push(servers(&status.upstreams));
    }
    for upstream in &status.upstreams {
        if let (Some(error), false) = (&upstream.error, upstream.state == UpstreamState::Connected) {
            lines.push(format!("{BAD}{}:{BAD:#} {}", upstream.name, output::tame(error)));
        }
        for limit in &upstream.unenforced_limits {
            lines.push(format!("{DOUBTFUL}{}:{DOUBTFUL:#} {}", upstream.name, output::tame(limit)));
        }
    }
    lines.join("\n")
}

fn servers(upstreams: &[UpstreamStatus]) -> String {
    let mut header = vec!["Server", "State", "Tools", "Resources", "Prompts", "Restarts", "Transport"];
    let mut rows: Vec<Vec<String>> = upstreams
        .iter()
        .map(|upstream| {
            let counts = [upstream.tools, upstream.resources, upstream.prompts];
            let mut row = vec![upstream.name.clone(), upstream.state.as_str().to_owned()];
            row.extend(counts.map(|count| count.to_string()));
            row.extend([upstream.restarts.to_string(), upstream.transport.clone()]);
            row
        })
        .collect();
    let mut add = |name, cell: &dyn Fn(&UpstreamStatus) -> Option<String>| {
        let cells: Vec<_> = upstreams.iter().map(cell).collect();
        // What is known of nobody here is no column.
        if cells.iter().any(Option::is_some) {
            header.push(name);
            for (row, cell) in rows.iter_mut().zip(cells) {
                row.push(cell.unwrap_or_else(|| "-".to_owned()));
            }
        }
    };
    add("CPU", &|upstream| upstream.cpu_microseconds.map(output::short_span));
    add("Memory", &|upstream| upstream.memory_bytes.map(output::bytes));
    add("Processes", &|upstream| upstream.processes.map(|count| count.to_string()));
    add("Runs", &|upstream| Some(upstream.target.clone()));
    let spare = ["Processes", "Memory", "CPU", "Runs", "Transport", "Restarts", "Prompts", "Resources"];
    table::render(&header, rows, &spare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, usage: &serde_json::Value) -> UpstreamStatus {
        let mut all = json!({
            "name": name, "transport": "stdio", "target": "npx", "state": "connected", "tools": 9, "resources": 1,
            "prompts": 0, "in_flight": 0, "restarts": 0,
        });
        let (Some(all_keys), Some(usage)) = (all.as_object_mut(), usage.as_object()) else { unreachable!() };
        all_keys.extend(usage.clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_servers_use_is_shown_where_it_is_known() {
        let counted = json!({ "cpu_microseconds": 1_234_567, "memory_bytes": 60 << 20, "processes": 3 });
        insta::assert_snapshot!(servers(&[server("memory", &counted), server("docs", &json!({}))]), @r"
        Server  State      Tools  Resources  Prompts  Restarts  Transport  CPU    Memory  Processes  Runs
        memory  connected  9      1          0        0         stdio      1.23s  60.0M   3          npx
        docs    connected  9      1          0        0         stdio      -      -       -          npx
        ");
        let counted = json!({ "cpu_microseconds": 90_000_000, "processes": 1 });
        insta::assert_snapshot!(servers(&[server("memory", &counted)]), @r"
        Server  State      Tools  Resources  Prompts  Restarts  Transport  CPU     Processes  Runs
        memory  connected  9      1          0        0         stdio      1m 30s  1          npx
        ");
        insta::assert_snapshot!(servers(&[server("memory", &json!({}))]), @r"
        Server  State      Tools  Resources  Prompts  Restarts  Transport  Runs
        memory  connected  9      1          0        0         stdio      npx
        ");
    }
}
