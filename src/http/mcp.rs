//! MCP over Streamable HTTP: `/mcp` for all upstreams together, `/mcp/NAME` for one with its own names.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{Refusal, sse, text};
use crate::bridge::{Bridge, Handled, PROTOCOLS, Session, View};

/// The header that names a session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The longest message that a client may send.
const MAX_MESSAGE: usize = 32 << 20;
/// How long a client may take to send one.
const SENDING: Duration = Duration::from_secs(60);

/// The endpoints, each also with a slash at its end.
pub(super) fn routes() -> Router<Arc<Bridge>> {
    let all = || post(post_all).get(get_all).delete(delete_all);
    let one = || post(post_one).get(get_one).delete(delete_one);
    Router::new()
        .route("/mcp", all())
        .route("/mcp/", all())
        .route("/mcp/{server}", one())
        .route("/mcp/{server}/", one())
}

async fn post_all(
    State(bridge): State<Arc<Bridge>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    take(&bridge, View::All, &headers, body).await
}

async fn post_one(
    State(bridge): State<Arc<Bridge>>,
    Path(server): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    take(&bridge, view_of(&bridge, server)?, &headers, body).await
}

async fn get_all(State(bridge): State<Arc<Bridge>>, headers: HeaderMap) -> Result<Response, Refusal> {
    listen(&bridge, &View::All, &headers)
}

async fn get_one(
    State(bridge): State<Arc<Bridge>>,
    Path(server): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    listen(&bridge, &view_of(&bridge, server)?, &headers)
}

async fn delete_all(State(bridge): State<Arc<Bridge>>, headers: HeaderMap) -> Result<Response, Refusal> {
    end(&bridge, &View::All, &headers)
}

async fn delete_one(
    State(bridge): State<Arc<Bridge>>,
    Path(server): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    end(&bridge, &view_of(&bridge, server)?, &headers)
}

fn view_of(bridge: &Bridge, server: String) -> Result<View, Refusal> {
    if bridge.has(&server) {
        return Ok(View::One(server));
    }
    let reason = if bridge.is_disabled(&server) {
        format!("the server `{server}` is disabled in the config")
    } else {
        format!("there is no server `{server}`; those there are stand in /status")
    };
    Err(Refusal::new(StatusCode::NOT_FOUND, reason))
}

/// A message, or the first one of a new session.
async fn take(bridge: &Bridge, view: View, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let media = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a message must have the content type application/json",
        ));
    }
    check_protocol(headers)?;
    let accept = Accept::read(headers);
    if !accept.json && !accept.events {
        let reason = "the client must accept application/json or text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, reason));
    }
    let message = read(body).await?;
    if !headers.contains_key(SESSION) {
        return begin(bridge, view, &message).await;
    }
    let session = session_of(bridge, &view, headers)?;
    let held = session.hold();
    Ok(match bridge.handle(&session, message, accept.events).await {
        Handled::Accepted => StatusCode::ACCEPTED.into_response(),
        Handled::Answer(answer) => bytes(answer),
        Handled::Malformed(answer) => (StatusCode::BAD_REQUEST, bytes(answer)).into_response(),
        Handled::Pending(exchange) if exchange.progress.is_some() || !accept.json => sse::exchange(exchange),
        Handled::Pending(exchange) => {
            let answer = exchange.answer.await;
            drop(held);
            bytes(answer)
        }
    })
}

async fn begin(bridge: &Bridge, view: View, message: &Bytes) -> Result<Response, Refusal> {
    let text = std::str::from_utf8(message).unwrap_or_default();
    if !Bridge::is_initialize(text) {
        let reason = "the header Mcp-Session-Id is missing: a session begins with `initialize`";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    let new = bridge.initialize(view, text).await;
    let mut response = bytes(new.answer);
    if let Some(id) = new.session.and_then(|session| HeaderValue::from_str(&session.id).ok()) {
        response.headers_mut().insert(SESSION, id);
    }
    Ok(response)
}

/// The stream of what belongs to no request.
fn listen(bridge: &Bridge, view: &View, headers: &HeaderMap) -> Result<Response, Refusal> {
    if !Accept::read(headers).events {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "a GET opens a stream: the client must accept text/event-stream",
        ));
    }
    check_protocol(headers)?;
    Ok(sse::notifications(session_of(bridge, view, headers)?))
}

fn end(bridge: &Bridge, view: &View, headers: &HeaderMap) -> Result<Response, Refusal> {
    let session = session_of(bridge, view, headers)?;
    bridge.end_session(&session.id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// 404 tells a client to begin anew.
fn session_of(bridge: &Bridge, view: &View, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    let Some(id) = text(headers, &SESSION) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the header Mcp-Session-Id is missing"));
    };
    let session = bridge.session(id).filter(|session| session.view == *view);
    session.ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "there is no such session (any more): begin anew with `initialize`",
        )
    })
}

fn check_protocol(headers: &HeaderMap) -> Result<(), Refusal> {
    match text(headers, &PROTOCOL) {
        Some(version) if !PROTOCOLS.contains(&version) => {
            let reason = format!("MCP {version} is not spoken here, but {}", PROTOCOLS.join(", "));
            Err(Refusal::new(StatusCode::BAD_REQUEST, reason))
        }
        _ => Ok(()),
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(SENDING, Limited::new(body, MAX_MESSAGE).collect()).await;
    match whole {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let reason = format!("a message may have {} MiB at most", MAX_MESSAGE >> 20);
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason))
        }
        Ok(Err(error)) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the message did not arrive: {error}")))
        }
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the message did not arrive in time")),
    }
}

fn bytes(body: Vec<u8>) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
        .into_response()
}

/// What a client can read. One that does not say can read all, as HTTP has it.
struct Accept {
    json: bool,
    events: bool,
}

impl Accept {
    fn read(headers: &HeaderMap) -> Self {
        let mut accept = Self { json: false, events: false };
        let mut said = false;
        for value in headers.get_all(header::ACCEPT) {
            for media in value.to_str().unwrap_or_default().split(',') {
                said = true;
                match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                    "*/*" => accept = Self { json: true, events: true },
                    "application/json" | "application/*" => accept.json = true,
                    "text/event-stream" | "text/*" => accept.events = true,
                    _ => {}
                }
            }
        }
        if said { accept } else { Self { json: true, events: true } }
    }
}
