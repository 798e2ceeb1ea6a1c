//! The folders an instance lives in.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{Name, Scope};
use crate::host::file;

/// The folder of the machine's configs.
const MACHINES: &str = "/etc/foxxy-bridge";
/// In a user's folder of configs: where instances have their sockets and locks when there is no better place.
const RUN: &str = "run";
/// Where they have their PID files, and how those end.
const PIDS: &str = "pids";
const PID_FILE: &str = ".pid";

/// The mode of what is above the folders of the machine's bridges: they may have users of their own, who must get to
/// their folders through it.
const FOR_ALL: u32 = 0o755;

/// Where configs are read and where running instances leave their sockets and locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    scope: Scope,
    config_dir: PathBuf,
    runtime_base: PathBuf,
    state_base: PathBuf,
}

/// Why the folders could not be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// Neither an option nor the environment says where configs are.
    #[error("no config folder is known: --config-dir, XDG_CONFIG_HOME and HOME are all unset")]
    NoConfigDir,
}

impl PathsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoConfigDir => "give one with --config-dir DIR, or set HOME",
        }
    }
}

impl Paths {
    /// The folders for `scope`, from `--config-dir` and the environment as `get` tells it.
    ///
    /// # Errors
    /// [`PathsError::NoConfigDir`] in the user scope when nothing says where configs are.
    pub fn from_env(
        scope: Scope,
        config_dir: Option<&Path>,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, PathsError> {
        // The XDG specification has relative paths ignored; an empty value is no path either.
        let folder = |key| get(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let config_dir = match (config_dir, scope) {
            (Some(dir), _) => std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
            (None, Scope::System) => PathBuf::from(MACHINES),
            (None, Scope::User) => folder("XDG_CONFIG_HOME")
                .or_else(|| folder("HOME").map(|home| home.join(".config")))
                .ok_or(PathsError::NoConfigDir)?
                .join("foxxy-bridge"),
        };
        let runtime_base = match scope {
            Scope::System => PathBuf::from("/run/foxxy-bridge"),
            Scope::User => match folder("XDG_RUNTIME_DIR") {
                Some(dir) => dir.join("foxxy-bridge"),
                None => config_dir.join(RUN),
            },
        };
        let state_base = match scope {
            Scope::System => PathBuf::from("/var/lib/foxxy-bridge"),
            Scope::User => folder("XDG_STATE_HOME")
                .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
                .map_or_else(|| config_dir.join("state"), |state| state.join("foxxy-bridge")),
        };
        Ok(Self { scope, config_dir, runtime_base, state_base })
    }

    /// The scope that these folders belong to.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The folder of the configs.
    pub fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    /// The config of an instance that is named after it: `NAME.json`, or `NAME.toml` when only that exists.
    pub fn named_config(&self, name: &Name) -> PathBuf {
        if name.is_default() {
            return self.default_config();
        }
        // Not by `with_extension`, which would take what follows a dot in the name for one.
        let [json, toml] = ["json", "toml"].map(|kind| self.config_dir.join(format!("{name}.{kind}")));
        if !json.exists() && toml.exists() { toml } else { json }
    }

    /// The folder that has one folder for each instance that keeps something from one boot to the next.
    pub fn state_base(&self) -> &Path {
        &self.state_base
    }

    /// The folder of what an instance keeps from one boot to the next.
    pub fn state_dir(&self, name: &Name) -> PathBuf {
        self.state_base.join(name.as_str())
    }

    /// The folder that has one folder for each instance.
    pub fn runtime_base(&self) -> &Path {
        &self.runtime_base
    }

    /// The config that is read when none is named: `config.json`, or `config.toml` when only that exists.
    pub fn default_config(&self) -> PathBuf {
        let [json, toml] = ["json", "toml"].map(|kind| self.config_dir.join("config").with_extension(kind));
        if !json.exists() && toml.exists() { toml } else { json }
    }

    /// The folder of an instance's socket and lock.
    pub fn runtime_dir(&self, name: &Name) -> PathBuf {
        // Where it is now must not depend on whether this shell has an XDG_RUNTIME_DIR.
        self.lasting_dir(name)
            .filter(|folder| folder.is_dir())
            .unwrap_or_else(|| self.runtime_base.join(name.as_str()))
    }

    /// Another folder for them, which a user's last logout does not take along: where it is there, it is the one.
    pub fn lasting_dir(&self, name: &Name) -> Option<PathBuf> {
        Some(self.lasting_base()?.join(name.as_str()))
    }

    /// The folders that may have one for each instance.
    pub fn runtime_bases(&self) -> Vec<PathBuf> {
        let mut bases = vec![self.runtime_base.clone()];
        bases.extend(self.lasting_base().filter(|base| *base != self.runtime_base));
        bases
    }

    fn lasting_base(&self) -> Option<PathBuf> {
        (self.scope == Scope::User).then(|| self.config_dir.join(RUN))
    }

    /// The file that says which process keeps an instance, where no service manager does.
    pub fn pid_file(&self, name: &Name) -> PathBuf {
        match self.is_machines_own() {
            true => self.runtime_base.join(name.as_str()).join("pid"),
            false => self.config_dir.join(PIDS).join(format!("{name}{PID_FILE}")),
        }
    }

    /// The names that have such a file.
    pub fn names_of_pid_files(&self) -> Vec<Name> {
        // The machine's are in the folders of the instances.
        let files = fs::read_dir(self.config_dir.join(PIDS)).into_iter().flatten().flatten();
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix(PID_FILE)?.parse().ok()).collect()
    }

    /// The file with the log of an instance, where no service manager has it.
    pub fn log_file(&self, name: &Name) -> PathBuf {
        match self.is_machines_own() {
            // In a folder of its own, as it may belong to a user who has to make files there.
            true => Path::new("/var/log/foxxy-bridge").join(name.as_str()).join("bridge.log"),
            false => self.config_dir.join("logs").join(format!("{name}.log")),
        }
    }

    /// Where people look for the log of the default instance, besides.
    pub fn log_alias(&self, name: &Name) -> Option<PathBuf> {
        (name.is_default() && !self.is_machines_own()).then(|| self.config_dir.join("logs/bridge.log"))
    }

    /// Whether these are the folders of a machine, where nothing but configs belongs beside them.
    fn is_machines_own(&self) -> bool {
        self.scope == Scope::System && self.config_dir == Path::new(MACHINES)
    }

    /// Makes the folder of an instance's socket and lock, for its user alone.
    ///
    /// # Errors
    /// From the system.
    pub fn make_runtime_dir(&self, name: &Name) -> io::Result<()> {
        if self.scope == Scope::System {
            file::make_folder(&self.runtime_base, FOR_ALL)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.runtime_dir(name))
    }

    /// Makes the folder that has one folder for each instance that keeps something, and gives its path.
    ///
    /// # Errors
    /// From the system.
    pub fn make_state_base(&self) -> io::Result<&Path> {
        match self.scope {
            Scope::System => file::make_folder(&self.state_base, FOR_ALL)?,
            Scope::User => fs::create_dir_all(&self.state_base)?,
        }
        Ok(&self.state_base)
    }

    /// The socket on which an instance answers for itself.
    pub fn control_socket(&self, name: &Name) -> PathBuf {
        self.runtime_dir(name).join("control.sock")
    }

    /// The file that an instance holds locked for as long as it lives.
    pub fn lock_file(&self, name: &Name) -> PathBuf {
        self.runtime_dir(name).join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |key| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.into())
    }

