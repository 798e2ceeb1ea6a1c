//! The proof, for the service manager, that the bridge still works: a request to itself, by the way that clients take.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::control::client;
use crate::host::notify;

/// Feeds the service manager's watchdog for as long as requests are answered at `address`. Where nobody watches, there
/// is nothing to do.
pub(super) async fn feed(address: String) {
    let Some(patience) = notify::watchdog() else { return };
    let mut turns = interval(turn(patience));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match client::answers(&address, "/livez").await {
            Ok(()) => notify::alive(),
            Err(reason) => tracing::warn!("the bridge does not answer itself: {reason}"),
        }
    }
}

/// Often enough that one lost turn is not the end.
fn turn(patience: Duration) -> Duration {
    (patience / 3).max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_several_turns_within_the_patience() {
        assert_eq!(turn(Duration::from_secs(30)), Duration::from_secs(10));
        assert!(turn(Duration::from_nanos(1)) > Duration::ZERO, "an interval of nothing has no turns");
    }
}
