//! What the service manager is told: readiness, state in words, the end (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// The bridge serves; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The bridge reads its config anew; `ready` says when it is done.
pub fn reloading() {
    // One datagram: the manager must know from when on a READY counts.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager could not be told of the reload: {error}"),
    }
}

/// What the bridge is at, in words. Also its last words when it cannot start.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

/// Stopping takes this long from now on, however long it was expected to take.
pub fn extend_timeout(by: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
}

/// The bridge has just shown that it works.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How long the service manager waits to hear that the bridge works before it ends it; `None` when it does not watch.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
}

/// The bridge is on its way out.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// Without a service manager this does nothing.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}

/// The protocol has one assignment a line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_assignment() {
        assert_eq!(one_line("port taken\nMAINPID=1\r\n  by x"), "port taken MAINPID=1 by x");
    }
}
