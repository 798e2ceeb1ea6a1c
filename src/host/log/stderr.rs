//! Standard error as a destination of lines: read by a supervisor of ours, who keeps a log file.

use std::io::{self, Write};

use super::line::Line;
use super::queue::{Destination, Queue, Record};

/// The way to whoever reads this process's standard error.
pub(super) fn open() -> io::Result<Queue> {
    Queue::start("log", Stderr { to: io::stderr(), is_torn: false })
}

struct Stderr<W> {
    to: W,
    /// Whether the last line may have been written only in part.
    is_torn: bool,
}

impl<W: Write + Send + 'static> Destination for Stderr<W> {
    const TARGET: &str = "console";
    const LOSS: &str = "the supervisor did not take them";

    fn take(&mut self, record: &Record) -> bool {
        let field = |name| record.texts.get(name).cloned();
        let line = Line {
            time: record.time,
            priority: record.priority,
            identifier: record.identifier.clone(),
            pid: std::process::id(),
            upstream: field("upstream"),
            session: field("session"),
            request: field("request_id"),
            message: field("message").unwrap_or_default(),
        };
        let apart = if self.is_torn { "\n" } else { "" };
        // All at once: what the process says elsewhere, as in a panic, comes before or after it.
        let outcome = self.to.write_all(format!("{apart}{line}").as_bytes());
        self.is_torn = outcome.is_err();
        outcome.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::{Duration, Instant};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::line::Head;
    use super::super::{CHILD, now};
    use super::*;

    /// Does that while what is logged goes to a pipe, and gives its other end.
    fn logging(what: impl FnOnce(&Queue)) -> BufReader<io::PipeReader> {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Queue::start("log", Stderr { to: writer, is_torn: false }).unwrap();
        let subscriber = tracing_subscriber::registry().with(queue.clone());
        tracing::subscriber::with_default(subscriber, || what(&queue));
        BufReader::new(reader)
    }

    fn next(reader: &mut BufReader<io::PipeReader>) -> Line {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        Head::parse(text.trim_end_matches('\n')).unwrap_or_else(|| panic!("no head: {text}")).line
    }

    #[test]
    fn a_line_has_what_the_event_has_and_the_time_of_it() {
        let before = now();
        let mut reader = logging(|queue| {
            tracing::warn!(upstream = "time", session = "abc", request_id = "7", id = 5_u64, "slow: {}", 1);
            tracing::info!(target: CHILD, upstream = "time", priority = Some(5_u8), "hello");
            queue.flush(Duration::from_secs(5));
        });
        let after = now();
        let line = next(&mut reader);
        assert!((before..=after).contains(&line.time), "{before} {line:?} {after}");
        let expected = Line {
            time: line.time,
            priority: 4,
            identifier: "foxxy-bridge".into(),
            pid: std::process::id(),
            upstream: Some("time".into()),
            session: Some("abc".into()),
            request: Some("7".into()),
            message: "slow: 1".into(),
        };
        assert_eq!(line, expected);
        let said = next(&mut reader);
        assert_eq!((said.priority, said.identifier.as_str()), (5, "foxxy-bridge/time"));
    }

    #[test]
    fn a_stuck_supervisor_holds_nobody_up_and_the_time_is_not_that_of_the_writing() {
        let text = "x".repeat(1000);
        let began = Instant::now();
        let mut reader = logging(|queue| {
            (0..3000).for_each(|number| tracing::info!("{number} {text}"));
            assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
            queue.flush(Duration::from_millis(100));
        });
        let stuck_until = now();
        let mut heard = Vec::new();
        let missing = loop {
            let line = next(&mut reader);
            match line
                .message
                .strip_suffix(" lines before this one are missing: the supervisor did not take them")
            {
                Some(missing) => break missing.parse::<usize>().unwrap(),
                None => heard.push(line),
            }
        };
        assert!(heard.len() > 900 && missing > 0, "{} {missing}", heard.len());
        assert_eq!(heard.len() + missing, 3000);
        assert!(heard.iter().all(|line| line.time < stuck_until));
        let numbers: Vec<u32> = heard
            .iter()
            .map(|line| line.message.split(' ').next().and_then(|number| number.parse().ok()).unwrap())
            .collect();
        assert!(numbers.is_sorted());
    }
}
