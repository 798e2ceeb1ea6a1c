//! The journal, read through `journalctl`: it knows every place and format that journals have.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::state::UnitState;
use crate::instance::Scope;
use crate::manager::{Entry, Error, LogQuery, LogStream};

/// The fields that an [`Entry`] is made of.
const FIELDS: &str = "MESSAGE,PRIORITY,UPSTREAM,SESSION,REQUEST_ID,SYSLOG_IDENTIFIER,_PID";

/// How long journald may take to hand over the lines of a process that has just ended: it reads them from a socket.
const TAIL_TIMEOUT: Duration = Duration::from_millis(1500);

/// The silence after which a tail is taken as complete.
const TAIL_QUIET: Duration = Duration::from_millis(250);

/// The priority of a line that has none, as journald has it: informational.
const DEFAULT_PRIORITY: u8 = 6;

/// The least urgent priority of a complaint.
const WARNING: u8 = 4;

/// The arguments of `journalctl` for what an instance has logged, whichever of its units ran it.
fn arguments(query: &LogQuery, scope: Scope) -> Vec<String> {
    let mut arguments = common();
    let option = scope.journal_flag();
    arguments.extend([query.name.unit(), query.name.template_unit()].map(|unit| format!("{option}={unit}")));
    if query.follow {
        arguments.push("--follow".into());
    }
    if is_reversed(query) {
        arguments.push("--reverse".into());
    }
    match query.lines {
        Some(lines) => arguments.push(format!("--lines={lines}")),
        None => arguments.push(if query.follow { "--no-tail".into() } else { "--lines=all".into() }),
    }
    if let Some(since) = &query.since {
        arguments.push(format!("--since={since}"));
    }
    if let Some(until) = &query.until {
        arguments.push(format!("--until={until}"));
    }
    if let Some(priority) = query.priority {
        arguments.push(format!("--priority={priority}"));
    }
    if let Some(upstream) = &query.upstream {
        arguments.push(format!("UPSTREAM={upstream}"));
    }
    arguments
}

/// Whether the lines are asked for backwards: the last ones before or since a time are not to be had otherwise, as
/// `journalctl` then counts from the beginning.
fn is_reversed(query: &LogQuery) -> bool {
    query.lines.is_some() && !query.follow && (query.since.is_some() || query.until.is_some())
}

/// The arguments of `journalctl` for the last lines of one run of a bridge.
///
/// A process that ends at once may be gone before journald looks up which unit it was in, so its lines are also
/// looked for by its number.
fn run_arguments(unit: &UnitState, scope: Scope, lines: u32) -> Vec<String> {
    let id = &unit.invocation_id;
    let manager_field = match scope {
        Scope::User => "USER_INVOCATION_ID",
        Scope::System => "INVOCATION_ID",
    };
    let mut arguments = common();
    arguments.extend(["--follow".into(), format!("--lines={lines}")]);
    arguments.extend([format!("_SYSTEMD_INVOCATION_ID={id}"), "+".into(), format!("{manager_field}={id}")]);
    if unit.exec_main_pid != 0 {
        arguments.extend([
            "+".into(),
            format!("_PID={}", unit.exec_main_pid),
            "SYSLOG_IDENTIFIER=foxxy-bridge".into(),
        ]);
        // A process number comes around again; a run does not last from one boot to the next.
        arguments.push("--boot".into());
    }
    arguments
}

fn common() -> Vec<String> {
    vec![
        "--quiet".into(),
        "--no-pager".into(),
        "--all".into(),
        "--output=json".into(),
        format!("--output-fields={FIELDS}"),
    ]
}

/// One line of `journalctl --output=json`; `None` when it is no journal entry.
fn parse(line: &str) -> Option<Entry> {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return None };
    let text = |key| fields.get(key).and_then(field_text);
    Some(Entry {
        time: text("__REALTIME_TIMESTAMP")?.parse().ok()?,
        priority: text("PRIORITY").and_then(|number| number.parse().ok()).unwrap_or(DEFAULT_PRIORITY),
        upstream: text("UPSTREAM"),
        session: text("SESSION"),
        request: text("REQUEST_ID"),
        message: text("MESSAGE").unwrap_or_default(),
        identifier: text("SYSLOG_IDENTIFIER"),
        pid: text("_PID").and_then(|number| number.parse().ok()),
    })
}

/// A field's text: a string, or its bytes when it is not UTF-8 text, or several of these when it was given several
/// times, of which the first is taken; null when there is too much of it.
fn field_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let bytes: Option<Vec<u8>> =
                items.iter().map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            match bytes {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => items.first().and_then(field_text),
            }
        }
        _ => None,
    }
}

