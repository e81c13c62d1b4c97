//! The plots of one run, or of several on common axes.

use super::record::{Record, Sample};
use crate::report::{Plot, Series};

/// A run and the prefix of its lines where there are several runs, such as `A`.
#[derive(Clone, Copy)]
pub struct NamedRecord<'a> {
    pub name: &'a str,
    pub record: &'a Record,
}

const MIB: f64 = 1_048_576.0;

/// Share of the highest number of connections from which memory per connection is plotted. With
/// fewer connections, the pages that a server touches anyway would dominate the figure.
const FEW: f64 = 0.02;

/// The points of a line, in ascending order of x.
type Points = Vec<(f64, Option<f64>)>;

/// A named line of one run.
struct Line {
    name: String,
    points: Points,
}

/// Returns the plots of these runs, without those that would be empty.
pub fn plots(runs: &[NamedRecord<'_>]) -> Vec<Plot> {
    let plots = [
        plot("Connections", "seconds", "connections", false, connections(runs)),
        plot(
            "Rate of answers",
            "seconds",
            "answers per second",
            false,
            over_time(runs, "answers", |sample| some(sample.rate)),
        ),
        plot(
            "Errors",
            "seconds",
            "errors so far",
            false,
            over_time(runs, "errors", |s| some(s.errors as f64)),
        ),
        plot("Times of requests", "seconds", "milliseconds", true, times(runs)),
        plot(
            "Times at the rates tried",
            "requests per second, asked for",
            "milliseconds",
            true,
            trials(runs),
        ),
        plot("Memory", "seconds", "MiB", false, memory(runs)),
        plot(
            "Memory per connection",
            "connections",
            "bytes per connection",
            false,
            per_connection(runs),
        ),
    ];
    plots.into_iter().flatten().collect()
}

fn plot(
    title: &str,
    x_label: &str,
    y_label: &str,
    y_is_logarithmic: bool,
    lines: Vec<Line>,
) -> Option<Plot> {
    // A line needs two points, and a line along the bottom shows nothing.
    let drawn = |line: &Line| {
        let values = line.points.iter().filter_map(|(_, value)| *value);
        values.clone().count() > 1 && values.into_iter().any(|value| value != 0.0)
    };
    let lines: Vec<Line> = lines.into_iter().filter(drawn).collect();
    if lines.is_empty() {
        return None;
    }
    let mut x: Vec<f64> =
        lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)).collect();
    x.sort_by(f64::total_cmp);
    x.dedup();
    let series = lines
        .into_iter()
        .map(|line| Series { values: on_axis(&line.points, &x), name: line.name })
        .collect();
    Some(Plot {
        title: title.into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        y_is_logarithmic,
        x,
        series,
    })
}

/// Returns the line's values at the points of the axis, so that lines sampled at different moments
/// share it. Between two points of the line, values are interpolated; in its gaps and outside of it
/// there are none.
fn on_axis(points: &Points, x: &[f64]) -> Vec<Option<f64>> {
    let at = |x: f64| {
        let next = points.partition_point(|(own, _)| *own < x);
        let (after_x, after) = *points.get(next)?;
        if after_x == x {
            return after;
        }
        let (before_x, before) = *points.get(next.checked_sub(1)?)?;
        let part = (x - before_x) / (after_x - before_x);
        Some(before? + (after? - before?) * part)
    };
    x.iter().map(|x| at(*x)).collect()
}

fn some(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Returns a line over time for each run.
fn over_time(
    runs: &[NamedRecord<'_>],
    what: &str,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Vec<Line> {
    let line = |run: &NamedRecord<'_>| {
        let mut points: Points =
            run.record.samples.iter().map(|sample| (sample.t_s, value(sample))).collect();
        points.retain(|(t, _)| t.is_finite());
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|later, earlier| later.0 == earlier.0);
        Line { name: named(run, what), points }
    };
    runs.iter().map(line).collect()
}

fn named(run: &NamedRecord<'_>, what: &str) -> String {
    if run.name.is_empty() { what.into() } else { format!("{} {what}", run.name) }
}

fn connections(runs: &[NamedRecord<'_>]) -> Vec<Line> {
    let mut lines = over_time(runs, "open", |sample| some(sample.open as f64));
    lines.extend(over_time(runs, "connecting", |sample| some(sample.connecting as f64)));
    lines.extend(over_time(runs, "failed so far", |sample| some(sample.failed as f64)));
    lines.extend(over_time(runs, "closed by the server so far", |sample| {
        some(sample.closed_by_server as f64)
    }));
    lines
}

/// Drops values that a logarithmic axis cannot show.
fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value > 0.0)
}

