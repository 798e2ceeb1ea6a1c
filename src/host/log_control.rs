//! `org.freedesktop.LogControl1` (org.freedesktop.LogControl1(5)): what `systemctl service-log-level` asks a service and
//! tells it, on the bus of the manager that runs it.

use std::time::Duration;

use zbus::connection::Builder;
use zbus::fdo;

use super::log::{self, Level};

/// Where the interface is, for every service.
const PATH: &str = "/org/freedesktop/LogControl1";
/// How long the bus may take to let the bridge in.
const CONNECTING: Duration = Duration::from_secs(10);
/// Between two attempts, when the bus went away.
const AGAIN: Duration = Duration::from_secs(30);

/// Which bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// This user's.
    User,
    /// The machine's.
    System,
}

/// Offers the interface under that bus name, for as long as this is awaited. A bus that is not there, or that does not
/// give the name, is no failure: the bridge then has no such interface.
pub async fn serve(bus: Bus, name: String) {
    loop {
        let connected = tokio::time::timeout(CONNECTING, connect(bus, &name)).await;
        match connected {
            Ok(Ok(connection)) => {
                tracing::debug!("on the bus as {name}");
                connection.closed().await;
                tracing::debug!("the bus is gone");
            }
            Ok(Err(error)) => {
                tracing::debug!("not on the bus, `systemctl service-log-level` will not work: {error}");
                return;
            }
            Err(_) => {
                tracing::debug!("not on the bus: it did not answer within {} s", CONNECTING.as_secs());
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn connect(bus: Bus, name: &str) -> zbus::Result<zbus::Connection> {
    let builder = match bus {
        Bus::User => Builder::session(),
        Bus::System => Builder::system(),
    };
    builder.serve_at(PATH, LogControl).name(name).build().await
}

struct LogControl;

#[zbus::interface(name = "org.freedesktop.LogControl1")]
impl LogControl {
    /// As syslog(3) calls it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> &'static str {
        log::level().syslog_name()
    }

    #[zbus(property)]
    fn set_log_level(&self, name: &str) -> fdo::Result<()> {
        let level: Level = name.parse().map_err(fdo::Error::InvalidArgs)?;
        log::set_level(level);
        tracing::info!("logging at {level} level from now on, as the bus was told");
        Ok(())
    }

    /// Settled when the process starts: where its standard error leads.
    #[zbus(property(emits_changed_signal = "const"))]
    fn log_target(&self) -> &'static str {
        log::target()
    }

    /// Of the bridge's own lines; those of an upstream's process have its name after it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &'static str {
        log::IDENTIFIER
    }
}
