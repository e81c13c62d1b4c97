//! Typed metrics: values with kind, unit and help. INFO, the status table and [`prometheus`] render
//! them.

pub mod histogram;
pub mod prometheus;

use std::borrow::Cow;
use std::fmt;

use self::histogram::Histogram;

/// A value with its title, kind, unit and help.
#[derive(Clone, Debug)]
pub struct Metric {
    /// The title in the status table, unique in its section. [`key`] turns it into INFO's key.
    pub title: Cow<'static, str>,
    /// The family, its label, and the member's value of that label, as in
    /// `connections_closed{reason="idle-timeout"}`.
    pub family: Option<(&'static str, &'static str, String)>,
    pub kind: MetricKind,
    pub unit: MetricUnit,
    /// One sentence.
    pub help: &'static str,
    pub value: MetricValue,
}

/// How a metric changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, until the process ends or a client resets the counters.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Counts values by size.
    Histogram,
    /// A text.
    Info,
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A number of the things that the title names.
    Count,
    Connections,
    Messages,
    Datagrams,
    Bytes,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    Percent,
    /// A text has no unit.
    Text,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// `None` if the kernel does not report it, or if a mean has no values.
    Count(Option<u64>),
    Ratio(f64),
    Histogram(Box<Histogram>),
    Text(String),
}

impl From<u64> for MetricValue {
    fn from(count: u64) -> MetricValue {
        MetricValue::Count(Some(count))
    }
}

impl From<Option<u64>> for MetricValue {
    fn from(count: Option<u64>) -> MetricValue {
        MetricValue::Count(count)
    }
}

impl fmt::Display for MetricValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricValue::Count(Some(count)) => count.fmt(f),
            MetricValue::Count(None) => f.pad("-"),
            MetricValue::Ratio(ratio) => f.pad(&format!("{ratio:.2}")),
            MetricValue::Histogram(histogram) => histogram.fmt(f),
            MetricValue::Text(text) => f.pad(text),
        }
    }
}

/// A titled section of metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub title: &'static str,
    pub list: Vec<Metric>,
}

/// The title of a section of `T`, and the function that adds its metrics.
pub type MetricSection<T> = (&'static str, fn(&T, &mut Metrics));

/// Computes the sections whose titles are wanted.
pub fn compute<T>(
    of: &T,
    sections: &[MetricSection<T>],
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<Metrics> {
    let wanted = sections.iter().filter(|(title, _)| wanted(title));
    let computed = wanted.map(|(title, add_to)| {
        let mut metrics = Metrics { title, list: Vec::new() };
        add_to(of, &mut metrics);
        metrics
    });
    computed.collect()
}

/// The title, unit, value and help of a metric.
type MetricRow<V> = (&'static str, MetricUnit, V, &'static str);

impl Metrics {
    /// Adds counters.
    pub fn counters<V: Into<MetricValue>>(&mut self, rows: impl IntoIterator<Item = MetricRow<V>>) {
        rows.into_iter().for_each(|row| self.add(MetricKind::Counter, row));
    }

    /// Adds gauges.
    pub fn gauges<V: Into<MetricValue>>(&mut self, rows: impl IntoIterator<Item = MetricRow<V>>) {
        rows.into_iter().for_each(|row| self.add(MetricKind::Gauge, row));
    }

    /// Adds histograms.
    pub fn histograms<'a>(&mut self, rows: impl IntoIterator<Item = MetricRow<&'a Histogram>>) {
        for (title, unit, histogram, help) in rows {
            let value = MetricValue::Histogram(Box::new(histogram.clone()));
            self.add(MetricKind::Histogram, (title, unit, value, help));
        }
    }

    /// Adds a text.
    pub fn text(&mut self, title: &'static str, text: String, help: &'static str) {
        self.add(MetricKind::Info, (title, MetricUnit::Text, MetricValue::Text(text), help));
    }

    fn add<V: Into<MetricValue>>(
        &mut self,
        kind: MetricKind,
        (title, unit, value, help): MetricRow<V>,
    ) {
        let (title, value) = (title.into(), value.into());
        self.list.push(Metric { title, family: None, kind, unit, help, value });
    }

    /// Adds a family from the label's value and the value of each member. A title is `prefix` and
    /// the label's value. The name is that of Prometheus, without prefix and unit.
    pub fn family(
        &mut self,
        (kind, unit): (MetricKind, MetricUnit),
        (name, label): (&'static str, &'static str),
        prefix: &str,
        help: &'static str,
        members: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        for (member, value) in members {
            let title = format!("{prefix}{member}").into();
            let family = Some((name, label, member.replace(' ', "-")));
            self.list.push(Metric { title, family, kind, unit, help, value: value.into() });
        }
    }

    /// Returns the title and value of each metric that is a known whole number.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.list.iter().filter_map(|metric| match metric.value {
            MetricValue::Count(Some(count)) => Some((&*metric.title, count)),
            _ => None,
        })
    }
}

