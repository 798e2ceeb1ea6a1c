//! `server logs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;

use super::survey::Survey;
use super::unit;
use super::{Context, Whose, name_of};
use crate::cli::error::{Error, Exit};
use crate::cli::output::{self, BAD, DOUBTFUL, FAINT};
use crate::control::Manager;
use crate::host::log::{IDENTIFIER, Level};
use crate::host::signals::Termination;
use crate::instance::{Name, Paths};
use crate::manager::{Entry, LogQuery};

/// The lines that are printed when nobody says how many.
const USUAL_LINES: u32 = 50;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    name: Option<Name>,
    /// Wait for more, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// The last lines [default: 50, but all where a time is given]
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<u32>,
    /// From then on, as journalctl takes it: "2026-01-31 12:00", "10 min ago", yesterday
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to then
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Of one server
    #[arg(long, value_name = "SERVER")]
    upstream: Option<String>,
    /// That and what is more urgent: error, warning, info or debug
    #[arg(long, value_name = "LEVEL", value_parser = str::parse::<Level>, default_value = "debug", hide_default_value = true)]
    level: Level,
    /// How to print a line
    #[arg(short, long, value_enum, default_value_t = Output::Short)]
    output: Output,
    #[command(flatten)]
    whose: Whose,
}

/// How a line is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Time, level, who and what
    Short,
    /// A JSON object a line: time, level, upstream, session, request, identifier, pid, message
    Json,
    /// The text alone
    Cat,
}

pub(super) async fn run(options: Options, context: &Context) -> Result<Exit, Error> {
    if let (true, Some(_), Some(_)) = (options.follow, &options.since, options.lines) {
        let what = "with --follow, the lines from before are chosen by --since or by --lines, not by both";
        return Err(Error::new(Exit::Usage, what).hint("leave one of them out"));
    }
    let paths = context.paths(options.whose.scope())?;
    let survey = Survey::take(&paths).await?;
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
    let kind = keeper(&survey, &paths, &name);
    let timed = options.since.is_some() || options.until.is_some();
    let query = LogQuery {
        name: name.clone(),
        file: log_file(&survey, &paths, &name, context).await,
        follow: options.follow,
        // A time says by itself how much is wanted.
        lines: options.lines.or((!timed).then_some(USUAL_LINES)),
        since: options.since,
        until: options.until,
        upstream: options.upstream,
        priority: Some(options.level.priority()),
    };
    let mut termination = Termination::listen()?;
    let mut entries = survey.keeper(kind)?.logs(&query).await?;
    let mut reader_gone = std::pin::pin!(output::reader_gone());
    let mut any = false;
    loop {
        let entry = tokio::select! {
            entry = entries.next() => entry,
            // With --follow there is no other end.
            _ = termination.next() => return Ok(Exit::Ok),
            () = &mut reader_gone => return Ok(Exit::Ok),
        };
        let Some(entry) = entry else { break };
        any = true;
        output::say(match options.output {
            Output::Short => short(&entry?),
            Output::Json => json(&entry?),
            Output::Cat => tamed(&entry?.message, "\n"),
        });
    }
    if !any {
        output::note(format!("nothing is logged of {name}"));
    }
    Ok(Exit::Ok)
}

/// Which manager has the log: the one that keeps the bridge; of one that does not run, systemd where it is there, unless
/// there is a log file.
fn keeper(survey: &Survey, paths: &Paths, name: &Name) -> Manager {
    match survey.get(name).and_then(|known| known.managed.as_ref()) {
        Some(managed) => managed.manager,
        None if paths.log_file(name).exists() => Manager::Pidfile,
        // One that cannot be asked may have it.
        None if survey.systemd.is_ok() || survey.blind().is_some() => Manager::Systemd,
        None => Manager::Pidfile,
    }
}

/// The log file that the config of a bridge names.
async fn log_file(survey: &Survey, paths: &Paths, name: &Name, context: &Context) -> Option<PathBuf> {
    let instance = survey.instance(name, paths, context).await.ok()?;
    let read = context.read_for(&instance).ok()?;
    unit::log_file(&instance, &read.loaded.config.bridge.daemon)
}

/// With all keys in every line.
fn json(entry: &Entry) -> String {
    let object = serde_json::json!({
        "time": time(entry).to_string(),
        "level": Level::of_priority(entry.priority),
        "upstream": entry.upstream,
        "session": entry.session,
        "request": entry.request,
        "identifier": entry.identifier,
        "pid": entry.pid,
        "message": entry.message,
    });
    object.to_string()
}

fn time(entry: &Entry) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(i64::try_from(entry.time).unwrap_or_default()).unwrap_or_default()
}

/// A text of several lines without what would steer the terminal.
fn tamed(text: &str, between: &str) -> String {
    text.lines().map(output::tame).collect::<Vec<_>>().join(between)
}

fn short(entry: &Entry) -> String {
    let time = time(entry).to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f");
    let (style, level) = match Level::of_priority(entry.priority) {
        Level::Error => (BAD, "ERROR"),
        Level::Warning => (DOUBTFUL, "WARN"),
        Level::Info => (anstyle::Style::new(), "INFO"),
        Level::Debug => (FAINT, "DEBUG"),
    };
    let who = match (&entry.upstream, entry.identifier.as_deref()) {
        (Some(upstream), _) => format!("{}: ", output::tame(upstream)),
        (None, Some(IDENTIFIER) | None) => String::new(),
        (None, Some(other)) => format!("{}: ", output::tame(other)),
    };
    let message = tamed(&entry.message, "\n    ");
    format!("{FAINT}{time}{FAINT:#} {style}{level:<5}{style:#} {who}{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time: 1_763_900_000_123_456,
            priority: 3,
            upstream: Some("time".to_owned()),
            message: "one\n\u{1b}[2Jtwo".to_owned(),
            identifier: Some("foxxy-bridge/time".to_owned()),
            pid: Some(77),
            ..Entry::default()
        }
    }

    #[test]
    fn a_line_of_json_has_every_key_and_no_line_break() {
        insta::assert_snapshot!(json(&entry()), @r#"{"time":"2025-11-23T12:13:20.123456Z","level":"error","upstream":"time","session":null,"request":null,"identifier":"foxxy-bridge/time","pid":77,"message":"one\n\u001b[2Jtwo"}"#);
    }

    #[test]
    fn what_a_server_says_does_not_steer_the_terminal() {
        assert_eq!(tamed(&entry().message, "\n"), "one\n\u{fffd}[2Jtwo");
        let short = short(&entry());
        assert!(short.ends_with("time: one\n    \u{fffd}[2Jtwo"), "{short}");
    }
}
