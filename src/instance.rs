//! Who a bridge is: its name, its config, its unit, its files.
//!
//! An instance is its config file's canonical path; its name is what people type and what systemd sees.

pub mod environment;
pub mod lock;
mod name;
mod paths;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use lock::{Holder, Lock, LockError};
pub use name::{MAX_NAME_LEN, Name, NameError};
pub use paths::{Paths, PathsError};

/// The longest path that fits in a Unix socket's address, in bytes: `sun_path` has 108, one of them the final NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// The file of [`Instance::environment_file`].
const ENVIRONMENT: &str = "environment";

/// The file of [`Instance::variables_file`].
const VARIABLES: &str = "variables";

/// Which of a host's service managers keeps an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The manager of the calling user.
    User,
    /// The manager of the machine.
    System,
}

impl Scope {
    /// The scope of a caller who named none: the machine's for root, their own for everybody else.
    pub fn for_uid(uid: u32) -> Self {
        if uid == 0 { Self::System } else { Self::User }
    }

    /// The option that selects this scope, both here and at `systemctl` and `journalctl`.
    pub fn flag(self) -> &'static str {
        match self {
            Self::User => "--user",
            Self::System => "--system",
        }
    }

    /// `journalctl`'s option for a unit of this scope.
    pub fn journal_flag(self) -> &'static str {
        match self {
            // `--user --unit` looks into the user's own journal file alone, which system users and volatile journals lack.
            Self::User => "--user-unit",
            Self::System => "--unit",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::System => "system",
        })
    }
}

/// Why an instance could not be told from what was typed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The config that was asked for cannot be opened.
    #[error("the config {} cannot be read: {source}", path.display())]
    Config {
        /// The path as it was typed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name that was asked for belongs to an instance of another config.
    #[error("the name `{name}` is in use by an instance of {}", holder.display())]
    NameHeld {
        /// The name as it was typed.
        name: Name,
        /// The config of the instance that has it.
        holder: PathBuf,
    },
    /// The control socket would have a path that no socket can have.
    #[error("the control socket's path {} has {} bytes, and a Unix socket allows {MAX_SOCKET_PATH}", path.display(), path.as_os_str().len())]
    SocketPathTooLong {
        /// The path that is too long.
        path: PathBuf,
    },
}

impl InstanceError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Config { .. } => {
                "check the path, or write a first config with `foxxy-bridge config init`".into()
            }
            Self::NameHeld { name, .. } => {
                format!("choose another --name, or stop that one first: foxxy-bridge server stop {name}")
            }
            Self::SocketPathTooLong { .. } => {
                "choose a shorter --name or --config-dir, or log in so that XDG_RUNTIME_DIR is set".into()
            }
        }
    }
}

/// One configured bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    name: Name,
    config: Option<PathBuf>,
    scope: Scope,
    paths: Paths,
    /// Whether it is enabled, or about to be.
    keeping: bool,
}

