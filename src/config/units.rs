//! Sizes, shares and durations as a person writes them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: `1048576`, or `512K`, `10M`, `2G`, `1T` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share in hundredths of a percent: `50%` is 5000, `150%` is 15000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

/// A limit on memory: a size, a share of the machine's memory, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes.
    Size(Size),
    /// So much of the machine's memory, at most 100 %.
    Share(Share),
    /// `infinity`
    Infinity,
}

/// How much CPU time at most: a share of one CPU, so that `200%` is two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuQuota(pub Share);

impl CpuQuota {
    /// CPU time in microseconds that each second allows.
    pub fn micros_per_second(self) -> u64 {
        u64::from(self.0.0) * 100
    }
}

/// The text is none of what the type takes.
#[derive(Debug, thiserror::Error)]
#[error("expected {0}")]
pub struct NotAUnit(&'static str);

const SIZE: &str = "a size such as 512M, or bytes";
const SHARE: &str = "a percentage such as 50%";
const MEMORY: &str = "a size such as 512M, bytes, a percentage such as 50%, or infinity";
const CPU: &str = "a percentage of one CPU such as 150%";

impl FromStr for Size {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let power = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 1,
            "M" | "MB" | "MIB" => 2,
            "G" | "GB" | "GIB" => 3,
            "T" | "TB" | "TIB" => 4,
            _ => return Err(NotAUnit(SIZE)),
        };
        let bytes = unsigned(digits).and_then(|number| number.checked_mul(1 << (10 * power)));
        bytes.map(Size).ok_or(NotAUnit(SIZE))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0;
        let mut unit = "";
        for larger in ["K", "M", "G", "T"] {
            if number == 0 || !number.is_multiple_of(1024) {
                break;
            }
            number /= 1024;
            unit = larger;
        }
        write!(f, "{number}{unit}")
    }
}

impl FromStr for Share {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let share = || {
            let (whole, hundredths) = match text.strip_suffix('%')?.split_once('.') {
                Some((whole, fraction)) if fraction.len() == 1 => (whole, unsigned(fraction)? * 10),
                Some((whole, fraction)) if fraction.len() == 2 => (whole, unsigned(fraction)?),
                Some(_) => return None,
                None => (text.strip_suffix('%')?, 0),
            };
            u32::try_from(unsigned(whole)?.checked_mul(100)?.checked_add(hundredths)?).ok()
        };
        share().map(Share).ok_or(NotAUnit(SHARE))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        if text.eq_ignore_ascii_case("infinity") {
            return Ok(Self::Infinity);
        }
        match text.parse::<Share>() {
            Ok(share) if share.0 <= 10_000 => Ok(Self::Share(share)),
            Ok(_) => Err(NotAUnit(MEMORY)),
            Err(_) => text.parse().map(Self::Size).map_err(|_| NotAUnit(MEMORY)),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => size.fmt(f),
            Self::Share(share) => share.fmt(f),
            Self::Infinity => f.write_str("infinity"),
        }
    }
}

impl FromStr for CpuQuota {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        match text.parse::<Share>() {
            Ok(share) if share.0 > 0 => Ok(Self(share)),
            _ => Err(NotAUnit(CPU)),
        }
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `str::parse` takes a leading `+`, which no unit of ours has.
fn unsigned(digits: &str) -> Option<u64> {
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

/// What the `format` keyword of a schema asks of a string: an error says what was expected.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), NotAUnit> {
    match format {
        "size" => text.parse::<Size>().map(drop),
        "memory-limit" => text.parse::<MemoryLimit>().map(drop),
        "cpu-quota" => text.parse::<CpuQuota>().map(drop),
        _ => Ok(()),
    }
}

/// What to call a value of this `format` in "expected …".
pub(crate) fn format_name(format: &str) -> Option<&'static str> {
    match format {
        "size" => Some(SIZE),
        "memory-limit" => Some(MEMORY),
        "cpu-quota" => Some(CPU),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

macro_rules! unit {
    ($unit:ident, $format:literal, $types:tt, $pattern:literal, $number:expr) => {
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Written::deserialize(deserializer)? {
                    Written::Number(number) => $number(number).map_err(de::Error::custom),
                    Written::Text(text) => text.parse().map_err(de::Error::custom),
                }
            }
        }

        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $unit {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($unit).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $types, "format": $format, "pattern": $pattern, "minimum": 0 })
            }
        }
    };
}

unit!(Size, "size", ["integer", "string"], "^[0-9]+([KMGTkmgt]([iI]?[bB])?|[bB])?$", |n| Ok::<_, NotAUnit>(
    Size(n)
));
unit!(
    MemoryLimit,
    "memory-limit",
    ["integer", "string"],
    "^([0-9]+([KMGTkmgt]([iI]?[bB])?|[bB])?|[0-9]+(\\.[0-9]{1,2})?%|infinity)$",
    |n| Ok::<_, NotAUnit>(MemoryLimit::Size(Size(n)))
);
unit!(CpuQuota, "cpu-quota", "string", "^[0-9]+(\\.[0-9]{1,2})?%$", |_| Err(NotAUnit(CPU)));

/// Durations written as seconds, whole or with a fraction.
pub(crate) mod seconds {
    use super::{Deserialize, Deserializer, Serializer, de};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match duration.subsec_nanos() {
            0 => serializer.serialize_u64(duration.as_secs()),
            _ => serializer.serialize_f64(duration.as_secs_f64()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Durations written as whole milliseconds.
pub(crate) mod millis {
    use super::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(duration.as_millis())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("10M", 10 << 20, "10M"),
            ("512k", 512 << 10, "512K"),
            ("1024K", 1 << 20, "1M"),
            ("2GiB", 2 << 30, "2G"),
            ("3 T", 0, ""),
            ("1.5G", 0, ""),
            ("-1", 0, ""),
            ("+1", 0, ""),
            ("M", 0, ""),
            ("99999999999T", 0, ""),
            ("10X", 0, ""),
        ] {
            match text.parse::<Size>() {
                Ok(size) => assert_eq!((size.0, size.to_string().as_str()), (bytes, written), "{text}"),
                Err(_) => assert_eq!(written, "", "{text} was refused"),
            }
        }
    }

    #[test]
    fn shares_are_read_to_hundredths_of_a_percent() {
        for (text, share) in [
            ("50%", Some(5000)),
            ("0.5%", Some(50)),
            ("12.34%", Some(1234)),
            ("150%", Some(15000)),
            ("50", None),
        ] {
            assert_eq!(text.parse::<Share>().ok().map(|share| share.0), share, "{text}");
        }
        for wrong in ["%", ".5%", "1.%", "1.234%", "-1%", "99999999999%", "1.+1%"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert_eq!(Share(1234).to_string(), "12.34%");
        assert_eq!(Share(15000).to_string(), "150%");
    }

    #[test]
    fn a_memory_share_beyond_the_machine_and_no_cpu_at_all_are_refused() {
        assert!("101%".parse::<MemoryLimit>().is_err());
        assert_eq!("infinity".parse::<MemoryLimit>().unwrap(), MemoryLimit::Infinity);
        assert!("0%".parse::<CpuQuota>().is_err());
        assert_eq!("150%".parse::<CpuQuota>().unwrap().micros_per_second(), 1_500_000);
    }
}
