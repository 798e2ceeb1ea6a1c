//! The control socket: the same status, and orders, for the command line of the same user.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::{Listener, Refusal, json, status};
use crate::bridge::Bridge;
use crate::control::Changes;
use crate::host::log::{self, Level};

/// The socket, gone from its folder when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens there. Only the holder of the instance's lock may call this: what a dead bridge left is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Until here the folder alone, which is the user's own, keeps others out.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// What it answers; orders are handed on.
    pub fn router(bridge: Arc<Bridge>, orders: mpsc::Sender<Order>) -> Router {
        Router::new()
            .route("/status", get(status::status))
            .route("/reload", post(move || reload(orders.clone())))
            .route("/log-level", post(log_level))
            .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "this bridge does not know that order"))
            .with_state(bridge)
    }
}

/// What a bridge is told to do.
#[derive(Debug)]
pub enum Order {
    /// Read the config anew, and say what became of it: what has changed, or why the config is refused.
    Reload(oneshot::Sender<Result<Changes, String>>),
}

async fn reload(orders: mpsc::Sender<Order>) -> Result<Response, Refusal> {
    let gone = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the bridge is stopping");
    let (answer, outcome) = oneshot::channel();
    orders.send(Order::Reload(answer)).await.map_err(|_| gone())?;
    let changes = outcome.await.map_err(|_| gone())?;
    let changes = changes.map_err(|reason| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason))?;
    match serde_json::to_string(&changes) {
        Ok(body) => Ok(json(StatusCode::OK, body)),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// `?level=`, by any name that syslog(3) has for one.
async fn log_level(RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let named = query.as_deref().and_then(|query| query.strip_prefix("level=")).unwrap_or_default();
    let level: Level =
        named.parse().map_err(|reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    log::set_level(level);
    tracing::info!("logging at {level} level from now on, as the command line asked");
    Ok(json(StatusCode::OK, serde_json::json!({ "level": level }).to_string()))
}

impl Listener for Control {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if peer != 0 && peer != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {peer} may not control this bridge"),
            ));
        }
        Ok(stream)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Fails when somebody cleaned up before us, which is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}
