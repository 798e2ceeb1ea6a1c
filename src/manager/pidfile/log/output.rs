//! Where the supervisor writes what the bridge says.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::file::LogFile;
use super::own;
use crate::host::log::Level;
use crate::host::log::line::{Head, INDENT};

/// Pieces of text that may wait for whoever reads a stream.
const MAX_WAITING: usize = 32;

/// Where entries go.
#[derive(Debug)]
pub(crate) enum Output {
    /// To a log file.
    File(LogFile),
    /// To a stream: standard output in a container.
    Stream(Stream),
    /// To both: a log file, and standard error for the journal.
    Both(LogFile, Stream),
}

impl Output {
    /// Writes whole entries. Never waits for who reads a stream.
    pub(crate) fn write(&mut self, entries: &str) {
        match self {
            Self::File(file) => file.write(entries.as_bytes()),
            Self::Stream(stream) => stream.write(entries),
            Self::Both(file, stream) => {
                file.write(entries.as_bytes());
                stream.write(entries);
            }
        }
    }

    /// Writes an entry of this process's own.
    pub(crate) fn say(&mut self, level: Level, message: &str) {
        self.write(&own(level, message));
    }

    /// Opens the log file anew, if there is one.
    ///
    /// # Errors
    /// As [`LogFile::reopen`].
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) | Self::Both(file, _) => file.reopen(),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Waits until a stream has taken what was written, but not longer than that.
    pub(crate) fn flush(&self, within: Duration) {
        if let Self::Stream(stream) | Self::Both(_, stream) = self {
            stream.flush(within);
        }
    }
}

/// A stream that somebody reads, or does not: a thread writes to it.
#[derive(Debug)]
pub(crate) struct Stream {
    thread: SyncSender<Order>,
    /// Whether each line begins with its priority (sd-daemon(3)).
    is_prefixed: bool,
    /// Entries that were not taken, since this was last told.
    lost: usize,
}

#[derive(Debug)]
enum Order {
    Write(String),
    /// To say when it has come so far.
    Tell(SyncSender<()>),
}

impl Stream {
    /// Standard output, as it is.
    ///
    /// # Errors
    /// From the system, which has no thread for it.
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::to(io::stdout(), false)
    }

    /// Standard error, with priorities.
    ///
    /// # Errors
    /// As [`Stream::stdout`].
    pub(crate) fn stderr() -> io::Result<Self> {
        Self::to(io::stderr(), true)
    }

    fn to(stream: impl Write + Send + 'static, is_prefixed: bool) -> io::Result<Self> {
        let (thread, orders) = sync_channel(MAX_WAITING);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || carry_out(&orders, stream))?;
        Ok(Self { thread, is_prefixed, lost: 0 })
    }

    fn write(&mut self, entries: &str) {
        let mut text = String::new();
        if self.lost > 0 {
            text = format!("{} lines before this one are missing: nobody took them", self.lost);
            text = own(Level::Warning, &text);
        }
        text.push_str(entries);
        if self.is_prefixed {
            text = prefixed(&text);
        }
        match self.thread.try_send(Order::Write(text)) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost += entries.lines().filter(|line| !line.starts_with(INDENT)).count();
            }
        }
    }

    fn flush(&self, within: Duration) {
        let (told, done) = sync_channel(1);
        if self.thread.try_send(Order::Tell(told)).is_ok() {
            // Whatever is left after that time is lost.
            let _ = done.recv_timeout(within);
        }
    }
}

fn carry_out(orders: &Receiver<Order>, mut stream: impl Write) {
    while let Ok(order) = orders.recv() {
        match order {
            // It may be closed, and there is no other place to say so.
            Order::Write(text) => drop(stream.write_all(text.as_bytes()).and_then(|()| stream.flush())),
            Order::Tell(told) => drop(told.try_send(())),
        }
    }
}

/// Those entries with the priority of each before each of its lines.
fn prefixed(entries: &str) -> String {
    let mut text = String::new();
    let mut priority = Level::Info.priority();
    for line in entries.split_terminator('\n') {
        priority = Head::parse(line).map_or(priority, |head| head.line.priority);
        text.push_str(&format!("<{priority}>{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn the_journal_is_told_the_priority_of_each_line() {
        let text = own(Level::Error, "one\ntwo") + &own(Level::Debug, "three");
        let begins: Vec<_> = prefixed(&text).lines().map(|line| line[..8].to_owned()).collect();
        let year = &text[..5];
        assert_eq!(begins, [format!("<3>{year}"), "<3>    t".to_owned(), format!("<7>{year}")]);
    }

    #[test]
    fn who_does_not_read_holds_nobody_up_and_is_told_what_is_missing() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::Stream(Stream::to(writer, false).unwrap());
        let text = "x".repeat(100_000);
        (0..50).for_each(|_| output.say(Level::Info, &text));
        output.flush(Duration::from_millis(50));
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let heard = lines.by_ref().take(5).count();
        let again = || {
            // As long as there is no room, it is one more that is missing.
            output.say(Level::Info, "again");
            output.flush(Duration::from_millis(50));
        };
        let rest = std::thread::spawn(move || lines.collect::<Vec<_>>());
        std::iter::repeat_with(again).take(20).for_each(drop);
        drop(output);
        let rest = rest.join().unwrap();
        let missing = rest.iter().filter_map(|line| {
            let told = line.strip_suffix(" lines before this one are missing: nobody took them")?;
            told.rsplit(' ').next()?.parse::<usize>().ok()
        });
        let missing: Vec<_> = missing.collect();
        assert!(missing.iter().sum::<usize>() >= 50 - MAX_WAITING - 2, "{missing:?}");
        assert_eq!(heard + rest.len() - missing.len() + missing.iter().sum::<usize>(), 50 + 20);
        assert!(rest.last().unwrap().ends_with(": again"));
    }
}
