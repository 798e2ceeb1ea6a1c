//! Starting a supervisor, until its bridge serves or it is known why it does not.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout_at};

use super::order::{Order, Report, Settings};
use super::{Supervisors, supervise};
use crate::host::account::Account as User;
use crate::host::{self, fault};
use crate::instance::{Instance, Name, Scope};
use crate::manager::{
    Account, Entry, Error, Managed, OWN_ACCOUNT, Run, Sandbox, StartFailure, StartRequest, Started, State,
    UnitSpec,
};

/// Beyond the time that the bridge has, for the supervisor to say what became of it.
const TELLING: Duration = Duration::from_secs(15);
/// Between two looks at what cannot be waited for.
const GLANCE: Duration = Duration::from_millis(25);
/// How often a start is tried anew where somebody else's ends meanwhile.
const TRIES: u32 = 40;

/// How a start went, as far as this process's own supervisor has a part in it.
enum Outcome {
    /// The bridge serves.
    Ready,
    /// Nobody waits for it.
    Handed,
    /// Somebody else keeps it, or is about to.
    Held(Option<u32>),
}

impl Supervisors {
    /// Starts a supervisor, which starts the bridge.
    pub(super) async fn start_instance(&self, request: &StartRequest) -> Result<Started, Error> {
        let Run::Transient(spec) = &request.run else {
            return Err(Error::NotEnabledHere { name: request.name.clone() });
        };
        let order = self.order(&request.name, spec, request.timeout)?;
        let deadline = Instant::now() + request.timeout;
        let name = &request.name;
        let mut holder = None;
        for _ in 0..TRIES {
            if let Some(started) = self.wait_for_other(name, request.wait, deadline).await? {
                return Ok(started);
            }
            self.make_folders(request)?;
            match self.launch(&order, request, deadline).await? {
                Outcome::Handed => return Ok(Started::Queued { unit: order.pid_file.display().to_string() }),
                Outcome::Ready => {
                    return match self.look_up(name)?.managed(name) {
                        Some(managed) => Ok(Started::Running(managed)),
                        None => Err(Error::NotRunning { name: name.clone() }),
                    };
                }
                Outcome::Held(by) => {
                    holder = by;
                    sleep(GLANCE).await;
                }
            }
        }
        Err(Error::Stranger { path: order.pid_file, pid: holder })
    }

    /// Waits for whoever else starts or stops the same instance; `None` when it does not run then.
    async fn wait_for_other(
        &self,
        name: &Name,
        wait: bool,
        deadline: Instant,
    ) -> Result<Option<Started>, Error> {
        loop {
            let found = self.look_up(name)?;
            match found.managed(name).filter(|_| found.supervisor.is_some()) {
                None => return Ok(None),
                Some(managed) if managed.state == State::Running => {
                    return Ok(Some(Started::AlreadyRunning(managed)));
                }
                Some(managed) if !wait && !matches!(managed.state, State::Stopping | State::Failed) => {
                    return Ok(Some(Started::Queued { unit: managed.unit }));
                }
                Some(_) if Instant::now() < deadline => sleep(GLANCE).await,
                Some(managed) => return Err(busy(name, &managed.state)),
            }
        }
    }

