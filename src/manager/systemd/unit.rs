//! A [`UnitSpec`] as the properties of a transient unit.
//!
//! The values go over D-Bus as they are: systemd escapes them itself where it writes its own copy of the unit.

use std::path::Path;
use std::time::Duration;

use zbus::{OwnedVariant, Variant};

use super::features::{Feature, Version};
use crate::instance::{Name, Scope};
use crate::manager::{Error, Memory, UnitSpec};

/// Properties as `StartTransientUnit` takes them.
pub(super) type Properties = Vec<(String, OwnedVariant)>;

/// Exit codes after which another try cannot help: bad usage (2) and a bad config (78, `EX_CONFIG`).
const HOPELESS_EXITS: [i32; 2] = [2, 78];

/// Messages within 30 s before journald drops some: twice its default, for upstreams that talk a lot on stderr.
const LOG_BURST: u32 = 20_000;

/// A bridge that lives this long does not fail at once.
const SHORT_LIFE: Duration = Duration::from_secs(3);

/// Into how many steps the growth of the restart delay is cut.
const RESTART_STEPS: u32 = 5;

/// The properties of the unit that runs `spec` as instance `name` under a manager of this scope and version.
///
/// # Errors
/// [`Error::NotText`] for a path that is not UTF-8, which D-Bus cannot carry, and [`Error::LostCharacter`] for an argument
/// that this version cannot keep.
pub(super) fn transient_properties(
    name: &Name,
    spec: &UnitSpec,
    scope: Scope,
    version: Version,
) -> Result<Properties, Error> {
    let mut unit = Builder::default();
    unit.put("Description", spec.description.as_str());
    unit.put("CollectMode", "inactive-or-failed");
    // We hold on to the unit while we watch it, or a failed one would be collected before its result is read.
    unit.put("AddRef", true);

    unit.put("Type", if version.has(Feature::NotifyReload) { "notify-reload" } else { "notify" });
    unit.put("NotifyAccess", "main");
    // Where `systemctl service-log-level` finds the bridge.
    if let Some(bus_name) = name.bus_name() {
        unit.put("BusName", bus_name);
    }
    unit.commands(spec, version)?;
    unit.put("TimeoutStartUSec", micros(spec.start_timeout));
    unit.put("TimeoutStopUSec", micros(spec.stop_timeout));
    if let Some(patience) = spec.watchdog {
        unit.put("WatchdogUSec", micros(patience));
    }
    // The listening socket is kept over a restart, so that no client is refused meanwhile.
    unit.put("FileDescriptorStoreMax", 8_u32);
    // SIGTERM is for the bridge, which ends its upstreams itself; what is left after it gets SIGKILL.
    unit.put("KillMode", "mixed");
    // One upstream that ate all memory must not take the bridge with it.
    unit.put("OOMPolicy", "continue");
    unit.restart(spec, version);

    if !spec.environment.is_empty() {
        unit.put(
            "Environment",
            spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        );
    }
    if !spec.environment_files.is_empty() {
        let files = spec.environment_files.iter().map(|path| Ok((text(path)?, false)));
        unit.put("EnvironmentFiles", files.collect::<Result<Vec<_>, Error>>()?);
    }
    if !spec.credentials.is_empty() {
        let credentials = spec.credentials.iter().map(|(id, path)| Ok((id.clone(), text(path)?)));
        unit.put("LoadCredential", credentials.collect::<Result<Vec<_>, Error>>()?);
    }
    if let Some(dir) = &spec.working_directory {
        unit.put("WorkingDirectory", text(dir)?);
    }
    match scope {
        // Where desktops and `systemd-oomd` expect what a person started.
        Scope::User => unit.put("Slice", "app.slice"),
        Scope::System => unit.system_only(name, spec),
    }
    unit.limits(spec);

    unit.put("UMask", 0o077_u32);
    unit.put("SyslogIdentifier", "foxxy-bridge");
    unit.put("LogRateLimitIntervalUSec", micros(Duration::from_secs(30)));
    unit.put("LogRateLimitBurst", LOG_BURST);
    Ok(unit.properties)
}

#[derive(Default)]
struct Builder {
    properties: Properties,
}

