//! The relay: clients' sessions on one side, upstreams on the other, and the catalog between them.

mod catalog;
mod forward;
mod reload;
mod router;
mod session;
mod upstream;
mod welcome;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::catalog::Catalog;
pub use self::forward::Exchange;
pub use self::router::{Handled, NewSession};
use self::session::{LogLevel, Sessions};
pub use self::session::{Session, View};
use self::upstream::{Builtin, Hub, Lists, Upstream};
use crate::config::Config;
use crate::control::{BridgeState, Manager, Status, UpstreamState, UpstreamStatus};
use crate::host::cgroup::Groups;
use crate::host::log::{self, Recent};

/// The MCP versions that have sessions, which are those that the bridge speaks, oldest first.
pub const PROTOCOLS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// What it offers first.
pub(crate) const LATEST_PROTOCOL: &str = PROTOCOLS[PROTOCOLS.len() - 1];

/// For how long after the start a client's first lists wait for upstreams that are still connecting.
const SETTLING: Duration = Duration::from_secs(10);
/// Between looks for sessions that nobody uses.
const SWEEP: Duration = Duration::from_secs(60);

/// Who the bridge is, for its status.
#[derive(Debug, Clone)]
pub struct About {
    /// The instance's name.
    pub name: String,
    /// What keeps the process running.
    pub manager: Manager,
    /// The unit that it runs in.
    pub unit: Option<String>,
    /// Where clients connect.
    pub address: String,
}

/// See the module.
pub struct Bridge {
    core: Arc<Core>,
    builtin: Builtin,
    hub: Arc<dyn Hub>,
    groups: Arc<Groups>,
    running: tokio::sync::Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("core", &self.core).finish_non_exhaustive()
    }
}

/// What clients, upstreams and the status all look at.
pub(crate) struct Core {
    about: About,
    /// The config that the bridge was started with.
    first: Arc<Config>,
    setup: RwLock<Arc<Setup>>,
    catalog: RwLock<Arc<Catalog>>,
    sessions: Sessions,
    began: Instant,
    started_at: jiff::Timestamp,
    settled: AtomicBool,
    stopping: CancellationToken,
    changed: Notify,
}

/// The config in force and the upstreams that it asks for. A reload puts another one in its place.
pub(crate) struct Setup {
    config: Arc<Config>,
    /// Where it was read; none is the built-in default.
    path: Option<PathBuf>,
    /// Those that are enabled, in the order of the config.
    upstreams: IndexMap<String, Arc<Upstream>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Bridge {
    /// Starts to connect the upstreams of a config that was read from `path`, with their processes in `groups`; needs a
    /// tokio runtime.
    #[must_use]
    pub fn start(config: Config, path: Option<PathBuf>, about: About, log: &Recent, groups: Groups) -> Self {
        let nothing = Setup { config: Arc::new(Config::builtin()), path: None, upstreams: IndexMap::new() };
        let core = Arc::new(Core {
            about,
            first: Arc::new(config.clone()),
            setup: RwLock::new(Arc::new(nothing)),
            catalog: RwLock::default(),
            sessions: Sessions::default(),
            began: Instant::now(),
            started_at: jiff::Timestamp::now(),
            settled: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            changed: Notify::new(),
        });
        let weak = Arc::downgrade(&core);
        let status = Arc::new(move || weak.upgrade().map(|core| core.status()));
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&core).sweep());
        let bridge = Self {
            builtin: Builtin::new(status, log.clone()),
            hub: Arc::new(Ear(Arc::downgrade(&core))),
            groups: Arc::new(groups),
            core,
            running: tokio::sync::Mutex::new(JoinSet::new()),
        };
        bridge.put_in_force(config, path, &mut running);
        Self { running: tokio::sync::Mutex::new(running), ..bridge }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Waits until an upstream's state is another.
    pub async fn changed(&self) {
        self.core.changed.notified().await;
    }

    /// The config in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.core.setup().config)
    }

    /// Whether there is an enabled upstream of that name.
    #[must_use]
    pub fn has(&self, upstream: &str) -> bool {
        self.core.setup().upstreams.contains_key(upstream)
    }

    /// Whether there is one of that name that the config disables.
    #[must_use]
    pub fn is_disabled(&self, upstream: &str) -> bool {
        self.core.setup().config.upstreams.get(upstream).is_some_and(|upstream| !upstream.enabled)
    }

    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.core.sessions.get(id)
    }

    /// Ends a session at its client's word.
    pub fn end_session(&self, id: &str) {
        if let Some(session) = self.core.sessions.end(id) {
            tracing::debug!(session = session.log_name(), "its client has ended the session");
            self.core.forget(&[session]);
        }
    }

    /// Ends the clients' streams; from now on it says that it stops.
    pub fn begin_stop(&self) {
        self.core.stopping.cancel();
        self.core.sessions.end_all();
    }

    /// Requests that upstreams are working on.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core
            .setup()
            .upstreams
            .values()
            .filter_map(|upstream| upstream.live())
            .map(|live| live.connection.in_flight())
            .sum()
    }

    /// Ends all upstreams, and returns when their processes are gone.
    pub async fn stop(&self) {
        self.begin_stop();
        // First the lock: a reload that is under way may yet start one.
        let mut running = self.running.lock().await;
        for upstream in self.core.setup().upstreams.values() {
            upstream.stop();
        }
        while running.join_next().await.is_some() {}
    }
}

