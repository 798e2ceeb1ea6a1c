//! Upstreams that say exactly what a test wants: see `scripted.py`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bridge::{beside, eventually};

/// A script, and what came in while it was played.
pub(crate) struct Script(TempDir);

impl Script {
    /// A script with those rules.
    pub(crate) fn new(rules: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("script"), rules.to_string()).expect("a script");
        Self(folder)
    }

    /// A folder for what the test needs besides.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    fn arguments(&self, transport: &str) -> Vec<String> {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        let program = beside("relay/scripted.py").display().to_string();
        vec!["-IS".to_owned(), program, transport.to_owned(), path("script"), path("record")]
    }

    /// The config of an upstream that plays it.
    pub(crate) fn stdio(&self) -> Value {
        json!({ "command": python(), "args": self.arguments("stdio"), "retryDelay": 100 })
    }

    /// The shell command that plays it.
    pub(crate) fn shell(&self) -> String {
        format!("{} {}", python(), self.arguments("stdio").join(" "))
    }

    /// Plays it over HTTP.
    pub(crate) fn serve(&self) -> Server {
        let mut child = Command::new(python())
            .args(self.arguments("http"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a port");
        let url = format!("http://127.0.0.1:{}/mcp", line.trim());
        Server { child, url }
    }

    /// What came in so far.
    pub(crate) fn record(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.path().join("record")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The messages of that method that came in so far, as they were.
    pub(crate) fn received(&self, method: &str) -> Vec<String> {
        let bodies = self.record().into_iter().filter_map(|entry| entry["body"].as_str().map(str::to_owned));
        let method = Value::from(method);
        let of_it = |body: &String| {
            serde_json::from_str::<Value>(body).is_ok_and(|message| message["method"] == method)
        };
        bodies.filter(of_it).collect()
    }

    /// Waits until so many messages of that method came in.
    pub(crate) async fn receives(&self, method: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} {method}"), || self.received(method).len() >= count).await;
        self.received(method)
    }
}

/// A scripted server over HTTP; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// The config of an upstream there.
    pub(crate) fn config(&self) -> Value {
        json!({ "url": self.url, "retryDelay": 100 })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The system's own, which starts faster than a version manager's.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// The steps of an answer.
pub(crate) fn result(text: &str) -> Value {
    json!([{ "result": text }])
}

/// A list of tools of these names, as the answer to tools/list.
pub(crate) fn tools(names: &[&str]) -> Value {
    let tools: Vec<_> =
        names.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
    result(&json!({ "tools": tools }).to_string())
}

/// The result of a tool that says that.
pub(crate) fn text(words: &str) -> String {
    json!({ "content": [{ "type": "text", "text": words }] }).to_string()
}

/// The id of a message, as JSON.
pub(crate) fn id_of(message: &str) -> String {
    serde_json::from_str::<Value>(message).expect("JSON")["id"].to_string()
}