    fn user(pairs: &'static [(&'static str, &'static str)]) -> Paths {
        Paths::from_env(Scope::User, None, env(pairs)).unwrap()
    }

    #[test]
    fn a_users_folders_follow_xdg() {
        let paths = user(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(paths.config_dir(), Path::new("/x/foxxy-bridge"));
        assert_eq!(paths.runtime_base(), Path::new("/run/user/7/foxxy-bridge"));
    }

    #[test]
    fn without_xdg_the_config_folder_holds_everything() {
        let paths = user(&[("HOME", "/h")]);
        assert_eq!(paths.config_dir(), Path::new("/h/.config/foxxy-bridge"));
        assert_eq!(paths.runtime_base(), Path::new("/h/.config/foxxy-bridge/run"));
    }

    #[test]
    fn empty_and_relative_values_are_as_good_as_unset() {
        let paths = user(&[("XDG_CONFIG_HOME", "here"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "")]);
        assert_eq!(paths.config_dir(), Path::new("/h/.config/foxxy-bridge"));
        assert_eq!(paths.runtime_base(), Path::new("/h/.config/foxxy-bridge/run"));
    }

    #[test]
    fn the_system_scope_has_its_own_folders() {
        let paths = Paths::from_env(Scope::System, None, env(&[("XDG_RUNTIME_DIR", "/run/user/0")])).unwrap();
        assert_eq!(paths.config_dir(), Path::new("/etc/foxxy-bridge"));
        assert_eq!(paths.runtime_base(), Path::new("/run/foxxy-bridge"));
    }

    #[test]
    fn the_option_moves_the_configs_alone() {
        let dir = Some(Path::new("/elsewhere"));
        let paths = Paths::from_env(Scope::User, dir, env(&[("XDG_RUNTIME_DIR", "/run/user/7")])).unwrap();
        assert_eq!(paths.config_dir(), Path::new("/elsewhere"));
        assert_eq!(paths.runtime_base(), Path::new("/run/user/7/foxxy-bridge"));
    }

    #[test]
    fn a_user_without_home_is_told_what_to_give() {
        let error = Paths::from_env(Scope::User, None, |_| None).unwrap_err();
        assert_eq!(error, PathsError::NoConfigDir);
        assert!(error.hint().contains("--config-dir"));
    }

    #[test]
    fn json_comes_before_toml_and_toml_is_found_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::from_env(Scope::User, Some(dir.path()), |_| None).unwrap();
        assert!(paths.default_config().ends_with("config.json"));
        fs::write(dir.path().join("config.toml"), "").unwrap();
        assert!(paths.default_config().ends_with("config.toml"));
        fs::write(dir.path().join("config.json"), "").unwrap();
        assert!(paths.default_config().ends_with("config.json"));
    }
}
