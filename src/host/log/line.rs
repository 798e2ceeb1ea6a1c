//! One log entry as a log file has it: for `tail` and `grep`, and to be read again without a loss.
//!
//! ```text
//! 2026-11-24T17:20:01.123456Z INFO  foxxy-bridge[4711]: serving http://127.0.0.1:8080/mcp
//! 2026-11-24T17:20:01.123456Z WARN  foxxy-bridge[4711] upstream=time session=0a1b2c3d request=7: slow
//! 2026-11-24T17:20:01.123456Z ERROR foxxy-bridge/time[4711] upstream=time lines=2: Traceback
//!     KeyError: 'zone'
//! ```
//!
//! The words stand for the priorities 3, 4, 6 and 7 of syslog(3); another one is written behind its word, as in
//! `INFO<5>`. What is not plain is written as a JSON string. An entry of several lines says how many they are, so that
//! whoever reads while somebody writes knows when he has it all; those after the first are indented.

use std::fmt;

use super::Level;

/// What the lines of an entry after the first begin with.
pub const INDENT: &str = "    ";
/// What a time looks like: digits are where zeros are.
const TIME: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";

/// One log entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// When, in microseconds since 1970, up to the year 9999.
    pub time: u64,
    /// Its syslog priority: 0 emergency … 7 debug.
    pub priority: u8,
    /// The program that said it.
    pub identifier: String,
    /// The process that wrote it.
    pub pid: u32,
    /// The upstream that it is about.
    pub upstream: Option<String>,
    /// The session that it is about.
    pub session: Option<String>,
    /// The request that it is about, its id as JSON.
    pub request: Option<String>,
    /// The text, of one line or several.
    pub message: String,
}

/// The whole entry, with the newline at its end.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            i64::try_from(self.time).ok().and_then(|time| jiff::Timestamp::from_microsecond(time).ok());
        let level = Level::of_priority(self.priority);
        write!(f, "{:.6} ", time.unwrap_or(jiff::Timestamp::MAX))?;
        if level.priority() == self.priority {
            write!(f, "{:<5} ", word(level))?;
        } else {
            write!(f, "{}<{}> ", word(level), self.priority)?;
        }
        write!(f, "{}[{}]", Value(&self.identifier), self.pid)?;
        let fields = [("upstream", &self.upstream), ("session", &self.session), ("request", &self.request)];
        for (key, value) in fields {
            if let Some(value) = value {
                write!(f, " {key}={}", Value(value))?;
            }
        }
        let mut lines = self.message.split('\n');
        let more = lines.clone().count() - 1;
        if more > 0 {
            write!(f, " lines={}", more + 1)?;
        }
        writeln!(f, ": {}", lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| writeln!(f, "{INDENT}{line}"))
    }
}

/// What a level is called in a log file.
fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warning => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    }
}

/// A value as it is where it is plain, else as a JSON string.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "-_./@+".contains(character)
}

/// The first line of an entry.
#[derive(Debug)]
pub struct Head {
    /// The entry, as far as that line has it.
    pub line: Line,
    /// How many lines the entry has, this one among them.
    pub lines: usize,
}

impl Head {
    /// None when that line, without its newline, is no head.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.split_at_checked(TIME.len())?;
        let mut line = Line { time: parse_time(time)?, ..Line::default() };
        let (level, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
        line.priority = parse_priority(level)?;
        let (identifier, rest) = parse_value(rest.trim_start_matches(' '))?;
        line.identifier = identifier;
        let (pid, mut rest) = rest.strip_prefix('[')?.split_once(']')?;
        line.pid = pid.parse().ok()?;
        let mut lines = 1;
        while let Some(field) = rest.strip_prefix(' ') {
            let (key, after) = field.split_once('=')?;
            let (value, after) = parse_value(after)?;
            match key {
                "upstream" => line.upstream = Some(value),
                "session" => line.session = Some(value),
                "request" => line.request = Some(value),
                "lines" => lines = value.parse().ok()?,
                // A later version may have more of them.
                _ if !key.is_empty() && key.chars().all(is_plain) => {}
                _ => return None,
            }
            rest = after;
        }
        rest.strip_prefix(": ")?.clone_into(&mut line.message);
        Some(Self { line, lines })
    }
}

fn parse_time(text: &str) -> Option<u64> {
    let fits = |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
    if !text.bytes().zip(TIME).all(fits) {
        return None;
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok()
}

fn parse_priority(text: &str) -> Option<u8> {
    let (name, exact) = match text.split_once('<') {
        Some((name, exact)) => (name, Some(exact.strip_suffix('>')?.parse().ok()?)),
        None => (text, None),
    };
    let level = Level::ALL.into_iter().find(|level| word(*level) == name)?;
    match exact {
        None => Some(level.priority()),
        Some(exact) => (Level::of_priority(exact) == level).then_some(exact),
    }
}

/// A value at the beginning of a text, and what is after it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        let (value, rest) = text.split_at(text.find(|at| !is_plain(at))?);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

/// What a log has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An entry.
    Entry(Line),
    /// A line of no entry.
    Stray(String),
}

/// Puts the lines of a log together to entries.
#[derive(Debug, Default)]
pub struct Parser {
    /// An entry that lacks that many lines.
    open: Option<(Line, usize)>,
}

