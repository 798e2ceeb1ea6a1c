//! What a PID file says: the process on the first line, as every tool reads it, and below it, as TOML, who that is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::process::Identity;

/// What a supervisor says of itself in its PID file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The supervisor.
    #[serde(skip)]
    pub(super) pid: u32,
    /// The instance.
    pub(super) name: String,
    /// Its config, or where the default config would be.
    pub(super) config: PathBuf,
    /// Where clients connect, once it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// When the supervisor was started, RFC 3339.
    pub(super) started: String,
    /// The boot that it was started in.
    pub(super) boot_id: String,
    /// Clock ticks from the boot to its start.
    pub(super) start_time: u64,
    /// Of the program.
    pub(super) version: String,
    /// Where the log is; none where it goes to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_file: Option<PathBuf>,
    /// How it ended: the last that it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<Ended>,
}

/// How an instance ended that was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ended {
    /// When it was asked to.
    Clean,
    /// It had to be killed.
    Killed,
}

impl Record {
    /// Reads what `render` has written; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once('\n')?;
        let record: Self = toml::from_str(rest).ok()?;
        Some(Self { pid: parse_pid(pid)?, ..record })
    }

    pub(super) fn render(&self) -> String {
        // Only what TOML cannot have fails, such as a path that is no text.
        let rest = toml::to_string(self).unwrap_or_default();
        format!("{}\n{rest}", self.pid)
    }

    /// The process that it means.
    pub(super) fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time, boot_id: self.boot_id.clone() }
    }
}

/// The number on the first line of a PID file, of whatever program.
pub(super) fn parse_pid(line: &str) -> Option<u32> {
    line.trim().parse().ok().filter(|pid| (1..=i32::MAX.unsigned_abs()).contains(pid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            pid: 4711,
            name: "work".to_owned(),
            config: "/home/ada/.config/foxxy-bridge/work.json".into(),
            address: Some("http://127.0.0.1:8080/mcp".to_owned()),
            started: "2026-11-24T17:20:01Z".to_owned(),
            boot_id: "2f1c".to_owned(),
            start_time: 98_765,
            version: "0.1.0".to_owned(),
            log_file: Some("/home/ada/.config/foxxy-bridge/logs/work.log".into()),
            ended: None,
        }
    }

    #[test]
    fn the_first_line_is_the_process_and_the_rest_is_toml() {
        insta::assert_snapshot!(record().render(), @r#"
        4711
        name = "work"
        config = "/home/ada/.config/foxxy-bridge/work.json"
        address = "http://127.0.0.1:8080/mcp"
        started = "2026-11-24T17:20:01Z"
        boot_id = "2f1c"
        start_time = 98765
        version = "0.1.0"
        log_file = "/home/ada/.config/foxxy-bridge/logs/work.log"
        "#);
        assert_eq!(Record::parse(&record().render()), Some(record()));
    }

    #[test]
    fn what_is_no_record_is_none() {
        for text in ["", "\n", "4711", "4711\n", "-1\n", "0\n", "99999999999\n", "work\nname = 1\n"] {
            assert_eq!(Record::parse(text), None, "{text:?}");
        }
        for (line, pid) in
            [("4711 ", Some(4711)), ("0", None), ("-1", None), ("4294967295", None), ("", None)]
        {
            assert_eq!(parse_pid(line), pid, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let _ = Record::parse(&text);
        }
    }
}
