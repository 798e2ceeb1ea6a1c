//! The listening socket belongs to the service manager: it is there before the bridge, and while it restarts.

use serde_json::json;

use crate::bridge::{config, foxxy, get, list, nothing_is_kept, nothing_is_left, plain, property, status};
use crate::machine::Machine;

crate::tests![
    a_restart_refuses_no_connection,
    a_socket_unit_starts_the_bridge_at_the_first_client,
    a_socket_starts_the_bridge_at_its_first_client,
    a_socket_that_waits_follows_its_unit,
    a_socket_is_there_before_the_network,
    a_socket_leaves_the_bridge_its_name,
];

/// Calls tools until it is ended by a file, each call on a connection of its own, and prints whether many were answered
/// and which failed. After a restart a session is unknown: the client then begins another, as MCP has it.
const CLIENT: &str = r#"
import json, os, socket, threading
done, failed, lock = [0], [], threading.Lock()
def post(body, session=None):
    body = json.dumps({"jsonrpc": "2.0", **body}).encode()
    head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n" \
        "Accept: application/json, text/event-stream\r\n" + (f"Mcp-Session-Id: {session}\r\n" if session else "") + \
        f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", 8221), timeout=20) as s:
        s.sendall(head.encode() + body)
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    assert answer, "the connection was closed without an answer"
    return answer.decode()
def begin():
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
    answer = post({"id": 0, "method": "initialize", "params": hello})
    session = [l.split(": ")[1] for l in answer.split("\r\n") if l.lower().startswith("mcp-session-id: ")][0]
    post({"method": "notifications/initialized"}, session)
    return session
def run():
    session = None
    while not os.path.exists("enough"):
        try:
            session = session or begin()
            answer = post({"id": 1, "method": "tools/call", "params": {"name": "foxxy__list_servers", "arguments": {}}}, session)
            if " 404 " in answer.split("\r\n")[0]:
                session = None
                continue
            assert " 200 " in answer.split("\r\n")[0] and '"result"' in answer, answer
            with lock: done[0] += 1
        except Exception as error:
            session = None
            with lock: failed.append(repr(error))
