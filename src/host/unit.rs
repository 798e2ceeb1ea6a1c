//! Whether a service manager runs this process itself, and as which unit.

/// The unit whose main process this is; `None` when it was started by hand, also from inside a unit.
#[must_use]
pub fn own() -> Option<String> {
    let started_by_systemd =
        std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    started_by_systemd.then(|| innermost_service(&cgroups)).flatten()
}

/// The last service on the path of the process's control group (cgroups(7): `/proc/PID/cgroup`). Where both versions
/// of the hierarchy are mounted, only one of them has it.
fn innermost_service(cgroups: &str) -> Option<String> {
    let systemds = cgroups.lines().filter(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    let mut paths = systemds.filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| path.rsplit('/').find(|part| part.ends_with(".service")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unit_in_both_hierarchies_and_below_a_delegated_one() {
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/foxxy-bridge-work.service\n";
        assert_eq!(innermost_service(user).as_deref(), Some("foxxy-bridge-work.service"));
        let nested = "0::/system.slice/foxxy-bridge-a.service/bridge\n";
        assert_eq!(innermost_service(nested).as_deref(), Some("foxxy-bridge-a.service"));
        let hybrid = "2:cpu:/\n1:name=systemd:/system.slice/foxxy-bridge-b.service\n0::/\n";
        assert_eq!(innermost_service(hybrid).as_deref(), Some("foxxy-bridge-b.service"));
        let hybrid = "1:name=systemd:/\n0::/system.slice/foxxy-bridge-c.service\n";
        assert_eq!(innermost_service(hybrid).as_deref(), Some("foxxy-bridge-c.service"));
        assert_eq!(innermost_service("0::/init.scope\n"), None);
        assert_eq!(innermost_service(""), None);
    }
}
