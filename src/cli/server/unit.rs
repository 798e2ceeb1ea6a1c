//! From a config to what the service manager is to run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use super::Context;
use crate::cli::context::Read;
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::config::{self, CpuQuota, Daemon, MemoryLimit};
use crate::control::Manager;
use crate::host;
use crate::instance::{self, Instance, Name, Paths, Scope, environment};
use crate::manager::{
    ANY_INSTANCE, Account, Limits, Memory, OWN_ACCOUNT, Restart, Sandbox, ServiceManager, UnitSpec,
};

/// A bridge's own choice of address, where it differs from its config's.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Address {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
}

impl Address {
    /// The command that has an enabled instance listen there.
    pub(super) fn enable(&self, name: &Name) -> String {
        format!("foxxy-bridge server enable {name}{}", self.options())
    }

    /// The options that mean it, each with a space before it.
    pub(super) fn options(&self) -> String {
        let host = self.host.as_ref().map(|host| format!(" --host {}", output::quoted(host)));
        let port = self.port.map(|port| format!(" --port {port}"));
        host.into_iter().chain(port).collect()
    }
}

/// What runs an instance: this program, serving in the foreground of a unit.
pub(in crate::cli) async fn spec(
    instance: &Instance,
    daemon: &Daemon,
    address: &Address,
    context: &Context,
    timeout: Duration,
    manager: &dyn ServiceManager,
) -> Result<UnitSpec, Error> {
    let mut program = vec![text(&std::env::current_exe()?)?];
    let supervised = manager.kind() == Manager::Pidfile;
    let untold = if supervised {
        // It inherits what this process has.
        vec![Paths::from_env(instance.scope(), None, instance::process_env)?]
    } else {
        untold(instance.scope(), manager).await?
    };
    if untold.iter().any(|paths| paths.config_dir() != instance.paths().config_dir()) {
        program.extend(["--config-dir".to_owned(), text(instance.paths().config_dir())?]);
    }
    let (name, scope) = (instance.name().as_str(), instance.scope());
    let mut exec = program.clone();
    // Not for the reload: it must not undo a level that was set since.
    if context.debug {
        exec.push("--debug".to_owned());
    }
    if instance.is_named_after_config() {
        exec.extend(["server", "start", "--instance", name].map(str::to_owned));
    } else {
        if let Some(config) = instance.config() {
            exec.extend(["--config".to_owned(), text(config)?]);
        }
        exec.extend(["server", "start", "--name", name].map(str::to_owned));
    }
    exec.push(scope.flag().to_owned());
    if let Some(host) = &address.host {
        exec.extend(["--host".to_owned(), host.clone()]);
    }
    if let Some(port) = address.port {
        exec.extend(["--port".to_owned(), port.to_string()]);
    }
    let shown = instance.config().map_or("the built-in config".to_owned(), |path| path.display().to_string());
    let home = std::env::home_dir();
    let resolved = |path: &config::Text| resolved(instance, path);
    let mut environment_files: Vec<_> = daemon.environment_file.as_ref().map(resolved).into_iter().collect();
    // npx, uvx and their like are often where only the caller's PATH leads, as with nvm.
    let path = std::env::var_os("PATH").as_deref().and_then(OsStr::to_str).map(str::to_owned);
    let mut environment: BTreeMap<_, _> = path.map(|path| ("PATH".to_owned(), path)).into_iter().collect();
    if supervised {
        // Nobody but this user can read what its supervisor knows.
        let set = daemon.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        environment.extend(set);
    } else {
        environment_files.insert(0, instance.environment_file());
        environment.extend(folders(instance.paths(), &untold)?);
    }
    Ok(UnitSpec {
        config: instance.identity(),
        pid_file: daemon.pid_file.as_ref().map(resolved),
        log_file: log_file(instance, daemon),
        description: format!("foxxy-bridge {name} ({shown})"),
        environment,
        environment_files,
        credentials: daemon.credentials.iter().map(|(id, path)| (id.clone(), resolved(path))).collect(),
        account: account(daemon, scope),
        writable: match scope {
            Scope::User => home
                .clone()
                .into_iter()
                .chain(instance.paths().runtime_base().parent().map(Path::to_owned))
                .collect(),
            Scope::System => Vec::new(),
        },
        start_timeout: timeout,
        ..standard(name, program, exec, daemon, scope)
    })
}

