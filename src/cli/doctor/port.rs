//! Whether the bridges' addresses are theirs.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;

use super::facts::{Config, Facts};
use super::finding::Finding;
use crate::daemon;
use crate::host;

/// Each config's address is free, or served by its bridge.
pub(super) async fn free(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for config in &facts.configs {
        let bridge = config.bridge.as_ref().and_then(|name| facts.bridge(name));
        if let Some(bridge) = bridge {
            if let Ok(status) = &bridge.status {
                found.push(Finding::ok(format!("{} is served by {}", status.address, bridge.name)));
            }
            continue;
        }
        let Some(read) = config.config() else { continue };
        let (host, port) = (read.bridge.host.as_str(), read.bridge.port);
        found.push(look(facts, config, host, port).await);
    }
    found
}

async fn look(facts: &Facts, config: &Config, host: &str, port: u16) -> Finding {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let wanted: Vec<SocketAddr> = match lookup_host((bare, port)).await {
        Ok(wanted) => wanted.collect(),
        Err(error) => {
            return Finding::problem(
                format!("{host} is no address: {error}"),
                format!("set `bridge.host` in {} to an address of this machine", config.shown()),
            );
        }
    };
    // A bridge takes the first that it can have.
    let mut refused = None;
    for address in wanted {
        match host::port::try_bind(address) {
            Ok(()) => return Finding::ok(format!("{host}:{port} is free")),
            Err(error) => refused = Some(error),
        }
    }
    let refused = refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    let ours = facts.bridges.iter().find(|bridge| {
        let of_bridge = bridge.status.as_ref().is_ok_and(|status| {
            let taken = status.address.rsplit(':').next().and_then(|rest| rest.split('/').next());
            taken == Some(&port.to_string())
        });
        of_bridge && status_host_overlaps(bridge.status.as_ref().ok().map(|s| s.address.as_str()), host, port)
    });
    let file = config.path.as_ref().map_or_else(|| "the config".to_owned(), |_| config.shown());
    if let Some(bridge) = ours {
        return Finding::problem(
            format!("{host}:{port} is taken by the bridge {}", bridge.name),
            format!("set another `bridge.port` in {file}, or {}", facts.server("stop", &bridge.name)),
        );
    }
    tell(host, port, &refused, host::port::holder(port).as_deref(), &file)
}

/// Whether a bridge at that address stands in the way of another: on the same host, or one of them on all.
fn status_host_overlaps(address: Option<&str>, host: &str, port: u16) -> bool {
    let all = |address: &str| address.contains("//0.0.0.0:") || address.contains("//[::]:");
    let wanted = daemon::address(host.trim_start_matches('[').trim_end_matches(']'), port);
    address.is_some_and(|address| address == wanted || all(address) || all(&wanted))
}

/// Why an address cannot be had, in words.
fn tell(host: &str, port: u16, refused: &io::Error, holder: Option<&str>, file: &str) -> Finding {
    let another = format!("set another `bridge.port` in {file}");
    match (refused.kind(), holder) {
        (io::ErrorKind::AddrInUse, Some(holder)) if holder.starts_with("systemd (") => Finding::ok(format!(
            "{host}:{port} is held by {holder}: a .socket unit that starts its service when a client comes"
        )),
        (io::ErrorKind::AddrInUse, Some(holder)) => {
            Finding::problem(format!("{host}:{port} is taken by {holder}"), format!("stop it, or {another}"))
        }
        (io::ErrorKind::AddrInUse, None) => Finding::problem(
            format!("{host}:{port} is taken by another user's process"),
            format!("{another}; to see whose it is: sudo ss -ltnp 'sport = :{port}'"),
        ),
        (io::ErrorKind::PermissionDenied, _) => Finding::problem(
            format!("{host}:{port} may not be used by this user: ports this low are for root"),
            format!("{another}, 1024 or higher"),
        ),
        (io::ErrorKind::AddrNotAvailable, _) => Finding::problem(
            format!("{host} is no address of this machine"),
            format!("set `bridge.host` in {file} to one that `ip address` shows"),
        ),
        _ => Finding::problem(format!("{host}:{port} cannot be used: {refused}"), another),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    #[test]
    fn a_taken_port_is_told_with_who_has_it() {
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let found = tell("127.0.0.1", 8080, &in_use, Some("node (PID 7)"), "c.json");
        assert_eq!(found.found, "127.0.0.1:8080 is taken by node (PID 7)");
        assert_eq!(found.fix.as_deref(), Some("stop it, or set another `bridge.port` in c.json"));
        let found = tell("127.0.0.1", 8080, &in_use, None, "c.json");
        assert!(found.fix.unwrap().ends_with("sudo ss -ltnp 'sport = :8080'"));
        let found = tell("127.0.0.1", 8080, &in_use, Some("systemd (PID 1)"), "c.json");
        assert_eq!(found.state, State::Ok);
    }

    #[test]
    fn only_a_bridge_on_the_same_address_is_in_the_way() {
        let other = Some("http://127.0.0.2:8080/mcp");
        assert!(!status_host_overlaps(other, "127.0.0.1", 8080));
        assert!(status_host_overlaps(other, "127.0.0.2", 8080));
        assert!(status_host_overlaps(other, "0.0.0.0", 8080));
        assert!(status_host_overlaps(Some("http://[::]:8080/mcp"), "::1", 8080));
    }
}
