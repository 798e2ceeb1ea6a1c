//! Into a control group before the first instruction of a program.
//!
//! A process that is moved after it was started may have children by then, which stay where they are. So the bridge's
//! own program is started, moves itself, and becomes the other one by exec(2): the same process, with the same
//! environment, files, and parent.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What the first argument is instead of a command that a person could type.
const WORD: &str = "(into a control group)";
/// How it ends when it could not become the other program, as a shell does.
const NOT_STARTED: u8 = 126;
/// How what it says then begins.
const BECAUSE: &str = "foxxy-bridge: not started: ";

/// The command that enters the group and becomes `program`; arguments that are added are the program's.
pub(super) fn command(group: &Path, program: &Path) -> Command {
    // Also when the file was replaced meanwhile: it is this very program.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("foxxy-bridge").arg(WORD).arg(group.join("cgroup.procs")).arg(program);
    command
}

/// When this process was started to enter a group, does that and becomes the program: it returns only when that fails,
/// or when it was started for something else, which is `None`.
pub fn enter(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1)? != WORD {
        return None;
    }
    let (procs, program) = (arguments.next()?, arguments.next()?);
    // Not outside: what its limits are for is not known here.
    if let Err(error) = super::write(Path::new(&procs), "0") {
        return Some(fail(format_args!("{}: {error}", procs.display())));
    }
    Some(fail(Command::new(program).args(arguments).exec()))
}

/// Tells whoever reads the standard error, which is the bridge.
fn fail(why: impl Display) -> ExitCode {
    // Where nobody can be told, the status has to do.
    let _ = writeln!(std::io::stderr(), "{BECAUSE}{why}");
    ExitCode::from(NOT_STARTED)
}

/// Why a process did not become its program, from its exit status and the last that it said; `None` when it did.
#[must_use]
pub fn why_not_entered(status: Option<i32>, last_words: &str) -> Option<&str> {
    last_words.strip_prefix(BECAUSE).filter(|_| status == Some(NOT_STARTED.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_left_to_be_parsed() {
        for line in [&["foxxy-bridge"][..], &["foxxy-bridge", "server", "start"], &[]] {
            assert!(enter(line.iter().map(OsString::from)).is_none(), "{line:?}");
        }
    }

    #[test]
    fn only_what_is_said_on_the_way_is_taken_for_a_failure() {
        let said = "foxxy-bridge: not started: Exec format error (os error 8)";
        assert_eq!(why_not_entered(Some(126), said), Some("Exec format error (os error 8)"));
        assert_eq!(why_not_entered(Some(1), said), None);
        assert_eq!(why_not_entered(None, said), None);
        assert_eq!(why_not_entered(Some(126), "cannot start"), None);
    }
}
