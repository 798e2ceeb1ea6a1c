//! What must hold beyond types and ranges: names, addresses, and keys that need each other.

use std::collections::HashMap;
use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::daemon::{Daemon, Scope};
use super::describe::{join, segment};
use super::document::{Entry, Node, Value};
use super::expand::{is_file_name, is_variable};
use super::model::{Authentication, Bridge, Config};
use super::pending::is_off;
use super::problem::{Note, Report};
use super::text::Text;
use super::units::MemoryLimit;
use super::upstream::{Transport, Upstream};

const LONGEST_NAME: usize = 64;

/// Writes down the transport of servers that leave it to be seen from their other keys.
pub(crate) fn infer_transports(root: &mut Node, report: &mut Report) {
    let Value::Table(keys) = &mut root.value else { return };
    let Some(servers) = keys.iter_mut().find(|entry| entry.key == "mcpServers") else { return };
    let Value::Table(servers) = &mut servers.node.value else { return };
    for server in servers {
        let has = |key: &str| server.node.get(key).is_some_and(|entry| entry.node.value != Value::Null);
        if has("transport") || !has("url") {
            continue;
        }
        if has("command") {
            let key = format!("mcpServers.{}", segment(&server.key));
            let note =
                Note::new(server.key_span.start, key, "found both `command` and `url`, expected one of them");
            report.error(note.hint("`transport` says which is meant"));
        } else if let Value::Table(entries) = &mut server.node.value {
            let (key_span, span) = (server.key_span.clone(), server.key_span.clone());
            let node = Node { value: Value::Text("http".into()), span };
            entries.push(Entry { key: "transport".to_owned(), key_span, node });
        }
    }
}

/// Checks the whole model; the tree gives the places.
pub(crate) fn check(config: &Config, root: &Node, report: &mut Report) {
    let mut rules = Rules { root, report };
    rules.names(config);
    for (name, upstream) in &config.upstreams {
        rules.upstream(name, upstream);
    }
    rules.bridge(&config.bridge);
    rules.daemon(&config.bridge.daemon);
}

struct Rules<'r> {
    root: &'r Node,
    report: &'r mut Report,
}

