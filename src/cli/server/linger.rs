//! Lingering: what makes a user's bridges start at boot and outlive a logout. Ours is undone, nobody else's.

use std::fs;
use std::path::PathBuf;

use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::instance::{Instance, Paths, Scope};
use crate::manager::ServiceManager;
use crate::manager::systemd::linger;

/// Switches lingering on when that is wanted, and says where it is off.
pub(super) async fn offer(instance: &Instance, wanted: bool) -> Result<(), Error> {
    let uid = rustix::process::geteuid().as_raw();
    if linger::is_on(uid).await.map_err(Error::from)? {
        return Ok(());
    }
    if !wanted {
        output::note(
            "this user does not linger: it starts at the first login and ends with the last logout; \
             from boot on: loginctl enable-linger",
        );
        return Ok(());
    }
    linger::set(uid, true).await.map_err(|error| {
        let mut error = Error::from(error);
        error.why.push(format!("{} is enabled all the same, and starts at the first login", instance.name()));
        error
    })?;
    let marker = marker(instance.paths());
    let noted = marker.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&marker, ""));
    if let Err(error) = noted {
        output::warn(format!("{}: {error}: `server disable` will leave lingering on", marker.display()));
    }
    output::note("this user lingers from now on");
    Ok(())
}

/// Switches it off again with the last bridge that is enabled, if it was switched on here.
pub(super) async fn take_back(paths: &Paths, manager: &dyn ServiceManager) -> Result<(), Error> {
    let marker = marker(paths);
    if paths.scope() != Scope::User || !marker.exists() || !manager.enabled().await?.is_empty() {
        return Ok(());
    }
    linger::set(rustix::process::geteuid().as_raw(), false).await.map_err(Error::from)?;
    fs::remove_file(&marker).map_err(|error| {
        Error::new(Exit::Failed, format!("{} cannot be removed", marker.display())).because(error.to_string())
    })?;
    // Fails where something else is kept.
    let _ = marker.parent().map(fs::remove_dir);
    output::note("this user does not linger any more");
    Ok(())
}

/// The file that says that lingering was switched on here.
fn marker(paths: &Paths) -> PathBuf {
    // No instance has such a name.
    paths.state_base().join(".lingers")
}
