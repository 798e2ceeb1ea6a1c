//! `server`: bridges, started, stopped and watched.

mod disable;
mod enable;
mod launch;
mod linger;
mod list;
mod logs;
mod reload;
mod restart;
mod serve;
mod start;
mod status;
mod stop;
pub(super) mod survey;
mod turn;
pub(super) mod unit;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use self::survey::Survey;
use super::context::Context;
use super::error::{Error, Exit};
use super::output;
use crate::instance::{Name, Paths, Scope};

/// How long reaching the service manager may take.
const REACH: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve in the foreground, or start a bridge that the service manager keeps (--daemon)
    Start(start::Options),
    /// Stop bridges
    Stop(stop::Options),
    /// Restart bridges; one that is not running and has a config is started
    Restart(restart::Options),
    /// Have bridges read their config anew, while clients go on
    Reload(reload::Options),
    /// Have a bridge start by itself: with systemd, or when its first client connects
    Enable(enable::Options),
    /// Undo `enable`
    Disable(disable::Options),
    /// List the bridges there are
    #[command(visible_alias = "ls")]
    List(list::Options),
    /// Tell how a bridge is (exit code: 0 healthy, 1 not, 3 not running, 4 unknown name)
    #[command(visible_alias = "status")]
    ServerStatus(status::Options),
    /// Print what a bridge and its servers have logged
    Logs(logs::Options),
}

/// Whose bridges are meant.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Whose {
    /// Of this user [default, but for root]
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Of the machine [default for root]
    #[arg(long)]
    system: bool,
}

impl Whose {
    /// What was typed, if anything.
    fn typed(self) -> Option<Scope> {
        match (self.user, self.system) {
            (true, _) => Some(Scope::User),
            (_, true) => Some(Scope::System),
            _ => None,
        }
    }

    /// The scope that is meant.
    pub(crate) fn scope(self) -> Scope {
        Context::scope(self.typed())
    }
}

/// Which bridges are meant.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Which [default: the one of the config, else the only one]
    #[arg(value_parser = name_of)]
    names: Vec<Name>,
    /// All that there are
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    whose: Whose,
}

impl Targets {
    /// Whether it is left open which.
    fn is_open(&self) -> bool {
        self.names.is_empty() && !self.all
    }

    /// Their names, and the folders that they are in. That there is none at all is told.
    async fn find(&self, context: &Context) -> Result<(Paths, Survey, Vec<Name>), Error> {
        let paths = context.paths(self.whose.scope())?;
        let survey = Survey::take(&paths).await?;
        let names = if self.all {
            survey.known.iter().map(|known| known.name.clone()).collect()
        } else if self.names.is_empty() {
            vec![survey.meant(context, &paths)?]
        } else {
            self.names.clone()
        };
        if names.is_empty() {
            survey.tell_none()?;
        }
        Ok((paths, survey, names))
    }
}

/// What became of several bridges: a failure of one is no reason to leave out the others.
struct Outcomes {
    /// What was to be done to them, as in "not all were stopped".
    done: &'static str,
    only_one: bool,
    failed: Option<Exit>,
}

impl Outcomes {
    fn of(names: &[Name], done: &'static str) -> Self {
        Self { done, only_one: names.len() == 1, failed: None }
    }

    /// Takes note of one, and tells why it failed; the only one's failure is that of the command.
    fn add(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match outcome {
            Err(error) if !self.only_one => {
                output::complain(&error);
                self.failed = Some(error.exit);
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn end(self) -> Result<Exit, Error> {
        match self.failed {
            Some(exit) => Err(Error::new(exit, format!("not all bridges were {}", self.done))),
            None => Ok(Exit::Ok),
        }
    }
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, Error> {
    // The bridge itself makes a runtime of its own, once logging has begun.
    if let Command::Start(options) = &command
        && !options.daemon
    {
        return serve::run(options, context);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Start(options) => start::run(&options, context).await,
            Command::Stop(options) => stop::run(options, context).await,
            Command::Restart(options) => restart::run(options, context).await,
            Command::Reload(options) => reload::run(options, context).await,
            Command::Enable(options) => enable::run(options, context).await,
            Command::Disable(options) => disable::run(options, context).await,
            Command::List(options) => list::run(options, context).await,
            Command::ServerStatus(options) => status::run(options, context).await,
            Command::Logs(options) => logs::run(options, context).await,
        }
    });
    runtime.shutdown_background();
    ended
}

fn name_of(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: crate::instance::NameError| error.to_string())
}
