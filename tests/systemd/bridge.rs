//! What the tests of bridges have in common: configs, the program as it is typed, a client, and a look at what is left.

use std::time::Duration;

use serde_json::Value;

use crate::machine::Machine;
use crate::output::Output;

/// How long upstreams may take to connect: node and python start slowly on a busy machine.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Where the MCP servers of npm are in the machine.
pub(crate) const NPM: &str = "/opt/servers/node_modules/@modelcontextprotocol";

/// The real server that offers a bit of everything, over stdio.
pub(crate) fn everything() -> Value {
    serde_json::json!({ "command": "node", "args": [format!("{NPM}/server-everything/dist/index.js"), "stdio"] })
}

/// Writes a config into the home of `tester` and tells its path.
pub(crate) fn config(machine: &Machine, name: &str, text: &str) -> String {
    let path = format!("/home/tester/{name}");
    let script = r#"mkdir -p "$(dirname "$1")" && printf '%s' "$2" > "$1""#;
    machine.user(&["sh", "-euc", script, "sh", &path, text]).success();
    path
}

/// A config without servers.
pub(crate) fn plain(machine: &Machine, name: &str, port: u16) -> String {
    config(machine, name, &serde_json::json!({ "mcpServers": {}, "bridge": { "port": port } }).to_string())
}

/// Types `foxxy-bridge` as `tester`.
pub(crate) fn foxxy(machine: &Machine, arguments: &[&str]) -> Output {
    machine.user(&[&["foxxy-bridge"], arguments].concat())
}

/// What `server list` knows.
pub(crate) fn list(machine: &Machine) -> Vec<Value> {
    let list = foxxy(machine, &["server", "list", "--format", "json"]).success();
    serde_json::from_str(&list).expect("a list in JSON")
}

/// What a bridge says of itself, whatever the exit code.
pub(crate) fn status(machine: &Machine, name: &str) -> Value {
    let said = foxxy(machine, &["server", "server-status", name, "--format", "json"]);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Waits until all upstreams of a bridge are connected, and tells its status.
#[track_caller]
pub(crate) fn connected(machine: &Machine, name: &str) -> Value {
    let mut last = Value::Null;
    machine.wait_until(CONNECT_DEADLINE, "all upstreams are connected", || {
        last = status(machine, name);
        last["healthy"] == true
    });
    last
}

/// A property of a unit of the user's.
pub(crate) fn property(machine: &Machine, unit: &str, property: &str) -> String {
    let show = ["systemctl", "--user", "show", "--value", "--property", property, unit];
    machine.user(&show).success().trim_end().to_owned()
}

/// The processes in the cgroup of a unit of the user's and in those below it.
pub(crate) fn processes(machine: &Machine, unit: &str) -> Vec<String> {
    let group = property(machine, unit, "ControlGroup");
    let cat = ["find", &format!("/sys/fs/cgroup{group}"), "-name", "cgroup.procs", "-exec", "cat", "{}", "+"];
    let procs = machine.root(&cat).success();
    procs.lines().map(str::to_owned).collect()
}

/// Whether a process is there.
pub(crate) fn lives(machine: &Machine, pid: &str) -> bool {
    machine.root(&["test", "-e", &format!("/proc/{pid}")]).code == Some(0)
}

/// The answer to a plain GET: the status code, 000 when nobody answers.
pub(crate) fn get(machine: &Machine, url: &str) -> String {
    machine.user(&["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", url]).stdout
}

/// Has python listen on a port, in the unit `port-holder` of the user's manager or, with `--system`, of the machine's.
pub(crate) fn hold_port(machine: &Machine, scope: &str, port: u16) {
    let port = port.to_string();
    let unit = ["systemd-run", scope, "--quiet", "--collect", "--unit=port-holder"];
    let server = ["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", &port];
    let run = [&unit[..], &server].concat();
    if scope == "--user" { machine.user(&run) } else { machine.root(&run) }.success();
    machine.wait_until(Duration::from_secs(20), "the port is taken", || {
        get(machine, &format!("http://127.0.0.1:{port}/")) == "200"
    });
}

/// Runs steps of the client that is not ours; each must succeed.
#[track_caller]
pub(crate) fn client(machine: &Machine, url: &str, steps: &Value) -> Vec<Value> {
    let steps = steps.to_string();
    let run = ["/opt/servers/venv/bin/python", "/opt/servers/client.py", url, "steps", &steps];
    let mut said = machine.user(&run);
    // Seldom that client finds its connection closed before its first answer, and why is not known yet: once is let pass,
    // and is in what a failing test tells.
    if said.stderr.contains("RemoteProtocolError: Server disconnected") {
        said = machine.user(&run);
    }
    let said: Value = serde_json::from_str(&said.success()).expect("client.py prints JSON");
    said["results"].as_array().expect("results").clone()
}

/// The names of what a list holds.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

/// The text that a tool answered with.
#[track_caller]
pub(crate) fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"))
}

/// That a command failed as it should: with that exit code, words and a hint on stderr, and nothing on stdout.
#[track_caller]
pub(crate) fn refused(output: Output, code: i32) -> String {
    assert_eq!(output.stdout, "", "{output}");
    let stderr = output.failure(code);
    assert!(stderr.contains("error: ") && stderr.contains("\nhint: "), "no reason or no hint: {stderr}");
    stderr
}

/// That no bridge runs as `tester`, and that none has left a process, a unit or a file.
#[track_caller]
pub(crate) fn nothing_is_left(machine: &Machine) {
    assert_eq!(list(machine), Vec::<Value>::new());
    assert_eq!(machine.root(&["pgrep", "--list-full", "--exact", "foxxy-bridge"]).stdout, "", "a process");
    let units = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "foxxy-bridge*"];
    assert_eq!(machine.user(&units).success(), "", "a unit");
    let files =
        machine.user_sh("cd \"$XDG_RUNTIME_DIR/foxxy-bridge\" 2>/dev/null || exit 0; find . -mindepth 1");
    assert_eq!(files.success(), "", "a file");
}

/// That nothing of an enabled bridge is on disk any more.
#[track_caller]
pub(crate) fn nothing_is_kept(machine: &Machine) {
    let find = "find ~/.config/systemd ~/.local/state -name '*foxxy*' 2>/dev/null || true";
    assert_eq!(machine.user_sh(find).success(), "", "a file is left");
}

/// Ends all bridges and removes what they leave, after a test that failed: the next one is not to suffer.
pub(crate) fn clear_away(machine: &Machine) {
    foxxy(machine, &["server", "disable", "--all"]);
    machine.root(&["pkill", "--signal", "KILL", "--exact", "foxxy-bridge"]);
    let script = "rm -rf ~/.config/systemd/user/*foxxy* ~/.config/systemd/user/*/*foxxy* ~/.local/state/foxxy-bridge; \
        systemctl --user daemon-reload; systemctl --user stop 'foxxy-bridge*.socket'; \
        systemctl --user stop 'foxxy-bridge*'; systemctl --user reset-failed; \
        rm -rf \"$XDG_RUNTIME_DIR/foxxy-bridge\"";
    machine.user(&["sh", "-c", script]);
    let script = "systemctl stop 'foxxy-bridge*' user@$(id -u loner); loginctl disable-linger loner; \
        systemctl reset-failed; rm -rf /run/foxxy-bridge";
    machine.root(&["sh", "-c", script]);
}
