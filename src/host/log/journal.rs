//! The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of fields for each line.
//!
//! Whoever logs never waits for journald. A line is sent at once, and where journald does not take it, as when it is
//! busy or hangs, it is put in a queue that a thread hands over. What does not fit into the queue is counted, and the
//! count told once journald takes lines again.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{CHILD, IDENTIFIER, Level, shortened};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes that may wait for journald.
const MAX_WAITING: usize = 1 << 20;
/// Bytes of a line's text; one datagram holds them, and all else, on every kernel.
const LONGEST: usize = 32 << 10;
/// Bytes of any other field.
const LONGEST_FIELD: usize = 256;
/// How often the thread that waits for journald looks up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the journal.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Sender>);

#[derive(Debug)]
struct Sender {
    /// One that never waits.
    socket: UnixDatagram,
    to: PathBuf,
    instance: String,
    backlog: Mutex<Backlog>,
    /// Told when the backlog is gone.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Vec<u8>>,
    /// Of those that wait.
    bytes: usize,
    /// Whether a thread is handing them over; until it is done no line may overtake them.
    draining: bool,
    /// Lines that nobody will see, since this was last told.
    lost: u64,
}

impl Journal {
    /// The way to this machine's journal, for the lines of an instance.
    pub(super) fn open(instance: &str) -> io::Result<Self> {
        Self::to(Path::new(SOCKET), instance)
    }

    fn to(path: &Path, instance: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // journald passes over a datagram with nothing in it; that nobody listens shows.
        match socket.send_to(&[], path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let (instance, to) = (instance.to_owned(), path.to_owned());
        let sender = Sender { socket, to, instance, backlog: Mutex::default(), empty: Condvar::new() };
        Ok(Self(Arc::new(sender)))
    }

    /// Waits until nothing waits any more.
    pub(super) fn flush(&self, within: Duration) {
        let backlog = self.0.backlog();
        // Whatever is left after that time is lost.
        let _ = self.0.empty.wait_timeout_while(backlog, within, |backlog| backlog.draining);
    }

    /// Sends one datagram, now or later.
    fn send(&self, datagram: Vec<u8>) {
        let sender = &self.0;
        let mut backlog = sender.backlog();
        if !backlog.draining {
            match sender.socket.send_to(&datagram, &sender.to) {
                Ok(_) if backlog.lost == 0 => return,
                Ok(_) => return sender.tell_lost(&mut backlog),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    backlog.lost += 1;
                    return;
                }
            }
        }
        if backlog.bytes + datagram.len() > MAX_WAITING {
            backlog.lost += 1;
            return;
        }
        backlog.bytes += datagram.len();
        backlog.waiting.push_back(datagram);
        if !backlog.draining {
            let own = Arc::clone(sender);
            let thread = std::thread::Builder::new().name("journal".to_owned());
            backlog.draining = thread.spawn(move || own.drain()).is_ok();
            if !backlog.draining {
                backlog.forget();
            }
        }
    }
}

