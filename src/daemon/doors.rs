//! The ways in, each a task of its own: for clients, for the command line, for the bus. Beside them stands who watches
//! the first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listening::Listening;
use super::{Error, watchdog};
use crate::bridge::Bridge;
use crate::host::log_control::{self, Bus};
use crate::http::{self, Control, Guard, Order};
use crate::instance::{Instance, Scope};

/// Of the time to stop, what is kept for ending the upstreams once the clients are done.
const FOR_UPSTREAMS: Duration = Duration::from_secs(8);

/// Orders that may wait for the one before.
const ORDERS: usize = 16;

/// The doors of a bridge, open.
pub(super) struct Doors {
    clients: JoinHandle<()>,
    control: JoinHandle<()>,
    watchdog: JoinHandle<()>,
    log_control: Option<JoinHandle<()>>,
    /// Has the first two let nobody in any more.
    shut: CancellationToken,
}

impl Doors {
    /// Opens them. What the command line orders comes out of the receiver.
    pub(super) fn open(
        bridge: &Arc<Bridge>,
        guard: &Arc<Guard>,
        listening: Listening,
        control: Control,
        log_control: Option<JoinHandle<()>>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let shut = CancellationToken::new();
        let router = http::router(Arc::clone(bridge), Arc::clone(guard));
        let clients = tokio::spawn(http::serve(listening.listener, router, shut.clone()));
        let (order, orders) = mpsc::channel(ORDERS);
        let router = Control::router(Arc::clone(bridge), order);
        let control = tokio::spawn(http::serve(control, router, shut.clone()));
        let watchdog = tokio::spawn(watchdog::feed(listening.address));
        (Self { clients, control, watchdog, log_control, shut }, orders)
    }

    /// Ends what a bridge that stops does without.
    pub(super) fn dismiss(&self) {
        self.watchdog.abort();
        if let Some(log_control) = &self.log_control {
            log_control.abort();
        }
    }

    /// Lets nobody in any more. Who is in may stay for the answers that they wait for.
    pub(super) fn shut(&self) {
        self.shut.cancel();
    }

    /// Waits for those who are in, then ends the upstreams.
    pub(super) async fn drain(mut self, bridge: &Bridge, within: Duration) {
        let in_flight = bridge.in_flight();
        if in_flight > 0 {
            tracing::info!("{in_flight} requests are under way: they may finish");
        }
        if tokio::time::timeout(within.saturating_sub(FOR_UPSTREAMS), &mut self.clients).await.is_err() {
            tracing::warn!("{} requests are given up", bridge.in_flight());
            self.clients.abort();
        }
        bridge.stop().await;
        self.control.abort();
        // Until the task has ended the socket's file is still there.
        let _ = self.control.await;
    }
}

/// Listens for the command line.
pub(super) fn control(instance: &Instance) -> Result<Control, Error> {
    let socket = instance.control_socket();
    Control::bind(&socket).map_err(|source| Error::File { action: "listen on", path: socket, source })
}

/// Answers on the bus for how much is logged, in a task that nobody waits for; none for a bridge that is no unit's.
pub(super) fn log_control(instance: &Instance, unit: Option<&str>) -> Option<JoinHandle<()>> {
    // Whoever runs the bridge by hand sees its log, and started it at the level of their choice.
    let unit = unit?;
    let [transient, kept] = instance.name().bus_names()?;
    let name = if unit == instance.template_unit_name() { kept } else { transient };
    let bus = match instance.scope() {
        Scope::User => Bus::User,
        Scope::System => Bus::System,
    };
    Some(tokio::spawn(log_control::serve(bus, name)))
}
