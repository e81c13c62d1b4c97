//! `slabd stress compare A.json B.json`: two runs in sentences, in a table, and on common axes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::files::read_record;
use super::page::{distributions, percents, title};
use super::plots::{self, NamedRecord};
use super::record::{Record, UserMemory};
use crate::report::figures::{bytes, count, date, percent, percentile, rate, three_digits, time};
use crate::report::{Outcome, Page, Section, Table, Verdict};

/// Flags that do not change the load. Runs that differ in them can still be compared.
const WITHOUT_LOAD: [&str; 6] = ["json", "hdr", "html", "assert", "pid", "i-am-allowed-to-test"];

/// Relative difference below which no percentage is given, because no two runs are exactly alike.
const ALIKE: f64 = 0.01;

/// Reads two records and returns the page that compares them. An error names the file.
pub fn compare_files(a: &Path, b: &Path) -> Result<Page> {
    let (run_a, run_b) = (read_record(a)?, read_record(b)?);
    Ok(compare(&a.display().to_string(), &run_a, &b.display().to_string(), &run_b))
}

/// Returns the page of two runs, called A and B, with the names of their files.
pub fn compare(file_a: &str, a: &Record, file_b: &str, b: &Record) -> Page {
    let figures = figures(a, b);
    let differing = differing(a, b);
    let mut sections = vec![Section::Verdict(verdict(&differing))];
    sections.extend(cautions(a, b).into_iter().map(Section::Paragraph));
    sections.push(Section::Heading("In words".into()));
    sections.extend(
        figures
            .iter()
            .filter(|figure| figure.said)
            .map(|figure| Section::Paragraph(figure.sentence())),
    );
    sections.push(Section::Heading("In figures".into()));
    sections.push(Section::Table(figures_table(&figures)));
    sections.push(Section::Table(runs_table(file_a, a, file_b, b)));
    sections.extend(differing_table(&differing).map(Section::Table));
    let plots =
        plots::plots(&[NamedRecord { name: "A", record: a }, NamedRecord { name: "B", record: b }]);
    if !plots.is_empty() {
        sections.push(Section::Heading("Plots".into()));
        let axes = "The two runs were sampled at different moments. Between two samples of a run, \
            its line is straight.";
        sections.push(Section::Paragraph(axes.into()));
        sections.extend(plots.into_iter().map(Section::Plot));
    }
    let summary = format!("A is {file_a}: {}. B is {file_b}: {}.", title(a), title(b));
    Page { title: format!("slabd stress compare {file_a} {file_b}"), summary, sections }
}

/// A parameter that differs between the two loads.
#[derive(Debug, PartialEq)]
struct Differing {
    name: String,
    a: String,
    b: String,
}

/// Returns the differences between the loads. The servers' addresses do not count, because
/// comparing servers is the purpose.
fn differing(a: &Record, b: &Record) -> Vec<Differing> {
    let all = |record: &Record| {
        let mut all = BTreeMap::new();
        for (flag, value) in &record.parameters {
            let flag = flag.trim_start_matches('-');
            if !WITHOUT_LOAD.contains(&flag) {
                all.insert(format!("--{flag}"), value.clone());
            }
        }
        let kind = record.target.split_once("://").map_or("", |(kind, _)| kind);
        all.insert("kind of target".into(), kind.into());
        all.insert("shape".into(), record.shape.clone());
        all
    };
    let (all_a, all_b) = (all(a), all(b));
    let mut names: Vec<&String> = all_a.keys().chain(all_b.keys()).collect();
    // The shape and the kind of target matter most, so they come before the flags.
    names.sort_by_key(|name| (name.starts_with("--"), name.to_string()));
    names.dedup();
    let value = |all: &BTreeMap<String, String>, name: &String| {
        all.get(name).cloned().unwrap_or_else(|| "not given".into())
    };
    let pairs = names.into_iter().map(|name| Differing {
        name: name.clone(),
        a: value(&all_a, name),
        b: value(&all_b, name),
    });
    pairs.filter(|differing| differing.a != differing.b).collect()
}

