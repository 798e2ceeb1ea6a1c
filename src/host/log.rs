//! Where log lines go: to the journal when standard error is connected to it, else to standard error; and the last
//! ones into memory, for whoever asks the bridge itself.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Lines that are remembered.
const REMEMBERED: usize = 500;
/// Bytes of one line that are remembered.
const LONGEST: usize = 2048;

/// Which lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What an operator wants to know.
    Normal,
    /// What a developer wants to know.
    Debug,
}

/// Starts logging for this process, for the instance of that name. Later calls change nothing.
pub fn start(instance: &str, detail: Detail) -> Recent {
    let recent = Recent::default();
    let level = match detail {
        Detail::Normal => LevelFilter::INFO,
        Detail::Debug => LevelFilter::DEBUG,
    };
    let ours =
        tracing_subscriber::filter::filter_fn(|metadata| metadata.target().starts_with("foxxy_bridge"));
    let journal = libsystemd::logging::connected_to_journal().then(|| journal(instance)).flatten();
    let terminal = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
    });
    let lines = tracing_subscriber::registry()
        .with(level)
        .with(journal.with_filter(ours.clone()))
        .with(terminal.with_filter(ours.clone()))
        .with(recent.clone().with_filter(ours));
    // Fails only when logging has been started before.
    let _ = tracing::subscriber::set_global_default(lines);
    recent
}

fn journal(instance: &str) -> Option<tracing_journald::Layer> {
    let mappings = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer().ok()?;
    Some(
        layer
            .with_field_prefix(None)
            .with_syslog_identifier("foxxy-bridge".to_owned())
            .with_priority_mappings(mappings)
            .with_custom_fields([("INSTANCE", instance)]),
    )
}

/// One remembered line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// When, RFC 3339.
    pub time: String,
    /// ERROR, WARN, INFO, DEBUG.
    pub level: &'static str,
    /// The upstream that it is about, or that wrote it.
    pub upstream: Option<String>,
    /// What it says.
    pub message: String,
}

/// The last lines.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Line>>>);

impl Recent {
    /// The last `count` lines, oldest first; of one upstream when it is named.
    #[must_use]
    pub fn last(&self, count: usize, upstream: Option<&str>) -> Vec<Line> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            lines.iter().rev().filter(|line| upstream.is_none() || line.upstream.as_deref() == upstream);
        let mut found: Vec<Line> = wanted.take(count).cloned().collect();
        found.reverse();
        found
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line {
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            level: event.metadata().level().as_str(),
            upstream: text.upstream,
            message: shortened(text.message),
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == REMEMBERED {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[derive(Default)]
struct Text {
    upstream: Option<String>,
    message: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "upstream" => self.upstream = Some(value.to_owned()),
            "message" => self.message.push_str(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.message, "{value:?}");
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}
