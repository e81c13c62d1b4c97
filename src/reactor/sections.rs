//! The loop's metrics, section by section. A section is computed when it is asked for, from
//! counters and from the kernel. No turn runs this code, and nothing here walks all connections.

use super::Reactor;
use super::core::Core;
use crate::admission::Refusal;
use crate::clock::{Clock, Tick};
use crate::connection::{Reason, State};
use crate::kernel;
use crate::limits::KERNEL_SAMPLE;
use crate::log_lines;
use crate::memory;
use crate::metrics::MetricKind::{Counter, Gauge};
use crate::metrics::MetricUnit::{
    Bytes, Connections, Count, Datagrams, Messages, Microseconds, Milliseconds, Nanoseconds,
    Percent, Seconds,
};
use crate::metrics::{self, Metric, MetricSection, MetricValue, Metrics};
use crate::net::Net;
use crate::stats::Work;

impl<N: Net> Reactor<N> {
    /// Computes the sections whose titles are wanted, in the order of reading.
    pub fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        self.core.metrics(wanted)
    }

    /// Returns the kernel's bytes per connection: its structures, and the mean buffers of a sample.
    /// Returns `None` without connections.
    pub fn kernel_bytes_each(&self) -> Option<u64> {
        Some(self.core.start.kernel_objects.bytes + self.core.kernel_buffer_bytes()?)
    }
}

impl<N: Net> Core<N> {
    const SECTIONS: [MetricSection<Self>; 11] = [
        ("process", Self::process_section),
        ("connections", Self::connections_section),
        ("admission", Self::admission_section),
        ("closed by reason", Self::closed_section),
        ("accept queues", Self::listeners_section),
        ("user memory, bytes", Self::user_memory_section),
        ("kernel memory, bytes", Self::kernel_memory_section),
        ("kernel", Self::kernel_section),
        ("timers", Self::timers_section),
        ("loop", Self::loop_section),
        ("datagrams", Self::datagrams_section),
    ];

