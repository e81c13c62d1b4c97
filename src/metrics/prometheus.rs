//! The metrics in the formats of Prometheus: its text format 0.0.4, and OpenMetrics 1.0.
//!
//! The name of a metric is made of its section, its title and its base unit, after the rules of
//! prometheus.io/docs/practices/naming.

use std::collections::HashMap;
use std::io::Write;

use super::histogram::Histogram;
use super::{Metric, MetricKind, MetricUnit, MetricValue, Metrics, key};

/// The names that differ from section and title: section, title, and name without prefix and unit.
/// Names with `process_` are those of Prometheus's own client libraries, and have no prefix.
pub const NAMES: [(&str, &str, &str); 21] = [
    ("process", "version", "build"),
    ("process", "start time, s", "process_start_time"),
    ("connections", "accept gate", "accept_gate"),
    ("connections", "dials failed", "dials_failed"),
    ("closed by reason", "of all, by a reset", "connections_reset"),
    ("user memory, bytes", "ledger, without fixed", "user_memory_without_fixed"),
    ("user memory, bytes", "resident set", "process_resident_memory"),
    ("kernel memory, bytes", "structures per connection, assumed", PER_CONNECTION),
    ("kernel memory, bytes", "structures per connection", PER_CONNECTION),
    ("loop", "bytes in", "received"),
    ("loop", "bytes out", "sent"),
    ("loop", "processor time, ms", "process_cpu"),
    ("loop", "uptime, s", "uptime"),
    ("loop", "log lines dropped", "log_lines_dropped"),
    ("datagrams", "in", "datagrams_received"),
    ("datagrams", "out", "datagrams_sent"),
    ("pubsub", "datagrams_refused", "datagrams_refused"),
    ("pubsub", "commands_not_shown", "commands_not_shown"),
    ("pubsub", "websocket_messages", "websocket_messages_received"),
    ("pubsub", "http_requests", "http_requests"),
    ("passwords", "unauthenticated_clients", "unauthenticated_clients"),
];
const PER_CONNECTION: &str = "kernel_memory_structures_per_connection";

/// The bounds of the buckets that are shown, by unit: those that values of a loop reach.
const TIMES_SHOWN: std::ops::RangeInclusive<u64> = 1 << 10..=Histogram::MAX;
const COUNTS_SHOWN: std::ops::RangeInclusive<u64> = 0..=1 << 16;

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsForm {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsForm {
    /// Returns the format to use for the values of the header `Accept` of a request. OpenMetrics
    /// must be asked for by name, and be wanted at least as much as plain text.
    pub fn accepted<'a>(accept: impl Iterator<Item = &'a [u8]>) -> MetricsForm {
        let (mut plain, mut open) = (0.0f32, 0.0f32);
        let texts = accept.filter_map(|value| std::str::from_utf8(value).ok());
        for range in texts.flat_map(|text| text.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut weight, mut is_known) = (1.0f32, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => is_known = value.trim().trim_matches('"') == "1.0.0",
                    _ => {}
                }
            }
            if media.eq_ignore_ascii_case("text/plain") {
                plain = weight.max(plain);
            } else if media.eq_ignore_ascii_case("application/openmetrics-text") && is_known {
                open = weight.max(open);
            }
        }
        if open > 0.0 && open >= plain { MetricsForm::OpenMetrics } else { MetricsForm::Text }
    }

    /// Returns the value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            MetricsForm::Text => "text/plain; version=0.0.4; charset=utf-8",
            MetricsForm::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }
}

/// Appends the metrics. Those without a known value are left out.
pub fn render(sections: &[Metrics], form: MetricsForm, out: &mut Vec<u8>) {
    let rows = sections.iter().flat_map(|Metrics { title, list }| {
        list.iter().map(|metric| (name(title, metric), metric))
    });
    let mut rows: Vec<(String, &Metric)> =
        rows.filter(|(_, metric)| metric.value != MetricValue::Count(None)).collect();
    // The samples of a family must follow each other.
    let mut first: HashMap<String, usize> = HashMap::new();
    for (index, (name, _)) in rows.iter().enumerate() {
        first.entry(name.clone()).or_insert(index);
    }
    rows.sort_by_key(|(name, _)| first[name]);
    let mut last = "";
    for (name, metric) in &rows {
        if name != last {
            describe(name, metric, form, out);
        }
        samples(name, metric, out);
        last = name;
    }
    if form == MetricsForm::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}

