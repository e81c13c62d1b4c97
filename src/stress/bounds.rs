//! `--assert 'p99<5ms'`: bounds on the results of a run, parsed and judged.

use std::fmt;
use std::str::FromStr;

use super::record::{Bound, Latency, Record, UserMemory};
use crate::report::figures;

/// A parsed bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    text: String,
    metric: Measured,
    operator: Operator,
    /// Limit in `unit`.
    limit: f64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Measured {
    Time(Of, Statistic),
    Counted(Counted),
    Rate,
    Honest,
    UserBytes,
    KernelBytes,
}

/// The distribution of times that a bound is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Requests,
    Connects,
    ProbesDuring,
    Deliveries,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Percentile(f64),
    Mean,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Counted {
    Errors,
    Answered,
    Failed,
    Open,
    OpenAtPeak,
    Lost,
    OutOfOrder,
}

const STATISTICS: [(&str, Statistic); 9] = [
    ("p50", Statistic::Percentile(50.0)),
    ("p75", Statistic::Percentile(75.0)),
    ("p90", Statistic::Percentile(90.0)),
    ("p99", Statistic::Percentile(99.0)),
    ("p99.9", Statistic::Percentile(99.9)),
    ("p99.99", Statistic::Percentile(99.99)),
    ("mean", Statistic::Mean),
    ("min", Statistic::Min),
    ("max", Statistic::Max),
];

/// Prefixes of times. A time without a prefix is that of requests.
const PREFIXES: [(&str, Of); 3] =
    [("connect.", Of::Connects), ("probe.", Of::ProbesDuring), ("delivery.", Of::Deliveries)];

const OTHERS: [(&str, Measured); 11] = [
    ("rate", Measured::Rate),
    ("answered", Measured::Counted(Counted::Answered)),
    ("errors", Measured::Counted(Counted::Errors)),
    ("failed", Measured::Counted(Counted::Failed)),
    ("open", Measured::Counted(Counted::Open)),
    ("open-at-peak", Measured::Counted(Counted::OpenAtPeak)),
    ("lost", Measured::Counted(Counted::Lost)),
    ("out-of-order", Measured::Counted(Counted::OutOfOrder)),
    ("honest", Measured::Honest),
    ("user-bytes", Measured::UserBytes),
    ("kernel-bytes", Measured::KernelBytes),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// Longer signs come first, because `<` is a prefix of `<=`.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::More),
    ("=", Operator::Equal),
];

/// A unit of a limit, with its size in the record's unit: microseconds, bytes, or one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Unit {
    name: &'static str,
    worth: f64,
}

const fn unit(name: &'static str, worth: f64) -> Unit {
    Unit { name, worth }
}

