//! Whether the programs of the servers are found: by the bridges that run, and by one that is started from here.

use std::ffi::{OsStr, OsString};

use super::facts::{Facts, aside};
use super::finding::Finding;
use crate::cli::config::{Missing, missing_commands};
use crate::config::Transport;
use crate::control::Status;
use crate::instance::Name;

/// Each command of each config is on the `PATH` that it is looked for on.
pub(super) async fn found(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for config in &facts.configs {
        let Some(read) = config.config() else { continue };
        let runs_any = read.upstreams.values().any(|one| one.enabled && one.transport == Transport::Stdio);
        let status = config.bridge.as_ref().and_then(|name| facts.bridge(name)?.status.as_ref().ok());
        let (read, base, here) = (read.clone(), config.base(), facts.path.clone());
        let there = status.map(|status: &Status| OsString::from(&status.path));
        let looked = aside(move || {
            let look = |path: &OsStr| missing_commands(&read, base.as_deref(), path);
            (there.as_deref().map(look), look(&here))
        });
        let Some((there, here)) = looked.await else {
            found.push(Finding::warning(
                "not known: a folder of PATH does not answer",
                "see which: echo \"$PATH\" | tr : '\\n'",
            ));
            continue;
        };
        let mut wrong: Vec<Finding> = Vec::new();
        for missing in there.iter().flatten() {
            let Some(name) = &config.bridge else { continue };
            let here = here.iter().any(|other| other.server == missing.server);
            wrong.push(unfound_there(facts, name, missing, here));
        }
        let known = |server: &str| there.iter().flatten().any(|missing| missing.server == server);
        for missing in here.iter().filter(|missing| !known(&missing.server)) {
            wrong.push(unfound_here(missing, there.is_some()));
        }
        if wrong.is_empty() {
            let any = if runs_any { "all are found" } else { "it runs none" };
            wrong.push(Finding::ok(format!("{}: {any}", config.shown())));
        }
        found.append(&mut wrong);
    }
    found
}

/// A command that a bridge that runs does not find; `here` is whether it is not found here either.
fn unfound_there(facts: &Facts, name: &Name, missing: &Missing, here: bool) -> Finding {
    let Missing { server, command, path } = missing;
    let found = format!("{server}: `{command}` is not on the PATH of the bridge {name} ({path})");
    let restart = facts.server("stop", name);
    match here {
        true => Finding::problem(found, install(command)),
        false => Finding::problem(
            found,
            format!(
                "it is on yours: {restart}, then start it again from this shell, or give its full path in the config"
            ),
        ),
    }
}

/// A command that is not found here; `there` is whether the bridge that runs finds it.
fn unfound_here(missing: &Missing, there: bool) -> Finding {
    let Missing { server, command, path } = missing;
    let found = format!("{server}: `{command}` is not on PATH here ({path})");
    match there {
        true => Finding::warning(
            format!("{found}; the bridge that runs finds it, one started from here would not"),
            format!(
                "start it from a shell where `command -v {command}` finds it, or give its full path in the config"
            ),
        ),
        false => Finding::problem(found, install(command)),
    }
}

/// How to come by a command.
fn install(command: &str) -> String {
    let package = match command {
        "npx" | "node" | "npm" => "install Node.js (Debian: nodejs, npm; nvm works, too)",
        "uvx" | "uv" => "install uv (https://docs.astral.sh/uv/)",
        "docker" | "podman" | "python3" | "python" | "deno" | "bun" | "bunx" => {
            return format!("install {command}, or give its full path in the config");
        }
        _ => "install it",
    };
    format!("{package}, put its folder on PATH, or give its full path in the config")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    #[test]
    fn what_runs_npx_is_named() {
        let missing = Missing { server: "memory".into(), command: "npx".into(), path: "/bin".into() };
        let found = unfound_here(&missing, false);
        assert_eq!(found.state, State::Problem);
        assert_eq!(found.found, "memory: `npx` is not on PATH here (/bin)");
        assert!(found.fix.unwrap().starts_with("install Node.js"));
        assert_eq!(unfound_here(&missing, true).state, State::Warning);
    }
}
