//! What the config says of an upstream, made ready to be connected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::child::Program;
use super::http::{Endpoint, Http};
use super::stdio::Pipe;
use super::{Builtin, Connection, Link};
use crate::config;
use crate::host::cgroup::{Groups, Limits, Memory};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Its key in the config.
    pub(crate) name: String,
    /// How to reach it.
    pub(crate) target: Target,
    /// The command or the address, as far as people may see it.
    pub(crate) shown: String,
    /// How long connecting may take, and each request of our own.
    pub(crate) timeout: Duration,
    /// How long it may say nothing while it works on a client's request.
    pub(crate) call_timeout: Duration,
    /// Failures in a row after which it counts as failed.
    pub(crate) attempts: u32,
    /// The pause after the first failure.
    pub(crate) retry: Duration,
    /// Limits that cannot be kept here, a sentence each.
    pub(crate) unenforced: Vec<String>,
}

/// How to reach an upstream.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// By a child process.
    Program(Program),
    /// By Streamable HTTP.
    Endpoint(Endpoint),
    /// It is the bridge itself.
    Builtin(Builtin),
    /// Not at all, for this reason.
    Hopeless(config::Transport, String),
}

impl Spec {
    /// Reads the config of one upstream; relative paths in it are relative to `base`.
    pub(crate) fn new(
        name: &str,
        upstream: &config::Upstream,
        base: Option<&Path>,
        builtin: &Builtin,
        groups: &Arc<Groups>,
    ) -> Self {
        let target = match upstream.transport {
            config::Transport::Stdio => program(name, upstream, base, groups),
            config::Transport::Http => endpoint(upstream).unwrap_or_else(|reason| Target::Hopeless(upstream.transport, reason)),
            config::Transport::Builtin => Target::Builtin(builtin.clone()),
            config::Transport::Sse => Target::Hopeless(
                upstream.transport,
                "the transport `sse` (HTTP+SSE of 2024-11-05) is not supported; most servers that have it also speak \
                 `http` (Streamable HTTP), often at /mcp instead of /sse"
                    .to_owned(),
            ),
        };
        let shown = match (&target, &upstream.command, &upstream.url) {
            (Target::Builtin(_), ..) => "the bridge itself".to_owned(),
            (_, Some(command), _) if upstream.transport == config::Transport::Stdio => {
                command.shown().to_owned()
            }
            (_, _, Some(url)) => without_secrets(url.shown()),
            _ => String::new(),
        };
        let unenforced = match &target {
            Target::Program(program) => groups.unenforced(&program.limits),
            _ => Vec::new(),
        };
        Self {
            name: name.to_owned(),
            target,
            unenforced,
            shown,
            timeout: upstream.timeout,
            call_timeout: upstream.call_timeout,
            attempts: upstream.retry_attempts.max(1),
            retry: upstream.retry_delay,
        }
    }
}

impl Target {
    /// The transport, in a word.
    pub(crate) fn transport(&self) -> &'static str {
        match self {
            Self::Program(_) => transport_name(config::Transport::Stdio),
            Self::Endpoint(_) => transport_name(config::Transport::Http),
            Self::Builtin(_) => transport_name(config::Transport::Builtin),
            Self::Hopeless(transport, _) => transport_name(*transport),
        }
    }

    /// Opens the way to it.
    pub(super) fn open(&self, connection: &Arc<Connection>) -> Result<Link, OpenError> {
        match self {
            Self::Program(program) => match Pipe::open(program, connection) {
                Ok(pipe) => Ok(Link::Stdio(pipe)),
                Err(error) => Err(OpenError { lasting: error.is_lasting(), reason: error.to_string() }),
            },
            Self::Endpoint(endpoint) => match Http::new(endpoint) {
                Ok(http) => Ok(Link::Http(http)),
                Err(reason) => Err(OpenError { lasting: true, reason }),
            },
            Self::Builtin(builtin) => Ok(Link::Builtin(builtin.clone())),
            Self::Hopeless(_, reason) => Err(OpenError { lasting: true, reason: reason.clone() }),
        }
    }
}

