//! The way to the journal: `tracing-journald`, which nobody who logs ever waits for.
//!
//! That library waits for as long as journald takes nothing, as when it is busy or hangs. So each line is put in a
//! queue, and a thread hands it over. What does not fit into the queue is counted, and the count told once journald
//! takes lines again.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::callsite::{DefaultCallsite, Identifier};
use tracing::field::{Field, FieldSet, Value, Visit};
use tracing::metadata::Kind;
use tracing::{Event, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, Layered, SubscriberExt as _};

use super::{CHILD, IDENTIFIER, Level, shortened};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes that may wait for journald.
const MAX_WAITING: usize = 1 << 20;
/// Bytes of a line's text; one datagram holds them, and all else, on every kernel.
const LONGEST: usize = 32 << 10;
/// Bytes of any other field.
const LONGEST_FIELD: usize = 256;
/// Each at its number in syslog(3).
const PRIORITIES: [Priority; 8] = [
    Priority::Emergency,
    Priority::Alert,
    Priority::Critical,
    Priority::Error,
    Priority::Warning,
    Priority::Notice,
    Priority::Informational,
    Priority::Debug,
];

/// Of lines without a place in the code: where a child's passes through the bridge is of no use to anybody.
static PLACELESS: Metadata<'static> = Metadata::new(
    "line",
    "foxxy_bridge",
    tracing::Level::INFO,
    None,
    None,
    None,
    FieldSet::new(&["message", "upstream"], Identifier(&NO_PLACE)),
    Kind::EVENT,
);
static NO_PLACE: DefaultCallsite = DefaultCallsite::new(&PLACELESS);

/// The way to the journal.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    backlog: Mutex<Backlog>,
    /// Told when a line has come, and when one was handed over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Line>,
    /// Of those that wait, and of the one that is being handed over.
    bytes: usize,
    /// Lines that nobody will see, since this was last told.
    lost: u64,
}

/// One event on its way.
#[derive(Debug)]
struct Line {
    metadata: &'static Metadata<'static>,
    origin: Origin,
    texts: Texts,
    /// How many are lost with it: more than one when it tells of those that were lost.
    lines: u64,
}

/// Who speaks, and how urgently: what the library has fixed for all that one of its layers writes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    identifier: String,
    priority: Priority,
}

