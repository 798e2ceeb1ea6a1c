//! Stopping, until no process is left; and restarting, which the supervisor does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep, timeout_at};

use super::list::{Found, Supervisor};
use super::order::Revision;
use super::pid_file::{self, ClaimError, PidFile};
use super::record::Ended;
use super::state::{self, Phase};
use super::{NOTIFY, REVISION, STATE, Supervisors, log};
use crate::host::process::{self, Process};
use crate::host::{cgroup, fault};
use crate::instance::Name;
use crate::instance::environment::{self, Variables};
use crate::instance::lock;
use crate::manager::{
    Error, Managed, Restarted, Run, StartFailure, StartRequest, Started, State, Stopped, UnitSpec,
};

/// How long a supervisor may take that has been told to kill everything at once.
const AT_ONCE: Duration = Duration::from_secs(15);
/// How long the kernel may take to end what is killed.
const KILLING: Duration = Duration::from_secs(10);
/// How many of its last log lines a failure carries.
const LAST_WORDS: usize = 20;
/// Between two looks at what cannot be waited for.
const GLANCE: Duration = Duration::from_millis(25);

impl Supervisors {
    /// Stops an instance; it takes `timeout` beyond its own time before everything is killed.
    pub(super) async fn stop_instance(
        &self,
        name: &Name,
        force: bool,
        timeout: Duration,
    ) -> Result<Stopped, Error> {
        let found = self.look_up(name)?;
        let Some(supervisor) = &found.supervisor else {
            let failed = found.managed(name).is_some();
            self.clear(name).await?;
            return Ok(if failed { Stopped::GivenUp } else { Stopped::NotRunning });
        };
        let failed = |error| signal_error(name, supervisor, error);
        let Some(process) = supervisor.process().map_err(failed)? else { return Ok(Stopped::NotRunning) };
        // While they are below it they are its own.
        let below = below(supervisor.number());
        process.signal(if force { Signal::QUIT } else { Signal::TERM }).map_err(failed)?;
        // One that was halted would not hear it.
        process.signal(Signal::CONT).map_err(failed)?;
        fault::point("stop:asked");
        let patience = if force { AT_ONCE } else { found.stop_timeout() + timeout };
        let ended = timeout_at(Instant::now() + patience, process.ended()).await;
        let killed = match ended {
            Ok(ended) => {
                ended.map_err(failed)?;
                let said = supervisor.ended();
                // One that was killed meanwhile has left them to themselves.
                let rest = said.is_none() && end_rest(&below, patience).await.map_err(failed)?;
                force || rest || said == Some(Ended::Killed)
            }
            Err(_) => {
                kill_all(name, supervisor, patience).await?;
                true
            }
        };
        // Where it was killed at last, or could not.
        self.clear(name).await?;
        Ok(if killed { Stopped::Killed } else { Stopped::Clean })
    }

    /// Has the supervisor restart the bridge, by settings that may be others; where those cannot be put in force in a
    /// supervisor that lives, another takes its place.
    pub(super) async fn restart_instance(
        &self,
        name: &Name,
        spec: &UnitSpec,
        timeout: Duration,
    ) -> Result<Restarted, Error> {
        let found = self.look_up(name)?;
        let (Some(supervisor), Some(state)) = (&found.supervisor, found.current()) else {
            return Err(Error::NotRunning { name: name.clone() });
        };
        let timeout = timeout + state.stop_timeout;
        let spec = UnitSpec { exec: state.argv.clone(), ..spec.clone() };
        let mut order = self.order(name, &spec, spec.start_timeout)?;
        // A container lives no longer than its supervisor, which has to do with the settings that it keeps for life.
        let for_life = state.log_file.is_none();
        if for_life {
            order.log_file = None;
            order.digest = order.digest_of();
        }
        let outdated = state.digest != order.digest;
        if (!state.adaptable || outdated) && !for_life {
            let variables = self.variables(name)?;
            self.stop_instance(name, false, timeout).await?;
            let request =
                StartRequest { name: name.clone(), run: Run::Transient(Box::new(spec)), timeout, wait: true };
            self.make_folders(&request)?;
            self.set_variables(name, &variables)?;
            return match self.start_instance(&request).await? {
                Started::Running(managed) | Started::AlreadyRunning(managed) => {
                    Ok(Restarted { managed, outdated: false })
                }
                Started::Queued { .. } => Err(Error::NotRunning { name: name.clone() }),
            };
        }
        let revision = self.paths.runtime_dir(name).join(REVISION);
        let digest = state.digest.clone();
        Revision { settings: order.settings, digest }
            .write(&revision)
            .map_err(|source| Error::File { action: format!("write {}", revision.display()), source })?;
        let (before, since) = (state.bridge, state.since);
        let failed = |error| signal_error(name, supervisor, error);
        let Some(process) = supervisor.process().map_err(failed)? else {
            return Err(Error::NotRunning { name: name.clone() });
        };
        process.signal(Signal::USR2).map_err(failed)?;
        process.signal(Signal::CONT).map_err(failed)?;
        let managed = self.restarted(name, before, since, timeout).await?;
        Ok(Restarted { managed, outdated })
    }

