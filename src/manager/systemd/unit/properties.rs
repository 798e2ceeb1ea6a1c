//! A unit as the properties of a transient one (org.freedesktop.systemd1(5)).
//!
//! The values go over D-Bus as they are: systemd escapes them itself where it writes its own copy of the unit.

use zbus::{OwnedVariant, Variant};

use super::sandbox::{Directive, Value};
use super::{Feature, Settings, Version};
use crate::instance::Scope;
use crate::manager::{Error, Memory, UnitSpec};

/// Properties as `StartTransientUnit` takes them.
type Properties = Vec<(String, OwnedVariant)>;

/// The properties of the unit that runs `spec` under a manager of this scope and version.
///
/// # Errors
/// [`Error::NotText`] for a path that is not UTF-8, which D-Bus cannot carry, and [`Error::LostCharacter`] for an argument
/// that this version cannot keep.
pub(in crate::manager::systemd) fn transient_properties(
    spec: &UnitSpec,
    scope: Scope,
    version: Version,
) -> Result<Properties, Error> {
    let settings = Settings::new(spec, scope, version)?;
    let mut unit = Builder::default();
    unit.put("Description", settings.description.as_str());
    if let Some(after) = settings.after {
        unit.put("After", vec![after]);
    }
    // We hold on to the unit while we watch it, or one that ends would be collected before its result is read. One that
    // failed stays until it is started again or stopped: whoever comes later is to see it.
    unit.put("AddRef", true);
    unit.put("StartLimitIntervalUSec", settings.start_limit_interval);
    unit.put("StartLimitBurst", settings.start_limit_burst);

    unit.put("Type", settings.kind);
    unit.put("NotifyAccess", "main");
    if let Some([name, _]) = super::bus_names(&spec.instance) {
        unit.put("BusName", name);
    }
    unit.command("ExecStart", &settings.start, version)?;
    if let Some(reload) = &settings.reload {
        unit.command("ExecReload", reload, version)?;
    }
    unit.put("TimeoutStartUSec", settings.start_timeout);
    unit.put("TimeoutStopUSec", settings.stop_timeout);
    unit.put("WatchdogUSec", settings.watchdog);
    unit.put("Restart", settings.restart);
    unit.put("RestartUSec", settings.restart_delay);
    if let (Some(steps), Some(max)) = (settings.restart_steps, settings.restart_max_delay) {
        unit.put("RestartSteps", steps);
        unit.put("RestartMaxDelayUSec", max);
    }
    unit.put("RestartPreventExitStatus", (settings.hopeless_exits.to_vec(), Vec::<i32>::new()));
    unit.put("KillMode", "mixed");
    unit.put("OOMPolicy", "continue");
    unit.put("FileDescriptorStoreMax", settings.kept_sockets);
    unit.put("Delegate", true);

    if !settings.environment.is_empty() {
        unit.put("Environment", settings.environment.clone());
    }
    if !settings.environment_files.is_empty() {
        let files = settings.environment_files.iter().map(|path| (path.clone(), false));
        unit.put("EnvironmentFiles", files.collect::<Vec<_>>());
    }
    if !settings.credentials.is_empty() {
        unit.put("LoadCredential", settings.credentials.clone());
    }
    let texts = [
        ("WorkingDirectory", settings.working_directory.as_deref()),
        ("Slice", settings.slice),
        ("User", settings.user.as_deref()),
        ("Group", settings.group.as_deref()),
    ];
    for (property, text) in texts {
        if let Some(text) = text {
            unit.put(property, text);
        }
    }
    if let Some(folder) = &settings.runtime_directory {
        unit.put("RuntimeDirectory", vec![folder.as_str()]);
        unit.put("RuntimeDirectoryMode", 0o700_u32);
        unit.put("RuntimeDirectoryPreserve", "yes");
    }
    if let Some(folder) = &settings.state_directory {
        unit.put("StateDirectory", vec![folder.as_str()]);
        unit.put("StateDirectoryMode", 0o700_u32);
    }
    unit.limits(&settings);
    unit.put("UMask", 0o077_u32);
    for directive in &settings.sandbox {
        unit.directive(directive);
    }
    let digest = format!("{}{}", super::DIGEST_FIELD, settings.digest());
    unit.put("LogExtraFields", vec![digest.into_bytes()]);
    unit.put("SyslogIdentifier", settings.identifier);
    unit.put("LogRateLimitIntervalUSec", settings.log_interval * 1_000_000);
    unit.put("LogRateLimitBurst", settings.log_burst);
    Ok(unit.properties)
}

/// The properties that these directives of a sandbox are.
pub(in crate::manager::systemd) fn directive_properties(directives: &[Directive]) -> Properties {
    let mut unit = Builder::default();
    for directive in directives {
        unit.directive(directive);
    }
    unit.properties
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

    /// A command line, to be taken literally: systemd would put its own variables in place of a `$`.
    ///
    /// Older versions cannot be trusted with a flag or a quoted `$`: they write both down in a form that they do not
    /// read back, and the unit is broken after the next daemon-reload.
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

    fn limits(&mut self, settings: &Settings) {
        let limits = &settings.limits;
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

    fn directive(&mut self, directive: &Directive) {
        let key = directive.key;
        match &directive.value {
            Value::Yes(yes) => self.put(key, *yes),
            Value::Word(word) => self.put(key, *word),
            Value::Only(words) => self.put(key, (true, words.to_vec())),
            Value::Words(words) => self.put(key, words.to_vec()),
            Value::Paths(paths) => self.put(key, paths.clone()),
            Value::None(_) => self.put(key, 0_u64),
            Value::Error(number) => self.put(key, *number as i32),
        }
    }
}