impl Rules<'_> {
    fn note(&self, path: &[&str], message: impl Into<String>) -> Note {
        let key = path.iter().fold(String::new(), |path, key| join(&path, &segment(key)));
        Note::new(self.root.offset_of(path), key, message)
    }

    fn error(&mut self, path: &[&str], message: impl Into<String>) {
        let note = self.note(path, message);
        self.add(note);
    }

    fn hinted(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        let note = self.note(path, message).hint(hint);
        self.add(note);
    }

    /// A key that the schema check has found wrong is absent from the model: more about it would mislead.
    fn add(&mut self, note: Note) {
        if !self.report.has_error_at(&note.key) {
            self.report.error(note);
        }
    }

    fn names(&mut self, config: &Config) {
        if config.upstreams.is_empty() {
            let note = self.note(&["mcpServers"], "no servers: clients will find no tools");
            self.report.warn(note);
        }
        let mut first: HashMap<String, &str> = HashMap::new();
        for name in config.upstreams.keys() {
            let path = ["mcpServers", name];
            if let Some(other) = first.insert(plain_name(name), name) {
                let message = format!("found {other:?} and {name:?}, which clients could not tell apart");
                self.hinted(&path, message, "names must differ in more than case and punctuation");
            } else if !is_legal_name(name) {
                let message =
                    "found a name that is not legal, expected 1 to 64 of A-Z a-z 0-9 _ . - and no `__`";
                self.hinted(&path, message, format!("write `{}`", legal_name(name)));
            }
        }
    }

    fn upstream(&mut self, name: &str, upstream: &Upstream) {
        let at = |key: &'static str| ["mcpServers", name, key];
        // With the transport in doubt, what it asks for is not known.
        let in_doubt = |path: &[&str]| self.report.has_error_at(&self.note(path, "").key);
        if in_doubt(&["mcpServers", name]) || in_doubt(&at("transport")) {
            return;
        }
        match upstream.transport {
            Transport::Stdio if is_blank(upstream.command.as_ref()) => {
                let hint = "a remote server has `url` instead";
                self.hinted(&at("command"), "missing or empty, expected the program to run", hint);
            }
            Transport::Stdio | Transport::Builtin => {}
            Transport::Http | Transport::Sse => match &upstream.url {
                None => self.error(&at("url"), "missing, expected the server's http or https URL"),
                Some(url) if !is_http_url(url.as_str()) => {
                    let message = format!("found {:?}, expected an http or https URL", url.shown());
                    self.error(&at("url"), message);
                }
                Some(_) => {}
            },
        }
        self.unused_keys(name, upstream.transport);
        for variable in
            upstream.env.keys().filter(|variable| variable.is_empty() || variable.contains(['=', '\0']))
        {
            self.error(&["mcpServers", name, "env", variable], "not the name of an environment variable");
        }
        for (header, value) in &upstream.headers {
            let path = ["mcpServers", name, "headers", header];
            if HeaderName::try_from(header.as_str()).is_err() {
                self.error(&path, "not the name of an HTTP header");
            } else if HeaderValue::from_str(value.expose()).is_err() {
                self.error(
                    &path,
                    "found a value with control or non-ASCII characters, expected printable ASCII",
                );
            }
        }
        if let Some(Authentication::ApiKey { header, .. }) = &upstream.authentication
            && HeaderName::try_from(header.as_str()).is_err()
        {
            let message = format!("found {:?}, expected the name of an HTTP header", header.shown());
            self.error(&["mcpServers", name, "authentication", "header"], message);
        }
        let namespaces = [
            ("toolNamespace", &upstream.tool_namespace),
            ("resourceNamespace", &upstream.resource_namespace),
            ("promptNamespace", &upstream.prompt_namespace),
        ];
        for (key, namespace) in namespaces {
            if let Some(namespace) = namespace
                && !is_legal_name(namespace.as_str())
            {
                let message =
                    format!("found {:?}, expected 1 to 64 of A-Z a-z 0-9 _ . -, no `__`", namespace.shown());
                self.error(&at(key), message);
            }
        }
    }

    /// Keys of another transport do nothing, which the person should know.
    fn unused_keys(&mut self, name: &str, transport: Transport) {
        const PROGRAM: [&str; 5] = ["command", "args", "env", "cwd", "limits"];
        const REMOTE: [&str; 3] = ["url", "headers", "authentication"];
        let (word, unused): (_, &[&[&str]]) = match transport {
            Transport::Stdio => ("stdio", &[&REMOTE]),
            Transport::Http => ("http", &[&PROGRAM]),
            Transport::Sse => ("sse", &[&PROGRAM]),
            Transport::Builtin => ("builtin", &[&PROGRAM, &REMOTE]),
        };
        for key in unused.iter().copied().flatten() {
            let path = ["mcpServers", name, key];
            let entry = self
                .root
                .get("mcpServers")
                .and_then(|servers| servers.node.get(name))
                .map(|entry| &entry.node);
            if entry.and_then(|server| server.get(key)).is_some_and(|entry| !is_off(&entry.node)) {
                let note = self.note(&path, format!("not used with transport `{word}`"));
                self.report.warn(note);
            }
        }
    }

    fn bridge(&mut self, bridge: &Bridge) {
        if !is_host(bridge.host.as_str()) {
            let message = format!("found {:?}, expected an IP address or a host name", bridge.host.shown());
            self.hinted(&["bridge", "host"], message, "the port goes to `bridge.port`");
        }
        for host in bridge.allowed_hosts.iter().filter(|host| !is_authority(host.as_str())) {
            let message = format!("found {:?}, expected `name`, `name:port` or `*`", host.shown());
            self.error(&["bridge", "allowed_hosts"], message);
        }
        for origin in bridge.allowed_origins.iter().filter(|origin| !is_origin(origin.as_str())) {
            let message =
                format!("found {:?}, expected `scheme://name`, `scheme://name:port` or `*`", origin.shown());
            self.error(&["bridge", "allowed_origins"], message);
        }
    }

    fn daemon(&mut self, daemon: &Daemon) {
        let path = |key: &'static str| ["bridge", "daemon", key];
        for (key, name) in [("user", &daemon.user), ("group", &daemon.group)] {
            let Some(name) = name else { continue };
            if daemon.scope == Some(Scope::User) {
                let hint = "use scope `system`, or leave it out";
                self.hinted(&path(key), "found together with scope `user`, which cannot change it", hint);
            } else if !is_account(name.as_str()) {
                self.error(
                    &path(key),
                    format!("found {:?}, expected the name or number of a {key}", name.shown()),
                );
            }
        }
        if daemon.restart.delay > daemon.restart.max_delay {
            let (delay, most) = (daemon.restart.delay.as_secs_f64(), daemon.restart.max_delay.as_secs_f64());
            let message =
                format!("found {delay} seconds, expected no more than `max_delay`, which is {most}");
            self.error(&["bridge", "daemon", "restart", "delay"], message);
        }
        let limits = &daemon.limits;
        if let (Some(MemoryLimit::Size(high)), Some(MemoryLimit::Size(max))) =
            (limits.memory_high, limits.memory_max)
            && high > max
        {
            let message = format!("found {high}, expected no more than `memory_max`, which is {max}");
            self.error(&["bridge", "daemon", "limits", "memory_high"], message);
        }
        for name in daemon.environment.keys().filter(|name| !is_variable(name)) {
            self.error(&["bridge", "daemon", "environment", name], "not the name of an environment variable");
        }
        for name in daemon.credentials.keys().filter(|name| !is_file_name(name)) {
            self.error(&["bridge", "daemon", "credentials", name], "expected a name of A-Z a-z 0-9 _ . -");
        }
    }
}

