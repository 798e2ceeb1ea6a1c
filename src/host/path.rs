//! Finding a command as a shell would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The file that `command` means: itself when it has a slash (from `cwd` when relative), else the first executable of
/// that name on `path`.
#[must_use]
pub fn find(command: &str, path: &OsStr, cwd: Option<&Path>) -> Option<PathBuf> {
    let at = |path: PathBuf| match cwd {
        Some(cwd) => cwd.join(path),
        None => path,
    };
    if command.contains('/') {
        return Some(at(PathBuf::from(command))).filter(|file| is_executable(file));
    }
    std::env::split_paths(path)
        .filter(|folder| !folder.as_os_str().is_empty())
        .map(|folder| at(folder.join(command)))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn takes_the_first_executable_and_nothing_else() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |name: &str, mode: u32| {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
            std::fs::write(&file, "").expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
            file
        };
        put("a/tool", 0o644);
        std::fs::create_dir_all(root.path().join("b/tool")).expect("a folder");
        let tool = put("c/tool", 0o755);
        put("d/tool", 0o755);
        let path =
            std::env::join_paths(["a", "b", "c", "d"].map(|name| root.path().join(name))).expect("a PATH");
        assert_eq!(find("tool", &path, None), Some(tool.clone()));
        assert_eq!(find("no-such-tool", &path, None), None);
        assert_eq!(find("./c/tool", OsStr::new(""), Some(root.path())), Some(root.path().join("./c/tool")));
        assert_eq!(find("a/tool", &path, Some(root.path())), None, "not executable");
        assert_eq!(find("", &path, None), None);
    }
}