const TIMES: &[Unit] = &[unit("us", 1.0), unit("µs", 1.0), unit("ms", 1e3), unit("s", 1e6)];
const SIZES: &[Unit] = &[
    unit("", 1.0),
    unit("B", 1.0),
    unit("KiB", 1024.0),
    unit("MiB", 1_048_576.0),
    unit("GiB", 1_073_741_824.0),
];
const COUNTS: &[Unit] = &[unit("", 1.0), unit("k", 1e3), unit("M", 1e6), unit("%", 1.0)];
const RATES: &[Unit] = &[
    unit("", 1.0),
    unit("k", 1e3),
    unit("M", 1e6),
    unit("/s", 1.0),
    unit("k/s", 1e3),
    unit("M/s", 1e6),
];
const PERCENT: &[Unit] = &[unit("", 1.0), unit("%", 1.0)];

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Assertion, String> {
        let at = text.find(['<', '>', '=']).ok_or_else(|| {
            format!(
                "--assert '{text}': no comparison; expected a metric, one of < <= > >= =, and a \
                 limit, such as p99<5ms"
            )
        })?;
        let (name, rest) = text.split_at(at);
        let wrong = |error: String| format!("--assert '{text}': {error}");
        let metric = Measured::named(name.trim()).map_err(wrong)?;
        let (operator, limit) = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
            .expect("the text is split at the first character of an operator");
        let (limit, unit) = metric.read_limit(limit.trim()).map_err(wrong)?;
        Ok(Assertion { text: text.trim().to_string(), metric, operator, limit, unit })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Measured {
    fn named(name: &str) -> Result<Measured, String> {
        if let Some((_, metric)) = OTHERS.iter().find(|(known, _)| *known == name) {
            return Ok(*metric);
        }
        let prefixed =
            PREFIXES.iter().find_map(|(prefix, of)| Some((name.strip_prefix(prefix)?, *of)));
        let (statistic, of) = prefixed.unwrap_or((name, Of::Requests));
        let known = STATISTICS.iter().find(|(known, _)| *known == statistic);
        known
            .map(|(_, statistic)| Measured::Time(of, *statistic))
            .ok_or_else(|| format!("'{name}' is not a metric; accepted: {}", accepted_metrics()))
    }

    fn units(self) -> &'static [Unit] {
        match self {
            Measured::Time(..) => TIMES,
            Measured::Counted(_) => COUNTS,
            Measured::Rate => RATES,
            Measured::Honest => PERCENT,
            Measured::UserBytes | Measured::KernelBytes => SIZES,
        }
    }

    fn read_limit(self, text: &str) -> Result<(f64, Unit), String> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, name) = (&text[..end], text[end..].trim_start());
        let units = self.units();
        let wrong = || format!("'{text}' is not a limit; expected {}", limit_help(units));
        let value: f64 = number.parse().map_err(|_| wrong())?;
        if value == 0.0 && name.is_empty() {
            return Ok((0.0, units[0]));
        }
        let unit = units.iter().find(|unit| unit.name == name);
        unit.map(|unit| (value, *unit)).ok_or_else(wrong)
    }
}

/// Describes a limit with these units for an error message.
fn limit_help(units: &[Unit]) -> String {
    let names: Vec<&str> =
        units.iter().map(|unit| unit.name).filter(|name| !name.is_empty()).collect();
    let is_optional = units.iter().any(|unit| unit.name.is_empty());
    let optional = if is_optional { "or without " } else { "" };
    let example = names.last().copied().unwrap_or_default();
    format!("a number with {optional}a unit of {}, such as 5{example}", names.join(", "))
}

fn accepted_metrics() -> String {
    let times = STATISTICS.iter().map(|(name, _)| *name);
    let names: Vec<&str> = times.chain(OTHERS.iter().map(|(name, _)| *name)).collect();
    let prefixes: Vec<&str> = PREFIXES.iter().map(|(name, _)| *name).collect();
    format!(
        "{}; a time may have a prefix of {}, as in connect.p99<5ms",
        names.join(", "),
        prefixes.join(", ")
    )
}

impl Assertion {
    /// Judges the bound. A bound on a metric that the run did not measure does not hold.
    pub fn judge(&self, record: &Record) -> Bound {
        if let (Measured::UserBytes, Some(UserMemory::Below(least))) =
            (self.metric, record.user_memory())
        {
            return self.judge_below(least);
        }
        let measured = self.measured(record).map(|value| value / self.unit.worth);
        let held = measured.is_some_and(|value| self.operator.holds(value, self.limit));
        let measured = measured.map(|value| self.written(value, held));
        Bound { text: self.text.clone(), measured, held }
    }

    /// Judges a bound on a value that is known only to be below `least` bytes. The bound holds only
    /// if it is an upper limit of at least `least`.
    fn judge_below(&self, least: f64) -> Bound {
        let is_upper = matches!(self.operator, Operator::Less | Operator::AtMost);
        let is_decided = self.limit * self.unit.worth >= least;
        let advice = if is_decided { "" } else { "; more connections would decide this bound" };
        let least = figures::bytes(least);
        let measured = format!("below {least}, the least that can be measured{advice}");
        Bound { text: self.text.clone(), measured: Some(measured), held: is_upper && is_decided }
    }

