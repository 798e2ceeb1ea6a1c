//! `${VAR}`, `${VAR:default}`, `${file:PATH}`, `${credential:NAME}` in the strings of a config.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::document::{Node, Value};
use super::file::{ReadError, read_text, resolve_path};
use super::problem::{Note, Report};
use super::text::{MASK, Text};

/// All expansions of a file together may give this many bytes.
const BUDGET: usize = 8 * 1024 * 1024;

/// The longest path that the system takes, in bytes: `PATH_MAX` with its final NUL.
const LONGEST_PATH: usize = 4095;

/// Where expansions take their values from.
pub struct Sources<'a> {
    /// The environment: the value of a variable, none when unset.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What `~/` means.
    pub home: Option<PathBuf>,
    /// The folder with the credentials of this service (`$CREDENTIALS_DIRECTORY`), inside the service.
    pub credentials: Option<PathBuf>,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("home", &self.home)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// A part of a string; the parts, as written, joined give the string.
#[derive(Debug, PartialEq)]
enum Piece<'t> {
    Literal(&'t str),
    /// `$${`, which stands for `${`.
    Escape,
    /// `${…}` with what is between the braces.
    Reference(&'t str, Reference<'t>),
    /// `${…` that is no expansion: not closed, or no name that a variable can have.
    Stray(&'t str),
}

#[derive(Debug, PartialEq)]
enum Reference<'t> {
    Variable { name: &'t str, default: Option<&'t str> },
    File(&'t str),
    Credential(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            pieces.extend([Piece::Literal(before), Piece::Escape]);
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Literal(&rest[..at]));
        let end = rest[at..].find('}').map_or(rest.len(), |end| at + end + 1);
        let written = &rest[at..end];
        pieces.push(match written[2..].strip_suffix('}').and_then(reference) {
            Some(reference) => Piece::Reference(written, reference),
            None => Piece::Stray(written),
        });
        rest = &rest[end..];
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    pieces
}

fn reference(inner: &str) -> Option<Reference<'_>> {
    match inner.split_once(':') {
        Some(("file", path)) => (!path.is_empty()).then_some(Reference::File(path)),
        Some(("credential", name)) => is_file_name(name).then_some(Reference::Credential(name)),
        // `${env:NAME}` is how editors write the same thing.
        Some(("env", name)) if is_variable(name) => Some(Reference::Variable { name, default: None }),
        Some((name, default)) if is_variable(name) => {
            Some(Reference::Variable { name, default: Some(default) })
        }
        None if is_variable(inner) => Some(Reference::Variable { name: inner, default: None }),
        _ => None,
    }
}

/// Whether a name can be that of an environment variable.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a name is a plain file name, as credentials have them.
pub(crate) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// A secret's source with everything masked that could be the secret itself.
pub(crate) fn mask_literals(source: &str) -> String {
    let mut shown = String::new();
    for piece in pieces(source) {
        match piece {
            Piece::Literal(text) if is_auth_scheme(text) && shown.is_empty() => shown.push_str(text),
            Piece::Reference(_, Reference::Variable { name, default: Some(default) })
                if !default.is_empty() =>
            {
                shown.push_str(&format!("${{{name}:{MASK}}}"));
            }
            Piece::Reference(written, _) => shown.push_str(written),
            Piece::Literal(_) | Piece::Escape | Piece::Stray(_) if shown.ends_with(MASK) => {}
            Piece::Literal(_) | Piece::Escape | Piece::Stray(_) => shown.push_str(MASK),
        }
    }
    shown
}

/// `Bearer ` and the like say how a token is sent, and are no part of it.
fn is_auth_scheme(text: &str) -> bool {
    ["Bearer ", "Basic ", "Token "].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// Where a credential comes from.
struct CredentialFile {
    path: PathBuf,
    /// The same for people: what stands in place of a variable is not for everybody.
    shown: String,
}

/// Expands the strings of one file.
pub(crate) struct Expander<'a> {
    sources: &'a Sources<'a>,
    base: &'a Path,
    /// The files of the credentials that the config itself gives to the service.
    credentials: BTreeMap<String, CredentialFile>,
    left: usize,
}

impl<'a> Expander<'a> {
    /// `base` is the folder of the config file, where relative paths start.
    pub(crate) fn new(sources: &'a Sources<'a>, base: &'a Path, root: &Node) -> Self {
        let found = ["bridge", "daemon", "credentials"]
            .iter()
            .try_fold(root, |node, key| node.get(key).map(|entry| &entry.node));
        let entries = match found.map(|node| &node.value) {
            Some(Value::Table(entries)) => entries.as_slice(),
            _ => &[],
        };
        let mut expander = Self { sources, base, credentials: BTreeMap::new(), left: BUDGET };
        let credentials = entries.iter().filter_map(|entry| {
            let Value::Text(path) = &entry.node.value else { return None };
            let (written, found) = (path.as_str(), expander.credential_path(path.as_str())?);
            let path = resolve_path(&found, base, sources.home.as_deref());
            let shown = if found == written { path.display().to_string() } else { written.to_owned() };
            Some((entry.key.clone(), CredentialFile { path, shown }))
        });
        expander.credentials = credentials.collect();
        expander
    }

    /// The path of a credential's file with what stands in place of its variables; what is wrong with them is told where
    /// the path itself is expanded. None for one that no file has, or that takes a credential to know.
    fn credential_path(&self, written: &str) -> Option<String> {
        let mut path = String::new();
        for piece in pieces(written) {
            match piece {
                Piece::Literal(text) | Piece::Stray(text) => path.push_str(text),
                Piece::Escape => path.push_str("${"),
                Piece::Reference(_, Reference::Credential(_)) => return None,
                Piece::Reference(_, reference) => path.push_str(&self.value_of(&reference).ok()?.value),
            }
            if path.len() > LONGEST_PATH {
                return None;
            }
        }
        Some(path)
    }