impl Core {
    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for upstreams that are still in their first attempt, for a short while after the start.
    async fn settle(&self) {
        if self.settled.load(Ordering::Relaxed) {
            return;
        }
        let all = async {
            for upstream in self.setup().upstreams.values() {
                upstream.settled().await;
            }
        };
        let _ = tokio::time::timeout_at(self.began + SETTLING, all).await;
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Makes the catalog anew, and says what became different.
    fn rebuild(&self) -> Lists {
        let setup = self.setup();
        let new = Catalog::build(setup.upstreams.values(), &setup.config);
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let changed = catalog.difference(&new);
        for clash in new.clashes.difference(&catalog.clashes) {
            tracing::warn!("{clash}");
        }
        *catalog = Arc::new(new);
        changed
    }

    /// Tells the sessions which lists became different: those of all upstreams together, and those of one.
    fn tell_changed(&self, shared: Lists, of: impl Fn(&str) -> Lists) {
        for session in self.sessions.list() {
            let changed = match &session.view {
                View::All => shared,
                View::One(name) => of(name),
            };
            let kinds =
                [(changed.tools, "tools"), (changed.resources, "resources"), (changed.prompts, "prompts")];
            for (_, kind) in kinds.iter().filter(|(changed, _)| *changed) {
                let message = wire::notification(&format!("notifications/{kind}/list_changed"), "");
                session.push(&message.into(), true);
            }
        }
    }

    /// Takes back what those sessions wanted of upstreams.
    fn forget(&self, over: &[Arc<Session>]) {
        for (upstream, uri) in over.iter().flat_map(|session| session.subscriptions()) {
            let wanted = self.sessions.list().iter().any(|session| session.is_subscribed(&upstream, &uri));
            let live = self
                .setup()
                .upstreams
                .get(&upstream)
                .filter(|_| !wanted)
                .and_then(|upstream| upstream.live());
            if let Some(live) = live {
                tokio::spawn(async move { live.subscribe(&uri, false).await });
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {
                    let over = self.sessions.sweep();
                    for session in &over {
                        tracing::debug!(session = session.log_name(), "the session was idle for too long");
                    }
                    self.forget(&over);
                }
                () = self.stopping.cancelled() => return,
            }
        }
    }

    fn status(&self) -> Status {
        let setup = self.setup();
        let upstreams = setup.config.upstreams.iter().map(|(name, server)| match setup.upstreams.get(name) {
            Some(upstream) => upstream.status(),
            None => disabled(name, server),
        });
        let stopping = self.stopping.is_cancelled();
        let mut status = Status {
            name: self.about.name.clone(),
            config: setup.path.as_ref().map(|path| path.display().to_string()),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            manager: self.about.manager,
            unit: self.about.unit.clone(),
            address: self.about.address.clone(),
            state: if stopping { BridgeState::Stopping } else { BridgeState::Running },
            healthy: false,
            started_at: self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            uptime_seconds: self.began.elapsed().as_secs(),
            sessions: self.sessions.count(),
            log_level: log::level(),
            path: std::env::var("PATH").unwrap_or_default(),
            upstreams: upstreams.collect(),
        };
        let (connected, all) = status.connected();
        status.healthy = connected == all && !stopping;
        status
    }
}

fn disabled(name: &str, server: &crate::config::Upstream) -> UpstreamStatus {
    UpstreamStatus {
        name: name.to_owned(),
        transport: upstream::transport_name(server.transport).to_owned(),
        target: String::new(),
        state: UpstreamState::Disabled,
        error: None,
        pid: None,
        server: None,
        protocol: None,
        tools: 0,
        resources: 0,
        prompts: 0,
        in_flight: 0,
        restarts: 0,
        cpu_microseconds: None,
        memory_bytes: None,
        processes: None,
        unenforced_limits: Vec::new(),
    }
}

/// What upstreams tell the bridge by. Weak: the bridge owns them, not they the bridge.
struct Ear(Weak<Core>);

impl Hub for Ear {
    fn offer_changed(&self, upstream: &str, lists: Lists) {
        let Some(core) = self.0.upgrade() else { return };
        let shared = core.rebuild();
        core.tell_changed(shared, |name| if name == upstream { lists } else { Lists::default() });
    }

    fn state_changed(&self) {
        if let Some(core) = self.0.upgrade() {
            core.changed.notify_one();
        }
    }

    fn notified(&self, upstream: &str, method: &str, params: Option<&RawValue>, message: &Bytes) {
        let Some(core) = self.0.upgrade() else { return };
        let params = wire::Params::parse(params).unwrap_or_default();
        for session in core.sessions.list() {
            let wanted = session.view.sees(upstream)
                && match method {
                    "notifications/message" => {
                        let level = params.level.as_ref().and_then(|level| LogLevel::named(&level.0));
                        level.is_none_or(|level| session.wants(level))
                    }
                    "notifications/resources/updated" => {
                        params.uri.as_ref().is_some_and(|uri| session.is_subscribed(upstream, &uri.0))
                    }
                    _ => true,
                };
            if wanted {
                session.push(message, false);
            }
        }
    }

    fn log_level(&self) -> Option<String> {
        let level = self.0.upgrade()?.sessions.level()?;
        Some(level.name().to_owned())
    }

    fn subscriptions(&self, upstream: &str) -> Vec<String> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        let all = core.sessions.list().into_iter().flat_map(|session| session.subscriptions());
        let mut uris: Vec<_> = all.filter(|(name, _)| name == upstream).map(|(_, uri)| uri).collect();
        uris.sort_unstable();
        uris.dedup();
        uris
    }
}
