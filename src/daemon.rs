//! One bridge's life: take the lock, open the doors, say READY, serve, drain, stop.

mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bridge::{About, Bridge};
use crate::config::Config;
use crate::control::{Changes, Manager, Status, UpstreamState};
use crate::host::cgroup::Groups;
use crate::host::inherited::{self, Inherited};
use crate::host::log::{self, Level};
use crate::host::log_control::{self, Bus};
use crate::host::signals::{Hangup, Termination};
use crate::host::{notify, port, unit};
use crate::http::{self, Control, Guard, Order};
use crate::instance::{Holder, Instance, Lock, LockError, Scope};

/// Of the time to stop, what is kept for ending the upstreams once the clients are done.
const FOR_UPSTREAMS: Duration = Duration::from_secs(8);

/// How long reading the config anew may take, also from a slow disk.
const READING: Duration = Duration::from_secs(20);
/// Orders that may wait for the one before.
const ORDERS: usize = 16;

/// What to serve, and where.
pub struct Options {
    /// Who the bridge is.
    pub instance: Instance,
    /// What it serves first.
    pub served: Served,
    /// How it comes by its config anew, or by the reasons why there is none; it may block.
    pub read: Arc<dyn Fn() -> Result<Served, String> + Send + Sync>,
    /// The address to listen on: a name or an IP address.
    pub host: String,
    /// The TCP port; 0 takes a free one.
    pub port: u16,
    /// How much is logged.
    pub level: Level,
}

/// A config to be put in force.
#[derive(Debug)]
pub struct Served {
    /// All of it.
    pub config: Config,
    /// Where it was read; none is the built-in default.
    pub path: Option<PathBuf>,
    /// What is to be said about it.
    pub warnings: Vec<String>,
}

/// Why a bridge does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance runs already.
    #[error("the bridge `{name}` is already running{}", held_by(.by.as_ref()))]
    AlreadyRunning {
        /// The instance.
        name: String,
        /// Who holds its lock.
        by: Option<Holder>,
    },
    /// The port is another's.
    #[error("{host}:{port} is already in use{}", .holder.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    PortTaken {
        /// As asked for.
        host: String,
        /// As asked for.
        port: u16,
        /// The process that has it.
        holder: Option<String>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {host}:{port}: {source}")]
    Bind {
        /// As asked for.
        host: String,
        /// As asked for.
        port: u16,
        /// From the system.
        source: io::Error,
    },
    /// A file of the instance cannot be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// To do what.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// The process cannot do its work at all.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning { name, .. } => Some(format!(
                "`foxxy-bridge server stop {name}` ends it; a second bridge needs a config of its own"
            )),
            Self::PortTaken { .. } => Some(
                "stop what has the port, or take another with --port or `bridge.port` in the config"
                    .to_owned(),
            ),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 are for root: take another with --port".to_owned())
            }
            Self::Bind { .. } => Some("give an address of this machine with --host".to_owned()),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check who owns it".to_owned())
            }
            Self::File { .. } | Self::Runtime(_) => None,
        }
    }
}

fn held_by(holder: Option<&Holder>) -> String {
    holder.map(|by| format!(" (PID {}, {})", by.pid, by.config.display())).unwrap_or_default()
}

/// Serves until a signal ends it. A failure is also told to the service manager, as the bridge's last words.
pub fn run(options: Options) -> Result<(), Error> {
    let recent = log::start(options.instance.name().as_str(), options.level);
    // One thread: the relay spends its time in the kernel, and handing messages between threads costs more than it
    // gives, with few processors above all.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let ended = runtime.block_on(live(options, &recent));
    if let Err(error) = &ended {
        notify::status(&error.to_string());
    }
    // Blocking look-ups of names may still be under way; nobody waits for them.
    runtime.shutdown_background();
    log::flush();
    ended
}

