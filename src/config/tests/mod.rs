//! The room as its callers see it: text in, config or problems out.

mod expansion;
mod loading;
mod messages;
mod model;
mod properties;
mod secrets;

use std::path::Path;

use super::{Config, Format, Invalid, Problem, Sources, parse};

/// An environment with `PORT`, `TOKEN`, `EMPTY` and `YES`.
fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("9000".to_owned()),
        "TOKEN" => Some("s3cret".to_owned()),
        "EMPTY" => Some(String::new()),
        "YES" => Some("true".to_owned()),
        _ => None,
    }
}

fn sources() -> Sources<'static> {
    Sources { env: &env, home: None, credentials: None }
}

fn read(text: &str, format: Format) -> Result<(Config, Vec<Problem>), Invalid> {
    let file = match format {
        Format::Json => "config.json",
        Format::Toml => "config.toml",
    };
    parse(text, format, Path::new(file), Path::new("/nowhere"), &sources())
}

fn json(text: &str) -> Result<(Config, Vec<Problem>), Invalid> {
    read(text, Format::Json)
}

/// A config with this as its only server, `s`.
fn server(keys: &str) -> String {
    format!(r#"{{"mcpServers": {{"s": {{{keys}}}}}}}"#)
}

/// A config with this in `bridge` and a server that is fine.
fn bridge(keys: &str) -> String {
    format!(r#"{{"mcpServers": {{"s": {{"command": "x"}}}}, "bridge": {{{keys}}}}}"#)
}

/// Everything that is said about a text: `error:` and `warning:` lines.
fn said(text: &str, format: Format) -> String {
    let (problems, warnings) = match read(text, format) {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(invalid) => (invalid.problems, invalid.warnings),
    };
    let lines = |kind: &str, problems: &[Problem]| {
        problems.iter().map(|problem| format!("{kind}: {problem}\n")).collect::<String>()
    };
    lines("error", &problems) + &lines("warning", &warnings)
}
