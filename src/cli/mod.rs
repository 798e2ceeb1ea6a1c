//! What a person types and reads. The only room that prints.

mod config;
mod context;
mod doctor;
mod error;
mod output;
mod server;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand};

use self::context::Context;
use self::error::Exit;
use crate::host::sandbox::View;

/// One daemon in front of all your MCP servers, kept running by systemd or by a supervisor of its own.
#[derive(Debug, Parser)]
#[command(name = "foxxy-bridge", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "With no config at all, the bridge serves tools that report on itself:\n  \
    foxxy-bridge server start --daemon")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
struct Global {
    /// The config, JSON or TOML [default: config.json in the config folder]
    #[arg(
        short,
        long,
        value_name = "FILE",
        global = true,
        env = "FOXXY_BRIDGE_CONFIG",
        hide_env_values = true
    )]
    #[arg(alias = "config-file")]
    config: Option<PathBuf>,
    /// The folder of configs [default: ~/.config/foxxy-bridge; /etc/foxxy-bridge with --system]
    #[arg(short = 'C', long, value_name = "DIR", global = true)]
    config_dir: Option<PathBuf>,
    /// Log what a developer wants to know
    #[arg(short, long, global = true)]
    debug: bool,
    /// Whether to print in colour
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    color: ColorChoice,
    #[arg(long, global = true, hide = true, action = ArgAction::SetTrue)]
    no_color: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start, stop and watch bridges
    #[command(subcommand)]
    Server(server::Command),
    /// Check and show configs
    #[command(subcommand)]
    Config(config::Command),
    /// Find what is wrong on this machine, and how to mend it
    Doctor(doctor::Options),
    /// What a trial unit runs: tells the service manager what its sandbox is worth
    #[command(hide = true)]
    LookAround,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help is an answer, not an error: clap knows where each goes and which exit code it has.
        Err(error) => error.exit(),
    };
    output::set_color(if global.no_color { ColorChoice::Never } else { global.color });
    let context = Context::new(global.config, global.config_dir, global.debug);
    let ended = match command {
        Command::Server(command) => server::run(command, &context),
        Command::Config(command) => config::run(command, &context),
        Command::Doctor(options) => doctor::run(&options, &context),
        Command::LookAround => {
            View::take().tell();
            Ok(Exit::Ok)
        }
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::complain(&error);
            error.exit.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::systemd::probe;

    #[test]
    fn the_command_that_a_trial_unit_runs_is_there() {
        let cli = Cli::try_parse_from(["foxxy-bridge", probe::LOOK]).expect("a command");
        assert!(matches!(cli.command, Command::LookAround));
    }
}