async fn live(options: Options, recent: &log::Recent) -> Result<(), Error> {
    let Options { instance, served, read, host, port, .. } = options;
    let mut termination = Termination::listen().map_err(Error::Runtime)?;
    let mut hangup = Hangup::listen().map_err(Error::Runtime)?;
    let _lock = Lock::take(&instance).map_err(|error| match error {
        LockError::Held(by) => Error::AlreadyRunning { name: instance.name().to_string(), by },
        LockError::Io { path, source } => Error::File { action: "lock", path, source },
    })?;
    for warning in &served.warnings {
        tracing::warn!("{warning}");
    }
    let (listener, host) = tokio::select! {
        listener = listen(&host, port) => listener?,
        // The name of the host may take long to be looked up.
        signal = termination.next() => {
            tracing::info!("stopping: {signal}, before it served");
            return Ok(());
        }
    };
    let bound = listener.local_addr().map_err(Error::Runtime)?.port();
    let socket = instance.control_socket();
    let control = Control::bind(&socket).map_err(|source| Error::File {
        action: "listen on",
        path: socket.clone(),
        source,
    })?;
    let unit = unit::own();
    // Whoever runs the bridge by hand sees its log, and started it at the level of their choice.
    let log_control = instance.name().bus_names().filter(|_| unit.is_some()).map(|[transient, kept]| {
        let name = if unit.as_ref() == Some(&instance.template_unit_name()) { kept } else { transient };
        let bus = match instance.scope() {
            Scope::User => Bus::User,
            Scope::System => Bus::System,
        };
        tokio::spawn(log_control::serve(bus, name))
    });
    let about = About {
        name: instance.name().to_string(),
        manager: if unit.is_some() { Manager::Systemd } else { Manager::Foreground },
        unit,
        address: address(&host, bound),
    };
    let shown = served.path.as_ref().map_or_else(|| "built in".to_owned(), |path| path.display().to_string());
    tracing::info!("serving {} (config: {shown})", about.address);
    let guard = Arc::new(Guard::new(&host));
    guard.allow(&served.config.bridge.allowed_hosts, &served.config.bridge.allowed_origins);
    let groups = Groups::take().await;
    let bridge = Arc::new(Bridge::start(served.config, served.path, about, recent, groups));
    let stop = CancellationToken::new();
    let router = http::router(Arc::clone(&bridge), Arc::clone(&guard));
    let doors = tokio::spawn(http::serve(listener, router, stop.clone()));
    let (order, mut orders) = mpsc::channel(ORDERS);
    let side_door = Control::router(Arc::clone(&bridge), order);
    let side_door = tokio::spawn(http::serve(control, side_door, stop.clone()));
    let watchdog = tokio::spawn(watchdog::feed(address(&host, bound)));
    let mut reload = Reload { bridge: &bridge, guard: &guard, read, refused: None };
    let mut told = reload.summary();
    notify::ready(&told);
    let signal = loop {
        tokio::select! {
            signal = termination.next() => break signal,
            () = hangup.next() => {
                // Its outcome is logged, and told to the service manager.
                let _ = reload.run().await;
            }
            Some(Order::Reload(answer)) = orders.recv() => {
                // Whoever asked may have gone.
                let _ = answer.send(reload.run().await);
            }
            () = bridge.changed() => {}
        }
        let now = reload.summary();
        if now != told {
            notify::status(&now);
            told = now;
        }
    };
    tracing::info!("stopping: {signal}");
    watchdog.abort();
    if let Some(log_control) = log_control {
        log_control.abort();
    }
    notify::stopping("stopping");
    bridge.begin_stop();
    stop.cancel();
    let stop_timeout = bridge.config().bridge.daemon.stop_timeout;
    notify::extend_timeout(stop_timeout);
    let ending = end(&bridge, doors, side_door, stop_timeout);
    tokio::select! {
        () = ending => tracing::info!("stopped"),
        signal = termination.next() => tracing::warn!("{signal} again: ending at once"),
    }
    Ok(())
}

/// How a bridge comes by another config.
struct Reload<'a> {
    bridge: &'a Bridge,
    guard: &'a Guard,
    read: Arc<dyn Fn() -> Result<Served, String> + Send + Sync>,
    /// Why the config on disk is not the one in force.
    refused: Option<String>,
}

