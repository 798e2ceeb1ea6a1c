//! What the checks look at, asked for once: the service manager, the bridges, and the configs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use crate::cli::context::{Context, Read};
use crate::cli::server::survey::{Known, Survey};
use crate::config::Invalid;
use crate::control::client;
use crate::host::{self, exposure::Exposure};
use crate::instance::{Instance, Name, Paths, Scope, environment};
use crate::manager;
use crate::manager::pidfile::Supervisors;
use crate::manager::systemd::{Host, Systemd};

/// How long one question may take. All of a kind are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the checks look at.
pub(super) struct Facts {
    /// Whose bridges are meant, and their folders.
    pub(super) paths: Paths,
    /// What is known of the way to the service manager.
    pub(super) host: Host,
    /// The calling user, by name.
    pub(super) user: String,
    /// The caller's `PATH`, which a bridge that is started now would get.
    pub(super) path: OsString,
    /// The service manager, or why it is not reached.
    pub(super) systemd: Result<Systemd, manager::Error>,
    /// All bridges that run or have failed, by name.
    pub(super) bridges: Vec<Known>,
    /// Of each that says where it serves, whether it answers its clients there.
    pub(super) answers: BTreeMap<Name, Result<(), String>>,
    /// Names that have a folder and no bridge.
    pub(super) leftovers: Vec<Name>,
    /// The config that is meant, then those of the bridges that run.
    pub(super) configs: Vec<Config>,
    /// What the command line means.
    pub(super) context: Context,
    /// The bridge that would serve the config that is meant; none when that cannot be told.
    pub(super) instance: Option<Instance>,
}

/// A config, read.
pub(super) struct Config {
    /// The file; none is the built-in default.
    pub(super) path: Option<PathBuf>,
    /// The bridge that serves it now.
    pub(super) bridge: Option<Name>,
    /// What it says.
    pub(super) read: Result<Read, Unread>,
    /// What other users may do with the file.
    pub(super) exposure: Option<Exposure>,
}

/// Why a config was not read.
pub(super) enum Unread {
    /// It has errors.
    Invalid(Invalid),
    /// The file system did not answer.
    Silent,
}

impl Config {
    /// The file, as it is shown.
    pub(super) fn shown(&self) -> String {
        let path = self.path.as_deref();
        path.map_or_else(|| "the built-in default".to_owned(), crate::cli::output::short_path)
    }

    /// What it says, when it could be read.
    pub(super) fn config(&self) -> Option<&crate::config::Config> {
        self.read.as_ref().ok().map(|read| &read.loaded.config)
    }

    /// The folder that relative paths start in.
    pub(super) fn base(&self) -> Option<PathBuf> {
        self.read.as_ref().ok()?.loaded.path.as_deref()?.parent().map(Path::to_owned)
    }
}

impl Facts {
    /// Asks for all of it.
    pub(super) async fn gather(paths: Paths, context: &Context) -> Self {
        let host = Host::read();
        let Survey { known: bridges, leftovers, systemd: manager, .. } = survey(&paths, &host).await;
        let answers = bridges.iter().map(async |bridge| {
            let address = &bridge.status.as_ref().ok()?.address;
            Some((bridge.name.clone(), client::answers(address, "/readyz").await))
        });
        let answers = join_all(answers).await.into_iter().flatten().collect();
        let (configs, instance) = configs(&paths, context, &bridges).await;
        let user = host::user::name(host.uid);
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            paths,
            host,
            user,
            path,
            systemd: manager.map(|systemd| *systemd),
            bridges,
            answers,
            leftovers,
            configs,
            context: context.clone(),
            instance,
        }
    }

    /// Whose bridges are meant.
    pub(super) fn scope(&self) -> Scope {
        self.paths.scope()
    }

    /// The option that commands need to mean the same bridges, with a space before it; empty where they do anyway.
    pub(super) fn flag(&self) -> String {
        let usual = Scope::for_uid(self.host.uid) == self.scope();
        if usual { String::new() } else { format!(" {}", self.scope().flag()) }
    }

    /// The bridge of that name.
    pub(super) fn bridge(&self, name: &Name) -> Option<&Known> {
        self.bridges.iter().find(|bridge| bridge.name == *name)
    }

    /// Our own commands, as they are to be typed.
    pub(super) fn server(&self, command: &str, name: &Name) -> String {
        format!("foxxy-bridge server {command} {name}{}", self.flag())
    }
}

/// Which bridges there are. A manager that does not tell is not reached; the bridges tell for themselves.
async fn survey(paths: &Paths, host: &Host) -> Survey<Box<Systemd>> {
    let reach = async { Systemd::connect(paths.scope(), host, PATIENCE).await.map(Box::new) };
    let taken = tokio::time::timeout(2 * PATIENCE, Survey::with(reach, paths)).await;
    let error = match taken {
        Ok(Ok(survey)) => return survey,
        Ok(Err(error)) => error,
        Err(_) => manager::Error::NoAnswer { after: 2 * PATIENCE },
    };
    let alone = Survey::with(ready(Err(error)), paths).await;
    alone.unwrap_or_else(|error| Survey {
        known: Vec::new(),
        leftovers: Vec::new(),
        systemd: Err(error),
        supervisors: Supervisors::of(paths),
    })
}

/// The config that is meant and those of the bridges that run, and the bridge that would serve the first.
async fn configs(paths: &Paths, context: &Context, bridges: &[Known]) -> (Vec<Config>, Option<Instance>) {
    let (own, folders, asked) = (context.clone(), paths.clone(), context.clone());
    let meant = aside(move || {
        let path = own.config_path(&folders);
        let instance = own.instance(&folders, None).ok();
        let identity = instance.as_ref().map(Instance::identity);
        (path, instance, identity)
    })
    .await;
    let Some((path, instance, identity)) = meant else {
        return (vec![Config { path: None, bridge: None, read: Err(Unread::Silent), exposure: None }], None);
    };
    let running = || bridges.iter().filter(|bridge| bridge.is_running());
    let server = running().find(|bridge| identity.is_some() && bridge.config() == identity);
    let mut wanted = vec![(path, server.map(|bridge| bridge.name.clone()))];
    for bridge in running() {
        if let Some(config) = bridge.config().filter(|config| Some(config) != identity.as_ref()) {
            wanted.push((Some(config), Some(bridge.name.clone())));
        }
    }
    let read = wanted.into_iter().map(async |(path, bridge)| {
        let (context, paths) = (asked.clone(), paths.clone());
        let (file, name) = (path.clone(), bridge.clone());
        let read = aside(move || {
            let given = name.and_then(|name| Instance::new(name, None, paths).ok());
            let given = given.and_then(|instance| environment::read(&instance.variables_file()).ok());
            let read = context.read_with(file.as_deref(), &given.unwrap_or_default());
            let real = file.and_then(|file| std::fs::canonicalize(file).ok());
            (read, real.and_then(|real| host::exposure::of(&real).ok()))
        });
        match read.await {
            Some((read, exposure)) => Config { path, bridge, read: read.map_err(Unread::Invalid), exposure },
            None => Config { path, bridge, read: Err(Unread::Silent), exposure: None },
        }
    });
    (join_all(read).await, instance)
}

/// Does what may block beside the other checks; none when it takes too long.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}
