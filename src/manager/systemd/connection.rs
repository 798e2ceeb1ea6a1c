//! The way to the right systemd.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zbus::connection::Builder;

use super::error_name;
use crate::instance::Scope;
use crate::manager::Error;

/// How long one question to systemd may take once we are connected.
pub(super) const METHOD_TIMEOUT: Duration = Duration::from_secs(25);

/// What must be known of the host to find its service managers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether systemd is PID 1.
    pub booted: bool,
    /// Whether this is Windows Subsystem for Linux.
    pub wsl: bool,
    /// The calling user.
    pub uid: u32,
    /// Who called sudo.
    pub sudo_user: Option<String>,
    /// `XDG_RUNTIME_DIR` and its owner; no owner when it does not exist.
    pub runtime_dir: Option<(PathBuf, Option<u32>)>,
    /// `DBUS_SESSION_BUS_ADDRESS`.
    pub session_address: Option<String>,
    /// Where this user's runtime folder is when nobody changed it.
    pub usual_runtime_dir: PathBuf,
}

/// Where a bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bus {
    /// A Unix socket.
    Socket(PathBuf),
    /// An address in D-Bus's own form.
    Address(String),
    /// The machine's bus, wherever that is.
    System,
}

impl Host {
    /// Looks at this host and this process's environment.
    pub fn read() -> Self {
        let text = |key| std::env::var(key).ok().filter(|value| !value.is_empty());
        let owner = |path: &Path| path.metadata().ok().map(|found| found.uid());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let uid = rustix::process::geteuid().as_raw();
        Self {
            booted: Path::new("/run/systemd/system").is_dir(),
            wsl: kernel.to_ascii_lowercase().contains("microsoft"),
            uid,
            sudo_user: text("SUDO_USER"),
            runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from).map(|dir| {
                let owner = owner(&dir);
                (dir, owner)
            }),
            session_address: text("DBUS_SESSION_BUS_ADDRESS"),
            usual_runtime_dir: PathBuf::from(format!("/run/user/{uid}")),
        }
    }

    /// The bus of this scope's manager.
    ///
    /// The user manager's own socket comes before `DBUS_SESSION_BUS_ADDRESS`, which may lead to a bus that
    /// `dbus-run-session` or an old desktop started, without systemd.
    fn bus(&self, scope: Scope, exists: impl Fn(&Path) -> bool) -> Result<Bus, Error> {
        if !self.booted {
            return Err(Error::NotBooted { wsl: self.wsl });
        }
        if scope == Scope::System {
            return Ok(Bus::System);
        }
        let own = self.runtime_dir.as_ref().filter(|(_, owner)| *owner == Some(self.uid)).map(|(dir, _)| dir);
        for dir in own.into_iter().chain([&self.usual_runtime_dir]) {
            let socket = dir.join("bus");
            if exists(&socket) {
                return Ok(Bus::Socket(socket));
            }
        }
        match (&self.runtime_dir, &self.session_address) {
            (Some((runtime_dir, Some(owner))), _) if *owner != self.uid => Err(Error::ForeignRuntimeDir {
                uid: self.uid,
                runtime_dir: runtime_dir.clone(),
                owner: *owner,
            }),
            (_, Some(address)) => Ok(Bus::Address(address.clone())),
            (runtime_dir, None) => Err(Error::NoUserBus {
                uid: self.uid,
                runtime_dir: runtime_dir.as_ref().map(|(dir, _)| dir.clone()),
                sudo_user: self.sudo_user.clone(),
            }),
        }
    }
}

impl Bus {
    fn address(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Address(address) => address.clone(),
            Self::System => "the system's address".to_owned(),
        }
    }

    async fn connect(&self) -> zbus::Result<zbus::Connection> {
        let builder = match self {
            // Not through an address: a path could need escaping there.
            Self::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Builder::unix_stream(stream.into_std()?)
            }
            Self::Address(address) => Builder::address(address.as_str()),
            Self::System => Builder::system(),
        };
        builder.method_timeout(METHOD_TIMEOUT).build().await
    }
}

/// A connection to the bus of this scope's manager, and the version that the manager gives.
pub(super) async fn connect(
    scope: Scope,
    host: &Host,
    timeout: Duration,
) -> Result<(zbus::Connection, String), Error> {
    let bus = host.bus(scope, Path::exists)?;
    let reach = async {
        let connection = bus.connect().await.map_err(|error| unreachable(scope, &bus, &error))?;
        let version = version(&connection).await.map_err(|error| {
            if is_absent(&error) {
                Error::NotOnBus { scope, address: bus.address() }
            } else {
                unreachable(scope, &bus, &error)
            }
        })?;
        Ok((connection, version))
    };
    tokio::time::timeout(timeout, reach).await.unwrap_or(Err(Error::NoAnswer { after: timeout }))
}

