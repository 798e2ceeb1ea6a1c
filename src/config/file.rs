//! Reading a text file that a person named: bounded, regular, UTF-8, and never written.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Position, position};

/// No config, token or certificate is larger; a wrong path to a huge file must not fill the memory.
const LARGEST: u64 = 1024 * 1024;

/// Why a file gave no text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no such file")]
    Missing,
    #[error("this is a folder, expected a file")]
    Folder,
    #[error("not a regular file")]
    Special,
    #[error("larger than 1 MiB")]
    TooLarge,
    #[error("not UTF-8 text")]
    NotUtf8(Position),
    #[error("cannot be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::IsADirectory => Self::Folder,
            _ => Self::Io(error),
        }
    }
}

/// The text of a file, without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, ReadError> {
    // Asked before opening: opening a FIFO would wait for a writer.
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(ReadError::Folder);
    }
    if !kind.is_file() {
        return Err(ReadError::Special);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    decode(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<String, ReadError> {
    if bytes.len() as u64 > LARGEST {
        return Err(ReadError::TooLarge);
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        ReadError::NotUtf8(position(&String::from_utf8_lossy(&error.as_bytes()[..good]), good))
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// A path as a person writes it in a config: `~/` is the home, a relative path starts in the config's folder.
pub fn resolve_path(written: &str, base: &Path, home: Option<&Path>) -> PathBuf {
    match (written.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => base.join(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbf{}".to_vec()).unwrap(), "{}");
    }

    #[test]
    fn bytes_that_are_no_text_are_placed() {
        match decode(b"{\n \xff".to_vec()) {
            Err(ReadError::NotUtf8(at)) => assert_eq!((at.line, at.column), (2, 2)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mebibyte_is_read_and_one_byte_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, vec![b' '; 1024 * 1024]).unwrap();
        assert_eq!(read_text(&path).unwrap().len(), 1024 * 1024);
        std::fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert!(matches!(read_text(&path), Err(ReadError::TooLarge)));
    }

    #[test]
    fn what_is_no_file_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_text(folder.path()), Err(ReadError::Folder)));
        assert!(matches!(read_text(Path::new("/dev/null")), Err(ReadError::Special)));
        assert!(matches!(read_text(&folder.path().join("none")), Err(ReadError::Missing)));
    }

    #[test]
    fn written_paths_start_at_home_root_or_the_config() {
        let (base, home) = (Path::new("/etc/foxxy"), Some(Path::new("/home/ann")));
        for (written, expected) in [
            ("~", "/home/ann"),
            ("~/x/y", "/home/ann/x/y"),
            ("~ann", "/etc/foxxy/~ann"),
            ("x", "/etc/foxxy/x"),
            ("/x", "/x"),
        ] {
            assert_eq!(resolve_path(written, base, home), Path::new(expected), "{written}");
        }
        assert_eq!(resolve_path("~/x", base, None), Path::new("/etc/foxxy/~/x"));
    }
}
