//! From what the bridge writes to its standard error to whole entries of a log file.

use std::collections::VecDeque;

use memchr::memchr;

use super::output::Output;
use super::reader::entry;
use crate::host::log::bounded::Bounded;
use crate::host::log::line::{Head, INDENT, Line, Parser, Piece};
use crate::host::log::{IDENTIFIER, Level, now};
use crate::manager::Entry;

/// Bytes of one line that are logged; of what is longer it is said how much longer it is.
const MAX_LINE: usize = 64 << 10;
/// Bytes of one entry, more or less: what has more lines is taken apart.
const MAX_ENTRY: usize = 256 << 10;
/// Bytes that are written at once, more or less.
const BATCH: usize = 64 << 10;
/// Entries that are remembered.
const REMEMBERED: usize = 20;

/// Takes what one run of the bridge writes.
#[derive(Debug)]
pub(crate) struct Pump {
    pid: u32,
    line: Bounded,
    /// An entry as far as it has come, and how many lines it lacks.
    entry: String,
    missing: usize,
    /// Whole entries that are not written yet.
    batch: String,
    last: VecDeque<String>,
}

impl Pump {
    /// For the run of a bridge in that process.
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            pid,
            line: Bounded::new(MAX_LINE),
            entry: String::new(),
            missing: 0,
            batch: String::new(),
            last: VecDeque::new(),
        }
    }

    /// Takes what was read, however it is cut, and writes what is whole.
    pub(crate) fn feed(&mut self, bytes: &[u8], output: &mut Output) {
        let time = now();
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            self.line.add(&rest[..end]);
            self.take_line(time);
            rest = &rest[end + 1..];
            if self.batch.len() >= BATCH {
                self.write(output);
            }
        }
        self.line.add(rest);
        self.write(output);
    }

    /// Writes what is left, as nothing more will come.
    pub(crate) fn end(&mut self, output: &mut Output) {
        if !self.line.is_empty() {
            self.take_line(now());
        }
        self.cut_short();
        self.write(output);
    }

    /// The last entries, oldest first.
    pub(crate) fn last_words(&self) -> Vec<Entry> {
        let mut parser = Parser::default();
        let pieces =
            self.last.iter().flat_map(|text| text.split_terminator('\n')).flat_map(|line| parser.take(line));
        let entries = pieces.filter_map(|piece| match piece {
            Piece::Entry(line) => Some(entry(line)),
            Piece::Stray(_) => None,
        });
        entries.collect()
    }

    fn take_line(&mut self, time: u64) {
        let text = self.line.take();
        if self.missing > 0 && text.starts_with(INDENT) && self.entry.len() < MAX_ENTRY {
            self.add(&text);
            self.missing -= 1;
        } else {
            self.cut_short();
            match Head::parse(&text) {
                Some(head) => {
                    self.add(&text);
                    self.missing = head.lines.saturating_sub(1);
                }
                None => self.wrap(text.trim_end(), time),
            }
        }
        if self.missing == 0 {
            self.finish();
        }
    }

    fn add(&mut self, line: &str) {
        self.entry.push_str(line);
        self.entry.push('\n');
    }

    /// Makes an entry of what is none: said before logging began, or after it ended.
    fn wrap(&mut self, text: &str, time: u64) {
        if text.is_empty() {
            return;
        }
        let level = if text.starts_with("error: ") { Level::Error } else { Level::Info };
        let line = Line {
            time,
            priority: level.priority(),
            identifier: IDENTIFIER.to_owned(),
            pid: self.pid,
            message: text.to_owned(),
            ..Line::default()
        };
        self.entry.push_str(&line.to_string());
    }

    /// Ends an entry that lacks lines, and has it say how many there are.
    fn cut_short(&mut self) {
        if self.missing == 0 {
            return;
        }
        let mut parser = Parser::default();
        // It is not whole, so that none comes out before its end.
        self.entry.split_terminator('\n').for_each(|line| drop(parser.take(line)));
        if let Some(line) = parser.end() {
            self.entry = line.to_string();
        }
        self.missing = 0;
        self.finish();
    }

    fn finish(&mut self) {
        if self.entry.is_empty() {
            return;
        }
        self.batch.push_str(&self.entry);
        let mut oldest = if self.last.len() == REMEMBERED { self.last.pop_front() } else { None };
        let kept = oldest.get_or_insert_default();
        kept.clear();
        kept.push_str(&self.entry);
        self.last.extend(oldest);
        self.entry.clear();
    }

    fn write(&mut self, output: &mut Output) {
        if !self.batch.is_empty() {
            output.write(&self.batch);
            self.batch.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::super::file::LogFile;
    use super::*;

    const HEAD: &str = "2026-11-24T17:20:01.123456Z INFO  foxxy-bridge[7]";

    struct Log {
        folder: tempfile::TempDir,
        output: Output,
    }

    impl Log {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let output = Output::File(LogFile::open(&folder.path().join("x.log"), 1 << 30, 1).unwrap());
            Self { folder, output }
        }

        fn text(&self) -> String {
            fs::read_to_string(self.folder.path().join("x.log")).unwrap()
        }
    }

    /// What is written of that, when it is read piece by piece.
    fn pumped(pieces: &[&[u8]]) -> (String, Pump) {
        let mut log = Log::new();
        let mut pump = Pump::new(4711);
        pieces.iter().for_each(|piece| pump.feed(piece, &mut log.output));
        pump.end(&mut log.output);
        (log.text(), pump)
    }

    /// Without the times.
    fn bare(text: &str) -> String {
        text.split_inclusive('\n')
            .map(|line| line.get(28..).filter(|_| line.starts_with('2')).unwrap_or(line))
            .collect()
    }

    #[test]
    fn what_is_in_our_form_passes_unchanged_and_what_is_not_is_put_into_it() {
        let ours = format!("{HEAD} later=x lines=2: one \n    two\r\n{HEAD}: three\n");
        let text = format!("error: no config\n  hint: make one\n\n{ours}    at main.rs\n\u{1b}[1mthe end");
        let (written, _) = pumped(&[text.as_bytes()]);
        assert!(written.contains(&ours), "{written}");
        insta::assert_snapshot!(bare(&written).replace(&bare(&ours), "OURS\n").replace('\u{1b}', "ESC"), @r"
        ERROR foxxy-bridge[4711]: error: no config
        INFO  foxxy-bridge[4711]:   hint: make one
        OURS
        INFO  foxxy-bridge[4711]:     at main.rs
        INFO  foxxy-bridge[4711]: ESC[1mthe end
        ");
    }

    #[test]
    fn an_entry_is_written_as_soon_as_it_is_whole_and_not_before() {
        let mut log = Log::new();
        let mut pump = Pump::new(4711);
        pump.feed(format!("{HEAD}: one\n{HEAD} lines=2: two\n").as_bytes(), &mut log.output);
        assert_eq!(log.text(), format!("{HEAD}: one\n"));
        pump.feed(b"    more", &mut log.output);
        assert_eq!(log.text(), format!("{HEAD}: one\n"));
        pump.feed(b"\n", &mut log.output);
        assert_eq!(log.text(), format!("{HEAD}: one\n{HEAD} lines=2: two\n    more\n"));
    }

    #[test]
    fn an_entry_that_is_cut_short_says_how_long_it_is() {
        let (written, pump) =
            pumped(&[format!("{HEAD} lines=4: one\n    two\n{HEAD} lines=3: x\n").as_bytes()]);
        assert_eq!(written, format!("{HEAD} lines=2: one\n    two\n{HEAD}: x\n"));
        let messages: Vec<_> = pump.last_words().into_iter().map(|entry| entry.message).collect();
        assert_eq!(messages, ["one\ntwo", "x"]);
    }

    #[test]
    fn lines_are_bounded_and_text_whatever_they_were() {
        let long = vec![b'x'; MAX_LINE + 5];
        let (written, _) = pumped(&[&long, b"yy\na\xffb\n"]);
        let text = format!("{}… (7 bytes more)\n", "x".repeat(MAX_LINE));
        assert_eq!(
            bare(&written),
            format!("INFO  foxxy-bridge[4711]: {text}INFO  foxxy-bridge[4711]: a\u{fffd}b\n")
        );
        let lines =
            format!("{HEAD} lines=99999999: x\n") + &format!("    {}\n", "x".repeat(10_000)).repeat(1000);
        let mut log = Log::new();
        let mut pump = Pump::new(4711);
        pump.feed(lines.as_bytes(), &mut log.output);
        assert!(pump.entry.len() < MAX_ENTRY + MAX_LINE && log.text().len() > 9_000_000);
    }

    #[test]
    fn the_last_entries_are_remembered() {
        let text: String = (0..50).map(|number| format!("{number}\n")).collect();
        let (_, pump) = pumped(&[text.as_bytes()]);
        let words = pump.last_words();
        let messages: Vec<_> = words.iter().map(|entry| entry.message.parse::<usize>().unwrap()).collect();
        assert_eq!(messages, (30..50).collect::<Vec<_>>());
        assert_eq!((words[0].pid, words[0].identifier.as_deref()), (Some(4711), Some("foxxy-bridge")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn how_it_is_cut_makes_no_difference(
            lines in proptest::collection::vec("(|HEAD: |HEAD lines=3: |    )[a-zé]{0,5}", 0..20),
            at in proptest::collection::vec(0_usize..1000, 0..8),
        ) {
            let text = lines.join("\n").replace("HEAD", HEAD);
            let mut cuts: Vec<_> = at.iter().map(|at| at % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            prop_assert_eq!(bare(&pumped(&pieces).0), bare(&pumped(&[text.as_bytes()]).0));
        }
    }

    /// What happens to a log in a day, within seconds: a process writes as fast as it can, the file is turned over by
    /// its size all the time, and somebody moves it away beside that.
    #[test]
    fn no_line_is_lost_doubled_or_torn_however_often_the_file_is_turned_over_and_moved_away() {
        const LINES: u64 = 1_000_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut output = Output::File(LogFile::open(&path, 150_000, 10_000).unwrap());
        // Entries of one line, of two, and lines that are none.
        let program = format!(
            "BEGIN {{ while (i < {LINES}) {{
                if (i % 5 < 2) printf \"{HEAD}: %d\\n\", ++i
                else if (i % 5 == 2) printf \"{HEAD} lines=2: %d\\n    %d\\n\", ++i, ++i
                else print ++i }} }}"
        );
        let mut child = Command::new("awk").arg(&program).stdout(Stdio::piped()).spawn().expect("awk");
        let mut pipe = child.stdout.take().unwrap();
        let (is_moved, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let began = Instant::now();
        let moves = std::thread::scope(|scope| {
            let logrotate = scope.spawn(|| {
                let mut moves = 0;
                while !is_over.load(Ordering::SeqCst) {
                    // It may just be turned over, and not be there.
                    if fs::rename(&path, folder.path().join(format!("moved.{moves}"))).is_ok() {
                        moves += 1;
                        std::thread::sleep(Duration::from_millis(2));
                        is_moved.store(true, Ordering::SeqCst);
                    }
                    std::thread::sleep(Duration::from_millis(23));
                }
                moves
            });
            let mut pump = Pump::new(child.id());
            let mut chunk = vec![0; 64 << 10];
            loop {
                let count = pipe.read(&mut chunk).unwrap();
                if count == 0 {
                    break;
                }
                pump.feed(&chunk[..count], &mut output);
                if is_moved.swap(false, Ordering::SeqCst) {
                    output.reopen().unwrap();
                }
            }
            pump.end(&mut output);
            is_over.store(true, Ordering::SeqCst);
            logrotate.join().unwrap()
        });
        assert!(child.wait().unwrap().success());
        let (files, turned) = files(folder.path());
        let mut next = 1;
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.ends_with('\n'), "{} is torn", file.display());
            let mut parser = Parser::default();
            for line in text.split_terminator('\n') {
                for piece in parser.take(line) {
                    let Piece::Entry(entry) = piece else { panic!("{}: {piece:?}", file.display()) };
                    for number in entry.message.split('\n') {
                        assert_eq!(number.parse(), Ok(next), "{}: {entry:?}", file.display());
                        next += 1;
                    }
                }
            }
            assert!(!parser.is_open(), "{} is torn", file.display());
        }
        assert_eq!(next, LINES + 1);
        assert!(moves > 10 && turned > 10, "moved away {moves} times, turned over {turned} times");
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(60),
            "{took:?}, moved away {moves} times, turned over {turned} times"
        );
    }

    /// The files of a log that are not empty, in the order of their first lines, and how many of them have a number.
    fn files(folder: &Path) -> (Vec<PathBuf>, usize) {
        let mut files: Vec<(u64, PathBuf)> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| {
                let mut begin = String::new();
                fs::File::open(&path).unwrap().take(200).read_to_string(&mut begin).unwrap();
                let first = begin.lines().next()?.rsplit(' ').next()?.parse().expect("a number");
                Some((first, path))
            })
            .collect();
        files.sort();
        let turned = files.iter().filter(|(_, path)| path.to_string_lossy().contains(".log.")).count();
        (files.into_iter().map(|(_, path)| path).collect(), turned)
    }
}
