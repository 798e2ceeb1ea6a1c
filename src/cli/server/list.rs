//! `server list`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::survey::{Known, Survey};
use super::{Context, Format, Whose};
use crate::cli::error::{Error, Exit};
use crate::cli::{output, table};
use crate::control::Manager;
use crate::instance::Name;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    whose: Whose,
}

/// One bridge, for programs.
#[derive(Serialize)]
struct Row {
    name: String,
    pid: Option<u32>,
    status: String,
    config: Option<String>,
    manager: &'static str,
    unit: Option<String>,
    address: Option<String>,
    uptime_seconds: Option<u64>,
    restarts: u32,
}

impl Row {
    /// `default` is where the default config is, or would be.
    fn new(known: &Known, default: &Path) -> Self {
        let status = known.status.as_ref().ok();
        Self {
            name: known.name.to_string(),
            pid: known.pid(),
            status: known.state(),
            // Where the default config would be is no file yet.
            config: known
                .config()
                .filter(|path| path != default || path.exists())
                .map(|path| path.display().to_string()),
            manager: known.manager().as_str(),
            unit: known.unit().map(str::to_owned),
            address: status.map(|status| status.address.clone()),
            uptime_seconds: known.uptime(),
            restarts: known.managed.as_ref().and_then(|managed| managed.restarts).unwrap_or_default(),
        }
    }

    /// One that is enabled and does not run; `config` need not be a file.
    fn stopped(name: &Name, config: &Path, default: &Path) -> Self {
        Self {
            name: name.to_string(),
            pid: None,
            status: "stopped".to_owned(),
            config: Some(config)
                .filter(|path| *path != default || path.exists())
                .map(|path| path.display().to_string()),
            manager: Manager::Systemd.as_str(),
            unit: Some(name.template_unit()),
            address: None,
            uptime_seconds: None,
            restarts: 0,
        }
    }

    fn cells(self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.name,
            or_dash(self.pid.map(|pid| pid.to_string())),
            self.status,
            self.config.map_or_else(|| "(built in)".to_owned(), |config| output::short_path(config.as_ref())),
            self.manager.to_owned(),
            or_dash(self.address),
            or_dash(self.uptime_seconds.map(output::span)),
        ]
    }
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let mut survey = Survey::take(&paths).await?;
    if options.format == Format::Json {
        survey.complete().await?;
    }
    let default = paths.default_config();
    let mut rows: Vec<Row> = survey.known.iter().map(|known| Row::new(known, &default)).collect();
    for (name, config) in survey.stopped(&paths).await? {
        rows.push(Row::stopped(&name, &config, &default));
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(error) = survey.blind() {
        output::warn(format!("{error}: those that it keeps are not listed"));
    }
    match options.format {
        Format::Json => output::say_json(&rows),
        Format::Table if rows.is_empty() && survey.blind().is_some() => {}
        Format::Table if rows.is_empty() => output::note("no bridge is running"),
        Format::Table => {
            let header = ["Name", "PID", "Status", "Config File", "Manager", "Address", "Uptime"];
            let spare = ["Uptime", "Manager", "Address"];
            output::say(table::render(&header, rows.into_iter().map(Row::cells).collect(), &spare));
        }
    }
    Ok(Exit::Ok)
}
