//! The signals that a bridge listens to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, from when this is made.
#[derive(Debug)]
pub struct Termination {
    term: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Takes the signals over from their default, which would end the process at once.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, from when this is made.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Takes the signal over from its default, which would end the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
