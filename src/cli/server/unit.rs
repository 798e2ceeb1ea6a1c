//! From a config to what the service manager is to run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::Context;
use crate::cli::context::Read;
use crate::cli::error::{Error, Exit};
use crate::config::{self, CpuQuota, Daemon, MemoryLimit};
use crate::instance::{Instance, Scope, environment};
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
    let config_dir = text(instance.paths().config_dir())?;
    let mut exec = vec![text(&program)?, "--config-dir".to_owned(), config_dir];
    let (name, scope) = (instance.name().as_str(), instance.scope().flag());
    let mut reload = exec.clone();
    reload.extend(["server", "reload", name, scope].map(str::to_owned));
    // Not for the reload: it must not undo a level that was set since.
    if context.debug {
        exec.push("--debug".to_owned());
    }
    if let Some(config) = instance.config() {
        exec.extend(["--config".to_owned(), text(config)?]);
    }
    exec.extend(["server", "start", "--name", name, scope].map(str::to_owned));
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
        reload,
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
        watchdog: Some(daemon.watchdog).filter(|patience| !patience.is_zero()),
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

/// Gives the instance the variables that its config sets, and those that its config names and the caller has. What the
/// caller does not have stays as it was: a restart from a bare shell must not take a token away.
pub(super) fn write_environment(instance: &Instance, read: &Read) -> Result<(), Error> {
    let set = &read.loaded.config.bridge.daemon.environment;
    let set = set.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let (environment, named) = (instance.environment_file(), instance.variables_file());
    let written = environment::write(instance, &environment, &set).and_then(|()| {
        let mut variables = environment::read(&named)?;
        variables.extend(read.variables.clone());
        environment::write(instance, &named, &variables)
    });
    written.map_err(|error| {
        let what = format!("the variables of {} cannot be written", instance.name());
        Error::new(Exit::Failed, what).because(format!("{}: {error}", instance.runtime_dir().display()))
    })
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(Exit::Failed, format!("the path {} is not UTF-8", path.display())))
}
