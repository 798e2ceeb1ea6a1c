//! A systemd for tests, at the other end of a socket pair: for what a real one cannot be made to do on demand.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, ObjectPath, OwnedObjectPath, OwnedVariant, interface};

use super::Systemd;
use super::state::{ActiveState, JobResult, LoadState, ServiceResult, UnitState};
use crate::instance::{Name, Scope};
use crate::manager::Error;

const MANAGER: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "/org/freedesktop/systemd1/unit/one";
const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// A unit that ran and failed.
pub(super) fn failed_state() -> UnitState {
    UnitState {
        load: LoadState::Loaded,
        active: ActiveState::Failed,
        sub: "failed".into(),
        result: ServiceResult::ExitCode,
        exec_main_code: 1,
        exec_main_status: 1,
        argv: vec!["/bin/bridge".into()],
        ..UnitState::blank()
    }
}

/// A unit that serves.
pub(super) fn active_state() -> UnitState {
    UnitState {
        load: LoadState::Loaded,
        active: ActiveState::Active,
        sub: "running".into(),
        main_pid: 42,
        argv: ["/bin/bridge", "server", "start", "--config", "/c/work.json"].map(str::to_owned).to_vec(),
        transient: true,
        ..UnitState::blank()
    }
}

/// What a call that makes a job does.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// The job ends with this result even before the call returns, and the unit is then like this.
    Ends(JobResult, UnitState),
    /// The job never ends; the unit is like this.
    Hangs(UnitState),
    /// The connection is closed once the call has returned.
    HangsUp,
    /// The call fails, and the unit turns out to be like this.
    Refuses(Refusal, UnitState),
}

/// An error that a call answers with: its full name and its text.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) &'static str, pub(super) String);

impl Refusal {
    pub(super) fn unit_exists() -> Self {
        Self(
            "org.freedesktop.systemd1.UnitExists",
            "Unit foxxy-bridge-work.service was already loaded".into(),
        )
    }
}

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(&self.1,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.0)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.1)
    }
}

/// What the fake does and what it was asked.
#[derive(Debug)]
pub(super) struct Script {
    /// The name of the one unit that there is.
    pub(super) unit: String,
    /// How it is; `None` when systemd does not have it.
    pub(super) state: Option<UnitState>,
    /// What starts do, the last one first.
    pub(super) starts: Vec<Act>,
    /// What a stop does.
    pub(super) stop: Act,
    /// The processes in its cgroup.
    pub(super) processes: Vec<u32>,
    /// Its `TimeoutStopUSec`.
    pub(super) stop_timeout: u64,
    /// Every call that was made, but for questions.
    pub(super) calls: Vec<String>,
}

/// The test's side of the fake.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    script: Arc<Mutex<Script>>,
    held: Arc<Notify>,
}

impl Fake {
    /// A systemd without any unit, where a start works.
    pub(super) fn new() -> Self {
        let stopped = UnitState { active: ActiveState::Inactive, main_pid: 0, ..active_state() };
        let script = Script {
            unit: "foxxy-bridge-work.service".into(),
            state: None,
            starts: Vec::new(),
            stop: Act::Ends(JobResult::Done, stopped),
            processes: Vec::new(),
            stop_timeout: 0,
            calls: Vec::new(),
        };
        Self { script: Arc::new(Mutex::new(script)), held: Arc::new(Notify::new()) }
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.script().calls.clone()
    }

    /// A manager that talks to this fake, and the fake's end of the line.
    pub(super) async fn connect(&self) -> (Systemd, Connection) {
        let (systemd, server) = self.connect_as("252.39-1~deb12u2").await;
        (systemd.unwrap(), server)
    }

    /// The same with a version of the caller's choice.
    pub(super) async fn connect_as(&self, version: &str) -> (Result<Systemd, Error>, Connection) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = zbus::connection::Builder::unix_stream(theirs)
            .server(guid)
            .p2p()
            .serve_at(MANAGER, FakeManager(self.clone()))
            .serve_at(UNIT, FakeUnit(self.clone()))
            .serve_at(UNIT, FakeService(self.clone()))
            .build();
        let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::try_join!(server, client).unwrap();
        (Systemd::over(client, Scope::User, version).await, server)
    }

    /// Waits until the unit is held, then lets it change to this state and says so.
    pub(super) async fn change_when_held(&self, server: &Connection, state: UnitState) {
        self.held.notified().await;
        self.script().state = Some(state);
        let unit = server.object_server().interface::<_, FakeUnit>(UNIT).await.unwrap();
        unit.get().await.active_state_changed(unit.signal_emitter()).await.unwrap();
    }

    /// The unit's state, a blank one when it is gone: real systemd makes one up as well.
    fn state(&self) -> UnitState {
        self.script().state.clone().unwrap_or_else(UnitState::blank)
    }

    async fn act(&self, act: Act, emitter: &SignalEmitter<'_>) -> Result<OwnedObjectPath, Refusal> {
        match act {
            Act::Ends(result, state) => {
                let unit = self.script().unit.clone();
                self.script().state = Some(state);
                // Somebody else's job on the same unit ends first.
                let other = ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/job/6");
                FakeManager::job_removed(emitter, 6, other, unit.clone(), "canceled".into()).await.unwrap();
                let job = ObjectPath::from_static_str_unchecked(JOB);
                FakeManager::job_removed(emitter, 7, job, unit, result.to_string()).await.unwrap();
            }
            Act::Hangs(state) => self.script().state = Some(state),
            Act::HangsUp => {
                let connection = emitter.connection().clone();
                tokio::spawn(connection.close());
            }
            Act::Refuses(refusal, state) => {
                self.script().state = Some(state);
                return Err(refusal);
            }
        }
        Ok(ObjectPath::from_static_str_unchecked(JOB).into())
    }
}

