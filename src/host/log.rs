//! Where log lines go: to the journal when standard error is connected to it, else to standard error, for eyes or for a
//! supervisor; and the last ones into memory, for whoever asks the bridge itself.
//!
//! How much is logged is one number for the whole process. It may change at any time; a line that is not wanted costs
//! no more than a look at its place in the code.

pub mod bounded;
mod journal;
pub mod line;
mod queue;
mod stderr;

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use self::queue::Queue;

/// What the bridge calls itself in the journal (`journalctl -t`).
pub const IDENTIFIER: &str = "foxxy-bridge";
/// Lines that are remembered.
const REMEMBERED: usize = 500;
/// Bytes of one line that are remembered.
const LONGEST: usize = 2048;
/// What a child has said, rather than the bridge.
const CHILD: &str = "foxxy_bridge::child";
/// How long the last lines may take to reach the journal or the supervisor.
const FLUSHING: Duration = Duration::from_secs(1);

/// The level in force, as its place in [`Level::ALL`].
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// The way to the journal or to the supervisor, where there is one.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// For whom lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Whoever has standard error: the journal if it is connected to it, else eyes.
    Own,
    /// A supervisor of ours, who reads standard error and keeps a log file.
    Supervisor,
}

/// Lines of this level and of more urgent ones are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What is broken.
    Error,
    /// What may soon be.
    Warning,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
}

impl Level {
    /// The most urgent first.
    const ALL: [Self; 4] = [Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// As syslog(3) writes it, and with it `org.freedesktop.LogControl1`.
    #[must_use]
    pub fn syslog_name(self) -> &'static str {
        match self {
            Self::Error => "err",
            other => other.as_str(),
        }
    }

    /// Its number in syslog(3).
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }

    /// The level that has lines of that number in syslog(3).
    #[must_use]
    pub fn of_priority(priority: u8) -> Self {
        match priority {
            0..=3 => Self::Error,
            4 => Self::Warning,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warning => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Self::Debug,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;

    /// Every name that syslog(3) has.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "emerg" | "alert" | "crit" | "err" | "error" => Ok(Self::Error),
            "warning" | "warn" => Ok(Self::Warning),
            "notice" | "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err(format!("`{name}` is no log level: take error, warning, info or debug")),
        }
    }
}

/// The level in force.
#[must_use]
pub fn level() -> Level {
    let at = usize::from(LEVEL.load(Ordering::Relaxed));
    Level::ALL.get(at).copied().unwrap_or_default()
}

/// Puts another level in force, for every thread and from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    // Each place that logs remembers whether it is wanted.
    tracing::callsite::rebuild_interest_cache();
}

/// Starts logging for this process, for the instance of that name. Later calls change nothing but the level.
pub fn start(instance: &str, level: Level, sink: Sink) -> Recent {
    let recent = Recent::default();
    set_level(level);
    let queue = match sink {
        Sink::Supervisor => stderr::open().ok(),
        Sink::Own if libsystemd::logging::connected_to_journal() => journal::open(instance).ok(),
        Sink::Own => None,
    };
    let terminal = queue.is_none().then(|| {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
    });
    let lines = tracing_subscriber::registry()
        .with(Threshold)
        .with(queue.clone())
        .with(terminal)
        .with(recent.clone());
    // Fails only when logging has been started before.
    if tracing::subscriber::set_global_default(lines).is_ok()
        && let Some(queue) = queue
    {
        // It is empty, as nothing else fills it.
        let _ = QUEUE.set(queue);
    }
    recent
}

/// Where lines go, as `org.freedesktop.LogControl1` has it.
#[must_use]
pub fn target() -> &'static str {
    QUEUE.get().map_or("console", Queue::target)
}

/// Waits until what was logged has reached the journal or the supervisor, but not for long.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSHING);
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Logs a line that an upstream's process has written, at the priority that it begins with (`<3>`, sd-daemon(3)), else
/// as informational.
pub fn said_by(upstream: &str, line: &str) {
    let (priority, text) = prefixed(line);
    match Level::of_priority(priority.unwrap_or(Level::Info.priority())) {
        Level::Error => tracing::error!(target: CHILD, upstream, priority, "{text}"),
        Level::Warning => tracing::warn!(target: CHILD, upstream, priority, "{text}"),
        Level::Info => tracing::info!(target: CHILD, upstream, priority, "{text}"),
        Level::Debug => tracing::debug!(target: CHILD, upstream, priority, "{text}"),
    }
}

/// The priority at the beginning of a line, and the rest of it.
fn prefixed(line: &str) -> (Option<u8>, &str) {
    match line.as_bytes() {
        [b'<', digit @ b'0'..=b'7', b'>', ..] => (Some(digit - b'0'), &line[3..]),
        _ => (None, line),
    }
}

/// Lets through what is of the bridge and of the level in force.
struct Threshold;

impl Threshold {
    fn passes(metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= level().filter() && metadata.target().starts_with("foxxy_bridge")
    }
}

impl<S: Subscriber> Layer<S> for Threshold {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::passes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::passes(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().filter())
    }
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
        if Level::from(*event.metadata().level()) > Level::Info {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line {
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            level: event.metadata().level().as_str(),
            upstream: text.upstream,
            message: shortened(text.message, LONGEST),
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

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.message, "{value:?}");
        }
    }
}

/// At most that many bytes of a text, and a sign where that is not all of it.
fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_syslog_is_a_level_and_each_level_has_its_numbers() {
        let names = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        for (priority, name) in (0..).zip(names) {
            assert_eq!(name.parse(), Ok(Level::of_priority(priority)), "{name}");
        }
        for level in Level::ALL {
            assert_eq!(Level::of_priority(level.priority()), level);
            assert_eq!((level.as_str().parse(), level.syslog_name().parse()), (Ok(level), Ok(level)));
        }
        assert!("loud".parse::<Level>().unwrap_err().contains("error, warning, info or debug"));
    }

    #[test]
    fn a_line_begins_with_its_priority_or_has_none() {
        assert_eq!(prefixed("<3>broken"), (Some(3), "broken"));
        assert_eq!(prefixed("<7>"), (Some(7), ""));
        for line in ["<8>x", "<12>x", "<3x", "3>x", "<é>", "<", "", "x<3>"] {
            assert_eq!(prefixed(line), (None, line));
        }
    }
}
