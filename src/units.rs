//! Times and sizes in settings: `50us`, `500ms`, `30s`, `5m`, `64KiB`, `1GiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time. A number without a unit is in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A size in bytes. A number without a unit is in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// Units of time and their lengths in microseconds, largest first. A value is printed in the first
/// unit that divides it.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

/// Units of size in bytes, largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const TIME_HELP: &str =
    "expected a whole number of seconds, or one with a unit of us, ms, s, m, h or d, such as 30s";
const SIZE_HELP: &str =
    "expected a whole number of bytes, or one with a unit of B, KiB, MiB or GiB, such as 64MiB";

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (number, unit) = split(text);
        let unit = if unit.is_empty() { "s" } else { unit };
        let micros = value(number, unit, &TIMES).ok_or_else(|| TIME_HELP.to_string())?;
        Ok(Span(Duration::from_micros(micros)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_size_is_written_as_it_is_read() {
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
        for (text, bytes) in [
            ("0", 0),
            ("1B", 1),
            ("1000B", 1000),
            ("4KiB", 4096),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string()), (bytes, text.to_string()));
        }
        assert_eq!("4096".parse::<Size>().unwrap().to_string(), "4KiB");
        assert_eq!("5".parse::<Span>().unwrap().to_string(), "5s");
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
    }

    #[test]
    fn an_unknown_form_of_time_or_size_is_refused_with_the_accepted_forms() {
        for text in
            ["", "s", "5x", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(text.parse::<Span>().unwrap_err(), TIME_HELP, "{text:?}");
        }
        for text in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(text.parse::<Size>().unwrap_err(), SIZE_HELP, "{text:?}");
        }
    }
}