/// What an instance has logged, and after it the error `unseen`, if that is why there may be more.
pub(super) fn stream(query: &LogQuery, scope: Scope, unseen: Option<Error>) -> Result<LogStream, Error> {
    let found = found(Journal::open(&arguments(query, scope))?, unseen);
    if !is_reversed(query) {
        return Ok(found);
    }
    // As many as were asked for.
    let turned = found.collect::<Vec<_>>().map(|mut entries| {
        let error = entries.pop_if(|entry| entry.is_err());
        entries.reverse();
        entries.extend(error);
        futures_util::stream::iter(entries)
    });
    Ok(turned.flatten_stream().boxed())
}

fn found(journal: Journal, unseen: Option<Error>) -> LogStream {
    let entries = futures_util::stream::unfold((Some(journal), unseen), |(journal, unseen)| async {
        let mut journal = journal?;
        match journal.next().await {
            Ok(Some(entry)) => Some((Ok(entry), (Some(journal), unseen))),
            Ok(None) => unseen.map(|error| (Err(error), (None, None))),
            Err(error @ Error::Journal { .. }) => Some((Err(unseen.unwrap_or(error)), (None, None))),
            Err(error) => Some((Err(error), (None, None))),
        }
    });
    entries.boxed()
}

/// The last lines of a run that failed: the bridge's own, or else systemd's complaints about it; none when the journal
/// is not readable.
pub(super) async fn last_words(unit: &UnitState, scope: Scope, lines: u32) -> Vec<Entry> {
    if unit.invocation_id.is_empty() {
        return Vec::new();
    }
    // Twice as many: some of them will be systemd's.
    let Ok(mut journal) = Journal::open(&run_arguments(unit, scope, lines * 2)) else { return Vec::new() };
    let (mut own, mut systemds) = (Vec::new(), Vec::new());
    let collect = async {
        loop {
            let patience = if own.is_empty() { TAIL_TIMEOUT } else { TAIL_QUIET };
            let Ok(Ok(Some(entry))) = tokio::time::timeout(patience, journal.next()).await else { return };
            if entry.identifier.as_deref() != Some("systemd") {
                own.push(entry);
            } else if entry.priority <= WARNING {
                systemds.push(entry);
            }
        }
    };
    // However much it still says, the caller is waiting for an answer.
    let _ = tokio::time::timeout(TAIL_TIMEOUT, collect).await;
    let mut entries = if own.is_empty() { systemds } else { own };
    entries.drain(..entries.len().saturating_sub(lines as usize));
    entries
}

/// A running `journalctl`, ended with this value.
struct Journal {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Journal {
    fn open(arguments: &[String]) -> Result<Self, Error> {
        let mut child = Command::new("journalctl")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::NoJournalctl { source })?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Error::Journal { detail: "`journalctl` has no output".into() });
        };
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    /// The next entry; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            match self.lines.next_line().await {
                Ok(Some(line)) => {
                    if let Some(entry) = parse(&line) {
                        return Ok(Some(entry));
                    }
                }
                Ok(None) => return self.end().await.map(|()| None),
                Err(error) => return Err(Error::Journal { detail: error.to_string() }),
            }
        }
    }

    /// How it ended.
    async fn end(&mut self) -> Result<(), Error> {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Only the words matter; a read error leaves what was read.
            let _ = stderr.take(4096).read_to_string(&mut said).await;
        }
        match self.child.wait().await {
            // With nothing found it ends with 1 and says nothing.
            Ok(status) if status.success() || said.trim().is_empty() => Ok(()),
            Ok(_) => Err(complaint(said.trim())),
            Err(error) => Err(Error::Journal { detail: error.to_string() }),
        }
    }
}

