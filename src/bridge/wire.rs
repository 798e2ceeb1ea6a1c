//! The JSON-RPC envelope: the few parts of a message that the relay reads or replaces. Everything else stays
//! the bytes it came in, so that nothing a client or an upstream says is lost or reordered on the way.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON-RPC: the text is not JSON.
pub(crate) const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: JSON, but not a message.
pub(crate) const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: nobody here answers that method.
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: the method is known, its parameters do not fit.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: an upstream that should have answered did not.
pub(crate) const INTERNAL_ERROR: i32 = -32603;
/// MCP up to 2025-11-25: no resource has that URI.
pub(crate) const RESOURCE_NOT_FOUND: i32 = -32002;

/// A borrowed string where the JSON has no escapes, an owned one where it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub(crate) struct Str<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// A message with its members as they stand in the text.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Str<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Str<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps a member that is `null` apart from one that is not there.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// One JSON-RPC message.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// Wants a response with the same id.
    Request {
        /// A string or a number, as written.
        id: &'a RawValue,
        /// What is asked for.
        method: Cow<'a, str>,
        /// As written, when there are any.
        params: Option<&'a RawValue>,
    },
    /// Wants none.
    Notification {
        /// What happened.
        method: Cow<'a, str>,
        /// As written, when there are any.
        params: Option<&'a RawValue>,
    },
    /// Answers a request of ours.
    Response {
        /// The id of that request, as written.
        id: &'a RawValue,
        /// The result, unless it is an error.
        result: Option<&'a RawValue>,
        /// The error, unless it is a result.
        error: Option<&'a RawValue>,
    },
}

/// Why a text is no message: the JSON-RPC code and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Malformed {
    /// `PARSE_ERROR` or `INVALID_REQUEST`.
    pub(crate) code: i32,
    /// In a few words.
    pub(crate) reason: String,
}

/// Reads one message.
pub(crate) fn parse(text: &str) -> Result<Message<'_>, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() { INVALID_REQUEST } else { PARSE_ERROR };
        Malformed { code, reason: format!("not a JSON-RPC message: {error}") }
    })?;
    let invalid = |reason: &str| Malformed { code: INVALID_REQUEST, reason: reason.to_owned() };
    if envelope.jsonrpc.is_none_or(|version| version.0 != "2.0") {
        return Err(invalid("not a JSON-RPC message: `jsonrpc` must be \"2.0\""));
    }
    let Envelope { id, method, params, result, error, .. } = envelope;
    match (id, method) {
        (Some(id), Some(method)) if is_id(id) => Ok(Message::Request { id, method: method.0, params }),
        (Some(_), Some(_)) => Err(invalid("`id` must be a string or a number")),
        (None, Some(method)) => Ok(Message::Notification { method: method.0, params }),
        (Some(id), None) if result.is_some() != error.is_some() => {
            Ok(Message::Response { id, result, error })
        }
        (Some(_), None) => {
            Err(invalid("neither a request nor a response: no `method`, and not one of `result` and `error`"))
        }
        (None, None) => Err(invalid("neither a request nor a response: no `method` and no `id`")),
    }
}

fn is_id(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

/// The members of `params` that decide where a message goes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Params<'a> {
    /// tools/call, prompts/get: which one.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) name: Option<&'a RawValue>,
    /// resources/*: which one.
    #[serde(borrow)]
    pub(crate) uri: Option<Str<'a>>,
    /// completion/complete: what is being completed.
    #[serde(borrow, rename = "ref")]
    pub(crate) reference: Option<Reference<'a>>,
    /// notifications/cancelled: the request that is given up.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) request_id: Option<&'a RawValue>,
    /// notifications/progress: the token of the request.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) progress_token: Option<&'a RawValue>,
    /// logging/setLevel, notifications/message.
    #[serde(borrow)]
    pub(crate) level: Option<Str<'a>>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

/// What a completion is for.
#[derive(Debug, Deserialize)]
pub(crate) struct Reference<'a> {
    /// A prompt's name.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) name: Option<&'a RawValue>,
    /// A resource template.
    #[serde(borrow)]
    pub(crate) uri: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "progressToken", deserialize_with = "present")]
    progress_token: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// Reads what routes a message; no parameters at all, or `null`, are empty ones.
    pub(crate) fn parse(raw: Option<&'a RawValue>) -> Result<Self, String> {
        match raw {
            None => Ok(Self::default()),
            Some(raw) if raw.get() == "null" => Ok(Self::default()),
            Some(raw) => {
                serde_json::from_str(raw.get()).map_err(|error| format!("`params` do not fit: {error}"))
            }
        }
    }

    /// The token under which the sender wants to hear of progress.
    pub(crate) fn wants_progress(&self) -> Option<&'a RawValue> {
        self.meta.as_ref().and_then(|meta| meta.progress_token).filter(|token| is_id(token))
    }
}