impl Instance {
    /// An instance whose name is known; `config` is canonical, or `None` to serve the built-in default.
    ///
    /// # Errors
    /// [`InstanceError::SocketPathTooLong`] when its control socket cannot exist.
    pub fn new(name: Name, config: Option<PathBuf>, paths: Paths) -> Result<Self, InstanceError> {
        let instance = Self { name, config, scope: paths.scope(), paths, keeping: false };
        // A link is none of ours.
        let path = instance.control_socket();
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(InstanceError::SocketPathTooLong { path });
        }
        Ok(instance)
    }

    /// The instance that `--config` and `--name` mean, `None` where one was not typed.
    ///
    /// `holder` answers which config (as [`Instance::identity`] gives it) a name belongs to now.
    ///
    /// # Errors
    /// A config that was typed and cannot be opened, a typed name that is taken, a socket path that is too long.
    pub fn resolve(
        paths: Paths,
        config: Option<&Path>,
        name: Option<Name>,
        holder: impl Fn(&Name) -> Option<PathBuf>,
    ) -> Result<Self, InstanceError> {
        let default = paths.default_config();
        let config = match config {
            Some(typed) => Some(fs::canonicalize(typed).map_err(|source| config_error(typed, source))?),
            None => match fs::canonicalize(&default) {
                Ok(found) => Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(config_error(&default, source)),
            },
        };
        let identity = config.clone().unwrap_or_else(|| canonical_parent(&default));
        let is_default = config.is_none() || canonical_parent(&default) == identity || {
            fs::canonicalize(&default).is_ok_and(|default| default == identity)
        };
        let name = match name {
            Some(name) => match holder(&name) {
                Some(other) if other != identity => {
                    return Err(InstanceError::NameHeld { name, holder: other });
                }
                _ => name,
            },
            None => Name::derive(&identity, is_default, holder),
        };
        Self::new(name, config, paths)
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its config, canonical; `None` when it serves the built-in default.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What makes it this instance: its config's path, or where the default config would be.
    pub fn identity(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| canonical_parent(&self.paths.default_config()))
    }

    /// Whether `--instance` with its name means its config.
    pub fn is_named_after_config(&self) -> bool {
        canonical_parent(&self.paths.named_config(&self.name)) == self.identity()
    }

    /// The manager that it belongs to.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The folders it lives in.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The transient unit that runs it until it is stopped.
    pub fn unit_name(&self) -> String {
        self.name.unit()
    }

    /// The instance of the template unit that keeps it across boots.
    pub fn template_unit_name(&self) -> String {
        self.name.template_unit()
    }

    /// The folder of its socket and lock.
    pub fn runtime_dir(&self) -> PathBuf {
        self.paths.runtime_dir(&self.name)
    }

    /// The socket on which it answers for itself.
    pub fn control_socket(&self) -> PathBuf {
        self.paths.control_socket(&self.name)
    }

    /// The folder of what an enabled instance must still have after a boot. It is there for as long as it is enabled.
    pub fn kept_dir(&self) -> PathBuf {
        self.paths.state_dir(&self.name).join("kept")
    }

    /// Whether it is enabled, and has a folder of what it keeps from one boot to the next.
    pub fn is_kept(&self) -> bool {
        // Looked at each time: it may be enabled and disabled while it runs.
        self.keeping || fs::symlink_metadata(self.kept_dir()).is_ok_and(|found| found.is_dir())
    }

    /// The same once it is enabled.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { keeping: true, ..self }
    }

    /// The variables of its process and its servers, besides those that the manager has for all.
    pub fn environment_file(&self) -> PathBuf {
        if self.is_kept() { self.kept_environment_file() } else { self.runtime_environment_file() }
    }

    /// The same for one that is enabled.
    pub fn kept_environment_file(&self) -> PathBuf {
        self.for_manager(self.paths.state_base(), &self.kept_dir())
    }

    fn runtime_environment_file(&self) -> PathBuf {
        self.for_manager(self.paths.runtime_base(), &self.runtime_dir())
    }

    /// A file that the manager reads. The machine's one reads it as root, so that it must not be in a folder of the
    /// bridge's user, who could put a link to any file there.
    fn for_manager(&self, base: &Path, own: &Path) -> PathBuf {
        match self.scope {
            Scope::User => own.join(ENVIRONMENT),
            // No instance has such a name.
            Scope::System => base.join(format!(".{}.{ENVIRONMENT}", self.name)),
        }
    }

    /// The variables that fill in its config.
    pub fn variables_file(&self) -> PathBuf {
        self.variables_dir().join(VARIABLES)
    }

    /// What is of use only while it runs.
    pub fn runtime_files(&self) -> [PathBuf; 3] {
        let folder = self.runtime_dir();
        [self.control_socket(), self.runtime_environment_file(), folder.join(VARIABLES)]
    }

    fn variables_dir(&self) -> PathBuf {
        if self.is_kept() { self.kept_dir() } else { self.runtime_dir() }
    }

    /// The file that it holds locked for as long as it lives.
    pub fn lock_file(&self) -> PathBuf {
        self.paths.lock_file(&self.name)
    }
}

/// The process's own environment, for [`Paths::from_env`].
///
/// Where `XDG_RUNTIME_DIR` is missing (cron, a bare ssh command) or another user's (`su`), the user's own
/// `/run/user/UID` stands in for it when it exists: a bridge that the user manager runs has its socket there, whatever
/// the caller's environment says.
pub fn process_env(key: &str) -> Option<OsString> {
    let value = std::env::var_os(key).filter(|value| !value.is_empty());
    if key != "XDG_RUNTIME_DIR" {
        return value;
    }
    let uid = rustix::process::geteuid().as_raw();
    let is_own = |dir: &OsString| fs::metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == uid);
    value.filter(is_own).or_else(|| Some(format!("/run/user/{uid}").into()).filter(is_own))
}

/// The path with its folder's links resolved, for a file that need not exist.
fn canonical_parent(path: &Path) -> PathBuf {
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(file)) => parent.join(file),
        _ => path.to_owned(),
    }
}

