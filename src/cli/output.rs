//! Printing: results to standard output, the rest to standard error, colour where it is wanted.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::exit;

use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::error::Error;

/// What is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What could be better.
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// What is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// What the eye should find first.
pub(crate) const STRONG: Style = Style::new().bold();

/// Decides for the whole program whether it prints in colour.
pub(crate) fn set_color(wanted: ColorChoice) {
    match wanted {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Prints a line of the result.
pub(crate) fn say(line: impl AsRef<str>) {
    if let Err(error) = writeln!(anstream::stdout(), "{}", line.as_ref()) {
        // Whoever reads has had enough, as `head` does: that is no failure.
        exit(i32::from(error.kind() != io::ErrorKind::BrokenPipe));
    }
}

/// Prints a line beside the result.
pub(crate) fn note(line: impl AsRef<str>) {
    // Where nobody can be told, there is nobody to tell that.
    let _ = writeln!(anstream::stderr(), "{}", line.as_ref());
}

/// Prints something that could be better.
pub(crate) fn warn(line: impl AsRef<str>) {
    note(format!("{DOUBTFUL}warning:{DOUBTFUL:#} {}", line.as_ref()));
}

/// Prints why a command failed.
pub(crate) fn complain(error: &Error) {
    note(format!("{BAD}error:{BAD:#} {}", error.what));
    for why in &error.why {
        note(format!("  {why}"));
    }
    if let Some(hint) = &error.hint {
        note(format!("{GOOD}hint:{GOOD:#} {hint}"));
    }
}

/// Waits until nobody reads standard output any more, as when `head` has had enough; for ever where that does not show.
pub(crate) async fn reader_gone() {
    let (tell, told) = oneshot::channel();
    let watch = move || {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                Ok(_) if polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                    // Whoever waited may have ended.
                    let _ = tell.send(());
                    return;
                }
                _ => return,
            }
        }
    };
    // The thread ends with the process: nothing else would wake it.
    let watching = std::thread::Builder::new().name("reader".to_owned()).spawn(watch);
    if watching.is_err() || told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Text from elsewhere, without what would steer the terminal.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() && character != '\t' { '\u{fffd}' } else { character })
        .collect()
}

/// Empties the terminal's screen.
pub(crate) fn clear_screen() {
    // Not by `say`, which drops escape sequences where colour is not wanted.
    let _ = io::stdout().write_all(b"\x1b[H\x1b[2J\x1b[3J").and_then(|()| io::stdout().flush());
}

/// Prints a value as JSON.
pub(crate) fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(text),
        Err(error) => note(format!("{BAD}error:{BAD:#} the result is no JSON: {error}")),
    }
}

/// Whether a person sees the result at once.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A path as a person writes it, with `~` for home.
pub(crate) fn short_path(path: &Path) -> String {
    let home = std::env::home_dir().filter(|home| home.as_os_str().len() > 1);
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+@%:,".contains(character);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// A time span in its two largest units.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A time span in microseconds, with hundredths while it is short.
pub(crate) fn short_span(micros: u64) -> String {
    match micros / 1_000_000 {
        seconds @ 0..60 => format!("{seconds}.{:02}s", micros / 10_000 % 100),
        seconds => span(seconds),
    }
}

/// An amount of memory, in powers of 1024 as the config has them.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut unit, mut whole, mut rest) = ("", bytes, 0);
    for larger in ["K", "M", "G", "T"] {
        if whole < 1024 {
            break;
        }
        (unit, rest, whole) = (larger, whole % 1024, whole / 1024);
    }
    if unit.is_empty() { format!("{whole}") } else { format!("{whole}.{}{unit}", rest * 10 / 1024) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_spans_and_amounts_are_cut_not_rounded_up() {
        let spans = [0, 9_999, 1_239_999, 59_999_999, 60_000_000].map(short_span);
        assert_eq!(spans, ["0.00s", "0.00s", "1.23s", "59.99s", "1m 0s"]);
        let amounts = [0, 1023, 1024, 1536, (1 << 20) - 1, 50 << 20, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(amounts, ["0", "1023", "1.0K", "1.5K", "1023.9K", "50.0M", "3.0G", "16777215.9T"]);
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        let spans = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 900_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "10d 10h"]);
    }
}
