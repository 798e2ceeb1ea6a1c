"""A scripted MCP server, for tests: every answer is the JSON text that the script gives, byte for byte.

    scripted.py stdio SCRIPT RECORD
    scripted.py http SCRIPT RECORD        prints its port

SCRIPT is a JSON file: {"METHOD" or "METHOD NAME": [step, …]}. NAME is that of the tool, the prompt or the URI. A step is
an object with one member:

    result, error   answer with that JSON text
    say             send that text, $ID and $TOKEN replaced; over HTTP on the stream of the request
    tell            send that text, over HTTP on the GET streams
    rule            {"on": key, "steps": […]}: from now on
    wait, open      a gate, by name
    sleep           seconds
    log             a line on standard error
    exit            the process, with that status
    Over HTTP only:
    stream          answer with server-sent events from here on
    break           end the stream now; what follows is for whoever resumes it
    forget          the session: later requests get that HTTP status
    redirect        to that address, as a 307

RECORD gets what came in, one JSON object a line: {"body": text, "headers": {…}, "http": "POST"}.
"""
import collections
import http.server
import json
import os
import queue
import sys
import threading
import time

DEFAULTS = {
    "initialize": [{"result": json.dumps({
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "tools": {"listChanged": True}, "prompts": {"listChanged": True}, "logging": {}, "completions": {},
            "resources": {"listChanged": True, "subscribe": True}},
        "serverInfo": {"name": "scripted", "version": "1"}})}],
    "tools/list": [{"result": '{"tools":[]}'}],
    "prompts/list": [{"result": '{"prompts":[]}'}],
    "resources/list": [{"result": '{"resources":[]}'}],
    "resources/templates/list": [{"result": '{"resourceTemplates":[]}'}],
}


class Script:
    def __init__(self, path, record):
        with open(path, encoding="utf-8") as file:
            self.rules = DEFAULTS | json.load(file)
        self.record = open(record, "a", encoding="utf-8", newline="")
        self.lock = threading.Lock()
        self.gates = collections.defaultdict(threading.Event)

    def note(self, **what):
        with self.lock:
            self.record.write(json.dumps(what) + "\n")
            self.record.flush()

    def play(self, text, say, tell, special):
        message = json.loads(text)
        if "method" not in message:
            return
        params = message.get("params") or {}
        keys = [f"{message['method']} {params.get(key)}" for key in ("name", "uri")] + [message["method"]]
        steps = next((self.rules[key] for key in keys if key in self.rules), None)
        if steps is None:
            steps = [{"result": "{}"}] if "id" in message else []
        number = json.dumps(message.get("id"))
        token = json.dumps((params.get("_meta") or {}).get("progressToken"))
        for step in steps:
            (kind, value), = step.items()
            if kind in ("result", "error"):
                say(f'{{"jsonrpc":"2.0","id":{number},"{kind}":{value}}}')
            elif kind == "say":
                say(value.replace("$ID", number).replace("$TOKEN", token))
            elif kind == "tell":
                tell(value)
            elif kind == "rule":
                self.rules[value["on"]] = value["steps"]
            elif kind == "wait":
                self.gates[value].wait(30)
            elif kind == "open":
                self.gates[value].set()
            elif kind == "sleep":
                time.sleep(value)
            elif kind == "log":
                print(value, file=sys.stderr, flush=True)
            elif kind == "exit":
                os._exit(value)
            else:
                special(kind, value)


def stdio(script):
    lock = threading.Lock()

    def say(text):
        with lock:
            sys.stdout.buffer.write(text.encode() + b"\n")
            sys.stdout.buffer.flush()

    for line in sys.stdin.buffer:
        text = line.decode().removesuffix("\n")
        script.note(body=text)
        threading.Thread(target=script.play, args=(text, say, say, None), daemon=True).start()


def serve(script):
    sessions = set()
    forgotten = [404]
    listeners = []
    events = []  # (of which request, message); an event's id is its place here
    lock = threading.Lock()

    def tell(text):
        for listener in listeners:
            listener.put(text)

    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def plain(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def known(self):
            session = self.headers.get("Mcp-Session-Id")
            if session in sessions:
                return True
            why = b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID"},"id":null}'
            self.plain(forgotten[0], why, Content_Type="application/json")
            return False

        def begin_events(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def event(self, number, text):
            self.wfile.write(f"id: {number}\nretry: 50\ndata: {text}\n\n".encode())
            self.wfile.flush()

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            script.note(http="POST", headers=dict(self.headers), body=body)
            message = json.loads(body)
            headers = {"Content_Type": "application/json"}
            if message.get("method") == "initialize":
                session = f"s{len(sessions)}-{time.monotonic_ns()}"
                sessions.add(session)
                headers["Mcp_Session_Id"] = session
            elif not self.known():
                return
            state = {"stream": False, "broken": False, "done": False}

            def say(text):
                if state["stream"]:
                    with lock:
                        events.append((id(state), text))
                        number = len(events)
                    if not state["broken"]:
                        self.event(number, text)
                else:
                    state["done"] = True
                    self.plain(200, text.encode(), **headers)

            def special(kind, value):
                if kind == "stream":
                    state["stream"] = True
                    self.begin_events()
                elif kind == "break":
                    state["broken"] = True
                    self.wfile.flush()
                    self.connection.shutdown(2)
                elif kind == "forget":
                    forgotten[0] = value
                    sessions.clear()
                elif kind == "redirect":
                    state["done"] = True
                    self.plain(307, Location=value)

            script.play(body, say, tell, special)
            if not state["done"] and not state["stream"]:
                self.plain(202)

        def do_GET(self):
            script.note(http="GET", headers=dict(self.headers), body="")
            if not self.known():
                return
            last = self.headers.get("Last-Event-ID")
            self.begin_events()
            if last is not None:
                of = events[int(last) - 1][0]
                for _ in range(100):
                    with lock:
                        rest = [(at + 1, text) for at, (whose, text) in enumerate(events)
                                if whose == of and at + 1 > int(last)]
                    for number, text in rest:
                        self.event(number, text)
                        if '"result"' in text:
                            return
                    last = str(rest[-1][0]) if rest else last
                    time.sleep(0.02)
                return
            mine = queue.Queue()
            listeners.append(mine)
            script.note(http="LISTENING", headers={}, body="")
            while True:
                self.wfile.write(f"data: {mine.get()}\n\n".encode())
                self.wfile.flush()

        def do_DELETE(self):
            script.note(http="DELETE", headers=dict(self.headers), body="")
            sessions.discard(self.headers.get("Mcp-Session-Id"))
            self.plain(204)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    # Its standard input is the test's hand: when the test ends, so does the server.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    _, transport, script_file, record_file = sys.argv
    {"stdio": stdio, "http": serve}[transport](Script(script_file, record_file))
