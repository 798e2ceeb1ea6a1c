//! Which bridges there are: what the service manager knows, and what those that run say of themselves.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, try_join_all};

use super::REACH;
use crate::cli::context::Context;
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::control::client::{self, AskError};
use crate::control::{BridgeState, Manager, Status};
use crate::host;
use crate::instance::lock::{self, Holder};
use crate::instance::{Instance, Name, Paths};
use crate::manager::pidfile::Supervisors;
use crate::manager::{self, Enablement, Managed, ServiceManager, State};

/// How long it may take to find out whether a bridge that says nothing runs; the kernel knows at once.
const HELD: Duration = Duration::from_secs(2);

/// One bridge, from all that is known of it.
#[derive(Debug)]
pub(in crate::cli) struct Known {
    /// Its name.
    pub(in crate::cli) name: Name,
    /// What the service manager says of it, when it keeps it.
    pub(in crate::cli) managed: Option<Managed>,
    /// Who holds its lock.
    pub(in crate::cli) holder: Option<Holder>,
    /// What it says of itself.
    pub(in crate::cli) status: Result<Status, AskError>,
}

impl Known {
    /// Whether there is a process.
    pub(in crate::cli) fn is_running(&self) -> bool {
        let by_manager = self.managed.as_ref().is_some_and(|managed| {
            matches!(managed.state, State::Running | State::Starting | State::Restarting | State::Stopping)
        });
        by_manager || self.holder.is_some()
    }

    /// Whether its first client would start it.
    pub(super) fn is_listening(&self) -> bool {
        self.managed.as_ref().is_some_and(|managed| managed.state == State::Listening)
    }

