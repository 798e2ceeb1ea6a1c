//! The times that `journalctl --since` takes (systemd.time(7)), as the options are the same.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, Zoned};

use crate::manager::Error;

/// The units of a span of time, each in microseconds.
const UNITS: [(&[&str], f64); 9] = [
    (&["usec", "us", "µs", "μs"], 1.0),
    (&["msec", "ms"], 1e3),
    (&["seconds", "second", "sec", "s", ""], 1e6),
    (&["minutes", "minute", "min", "m"], 60e6),
    (&["hours", "hour", "hr", "h"], 3600e6),
    (&["days", "day", "d"], 86_400e6),
    (&["weeks", "week", "w"], 604_800e6),
    // What systemd takes for a month and a year.
    (&["months", "month", "M"], 2_629_800e6),
    (&["years", "year", "y"], 31_557_600e6),
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// That time in microseconds since 1970, when it is `now`, in the zone that is meant where none is named.
///
/// # Errors
/// [`Error::BadTime`] for what is no time.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<u64, Error> {
    moment(text.trim(), now)
        .map(|micros| u64::try_from(micros).unwrap_or_default())
        .ok_or_else(|| Error::BadTime { detail: format!("`{text}` is not a time") })
}

fn moment(text: &str, now: &Zoned) -> Option<i64> {
    let instant = now.timestamp().as_microsecond();
    if text == "now" {
        return Some(instant);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return scaled(seconds, 1e6);
    }
    if let Some(ahead) = text.strip_prefix('+').or_else(|| text.strip_suffix(" left")) {
        return instant.checked_add(span(ahead)?);
    }
    if let Some(ago) = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")) {
        return instant.checked_sub(span(ago)?);
    }
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Some(exact.as_microsecond());
    }
    let (text, zone) = zone(text, now);
    let there = now.with_time_zone(zone.clone());
    let civil = civil(text, there.date())?;
    Some(zone.to_zoned(civil).ok()?.timestamp().as_microsecond())
}

/// The zone that a time names at its end, else the one that it is meant in, and the time without it.
fn zone<'a>(text: &'a str, now: &Zoned) -> (&'a str, TimeZone) {
    let named = || {
        let (time, name) = text.rsplit_once(' ')?;
        if matches!(name, "UTC" | "Z") {
            return Some((time, TimeZone::UTC));
        }
        if name.starts_with(['+', '-']) {
            return Some((time, TimeZone::fixed(offset(name)?)));
        }
        // A time is no name, and must not be looked for.
        name.starts_with(|first: char| first.is_ascii_uppercase()).then_some(())?;
        Some((time, TimeZone::get(name).ok()?))
    };
    named().unwrap_or_else(|| (text, now.time_zone().clone()))
}

/// `+02`, `+0200`, `+02:00`
fn offset(text: &str) -> Option<Offset> {
    let digits = text[1..].replace(':', "");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    let seconds = hours * 3600 + minutes * 60;
    Offset::from_seconds(if text.starts_with('-') { -seconds } else { seconds }).ok()
}

fn civil(text: &str, today: Date) -> Option<DateTime> {
    let midnight = Time::midnight();
    match text {
        "today" => return Some(today.to_datetime(midnight)),
        "yesterday" => return Some(today.checked_sub(Span::new().days(1)).ok()?.to_datetime(midnight)),
        "tomorrow" => return Some(today.checked_add(Span::new().days(1)).ok()?.to_datetime(midnight)),
        _ => {}
    }
    let (weekday, text) = match text.split_once(' ') {
        Some((day, rest)) if day.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            (Some(weekday(day)?), rest.trim_start())
        }
        _ => (None, text),
    };
    let civil = match text.split_once([' ', 'T']) {
        Some((day, clock)) => date(day)?.to_datetime(time(clock.trim_start())?),
        None if text.contains(':') => today.to_datetime(time(text)?),
        None => date(text)?.to_datetime(midnight),
    };
    weekday.is_none_or(|day| civil.weekday().to_monday_zero_offset() == day).then_some(civil)
}

/// Its number, from Monday on.
fn weekday(name: &str) -> Option<i8> {
    let name = name.trim_end_matches(',').to_ascii_lowercase();
    let at = WEEKDAYS.iter().position(|day| *day == name || day[..3] == name)?;
    i8::try_from(at).ok()
}

/// `2026-01-31`, `26-01-31`
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let year = parts.next()?;
    let number: i16 = digits(year)?;
    let year = match (year.len(), number) {
        (4, _) => number,
        (2, 69..) => 1900 + number,
        (2, _) => 2000 + number,
        _ => return None,
    };
    let date = Date::new(year, digits(parts.next()?)?, digits(parts.next()?)?).ok()?;
    parts.next().is_none().then_some(date)
}

