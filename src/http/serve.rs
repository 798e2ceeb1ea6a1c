//! Connections: taken, bounded, and ended when the bridge ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time; further ones wait to be taken.
const MAX_CONNECTIONS: usize = 8192;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// How long a connection without a request may live on when the bridge stops.
const FIRST_WORD: Duration = Duration::from_millis(250);
/// The pause after a connection could not be taken, as when there are too many open files.
const BREATHER: Duration = Duration::from_millis(100);
/// A peer that acknowledges nothing for so long is gone, whatever its streams say.
const DEAD_PEER: Duration = Duration::from_secs(120);

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Takes the next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, DEAD_PEER / 2)?;
        sockopt::set_tcp_user_timeout(&stream, u32::try_from(DEAD_PEER.as_millis()).unwrap_or(u32::MAX))?;
        Ok(stream)
    }
}

/// Serves until told to stop, then lets the requests under way finish; drop it to end them.
pub async fn serve(listener: impl Listener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (accept(&listener).await, place)
        };
        tokio::select! {
            (stream, place) = next => {
                let connection = converse(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection.await;
                });
            }
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, however long it takes to get one.
async fn accept<L: Listener>(listener: &L) -> L::Stream {
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// All requests of one connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let begun = Arc::new(Notify::new());
    let service = {
        let begun = Arc::clone(&begun);
        let router = TowerToHyperService::new(router);
        service_fn(move |request| {
            begun.notify_one();
            router.call(request)
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stopped = async {
        stop.cancelled().await;
        // Whoever was let in just before is not turned away again without a word.
        let _ = tokio::time::timeout(FIRST_WORD, begun.notified()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!("a connection ended early: {error}");
    }
}
