//! A bridge of a test's own: the program in the foreground, on a free port, at home in a temporary folder.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client;

/// How long anything may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what cannot be waited for.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);

/// A running bridge, ended when this is dropped.
pub(crate) struct Bridge {
    child: Child,
    home: TempDir,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl Bridge {
    /// Starts one with these upstreams.
    pub(crate) fn start(upstreams: &Value) -> Self {
        Self::with(&serde_json::json!({ "mcpServers": upstreams }), &[])
    }

    /// Starts one with that config and those variables; returns when it is READY.
    pub(crate) fn with(config: &Value, env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let at = |name: &str| home.path().join(name);
        std::fs::write(at("bridge.json"), config.to_string()).expect("a config");
        std::fs::create_dir(at("run")).expect("a folder");
        let ears = UnixDatagram::bind(at("notify")).expect("a socket");
        ears.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let log = File::create(at("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_foxxy-bridge"))
            .args(["--debug", "--color", "never", "--config"])
            .arg(at("bridge.json"))
            .args(["server", "start", "--user", "--port", "0"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("NOTIFY_SOCKET", at("notify"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut bridge = Self { child, home, address: String::new() };
        // READY comes with a STATUS that begins with the address.
        let mut told = [0; 4096];
        while bridge.address.is_empty() {
            let length =
                ears.recv(&mut told).unwrap_or_else(|error| panic!("not ready ({error}):\n{}", bridge.log()));
            let told = String::from_utf8_lossy(&told[..length]);
            let address = told.split_once("http://").and_then(|(_, rest)| rest.split_once("/mcp"));
            if let Some((address, _)) = address.filter(|_| told.contains("READY=1")) {
                bridge.address = address.to_owned();
            }
        }
        bridge
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its status, as anybody may read it.
    pub(crate) async fn status(&self) -> Value {
        let answer = client::get(&self.address, "/status", &[]).await;
        serde_json::from_str(&answer.text().await).expect("a status")
    }

    /// Waits until the status of that upstream is as wanted, and gives it.
    pub(crate) async fn upstream(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            let upstreams = status["upstreams"].as_array().expect("a list");
            let found = upstreams.iter().find(|upstream| upstream["name"] == name).expect("the upstream");
            if fits(found) {
                return found.clone();
            }
            assert!(began.elapsed() < PATIENCE, "{found:#}\n{}", self.log());
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until that upstream is in that state, and gives its status.
    pub(crate) async fn until(&self, name: &str, state: &str) -> Value {
        self.upstream(name, |upstream| upstream["state"] == state).await
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) {
        assert!(self.ends(), "it did not end at SIGTERM:\n{}", self.log());
    }

    /// Ends it in any case; whether SIGTERM was enough.
    fn ends(&mut self) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        let _ = kill_process(self.pid(), Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return false;
            }
            std::thread::sleep(GLANCE);
        }
        true
    }

    /// Ends it as the kernel would that is out of memory.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Bridge {
    #[expect(clippy::print_stderr, reason = "it tells of a test that fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ends();
            eprintln!("the bridge's log:\n{}", self.log());
        } else {
            self.end();
        }
    }
}

/// A file of this folder of tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}
