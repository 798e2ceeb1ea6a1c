//! The listening socket belongs to the service manager: it is there before the bridge, and while it restarts.

use crate::machine::Machine;

crate::tests![a_restart_refuses_no_connection, a_socket_unit_starts_the_bridge_at_the_first_client];

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