    /// Expands one string in place; false when that is an error. What an expansion gives is not expanded again.
    pub(crate) fn expand(&mut self, text: &mut Text, offset: usize, key: &str, report: &mut Report) -> bool {
        let source = text.as_str().to_owned();
        if has_command(&source) {
            report.warn(Note::new(offset, key, "`$(…)` is left as it is: this version runs no commands"));
        }
        if !source.contains("${") {
            return true;
        }
        let mut good = true;
        let mut value = String::new();
        for piece in pieces(&source) {
            match piece {
                Piece::Literal(literal) => value.push_str(literal),
                Piece::Escape => value.push_str("${"),
                Piece::Stray(written) => {
                    let note = Note::new(offset, key, "`${` that starts no expansion is left as it is");
                    report.warn(note.hint("write `$${` where you mean the characters `${`"));
                    value.push_str(written);
                }
                Piece::Reference(_, reference) => match self.value_of(&reference) {
                    Ok(Found { value: found, warning }) => {
                        value.push_str(&found);
                        if let Some((message, hint)) = warning {
                            report.warn(Note::new(offset, key, message).hint(hint));
                        }
                    }
                    Err((message, hint)) => {
                        report.error(Note::new(offset, key, message).hint(hint));
                        good = false;
                    }
                },
            }
            if value.len() > self.left {
                report.error(Note::new(offset, key, "the expansions of this file give more than 8 MiB"));
                return false;
            }
        }
        self.left -= value.len();
        *text = Text::expanded(value, &source);
        good
    }

    fn value_of(&self, reference: &Reference<'_>) -> Result<Found, (String, String)> {
        match reference {
            Reference::Variable { name, default } => self.variable(name, *default),
            Reference::File(path) => {
                let found = resolve_path(path, self.base, self.sources.home.as_deref());
                contents(&found).map(Found::from).map_err(|error| {
                    let hint = "the path is relative to the config's folder; `~/` is the home";
                    (format!("`${{file:{path}}}`: {}: {error}", found.display()), hint.to_owned())
                })
            }
            Reference::Credential(name) => self.credential(name),
        }
    }

    fn variable(&self, name: &str, default: Option<&str>) -> Result<Found, (String, String)> {
        if default.is_some_and(|default| default.contains("${")) {
            let message = format!("the default of `${{{name}:…}}` holds another `${{`, expected plain text");
            return Err((message, "expansions cannot stand inside each other".to_owned()));
        }
        if let Some(value) = (self.sources.env)(name).filter(|value| default.is_none() || !value.is_empty()) {
            return Ok(Found::from(value));
        }
        let warning = match default {
            Some(default) if default.starts_with('-') => Some((
                format!("the default of `${{{name}:-…}}` starts with its dash"),
                format!("write `${{{name}:default}}`, without the `-` of the shell"),
            )),
            Some(_) => None,
            None => Some((
                format!("the variable {name} is not set, taken as empty"),
                format!("set it, or give a default: `${{{name}:default}}`"),
            )),
        };
        Ok(Found { value: default.unwrap_or_default().to_owned(), warning })
    }

    fn credential(&self, name: &str) -> Result<Found, (String, String)> {
        let Some(folder) = &self.sources.credentials else {
            if let Some(file) = self.credentials.get(name) {
                return self.credential_file(name, file);
            }
            let message =
                format!("`${{credential:{name}}}` is empty here: credentials exist inside the service only");
            let hint = "name its file in `bridge.daemon.credentials`, unless the unit has a `LoadCredential=` for it";
            return Ok(Found { value: String::new(), warning: Some((message, hint.to_owned())) });
        };
        contents(&folder.join(name)).map(Found::from).map_err(|error| {
            let message = format!("`${{credential:{name}}}`: {error} in {}", folder.display());
            (message, "give it with `bridge.daemon.credentials` or `LoadCredential=`".to_owned())
        })
    }

    /// Outside the service a credential is what the service would get, where this user may look at it.
    fn credential_file(&self, name: &str, file: &CredentialFile) -> Result<Found, (String, String)> {
        let shown = || format!("`${{credential:{name}}}`: {}", file.shown);
        match contents(&file.path) {
            Ok(value) => Ok(Found::from(value)),
            Err(ReadError::Io(error)) if error.kind() == ErrorKind::PermissionDenied => Ok(Found {
                value: String::new(),
                warning: Some((
                    format!("{}: this user may not read it, taken as empty here", shown()),
                    "the service manager must be able to read it".to_owned(),
                )),
            }),
            Err(error) => Err((
                format!("{}: {error}", shown()),
                "the path in `bridge.daemon.credentials` is relative to the config's folder".to_owned(),
            )),
        }
    }
}

/// A value, and what the person should know about it (message and hint).
struct Found {
    value: String,
    warning: Option<(String, String)>,
}

impl From<String> for Found {
    fn from(value: String) -> Self {
        Self { value, warning: None }
    }
}

fn contents(path: &Path) -> Result<String, ReadError> {
    let mut text = read_text(path)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

/// Whether there is a `$(…)`, which the predecessor would have run.
fn has_command(text: &str) -> bool {
    text.find("$(").is_some_and(|at| text[at + 2..].find(')').is_some_and(|end| end > 0))
}
