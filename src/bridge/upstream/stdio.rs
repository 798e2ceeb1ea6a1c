//! An upstream that is a child process: one message a line on its standard input and output.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{Notify, watch};

use super::child::{Program, SpawnError, describe, exited, signal_group, spawn};
use super::connection::{CallError, Connection};
use super::stderr;

/// What may wait to be written to a child that does not read; more is refused.
const MAX_UNWRITTEN: usize = 64 << 20;
/// The longest message that a child may send.
const MAX_MESSAGE: usize = 64 << 20;
/// How long a child may take to end by itself once its standard input is closed, and again once it got SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// The way to a child.
#[derive(Debug)]
pub(crate) struct Pipe {
    outbox: Arc<Outbox>,
    gone: watch::Receiver<bool>,
    pid: u32,
}

/// What is to be written, in one buffer: whatever gathers while a write is under way goes out with the next.
#[derive(Debug)]
struct Outbox {
    /// `None` once the child's standard input is to be closed.
    unwritten: Mutex<Option<Vec<u8>>>,
    ready: Notify,
}

impl Outbox {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Vec<u8>>) -> T) -> T {
        act(&mut self.unwritten.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for something to write; `None` at the end.
    async fn next(&self, spare: Vec<u8>) -> Option<Vec<u8>> {
        let mut spare = Some(spare);
        loop {
            let full = self.with(|unwritten| match unwritten {
                None => Some(None),
                Some(bytes) if bytes.is_empty() => None,
                Some(bytes) => Some(spare.take().map(|spare| std::mem::replace(bytes, spare))),
            });
            match full {
                Some(full) => return full,
                None => self.ready.notified().await,
            }
        }
    }
}

impl Pipe {
    /// Starts the program in a process group of its own; from then on its messages reach `connection`.
    pub(crate) fn open(program: &Program, connection: &Arc<Connection>) -> Result<Self, SpawnError> {
        let mut child = spawn(program)?;
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let pid = child.id().unwrap_or_default();
        let outbox = Arc::new(Outbox { unwritten: Mutex::new(Some(Vec::new())), ready: Notify::new() });
        let (tell_gone, gone) = watch::channel(false);
        let last_words = Arc::new(Mutex::new(String::new()));
        tokio::spawn(write(stdin, Arc::clone(&outbox)));
        let reading = tokio::spawn(read(program.name.clone(), stdout, Arc::clone(connection)));
        let logging = tokio::spawn(stderr::log(program.name.clone(), errors, Arc::clone(&last_words)));
        let end =
            End { connection: Arc::clone(connection), outbox: Arc::clone(&outbox), tell_gone, last_words };
        tokio::spawn(end.watch(child, reading, logging));
        Ok(Self { outbox, gone, pid })
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Queues one message, which has no line break in it.
    pub(crate) fn send(&self, message: &[u8]) -> Result<(), CallError> {
        self.outbox.with(|unwritten| {
            let Some(bytes) = unwritten else {
                return Err(CallError::NotDelivered("its standard input is closed".to_owned()));
            };
            if bytes.len() + message.len() > MAX_UNWRITTEN {
                return Err(CallError::Busy("it does not read its standard input"));
            }
            bytes.extend_from_slice(message);
            bytes.push(b'\n');
            Ok(())
        })?;
        self.outbox.ready.notify_one();
        Ok(())
    }

    /// Closes the child's standard input and waits until its whole process group is gone: first asked, then told.
    pub(crate) async fn close(&self) {
        self.outbox.with(Option::take);
        self.outbox.ready.notify_one();
        let mut gone = self.gone.clone();
        for signal in [Signal::TERM, Signal::KILL] {
            if tokio::time::timeout(GRACE, gone.wait_for(|gone| *gone)).await.is_ok() {
                return;
            }
            signal_group(self.pid, signal);
        }
        let _ = tokio::time::timeout(GRACE, gone.wait_for(|gone| *gone)).await;
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Whoever could close it in order is gone: the end of its input is what every child understands.
        self.outbox.with(Option::take);
        self.outbox.ready.notify_one();
    }
}

async fn write(mut stdin: ChildStdin, outbox: Arc<Outbox>) {
    let mut spare = Vec::new();
    while let Some(mut bytes) = outbox.next(spare).await {
        if stdin.write_all(&bytes).await.is_err() {
            outbox.with(Option::take);
            return;
        }
        bytes.clear();
        // One large message must not pin its size for the life of the child.
        bytes.shrink_to(64 << 10);
        spare = bytes;
    }
}

async fn read(name: String, mut stdout: ChildStdout, connection: Arc<Connection>) -> Option<String> {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let taken = each_line(&mut stdout, &mut buffer, MAX_MESSAGE, |line| {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if let Err(reason) = connection.receive(line.clone()) {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            tracing::warn!(upstream = name, "not a message on its standard output ({reason}): {shown}");
        }
    });
    match taken.await {
        Ok(true) => None,
        Ok(false) => Some(format!("it sent a message of more than {} MiB", MAX_MESSAGE >> 20)),
        Err(error) => Some(format!("its standard output cannot be read: {error}")),
    }
}

/// Hands over each line without its end; true at the end of the stream, false when a line grows over `longest`.
async fn each_line(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    longest: usize,
    mut take: impl FnMut(Bytes),
) -> io::Result<bool> {
    let mut searched = 0;
    loop {
        while let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) {
            let mut line = buffer.split_to(searched + end + 1);
            line.truncate(line.len() - 1);
            searched = 0;
            take(line.freeze());
        }
        searched = buffer.len();
        if searched > longest {
            return Ok(false);
        }
        buffer.reserve(4 << 10);
        if from.read_buf(buffer).await? == 0 {
            if !buffer.is_empty() {
                take(buffer.split().freeze());
            }
            return Ok(true);
        }
    }
}

/// What is done once when a child ends, however it ends.
struct End {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    tell_gone: watch::Sender<bool>,
    last_words: Arc<Mutex<String>>,
}

impl End {
    async fn watch(
        self,
        mut child: Child,
        mut reading: tokio::task::JoinHandle<Option<String>>,
        logging: tokio::task::JoinHandle<()>,
    ) {
        let pid = child.id().unwrap_or_default();
        let mut status = None;
        // The end of its output is the end of the connection, also when the process lives on.
        let why = tokio::select! {
            exit = exited(&mut child, pid) => {
                status = Some(exit);
                // What it wrote before it ended still counts; a grandchild may hold the pipe open.
                match tokio::time::timeout(Duration::from_millis(200), &mut reading).await {
                    Ok(Ok(why)) => why,
                    _ => None,
                }
            }
            why = &mut reading => match why {
                Ok(Some(why)) => Some(why),
                _ => None,
            },
        };
        reading.abort();
        let status = match status {
            Some(status) => status,
            None => {
                self.outbox.with(Option::take);
                self.outbox.ready.notify_one();
                self.end_group(&mut child, pid).await
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), logging).await;
        let mut reason = why.unwrap_or_else(|| describe(status));
        let last_words = std::mem::take(&mut *self.last_words.lock().unwrap_or_else(PoisonError::into_inner));
        if !last_words.is_empty() {
            reason = format!("{reason}; it last said: {last_words}");
        }
        self.outbox.with(Option::take);
        self.connection.close(&reason);
        let _ = self.tell_gone.send(true);
    }

    /// Ends a child that has closed its output: asked by the end of its input, then by SIGTERM, then killed.
    async fn end_group(&self, child: &mut Child, pid: u32) -> Option<ExitStatus> {
        for signal in [Signal::TERM, Signal::KILL] {
            match tokio::time::timeout(GRACE, exited(child, pid)).await {
                Ok(status) => return status,
                Err(_) => signal_group(pid, signal),
            }
        }
        exited(child, pid).await
    }
}
