//! The control socket: the same status, for the command line of the same user.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::{UnixListener, UnixStream};

use super::{Listener, Refusal, status};
use crate::bridge::Bridge;

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

    /// What it answers.
    pub fn router(bridge: Arc<Bridge>) -> Router {
        Router::new()
            .route("/status", get(status::status))
            .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "this bridge does not know that order"))
            .with_state(bridge)
    }
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