threads = [threading.Thread(target=run) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(done[0] > 100, failed[:3])
"#;

fn a_restart_refuses_no_connection(machine: &Machine) {
    let config = r#"{ "mcpServers": { "foxxy": { "transport": "builtin" } }, "bridge": { "port": 8221 } }"#;
    let script = format!(
        "mkdir -p ~/kept && cd ~/kept && cat > kept.json <<'END'\n{config}\nEND\ncat > client.py <<'END'\n{CLIENT}\nEND\n\
        foxxy-bridge server start --daemon --config kept.json\n\
        python3 client.py > result & client=$!\nsleep 1\n\
        systemctl --user restart foxxy-bridge-kept\nfoxxy-bridge server restart kept\n\
        systemctl --user restart foxxy-bridge-kept\nsleep 1\ntouch enough\nwait $client\n\
        foxxy-bridge server stop kept\ncat result"
    );
    let said = machine.user_sh(&script).success();
    assert!(said.ends_with("True []\n"), "{said}");
    // Once it is stopped for good, so is the socket.
    machine.user(&["curl", "-s", "http://127.0.0.1:8221/livez"]).failure(7);
}

fn a_socket_unit_starts_the_bridge_at_the_first_client(machine: &Machine) {
    let run = ["systemd-run", "--user", "--unit=activated", "--socket-property=ListenStream=127.0.0.1:8222"];
    let bridge = ["--property=Type=notify", "foxxy-bridge", "server", "start", "--name", "activated"];
    machine.user(&[&run[..], &bridge[..]].concat()).success();
    let state = ["systemctl", "--user", "show", "activated.service", "--value", "--property=ActiveState"];
    assert_eq!(machine.user(&state).success(), "inactive\n");
    let status = machine.user(&["curl", "-sf", "http://127.0.0.1:8222/status"]).success();
    assert!(status.contains("\"address\": \"http://127.0.0.1:8222/mcp\""), "{status}");
    assert_eq!(machine.user(&state).success(), "active\n");
    machine.user(&["systemctl", "--user", "stop", "activated.socket", "activated.service"]).success();
}

fn a_socket_starts_the_bridge_at_its_first_client(machine: &Machine) {
    let path = plain(machine, "lazy.json", 8640);
    let said = foxxy(machine, &["server", "enable", "--config", &path, "--socket", "--now"]).success();
    assert!(
        said.contains("foxxy-bridge@lazy.socket starts when a client connects to 127.0.0.1:8640"),
        "{said}"
    );
    assert_eq!(foxxy(machine, &["server", "stop", "lazy"]).success(), "stopped lazy\n");
    assert_eq!(get(machine, "http://127.0.0.1:8640/readyz"), "000", "nobody listens after a stop");
    machine.user(&["systemctl", "--user", "start", "foxxy-bridge@lazy.socket"]).success();
    assert_eq!(property(machine, "foxxy-bridge@lazy.service", "ActiveState"), "inactive");
    let listed = list(machine);
    let told = ["name", "status", "unit", "config"].map(|key| listed[0][key].clone());
    assert_eq!(told, ["lazy", "listening", "foxxy-bridge@lazy.socket", &path]);
    assert_eq!(foxxy(machine, &["server", "status", "lazy"]).code, Some(3));
    assert_eq!(get(machine, "http://127.0.0.1:8640/readyz"), "200");
    assert_eq!(property(machine, "foxxy-bridge@lazy.service", "ActiveState"), "active");
    // From boot on systemd listens, and the first client is served.
    machine.reboot();
    assert_eq!(property(machine, "foxxy-bridge@lazy.service", "ActiveState"), "inactive");
    assert_eq!(get(machine, "http://127.0.0.1:8640/readyz"), "200");
    foxxy(machine, &["server", "disable", "lazy", "--now"]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8640/readyz"), "000");
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_socket_that_waits_follows_its_unit(machine: &Machine) {
    let path = plain(machine, "moved.json", 8720);
    let waits = || {
        machine.user(&["systemctl", "--user", "stop", "foxxy-bridge@moved.service"]).success();
        assert_eq!(list(machine)[0]["status"], "listening");
    };
    foxxy(machine, &["server", "enable", "--config", &path, "--socket", "--now"]).success();
    waits();
    // systemd closes the socket of a unit whose address has changed, and calls it active all the same.
    foxxy(machine, &["server", "enable", "moved", "--socket", "--port", "8721"]).success();
    assert_eq!(get(machine, "http://127.0.0.1:8721/readyz"), "200");
    assert_eq!(get(machine, "http://127.0.0.1:8720/readyz"), "000");
    waits();
    assert_eq!(get(machine, "http://127.0.0.1:8721/readyz"), "200");
    // One that runs is moved by a restart.
    assert_eq!(get(machine, "http://127.0.0.1:8721/readyz"), "200");
    foxxy(machine, &["server", "enable", "moved", "--socket"]).success();
    foxxy(machine, &["server", "restart", "moved"]).success();
    waits();
    assert_eq!(get(machine, "http://127.0.0.1:8720/readyz"), "200");
    let text = r#"{ "mcpServers": {}, "bridge": { "port": 8720, "daemon": { "watchdog": 40 } } }"#;
    config(machine, "moved.json", text);
    let said = foxxy(machine, &["server", "restart", "moved"]);
    assert!(said.stderr.contains("`foxxy-bridge server enable moved --socket` brings it up"), "{said}");
    waits();
    assert_eq!(foxxy(machine, &["server", "disable", "moved"]).success(), "disabled moved\n");
    assert_eq!(property(machine, "foxxy-bridge@moved.socket", "ActiveState"), "inactive");
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_socket_is_there_before_the_network(machine: &Machine) {
    let path = plain(machine, "lan.json", 8862);
    foxxy(machine, &["server", "enable", "--config", &path, "--socket", "--host", "192.0.2.7"]).success();
    machine.user(&["systemctl", "--user", "start", "foxxy-bridge@lan.socket"]).success();
    assert_eq!(property(machine, "foxxy-bridge@lan.socket", "ActiveState"), "active");
    machine.root(&["ip", "address", "add", "192.0.2.7/32", "dev", "lo"]).success();
    assert_eq!(get(machine, "http://192.0.2.7:8862/readyz"), "200");
    machine.root(&["ip", "address", "del", "192.0.2.7/32", "dev", "lo"]).success();
    // Enabled anew with an address of its own, it has no need of that.
    foxxy(machine, &["server", "enable", "--config", &path, "--socket"]).success();
    assert_eq!(property(machine, "foxxy-bridge@lan.socket", "FreeBind"), "no");
    foxxy(machine, &["server", "disable", "lan", "--now"]).success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}

fn a_socket_leaves_the_bridge_its_name(machine: &Machine) {
    machine
        .root(&["sh", "-euc", "cp /etc/hosts /etc/hosts.old; echo 127.0.0.5 bridge.lan >> /etc/hosts"])
        .success();
    let text = json!({ "mcpServers": {}, "bridge": { "host": "bridge.lan", "port": 8863 } });
    let path = config(machine, "named.json", &text.to_string());
    foxxy(machine, &["server", "enable", "--config", &path, "--socket", "--now"]).success();
    assert_eq!(get(machine, "http://bridge.lan:8863/status"), "200");
    assert_eq!(status(machine, "named")["address"], "http://bridge.lan:8863/mcp");
    // One that is none of the name's is what clients know it by.
    foxxy(machine, &["server", "disable", "named", "--now"]).success();
    foxxy(machine, &["server", "enable", "--config", &path, "--socket"]).success();
    machine
        .root(&[
            "sh",
            "-euc",
            "sed 's/127.0.0.5 /127.0.0.6 /' /etc/hosts > /etc/hosts.new; cat /etc/hosts.new > /etc/hosts",
        ])
        .success();
    machine.user(&["systemctl", "--user", "start", "foxxy-bridge@named.socket"]).success();
    assert_eq!(get(machine, "http://127.0.0.5:8863/status"), "200");
    assert_eq!(status(machine, "named")["address"], "http://127.0.0.5:8863/mcp");
    foxxy(machine, &["server", "disable", "named", "--now"]).success();
    machine
        .root(&["sh", "-euc", "cat /etc/hosts.old > /etc/hosts; rm /etc/hosts.old /etc/hosts.new"])
        .success();
    nothing_is_kept(machine);
    nothing_is_left(machine);
}
