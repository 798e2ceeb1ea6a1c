//! Parses the command line, runs it, and turns an error into an exit code and a hint.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A child on its way into its control group has no command line to parse.
    foxxy_bridge::host::cgroup::enter(std::env::args_os()).unwrap_or_else(foxxy_bridge::cli::main)
}
