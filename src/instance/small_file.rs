//! Reading what a bridge's user can write: whoever reads it, root above all, must not be held up by what it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The text of a file and the uid of its owner, at once.
///
/// # Errors
/// From the system; one of kind `InvalidData` for what is a link, no regular file, no text, or longer than `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> io::Result<(String, u32)> {
    // The opening of a pipe would wait for a writer.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Err(no_file()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(no_file());
    }
    let mut text = String::new();
    // One byte more tells what is too long, however long it is by now.
    if file.take(most + 1).read_to_string(&mut text)? as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {most} bytes")));
    }
    Ok((text, metadata.uid()))
}

/// That something else stands in the place of a file.
pub(super) fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")
}

/// A pipe at that path, to which nobody writes.
#[cfg(test)]
pub(super) fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_file_is_an_error_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "four").expect("written");
        assert_eq!(read(&file, 4).expect("short enough").0, "four");
        assert_eq!(read(&file, 3).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(folder.path(), 4).expect_err("a folder").to_string(), "it is no regular file");
        assert_eq!(
            read(Path::new("/dev/zero"), 4).expect_err("a device").to_string(),
            "it is no regular file"
        );
    }
}