    /// Computes the sections whose titles are wanted, in the order of reading.
    pub fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        metrics::compute(self, &Self::SECTIONS, wanted)
    }

    /// Returns the mean bytes of kernel buffers over a sample. Returns `None` without connections.
    fn kernel_buffer_bytes(&self) -> Option<u64> {
        let step = self.slots_used.div_ceil(KERNEL_SAMPLE).max(1);
        let sampled = (0..self.slots_used).step_by(step).filter_map(|slot| {
            let connection = self.connections.get(slot)?;
            self.net.buffer_bytes(&connection.stream).ok()
        });
        let (count, sum) = sampled.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        (count > 0).then(|| sum / count)
    }

    fn process_section(&self, metrics: &mut Metrics) {
        metrics.text("version", env!("CARGO_PKG_VERSION").into(), "Version of slabd.");
        let started = self.start.system_time.as_secs();
        metrics.gauges([("start time, s", Seconds, started, "Unix time of the start.")]);
    }

    fn connections_section(&self, metrics: &mut Metrics) {
        let (stats, most) = (&self.stats, self.limits.max_connections as u64);
        metrics.gauges([
            ("held", Connections, self.connections.len() as u64, "Open connections."),
            ("max-connections", Connections, most, "Maximum number of open connections."),
        ]);
        let states = State::NAMES.into_iter().zip(stats.states);
        let help = "Connections in this state.";
        metrics.family((Gauge, Connections), ("connections", "state"), "", help, states);
        let over_budget = stats.accept_over_budget;
        let gate = format!("{:?}", self.admission.gate).to_lowercase();
        metrics.text("accept gate", gate, "State of the accept gate: open, full or exhausted.");
        metrics.counters([
            ("accepted", Connections, stats.accepted, "Connections accepted into a slot."),
            (
                "accept aborted",
                Connections,
                stats.accept_aborted,
                "Connections that ended before accept.",
            ),
            (
                "accept exhausted",
                Count,
                stats.accept_exhausted,
                "Failed accepts: no file or memory.",
            ),
            ("accept shed", Connections, stats.accept_shed, "Closed because no file was free."),
            ("accept over budget", Connections, over_budget, "Closed because of memory-budget."),
            ("evicted", Connections, stats.evicted, "Closed for holding the most memory."),
            ("dialled", Connections, stats.dialled, "Connections that the server opened itself."),
            ("dials failed", Count, stats.dials_failed, "Dials that opened no connection."),
        ]);
    }

    fn admission_section(&self, metrics: &mut Metrics) {
        let (stats, limits) = (&self.stats, &self.limits);
        let dry = if limits.admission_dry_run { ", dry run" } else { "" };
        let policy = format!("{}{dry}", limits.admission);
        metrics.text("policy", policy, "Policy for newcomers when the silent set is full.");
        let (silent, most) = (self.admission.silent() as u64, limits.max_silent as u64);
        let age = (Tick::LENGTH * stats.eviction_age_ticks).as_millis() as u64;
        let (sources, penalised) = self.admission.sources.totals(self.now.tick());
        metrics.gauges([
            ("silent", Connections, silent, "Connections in the silent set."),
            ("max-silent", Connections, most, "Maximum size of the silent set."),
            ("eviction age, ms", Milliseconds, age, "Silence of the last recycled connection."),
            ("sources", Count, sources as u64, "Sources with open connections."),
            (
                "sources penalised",
                Count,
                penalised as u64,
                "Sources with a smaller share, by penalty.",
            ),
        ]);
        let help = "Silent connections recycled for newcomers; in a dry run, only counted.";
        metrics.counters([("recycled", Connections, stats.recycled, help)]);
        let refused = Refusal::ALL.map(|(_, name)| name).into_iter().zip(stats.refused);
        let (name, help) =
            (("connections_refused", "reason"), "Newcomers refused for this reason.");
        metrics.family((Counter, Connections), name, "refused, ", help, refused);
    }

    fn closed_section(&self, metrics: &mut Metrics) {
        let closed = Reason::ALL.map(|(_, name)| name).into_iter().zip(self.stats.closed);
        let help = "Connections closed for this reason.";
        metrics.family((Counter, Connections), ("connections_closed", "reason"), "", help, closed);
        let help = "Connections that the server reset.";
        metrics.counters([("of all, by a reset", Connections, self.stats.resets, help)]);
    }

    fn listeners_section(&self, metrics: &mut Metrics) {
        for listener in &self.listeners {
            let Ok((waiting, backlog)) = self.net.accept_queue(&listener.handle) else { continue };
            let address = listener.address.to_string();
            let row = |title: String, name, help, value: u32| Metric {
                title: title.into(),
                family: Some((name, "listener", address.clone())),
                kind: Gauge,
                unit: Connections,
                help,
                value: u64::from(value).into(),
            };
            let waits = format!("{address} waiting, of {backlog}");
            let (help, most) = ("Connections in the accept queue.", "Length of the accept queue.");
            metrics.list.push(row(waits, "accept_queue_connections", help, waiting));
            metrics.list.push(row(format!("{address} most"), "accept_queue_max", most, backlog));
        }
    }

    fn user_memory_section(&self, metrics: &mut Metrics) {
        let (ledger, count) = (self.ledger(), self.connections.len());
        let kinds = ledger.kinds().map(|(kind, bytes)| (kind, bytes as u64));
        let help = "User memory of this kind.";
        metrics.family((Gauge, Bytes), ("user_memory", "kind"), "", help, kinds);
        let bytes = ledger.for_connections();
        metrics.gauges([
            (
                "ledger, without fixed",
                Bytes,
                Some(bytes as u64),
                "User memory of all kinds except fixed.",
            ),
            (
                "per connection",
                Bytes,
                per_connection(bytes, count),
                "All kinds except fixed, per connection.",
            ),
        ]);
        let resident = self.readings.resident_bytes.get(self.now, || self.net.resident_bytes());
        if let Some(resident) = resident {
            let grown = resident.saturating_sub(self.start.resident_bytes);
            let each = per_connection(grown as usize, count);
            metrics.gauges([
                ("resident set", Bytes, Some(resident), "Resident memory of the process."),
                (
                    "grown since start",
                    Bytes,
                    Some(grown),
                    "Growth of resident memory since the start.",
                ),
                ("grown per connection", Bytes, each, "Growth of resident memory per connection."),
            ]);
        }
    }

    fn kernel_memory_section(&self, metrics: &mut Metrics) {
        let objects = self.start.kernel_objects;
        let title = match objects.measured {
            true => "structures per connection",
            false => "structures per connection, assumed",
        };
        metrics.gauges([(title, Bytes, objects.bytes, "Kernel structures of one connection.")]);
        if let Some(each) = self.kernel_buffer_bytes() {
            let all = (objects.bytes + each) * self.connections.len() as u64;
            metrics.gauges([
                ("buffers per connection", Bytes, each, "Mean buffers of a sample of connections."),
                ("connections, estimated", Bytes, all, "Kernel memory of all connections."),
            ]);
        }
        let tcp = self.readings.tcp_sockets.get(self.now, memory::tcp_socket_statistics);
        if let Some(tcp) = tcp {
            metrics.gauges([
                (
                    "system TCP buffers",
                    Bytes,
                    tcp.buffer_bytes,
                    "TCP buffers of this network namespace.",
                ),
                ("system TCP sockets", Count, tcp.in_use, "TCP sockets of this network namespace."),
            ]);
        }
    }

    /// Adds the kernel's settings and counters that concern floods. They cover the whole network
    /// namespace, not only this process.
    fn kernel_section(&self, metrics: &mut Metrics) {
        let row = |(name, value, help)| (name, Count, value, help);
        let settings = self.readings.kernel_settings.get(self.now, kernel::settings);
        metrics.gauges(settings.rows().map(row));
        let counters = self.readings.kernel_counters.get(self.now, || self.net.kernel_counters());
        metrics.counters(counters.since(&self.start.kernel_counters).map(row));
    }

    fn timers_section(&self, metrics: &mut Metrics) {
        let (armed, stats) = (self.timers.armed() as u64, &self.stats);
        metrics.gauges([("armed", Count, armed, "Timers in the wheel.")]);
        metrics.counters([
            ("fired", Count, stats.timers_fired, "Timers whose deadline had passed."),
            ("early", Count, stats.timers_early, "Timers that fired early and were armed again."),
            ("stops", Count, stats.stops, "Times that the process did not run for over 100 ms."),
        ]);
    }

    fn loop_section(&self, metrics: &mut Metrics) {
        let (stats, uptime) = (&self.stats, self.now.as_secs_f64());
        let busy = stats.busy().as_micros() as u64;
        let processor = Clock::cpu_time().as_millis() as u64;
        metrics.counters([
            ("log lines dropped", Count, log_lines::dropped(), "Lines lost to slow log output."),
            ("turns", Count, stats.turns, "Turns of the loop."),
            ("events", Count, stats.events, "Readiness events from the kernel."),
            ("busy, us", Microseconds, busy, "Time spent in turns, without poll's wait."),
            ("stale events", Count, stats.stale_events, "Events for connections that were gone."),
            ("carried", Count, stats.carried, "Work that a budget left for the next turn."),
            ("messages", Messages, stats.work.messages, "Complete messages on streams."),
            ("deliveries", Count, stats.work.deliveries, "Deliveries of output to connections."),
            ("reads", Count, stats.work.reads, "Read calls on connections."),
            ("writes", Count, stats.work.writes, "Write calls on connections."),
            ("short writes", Count, stats.short_writes, "Writes that the kernel took in part."),
            ("bytes in", Bytes, stats.bytes_in, "Bytes read from connections."),
            ("bytes out", Bytes, stats.bytes_out, "Bytes written to connections."),
            ("memory given back", Count, stats.trims, "Trims of unused memory."),
            ("processor time, ms", Milliseconds, processor, "Processor time of the process."),
        ]);
        let per_turn = MetricValue::Ratio(stats.events as f64 / stats.turns.max(1) as f64);
        let share = MetricValue::Ratio(100.0 * stats.busy().as_secs_f64() / uptime.max(1e-9));
        let longest = (stats.longest_turn.span.as_micros() as u64).into();
        metrics.gauges([
            ("events per turn", Count, per_turn, "Mean number of events of a turn."),
            ("busy share percent", Percent, share, "Share of the uptime spent in turns."),
            ("uptime, s", Seconds, (uptime as u64).into(), "Time since the start."),
            ("longest turn, us", Microseconds, longest, "Duration of the longest turn."),
        ]);
        let writes = &stats.writes_per_turn;
        metrics.histograms([
            (
                "duration, ns",
                Nanoseconds,
                &stats.turn_durations,
                "Turns by their time without poll.",
            ),
            (
                "poll delay, ns",
                Nanoseconds,
                &stats.poll_delays,
                "Polls by how late they timed out.",
            ),
            ("writes per turn", Count, writes, "Turns by their number of write calls."),
        ]);
        let work = Work::NAMES.into_iter().zip(stats.longest_turn.work);
        let (name, help) = (("loop_longest_turn_work", "work"), "Work of the longest turn.");
        metrics.family((Gauge, Count), name, "longest turn, ", help, work);
    }

    fn datagrams_section(&self, metrics: &mut Metrics) {
        let stats = &self.stats;
        metrics.counters([
            ("in", Datagrams, stats.datagrams_in, "Datagrams received."),
            ("out", Datagrams, stats.datagrams_out, "Datagrams sent."),
        ]);
        let dropped = [
            ("buffer full", stats.datagrams_dropped_full),
            ("too large", stats.datagrams_dropped_too_large),
            ("could loop", stats.datagrams_dropped_loop),
            ("rate", stats.datagrams_dropped_rate),
            ("port", stats.datagrams_dropped_port),
            ("backlog", stats.datagrams_dropped_backlog),
        ];
        let (name, help) = (("datagrams_dropped", "reason"), "Datagrams dropped for this reason.");
        metrics.family((Counter, Datagrams), name, "dropped, ", help, dropped);
        let help = "Other errors of datagram sockets.";
        metrics.counters([("errors", Count, stats.datagram_errors, help)]);
    }
}

