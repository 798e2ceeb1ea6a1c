//! What a check has found.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Nothing needs to be done.
    Ok,
    /// It works now, and will not always.
    Warning,
    /// It does not work.
    Problem,
}

impl State {
    /// As it is shown.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) state: State,
    /// How it is, and why.
    pub(super) found: String,
    /// The command or edit that mends it; none where nothing is to be mended.
    pub(super) fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self { state: State::Ok, found: found.into(), fix: None }
    }

    /// It works now, and will not always.
    pub(super) fn warning(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    /// It does not work.
    pub(super) fn problem(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Problem, found: found.into(), fix: Some(fix.into()) }
    }
}
