//! Keeping one upstream connected: attempts, pauses, what it offers, and the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::connection::{self, Connection};
use super::spec::OpenError;
use super::{Link, Lists, Live, Offer, Upstream, handshake, offer};
use crate::control::UpstreamState;

/// The longest pause between attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The shortest, also when callers ask for the upstream.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// A connection that held this long was a good one: failures are counted anew.
const STABLE: Duration = Duration::from_secs(60);

impl Upstream {
    /// Connects and keeps connected, until `stop`.
    pub(crate) async fn run(self: Arc<Self>) {
        for limit in &self.spec.unenforced {
            tracing::warn!(upstream = self.spec.name, "{limit}");
        }
        // A fault of ours in one upstream must not leave it dead for ever, and least of all unnoticed.
        while let Err(fault) = tokio::spawn(Arc::clone(&self).keep_connected()).await {
            tracing::error!(upstream = self.spec.name, "a fault of the bridge's own: {fault}");
            self.enter(UpstreamState::Failed, Some(format!("a fault of the bridge's own: {fault}")), true);
            tokio::select! {
                () = tokio::time::sleep(MAX_PAUSE) => {}
                () = self.stopping.cancelled() => break,
            }
        }
        self.enter(UpstreamState::Stopped, None, true);
    }

    async fn keep_connected(self: Arc<Self>) {
        let (mut failures, mut given_up) = (0_u32, false);
        loop {
            let began = Instant::now();
            // One that has been given up is shown as such until it is there after all.
            if !given_up {
                self.enter(UpstreamState::Connecting, None, false);
            }
            // Not to be dropped half-way: it ends by itself at a stop, once its processes are gone.
            let Some(Ended { reason, held, lasting }) = self.attempt().await else { break };
            failures = if held.is_some_and(|held| held >= STABLE) { 0 } else { failures.saturating_add(1) };
            let lost = held.is_some();
            let gives_up = lasting || (failures >= self.spec.attempts && !(lost && failures <= 1));
            if lost {
                tracing::warn!(upstream = self.spec.name, "disconnected, connecting again: {reason}");
            } else if !gives_up {
                tracing::warn!(upstream = self.spec.name, "not connected (attempt {failures}): {reason}");
            } else if !given_up {
                tracing::error!(upstream = self.spec.name, "failed: {reason}");
            }
            let state = if gives_up { UpstreamState::Failed } else { UpstreamState::Retrying };
            // A loss is the end of no attempt to connect: who waits for one goes on waiting.
            self.enter(state, Some(reason), !lost);
            if gives_up {
                self.replace_offer(Offer::default());
            }
            given_up = gives_up;
            let pause = if lasting { MAX_PAUSE } else { pause(self.spec.retry, failures) };
            // An attempt may take longer than the pause: that would be none.
            let from = if lost { began } else { Instant::now() };
            tokio::select! {
                () = tokio::time::sleep_until(from + pause) => {}
                () = self.wanted.notified() => tokio::time::sleep_until(began + MIN_PAUSE).await,
                () = self.stopping.cancelled() => break,
            }
        }
    }

    /// Stops it once it has answered all that it has been asked, or did not within `patience`.
    pub(crate) async fn retire(self: Arc<Self>, patience: Duration) {
        if let Some(live) = self.live() {
            let _ = tokio::time::timeout(patience, live.connection.drained()).await;
        }
        self.stop();
    }

    /// Ends `run` once its processes are gone.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// One connection from its first byte to its last. `None` when the bridge ended it.
    async fn attempt(self: &Arc<Self>) -> Option<Ended> {
        let listener = Listening { upstream: Arc::clone(self) };
        let connection = Connection::new(Box::new(listener));
        let outcome = tokio::select! {
            outcome = self.serve(&connection) => Some(outcome),
            () = self.stopping.cancelled() => None,
        };
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        let reason = match &outcome {
            Some(Ended { reason, .. }) => reason.as_str(),
            None => "the bridge is stopping",
        };
        if let Some(link) = connection.link() {
            link.close().await;
        }
        connection.close(reason);
        outcome
    }

