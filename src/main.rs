//! Parses the command line, runs it, and turns an error into an exit code and a hint.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Neither a child on its way into its control group nor a supervisor has a command line to parse.
    foxxy_bridge::host::cgroup::enter(std::env::args_os())
        .or_else(|| foxxy_bridge::manager::pidfile::enter(std::env::args_os()))
        .unwrap_or_else(foxxy_bridge::cli::main)
}
