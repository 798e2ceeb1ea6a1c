//! One live connection to an MCP server: requests out under ids of our own, answers back to who asked.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Link;
use crate::bridge::wire::{self, Edit, Message};

/// Requests that one upstream may be working on at a time; more are refused.
const MAX_IN_FLIGHT: usize = 4096;
/// Progress notifications that may wait for a slow client; later ones are dropped until it reads.
pub(crate) const PROGRESS_QUEUE: usize = 256;

/// Why a request got no answer from its upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The upstream never got the request, so that it may be sent again.
    #[error("{0}")]
    NotDelivered(String),
    /// The connection ended before the answer; whether the request was carried out is unknown.
    #[error("the connection ended before the answer: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The upstream has more to do than it can.
    #[error("it is busy: {0}")]
    Busy(&'static str),
}

/// What hears of an upstream's notifications.
pub(crate) trait Listener: Send + Sync {
    /// A notification that belongs to no request.
    fn notified(&self, method: &str, params: Option<&RawValue>, message: &Bytes);
}

/// An upstream's answer, still under our id.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    message: Bytes,
    id: Range<usize>,
}

impl Reply {
    /// The answer under the id that the client gave, which is JSON.
    pub(crate) fn under(&self, id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len() + id.len());
        out.extend_from_slice(&self.message[..self.id.start]);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&self.message[self.id.end..]);
        out
    }

    /// The whole message.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.message).unwrap_or_default()
    }
}

/// Where the progress of a request goes, and under which token (JSON).
#[derive(Debug)]
pub(crate) struct ProgressTo {
    /// As the client gave it.
    pub(crate) token: Box<RawValue>,
    /// The client's stream.
    pub(crate) sink: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
struct Pending {
    reply: oneshot::Sender<Result<Reply, CallError>>,
    progress: Option<ProgressTo>,
    /// When it was sent or last heard of.
    heard: Arc<Mutex<Instant>>,
}

/// See the module.
pub(crate) struct Connection {
    link: OnceLock<Link>,
    listener: Box<dyn Listener>,
    pending: Mutex<HashMap<u64, Pending>>,
    next_id: AtomicU64,
    closed: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("closed", &*self.closed.borrow()).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that has no link yet: `attach` gives it one.
    pub(crate) fn new(listener: Box<dyn Listener>) -> Arc<Self> {
        Arc::new(Self {
            link: OnceLock::new(),
            listener,
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: watch::Sender::new(None),
        })
    }

    /// Gives the connection its way to the upstream. Only the first counts.
    pub(crate) fn attach(&self, link: Link) {
        let _ = self.link.set(link);
    }

    /// The way to the upstream.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    /// Why the connection is over, once it is.
    pub(crate) fn closed_because(&self) -> Option<String> {
        self.closed.borrow().clone()
    }

    /// Whether the connection is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Waits until the connection is over, and says why.
    pub(crate) async fn ended(&self) -> String {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.closed.subscribe().wait_for(Option::is_some).await;
        self.closed_because().unwrap_or_default()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait for an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending().len()
    }

