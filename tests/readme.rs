//! The README promises what is there.

use std::process::Command;

const README: &str = include_str!("../README.md");

/// The lines of all code blocks.
fn code() -> impl Iterator<Item = &'static str> {
    README.split("```").skip(1).step_by(2).flat_map(str::lines)
}

#[test]
fn the_two_commands_stand_in_it_as_they_are_tested() {
    let first_screen: String = README.lines().take(45).collect::<Vec<_>>().join("\n");
    assert!(first_screen.contains("$ cargo run --release -- server start --daemon\n"));
    assert!(first_screen.contains("$ make check\n"));
    let makefile = include_str!("../Makefile");
    assert!(makefile.lines().any(|line| line.starts_with("check:")));
    assert!(include_str!("../.ci/run").lines().any(|line| line == "make check"));
}

#[test]
fn every_command_and_option_in_it_exists() {
    let mut seen = 0;
    for line in code() {
        let Some(arguments) = line.trim_start_matches("$ ").strip_prefix("foxxy-bridge ") else { continue };
        let words = || {
            arguments.split(|c: char| c.is_whitespace() || "[]|".contains(c)).filter(|word| !word.is_empty())
        };
        let path: Vec<&str> = words().take(2).filter(|word| !word.starts_with('-')).collect();
        let help = Command::new(env!("CARGO_BIN_EXE_foxxy-bridge"))
            .args(&path)
            .arg("--help")
            .output()
            .expect("it runs");
        assert!(help.status.success(), "{line}");
        let help = String::from_utf8(help.stdout).expect("text");
        for option in words().filter(|word| word.starts_with('-')) {
            let found = help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == option);
            assert!(found, "{option} of: {line}");
        }
        seen += 1;
    }
    assert!(seen > 8, "the README shows commands");
}
