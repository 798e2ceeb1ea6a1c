//! Whether the service manager can be reached, and what in the environment leads astray.

use std::path::Path;

use super::facts::Facts;
use super::finding::Finding;
use crate::host;
use crate::instance::Scope;
use crate::manager::systemd::Host;
use crate::manager::{Error, ServiceManager as _};

/// systemd is there, answers, and is new enough.
pub(super) async fn reached(facts: &Facts) -> Vec<Finding> {
    vec![match &facts.systemd {
        Ok(systemd) => Finding::ok(systemd.describe()),
        Err(Error::NotBooted { wsl: false }) => {
            let container = host::machine::is_container();
            not_booted(&host::machine::init(), container)
        }
        Err(error) => {
            let why = error.why().map(|why| format!(": {why}")).unwrap_or_default();
            let hint = error.hint().unwrap_or_else(|| "foxxy-bridge server start".to_owned());
            // The hints of errors do not know whom they are for.
            Finding::problem(format!("{error}{why}"), hint.replace("USER", &facts.user))
        }
    }]
}

fn not_booted(init: &str, container: bool) -> Finding {
    let place = if container { "in this container" } else { "on this machine" };
    Finding::ok(format!("systemd does not run {place} (PID 1 is `{init}`): bridges are kept with PID files"))
}

/// `XDG_RUNTIME_DIR` and `DBUS_SESSION_BUS_ADDRESS` lead to the caller's own manager.
pub(super) async fn environment(facts: &Facts) -> Vec<Finding> {
    if !facts.host.booted || facts.scope() == Scope::System {
        return Vec::new();
    }
    let own = facts.host.usual_runtime_dir.is_dir();
    let mode = facts.host.runtime_dir.as_ref().and_then(|(folder, _)| host::exposure::mode(folder).ok());
    let owner = facts.host.runtime_dir.as_ref().and_then(|(_, owner)| owner.map(host::user::name));
    let mut found = vec![runtime_dir(&facts.host, &facts.user, own, mode, owner.as_deref())];
    found.extend(session_bus(&facts.host, facts.systemd.is_ok()));
    found
}

/// What `XDG_RUNTIME_DIR` is worth. `own` is whether the usual folder of this user is there, `mode` that of the folder
/// that is named, `owner` the name of its owner.
fn runtime_dir(host: &Host, user: &str, own: bool, mode: Option<u32>, owner: Option<&str>) -> Finding {
    let usual = host.usual_runtime_dir.display();
    let found = match &host.runtime_dir {
        None => "XDG_RUNTIME_DIR is not set".to_owned(),
        Some((folder, None)) => format!("XDG_RUNTIME_DIR is {}, which is not there", folder.display()),
        Some((folder, Some(uid))) if *uid != host.uid => {
            let owner = owner.unwrap_or("another user");
            format!("XDG_RUNTIME_DIR is {}, which belongs to {owner} (uid {uid})", folder.display())
        }
        Some((folder, Some(_))) => {
            let folder = folder.display();
            return match mode {
                Some(mode) if mode & 0o077 != 0 => Finding::warning(
                    format!("XDG_RUNTIME_DIR is {folder}, which others may enter (mode {mode:04o})"),
                    format!("chmod 700 {folder}"),
                ),
                _ => Finding::ok(format!("XDG_RUNTIME_DIR is {folder}")),
            };
        }
    };
    if own {
        let found =
            format!("{found}; bridges use {usual}, but systemctl --user and journalctl do not find it");
        return Finding::warning(found, format!("export XDG_RUNTIME_DIR={usual}"));
    }
    let fix = format!(
        "log in as {user} (ssh, or `machinectl shell {user}@`) rather than with su or sudo -u; for one who never logs \
         in: sudo loginctl enable-linger {user}"
    );
    Finding::problem(format!("{found}, and there is no {usual}: {user} has not logged in"), fix)
}

/// What `DBUS_SESSION_BUS_ADDRESS` is worth; nothing where it is not set or leads where it should.
fn session_bus(host: &Host, reached: bool) -> Option<Finding> {
    let address = host.session_address.as_deref()?;
    let path = address.strip_prefix("unix:path=").map(|path| path.split(',').next().unwrap_or(path));
    let named = host.runtime_dir.as_ref().filter(|(_, owner)| *owner == Some(host.uid)).map(|(dir, _)| dir);
    let folders = named.into_iter().chain([&host.usual_runtime_dir]);
    let expected = folders.map(|folder| folder.join("bus")).any(|bus| path.map(Path::new) == Some(&bus));
    let found = format!("DBUS_SESSION_BUS_ADDRESS leads to {address}, not to this user's manager");
    match (expected, reached) {
        (true, _) => None,
        // It is not used.
        (false, true) => Some(Finding::ok(format!("{found}, and is not used"))),
        (false, false) => Some(Finding::problem(found, "unset DBUS_SESSION_BUS_ADDRESS")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    fn host(runtime_dir: Option<(&str, Option<u32>)>, session: Option<&str>) -> Host {
        Host {
            booted: true,
            wsl: false,
            uid: 1001,
            sudo_user: None,
            runtime_dir: runtime_dir.map(|(dir, owner)| (dir.into(), owner)),
            session_address: session.map(str::to_owned),
            usual_runtime_dir: "/run/user/1001".into(),
        }
    }

    #[test]
    fn a_runtime_folder_is_the_users_own_and_private() {
        let own = host(Some(("/run/user/1001", Some(1001))), None);
        assert_eq!(runtime_dir(&own, "ada", true, Some(0o700), Some("ada")).state, State::Ok);
        let open = runtime_dir(&own, "ada", true, Some(0o755), Some("ada"));
        assert_eq!(open.fix.as_deref(), Some("chmod 700 /run/user/1001"));
    }

    #[test]
    fn what_su_left_is_named_with_its_owner_and_the_way_out() {
        let foreign = host(Some(("/run/user/1000", Some(1000))), None);
        let there = runtime_dir(&foreign, "ada", true, None, Some("bob"));
        assert!(there.found.contains("/run/user/1000, which belongs to bob (uid 1000)"), "{there:?}");
        assert_eq!(there.fix.as_deref(), Some("export XDG_RUNTIME_DIR=/run/user/1001"));
        let gone = runtime_dir(&foreign, "ada", false, None, None);
        assert_eq!(gone.state, State::Problem);
        assert!(gone.fix.unwrap().ends_with("sudo loginctl enable-linger ada"));
    }

    #[test]
    fn a_bus_that_leads_elsewhere_matters_only_where_it_is_used() {
        let right = host(None, Some("unix:path=/run/user/1001/bus,guid=1"));
        assert_eq!(session_bus(&right, false), None);
        let wrong = host(None, Some("unix:path=/tmp/dbus-x"));
        assert_eq!(session_bus(&wrong, true).unwrap().state, State::Ok);
        let used = session_bus(&wrong, false).unwrap();
        assert_eq!(used.fix.as_deref(), Some("unset DBUS_SESSION_BUS_ADDRESS"));
        assert_eq!(session_bus(&host(None, None), false), None);
    }

    #[test]
    fn without_systemd_it_is_said_what_runs_in_its_place() {
        let found = not_booted("sh", true);
        assert_eq!(
            found.found,
            "systemd does not run in this container (PID 1 is `sh`): bridges are kept with PID files"
        );
        assert!(not_booted("openrc-init", false).found.contains("on this machine (PID 1 is `openrc-init`)"));
    }
}