    /// Its state in a word.
    pub(super) fn state(&self) -> String {
        match (&self.status, &self.managed, &self.holder) {
            (Ok(status), ..) if status.state == BridgeState::Stopping => "stopping".to_owned(),
            (Ok(_), ..) => "running".to_owned(),
            (Err(_), Some(managed), None) => managed.state.to_string(),
            (Err(AskError::NotPermitted { .. }), Some(managed), _) => managed.state.to_string(),
            (Err(_), Some(managed), _) if managed.state != State::Running => managed.state.to_string(),
            (Err(_), ..) => "unresponsive".to_owned(),
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        let said = self.status.as_ref().ok().map(|status| status.pid);
        let held = || self.holder.as_ref().map(|holder| holder.pid);
        said.or_else(|| self.managed.as_ref().and_then(|managed| managed.pid)).or_else(held)
    }

    /// What keeps it running.
    pub(super) fn manager(&self) -> Manager {
        match (&self.managed, &self.status) {
            (Some(managed), _) => managed.manager,
            (None, Ok(status)) => status.manager,
            (None, Err(_)) => Manager::Foreground,
        }
    }

    /// The unit that runs it, by its manager's word or its own.
    pub(super) fn unit(&self) -> Option<&str> {
        let said = || self.status.as_ref().ok()?.unit.as_deref();
        match &self.managed {
            Some(managed) if managed.manager == Manager::Systemd => Some(&managed.unit),
            Some(managed) => managed.own_unit.as_deref(),
            None => said(),
        }
    }

    /// Whether it is what a supervisor has left that was killed: it is about to end, or hangs.
    pub(super) fn is_orphan(&self) -> bool {
        let was_supervised = self.manager() == Manager::Pidfile;
        let is_kept = self.managed.as_ref().is_some_and(|managed| managed.state != State::Failed);
        was_supervised && !is_kept && self.holder.is_some()
    }

    /// Its config, or where the default config would be; `None` when only another user's process names one, which may
    /// be any.
    pub(in crate::cli) fn config(&self) -> Option<PathBuf> {
        let held = self.holder.as_ref().filter(|holder| holder.is_own).map(|holder| holder.config.clone());
        held.or_else(|| self.managed.as_ref().and_then(|managed| managed.config.clone()))
    }

    /// Seconds that it has been running.
    pub(super) fn uptime(&self) -> Option<u64> {
        let since = || self.managed.as_ref().filter(|managed| managed.pid.is_some())?.since;
        let elapsed = |since: SystemTime| SystemTime::now().duration_since(since).unwrap_or_default();
        let said = self.status.as_ref().ok().map(|status| status.uptime_seconds);
        said.or_else(|| since().map(elapsed).map(|elapsed: Duration| elapsed.as_secs()))
    }
}

/// All bridges of one scope, and what keeps them.
pub(in crate::cli) struct Survey<M = Box<dyn ServiceManager>> {
    /// By name.
    pub(in crate::cli) known: Vec<Known>,
    /// Names that have a folder and no bridge: what one that was killed has left.
    pub(in crate::cli) leftovers: Vec<Name>,
    /// systemd, or why it cannot be asked.
    pub(in crate::cli) systemd: Result<M, manager::Error>,
    /// What keeps bridges without it.
    pub(in crate::cli) supervisors: Supervisors,
}

impl<M: Deref<Target: ServiceManager>> Survey<M> {
    /// Reaches systemd and asks it and every bridge that has a folder, at the same time. Of a bridge that answers no more
    /// is asked.
    ///
    /// # Errors
    /// When a systemd that was reached does not tell.
    pub(in crate::cli) async fn with(
        reach: impl Future<Output = Result<M, manager::Error>>,
        paths: &Paths,
    ) -> Result<Self, manager::Error> {
        let mut names = lock::names(paths);
        let with_folder = join_all(names.iter().map(|name| ask(paths, name)));
        let (kept, mut answers) = tokio::join!(kept(reach), with_folder);
        let (systemd, mut managed) = kept?;
        let supervisors = Supervisors::of(paths);
        for supervised in supervisors.list().await? {
            // What has failed under one manager may run under the other by now.
            match managed.iter_mut().find(|other| other.name == supervised.name) {
                Some(other) if supervised.state != State::Failed => *other = supervised,
                Some(_) => {}
                None => managed.push(supervised),
            }
        }
        let others: Vec<Name> = managed
            .iter()
            .map(|managed| &managed.name)
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        answers.extend(join_all(others.iter().map(|name| ask(paths, name))).await);
        names.extend(others);

        let (mut known, mut leftovers) = (Vec::new(), Vec::new());
        for (name, (mut holder, mut status)) in names.into_iter().zip(answers) {
            let mut managed =
                managed.iter().position(|managed| managed.name == name).map(|at| managed.swap_remove(at));
            let runs = managed.as_ref().filter(|managed| managed.state == State::Running);
            let by_systemd = runs.is_some_and(|managed| managed.manager == Manager::Systemd);
            let silent = status.is_err();
            // It serves by its manager's word, and did not answer: it may have begun to in between.
            if runs.is_some() && matches!(status, Err(AskError::NotRunning { .. })) {
                (holder, status) = ask(paths, &name).await;
            }
            if let (true, Ok(manager)) = (by_systemd, &systemd) {
                // Its command line, which the list does not tell, is what names its config.
                if silent || !is_own(&holder) {
                    managed = manager.find(&name).await?;
                }
            }
            if let Some(managed) = managed.as_mut().filter(|_| !is_own(&holder)) {
                // One whose command line names none has the one of its name.
                let config = managed.config.take().unwrap_or_else(|| paths.named_config(&name));
                managed.config = Some(std::fs::canonicalize(&config).unwrap_or(config));
            }
            if managed.is_some() || holder.is_some() {
                known.push(Known { name, managed, holder, status });
            } else {
                leftovers.push(name);
            }
        }
        known.sort_by(|a, b| a.name.cmp(&b.name));
        // One that ended meanwhile has taken its folder along.
        leftovers.retain(|name| paths.runtime_dir(name).exists());
        Ok(Self { known, leftovers, systemd, supervisors })
    }
}

impl Survey {
    /// Asks this host's manager and every bridge that has a folder.
    pub(super) async fn take(paths: &Paths) -> Result<Self, Error> {
        Ok(Self::with(manager::detect(paths.scope(), REACH), paths).await?)
    }