    /// Opens the link, shakes hands, learns the offer, and stays until the connection ends.
    async fn serve(self: &Arc<Self>, connection: &Arc<Connection>) -> Ended {
        let connecting = async {
            let link = self.spec.target.open(connection)?;
            connection.attach(link);
            let shaken = handshake::shake_hands(connection, self.spec.timeout).await;
            shaken.map_err(|reason| OpenError { lasting: false, reason })
        };
        let server = match tokio::time::timeout(self.spec.timeout, connecting).await {
            Ok(Ok(server)) => server,
            // When the link broke, its own words tell more than the request's.
            Ok(Err(OpenError { lasting, reason })) => {
                let closed = connection.closed_because();
                return Ended { reason: closed.unwrap_or(reason), held: None, lasting };
            }
            Err(_) => {
                let reason = format!("no answer to `initialize` within {} s", self.spec.timeout.as_secs());
                return Ended { reason, held: None, lasting: false };
            }
        };
        if let Some(Link::Http(http)) = connection.link() {
            let (http, connection) = (http.clone(), Arc::clone(connection));
            tokio::spawn(async move { http.follow(connection).await });
        }
        let since = Instant::now();
        let live = Arc::new(Live { connection: Arc::clone(connection), server });
        self.remind(&live).await;
        *self.stale.lock().unwrap_or_else(PoisonError::into_inner) = Lists::default();
        self.learn(&live, Lists::ALL).await;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&live));
        if self.connected_before.swap(true, Ordering::Relaxed) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let offer = self.offer();
        tracing::info!(upstream = self.spec.name, "connected: {}", offer.summary());
        self.enter(UpstreamState::Connected, None, true);
        let refreshing = async {
            loop {
                self.refresh.notified().await;
                let lists = std::mem::take(&mut *self.stale.lock().unwrap_or_else(PoisonError::into_inner));
                self.learn(&live, lists).await;
            }
        };
        let reason = tokio::select! {
            reason = connection.ended() => reason,
            () = refreshing => unreachable!("it has no end"),
        };
        Ended { reason, held: Some(since.elapsed()), lasting: false }
    }

    /// Tells a new connection what clients had asked of the one before.
    async fn remind(&self, live: &Live) {
        if let (true, Some(level)) = (live.server.offers("logging"), self.hub.log_level()) {
            live.set_level(&level).await;
        }
        for uri in self.hub.subscriptions(&self.spec.name) {
            live.subscribe(&uri, true).await;
        }
    }

    /// Asks for those lists, and takes what comes as the offer.
    async fn learn(&self, live: &Live, lists: Lists) {
        if lists.any() {
            let fetched = offer::fetch(&self.spec, live, &self.offer(), lists).await;
            self.replace_offer(fetched);
        }
    }

    fn replace_offer(&self, new: Offer) {
        let changed = {
            let mut offer = self.offer.write().unwrap_or_else(PoisonError::into_inner);
            let changed = offer.difference(&new);
            if changed.any() {
                *offer = Arc::new(new);
            }
            changed
        };
        if changed.any() {
            self.hub.offer_changed(&self.spec.name, changed);
        }
    }

    fn enter(&self, state: UpstreamState, error: Option<String>, ends_attempt: bool) {
        self.phase.send_modify(|phase| {
            phase.attempts += u64::from(ends_attempt);
            // While it tries again, the last failure is still what a person wants to read.
            if state != UpstreamState::Connecting {
                phase.error = error;
            }
            phase.state = state;
        });
        self.hub.state_changed();
    }
}

/// How a connection ended.
struct Ended {
    reason: String,
    /// How long it was up, when it ever was.
    held: Option<Duration>,
    /// Whether only a person can mend it.
    lasting: bool,
}

/// Exponential from `first`, capped, with a quarter of jitter so that many upstreams do not come back in step.
fn pause(first: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let full = first.saturating_mul(1 << (failures - 1).min(16)).clamp(MIN_PAUSE, MAX_PAUSE);
    let mut random = [0_u8; 1];
    let _ = getrandom::fill(&mut random);
    full.mul_f64(1.0 - f64::from(random[0]) / 1024.0)
}

/// Takes the notifications of one upstream.
struct Listening {
    upstream: Arc<Upstream>,
}

impl connection::Listener for Listening {
    fn notified(&self, method: &str, params: Option<&RawValue>, message: &Bytes) {
        let changed = |mark: fn(&mut Lists)| {
            mark(&mut self.upstream.stale.lock().unwrap_or_else(PoisonError::into_inner));
            self.upstream.refresh.notify_one();
        };
        match method {
            "notifications/tools/list_changed" => changed(|lists| lists.tools = true),
            "notifications/resources/list_changed" => changed(|lists| lists.resources = true),
            "notifications/prompts/list_changed" => changed(|lists| lists.prompts = true),
            // It concerns requests of the upstream's own, and we take none.
            "notifications/cancelled" => {}
            _ => self.upstream.hub.notified(&self.upstream.spec.name, method, params, message),
        }
    }
}
