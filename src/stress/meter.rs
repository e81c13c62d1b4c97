//! The counters and times of a running load, in all and since the last sample.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::record::{Latency, Percentile};
use crate::clock::{Clock, Time};
use crate::escape;

/// The percentiles of the report.
const PERCENTS: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// Longest time of a histogram, in nanoseconds: an hour. A longer time counts as an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Number of steps in which unsent requests are recorded, so the cost does not grow with their
/// number. Their times are exact to a thousandth of the run.
const STEPS_MAX: u64 = 1000;

/// Maximum number of bytes that a report quotes of an error reply.
pub const REFUSAL_MAX: usize = 200;

/// Maximum number of reasons that are counted apart. A server chooses the text of some.
const KINDS_MAX: usize = 100;

/// The name of all further reasons.
const OTHERS: &str = "other reasons";

/// Maximum number of bytes that a note quotes of a wrong answer.
const STRANGE_MAX: usize = 40;

/// Share of one processor, used or waited for, from which the generator limits the load.
pub const SATURATED: f64 = 0.9;

/// Share of a rate from which the rate counts as reached.
pub const REACHED: f64 = 0.98;

/// Times in nanoseconds, to three digits.
#[derive(Clone)]
pub struct Times {
    all: Histogram<u64>,
    /// Times since the last sample. Each sample moves them to `all`.
    recent: Histogram<u64>,
}

impl Default for Times {
    fn default() -> Times {
        Times::new()
    }
}

impl Times {
    pub fn new() -> Times {
        let empty = || Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
        Times { all: empty(), recent: empty() }
    }

    /// Records a time `count` times.
    pub fn record(&mut self, time: Duration, count: u64) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        self.recent.saturating_record_n(nanoseconds.max(1), count);
    }

    /// Returns all times so far.
    pub fn all(&mut self) -> &Histogram<u64> {
        self.turn_over();
        &self.all
    }

    /// Returns the times since the last sample.
    pub fn recent(&self) -> &Histogram<u64> {
        &self.recent
    }

    /// Begins the next sample.
    pub fn turn_over(&mut self) {
        // Adding cannot fail, because both histograms have the same bounds.
        let _ = self.all.add(&self.recent);
        self.recent.reset();
    }

    /// Forgets all times.
    pub fn clear(&mut self) {
        self.all.reset();
        self.recent.reset();
    }

    /// Returns the percentiles of all times; `None` without any. `corrected` is true if the times
    /// count from the moment a request was due.
    pub fn summary(&mut self, corrected: bool) -> Option<Latency> {
        let all = self.all();
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        (!all.is_empty()).then(|| Latency {
            count: all.len(),
            corrected,
            min_us: us(all.min()),
            mean_us: all.mean() / 1000.0,
            max_us: us(all.max()),
            percentiles: PERCENTS
                .iter()
                .map(|percent| Percentile {
                    percent: *percent,
                    us: us(all.value_at_percentile(*percent)),
                })
                .collect(),
        })
    }
}

/// Counts by name: reasons of failures, or kinds of errors.
pub type Counts = BTreeMap<String, u64>;

/// The rule that decides which reading of the server's memory counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Highest,
    Latest,
}

/// The counters and times of one run.
#[derive(Default)]
pub struct Meter {
    /// Times of requests.
    pub latency: Times,
    pub connect_latency: Times,
    /// Times of a fan-out's deliveries.
    pub delivery_latency: Times,
    pub connecting: u64,
    pub open: u64,
    pub open_at_peak: u64,
    /// Connections established and authenticated since the start.
    pub opened: u64,
    pub closed_by_server: u64,
    /// Close frames of the server, by their code.
    pub close_codes: Counts,
    /// First reason that a Close frame gave, with its code.
    pub close_reason: Option<String>,
    /// Pings of the server, each of which got a pong.
    pub pings: u64,
    /// Connections dialled in place of one that had been established.
    pub reconnects: u64,
    pub failed: Counts,
    pub sent: u64,
    /// Requests with an answer that is no error.
    pub answered: u64,
    /// Requests that are sent again on another connection.
    pub repeated: u64,
    pub errors: Counts,
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// First error reply of the server.
    pub refusal: Option<String>,
    /// First bytes of the first wrong answer.
    pub strange: Option<String>,
    /// Start of the load. Rates count only the time between start and end.
    pub load_began: Option<Time>,
    pub load_ended: Option<Time>,
    pub answered_before_load: u64,
    pub answered_in_load: Option<u64>,
    /// The shape's request to read the server's memory now.
    pub wants_memory: Option<Reading>,
    pub cpu_at_load: Option<Duration>,
    pub cpu_in_load: Option<Duration>,
}

impl Meter {
    /// Begins the load.
    pub fn begin_load(&mut self, now: Time) {
        self.load_began = Some(now);
        self.answered_before_load = self.answered;
        self.cpu_at_load = Some(Clock::cpu_time());
    }

    /// Ends the load as of `end`.
    pub fn end_load(&mut self, end: Time) {
        self.load_ended = Some(end);
        self.answered_in_load = Some(self.answered - self.answered_before_load);
        self.cpu_in_load = self.cpu_at_load.map(|then| Clock::cpu_time().saturating_sub(then));
    }