async fn version(connection: &zbus::Connection) -> zbus::Result<String> {
    zbus_systemd::systemd1::ManagerProxy::builder(connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?
        .version()
        .await
}

fn unreachable(scope: Scope, bus: &Bus, error: &zbus::Error) -> Error {
    let detail = match error {
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => match error.kind() {
            io::ErrorKind::NotFound => "there is no socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens on the socket".to_owned(),
            io::ErrorKind::PermissionDenied => "the socket belongs to another user".to_owned(),
            _ => error.to_string(),
        },
        other => other.to_string(),
    };
    Error::BusUnreachable { scope, address: bus.address(), detail }
}

/// Whether a bus says that systemd is not on it; some buses try to start it first, which cannot work.
fn is_absent(error: &zbus::Error) -> bool {
    error_name(error).is_some_and(|name| {
        let name = name.trim_start_matches("org.freedesktop.DBus.Error.");
        matches!(name, "ServiceUnknown" | "NameHasNoOwner") || name.starts_with("Spawn.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            booted: true,
            wsl: false,
            uid: 1000,
            sudo_user: None,
            runtime_dir: Some(("/run/user/1000".into(), Some(1000))),
            session_address: None,
            usual_runtime_dir: "/run/user/1000".into(),
        }
    }

    fn user_bus(host: &Host, sockets: &[&str]) -> Result<Bus, Error> {
        host.bus(Scope::User, |path| sockets.iter().any(|socket| Path::new(socket) == path))
    }

    #[test]
    fn the_user_managers_own_socket_comes_first() {
        let host = Host { session_address: Some("unix:path=/tmp/dbus-x".into()), ..host() };
        assert_eq!(
            user_bus(&host, &["/run/user/1000/bus"]).unwrap(),
            Bus::Socket("/run/user/1000/bus".into())
        );
        assert_eq!(user_bus(&host, &[]).unwrap(), Bus::Address("unix:path=/tmp/dbus-x".into()));
    }

    #[test]
    fn without_the_variable_the_usual_socket_is_found() {
        let host = Host { runtime_dir: None, ..host() };
        assert_eq!(
            user_bus(&host, &["/run/user/1000/bus"]).unwrap(),
            Bus::Socket("/run/user/1000/bus".into())
        );
    }

    #[test]
    fn no_systemd_is_said_before_anything_else() {
        let host = Host { booted: false, wsl: true, ..host() };
        let error = user_bus(&host, &["/run/user/1000/bus"]).unwrap_err();
        assert!(matches!(error, Error::NotBooted { wsl: true }));
        assert!(error.hint().unwrap().contains("/etc/wsl.conf"));
    }

    #[test]
    fn another_users_runtime_folder_is_named_with_its_owner() {
        let host = Host {
            uid: 1001,
            runtime_dir: Some(("/run/user/1000".into(), Some(1000))),
            session_address: Some("unix:path=/run/user/1000/bus".into()),
            usual_runtime_dir: "/run/user/1001".into(),
            ..host()
        };
        let error = user_bus(&host, &["/run/user/1000/bus"]).unwrap_err();
        assert_eq!(error.why().unwrap(), "XDG_RUNTIME_DIR is /run/user/1000, which belongs to uid 1000");
        // A lingering user has a bus of their own, whatever `su` left in the environment.
        assert_eq!(
            user_bus(&host, &["/run/user/1000/bus", "/run/user/1001/bus"]).unwrap(),
            Bus::Socket("/run/user/1001/bus".into())
        );
    }

    #[test]
    fn no_bus_at_all_says_what_is_missing() {
        let error = user_bus(&Host { runtime_dir: None, ..host() }, &[]).unwrap_err();
        assert!(error.why().unwrap().contains("XDG_RUNTIME_DIR is not set"));
        let error = user_bus(&host(), &[]).unwrap_err();
        assert_eq!(error.why().unwrap(), "there is no bus at /run/user/1000/bus");
        let sudo = Host { uid: 0, sudo_user: Some("ada".into()), runtime_dir: None, ..host() };
        let error = user_bus(&sudo, &[]).unwrap_err();
        assert!(error.hint().unwrap().contains("run it as ada, without sudo"));
    }

    #[test]
    fn the_system_scope_needs_no_user_bus() {
        let bus = Host { runtime_dir: None, ..host() }.bus(Scope::System, |_| false).unwrap();
        assert_eq!(bus, Bus::System);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_a_refused_bus() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("bus")).unwrap());
        let owner = dir.path().metadata().unwrap().uid();
        let host = Host { uid: owner, runtime_dir: Some((dir.path().into(), Some(owner))), ..host() };
        let error = connect(Scope::User, &host, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.why().unwrap(), "nobody listens on the socket");
    }

    #[tokio::test]
    async fn a_bus_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = std::os::unix::net::UnixListener::bind(dir.path().join("bus")).unwrap();
        let owner = dir.path().metadata().unwrap().uid();
        let host = Host { uid: owner, runtime_dir: Some((dir.path().into(), Some(owner))), ..host() };
        let error = connect(Scope::User, &host, Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error:?}");
    }
}