/// The text of a JSON string, unescaped; `None` for any other value.
pub(crate) fn as_str(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Str<'_>>(raw.get()).ok().map(|text| text.0)
}

/// The unsigned number that a value is; `None` for any other value.
pub(crate) fn as_u64(raw: &RawValue) -> Option<u64> {
    raw.get().parse().ok()
}

/// `text` as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A part of a text, and what stands there instead.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    /// Bytes of the text.
    pub(crate) at: Range<usize>,
    /// Valid JSON.
    pub(crate) with: &'a str,
}

impl<'a> Edit<'a> {
    /// Replaces `part`, a slice of `whole`.
    pub(crate) fn of(whole: &str, part: &RawValue, with: &'a str) -> Self {
        Self { at: range_in(whole, part.get()), with }
    }
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// Appends `text` to `out` with the edits made, and without line breaks: stdio frames messages by them.
pub(crate) fn splice(out: &mut Vec<u8>, text: &str, edits: &mut [Edit<'_>]) {
    edits.sort_unstable_by_key(|edit| edit.at.start);
    let grown: usize = edits.iter().map(|edit| edit.with.len()).sum();
    out.reserve(text.len() + grown + 1);
    let from = out.len();
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(&text.as_bytes()[done..edit.at.start]);
        out.extend_from_slice(edit.with.as_bytes());
        done = edit.at.end;
    }
    out.extend_from_slice(&text.as_bytes()[done..]);
    // A raw line break is only ever white space between tokens: inside a JSON string it is not allowed.
    if memchr::memchr2(b'\n', b'\r', &out[from..]).is_some() {
        for byte in &mut out[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// `text` with the edits made.
pub(crate) fn spliced(text: &str, edits: &mut [Edit<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    splice(&mut out, text, edits);
    out
}

/// A request of our own.
pub(crate) fn request(id: u64, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// A notification of our own; `params` may be empty.
pub(crate) fn notification(method: &str, params: &str) -> String {
    if params.is_empty() {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
    } else {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
    }
}

/// A result of our own; `id` and `result` are JSON.
pub(crate) fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// An error of our own; `id` is JSON.
pub(crate) fn error(id: &str, code: i32, message: &str) -> String {
    let message = quote(message);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> i32 {
        parse(text).expect_err("must be refused").code
    }

    #[test]
    fn tells_the_three_kinds_apart() {
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#),
            Ok(Message::Request { method, params: None, .. }) if method == "ping"
        ));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","method":"notifications/x","params":null}"#),
            Ok(Message::Notification { params: Some(raw), .. }) if raw.get() == "null"
        ));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","id":1,"result":null}"#),
            Ok(Message::Response { result: Some(_), error: None, .. })
        ));
    }

    #[test]
    fn refuses_what_is_no_message_with_the_right_code() {
        assert_eq!(code_of("{"), PARSE_ERROR);
        assert_eq!(code_of(""), PARSE_ERROR);
        assert_eq!(code_of("[]"), INVALID_REQUEST);
        assert_eq!(code_of("{}"), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":1}"#), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#), INVALID_REQUEST);
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#), INVALID_REQUEST);
    }

    #[test]
    fn replaces_only_what_is_named_and_keeps_every_other_byte() {
        let text = r#"{ "params" : {"b":null,"name":"s__t","z":123456789012345678901234567890.10 ,"_meta":{"progressToken":7}}, "id":1.50,"method":"tools/call","jsonrpc":"2.0","ext":[ ]}"#;
        let Ok(Message::Request { id, params, .. }) = parse(text) else { panic!("a request") };
        let params = Params::parse(params).expect("routable");
        let name = params.name.expect("a name");
        let token = params.wants_progress().expect("a token");
        let out = spliced(
            text,
            &mut [Edit::of(text, id, "42"), Edit::of(text, token, "42"), Edit::of(text, name, "\"t\"")],
        );
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            r#"{ "params" : {"b":null,"name":"t","z":123456789012345678901234567890.10 ,"_meta":{"progressToken":42}}, "id":42,"method":"tools/call","jsonrpc":"2.0","ext":[ ]}"#
        );
    }

    #[test]
    fn puts_a_pretty_printed_message_on_one_line() {
        let text = "{\n  \"jsonrpc\": \"2.0\",\r\n  \"method\": \"a\\nb\"\n}";
        let out = spliced(text, &mut []);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "{   \"jsonrpc\": \"2.0\",    \"method\": \"a\\nb\" }"
        );
    }

    #[test]
    fn names_with_escapes_are_understood() {
        let params = Params::parse(Some(raw(r#"{"name":"a\u005f_b","uri":"x:\/\/y"}"#))).expect("routable");
        assert_eq!(as_str(params.name.expect("a name")).expect("a string"), "a__b");
        assert_eq!(params.uri.expect("a uri").0, "x://y");
    }

    fn raw(text: &'static str) -> &'static RawValue {
        serde_json::from_str(text).expect("JSON")
    }
}
