//! What an instance has logged, read from its log files.
//!
//! The files are turned over meanwhile, and moved away by others. So each is known by what it is, not by its name, and
//! is held open: as long as it is, no other can be taken for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use memchr::memchr;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::file::numbered;
use super::when;
use crate::host::log::Level;
use crate::host::log::line::{Line, Parser, Piece};
use crate::manager::{Entry, Error, LogQuery, LogStream};

/// How often it is looked for more.
const POLL: Duration = Duration::from_millis(200);
/// How long an entry of which there is only a part is waited for, and how often.
const PATIENCE: (Duration, u32) = (Duration::from_millis(50), 4);
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Bytes of a line; nobody who writes our files writes longer ones.
const LONGEST: usize = 1 << 20;
/// How many numbers may be free between two old files.
const GAP: u32 = 2;

/// What an instance has logged, oldest first.
///
/// # Errors
/// [`Error::BadTime`], and [`Error::File`] for what is there and cannot be read. A missing file is an empty log.
pub(in crate::manager::pidfile) fn stream(file: &Path, query: &LogQuery) -> Result<LogStream, Error> {
    let filter = Filter::of(query)?;
    let lines = query.lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let mut reader = Reader::open(file, filter).map_err(|source| unreadable(file, source))?;
    reader.lines = lines;
    reader.follow = query.follow;
    let entries = futures_util::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(entry)) => Some((Ok(entry), Some(reader))),
            Ok(None) => None,
            Err(source) => Some((Err(unreadable(&reader.path, source)), None)),
        }
    });
    Ok(entries.boxed())
}

/// The last entries since a time in microseconds since 1970, oldest first; none when the log cannot be read.
pub(in crate::manager::pidfile) fn last_words(file: &Path, since: u64, lines: usize) -> Vec<Entry> {
    let filter = Filter { since, ..Filter::default() };
    let last = Reader::open(file, filter).and_then(|mut reader| {
        reader.read_last(lines)?;
        reader.finish(lines);
        Ok(reader.ready)
    });
    last.unwrap_or_default().into()
}

/// An entry as it was read.
pub(super) fn entry(line: Line) -> Entry {
    Entry {
        time: line.time,
        priority: line.priority,
        upstream: line.upstream,
        session: line.session,
        request: line.request,
        message: line.message,
        identifier: Some(line.identifier),
        pid: Some(line.pid),
    }
}

fn unreadable(file: &Path, source: io::Error) -> Error {
    Error::File { action: format!("read {}", file.display()), source }
}

/// Which entries are wanted.
#[derive(Debug, Clone)]
struct Filter {
    since: u64,
    until: u64,
    upstream: Option<String>,
    priority: u8,
}

impl Default for Filter {
    fn default() -> Self {
        Self { since: 0, until: u64::MAX, upstream: None, priority: u8::MAX }
    }
}

impl Filter {
    fn of(query: &LogQuery) -> Result<Self, Error> {
        let now = jiff::Zoned::now();
        let time = |text: &Option<String>| text.as_deref().map(|text| when::parse(text, &now)).transpose();
        let since = time(&query.since)?.unwrap_or(0);
        let until = time(&query.until)?.unwrap_or(u64::MAX);
        if since > until {
            return Err(Error::BadTime { detail: "--since is later than --until".into() });
        }
        let priority = query.priority.unwrap_or(u8::MAX);
        Ok(Self { since, until, upstream: query.upstream.clone(), priority })
    }

    fn wants(&self, entry: &Entry) -> bool {
        (self.since..=self.until).contains(&entry.time)
            && entry.priority <= self.priority
            && self.upstream.as_ref().is_none_or(|upstream| entry.upstream.as_ref() == Some(upstream))
    }
}

/// One file as far as it has been read.
#[derive(Debug)]
struct Part {
    file: File,
    id: (u64, u64),
    offset: u64,
    /// The beginning of a line.
    rest: Vec<u8>,
    parser: Parser,
    /// Of the last entry.
    time: u64,
}

