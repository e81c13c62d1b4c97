//! The report line and the status table of SIGUSR1, rendered from the counters of the loop.

use std::fmt::Write;
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::metrics::{Metric, MetricValue};
use crate::net::Net;
use crate::reactor::{Reactor, per_connection};
use crate::stats::Stats;

/// Writes reports. It remembers the counters of the last report to compute rates.
pub struct Reporter {
    last: Stats,
    last_time: Time,
    last_cpu: Duration,
}

impl Reporter {
    /// Creates a reporter whose first report covers the time from `now`.
    pub fn new(now: Time) -> Reporter {
        Reporter { last: Stats::default(), last_time: now, last_cpu: Clock::cpu_time() }
    }

    /// Returns one line about the time since the last report.
    pub fn report<N: Net>(&mut self, reactor: &Reactor<N>) -> String {
        let (now, cpu, stats) = (reactor.now(), Clock::cpu_time(), reactor.stats().clone());
        let seconds = now.since(self.last_time).as_secs_f64().max(1e-9);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let busy = (cpu.saturating_sub(self.last_cpu)).as_secs_f64() / seconds;
        let line = format!(
            "{} connections, {} user and {} kernel bytes each, {:.0} turns/s, {:.0} messages/s, \
             {:.0} datagrams/s, {:.1} % busy",
            reactor.connections(),
            MetricValue::from(per_connection(
                reactor.ledger().for_connections(),
                reactor.connections()
            )),
            MetricValue::from(reactor.kernel_bytes_each()),
            rate(stats.turns, self.last.turns),
            rate(stats.work.messages, self.last.work.messages),
            rate(stats.datagrams_in, self.last.datagrams_in),
            100.0 * busy,
        );
        (self.last, self.last_time, self.last_cpu) = (stats, now, cpu);
        line
    }

    /// Returns all metrics as a table.
    pub fn status<N: Net>(&self, reactor: &Reactor<N>) -> String {
        let mut text = String::new();
        for section in reactor.metrics(&|_| true) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {}", section.title);
            for Metric { title, value, .. } in section.list {
                let _ = write!(text, "\n    {title:<34} {value:>14}");
            }
        }
        text
    }
}
