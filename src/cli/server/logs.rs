//! `server logs`.

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;

use super::survey::Survey;
use super::{Context, Whose, name_of};
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, BAD, DOUBTFUL, FAINT};
use crate::instance::Name;
use crate::manager::{Entry, LogQuery};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    name: Option<Name>,
    /// Wait for more, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// The last lines
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    lines: u32,
    /// From then on, as journalctl takes it: "2026-01-31 12:00", "10 min ago", yesterday
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Of one server
    #[arg(long, value_name = "SERVER")]
    upstream: Option<String>,
    /// That and what is more urgent
    #[arg(long, value_enum, default_value_t = Level::Debug, hide_default_value = true)]
    level: Level,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    /// The syslog priority.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let mut survey = Survey::take(&paths).await?;
    let name = match options.name {
        Some(name) => name,
        None => survey.meant(context, &paths)?,
    };
    if let Some(known) = survey.get(&name).filter(|known| known.managed.is_none()) {
        return Err(match known.unit() {
            Some(unit) => {
                Error::new(Exit::Failed, format!("the bridge `{name}` runs in a unit of your own, {unit}"))
                    .hint(format!("journalctl {} {unit}", paths.scope().journal_flag()))
            }
            None => Error::new(Exit::Failed, format!("the bridge `{name}` runs in the foreground"))
                .hint("its log is in the terminal, or wherever else it was started"),
        });
    }
    let query = LogQuery {
        name: name.clone(),
        follow: options.follow,
        // A time says by itself how much is wanted.
        lines: options.since.is_none().then_some(options.lines),
        since: options.since,
        upstream: options.upstream,
        priority: Some(options.level.priority()),
    };
    let mut entries = survey.manager()?.logs(&query).await?;
    let mut any = false;
    while let Some(entry) = entries.next().await {
        any = true;
        output::say(render(&entry?));
    }
    if !any {
        output::note(format!("nothing is logged of {name}"));
    }
    Ok(Exit::Ok)
}

fn render(entry: &Entry) -> String {
    let micros = i64::try_from(entry.time).unwrap_or_default();
    let time =
        jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    let time = time.strftime("%Y-%m-%d %H:%M:%S%.3f");
    let (style, level) = match entry.priority {
        0..=3 => (BAD, "ERROR"),
        4 => (DOUBTFUL, "WARN"),
        7 => (FAINT, "DEBUG"),
        _ => (anstyle::Style::new(), "INFO"),
    };
    let who = match (&entry.upstream, entry.identifier.as_deref()) {
        (Some(upstream), _) => format!("{upstream}: "),
        (None, Some("foxxy-bridge") | None) => String::new(),
        (None, Some(other)) => format!("{other}: "),
    };
    let message = entry.message.lines().map(output::tame).collect::<Vec<_>>().join("\n    ");
    format!("{FAINT}{time}{FAINT:#} {style}{level:<5}{style:#} {who}{message}")
}
