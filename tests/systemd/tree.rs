//! What a machine's root is made of, and so which systemd runs in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::geteuid;

/// The tree of files that a machine's root lies over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The host's own.
    Host,
    /// The one of Debian 13 that `make trees` has made.
    Trixie,
}

impl Tree {
    /// Those that the tests run on, each with a systemd of another version.
    pub(crate) fn all() -> Vec<Self> {
        let mut trees = vec![Self::Host, Self::Trixie];
        trees.dedup_by_key(|tree| tree.version());
        trees
    }

    /// The version of its systemd; of the host's `host` when it has none.
    pub(crate) fn version(self) -> &'static str {
        static HOST: OnceLock<String> = OnceLock::new();
        match self {
            Self::Host => HOST.get_or_init(|| {
                let said = Command::new("systemctl").arg("--version").output();
                let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                said.ok().and_then(|text| text.split(' ').nth(1).map(str::to_owned)).unwrap_or("host".into())
            }),
            Self::Trixie => "257",
        }
    }

    /// Why no machine can be booted from it, if none can.
    pub(crate) fn unavailable(self) -> Option<&'static str> {
        if !geteuid().is_root() {
            return Some("a machine with its own systemd needs root");
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join("systemd-nspawn").is_file()) {
            return Some("systemd-nspawn is not installed (Debian: systemd-container)");
        }
        let made = self != Self::Trixie || trixie().join(".made").is_file();
        (!made).then_some("the tree of Debian 13 is not there: make trees")
    }

    /// Where its files are.
    pub(crate) fn root(self) -> PathBuf {
        match self {
            Self::Host => PathBuf::from("/"),
            Self::Trixie => trixie().join("root"),
        }
    }

    /// Where what its python imports is, if that is not in `tests/servers`.
    pub(crate) fn venv(self) -> Option<PathBuf> {
        (self == Self::Trixie).then(|| trixie().join("venv"))
    }
}

/// Where `make trees` puts what it makes of Debian 13.
fn trixie() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("trees").join("trixie")
}