impl Sender {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what waits, however long journald takes.
    fn drain(&self) {
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.set_write_timeout(Some(PATIENCE)).map(|()| socket));
        let Ok(socket) = socket else {
            let mut backlog = self.backlog();
            backlog.forget();
            return self.drained(&mut backlog);
        };
        loop {
            // With it, how many lines are lost when it is.
            let (next, lines) = {
                let mut backlog = self.backlog();
                match backlog.waiting.pop_front() {
                    Some(next) => {
                        backlog.bytes -= next.len();
                        (next, 1)
                    }
                    None if backlog.lost > 0 => {
                        let lost = backlog.lost;
                        (self.take_lost(&mut backlog), lost)
                    }
                    None => return self.drained(&mut backlog),
                }
            };
            let sent = loop {
                match socket.send_to(&next, &self.to) {
                    // Not a failure yet: journald may be stopped, or very busy.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    sent => break sent,
                }
            };
            if sent.is_err() {
                // Nobody listens: there is nothing to wait for.
                let mut backlog = self.backlog();
                backlog.lost += lines;
                backlog.forget();
                return self.drained(&mut backlog);
            }
        }
    }

    fn drained(&self, backlog: &mut Backlog) {
        backlog.draining = false;
        self.empty.notify_all();
    }

    /// Says how many lines are missing from the journal, if that can be said at once.
    fn tell_lost(&self, backlog: &mut Backlog) {
        let lost = backlog.lost;
        let told = self.take_lost(backlog);
        if self.socket.send_to(&told, &self.to).is_err() {
            backlog.lost = lost;
        }
    }

    /// The line that says how many are missing.
    fn take_lost(&self, backlog: &mut Backlog) -> Vec<u8> {
        let lost = std::mem::take(&mut backlog.lost);
        let mut line = Datagram::new(Level::Warning.priority(), IDENTIFIER, &self.instance);
        line.put(
            "MESSAGE",
            &format!("{lost} lines before this one are missing: the journal did not take them"),
        );
        line.0
    }
}

impl Backlog {
    /// Gives up what waits.
    fn forget(&mut self) {
        self.lost += self.waiting.len() as u64;
        self.waiting.clear();
        self.bytes = 0;
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let of_child = metadata.target() == CHILD;
        let priority = fields.priority.unwrap_or(Level::from(*metadata.level()).priority());
        let identifier = match (of_child, &fields.upstream) {
            (true, Some(upstream)) => format!("{IDENTIFIER}/{upstream}"),
            _ => IDENTIFIER.to_owned(),
        };
        let mut line = Datagram::new(priority, &identifier, &self.0.instance);
        line.put("MESSAGE", &shortened(fields.message, LONGEST));
        if let Some(upstream) = fields.upstream {
            line.put("UPSTREAM", &shortened(upstream, LONGEST_FIELD));
        }
        for (name, value) in fields.others {
            line.put(&name.replace('.', "_").to_ascii_uppercase(), &shortened(value, LONGEST_FIELD));
        }
        // Where a child's line passes through the bridge is of no use to anybody.
        if let (false, Some(file), Some(number)) = (of_child, metadata.file(), metadata.line()) {
            line.put("CODE_FILE", file);
            line.put("CODE_LINE", &number.to_string());
        }
        self.send(line.0);
    }
}

/// The fields of one line, as they go over the wire.
struct Datagram(Vec<u8>);

impl Datagram {
    fn new(priority: u8, identifier: &str, instance: &str) -> Self {
        let mut datagram = Self(Vec::with_capacity(512));
        datagram.put("PRIORITY", &priority.to_string());
        datagram.put("SYSLOG_IDENTIFIER", identifier);
        datagram.put("INSTANCE", instance);
        datagram
    }

    fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

/// What an event has in it.
#[derive(Default)]
struct Fields {
    message: String,
    upstream: Option<String>,
    priority: Option<u8>,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "priority" => self.priority = u8::try_from(value).ok(),
            name => self.others.push((name, value.to_string())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            "upstream" => self.upstream = Some(value.to_owned()),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // Writing to a String does not fail.
            "message" => drop(write!(self.message, "{value:?}")),
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A journal that takes nothing by itself, and the way to it.
    fn journal(folder: &Path) -> (UnixDatagram, Journal) {
        let path = folder.join("socket");
        let stuck = UnixDatagram::bind(&path).expect("a socket");
        stuck.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let journal = Journal::to(&path, "work").expect("it listens");
        (stuck, journal)
    }

    fn next(from: &UnixDatagram) -> Option<String> {
        let mut buffer = vec![0; LONGEST * 2];
        let count = from.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    fn line(text: &str) -> Vec<u8> {
        let mut line = Datagram::new(6, IDENTIFIER, "work");
        line.put("MESSAGE", text);
        line.0
    }

    #[test]
    fn a_stuck_journal_holds_nobody_up_and_gets_in_order_what_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stuck, journal) = journal(folder.path());
        let text = "x".repeat(1000);
        let began = Instant::now();
        for number in 0..3000 {
            journal.send(line(&format!("{number} {text}")));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
        assert!(journal.0.backlog().bytes <= MAX_WAITING);

        let mut heard: Vec<String> = std::iter::from_fn(|| next(&stuck)).collect();
        assert_eq!(heard.remove(0), "", "whether anybody listens was asked first");
        let last = heard.pop().expect("something");
        assert!(heard.len() > 900, "{}", heard.len());
        let numbers = heard.iter().map(|line| {
            let number = line.split("MESSAGE=").nth(1).and_then(|rest| rest.split(' ').next());
            number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"))
        });
        let numbers: Vec<u32> = numbers.collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        let lost = 3000 - heard.len();
        assert!(last.contains(&format!("MESSAGE={lost} lines before this one are missing")), "{last}");

        journal.flush(Duration::from_secs(5));
        assert!(!journal.0.backlog().draining);
        journal.send(line("again"));
        assert!(next(&stuck).expect("a line").contains("MESSAGE=again\n"));
    }

    #[test]
    fn the_lines_lost_while_nobody_listened_are_counted_once_somebody_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let (gone, journal) = journal(folder.path());
        drop(gone);
        std::fs::remove_file(folder.path().join("socket")).expect("it was there");
        journal.send(line("unheard"));
        journal.send(line("unheard"));
        let again = UnixDatagram::bind(folder.path().join("socket")).expect("a socket");
        journal.send(line("heard"));
        assert!(next(&again).expect("a line").contains("MESSAGE=heard\n"));
        assert!(next(&again).expect("a line").contains("MESSAGE=2 lines before"));
    }

    #[test]
    fn a_line_break_in_a_value_begins_no_other_field() {
        let mut line = Datagram(Vec::new());
        line.put("MESSAGE", "a\nPRIORITY=0");
        assert_eq!(line.0, b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
        line.0.clear();
        line.put("MESSAGE", "a = b");
        assert_eq!(line.0, b"MESSAGE=a = b\n");
    }

    #[test]
    fn the_fields_of_an_event_arrive_and_are_bounded() {
        use tracing_subscriber::layer::SubscriberExt as _;

        let folder = tempfile::tempdir().expect("a folder");
        let (heard, journal) = journal(folder.path());
        next(&heard).expect("the first question");
        let subscriber = tracing_subscriber::registry().with(journal);
        let long = "é".repeat(LONGEST);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(upstream = "time", session = "abc", request_id = long, "{long}");
            tracing::info!(target: CHILD, upstream = "time", priority = Some(5_u8), "hello");
            tracing::info!(target: CHILD, upstream = "time", priority = None::<u8>, "hello");
        });
        let bridges = next(&heard).expect("a line");
        assert!(bridges.len() < LONGEST + 2 * LONGEST_FIELD, "{}", bridges.len());
        for field in
            ["PRIORITY=4\n", "SYSLOG_IDENTIFIER=foxxy-bridge\n", "INSTANCE=work\n", "UPSTREAM=time\n"]
        {
            assert!(bridges.contains(field), "{field}");
        }
        assert!(bridges.contains("SESSION=abc\n") && bridges.contains("REQUEST_ID=é"));
        assert!(bridges.contains("CODE_FILE=src/host/log/journal.rs\nCODE_LINE="));
        let childs = next(&heard).expect("a line");
        for field in
            ["PRIORITY=5\n", "SYSLOG_IDENTIFIER=foxxy-bridge/time\n", "UPSTREAM=time\n", "MESSAGE=hello\n"]
        {
            assert!(childs.contains(field), "{field} {childs}");
        }
        assert!(!childs.contains("CODE_"), "{childs}");
        assert!(next(&heard).expect("a line").contains("PRIORITY=6\n"));
    }
}
