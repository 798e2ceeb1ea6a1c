//! The credentials that the service manager gives to this process (systemd.exec(5), `LoadCredential=`).

use std::path::PathBuf;

use libsystemd::credentials::CredentialsLoader;

/// The folder that they are in; none when there are none.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    CredentialsLoader::path_from_env()
}
