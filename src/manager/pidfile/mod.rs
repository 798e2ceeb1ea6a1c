//! A supervisor of our own with a PID file, where there is no systemd.

// Until the supervisor is there.
#![allow(dead_code, reason = "the supervisor that uses it comes from another branch")]

pub(crate) mod log_file;
pub(crate) mod logs;
pub(crate) mod output;
pub(crate) mod pump;
pub(crate) mod when;

use crate::host::log::line::Line;
use crate::host::log::{IDENTIFIER, Level, now};

/// An entry of this process's own, as a log file has it.
pub(crate) fn own(level: Level, message: &str) -> String {
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
