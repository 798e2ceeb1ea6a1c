//! Variables that are given to an instance, in files for its user alone, as anybody may read what a unit's
//! `Environment=` says: those of its process and its servers, which the service manager reads, and those that only fill
//! in its config, which no server inherits.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::Path;

use super::{Instance, small_file};

/// What systemd reads with a backslash before it inside double quotes (systemd.exec(5), `EnvironmentFile=`).
const ESCAPED: [char; 4] = ['"', '\\', '`', '$'];

/// The most that such a file is read of, in bytes: a process cannot be given as much.
const MOST: u64 = 8 << 20;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// The variables in that file of an instance; none when it is not there.
pub fn read(path: &Path) -> io::Result<Variables> {
    match small_file::read(path, MOST) {
        Ok((text, _)) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Variables::new()),
        Err(error) => Err(error),
    }
}

/// Writes that file, which is in the instance's folder.
pub fn write(instance: &Instance, path: &Path, variables: &Variables) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if folder == instance.runtime_dir() {
        instance.paths().make_runtime_dir(instance.name())?;
    }
    // Written beside its place first: a restart at this moment reads the old one or the new one, never half of one.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&fresh).and_then(|mut file| {
        file.write_all(render(variables).as_bytes())?;
        // A bridge of the machine may have a user of its own, whose folder it is.
        let folder = fs::metadata(folder)?;
        if folder.uid() != rustix::process::geteuid().as_raw() {
            fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
        }
        fs::rename(&fresh, path)
    });
    written.inspect_err(|_| {
        // It is of no use to anybody; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&fresh);
    })
}

/// Makes the folder for what the instance keeps from one boot to the next. False when it is there already.
pub fn keep(instance: &Instance) -> io::Result<bool> {
    let folder = instance.kept_dir();
    if folder.is_dir() {
        return Ok(false);
    }
    let above = instance.paths().state_dir(instance.name());
    if let Some(base) = above.parent().filter(|base| !base.exists()) {
        fs::create_dir_all(base)?;
    }
    // Both hold what is for the bridge's user alone.
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let owner = fs::metadata(&above)?;
    if owner.uid() != rustix::process::geteuid().as_raw() {
        chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(true)
}

/// Removes what the instance keeps from one boot to the next. False when there is nothing.
pub fn forget(instance: &Instance) -> io::Result<bool> {
    match fs::remove_dir_all(instance.kept_dir()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        outcome => outcome?,
    }
    let folder = instance.paths().state_dir(instance.name());
    // These fail where there is more in them, such as a home of the bridge's, which stays.
    let _ = fs::remove_dir(&folder);
    let _ = folder.parent().map(fs::remove_dir);
    Ok(true)
}

fn render(variables: &Variables) -> String {
    let mut file = String::new();
    for (name, value) in variables {
        file.push_str(name);
        file.push_str("=\"");
        for character in value.chars() {
            if ESCAPED.contains(&character) {
                file.push('\\');
            }
            file.push(character);
        }
        file.push_str("\"\n");
    }
    file
}

/// Reads what `render` wrote.
fn parse(mut text: &str) -> Variables {
    let mut variables = Variables::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((_, '\\')) => value.extend(characters.next().map(|(_, character)| character)),
                Some((at, '"')) => break at + 1,
                Some((_, character)) => value.push(character),
                None => return variables,
            }
        };
        variables.insert(name.trim_start().to_owned(), value);
        text = &rest[end..];
    }
    variables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_quoted_as_systemd_reads_them() {
        let variables = [("A", "plain"), ("B", "a \"b\" $c `d` \\e # f\nnext"), ("C", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            render(&variables.into()),
            "A=\"plain\"\nB=\"a \\\"b\\\" \\$c \\`d\\` \\\\e # f\nnext\"\nC=\"\"\n"
        );
    }

    #[test]
    fn a_pipe_or_a_link_in_place_of_the_variables_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link, gone) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        small_file::make_pipe(&pipe);
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(read(&pipe).is_err() && read(&link).is_err());
        assert_eq!(read(&gone).unwrap(), Variables::new());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(variables in prop::collection::btree_map("[A-Z_][A-Z0-9_]{0,8}", any::<String>(), 0..6)) {
            prop_assert_eq!(parse(&render(&variables)), variables);
        }

        #[test]
        fn no_text_is_too_strange_to_be_read(text in any::<String>()) {
            parse(&text);
        }
    }
}