/// What an event has in it, by the names of its fields.
#[derive(Debug, Default)]
struct Texts(Vec<(&'static str, String)>);

impl Journal {
    /// The way to this machine's journal, for the lines of an instance.
    pub(super) fn open(instance: &str) -> io::Result<Self> {
        // Whether anybody listens; this asks without waiting.
        UnixDatagram::unbound()?.connect(SOCKET)?;
        let instance = instance.to_owned();
        Self::through(move |origin| writer(&instance, origin))
    }

    /// Lines go to what `open` makes for their origin.
    fn through<W: Subscriber>(open: impl Fn(&Origin) -> io::Result<W> + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let own = Arc::clone(&queue);
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || own.hand_over(open))?;
        Ok(Self(queue))
    }

    /// Waits until nothing waits any more.
    pub(super) fn flush(&self, within: Duration) {
        // Whatever is left after that time is lost.
        let _ = self.0.changed.wait_timeout_while(self.0.backlog(), within, |backlog| backlog.bytes > 0);
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut metadata = event.metadata();
        let mut texts = Texts::default();
        event.record(&mut texts);
        let mut identifier = IDENTIFIER.to_owned();
        let mut priority = usize::from(Level::from(*metadata.level()).priority());
        if metadata.target() == CHILD {
            metadata = &PLACELESS;
            identifier.extend(texts.get("upstream").map(|upstream| format!("/{upstream}")));
            priority = texts.get("priority").and_then(|exact| exact.parse().ok()).unwrap_or(priority);
        }
        let priority = PRIORITIES.get(priority).copied().unwrap_or(Priority::Informational);
        let line = Line { metadata, origin: Origin { identifier, priority }, texts, lines: 1 };
        let mut backlog = self.0.backlog();
        if backlog.bytes + line.bytes() > MAX_WAITING {
            backlog.lost += 1;
        } else {
            backlog.push(line);
            self.0.changed.notify_all();
        }
    }
}

impl Queue {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over whatever comes, however long journald takes.
    fn hand_over<W: Subscriber>(&self, open: impl Fn(&Origin) -> io::Result<W>) {
        // Kept while lines of one origin follow each other, and no longer: whether anybody listens shows when it is
        // opened, not when it writes. So there is never more than one, however many upstreams there are.
        let mut writer: Option<(Origin, W)> = None;
        let mut backlog = self.backlog();
        loop {
            let Some(line) = backlog.waiting.pop_front() else {
                backlog = self.changed.wait(backlog).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(backlog);
            let kept = writer.take().filter(|(origin, _)| *origin == line.origin);
            writer = kept.or_else(|| Some((line.origin.clone(), open(&line.origin).ok()?)));
            if let Some((_, writer)) = &writer {
                line.write(writer);
            }
            backlog = self.backlog();
            backlog.bytes -= line.bytes();
            if writer.is_none() {
                backlog.lost += line.lines;
            } else if backlog.waiting.is_empty() {
                writer = None;
                backlog.tell_lost();
            }
            self.changed.notify_all();
        }
    }
}

impl Backlog {
    fn push(&mut self, line: Line) {
        self.bytes += line.bytes();
        self.waiting.push_back(line);
    }

    /// Says how many lines are missing from the journal, if any are.
    fn tell_lost(&mut self) {
        let lines = std::mem::take(&mut self.lost);
        if lines > 0 {
            let text = format!("{lines} lines before this one are missing: the journal did not take them");
            let origin = Origin { identifier: IDENTIFIER.to_owned(), priority: Priority::Warning };
            self.push(Line { metadata: &PLACELESS, origin, texts: Texts(vec![("message", text)]), lines });
        }
    }
}

impl Line {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        size_of_val(self) + self.texts.0.iter().map(|text| size_of_val(text) + text.1.len()).sum::<usize>()
    }

    /// Makes an event of it once more.
    fn write(&self, to: &impl Subscriber) {
        let fields = self.metadata.fields();
        let value = |field: Field| self.texts.get(field.name()).map(|text| text as &dyn Value);
        let values: Vec<_> = fields.iter().map(value).collect();
        to.event(&Event::new(self.metadata, &fields.value_set_all(&values)));
    }
}

impl Texts {
    fn get(&self, name: &str) -> Option<&String> {
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

/// What writes the lines of one origin.
fn writer(instance: &str, origin: &Origin) -> io::Result<Layered<tracing_journald::Layer, Registry>> {
    let exact = origin.priority;
    let layer = tracing_journald::layer()?
        .with_field_prefix(None)
        .with_syslog_identifier(origin.identifier.clone())
        .with_priority_mappings(PriorityMappings {
            error: exact,
            warn: exact,
            info: exact,
            debug: exact,
            trace: exact,
        })
        .with_custom_fields([("INSTANCE", instance)]);
    // Called directly, not a `Dispatch`: those have a say in what is logged at all.
    Ok(tracing_subscriber::registry().with(layer))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::Instant;

    use super::*;

    /// A journal that takes a line only when it is asked for it.
    struct Stuck {
        taken: Receiver<String>,
        listening: Arc<AtomicBool>,
    }

    impl Stuck {
        fn next(&self) -> Option<String> {
            self.taken.recv_timeout(Duration::from_millis(500)).ok()
        }

        fn listen(&self, listening: bool) {
            self.listening.store(listening, Ordering::SeqCst);
        }
    }

    /// Gives it one line.
    struct Giver(String, SyncSender<String>);

    impl<S: Subscriber> Layer<S> for Giver {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            struct Shown(String);
            impl Visit for Shown {
                fn record_str(&mut self, field: &Field, value: &str) {
                    writeln!(self.0, "{}={value}", field.name()).expect("a text takes all");
                }

                fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
                    panic!("{field} is no text");
                }
            }
            let metadata = event.metadata();
            let mut shown = Shown(self.0.clone());
            if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
                writeln!(shown.0, "place={file}:{line}").expect("a text takes all");
            }
            event.record(&mut shown);
            // Whether somebody still listens is not for it to say.
            let _ = self.1.send(shown.0);
        }
    }

    fn journal() -> (Stuck, Journal) {
        let (give, taken) = sync_channel(0);
        let listening = Arc::new(AtomicBool::new(true));
        let stuck = Stuck { taken, listening: Arc::clone(&listening) };
        let journal = Journal::through(move |origin| {
            if !listening.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let origin = format!("from={}\npriority={:?}\n", origin.identifier, origin.priority);
            Ok(tracing_subscriber::registry().with(Giver(origin, give.clone())))
        });
        (stuck, journal.expect("a thread"))
    }

    /// Does that while what is logged goes to the journal.
    fn logging_to(journal: &Journal, what: impl FnOnce()) {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal.clone()), what);
    }

    #[test]
    fn a_stuck_journal_holds_nobody_up_and_gets_in_order_what_fits() {
        let (stuck, journal) = journal();
        let text = "x".repeat(1000);
        let began = Instant::now();
        logging_to(&journal, || (0..3000).for_each(|number| tracing::info!("{number} {text}")));
        assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
        assert!(journal.0.backlog().bytes <= MAX_WAITING);
        let began = Instant::now();
        journal.flush(Duration::from_millis(100));
        let took = began.elapsed();
        assert!((100..1000).contains(&took.as_millis()), "the end waits for it, but not for long: {took:?}");

        let mut heard: Vec<String> = std::iter::from_fn(|| stuck.next()).collect();
        let last = heard.pop().expect("something");
        assert!(heard.len() > 900, "{}", heard.len());
        let numbers = heard.iter().map(|line| {
            let number = line.split("message=").nth(1).and_then(|rest| rest.split(' ').next());
            number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"))
        });
        let numbers: Vec<u32> = numbers.collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        let lost = 3000 - heard.len();
        assert!(last.contains(&format!("message={lost} lines before this one are missing")), "{last}");
        assert!(last.contains("from=foxxy-bridge\npriority=Warning\n") && !last.contains("place="), "{last}");

        let began = Instant::now();
        journal.flush(Duration::from_secs(5));
        assert!(began.elapsed() < Duration::from_secs(1), "nothing is left to wait for");
        logging_to(&journal, || tracing::info!("again"));
        assert!(stuck.next().expect("a line").ends_with("message=again\n"));
    }

    #[test]
    fn the_lines_lost_while_nobody_listened_are_counted_once_somebody_does() {
        let (journald, journal) = journal();
        logging_to(&journal, || tracing::info!("heard before"));
        assert!(journald.next().expect("a line").ends_with("message=heard before\n"));
        journal.flush(Duration::from_secs(5));
        journald.listen(false);
        logging_to(&journal, || {
            tracing::info!("unheard");
            tracing::info!("unheard");
        });
        journal.flush(Duration::from_secs(5));
        journald.listen(true);
        logging_to(&journal, || tracing::info!("heard"));
        assert!(journald.next().expect("a line").ends_with("message=heard\n"));
        assert!(journald.next().expect("a line").contains("message=2 lines before"));
    }

    #[test]
    fn the_fields_of_an_event_arrive_and_are_bounded() {
        let (heard, journal) = journal();
        let long = "é".repeat(LONGEST);
        let place = format!("place={}:{}\n", file!(), line!() + 2);
        logging_to(&journal, || {
            tracing::warn!(upstream = "time", session = "abc", request_id = long, id = 5_u64, "{long}");
            tracing::info!(target: CHILD, upstream = "time", priority = Some(5_u8), "hello");
            tracing::info!(target: CHILD, upstream = "time", priority = None::<u8>, "hello");
        });
        let bridges = heard.next().expect("a line");
        assert!(bridges.len() < LONGEST + 2 * LONGEST_FIELD, "{}", bridges.len());
        for field in ["from=foxxy-bridge\npriority=Warning\n", &place, "\nupstream=time\n", "\nsession=abc\n"]
        {
            assert!(bridges.contains(field), "{field}");
        }
        assert!(bridges.contains("\nrequest_id=é") && bridges.contains("\nid=5\n"));
        assert_eq!(
            heard.next().expect("a line"),
            "from=foxxy-bridge/time\npriority=Notice\nmessage=hello\nupstream=time\n"
        );
        assert!(heard.next().expect("a line").contains("\npriority=Informational\n"));
    }
}
