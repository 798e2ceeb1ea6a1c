//! A client's request carried to the upstream that answers it, and the answer carried back.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::Session;
use super::upstream::{CallError, PROGRESS_QUEUE, ProgressTo, Reply, Unavailable, Upstream};
use super::wire::{self, Edit};

/// A request that an upstream is working on.
pub struct Exchange {
    /// What it says on the way, when the client asked to hear it.
    pub progress: Option<mpsc::Receiver<Bytes>>,
    /// The answer; it comes at the end, whatever happens.
    pub answer: Pin<Box<dyn Future<Output = Vec<u8>> + Send>>,
}

/// A request on its way to an upstream.
pub(super) struct Forward {
    pub(super) upstream: Arc<Upstream>,
    /// As the client wrote it.
    pub(super) id: String,
    /// Where that stands.
    pub(super) id_at: Range<usize>,
    /// A name to put in place of the client's, as JSON, and where.
    pub(super) rename: Option<(Range<usize>, String)>,
    /// The client's progress token, as JSON, and where it stands. It is replaced also where the client cannot be told
    /// of progress: as it is, it could be the token of another request.
    pub(super) token: Option<(Range<usize>, Box<RawValue>)>,
    /// Whether the client can be told of progress.
    pub(super) streams: bool,
    /// Whether a failure is for the model to read, as a tool's result is.
    pub(super) is_tool: bool,
}

impl Forward {
    /// Sends the request; `message` is the text that all ranges are of.
    pub(super) fn start(self, message: Bytes, session: Arc<Session>) -> Exchange {
        let (sink, progress) = match &self.token {
            Some(_) if self.streams => {
                let (sink, progress) = mpsc::channel(PROGRESS_QUEUE);
                (Some(sink), Some(progress))
            }
            _ => (None, None),
        };
        Exchange { progress, answer: Box::pin(self.carry(message, session, sink)) }
    }

    async fn carry(
        self,
        message: Bytes,
        session: Arc<Session>,
        sink: Option<mpsc::Sender<Bytes>>,
    ) -> Vec<u8> {
        let _held = session.hold();
        let began = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
        let outcome = match self.ask(&message, &session, sink.clone()).await {
            // It never got there, so that a second try cannot do anything twice.
            Err(Failure::Call(CallError::NotDelivered(_))) => self.ask(&message, &session, sink).await,
            outcome => outcome,
        };
        if let Some(began) = began {
            self.log(&session, &outcome, began.elapsed());
        }
        match outcome {
            Ok(reply) => reply.under(&self.id),
            Err(failure) => {
                let reason = match failure {
                    Failure::Unavailable(error) => error.to_string(),
                    Failure::Call(error) => format!("upstream `{}`: {error}", self.upstream.spec.name),
                };
                if self.is_tool {
                    let result = json!({ "content": [{ "type": "text", "text": reason }], "isError": true });
                    wire::result(&self.id, &result.to_string()).into_bytes()
                } else {
                    wire::error(&self.id, wire::INTERNAL_ERROR, &reason).into_bytes()
                }
            }
        }
    }

    /// Says how a request went; only for developers, as there may be thousands in a second.
    fn log(&self, session: &Session, outcome: &Result<Reply, Failure>, took: Duration) {
        let upstream = &self.upstream.spec.name;
        let outcome = match outcome {
            Ok(_) => "was answered".to_owned(),
            Err(Failure::Unavailable(error)) => format!("failed: {error}"),
            Err(Failure::Call(error)) => format!("failed: {error}"),
        };
        tracing::debug!(
            upstream,
            session = session.log_name(),
            request_id = self.id.chars().take(64).collect::<String>(),
            "a request {outcome} after {} ms",
            took.as_millis()
        );
    }

    async fn ask(
        &self,
        message: &Bytes,
        session: &Arc<Session>,
        sink: Option<mpsc::Sender<Bytes>>,
    ) -> Result<Reply, Failure> {
        let live = self.upstream.reach().await.map_err(Failure::Unavailable)?;
        let text = std::str::from_utf8(message).unwrap_or_default();
        let write = |id: u64| {
            let id = id.to_string();
            let mut edits = vec![Edit { at: self.id_at.clone(), with: &id }];
            if let Some((at, name)) = &self.rename {
                edits.push(Edit { at: at.clone(), with: name });
            }
            if let Some((at, _)) = &self.token {
                edits.push(Edit { at: at.clone(), with: &id });
            }
            wire::spliced(text, &mut edits)
        };
        let progress = match (&self.token, sink) {
            (Some((_, token)), Some(sink)) => Some(ProgressTo { token: token.clone(), sink }),
            _ => None,
        };
        let _finished = Finished { session, id: &self.id };
        let connection = &live.connection;
        let sent = |id| session.began(&self.id, connection, id);
        connection
            .request(write, progress, self.upstream.spec.call_timeout, sent)
            .await
            .map_err(Failure::Call)
    }
}

enum Failure {
    Unavailable(Unavailable),
    Call(CallError),
}

/// Takes a request off its session's list however it ends.
struct Finished<'a> {
    session: &'a Session,
    id: &'a str,
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.session.finished(self.id);
    }
}
