//! Server-sent events: messages on a stream that stays open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::bridge::{Exchange, Session};

/// How often a stream without news shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A stream of what is said on the way to an answer, then of the answer.
pub(super) fn exchange(exchange: Exchange) -> Response {
    let state = Some((exchange, pulse()));
    let events = stream::unfold(state, async |state| {
        let (mut exchange, mut pulse) = state?;
        let progress = async {
            match &mut exchange.progress {
                Some(progress) => progress.recv().await,
                None => None,
            }
        };
        tokio::select! {
            // What was said before the answer is told before it.
            biased;
            Some(message) = progress => Some((event(&message), Some((exchange, pulse)))),
            answer = &mut exchange.answer => Some((event(&answer), None)),
            _ = pulse.tick() => Some((comment(), Some((exchange, pulse)))),
        }
    });
    respond(events)
}

/// A stream of what a session is told that belongs to no request.
pub(super) fn notifications(session: Arc<Session>) -> Response {
    let stream = session.open_stream();
    let state = (session.hold(), session, pulse());
    let events = stream::unfold(state, move |(held, session, mut pulse)| async move {
        let event = tokio::select! {
            biased;
            message = session.next(stream) => event(&message?),
            _ = pulse.tick() => comment(),
        };
        Some((event, (held, session, pulse)))
    });
    respond(events)
}

fn respond(events: impl stream::Stream<Item = Bytes> + Send + 'static) -> Response {
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        // Reverse proxies such as nginx would otherwise hold events back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(events)).into_response()
}

fn pulse() -> Interval {
    let mut pulse = interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pulse
}

fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// One message as an event. A line break in it can only be white space between tokens, and would end the field.
fn event(message: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(message.len() + 24);
    event.put_slice(b"event: message\ndata: ");
    let from = event.len();
    event.put_slice(message);
    for byte in &mut event[from..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_several_lines_stays_one_event() {
        assert_eq!(event(b"{\n\"a\":\r\n1}"), "event: message\ndata: { \"a\":  1}\n\n");
    }
}