    /// Asks the manager for what it has not told of those that answer for themselves.
    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        let Ok(manager) = &self.systemd else { return Ok(()) };
        let short = self
            .known
            .iter_mut()
            .filter(|known| known.managed.as_ref().is_some_and(|managed| managed.restarts.is_none()));
        let asked = short.map(async |known| {
            // One that has gone meanwhile stays as it was.
            if let Some(managed) = manager.find(&known.name).await? {
                known.managed = Some(managed);
            }
            Ok::<_, Error>(())
        });
        try_join_all(asked).await.map(drop)
    }

    /// The one of that name.
    pub(super) fn get(&self, name: &Name) -> Option<&Known> {
        self.known.iter().find(|known| known.name == *name)
    }

    /// How a bridge that need not be running is enabled, and its config; `None` when it is not enabled.
    pub(super) async fn enabled(
        &self,
        paths: &Paths,
        name: &Name,
    ) -> Result<Option<(Enablement, PathBuf)>, Error> {
        let Ok(manager) = &self.systemd else { return Ok(None) };
        let enablement = manager.enablement(name).await?;
        if enablement == Enablement::No {
            return Ok(None);
        }
        Ok(Some((enablement, enabled_config(manager.as_ref(), paths, name).await?)))
    }

    /// The bridges that are enabled and do not run, and their configs.
    pub(super) async fn stopped(&self, paths: &Paths) -> Result<Vec<(Name, PathBuf)>, Error> {
        let Ok(manager) = &self.systemd else { return Ok(Vec::new()) };
        let mut stopped = Vec::new();
        for (name, _) in manager.enabled().await? {
            if self.get(&name).is_none() {
                let config = enabled_config(manager.as_ref(), paths, &name).await?;
                stopped.push((name, config));
            }
        }
        Ok(stopped)
    }

    /// Why it is not known what systemd keeps. Where it has never run, it keeps nothing.
    pub(super) fn blind(&self) -> Option<&manager::Error> {
        self.systemd.as_ref().err().filter(|error| !matches!(error, manager::Error::NotBooted { .. }))
    }

    /// Says that no bridge is running, if that is known.
    pub(super) fn tell_none(&self) -> Result<(), Error> {
        if let Some(error) = self.blind() {
            return Err(error.into());
        }
        output::note("no bridge is running");
        Ok(())
    }

    /// systemd, or the error that it cannot be asked.
    pub(super) fn systemd(&self) -> Result<&dyn ServiceManager, Error> {
        Ok(self.systemd.as_ref()?.as_ref())
    }

    /// What keeps a bridge, or would.
    pub(super) fn keeper(&self, kind: Manager) -> Result<&dyn ServiceManager, Error> {
        match kind {
            Manager::Pidfile => Ok(&self.supervisors),
            Manager::Systemd | Manager::Foreground => self.systemd(),
        }
    }