/// The log file that a config names.
pub(super) fn log_file(instance: &Instance, daemon: &Daemon) -> Option<PathBuf> {
    daemon.log_file.as_ref().map(|path| resolved(instance, path))
}

/// A path of a config, from the config's folder.
fn resolved(instance: &Instance, path: &config::Text) -> PathBuf {
    let base = instance.config().and_then(Path::parent).unwrap_or(Path::new("/"));
    config::resolve_path(path.as_str(), base, std::env::home_dir().as_deref())
}

/// The folders that a bridge takes in a unit that says nothing of them: by what systemd sets by itself, and by what its
/// manager has now and may not have after the next boot.
async fn untold(scope: Scope, manager: &dyn ServiceManager) -> Result<Vec<Paths>, Error> {
    // No variable changes the machine's.
    let variables = match scope {
        Scope::User => manager.environment().await?,
        Scope::System => BTreeMap::new(),
    };
    let now = |key: &str| variables.get(key).map(Into::into).or_else(|| usual(key));
    Ok(vec![Paths::from_env(scope, None, usual)?, Paths::from_env(scope, None, now)?])
}

/// What systemd sets in a user's units.
fn usual(key: &str) -> Option<OsString> {
    match key {
        "HOME" => std::env::home_dir().map(Into::into),
        "XDG_RUNTIME_DIR" => Some(format!("/run/user/{}", rustix::process::geteuid().as_raw()).into()),
        _ => None,
    }
}

/// The variables that a bridge needs to take the folders of `paths` where it would take one of those that are `untold`:
/// it would look in vain for what was kept for it, and nobody would find its control socket.
fn folders(paths: &Paths, untold: &[Paths]) -> Result<Vec<(String, String)>, Error> {
    let folders = |paths: &Paths| [paths.state_base().to_owned(), paths.runtime_base().to_owned()];
    let needed = ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"].into_iter().zip(folders(paths)).enumerate();
    let needed = needed.filter(|(at, (_, ours))| untold.iter().any(|untold| folders(untold)[*at] != *ours));
    let above = needed.filter_map(|(_, (key, ours))| Some((key, ours.parent()?.to_owned())));
    above.map(|(key, folder)| Ok((key.to_owned(), text(&folder)?))).collect()
}

/// What the packaged units run: the instance whose config has its name, as every config leaves it.
pub(super) fn packaged(program: &str, scope: Scope) -> UnitSpec {
    let exec = [program, "server", "start", "--instance", ANY_INSTANCE, scope.flag()].map(str::to_owned);
    let account = match scope {
        Scope::User => Account::Managers,
        Scope::System => Account::Own,
    };
    let standard = standard(ANY_INSTANCE, vec![program.to_owned()], exec.to_vec(), &Daemon::default(), scope);
    UnitSpec { account, ..standard }
}

/// What is the same for an instance and for the packaged units.
fn standard(name: &str, program: Vec<String>, exec: Vec<String>, daemon: &Daemon, scope: Scope) -> UnitSpec {
    let mut reload = program;
    reload.extend(["server", "reload", name, scope.flag()].map(str::to_owned));
    UnitSpec {
        instance: name.to_owned(),
        description: format!("foxxy-bridge {name}"),
        exec,
        reload,
        environment: BTreeMap::new(),
        environment_files: Vec::new(),
        credentials: BTreeMap::new(),
        working_directory: None,
        account: Account::Managers,
        sandbox: sandbox(daemon),
        writable: Vec::new(),
        restart: Restart {
            attempts: Some(daemon.restart.attempts),
            delay: daemon.restart.delay,
            max_delay: Some(daemon.restart.max_delay),
        },
        limits: limits(&daemon.limits),
        start_timeout: super::start::TIMEOUT,
        stop_timeout: daemon.stop_timeout,
        watchdog: Some(daemon.watchdog).filter(|patience| !patience.is_zero()),
        config: PathBuf::new(),
        pid_file: None,
        log_file: None,
        log_size: daemon.log.max_size.0,
        log_keep: daemon.log.keep,
    }
}

/// How far an instance is shut off from the machine.
pub(in crate::cli) fn sandbox(daemon: &Daemon) -> Sandbox {
    match daemon.sandbox {
        config::Sandbox::Auto => Sandbox::Auto,
        config::Sandbox::Off => Sandbox::Off,
        config::Sandbox::Strict => Sandbox::Strict,
    }
}