/// The form in which names must differ.
fn plain_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn is_legal_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.contains("__")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The nearest legal name.
fn legal_name(name: &str) -> String {
    let mut legal = String::new();
    for c in name.trim().chars() {
        match c {
            '_' if legal.ends_with('_') => {}
            c if c.is_ascii_alphanumeric() || "_.-".contains(c) => legal.push(c),
            _ if legal.ends_with('-') => {}
            _ => legal.push('-'),
        }
    }
    legal.truncate(LONGEST_NAME);
    let legal = legal.trim_matches('-');
    if legal.is_empty() { "server".to_owned() } else { legal.to_owned() }
}

fn is_blank(text: Option<&Text>) -> bool {
    text.is_none_or(|text| text.as_str().trim().is_empty())
}

fn is_http_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn is_host(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && text.chars().all(name))
}

/// `name`, `name:port`, `[v6]`, `[v6]:port` or `*`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host, Some(port))
        }
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    text == "*" || (is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok()))
}

fn is_origin(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
    };
    text == "*"
        || text
            .split_once("://")
            .is_some_and(|(scheme, host)| is_scheme(scheme) && is_authority(host) && host != "*")
}

fn is_account(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"/:\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proposed_name_is_always_legal() {
        for (name, proposed) in [
            ("My Server", "My-Server"),
            ("a__b", "a_b"),
            ("a___b", "a_b"),
            ("  ", "server"),
            ("éé", "server"),
            ("/x/y/", "x-y"),
            ("a + b", "a-b"),
        ] {
            assert_eq!(legal_name(name), proposed, "{name}");
            assert!(is_legal_name(&legal_name(name)), "{name}");
        }
        assert!(is_legal_name(&legal_name(&"x y".repeat(99))));
    }

    #[test]
    fn hosts_and_origins() {
        for good in ["*", "localhost", "foo.example:8080", "[::1]", "[::1]:80", "::1", "10.0.0.1"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["", "a b", "http://x", "x/y", "x:port", "x:99999", "[x y]"] {
            assert!(!is_authority(bad), "{bad}");
        }
        for good in ["*", "https://app.example", "http://localhost:3000", "vscode-webview://abc"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["app.example", "https://", "https://x/", "https://*", "://x"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn only_http_urls_with_a_host_are_taken() {
        for (url, good) in [
            ("http://localhost:3000/mcp", true),
            ("https://user:pw@host/", true),
            ("http://[::1]:1/", true),
            ("ftp://host/", false),
            ("host:80", false),
            ("http://", false),
            ("", false),
        ] {
            assert_eq!(is_http_url(url), good, "{url}");
        }
    }
}
