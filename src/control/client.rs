//! Asking a running bridge, over its control socket.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Changes, Status};
use crate::host::log::Level;

/// How long a bridge may take to answer; one that serves answers in a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to put another config in force.
const RELOADING: Duration = Duration::from_secs(30);
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

/// Why a bridge did not reload.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It was not asked, or did not answer.
    #[error(transparent)]
    NotAsked(#[from] AskError),
    /// It goes on with the config from before, for this reason.
    #[error("{0}")]
    Refused(String),
}

/// Has the bridge behind that socket read its config anew.
pub async fn reload(socket: &Path) -> Result<Changes, ReloadError> {
    let path = || socket.display().to_string();
    let strange = |reason: String| AskError::Strange { path: path(), reason };
    let asked = async {
        let stream = connect(socket).await?;
        exchange(stream, Method::POST, "/reload").await.map_err(strange)
    };
    let (code, body) =
        tokio::time::timeout(RELOADING, asked).await.map_err(|_| AskError::Silent { path: path() })??;
    if code == StatusCode::UNPROCESSABLE_ENTITY {
        let reason = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
        return Err(ReloadError::Refused(reason.unwrap_or_default()));
    }
    if !code.is_success() {
        return Err(strange(format!("HTTP {code}")).into());
    }
    Ok(serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?)
}

/// Has the bridge behind that socket log at another level.
pub async fn set_log_level(socket: &Path, level: Level) -> Result<(), AskError> {
    let path = || socket.display().to_string();
    let strange = |reason: String| AskError::Strange { path: path(), reason };
    let asked = async {
        let stream = connect(socket).await?;
        exchange(stream, Method::POST, &format!("/log-level?level={level}")).await.map_err(strange)
    };
    let (code, _) =
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| AskError::Silent { path: path() })??;
    if code.is_success() { Ok(()) } else { Err(strange(format!("HTTP {code}"))) }
}

#[derive(serde::Deserialize)]
struct Refusal {
    error: String,
}

/// The status of the bridge behind that socket, and the process that the kernel says is listening there.
pub async fn status(socket: &Path) -> Result<(Status, Option<Pid>), AskError> {
    let path = socket.display().to_string();
    tokio::time::timeout(PATIENCE, ask(socket, "/status")).await.map_err(|_| AskError::Silent { path })?
}

/// The process that the kernel says is listening there.
pub async fn peer(socket: &Path) -> std::io::Result<Pid> {
    let stream = UnixStream::connect(socket).await?;
    let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw);
    pid.ok_or_else(|| std::io::Error::other("the process is in another PID namespace"))
}

/// Whether a bridge answers with success to a GET of `path` at the address that it gives its clients.
pub async fn answers(address: &str, path: &str) -> Result<(), String> {
    let url: hyper::Uri = address.parse().map_err(|error| format!("not an address: {error}"))?;
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    // What listens on all addresses is asked on the one that is surely there.
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let asked = async {
        let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80)))
            .await
            .map_err(|error| error.to_string())?;
        let (code, _) = exchange(stream, Method::GET, path).await?;
        if code.is_success() { Ok(()) } else { Err(format!("HTTP {code}")) }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("it says nothing".to_owned()))
}

async fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(socket).await.map_err(|error| not_connected(socket, &error))
}

fn not_connected(socket: &Path, error: &std::io::Error) -> AskError {
    let path = socket.display().to_string();
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => AskError::NotPermitted { path },
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => AskError::NotRunning { path },
        // More wait to be let in than the bridge has room for.
        std::io::ErrorKind::WouldBlock => AskError::Silent { path },
        _ => AskError::Strange { path, reason: error.to_string() },
    }
}

async fn ask(socket: &Path, target: &str) -> Result<(Status, Option<Pid>), AskError> {
    let path = || socket.display().to_string();
    let strange = |reason: String| AskError::Strange { path: path(), reason };
    let mut stream = said(socket, target).map_err(|error| not_connected(socket, &error))?;
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
    let mut answer = Vec::new();
    let read = (&mut stream).take(MAX_ANSWER as u64).read_to_end(&mut answer).await;
    read.map_err(|error| strange(error.to_string()))?;
    let end =
        memchr::memmem::find(&answer, b"\r\n\r\n").ok_or_else(|| strange("it breaks off".to_owned()))?;
    let code = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
    if code != b"200" {
        return Err(strange(format!("HTTP {}", String::from_utf8_lossy(code))));
    }
    let status = serde_json::from_slice(&answer[end + 4..]).map_err(|error| strange(error.to_string()))?;
    Ok((status, pid))
}

/// A connection on which a request was sent before anybody else had a turn: the bridge is woken once, and it closes.
fn said(socket: &Path, target: &str) -> std::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    let mut stream = std::os::unix::net::UnixStream::from(stream);
    stream.write_all(
        format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    UnixStream::from_std(stream)
}

/// One request on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    target: &str,
) -> Result<(StatusCode, Bytes), String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(words)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((code, body.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}