/// Returns bytes per connection, or `None` without connections.
pub fn per_connection(bytes: usize, connections: usize) -> Option<u64> {
    bytes.checked_div(connections).map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferMode;
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::{MetricKind, prometheus};
    use crate::net::sim::SimNet;
    use crate::service::Options;
    use std::collections::HashMap;
    use std::time::Duration;

    use crate::clock::Time;

    #[test]
    fn each_metric_has_its_own_name_and_a_help_text_and_counters_never_decrease() {
        let mut reactor = Reactor::new(SimNet::new(7), Limits::default(), BufferMode::Pooled);
        let service = reactor.add_service(Box::new(Hub::new(&Options::default())));
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
        let mut counted: HashMap<String, u64> = HashMap::new();
        for round in 0..20 {
            let client = reactor.net_mut().client(address).unwrap();
            reactor.net_mut().client_send(client, b"SUBSCRIBE a\r\nPUBLISH a b\r\nSUBSC");
            if round % 3 == 0 {
                reactor.net_mut().client_reset(client);
            }
            let now = reactor.net_mut().now();
            reactor.net_mut().hold_time_at(now);
            reactor.turn().unwrap();
            reactor.check_invariants();
            let sections = reactor.metrics(&|_| true);
            crate::metrics::tests::check(&sections);
            for Metrics { title: section, list } in sections {
                for metric in list.into_iter().filter(|metric| metric.kind == MetricKind::Counter) {
                    let MetricValue::Count(Some(count)) = metric.value else { continue };
                    let before =
                        counted.insert(format!("{section}/{}", metric.title), count).unwrap_or(0);
                    assert!(
                        count >= before,
                        "{section}/{} was {before} and is {count}",
                        metric.title
                    );
                }
            }
        }
        assert!(
            counted["loop/messages"] > 20 && counted["closed by reason/peer-reset"] > 0,
            "{counted:?}"
        );
    }

    #[test]
    fn each_name_that_prometheus_has_of_its_own_is_that_of_a_metric() {
        let mut reactor = Reactor::new(SimNet::new(7), Limits::default(), BufferMode::Pooled);
        reactor.turn().unwrap();
        let mut sections = reactor.metrics(&|_| true);
        sections.extend(Hub::new(&Options::default()).metrics());
        for (section, title, _) in prometheus::NAMES {
            // These two depend on the system.
            if title == "resident set" || title == "structures per connection" {
                continue;
            }
            let of = sections.iter().find(|found| found.title == section);
            let known = of.is_some_and(|of| of.list.iter().any(|metric| metric.title == title));
            assert!(known, "{section}/{title}");
        }
    }

    #[test]
    fn only_the_requested_sections_are_computed() {
        let reactor = Reactor::new(SimNet::new(7), Limits::default(), BufferMode::Pooled);
        let titles = |wanted: &dyn Fn(&str) -> bool| -> Vec<_> {
            reactor.metrics(wanted).iter().map(|section| section.title).collect()
        };
        assert_eq!(
            titles(&|title| title.contains("memory")),
            ["user memory, bytes", "kernel memory, bytes"]
        );
        assert_eq!(titles(&|_| false), [""; 0]);
        assert_eq!(titles(&|_| true).len(), 11);
    }

    #[test]
    fn figures_made_of_others_are_computed_from_them() {
        let mut reactor = Reactor::new(SimNet::new(7), Limits::default(), BufferMode::Pooled);
        let service = reactor.add_service(Box::new(Hub::new(&Options::default())));
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
        for _ in 0..3 {
            let client = reactor.net_mut().client(address).unwrap();
            reactor.turn().unwrap();
            // The kernel holds these bytes until the next turn.
            reactor.net_mut().client_send(client, b"unread");
        }
        reactor.core.start.kernel_objects.bytes = 700;
        reactor.core.stats.turn_took(Duration::from_secs(5));
        reactor.core.now = Time::ZERO + Duration::from_secs(20);
        (reactor.core.stats.events, reactor.core.stats.turns) = (30, 12);
        let sections = reactor.metrics(&|_| true);
        let figure = |title: &str| {
            let mut all = sections.iter().flat_map(|section| &section.list);
            match all.find(|metric| metric.title.starts_with(title)).map(|metric| &metric.value) {
                Some(MetricValue::Count(Some(count))) => *count as f64,
                Some(MetricValue::Ratio(ratio)) => *ratio,
                other => panic!("{title}: {other:?}"),
            }
        };
        assert_eq!((figure("busy share"), figure("events per turn")), (25.0, 2.5));
        assert_eq!(figure("structures per connection"), 700.0);
        assert!(figure("buffers per connection") > 0.0);
        let each = 700.0 + figure("buffers per connection");
        assert_eq!((figure("held"), figure("connections, estimated")), (3.0, 3.0 * each));
    }
}