    /// Starts one supervisor.
    async fn launch(
        &self,
        order: &Order,
        request: &StartRequest,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let failed = |source| Error::File { action: "start a supervisor".to_owned(), source };
        let text = serde_json::to_string(order).map_err(|error| failed(io::Error::other(error)))?;
        if order.foreground {
            // From here on this process is the supervisor.
            return Err(failed(become_supervisor(&text)));
        }
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = supervise::command();
        command.arg0("foxxy-bridge").stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        command.stdout(Stdio::null());
        // In a unit, that is the journal.
        command.stderr(if order.unit.is_some() { Stdio::inherit() } else { Stdio::null() });
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        ours.write_all(format!("{text}\n").as_bytes()).map_err(failed)?;
        fault::point("start:ordered");
        let mut reports = BufReader::new(ours);
        loop {
            // Whoever waits for it may be interrupted meanwhile.
            let next = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                let read = reports.read_line(&mut line);
                (reports, read.map(|_| line))
            });
            let patience = deadline + TELLING;
            let Ok(Ok((rest, line))) = timeout_at(patience, next).await else {
                return Err(self.silent(request, &mut child).await);
            };
            reports = rest;
            let report = line.ok().and_then(|line| serde_json::from_str::<Report>(&line).ok());
            match report {
                Some(Report::Claimed) if !request.wait => return Ok(Outcome::Handed),
                Some(Report::Claimed) => fault::point("start:claimed"),
                Some(Report::Ready) => return Ok(Outcome::Ready),
                Some(Report::Held(by)) => {
                    gone(&mut child).await;
                    return Ok(Outcome::Held(by));
                }
                Some(Report::Refused { action, detail, not_permitted }) => {
                    gone(&mut child).await;
                    return Err(Error::Refused { action, detail, not_permitted });
                }
                Some(Report::Failed { reason, exit_code, status_text, log }) => {
                    gone(&mut child).await;
                    return Err(did_not_start(&request.name, reason, exit_code, status_text, log));
                }
                None => {
                    gone(&mut child).await;
                    let reason = "its supervisor ended before the bridge was ready".to_owned();
                    self.clear(&request.name).await?;
                    return Err(did_not_start(&request.name, reason, None, None, Vec::new()));
                }
            }
        }
    }

    /// The supervisor has said nothing for longer than it may.
    async fn silent(&self, request: &StartRequest, child: &mut Child) -> Error {
        let name = &request.name;
        // Where even that fails it is told why the start did.
        let _ = self.stop_instance(name, true, Duration::ZERO).await;
        let _ = child.kill();
        gone(child).await;
        let reason = format!("it did not report within {} s that it is ready", request.timeout.as_secs());
        did_not_start(name, reason, None, None, Vec::new())
    }

    /// What a supervisor of that instance is told.
    pub(super) fn order(
        &self,
        name: &Name,
        spec: &UnitSpec,
        start_timeout: Duration,
    ) -> Result<Order, Error> {
        let account = user(name, spec)?;
        let runtime_dir = self.runtime_dir(name);
        let instance = self.instance(name)?;
        let there = |file: &PathBuf| Some(runtime_dir.join(file.file_name()?));
        let leftovers: Vec<PathBuf> = instance.runtime_files().iter().filter_map(there).collect();
        let lock_file = there(&instance.lock_file()).unwrap_or_default();
        let home = match (&account, self.paths.scope()) {
            (Some(account), _) => Some(account.home.clone().into()),
            (None, Scope::User) => std::env::home_dir(),
            (None, Scope::System) => None,
        };
        let mut environment = spec.environment.clone();
        if let Some(account) = &account {
            let variables = account.variables();
            environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let foreground = host::machine::is_first_process();
        let mut order = Order {
            name: name.to_string(),
            config: spec.config.clone(),
            leftovers,
            lock_file,
            runtime_dir,
            pid_file: spec.pid_file.clone().unwrap_or_else(|| self.paths.pid_file(name)),
            own_pid_file: spec.pid_file.as_ref().is_none_or(|file| *file == self.paths.pid_file(name)),
            log_file: (!foreground)
                .then(|| spec.log_file.clone().unwrap_or_else(|| self.paths.log_file(name))),
            log_size: spec.log_size,
            log_keep: spec.log_keep,
            foreground,
            unit: host::unit::own(),
            account,
            may_gain_privileges: spec.sandbox == Sandbox::Off,
            nofile: spec.limits.nofile,
            digest: String::new(),
            settings: Settings {
                exec: spec.exec.clone(),
                environment,
                environment_files: spec.environment_files.clone(),
                working_directory: spec
                    .working_directory
                    .clone()
                    .or(home)
                    .filter(|folder| folder.is_dir())
                    .unwrap_or_else(|| "/".into()),
                attempts: spec.restart.attempts,
                delay: spec.restart.delay,
                max_delay: spec.restart.max_delay.unwrap_or(spec.restart.delay),
                start_timeout,
                stop_timeout: spec.stop_timeout,
                watchdog: spec.watchdog,
            },
        };
        order.digest = order.digest_of();
        Ok(order)
    }

    /// That instance; its config plays no part in where its files are.
    pub(super) fn instance(&self, name: &Name) -> Result<Instance, Error> {
        Instance::new(name.clone(), None, self.paths.clone()).map_err(|error| Error::File {
            action: format!("use {}", self.paths.runtime_dir(name).display()),
            source: io::Error::other(error),
        })
    }

    /// The folder of an instance's socket and lock. One that outlives logins, as the bridge does: where there is no
    /// service manager, the one in `/run/user` goes with its user.
    fn runtime_dir(&self, name: &Name) -> PathBuf {
        self.paths.lasting_dir(name).unwrap_or_else(|| self.paths.runtime_dir(name))
    }

    /// Makes the folders that an instance needs once one that stops has taken its own along, and with it all that would
    /// be put into them before.
    pub(super) async fn make_room(&self, request: &StartRequest) -> Result<(), Error> {
        let deadline = Instant::now() + request.timeout;
        let stops = |managed: &Managed| managed.state == State::Stopping;
        while Instant::now() < deadline
            && self.look_up(&request.name)?.managed(&request.name).as_ref().is_some_and(stops)
        {
            sleep(GLANCE).await;
        }
        self.make_folders(request)
    }

    /// Makes the folders that an instance needs, for whom it runs as.
    pub(super) fn make_folders(&self, request: &StartRequest) -> Result<(), Error> {
        let Run::Transient(spec) = &request.run else { return Ok(()) };
        let order = self.order(&request.name, spec, request.timeout)?;
        let mut folders = vec![order.runtime_dir.as_path()];
        folders.extend(order.pid_file.parent());
        folders.extend(order.log_file.as_deref().and_then(Path::parent));
        let home =
            order.account.as_ref().filter(|_| spec.account == Account::Own).map(|own| own.home.clone());
        folders.extend(home.as_deref().map(Path::new));
        for folder in folders.iter().filter(|folder| !folder.exists()) {
            self.make_folder(folder, order.account.as_ref())
                .map_err(|source| Error::File { action: format!("make {}", folder.display()), source })?;
        }
        self.link_log(&request.name, &order)
            .map_err(|source| Error::File { action: "link the log of the default bridge".to_owned(), source })
    }

    /// Has the log of the default instance be found where people look for it, too.
    fn link_log(&self, name: &Name, order: &Order) -> io::Result<()> {
        let Some(log) = order.log_file.as_deref().filter(|_| order.account.is_none()) else { return Ok(()) };
        // One that is called so itself needs its place.
        if fs::read_link(log).is_ok_and(|to| to == Path::new("default.log")) {
            fs::remove_file(log)?;
        }
        match self.paths.log_alias(name).filter(|_| log == self.paths.log_file(name)).zip(log.file_name()) {
            Some((alias, log)) => match symlink(log, alias) {
                // Whatever that is.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            },
            None => Ok(()),
        }
    }

    /// Makes a folder for its owner alone; what is above it is for all where the bridges are the machine's.
    fn make_folder(&self, folder: &Path, owner: Option<&User>) -> io::Result<()> {
        let above = if self.paths.scope() == Scope::System { 0o755 } else { 0o700 };
        if let Some(above_it) = folder.parent() {
            fs::DirBuilder::new().recursive(true).mode(above).create(above_it)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        match owner {
            Some(owner) => chown(folder, Some(owner.uid), Some(owner.gid)),
            None => Ok(()),
        }
    }

    /// What a start would do, for people.
    pub(super) fn preview_of(&self, request: &StartRequest) -> Result<String, Error> {
        let Run::Transient(spec) = &request.run else {
            return Err(Error::NotEnabledHere { name: request.name.clone() });
        };
        let order = self.order(&request.name, spec, request.timeout)?;
        let log =
            order.log_file.as_ref().map_or("standard output".to_owned(), |file| file.display().to_string());
        let mut lines = vec![
            format!("keep the bridge with a supervisor, whose PID file is {}", order.pid_file.display()),
            format!("run {}", order.settings.exec.join(" ")),
            format!("in {}, its log in {log}", order.settings.working_directory.display()),
        ];
        lines.extend(order.account.map(|account| format!("as the user {}", account.name)));
        Ok(lines.join("\n"))
    }
}

/// What of a spec only systemd can do, a sentence each.
pub(super) fn unheeded(spec: &UnitSpec) -> Vec<String> {
    let limits = &spec.limits;
    let limits = [
        ("memory_max", limits.memory_max.is_some()),
        ("memory_high", limits.memory_high.is_some()),
        ("cpu_quota", limits.cpu_quota.is_some()),
        ("tasks_max", limits.tasks_max.is_some()),
    ];
    let limits: Vec<_> = limits.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    let mut unheeded = Vec::new();
    if !limits.is_empty() {
        unheeded.push(format!(
            "bridge.daemon.limits ({}) need systemd: they are not in force",
            limits.join(", ")
        ));
    }
    if spec.sandbox == Sandbox::Strict {
        unheeded
            .push("bridge.daemon.sandbox is `strict`, which needs systemd: `auto` is in force".to_owned());
    }
    unheeded
}

/// Becomes the supervisor: why that failed.
fn become_supervisor(order: &str) -> io::Error {
    let order = || {
        let mut file = fs::File::from(memfd_create("order", MemfdFlags::CLOEXEC)?);
        file.write_all(format!("{order}\n").as_bytes())?;
        file.rewind()?;
        Ok(file)
    };
    match order() {
        Ok(order) => supervise::command().arg0("foxxy-bridge").stdin(order).exec(),
        Err(error) => error,
    }
}

/// The user that it runs as, when that is another one.
fn user(name: &Name, spec: &UnitSpec) -> Result<Option<User>, Error> {
    let found = match &spec.account {
        Account::Managers => return Ok(None),
        Account::Own => User::find(Some(OWN_ACCOUNT), None),
        Account::Named { user, group } => User::find(user.as_deref(), group.as_deref()),
    };
    let mut user = found.map_err(|source| Error::Account { name: name.clone(), source })?;
    if user.is_own() {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot { name: name.clone(), user: user.name });
    }
    if spec.account == Account::Own {
        user.home = format!("/var/lib/{OWN_ACCOUNT}/{name}");
    }
    Ok(Some(user))
}

impl Order {
    /// What tells the settings that a supervisor keeps for life from others.
    pub(super) fn digest_of(&self) -> String {
        let fixed = (
            (&self.pid_file, &self.log_file, self.log_size, self.log_keep),
            (&self.account, self.may_gain_privileges, self.nofile),
        );
        let text = serde_json::to_string(&fixed).unwrap_or_default();
        Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Waits until a supervisor that is done has ended, and reaps it.
async fn gone(child: &mut Child) {
    let deadline = Instant::now() + TELLING;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        sleep(GLANCE).await;
    }
}

fn busy(name: &Name, state: &State) -> Error {
    did_not_start(name, format!("it is {state}, as somebody else has told it"), None, None, Vec::new())
}

fn did_not_start(
    name: &Name,
    reason: String,
    exit_code: Option<i32>,
    status_text: Option<String>,
    log: Vec<Entry>,
) -> Error {
    Error::DidNotStart(Box::new(StartFailure {
        name: name.clone(),
        verb: "start",
        reason,
        exit_code,
        status_text,
        log,
        retrying: None,
        whole_log: whole_log(name),
    }))
}

/// What to type to see all that it has logged.
pub(super) fn whole_log(name: &Name) -> String {
    format!("foxxy-bridge server logs {name}")
}
