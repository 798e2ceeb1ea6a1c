//! The log file: written by one supervisor alone, in whole entries, and turned over when it has grown.
//!
//! Others may move it away (logrotate(8)), empty or remove it at any time. Nothing that goes wrong here ends the
//! supervisor: what could not be written is counted, and told once writing works again.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::own;
use crate::host::file;
use crate::host::log::Level;
use crate::host::log::line::INDENT;

/// The log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    max_size: u64,
    keep: u32,
    /// It may have got another name, or none, since it was opened.
    file: File,
    /// Whether it may end within a line.
    is_torn: bool,
    /// The size at which it is turned over: more than `max_size` after that has failed.
    full: u64,
    /// What went wrong beside the writing, to be told.
    complaint: Option<String>,
    /// Entries that could not be written, since this was last told, and why.
    lost: u64,
    why: String,
    /// The system call, which tests replace.
    write: fn(&mut File, &[u8]) -> io::Result<usize>,
}

impl LogFile {
    /// Opens or makes it, with the folders that are missing. It is turned over before it exceeds `max_size` bytes, and
    /// `keep` old ones are kept.
    ///
    /// # Errors
    /// From the system; `InvalidInput` for what is no plain file of one name, `PermissionDenied` for another user's.
    pub(crate) fn open(path: &Path, max_size: u64, keep: u32) -> io::Result<Self> {
        let (file, is_torn) = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            max_size,
            keep,
            file,
            is_torn,
            full: max_size,
            complaint: None,
            lost: 0,
            why: String::new(),
            write: File::write,
        })
    }

    /// Appends whole entries.
    pub(crate) fn write(&mut self, entries: &[u8]) {
        let mut text = Vec::new();
        if let Some(complaint) = self.complaint.take() {
            text.extend_from_slice(own(Level::Warning, &complaint).as_bytes());
        }
        if self.lost > 0 {
            let missing = format!("{} lines before this one are missing: {}", self.lost, self.why);
            text.extend_from_slice(own(Level::Warning, &missing).as_bytes());
        }
        let told = text.len();
        let all = if told == 0 {
            entries
        } else {
            text.extend_from_slice(entries);
            &text
        };
        let written = self.put(all);
        if written >= told {
            self.lost = count(&all[written..]);
        } else {
            self.lost += count(entries);
        }
    }

    /// Opens what is under its name now, as after logrotate has moved it away.
    ///
    /// # Errors
    /// As [`LogFile::open`]; the one that was open stays in use.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.is_torn) = open(&self.path)?;
        self.full = self.max_size;
        Ok(())
    }

    /// How many of these bytes have been written, up to the end of an entry.
    fn put(&mut self, entries: &[u8]) -> usize {
        match self.try_put(entries) {
            (written, Ok(())) => written,
            (written, Err(error)) => {
                self.why = format!("{} could not be written: {error}", self.path.display());
                written
            }
        }
    }

    fn try_put(&mut self, entries: &[u8]) -> (usize, io::Result<()>) {
        let mut size = match self.prepare(entries.len() as u64) {
            Ok(size) => size,
            Err(error) => return (0, Err(error)),
        };
        if self.is_torn {
            // What comes begins a line in any case.
            if let (_, Err(error)) = self.write_all(b"\n") {
                return (0, Err(error));
            }
            self.is_torn = false;
            size += 1;
        }
        let (done, outcome) = self.write_all(entries);
        if outcome.is_ok() {
            return (done, outcome);
        }
        let whole = whole(entries, done);
        if whole < done {
            let is_ours = self.file.metadata().is_ok_and(|found| found.len() == size + done as u64);
            // Who has emptied it meanwhile must not find it filled up with zeros.
            self.is_torn = !is_ours || self.file.set_len(size + whole as u64).is_err();
        }
        (whole, outcome)
    }

    /// Writes all of that, or as much as goes.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < bytes.len() {
            match (self.write)(&mut self.file, &bytes[done..]) {
                Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Sees to it that there is a file with room for so many more bytes; its size.
    fn prepare(&mut self, more: u64) -> io::Result<u64> {
        // Asked each time: others may have emptied or removed it.
        let mut found = self.file.metadata()?;
        if found.nlink() == 0 {
            self.reopen()?;
            found = self.file.metadata()?;
        }
        let size = found.len();
        if size == 0 || size + more <= self.max_size {
            self.full = self.max_size;
            return Ok(size);
        }
        if size + more <= self.full {
            return Ok(size);
        }
        if let Err(error) = self.turn_over(&found) {
            // Rather too long than lost; as when only the file is this user's, not its folder.
            self.full = size.saturating_add(more).saturating_add(self.max_size);
            self.complaint = Some(format!("{} cannot be turned over: {error}", self.path.display()));
        }
        Ok(self.file.metadata()?.len())
    }

    /// Begins a new file.
    fn turn_over(&mut self, own: &Metadata) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => self.shift()?,
            // It was moved away already.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.reopen()
    }

    /// Gives each file the next number, up to the first that is free; the last one is dropped.
    fn shift(&self) -> io::Result<()> {
        if self.keep == 0 {
            return gone_or(fs::remove_file(&self.path));
        }
        let old = |number| numbered(&self.path, number);
        let free = (1..self.keep).find(|number| fs::symlink_metadata(old(*number)).is_err());
        // From the last one on: a reader who goes from the first one on misses none that way.
        for number in (1..free.unwrap_or(self.keep)).rev() {
            gone_or(fs::rename(old(number), old(number + 1)))?;
        }
        gone_or(fs::rename(&self.path, old(1)))
    }
}