/// Whom an instance runs as: whom its config names, else the account that a package has made for the machine's bridges.
fn account(daemon: &Daemon, scope: Scope) -> Account {
    let name = |text: &Option<config::Text>| text.as_ref().map(|text| text.as_str().to_owned());
    let (user, group) = (name(&daemon.user), name(&daemon.group));
    match scope {
        // Where that is somebody else it is told that it cannot be.
        Scope::User if user.is_some() || group.is_some() => Account::Named { user, group },
        Scope::User => Account::Managers,
        Scope::System if user.as_deref() == Some(OWN_ACCOUNT) && group.is_none() => Account::Own,
        Scope::System if user.is_some() || group.is_some() => Account::Named { user, group },
        Scope::System if host::user::exists(OWN_ACCOUNT) => Account::Own,
        Scope::System => Account::Managers,
    }
}

/// How the account is made, also where no package has left word of it.
const MAKE_ACCOUNT: &str =
    "systemd-sysusers --inline 'u foxxy-bridge - \"foxxy-bridge\" /var/lib/foxxy-bridge'";

/// Says, once, that a bridge of the machine runs as root for want of an account, which nobody has asked for.
pub(super) fn tell_of_root(spec: &UnitSpec, scope: Scope, keeper: Manager) {
    static TOLD: Once = Once::new();
    if scope == Scope::User || spec.account != Account::Managers {
        return;
    }
    let make = match keeper {
        // What a container is there for runs as whom its image says.
        Manager::Pidfile if host::machine::is_first_process() || host::machine::is_container() => return,
        Manager::Pidfile => {
            format!("`useradd --system {OWN_ACCOUNT}` makes it (Alpine: `adduser -S {OWN_ACCOUNT}`)")
        }
        Manager::Systemd | Manager::Foreground => format!("`systemd-sysusers` makes it, or: {MAKE_ACCOUNT}"),
    };
    TOLD.call_once(|| {
        output::warn(format!("{} runs as root: there is no account {OWN_ACCOUNT}; {make}", spec.instance));
    });
}

/// Has a bridge that is enabled run as the account of its template, and says where there is none yet.
pub(super) fn keep_account(spec: &mut UnitSpec, scope: Scope) {
    if scope == Scope::System && spec.account == Account::Managers {
        spec.account = Account::Own;
        output::warn(format!(
            "{} cannot start yet: there is no account {OWN_ACCOUNT} for it; `systemd-sysusers` makes it, or: \
             {MAKE_ACCOUNT}; as root it runs when bridge.daemon.user is `root`",
            spec.instance
        ));
    }
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

/// Gives the instance the variables that its config sets, and those that its config names. What the caller does not
/// have stays as it was.
pub(super) fn write_environment(instance: &Instance, read: &Read, keeper: Manager) -> Result<(), Error> {
    let set = &read.loaded.config.bridge.daemon.environment;
    let set = set.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let (environment, named) = (instance.environment_file(), instance.variables_file());
    // A supervisor of ours has the first ones from its order.
    let for_systemd = match keeper {
        Manager::Pidfile => Ok(()),
        Manager::Systemd | Manager::Foreground => environment::write(instance, &environment, &set),
    };
    let written = for_systemd.and_then(|()| {
        let mut variables = environment::read(&named)?;
        variables.extend(read.variables.clone());
        environment::write(instance, &named, &variables)
    });
    written.map_err(|error| {
        let what = format!("the variables of {} cannot be written", instance.name());
        let why = format!("{}: {error}", instance.runtime_dir().display());
        Error::of_file(what, why, &error, instance.scope())
    })
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(Exit::Failed, format!("the path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::systemd::packaged_units;

    /// Where packages put the program.
    const PROGRAM: &str = "/usr/bin/foxxy-bridge";

    /// Rewrites the files in `units/` when `UPDATE_UNITS` is set: `make units`.
    #[test]
    fn the_packaged_units_are_what_the_templates_make() {
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
        for scope in [Scope::User, Scope::System] {
            for (kind, text) in packaged_units(&packaged(PROGRAM, scope), scope).unwrap() {
                let file = units.join(scope.to_string()).join(format!("foxxy-bridge@.{kind}"));
                if std::env::var_os("UPDATE_UNITS").is_some() {
                    std::fs::write(&file, &text).unwrap();
                }
                let there = std::fs::read_to_string(&file).unwrap_or_default();
                assert_eq!(there, text, "{} is an old one: make units", file.display());
            }
        }
    }
}
