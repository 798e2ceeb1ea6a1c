//! Why a bridge does not run, in words a tired admin understands.

use super::state::{JobResult, LoadState, ServiceResult, UnitState};
use crate::manager::exit::{explain_code, signal_name};

/// `CLD_EXITED`: the main process ended by itself.
const EXITED: i32 = 1;

/// Why a start job that ended like this left the unit like that.
pub(super) fn explain_start(job: &JobResult, unit: &UnitState) -> String {
    let by_job = match job {
        JobResult::Done | JobResult::Failed | JobResult::Skipped => {
            return explain_run(unit).unwrap_or_else(|| gone(unit));
        }
        JobResult::Canceled => {
            "the start was cancelled: somebody stopped it, or the machine is shutting down"
        }
        JobResult::Timeout => "systemd gave up on the start because it took too long",
        JobResult::Dependency => "a unit that it depends on could not be started",
        JobResult::Collected => "systemd dropped the unit before it was started",
        JobResult::Invalid => "the unit cannot do that in its present state",
        JobResult::Assert => "an assertion in its unit was not met",
        JobResult::Unsupported => "this machine does not support the unit",
        JobResult::Once => "the unit was started once already and may not be started again",
        JobResult::Frozen => "the unit is frozen",
        JobResult::Other(word) => return format!("systemd ended the start with `{word}`"),
    };
    by_job.to_owned()
}

/// Why the last run of a service failed; `None` when it did not.
pub(super) fn explain_run(unit: &UnitState) -> Option<String> {
    let status = unit.exec_main_status;
    Some(match &unit.result {
        ServiceResult::Success => return None,
        ServiceResult::ExitCode => explain_exit(status, &unit.argv),
        ServiceResult::Signal => format!("it was killed by {}", signal_name(status)),
        ServiceResult::CoreDump => format!("it crashed with {} (see `coredumpctl`)", signal_name(status)),
        ServiceResult::Timeout => "it did not report in time that it is ready or has stopped".into(),
        ServiceResult::Protocol => "it ended without having reported that it is ready".into(),
        ServiceResult::Watchdog => "it stopped answering the watchdog and was killed".into(),
        ServiceResult::OomKill => "it ran out of memory and was killed by the kernel".into(),
        ServiceResult::StartLimitHit => "it failed too often in a row, so systemd stopped trying".into(),
        ServiceResult::Resources => {
            "systemd could not get what it needs to start it (memory, a file, a cgroup)".into()
        }
        ServiceResult::ExecCondition => "a condition in its unit was not met".into(),
        ServiceResult::Other(word) => format!("its run ended with `{word}`"),
    })
}

/// The bridge's own exit code; `None` when systemd ended it or never got it to run.
pub(super) fn own_exit_code(unit: &UnitState) -> Option<i32> {
    let own = matches!(unit.result, ServiceResult::ExitCode | ServiceResult::Protocol)
        && unit.exec_main_code == EXITED
        && exec_step(unit.exec_main_status).is_none();
    own.then_some(unit.exec_main_status)
}

fn gone(unit: &UnitState) -> String {
    match &unit.load {
        LoadState::Loaded | LoadState::NotFound | LoadState::Stub => {
            "it ended at once, without an error".into()
        }
        other => format!("its unit is not usable (`{other}`)"),
    }
}

fn explain_exit(status: i32, argv: &[String]) -> String {
    let program = argv.first().map_or("the program", String::as_str);
    match (status, exec_step(status)) {
        (203, _) => format!("{program} cannot be executed (203/EXEC)"),
        (_, Some((name, what))) => format!("systemd could not {what} for it ({status}/{name})"),
        (_, None) => explain_code(status),
    }
}

