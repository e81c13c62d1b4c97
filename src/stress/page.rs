//! The report of a run: verdicts, remarks, tables, plots and parameters. It has no empty tables.

use super::plots::{self, NamedRecord};
use super::record::{
    Bound, Connections, Delivery, Latency, Probe, Record, Requests, ServerMemory, Trial, UserMemory,
};
use crate::report::figures::{bytes, count, date, percent, percentile, rate, share, time};
use crate::report::{Outcome, Page, Section, Table, Verdict};

/// Returns the report of a run.
pub fn page(record: &Record) -> Page {
    let mut sections = Vec::new();
    sections.extend(record.bounds.iter().map(|bound| Section::Verdict(verdict(bound))));
    sections.extend(record.notes.iter().map(|note| Section::Paragraph(sentence(note))));
    let tables = [
        Some(connections(&record.connections)),
        requests(&record.requests),
        errors(&record.requests),
        times(record),
        record.delivery.as_ref().map(delivery),
        trials(&record.trials),
        probes(&record.probes),
        server(record),
        Some(generator(record)),
    ];
    for table in tables.into_iter().flatten() {
        let remark = match table.title.as_str() {
            TIMES => meaning_of_times(record),
            title if title.starts_with(SERVER) => unmeasured_memory(record),
            _ => None,
        };
        sections.push(Section::Table(table));
        sections.extend(remark.map(Section::Paragraph));
    }
    let plots = plots::plots(&[NamedRecord { name: "", record }]);
    if !plots.is_empty() {
        sections.push(Section::Heading("Plots".into()));
        sections.extend(plots.into_iter().map(Section::Plot));
    }
    sections.extend(parameters(record).map(Section::Table));
    Page { title: title(record), summary: summary(record), sections }
}

/// Returns the command of the run without its flags.
pub fn title(record: &Record) -> String {
    format!("slabd stress {} {}", record.shape, record.target)
}

fn summary(record: &Record) -> String {
    let (began, lasted) = (date(record.started), time(record.duration_s * 1e6));
    let until = if record.interrupted { ", until it was interrupted" } else { "" };
    // A target that is an address needs no second mention.
    let at = match record.address.is_empty() || record.target.contains(&record.address) {
        true => String::new(),
        false => format!(", connected to {}", record.address),
    };
    format!("Started {began}, measured for {lasted} by slabd {}{at}{until}.", record.version)
}

fn verdict(bound: &Bound) -> Verdict {
    let measured = bound
        .measured
        .clone()
        .unwrap_or_else(|| "not measured by this run, so the bound does not hold".into());
    let outcome = if bound.held { Outcome::Holds } else { Outcome::Fails };
    Verdict { claim: bound.text.clone(), measured, outcome }
}

/// Returns a note with a capital letter and a full stop.
fn sentence(note: &str) -> String {
    let mut rest = note.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    let stop = if note.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{first}{}{stop}", rest.as_str())
}

/// Returns a table with a row for each name and its figure.
pub(super) fn two_columns(title: &str, rows: Vec<(String, String)>) -> Table {
    Table::new(title, "|", rows.into_iter().map(|(name, figure)| vec![name, figure]))
}

fn connections(connections: &Connections) -> Table {
    let mut rows = vec![
        ("asked for".to_string(), count(connections.asked)),
        ("opened in all".into(), count(connections.opened)),
        ("open at the peak".into(), count(connections.open_at_peak)),
        ("open at the end".into(), count(connections.open_at_end)),
        ("closed by the server".into(), count(connections.closed_by_server)),
    ];
    rows.extend(
        by_count(&connections.close_codes)
            .map(|(code, number)| (format!("  close code {code}"), count(number))),
    );
    if connections.pings > 0 {
        rows.push(("pings of the server".into(), count(connections.pings)));
    }
    rows.extend([
        ("reconnects".to_string(), count(connections.reconnects)),
        ("failed".into(), count(connections.failed.values().sum())),
    ]);
    rows.extend(
        by_count(&connections.failed)
            .map(|(reason, number)| (format!("  failed: {reason}"), count(number))),
    );
    two_columns("Connections", rows)
}

