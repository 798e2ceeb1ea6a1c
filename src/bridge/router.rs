//! What a client says, and where it goes: answered here, or carried to the upstream that has what is asked for.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::forward::{Exchange, Forward};
use super::session::LogLevel;
use super::upstream::{CallError, Upstream};
use super::wire::{self, Edit, Message, Params};
use super::{Bridge, Core, LATEST_PROTOCOL, PROTOCOLS, Session, View};

/// Messages in one batch; more are refused.
const MAX_BATCH: usize = 100;

/// What is to be said to the client.
pub enum Handled {
    /// Nothing: it was a notification or a response.
    Accepted,
    /// This, now.
    Answer(Vec<u8>),
    /// This, now: it was no message at all.
    Malformed(Vec<u8>),
    /// Something later.
    Pending(Exchange),
}

/// A session that has begun.
pub struct NewSession {
    /// Under this id; none when the client was refused.
    pub session: Option<Arc<Session>>,
    /// The answer to `initialize`.
    pub answer: Vec<u8>,
}

#[derive(Deserialize)]
struct Hello {
    #[serde(rename = "protocolVersion")]
    protocol: String,
}

impl Bridge {
    /// Whether a message is a client's first.
    #[must_use]
    pub fn is_initialize(text: &str) -> bool {
        matches!(wire::parse(text), Ok(Message::Request { method, .. }) if method == "initialize")
    }

    /// Begins a session.
    pub async fn initialize(&self, view: View, text: &str) -> NewSession {
        let Ok(Message::Request { id, params, .. }) = wire::parse(text) else {
            return NewSession { session: None, answer: Vec::new() };
        };
        let refuse = |code, reason: &str| NewSession {
            session: None,
            answer: wire::error(id.get(), code, reason).into_bytes(),
        };
        let hello: Hello = match params.map(|params| serde_json::from_str(params.get())) {
            Some(Ok(hello)) => hello,
            Some(Err(error)) => {
                return refuse(wire::INVALID_PARAMS, &format!("`params` do not fit: {error}"));
            }
            None => return refuse(wire::INVALID_PARAMS, "`params` are missing"),
        };
        let protocol =
            PROTOCOLS.into_iter().find(|known| *known == hello.protocol).unwrap_or(LATEST_PROTOCOL);
        let welcome = match &view {
            View::All => {
                self.core.settle().await;
                self.core.welcome(protocol)
            }
            View::One(name) => match self.core.welcome_to(name, protocol).await {
                Ok(welcome) => welcome,
                Err(reason) => return refuse(wire::INTERNAL_ERROR, &reason),
            },
        };
        let (session, over) = self.core.sessions.begin(view, protocol);
        self.core.forget(&over);
        match session {
            Some(session) => {
                tracing::debug!(session = session.log_name(), "a session has begun, MCP {protocol}");
                let answer = wire::result(id.get(), &welcome).into_bytes();
                NewSession { session: Some(session), answer }
            }
            None => refuse(wire::INTERNAL_ERROR, "too many sessions are in use"),
        }
    }

    /// Whether the relay answers, by the way that a client's message takes.
    pub async fn answers(&self) -> bool {
        let session = Arc::new(Session::unlisted(LATEST_PROTOCOL));
        let ping = wire::request(0, "ping", "{}");
        matches!(self.core.take(&session, &ping, false).await, Taken::Answer(_))
    }

    /// Takes one message of a session, or a batch of them. `streams` is whether progress can be told.
    pub async fn handle(&self, session: &Arc<Session>, message: Bytes, streams: bool) -> Handled {
        let Ok(text) = std::str::from_utf8(&message) else {
            return Handled::Malformed(wire::error("null", wire::PARSE_ERROR, "not UTF-8").into_bytes());
        };
        if text.trim_start().starts_with('[') {
            return self.handle_batch(session, text).await;
        }
        match self.core.take(session, text, streams).await {
            Taken::Nothing => Handled::Accepted,
            Taken::Answer(answer) => Handled::Answer(answer),
            Taken::Malformed(answer) => Handled::Malformed(answer),
            Taken::Forward(forward) => Handled::Pending(forward.start(message.clone(), Arc::clone(session))),
        }
    }

