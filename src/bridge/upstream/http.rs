//! An upstream behind Streamable HTTP: every message is a POST, and a GET stream carries what belongs to none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use sse_stream::{Sse, SseByteStream};

use super::connection::{CallError, Connection};

/// The longest message that an upstream may send.
const MAX_MESSAGE: usize = 64 << 20;
/// How long a new TCP and TLS connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Between attempts to have a stream again, unless the upstream says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// What an upstream may make that, so that it neither keeps us busy nor waiting.
const MIN_RETRY: Duration = Duration::from_millis(100);
/// See `MIN_RETRY`.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Attempts in a row to have a stream again.
const ATTEMPTS: usize = 5;
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is said of it.
const SESSION_GONE: &str = "its session is gone";

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// Where an upstream is and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// http or https.
    pub(crate) url: Url,
    /// Sent with every request, credentials among them, marked sensitive.
    pub(crate) headers: HeaderMap,
    /// Whether the certificate must be valid.
    pub(crate) verify_tls: bool,
}

/// The way to an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Http(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    url: Url,
    session: OnceLock<HeaderValue>,
    protocol: OnceLock<HeaderValue>,
}

impl Http {
    /// A client for the endpoint; nothing is sent yet.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let same_origin = reqwest::redirect::Policy::custom(|attempt| {
            let from = attempt.previous().first().map(Url::origin);
            if attempt.previous().len() > 5 || from != Some(attempt.url().origin()) {
                // Its headers carry credentials: they must not follow to another host.
                attempt.stop()
            } else {
                attempt.follow()
            }
        });
        // Fails only when a provider is there already, as from the second upstream on.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .default_headers(endpoint.headers.clone())
            .connect_timeout(CONNECT)
            .redirect(same_origin)
            .tls_danger_accept_invalid_certs(!endpoint.verify_tls)
            .user_agent(concat!("foxxy-bridge/", env!("CARGO_PKG_VERSION")));
        // Where there are no certificates, as in many a container, only what needs them is to fail.
        let client = match endpoint.url.scheme() {
            "http" => client.tls_certs_only([]),
            _ => client,
        };
        let client = client.build().map_err(|error| format!("no HTTP client: {}", words(error)))?;
        let inner =
            Inner { client, url: endpoint.url.clone(), session: OnceLock::new(), protocol: OnceLock::new() };
        Ok(Self(Arc::new(inner)))
    }

    /// Names the protocol version in every later request, as 2025-06-18 wants it.
    pub(crate) fn agreed_on(&self, protocol: &str) {
        if let Ok(value) = HeaderValue::from_str(protocol) {
            let _ = self.0.protocol.set(value);
        }
    }

    /// Sends a message on its own; what comes back reaches `connection`.
    pub(crate) fn send(&self, connection: &Arc<Connection>, id: Option<u64>, message: Vec<u8>) {
        let (http, connection) = (self.clone(), Arc::clone(connection));
        tokio::spawn(async move {
            tokio::select! {
                () = http.post(&connection, id, message) => {}
                _ = connection.ended() => {}
            }
        });
    }

    /// Sends a message, and takes what comes back until there is no more.
    pub(crate) async fn post(&self, connection: &Arc<Connection>, id: Option<u64>, message: Vec<u8>) {
        let fail = |error: CallError| match id {
            Some(id) => connection.fail(id, error),
            None => tracing::debug!("a notification was not taken: {error}"),
        };
        let request = self
            .with_session(self.0.client.post(self.0.url.clone()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(message);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let unsent = error.is_connect();
                let reason = words(error);
                if !unsent {
                    return fail(CallError::Lost(reason));
                }
                connection.close(&reason);
                return fail(CallError::NotDelivered(reason));
            }
        };
        if let Some(session) = response.headers().get(SESSION) {
            let _ = self.0.session.set(session.clone());
        }
        let status = response.status();
        let media = content_type(&response).to_owned();
        if status.is_success() && media == "text/event-stream" {
            return self.stream(connection, id, response).await;
        }
        let body = match body(response).await {
            Ok(body) => body,
            Err(reason) => return fail(CallError::Lost(reason)),
        };
        if self.0.session.get().is_some() && is_session_gone(status, &body) {
            // The upstream has forgotten us, usually because it was restarted: it did not look at the message.
            fail(CallError::NotDelivered(SESSION_GONE.to_owned()));
            return connection.close(SESSION_GONE);
        }
        match &*media {
            "application/json" => {
                if let Err(reason) = connection.receive(body) {
                    fail(CallError::Lost(format!("HTTP {status}, but its body is not a message ({reason})")));
                } else if !status.is_success() {
                    fail(CallError::Lost(format!("HTTP {status}")));
                }
            }
            _ if status.is_success() && id.is_none() => {}
            other => fail(CallError::Lost(format!("HTTP {status} with content type `{other}`"))),
        }
    }

    /// Takes the messages of a stream; where it breaks before the answer came, asks for the rest of it.
    async fn stream(&self, connection: &Arc<Connection>, id: Option<u64>, mut response: Response) {
        let fail = |error| {
            if let Some(id) = id {
                connection.fail(id, error);
            }
        };
        let mut position = Position::default();
        loop {
            let ended = take_events(connection, response, &mut position).await;
            let mut failures = 0;
            // An upstream may break its stream as often as it likes, for as long as the caller is patient.
            response = loop {
                if id.is_none_or(|id| !connection.waits_for(id)) {
                    return;
                }
                let Some(last) = &position.last else { return fail(CallError::Lost(ended)) };
                tokio::time::sleep(position.retry).await;
                match self.listen(Some(last)).await {
                    Ok(next) => break next,
                    Err(NoStream::Failed(reason)) => {
                        failures += 1;
                        if failures == ATTEMPTS {
                            return fail(CallError::Lost(reason));
                        }
                    }
                    Err(NoStream::SessionGone | NoStream::NotOffered) => return fail(CallError::Lost(ended)),
                }
            };
        }
    }

    /// Keeps the stream for what belongs to no request, as long as the connection lives and the upstream offers one.
    pub(crate) async fn follow(&self, connection: Arc<Connection>) {
        let following = async {
            let mut position = Position::default();
            let (mut had_one, mut failures) = (false, 0);
            loop {
                match self.listen(position.last.as_deref()).await {
                    Ok(response) => {
                        (had_one, failures) = (true, 0);
                        let ended = take_events(&connection, response, &mut position).await;
                        tracing::debug!("the stream of notifications ended: {ended}");
                    }
                    // Some that offer no stream say it like this.
                    Err(NoStream::SessionGone) if had_one => return connection.close(SESSION_GONE),
                    Err(NoStream::SessionGone | NoStream::NotOffered) => return,
                    Err(NoStream::Failed(reason)) => {
                        tracing::debug!("no stream of notifications: {reason}");
                        failures += 1;
                        if had_one && failures == ATTEMPTS {
                            return connection.close(&reason);
                        }
                    }
                }
                tokio::time::sleep(position.retry).await;
            }
        };
        tokio::select! {
            () = following => {}
            _ = connection.ended() => {}
        }
    }

    /// Opens a GET stream.
    async fn listen(&self, last_event: Option<&str>) -> Result<Response, NoStream> {
        let mut request =
            self.with_session(self.0.client.get(self.0.url.clone())).header(ACCEPT, "text/event-stream");
        if let Some(last) = last_event {
            request = request.header(LAST_EVENT, last);
        }
        let response = request.send().await.map_err(|error| NoStream::Failed(words(error)))?;
        let status = response.status();
        if status.is_success() && content_type(&response) == "text/event-stream" {
            return Ok(response);
        }
        if status.is_server_error() {
            return Err(NoStream::Failed(format!("HTTP {status}")));
        }
        let gone = body(response).await.is_ok_and(|body| is_session_gone(status, &body));
        Err(if gone { NoStream::SessionGone } else { NoStream::NotOffered })
    }

    /// Says goodbye to the upstream, so that it can forget the session.
    pub(crate) async fn close(&self) {
        if self.0.session.get().is_some() {
            let farewell = self.with_session(self.0.client.delete(self.0.url.clone())).timeout(FAREWELL);
            let _ = farewell.send().await;
        }
    }

    fn with_session(&self, mut request: RequestBuilder) -> RequestBuilder {
        if let Some(session) = self.0.session.get() {
            request = request.header(SESSION, session);
        }
        if let Some(protocol) = self.0.protocol.get() {
            request = request.header(PROTOCOL, protocol);
        }
        request
    }
}

