//! The doors of a bridge: MCP and the status over TCP, the control socket beside it.

mod control;
mod guard;
mod mcp;
mod serve;
mod sse;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

pub use self::control::{Control, Order};
pub use self::guard::Guard;
pub use self::serve::{Listener, serve};
use crate::bridge::Bridge;

/// A JSON answer of the bridge's own.
fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A refusal, for people and programs alike.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self(status, reason.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.0, serde_json::json!({ "error": self.1 }).to_string())
    }
}

/// All that a bridge answers over TCP.
pub fn router(bridge: Arc<Bridge>, guard: Arc<Guard>) -> Router {
    let origins = Arc::clone(&guard);
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, request| {
            let host = text(&request.headers, &header::HOST).unwrap_or_default();
            origin.to_str().is_ok_and(|origin| origins.allows_origin(origin, host))
        }))
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([mcp::SESSION]);
    Router::new()
        .merge(mcp::routes())
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .route("/status", get(status::status))
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "there is nothing here: MCP is at /mcp and /mcp/NAME, the state at /status",
            )
        })
        .layer(middleware::from_fn_with_state(guard, check))
        .layer(cors)
        .with_state(bridge)
}

/// Turns away what a web page on another site may have sent (DNS rebinding).
async fn check(State(guard): State<Arc<Guard>>, request: axum::extract::Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: HeaderName| text(headers, &name).map(str::to_owned);
    match guard.check(text(header::HOST).as_deref(), text(header::ORIGIN).as_deref()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::debug!("refused: {refused}");
            Refusal::new(StatusCode::FORBIDDEN, refused.to_string()).into_response()
        }
    }
}

/// A header's value; one that is not text counts as a wrong one, not as none.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("\u{fffd}"))
}
