//! Bridges that come back with the machine: unit files, written and removed, and the links that enable them.
//!
//! A plan is made first and can be shown; carrying it out is all or nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::unit::{self, DROP_IN, UnitText};
use super::{Systemd, error_name, is_systemd_error};
use crate::host::file;
use crate::instance::{Name, Scope};
use crate::manager::{Drift, EnableRequest, Enablement, Error, Managed, Plan, SocketSpec, Step};

/// The template of all instances that are kept.
const TEMPLATE: &str = "foxxy-bridge@";

/// A unit file where systemd looks for it.
struct Found {
    path: PathBuf,
    text: String,
}

/// The folders of unit files.
struct Folders {
    /// All of them, in systemd's order.
    all: Vec<PathBuf>,
    /// The one for files of the administrator or the user.
    own: PathBuf,
}

impl Systemd {
    /// What enabling an instance takes, beyond what is there already.
    pub(super) async fn plan_enable(&self, request: &EnableRequest) -> Result<Plan, Error> {
        let folders = self.folders().await?;
        let mut steps = Vec::new();
        let wanted = unit::service_file(&request.spec, self.scope, self.version)?;
        let template = unit::service_file(&request.template, self.scope, self.version)?;
        let shared = self.is_shared(&folders, &request.name).await?;
        let files = Files { folders: &folders, name: &request.name, command: &request.command, shared };
        files.plan("service", Some((&template, &wanted)), &mut steps)?;
        let socket = match &request.socket {
            Some(socket) => {
                Some((unit::socket_file(&SocketSpec::of_any_instance())?, unit::socket_file(socket)?))
            }
            None => None,
        };
        files.plan(
            "socket",
            socket.as_ref().map(|(template, wanted)| (&**template, &**wanted)),
            &mut steps,
        )?;
        let (service, socket) = (request.name.template_unit(), request.name.template_socket());
        let (on, off) = if request.socket.is_some() { (socket, service) } else { (service, socket) };
        // With the other one enabled as well, both would start it.
        if self.is_enabled(&off).await? {
            steps.push(Step::Disable { units: vec![off] });
        }
        if !self.is_enabled(&on).await? {
            steps.push(Step::Enable { units: vec![on] });
        }
        Ok(Plan::then_reload(steps))
    }

    /// What takes back all that enabling an instance did, as far as it is there.
    pub(super) async fn plan_disable(&self, name: &Name) -> Result<Plan, Error> {
        let folders = self.folders().await?;
        let mut steps = Vec::new();
        let mut units = Vec::new();
        for unit in [name.template_unit(), name.template_socket()] {
            if self.is_enabled(&unit).await? {
                units.push(unit);
            }
        }
        // systemd takes back no link of a unit whose file is gone.
        let left = folders.links().filter(|(_, unit)| {
            [name.template_unit(), name.template_socket()].contains(unit) && !units.contains(unit)
        });
        let left: Vec<Step> = left
            .filter(|(link, _)| link.starts_with(&folders.own) && !link.exists())
            .map(|(path, _)| Step::Remove { path })
            .collect();
        if !units.is_empty() {
            steps.push(Step::Disable { units });
        }
        steps.extend(left);
        for kind in ["service", "socket"] {
            let drop_in = folders.drop_in(name, kind);
            if read(&drop_in)?.is_some_and(|text| unit::is_ours(&text)) {
                steps.push(Step::Remove { path: drop_in });
            }
        }
        let shared = self.is_shared(&folders, name).await?;
        for kind in ["service", "socket"].into_iter().filter(|_| !shared) {
            let template = folders.own.join(format!("{TEMPLATE}.{kind}"));
            if read(&template)?.is_some_and(|text| unit::is_ours(&text)) {
                steps.push(Step::Remove { path: template });
            }
        }
        Ok(Plan::then_reload(steps))
    }