/// Why there is no GET stream.
enum NoStream {
    /// The upstream has none.
    NotOffered,
    /// It does not know our session any more.
    SessionGone,
    /// For another reason, which may pass.
    Failed(String),
}

/// Whether an upstream says that it knows no such session. By the specification that is 404; the example servers of the
/// official SDKs, and those made after them, say 400 and a sentence.
fn is_session_gone(status: StatusCode, body: &[u8]) -> bool {
    let says_so = || body.to_ascii_lowercase().windows(7).any(|word| word == b"session");
    status == StatusCode::NOT_FOUND || (status == StatusCode::BAD_REQUEST && says_so())
}

/// Where a stream is to go on.
#[derive(Debug)]
struct Position {
    last: Option<String>,
    retry: Duration,
}

impl Default for Position {
    fn default() -> Self {
        Self { last: None, retry: RETRY }
    }
}

/// Takes the events of one response, and says why there are no more.
async fn take_events(connection: &Arc<Connection>, response: Response, position: &mut Position) -> String {
    let held = AtomicUsize::new(0);
    let bytes = response.bytes_stream().map(|chunk| {
        let chunk = chunk.map_err(|error| std::io::Error::other(words(error)))?;
        if held.fetch_add(chunk.len(), Ordering::Relaxed) > MAX_MESSAGE {
            return Err(std::io::Error::other(format!("a message of more than {} MiB", MAX_MESSAGE >> 20)));
        }
        Ok(chunk)
    });
    let mut events = std::pin::pin!(SseByteStream::new(bytes));
    while let Some(event) = events.next().await {
        held.store(0, Ordering::Relaxed);
        let Sse { data, id, retry, .. } = match event {
            Ok(event) => event,
            Err(error) => return words(error),
        };
        if let Some(id) = id {
            // An empty one takes the last one back.
            position.last = Some(id).filter(|id| !id.is_empty());
        }
        if let Some(retry) = retry {
            position.retry = Duration::from_millis(retry).clamp(MIN_RETRY, MAX_RETRY);
        }
        if let Some(data) = data.filter(|data| !data.is_empty())
            && let Err(reason) = connection.receive(Bytes::from(data))
        {
            tracing::warn!("an event that is not a message: {reason}");
        }
    }
    "its stream ended".to_owned()
}

async fn body(response: Response) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        whole.extend_from_slice(&chunk.map_err(words)?);
        if whole.len() > MAX_MESSAGE {
            return Err(format!("a message of more than {} MiB", MAX_MESSAGE >> 20));
        }
    }
    Ok(whole.freeze())
}

/// The media type without its parameters.
fn content_type(response: &Response) -> &str {
    let value =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// An error and its causes in one line, without the URL, which may hold a secret.
fn words(error: impl Into<Failure>) -> String {
    let error: Box<dyn std::error::Error + Send + Sync> = match error.into() {
        Failure::Request(error) => Box::new(error.without_url()),
        Failure::Stream(error) => Box::new(error),
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

enum Failure {
    Request(reqwest::Error),
    Stream(sse_stream::Error),
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error)
    }
}

impl From<sse_stream::Error> for Failure {
    fn from(error: sse_stream::Error) -> Self {
        Self::Stream(error)
    }
}
