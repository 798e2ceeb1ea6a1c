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

    /// What the log calls it: enough of the id to find it by, too little to use it.
    pub(crate) fn log_name(&self) -> &str {
        self.id.get(..8).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &Sessions) -> Arc<Session> {
        sessions.begin(View::All, "2025-06-18").0.expect("room for one more")
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_over_once_it_was_idle_for_long_and_not_before() {
        let sessions = Sessions::default();
        let (idle, held) = (begin(&sessions), begin(&sessions));
        let hold = held.hold();
        tokio::time::advance(IDLE - Duration::from_secs(1)).await;
        assert!(sessions.sweep().is_empty());
        // Any use begins the time anew.
        drop(idle.hold());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(sessions.sweep().is_empty());
        tokio::time::advance(IDLE).await;
        let over = sessions.sweep();
        let over: Vec<_> = over.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(over, [idle.id.as_str()], "the other one has a stream open");
        assert!(sessions.get(&idle.id).is_none());
        assert_eq!(idle.next(idle.open_stream()).await, None, "its streams are over, too");
        drop(hold);
        tokio::time::advance(IDLE).await;
        assert_eq!(sessions.sweep().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_unused_for_longest_makes_room_and_one_in_use_never_does() {
        let sessions = Sessions::default();
        let first = begin(&sessions);
        let hold = first.hold();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = begin(&sessions);
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut others: Vec<_> = (2..MAX_SESSIONS).map(|_| begin(&sessions)).collect();
        assert_eq!(sessions.count(), MAX_SESSIONS);
        tokio::time::advance(Duration::from_secs(1)).await;
        let (new, over) = sessions.begin(View::All, "2025-06-18");
        assert_eq!(over.iter().map(|session| &session.id).collect::<Vec<_>>(), [&second.id]);
        others.extend(new);
        let holds: Vec<_> = others.iter().map(Session::hold).collect();
        assert!(sessions.begin(View::All, "2025-06-18").0.is_none(), "all are in use");
        assert_eq!(sessions.count(), MAX_SESSIONS);
        drop((hold, holds));
    }

    #[test]
    fn a_client_that_does_not_listen_loses_the_oldest_first_and_hears_of_a_change_once() {
        let sessions = Sessions::default();
        let session = begin(&sessions);
        for number in 0..MAX_QUEUED + 3 {
            session.push(&Bytes::from(number.to_string()), true);
            session.push(&Bytes::from(number.to_string()), true);
        }
        let queue: Vec<_> = session.state().queue.iter().cloned().collect();
        assert_eq!(queue.len(), MAX_QUEUED);
        assert_eq!(
            (&queue[0][..], &queue[MAX_QUEUED - 1][..]),
            (&b"3"[..], (MAX_QUEUED + 2).to_string().as_bytes())
        );
    }
}
