//! Parses the command line, runs it, and turns an error into an exit code and a hint.

use std::process::ExitCode;

fn main() -> ExitCode {
    foxxy_bridge::cli::main()
}
