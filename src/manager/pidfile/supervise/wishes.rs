//! What a supervisor is asked for: signals, each with a meaning.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Wishes that may wait for the one before.
const WAITING: usize = 16;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM, SIGINT: to end, once all that is under way is done.
    Stop,
    /// SIGQUIT: to end at once, without asking anybody.
    Kill,
    /// SIGHUP: the bridge reads its config anew.
    Reload,
    /// SIGUSR1: the log files were moved.
    Reopen,
    /// SIGUSR2: the bridge is restarted, with the settings that are written down by now.
    Restart,
}

/// Each signal.
const SIGNALS: [(SignalKind, Wish); 6] = [
    (SignalKind::terminate(), Wish::Stop),
    (SignalKind::interrupt(), Wish::Stop),
    (SignalKind::quit(), Wish::Kill),
    (SignalKind::hangup(), Wish::Reload),
    (SignalKind::user_defined1(), Wish::Reopen),
    (SignalKind::user_defined2(), Wish::Restart),
];

/// Takes these signals over from their default, which would end the process.
///
/// # Errors
/// From the system.
pub(super) fn listen() -> io::Result<mpsc::Receiver<Wish>> {
    let (ask, wishes) = mpsc::channel(WAITING);
    for (kind, wish) in SIGNALS {
        let (mut signals, ask) = (signal(kind)?, ask.clone());
        tokio::spawn(async move { while signals.recv().await.is_some() && ask.send(wish).await.is_ok() {} });
    }
    Ok(wishes)
}
