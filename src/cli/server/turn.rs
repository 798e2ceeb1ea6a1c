//! Commands that change unit files take turns: each plans by what it finds.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use crate::cli::error::{Error, Exit};
use crate::instance::Paths;

/// How long the command before may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it is done.
const BETWEEN: Duration = Duration::from_millis(50);

/// This command's turn, until it is dropped.
pub(super) struct Turn(#[expect(dead_code, reason = "it is held, and that is all")] Option<File>);

/// Waits for the turn among the commands that change the unit files of that scope.
pub(super) async fn wait(paths: &Paths) -> Result<Turn, Error> {
    // The folder that all of them have, locked itself: nothing is left behind.
    let Some(folder) = paths.runtime_base().parent().filter(|folder| folder.exists()) else {
        return Ok(Turn(None));
    };
    let failed = |error: std::io::Error| {
        Error::new(Exit::Failed, format!("{} cannot be used", folder.display())).because(error.to_string())
    };
    let file = File::open(folder).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Turn(Some(file))),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => tokio::time::sleep(BETWEEN).await,
            Err(TryLockError::WouldBlock) => {
                let what =
                    format!("another command has been changing unit files for {} s", PATIENCE.as_secs());
                return Err(Error::new(Exit::Failed, what).hint("see which: ps -C foxxy-bridge"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}
