//! The signals that a bridge listens to.

use std::io;

use rustix::process::{Pid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::process::Process;

/// SIGTERM and SIGINT, from when this is made.
#[derive(Debug)]
pub struct Termination {
    term: Signal,
    interrupt: Signal,
    /// Told once the supervisor has ended.
    orphaned: Option<oneshot::Receiver<()>>,
}

impl Termination {
    /// Takes the signals over from their default, which would end the process at once.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            orphaned: None,
        })
    }

    /// Takes the end of the process that has started this one for such a signal, once.
    ///
    /// # Errors
    /// From the system.
    pub fn or_end_of(&mut self, supervisor: u32) -> io::Result<()> {
        let (tell, orphaned) = oneshot::channel();
        self.orphaned = Some(orphaned);
        let Some(pid) = Pid::from_raw(supervisor.cast_signed()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let process = Process::open(pid);
        // It has ended already, whoever has its number now.
        let gone = process.is_err() || getppid() != Some(pid);
        tokio::spawn(async move {
            if let (Ok(process), false) = (process, gone) {
                // What cannot be watched has not ended.
                if process.ended().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            // Whoever does not listen any more is about to end.
            let _ = tell.send(());
        });
        Ok(())
    }

    /// Waits for the next one, and names it.
    pub async fn next(&mut self) -> &'static str {
        let orphaned = async {
            match &mut self.orphaned {
                Some(orphaned) => drop(orphaned.await),
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            _ = self.term.recv() => return "SIGTERM",
            _ = self.interrupt.recv() => return "SIGINT",
            () = orphaned => "its supervisor is gone",
        };
        self.orphaned = None;
        heard
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
