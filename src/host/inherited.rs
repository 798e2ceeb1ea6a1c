//! Listening sockets that outlive the process: handed in by the service manager (sd_listen_fds(3)), or put in its store
//! so that they are there again after a restart (`FDSTORE=`, sd_notify(3)).

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use libsystemd::activation::{IsType as _, receive_descriptors_with_names};
use rustix::net::sockopt;
use sd_notify::NotifyState;

/// What our own socket is called in the store.
const NAME: &str = "mcp";

/// A socket that was there before this process.
#[derive(Debug)]
pub struct Inherited {
    /// It listens already.
    pub listener: TcpListener,
    /// Whether it is from the store; else a `.socket` unit has made it.
    pub stored: bool,
}

/// Takes the TCP sockets that the service manager hands over, or a supervisor of ours. To be called once.
#[must_use]
pub fn take(supervised: bool) -> Vec<Inherited> {
    if supervised {
        return from_supervisor().into_iter().collect();
    }
    // Fails where nobody hands anything over. The variables stay: children are started without them.
    let sockets = receive_descriptors_with_names(false).unwrap_or_default();
    sockets
        .into_iter()
        .filter(|(socket, _)| socket.is_inet())
        .map(|(socket, name)| {
            #[expect(unsafe_code, reason = "nothing safe makes an owner of a descriptor's number")]
            // SAFETY: the number comes from the service manager, which hands each one over for this process alone;
            // it was checked to be open, and it is taken once.
            let socket = unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) };
            Inherited { listener: socket.into(), stored: name == NAME }
        })
        .collect()
}

/// The socket that a supervisor has kept: it is this process's standard input.
fn from_supervisor() -> Option<Inherited> {
    let stdin = std::io::stdin();
    if !sockopt::socket_acceptconn(&stdin).is_ok_and(|listens| listens) {
        return None;
    }
    let listener = TcpListener::from(stdin.as_fd().try_clone_to_owned().ok()?);
    // One share in it is enough: with the last one it is closed.
    let null = File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(null).ok()?;
    Some(Inherited { listener, stored: true })
}

/// Gives the service manager a share in the socket, so that clients may go on connecting to it during a restart.
pub fn store(listener: &impl AsFd) {
    let state = [NotifyState::FdStore, NotifyState::FdName(NAME)];
    if let Err(error) = sd_notify::notify_with_fds(&state, &[listener.as_fd()]) {
        tracing::warn!("the listening socket cannot be kept over a restart: {error}");
    }
}

/// Takes that share back.
pub fn discard() {
    let state = [NotifyState::FdStoreRemove, NotifyState::FdName(NAME)];
    if let Err(error) = sd_notify::notify(&state) {
        tracing::warn!("the service manager keeps a socket that is of no use: {error}");
    }
}