/// Returns the kinds, the most frequent first.
fn by_count(
    kinds: &std::collections::BTreeMap<String, u64>,
) -> impl Iterator<Item = (&String, u64)> {
    let mut kinds: Vec<(&String, u64)> =
        kinds.iter().map(|(kind, number)| (kind, *number)).collect();
    kinds.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    kinds.into_iter()
}

fn requests(requests: &Requests) -> Option<Table> {
    (requests.sent > 0).then(|| {
        // The honest requests beside a flood are too few for a meaningful rate.
        let has_rate = requests.rate > 0.0 || requests.answered == 0;
        let mut rows = vec![
            ("sent".to_string(), count(requests.sent)),
            ("answered".into(), count(requests.answered)),
            ("share answered".into(), share(requests.answered, requests.sent)),
        ];
        if requests.repeated > 0 {
            rows.push(("sent again".into(), count(requests.repeated)));
        }
        rows.extend(has_rate.then(|| ("rate of answers".to_string(), rate(requests.rate))));
        rows.extend([
            ("errors".to_string(), count(requests.errors.values().sum())),
            ("bytes sent".into(), bytes(requests.bytes_out as f64)),
            ("bytes received".into(), bytes(requests.bytes_in as f64)),
        ]);
        two_columns("Requests", rows)
    })
}

fn errors(requests: &Requests) -> Option<Table> {
    let row = |(kind, number): (&String, u64)| {
        vec![kind.clone(), count(number), share(number, requests.sent)]
    };
    let rows: Vec<_> = by_count(&requests.errors).map(row).collect();
    (!rows.is_empty()).then(|| Table::new("Errors", "kind | number | of requests", rows))
}

/// Title of the table of times.
const TIMES: &str = "Times";

/// Start of the title of the server's table.
const SERVER: &str = "The server";

/// Returns the distributions of times, all with the same columns for comparison.
fn times(record: &Record) -> Option<Table> {
    let measured = distributions(record);
    let percents = percents(&measured);
    let row = |(name, times): &(String, &Latency)| {
        let at = |percent: &f64| times.at(*percent).map_or_else(|| "–".into(), time);
        let mut row =
            vec![name.clone(), count(times.count), time(times.min_us), time(times.mean_us)];
        row.extend(percents.iter().map(at));
        row.push(time(times.max_us));
        row
    };
    let mut columns = ["of", "number", "min", "mean"].map(String::from).to_vec();
    columns.extend(percents.iter().map(|percent| percentile(*percent)));
    columns.push("max".into());
    (!measured.is_empty()).then(|| Table {
        title: TIMES.into(),
        columns,
        rows: measured.iter().map(row).collect(),
    })
}

/// Returns the distributions of times by name, without empty ones.
pub(super) fn distributions(record: &Record) -> Vec<(String, &Latency)> {
    let delivery = record.delivery.as_ref().and_then(|delivery| delivery.latency.as_ref());
    let fixed = [
        ("requests", record.latency.as_ref()),
        ("connects", record.connect_latency.as_ref()),
        ("deliveries", delivery),
    ];
    let probes = record
        .probes
        .iter()
        .map(|probe| (format!("honest requests {}", probe.phase), probe.latency.as_ref()));
    let all = fixed.into_iter().map(|(name, times)| (name.to_string(), times)).chain(probes);
    all.filter_map(|(name, times)| Some((name, times.filter(|times| times.count > 0)?))).collect()
}

/// Returns the percentiles that any of the distributions has, in ascending order.
pub(super) fn percents(distributions: &[(String, &Latency)]) -> Vec<f64> {
    let all = distributions.iter().flat_map(|(_, times)| &times.percentiles);
    let mut percents: Vec<f64> = all.map(|percentile| percentile.percent).collect();
    percents.sort_by(f64::total_cmp);
    percents.dedup();
    percents
}

fn meaning_of_times(record: &Record) -> Option<String> {
    let times = record.latency.as_ref().filter(|times| times.count > 0)?;
    Some(if times.corrected {
        "The time of a request counts from the moment it was due. So the requests that a stall of \
        the server delayed include their wait (coordinated omission is corrected)."
            .into()
    } else {
        "Each connection sends its next request after the last answer. So a stall of the server \
        counts once per connection, and requests that were not sent meanwhile do not count. \
        Give a --rate to count these too."
            .into()
    })
}

