//! The log files of bridges that no service manager keeps: written by their supervisors, read by `server logs`.

mod file;
mod output;
mod pump;
mod reader;
mod when;

pub(super) use file::LogFile;
pub(super) use output::{Output, Stream};
pub(super) use pump::Pump;
pub(super) use reader::{last_words, stream};

use crate::host::log::line::Line;
use crate::host::log::{IDENTIFIER, Level, now};

/// An entry of this process's own, as a log file has it.
fn own(level: Level, message: &str) -> String {
    let line = Line {
        time: now(),
        priority: level.priority(),
        identifier: IDENTIFIER.to_owned(),
        pid: std::process::id(),
        message: message.to_owned(),
        ..Line::default()
    };
    line.to_string()
}