    /// Does what the plan says; when a step fails, what was done of it is taken back.
    pub(super) async fn carry_out_plan(&self, plan: &Plan) -> Result<(), Error> {
        let mut undoing = Vec::new();
        for step in &plan.steps {
            // Looked at beforehand: a step that fails may have been taken in part.
            undoing.extend(undoing_of(step)?);
            if let Err(error) = self.take_step(step).await {
                undoing.reverse();
                for step in undoing.iter().chain([&Step::Reload]) {
                    // The first failure is what the caller is told.
                    let _ = self.take_step(step).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take_step(&self, step: &Step) -> Result<(), Error> {
        let units_error = |verb: &str, units: &[String], error: zbus::Error| match error {
            error if is_systemd_error(&error, "UnitMasked") => {
                Error::Masked { unit: units.join(" "), scope: self.scope }
            }
            error => self.error(format!("{verb} {}", units.join(" and ")), error),
        };
        match step {
            Step::Write { path, text } => {
                write(path, text).map_err(|error| self.file_error("write", path, error))
            }
            Step::Remove { path } => remove(path).map_err(|error| self.file_error("remove", path, error)),
            Step::Enable { units } => {
                let enabled = self.manager.enable_unit_files(units.clone(), false, false).await;
                enabled.map(drop).map_err(|error| units_error("enable", units, error))
            }
            Step::Disable { units } => {
                let disabled = self.manager.disable_unit_files(units.clone(), false).await;
                disabled.map(drop).map_err(|error| units_error("disable", units, error))
            }
            Step::Reload => {
                self.manager.reload().await.map_err(|error| self.error("read its unit files anew", error))
            }
        }
    }

    /// Whether, and how, an instance is started without anybody typing a command.
    pub(super) async fn enablement_of(&self, name: &Name) -> Result<Enablement, Error> {
        if self.is_enabled(&name.template_socket()).await? {
            return Ok(Enablement::FirstClient);
        }
        Ok(if self.is_enabled(&name.template_unit()).await? { Enablement::Boot } else { Enablement::No })
    }

    /// What differs between the running unit of an instance and its files.
    pub(super) async fn drift_of(&self, name: &Name) -> Result<Option<Drift>, Error> {
        let name = name.template_unit();
        let Some(path) = self.unit_path(&name).await? else { return Ok(None) };
        let failed = |error| self.error(format!("look up {name}"), error);
        let (unit, service) =
            tokio::try_join!(self.unit_at(path.clone()), self.service_at(path)).map_err(failed)?;
        let (unread, fragment, drop_ins, started) = tokio::try_join!(
            unit.need_daemon_reload(),
            unit.fragment_path(),
            unit.drop_in_paths(),
            service.exec_main_start_timestamp(),
        )
        .map_err(failed)?;
        if unread {
            return Ok(Some(Drift::Unread));
        }
        let started = SystemTime::UNIX_EPOCH + Duration::from_micros(started);
        let files = drop_ins.into_iter().chain([fragment]);
        let newer = files
            .filter_map(|file| fs::metadata(file).and_then(|found| found.modified()).ok())
            .any(|changed| changed > started);
        Ok((newer && started > SystemTime::UNIX_EPOCH).then_some(Drift::Newer))
    }

    /// All instances that are enabled, by name.
    ///
    /// # Errors
    /// From the call.
    pub async fn enabled(&self) -> Result<Vec<(Name, Enablement)>, Error> {
        // systemd lists templates as unit files, but not the instances of theirs that are linked.
        let linked = self.folders().await?.linked();
        let mut found = Vec::new();
        for name in linked {
            match self.enablement_of(&name).await? {
                Enablement::No => {}
                enablement => found.push((name, enablement)),
            }
        }
        Ok(found)
    }

    async fn is_enabled(&self, unit: &str) -> Result<bool, Error> {
        match self.manager.get_unit_file_state(unit.to_owned()).await {
            Ok(state) => Ok(matches!(state.as_str(), "enabled" | "enabled-runtime")),
            Err(error) if error_name(&error).is_some_and(|name| name.ends_with(".FileNotFound")) => Ok(false),
            Err(error) if is_systemd_error(&error, "NoSuchUnit") => Ok(false),
            Err(error) => Err(self.error(format!("look up {unit}"), error)),
        }
    }

    /// Whether other instances of the template are enabled, have drop-ins, or run.
    async fn is_shared(&self, folders: &Folders, name: &Name) -> Result<bool, Error> {
        if folders.has_drop_in_of_others(name) {
            return Ok(true);
        }
        let enabled = self.enabled().await?.into_iter().any(|(other, _)| other != *name);
        let runs = |managed: &Managed| managed.name != *name && managed.unit.starts_with(TEMPLATE);
        Ok(enabled || self.list_instances().await?.iter().any(runs))
    }

    async fn folders(&self) -> Result<Folders, Error> {
        let all =
            self.manager.unit_path().await.map_err(|error| self.error("tell its unit folders", error))?;
        let all: Vec<PathBuf> = all.into_iter().map(PathBuf::from).collect();
        let end = match self.scope {
            Scope::User => "systemd/user",
            Scope::System => "systemd/system",
        };
        // Before it there are only those of systemd's own tools.
        let own = all.iter().find(|folder| folder.ends_with(end)).cloned().ok_or(Error::NoUnitFolder)?;
        Ok(Folders { all, own })
    }

    fn file_error(&self, verb: &str, path: &Path, source: io::Error) -> Error {
        let action = format!("{verb} {}", path.display());
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotPermitted { action, scope: self.scope, detail: source.to_string() }
            }
            _ => Error::File { action, source },
        }
    }
}

impl Folders {
    fn drop_in(&self, name: &Name, kind: &str) -> PathBuf {
        self.own.join(format!("{TEMPLATE}{name}.{kind}.d")).join(DROP_IN)
    }

    /// The file of that unit: its own, or else its template's.
    fn find(&self, name: &Name, kind: &str) -> Result<Option<Found>, Error> {
        for file in [format!("{TEMPLATE}{name}.{kind}"), format!("{TEMPLATE}.{kind}")] {
            for path in self.all.iter().map(|folder| folder.join(&file)) {
                if let Some(text) = read(&path)? {
                    return Ok(Some(Found { path, text }));
                }
            }
        }
        Ok(None)
    }

    /// The links from targets to instances, and the units that they are for.
    fn links(&self) -> impl Iterator<Item = (PathBuf, String)> {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let targets = self.all.iter().flat_map(move |folder| entries(folder));
        let links = targets
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "wants" || end == "requires"))
            .flat_map(move |folder| entries(&folder).collect::<Vec<_>>());
        links.filter_map(|link| {
            let unit = link.file_name().to_str()?.to_owned();
            unit.starts_with(TEMPLATE).then(|| (link.path(), unit))
        })
    }

