//! One bridge's life: take the lock, open the doors, say READY, serve, drain, stop.

mod doors;
mod error;
mod listening;
mod reload;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::bridge::{About, Bridge};
use crate::config::Config;
use crate::control::Manager;
use crate::host::cgroup::Groups;
use crate::host::log::{self, Level, Sink};
use crate::host::process::Identity;
use crate::host::signals::{Hangup, Termination};
use crate::host::{fault, notify, unit};
use crate::http::{Guard, Order};
use crate::instance::{Instance, Lock, LockError};

use doors::Doors;
pub use error::Error;
use listening::Listening;
pub use listening::address;
pub use reload::Read;
use reload::Reload;

/// What to serve, and where.
pub struct Options {
    /// Who the bridge is.
    pub instance: Instance,
    /// What it serves first.
    pub served: Served,
    /// How it comes by its config anew.
    pub read: Read,
    /// The address to listen on: a name or an IP address.
    pub host: String,
    /// The TCP port; 0 takes a free one.
    pub port: u16,
    /// How much is logged.
    pub level: Level,
    /// The process of ours that keeps this one, and gets its log.
    pub supervisor: Option<u32>,
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

impl Served {
    /// Says what is to be said about it.
    fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Tells the guard whom it lets in.
    fn tell(&self, guard: &Guard) {
        guard.allow(&self.config.bridge.allowed_hosts, &self.config.bridge.allowed_origins);
    }
}

/// Serves until a signal ends it. A failure is also told to the service manager, as the bridge's last words.
pub fn run(options: Options) -> Result<(), Error> {
    let sink = if options.supervisor.is_some() { Sink::Supervisor } else { Sink::Own };
    let recent = log::start(options.instance.name().as_str(), options.level, sink);
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
    let Options { instance, served, read, host, port, supervisor, .. } = options;
    let mut termination = Termination::listen().map_err(Error::Runtime)?;
    if let Some(supervisor) = supervisor {
        termination.or_end_of(supervisor).map_err(Error::Runtime)?;
    }
    let hangup = Hangup::listen().map_err(Error::Runtime)?;
    let _lock = lock(&instance)?;
    fault::point("bridge:locked");
    served.warn();
    let listening = tokio::select! {
        listening = Listening::open(&host, port, supervisor.is_some()) => listening?,
        // The name of the host may take long to be looked up.
        signal = termination.next() => {
            tracing::info!("stopping: {signal}, before it served");
            return Ok(());
        }
    };
    fault::point("bridge:listening");
    let control = doors::control(&instance)?;
    let unit = unit::own();
    let log_control = doors::log_control(&instance, unit.as_deref());
    let guard = Arc::new(Guard::new(&listening.host));
    let about = about(&instance, unit, supervisor.is_some(), &listening);
    let groups = match supervisor {
        Some(supervisor) => groups_below(supervisor, &instance).await,
        None => Groups::take().await,
    };
    let bridge = Arc::new(start(served, about, &guard, recent, groups).await);
    let (doors, orders) = Doors::open(&bridge, &guard, listening, control, log_control);
    let signal = serve(Reload::new(&bridge, &guard, read), orders, hangup, &mut termination).await;
    tracing::info!("stopping: {signal}");
    stop(&bridge, doors, &mut termination).await;
    Ok(())
}

fn lock(instance: &Instance) -> Result<Lock, Error> {
    Lock::take(instance).map_err(|error| match error {
        LockError::Held(by) => Error::AlreadyRunning { name: instance.name().to_string(), by },
        LockError::Io { path, source } => Error::File { action: "lock", path, source },
    })
}

fn about(instance: &Instance, unit: Option<String>, supervised: bool, listening: &Listening) -> About {
    About {
        name: instance.name().to_string(),
        manager: match (supervised, &unit) {
            (true, _) => Manager::Pidfile,
            (false, Some(_)) => Manager::Systemd,
            (false, None) => Manager::Foreground,
        },
        unit,
        address: listening.address.clone(),
    }
}

/// The control groups of a bridge that no service manager keeps.
async fn groups_below(supervisor: u32, instance: &Instance) -> Groups {
    match Identity::of(supervisor) {
        Some(supervisor) => Groups::make(&instance.name().control_group(&supervisor)).await,
        None => Groups::none("its supervisor is gone"),
    }
}

/// Puts the first config in force.
async fn start(served: Served, about: About, guard: &Guard, recent: &log::Recent, groups: Groups) -> Bridge {
    let shown = served.path.as_ref().map_or_else(|| "built in".to_owned(), |path| path.display().to_string());
    tracing::info!("serving {} (config: {shown})", about.address);
    served.tell(guard);
    Bridge::start(served.config, served.path, about, recent, groups)
}

/// Says READY and how the bridge is, and has the config read anew when asked to, until a signal comes: that one.
async fn serve(
    mut reload: Reload<'_>,
    mut orders: mpsc::Receiver<Order>,
    mut hangup: Hangup,
    termination: &mut Termination,
) -> &'static str {
    let bridge = reload.bridge();
    let mut told = reload.summary();
    fault::point("bridge:serving");
    notify::ready(&told);
    loop {
        tokio::select! {
            signal = termination.next() => return signal,
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
    }
}

/// Lets clients have the answers that they wait for, then ends the upstreams; at once when another signal comes.
async fn stop(bridge: &Bridge, doors: Doors, termination: &mut Termination) {
    doors.dismiss();
    notify::stopping("stopping");
    fault::point("bridge:stopping");
    bridge.begin_stop();
    doors.shut();
    let stop_timeout = bridge.config().bridge.daemon.stop_timeout;
    notify::extend_timeout(stop_timeout);
    tokio::select! {
        () = doors.drain(bridge, stop_timeout) => tracing::info!("stopped"),
        signal = termination.next() => tracing::warn!("{signal} again: ending at once"),
    }
}
