//! From a path to a config, or to everything that is wrong with it.

use std::path::{Path, PathBuf};

use super::check::{self, to_json};
use super::document::{self, Format};
use super::expand::{Expander, Sources};
use super::file::{ReadError, read_text};
use super::model::Config;
use super::problem::{Invalid, InvalidKind, Problem, Report};
use super::schema::SCHEMA;
use super::{pending, rules};

/// A config in force, and what there is to say about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// The file it came from, canonical; none for the built-in one.
    pub path: Option<PathBuf>,
    /// What could be better, in the order of the file.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The built-in config.
    pub fn builtin() -> Self {
        Self { config: Config::builtin(), path: None, warnings: Vec::new() }
    }
}

/// Which config a command works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This file.
    File(PathBuf),
    /// None is there: the built-in one.
    Builtin,
}

/// Finds the config: the one that was named, else `config.json`, else `config.toml` in the folder, else the built-in.
///
/// A named file need not exist, and one that cannot be looked at is chosen all the same: `load` says what is wrong.
pub fn locate(config_flag: Option<&Path>, config_dir: &Path) -> Choice {
    if let Some(named) = config_flag {
        return Choice::File(named.to_owned());
    }
    let candidates = ["config.json", "config.toml"].map(|name| config_dir.join(name));
    // Not `exists`: a dangling link or a forbidden folder must not look like "no config".
    let absent = |path: &PathBuf| {
        let kind = std::fs::symlink_metadata(path).err().map(|error| error.kind());
        matches!(kind, Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory))
    };
    candidates.into_iter().find(|path| !absent(path)).map_or(Choice::Builtin, Choice::File)
}

/// Reads, expands and checks a config file. The file is only read.
pub fn load(path: &Path, sources: &Sources<'_>) -> Result<Loaded, Invalid> {
    let unreadable = |error: ReadError| not_read(path, &error);
    // Relative paths start where the file really is, also when it was named through a link: whoever starts the
    // bridge, by whatever name, must get the same config.
    let real = std::fs::canonicalize(path).map_err(|error| unreadable(error.into()))?;
    let text = read_text(&real).map_err(unreadable)?;
    let format = format_of(&real)
        .map_err(|(message, hint)| Invalid::file(InvalidKind::Content, path, message, Some(hint)))?;
    let base = real.parent().unwrap_or(Path::new("/"));
    let (config, warnings) = parse(&text, format, path, base, sources)?;
    Ok(Loaded { config, path: Some(real), warnings })
}

/// Reads a config from text; `file` is for messages, `base` is where relative paths start.
pub fn parse(
    text: &str,
    format: Format,
    file: &Path,
    base: &Path,
    sources: &Sources<'_>,
) -> Result<(Config, Vec<Problem>), Invalid> {
    let mut report = Report::default();
    let config = read(text, format, base, sources, &mut report);
    let warnings = report.finish(file, text)?;
    match config {
        Some(config) => Ok((config, warnings)),
        // The checks let something through that the model refuses. Never serde's words here: they quote values.
        None => {
            let message = "passes all checks and yet does not fit the model: a fault of foxxy-bridge";
            Err(Invalid::file(
                InvalidKind::Content,
                file,
                message.to_owned(),
                Some("please report it".to_owned()),
            ))
        }
    }
}

/// The config as far as it can be read; it is whole when the report has no errors.
fn read(
    text: &str,
    format: Format,
    base: &Path,
    sources: &Sources<'_>,
    report: &mut Report,
) -> Option<Config> {
    let mut root = match document::parse(text, format) {
        Ok(root) => root,
        Err(note) => {
            report.error(note);
            return None;
        }
    };
    let mut expander = Expander::new(sources, base, &root);
    check::check(&mut root, &SCHEMA, &mut expander, report);
    rules::infer_transports(&mut root, report);
    pending::warn(&root, report);
    // Also after errors: what is broken is left out, so that one run tells everything.
    let config = serde_json::from_value(to_json(&root)?).ok()?;
    rules::check(&config, &root, report);
    Some(config)
}

fn format_of(path: &Path) -> Result<Format, (String, String)> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "toml" => Ok(Format::Toml),
        "yaml" | "yml" => {
            Err(("found a YAML file, expected JSON or TOML".to_owned(), "YAML is not read".to_owned()))
        }
        _ => Ok(Format::Json),
    }
}

fn not_read(path: &Path, error: &ReadError) -> Invalid {
    let (kind, hint) = match error {
        ReadError::Missing => (InvalidKind::Missing, "`foxxy-bridge config init` writes a sample"),
        ReadError::Folder => (InvalidKind::Missing, "name the file inside it"),
        ReadError::Special => (InvalidKind::Missing, "a config is a file, so that it can be read again"),
        ReadError::TooLarge => (InvalidKind::Content, "is this the right file?"),
        ReadError::NotUtf8(_) => (InvalidKind::Content, "save it as UTF-8"),
        ReadError::Io(_) => (InvalidKind::Unreadable, "the user who runs the bridge must be able to read it"),
    };
    let mut invalid = Invalid::file(kind, path, error.to_string(), Some(hint.to_owned()));
    if let ReadError::NotUtf8(at) = error {
        invalid.problems[0].at = Some(*at);
    }
    invalid
}

/// The config in force, defaults included, as JSON: secrets masked, expanded strings as they were written.
pub fn show(config: &Config) -> String {
    serde_json::to_string_pretty(config).expect("plain data with string keys becomes JSON")
}

/// What `config init` writes.
pub fn sample() -> &'static str {
    include_str!("sample.json")
}