    /// What fills in the config of an instance, which goes with its supervisor.
    fn variables(&self, name: &Name) -> Result<Variables, Error> {
        let path = self.instance(name)?.variables_file();
        environment::read(&path)
            .map_err(|source| Error::File { action: format!("read {}", path.display()), source })
    }

    fn set_variables(&self, name: &Name, variables: &Variables) -> Result<(), Error> {
        let instance = self.instance(name)?;
        let path = instance.variables_file();
        environment::write(&instance, &path, variables)
            .map_err(|source| Error::File { action: format!("write {}", path.display()), source })
    }

    /// Waits until another run of the bridge serves than the one before.
    async fn restarted(
        &self,
        name: &Name,
        before: Option<u32>,
        since: u64,
        timeout: Duration,
    ) -> Result<Managed, Error> {
        let (deadline, begun) = (Instant::now() + timeout, state::now());
        loop {
            let found = self.look_up(name)?;
            let managed = found.managed(name);
            match (&managed, &found.state) {
                (Some(managed), Some(state))
                    if managed.state == State::Running && state.bridge != before && state.since != since =>
                {
                    return Ok(managed.clone());
                }
                (Some(Managed { state: State::Running | State::Starting | State::Stopping, .. }), _)
                    if Instant::now() < deadline => {}
                // It was about to be started again when it was told to.
                (Some(Managed { state: State::Restarting, .. }), Some(state)) if state.since == since => {}
                _ => return Err(self.did_not_restart(name, &found, begun, timeout)),
            }
            sleep(GLANCE).await;
        }
    }

    /// Why a restart that was begun then has failed.
    fn did_not_restart(&self, name: &Name, found: &Found, begun: u64, timeout: Duration) -> Error {
        let state = found.state.as_ref();
        let late = || format!("it did not report within {} s that it is ready", timeout.as_secs());
        Error::DidNotStart(Box::new(StartFailure {
            name: name.clone(),
            verb: "restart",
            reason: state.and_then(|state| state.failure.clone()).unwrap_or_else(late),
            exit_code: state.and_then(|state| state.exit_code),
            status_text: state.and_then(|state| state.status_text.clone()),
            log: state
                .and_then(|state| state.log_file.as_ref())
                .map_or_else(Vec::new, |file| log::last_words(file, begun, LAST_WORDS)),
            retrying: state.is_some_and(|state| state.phase == Phase::Restarting).then_some("its supervisor"),
            whole_log: super::start::whole_log(name),
        }))
    }

