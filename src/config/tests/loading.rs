//! Files: which one, and what when it cannot be read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{server, sources};
use crate::config::{Choice, InvalidKind, load, locate};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_named_file_wins_then_json_then_toml_then_the_builtin() {
    let folder = folder();
    let (json, toml) = (folder.path().join("config.json"), folder.path().join("config.toml"));
    assert_eq!(locate(None, folder.path()), Choice::Builtin);
    assert_eq!(locate(None, &folder.path().join("not/there")), Choice::Builtin);
    fs::write(&toml, "").unwrap();
    assert_eq!(locate(None, folder.path()), Choice::File(toml.clone()));
    assert_eq!(locate(None, &toml), Choice::Builtin, "a file where the folder should be");
    fs::write(&json, "").unwrap();
    assert_eq!(locate(None, folder.path()), Choice::File(json));
    let named = Path::new("/not/there.json");
    assert_eq!(locate(Some(named), folder.path()), Choice::File(named.to_owned()));
}

#[test]
fn a_dangling_link_is_not_taken_for_no_config() {
    let folder = folder();
    let json = folder.path().join("config.json");
    symlink("/not/there", &json).unwrap();
    assert_eq!(locate(None, folder.path()), Choice::File(json.clone()));
    assert_eq!(load(&json, &sources()).unwrap_err().kind, InvalidKind::Missing);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let folder = folder();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let cases = [
        (folder.path().join("none.json"), InvalidKind::Missing),
        (folder.path().to_owned(), InvalidKind::Missing),
        (fifo, InvalidKind::Missing),
        (file("latin1.json", b"{\n  \"\xe4\": 1}"), InvalidKind::Content),
        (file("utf16.json", b"\xff\xfe{\0}\0"), InvalidKind::Content),
        (file("huge.json", &vec![b' '; 1024 * 1024 + 1]), InvalidKind::Content),
        (file("empty.json", b""), InvalidKind::Content),
        (file("empty.toml", b"\xef\xbb\xbf\r\n"), InvalidKind::Content),
        (file("config.yaml", b"a: 1"), InvalidKind::Content),
        (file("deep.json", "[".repeat(100_000).as_bytes()), InvalidKind::Content),
        (
            file("deepish.json", format!("{}{}", "[".repeat(100), "]".repeat(100)).as_bytes()),
            InvalidKind::Content,
        ),
        (file("deep.toml", format!("a = {}", "[".repeat(100_000)).as_bytes()), InvalidKind::Content),
        (file("dotted.toml", format!("a{} = 1", ".a".repeat(100_000)).as_bytes()), InvalidKind::Content),
    ];
    let said: String = cases
        .iter()
        .map(|(path, kind)| {
            let invalid = load(path, &sources()).unwrap_err();
            assert_eq!(invalid.kind, *kind, "{invalid}");
            format!("{invalid}\n").replace(folder.path().to_str().unwrap(), "DIR")
        })
        .collect();
    insta::assert_snapshot!(said);
}

#[test]
fn dotted_tables_inside_each_other_do_not_exhaust_the_stack() {
    let folder = folder();
    let path = folder.path().join("config.toml");
    let key = vec!["a"; 79].join(".");
    let text = format!("{}1{}", format!("{key} = {{ ").repeat(79).trim_end_matches("{ "), " }".repeat(78));
    fs::write(&path, text).unwrap();
    assert!(load(&path, &sources()).is_err());
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let folder = folder();
    let path = folder.path().join("config.json");
    fs::write(&path, format!("\u{feff}// comment\r\n{}\r\n", server(r#""command": "x","#))).unwrap();
    let loaded = load(&path, &sources()).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_link_is_followed_before_relative_paths_are() {
    let folder = folder();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("token"), "t").unwrap();
    fs::write(real.join("config.json"), server(r#""command": "${file:token}""#)).unwrap();
    let link = folder.path().join("link.json");
    symlink(real.join("config.json"), &link).unwrap();
    let loaded = load(&link, &sources()).unwrap();
    assert_eq!(loaded.config.upstreams["s"].command.as_ref().unwrap().as_str(), "t");
    assert_eq!(loaded.path, Some(real.join("config.json").canonicalize().unwrap()));
}

#[test]
fn loading_leaves_the_file_and_its_folder_as_they_were() {
    let folder = folder();
    let path = folder.path().join("config.json");
    let text = server(r#""command":   "x", "unknown": 1"#);
    fs::write(&path, &text).unwrap();
    load(&path, &sources()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
