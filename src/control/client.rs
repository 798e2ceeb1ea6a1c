//! Asking a running bridge, over its control socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustix::process::Pid;
use tokio::net::UnixStream;

use super::Status;

/// How long a bridge may take to answer; one that serves answers in a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any status takes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a bridge did not tell.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no bridge listens on {path}")]
    NotRunning {
        /// The socket.
        path: String,
    },
    /// It is another user's.
    #[error("the control socket {path} may not be used by this user")]
    NotPermitted {
        /// The socket.
        path: String,
    },
    /// Somebody listens, but says nothing.
    #[error("the bridge did not answer on {path} within {} s", PATIENCE.as_secs())]
    Silent {
        /// The socket.
        path: String,
    },
    /// Somebody answers, but not as a bridge.
    #[error("the answer on {path} is not a bridge's: {reason}")]
    Strange {
        /// The socket.
        path: String,
        /// In a few words.
        reason: String,
    },
}

/// The status of the bridge behind that socket, and the process that the kernel says is listening there.
pub async fn status(socket: &Path) -> Result<(Status, Option<Pid>), AskError> {
    let path = socket.display().to_string();
    tokio::time::timeout(PATIENCE, ask(socket, "/status")).await.map_err(|_| AskError::Silent { path })?
}

async fn ask(socket: &Path, target: &str) -> Result<(Status, Option<Pid>), AskError> {
    let path = || socket.display().to_string();
    let strange = |reason: String| AskError::Strange { path: path(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => AskError::NotPermitted { path: path() },
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { path: path() }
        }
        _ => strange(error.to_string()),
    })?;
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| strange(error.to_string()))?;
    let request = Request::get(target).header("host", "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| strange(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| strange(error.to_string()))?;
        if !response.status().is_success() {
            return Err(strange(format!("HTTP {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))
    };
    tokio::pin!(exchange);
    let status = tokio::select! {
        status = &mut exchange => status?,
        _ = connection => exchange.await?,
    };
    Ok((status, pid))
}