/// A transport as it is shown.
pub(crate) fn transport_name(transport: config::Transport) -> &'static str {
    match transport {
        config::Transport::Stdio => "stdio",
        config::Transport::Http => "http",
        config::Transport::Sse => "sse",
        config::Transport::Builtin => "builtin",
    }
}

/// Why there is no way to an upstream.
#[derive(Debug)]
pub(super) struct OpenError {
    /// Whether the next attempt will end the same unless a person does something.
    pub(super) lasting: bool,
    pub(super) reason: String,
}

fn program(name: &str, upstream: &config::Upstream, base: Option<&Path>, groups: &Arc<Groups>) -> Target {
    let cwd = match (&upstream.cwd, base) {
        (Some(cwd), base) => Some(base.unwrap_or(Path::new("/")).join(home_expanded(cwd.as_str()))),
        (None, base) => base.map(Path::to_owned),
    };
    Target::Program(Program {
        name: name.to_owned(),
        command: upstream.command.as_ref().map(|command| command.as_str().to_owned()).unwrap_or_default(),
        args: upstream.args.iter().map(|arg| arg.as_str().to_owned()).collect(),
        env: upstream.env.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect(),
        cwd,
        limits: limits(&upstream.limits),
        groups: Arc::clone(groups),
    })
}

fn limits(limits: &config::UpstreamLimits) -> Limits {
    Limits {
        memory_max: limits.memory_max.and_then(|memory| match memory {
            config::MemoryLimit::Size(size) => Some(Memory::Bytes(size.0)),
            config::MemoryLimit::Share(share) => Some(Memory::Share(share.0)),
            config::MemoryLimit::Infinity => None,
        }),
        cpu_quota: limits.cpu_quota.map(config::CpuQuota::micros_per_second),
        tasks_max: limits.tasks_max,
    }
}

fn home_expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn endpoint(upstream: &config::Upstream) -> Result<Target, String> {
    let url = upstream.url.as_ref().map(config::Text::as_str).unwrap_or_default();
    let url = Url::parse(url).map_err(|error| format!("its `url` cannot be used: {error}"))?;
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name: HeaderName =
            name.parse().map_err(|_| format!("`{name}` cannot be the name of a header"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| {
            format!("the value of the header `{name}` has characters that no header may have")
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<_, String>(())
    };
    match &upstream.authentication {
        None => {}
        Some(config::Authentication::Bearer { token }) => {
            add(AUTHORIZATION.as_str(), &format!("Bearer {}", token.expose()))?;
        }
        Some(config::Authentication::ApiKey { key, header }) => add(header.as_str(), key.expose())?,
        Some(config::Authentication::Basic { username, password }) => {
            let pair = format!("{}:{}", username.as_str(), password.expose());
            add(AUTHORIZATION.as_str(), &format!("Basic {}", BASE64.encode(pair)))?;
        }
    }
    for (name, value) in &upstream.headers {
        add(name, value.expose())?;
    }
    Ok(Target::Endpoint(Endpoint { url, headers, verify_tls: upstream.verify_ssl }))
}

/// An address without its user, password and query, which often hold a key.
fn without_secrets(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) => {
            // Fails only for addresses that have no host, which have no user either.
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string()
        }
        // Not an address before its `${…}` are filled in: then it is as written, with nothing filled in.
        Err(_) => {
            let end = url.find(['?', '#']).unwrap_or(url.len());
            let (scheme, rest) = url[..end].split_once("://").unwrap_or(("", &url[..end]));
            let host = rest.find('/').unwrap_or(rest.len());
            let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
            if scheme.is_empty() { rest[user..].to_owned() } else { format!("{scheme}://{}", &rest[user..]) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_address_has_no_secret_in_it() {
        assert_eq!(
            without_secrets("https://u:p@mcp.example.org:8443/a?key=s#f"),
            "https://mcp.example.org:8443/a"
        );
        assert_eq!(without_secrets("${URL}"), "${URL}");
        assert_eq!(without_secrets("http://u:p@h:${PORT}/a?key=s#f"), "http://h:${PORT}/a");
        assert_eq!(without_secrets("${URL}/a?key=s"), "${URL}/a");
    }
}
