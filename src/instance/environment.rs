//! Variables that are given to an instance, in files for its user alone, as anybody may read what a unit's
//! `Environment=` says: those of its process and its servers, which the service manager reads, and those that only fill
//! in its config, which no server inherits.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{Instance, VARIABLES};
use crate::host::file::{self, Folder};

/// What systemd reads with a backslash before it inside double quotes (systemd.exec(5), `EnvironmentFile=`).
const ESCAPED: [char; 4] = ['"', '\\', '`', '$'];

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// The variables in that file of an instance; none when it is not there.
///
/// The folder may belong to the bridge's user and the caller be root, who is to follow no link of theirs; the same goes
/// for all below.
pub fn read(path: &Path) -> io::Result<Variables> {
    let text = file::read(path);
    match text.and_then(|text| String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Variables::new()),
        Err(error) => Err(error),
    }
}

/// Writes that file, which is in the instance's folder.
pub fn write(instance: &Instance, path: &Path, variables: &Variables) -> io::Result<()> {
    let (folder, name) = file::parts(path)?;
    let paths = instance.paths();
    let own = paths.runtime_dir(instance.name());
    let (base, _) = file::parts(&own)?;
    let base = if folder.starts_with(base) {
        paths.make_runtime_dir(instance.name())?;
        base
    } else {
        paths.make_state_base()?
    };
    let folder = Folder::below(base, folder)?;
    // A bridge of the machine may have a user of its own, whose folder it is.
    folder.replace(name, render(variables).as_bytes(), 0o600, folder.other_owner()?)
}

/// Makes the folder for what the instance keeps from one boot to the next. False when it is there already.
pub fn keep(instance: &Instance) -> io::Result<bool> {
    let base = instance.paths().make_state_base()?;
    let kept = instance.kept_dir();
    let (_, name) = file::parts(&kept)?;
    let base = Folder::open(base)?;
    // Both hold what is for the bridge's user alone.
    base.make(instance.name().as_str().as_ref())?;
    let above = base.folder(instance.name().as_str().as_ref())?;
    let is_new = above.make(name)?;
    let kept = above.folder(name)?;
    if let Some(owner) = above.other_owner()?.filter(|_| is_new) {
        kept.give(owner)?;
    }
    Ok(is_new)
}

/// Moves what the instance keeps from one boot to the next to where it is for one run, as its bridge still needs it.
pub fn hand_back(instance: &Instance) -> io::Result<()> {
    if !instance.is_kept() {
        return Ok(());
    }
    let kept = [instance.kept_environment_file(), instance.kept_dir().join(VARIABLES)];
    let [_, environment, variables] = instance.runtime_files();
    for (from, to) in kept.iter().zip([environment, variables]) {
        write(instance, &to, &read(from)?)?;
    }
    forget(instance).map(drop)
}

/// Removes what the instance keeps from one boot to the next. False when there is nothing.
pub fn forget(instance: &Instance) -> io::Result<bool> {
    match fs::remove_file(instance.kept_environment_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Of a link it removes the link.
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
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::instance::{Paths, Scope};

    #[test]
    fn values_are_quoted_as_systemd_reads_them() {
        let variables = [("A", "plain"), ("B", "a \"b\" $c `d` \\e # f\nnext"), ("C", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            render(&variables.into()),
            "A=\"plain\"\nB=\"a \\\"b\\\" \\$c \\`d\\` \\\\e # f\nnext\"\nC=\"\"\n"
        );
    }

    /// An instance with folders of its own, in which it keeps something or not.
    fn instance(root: &Path, kept: bool) -> Instance {
        let paths = Paths::from_env(Scope::User, Some(root), |_| None).unwrap();
        let instance = Instance::new("work".parse().unwrap(), None, paths).unwrap();
        if kept { instance.keeping() } else { instance }
    }

    fn token() -> Variables {
        [("TOKEN".to_owned(), "s3cr3t".to_owned())].into()
    }

    /// Something of another user's: a folder with a file in it.
    fn target(root: &Path) -> (PathBuf, PathBuf) {
        let (folder, file) = (root.join("target"), root.join("target/file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "TOKEN=\"other\"\n").unwrap();
        (folder, file)
    }

    /// That nothing was put in it, taken from it or changed.
    fn untouched((folder, file): &(PathBuf, PathBuf)) {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(file).unwrap(), "TOKEN=\"other\"\n");
        assert_eq!(fs::metadata(file).unwrap().uid(), rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_link_in_the_place_of_the_variables_is_replaced_and_not_read() {
        for kept in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let (instance, target) = (instance(root.path(), kept), target(root.path()));
            if kept {
                assert!(keep(&instance).unwrap());
            }
            for path in [instance.environment_file(), instance.variables_file()] {
                write(&instance, &path, &Variables::new()).unwrap();
                fs::remove_file(&path).unwrap();
                symlink(&target.1, &path).unwrap();
                read(&path).unwrap_err();
                write(&instance, &path, &token()).unwrap();
                assert_eq!(read(&path).unwrap(), token());
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
                untouched(&target);
            }
        }
    }

    #[test]
    fn a_link_in_the_place_of_what_is_kept_is_refused_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (kept, target) = (instance(root.path(), true), target(root.path()));
        assert!(keep(&kept).unwrap());
        fs::remove_dir(kept.kept_dir()).unwrap();
        symlink(&target.0, kept.kept_dir()).unwrap();
        assert!(!instance(root.path(), false).is_kept());
        keep(&kept).unwrap_err();
        write(&kept, &kept.variables_file(), &token()).unwrap_err();
        read(&kept.kept_dir().join("file")).unwrap_err();
        untouched(&target);
        assert!(forget(&kept).unwrap());
        assert!(fs::symlink_metadata(kept.kept_dir()).is_err());
        untouched(&target);
        assert!(keep(&kept).unwrap(), "it is of use again");
    }

    #[test]
    fn a_link_in_the_place_of_an_instances_folder_is_refused() {
        for kept in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let (instance, target) = (instance(root.path(), kept), target(root.path()));
            let paths = instance.paths();
            let folder =
                if kept { paths.state_dir(instance.name()) } else { paths.runtime_dir(instance.name()) };
            fs::create_dir_all(folder.parent().unwrap()).unwrap();
            symlink(&target.0, &folder).unwrap();
            write(&instance, &instance.variables_file(), &token()).unwrap_err();
            if kept {
                keep(&instance).unwrap_err();
            }
            untouched(&target);
        }
    }

    #[test]
    fn links_in_what_is_kept_are_removed_and_not_descended() {
        let root = tempfile::tempdir().unwrap();
        let (instance, target) = (instance(root.path(), true), target(root.path()));
        assert!(keep(&instance).unwrap());
        symlink(&target.0, instance.kept_dir().join("deeper")).unwrap();
        assert!(forget(&instance).unwrap());
        assert!(!instance.paths().state_base().exists());
        untouched(&target);
    }

    #[test]
    fn what_root_writes_belongs_to_the_bridges_user() {
        // Only root can give a file away; for anybody else all is their own.
        let own = rustix::process::geteuid().as_raw();
        let user = if own == 0 { 61_234 } else { own };
        let root = tempfile::tempdir().unwrap();
        let instance = instance(root.path(), true);
        let folder = instance.paths().state_dir(instance.name());
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(user), None).unwrap();
        assert!(keep(&instance).unwrap());
        assert!(!keep(&instance).unwrap());
        write(&instance, &instance.variables_file(), &token()).unwrap();
        for path in [instance.kept_dir(), instance.variables_file()] {
            assert_eq!(fs::metadata(&path).unwrap().uid(), user, "{}", path.display());
        }
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
