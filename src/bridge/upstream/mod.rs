//! One MCP server behind the bridge: it is connected, kept connected, and its last known offer is kept with it.

mod builtin;
mod child;
mod connection;
mod handshake;
mod http;
mod offer;
mod spec;
mod stderr;
mod stdio;
mod supervise;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::builtin::Builtin;
pub(crate) use self::connection::{CallError, Connection, PROGRESS_QUEUE, ProgressTo, Reply};
pub(crate) use self::handshake::Handshake;
pub(crate) use self::offer::{Item, Offer, find_member};
pub(crate) use self::spec::{Spec, transport_name};
use crate::bridge::wire;
use crate::control::{UpstreamState, UpstreamStatus};

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
    /// Attempts to connect that have ended, either way; the loss of a connection is none.
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

    /// Takes what its predecessor offered for its own until it is connected, so that nothing vanishes meanwhile.
    pub(crate) fn begin_with(&self, offer: Arc<Offer>) {
        *self.offer.write().unwrap_or_else(PoisonError::into_inner) = offer;
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
        let settled = phase.wait_for(|phase| phase.attempts > before);
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

    /// What a person wants to know of it.
    pub(crate) fn status(&self) -> UpstreamStatus {
        let phase = self.phase.borrow().clone();
        let live = self.live();
        let offer = self.offer();
        let pipe = live.as_ref().and_then(|live| match live.connection.link() {
            Some(Link::Stdio(pipe)) => Some(pipe),
            _ => None,
        });
        let usage = pipe.map(stdio::Pipe::usage).unwrap_or_default();
        let unenforced = pipe.map(stdio::Pipe::unenforced).unwrap_or_default();
        UpstreamStatus {
            name: self.spec.name.clone(),
            transport: self.spec.target.transport().to_owned(),
            target: self.spec.shown.clone(),
            state: phase.state,
            error: phase.error,
            pid: pipe.map(stdio::Pipe::pid),
            server: live.as_ref().and_then(|live| live.server.title()),
            protocol: live.as_ref().map(|live| live.server.protocol.clone()),
            tools: offer.tools.len(),
            resources: offer.resources.len() + offer.templates.len(),
            prompts: offer.prompts.len(),
            in_flight: live.as_ref().map_or(0, |live| live.connection.in_flight()),
            restarts: self.restarts.load(Ordering::Relaxed),
            cpu_microseconds: usage.cpu.and_then(|time| u64::try_from(time.as_micros()).ok()),
            memory_bytes: usage.memory,
            processes: usage.processes,
            unenforced_limits: [&self.spec.unenforced, unenforced].concat(),
        }
    }
}