fn delivery(delivery: &Delivery) -> Table {
    let rows = vec![
        ("subscribers".to_string(), count(delivery.subscribers)),
        ("published".into(), count(delivery.published)),
        ("expected".into(), count(delivery.expected)),
        ("delivered".into(), count(delivery.delivered)),
        ("share delivered".into(), share(delivery.delivered, delivery.expected)),
        ("lost".into(), count(delivery.lost)),
        ("out of order".into(), count(delivery.out_of_order)),
    ];
    two_columns("Messages", rows)
}

fn trials(trials: &[Trial]) -> Option<Table> {
    let row = |trial: &Trial| {
        let held = if trial.held { "held" } else { "missed" };
        vec![rate(trial.asked_rate), rate(trial.reached_rate), time(trial.p99_us), held.into()]
    };
    let best =
        trials.iter().filter(|trial| trial.held).map(|trial| trial.reached_rate).reduce(f64::max);
    let title = match best {
        Some(best) => format!("Rates tried: {} is the highest that held", rate(best)),
        None => "Rates tried: none held".into(),
    };
    let rows = trials.iter().map(row);
    (!trials.is_empty()).then(|| Table::new(&title, "asked for | reached | p99 | target", rows))
}

fn probes(probes: &[Probe]) -> Option<Table> {
    let row = |probe: &Probe| {
        let times = probe.latency.as_ref().filter(|times| times.count > 0);
        let at =
            |percent| times.and_then(|times| times.at(percent)).map_or_else(|| "–".into(), time);
        let (sent, answered) = (count(probe.sent), count(probe.answered));
        vec![
            probe.phase.clone(),
            sent,
            answered,
            share(probe.answered, probe.sent),
            at(50.0),
            at(99.0),
        ]
    };
    let title = "Honest requests beside the flood";
    let columns = "phase of the flood | sent | answered | success | p50 | p99";
    (!probes.is_empty()).then(|| Table::new(title, columns, probes.iter().map(row)))
}

fn server(record: &Record) -> Option<Table> {
    let reclaim = record
        .reclaim_s
        .map(|seconds| ("memory given back after the flood".to_string(), time(seconds * 1e6)));
    let Some(server) = &record.server else {
        return reclaim.map(|row| two_columns(SERVER, vec![row]));
    };
    let mut rows = vec![
        ("resident set before".to_string(), bytes(server.rss_before as f64)),
        ("resident set at the end".into(), bytes(server.rss_at_end as f64)),
    ];
    rows.extend(record.user_memory().map(|user| at_peak(server, user)).unwrap_or_default());
    rows.extend(reclaim);
    rows.extend(
        server.cpu_s.map(|seconds| ("processor time under load".into(), time(seconds * 1e6))),
    );
    Some(two_columns(&format!("{SERVER} ({})", server.source), rows))
}

fn at_peak(server: &ServerMemory, user: UserMemory) -> Vec<(String, String)> {
    let user_text = match user {
        UserMemory::Measured(user) => bytes(user),
        UserMemory::Below(least) => format!("below {}", bytes(least)),
    };
    let mut rows = vec![
        ("resident set at the peak".to_string(), bytes(server.rss_at_peak as f64)),
        ("connections at the peak".into(), count(server.connections)),
        ("user memory per connection".into(), user_text),
    ];
    if let Some(kernel) = server.kernel_bytes_per_connection {
        rows.push(("kernel memory per connection".into(), bytes(kernel)));
        if let UserMemory::Measured(user) = user {
            rows.push(("both per connection".into(), bytes(user + kernel)));
        }
    }
    rows
}

/// Explains a user memory per connection below the least that can be measured.
fn unmeasured_memory(record: &Record) -> Option<String> {
    let Some(UserMemory::Below(least)) = record.user_memory() else { return None };
    let resolution = record.held_server()?.rss_resolution;
    Some(format!(
        "The server's user memory is below {} per connection, which is the least that can be \
         measured: the resident set is counted in whole pages, and growth of less than {} may be \
         chance. More connections give a finer figure.",
        bytes(least),
        bytes(resolution as f64)
    ))
}

