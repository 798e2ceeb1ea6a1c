//! One MCP server behind the bridge: it is connected, kept connected, and its last known offer is kept with it.

mod builtin;
mod connection;
mod handshake;
mod http;
mod offer;
mod spec;
mod stdio;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::builtin::Builtin;
pub(crate) use self::connection::{CallError, Connection, PROGRESS_QUEUE, ProgressTo, Reply};
pub(crate) use self::handshake::Handshake;
pub(crate) use self::offer::{Item, Offer, find_member};
use self::spec::OpenError;
pub(crate) use self::spec::{Spec, transport_name};
use crate::bridge::wire;
use crate::control::{UpstreamState, UpstreamStatus};

/// The longest pause between attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The shortest, also when callers ask for the upstream.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// A connection that held this long was a good one: failures are counted anew.
const STABLE: Duration = Duration::from_secs(60);
/// How long an upstream may take to be told a thing.
const TOLD: Duration = Duration::from_secs(10);
/// How long a caller waits for an upstream that is being connected.
const CALLER_WAITS: Duration = Duration::from_secs(10);

/// The way to an upstream: one interface, a transport each.
#[derive(Debug)]
pub(crate) enum Link {
    /// A child process.
    Stdio(stdio::Pipe),
    /// Streamable HTTP.
    Http(http::Http),
    /// The bridge itself.
    Builtin(Builtin),
}

impl Link {
    /// Sends one message, without waiting. `id` is set when it is a request.
    fn send(&self, connection: &Arc<Connection>, id: Option<u64>, message: Vec<u8>) -> Result<(), CallError> {
        match self {
            Self::Stdio(pipe) => pipe.send(&message),
            Self::Http(http) => {
                http.send(connection, id, message);
                Ok(())
            }
            Self::Builtin(builtin) => {
                builtin.answer(connection, &message);
                Ok(())
            }
        }
    }

    /// Ends it, child processes included.
    async fn close(&self) {
        match self {
            Self::Stdio(pipe) => pipe.close().await,
            Self::Http(http) => http.close().await,
            Self::Builtin(_) => {}
        }
    }
}

/// Which lists of an upstream are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    /// tools/list.
    pub(crate) tools: bool,
    /// resources/list and resources/templates/list.
    pub(crate) resources: bool,
    /// prompts/list.
    pub(crate) prompts: bool,
}

impl Lists {
    const ALL: Self = Self { tools: true, resources: true, prompts: true };

    /// Whether any is meant.
    pub(crate) fn any(self) -> bool {
        self.tools || self.resources || self.prompts
    }
}

/// What hears of all upstreams.
pub(crate) trait Hub: Send + Sync {
    /// An upstream offers other things than before.
    fn offer_changed(&self, upstream: &str, lists: Lists);
    /// An upstream's state is another.
    fn state_changed(&self);
    /// A notification for the clients.
    fn notified(&self, upstream: &str, method: &str, params: Option<&RawValue>, message: &Bytes);
    /// What a new connection has to be told at once: the log level that clients want.
    fn log_level(&self) -> Option<String>;
    /// Likewise: the resources that clients have subscribed to.
    fn subscriptions(&self, upstream: &str) -> Vec<String>;
}

/// A connected upstream.
#[derive(Debug)]
pub(crate) struct Live {
    /// The way to it.
    pub(crate) connection: Arc<Connection>,
    /// What it said of itself.
    pub(crate) server: Handshake,
}