fn verdict(differing: &[Differing]) -> Verdict {
    let claim = "A and B can be compared: both put the same load on their servers".into();
    if differing.is_empty() {
        return Verdict {
            claim,
            measured: "same shape, same kind of target, same parameters".into(),
            outcome: Outcome::Holds,
        };
    }
    let words = differing.iter().map(|differing| {
        format!("{} ({} in A, {} in B)", differing.name, differing.a, differing.b)
    });
    let measured = format!("they differ in {}", words.collect::<Vec<_>>().join(", "));
    Verdict { claim, measured, outcome: Outcome::Fails }
}

/// Returns the reasons to trust the comparison less.
fn cautions(a: &Record, b: &Record) -> Vec<String> {
    let mut cautions = Vec::new();
    for (name, record) in [("A", a), ("B", b)] {
        if record.interrupted {
            cautions.push(format!("{name} was interrupted before its end."));
        }
        if record.generator.saturated {
            cautions.push(format!(
                "The generator of {name} was saturated, so its figures may show the limits of \
                 slabd stress instead of the server's."
            ));
        }
    }
    cautions.push(
        "A small difference between two single runs may be chance; repeat both to tell.".into(),
    );
    cautions
}

/// A value of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FigureValue {
    Missing,
    Measured(f64),
    /// Less than this, which is the least that the run could measure.
    Below(f64),
}

impl From<Option<f64>> for FigureValue {
    fn from(value: Option<f64>) -> FigureValue {
        value.filter(|value| value.is_finite()).map_or(FigureValue::Missing, FigureValue::Measured)
    }
}

impl From<Option<UserMemory>> for FigureValue {
    fn from(memory: Option<UserMemory>) -> FigureValue {
        match memory {
            None => FigureValue::Missing,
            Some(UserMemory::Measured(bytes)) => Some(bytes).into(),
            Some(UserMemory::Below(least)) => FigureValue::Below(least),
        }
    }
}

/// One figure of both runs.
struct Figure {
    name: String,
    a: FigureValue,
    b: FigureValue,
    written: fn(f64) -> String,
    /// True for a figure that has a sentence beside its row in the table.
    said: bool,
}

impl Figure {
    fn new<V: Into<FigureValue>>(
        name: &str,
        written: fn(f64) -> String,
        of: impl Fn(&Record) -> V,
        a: &Record,
        b: &Record,
    ) -> Figure {
        Figure { name: name.into(), a: of(a).into(), b: of(b).into(), written, said: false }
    }

    fn said(self) -> Figure {
        Figure { said: true, ..self }
    }

    fn is_missing(&self) -> bool {
        (self.a, self.b) == (FigureValue::Missing, FigureValue::Missing)
    }

    /// Returns a sentence such as `p99 of requests: 1.20 ms in A against 1.50 ms in B, 20 % less in
    /// A.`
    fn sentence(&self) -> String {
        let name = &self.name;
        let (Some(a), Some(b)) = (self.text(self.a), self.text(self.b)) else {
            let text = |value| self.text(value).unwrap_or_else(|| "not measured".into());
            return format!("{name}: {} in A, {} in B.", text(self.a), text(self.b));
        };
        format!("{name}: {a} in A against {b} in B, {}.", self.difference().unwrap_or_default())
    }

    fn text(&self, value: FigureValue) -> Option<String> {
        match value {
            FigureValue::Missing => None,
            FigureValue::Measured(value) => Some((self.written)(value)),
            FigureValue::Below(least) => Some(format!("below {}", (self.written)(least))),
        }
    }

    /// Returns the difference in words; `None` if a run has no value.
    fn difference(&self) -> Option<String> {
        Some(match (self.a, self.b) {
            (FigureValue::Missing, _) | (_, FigureValue::Missing) => return None,
            (FigureValue::Measured(a), FigureValue::Measured(b)) => difference(a, b),
            (FigureValue::Measured(a), FigureValue::Below(least)) if a >= least => {
                "more in A".into()
            }
            (FigureValue::Below(least), FigureValue::Measured(b)) if b >= least => {
                "less in A".into()
            }
            _ => "too little to compare".into(),
        })
    }
}