/// Returns the name of the family of a metric, with its unit and without the suffix of its kind.
pub fn name(section: &str, metric: &Metric) -> String {
    let named = NAMES.iter().find(|(of, title, _)| *of == section && *title == metric.title);
    let family = metric.family.as_ref().map(|(family, ..)| *family);
    let stem = match named.map(|(_, _, name)| *name).or(family) {
        Some(name) => name.to_string(),
        None => derived(section, &metric.title),
    };
    let prefix = if stem.starts_with("process_") { "" } else { "slabd_" };
    match base_unit(metric.unit) {
        Some((unit, _)) if stem != unit && !stem.ends_with(&format!("_{unit}")) => {
            format!("{prefix}{stem}_{unit}")
        }
        _ => format!("{prefix}{stem}"),
    }
}

/// Joins section and title without their units. A title that names its section stands alone.
fn derived(section: &str, title: &str) -> String {
    let without_unit = |text: &str| {
        let units = [", ns", ", us", ", ms", ", s", ", bytes", " percent"];
        let stripped = units.iter().find_map(|unit| text.strip_suffix(unit));
        let mut words = String::new();
        for character in stripped.unwrap_or(text).chars() {
            if character.is_ascii_uppercase() && words.ends_with(|c: char| c.is_ascii_lowercase()) {
                words.push('_');
            }
            words.push(character);
        }
        key(&words)
    };
    let (section, title) = (without_unit(section), without_unit(title));
    if title.contains(&section) { title } else { format!("{section}_{title}") }
}

/// Returns the base unit, and how many of the metric's own unit it has.
fn base_unit(unit: MetricUnit) -> Option<(&'static str, f64)> {
    match unit {
        MetricUnit::Bytes => Some(("bytes", 1.0)),
        MetricUnit::Seconds => Some(("seconds", 1.0)),
        MetricUnit::Milliseconds => Some(("seconds", 1e3)),
        MetricUnit::Microseconds => Some(("seconds", 1e6)),
        MetricUnit::Nanoseconds => Some(("seconds", 1e9)),
        MetricUnit::Percent => Some(("ratio", 1e2)),
        MetricUnit::Count | MetricUnit::Connections | MetricUnit::Messages => None,
        MetricUnit::Datagrams | MetricUnit::Text => None,
    }
}

/// Returns the type of a kind, and the suffix of its samples.
pub fn type_of(kind: MetricKind) -> (&'static str, &'static str) {
    match kind {
        MetricKind::Counter => ("counter", "_total"),
        MetricKind::Gauge => ("gauge", ""),
        MetricKind::Histogram => ("histogram", ""),
        MetricKind::Info => ("info", "_info"),
    }
}

/// Appends the lines that describe a family.
fn describe(name: &str, metric: &Metric, form: MetricsForm, out: &mut Vec<u8>) {
    let (mut kind, mut suffix) = type_of(metric.kind);
    match form {
        // The suffix belongs to the samples, and not to the name of the family.
        MetricsForm::OpenMetrics => suffix = "",
        MetricsForm::Text if metric.kind == MetricKind::Info => kind = "gauge",
        MetricsForm::Text => {}
    }
    put(out, format_args!("# HELP {name}{suffix} "));
    escape(metric.help, form == MetricsForm::OpenMetrics, out);
    put(out, format_args!("\n# TYPE {name}{suffix} {kind}\n"));
    if let (MetricsForm::OpenMetrics, Some((unit, _))) = (form, base_unit(metric.unit)) {
        put(out, format_args!("# UNIT {name} {unit}\n"));
    }
}

/// Appends the samples of a metric.
fn samples(name: &str, metric: &Metric, out: &mut Vec<u8>) {
    let scale = base_unit(metric.unit).map_or(1.0, |(_, scale)| scale);
    put(out, format_args!("{name}{}", type_of(metric.kind).1));
    if let Some((_, label, value)) = &metric.family {
        put_label(out, label, value);
    }
    match &metric.value {
        MetricValue::Count(count) if scale == 1.0 => {
            put(out, format_args!(" {}\n", count.unwrap_or(0)));
        }
        MetricValue::Count(count) => {
            put(out, format_args!(" {}\n", count.unwrap_or(0) as f64 / scale));
        }
        MetricValue::Ratio(ratio) => put(out, format_args!(" {}\n", ratio / scale)),
        MetricValue::Text(text) => {
            put_label(out, &key(&metric.title), text);
            out.extend_from_slice(b" 1\n");
        }
        MetricValue::Histogram(histogram) => {
            out.truncate(out.len() - name.len());
            put_histogram(name, histogram, metric.unit, scale, out);
        }
    }
}

