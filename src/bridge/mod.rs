//! The relay: clients' sessions on one side, upstreams on the other, and the catalog between them.

mod catalog;
mod router;
mod session;
mod upstream;
mod wire;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::catalog::Catalog;
pub use self::router::{Exchange, Handled, NewSession};
use self::session::{LogLevel, Sessions};
pub use self::session::{Session, View};
use self::upstream::{Builtin, Hub, Lists, Spec, Upstream};
use crate::config::Config;
use crate::control::{BridgeState, Manager, Status, UpstreamState, UpstreamStatus};
use crate::host::log::Recent;

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
    /// The config in force; none is the built-in default.
    pub config: Option<String>,
    /// What keeps the process running.
    pub manager: Manager,
    /// The unit that it runs in.
    pub unit: Option<String>,
    /// Where clients connect.
    pub address: String,
}

/// See the module.
#[derive(Debug)]
pub struct Bridge {
    core: Arc<Core>,
    disabled: Vec<UpstreamStatus>,
    running: tokio::sync::Mutex<JoinSet<()>>,
}

/// What clients, upstreams and the status all look at.
pub(crate) struct Core {
    about: About,
    config: Arc<Config>,
    /// In the order of the config.
    upstreams: OnceLock<IndexMap<String, Arc<Upstream>>>,
    catalog: RwLock<Arc<Catalog>>,
    sessions: Sessions,
    began: Instant,
    started_at: jiff::Timestamp,
    settled: AtomicBool,
    stopping: CancellationToken,
    changed: Notify,
    disabled: Vec<UpstreamStatus>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Bridge {
    /// Starts to connect the upstreams of the config; needs a tokio runtime.
    #[must_use]
    pub fn start(config: Config, about: About, log: &Recent) -> Self {
        let config = Arc::new(config);
        let disabled: Vec<_> = config
            .upstreams
            .iter()
            .filter(|(_, server)| !server.enabled)
            .map(|(name, server)| disabled(name, server))
            .collect();
        let core = Arc::new(Core {
            about,
            config: Arc::clone(&config),
            upstreams: OnceLock::new(),
            catalog: RwLock::default(),
            sessions: Sessions::default(),
            began: Instant::now(),
            started_at: jiff::Timestamp::now(),
            settled: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            changed: Notify::new(),
            disabled: disabled.clone(),
        });
        let weak = Arc::downgrade(&core);
        let status = Arc::new(move || weak.upgrade().map(|core| core.status()));
        let builtin = Builtin::new(status, log.clone());
        let hub: Arc<dyn Hub> = Arc::new(Ear(Arc::downgrade(&core)));
        let base = core.about.config.as_deref().and_then(|path| Path::new(path).parent());
        let upstreams: IndexMap<_, _> = config
            .upstreams
            .iter()
            .filter(|(_, server)| server.enabled)
            .map(|(name, server)| {
                let spec = Spec::new(name, server, &config.bridge, base, &builtin);
                (name.clone(), Upstream::new(spec, Arc::clone(&hub)))
            })
            .collect();
        let mut running = JoinSet::new();
        for upstream in upstreams.values() {
            running.spawn(Arc::clone(upstream).run());
        }
        // The only time that it is set.
        let _ = core.upstreams.set(upstreams);
        core.rebuild();
        running.spawn(Arc::clone(&core).sweep());
        Self { core, disabled, running: tokio::sync::Mutex::new(running) }
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

    /// Whether there is an enabled upstream of that name.
    #[must_use]
    pub fn has(&self, upstream: &str) -> bool {
        self.core.upstreams().contains_key(upstream)
    }

    /// Whether there is one of that name that the config disables.
    #[must_use]
    pub fn is_disabled(&self, upstream: &str) -> bool {
        self.disabled.iter().any(|status| status.name == upstream)
    }

    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.core.sessions.get(id)
    }

    /// Ends a session at its client's word.
    pub fn end_session(&self, id: &str) {
        if let Some(session) = self.core.sessions.end(id) {
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
            .upstreams()
            .values()
            .filter_map(|upstream| upstream.live())
            .map(|live| live.connection.in_flight())
            .sum()
    }

    /// Ends all upstreams, and returns when their processes are gone.
    pub async fn stop(&self) {
        self.begin_stop();
        for upstream in self.core.upstreams().values() {
            upstream.stop();
        }
        let mut running = self.running.lock().await;
        while running.join_next().await.is_some() {}
    }
}

impl Core {
    fn upstreams(&self) -> &IndexMap<String, Arc<Upstream>> {
        static NONE: OnceLock<IndexMap<String, Arc<Upstream>>> = OnceLock::new();
        self.upstreams.get().unwrap_or_else(|| NONE.get_or_init(IndexMap::new))
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
            for upstream in self.upstreams().values() {
                upstream.settled().await;
            }
        };
        let _ = tokio::time::timeout_at(self.began + SETTLING, all).await;
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Makes the catalog anew, and says what became different.
    fn rebuild(&self) -> Lists {
        let new = Catalog::build(self.upstreams().values().cloned(), &self.config.bridge);
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let changed = catalog.difference(&new);
        *catalog = Arc::new(new);
        changed
    }

    /// Takes back what those sessions wanted of upstreams.
    fn forget(&self, over: &[Arc<Session>]) {
        for (upstream, uri) in over.iter().flat_map(|session| session.subscriptions()) {
            let wanted = self.sessions.list().iter().any(|session| session.is_subscribed(&upstream, &uri));
            let live =
                self.upstreams().get(&upstream).filter(|_| !wanted).and_then(|upstream| upstream.live());
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
                    if !over.is_empty() {
                        tracing::debug!("{} sessions were idle for too long", over.len());
                        self.forget(&over);
                    }
                }
                () = self.stopping.cancelled() => return,
            }
        }
    }

    fn status(&self) -> Status {
        let live = self.upstreams().values().map(|upstream| upstream.status());
        let mut upstreams: Vec<UpstreamStatus> = live.chain(self.disabled.iter().cloned()).collect();
        upstreams.sort_by_key(|upstream| self.config.upstreams.get_index_of(&upstream.name));
        let stopping = self.stopping.is_cancelled();
        let mut status = Status {
            name: self.about.name.clone(),
            config: self.about.config.clone(),
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
            path: std::env::var("PATH").unwrap_or_default(),
            upstreams,
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
    }
}

/// What upstreams tell the bridge by. Weak: the bridge owns them, not they the bridge.
struct Ear(Weak<Core>);

impl Hub for Ear {
    fn offer_changed(&self, upstream: &str, lists: Lists) {
        let Some(core) = self.0.upgrade() else { return };
        let shared = core.rebuild();
        for session in core.sessions.list() {
            let changed = match &session.view {
                View::All => shared,
                View::One(name) if name == upstream => lists,
                View::One(_) => continue,
            };
            let kinds =
                [(changed.tools, "tools"), (changed.resources, "resources"), (changed.prompts, "prompts")];
            for (_, kind) in kinds.iter().filter(|(changed, _)| *changed) {
                let message = wire::notification(&format!("notifications/{kind}/list_changed"), "");
                session.push(&message.into(), true);
            }
        }
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
