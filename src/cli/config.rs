//! `config`: checking, showing and beginning a config. No config is ever rewritten.

use std::ffi::OsStr;
use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use clap::Subcommand;

use super::context::Context;
use super::error::{Error, Exit};
use super::output::{self, BAD, FAINT, GOOD};
use crate::config::{self, Config, Transport};
use crate::host;
use crate::instance::Scope;
use crate::manager::OWN_ACCOUNT;

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Check the config, and that each command in it is there (exit code 78 when not)
    Validate,
    /// Print the config in force, defaults included, secrets masked
    Show,
    /// Print the JSON Schema of configs
    Schema,
    /// Print which config would be read
    Path,
    /// Write a config to begin with; one that is there is kept
    Init,
}

pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(Context::scope(None))?;
    match command {
        Command::Validate => validate(context, context.config_path(&paths).as_deref()),
        Command::Show => {
            let read = context.read(context.config_path(&paths).as_deref())?;
            output::say(config::show(&read.loaded.config));
            Ok(Exit::Ok)
        }
        Command::Schema => {
            output::say_json(&config::schema());
            Ok(Exit::Ok)
        }
        Command::Path => {
            match context.config_path(&paths) {
                Some(path) => output::say(path.display().to_string()),
                None => {
                    output::note("no config: the built-in default is used; one would be read from");
                    output::say(paths.default_config().display().to_string());
                }
            }
            Ok(Exit::Ok)
        }
        Command::Init => {
            let path = context.config_path(&paths).unwrap_or_else(|| paths.default_config());
            init(&path, paths.scope())
        }
    }
}

fn validate(context: &Context, path: Option<&Path>) -> Result<Exit, Error> {
    let read = context.read(path)?;
    for warning in &read.loaded.warnings {
        output::warn(warning.to_string());
    }
    let config = &read.loaded.config;
    let shown = path.map_or_else(|| "the built-in default".to_owned(), output::short_path);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let missing = missing_commands(config, read.loaded.path.as_deref().and_then(Path::parent), &folders);
    if !missing.is_empty() {
        let mut error = Error::new(Exit::BadConfig, format!("{shown}: commands are missing on this machine"));
        let line = |Missing { server, command, path }| {
            format!("{BAD}{server}:{BAD:#} `{command}` was not found on PATH ({path})")
        };
        error.why = missing.into_iter().map(line).collect();
        return Err(error.hint("install them, or give their full path in the config"));
    }
    let (enabled, all) =
        (config.upstreams.values().filter(|upstream| upstream.enabled).count(), config.upstreams.len());
    output::say(format!("{GOOD}valid:{GOOD:#} {shown}, {enabled} of {all} servers enabled"));
    for (name, upstream) in &config.upstreams {
        let what = match (&upstream.command, &upstream.url) {
            (Some(command), _) if upstream.transport == Transport::Stdio => command.shown().to_owned(),
            (_, Some(url)) => url.shown().to_owned(),
            _ => "the bridge itself".to_owned(),
        };
        let off = if upstream.enabled { "" } else { " (disabled)" };
        output::say(format!("  {name}{off}  {FAINT}{what}{FAINT:#}"));
    }
    Ok(Exit::Ok)
}

/// A command that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// The server that it would run.
    pub(super) server: String,
    /// As the config has it, fit to be shown.
    pub(super) command: String,
    /// Where it was looked for.
    pub(super) path: String,
}

/// The enabled commands that cannot be found by a bridge with that PATH, where neither they nor the bridge have another.
pub(super) fn missing_commands(config: &Config, base: Option<&Path>, path: &OsStr) -> Vec<Missing> {
    let home = std::env::home_dir();
    let of_bridge = config.bridge.daemon.environment.get("PATH");
    let enabled = config.upstreams.iter().filter(|(_, upstream)| upstream.enabled);
    enabled
        .filter(|(_, upstream)| upstream.transport == Transport::Stdio)
        .filter_map(|(name, upstream)| {
            let command = upstream.command.as_ref()?;
            let own = upstream.env.get("PATH").or(of_bridge).map(|path| OsStr::new(path.expose()));
            let path = own.unwrap_or(path);
            let cwd = upstream.cwd.as_ref().map(|cwd| {
                config::resolve_path(cwd.as_str(), base.unwrap_or(Path::new("/")), home.as_deref())
            });
            let found = host::path::find(command.as_str(), path, cwd.as_deref().or(base));
            found.is_none().then(|| Missing {
                server: name.clone(),
                command: command.shown().to_owned(),
                path: path.to_string_lossy().into_owned(),
            })
        })
        .collect()
}

fn init(path: &Path, scope: Scope) -> Result<Exit, Error> {
    let failed = |error: std::io::Error| {
        Error::new(Exit::Failed, format!("{} cannot be written", output::short_path(path)))
            .because(error.to_string())
    };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return Err(Error::new(Exit::Failed, "the sample is JSON").hint("give it a name that ends in .json"));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Configs hold keys: they are for their owner alone.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(config::sample().as_bytes()).map_err(failed)?;
            output::say(format!("written: {}", path.display()));
            // The machine's bridges run as an account of their own, where a package has made it.
            if let Some(group) = host::user::group(OWN_ACCOUNT).filter(|_| scope == Scope::System) {
                let given = fchown(&file, None, Some(group));
                given.and_then(|()| file.set_permissions(Permissions::from_mode(0o640))).map_err(failed)?;
                output::note(format!(
                    "It can be read by root and the account {OWN_ACCOUNT}, as which it is served."
                ));
            }
            output::note("Put your servers in, then: foxxy-bridge config validate");
            Ok(Exit::Ok)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = format!("{} is there already", output::short_path(path));
            Err(Error::new(Exit::Failed, what)
                .because("it is kept as it is")
                .hint("name another with --config FILE"))
        }
        Err(error) => Err(failed(error)),
    }
}
