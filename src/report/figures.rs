//! Figures as text for people: `1.23 ms`, `3.91 KiB`, `12,345`, `99.9 %`, dates.

use crate::calendar::civil;

/// Units and their sizes, smallest first.
const TIMES: [(&str, f64); 3] = [("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
const SIZES: [(&str, f64); 4] =
    [("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

/// Formats microseconds to three digits: `870 µs`, `1.23 ms`, `12.0 s`.
pub fn time(us: f64) -> String {
    scaled(us, &TIMES, 1000.0)
}

/// Formats bytes to three digits: `44 B`, `3.91 KiB`.
pub fn bytes(bytes: f64) -> String {
    scaled(bytes, &SIZES, 1024.0)
}

/// Formats a value in the largest unit in which its rounded value is at least 1, so no text reads
/// `1000 µs`.
fn scaled(value: f64, units: &[(&str, f64)], step: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    let at = units.iter().rposition(|(_, worth)| size >= worth * (1.0 - 0.5 / step)).unwrap_or(0);
    let (unit, worth) = units[at];
    let value = value / worth;
    // Whole bytes need no fraction; a mean of bytes does.
    let whole = at == 0 && value.fract() == 0.0;
    if whole { format!("{value:.0} {unit}") } else { format!("{} {unit}", three_digits(value)) }
}

/// Formats a number to three digits, or with all digits before the point.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// Formats a count: `1,234,567`.
pub fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// Inserts commas between the thousands before the point.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut text = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

/// Formats a rate per second: `1,234/s`, `0.25/s`.
pub fn rate(rate: f64) -> String {
    if rate.is_finite() { format!("{}/s", three_digits(rate)) } else { "–".into() }
}

/// Formats `part` as a share of `whole`: `99.9 %`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { percent(100.0 * part as f64 / whole as f64) }
}

/// Formats a percentage: `62.5 %`. Rounding never makes it 0 % or 100 %.
pub fn percent(percent: f64) -> String {
    if !percent.is_finite() {
        return "–".into();
    }
    if percent == 0.0 || percent == 100.0 {
        return format!("{percent:.0} %");
    }
    let decimals = (1..=9).find(|&decimals| {
        // The factor 0.99 allows for rounding: 100 − 99.9 is not quite 0.1.
        let grain = 0.99 * 10f64.powi(-decimals);
        percent.abs() >= grain && (percent - 100.0).abs() >= grain
    });
    format!("{percent:.*} %", decimals.unwrap_or(9) as usize)
}

/// Returns the name of a percentile: `p50`, `p99.9`.
pub fn percentile(percent: f64) -> String {
    format!("p{percent}")
}

/// Formats a moment in UTC: `2026-11-21 19:00:00 UTC`. The date follows Howard Hinnant's
/// civil_from_days.
pub fn date(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_three_digits_and_the_largest_fitting_unit() {
        for (us, text) in [
            (0.0, "0 µs"),
            (0.5, "0.50 µs"),
            (870.0, "870 µs"),
            (999.4, "999 µs"),
            (999.6, "1.00 ms"),
            (1234.0, "1.23 ms"),
            (9996.0, "10.0 ms"),
            (999_600.0, "1.00 s"),
            (12_000_000.0, "12.0 s"),
            (3_600_000_000.0, "3,600 s"),
            (-1500.0, "-1.50 ms"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(time(us), text, "{us}");
        }
        for (size, text) in [
            (0.0, "0 B"),
            (44.0, "44 B"),
            (44.25, "44.2 B"),
            (1024.0, "1.00 KiB"),
            (4000.0, "3.91 KiB"),
            (3e9, "2.79 GiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(rate(1234.5), "1,234/s");
        assert_eq!(rate(0.25), "0.25/s");
        assert_eq!(three_digits(-1234.0), "-1,234");
    }

    #[test]
    fn a_share_is_never_rounded_to_all_or_nothing() {
        for (part, whole, text) in [
            (0, 7, "0 %"),
            (7, 7, "100 %"),
            (1, 2, "50.0 %"),
            (999, 1000, "99.9 %"),
            (9999, 10_000, "99.99 %"),
            (1, 10_000, "0.01 %"),
            (6, 10_000, "0.06 %"),
            (99_996, 100_000, "99.996 %"),
            (3, 2, "150.0 %"),
            (1, 0, "–"),
        ] {
            assert_eq!(share(part, whole), text);
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
