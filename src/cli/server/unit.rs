//! From a config to what the service manager is to run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::Context;
use crate::cli::context::Read;
use crate::cli::error::{Error, Exit};
use crate::config::{self, CpuQuota, Daemon, MemoryLimit};
use crate::instance::{Instance, Scope};
use crate::manager::{Limits, Memory, Restart, UnitSpec};

/// A bridge's own choice of address, where it differs from its config's.
#[derive(Debug, Clone, Default)]
pub(super) struct Address {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
}

/// What runs an instance: this program, serving in the foreground of a unit.
pub(super) fn spec(
    instance: &Instance,
    daemon: &Daemon,
    address: &Address,
    context: &Context,
    timeout: Duration,
) -> Result<UnitSpec, Error> {
    let program = std::env::current_exe()?;
    let mut exec = vec![text(&program)?];
    if context.debug {
        exec.push("--debug".to_owned());
    }
    exec.extend(["--config-dir".to_owned(), text(instance.paths().config_dir())?]);
    if let Some(config) = instance.config() {
        exec.extend(["--config".to_owned(), text(config)?]);
    }
    exec.extend(
        ["server", "start", "--name", instance.name().as_str(), instance.scope().flag()].map(str::to_owned),
    );
    if let Some(host) = &address.host {
        exec.extend(["--host".to_owned(), host.clone()]);
    }
    if let Some(port) = address.port {
        exec.extend(["--port".to_owned(), port.to_string()]);
    }
    // npx, uvx and their like are often where only the caller's PATH leads, as with nvm.
    let path = std::env::var_os("PATH").as_deref().and_then(OsStr::to_str).map(str::to_owned);
    let environment = path.map(|path| ("PATH".to_owned(), path)).into_iter().collect();
    let shown = instance.config().map_or("the built-in config".to_owned(), |path| path.display().to_string());
    let mut environment_files = vec![instance.environment_file()];
    if let Some(file) = &daemon.environment_file {
        let base = instance.config().and_then(Path::parent).unwrap_or(Path::new("/"));
        environment_files.push(config::resolve_path(file.as_str(), base, std::env::home_dir().as_deref()));
    }
    Ok(UnitSpec {
        description: format!("foxxy-bridge {} ({shown})", instance.name()),
        exec,
        environment,
        environment_files,
        credentials: BTreeMap::new(),
        working_directory: None,
        user: daemon
            .user
            .as_ref()
            .filter(|_| instance.scope() == Scope::System)
            .map(|user| user.as_str().to_owned()),
        group: daemon
            .group
            .as_ref()
            .filter(|_| instance.scope() == Scope::System)
            .map(|group| group.as_str().to_owned()),
        restart: Restart {
            attempts: Some(daemon.restart.attempts),
            delay: daemon.restart.delay,
            max_delay: Some(daemon.restart.max_delay),
        },
        limits: limits(&daemon.limits),
        start_timeout: timeout,
        stop_timeout: daemon.stop_timeout,
    })
}

fn limits(limits: &config::Limits) -> Limits {
    Limits {
        memory_max: limits.memory_max.map(memory),
        memory_high: limits.memory_high.map(memory),
        cpu_quota: limits.cpu_quota.map(CpuQuota::micros_per_second),
        tasks_max: limits.tasks_max,
        nofile: limits.nofile,
    }
}

fn memory(limit: MemoryLimit) -> Memory {
    match limit {
        MemoryLimit::Size(size) => Memory::Bytes(size.0),
        MemoryLimit::Share(share) => Memory::Share(share.0),
        MemoryLimit::Infinity => Memory::Unlimited,
    }
}

/// Writes the variables that the bridge is to have: those of the caller that its config names, and those that the
/// config sets. A file of this user's alone, as anybody may read what a unit's own `Environment=` says.
pub(super) fn write_environment(instance: &Instance, read: &Read) -> Result<(), Error> {
    let daemon = &read.loaded.config.bridge.daemon;
    let set = daemon.environment.iter().map(|(name, value)| (name.as_str(), value.expose()));
    let mut variables: BTreeMap<&str, &str> =
        read.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.extend(set);
    let path = instance.environment_file();
    let failed = |error: io::Error| {
        Error::new(Exit::Failed, format!("{} cannot be written", path.display())).because(error.to_string())
    };
    instance.paths().make_runtime_dir(instance.name()).map_err(failed)?;
    // Written beside its place first: a restart at this moment reads the old one or the new one, never half of one.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(environment_file(&variables).as_bytes()))
        .and_then(|()| fs::rename(&fresh, &path));
    written.map_err(failed)
}

/// Variables in the form that systemd reads (systemd.exec(5), `EnvironmentFile=`).
fn environment_file(variables: &BTreeMap<&str, &str>) -> String {
    let mut file = String::new();
    for (name, value) in variables {
        let mut quoted = String::with_capacity(value.len());
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '`' | '$') {
                quoted.push('\\');
            }
            quoted.push(character);
        }
        file.push_str(&format!("{name}=\"{quoted}\"\n"));
    }
    file
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(Exit::Failed, format!("the path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_systemd_reads_them() {
        let variables = BTreeMap::from([("A", "plain"), ("B", "a \"b\" $c `d` \\e # f\nnext"), ("C", "")]);
        assert_eq!(
            environment_file(&variables),
            "A=\"plain\"\nB=\"a \\\"b\\\" \\$c \\`d\\` \\\\e # f\nnext\"\nC=\"\"\n"
        );
    }
}
