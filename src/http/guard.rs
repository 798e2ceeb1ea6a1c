//! Who may come in: a request must name this bridge by an address that no web site can claim.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use crate::config::Text;

/// Which names of the bridge, and which web origins, are let in.
#[derive(Debug)]
pub struct Guard {
    bound: String,
    /// Whether only this machine can connect at all.
    loopback: bool,
    allowed: RwLock<Allowed>,
}

/// What the config lets in on top.
#[derive(Debug, Default)]
struct Allowed {
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request does not say whom it means.
    #[error("the request has no Host header")]
    NoHost,
    /// It means somebody else.
    #[error("`{0}` is not a name of this bridge; if it is meant to be, add it to `bridge.allowed_hosts`")]
    Host(String),
    /// It comes from another site's page.
    #[error(
        "pages of `{0}` may not use this bridge; if they are meant to, add it to `bridge.allowed_origins`"
    )]
    Origin(String),
}

impl Guard {
    /// A guard for a bridge on that address.
    #[must_use]
    pub fn new(bound: &str) -> Self {
        Self { bound: bound.to_lowercase(), loopback: is_loopback(bound), allowed: RwLock::default() }
    }

    /// Lets these names and origins in, and none that were before.
    pub fn allow(&self, hosts: &[Text], origins: &[Text]) {
        let lower = |list: &[Text]| {
            list.iter().map(|item| item.as_str().trim_end_matches('/').to_lowercase()).collect()
        };
        let allowed = Allowed { hosts: lower(hosts), origins: lower(origins) };
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    fn is_listed(&self, list: fn(&Allowed) -> &[String], wanted: impl Fn(&str) -> bool) -> bool {
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        list(&allowed).iter().any(|item| item == "*" || wanted(item))
    }

    /// Checks a request by its two headers.
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refused> {
        let host = host.ok_or(Refused::NoHost)?;
        if !self.allows_host(host) {
            return Err(Refused::Host(host.to_owned()));
        }
        match origin {
            Some(origin) if !self.allows_origin(origin, host) => Err(Refused::Origin(origin.to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether pages of that origin are let in to what they call `host`. Any site can be at an address or at a name
    /// without a dot, so that what is enough for a host is not enough here.
    pub(crate) fn allows_origin(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_lowercase();
        if self.is_listed(|allowed| &allowed.origins, |allowed| allowed == origin) {
            return true;
        }
        let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        site.is_some_and(|site| {
            site == host.to_lowercase() || without_port(site).is_some_and(|name| self.is_known(name, site))
        })
    }

    /// Whether that is a name of this bridge, alone or with the port.
    fn is_known(&self, name: &str, with_port: &str) -> bool {
        is_loopback(name)
            || name == self.bound
            || self.is_listed(|allowed| &allowed.hosts, |allowed| allowed == name || allowed == with_port)
    }

    fn allows_host(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        let (name, host) = (name.to_lowercase(), host.to_lowercase());
        if self.is_known(&name, &host) {
            return true;
        }
        // Bound to a network: an address, or a name without a dot, is nothing that a site in the web can have.
        !self.loopback && (name.parse::<IpAddr>().is_ok() || is_bare(&name))
    }
}

fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The name in `name`, `name:port`, `[::1]` and `[::1]:port`; `None` when it is none of these.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (port_fits && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Guard {
        let guard = Guard::new("127.0.0.1");
        guard.allow(&["bridge.example.org".into()], &["https://app.example.org/".into()]);
        guard
    }

    #[test]
    fn lets_this_machine_in_by_all_its_names() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "localhost:8080",
            "LOCALHOST",
            "[::1]:8080",
            "[::1]",
            "x.localhost:1",
        ] {
            assert_eq!(local().check(Some(host), None), Ok(()), "{host}");
        }
        assert_eq!(local().check(Some("Bridge.Example.org:443"), None), Ok(()));
    }

    #[test]
    fn turns_away_a_host_that_a_web_site_could_have() {
        for host in [
            "evil.example.com",
            "evil.example.com:8080",
            "localhost.evil.com",
            "192.168.1.5:8080",
            "box",
            "",
            ":80",
            "[::1",
            "a:b:c",
            "127.0.0.1:x",
        ] {
            assert!(local().check(Some(host), None).is_err(), "{host}");
        }
        assert_eq!(local().check(None, None), Err(Refused::NoHost));
    }

    #[test]
    fn turns_away_pages_of_other_sites() {
        let check = |origin: &str| local().check(Some("localhost:8080"), Some(origin));
        for origin in
            ["http://localhost:6274", "https://127.0.0.1", "https://app.example.org", "http://[::1]:3000"]
        {
            assert_eq!(check(origin), Ok(()), "{origin}");
        }
        for origin in [
            "http://evil.example.com",
            "null",
            "",
            "file://",
            "https://app.example.org.evil.com",
            "http://localhost.evil.com",
        ] {
            assert!(check(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn what_is_allowed_anew_replaces_what_was() {
        let guard = local();
        guard.allow(&["other.example.org".into()], &[]);
        assert_eq!(guard.check(Some("other.example.org"), None), Ok(()));
        assert!(guard.check(Some("bridge.example.org"), None).is_err());
        assert!(guard.check(Some("localhost"), Some("https://app.example.org")).is_err());
    }

    #[test]
    fn on_a_network_addresses_and_bare_names_are_enough() {
        let guard = Guard::new("0.0.0.0");
        for host in ["192.168.1.5:8080", "bridge:8080", "[fd00::1]:80", "localhost"] {
            assert_eq!(guard.check(Some(host), None), Ok(()), "{host}");
        }
        assert!(guard.check(Some("evil.example.com:8080"), None).is_err());
        assert_eq!(guard.check(Some("bridge:8080"), Some("http://bridge:8080")), Ok(()));
        for origin in ["http://evil.example.com", "http://203.0.113.5", "http://wiki", "http://bridge:80"] {
            assert!(guard.check(Some("bridge:8080"), Some(origin)).is_err(), "{origin}");
        }
    }
}