    /// The instances that some target links to.
    fn linked(&self) -> BTreeSet<Name> {
        self.links()
            .filter_map(|(_, unit)| {
                let instance = unit.strip_prefix(TEMPLATE)?;
                instance.strip_suffix(".service").or_else(|| instance.strip_suffix(".socket"))?.parse().ok()
            })
            .collect()
    }

    fn has_drop_in_of_others(&self, name: &Name) -> bool {
        let own = ["service", "socket"].map(|kind| format!("{TEMPLATE}{name}.{kind}.d"));
        let entries = fs::read_dir(&self.own).into_iter().flatten().filter_map(Result::ok);
        entries.filter(|entry| entry.path().join(DROP_IN).exists()).any(|entry| {
            let folder = entry.file_name();
            let folder = folder.to_string_lossy();
            folder.starts_with(TEMPLATE) && !own.iter().any(|own| *own == folder)
        })
    }
}

/// What one instance's unit files are to be.
struct Files<'a> {
    folders: &'a Folders,
    name: &'a Name,
    command: &'a str,
    /// Whether other instances have the same templates.
    shared: bool,
}

impl Files<'_> {
    /// Adds what makes a unit of that kind say what is wanted: a template, where there is none or an older one of ours,
    /// and a drop-in. With nothing wanted, the drop-in goes.
    fn plan(&self, kind: &str, wanted: Option<(&str, &str)>, steps: &mut Vec<Step>) -> Result<(), Error> {
        let path = self.folders.drop_in(self.name, kind);
        let before = read(&path)?;
        let after = match wanted {
            None => None,
            Some((template, wanted)) => {
                let base = self.base(kind, template, steps)?;
                let base = UnitText::parse(&base).of_instance(self.name.as_str());
                unit::drop_in(&base, &UnitText::parse(wanted), self.command)?
            }
        };
        match (before, after) {
            (Some(before), Some(after)) if before == after => {}
            (_, Some(text)) => steps.push(Step::Write { path, text }),
            (Some(before), None) if unit::is_ours(&before) => steps.push(Step::Remove { path }),
            (_, None) => {}
        }
        Ok(())
    }

    /// The text of the file that the drop-in is added to. What a package or a person has put there is not touched, and
    /// neither is what other instances are built upon.
    fn base(&self, kind: &str, template: &str, steps: &mut Vec<Step>) -> Result<String, Error> {
        let own = self.folders.own.join(format!("{TEMPLATE}.{kind}"));
        let found = self.folders.find(self.name, kind)?;
        match found.filter(|found| self.shared || found.path != own || !unit::is_ours(&found.text)) {
            Some(found) => Ok(found.text),
            None => {
                if read(&own)?.as_deref() != Some(template) {
                    steps.push(Step::Write { path: own, text: template.to_owned() });
                }
                Ok(template.to_owned())
            }
        }
    }
}

/// The step that takes this one back.
fn undoing_of(step: &Step) -> Result<Option<Step>, Error> {
    Ok(match step {
        Step::Write { path, .. } | Step::Remove { path } => Some(match read(path)? {
            Some(text) => Step::Write { path: path.clone(), text },
            None => Step::Remove { path: path.clone() },
        }),
        Step::Enable { units } => Some(Step::Disable { units: units.clone() }),
        Step::Disable { units } => Some(Step::Enable { units: units.clone() }),
        Step::Reload => None,
    })
}

/// The text of a file; `None` when it is not there, or no text that we could have written.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(source) => Err(Error::File { action: format!("read {}", path.display()), source }),
    }
}

/// Writes a file that anybody may read, as systemd and `systemctl cat` do, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        file::make_folder(folder, 0o755)?;
    }
    file::replace(path, text.as_bytes(), 0o644)
}

/// Removes a file, and a drop-in's folder when nothing else is in it.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent().filter(|folder| folder.extension().is_some_and(|end| end == "d")) {
        // Fails when a drop-in of somebody else's is there.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
