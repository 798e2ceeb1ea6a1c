//! Whether a user's bridges outlive the user's logout.

use super::facts::Facts;
use super::finding::Finding;
use crate::instance::Scope;
use crate::manager::systemd::linger;

/// A user whose bridges run or are enabled lingers.
pub(super) async fn outlives_logout(facts: &Facts) -> Vec<Finding> {
    if !facts.host.booted || facts.scope() == Scope::System {
        return Vec::new();
    }
    let on = match linger::is_on(facts.host.uid).await {
        Ok(on) => on,
        Err(error) => {
            let why = error.why().map(|why| format!(": {why}")).unwrap_or_default();
            let fix = error.hint().unwrap_or_default();
            return vec![Finding::warning(format!("not known: {error}{why}"), fix)];
        }
    };
    let running = facts.bridges.iter().filter(|bridge| bridge.is_running() && bridge.managed.is_some());
    let mut names: Vec<String> = running.map(|bridge| bridge.name.to_string()).collect();
    if let Ok(systemd) = &facts.systemd {
        // Which are enabled is not worth an error of its own: the manager has one.
        let enabled = systemd.enabled().await.unwrap_or_default();
        names.extend(enabled.iter().map(|(name, _)| name.to_string()));
    }
    names.sort();
    names.dedup();
    vec![tell(on, &facts.user, &names)]
}

/// In words; `names` are the bridges that would end.
fn tell(on: bool, user: &str, names: &[String]) -> Finding {
    if on {
        return Finding::ok(format!("on: the bridges of {user} run without a login"));
    }
    if names.is_empty() {
        return Finding::ok(format!(
            "off: bridges would end when {user} logs out; `loginctl enable-linger {user}` would keep them"
        ));
    }
    let end = if names.len() == 1 { "ends" } else { "end" };
    Finding::warning(
        format!("off: {} {end} when {user} logs out", names.join(", ")),
        // Without the name it works in a session only.
        format!("loginctl enable-linger {user} (with sudo where it is refused)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    #[test]
    fn lingering_matters_only_to_bridges_that_there_are() {
        assert_eq!(tell(true, "ada", &["a".into()]).state, State::Ok);
        assert_eq!(tell(false, "ada", &[]).state, State::Ok);
        let warned = tell(false, "ada", &["a".into(), "b".into()]);
        assert_eq!((warned.state, &*warned.found), (State::Warning, "off: a, b end when ada logs out"));
        assert!(warned.fix.unwrap().starts_with("loginctl enable-linger ada"));
    }
}