impl Part {
    /// None when there is no plain file of that name.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        // A pipe would be waited for, and a link is none of ours.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        let id = (found.dev(), found.ino());
        let part = Self { file, id, offset: 0, rest: Vec::new(), parser: Parser::default(), time: 0 };
        Ok(found.is_file().then_some(part))
    }

    /// Reads on and hands over the entries that have become whole; false when there was nothing to read.
    fn read(&mut self, take: &mut impl FnMut(Entry)) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        let count = self.file.read_at(&mut chunk, self.offset)?;
        if count == 0 {
            if self.file.metadata()?.len() < self.offset {
                // It was emptied. What was in it and not read is gone.
                self.offset = 0;
                self.rest.clear();
                self.parser = Parser::default();
            }
            return Ok(false);
        }
        self.offset += count as u64;
        let mut bytes = &chunk[..count];
        while let Some(end) = memchr(b'\n', bytes) {
            self.rest.extend_from_slice(&bytes[..end]);
            self.take_line(take);
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LONGEST {
            self.take_line(take);
        }
        Ok(true)
    }

    fn take_line(&mut self, take: &mut impl FnMut(Entry)) {
        let text = String::from_utf8_lossy(&self.rest);
        for piece in self.parser.take(&text) {
            match piece {
                Piece::Entry(line) => {
                    self.time = line.time;
                    take(entry(line));
                }
                // What a supervisor that was killed, or somebody else, has left; it is of about that time.
                Piece::Stray(text) if !text.trim().is_empty() && self.time > 0 => take(Entry {
                    time: self.time,
                    priority: Level::Info.priority(),
                    message: text,
                    ..Entry::default()
                }),
                Piece::Stray(_) => {}
            }
        }
        self.rest.clear();
    }

    /// Whether an entry has been read only in part.
    fn is_partial(&self) -> bool {
        !self.rest.is_empty() || self.parser.is_open()
    }

    /// Hands over what is left, as nothing more will come.
    fn end(&mut self, take: &mut impl FnMut(Entry)) {
        if !self.rest.is_empty() {
            self.take_line(take);
        }
        if let Some(line) = self.parser.end() {
            take(entry(line));
        }
    }

    fn is_begun(&self) -> io::Result<bool> {
        Ok(self.offset > 0 || self.file.metadata()?.len() > 0)
    }
}

/// All files of a log, the newest first.
fn parts(path: &Path) -> io::Result<Vec<Part>> {
    list(|number| if number == 0 { Part::open(path) } else { Part::open(&numbered(path, number)) })
}

fn list(mut open: impl FnMut(u32) -> io::Result<Option<Part>>) -> io::Result<Vec<Part>> {
    // In this order none is missed: a file only ever gets a higher number.
    let mut parts: Vec<Part> = Vec::new();
    let mut free = 0;
    let mut number = 0;
    while free <= GAP {
        match open(number)? {
            Some(part) => {
                // It may have been seen under a lower number before: then newer ones have come since.
                parts.retain(|seen| seen.id != part.id);
                parts.push(part);
                free = 0;
            }
            None => free += u32::from(number > 0),
        }
        number += 1;
    }
    Ok(parts)
}

/// The log as far as it has been read.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    filter: Filter,
    follow: bool,
    /// How many of the last entries are wanted, before these have been read.
    lines: Option<usize>,
    /// All files that were there last time, the oldest first.
    parts: Vec<Part>,
    /// The one that is read: those before it have been.
    at: usize,
    /// Whether it has been seen that a newer one is begun, so that nothing more comes into this one.
    is_sealed: bool,
    ready: VecDeque<Entry>,
}

impl Reader {
    fn open(path: &Path, filter: Filter) -> io::Result<Self> {
        let mut parts = parts(path)?;
        parts.reverse();
        Ok(Self {
            path: path.to_owned(),
            filter,
            follow: false,
            lines: None,
            parts,
            at: 0,
            is_sealed: false,
            ready: VecDeque::new(),
        })
    }

