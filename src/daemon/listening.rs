//! The socket that clients connect to.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

use super::Error;
use crate::host::inherited::{self, Inherited};
use crate::host::port;

/// A socket that clients connect to, listening.
pub(super) struct Listening {
    /// The socket.
    pub(super) listener: TcpListener,
    /// The host that clients know it by.
    pub(super) host: String,
    /// Where clients connect.
    pub(super) address: String,
}

impl Listening {
    /// The socket that is there already, from before a restart or from a `.socket` unit; else a new one. `supervised` is
    /// whether a supervisor of ours may have handed it over.
    ///
    /// # Errors
    /// [`Error::PortTaken`] and [`Error::Bind`].
    pub(super) async fn open(host: &str, port: u16, supervised: bool) -> Result<Self, Error> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => {
                Error::PortTaken { host: host.to_owned(), port, holder: port::holder(port) }
            }
            _ => Error::Bind { host: host.to_owned(), port, source },
        };
        let wanted: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
        for Inherited { listener, stored } in inherited::take(supervised) {
            let bound = listener.local_addr().map_err(failed)?;
            let fits = |wanted: &SocketAddr| wanted.ip() == bound.ip() && (port == 0 || port == bound.port());
            if !stored || wanted.iter().any(fits) {
                listener.set_nonblocking(true).map_err(failed)?;
                // A `.socket` unit has its own idea of the address, unless it is that of the name which clients use.
                let is_hosts = wanted.iter().any(|wanted| wanted.ip() == bound.ip());
                let host = if stored || is_hosts { host.to_owned() } else { bound.ip().to_string() };
                return Self::at(TcpListener::from_std(listener).map_err(failed)?, host);
            }
            // Another address than before the restart.
            inherited::discard();
        }
        let listener = TcpListener::bind(wanted.as_slice()).await.map_err(failed)?;
        inherited::store(&listener);
        Self::at(listener, host.to_owned())
    }

    fn at(listener: TcpListener, host: String) -> Result<Self, Error> {
        let bound = listener.local_addr().map_err(Error::Runtime)?;
        let address = address(&host, bound.port());
        Ok(Self { listener, host, address })
    }
}

/// Where clients connect.
#[must_use]
pub fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{port}/mcp")
    } else {
        format!("http://{host}:{port}/mcp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_free_port_is_told_by_its_number_and_ipv6_in_brackets() {
        let listening = Listening::open("[::1]", 0, false).await.unwrap();
        let port = listening.listener.local_addr().unwrap().port();
        assert_eq!(listening.host, "::1");
        assert_eq!(listening.address, format!("http://[::1]:{port}/mcp"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said_to_be() {
        let first = Listening::open("127.0.0.1", 0, false).await.unwrap();
        let port = first.listener.local_addr().unwrap().port();
        match Listening::open("127.0.0.1", port, false).await {
            Err(Error::PortTaken { port: taken, .. }) => assert_eq!(taken, port),
            Err(other) => panic!("not a port that is taken: {other}"),
            Ok(_) => panic!("listens twice"),
        }
    }
}
