//! What the bridge does under a real systemd: one throw-away machine for the whole run, one test after another.
//!
//! A test is `fn(&Machine)` and panics to fail. It uses names and ports that are its own, or leaves none behind.

mod boots;
mod bridge;
mod failures;
mod flags;
mod foreground;
mod killed;
mod logs;
mod machine;
mod output;
mod reload;
mod sockets;
mod start;
mod stop;
mod system;
mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::machine::{Machine, Tree};

/// A test in the machine.
type Test = fn(&Machine);

/// The machine, booted by the first test that needs it.
type Booted = OnceLock<Result<Machine, String>>;

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

    let booted = Arc::new(Booted::new());
    let tests = [
        boots::TESTS,
        start::TESTS,
        killed::TESTS,
        failures::TESTS,
        flags::TESTS,
        foreground::TESTS,
        system::TESTS,
        stop::TESTS,
        reload::TESTS,
        sockets::TESTS,
        watchdog::TESTS,
        logs::TESTS,
    ];
    let trials = tests.concat().into_iter().map(|(name, test)| {
        let booted = Arc::clone(&booted);
        Trial::ignorable_test(name, move || match Machine::unavailable() {
            Some(why) => Ok(Completion::ignored_with(why)),
            None => run(&booted, test).map(|()| Completion::Completed),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs one test; when it fails, tells what it ran and what the journal said meanwhile.
fn run(booted: &Booted, test: Test) -> Result<(), Failed> {
    let first = booted.get().is_none();
    let machine = booted.get_or_init(|| Machine::boot(Tree::Host)).as_ref();
    let machine = machine.map_err(|why| {
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