fn times(runs: &[NamedRecord<'_>]) -> Vec<Line> {
    let milliseconds = |us: Option<f64>| positive(us.map(|us| us / 1e3));
    let mut lines = over_time(runs, "p50", |sample| milliseconds(sample.p50_us));
    lines.extend(over_time(runs, "p99", |sample| milliseconds(sample.p99_us)));
    lines.extend(over_time(runs, "max", |sample| milliseconds(sample.max_us)));
    lines
}

fn trials(runs: &[NamedRecord<'_>]) -> Vec<Line> {
    let line = |run: &NamedRecord<'_>| {
        let points = run
            .record
            .trials
            .iter()
            .map(|trial| (trial.asked_rate, positive(Some(trial.p99_us / 1e3))));
        let mut points: Points = points.filter(|(rate, _)| rate.is_finite()).collect();
        // If a rate was tried twice, the last trial counts.
        points.reverse();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|later, earlier| later.0 == earlier.0);
        Line { name: named(run, "p99"), points }
    };
    runs.iter().map(line).collect()
}

fn memory(runs: &[NamedRecord<'_>]) -> Vec<Line> {
    let mut lines = over_time(runs, "server", |sample| Some(sample.server_rss? as f64 / MIB));
    lines.extend(over_time(runs, "kernel, both ends", |sample| {
        Some(sample.kernel_bytes? as f64 / MIB)
    }));
    lines
}

/// Returns the memory per connection while the number of connections grows. Growth of less than
/// `least` bytes is a gap, because it cannot be told from noise.
fn per_connection(runs: &[NamedRecord<'_>]) -> Vec<Line> {
    let line = |run: &NamedRecord<'_>,
                what: &str,
                (before, least): (Option<u64>, u64),
                held: &dyn Fn(&Sample) -> Option<u64>| {
        let samples = &run.record.samples;
        let few = samples.iter().map(|sample| sample.open).max().unwrap_or(0) as f64 * FEW;
        let mut most = 0;
        let growing = samples.iter().filter(|sample| {
            let grows = sample.open > most;
            most = most.max(sample.open);
            grows && sample.open as f64 >= few
        });
        let point = |sample: &Sample| {
            let growth = held(sample)
                .zip(before)
                .and_then(|(bytes, before)| bytes.checked_sub(before))
                .filter(|growth| *growth >= least);
            (sample.open as f64, growth.map(|growth| growth as f64 / sample.open as f64))
        };
        Line { name: named(run, what), points: growing.map(point).collect() }
    };
    let user = |run: &NamedRecord<'_>| {
        let server = run.record.server.as_ref();
        let before = server.map(|server| server.rss_before);
        let least = server.map_or(0, |server| server.rss_resolution);
        line(run, "user, server", (before, least), &|sample| sample.server_rss)
    };
    let kernel = |run: &NamedRecord<'_>| {
        line(run, "kernel, both ends", (Some(0), 0), &|sample| sample.kernel_bytes)
    };
    runs.iter().map(user).chain(runs.iter().map(kernel)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{ServerMemory, Trial};
    use super::*;

    /// Returns the record of a ramp of 100 connections per second up to 300, and of two more
    /// seconds.
    fn ramp() -> Record {
        let sample = |n: u64| Sample {
            t_s: n as f64 / 2.0,
            open: (n * 50).min(300),
            rate: 10.0 * n as f64,
            p50_us: (n > 0).then_some(100.0),
            p99_us: (n > 0).then_some(900.0),
            max_us: Some(0.0),
            server_rss: Some((1 << 20) + (n * 50).min(300) * 44),
            kernel_bytes: Some((n * 50).min(300) * 8000),
            ..Sample::default()
        };
        Record {
            samples: (0..=10).map(sample).collect(),
            server: Some(ServerMemory { rss_before: 1 << 20, ..ServerMemory::default() }),
            ..Record::default()
        }
    }

    fn names(plot: &Plot) -> Vec<&str> {
        plot.series.iter().map(|series| series.name.as_str()).collect()
    }

    #[test]
    fn a_run_is_plotted_without_empty_plots() {
        let record = ramp();
        let plots = plots(&[NamedRecord { name: "", record: &record }]);
        let found: Vec<(&str, Vec<&str>)> =
            plots.iter().map(|plot| (plot.title.as_str(), names(plot))).collect();
        assert_eq!(
            found,
            [
                ("Connections", vec!["open"]),
                ("Rate of answers", vec!["answers"]),
                ("Times of requests", vec!["p50", "p99"]),
                ("Memory", vec!["server", "kernel, both ends"]),
                ("Memory per connection", vec!["user, server", "kernel, both ends"]),
            ]
        );
        for plot in &plots {
            assert!(
                plot.x.is_sorted()
                    && plot.series.iter().all(|series| series.values.len() == plot.x.len())
            );
        }
        assert_eq!((plots[2].y_is_logarithmic, plots[0].y_is_logarithmic), (true, false));
        assert_eq!(plots[2].series[1].values[..2], [None, Some(0.9)]);
        // Each number of connections has one point of 44 bytes.
        assert_eq!(plots[4].x, [50.0, 100.0, 150.0, 200.0, 250.0, 300.0]);
        assert!(plots[4].series[0].values.iter().all(|value| *value == Some(44.0)));
        assert!(plots[4].series[1].values.iter().all(|value| *value == Some(8000.0)));
        assert!(super::plots(&[NamedRecord { name: "", record: &Record::default() }]).is_empty());
    }

    #[test]
    fn two_runs_share_the_axis() {
        let (a, mut b) = (ramp(), ramp());
        b.samples.iter_mut().for_each(|sample| sample.t_s += 0.25);
        b.samples[4].rate = f64::NAN;
        let plots =
            plots(&[NamedRecord { name: "A", record: &a }, NamedRecord { name: "B", record: &b }]);
        let rate = plots.iter().find(|plot| plot.title == "Rate of answers").unwrap();
        assert_eq!(names(rate), ["A answers", "B answers"]);
        assert_eq!(rate.x[..4], [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(rate.series[0].values[..4], [Some(0.0), Some(5.0), Some(10.0), Some(15.0)]);
        assert_eq!(rate.series[1].values[..4], [None, Some(0.0), Some(5.0), Some(10.0)]);
        // B has no values in its gap, and A none after its end.
        let at = |x: f64| rate.x.iter().position(|own| *own == x).unwrap();
        for gap in [2.0, 2.25, 2.5] {
            assert_eq!(rate.series[1].values[at(gap)], None);
        }
        assert_eq!(rate.series[1].values[at(1.75)], Some(30.0));
        assert_eq!(rate.series[1].values[at(2.75)], Some(50.0));
        assert_eq!(rate.series[0].values[at(5.25)], None);
        assert_eq!(rate.series[0].values[at(5.0)], Some(100.0));
    }

    #[test]
    fn the_rates_tried_are_sorted_and_the_last_trial_of_each_counts() {
        let trial = |asked_rate: f64, p99_us: f64| Trial { asked_rate, p99_us, ..Trial::default() };
        let record = Record {
            trials: vec![
                trial(1000.0, 500.0),
                trial(4000.0, 9000.0),
                trial(2000.0, 800.0),
                trial(4000.0, 7000.0),
            ],
            ..Record::default()
        };
        let plots = plots(&[NamedRecord { name: "", record: &record }]);
        assert_eq!(plots[0].x, [1000.0, 2000.0, 4000.0]);
        assert_eq!(plots[0].series[0].values, [Some(0.5), Some(0.8), Some(7.0)]);
    }

    #[test]
    fn growth_below_the_resolution_and_shrinking_are_gaps() {
        let mut record = ramp();
        record.server.as_mut().unwrap().rss_resolution = 100 * 44;
        record.samples[2].server_rss = Some(1000);
        record.samples[3].server_rss = Some((1 << 20) + 100 * 44);
        record.samples[4].server_rss = Some((1 << 20) + 100 * 44 - 1);
        let plots = plots(&[NamedRecord { name: "", record: &record }]);
        let user = &plots.last().unwrap().series[0].values;
        assert_eq!(user[..4], [None, None, Some(4400.0 / 150.0), None]);
        assert_eq!(user[4], Some(44.0));
    }

    #[test]
    fn the_first_few_connections_are_not_plotted() {
        let mut record = ramp();
        record
            .samples
            .insert(0, Sample { open: 1, server_rss: Some(2 << 20), ..Sample::default() });
        let plots = plots(&[NamedRecord { name: "", record: &record }]);
        assert_eq!(plots.last().unwrap().x[0], 50.0);
    }
}