impl Live {
    /// Sets the level of its log messages.
    pub(crate) async fn set_level(&self, level: &str) {
        self.tell("logging/setLevel", &format!(r#"{{"level":{}}}"#, wire::quote(level))).await;
    }

    /// Asks to hear of a resource, or no longer.
    pub(crate) async fn subscribe(&self, uri: &str, wanted: bool) {
        let method = if wanted { "resources/subscribe" } else { "resources/unsubscribe" };
        self.tell(method, &format!(r#"{{"uri":{}}}"#, wire::quote(uri))).await;
    }

    async fn tell(&self, method: &str, params: &str) {
        let write = |id| wire::request(id, method, params).into_bytes();
        if let Err(error) = self.connection.request(write, None, TOLD, |_| {}).await {
            tracing::debug!("{method}: {error}");
        }
    }
}

/// Why an upstream cannot be asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream `{name}` is not connected: {reason}")]
pub(crate) struct Unavailable {
    name: String,
    reason: String,
}

#[derive(Debug, Clone)]
struct Phase {
    state: UpstreamState,
    /// Attempts to connect that have ended, either way.
    attempts: u64,
    error: Option<String>,
}

/// See the module.
pub(crate) struct Upstream {
    /// What the config says of it.
    pub(crate) spec: Spec,
    hub: Arc<dyn Hub>,
    phase: watch::Sender<Phase>,
    live: RwLock<Option<Arc<Live>>>,
    offer: RwLock<Arc<Offer>>,
    stale: Mutex<Lists>,
    refresh: Notify,
    wanted: Notify,
    stopping: CancellationToken,
    connected_before: AtomicBool,
    restarts: AtomicU32,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.spec.name)
            .field("phase", &*self.phase.borrow())
            .finish()
    }
}

impl Upstream {
    /// An upstream that nobody runs yet.
    pub(crate) fn new(spec: Spec, hub: Arc<dyn Hub>) -> Arc<Self> {
        Arc::new(Self {
            spec,
            hub,
            phase: watch::Sender::new(Phase { state: UpstreamState::Connecting, attempts: 0, error: None }),
            live: RwLock::default(),
            offer: RwLock::default(),
            stale: Mutex::default(),
            refresh: Notify::new(),
            wanted: Notify::new(),
            stopping: CancellationToken::new(),
            connected_before: AtomicBool::new(false),
            restarts: AtomicU32::new(0),
        })
    }

    /// What it offers, or last offered.
    pub(crate) fn offer(&self) -> Arc<Offer> {
        Arc::clone(&self.offer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection, if there is one now.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        // One that has just ended is still there until its end has been dealt with.
        live.filter(|live| !live.connection.is_closed())
    }

    /// The connection. Where there is none, one is tried for at once, and waited for a while.
    pub(crate) async fn reach(&self) -> Result<Arc<Live>, Unavailable> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let mut phase = self.phase.subscribe();
        let before = phase.borrow_and_update().attempts;
        self.wanted.notify_one();
        let settled =
            phase.wait_for(|phase| phase.state != UpstreamState::Connecting && phase.attempts > before);
        let waited = tokio::time::timeout(CALLER_WAITS.min(self.spec.timeout), settled)
            .await
            .is_ok_and(|settled| settled.is_ok());
        self.live().ok_or_else(|| {
            let error = self.phase.borrow().error.clone();
            let reason =
                error.unwrap_or_else(|| if waited { "it is stopped" } else { "still connecting" }.to_owned());
            Unavailable { name: self.spec.name.clone(), reason }
        })
    }

    /// Waits until the first attempt to connect has ended, either way.
    pub(crate) async fn settled(&self) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.phase.subscribe().wait_for(|phase| phase.attempts > 0).await;
    }

    /// The state in a word.
    pub(crate) fn state(&self) -> UpstreamState {
        self.phase.borrow().state
    }

    /// What a person wants to know of it.
    pub(crate) fn status(&self) -> UpstreamStatus {
        let phase = self.phase.borrow().clone();
        let live = self.live();
        let offer = self.offer();
        UpstreamStatus {
            name: self.spec.name.clone(),
            transport: self.spec.target.transport().to_owned(),
            target: self.spec.shown.clone(),
            state: phase.state,
            error: phase.error,
            pid: live.as_ref().and_then(|live| match live.connection.link() {
                Some(Link::Stdio(pipe)) => Some(pipe.pid()),
                _ => None,
            }),
            server: live.as_ref().and_then(|live| live.server.title()),
            protocol: live.as_ref().map(|live| live.server.protocol.clone()),
            tools: offer.tools.len(),
            resources: offer.resources.len() + offer.templates.len(),
            prompts: offer.prompts.len(),
            in_flight: live.as_ref().map_or(0, |live| live.connection.in_flight()),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    /// Connects and keeps connected, until `stop`.
    pub(crate) async fn run(self: Arc<Self>) {
        // A fault of ours in one upstream must not leave it dead for ever, and least of all unnoticed.
        while let Err(fault) = tokio::spawn(Arc::clone(&self).keep_connected()).await {
            tracing::error!(upstream = self.spec.name, "a fault of the bridge's own: {fault}");
            self.enter(UpstreamState::Failed, Some(format!("a fault of the bridge's own: {fault}")));
            tokio::select! {
                () = tokio::time::sleep(MAX_PAUSE) => {}
                () = self.stopping.cancelled() => break,
            }
        }
        self.enter(UpstreamState::Stopped, None);
    }

    async fn keep_connected(self: Arc<Self>) {
        let mut failures = 0_u32;
        loop {
            let began = Instant::now();
            self.enter(UpstreamState::Connecting, None);
            // Not to be dropped half-way: it ends by itself at a stop, once its processes are gone.
            let Some(Ended { reason, held, lasting }) = self.attempt().await else { break };
            failures = if held.is_some_and(|held| held >= STABLE) { 0 } else { failures.saturating_add(1) };
            if held.is_some() && failures <= 1 {
                tracing::warn!(upstream = self.spec.name, "disconnected, connecting again: {reason}");
                self.enter(UpstreamState::Retrying, Some(reason));
            } else if failures < self.spec.attempts && !lasting {
                tracing::warn!(upstream = self.spec.name, "not connected (attempt {failures}): {reason}");
                self.enter(UpstreamState::Retrying, Some(reason));
            } else {
                if self.state() != UpstreamState::Failed {
                    tracing::error!(upstream = self.spec.name, "failed: {reason}");
                }
                self.enter(UpstreamState::Failed, Some(reason));
                self.replace_offer(Offer::default());
            }
            let pause = match held {
                _ if lasting => MAX_PAUSE,
                // What has worked until now is most likely there again at once.
                Some(_) => pause(self.spec.retry, failures.saturating_sub(1)),
                None => pause(self.spec.retry, failures),
            };
            tokio::select! {
                () = tokio::time::sleep_until(began + pause) => {}
                () = self.wanted.notified() => tokio::time::sleep_until(began + MIN_PAUSE).await,
                () = self.stopping.cancelled() => break,
            }
        }
    }

    /// Ends `run` once its processes are gone.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// One connection from its first byte to its last. `None` when the bridge ended it.
    async fn attempt(self: &Arc<Self>) -> Option<Ended> {
        let listener = Listening { upstream: Arc::clone(self) };
        let connection = Connection::new(Box::new(listener));
        let outcome = tokio::select! {
            outcome = self.serve(&connection) => Some(outcome),
            () = self.stopping.cancelled() => None,
        };
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        let reason = match &outcome {
            Some(Ended { reason, .. }) => reason.as_str(),
            None => "the bridge is stopping",
        };
        if let Some(link) = connection.link() {
            link.close().await;
        }
        connection.close(reason);
        outcome
    }

    /// Opens the link, shakes hands, learns the offer, and stays until the connection ends.
    async fn serve(self: &Arc<Self>, connection: &Arc<Connection>) -> Ended {
        let connecting = async {
            let link = self.spec.target.open(connection)?;
            connection.attach(link);
            let shaken = handshake::shake_hands(connection, self.spec.timeout).await;
            shaken.map_err(|reason| OpenError { lasting: false, reason })
        };
        let server = match tokio::time::timeout(self.spec.timeout, connecting).await {
            Ok(Ok(server)) => server,
            // When the link broke, its own words tell more than the request's.
            Ok(Err(OpenError { lasting, reason })) => {
                let closed = connection.closed_because();
                return Ended { reason: closed.unwrap_or(reason), held: None, lasting };
            }
            Err(_) => {
                let reason = format!("no answer to `initialize` within {} s", self.spec.timeout.as_secs());
                return Ended { reason, held: None, lasting: false };
            }
        };
        if let Some(Link::Http(http)) = connection.link() {
            let (http, connection) = (http.clone(), Arc::clone(connection));
            tokio::spawn(async move { http.follow(connection).await });
        }
        let since = Instant::now();
        let live = Arc::new(Live { connection: Arc::clone(connection), server });
        self.remind(&live).await;
        *self.stale.lock().unwrap_or_else(PoisonError::into_inner) = Lists::default();
        self.learn(&live, Lists::ALL).await;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&live));
        if self.connected_before.swap(true, Ordering::Relaxed) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let offer = self.offer();
        tracing::info!(upstream = self.spec.name, "connected: {}", offer.summary());
        self.enter(UpstreamState::Connected, None);
        let refreshing = async {
            loop {
                self.refresh.notified().await;
                let lists = std::mem::take(&mut *self.stale.lock().unwrap_or_else(PoisonError::into_inner));
                self.learn(&live, lists).await;
            }
        };
        let reason = tokio::select! {
            reason = connection.ended() => reason,
            () = refreshing => unreachable!("it has no end"),
        };
        Ended { reason, held: Some(since.elapsed()), lasting: false }
    }

    /// Tells a new connection what clients had asked of the one before.
    async fn remind(&self, live: &Live) {
        if let (true, Some(level)) = (live.server.offers("logging"), self.hub.log_level()) {
            live.set_level(&level).await;
        }
        for uri in self.hub.subscriptions(&self.spec.name) {
            live.subscribe(&uri, true).await;
        }
    }

    /// Asks for those lists, and takes what comes as the offer.
    async fn learn(&self, live: &Live, lists: Lists) {
        if lists.any() {
            let fetched = offer::fetch(&self.spec, live, &self.offer(), lists).await;
            self.replace_offer(fetched);
        }
    }

    fn replace_offer(&self, new: Offer) {
        let changed = {
            let mut offer = self.offer.write().unwrap_or_else(PoisonError::into_inner);
            let changed = offer.difference(&new);
            if changed.any() {
                *offer = Arc::new(new);
            }
            changed
        };
        if changed.any() {
            self.hub.offer_changed(&self.spec.name, changed);
        }
    }

    fn enter(&self, state: UpstreamState, error: Option<String>) {
        self.phase.send_modify(|phase| {
            if state != UpstreamState::Connecting {
                // Losing a connection is no attempt to connect.
                phase.attempts += u64::from(phase.state == UpstreamState::Connecting);
                // While it tries again, the last failure is still what a person wants to read.
                phase.error = error;
            }
            phase.state = state;
        });
        self.hub.state_changed();
    }
}

/// How a connection ended.
struct Ended {
    reason: String,
    /// How long it was up, when it ever was.
    held: Option<Duration>,
    /// Whether only a person can mend it.
    lasting: bool,
}

/// Exponential from `first`, capped, with a quarter of jitter so that many upstreams do not come back in step.
fn pause(first: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let full = first.saturating_mul(1 << (failures - 1).min(16)).clamp(MIN_PAUSE, MAX_PAUSE);
    let mut random = [0_u8; 1];
    let _ = getrandom::fill(&mut random);
    full.mul_f64(1.0 - f64::from(random[0]) / 1024.0)
}

/// Takes the notifications of one upstream.
struct Listening {
    upstream: Arc<Upstream>,
}

impl connection::Listener for Listening {
    fn notified(&self, method: &str, params: Option<&RawValue>, message: &Bytes) {
        let changed = |mark: fn(&mut Lists)| {
            mark(&mut self.upstream.stale.lock().unwrap_or_else(PoisonError::into_inner));
            self.upstream.refresh.notify_one();
        };
        match method {
            "notifications/tools/list_changed" => changed(|lists| lists.tools = true),
            "notifications/resources/list_changed" => changed(|lists| lists.resources = true),
            "notifications/prompts/list_changed" => changed(|lists| lists.prompts = true),
            // It concerns requests of the upstream's own, and we take none.
            "notifications/cancelled" => {}
            _ => self.upstream.hub.notified(&self.upstream.spec.name, method, params, message),
        }
    }
}