    /// Returns the value in the record's unit: microseconds, bytes or a count. If the limit is in
    /// percent, so is the value.
    fn measured(&self, record: &Record) -> Option<f64> {
        let value = match self.metric {
            Measured::Time(of, statistic) => statistic.of(of.times(record)?),
            Measured::Counted(counted) => {
                let (count, whole) = counted.of(record)?;
                let percent = self.unit.name == "%";
                Some(if percent { 100.0 * count as f64 / whole as f64 } else { count as f64 })
            }
            Measured::Rate => (record.requests.sent > 0).then_some(record.requests.rate),
            Measured::Honest => {
                let during = record.probes_during()?;
                (during.sent > 0).then(|| 100.0 * during.answered as f64 / during.sent as f64)
            }
            Measured::UserBytes => record.held_server()?.user_bytes_per_connection,
            Measured::KernelBytes => record.held_server()?.kernel_bytes_per_connection,
        };
        value.filter(|value| value.is_finite())
    }

    /// Writes a value in the bound's unit, with three digits, or with more if the rounded value
    /// would contradict the verdict.
    fn written(&self, value: f64, held: bool) -> String {
        let start = match value.abs() {
            size if size >= 100.0 || value.fract() == 0.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        let mut texts = (start..=9).map(|decimals| format!("{value:.decimals$}"));
        let agrees = |text: &String| {
            text.parse().is_ok_and(|rounded| self.operator.holds(rounded, self.limit) == held)
        };
        let number = texts.find(agrees).unwrap_or_else(|| value.to_string());
        let name = match (self.unit.name, self.metric) {
            ("", Measured::Honest) => "%",
            ("", Measured::UserBytes | Measured::KernelBytes) => "B",
            ("", Measured::Rate) => "/s",
            (name, _) => name,
        };
        let space = if name.is_empty() || name.starts_with(['/', 'k', 'M']) && name != "MiB" {
            ""
        } else {
            " "
        };
        format!("{number}{space}{name}")
    }
}

impl Of {
    fn times(self, record: &Record) -> Option<&Latency> {
        let times = match self {
            Of::Requests => record.latency.as_ref(),
            Of::Connects => record.connect_latency.as_ref(),
            Of::ProbesDuring => record.probes_during()?.latency.as_ref(),
            Of::Deliveries => record.delivery.as_ref()?.latency.as_ref(),
        };
        times.filter(|times| times.count > 0)
    }
}

impl Statistic {
    fn of(self, times: &Latency) -> Option<f64> {
        match self {
            Statistic::Percentile(percent) => times.at(percent),
            Statistic::Mean => Some(times.mean_us),
            Statistic::Min => Some(times.min_us),
            Statistic::Max => Some(times.max_us),
        }
    }
}

impl Counted {
    /// Returns the count and the whole that it is a part of. `None` if the whole is 0: without
    /// requests, for example, a run cannot show that there are no errors.
    fn of(self, record: &Record) -> Option<(u64, u64)> {
        let (requests, connections) = (&record.requests, &record.connections);
        let (count, whole) = match self {
            Counted::Errors => {
                // A server does not answer each publish.
                let published = record.delivery.as_ref().map_or(0, |delivery| delivery.published);
                (requests.errors.values().sum(), requests.sent.max(published))
            }
            Counted::Answered => (requests.answered, requests.sent),
            Counted::Failed => (connections.failed.values().sum(), connections.asked),
            Counted::Open => (connections.open_at_end, connections.asked),
            Counted::OpenAtPeak => (connections.open_at_peak, connections.asked),
            Counted::Lost => {
                record.delivery.as_ref().map(|delivery| (delivery.lost, delivery.expected))?
            }
            Counted::OutOfOrder => record
                .delivery
                .as_ref()
                .map(|delivery| (delivery.out_of_order, delivery.expected))?,
        };
        (whole > 0).then_some((count, whole))
    }
}

impl Operator {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Operator::Less => value < limit,
            Operator::AtMost => value <= limit,
            Operator::More => value > limit,
            Operator::AtLeast => value >= limit,
            Operator::Equal => value == limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Connections, Delivery, Percentile, Probe, Requests, ServerMemory};
    use super::*;

    fn latency(us: f64) -> Latency {
        let percentiles = [50.0, 90.0, 99.0, 99.9, 99.99];
        let percentiles = percentiles
            .into_iter()
            .zip(1..)
            .map(|(percent, n)| Percentile { percent, us: us * n as f64 });
        Latency {
            count: 9,
            min_us: us / 2.0,
            mean_us: us,
            max_us: us * 9.0,
            percentiles: percentiles.collect(),
            ..Latency::default()
        }
    }