    /// Begins the next sample.
    pub fn turn_over(&mut self) {
        self.latency.turn_over();
        self.connect_latency.turn_over();
        self.delivery_latency.turn_over();
    }

    /// Counts a failed connect.
    pub fn fail(&mut self, why: &str) {
        count(&mut self.failed, why, 1);
    }

    /// Counts errors of a kind; 0 adds none.
    pub fn error(&mut self, kind: &str, number: u64) {
        if number > 0 {
            count(&mut self.errors, kind, number);
        }
    }

    /// Counts `count` requests that were due between `first` and `end` and were never sent. Each
    /// has waited until now.
    pub fn charge_unsent(&mut self, first: Time, end: Time, count: u64, now: Time) {
        let steps = count.min(STEPS_MAX);
        let span = end.since(first);
        for step in 0..steps {
            // The requests of a step count as due at its start.
            let number = count * (step + 1) / steps - count * step / steps;
            let due = first + span.mul_f64(step as f64 / steps as f64);
            self.latency.record(now.since(due), number);
        }
        self.error("due but never sent", count);
    }

    /// Counts an error reply.
    pub fn refused(&mut self, answer: &[u8]) {
        self.error("error reply", 1);
        self.keep_refusal(answer);
    }

    /// Keeps the first line of the first error reply.
    pub fn keep_refusal(&mut self, answer: &[u8]) {
        if self.refusal.is_none() && !answer.is_empty() {
            let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
            let cut = if line.len() > REFUSAL_MAX { "…" } else { "" };
            let line = escape::bytes(&line[..line.len().min(REFUSAL_MAX)]);
            self.refusal = Some(format!("{line}{cut}"));
        }
    }

    /// Counts a Close frame of the server.
    pub fn closed_with(&mut self, code: u16, reason: &[u8]) {
        count(&mut self.close_codes, &code.to_string(), 1);
        if self.close_reason.is_none() && !reason.is_empty() {
            self.close_reason = Some(format!("{code}: {}", escape::bytes(reason)));
        }
    }

    /// Keeps the first bytes of the first wrong answer.
    pub fn is_strange(&mut self, bytes: &[u8]) {
        self.strange.get_or_insert_with(|| {
            bytes[..bytes.len().min(STRANGE_MAX)].escape_ascii().to_string()
        });
    }

    /// Returns the sum over all kinds of errors.
    pub fn errors_in_all(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Returns the sum over all reasons of failed connects.
    pub fn failed_in_all(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Adds to a count, and allocates its name only once.
fn count(counts: &mut Counts, name: &str, number: u64) {
    let is_new = !counts.contains_key(name);
    let name = if is_new && counts.len() >= KINDS_MAX { OTHERS } else { name };
    match counts.get_mut(name) {
        Some(known) => *known += number,
        None => drop(counts.insert(name.to_string(), number)),
    }
}

/// Returns the reason of a failed connect or a broken connection in a word or two.
pub fn reason(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused => "refused".into(),
        ConnectionReset => "reset".into(),
        ConnectionAborted => "aborted".into(),
        BrokenPipe => "closed by server".into(),
        TimedOut => "timeout".into(),
        AddrNotAvailable | AddrInUse => "no local port".into(),
        HostUnreachable | NetworkUnreachable => "unreachable".into(),
        PermissionDenied => "not permitted".into(),
        OutOfMemory => "no memory".into(),
        _ => match error.raw_os_error() {
            Some(23 | 24) => "no file left".into(),
            Some(105) => "no memory".into(),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_in_all_and_since_the_last_sample() {
        let mut times = Times::new();
        assert_eq!(times.summary(false), None);
        times.record(Duration::from_micros(10), 99);
        times.turn_over();
        times.record(Duration::from_millis(5), 1);
        assert_eq!(times.recent().len(), 1);
        let summary = times.summary(true).unwrap();
        assert_eq!((summary.count, summary.corrected), (100, true));
        let at = |percent: f64| {
            summary.percentiles.iter().find(|known| known.percent == percent).unwrap().us
        };
        assert!((at(99.0) - 10.0).abs() < 0.1 && (at(99.9) - 5000.0).abs() < 10.0, "{summary:?}");
        // A time of more than an hour counts as an hour.
        times.record(Duration::from_secs(1_000_000), 1);
        assert!(times.summary(true).unwrap().max_us > 3.5e9);
        times.clear();
        assert_eq!(times.summary(true), None);
    }

    #[test]
    fn a_server_cannot_invent_reasons_without_end() {
        let mut meter = Meter::default();
        for number in 0..=KINDS_MAX {
            meter.fail(&format!("login failed: {number}"));
        }
        meter.fail("login failed: 0");
        assert_eq!(meter.failed.len(), KINDS_MAX + 1);
        assert_eq!((meter.failed[OTHERS], meter.failed["login failed: 0"]), (1, 2));
    }

    #[test]
    fn the_reason_of_a_failure_is_the_fields_word() {
        for (errno, word) in [
            (111, "refused"),
            (104, "reset"),
            (110, "timeout"),
            (99, "no local port"),
            (24, "no file left"),
        ] {
            assert_eq!(reason(&io::Error::from_raw_os_error(errno)), word);
        }
    }
}
