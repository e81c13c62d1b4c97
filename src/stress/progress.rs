//! The progress of a run: a bar on a terminal, else a line per second.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::Plan;
use super::record::Sample;
use super::run::Observer;
use crate::report::figures::{count, rate, time};
use crate::terminal;

/// Seconds between two lines.
const LINE_EVERY_S: f64 = 1.0;

const TEMPLATE: &str = "{elapsed:>4} {bar:24} {msg}";

/// Shows the samples of a run on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    last_line_s: f64,
}

impl Progress {
    pub fn new(plan: &Plan) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let length = u64::try_from(plan.expected().as_millis()).unwrap_or(u64::MAX);
            // Samples redraw the bar, because the bar's own ticker would start a thread.
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            bar.with_style(
                ProgressStyle::with_template(TEMPLATE)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Progress { bar, last_line_s: 0.0 }
    }

    /// Removes the bar.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn sampled(&mut self, plan: &Plan, sample: &Sample) {
        if let Some(bar) = &self.bar {
            bar.set_message(words(plan, sample));
            bar.set_position(Duration::from_secs_f64(sample.t_s).as_millis() as u64);
        } else if sample.t_s - self.last_line_s >= LINE_EVERY_S {
            self.last_line_s = sample.t_s;
            terminal::tell(&format!("{:6.1} s  {}", sample.t_s, words(plan, sample)));
        }
    }
}

/// Describes a sample: connections, rate, and percentiles since the last sample.
fn words(plan: &Plan, sample: &Sample) -> String {
    let mut words =
        vec![format!("{} of {} open", count(sample.open), count(plan.connections as u64))];
    for (number, what) in [
        (sample.connecting, "connecting"),
        (sample.failed, "failed"),
        (sample.closed_by_server, "closed by server"),
    ] {
        if number > 0 {
            words.push(format!("{} {what}", count(number)));
        }
    }
    if sample.rate > 0.0 {
        words.push(rate(sample.rate));
    }
    for (name, us) in [("p50", sample.p50_us), ("p99", sample.p99_us)] {
        words.extend(us.map(|us| format!("{name} {}", time(us))));
    }
    if sample.errors > 0 {
        words.push(format!("{} errors", count(sample.errors)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_described_without_its_zeros() {
        let plan = Plan::of("ping", "tcp://127.0.0.1:9").unwrap();
        let quiet = Sample { open: 3, ..Sample::default() };
        assert_eq!(words(&plan, &quiet), "3 of 50 open");
        let busy = Sample {
            open: 1234,
            failed: 2,
            rate: 1000.0,
            p99_us: Some(2500.0),
            errors: 1,
            ..Sample::default()
        };
        let said = words(&plan, &busy);
        for part in ["1,234 of 50 open", "2 failed", "/s", "p99 2.50 ms", "1 errors"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
