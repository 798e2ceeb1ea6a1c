//! Lines on their way to where they are kept, for which nobody who logs ever waits.
//!
//! Whoever keeps them may take none for a while, as when it is busy or hangs. So each line is put in a queue, and a
//! thread hands it over. What does not fit into the queue is counted, and the count told once lines are taken again.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{CHILD, IDENTIFIER, Level, now, shortened};

/// Bytes that may wait.
pub(super) const MAX_WAITING: usize = 1 << 20;
/// Bytes of a line's text; one datagram holds them, and all else, on every kernel.
pub(super) const LONGEST: usize = 32 << 10;
/// Bytes of any other field.
pub(super) const LONGEST_FIELD: usize = 256;

/// Where lines are kept.
pub(super) trait Destination: Send + 'static {
    /// Its name in `org.freedesktop.LogControl1`.
    const TARGET: &str;
    /// Why lines are missing, as far as anybody can say.
    const LOSS: &str;

    /// Keeps one, however long that takes. False when nobody does.
    fn take(&mut self, record: &Record) -> bool;

    /// Nothing waits for it now.
    fn rest(&mut self) {}
}

/// The way there.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    target: &'static str,
}

#[derive(Debug, Default)]
struct Shared {
    backlog: Mutex<Backlog>,
    /// Told when a line has come, and when one was handed over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Record>,
    /// Of those that wait, and of the one that is being handed over.
    bytes: usize,
    /// Lines that nobody will see, since this was last told.
    lost: u64,
}

/// One event on its way.
#[derive(Debug)]
pub(super) struct Record {
    /// When it was, in microseconds since 1970.
    pub(super) time: u64,
    /// Its place in the code, where that is of use to anybody.
    pub(super) place: Option<&'static Metadata<'static>>,
    /// Who speaks.
    pub(super) identifier: String,
    /// How urgently, as syslog(3) has it.
    pub(super) priority: u8,
    pub(super) texts: Texts,
    /// How many are lost with it: more than one when it tells of those that were lost.
    lines: u64,
}

/// What an event has in it, by the names of its fields.
#[derive(Debug, Default)]
pub(super) struct Texts(Vec<(&'static str, String)>);

impl Queue {
    /// Lines go to that destination, by a thread of that name.
    pub(super) fn start<D: Destination>(thread: &str, destination: D) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name(thread.to_owned()).spawn(move || own.hand_over(destination))?;
        Ok(Self { shared, target: D::TARGET })
    }

    /// Where it leads, as `org.freedesktop.LogControl1` has it.
    pub(super) fn target(&self) -> &'static str {
        self.target
    }

    /// Waits until nothing waits any more.
    pub(super) fn flush(&self, within: Duration) {
        let shared = &self.shared;
        // Whatever is left after that time is lost.
        let _ = shared.changed.wait_timeout_while(shared.backlog(), within, |backlog| backlog.bytes > 0);
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.backlog().bytes
    }
}

impl<S: Subscriber> Layer<S> for Queue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut texts = Texts::default();
        event.record(&mut texts);
        let mut record = Record {
            time: now(),
            place: Some(metadata),
            identifier: IDENTIFIER.to_owned(),
            priority: Level::from(*metadata.level()).priority(),
            texts,
            lines: 1,
        };
        if metadata.target() == CHILD {
            // Where a child's line passes through the bridge is of no use to anybody.
            record.place = None;
            record.identifier.extend(record.texts.get("upstream").map(|upstream| format!("/{upstream}")));
            let exact = record.texts.get("priority").and_then(|exact| exact.parse().ok());
            record.priority = exact.unwrap_or(record.priority);
        }
        let mut backlog = self.shared.backlog();
        if backlog.bytes + record.bytes() > MAX_WAITING {
            backlog.lost += 1;
        } else {
            backlog.push(record);
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over whatever comes, however long it takes.
    fn hand_over<D: Destination>(&self, mut destination: D) {
        let mut backlog = self.backlog();
        loop {
            let Some(record) = backlog.waiting.pop_front() else {
                backlog = self.changed.wait(backlog).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(backlog);
            let taken = destination.take(&record);
            backlog = self.backlog();
            backlog.bytes -= record.bytes();
            if !taken {
                backlog.lost += record.lines;
            } else if backlog.waiting.is_empty() {
                destination.rest();
                backlog.tell_lost(D::LOSS);
            }
            self.changed.notify_all();
        }
    }
}

impl Backlog {
    fn push(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.waiting.push_back(record);
    }

    /// Says how many lines are missing, if any are.
    fn tell_lost(&mut self, loss: &str) {
        let lines = std::mem::take(&mut self.lost);
        if lines > 0 {
            let text = format!("{lines} lines before this one are missing: {loss}");
            self.push(Record {
                time: now(),
                place: None,
                identifier: IDENTIFIER.to_owned(),
                priority: Level::Warning.priority(),
                texts: Texts(vec![("message", text)]),
                lines,
            });
        }
    }
}

impl Record {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        size_of_val(self) + self.texts.0.iter().map(|text| size_of_val(text) + text.1.len()).sum::<usize>()
    }
}

impl Texts {
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(of, _)| *of == name).map(|(_, text)| text)
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        let longest = if field.name() == "message" { LONGEST } else { LONGEST_FIELD };
        self.0.push((field.name(), shortened(value.to_owned(), longest)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
