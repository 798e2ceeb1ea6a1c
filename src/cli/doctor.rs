//! `doctor`: what is wrong on this machine, why, and the command or edit that mends it.
//!
//! A check is one function in a file of its subject; to add one, write it and put it into [`CHECKS`].

mod bridges;
mod commands;
mod config;
mod facts;
mod finding;
mod journal;
mod limits;
mod linger;
mod manager;
mod port;
mod sandbox;
mod units;

use std::time::Duration;

use clap::Args;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, join_all};
use serde::Serialize;

use self::facts::Facts;
use self::finding::{Finding, State};
use super::context::Context;
use super::error::{Error, Exit};
use super::output::{self, BAD, DOUBTFUL, FAINT, GOOD};
use super::server::{Format, Whose};

/// How long one check may take; all are made at the same time.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(
    after_help = "It changes nothing. Exit code: 0 when every line is ok; 1 when there is a warning (it works now, \
    and will not always) or a problem (it does not work).\nWhat needs nothing done is ok, and the line says what it is: \
    lingering that is off while no bridge runs or is enabled, a protection that this systemd does not have and the \
    config does not insist on, limits that no config sets."
)]
pub(crate) struct Options {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    whose: Whose,
}

/// A check: what it is called, and what makes it. It finds nothing where it does not apply.
type Check = (&'static str, for<'f> fn(&'f Facts) -> LocalBoxFuture<'f, Vec<Finding>>);

/// All checks, in the order in which they are told: each explains some that come after it.
const CHECKS: &[Check] = &[
    ("service manager", |facts| manager::reached(facts).boxed_local()),
    ("environment", |facts| manager::environment(facts).boxed_local()),
    ("linger", |facts| linger::outlives_logout(facts).boxed_local()),
    ("config", |facts| config::valid(facts).boxed_local()),
    ("permissions", |facts| config::private(facts).boxed_local()),
    ("commands", |facts| commands::found(facts).boxed_local()),
    ("port", |facts| port::free(facts).boxed_local()),
    ("bridges", |facts| bridges::healthy(facts).boxed_local()),
    ("versions", |facts| bridges::up_to_date(facts).boxed_local()),
    ("failed units", |facts| bridges::none_failed(facts).boxed_local()),
    ("units", |facts| units::up_to_date(facts).boxed_local()),
    ("leftovers", |facts| bridges::nothing_left(facts).boxed_local()),
    ("journal", |facts| journal::readable(facts).boxed_local()),
    ("limits", |facts| limits::in_force(facts).boxed_local()),
    ("sandbox", |facts| sandbox::enforced(facts).boxed_local()),
];

/// One finding, for programs.
#[derive(Debug, Serialize)]
struct Row {
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(examine(options, context));
    // A look at a file of a server that does not answer may still be under way; nobody waits for it.
    runtime.shutdown_background();
    match options.format {
        Format::Json => output::say_json(&rows),
        Format::Table => rows.iter().for_each(|row| output::say(render(row))),
    }
    let well = rows.iter().all(|row| row.finding.state == State::Ok);
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

async fn examine(options: &Options, context: &Context) -> Vec<Row> {
    let paths = match context.paths(options.whose.scope()) {
        Ok(paths) => paths,
        // Without folders there is nothing to look at.
        Err(error) => {
            let fix = error.hint.unwrap_or_default();
            return vec![Row { check: "environment", finding: Finding::problem(error.what, fix) }];
        }
    };
    let facts = Facts::gather(paths, context).await;
    let checks = CHECKS.iter().map(async |(check, make)| {
        let made = tokio::time::timeout(PATIENCE, make(&facts)).await;
        let findings = made.unwrap_or_else(|_| vec![unanswered()]);
        findings.into_iter().map(|finding| Row { check, finding }).collect::<Vec<_>>()
    });
    join_all(checks).await.into_iter().flatten().collect()
}

fn unanswered() -> Finding {
    let found = format!("not known: no answer within {} s", PATIENCE.as_secs());
    Finding::warning(found, "try again; the machine may be busy, or a file server may not answer")
}

/// A line for what was found, and one for what to do about it.
fn render(row: &Row) -> String {
    let Finding { state, found, fix } = &row.finding;
    let style = match state {
        State::Ok => GOOD,
        State::Warning => DOUBTFUL,
        State::Problem => BAD,
    };
    let state = state.as_str();
    let mut text =
        format!("{style}{state:<7}{style:#}  {:<15}  {}", row.check, output::tame(found).trim_end());
    if let Some(fix) = fix {
        text.push_str(&format!("\n{:9}{FAINT}{:<15}{FAINT:#}  {}", "", "  to mend it", output::tame(fix)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_found_and_the_next_what_to_do() {
        let row = |check, finding| anstream::adapter::strip_str(&render(&Row { check, finding })).to_string();
        let lines = [
            row("service manager", Finding::ok("systemd 252 (user)")),
            row("port", Finding::problem("127.0.0.1:8080 is taken by node (PID 7)", "stop it")),
            row("journal", Finding::warning("a\u{1b}[2Jb", "c")),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        ok       service manager  systemd 252 (user)
        problem  port             127.0.0.1:8080 is taken by node (PID 7)
                   to mend it     stop it
        warning  journal          a�[2Jb
                   to mend it     c
        ");
    }

    #[test]
    fn a_program_gets_all_four_keys_of_every_line() {
        let row = Row { check: "linger", finding: Finding::ok("on") };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, r#"{"check":"linger","state":"ok","found":"on","fix":null}"#);
    }

    #[test]
    fn every_check_has_a_name_of_its_own_that_fits_its_column() {
        let mut names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }
}