fn put_histogram(name: &str, values: &Histogram, unit: MetricUnit, scale: f64, out: &mut Vec<u8>) {
    let shown = if unit == MetricUnit::Nanoseconds { TIMES_SHOWN } else { COUNTS_SHOWN };
    for (bound, count) in values.cumulative().filter(|(bound, _)| shown.contains(bound)) {
        // OpenMetrics wants a fraction in each bound, such as 1.0.
        let bound = bound as f64 / scale;
        let fraction = if bound.fract() == 0.0 { ".0" } else { "" };
        put(out, format_args!("{name}_bucket{{le=\"{bound}{fraction}\"}} {count}\n"));
    }
    let total = values.total();
    put(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {total}\n"));
    put(out, format_args!("{name}_sum {}\n", values.sum() as f64 / scale));
    put(out, format_args!("{name}_count {total}\n"));
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

fn put_label(out: &mut Vec<u8>, label: &str, value: &str) {
    put(out, format_args!("{{{label}=\""));
    escape(value, true, out);
    out.extend_from_slice(b"\"}");
}

/// Appends a text with backslashes and line breaks escaped, and double quotes if they are special.
fn escape(text: &str, quotes: bool, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(sections: &[Metrics], form: MetricsForm) -> String {
        let mut out = Vec::new();
        render(sections, form, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn section(title: &'static str) -> Metrics {
        Metrics { title, list: Vec::new() }
    }

    #[test]
    fn a_name_has_prefix_section_title_and_base_unit() {
        for (section, title, unit, name) in [
            ("loop", "turns", MetricUnit::Count, "slabd_loop_turns"),
            ("loop", "busy, us", MetricUnit::Microseconds, "slabd_loop_busy_seconds"),
            ("loop", "busy share percent", MetricUnit::Percent, "slabd_loop_busy_share_ratio"),
            ("loop", "bytes in", MetricUnit::Bytes, "slabd_received_bytes"),
            ("loop", "processor time, ms", MetricUnit::Milliseconds, "process_cpu_seconds"),
            ("user memory, bytes", "grown", MetricUnit::Bytes, "slabd_user_memory_grown_bytes"),
            ("connections", "max-connections", MetricUnit::Connections, "slabd_max_connections"),
            ("kernel", "ListenDrops", MetricUnit::Count, "slabd_kernel_listen_drops"),
            ("pubsub", "pubsub_bytes", MetricUnit::Bytes, "slabd_pubsub_bytes"),
        ] {
            let mut metrics = Metrics { title: section, list: Vec::new() };
            metrics.gauges([(title, unit, 1, "A help text.")]);
            assert_eq!(super::name(section, &metrics.list[0]), name);
        }
    }

    #[test]
    fn each_kind_has_its_type_and_the_suffix_of_its_samples() {
        let mut of_loop = section("loop");
        of_loop.counters([("turns", MetricUnit::Count, 7, "Turns.")]);
        of_loop.gauges([("longest, us", MetricUnit::Microseconds, 1500, "Longest \\ \"turn\".")]);
        of_loop.text("mode", "a\\b\"c\nd".into(), "A text.");
        of_loop.gauges([("unknown", MetricUnit::Count, None, "Not known.")]);
        let text = "# HELP slabd_loop_turns_total Turns.\n\
                    # TYPE slabd_loop_turns_total counter\n\
                    slabd_loop_turns_total 7\n\
                    # HELP slabd_loop_longest_seconds Longest \\\\ \"turn\".\n\
                    # TYPE slabd_loop_longest_seconds gauge\n\
                    slabd_loop_longest_seconds 0.0015\n\
                    # HELP slabd_loop_mode_info A text.\n\
                    # TYPE slabd_loop_mode_info gauge\n\
                    slabd_loop_mode_info{mode=\"a\\\\b\\\"c\\nd\"} 1\n";
        assert_eq!(rendered(std::slice::from_ref(&of_loop), MetricsForm::Text), text);
        let open = "# HELP slabd_loop_turns Turns.\n\
                    # TYPE slabd_loop_turns counter\n\
                    slabd_loop_turns_total 7\n\
                    # HELP slabd_loop_longest_seconds Longest \\\\ \\\"turn\\\".\n\
                    # TYPE slabd_loop_longest_seconds gauge\n\
                    # UNIT slabd_loop_longest_seconds seconds\n\
                    slabd_loop_longest_seconds 0.0015\n\
                    # HELP slabd_loop_mode A text.\n\
                    # TYPE slabd_loop_mode info\n\
                    slabd_loop_mode_info{mode=\"a\\\\b\\\"c\\nd\"} 1\n\
                    # EOF\n";
        assert_eq!(rendered(&[of_loop], MetricsForm::OpenMetrics), open);
    }

    #[test]
    fn the_samples_of_a_family_follow_each_other_under_one_description() {
        let mut connections = section("connections");
        for (listener, waiting, most) in [("a", 1, 16), ("b", 2, 32)] {
            for (name, value) in [("waiting", waiting), ("most", most)] {
                let kind = (MetricKind::Gauge, MetricUnit::Connections);
                let title = format!("{listener} {name} ");
                connections.family(kind, (name, "at"), &title, "A help.", [(listener, value)]);
            }
        }
        let text = rendered(&[connections], MetricsForm::Text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("# HELP")).collect();
        let expected = [
            "# TYPE slabd_waiting gauge",
            "slabd_waiting{at=\"a\"} 1",
            "slabd_waiting{at=\"b\"} 2",
            "# TYPE slabd_most gauge",
            "slabd_most{at=\"a\"} 16",
            "slabd_most{at=\"b\"} 32",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_in_the_base_unit() {
        let mut values = Histogram::default();
        let counted = [0, 3, 1024, 1025, 2_000_000_000, u64::MAX / 4];
        counted.iter().for_each(|value| values.count(*value));
        let mut of_loop = section("loop");
        of_loop.histograms([
            ("duration, ns", MetricUnit::Nanoseconds, &values, "Spans."),
            ("writes", MetricUnit::Count, &values, "Numbers."),
        ]);
        let text = rendered(&[of_loop], MetricsForm::Text);
        let count = |line: &str| text.lines().filter(|found| *found == line).count();
        for line in [
            "# TYPE slabd_loop_duration_seconds histogram",
            "slabd_loop_duration_seconds_bucket{le=\"0.000001024\"} 3",
            "slabd_loop_duration_seconds_bucket{le=\"0.000002048\"} 4",
            "slabd_loop_duration_seconds_bucket{le=\"17.179869184\"} 5",
            "slabd_loop_duration_seconds_bucket{le=\"+Inf\"} 6",
            "slabd_loop_duration_seconds_count 6",
            "slabd_loop_writes_bucket{le=\"0.0\"} 1",
            "slabd_loop_writes_bucket{le=\"2.0\"} 1",
            "slabd_loop_writes_bucket{le=\"4.0\"} 2",
            "slabd_loop_writes_bucket{le=\"65536.0\"} 4",
            "slabd_loop_writes_bucket{le=\"+Inf\"} 6",
        ] {
            assert_eq!(count(line), 1, "{line} in\n{text}");
        }
        assert!(text.contains("slabd_loop_duration_seconds_sum 4611686020.427"), "{text}");
        assert_eq!(text.matches("_bucket{").count(), 26 + 19, "{text}");
    }

    #[test]
    fn open_metrics_is_used_only_if_the_client_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, is_open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", true),
            ("text/plain, application/openmetrics-text", true),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.8", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text-more", false),
            ("", false),
            ("*/*", false),
            ("text/html,,;q=1", false),
        ] {
            let form = if is_open { MetricsForm::OpenMetrics } else { MetricsForm::Text };
            let accepted = MetricsForm::accepted(std::iter::once(accept.as_bytes()));
            assert_eq!(accepted, form, "{accept}");
        }
        let lines = [&b"text/plain;q=0.2"[..], b"\xff", b"application/openmetrics-text;q=0.3"];
        assert_eq!(MetricsForm::accepted(lines.into_iter()), MetricsForm::OpenMetrics);
        assert_eq!(MetricsForm::accepted(std::iter::empty()), MetricsForm::Text);
    }
}
