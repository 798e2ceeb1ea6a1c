//! The sessions that clients hold: what is to be told to each, and which are over.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::upstream::Connection;

/// A session that is not used for this long is over; a client that comes back is told so, and begins a new one.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);
/// Sessions held at a time. Most clients never say goodbye: past this, the one unused for longest makes room.
const MAX_SESSIONS: usize = 4096;
/// Notifications kept for a client that does not listen; the oldest go first.
const MAX_QUEUED: usize = 256;

/// The levels of RFC 5424 that MCP logging has, the most verbose first.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How verbose a client wants an upstream's log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogLevel(usize);

impl LogLevel {
    /// What a client gets that never asked.
    const DEFAULT: Self = Self(1);

    /// The level of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == name).map(Self)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        LEVELS[self.0]
    }
}

/// Which upstreams a client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// All of them, at `/mcp`.
    All,
    /// One, at `/mcp/NAME`, with its own names.
    One(String),
}

impl View {
    /// Whether it has that upstream in it.
    pub(crate) fn sees(&self, upstream: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(name) => name == upstream,
        }
    }
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// What the client names it by.
    pub id: String,
    /// What the client sees.
    pub view: View,
    /// The MCP version agreed on.
    pub protocol: &'static str,
    state: Mutex<State>,
    woken: Notify,
    /// Streams and requests that are open now.
    open: AtomicUsize,
}

#[derive(Debug)]
struct State {
    used: Instant,
    queue: VecDeque<Bytes>,
    /// Counts streams: only the newest is fed.
    stream: u64,
    ended: bool,
    level: Option<LogLevel>,
    /// Upstream and URI.
    subscriptions: HashSet<(String, String)>,
    /// Requests under way, by the client's id as written, and what they are upstream.
    calls: HashMap<String, (Arc<Connection>, u64)>,
}

impl Session {
    fn new(id: String, view: View, protocol: &'static str) -> Self {
        let state = State {
            used: Instant::now(),
            queue: VecDeque::new(),
            stream: 0,
            ended: false,
            level: None,
            subscriptions: HashSet::new(),
            calls: HashMap::new(),
        };
        Self { id, view, protocol, state: Mutex::new(state), woken: Notify::new(), open: AtomicUsize::new(0) }
    }

    /// A session that no client has.
    pub(crate) fn unlisted(protocol: &'static str) -> Self {
        Self::new(String::new(), View::All, protocol)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the session from growing idle for as long as the guard lives.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.open.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }

    fn idle(&self) -> Duration {
        if self.open.load(Ordering::Relaxed) > 0 { Duration::ZERO } else { self.state().used.elapsed() }
    }

    /// Queues a notification for the client.
    pub(crate) fn push(&self, message: &Bytes, once: bool) {
        {
            let mut state = self.state();
            if once && state.queue.contains(message) {
                return;
            }
            if state.queue.len() == MAX_QUEUED {
                state.queue.pop_front();
            }
            state.queue.push_back(message.clone());
        }
        self.woken.notify_one();
    }

    /// Begins a stream of what is queued; an older one ends.
    pub fn open_stream(&self) -> u64 {
        let stream = {
            let mut state = self.state();
            state.stream += 1;
            state.stream
        };
        self.woken.notify_waiters();
        stream
    }

    /// The next notification for that stream; `None` when the stream or the session is over.
    pub async fn next(&self, stream: u64) -> Option<Bytes> {
        loop {
            let woken = self.woken.notified();
            {
                let mut state = self.state();
                if state.ended || state.stream != stream {
                    return None;
                }
                if let Some(message) = state.queue.pop_front() {
                    return Some(message);
                }
            }
            woken.await;
        }
    }

    /// Ends the session's streams.
    fn end(&self) {
        self.state().ended = true;
        self.woken.notify_waiters();
        self.woken.notify_one();
    }

    /// Notes where a request went.
    pub(crate) fn began(&self, id: &str, connection: &Arc<Connection>, upstream_id: u64) {
        self.state().calls.insert(id.to_owned(), (Arc::clone(connection), upstream_id));
    }