impl Builder {
    fn put<'a>(&mut self, name: &str, value: impl Into<Variant<'a>>) {
        // Only a file descriptor can fail to be owned, and there is none here.
        if let Ok(value) = OwnedVariant::try_from(value.into()) {
            self.properties.push((name.to_owned(), value));
        }
    }

    /// The command lines, to be taken literally: systemd would put its own variables in place of a `$`.
    ///
    /// Older versions cannot be trusted with a flag or a quoted `$`: they write both down in a form that they do not
    /// read back, and the unit is broken after the next daemon-reload.
    fn commands(&mut self, spec: &UnitSpec, version: Version) -> Result<(), Error> {
        self.command("ExecStart", &spec.exec, version)?;
        if version.has(Feature::NotifyReload) {
            return Ok(());
        }
        self.command("ExecReload", &spec.reload, version)
    }

    fn command(&mut self, property: &str, exec: &[String], version: Version) -> Result<(), Error> {
        let Some(program) = exec.first().cloned() else { return Ok(()) };
        if version.has(Feature::LiteralArguments) {
            self.put(&format!("{property}Ex"), vec![(program, exec.to_vec(), vec!["no-env-expand"])]);
            return Ok(());
        }
        // All others were tried: these two come back from a daemon-reload as `$$` and `\;`.
        let lost = |argument: &String| argument.chars().find(|character| matches!(character, '$' | ';'));
        if let Some((argument, character)) =
            exec.iter().find_map(|argument| Some((argument, lost(argument)?)))
        {
            return Err(Error::LostCharacter { argument: argument.clone(), character, version: version.0 });
        }
        self.put(property, vec![(program, exec.to_vec(), false)]);
        Ok(())
    }

    fn restart(&mut self, spec: &UnitSpec, version: Version) {
        let restart = &spec.restart;
        if restart.attempts == Some(0) {
            self.put("Restart", "no");
            return;
        }
        self.put("Restart", "on-failure");
        self.put("RestartUSec", micros(restart.delay));
        let max_delay = restart.max_delay.filter(|max| *max > restart.delay);
        let grows = max_delay.filter(|_| version.has(Feature::RestartSteps));
        if let Some(max) = grows {
            self.put("RestartSteps", restart.attempts.unwrap_or(RESTART_STEPS).clamp(1, RESTART_STEPS));
            self.put("RestartMaxDelayUSec", micros(max));
        }
        self.put("RestartPreventExitStatus", (HOPELESS_EXITS.to_vec(), Vec::<i32>::new()));
        let (interval, burst) = match restart.attempts {
            None => (Duration::ZERO, 0),
            Some(attempts) => start_limit(attempts, grows.unwrap_or(restart.delay)),
        };
        self.put("StartLimitIntervalUSec", micros(interval));
        self.put("StartLimitBurst", burst);
    }

    fn system_only(&mut self, name: &Name, spec: &UnitSpec) {
        if let Some(user) = &spec.user {
            self.put("User", user.as_str());
        }
        if let Some(group) = &spec.group {
            self.put("Group", group.as_str());
        }
        // The bridge's user may not make its own folder in /run. It is kept after the stop: a lock file that is
        // removed while somebody holds it no longer locks anything.
        self.put("RuntimeDirectory", vec![format!("foxxy-bridge/{name}")]);
        self.put("RuntimeDirectoryMode", 0o700_u32);
        self.put("RuntimeDirectoryPreserve", "yes");
    }

    fn limits(&mut self, spec: &UnitSpec) {
        let limits = &spec.limits;
        self.memory("MemoryMax", limits.memory_max);
        self.memory("MemoryHigh", limits.memory_high);
        let numbers = [
            ("TasksMax", limits.tasks_max),
            ("CPUQuotaPerSecUSec", limits.cpu_quota),
            ("LimitNOFILE", limits.nofile),
            ("LimitNOFILESoft", limits.nofile),
        ];
        for (property, number) in numbers {
            if let Some(number) = number {
                self.put(property, number);
            }
        }
    }

    fn memory(&mut self, property: &str, amount: Option<Memory>) {
        match amount {
            None => {}
            Some(Memory::Bytes(bytes)) => self.put(property, bytes),
            Some(Memory::Unlimited) => self.put(property, u64::MAX),
            // systemd takes shares in 2^32nds of the whole, less one.
            Some(Memory::Share(share)) => {
                let scale = u64::from(share.min(10_000)) * u64::from(u32::MAX) / 10_000;
                self.put(&format!("{property}Scale"), u32::try_from(scale).unwrap_or(u32::MAX));
            }
        }
    }
}