    /// Sends a request that `write` makes for the id it is given, and waits for the answer. `patience` is how long the
    /// upstream may say nothing, neither an answer nor progress.
    pub(crate) async fn request(
        self: &Arc<Self>,
        write: impl FnOnce(u64) -> Vec<u8>,
        progress: Option<ProgressTo>,
        patience: Duration,
        sent: impl FnOnce(u64),
    ) -> Result<Reply, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, mut answer) = oneshot::channel();
        let heard = Arc::new(Mutex::new(Instant::now()));
        {
            let mut pending = self.pending();
            // Under the lock that `close` takes too: a request is either refused here or failed there.
            if let Some(reason) = &*self.closed.borrow() {
                return Err(CallError::NotDelivered(reason.clone()));
            }
            if pending.len() >= MAX_IN_FLIGHT {
                return Err(CallError::Busy("too many requests are waiting for it"));
            }
            pending.insert(id, Pending { reply, progress, heard: Arc::clone(&heard) });
        }
        let _forget = Forget { connection: self, id };
        sent(id);
        match self.link() {
            Some(link) => link.send(self, Some(id), write(id))?,
            None => return Err(CallError::NotDelivered("not connected".to_owned())),
        }
        loop {
            let deadline = *heard.lock().unwrap_or_else(PoisonError::into_inner) + patience;
            match tokio::time::timeout_at(deadline, &mut answer).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(_)) => return Err(CallError::Lost("it was given up".to_owned())),
                Err(_)
                    if *heard.lock().unwrap_or_else(PoisonError::into_inner) + patience > Instant::now() => {}
                Err(_) => {
                    let params = format!(r#"{{"requestId":{id},"reason":"timed out"}}"#);
                    self.notify(wire::notification("notifications/cancelled", &params));
                    return Err(CallError::TimedOut(patience));
                }
            }
        }
    }

    /// Sends a notification; one that cannot be sent is dropped, as the connection is then over anyway.
    pub(crate) fn notify(self: &Arc<Self>, message: impl Into<Vec<u8>>) {
        if let Some(link) = self.link() {
            let _ = link.send(self, None, message.into());
        }
    }

    /// Takes a message from the upstream. What is none is logged by the caller's name and dropped.
    pub(crate) fn receive(self: &Arc<Self>, message: Bytes) -> Result<(), String> {
        let text = std::str::from_utf8(&message).map_err(|error| format!("not UTF-8: {error}"))?;
        match wire::parse(text).map_err(|error| error.reason)? {
            Message::Response { id, .. } => {
                let at = wire::range_in(text, id.get());
                let pending = wire::as_u64(id).and_then(|id| self.pending().remove(&id));
                match pending {
                    Some(pending) => {
                        // The caller may have gone: then nobody wants the answer.
                        let _ = pending.reply.send(Ok(Reply { message, id: at }));
                    }
                    None => tracing::debug!(id = id.get(), "an answer that nobody waits for"),
                }
            }
            Message::Notification { method, params } if method == "notifications/progress" => {
                self.progress(text, params)?;
            }
            Message::Notification { method, params } => self.listener.notified(&method, params, &message),
            Message::Request { id, method, .. } => {
                let answer = if method == "ping" {
                    wire::result(id.get(), "{}")
                } else {
                    wire::error(
                        id.get(),
                        wire::METHOD_NOT_FOUND,
                        &format!("the bridge does not offer `{method}`"),
                    )
                };
                self.notify(answer);
            }
        }
        Ok(())
    }

    fn progress(&self, text: &str, params: Option<&RawValue>) -> Result<(), String> {
        let params = wire::Params::parse(params)?;
        let Some(token) = params.progress_token else { return Ok(()) };
        let pending = self.pending();
        let Some(pending) = wire::as_u64(token).and_then(|id| pending.get(&id)) else { return Ok(()) };
        *pending.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(to) = &pending.progress {
            let message = wire::spliced(text, &mut [Edit::of(text, token, to.token.get())]);
            if to.sink.try_send(message.into()).is_err() {
                tracing::debug!("a progress notification was dropped: its client does not read");
            }
        }
        Ok(())
    }

    /// Fails one request, which its link could not carry; one that has its answer stays answered.
    pub(crate) fn fail(&self, id: u64, error: CallError) {
        if let Some(pending) = self.pending().remove(&id) {
            let _ = pending.reply.send(Err(error));
        }
    }

    /// Whether that request still has no answer.
    pub(crate) fn waits_for(&self, id: u64) -> bool {
        self.pending().contains_key(&id)
    }

    /// Ends the connection: every request that waits fails. Only the first reason counts.
    pub(crate) fn close(&self, reason: &str) {
        let waiting: Vec<_> = {
            let mut pending = self.pending();
            self.closed.send_if_modified(|closed| {
                let first = closed.is_none();
                closed.get_or_insert_with(|| reason.to_owned());
                first
            });
            pending.drain().collect()
        };
        for (_, pending) in waiting {
            let _ = pending.reply.send(Err(CallError::Lost(reason.to_owned())));
        }
    }
}

/// Forgets a request whose caller has gone.
struct Forget<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.pending().remove(&self.id);
    }
}
