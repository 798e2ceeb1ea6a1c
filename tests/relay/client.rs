//! An MCP client that sends and gives the bytes as they are, one connection a request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::bridge::{Bridge, PATIENCE};

/// What clients of Streamable HTTP send.
const BOTH: &str = "application/json, text/event-stream";

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    unread: Vec<u8>,
}

impl Answer {
    /// The whole body.
    pub(crate) async fn text(self) -> String {
        let body =
            tokio::time::timeout(PATIENCE, self.body.collect()).await.expect("in time").expect("a body");
        String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The data of the next event; `None` at the end of the stream.
    pub(crate) async fn event(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("an event in time")
    }

    /// Past the comments that show that a stream lives.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("UTF-8");
                let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                if !data.is_empty() {
                    return Some(data.join("\n"));
                }
                continue;
            }
            if let Ok(data) = self.body.frame().await?.expect("a whole stream").into_data() {
                self.unread.extend_from_slice(&data);
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.event()).await.is_err()
    }
}

/// One request with exactly these headers, beside `Host` where none is given.
pub(crate) async fn send(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(address).await.expect("the bridge listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", address);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    let (head, body) = answer.expect("an answer in time").expect("an answer").into_parts();
    Answer { status: head.status, headers: head.headers, body, unread: Vec::new() }
}

/// One GET.
pub(crate) async fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(address, Method::GET, path, headers, "").await
}

/// A client in its session.
#[derive(Clone)]
pub(crate) struct Client {
    address: String,
    path: String,
    pub(crate) session: String,
    /// The answer to `initialize`.
    pub(crate) welcome: Value,
}

impl Client {
    /// Begins a session with all upstreams.
    pub(crate) async fn of(bridge: &Bridge) -> Self {
        Self::at(bridge, "/mcp", "2025-11-25").await
    }

    /// Begins a session there, in that version of MCP.
    pub(crate) async fn at(bridge: &Bridge, path: &str, version: &str) -> Self {
        let answer = initialize(bridge, path, version).await;
        let session = answer.header("mcp-session-id").map(str::to_owned);
        let text = answer.text().await;
        let session = session.unwrap_or_else(|| panic!("no session: {text}"));
        let welcome: Value = serde_json::from_str(&text).expect("JSON");
        let client = Self {
            address: bridge.address.clone(),
            path: path.to_owned(),
            session,
            welcome: welcome["result"].clone(),
        };
        client.tell(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        client
    }

    /// Posts a message, with those headers on top of the usual ones.
    pub(crate) async fn post(&self, message: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("Content-Type", "application/json"), ("Mcp-Session-Id", self.session.as_str())];
        if !headers.iter().any(|(name, _)| *name == "Accept") {
            all.push(("Accept", BOTH));
        }
        all.extend_from_slice(headers);
        send(&self.address, Method::POST, &self.path, &all, message.to_owned()).await
    }

    /// The answer to a request, as it came.
    pub(crate) async fn ask(&self, message: &str) -> String {
        let answer = self.post(message, &[]).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer.text().await
    }

    /// The answer to a request, read.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        serde_json::from_str(&self.ask(&request.to_string()).await).expect("JSON")
    }

    /// The result of a tool that takes no arguments.
    pub(crate) async fn tool(&self, name: &str) -> Value {
        self.call("tools/call", serde_json::json!({ "name": name })).await["result"].clone()
    }

    /// The names in a list.
    pub(crate) async fn names(&self, method: &str, member: &str, key: &str) -> Vec<String> {
        let answer = self.call(method, serde_json::json!({})).await;
        let list = answer["result"][member].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        list.iter().map(|item| item[key].as_str().expect("a name").to_owned()).collect()
    }

    /// Sends a notification.
    pub(crate) async fn tell(&self, message: &str) {
        assert_eq!(self.post(message, &[]).await.status, StatusCode::ACCEPTED);
    }

    /// The stream of what belongs to no request.
    pub(crate) async fn listen(&self) -> Answer {
        let headers = [("Accept", "text/event-stream"), ("Mcp-Session-Id", self.session.as_str())];
        let answer = get(&self.address, &self.path, &headers).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        answer
    }

    /// Ends the session.
    pub(crate) async fn end(&self) -> StatusCode {
        let headers = [("Mcp-Session-Id", self.session.as_str())];
        send(&self.address, Method::DELETE, &self.path, &headers, "").await.status
    }
}

/// A client's first request.
pub(crate) async fn initialize(bridge: &Bridge, path: &str, version: &str) -> Answer {
    let hello = serde_json::json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {
            "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        },
    });
    let headers = [("Content-Type", "application/json"), ("Accept", BOTH)];
    send(&bridge.address, Method::POST, path, &headers, hello.to_string()).await
}

/// A call of a tool that wants to hear of its progress.
pub(crate) fn call_with_progress(id: &str, tool: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","_meta":{{"progressToken":{token}}}}}}}"#
    )
}
