//! How the bridge stands, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Refusal, json};
use crate::bridge::Bridge;
use crate::control::BridgeState;

/// 200 as long as the relay answers.
pub(super) async fn livez(State(bridge): State<Arc<Bridge>>) -> Result<Response, Refusal> {
    if bridge.answers().await {
        Ok(json(StatusCode::OK, "{\"alive\":true}\n".to_owned()))
    } else {
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the relay does not answer"))
    }
}

/// 200 as long as new sessions are taken.
pub(super) async fn readyz(State(bridge): State<Arc<Bridge>>) -> Result<Response, Refusal> {
    match bridge.status().state {
        BridgeState::Running => Ok(json(StatusCode::OK, "{\"ready\":true}\n".to_owned())),
        BridgeState::Stopping => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the bridge is stopping")),
    }
}

/// The whole status.
pub(super) async fn status(State(bridge): State<Arc<Bridge>>) -> Result<Response, Refusal> {
    match serde_json::to_string_pretty(&bridge.status()) {
        Ok(body) => Ok(json(StatusCode::OK, body + "\n")),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
