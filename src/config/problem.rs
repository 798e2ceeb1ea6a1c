//! What is wrong with a config file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// More problems (or warnings) than this help nobody; the rest is counted, not kept.
const MOST: usize = 100;

/// A message that quotes more than this of a file is cut.
const LONGEST: usize = 300;

/// One thing wrong in one place of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as the person named it.
    pub file: PathBuf,
    /// Where in the file; none when the file itself is the problem.
    #[serde(flatten)]
    pub at: Option<Position>,
    /// The key path, such as `mcpServers.github.timeout`; empty when no key is meant.
    pub key: String,
    /// What was found and what was expected, in one sentence.
    pub message: String,
    /// What to do about it, where that can be said.
    pub hint: Option<String>,
}

/// A place in a text file, counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Why a config could not be loaded: everything that is wrong with it at once.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", lines(problems))]
pub struct Invalid {
    /// Whether the file could not be read or its content is wrong.
    pub kind: InvalidKind,
    /// What must be mended, in the order of the file; never empty.
    pub problems: Vec<Problem>,
    /// What could be better, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// The ways in which a config can fail to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKind {
    /// No file is there: nothing at all, or a folder or a device.
    Missing,
    /// The file is there but cannot be read: permission, an I/O error.
    Unreadable,
    /// The file was read; what it says is wrong.
    Content,
}

impl Invalid {
    /// The whole file is the problem.
    pub(crate) fn file(kind: InvalidKind, file: &Path, message: String, hint: Option<String>) -> Self {
        let problem = Problem { file: file.to_owned(), at: None, key: String::new(), message, hint };
        Self { kind, problems: vec![problem], warnings: Vec::new() }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Problems while they are collected: placed by byte offset, in any order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    errors: Notes,
    warnings: Notes,
}

#[derive(Debug, Default)]
struct Notes {
    kept: Vec<Note>,
    more: usize,
}

/// A problem before its place is turned into line and column.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) offset: usize,
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Note {
    pub(crate) fn new(offset: usize, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { offset, key: key.into(), message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Notes {
    fn push(&mut self, note: Note) {
        if self.kept.len() < MOST {
            self.kept.push(note);
        } else {
            self.more += 1;
        }
    }

    fn place(mut self, file: &Path, text: &str) -> Vec<Problem> {
        self.kept.sort_by_key(|note| note.offset);
        let mut problems: Vec<_> = self
            .kept
            .into_iter()
            .map(|note| Problem {
                file: file.to_owned(),
                at: Some(position(text, note.offset)),
                key: line(&note.key),
                message: line(&note.message),
                hint: note.hint.map(|hint| line(&hint)),
            })
            .collect();
        if self.more > 0 {
            let message = format!("and {} more", self.more);
            problems.push(Problem {
                file: file.to_owned(),
                at: None,
                key: String::new(),
                message,
                hint: None,
            });
        }
        problems
    }
}

impl Report {
    pub(crate) fn error(&mut self, note: Note) {
        self.errors.push(note);
    }

    pub(crate) fn warn(&mut self, note: Note) {
        self.warnings.push(note);
    }

    /// Whether something is wrong with this very key.
    pub(crate) fn has_error_at(&self, key: &str) -> bool {
        self.errors.kept.iter().any(|note| note.key == key)
    }

    /// The warnings with their lines, or everything when there are errors.
    pub(crate) fn finish(self, file: &Path, text: &str) -> Result<Vec<Problem>, Invalid> {
        let warnings = self.warnings.place(file, text);
        let problems = self.errors.place(file, text);
        if problems.is_empty() {
            Ok(warnings)
        } else {
            Err(Invalid { kind: InvalidKind::Content, problems, warnings })
        }
    }
}

/// A text as part of one line on a terminal: no line ends, no escape sequences, not too long.
fn line(text: &str) -> String {
    shorten(text, LONGEST).replace(char::is_control, " ")
}

/// At most so many characters of a text.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Line and column of a byte offset; an offset past the end, or inside a character, is moved back.
pub(crate) fn position(text: &str, offset: usize) -> Position {
    let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "ab\r\nä€x\n";
        let at = |offset| (position(text, offset).line, position(text, offset).column);
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(4), (2, 1));
        assert_eq!(at(text.find('x').unwrap()), (2, 3));
        assert_eq!(at(5), (2, 1), "inside a character");
        assert_eq!(at(text.len()), (3, 1));
        assert_eq!(at(9999), (3, 1));
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_are_bounded() {
        let mut report = Report::default();
        for offset in (0..150).rev() {
            report.error(Note::new(offset, "k", "m"));
        }
        let invalid = report.finish(Path::new("f"), &"x\n".repeat(200)).unwrap_err();
        assert_eq!(invalid.problems.len(), MOST + 1);
        assert!(invalid.problems[..MOST].is_sorted_by_key(|problem| problem.at));
        assert_eq!(invalid.problems[MOST].to_string(), "f: and 50 more");
    }
}