    /// Which manager keeps what is started now: the one that is asked for, else systemd where it can be asked. That this
    /// is not so is told, unless it does not run here at all.
    pub(super) fn choice(&self, asked: Option<Manager>) -> Manager {
        if let Some(asked) = asked {
            return asked;
        }
        // There somebody keeps it already, and waits for it to be of one piece.
        if host::unit::own().is_some() || host::machine::is_first_process() {
            return Manager::Pidfile;
        }
        match self.blind() {
            None if self.systemd.is_ok() => Manager::Systemd,
            None => Manager::Pidfile,
            Some(error) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                output::warn(format!("{error}: a PID file is used instead{hint}"));
                Manager::Pidfile
            }
        }
    }

    /// The instance of that name: one that runs or is enabled, or else the one of the config of that name.
    pub(super) async fn instance(
        &self,
        name: &Name,
        paths: &Paths,
        context: &Context,
    ) -> Result<Instance, Error> {
        let known = match self.get(name).and_then(Known::config) {
            Some(config) => Some(config),
            None => self.enabled(paths, name).await?.map(|(_, config)| config),
        };
        let config = known.filter(|config| config.exists());
        let config = config.or_else(|| Some(paths.named_config(name)).filter(|config| config.exists()));
        match config {
            Some(config) => context.with_config(config).instance(paths, Some(name.clone())),
            // Of the default one there is always a config: a built-in one.
            None if name.is_default() => context.instance(paths, Some(name.clone())),
            None => Err(super::start::no_config_of(name, paths)),
        }
    }

    /// The bridge that a command without a name means: the config's own, else the only one that runs.
    pub(super) fn meant(&self, context: &Context, paths: &Paths) -> Result<Name, Error> {
        if let Some(name) = self.of_own_unit() {
            return Ok(name);
        }
        let own = context.instance(paths, None)?;
        let identity = own.identity();
        if let Some(known) = self.known.iter().find(|known| known.config().as_ref() == Some(&identity)) {
            return Ok(known.name.clone());
        }
        if self.get(own.name()).is_some() || context.names_config() {
            return Ok(own.name().clone());
        }
        match self.known.as_slice() {
            [] => Ok(own.name().clone()),
            [only] => Ok(only.name.clone()),
            several => {
                let names: Vec<&str> = several.iter().map(|known| known.name.as_str()).collect();
                let what = format!("several bridges are there, and `{}` is not one of them", own.name());
                Err(Error::new(Exit::Failed, what).hint(format!("name one: {}", names.join(", "))))
            }
        }
    }

    /// The bridge of the unit that this command is a part of.
    pub(super) fn of_own_unit(&self) -> Option<Name> {
        let unit = host::unit::own()?;
        let is_its = |known: &&Known| {
            known.managed.as_ref().is_some_and(|managed| managed.own_unit.as_ref() == Some(&unit))
        };
        self.known.iter().find(is_its).map(|known| known.name.clone())
    }

    /// That there is no such bridge, and which there are.
    pub(super) fn unknown(&self, name: &Name, exit: Exit) -> Error {
        if let Some(error) = self.blind() {
            return error.into();
        }
        let names: Vec<&str> = self.known.iter().map(|known| known.name.as_str()).collect();
        let hint = if names.is_empty() {
            "no bridge is running; `foxxy-bridge server start --daemon` starts one".to_owned()
        } else {
            format!("these are there: {}", names.join(", "))
        };
        Error::new(exit, format!("the bridge `{name}` is not running")).hint(hint)
    }
}

/// The config that the unit of an enabled bridge serves.
pub(in crate::cli) async fn enabled_config(
    manager: &dyn ServiceManager,
    paths: &Paths,
    name: &Name,
) -> Result<PathBuf, manager::Error> {
    Ok(manager.enabled_config(name).await?.unwrap_or_else(|| paths.named_config(name)))
}

/// The manager and what it keeps, which is nothing where there is none.
async fn kept<M: Deref<Target: ServiceManager>>(
    reach: impl Future<Output = Result<M, manager::Error>>,
) -> Result<(Result<M, manager::Error>, Vec<Managed>), manager::Error> {
    let manager = reach.await;
    let managed = match &manager {
        Ok(manager) => manager.list().await?,
        Err(_) => Vec::new(),
    };
    Ok((manager, managed))
}

/// Whether somebody runs whose word on the config counts.
fn is_own(holder: &Option<Holder>) -> bool {
    holder.as_ref().is_some_and(|holder| holder.is_own)
}

/// Who runs the instance of that name, and what it says of itself.
async fn ask(paths: &Paths, name: &Name) -> (Option<Holder>, Result<Status, AskError>) {
    let status = client::status(&paths.control_socket(name)).await.map(|(status, _)| status);
    // That one that answers runs need not be found out again.
    let holder = if status.is_ok() { lock::told(paths, name) } else { held(paths, name).await };
    (holder, status)
}

/// Who runs the instance of that name, found out beside the other questions.
async fn held(paths: &Paths, name: &Name) -> Option<Holder> {
    let (of, whose) = (paths.clone(), name.clone());
    let found = tokio::task::spawn_blocking(move || lock::holder(&of, &whose));
    // The kernel has who connects wait where a bridge has left too many waiting: that one runs, and hangs.
    tokio::time::timeout(HELD, found)
        .await
        .map_or_else(|_| lock::told(paths, name), Result::unwrap_or_default)
}