/// Returns the difference of A from B in words.
fn difference(a: f64, b: f64) -> String {
    if a == b {
        return "the same".into();
    }
    // A ratio to zero, or of numbers with different signs, means nothing.
    if b == 0.0 || (a < 0.0) != (b < 0.0) {
        return if a > b { "more in A".into() } else { "less in A".into() };
    }
    let ratio = a / b;
    let word = if a > b { "more" } else { "less" };
    if ratio >= 2.0 {
        format!("{} times as much in A", three_digits(ratio))
    } else if (ratio - 1.0).abs() < ALIKE {
        "less than 1 % apart".into()
    } else {
        format!("{:.0} % {word} in A", (ratio - 1.0).abs() * 100.0)
    }
}

fn whole(number: f64) -> String {
    count(number as u64)
}

fn share_of(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

/// Returns the figures that at least one run has measured.
fn figures(a: &Record, b: &Record) -> Vec<Figure> {
    let new =
        |name: &str, written, of: fn(&Record) -> Option<f64>| Figure::new(name, written, of, a, b);
    let asked = |record: &Record| record.requests.sent > 0;
    let mut figures = vec![
        new("rate of answers", rate, |run| (run.requests.sent > 0).then_some(run.requests.rate))
            .said(),
        new("requests answered", percent, |run| share_of(run.requests.answered, run.requests.sent)),
    ];
    if asked(a) || asked(b) {
        let errors =
            |run: &Record| asked(run).then(|| run.requests.errors.values().sum::<u64>() as f64);
        let figure = Figure::new("errors of requests", whole, errors, a, b);
        let is_error = |value| matches!(value, FigureValue::Measured(1.0..));
        let any = is_error(figure.a) || is_error(figure.b);
        figures.push(if any { figure.said() } else { figure });
    }
    figures.extend(times(a, b));
    let during = |run: &Record| {
        run.probes_during().and_then(|probes| share_of(probes.answered, probes.sent))
    };
    figures.push(
        Figure::new("honest requests answered during the flood", percent, during, a, b).said(),
    );
    figures.extend([
        new("messages lost", whole, |run| Some(run.delivery.as_ref()?.lost as f64)).said(),
        new("messages out of order", whole, |run| Some(run.delivery.as_ref()?.out_of_order as f64)),
        new("connections open at the peak", whole, |run| Some(run.connections.open_at_peak as f64)),
        new("connections open at the end", whole, |run| Some(run.connections.open_at_end as f64)),
        new("connections failed", whole, |run| {
            Some(run.connections.failed.values().sum::<u64>() as f64)
        }),
        new("connections closed by the server", whole, |run| {
            Some(run.connections.closed_by_server as f64)
        }),
        Figure::new("user memory per connection", bytes, Record::user_memory, a, b).said(),
        new("kernel memory per connection", bytes, |run| {
            run.held_server()?.kernel_bytes_per_connection
        })
        .said(),
        new("server's processor time per answer", time, |run| {
            let seconds = run.server.as_ref()?.cpu_s?;
            (run.requests.answered > 0).then(|| seconds * 1e6 / run.requests.answered as f64)
        })
        .said(),
        new(
            "memory given back after the flood",
            |seconds| time(seconds * 1e6),
            |run| run.reclaim_s,
        ),
        new(
            "generator's share of a processor",
            |share| percent(share * 100.0),
            |run| Some(run.generator.cpu_share),
        ),
    ]);
    figures.retain(|figure| !figure.is_missing());
    figures
}

/// Percentiles of requests that have a sentence.
const TOLD_PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

fn times(a: &Record, b: &Record) -> Vec<Figure> {
    let measured = [distributions(a), distributions(b)].concat();
    let percents = percents(&measured);
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in &measured {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut figures = Vec::new();
    for name in names {
        let of = |record: &Record| {
            Some(distributions(record).into_iter().find(|(own, _)| own == name)?.1.clone())
        };
        figures.push(Figure::new(
            &format!("mean of {name}"),
            time,
            |run| Some(of(run)?.mean_us),
            a,
            b,
        ));
        for percent in &percents {
            let at = |run: &Record| of(run)?.at(*percent);
            let figure =
                Figure::new(&format!("{} of {name}", percentile(*percent)), time, at, a, b);
            // Other distributions have a sentence for one percentile only.
            let told = TOLD_PERCENTILES.contains(percent)
                && (name.as_str() == "requests" || *percent == 99.0);
            figures.push(if told { figure.said() } else { figure });
        }
        figures.push(Figure::new(
            &format!("max of {name}"),
            time,
            |run| Some(of(run)?.max_us),
            a,
            b,
        ));
    }
    figures
}

fn figures_table(figures: &[Figure]) -> Table {
    let row = |figure: &Figure| {
        let cell = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        let (a, b) = (figure.text(figure.a), figure.text(figure.b));
        vec![figure.name.clone(), cell(a), cell(b), cell(figure.difference())]
    };
    Table::new("", "| A | B | A against B", figures.iter().map(row))
}

fn runs_table(file_a: &str, a: &Record, file_b: &str, b: &Record) -> Table {
    let rows = [
        ("file", file_a.to_string(), file_b.to_string()),
        ("target", a.target.clone(), b.target.clone()),
        ("started", date(a.started), date(b.started)),
        ("measured for", time(a.duration_s * 1e6), time(b.duration_s * 1e6)),
        ("by slabd", a.version.clone(), b.version.clone()),
    ];
    Table::new("The runs", "| A | B", rows.map(|(name, a, b)| vec![name.to_string(), a, b]))
}

fn differing_table(differing: &[Differing]) -> Option<Table> {
    let rows = differing
        .iter()
        .map(|differing| vec![differing.name.clone(), differing.a.clone(), differing.b.clone()]);
    (!differing.is_empty()).then(|| Table::new("Parameters that differ", "| A | B", rows))
}

#[cfg(test)]
mod tests {
    use super::super::record::{FORMAT, Latency, Percentile, Requests, Sample, ServerMemory};
    use super::*;
    use crate::report::text;

    fn run(p99: f64, answers: u64) -> Record {
        Record {
            format: FORMAT,
            shape: "ping".into(),
            target: format!("resp://127.0.0.1:{answers}"),
            parameters: [("connections", "50"), ("rate", "1k")]
                .map(|(flag, value)| (flag.into(), value.into()))
                .into(),
            requests: Requests {
                sent: answers,
                answered: answers,
                rate: answers as f64,
                ..Requests::default()
            },
            latency: Some(Latency {
                count: answers,
                mean_us: 100.0,
                max_us: p99 * 2.0,
                percentiles: vec![Percentile { percent: 99.0, us: p99 }],
                ..Latency::default()
            }),
            samples: (0..3)
                .map(|n| Sample { t_s: n.into(), rate: answers as f64, ..Sample::default() })
                .collect(),
            ..Record::default()
        }
    }

    /// Returns the page as text with single spaces.
    fn words(page: &Page) -> String {
        text::text(page).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn two_runs_of_one_load_are_compared_in_words_and_figures() {
        let (a, b) = (run(1200.0, 3000), run(1500.0, 1000));
        let page = compare("a.json", &a, "b.json", &b);
        let words = words(&page);
        for expected in [
            "slabd stress compare a.json b.json A is a.json: slabd stress ping \
             resp://127.0.0.1:3000. B is b.json:",
            "holds A and B can be compared",
            "p99 of requests: 1.20 ms in A against 1.50 ms in B, 20 % less in A.",
            "rate of answers: 3,000/s in A against 1,000/s in B, 3.00 times as much in A.",
            "p99 of requests 1.20 ms 1.50 ms 20 % less in A",
            "mean of requests 100 µs 100 µs the same",
            "target resp://127.0.0.1:3000 resp://127.0.0.1:1000",
            "A answers ▄▄▄ 3,000 B answers ▄▄▄ 1,000",
        ] {
            assert!(words.contains(expected), "no {expected:?} in {words}");
        }
        for absent in [
            "differ in",
            "Parameters that differ",
            "saturated",
            "interrupted",
            "lost",
            "memory per",
        ] {
            assert!(!words.contains(absent), "{absent} in {words}");
        }
    }

    #[test]
    fn the_page_lists_the_differences_between_two_loads() {
        let (a, mut b) = (run(1.0, 10), run(1.0, 10));
        b.shape = "hold".into();
        b.target = "http://127.0.0.1:80".into();
        b.parameters = [("connections", "60"), ("html", "b.html"), ("pid", "7")]
            .map(|(flag, value)| (flag.into(), value.into()))
            .into();
        let page = compare("a.json", &a, "b.json", &b);
        let Section::Verdict(verdict) = &page.sections[0] else { panic!("{page:?}") };
        assert_eq!(verdict.outcome, Outcome::Fails);
        assert_eq!(
            verdict.measured,
            "they differ in kind of target (resp in A, http in B), shape (ping in A, hold in B), \
             --connections (50 in A, 60 in B), --rate (1k in A, not given in B)"
        );
        let words = words(&page);
        assert!(
            words.contains("Parameters that differ A B kind of target resp http shape ping hold"),
            "{words}"
        );
        // Files, process numbers and the server's address do not change the load.
        b = run(1.0, 10);
        b.target = "resp://127.0.0.2:1".into();
        b.parameters.extend([
            ("html".to_string(), "b.html".to_string()),
            ("--pid".to_string(), "7".to_string()),
        ]);
        assert_eq!(differing(&a, &b), []);
    }

    #[test]
    fn a_figure_of_one_run_is_not_measured_in_the_other() {
        let (a, mut b) = (run(1000.0, 10), run(1000.0, 10));
        b.latency = None;
        b.server = Some(ServerMemory {
            connections: 5,
            user_bytes_per_connection: Some(44.0),
            ..ServerMemory::default()
        });
        b.interrupted = true;
        b.generator.saturated = true;
        let words = words(&compare("a", &a, "b", &b));
        for expected in [
            "p99 of requests: 1.00 ms in A, not measured in B.",
            "user memory per connection: not measured in A, 44 B in B.",
            "p99 of requests 1.00 ms – –",
            "B was interrupted",
            "The generator of B was saturated",
        ] {
            assert!(words.contains(expected), "no {expected:?} in {words}");
        }
        assert!(!words.contains("A was interrupted"));
    }

    #[test]
    fn memory_too_small_to_measure_is_compared_as_a_bound() {
        let with = |user: Option<f64>| {
            let mut run = run(1000.0, 10);
            run.server = Some(ServerMemory {
                connections: 16_384,
                rss_resolution: 16_384,
                user_bytes_per_connection: user,
                ..ServerMemory::default()
            });
            run
        };
        for (a, b, sentence) in [
            (None, Some(44.0), "below 1 B in A against 44 B in B, less in A."),
            (Some(1.0), None, "1 B in A against below 1 B in B, more in A."),
            (None, None, "below 1 B in A against below 1 B in B, too little to compare."),
            (Some(-9.0), Some(44.0), "below 1 B in A against 44 B in B, less in A."),
        ] {
            let words = words(&compare("a", &with(a), "b", &with(b)));
            let expected = format!("user memory per connection: {sentence}");
            assert!(words.contains(&expected), "no {expected:?} in {words}");
        }
    }

    #[test]
    fn a_difference_is_that_of_a_from_b() {
        for (a, b, words) in [
            (5.0, 5.0, "the same"),
            (0.0, 0.0, "the same"),
            (1.2, 1.5, "20 % less in A"),
            (1.5, 1.2, "25 % more in A"),
            (1.0, 1.005, "less than 1 % apart"),
            (1.99, 1.0, "99 % more in A"),
            (2.0, 1.0, "2.00 times as much in A"),
            (1.0, 10.0, "90 % less in A"),
            (0.0, 3.0, "100 % less in A"),
            (3.0, 0.0, "more in A"),
            (-3.0, 4.0, "less in A"),
            (-3.0, -4.0, "25 % more in A"),
        ] {
            assert_eq!(difference(a, b), words, "{a} against {b}");
        }
    }

    #[test]
    fn the_error_for_an_unreadable_file_names_it() {
        let error =
            compare_files(Path::new("/nonexistent/a.json"), Path::new("/nonexistent/b.json"))
                .unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/a.json"), "{error:#}");
    }
}
