//! The journal as a destination of lines: `tracing-journald`, which waits for as long as journald takes nothing.

use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::callsite::{DefaultCallsite, Identifier};
use tracing::field::{Field, FieldSet, Value};
use tracing::metadata::Kind;
use tracing::{Event, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};

use super::queue::{Destination, Queue, Record};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
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

/// Of lines without a place in the code.
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

/// The journal, with what writes the lines of one origin.
struct Journal<W, O> {
    open: O,
    /// Kept while lines of one origin follow each other, and no longer: whether anybody listens shows when it is
    /// opened, not when it writes. So there is never more than one, however many upstreams there are.
    writer: Option<(Origin, W)>,
}

/// Who speaks, and how urgently: what the library has fixed for all that one of its layers writes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    identifier: String,
    priority: Priority,
}

/// The way to this machine's journal, for the lines of an instance.
pub(super) fn open(instance: &str) -> io::Result<Queue> {
    // Whether anybody listens; this asks without waiting.
    UnixDatagram::unbound()?.connect(SOCKET)?;
    let instance = instance.to_owned();
    through(move |origin| writer(&instance, origin))
}

/// Lines go to what `open` makes for their origin.
fn through<W: Subscriber + Send>(
    open: impl Fn(&Origin) -> io::Result<W> + Send + 'static,
) -> io::Result<Queue> {
    Queue::start("journal", Journal { open, writer: None })
}

impl<W, O> Destination for Journal<W, O>
where
    W: Subscriber + Send,
    O: Fn(&Origin) -> io::Result<W> + Send + 'static,
{
    const TARGET: &str = "journal";
    const LOSS: &str = "the journal did not take them";

    fn take(&mut self, record: &Record) -> bool {
        let priority = PRIORITIES.get(usize::from(record.priority)).copied();
        let origin = Origin {
            identifier: record.identifier.clone(),
            priority: priority.unwrap_or(Priority::Informational),
        };
        let kept = self.writer.take().filter(|(kept, _)| *kept == origin);
        self.writer = kept.or_else(|| (self.open)(&origin).ok().map(|writer| (origin, writer)));
        if let Some((_, writer)) = &self.writer {
            write(record, writer);
        }
        self.writer.is_some()
    }

    fn rest(&mut self) {
        self.writer = None;
    }
}

/// Makes an event of it once more.
fn write(record: &Record, to: &impl Subscriber) {
    let metadata = record.place.unwrap_or(&PLACELESS);
    let fields = metadata.fields();
    let value = |field: Field| record.texts.get(field.name()).map(|text| text as &dyn Value);
    let values: Vec<_> = fields.iter().map(value).collect();
    to.event(&Event::new(metadata, &fields.value_set_all(&values)));
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
    use std::fmt::{self, Write as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::{Duration, Instant};

    use tracing::field::Visit;
    use tracing_subscriber::layer::{Context, Layer};

    use super::super::CHILD;
    use super::super::queue::{LONGEST, LONGEST_FIELD, MAX_WAITING};
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

    fn journal() -> (Stuck, Queue) {
        let (give, taken) = sync_channel(0);
        let listening = Arc::new(AtomicBool::new(true));
        let stuck = Stuck { taken, listening: Arc::clone(&listening) };
        let journal = through(move |origin| {
            if !listening.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let origin = format!("from={}\npriority={:?}\n", origin.identifier, origin.priority);
            Ok(tracing_subscriber::registry().with(Giver(origin, give.clone())))
        });
        (stuck, journal.expect("a thread"))
    }

    /// Does that while what is logged goes to the journal.
    fn logging_to(journal: &Queue, what: impl FnOnce()) {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal.clone()), what);
    }

    #[test]
    fn a_stuck_journal_holds_nobody_up_and_gets_in_order_what_fits() {
        let (stuck, journal) = journal();
        let text = "x".repeat(1000);
        let began = Instant::now();
        logging_to(&journal, || (0..3000).for_each(|number| tracing::info!("{number} {text}")));
        assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
        assert!(journal.waiting() <= MAX_WAITING);
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