impl Parser {
    /// Takes the next line, without its newline, and gives what has become whole with it.
    pub fn take(&mut self, text: &str) -> impl Iterator<Item = Piece> + use<> {
        if let (Some((line, missing)), Some(more)) = (&mut self.open, text.strip_prefix(INDENT)) {
            line.message.push('\n');
            line.message.push_str(more);
            *missing -= 1;
            let whole = *missing == 0;
            return whole.then(|| self.end()).flatten().map(Piece::Entry).into_iter().chain(None);
        }
        // One that was cut short is as whole as it will ever be.
        let before = self.end().map(Piece::Entry);
        let piece = match Head::parse(text) {
            Some(Head { line, lines: 0 | 1 }) => Some(Piece::Entry(line)),
            Some(Head { line, lines }) => {
                self.open = Some((line, lines - 1));
                None
            }
            None => Some(Piece::Stray(text.to_owned())),
        };
        before.into_iter().chain(piece)
    }

    /// Whether an entry lacks lines.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The entry that lacks lines, as far as it has come.
    pub fn end(&mut self) -> Option<Line> {
        self.open.take().map(|(line, _)| line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> Line {
        Line {
            time: 1_795_540_801_123_456,
            priority: 6,
            identifier: "foxxy-bridge".into(),
            pid: 4711,
            message: "serving http://127.0.0.1:8080/mcp (config: built in)".into(),
            ..Line::default()
        }
    }

    fn pieces(text: &str) -> Vec<Piece> {
        let mut parser = Parser::default();
        let mut pieces: Vec<_> = text.split_terminator('\n').flat_map(|line| parser.take(line)).collect();
        pieces.extend(parser.end().map(Piece::Entry));
        pieces
    }

    #[test]
    fn an_entry_is_for_eyes_and_for_grep() {
        let about = Line {
            priority: 4,
            upstream: Some("time".into()),
            session: Some("0a1b2c3d".into()),
            request: Some("7".into()),
            message: "slow".into(),
            ..line()
        };
        let said = Line {
            priority: 3,
            identifier: "foxxy-bridge/time".into(),
            upstream: Some("time".into()),
            message: "what the server\nwrote\n".into(),
            ..line()
        };
        let odd = Line {
            priority: 5,
            upstream: Some("my time".into()),
            request: Some("\"a\"".into()),
            message: String::new(),
            ..line()
        };
        let debug = Line { priority: 7, upstream: Some(String::new()), message: "debug".into(), ..line() };
        let all = [line(), about, said, odd, debug];
        let text: String = all.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(text.replace(' ', "·"), @r#"
        2026-11-24T17:20:01.123456Z·INFO··foxxy-bridge[4711]:·serving·http://127.0.0.1:8080/mcp·(config:·built·in)
        2026-11-24T17:20:01.123456Z·WARN··foxxy-bridge[4711]·upstream=time·session=0a1b2c3d·request=7:·slow
        2026-11-24T17:20:01.123456Z·ERROR·foxxy-bridge/time[4711]·upstream=time·lines=3:·what·the·server
        ····wrote
        ····
        2026-11-24T17:20:01.123456Z·INFO<5>·foxxy-bridge[4711]·upstream="my·time"·request="\"a\"":·
        2026-11-24T17:20:01.123456Z·DEBUG·foxxy-bridge[4711]·upstream="":·debug
        "#);
        assert_eq!(pieces(&text), all.map(Piece::Entry));
    }

    #[test]
    fn what_is_no_entry_is_a_line_by_itself() {
        let entry = line().to_string();
        let head = entry.trim_end();
        for stray in [
            "",
            "error: no config",
            "    at src/main.rs:1",
            &head.replace("INFO ", "LOUD "),
            &head.replace("INFO ", "INFO<3>"),
            &head.replace("2026", "2O26"),
            &head.replace("-24T", "-32T"),
            &head.replace("[4711]", "[4711"),
            &head.replace("[4711]", "[x]"),
            &head.replace("]: ", "] : "),
            &head.replace("]: ", "] upstream=\"a: "),
            &head[..30],
        ] {
            assert_eq!(
                pieces(stray),
                if stray.is_empty() { vec![] } else { vec![Piece::Stray(stray.into())] }
            );
        }
        let later = head.replace("]: ", "] colour=red upstream=time: ");
        assert_eq!(pieces(&later), [Piece::Entry(Line { upstream: Some("time".into()), ..line() })]);
    }

    #[test]
    fn an_entry_that_is_cut_short_ends_where_the_next_one_begins() {
        let long = Line { message: "one\ntwo\nthree".into(), ..line() };
        let text = long.to_string().replace("    three\n", &line().to_string());
        let short = Line { message: "one\ntwo".into(), ..line() };
        assert_eq!(pieces(&text), [Piece::Entry(short), Piece::Entry(line())]);
        let mut parser = Parser::default();
        assert_eq!(parser.take(text.lines().next().unwrap()).count(), 0);
        assert!(parser.is_open());
    }

    prop_compose! {
        fn any_line()(
            time in 0..=253_402_207_200_999_999_u64,
            priority: u8,
            identifier in ".*|[a-z/-]{1,9}",
            pid: u32,
            upstream in proptest::option::of("(?s).*|[a-z]{1,9}"),
            session in proptest::option::of("(?s).*"),
            request in proptest::option::of("[0-9]+|\"[a-z]*\"|(?s).*"),
            message in "(?s).*|( *[a-z\r]*\n){0,5}",
        ) -> Line {
            Line { time, priority, identifier, pid, upstream, session, request, message }
        }
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(lines in proptest::collection::vec(any_line(), 1..4)) {
            let text: String = lines.iter().map(ToString::to_string).collect();
            prop_assert!(text.ends_with('\n'));
            prop_assert_eq!(pieces(&text), lines.into_iter().map(Piece::Entry).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).*", head in any_line(), at in 0_usize..200) {
            let _ = pieces(&text);
            let mut head = head.to_string();
            let at = (0..=at.min(head.len())).rev().find(|at| head.is_char_boundary(*at)).unwrap();
            head.insert_str(at, &text);
            let _ = pieces(&head);
            let _ = pieces(&head[..at]);
        }
    }
}