/// The name of an old file.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

/// The file, and whether it ends within a line.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let (folder, _) = file::parts(path)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A pipe would be waited for.
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?);
    file::plain(&file)?;
    let found = file.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        let reason = format!("it belongs to another user, of uid {}", found.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let mut last = *b"\n";
    if let Some(at) = found.len().checked_sub(1) {
        // Whoever has emptied it just now leaves nothing to read.
        let _ = file.read_at(&mut last, at)?;
    }
    Ok((file, last != *b"\n"))
}

/// It is no failure that somebody else was faster.
fn gone_or(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// How many entries begin in a text that begins with one.
fn count(text: &[u8]) -> u64 {
    let mut rest = text;
    let mut count = 0;
    while !rest.is_empty() {
        count += u64::from(!rest.starts_with(INDENT.as_bytes()));
        rest = memchr(b'\n', rest).map_or(&[], |end| &rest[end + 1..]);
    }
    count
}

/// The end of the last entry that is whole within the first `done` bytes.
fn whole(text: &[u8], done: usize) -> usize {
    let mut end = done;
    while let Some(at) = memrchr(b'\n', &text[..end]) {
        if !text[at + 1..].starts_with(INDENT.as_bytes()) {
            return at + 1;
        }
        end = at;
    }
    0
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    thread_local! {
        /// Bytes that this thread's disk has room for.
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    fn scarce(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        let room = ROOM.get().min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        ROOM.set(ROOM.get() - room);
        file.write(&bytes[..room])
    }

    struct Log {
        folder: tempfile::TempDir,
        file: LogFile,
    }

    impl Log {
        fn open(max_size: u64, keep: u32) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut file = LogFile::open(&folder.path().join("a/b/x.log"), max_size, keep).unwrap();
            file.write = scarce;
            Self { folder, file }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("a/b/x.log")
        }

        fn old(&self, number: u32) -> String {
            fs::read_to_string(numbered(&self.path(), number)).unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let folder = fs::read_dir(self.path().parent().unwrap()).unwrap();
            let mut names: Vec<_> =
                folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn it_is_for_its_user_alone_and_so_is_the_folder_that_was_missing() {
        let log = Log::open(100, 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&log.path()), 0o600);
        assert_eq!(
            (mode(&log.folder.path().join("a")), mode(&log.folder.path().join("a/b"))),
            (0o700, 0o700)
        );
        fs::set_permissions(log.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        LogFile::open(&log.path(), 100, 1).unwrap();
        assert_eq!(mode(log.folder.path()), 0o755);
    }

    #[test]
    fn links_pipes_and_files_with_a_second_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        fs::write(at("target"), "untouched").unwrap();
        symlink(at("target"), at("soft")).unwrap();
        fs::hard_link(at("target"), at("hard")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in ["soft", "hard", "pipe"] {
            LogFile::open(&at(name), 100, 1).expect_err(name);
        }
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "untouched");
    }

    #[test]
    fn what_would_not_fit_begins_a_new_file_and_the_oldest_is_dropped() {
        let mut log = Log::open(10, 2);
        for number in 1..=7 {
            log.file.write(format!("{number}bcd\n").as_bytes());
        }
        assert_eq!(
            (log.text(), log.old(1), log.old(2)),
            ("7bcd\n".into(), "5bcd\n6bcd\n".into(), "3bcd\n4bcd\n".into())
        );
        assert_eq!(log.names(), ["x.log", "x.log.1", "x.log.2"]);
        log.file.write(b"longer than a file\n");
        log.file.write(b"z\n");
        assert_eq!(
            (log.text(), log.old(1), log.old(2)),
            ("z\n".into(), "longer than a file\n".into(), "7bcd\n".into())
        );
    }

    #[test]
    fn where_nothing_is_kept_the_old_file_is_gone() {
        let mut log = Log::open(10, 0);
        log.file.write(b"1bcdefg\n");
        log.file.write(b"2bcdefg\n");
        assert_eq!((log.text().as_str(), log.names()), ("2bcdefg\n", vec!["x.log".to_owned()]));
    }

    #[test]
    fn a_number_that_is_free_saves_the_others_from_being_dropped() {
        let mut log = Log::open(5, 3);
        (1..=4).for_each(|number| log.file.write(format!("{number}bcd\n").as_bytes()));
        fs::remove_file(numbered(&log.path(), 2)).unwrap();
        log.file.write(b"5bcd\n");
        assert_eq!((log.old(1), log.old(2), log.old(3)), ("4bcd\n".into(), "3bcd\n".into(), "1bcd\n".into()));
    }

    #[test]
    fn a_file_that_was_moved_away_is_written_to_until_it_is_opened_anew() {
        let mut log = Log::open(12, 2);
        let moved = log.folder.path().join("moved");
        log.file.write(b"1bcd\n");
        fs::rename(log.path(), &moved).unwrap();
        log.file.write(b"2bcd\n");
        assert!(!log.path().exists());
        log.file.reopen().unwrap();
        log.file.write(b"3bcd\n");
        assert_eq!(
            (fs::read_to_string(&moved).unwrap().as_str(), log.text().as_str()),
            ("1bcd\n2bcd\n", "3bcd\n")
        );
        // Once more, and nobody says so: then its size does, and nobody else's file is renamed.
        fs::rename(log.path(), &moved).unwrap();
        fs::write(log.path(), "").unwrap();
        (4..=6).for_each(|number| log.file.write(format!("{number}bcd\n").as_bytes()));
        assert_eq!(
            (fs::read_to_string(&moved).unwrap().as_str(), log.text().as_str()),
            ("3bcd\n4bcd\n", "5bcd\n6bcd\n")
        );
        assert_eq!(log.names(), ["x.log"]);
    }

    #[test]
    fn a_file_or_folder_that_was_removed_is_made_again() {
        let mut log = Log::open(100, 2);
        log.file.write(b"1\n");
        fs::remove_file(log.path()).unwrap();
        log.file.write(b"2\n");
        assert_eq!(log.text(), "2\n");
        fs::remove_dir_all(log.folder.path().join("a")).unwrap();
        log.file.write(b"3\n");
        assert_eq!(log.text(), "3\n");
    }

    #[test]
    fn a_file_that_was_emptied_is_as_small_as_it_is() {
        let mut log = Log::open(12, 2);
        log.file.write(b"1bcd\n2bcd\n");
        File::options().write(true).open(log.path()).unwrap().set_len(0).unwrap();
        log.file.write(b"3bcd\n");
        log.file.write(b"4bcd\n");
        assert_eq!((log.text().as_str(), log.names()), ("3bcd\n4bcd\n", vec!["x.log".to_owned()]));
    }

    #[test]
    fn a_full_disk_tears_no_entry_and_what_is_missing_is_told() {
        let mut log = Log::open(10_000, 2);
        ROOM.set(15);
        log.file.write(b"1bcd\n2bcd\n    more\n3bcd\n");
        assert_eq!(log.text(), "1bcd\n");
        log.file.write(b"4bcd\n");
        assert_eq!(log.text(), "1bcd\n");
        // Not even for that.
        ROOM.set(30);
        log.file.write(b"5bcd\n");
        assert_eq!(log.text(), "1bcd\n");
        ROOM.set(usize::MAX);
        log.file.write(b"6bcd\n");
        log.file.write(b"7bcd\n");
        let text = log.text();
        let [one, told, six, seven] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!((one, six, seven), ("1bcd", "6bcd", "7bcd"));
        assert!(
            told.contains(" WARN ") && told.contains(": 4 lines before this one are missing: "),
            "{told}"
        );
        assert!(told.contains("x.log could not be written: no storage space"), "{told}");
    }

    #[test]
    fn what_a_killed_supervisor_has_torn_is_a_line_by_itself() {
        let mut log = Log::open(100, 2);
        fs::write(log.path(), "torn").unwrap();
        log.file = LogFile::open(&log.path(), 100, 2).unwrap();
        log.file.write(b"1\n");
        log.file.write(b"2\n");
        assert_eq!(log.text(), "torn\n1\n2\n");
    }

    #[test]
    fn what_cannot_be_turned_over_grows_and_says_so_once_in_a_while() {
        let mut log = Log::open(1000, 1);
        // Nothing can be renamed to that.
        fs::create_dir_all(numbered(&log.path(), 1).join("x")).unwrap();
        let line = format!("{}\n", "x".repeat(99));
        (0..35).for_each(|_| log.file.write(line.as_bytes()));
        let text = log.text();
        let told = text.lines().filter(|line| line.contains("x.log cannot be turned over: ")).count();
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), 35);
        assert!((2..=3).contains(&told), "{told}: {text}");
    }
}