impl Reload<'_> {
    /// Puts the whole config in force as it is on disk now, or nothing of it, and says which to the service manager.
    async fn run(&mut self) -> Result<Changes, String> {
        notify::reloading();
        let read = Arc::clone(&self.read);
        let reading = tokio::task::spawn_blocking(move || read());
        let outcome = match tokio::time::timeout(READING, reading).await {
            Ok(Ok(Ok(served))) => {
                for warning in &served.warnings {
                    tracing::warn!("{warning}");
                }
                self.guard.allow(&served.config.bridge.allowed_hosts, &served.config.bridge.allowed_origins);
                Ok(self.bridge.reload(served.config, served.path).await)
            }
            Ok(Ok(Err(reason))) => Err(reason),
            Ok(Err(fault)) => Err(format!("a fault of the bridge's own: {fault}")),
            Err(_) => Err(format!("it could not be read within {} s", READING.as_secs())),
        };
        match &outcome {
            Ok(changes) => tracing::info!("reloaded: {changes}"),
            Err(reason) => tracing::error!("not reloaded, the config from before stays in force: {reason}"),
        }
        self.refused = outcome.as_ref().err().cloned();
        notify::ready(&self.summary());
        outcome
    }

    fn summary(&self) -> String {
        let mut line = summary(&self.bridge.status());
        if let Some(reason) = &self.refused {
            line.push_str(&format!("; the config on disk is refused: {reason}"));
        }
        line
    }
}

/// Lets clients have the answers they wait for, then ends the upstreams.
async fn end(bridge: &Bridge, doors: JoinHandle<()>, side_door: JoinHandle<()>, within: Duration) {
    let in_flight = bridge.in_flight();
    if in_flight > 0 {
        tracing::info!("{in_flight} requests are under way: they may finish");
    }
    let mut doors = doors;
    if tokio::time::timeout(within.saturating_sub(FOR_UPSTREAMS), &mut doors).await.is_err() {
        tracing::warn!("{} requests are given up", bridge.in_flight());
        doors.abort();
    }
    bridge.stop().await;
    side_door.abort();
    // Until the task has ended the socket's file is still there.
    let _ = side_door.await;
}

/// A bridge in one line, for `systemctl status`.
fn summary(status: &Status) -> String {
    let (connected, all) = status.connected();
    let mut line = format!("{}: {connected} of {all} upstreams connected", status.address);
    for upstream in &status.upstreams {
        if matches!(upstream.state, UpstreamState::Failed | UpstreamState::Retrying) {
            line.push_str(&format!("; {} {}", upstream.name, upstream.state.as_str()));
        }
    }
    line
}

/// Where clients connect.
#[must_use]
pub fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{port}/mcp")
    } else {
        format!("http://{host}:{port}/mcp")
    }
}

/// The socket that is there already, from before a restart or from a `.socket` unit; else a new one.
/// With it comes the host that clients know it by.
async fn listen(host: &str, port: u16) -> Result<(TcpListener, String), Error> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => {
            Error::PortTaken { host: host.to_owned(), port, holder: port::holder(port) }
        }
        _ => Error::Bind { host: host.to_owned(), port, source },
    };
    let wanted: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
    for Inherited { listener, stored } in inherited::take() {
        let bound = listener.local_addr().map_err(failed)?;
        let fits = |wanted: &SocketAddr| wanted.ip() == bound.ip() && (port == 0 || port == bound.port());
        if !stored || wanted.iter().any(fits) {
            listener.set_nonblocking(true).map_err(failed)?;
            // A `.socket` unit has its own idea of the address, unless it is that of the name which clients use.
            let is_hosts = wanted.iter().any(|wanted| wanted.ip() == bound.ip());
            let host = if stored || is_hosts { host.to_owned() } else { bound.ip().to_string() };
            return Ok((TcpListener::from_std(listener).map_err(failed)?, host));
        }
        // Another address than before the restart.
        inherited::discard();
    }
    let listener = TcpListener::bind(wanted.as_slice()).await.map_err(failed)?;
    inherited::store(&listener);
    Ok((listener, host.to_owned()))
}
