//! What the bridge does under a real systemd: a throw-away machine for each version of it, one test after another.
//!
//! A test is `fn(&Machine)` and panics to fail. It uses names and ports that are its own, or leaves none behind. Its name
//! begins with the version of systemd that it runs on: `257::start::…`.

mod boots;
mod bridge;
mod cgroups;
mod doctor;
mod enable;
mod faces;
mod failures;
mod flags;
mod foreground;
mod forking;
mod killed;
mod logs;
mod machine;
mod output;
mod packaged;
mod races;
mod reload;
mod renderings;
mod sandbox;
mod soak;
mod sockets;
mod start;
mod stop;
mod system;
mod tree;
mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::machine::Machine;
use crate::tree::Tree;

/// A test in the machine.
type Test = fn(&Machine);

/// The machine that was booted last, by the first test that needed it.
type Booted = Mutex<Option<(Tree, Result<Machine, String>)>>;

/// Lists a file's tests by the names of their functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        /// The tests of this file.
        pub(crate) const TESTS: &[(&str, $crate::Test)] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+];
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The machine's death is bound to the thread that boots it: with one thread, the main one.
    arguments.test_threads = Some(1);

    let booted = Arc::new(Booted::default());
    let tests = [
        boots::TESTS,
        cgroups::TESTS,
        start::TESTS,
        killed::TESTS,
        faces::TESTS,
        failures::TESTS,
        doctor::TESTS,
        flags::TESTS,
        foreground::TESTS,
        forking::TESTS,
        system::TESTS,
        stop::TESTS,
        reload::TESTS,
        sockets::TESTS,
        watchdog::TESTS,
        races::TESTS,
        renderings::TESTS,
        enable::TESTS,
        sandbox::TESTS,
        packaged::TESTS,
        logs::TESTS,
    ];
    let tests = tests.concat().into_iter().map(|test| (test, false));
    let tests: Vec<_> = tests.chain(soak::TESTS.iter().map(|test| (*test, true))).collect();
    let trials = Tree::all().into_iter().flat_map(|tree| tests.iter().map(move |test| (tree, *test)));
    let trials = trials.map(|(tree, ((path, test), long))| {
        let booted = Arc::clone(&booted);
        let name = path.strip_prefix("systemd::").unwrap_or(path);
        Trial::ignorable_test(format!("{}::{name}", tree.version()), move || match tree.unavailable() {
            Some(why) => Ok(Completion::ignored_with(why)),
            None => run(&booted, tree, test).map(|()| Completion::Completed),
        })
        .with_ignored_flag(long)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs one test; when it fails, tells what it ran and what the journal said meanwhile.
fn run(booted: &Booted, tree: Tree, test: Test) -> Result<(), Failed> {
    let mut booted = booted.lock().unwrap_or_else(PoisonError::into_inner);
    let first = booted.as_ref().is_none_or(|(of, _)| *of != tree);
    if first {
        // One at a time: what is not needed any more makes room.
        *booted = None;
        *booted = Some((tree, Machine::boot(tree)));
    }
    let (_, machine) = booted.as_ref().ok_or("just booted")?;
    let machine = machine.as_ref().map_err(|why| {
        if first { why.as_str() } else { "the machine did not boot: see the first failure" }
    })?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let outcome = catch_unwind(AssertUnwindSafe(|| test(machine)));
    let story = machine.explain(&[&format!("--since=@{since}")]);
    if outcome.is_err() {
        bridge::clear_away(machine);
    }
    outcome.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Failed::from(format!("{message}\n{story}"))
    })
}