/// The interval and burst with which `attempts` restarts in a row are the last.
///
/// The interval must be longer than the waits between the tries, and the time that a bridge lives which fails at once,
/// or the limit can never be reached. It must not be much longer, for restarts by hand count as well.
fn start_limit(attempts: u32, longest_delay: Duration) -> (Duration, u32) {
    let burst = attempts.saturating_add(1);
    (longest_delay.saturating_add(SHORT_LIFE).saturating_mul(burst), burst)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::NotText { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Limits, Restart};

    const OLD: Version = Version(252);
    const NEW: Version = Version(257);

    fn plain() -> UnitSpec {
        UnitSpec {
            description: "foxxy-bridge work".into(),
            exec: ["/usr/bin/foxxy-bridge", "server", "start", "--config", "/home/a/50% off.json"]
                .map(str::to_owned)
                .to_vec(),
            reload: ["/usr/bin/foxxy-bridge", "server", "reload", "work"].map(str::to_owned).to_vec(),
            environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            environment_files: Vec::new(),
            credentials: [].into(),
            working_directory: None,
            user: None,
            group: None,
            restart: Restart::default(),
            limits: Limits::default(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(20),
            watchdog: None,
        }
    }

    fn full() -> UnitSpec {
        UnitSpec {
            environment_files: vec!["/etc/foxxy-bridge/work.env".into()],
            credentials: [("token".to_owned(), "/etc/foxxy-bridge/token".into())].into(),
            working_directory: Some("/srv/work".into()),
            watchdog: Some(Duration::from_secs(30)),
            user: Some("foxxy".into()),
            group: Some("mcp".into()),
            limits: Limits {
                memory_max: Some(Memory::Bytes(1 << 30)),
                memory_high: Some(Memory::Share(5_000)),
                cpu_quota: Some(1_500_000),
                tasks_max: Some(512),
                nofile: Some(65_536),
            },
            ..plain()
        }
    }

    fn rendered(spec: &UnitSpec, scope: Scope, version: Version) -> String {
        let properties = transient_properties(&"work".parse().unwrap(), spec, scope, version).unwrap();
        let lines = properties.iter().map(|(name, value)| format!("{name} = {}", &**value));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn property(spec: &UnitSpec, version: Version, name: &str) -> Option<String> {
        let text = rendered(spec, Scope::User, version);
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")).map(str::to_owned))
    }

    #[test]
    fn a_users_unit_for_an_old_systemd() {
        insta::assert_snapshot!(rendered(&plain(), Scope::User, OLD), @r#"
        Description = "foxxy-bridge work"
        CollectMode = "inactive-or-failed"
        AddRef = true
        Type = "notify"
        NotifyAccess = "main"
        BusName = "foxxy_bridge.i_work"
        ExecStart = [("/usr/bin/foxxy-bridge", ["/usr/bin/foxxy-bridge", "server", "start", "--config", "/home/a/50% off.json"], false)]
        ExecReload = [("/usr/bin/foxxy-bridge", ["/usr/bin/foxxy-bridge", "server", "reload", "work"], false)]
        TimeoutStartUSec = uint64 30000000
        TimeoutStopUSec = uint64 20000000
        FileDescriptorStoreMax = uint32 8
        KillMode = "mixed"
        OOMPolicy = "continue"
        Restart = "on-failure"
        RestartUSec = uint64 2000000
        RestartPreventExitStatus = ([2, 78], @ai [])
        StartLimitIntervalUSec = uint64 30000000
        StartLimitBurst = uint32 6
        Environment = ["PATH=/usr/bin:/bin"]
        Slice = "app.slice"
        UMask = uint32 63
        SyslogIdentifier = "foxxy-bridge"
        LogRateLimitIntervalUSec = uint64 30000000
        LogRateLimitBurst = uint32 20000
        "#);
    }

    #[test]
    fn a_system_unit_with_everything_for_a_new_systemd() {
        insta::assert_snapshot!(rendered(&full(), Scope::System, NEW), @r#"
        Description = "foxxy-bridge work"
        CollectMode = "inactive-or-failed"
        AddRef = true
        Type = "notify-reload"
        NotifyAccess = "main"
        BusName = "foxxy_bridge.i_work"
        ExecStartEx = [("/usr/bin/foxxy-bridge", ["/usr/bin/foxxy-bridge", "server", "start", "--config", "/home/a/50% off.json"], ["no-env-expand"])]
        TimeoutStartUSec = uint64 30000000
        TimeoutStopUSec = uint64 20000000
        WatchdogUSec = uint64 30000000
        FileDescriptorStoreMax = uint32 8
        KillMode = "mixed"
        OOMPolicy = "continue"
        Restart = "on-failure"
        RestartUSec = uint64 2000000
        RestartSteps = uint32 5
        RestartMaxDelayUSec = uint64 30000000
        RestartPreventExitStatus = ([2, 78], @ai [])
        StartLimitIntervalUSec = uint64 198000000
        StartLimitBurst = uint32 6
        Environment = ["PATH=/usr/bin:/bin"]
        EnvironmentFiles = [("/etc/foxxy-bridge/work.env", false)]
        LoadCredential = [("token", "/etc/foxxy-bridge/token")]
        WorkingDirectory = "/srv/work"
        User = "foxxy"
        Group = "mcp"
        RuntimeDirectory = ["foxxy-bridge/work"]
        RuntimeDirectoryMode = uint32 448
        RuntimeDirectoryPreserve = "yes"
        MemoryMax = uint64 1073741824
        MemoryHighScale = uint32 2147483647
        TasksMax = uint64 512
        CPUQuotaPerSecUSec = uint64 1500000
        LimitNOFILE = uint64 65536
        LimitNOFILESoft = uint64 65536
        UMask = uint32 63
        SyslogIdentifier = "foxxy-bridge"
        LogRateLimitIntervalUSec = uint64 30000000
        LogRateLimitBurst = uint32 20000
        "#);
    }

    #[test]
    fn a_users_unit_never_changes_user() {
        for name in ["User", "Group", "RuntimeDirectory"] {
            assert_eq!(property(&full(), NEW, name), None, "{name}");
        }
    }

    #[test]
    fn every_character_is_kept_or_refused_but_never_lost() {
        for (argument, lost) in [("--name=$HOME", '$'), ("/srv/a;b.json", ';')] {
            let mut spec = plain();
            spec.exec.push(argument.into());
            let error = transient_properties(&"work".parse().unwrap(), &spec, Scope::User, OLD).unwrap_err();
            assert!(
                matches!(error, Error::LostCharacter { character, version: 252, .. } if character == lost)
            );
            assert!(property(&spec, NEW, "ExecStartEx").unwrap().contains(argument));
        }
    }

    #[test]
    fn no_attempts_means_no_restart() {
        let spec = UnitSpec { restart: Restart { attempts: Some(0), ..Restart::default() }, ..plain() };
        assert_eq!(property(&spec, NEW, "Restart").unwrap(), "\"no\"");
        assert_eq!(property(&spec, NEW, "StartLimitBurst"), None);
    }

    #[test]
    fn restarts_for_ever_have_no_start_limit() {
        let spec = UnitSpec { restart: Restart { attempts: None, ..Restart::default() }, ..plain() };
        assert_eq!(property(&spec, NEW, "StartLimitIntervalUSec").unwrap(), "uint64 0");
    }

    #[test]
    fn a_path_that_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let path = std::ffi::OsString::from_vec(b"/srv/\xff".to_vec());
        let spec = UnitSpec { working_directory: Some(path.into()), ..plain() };
        let refused = transient_properties(&"work".parse().unwrap(), &spec, Scope::User, NEW);
        assert!(matches!(refused, Err(Error::NotText { .. })));
    }

    proptest::proptest! {
        #[test]
        fn the_start_limit_can_always_be_reached(attempts in 0u32..1000, delay in 0u64..3600, life in 0u64..3) {
            let (delay, life) = (Duration::from_secs(delay), Duration::from_secs(life));
            let (interval, burst) = start_limit(attempts, delay);
            proptest::prop_assert_eq!(burst, attempts + 1);
            proptest::prop_assert!(interval > (delay + life) * attempts + life);
        }
    }
}
