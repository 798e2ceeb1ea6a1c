//! Lingering: a user whose manager runs without a login, from boot on (loginctl(1), `enable-linger`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use zbus::proxy::CacheProperties;
use zbus_systemd::login1::{ManagerProxy, UserProxy};

use super::{error_name, said};
use crate::host;
use crate::manager::ErrorKind;

/// Where logind keeps who lingers.
const FOLDER: &str = "/var/lib/systemd/linger";

/// How long logind may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a user manager may take to come up; it takes about a second.
const COMING_UP: Duration = Duration::from_secs(20);
/// How often it is looked for.
const BETWEEN: Duration = Duration::from_millis(50);

/// Why lingering could not be read or changed. The text is the "what"; [`LingerError::why`] and [`LingerError::hint`] go
/// with it.
#[derive(Debug, thiserror::Error)]
pub enum LingerError {
    /// Nobody keeps logins here.
    #[error("logind does not run on this machine")]
    NoLogind {
        /// What was said in its place.
        detail: String,
    },
    /// This user may not.
    #[error("this user may not {} lingering of {user}", switch(.on))]
    NotPermitted {
        /// Whose it would be.
        user: String,
        /// What was wanted.
        on: bool,
        /// What logind said.
        detail: String,
    },
    /// There is no such user.
    #[error("logind knows no user {user}")]
    NoUser {
        /// Who was asked for.
        user: String,
    },
    /// It lingers now, but its manager has no bus.
    #[error("the user manager of {user} has not come up within {} s", COMING_UP.as_secs())]
    NotUp {
        /// Whose.
        user: String,
        /// Its number.
        uid: u32,
        /// Where its bus would be.
        bus: PathBuf,
    },
    /// logind did not answer in time.
    #[error("logind did not answer within {} s", PATIENCE.as_secs())]
    NoAnswer,
    /// logind answered with an error that we have no words for.
    #[error("logind could not tell or change who lingers")]
    Bus(#[source] zbus::Error),
}

impl LingerError {
    /// What a caller does differently about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoLogind { .. } | Self::NoAnswer => ErrorKind::Unreachable,
            Self::NotPermitted { .. } => ErrorKind::NotPermitted,
            Self::NoUser { .. } | Self::NotUp { .. } | Self::Bus(_) => ErrorKind::Failed,
        }
    }

    /// Why, in a sentence, where the text does not say it already.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::NoLogind { detail } | Self::NotPermitted { detail, .. } => Some(detail.clone()),
            Self::NotUp { bus, .. } => Some(format!("there is no bus at {}", bus.display())),
            Self::Bus(error) => Some(error.to_string()),
            Self::NoUser { .. } | Self::NoAnswer => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoLogind { .. } => Some(
                "without logind no user manager outlives a login: use the machine's manager, --system".into(),
            ),
            Self::NotPermitted { user, on, .. } => {
                Some(format!("sudo loginctl {}-linger {user}", switch(on)))
            }
            Self::NotUp { uid, .. } => Some(format!(
                "see `systemctl status user@{uid}.service`, and that the package dbus-user-session (or dbus-broker) \
                 is installed"
            )),
            Self::NoUser { user } => Some(format!("see who there is: getent passwd {user}")),
            Self::NoAnswer | Self::Bus(_) => {
                Some("see how logind is: systemctl status systemd-logind".into())
            }
        }
    }
}

fn switch(on: &bool) -> &'static str {
    if *on { "enable" } else { "disable" }
}

/// Whether that user lingers. Where no logind answers, what it has written down decides.
///
/// # Errors
/// When logind runs and does not tell.
pub async fn is_on(uid: u32) -> Result<bool, LingerError> {
    let asked = async {
        let logind = logind().await?;
        // A user who lingers is known without a login; of any other it knows nothing.
        let path = match logind.get_user(uid).await {
            Ok(path) => path,
            Err(error) => return Err(explain(error, uid, true)),
        };
        let user = UserProxy::builder(logind.inner().connection())
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await;
        let read = async { user?.linger().await };
        read.await.map_err(|error| explain(error, uid, true))
    };
    match tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(LingerError::NoAnswer)) {
        Err(LingerError::NoLogind { .. } | LingerError::NoUser { .. }) => {
            Ok(Path::new(FOLDER).join(host::user::name(uid)).exists())
        }
        answer => answer,
    }
}