    /// Removes what a supervisor that is gone has left of an instance, and tells what that was.
    ///
    /// # Errors
    /// From the system, with the file's name.
    pub async fn clear(&self, name: &Name) -> Result<Vec<PathBuf>, Error> {
        let found = self.look_up(name)?;
        if found.supervisor.is_some() || found.stranger.is_some() {
            return Ok(Vec::new());
        }
        let folder = self.paths.runtime_dir(name);
        let mut files = [NOTIFY, STATE, REVISION].map(|file| folder.join(file)).to_vec();
        let had_pid_file = fs::symlink_metadata(&found.pid_file).is_ok();
        files.retain(|file| file.exists());
        if files.is_empty() && !had_pid_file {
            return Ok(Vec::new());
        }
        let in_its_place = |source| Error::PidFile { path: found.pid_file.clone(), source };
        // Until it is given back no supervisor begins, which would miss what is removed.
        let own = found.pid_file == self.paths.pid_file(name);
        let claimed = match PidFile::claim(&found.pid_file, own) {
            Ok(claimed) => claimed,
            Err(ClaimError::Held(_)) => return Ok(Vec::new()),
            Err(ClaimError::Foreign) => return Err(in_its_place(pid_file::foreign())),
            Err(ClaimError::Io(error)) => return Err(in_its_place(error)),
        };
        let failed = |path: &Path| {
            let action = format!("remove {}", path.display());
            move |source| Error::File { action, source }
        };
        let mut removed = Vec::new();
        if let Some(group) = state::left_group(&folder.join(STATE), name) {
            cgroup::end(&group).await.map_err(failed(&group))?;
            removed.push(group);
        }
        for file in files {
            fs::remove_file(&file).map_err(failed(&file))?;
            removed.push(file);
        }
        let instance = self.instance(name)?;
        lock::clear(&instance.lock_file(), &instance.runtime_files())
            .map_err(|source| failed(&folder)(source))?;
        claimed.remove();
        // It fails where there is more in it.
        let _ = fs::remove_dir(folder);
        removed.extend(Some(found.pid_file).filter(|_| had_pid_file));
        Ok(removed)
    }
}

/// Kills a supervisor that does not do what it is told, and all that is below it.
async fn kill_all(name: &Name, supervisor: &Supervisor, after: Duration) -> Result<(), Error> {
    let failed = |error| signal_error(name, supervisor, error);
    let Some(process) = supervisor.process().map_err(failed)? else { return Ok(()) };
    // Halted it starts nothing any more, and orphans still come home to it: nobody gets away.
    process.signal(Signal::STOP).map_err(failed)?;
    let deadline = Instant::now() + KILLING;
    loop {
        let left = below(supervisor.number());
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        for process in left {
            process.signal(Signal::KILL).map_err(failed)?;
        }
        sleep(GLANCE).await;
    }
    process.signal(Signal::KILL).map_err(failed)?;
    match timeout_at(deadline + GLANCE, process.ended()).await {
        Ok(ended) => ended.map_err(failed),
        Err(_) => Err(Error::DidNotStop { name: name.clone(), after, pids: vec![supervisor.number()] }),
    }
}

/// The processes below that one, the nearest first.
fn below(number: u32) -> Vec<Process> {
    let open = |pid: u32| Process::open(Pid::from_raw(pid.cast_signed())?).ok();
    let found = process::living_descendants(number);
    let opened: Vec<_> = found.into_iter().filter_map(|pid| Some((pid, open(pid)?))).collect();
    // One may have ended before it was opened, and another have its number.
    let still = process::living_descendants(number);
    opened.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, process)| process).collect()
}

/// Waits for a bridge that ends since its supervisor has, and kills what is left of it then; whether that was needed.
async fn end_rest(below: &[Process], patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    if let Some(bridge) = below.first() {
        while !bridge.wait(Duration::ZERO)? && Instant::now() < deadline {
            sleep(GLANCE).await;
        }
    }
    let mut killed = false;
    for process in below {
        if !process.wait(Duration::ZERO)? {
            process.signal(Signal::KILL)?;
            killed |= process.wait(KILLING)?;
        }
    }
    Ok(killed)
}

fn signal_error(name: &Name, supervisor: &Supervisor, source: io::Error) -> Error {
    Error::File { action: format!("signal the supervisor of `{name}` (PID {})", supervisor.number()), source }
}