    async fn next(&mut self) -> io::Result<Option<Entry>> {
        if let Some(lines) = self.lines.take() {
            self.read_last(lines)?;
            if !self.follow {
                let (pause, mut left) = PATIENCE;
                while left > 0 && self.is_partial() {
                    tokio::time::sleep(pause).await;
                    while self.read()? {}
                    left -= 1;
                }
                self.finish(lines);
            }
        }
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.read()? {
                // There may be a lot of it, none of it wanted.
                tokio::task::yield_now().await;
            } else if self.leave()? {
                // The next one is read.
                continue;
            } else if self.follow {
                tokio::time::sleep(POLL).await;
                self.look_again()?;
            } else if self.at < self.parts.len() {
                let (pause, mut left) = PATIENCE;
                while left > 0 && self.is_partial() && !self.read()? {
                    tokio::time::sleep(pause).await;
                    left -= 1;
                }
                if left == 0 || !self.is_partial() {
                    self.turn();
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// Reads on in the file that is read.
    fn read(&mut self) -> io::Result<bool> {
        let Some(part) = self.parts.get_mut(self.at) else { return Ok(false) };
        part.read(&mut |entry| {
            if self.filter.wants(&entry) {
                self.ready.push_back(entry);
            }
        })
    }

    fn is_partial(&self) -> bool {
        self.parts.get(self.at).is_some_and(Part::is_partial)
    }

    /// Whether a file after the one that is read is begun.
    fn has_newer(&self) -> io::Result<bool> {
        for part in self.parts.iter().skip(self.at + 1) {
            if part.is_begun()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves a file that has been read to its end, if a newer one is begun; false if none is.
    fn leave(&mut self) -> io::Result<bool> {
        if !self.has_newer()? {
            return Ok(false);
        }
        // Something may have come into it just before the newer one was begun: it is read once more.
        if self.is_sealed {
            self.turn();
        }
        self.is_sealed = !self.is_sealed;
        Ok(true)
    }

    /// Goes on to the next file.
    fn turn(&mut self) {
        if let Some(part) = self.parts.get_mut(self.at) {
            part.end(&mut |entry| {
                if self.filter.wants(&entry) {
                    self.ready.push_back(entry);
                }
            });
            self.at += 1;
        }
    }

    /// Finds files that are new, and forgets those that have been read and are gone.
    fn look_again(&mut self) -> io::Result<()> {
        let mut found = parts(&self.path)?;
        found.reverse();
        let mut number = 0;
        let at = self.at;
        self.parts.retain(|part| {
            let is_kept = number >= at || found.iter().any(|found| found.id == part.id);
            number += 1;
            self.at -= usize::from(!is_kept);
            is_kept
        });
        found.retain(|found| !self.parts.iter().any(|part| part.id == found.id));
        self.parts.append(&mut found);
        Ok(())
    }

    /// Reads the last entries of that number that are wanted, in the newest files that have them.
    fn read_last(&mut self, lines: usize) -> io::Result<()> {
        let mut last: Option<usize> = None;
        for (at, part) in self.parts.iter_mut().enumerate().rev() {
            let mut entries = VecDeque::new();
            let missing = lines - self.ready.len();
            let mut keep = |entry| {
                if self.filter.wants(&entry) {
                    entries.push_back(entry);
                    if entries.len() > missing {
                        entries.pop_front();
                    }
                }
            };
            while part.read(&mut keep)? {}
            if last.is_some() {
                // A newer one is begun, so that this is all.
                part.end(&mut keep);
            } else if part.offset > 0 {
                last = Some(at);
            }
            entries.append(&mut self.ready);
            self.ready = entries;
            if last.is_some() && self.ready.len() >= lines {
                break;
            }
        }
        // The ones after it are empty.
        self.at = last.unwrap_or(0);
        Ok(())
    }

    /// Ends with what has been read, and leaves the last entries of that number.
    fn finish(&mut self, lines: usize) {
        self.turn();
        self.at = self.parts.len();
        let excess = self.ready.len().saturating_sub(lines);
        self.ready.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::file::LogFile;
    use super::*;

    const START: u64 = 1_700_000_000_000_000;

    fn query() -> LogQuery {
        LogQuery {
            file: None,
            name: "work".parse().unwrap(),
            follow: false,
            lines: None,
            since: None,
            until: None,
            upstream: None,
            priority: None,
        }
    }

    /// The entry of that number, at that second.
    fn line(number: u64) -> Line {
        let upstream = number.is_multiple_of(2).then(|| "even".to_owned());
        let priority = u8::try_from(number % 8).unwrap();
        Line {
            time: START + number * 1_000_000,
            priority,
            identifier: "foxxy-bridge".into(),
            pid: 7,
            upstream,
            message: if number.is_multiple_of(5) {
                format!("{number}\n{number}")
            } else {
                number.to_string()
            },
            ..Line::default()
        }
    }

    fn text(numbers: std::ops::Range<u64>) -> String {
        numbers.map(|number| line(number).to_string()).collect()
    }

    struct Log {
        folder: tempfile::TempDir,
    }

    impl Log {
        /// Three files with forty entries each, the first of them number 0.
        fn new() -> Self {
            let log = Self { folder: tempfile::tempdir().unwrap() };
            fs::write(numbered(&log.path(), 2), text(0..40)).unwrap();
            fs::write(numbered(&log.path(), 1), text(40..80)).unwrap();
            fs::write(log.path(), text(80..120)).unwrap();
            log
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("x.log")
        }

        fn append(&self, text: &str) {
            File::options()
                .append(true)
                .create(true)
                .open(self.path())
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }

        async fn read(&self, query: &LogQuery) -> Vec<u64> {
            let entries: Vec<_> = stream(&self.path(), query).unwrap().collect().await;
            entries.into_iter().map(|entry| number(&entry.unwrap())).collect()
        }
    }

    /// The number of an entry that is as it was written.
    fn number(found: &Entry) -> u64 {
        let number = (found.time - START) / 1_000_000;
        assert_eq!(*found, entry(line(number)));
        number
    }

    async fn next(stream: &mut LogStream) -> Option<Entry> {
        tokio::time::timeout(Duration::from_secs(2), stream.next()).await.ok()?.map(Result::unwrap)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[tokio::test]
    async fn all_files_are_read_in_order() {
        let log = Log::new();
        assert_eq!(log.read(&query()).await, (0..120).collect::<Vec<_>>());
        fs::remove_file(numbered(&log.path(), 1)).unwrap();
        assert_eq!(log.read(&query()).await, (0..40).chain(80..120).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_ones_are_found_in_whatever_file_they_are() {
        let log = Log::new();
        for lines in [0, 1, 39, 40, 41, 79, 80, 81, 120, 200] {
            let query = LogQuery { lines: Some(lines), ..query() };
            let first = 120_u64.saturating_sub(lines.into());
            assert_eq!(log.read(&query).await, (first..120).collect::<Vec<_>>(), "{lines}");
        }
        let even = LogQuery { lines: Some(50), upstream: Some("even".into()), ..query() };
        assert_eq!(log.read(&even).await, (20..120).filter(|number| number % 2 == 0).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn entries_are_chosen_by_time_priority_and_upstream() {
        let log = Log::new();
        let at = |number: u64| Some(format!("@{}", START / 1_000_000 + number));
        let query = LogQuery {
            since: at(30),
            until: at(90),
            priority: Some(4),
            upstream: Some("even".into()),
            ..query()
        };
        let expected: Vec<_> = (30..=90).filter(|number| number % 2 == 0 && number % 8 <= 4).collect();
        assert_eq!(log.read(&query).await, expected);
        let last = LogQuery { lines: Some(3), ..query };
        assert_eq!(log.read(&last).await, expected[expected.len() - 3..]);
        let words: Vec<_> = last_words(&log.path(), START + 100_000_000, 30).iter().map(number).collect();
        assert_eq!(words, (100..120).collect::<Vec<_>>());
        assert_eq!(last_words(&log.path(), START, 3).len(), 3);
    }

    #[tokio::test]
    async fn a_missing_file_is_an_empty_log_and_a_bad_time_none() {
        let log = Log { folder: tempfile::tempdir().unwrap() };
        assert_eq!(log.read(&query()).await, [0; 0]);
        assert_eq!(log.read(&LogQuery { lines: Some(5), ..query() }).await, [0; 0]);
        assert_eq!(last_words(&log.path(), 0, 5), []);
        for (since, until) in [("soon", "now"), ("now", "yesterday")] {
            let query = LogQuery { since: Some(since.into()), until: Some(until.into()), ..query() };
            assert!(matches!(stream(&log.path(), &query), Err(Error::BadTime { .. })), "{since}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_torn_is_shown_as_far_as_it_is() {
        let log = Log::new();
        let torn = line(10).to_string();
        log.append(&format!("{}\n{}", &torn[..20], torn.strip_suffix("    10\n").unwrap()));
        let entries: Vec<_> =
            stream(&log.path(), &LogQuery { lines: Some(3), ..query() }).unwrap().collect().await;
        let messages: Vec<_> = entries.into_iter().map(|entry| entry.unwrap().message).collect();
        assert_eq!(messages, ["119", &torn[..20], "10"]);
    }

    #[tokio::test]
    async fn half_an_entry_is_waited_for() {
        let log = Log::new();
        let entry = line(120).to_string();
        for follow in [false, true] {
            fs::write(log.path(), "").unwrap();
            log.append(&entry[..70]);
            let query = LogQuery { lines: Some(1), follow, ..query() };
            let mut stream = stream(&log.path(), &query).unwrap();
            let (found, ()) = tokio::join!(
                async {
                    // Without the one before it, where all is read.
                    let mut found = next(&mut stream).await.unwrap();
                    if follow && number(&found) == 79 {
                        found = next(&mut stream).await.unwrap();
                    }
                    found
                },
                async {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    log.append(&entry[70..entry.len() - 2]);
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    log.append(&entry[entry.len() - 2..]);
                }
            );
            assert_eq!(number(&found), 120);
        }
    }

    #[tokio::test]
    async fn a_log_is_followed_from_before_it_is_there_and_after_it_was_emptied() {
        let log = Log { folder: tempfile::tempdir().unwrap() };
        let mut stream = stream(&log.path(), &LogQuery { follow: true, lines: Some(5), ..query() }).unwrap();
        let (first, ()) = tokio::join!(next(&mut stream), async { log.append(&text(0..2)) });
        assert_eq!(number(&first.unwrap()), 0);
        assert_eq!(number(&next(&mut stream).await.unwrap()), 1);
        // It has to be seen that it is shorter.
        fs::write(log.path(), "").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(500), stream.next()).await.is_err());
        log.append(&text(2..3));
        assert_eq!(number(&next(&mut stream).await.unwrap()), 2);
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_end_though_the_next_one_is_there_already() {
        let log = Log { folder: tempfile::tempdir().unwrap() };
        log.append(&text(0..2));
        let mut stream = stream(&log.path(), &LogQuery { follow: true, ..query() }).unwrap();
        assert_eq!(number(&next(&mut stream).await.unwrap()), 0);
        assert_eq!(number(&next(&mut stream).await.unwrap()), 1);
        // As logrotate does: the writer goes on in the old one until it is told.
        let moved = log.folder.path().join("moved");
        fs::rename(log.path(), &moved).unwrap();
        fs::write(log.path(), "").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(500), stream.next()).await.is_err());
        let old = Log { folder: log.folder };
        let mut file = File::options().append(true).open(&moved).unwrap();
        file.write_all(text(2..4).as_bytes()).unwrap();
        old.append(&text(4..6));
        for expected in 2..6 {
            assert_eq!(number(&next(&mut stream).await.unwrap()), expected);
        }
    }

    #[test]
    fn what_comes_into_a_file_just_before_the_next_one_is_begun_is_read() {
        let log = Log { folder: tempfile::tempdir().unwrap() };
        fs::write(numbered(&log.path(), 1), text(0..1)).unwrap();
        fs::write(log.path(), "").unwrap();
        let mut reader = Reader::open(&log.path(), Filter::default()).unwrap();
        while reader.read().unwrap() {}
        assert!(!reader.leave().unwrap());
        fs::write(numbered(&log.path(), 1), text(0..2)).unwrap();
        log.append(&text(2..3));
        assert!(reader.leave().unwrap());
        while reader.read().unwrap() || reader.leave().unwrap() {}
        assert_eq!(reader.ready.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn files_that_get_other_names_while_they_are_looked_for_are_found_in_order() {
        let log = Log::new();
        let mut parts = list(|number| {
            if number == 1 {
                for (from, to) in [(2, 4), (1, 3)] {
                    fs::rename(numbered(&log.path(), from), numbered(&log.path(), to)).unwrap();
                }
                fs::rename(log.path(), numbered(&log.path(), 2)).unwrap();
                fs::write(numbered(&log.path(), 1), text(120..130)).unwrap();
            }
            let name = if number == 0 { log.path() } else { numbered(&log.path(), number) };
            Part::open(&name)
        })
        .unwrap();
        let mut numbers = Vec::new();
        for part in parts.iter_mut().rev() {
            while part.read(&mut |entry| numbers.push(number(&entry))).unwrap() {}
        }
        assert_eq!(numbers, (0..130).collect::<Vec<_>>());
    }

    #[test]
    fn followers_and_readers_see_each_entry_once_while_files_are_turned_over() {
        const ENTRIES: u64 = 60_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut file = LogFile::open(&path, 50_000, 10_000).unwrap();
        let mut follower = stream(&path, &LogQuery { follow: true, ..query() }).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in (0..ENTRIES).step_by(10) {
                    file.write(text(number..number + 10).as_bytes());
                }
                is_over.store(true, Ordering::SeqCst);
            });
            // Who reads meanwhile sees whole entries, from the first one on, and no gap.
            let reader = scope.spawn(|| {
                let runtime = runtime();
                let mut reads = 0;
                while !is_over.load(Ordering::SeqCst) {
                    let log = stream(&path, &query()).unwrap();
                    let entries: Vec<_> = runtime.block_on(log.collect());
                    let numbers: Vec<_> = entries.into_iter().map(|entry| number(&entry.unwrap())).collect();
                    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
                    let last: Vec<_> = last_words(&path, 0, 20).iter().map(number).collect();
                    assert!(last.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{last:?}");
                    reads += 1;
                }
                reads
            });
            let following = scope.spawn(|| {
                runtime().block_on(async {
                    for expected in 0..ENTRIES {
                        assert_eq!(number(&next(&mut follower).await.expect("more")), expected);
                    }
                });
            });
            let following = following.join();
            is_over.store(true, Ordering::SeqCst);
            following.unwrap();
            assert!(reader.join().unwrap() > 1);
        });
    }
}