/// Has that user linger or not. When this returns after switching it on, the user's manager can be reached.
///
/// # Errors
/// That it may not be done here, or that the manager does not come up.
pub async fn set(uid: u32, on: bool) -> Result<(), LingerError> {
    let asked = async {
        let logind = logind().await?;
        // Whether logind is there at all; it may well not know the user yet.
        match logind.get_user(uid).await.map_err(|error| explain(error, uid, on)) {
            Ok(_) | Err(LingerError::NoUser { .. }) => {}
            Err(error) => return Err(error),
        }
        let set = logind.set_user_linger(uid, on, false).await;
        set.map_err(|error| match explain(error, uid, on) {
            // It has just answered: what is not there is polkit, and without it only root may.
            LingerError::NoLogind { detail } => {
                LingerError::NotPermitted { user: host::user::name(uid), on, detail }
            }
            error => error,
        })
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(LingerError::NoAnswer))?;
    if on { come_up(uid).await } else { Ok(()) }
}

/// Waits for the bus of that user's manager: logind starts it after it has answered.
async fn come_up(uid: u32) -> Result<(), LingerError> {
    let bus = PathBuf::from(format!("/run/user/{uid}/bus"));
    let there = async {
        while !bus.exists() {
            tokio::time::sleep(BETWEEN).await;
        }
    };
    let up = tokio::time::timeout(COMING_UP, there).await;
    up.map_err(|_| LingerError::NotUp { user: host::user::name(uid), uid, bus })
}

async fn logind() -> Result<ManagerProxy<'static>, LingerError> {
    let gone = |error: zbus::Error| LingerError::NoLogind { detail: error.to_string() };
    let connection =
        zbus::connection::Builder::system().method_timeout(PATIENCE).build().await.map_err(gone)?;
    ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await.map_err(gone)
}

/// An error of a call, in our words.
fn explain(error: zbus::Error, uid: u32, on: bool) -> LingerError {
    let name = error_name(&error).unwrap_or_default();
    let user = host::user::name(uid);
    let name = name.strip_prefix("org.freedesktop.").unwrap_or(&name);
    match name.strip_prefix("DBus.Error.").unwrap_or(name) {
        "login1.NoSuchUser" | "FileNotFound" => LingerError::NoUser { user },
        "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => {
            LingerError::NotPermitted { user, on, detail: said(&error) }
        }
        // Not installed, masked, or broken: the bus could not start it.
        "ServiceUnknown" | "NameHasNoOwner" | "FileExists" => LingerError::NoLogind { detail: said(&error) },
        other if other.starts_with("Spawn.") || other.starts_with("systemd1.") => {
            LingerError::NoLogind { detail: said(&error) }
        }
        _ => LingerError::Bus(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_is_told_the_command_that_may() {
        let error = LingerError::NotPermitted { user: "ada".into(), on: true, detail: "no".into() };
        assert_eq!(error.to_string(), "this user may not enable lingering of ada");
        assert_eq!(error.hint().unwrap(), "sudo loginctl enable-linger ada");
        assert_eq!(error.kind(), ErrorKind::NotPermitted);
    }

    #[test]
    fn a_bus_without_logind_is_no_logind() {
        for error in [
            zbus::fdo::Error::ServiceUnknown("not provided by any .service files".into()),
            zbus::fdo::Error::SpawnChildExited("exited with status 1".into()),
            // As when it is masked.
            zbus::fdo::Error::FileExists("Unit dbus-org.freedesktop.login1.service failed to load".into()),
        ] {
            let error = explain(error.into(), 1000, true);
            assert!(matches!(error, LingerError::NoLogind { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Unreachable);
            assert!(!error.why().unwrap().contains("org.freedesktop.DBus"), "{error:?}");
        }
    }

    #[test]
    fn a_user_whom_nobody_knows_is_named() {
        let error = zbus::fdo::Error::FileNotFound("No such file or directory".into());
        assert_eq!(explain(error.into(), 4_000_000_000, true).to_string(), "logind knows no user 4000000000");
    }
}