    /// Returns a record in which every metric has a different value.
    fn record() -> Record {
        Record {
            connections: Connections {
                asked: 2000,
                open_at_peak: 1900,
                open_at_end: 1800,
                failed: [("refused".to_string(), 60), ("timeout".to_string(), 40)].into(),
                ..Connections::default()
            },
            requests: Requests {
                sent: 10_000,
                answered: 9990,
                rate: 1234.5,
                errors: [("timeout".to_string(), 6), ("wrong answer".to_string(), 4)].into(),
                ..Requests::default()
            },
            latency: Some(latency(1000.0)),
            connect_latency: Some(latency(10.0)),
            delivery: Some(Delivery {
                expected: 400,
                lost: 3,
                out_of_order: 2,
                latency: Some(latency(100.0)),
                ..Delivery::default()
            }),
            probes: ["before", "during", "after"]
                .into_iter()
                .zip([1, 3, 5])
                .map(|(phase, n)| Probe {
                    phase: phase.into(),
                    sent: 8,
                    answered: 8 - n,
                    latency: Some(latency(20_000.0 * n as f64)),
                })
                .collect(),
            server: Some(ServerMemory {
                connections: 1900,
                user_bytes_per_connection: Some(44.25),
                kernel_bytes_per_connection: Some(4096.0),
                ..ServerMemory::default()
            }),
            ..Record::default()
        }
    }

    fn judge(text: &str, record: &Record) -> Bound {
        text.parse::<Assertion>().unwrap_or_else(|error| panic!("{text}: {error}")).judge(record)
    }

    #[test]
    fn every_metric_comes_from_its_field_of_the_record() {
        for (text, measured) in [
            ("p50=1ms", "1 ms"),
            ("p90=2ms", "2 ms"),
            ("p99=3ms", "3 ms"),
            ("p99.9=4ms", "4 ms"),
            ("p99.99=5ms", "5 ms"),
            ("min=500us", "500 us"),
            ("mean=1000µs", "1000 µs"),
            ("max=0.009s", "0.009 s"),
            ("connect.p99=30us", "30 us"),
            ("probe.p99=180ms", "180 ms"),
            ("delivery.max=900us", "900 us"),
            ("rate=1234.5", "1234.5/s"),
            ("rate=1.2345k", "1.2345k"),
            ("answered=9990", "9990"),
            ("answered=99.9%", "99.9 %"),
            ("errors=10", "10"),
            ("errors=0.1%", "0.10 %"),
            ("failed=100", "100"),
            ("open=1.8k", "1.80k"),
            ("open-at-peak=95%", "95 %"),
            ("lost=3", "3"),
            ("out-of-order=0.5%", "0.50 %"),
            ("honest=62.5%", "62.5 %"),
            ("user-bytes=44.25", "44.25 B"),
            ("kernel-bytes=4KiB", "4 KiB"),
        ] {
            let bound = judge(text, &record());
            assert!(bound.held, "{text}: {bound:?}");
            assert_eq!(bound.text, text);
            assert_eq!(bound.measured.unwrap(), measured, "{text}");
        }
    }

    #[test]
    fn each_operator_is_judged_at_its_limit_and_on_both_sides() {
        for (operator, below, at, above) in [
            ("<", true, false, false),
            ("<=", true, true, false),
            (">", false, false, true),
            (">=", false, true, true),
            ("=", false, true, false),
        ] {
            for (limit, expected) in [("3.001ms", below), ("3ms", at), ("2.999ms", above)] {
                let text = format!("p99 {operator} {limit}");
                assert_eq!(judge(&text, &record()).held, expected, "{text}");
            }
        }
    }

    #[test]
    fn the_rounded_figure_does_not_contradict_the_verdict() {
        let mut record = record();
        record.latency = Some(Latency { count: 1, max_us: 5000.4, ..Latency::default() });
        assert_eq!(
            judge("max<=5ms", &record),
            Bound { text: "max<=5ms".into(), measured: Some("5.0004 ms".into()), held: false }
        );
        record.latency = Some(Latency { count: 1, max_us: 4999.6, ..Latency::default() });
        assert_eq!(judge("max<5ms", &record).measured.unwrap(), "4.9996 ms");
        assert_eq!(judge("max<9ms", &record).measured.unwrap(), "5.00 ms");
    }