/// Turns a title into a name of lowercase letters, digits and underscores, as INFO and Prometheus
/// need.
pub fn key(title: &str) -> String {
    let parts = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Checks what must hold for the metrics of every module.
    pub fn check(sections: &[Metrics]) {
        let (mut series, mut rows) = (HashSet::new(), HashSet::new());
        for Metrics { title: section, list } in sections {
            for metric in list {
                let title = format!("{section}/{}", metric.title);
                assert!(rows.insert((key(section), key(&metric.title))), "{title} is a row twice");
                let (_, label, value) = metric.family.clone().unwrap_or(("", "", String::new()));
                let own = prometheus::name(section, metric);
                for name in [&own, label] {
                    let is_valid =
                        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    let begins_well = !name.starts_with(|c: char| c.is_ascii_digit());
                    assert!(begins_well && name.chars().all(is_valid), "{title}: {name}");
                }
                assert!(series.insert((own, value)), "{title} is a series twice");
                let help = metric.help;
                assert!(help.ends_with('.') && help.len() > 10, "{title}: {help}");
                let is_text = matches!(metric.value, MetricValue::Text(_));
                assert_eq!(metric.kind == MetricKind::Info, is_text, "{title}");
                let is_histogram = matches!(metric.value, MetricValue::Histogram(_));
                assert_eq!(metric.kind == MetricKind::Histogram, is_histogram, "{title}");
                assert_eq!(metric.unit == MetricUnit::Text, is_text, "{title}");
                for (word, unit) in [
                    (", ns", MetricUnit::Nanoseconds),
                    (", us", MetricUnit::Microseconds),
                    (", ms", MetricUnit::Milliseconds),
                    (", s", MetricUnit::Seconds),
                    ("percent", MetricUnit::Percent),
                ] {
                    assert_eq!(
                        title.ends_with(word),
                        metric.unit == unit,
                        "{title} in {:?}",
                        metric.unit
                    );
                }
            }
        }
    }

    #[test]
    fn a_value_is_padded_and_an_unknown_value_is_a_dash() {
        let text = |value: MetricValue| format!("{value:>5}|{value:<5}|{value}");
        assert_eq!(text(7.into()), "    7|7    |7");
        assert_eq!(text(None.into()), "    -|-    |-");
        assert_eq!(text(MetricValue::Ratio(1.256)), " 1.26|1.26 |1.26");
        assert_eq!(text(MetricValue::Text("a b".into())), "  a b|a b  |a b");
        let empty = MetricValue::Histogram(Box::default());
        assert_eq!(format!("{empty:>22}"), "  count=0,mean=0,p99=0");
    }

    #[test]
    fn a_key_has_lowercase_letters_digits_and_single_underscores() {
        for (title, name) in [
            ("user memory, bytes", "user_memory_bytes"),
            ("write-buffers", "write_buffers"),
            ("system TCP sockets", "system_tcp_sockets"),
            ("net.ipv4.tcp_syncookies", "net_ipv4_tcp_syncookies"),
        ] {
            assert_eq!(key(title), name);
        }
    }
}