/// The step at which systemd failed before the program ran; these exit codes are systemd's own (`systemd.exec(5)`).
fn exec_step(status: i32) -> Option<(&'static str, &'static str)> {
    Some(match status {
        200 => ("CHDIR", "change to the working directory"),
        201 => ("NICE", "set the priority"),
        202 => ("FDS", "pass on the open files"),
        203 => ("EXEC", "execute the program"),
        204 => ("MEMORY", "get enough memory"),
        205 => ("LIMITS", "set the resource limits"),
        206 => ("OOM_ADJUST", "set the out-of-memory score"),
        207 => ("SIGNAL_MASK", "set the signal mask"),
        208 => ("STDIN", "open standard input"),
        209 => ("STDOUT", "open standard output"),
        210 => ("CHROOT", "change the root directory"),
        213 => ("SECUREBITS", "set the secure bits"),
        214 => ("SETSCHEDULER", "set the scheduler"),
        216 => ("GROUP", "find or take on the group"),
        217 => ("USER", "find or take on the user"),
        218 => ("CAPABILITIES", "set the capabilities"),
        219 => ("CGROUP", "set up the control group"),
        220 => ("SETSID", "make a new session"),
        222 => ("STDERR", "open standard error"),
        224 => ("PAM", "open a PAM session"),
        225 => ("NETWORK", "set up the network namespace"),
        226 => ("NAMESPACE", "set up the mount namespace"),
        227 => ("NO_NEW_PRIVILEGES", "set no-new-privileges"),
        228 => ("SECCOMP", "set up the system call filter"),
        229 => ("SELINUX_CONTEXT", "set the SELinux context"),
        231 => ("APPARMOR_PROFILE", "set the AppArmor profile"),
        232 => ("ADDRESS_FAMILIES", "restrict the address families"),
        233 => ("RUNTIME_DIRECTORY", "make the runtime directory"),
        238 => ("STATE_DIRECTORY", "make the state directory"),
        239 => ("CACHE_DIRECTORY", "make the cache directory"),
        240 => ("LOGS_DIRECTORY", "make the log directory"),
        241 => ("CONFIGURATION_DIRECTORY", "make the configuration directory"),
        243 => ("CREDENTIALS", "load the credentials"),
        244 => ("BPF", "apply the BPF restrictions"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::systemd::fake;

    fn failed(result: &str, code: i32, status: i32) -> UnitState {
        UnitState {
            result: ServiceResult::from(result.to_owned()),
            exec_main_code: code,
            exec_main_status: status,
            ..fake::failed_state()
        }
    }

    #[test]
    fn each_failure_has_a_sentence_of_its_own() {
        let cases = [
            ("exit-code", 1, 3, "it ended with exit code 3"),
            ("exit-code", 1, 77, "its user may not do what it must, such as read its config (exit code 77)"),
            ("exit-code", 1, 78, "its config is not valid (exit code 78)"),
            ("exit-code", 1, 203, "/bin/bridge cannot be executed (203/EXEC)"),
            ("exit-code", 1, 217, "systemd could not find or take on the user for it (217/USER)"),
            ("signal", 2, 9, "it was killed by SIGKILL"),
            ("core-dump", 3, 11, "it crashed with SIGSEGV (see `coredumpctl`)"),
            ("protocol", 1, 0, "it ended without having reported that it is ready"),
            ("start-limit-hit", 1, 1, "it failed too often in a row, so systemd stopped trying"),
            ("new-in-300", 0, 0, "its run ended with `new-in-300`"),
        ];
        for (result, code, status, sentence) in cases {
            assert_eq!(explain_start(&JobResult::Failed, &failed(result, code, status)), sentence);
        }
    }

    #[test]
    fn a_job_that_never_ran_the_service_is_explained_by_its_own_result() {
        let unit = failed("success", 0, 0);
        assert!(explain_start(&JobResult::Canceled, &unit).contains("cancelled"));
        assert!(explain_start(&JobResult::Other("skipped-ex".into()), &unit).contains("`skipped-ex`"));
    }

    #[test]
    fn only_an_exit_code_of_the_bridge_itself_is_its_own() {
        assert_eq!(own_exit_code(&failed("exit-code", 1, 78)), Some(78));
        assert_eq!(own_exit_code(&failed("exit-code", 1, 203)), None);
        assert_eq!(own_exit_code(&failed("signal", 2, 9)), None);
    }
}