    #[test]
    fn a_bound_on_user_memory_below_the_measurable_holds_only_as_an_upper_limit() {
        let mut record = record();
        let server = record.server.as_mut().unwrap();
        server.user_bytes_per_connection = None;
        (server.rss_resolution, server.connections) = (16_384, 1024);
        for (text, held, decided) in [
            ("user-bytes<16", true, true),
            ("user-bytes<=16", true, true),
            ("user-bytes<17B", true, true),
            ("user-bytes<15.9", false, false),
            ("user-bytes<=15", false, false),
            ("user-bytes<1KiB", true, true),
            ("user-bytes>0", false, false),
            ("user-bytes>=20", false, true),
            ("user-bytes=0", false, false),
        ] {
            let bound = judge(text, &record);
            assert_eq!(bound.held, held, "{text}: {bound:?}");
            let measured = bound.measured.unwrap();
            assert!(
                measured.starts_with("below 16 B, the least that can be measured"),
                "{measured}"
            );
            assert_eq!(measured.contains("more connections"), !decided, "{text}: {measured}");
        }
        let server = record.server.as_mut().unwrap();
        for (bytes, text, measured) in [
            (16.0, "user-bytes<=16", "16 B"),
            (16.1, "user-bytes<17", "16.1 B"),
            (15.9, "user-bytes<17", "below 16 B, the least that can be measured"),
        ] {
            server.user_bytes_per_connection = Some(bytes);
            let record = Record { server: Some(server.clone()), ..Record::default() };
            assert_eq!(judge(text, &record).measured.unwrap(), measured, "{bytes}");
        }
    }

    #[test]
    fn a_bound_on_an_unmeasured_metric_does_not_hold() {
        let nothing = Record::default();
        for (name, _) in OTHERS {
            for limit in [">=0", "=0", "<1"] {
                let bound = judge(&format!("{name}{limit}"), &nothing);
                assert_eq!((bound.held, bound.measured), (false, None), "{name}{limit}");
            }
        }
        for prefix in ["", "connect.", "probe.", "delivery."] {
            for (name, _) in STATISTICS {
                assert!(!judge(&format!("{prefix}{name}<1s"), &nothing).held);
            }
        }
        // Without connections there are no bytes per connection.
        let idle = Record { server: Some(ServerMemory::default()), ..Record::default() };
        assert_eq!(judge("user-bytes<96", &idle).measured, None);
        // The record may lack a percentile, or have no times.
        let mut record = record();
        record.latency = Some(Latency { count: 1, ..Latency::default() });
        assert_eq!(judge("p99<1s", &record).measured, None);
        record.latency = Some(Latency { count: 0, ..latency(1.0) });
        assert!(!judge("p99<1s", &record).held);
    }

    #[test]
    fn a_malformed_bound_is_refused_with_the_accepted_forms() {
        for (text, named) in [
            ("", "p99<5ms"),
            ("p99", "p99<5ms"),
            ("p95<5ms", "p50, p75, p90, p99, p99.9, p99.99, mean, min, max, rate"),
            ("connect.rate<5", "connect.p99"),
            ("connect.<5ms", "connect.p99"),
            ("<5ms", "is not a metric; accepted: p50"),
            ("p99<5", "us, µs, ms, s"),
            ("p99<ms", "us, µs, ms, s"),
            ("p99<-5ms", "us, µs, ms, s"),
            ("p99<5.5.5ms", "us, µs, ms, s"),
            ("p99<infs", "us, µs, ms, s"),
            ("p99==5ms", "us, µs, ms, s"),
            ("p99<5ms!", "us, µs, ms, s"),
            ("rate>5ms", "k, M"),
            ("errors<5KiB", "k, M, %"),
            ("user-bytes<5k", "B, KiB, MiB, GiB"),
            ("honest>99ms", "%"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_bound_may_have_spaces_and_a_limit_of_zero_needs_no_unit() {
        assert!(judge(" p99 <= 3 ms ", &record()).held);
        assert!(judge("p99>0", &record()).held);
        assert_eq!("p99>0".parse::<Assertion>().unwrap().to_string(), "p99>0");
    }
}