fn generator(record: &Record) -> Table {
    let generator = &record.generator;
    let saturated = if generator.saturated { ", saturated" } else { "" };
    let rows = vec![
        ("processor time".to_string(), time(generator.cpu_s * 1e6)),
        ("share of one processor".into(), percent(generator.cpu_share * 100.0) + saturated),
        ("resident set at the peak".into(), bytes(generator.rss_at_peak as f64)),
    ];
    two_columns("The generator (slabd stress itself)", rows)
}

fn parameters(record: &Record) -> Option<Table> {
    let rows: Vec<_> =
        record.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    (!rows.is_empty()).then(|| two_columns("Parameters", rows))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Generator, Percentile, Sample};
    use super::*;
    use crate::report::text;

    fn latency(us: f64) -> Latency {
        let percentiles = [50.0, 99.0, 99.99].into_iter().zip([1.0, 2.0, 3.0]);
        let percentiles =
            percentiles.map(|(percent, factor)| Percentile { percent, us: us * factor }).collect();
        Latency {
            count: 1234,
            corrected: true,
            min_us: us / 2.0,
            mean_us: us,
            max_us: us * 4.0,
            percentiles,
        }
    }

    /// Returns the record of a flood with every kind of result.
    fn full() -> Record {
        Record {
            version: "0.1.0".into(),
            started: 1_709_251_200,
            target: "resp://127.0.0.1:6379".into(),
            shape: "silent".into(),
            parameters: [("connections".to_string(), "2000".to_string())].into(),
            duration_s: 12.5,
            connections: Connections {
                asked: 2000,
                opened: 1998,
                open_at_peak: 1997,
                open_at_end: 1996,
                closed_by_server: 1995,
                close_codes: [("1013".to_string(), 2), ("1001".to_string(), 5)].into(),
                pings: 12,
                reconnects: 1994,
                failed: [("refused".to_string(), 3), ("timeout".to_string(), 40)].into(),
            },
            requests: Requests {
                sent: 10_000,
                answered: 9990,
                repeated: 7,
                rate: 1234.5,
                errors: [("timeout".to_string(), 4), ("wrong answer".to_string(), 6)].into(),
                bytes_out: 2048,
                bytes_in: 4096,
            },
            latency: Some(latency(1000.0)),
            connect_latency: Some(latency(10.0)),
            delivery: Some(Delivery {
                subscribers: 11,
                published: 22,
                expected: 242,
                delivered: 240,
                lost: 2,
                out_of_order: 1,
                latency: Some(latency(77.0)),
            }),
            trials: vec![
                Trial { asked_rate: 1000.0, reached_rate: 999.0, p99_us: 800.0, held: true },
                Trial { asked_rate: 2000.0, reached_rate: 1500.0, p99_us: 90_000.0, held: false },
            ],
            probes: vec![
                Probe {
                    phase: "during".into(),
                    sent: 8,
                    answered: 5,
                    latency: Some(latency(30.0)),
                },
                Probe { phase: "after".into(), sent: 8, answered: 0, latency: None },
            ],
            reclaim_s: Some(2.5),
            server: Some(ServerMemory {
                source: "process 4711".into(),
                rss_resolution: 16_384,
                rss_before: 1 << 20,
                rss_at_peak: 2 << 20,
                peak_at_s: 9.0,
                rss_at_end: 3 << 19,
                connections: 1997,
                user_bytes_per_connection: Some(525.0),
                kernel_bytes_per_connection: Some(4096.0),
                cpu_s: Some(1.5),
            }),
            generator: Generator {
                cpu_s: 12.0,
                cpu_share: 0.96,
                saturated: true,
                rss_at_peak: 5 << 20,
            },
            samples: (0..3)
                .map(|n| Sample { t_s: n.into(), open: 10, rate: 5.0, ..Sample::default() })
                .collect(),
            bounds: vec![
                Bound { text: "p99<5ms".into(), measured: Some("2 ms".into()), held: true },
                Bound { text: "lost=0".into(), measured: Some("2".into()), held: false },
                Bound { text: "honest>99%".into(), measured: None, held: false },
            ],
            notes: vec!["a note for the reader".into()],
            ..Record::default()
        }
    }

    /// Returns each line of the page's text with single spaces.
    fn lines(record: &Record) -> Vec<String> {
        let text = text::text(&page(record));
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_page_shows_all_results() {
        let lines = lines(&full());
        for expected in [
            "slabd stress silent resp://127.0.0.1:6379",
            "Started 2024-03-01 00:00:00 UTC, measured for 12.5 s by slabd 0.1.0.",
            "holds p99<5ms: 2 ms",
            "fails lost=0: 2",
            "fails honest>99%: not measured by this run, so the bound does not hold",
            "asked for 2,000",
            "open at the peak 1,997",
            "open at the end 1,996",
            "closed by the server 1,995",
            "close code 1001 5",
            "close code 1013 2",
            "pings of the server 12",
            "reconnects 1,994",
            "sent again 7",
            "failed 43",
            "failed: timeout 40",
            "share answered 99.9 %",
            "rate of answers 1,234/s",
            "wrong answer 6 0.06 %",
            "of number min mean p50 p99 p99.99 max",
            "requests 1,234 500 µs 1.00 ms 1.00 ms 2.00 ms 3.00 ms 4.00 ms",
            "connects 1,234 5 µs 10 µs 10 µs 20 µs 30 µs 40 µs",
            "deliveries 1,234 38.5 µs 77 µs 77 µs 154 µs 231 µs 308 µs",
            "honest requests during 1,234 15 µs 30 µs 30 µs 60 µs 90 µs 120 µs",
            "lost 2",
            "out of order 1",
            "share delivered 99.2 %",
            "Rates tried: 999/s is the highest that held",
            "2,000/s 1,500/s 90.0 ms missed",
            "during 8 5 62.5 % 30 µs 60 µs",
            "after 8 0 0 % – –",
            "The server (process 4711)",
            "resident set before 1.00 MiB",
            "user memory per connection 525 B",
            "kernel memory per connection 4.00 KiB",
            "both per connection 4.51 KiB",
            "memory given back after the flood 2.50 s",
            "processor time under load 1.50 s",
            "share of one processor 96.0 %, saturated",
            "connections 2000",
            "A note for the reader.",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "no line {expected:?} in\n{}",
                lines.join("\n")
            );
        }
        let text = lines.join(" ");
        assert!(text.contains("coordinated omission is corrected"));
        // The most frequent error is the first.
        let at = |words: &str| text.find(words).unwrap();
        assert!(at("wrong answer 6") < at("timeout 4 0.04 %"));
        assert!(!text.contains("interrupted"));
    }

    #[test]
    fn a_growth_too_small_to_measure_is_said_in_words() {
        let mut record = full();
        let server = record.server.as_mut().unwrap();
        (server.connections, server.user_bytes_per_connection) = (15_000, None);
        let lines = lines(&record);
        let has = |line: &str| lines.iter().any(|found| found == line);
        assert!(has("user memory per connection below 1.09 B"), "{}", lines.join("\n"));
        assert!(has("kernel memory per connection 4.00 KiB"), "{}", lines.join("\n"));
        let text = lines.join(" ");
        assert!(!text.contains("both per connection"), "{text}");
        let sentence = "is below 1.09 B per connection, which is the least that can be measured";
        assert!(text.contains(sentence) && text.contains("less than 16.0 KiB"), "{text}");
    }

    #[test]
    fn results_that_the_run_lacks_are_left_out() {
        let lines = lines(&Record { shape: "hold".into(), ..Record::default() });
        let text = lines.join("\n");
        for absent in [
            "Requests",
            "Errors",
            "Times",
            "Messages",
            "Rates",
            "Honest",
            "The server,",
            "saturated",
            "Plots",
            "Parameters",
        ] {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
        assert!(text.contains("Connections"));
    }

    #[test]
    fn the_report_mentions_an_interrupt_and_a_closed_loop() {
        let mut record =
            Record { interrupted: true, latency: Some(latency(1.0)), ..Record::default() };
        record.latency.as_mut().unwrap().corrected = false;
        let text = lines(&record).join(" ");
        assert!(
            text.contains(", until it was interrupted.") && text.contains("Give a --rate"),
            "{text}"
        );
    }
}
