//! `server start` without `--daemon`: serve here, which is also what units run.

use std::sync::Arc;

use super::Context;
use super::start::{Options, clean_up};
use super::survey::Survey;
use crate::cli::context::{self, Read};
use crate::cli::error::{Error, Exit};
use crate::cli::output;
use crate::config::{Daemon, Loaded};
use crate::daemon::{self, Served};
use crate::host::{notify, unit};
use crate::instance::environment::{self, Variables};
use crate::instance::{Instance, Paths};

/// Serves in the foreground, until it is told to stop.
pub(super) fn run(options: &Options, context: &Context) -> Result<Exit, Error> {
    let paths = context.paths(options.whose.scope())?;
    let (name, context) = options.meant(context, &paths).inspect_err(tell_manager)?;
    if options.cleanup {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { clean_up(&paths, &Survey::take(&paths).await?).await })?;
    }
    let instance = context.instance(&paths, name);
    // What is wrong with the config says more than that there is no instance of it.
    let given = instance.as_ref().map(given_variables).unwrap_or_default();
    let (read, instance) = (read(&context, &paths, &given)?, instance?);
    let bridge = &read.loaded.config.bridge;
    let (host, port) = (
        options.host.clone().unwrap_or_else(|| bridge.host.as_str().to_owned()),
        options.port.unwrap_or(bridge.port),
    );
    let unheeded = unheeded(&instance, &bridge.daemon);
    let mut served = served(read);
    served.warnings.extend(unheeded);
    let (again, own, level) = (context.clone(), instance.clone(), context.level());
    daemon::run(daemon::Options {
        instance,
        host,
        port,
        served,
        read: Arc::new(move || {
            let read = again.read_with(again.config_path(&paths).as_deref(), &given_variables(&own));
            read.map(self::served).map_err(|invalid| words(&invalid.into()))
        }),
        level,
        supervisor: options.supervisor,
    })?;
    Ok(Exit::Ok)
}

/// That what `bridge.daemon` sets is not in force: a unit that nobody has enabled says the same for every config.
fn unheeded(instance: &Instance, daemon: &Daemon) -> Option<String> {
    let unit = unit::own().filter(|unit| *unit == instance.template_unit_name() && !instance.is_kept())?;
    (*daemon != Daemon::default()).then(|| {
        let enable = format!("foxxy-bridge server enable {}", instance.name());
        format!("bridge.daemon is not in force in {unit} before `{enable}` has put it there")
    })
}

/// The variables that the instance was given for its config.
fn given_variables(instance: &Instance) -> Variables {
    let path = instance.variables_file();
    environment::read(&path).unwrap_or_else(|error| {
        output::warn(format!("{}: {error}", path.display()));
        Variables::new()
    })
}

/// Reads the config; when it cannot be, that is also what the service manager is told.
fn read(context: &Context, paths: &Paths, given: &Variables) -> Result<Read, Error> {
    let read = context.read_with(context.config_path(paths).as_deref(), given);
    read.map_err(context::told).inspect_err(tell_manager)
}

/// Leaves the service manager with why there is no bridge.
fn tell_manager(error: &Error) {
    notify::status(&words(error));
}

fn served(read: Read) -> Served {
    let Loaded { config, path, warnings } = read.loaded;
    Served { config, path, warnings: warnings.iter().map(ToString::to_string).collect() }
}

/// What is wrong, and below it why.
fn words(error: &Error) -> String {
    format!("{}:\n{}", error.what, error.why.join("\n"))
}