fn config_error(path: &Path, source: io::Error) -> InstanceError {
    InstanceError::Config { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &Path) -> Paths {
        Paths::from_env(Scope::User, Some(dir), |_| None).unwrap()
    }

    fn nobody(_: &Name) -> Option<PathBuf> {
        None
    }

    #[test]
    fn no_config_at_all_is_the_default_instance() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::resolve(paths(dir.path()), None, None, nobody).unwrap();
        assert_eq!(instance.name().as_str(), "default");
        assert_eq!(instance.config(), None);
        assert_eq!(instance.identity(), dir.path().canonicalize().unwrap().join("config.json"));
    }

    #[test]
    fn the_default_config_keeps_its_name_and_identity_once_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let before = Instance::resolve(paths(dir.path()), None, None, nobody).unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        let after = Instance::resolve(paths(dir.path()), None, None, nobody).unwrap();
        assert_eq!(after.name(), before.name());
        assert_eq!(after.identity(), before.identity());
        assert_eq!(after.config(), Some(after.identity().as_path()));
    }

    #[test]
    fn the_default_config_named_by_path_is_the_default_instance() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        fs::write(&config, "").unwrap();
        let instance = Instance::resolve(paths(dir.path()), Some(&config), None, nobody).unwrap();
        assert_eq!(instance.name().as_str(), "default");
    }

    #[test]
    fn a_link_to_a_config_is_the_same_instance() {
        let dir = tempfile::tempdir().unwrap();
        let (config, link) = (dir.path().join("work.json"), dir.path().join("link.json"));
        fs::write(&config, "{}").unwrap();
        std::os::unix::fs::symlink(&config, &link).unwrap();
        let direct = Instance::resolve(paths(dir.path()), Some(&config), None, nobody).unwrap();
        let linked = Instance::resolve(paths(dir.path()), Some(&link), None, nobody).unwrap();
        assert_eq!(direct, linked);
        assert_eq!(direct.name().as_str(), "work");
    }

    #[test]
    fn a_config_that_is_not_there_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nowhere.json");
        let error = Instance::resolve(paths(dir.path()), Some(&missing), None, nobody).unwrap_err();
        assert!(error.to_string().contains("nowhere.json"), "{error}");
    }

    #[test]
    fn a_typed_name_of_another_config_is_refused_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let name: Name = "work".parse().unwrap();
        let holder = |_: &Name| Some(PathBuf::from("/etc/other.json"));
        let error = Instance::resolve(paths(dir.path()), None, Some(name), holder).unwrap_err();
        assert_eq!(error.to_string(), "the name `work` is in use by an instance of /etc/other.json");
    }

    #[test]
    fn a_typed_name_of_the_same_config_is_that_instance() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("a.json");
        fs::write(&config, "{}").unwrap();
        let held = config.canonicalize().unwrap();
        let name: Name = "work".parse().unwrap();
        let instance =
            Instance::resolve(paths(dir.path()), Some(&config), Some(name), |_| Some(held.clone())).unwrap();
        assert_eq!(instance.name().as_str(), "work");
    }

    #[test]
    fn a_socket_path_that_no_socket_can_have_is_refused() {
        let long = PathBuf::from("/").join("d".repeat(100));
        let error = Instance::new("work".parse().unwrap(), None, paths(&long)).unwrap_err();
        assert!(error.to_string().contains("a Unix socket allows 107"), "{error}");
    }

    #[test]
    fn the_longest_name_fits_in_a_users_runtime_folder() {
        let paths = Paths::from_env(Scope::User, Some(Path::new("/c")), |key| {
            (key == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".into())
        });
        let name: Name = "n".repeat(MAX_NAME_LEN).parse().unwrap();
        let instance = Instance::new(name, None, paths.unwrap()).unwrap();
        assert!(instance.control_socket().as_os_str().len() <= MAX_SOCKET_PATH);
    }

    #[test]
    fn files_and_units_carry_the_name() {
        let paths = Paths::from_env(Scope::System, None, |_| None).unwrap();
        let instance = Instance::new("a".parse().unwrap(), None, paths).unwrap();
        assert_eq!(instance.unit_name(), "foxxy-bridge-a.service");
        assert_eq!(instance.template_unit_name(), "foxxy-bridge@a.service");
        assert_eq!(instance.control_socket(), Path::new("/run/foxxy-bridge/a/control.sock"));
        assert_eq!(instance.lock_file(), Path::new("/run/foxxy-bridge/a/lock"));
    }

    #[test]
    fn root_gets_the_system_scope_and_others_their_own() {
        assert_eq!(Scope::for_uid(0), Scope::System);
        assert_eq!(Scope::for_uid(1000), Scope::User);
    }
}
