//! The log of a supervisor and its bridge: one writer for both, and a thread for each run of the bridge, so that a slow
//! disk holds up neither.

use std::io::{self, PipeReader, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::log::Level;
use crate::manager::Entry;
use crate::manager::pidfile::log::{LogFile, Output, Pump, Stream};
use crate::manager::pidfile::order::Order;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Between two looks whether the last lines are written.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the last lines may take to be taken by who reads standard output.
const FLUSHING: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) struct Log(Arc<Mutex<Output>>);

/// The lines of one run of the bridge, on their way.
pub(super) struct Follower {
    thread: JoinHandle<()>,
    pump: Arc<Mutex<Pump>>,
}

impl Log {
    /// In a file, and in a unit of somebody's own in the journal too; or on standard output.
    pub(super) fn open(order: &Order) -> io::Result<Self> {
        let output = match &order.log_file {
            None => Output::Stream(Stream::stdout()?),
            Some(path) => {
                let file = LogFile::open(path, order.log_size, order.log_keep)?;
                if order.unit.is_some() { Output::Both(file, Stream::stderr()?) } else { Output::File(file) }
            }
        };
        Ok(Self(Arc::new(Mutex::new(output))))
    }

    /// Writes a line of the supervisor's own.
    pub(super) fn say(&self, level: Level, text: &str) {
        self.output().say(level, text);
    }

    /// Opens the file anew, which was moved away.
    pub(super) fn reopen(&self) {
        let mut output = self.output();
        if let Err(error) = output.reopen() {
            output.say(
                Level::Error,
                &format!("the log file cannot be opened anew, the old one is kept: {error}"),
            );
        }
    }

    /// Writes all that comes out of the pipe of a bridge of that number.
    pub(super) fn follow(&self, mut pipe: PipeReader, pid: u32) -> Follower {
        let (output, pump) = (Arc::clone(&self.0), Arc::new(Mutex::new(Pump::new(pid))));
        let own = Arc::clone(&pump);
        let thread = std::thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            loop {
                match pipe.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(length) => locked(&own).feed(&chunk[..length], &mut locked(&output)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            locked(&own).end(&mut locked(&output));
        });
        Follower { thread, pump }
    }

    /// Waits until what was written has reached whoever reads it, but not for long.
    pub(super) fn end(&self) {
        self.output().flush(FLUSHING);
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        locked(&self.0)
    }
}

impl Follower {
    /// Waits until all is written that the bridge has said, but not longer than that; its last lines.
    pub(super) async fn end(self, within: Duration) -> Vec<Entry> {
        let deadline = Instant::now() + within;
        while !self.thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
        locked(&self.pump).last_words()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
