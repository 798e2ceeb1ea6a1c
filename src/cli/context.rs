//! What a command line means on this machine: which folders, which config, which instance.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::output;
use crate::config::{self, Choice, Invalid, Loaded, Sources};
use crate::host::{self, log::Level};
use crate::instance::environment::{self, Variables};
use crate::instance::{self, Instance, Name, Paths, Scope, lock};

/// The options that all commands have.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    config: Option<PathBuf>,
    config_dir: Option<PathBuf>,
    /// Whether more is logged.
    pub(crate) debug: bool,
}

/// A config, and the variables that it was made with.
#[derive(Debug)]
pub(crate) struct Read {
    /// The config.
    pub(crate) loaded: Loaded,
    /// The variables that the config names and that are set.
    pub(crate) variables: Variables,
}

impl Context {
    pub(crate) fn new(config: Option<PathBuf>, config_dir: Option<PathBuf>, debug: bool) -> Self {
        Self { config, config_dir, debug }
    }

    /// The same with another config.
    pub(crate) fn with_config(&self, config: PathBuf) -> Self {
        Self { config: Some(config), ..self.clone() }
    }

    /// The folders of that scope.
    pub(crate) fn paths(&self, scope: Scope) -> Result<Paths, Error> {
        Ok(Paths::from_env(scope, self.config_dir.as_deref(), instance::process_env)?)
    }

    /// Whether a config was named.
    pub(crate) fn names_config(&self) -> bool {
        self.config.is_some()
    }

    /// The scope that was typed, else the user's own: the machine's for root.
    pub(crate) fn scope(typed: Option<Scope>) -> Scope {
        typed.unwrap_or_else(|| Scope::for_uid(rustix::process::geteuid().as_raw()))
    }

    /// How much is logged.
    pub(crate) fn level(&self) -> Level {
        if self.debug { Level::Debug } else { Level::Info }
    }

    /// The config file that a command works with; `None` is the built-in default.
    pub(crate) fn config_path(&self, paths: &Paths) -> Option<PathBuf> {
        match config::locate(self.config.as_deref(), paths.config_dir()) {
            Choice::File(path) => Some(path),
            Choice::Builtin => None,
        }
    }

    /// The instance that the options mean.
    pub(crate) fn instance(&self, paths: &Paths, name: Option<Name>) -> Result<Instance, Error> {
        let holder = |name: &Name| lock::holder(paths, name).map(|holder| holder.config);
        Ok(Instance::resolve(paths.clone(), self.config.as_deref(), name, holder)?)
    }

    /// Reads the config at that path, or the built-in one.
    pub(crate) fn read(&self, path: Option<&Path>) -> Result<Read, Error> {
        self.read_with(path, &Variables::new()).map_err(told)
    }

    /// Reads the config with variables that come before those of this process.
    pub(crate) fn read_with(&self, path: Option<&Path>, first: &Variables) -> Result<Read, Invalid> {
        read_from(path, |name| first.get(name).cloned().or_else(|| std::env::var(name).ok()))
    }

    /// Reads the config of an instance with the variables of this process, and where it has none of that name, with
    /// what the instance was given before: a bare shell must not take a token away.
    pub(crate) fn read_for(&self, instance: &Instance) -> Result<Read, Invalid> {
        // That one of them cannot be read is told when it is to be written.
        let [_, _, of_this_run] = instance.runtime_files();
        let mut given = environment::read(&of_this_run).unwrap_or_default();
        given.extend(environment::read(&instance.variables_file()).unwrap_or_default());
        // The reload command of its own unit has what `bridge.daemon.environment` made of them, maybe by the same name.
        let units = [instance.unit_name(), instance.template_unit_name()];
        let inside = host::unit::own().is_some_and(|unit| units.contains(&unit));
        read_from(instance.config(), |name| {
            let (here, before) = (|| std::env::var(name).ok(), || given.get(name).cloned());
            if inside { before().or_else(here) } else { here().or_else(before) }
        })
    }
}

/// Reads the config with variables from there.
fn read_from(path: Option<&Path>, get: impl Fn(&str) -> Option<String>) -> Result<Read, Invalid> {
    let Some(path) = path else {
        return Ok(Read { loaded: Loaded::builtin(), variables: Variables::new() });
    };
    let variables = RefCell::new(Variables::new());
    let env = |name: &str| {
        let value = get(name)?;
        variables.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    };
    let sources = Sources { env: &env, home: std::env::home_dir(), credentials: host::credentials::folder() };
    let loaded = config::load(path, &sources)?;
    Ok(Read { loaded, variables: variables.into_inner() })
}

/// Tells what could be better at once, as the error has only what must be.
pub(crate) fn told(invalid: Invalid) -> Error {
    for warning in &invalid.warnings {
        output::warn(warning.to_string());
    }
    invalid.into()
}