    /// Batches were in 2025-03-26 only; they are answered whole.
    async fn handle_batch(&self, session: &Arc<Session>, text: &str) -> Handled {
        let refuse = |reason: &str| {
            Handled::Malformed(wire::error("null", wire::INVALID_REQUEST, reason).into_bytes())
        };
        if session.protocol > "2025-03-26" {
            return refuse(&format!("MCP {} has no batches", session.protocol));
        }
        let messages: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(messages) => messages,
            Err(error) => {
                let reason = format!("not a batch of JSON-RPC messages: {error}");
                return Handled::Malformed(wire::error("null", wire::PARSE_ERROR, &reason).into_bytes());
            }
        };
        if messages.is_empty() || messages.len() > MAX_BATCH {
            return refuse(&format!("a batch has 1 to {MAX_BATCH} messages, not {}", messages.len()));
        }
        let answers = join_all(messages.into_iter().map(async |message| {
            match self.core.take(session, message.get(), false).await {
                Taken::Nothing => None,
                Taken::Answer(answer) | Taken::Malformed(answer) => Some(answer),
                Taken::Forward(forward) => {
                    let bytes = Bytes::copy_from_slice(message.get().as_bytes());
                    Some(forward.start(bytes, Arc::clone(session)).answer.await)
                }
            }
        }))
        .await;
        let answers: Vec<Vec<u8>> = answers.into_iter().flatten().collect();
        if answers.is_empty() {
            return Handled::Accepted;
        }
        let mut batch = b"[".to_vec();
        batch.extend(answers.join(&b','));
        batch.push(b']');
        Handled::Answer(batch)
    }
}

/// What became of a client's message.
enum Taken {
    Nothing,
    Answer(Vec<u8>),
    Malformed(Vec<u8>),
    Forward(Forward),
}

impl Core {
    async fn take(&self, session: &Arc<Session>, text: &str, streams: bool) -> Taken {
        match wire::parse(text) {
            Ok(Message::Request { id, method, params }) => {
                match self.request(session, text, id, &method, params, streams).await {
                    Ok(taken) => taken,
                    Err((code, reason)) => Taken::Answer(wire::error(id.get(), code, &reason).into_bytes()),
                }
            }
            Ok(Message::Notification { method, params }) => {
                if method == "notifications/cancelled" {
                    cancel(session, text, params);
                }
                Taken::Nothing
            }
            // The bridge asks clients nothing, so that there is nothing to answer.
            Ok(Message::Response { .. }) => Taken::Nothing,
            Err(error) => Taken::Malformed(wire::error("null", error.code, &error.reason).into_bytes()),
        }
    }

    async fn request(
        &self,
        session: &Arc<Session>,
        text: &str,
        id: &RawValue,
        method: &str,
        params: Option<&RawValue>,
        streams: bool,
    ) -> Result<Taken, (i32, String)> {
        let invalid = |reason: String| (wire::INVALID_PARAMS, reason);
        if params.is_some_and(|params| params.get() != "null" && !params.get().starts_with('{')) {
            return Err(invalid("`params` must be an object".to_owned()));
        }
        let routing = match (&session.view, Params::parse(params)) {
            (_, Ok(routing)) => routing,
            // There is one place to go; what the parameters mean is that server's affair.
            (View::One(_), Err(_)) => Params::default(),
            (View::All, Err(reason)) => return Err(invalid(reason)),
        };
        let answer = |result: &str| Ok(Taken::Answer(wire::result(id.get(), result).into_bytes()));
        if session.is_busy_with(id.get()) {
            return Err((wire::INVALID_REQUEST, format!("a request with the id {id} is still under way")));
        }
        match method {
            "ping" => return answer("{}"),
            "initialize" => return Err((wire::INVALID_REQUEST, "the session has already begun".to_owned())),
            "logging/setLevel" => {
                let level = routing.level.as_ref().and_then(|level| LogLevel::named(&level.0));
                let level = level.ok_or_else(|| invalid("`level` is not a log level".to_owned()))?;
                session.set_level(level);
                self.spread_level();
                return answer("{}");
            }
            _ => {}
        }
        let (upstream, rename) = match &session.view {
            View::One(name) => match self.setup().upstreams.get(name) {
                Some(upstream) => (Arc::clone(upstream), None),
                None => {
                    return Err((wire::INTERNAL_ERROR, format!("there is no upstream `{name}` any more")));
                }
            },
            View::All => {
                let list = |list: &str| answer(list);
                self.settle().await;
                let catalog = self.catalog();
                match method {
                    "tools/list" => return list(&catalog.tools_list),
                    "prompts/list" => return list(&catalog.prompts_list),
                    "resources/list" => return list(&catalog.resources_list),
                    "resources/templates/list" => return list(&catalog.templates_list),
                    _ => route(&catalog, text, method, &routing)?,
                }
            }
        };
        if let ("resources/subscribe" | "resources/unsubscribe", Some(uri)) = (method, &routing.uri) {
            let others = self.sessions.list();
            let others = others.iter().filter(|other| other.id != session.id);
            let shared = others.into_iter().any(|other| other.is_subscribed(&upstream.spec.name, &uri.0));
            session.subscribe(&upstream.spec.name, &uri.0, method == "resources/subscribe");
            if shared {
                return answer("{}");
            }
        }
        let token = routing.wants_progress();
        Ok(Taken::Forward(Forward {
            upstream,
            id: id.get().to_owned(),
            id_at: wire::range_in(text, id.get()),
            rename,
            token: token.map(|token| (wire::range_in(text, token.get()), token.to_owned())),
            streams,
            is_tool: method == "tools/call",
        }))
    }