    /// Whether a request under that id is under way.
    pub(crate) fn is_busy_with(&self, id: &str) -> bool {
        self.state().calls.contains_key(id)
    }

    /// Notes that a request has its answer.
    pub(crate) fn finished(&self, id: &str) {
        self.state().calls.remove(id);
    }

    /// Where a request went that is under way.
    pub(crate) fn call(&self, id: &str) -> Option<(Arc<Connection>, u64)> {
        self.state().calls.get(id).cloned()
    }

    /// Notes what the client wants of log messages.
    pub(crate) fn set_level(&self, level: LogLevel) {
        self.state().level = Some(level);
    }

    /// Whether the client wants log messages of that level.
    pub(crate) fn wants(&self, level: LogLevel) -> bool {
        level >= self.state().level.unwrap_or(LogLevel::DEFAULT)
    }

    /// Notes that the client wants to hear of a resource, or no longer.
    pub(crate) fn subscribe(&self, upstream: &str, uri: &str, wanted: bool) {
        let key = (upstream.to_owned(), uri.to_owned());
        let mut state = self.state();
        if wanted {
            state.subscriptions.insert(key);
        } else {
            state.subscriptions.remove(&key);
        }
    }

    /// Whether the client wants to hear of a resource.
    pub(crate) fn is_subscribed(&self, upstream: &str, uri: &str) -> bool {
        self.state().subscriptions.iter().any(|(name, wanted)| name == upstream && wanted == uri)
    }

    /// The resources that the client wants to hear of, with their upstreams.
    pub(crate) fn subscriptions(&self) -> Vec<(String, String)> {
        self.state().subscriptions.iter().cloned().collect()
    }
}

/// See `Session::hold`.
#[derive(Debug)]
pub struct Held(Arc<Session>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().used = Instant::now();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All sessions of a bridge.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session; `None` when there are too many that are all in use. Also gives those that made room.
    pub(crate) fn begin(
        &self,
        view: View,
        protocol: &'static str,
    ) -> (Option<Arc<Session>>, Vec<Arc<Session>>) {
        let mut random = [0_u8; 16];
        // An id that could be guessed would let one client act as another.
        if getrandom::fill(&mut random).is_err() {
            return (None, Vec::new());
        }
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let session = Arc::new(Session::new(id.clone(), view, protocol));
        let mut all = self.all();
        let mut over = Vec::new();
        if all.len() >= MAX_SESSIONS {
            let idlest = all.values().map(|session| (session.idle(), session)).max_by_key(|(idle, _)| *idle);
            match idlest.filter(|(idle, _)| !idle.is_zero()).map(|(_, session)| session.id.clone()) {
                Some(idlest) => over.extend(all.remove(&idlest)),
                None => return (None, over),
            }
        }
        all.insert(id, Arc::clone(&session));
        drop(all);
        over.iter().for_each(|session| session.end());
        (Some(session), over)
    }

    /// The session of that name.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.all().get(id).cloned()
    }

    /// Ends one.
    pub(crate) fn end(&self, id: &str) -> Option<Arc<Session>> {
        let session = self.all().remove(id)?;
        session.end();
        Some(session)
    }

    /// Ends those that have been idle for too long.
    pub(crate) fn sweep(&self) -> Vec<Arc<Session>> {
        let over: Vec<_> = self.list().into_iter().filter(|session| session.idle() >= IDLE).collect();
        over.iter().filter_map(|session| self.end(&session.id)).collect()
    }

    /// Ends all of them.
    pub(crate) fn end_all(&self) {
        let all: Vec<_> = self.all().drain().collect();
        all.iter().for_each(|(_, session)| session.end());
    }

    /// All of them now.
    pub(crate) fn list(&self) -> Vec<Arc<Session>> {
        self.all().values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// The most verbose level that any client wants, once any has asked for one.
    pub(crate) fn level(&self) -> Option<LogLevel> {
        let levels: Vec<_> = self.all().values().map(|session| session.state().level).collect();
        levels.iter().any(Option::is_some).then_some(())?;
        levels.into_iter().map(|level| level.unwrap_or(LogLevel::DEFAULT)).min()
    }
}