struct FakeManager(Fake);

impl FakeManager {
    fn note(&self, call: impl Into<String>) {
        self.0.script().calls.push(call.into());
    }

    fn known(&self, name: &str) -> Result<(), Refusal> {
        let script = self.0.script();
        let known = script.unit == name && script.state.is_some();
        known
            .then_some(())
            .ok_or_else(|| Refusal("org.freedesktop.systemd1.NoSuchUnit", format!("Unit {name} not loaded.")))
    }
}

type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn subscribe(&self) {}

    fn get_unit(&self, name: &str) -> Result<OwnedObjectPath, Refusal> {
        self.known(name).map(|()| ObjectPath::from_static_str_unchecked(UNIT).into())
    }

    fn load_unit(&self, _name: &str) -> OwnedObjectPath {
        ObjectPath::from_static_str_unchecked(UNIT).into()
    }

    fn ref_unit(&self, name: &str) -> Result<(), Refusal> {
        self.note("RefUnit");
        self.known(name)?;
        self.0.held.notify_one();
        Ok(())
    }

    fn unref_unit(&self, _name: &str) {
        self.note("UnrefUnit");
    }

    fn reset_failed_unit(&self, name: &str) -> Result<(), Refusal> {
        self.note("ResetFailedUnit");
        self.known(name)?;
        let mut script = self.0.script();
        if script.state.as_ref().is_some_and(|state| state.active == ActiveState::Failed) {
            script.state = None;
        }
        Ok(())
    }

    async fn start_transient_unit(
        &self,
        _name: String,
        mode: String,
        _properties: Vec<(String, OwnedVariant)>,
        _aux: Vec<(String, Vec<(String, OwnedVariant)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(format!("StartTransientUnit {mode}"));
        let act = self.0.script().starts.pop().unwrap_or_else(|| Act::Ends(JobResult::Done, active_state()));
        self.0.act(act, &emitter).await
    }

    async fn start_unit(
        &self,
        _name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(format!("StartUnit {mode}"));
        let act = self.0.script().starts.pop().unwrap_or_else(|| Act::Ends(JobResult::Done, active_state()));
        self.0.act(act, &emitter).await
    }

    async fn restart_unit(
        &self,
        _name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(format!("RestartUnit {mode}"));
        let act = self.0.script().starts.pop().unwrap_or_else(|| Act::Ends(JobResult::Done, active_state()));
        self.0.act(act, &emitter).await
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(format!("StopUnit {mode}"));
        self.known(&name)?;
        let act = self.0.script().stop.clone();
        self.0.act(act, &emitter).await
    }

    fn kill_unit(&self, _name: &str, whom: &str, signal: i32) {
        self.note(format!("KillUnit {whom} {signal}"));
    }

    fn get_unit_processes(&self, _name: &str) -> Vec<(String, u32, String)> {
        let script = self.0.script();
        script.processes.iter().map(|pid| ("/app.slice/one".to_owned(), *pid, "sleep".to_owned())).collect()
    }

    fn list_units_by_patterns(&self, _states: Vec<String>, patterns: Vec<String>) -> Vec<ListedUnit> {
        assert!(patterns.into_iter().eq(Name::unit_patterns()));
        let word = String::new;
        let none = || ObjectPath::from_static_str_unchecked("/").into();
        let unit = self.0.script().unit.clone();
        let path = ObjectPath::from_static_str_unchecked(UNIT).into();
        let active = self.0.state().active.to_string();
        vec![(unit, word(), word(), active, word(), word(), path, 0, word(), none())]
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

struct FakeUnit(Fake);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnit {
    #[zbus(property)]
    fn load_state(&self) -> String {
        self.0.state().load.to_string()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.state().active.to_string()
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.0.state().sub
    }

    #[zbus(property)]
    fn active_enter_timestamp(&self) -> u64 {
        self.0.state().active_enter
    }

    #[zbus(property)]
    fn state_change_timestamp(&self) -> u64 {
        self.0.state().state_change
    }

    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> Vec<u8> {
        Vec::new()
    }

    #[zbus(property)]
    fn transient(&self) -> bool {
        self.0.state().transient
    }

    #[zbus(property)]
    fn fragment_path(&self) -> String {
        self.0.state().fragment_path
    }
}

struct FakeService(Fake);

type ExecCommand = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl FakeService {
    #[zbus(property)]
    fn result(&self) -> String {
        self.0.state().result.to_string()
    }

    #[zbus(property, name = "TimeoutStopUSec")]
    fn timeout_stop(&self) -> u64 {
        self.0.script().stop_timeout
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0.state().main_pid
    }

    #[zbus(property, name = "ExecMainPID")]
    fn exec_main_pid(&self) -> u32 {
        self.0.state().exec_main_pid
    }

    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        self.0.state().exec_main_code
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.0.state().exec_main_status
    }

    #[zbus(property)]
    fn status_text(&self) -> String {
        self.0.state().status_text
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.0.state().restarts
    }

    #[zbus(property)]
    fn environment(&self) -> Vec<String> {
        vec!["PATH=/bin".into()]
    }

    #[zbus(property)]
    fn log_extra_fields(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    #[zbus(property)]
    fn exec_start(&self) -> Vec<ExecCommand> {
        let argv = self.0.state().argv;
        let program = argv.first().cloned();
        program.map(|program| (program, argv, false, 0, 0, 0, 0, 0, 0, 0)).into_iter().collect()
    }
}