/// `12:00`, `12:00:00`, `12:00:00.123456`
fn time(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let (hour, minute) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let (second, nanos) = match parts.next() {
        None => (0, 0),
        Some(text) => {
            let (second, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let micros: i32 = digits(&format!("{fraction:0<6.6}"))?;
            (digits(second)?, micros * 1000)
        }
    };
    let time = Time::new(hour, minute, second, nanos).ok()?;
    parts.next().is_none().then_some(time)
}

/// A number without a sign.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `1h 30min`, `5`, `1.5 days`, in microseconds.
fn span(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut micros = 0_i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|at| !is_number(at)).unwrap_or(rest.len()));
        let after = after.trim_start();
        let (unit, after) =
            after.split_at(after.find(|at: char| at == ' ' || is_number(at)).unwrap_or(after.len()));
        let (_, scale) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        micros = micros.checked_add(scaled(number, *scale)?)?;
        rest = after.trim_start();
    }
    Some(micros)
}

fn is_number(character: char) -> bool {
    character.is_ascii_digit() || character == '.'
}

/// A number of such units, in microseconds.
fn scaled(number: &str, scale: f64) -> Option<i64> {
    if number.is_empty() || !number.chars().all(is_number) {
        return None;
    }
    let micros = (number.parse::<f64>().ok()? * scale).round();
    // Some ten thousand years.
    if micros > 4e17 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and not too large")]
    Some(micros as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the clock says, in a zone that has a summer time.
    fn now() -> Zoned {
        "2026-11-24T17:20:01.5+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn read(text: &str) -> String {
        match parse(text, &now()) {
            Ok(micros) => Timestamp::from_microsecond(micros.try_into().unwrap()).unwrap().to_string(),
            Err(error) => error.why().unwrap(),
        }
    }

    #[test]
    fn times_are_those_of_journalctl() {
        for (text, time) in [
            ("now", "2026-11-24T16:20:01.5Z"),
            ("today", "2026-11-23T23:00:00Z"),
            ("yesterday", "2026-11-22T23:00:00Z"),
            ("tomorrow", "2026-11-24T23:00:00Z"),
            ("today UTC", "2026-11-24T00:00:00Z"),
            ("2026-01-31 12:00", "2026-01-31T11:00:00Z"),
            ("2026-07-31 12:00", "2026-07-31T10:00:00Z"),
            (" 2026-01-31  12:00:05 ", "2026-01-31T11:00:05Z"),
            ("2026-01-31 12:00:05.25", "2026-01-31T11:00:05.25Z"),
            ("2026-01-31T12:00:05", "2026-01-31T11:00:05Z"),
            ("2026-01-31", "2026-01-30T23:00:00Z"),
            ("26-1-31", "2026-01-30T23:00:00Z"),
            ("Sat 2026-01-31", "2026-01-30T23:00:00Z"),
            ("Saturday 2026-01-31 12:00:00 CET", "2026-01-31T11:00:00Z"),
            ("12:00", "2026-11-24T11:00:00Z"),
            ("12:00:01.000001", "2026-11-24T11:00:01.000001Z"),
            ("12:00 UTC", "2026-11-24T12:00:00Z"),
            ("2026-01-31 12:00 UTC", "2026-01-31T12:00:00Z"),
            ("2026-01-31 12:00:00 Asia/Tokyo", "2026-01-31T03:00:00Z"),
            ("2026-01-31 12:00 +02:00", "2026-01-31T10:00:00Z"),
            ("2026-01-31 12:00 -0330", "2026-01-31T15:30:00Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.5Z"),
            // There is no half past two when summer time begins.
            ("2026-03-29 02:30", "2026-03-29T01:30:00Z"),
            ("-1h", "2026-11-24T15:20:01.5Z"),
            ("+5min", "2026-11-24T16:25:01.5Z"),
            ("-5", "2026-11-24T16:19:56.5Z"),
            ("10 min ago", "2026-11-24T16:10:01.5Z"),
            ("1h 30min ago", "2026-11-24T14:50:01.5Z"),
            ("1h30min ago", "2026-11-24T14:50:01.5Z"),
            ("1.5 days ago", "2026-11-23T04:20:01.5Z"),
            ("500ms ago", "2026-11-24T16:20:01Z"),
            ("1 month ago", "2026-10-25T05:50:01.5Z"),
            ("1M ago", "2026-10-25T05:50:01.5Z"),
            ("2 weeks left", "2026-12-08T16:20:01.5Z"),
            ("@1763900000", "2025-11-23T12:13:20Z"),
            ("@1763900000.25", "2025-11-23T12:13:20.25Z"),
            ("100 years ago", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(text), time, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in [
            "",
            " ",
            "soon",
            "ago",
            " ago",
            "-",
            "+",
            "@",
            "@x",
            "5 parsecs ago",
            "1h ago ago",
            "--1h",
            "12",
            "12:",
            "25:00",
            "12:60",
            "12:00:00:00",
            "2026-13-01",
            "2026-02-30",
            "2026-01-31 noon",
            "2026-01-31-01",
            "Sun 2026-01-31",
            "Xxx 2026-01-31",
            "2026-01-31 12:00 Mars/Base",
            "2026-01-31 12:00 +1",
            "1..5h ago",
            "99999999999 years ago",
            "+-1h",
            "2026-01-31 12:00:0x",
        ] {
            assert_eq!(read(text), format!("`{text}` is not a time"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,30}|[-+@0-9:. TZhmin]{0,20}") {
            let _ = parse(&text, &now());
        }
    }
}
