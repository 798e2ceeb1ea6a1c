//! An upstream that is a child process: one message a line on its standard input and output.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{Notify, watch};

use super::child::{Program, SpawnError, Started, describe, exited, signal_group, spawn};
use super::connection::{CallError, Connection};
use super::stderr;
use crate::host::cgroup::{Group, Usage, why_not_entered};

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
    life: watch::Receiver<Life>,
    pid: u32,
    group: Option<Arc<Group>>,
    unenforced: Vec<String>,
}

/// How far a child has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It runs, or has not been reaped yet: its id is its own.
    Runs,
    /// Its id may be another's; what it has started may still run.
    Reaped,
    /// Nothing of it is left.
    Gone,
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
    /// Starts the program in a process group and a control group of its own; from then on its messages reach
    /// `connection`.
    pub(crate) fn open(program: &Program, connection: &Arc<Connection>) -> Result<Self, SpawnError> {
        let Started { mut child, group, unenforced } = spawn(program)?;
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let pid = child.id().unwrap_or_default();
        let outbox = Arc::new(Outbox { unwritten: Mutex::new(Some(Vec::new())), ready: Notify::new() });
        let (tell, life) = watch::channel(Life::Runs);
        let last_words = Arc::new(Mutex::new(String::new()));
        tokio::spawn(write(stdin, Arc::clone(&outbox)));
        let reading = tokio::spawn(read(program.name.clone(), stdout, Arc::clone(connection)));
        let logging = tokio::spawn(stderr::log(program.name.clone(), errors, Arc::clone(&last_words)));
        let end = End {
            name: program.name.clone(),
            command: program.command.clone(),
            connection: Arc::clone(connection),
            outbox: Arc::clone(&outbox),
            group: group.clone(),
            tell,
            last_words,
        };
        tokio::spawn(end.watch(child, reading, logging));
        Ok(Self { outbox, life, pid, group, unenforced })
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What the child and all that it has started use; nothing is known without a control group.
    pub(crate) fn usage(&self) -> Usage {
        self.group.as_ref().map(|group| group.usage()).unwrap_or_default()
    }

    /// Limits that are not in force for this child, though they could be, a sentence each.
    pub(crate) fn unenforced(&self) -> &[String] {
        &self.unenforced
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

    /// Closes the child's standard input and waits until all that it has started is gone: first asked, then told.
    pub(crate) async fn close(&self) {
        self.outbox.with(Option::take);
        self.outbox.ready.notify_one();
        let mut life = self.life.clone();
        for signal in [Signal::TERM, Signal::KILL] {
            if tokio::time::timeout(GRACE, life.wait_for(|life| *life == Life::Gone)).await.is_ok() {
                return;
            }
            // Once it is reaped, whoever waits for the rest has killed that.
            if *self.life.borrow() == Life::Runs {
                send(signal, self.pid, self.group.as_deref());
            }
        }
        let _ = tokio::time::timeout(GRACE, life.wait_for(|life| *life == Life::Gone)).await;
    }
}

/// Signals a child that has not been reaped yet. A kill is for all that it has ever started, the rest for its group.
fn send(signal: Signal, pid: u32, group: Option<&Group>) {
    signal_group(pid, signal);
    if let (Signal::KILL, Some(group)) = (signal, group) {
        group.kill();
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
    name: String,
    command: String,
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    group: Option<Arc<Group>>,
    tell: watch::Sender<Life>,
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
                let _ = self.tell.send(Life::Reaped);
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
                let status = self.end_group(&mut child, pid).await;
                let _ = self.tell.send(Life::Reaped);
                status
            }
        };
        let mut starved = None;
        if let Some(group) = &self.group {
            // What has left the process group may hold the pipes open.
            group.kill();
            if status.and_then(|status| status.signal()) == Some(Signal::KILL.as_raw()) {
                starved = group.out_of_memory();
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), logging).await;
        let last_words = std::mem::take(&mut *self.last_words.lock().unwrap_or_else(PoisonError::into_inner));
        let code = status.and_then(|status| status.code());
        let reason = match why_not_entered(code, &last_words).filter(|_| self.group.is_some()) {
            Some(source) => format!("`{}` did not start: {source}", self.command),
            None => {
                let reason = starved.or(why).unwrap_or_else(|| describe(status));
                let said = if last_words.is_empty() { "" } else { "; it last said: " };
                format!("{reason}{said}{last_words}")
            }
        };
        self.outbox.with(Option::take);
        self.connection.close(&reason);
        self.remove_group().await;
        let _ = self.tell.send(Life::Gone);
    }

    /// Ends a child that has closed its output: asked by the end of its input, then by SIGTERM, then killed.
    async fn end_group(&self, child: &mut Child, pid: u32) -> Option<ExitStatus> {
        for signal in [Signal::TERM, Signal::KILL] {
            match tokio::time::timeout(GRACE, exited(child, pid)).await {
                Ok(status) => return status,
                Err(_) => send(signal, pid, self.group.as_deref()),
            }
        }
        exited(child, pid).await
    }

    /// Waits for the end of what was killed, and removes the control group.
    async fn remove_group(&self) {
        let Some(group) = &self.group else { return };
        if let Err(error) = group.end().await {
            tracing::warn!(upstream = self.name, "its control group cannot be removed: {error}");
        }
    }
}
