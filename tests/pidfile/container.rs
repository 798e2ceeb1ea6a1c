//! A container's command: the first process of a PID namespace, or right below the one that a container has for that.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::home::{children, is_root, wait_until};

/// Container engines kill what has not ended after so long.
const GRACE: Duration = Duration::from_secs(10);

/// What a container has of its own, as far as a bridge sees it. The rest is its command.
const BEGIN: &str = r#"
set -eu
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
exec "$@"
"#;

/// A container, as the kernel makes one; killed with this value.
struct Container {
    unshare: Child,
    folder: TempDir,
}

impl Container {
    /// One that runs this, or none where only root can make one.
    fn run(config: &str, before: &[&str]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("config.json"), config).expect("a config");
        let out = fs::File::create(folder.path().join("out")).expect("a file");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--uts"]);
        command.args(["sh", "-c", BEGIN, "sh"]).args(before);
        command.arg(env!("CARGO_BIN_EXE_foxxy-bridge")).arg("--config-dir").arg(folder.path());
        // As the guide has it.
        command.args(["server", "start", "--daemon", "--host", "0.0.0.0"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a handle")).stderr(out).process_group(0);
        Some(Self { unshare: command.spawn().expect("unshare (util-linux)"), folder })
    }

    /// Its first process.
    fn first(&self) -> u32 {
        let mut found = None;
        wait_until("it has a first process", || {
            found = children(self.unshare.id()).first().copied();
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// What a command in it says, as `docker exec` would run it.
    fn exec(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first().to_string(), "--mount", "--pid", "--net", "--uts"]);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = command.stdin(Stdio::null()).output().expect("nsenter (util-linux)");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn foxxy(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let own = self.folder.path().to_str().expect("a path");
        self.exec(&[&[env!("CARGO_BIN_EXE_foxxy-bridge"), "--config-dir", own], arguments].concat())
    }

    /// Waits until clients are let in.
    fn serves(&self) {
        wait_until("it serves", || self.exec(&["curl", "-sf", "http://127.0.0.1:8080/readyz"]).0 == Some(0));
    }

    /// What it has printed.
    fn out(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap_or_default()
    }

    /// Its processes, those that nobody has reaped among them.
    fn processes(&self) -> Vec<String> {
        let said = self.exec(&["ps", "-e", "-o", "stat=,args="]).1;
        said.lines().filter(|line| !line.contains("ps -e")).map(str::to_owned).collect()
    }

    /// Ends it as a container engine does: asked once, and killed after the grace period.
    fn end(mut self) -> (ExitStatus, String) {
        let first = Pid::from_raw(self.first().cast_signed()).expect("a process");
        kill_process(first, Signal::TERM).expect("it lives");
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if let Ok(Some(status)) = self.unshare.try_wait() {
                return (status, self.out());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end within {} s:\n{}", GRACE.as_secs(), self.out());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What it has started dies with it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

const PLAIN: &str = r#"{ "mcpServers": {} }"#;

#[test]
fn the_guides_command_keeps_a_container_alive_and_ends_with_it() {
    let Some(container) = Container::run(PLAIN, &[]) else { return };
    container.serves();
    let (code, said) = container.foxxy(&["server", "server-status"]);
    assert_eq!(code, Some(0), "as a HEALTHCHECK asks: {said}");
    assert!(said.contains("running, healthy"), "{said}");
    let (code, said) = container.foxxy(&["server", "start", "--daemon"]);
    assert!(code == Some(0) && said.contains("default is already running"), "{said}");
    // It is where the container's own is.
    let (code, said) = container.foxxy(&["server", "logs"]);
    assert!(code == Some(1) && said.contains("docker logs"), "{said}");
    assert!(container.out().contains(": serving http://0.0.0.0:8080/mcp"), "{}", container.out());
    let (status, out) = container.end();
    assert_eq!(status.code(), Some(0), "{out}");
    assert!(out.contains(": stopping: SIGTERM") && out.ends_with(": stopped\n"), "{out}");
}

#[test]
fn the_first_process_reaps_a_thousand_orphans() {
    let Some(container) = Container::run(PLAIN, &[]) else { return };
    container.serves();
    let before = container.processes();
    let orphans = "i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i + 1)); done";
    let (code, said) = container.exec(&["sh", "-c", orphans]);
    assert_eq!(code, Some(0), "{said}");
    wait_until("all are reaped", || container.processes() == before);
    container.serves();
    assert_eq!(container.end().0.code(), Some(0));
}

#[test]
fn the_orphans_of_others_are_left_alone_while_the_bridge_is_restarted() {
    let Some(container) = Container::run(PLAIN, &[]) else { return };
    container.serves();
    container.exec(&["setsid", "sh", "-c", "sleep 4711 >/dev/null 2>&1 &"]);
    let (code, said) = container.foxxy(&["server", "restart"]);
    assert!(code == Some(0) && said.contains("restarted default: "), "{said}");
    let processes = container.processes();
    assert!(processes.iter().any(|process| process.ends_with("sleep 4711")), "{processes:?}");
}

#[test]
fn a_server_that_does_not_want_to_end_costs_no_more_than_the_grace_period() {
    let stubborn = r#"{ "mcpServers": { "s": { "command": "sh",
        "args": ["-c", "trap '' TERM HUP; while :; do read line || sleep 1; done"] } } }"#;
    let Some(container) = Container::run(stubborn, &[]) else { return };
    container.serves();
    assert_eq!(container.end().0.code(), Some(0));
}

#[test]
fn a_bridge_that_cannot_start_ends_its_container_with_its_own_exit_code() {
    let Some(mut container) = Container::run("{", &[]) else { return };
    let status = container.unshare.wait().expect("it ends");
    assert_eq!(status.code(), Some(78), "{}", container.out());
    assert!(container.out().contains("config.json:1:1: not valid JSON"), "{}", container.out());
    // One that finds out later than before it has begun.
    let taken = "import socket, os, sys; s = socket.socket(); s.bind(('0.0.0.0', 8080)); s.listen(); \
        os.set_inheritable(s.fileno(), True); os.execvp(sys.argv[1], sys.argv[1:])";
    let Some(mut container) = Container::run(PLAIN, &["python3", "-c", taken]) else { return };
    let status = container.unshare.wait().expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", container.out());
    assert!(container.out().contains("0.0.0.0:8080 is already in use"), "{}", container.out());
}

#[test]
fn below_a_containers_init_it_stays_in_the_foreground_too() {
    let has_tini = Command::new("tini").arg("--version").stdout(Stdio::null()).status().is_ok();
    let Some(container) = Container::run(PLAIN, &["tini", "--"]).filter(|_| has_tini) else { return };
    container.serves();
    let processes = container.processes();
    assert!(processes.len() == 3 && processes[0].contains("tini"), "{processes:?}");
    let (status, out) = container.end();
    assert_eq!(status.code(), Some(0), "{out}");
    assert!(out.ends_with(": stopped\n"), "{out}");
}

#[test]
fn a_script_that_is_a_containers_command_gets_its_prompt_back() {
    // It is no init: what it starts with --daemon is to return.
    let script = r#""$@"; code=$?; echo "returned $code"; exec sleep 60"#;
    let Some(container) = Container::run(PLAIN, &["sh", "-c", script, "sh"]) else { return };
    wait_until("it returns", || container.out().ends_with("returned 0\n"));
    container.serves();
}
