//! `${…}` in strings.

use std::fs;
use std::path::Path;

use super::{env, json, server};
use crate::config::{Format, Loaded, Sources, Text, load, parse};

fn arg(written: &str) -> (String, String, usize) {
    let text = server(&format!(r#""command": "x", "args": [{written:?}]"#));
    let (config, warnings) = json(&text).unwrap();
    let arg = &config.upstreams["s"].args[0];
    (arg.as_str().to_owned(), arg.shown().to_owned(), warnings.len())
}

#[test]
fn variables_defaults_and_escapes() {
    for (written, value, warnings) in [
        ("plain", "plain", 0),
        ("${PORT}", "9000", 0),
        ("a${PORT}b${TOKEN}c", "a9000bs3cretc", 0),
        ("${PORT:1}", "9000", 0),
        ("${NOPE:dflt}", "dflt", 0),
        ("${NOPE:}", "", 0),
        ("${EMPTY:dflt}", "dflt", 0),
        ("${EMPTY}", "", 0),
        ("${NOPE}", "", 1),
        ("${NOPE:http://h:1/}", "http://h:1/", 0),
        ("${NOPE:-dflt}", "-dflt", 1),
        ("${env:PORT}", "9000", 0),
        ("$${PORT}", "${PORT}", 0),
        ("$$${PORT}", "$${PORT}", 0),
        ("$${PORT} ${PORT}", "${PORT} 9000", 0),
        ("$PORT $ {PORT}", "$PORT $ {PORT}", 0),
        ("${PORT", "${PORT", 1),
        ("${}", "${}", 1),
        ("${a b}", "${a b}", 1),
        ("${1}", "${1}", 1),
        ("${file:}", "${file:}", 1),
        ("${credential:../x}", "${credential:../x}", 1),
        ("${credential:x}", "", 1),
        ("$(id)", "$(id)", 1),
        ("$( $()", "$( $()", 1),
        ("$() $(", "$() $(", 0),
        ("é${PORT}é", "é9000é", 0),
    ] {
        assert_eq!(arg(written), (value.to_owned(), written.to_owned(), warnings), "{written}");
    }
}

#[test]
fn what_an_expansion_gives_is_not_expanded_again() {
    let env = |name: &str| (name == "A").then(|| "${B} $(id)".to_owned());
    let sources = Sources { env: &env, home: None, credentials: None };
    let text = server(r#""command": "${A}""#);
    let (config, warnings) = parse(&text, Format::Json, Path::new("f"), Path::new("/"), &sources).unwrap();
    assert_eq!(config.upstreams["s"].command.as_ref().unwrap().as_str(), "${B} $(id)");
    assert_eq!(warnings, []);
}

#[test]
fn an_expansion_inside_a_default_is_an_error() {
    let invalid = json(&server(r#""command": "${NOPE:${PORT}}""#)).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "config.json:1:34: mcpServers.s.command: the default of `${NOPE:…}` holds another `${`, expected plain text \
         (expansions cannot stand inside each other)"
    );
}

#[test]
fn expanded_strings_become_the_numbers_and_truths_that_are_wanted() {
    let text = r#"{"mcpServers": {"s": {"command": "x", "enabled": "${YES}", "timeout": "${NOPE:2.5}",
        "priority": "${NOPE:-5}", "transport": "${NOPE:STDIO}"}},
        "bridge": {"port": "${PORT:8080}", "daemon": {"limits": {"memory_max": "${NOPE:10M}", "nofile": "${PORT}"}}}}"#;
    let (config, _) = json(text).unwrap();
    let server = &config.upstreams["s"];
    assert_eq!((config.bridge.port, server.timeout.as_millis(), server.priority), (9000, 2500, -5));
    assert_eq!(config.bridge.daemon.limits.nofile, Some(9000));
    let plain = json(&server_with_port_text()).unwrap_err();
    assert!(plain.to_string().contains("found the string \"8080\", expected a whole number"), "{plain}");
}

fn server_with_port_text() -> String {
    super::bridge(r#""port": "8080""#)
}

#[test]
fn files_are_read_from_the_config_s_folder_the_home_and_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (base, home) = (folder.path().join("base"), folder.path().join("home"));
    for path in [&base, &home] {
        fs::create_dir(path).unwrap();
    }
    fs::write(base.join("a"), "one\r\n").unwrap();
    fs::write(home.join("b"), "two\n\n").unwrap();
    fs::write(folder.path().join("c"), " three ").unwrap();
    fs::write(base.join("NAME"), "four\n").unwrap();
    let absolute = folder.path().join("c");
    let path = base.join("config.json");
    let args = format!(
        r#"["${{file:a}}", "${{file:~/b}}", "${{file:{}}}", "${{credential:NAME}}"]"#,
        absolute.display()
    );
    fs::write(&path, server(&format!(r#""command": "x", "args": {args}"#))).unwrap();
    let sources = Sources { env: &env, home: Some(home), credentials: Some(base.clone()) };
    let Loaded { config, warnings, .. } = load(&path, &sources).unwrap();
    let args: Vec<_> = config.upstreams["s"].args.iter().map(Text::as_str).collect();
    assert_eq!(args, ["one", "two", " three ", "four"]);
    assert_eq!(warnings, []);
}

#[test]
fn a_file_or_credential_that_is_not_there_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources { env: &env, home: None, credentials: Some(folder.path().to_owned()) };
    let text = server(r#""command": "${file:none}", "args": ["${credential:NAME}", "${file:/}"]"#);
    let invalid = parse(&text, Format::Json, Path::new("f"), Path::new("/nowhere"), &sources).unwrap_err();
    let said = invalid.to_string().replace(folder.path().to_str().unwrap(), "CREDENTIALS");
    insta::assert_snapshot!(said);
}

#[test]
fn expansions_cannot_fill_the_memory() {
    let large = "x".repeat(1024 * 1024);
    let env = |_: &str| Some(large.clone());
    let sources = Sources { env: &env, home: None, credentials: None };
    let text = server(&format!(r#""command": "x", "args": ["{}"]"#, "${A}".repeat(1000)));
    let invalid = parse(&text, Format::Json, Path::new("f"), Path::new("/"), &sources).unwrap_err();
    assert!(invalid.to_string().contains("more than 8 MiB"), "{invalid}");
}

#[test]
fn outside_the_service_a_credential_is_the_file_that_the_service_would_get() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "s3cr3t\n").unwrap();
    let env = |_: &str| None;
    let sources = Sources { env: &env, home: None, credentials: None };
    let text = r#"{
        "mcpServers": { "a": { "command": "x", "env": { "KEY": "${credential:token}" } } },
        "bridge": { "daemon": { "credentials": { "token": "token" } } }
    }"#;
    let parsed = parse(text, Format::Json, Path::new("a.json"), folder.path(), &sources);
    assert_eq!(parsed.unwrap().0.upstreams["a"].env["KEY"].expose(), "s3cr3t");
    let env = |name: &str| (name == "SECRETS").then(|| folder.path().display().to_string());
    let sources = Sources { env: &env, home: Some(folder.path().to_owned()), credentials: None };
    for written in ["${SECRETS}/token", "~/${NOPE:token}", "${SECRETS}/../${SECRETS}/token"] {
        let text = text.replace(r#""token": "token""#, &format!(r#""token": "{written}""#));
        let parsed = parse(&text, Format::Json, Path::new("a.json"), Path::new("/"), &sources);
        match parsed {
            Ok((config, _)) => assert_eq!(config.upstreams["a"].env["KEY"].expose(), "s3cr3t", "{written}"),
            // What a variable holds is not told.
            Err(refused) => {
                let message = &refused.problems[0].message;
                assert!(
                    written.contains("..") && message.contains(&format!("}}`: {written}: ")),
                    "{message}"
                );
            }
        }
    }
    // Of those that only the service can have it is said that they are empty here.
    for others in [r#""other": "token""#, r#""token": "${credential:other}""#] {
        let text = text.replace(r#""token": "token""#, others);
        let (_, warnings) = parse(&text, Format::Json, Path::new("a.json"), folder.path(), &sources).unwrap();
        assert!(
            warnings[0].to_string().contains("credentials exist inside the service only"),
            "{warnings:?}"
        );
    }
    fs::remove_file(folder.path().join("token")).unwrap();
    let refused = parse(text, Format::Json, Path::new("a.json"), folder.path(), &sources).unwrap_err();
    assert!(refused.problems[0].message.contains("`${credential:token}`"), "{refused:?}");
}