    /// Tells all upstreams the most verbose level that any client wants.
    fn spread_level(&self) {
        let Some(level) = self.sessions.level() else { return };
        for upstream in self.setup().upstreams.values() {
            let Some(live) = upstream.live().filter(|live| live.server.offers("logging")) else { continue };
            tokio::spawn(async move { live.set_level(level.name()).await });
        }
    }
}

type Routed = (Arc<Upstream>, Option<(std::ops::Range<usize>, String)>);

/// Finds who has what is asked for, and what it is called there.
fn route(
    catalog: &super::catalog::Catalog,
    text: &str,
    method: &str,
    params: &Params<'_>,
) -> Result<Routed, (i32, String)> {
    let invalid = |reason: String| (wire::INVALID_PARAMS, reason);
    let named = |what: &str, raw: Option<&RawValue>, find: &dyn Fn(&str) -> Option<super::catalog::Route>| {
        let raw = raw.ok_or_else(|| invalid(format!("`{method}` needs a `name`")))?;
        let name: Cow<'_, str> =
            wire::as_str(raw).ok_or_else(|| invalid("`name` must be a string".to_owned()))?;
        let route = find(&name).ok_or_else(|| invalid(format!("there is no {what} `{name}`")))?;
        let rename =
            (route.name != name).then(|| (wire::range_in(text, raw.get()), wire::quote(&route.name)));
        Ok((route.upstream, rename))
    };
    let prompt = |name: &str| catalog.prompt(name).cloned();
    let resource = |uri: Option<&wire::Str<'_>>| {
        let uri = uri.ok_or_else(|| invalid(format!("`{method}` needs a `uri`")))?;
        let found = catalog.resource(&uri.0);
        let found =
            found.ok_or_else(|| (wire::RESOURCE_NOT_FOUND, format!("there is no resource `{}`", uri.0)))?;
        Ok((Arc::clone(found), None))
    };
    match (method, &params.reference) {
        ("tools/call", _) => named("tool", params.name, &|name| catalog.tool(name).cloned()),
        ("prompts/get", _) => named("prompt", params.name, &prompt),
        ("resources/read" | "resources/subscribe" | "resources/unsubscribe", _) => {
            resource(params.uri.as_ref())
        }
        ("completion/complete", Some(reference)) if reference.uri.is_some() => {
            resource(reference.uri.as_ref())
        }
        ("completion/complete", Some(reference)) => named("prompt", reference.name, &prompt),
        ("completion/complete", None) => Err(invalid("`completion/complete` needs a `ref`".to_owned())),
        _ => Err((wire::METHOD_NOT_FOUND, format!("the bridge does not know `{method}`"))),
    }
}

/// Hands a client's change of mind on to where the request went. The upstream need not answer any more, so that the
/// request ends here.
fn cancel(session: &Session, text: &str, params: Option<&RawValue>) {
    let Some(request) = Params::parse(params).ok().and_then(|params| params.request_id) else { return };
    if let Some((connection, id)) = session.call(request.get()) {
        connection.notify(wire::spliced(text, &mut [Edit::of(text, request, &id.to_string())]));
        connection.fail(id, CallError::Cancelled);
    }
}
