//! Whether the programs of the servers are found, by the bridges that run and by one that is started from here, and get
//! the rights that they need.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::facts::{Config, Facts, aside};
use super::finding::Finding;
use crate::cli::config::{Missing, missing_commands};
use crate::config::{self, Sandbox, Transport};
use crate::control::Status;
use crate::instance::{Name, Scope};

/// Programs with the set-user-ID bit or with capabilities, and those that run such ones: newuidmap and newgidmap.
const RAISED: [&str; 8] = ["buildah", "doas", "ping", "pkexec", "podman", "su", "sudo", "unshare"];

/// Each command of each config is on the `PATH` that it is looked for on.
pub(super) async fn found(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for config in &facts.configs {
        let Some(read) = config.config() else { continue };
        let runs_any = read.upstreams.values().any(|one| one.enabled && one.transport == Transport::Stdio);
        let status = config.bridge.as_ref().and_then(|name| facts.bridge(name)?.status.as_ref().ok());
        let (own, base, here) = (read.clone(), config.base(), facts.path.clone());
        let there = status.map(|status: &Status| OsString::from(&status.path));
        let looked = aside(move || {
            let look = |path: &OsStr| missing_commands(&own, base.as_deref(), path);
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
        wrong.extend(confined(facts, config, read));
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
    let stop = facts.server("stop", name);
    match here {
        true => Finding::problem(found, install(command)),
        false => Finding::problem(
            found,
            format!(
                "it is on yours: {stop}, then start it again from this shell, or give its full path in the config"
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

/// The servers whose commands the sandbox of a user's unit keeps from the rights that they need.
fn confined(facts: &Facts, config: &Config, read: &config::Config) -> Vec<Finding> {
    if facts.scope() == Scope::System {
        return Vec::new();
    }
    let restart = config.bridge.as_ref().map(|name| facts.server("restart", name));
    let found = powerless(read).into_iter();
    found.map(|found| Finding::warning(found, unconfine(&config.shown(), restart.as_deref()))).collect()
}

/// What is wrong with each enabled command that `NoNewPrivileges=` takes rights from, where the sandbox sets it.
fn powerless(config: &config::Config) -> Vec<String> {
    let sandbox = match config.bridge.daemon.sandbox {
        Sandbox::Off => return Vec::new(),
        Sandbox::Auto => "auto",
        Sandbox::Strict => "strict",
    };
    let servers = config.upstreams.iter();
    let servers = servers.filter(|(_, one)| one.enabled && one.transport == Transport::Stdio);
    servers
        .filter_map(|(server, one)| {
            let command = one.command.as_ref()?;
            let program = Path::new(command.as_str()).file_name()?.to_str()?;
            RAISED.contains(&program).then(|| {
                format!(
                    "{server}: `{}` may need more rights than its user has, which the sandbox `{sandbox}` denies it \
                     (NoNewPrivileges=)",
                    command.shown()
                )
            })
        })
        .collect()
}

/// How to let such a command have its way; `restart` is the command for a bridge that runs.
fn unconfine(config: &str, restart: Option<&str>) -> String {
    let then = restart.map(|restart| format!(", then: {restart}")).unwrap_or_default();
    format!("set `bridge.daemon.sandbox: \"off\"` in {config}{then}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn config(sandbox: &str) -> config::Config {
        let text = serde_json::json!({
            "mcpServers": {
                "box": { "command": "/usr/bin/podman", "args": ["run", "x"] },
                "node": { "command": "node", "args": ["sudo"] },
                "off": { "command": "sudo", "enabled": false },
                "root": { "command": "sudo" },
            },
            "bridge": { "daemon": { "sandbox": sandbox } },
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.json");
        std::fs::write(&file, text.to_string()).unwrap();
        let sources = config::Sources { env: &|_| None, home: None, credentials: None };
        config::load(&file, &sources).unwrap().config
    }

    #[test]
    fn commands_that_a_sandbox_takes_rights_from_are_named() {
        for sandbox in ["auto", "strict"] {
            let found = powerless(&config(sandbox));
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found[0].starts_with("box: `/usr/bin/podman` may need more rights"), "{found:?}");
            assert!(found[1].starts_with("root: `sudo` may need more rights"), "{found:?}");
            assert!(found[1].contains(&format!("the sandbox `{sandbox}` denies it")), "{found:?}");
        }
        assert_eq!(powerless(&config("off")), Vec::<String>::new());
    }

    #[test]
    fn a_bridge_that_runs_is_to_be_restarted_without_its_sandbox() {
        let off = "set `bridge.daemon.sandbox: \"off\"` in c.json";
        assert_eq!(unconfine("c.json", None), off);
        let restart = "foxxy-bridge server restart c";
        assert_eq!(unconfine("c.json", Some(restart)), format!("{off}, then: {restart}"));
    }

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
