//! Times and sizes as people write them: `50us`, `500ms`, `30s`, `5m`, `64KiB`, `1GiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::TIMEOUT_MAX;

/// A length of time. A plain `0` is allowed, and means "never" for a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// Unit names and their worth, largest first, so that the first that divides a value is the one to print it in.
const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const TIME_HELP: &str = "expected a number with a unit of us, ms, s, m, h or d, such as 30s, or 0 for never";
const SIZE_HELP: &str = "expected a number of bytes, or one with a unit of B, KiB, MiB or GiB, such as 64MiB";

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (number, unit) = split(text);
        if (number, unit) == ("0", "") {
            return Ok(Span(Duration::ZERO));
        }
        let micros = value(number, unit, &TIMES).ok_or_else(|| TIME_HELP.to_string())?;
        let time = Duration::from_micros(micros);
        if time > TIMEOUT_MAX {
            return Err(format!("at most {}", Span(TIMEOUT_MAX)));
        }
        Ok(Span(time))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, unit) = split(text);
        let unit = if unit.is_empty() { "B" } else { unit };
        let bytes = value(number, unit, &SIZES).and_then(|bytes| usize::try_from(bytes).ok());
        bytes.map(Size).ok_or_else(|| SIZE_HELP.to_string())
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn value(number: &str, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, worth) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*worth)
}

fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    match units.iter().find(|(_, worth)| value != 0 && value.is_multiple_of(*worth)) {
        Some((name, worth)) => write!(f, "{}{name}", value / worth),
        None => write!(f, "{value}"),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0.as_micros() as u64, &TIMES)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0 as u64, &SIZES)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        parse_text_or_number(deserializer)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        parse_text_or_number(deserializer)
    }
}

/// In a file a value may be a bare number where a flag's text would be.
fn parse_text_or_number<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text such as \"30s\" or \"64MiB\", or a number")]
    enum Value {
        Text(String),
        Number(u64),
    }
    let text = match Value::deserialize(deserializer)? {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
    };
    text.parse().map_err(|error| serde::de::Error::custom(format!("invalid value '{text}': {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_and_written_alike() {
        for (text, micros) in [
            ("0", 0),
            ("50us", 50),
            ("1ms", 1000),
            ("1500ms", 1_500_000),
            ("30s", 30_000_000),
            ("5m", 300_000_000),
            ("2h", 7_200_000_000),
            ("30d", 2_592_000_000_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_micros(), span.to_string()), (micros, text.to_string()));
        }
        for (text, bytes) in
            [("0", 0), ("1B", 1), ("1000B", 1000), ("4KiB", 4096), ("64MiB", 64 << 20), ("1GiB", 1 << 30)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string()), (bytes, text.to_string()));
        }
        assert_eq!("4096".parse::<Size>().unwrap().to_string(), "4KiB");
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is() {
        for text in ["", "s", "5", "5x", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(text.parse::<Span>().unwrap_err(), TIME_HELP, "{text:?}");
        }
        for text in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(text.parse::<Size>().unwrap_err(), SIZE_HELP, "{text:?}");
        }
    }

    #[test]
    fn the_longest_timeout_at_its_limit_one_below_and_one_above() {
        assert!("29d".parse::<Span>().is_ok());
        assert!("30d".parse::<Span>().is_ok());
        assert_eq!("31d".parse::<Span>().unwrap_err(), "at most 30d");
        assert_eq!("2592000001ms".parse::<Span>().unwrap_err(), "at most 30d");
    }
}
