//! What a command in the machine said, and what a test expects of it.

use std::fmt;
use std::time::Duration;

/// What a command in the machine said.
#[derive(Clone)]
pub(crate) struct Output {
    /// The command line, for people.
    pub(crate) command: String,
    /// The exit status; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Output {
    /// Its stdout, if it succeeded; panics otherwise.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.code == Some(0), "expected success: {self}");
        self.stdout
    }

    /// Its stderr, if it ended with this exit status; panics otherwise.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert!(self.code == Some(code), "expected exit status {code}: {self}");
        self.stderr
    }

    /// Whether this is the same command again, with the same outcome.
    pub(crate) fn repeats(&self, other: &Self) -> bool {
        self.command == other.command
            && self.code == other.code
            && self.stdout == other.stdout
            && self.stderr == other.stderr
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        write!(f, "$ {}\n[{code} after {:.1} s]", self.command, self.took.as_secs_f32())?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n[{name}] {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}