/// What is wrong, by what `journalctl` has said. Its words are the same in every language.
fn complaint(said: &str) -> Error {
    let detail = said.to_owned();
    if said.contains("timestamp") || said.contains("--since") || said.contains("--until") {
        return Error::BadTime { detail };
    }
    Error::Journal { detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::systemd::fake;

    fn query() -> LogQuery {
        LogQuery {
            file: None,
            name: "work".parse().unwrap(),
            follow: false,
            lines: None,
            since: None,
            until: None,
            upstream: None,
            priority: None,
        }
    }

    #[test]
    fn a_log_covers_both_units_of_an_instance() {
        let arguments = arguments(&query(), Scope::User);
        assert!(arguments.contains(&"--user-unit=foxxy-bridge-work.service".to_owned()));
        assert!(arguments.contains(&"--user-unit=foxxy-bridge@work.service".to_owned()));
        assert!(arguments.contains(&"--lines=all".to_owned()));
        assert!(!arguments.contains(&"--follow".to_owned()));
    }

    #[test]
    fn a_query_becomes_options_that_cannot_be_mistaken_for_others() {
        let query = LogQuery {
            follow: true,
            lines: Some(20),
            since: Some("-1h".into()),
            until: Some("now".into()),
            upstream: Some("--file=/etc/shadow".into()),
            priority: Some(4),
            ..query()
        };
        let arguments = arguments(&query, Scope::System);
        insta::assert_snapshot!(arguments.join("\n"), @r#"
        --quiet
        --no-pager
        --all
        --output=json
        --output-fields=MESSAGE,PRIORITY,UPSTREAM,SESSION,REQUEST_ID,SYSLOG_IDENTIFIER,_PID
        --unit=foxxy-bridge-work.service
        --unit=foxxy-bridge@work.service
        --follow
        --lines=20
        --since=-1h
        --until=now
        --priority=4
        UPSTREAM=--file=/etc/shadow
        "#);
    }

    #[test]
    fn the_last_lines_of_a_time_are_asked_for_backwards() {
        let reversed = |query: LogQuery| arguments(&query, Scope::User).contains(&"--reverse".to_owned());
        let until = LogQuery { until: Some("now".into()), ..query() };
        assert!(!reversed(until.clone()));
        assert!(reversed(LogQuery { lines: Some(1), ..until }));
        assert!(!reversed(LogQuery { lines: Some(1), ..query() }));
    }

    #[test]
    fn a_bad_time_is_told_from_a_journal_that_cannot_be_read() {
        for said in ["Failed to parse timestamp: soon", "--since= must be before --until=."] {
            assert!(matches!(complaint(said), Error::BadTime { .. }), "{said}");
        }
        let said = "No journal files were opened due to insufficient permissions.";
        assert!(matches!(complaint(said), Error::Journal { .. }));
    }

    #[test]
    fn a_run_is_found_by_its_invocation_and_its_process() {
        let unit = UnitState { invocation_id: "ab".repeat(16), exec_main_pid: 42, ..fake::failed_state() };
        insta::assert_snapshot!(run_arguments(&unit, Scope::User, 20).join("\n"), @r#"
        --quiet
        --no-pager
        --all
        --output=json
        --output-fields=MESSAGE,PRIORITY,UPSTREAM,SESSION,REQUEST_ID,SYSLOG_IDENTIFIER,_PID
        --follow
        --lines=20
        _SYSTEMD_INVOCATION_ID=abababababababababababababababab
        +
        USER_INVOCATION_ID=abababababababababababababababab
        +
        _PID=42
        SYSLOG_IDENTIFIER=foxxy-bridge
        --boot
        "#);
    }

    #[test]
    fn an_entry_has_what_the_bridge_wrote() {
        let line = r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1763900000123456","PRIORITY":"4","UPSTREAM":"time",
            "MESSAGE":"retry","SYSLOG_IDENTIFIER":"foxxy-bridge","_PID":"77","SESSION":"0a1b2c3d","REQUEST_ID":"7"}"#;
        assert_eq!(
            parse(line).unwrap(),
            Entry {
                time: 1_763_900_000_123_456,
                priority: 4,
                upstream: Some("time".into()),
                session: Some("0a1b2c3d".into()),
                request: Some("7".into()),
                message: "retry".into(),
                identifier: Some("foxxy-bridge".into()),
                pid: Some(77),
            }
        );
    }

    #[test]
    fn a_message_that_is_not_text_is_shown_as_far_as_it_is() {
        let line = r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,195,40,27]}"#;
        assert_eq!(parse(line).unwrap().message, "h\u{fffd}(\u{1b}");
    }

    #[test]
    fn a_field_given_twice_counts_once_and_null_is_empty() {
        let line = r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null,"UPSTREAM":["a",[98]],"PRIORITY":"x"}"#;
        let entry = parse(line).unwrap();
        assert_eq!((entry.message.as_str(), entry.upstream.as_deref(), entry.priority), ("", Some("a"), 6));
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        for line in ["", "-- No entries --", "[1]", "{}", r#"{"__REALTIME_TIMESTAMP":"soon"}"#] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "\\PC{0,200}") {
            let _ = parse(&line);
        }
    }
}
