//! What a child writes to its standard error: lines for the log, as many and as long as the log can bear.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use crate::host::log::bounded::Bounded;
use crate::host::log::said_by;

/// Bytes of one line that are logged; of what is longer it is said how much longer it is.
const MAX_LINE: usize = 8 << 10;
/// Lines that a child may log within [`SPAN`]: a quarter of what journald takes from the whole unit, for one that says
/// too much must not silence the others and the bridge.
const MAX_LINES: u32 = 5_000;
/// What [`MAX_LINES`] is for.
const SPAN: Duration = Duration::from_secs(30);

/// Logs each line, until the end; `last_words` is always the last one.
pub(super) async fn log(name: String, mut stderr: impl AsyncRead + Unpin, last_words: Arc<Mutex<String>>) {
    let mut chunk = vec![0; 4 << 10];
    let mut line = Bounded::new(MAX_LINE);
    let mut allowance = Allowance::default();
    let say = |line: &mut Bounded, allowance: &mut Allowance| {
        let Some(text) = seen(line) else { return };
        if allowance.has_room(&name) {
            said_by(&name, &text);
        }
        *last_words.lock().unwrap_or_else(PoisonError::into_inner) = text;
    };
    loop {
        let read = stderr.read(&mut chunk);
        let read = match allowance.to_be_told() {
            None => read.await,
            Some(when) => match timeout_at(when, read).await {
                Ok(read) => read,
                Err(_) => {
                    allowance.tell(&name);
                    continue;
                }
            },
        };
        let Ok(count @ 1..) = read else { break };
        let mut rest = &chunk[..count];
        while let Some(end) = memchr(b'\n', rest) {
            line.add(&rest[..end]);
            say(&mut line, &mut allowance);
            rest = &rest[end + 1..];
        }
        line.add(rest);
        // A child that never stops writing must not keep the relay from its work.
        tokio::task::yield_now().await;
    }
    say(&mut line, &mut allowance);
    allowance.tell(&name);
}

/// The line that was read; none when there is nothing to see in it.
fn seen(line: &mut Bounded) -> Option<String> {
    let mut text = line.take();
    text.truncate(text.trim_end().len());
    (!text.is_empty()).then_some(text)
}

/// How many lines may still be logged.
#[derive(Default)]
struct Allowance {
    /// When the span began.
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Allowance {
    /// Whether one more line may be logged now.
    fn has_room(&mut self, name: &str) -> bool {
        let now = Instant::now();
        if self.began.is_none_or(|began| now >= began + SPAN) {
            self.tell(name);
            *self = Self { began: Some(now), ..Self::default() };
        }
        if self.lines == MAX_LINES {
            self.left_out += 1;
            return false;
        }
        self.lines += 1;
        true
    }

    /// When it is to be said that lines were left out, if any were.
    fn to_be_told(&self) -> Option<Instant> {
        self.began.filter(|_| self.left_out > 0).map(|began| began + SPAN)
    }

    /// Says how many lines were left out, if any were.
    fn tell(&mut self, name: &str) {
        if self.left_out > 0 {
            let count = std::mem::take(&mut self.left_out);
            tracing::warn!(
                upstream = name,
                "{count} lines of its standard error are left out: more than {MAX_LINES} within {} s",
                SPAN.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_is_too_long_and_text_whatever_it_was() {
        let mut line = Bounded::new(MAX_LINE);
        for _ in 0..1000 {
            line.add(&[b'x'; 5000]);
        }
        let text = seen(&mut line).expect("a line");
        assert_eq!(text, format!("{}… ({} bytes more)", "x".repeat(MAX_LINE), 5_000_000 - MAX_LINE));
        line.add(b"a\xffb\0 \r");
        assert_eq!(seen(&mut line).as_deref(), Some("a\u{fffd}b\0"));
        line.add(b" \t\r");
        assert_eq!(seen(&mut line), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_too_much_is_heard_again_later() {
        let mut allowance = Allowance::default();
        let admitted = (0..MAX_LINES + 7).filter(|_| allowance.has_room("x")).count();
        assert_eq!((admitted, allowance.left_out), (MAX_LINES as usize, 7));
        assert_eq!(allowance.to_be_told(), Some(Instant::now() + SPAN));
        tokio::time::advance(SPAN).await;
        assert!(allowance.has_room("x"));
        assert_eq!((allowance.lines, allowance.left_out), (1, 0));
        assert_eq!(allowance.to_be_told(), None);
    }

    #[tokio::test]
    async fn the_last_line_is_the_last_word_also_without_an_end() {
        let said = Arc::new(Mutex::new(String::new()));
        log("x".to_owned(), &b"first\n<3>second\n\n"[..], Arc::clone(&said)).await;
        assert_eq!(*said.lock().expect("not poisoned"), "<3>second");
        log("x".to_owned(), &b"first\nand no end"[..], Arc::clone(&said)).await;
        assert_eq!(*said.lock().expect("not poisoned"), "and no end");
    }
}
