//! The loop's metrics, section by section. A section is read from counters and from the kernel
//! when someone asks for it; nothing here walks the connections or is on the loop's path.

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
    Bytes, Connections, Count, Datagrams, Messages, Microseconds, Milliseconds, Percent, Seconds,
};
use crate::metrics::{self, Metric, MetricSection, MetricValue, Metrics};
use crate::net::Net;
use crate::stats::Work;

impl<N: Net> Reactor<N> {
    /// Computes the sections whose titles are wanted, in the order of reading.
    pub fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        self.core.metrics(wanted)
    }

    /// Structures and buffers of one connection in the kernel, the latter as a mean over a sample.
    pub fn kernel_bytes_each(&self) -> Option<u64> {
        Some(self.core.start.kernel_objects.bytes + self.core.kernel_buffer_bytes()?)
    }
}

impl<N: Net> Core<N> {
    const SECTIONS: [MetricSection<Self>; 10] = [
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

    /// The mean of a sample, when there are connections.
    fn kernel_buffer_bytes(&self) -> Option<u64> {
        let step = self.slots_used.div_ceil(KERNEL_SAMPLE).max(1);
        let sampled = (0..self.slots_used).step_by(step).filter_map(|slot| {
            let connection = self.connections.get(slot)?;
            self.net.buffer_bytes(&connection.stream).ok()
        });
        let (count, sum) = sampled.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        (count > 0).then(|| sum / count)
    }

    fn connections_section(&self, metrics: &mut Metrics) {
        let (stats, most) = (&self.stats, self.limits.max_connections as u64);
        metrics.gauges([
            ("held", Connections, self.connections.len() as u64, "Connections that are open."),
            ("max-connections", Connections, most, "Connections that may be open at a time."),
        ]);
        let states = State::NAMES.into_iter().zip(stats.states);
        let help = "Connections in this state.";
        metrics.family((Gauge, Connections), ("by_state", "state"), "", help, states);
        let over_budget = stats.accept_over_budget;
        let gate = format!("{:?}", self.admission.gate).to_lowercase();
        metrics.text("accept gate", gate, "Whether newcomers are accepted, and why not.");
        metrics.counters([
            ("accepted", Connections, stats.accepted, "Connections that got a slot."),
            ("accept aborted", Connections, stats.accept_aborted, "Gone before being accepted."),
            ("accept exhausted", Count, stats.accept_exhausted, "Accepts without files or memory."),
            ("accept shed", Connections, stats.accept_shed, "Turned away: no file was free."),
            ("accept over budget", Connections, over_budget, "memory-budget had no room for them."),
            ("evicted", Connections, stats.evicted, "Held most of a memory-budget used up."),
        ]);
    }

    fn admission_section(&self, metrics: &mut Metrics) {
        let (stats, limits) = (&self.stats, &self.limits);
        let dry = if limits.admission_dry_run { ", dry run" } else { "" };
        let policy = format!("{}{dry}", limits.admission);
        metrics.text("policy", policy, "What happens when the silent set is full.");
        let (silent, most) = (self.admission.silent() as u64, limits.max_silent as u64);
        let age = (Tick::LENGTH * stats.eviction_age_ticks).as_millis() as u64;
        let (sources, penalised) = self.admission.sources.totals(self.now.tick());
        metrics.gauges([
            ("silent", Connections, silent, "Connections in the silent set."),
            ("max-silent", Connections, most, "Connections that may be in it."),
            ("eviction age, ms", Milliseconds, age, "How long the last recycled one was silent."),
            ("sources", Count, sources as u64, "Sources that have connections."),
            ("sources penalised", Count, penalised as u64, "Sources that are refused for a while."),
        ]);
        let help = "Silent connections that made way for a newcomer; in a dry run, would have.";
        metrics.counters([("recycled", Connections, stats.recycled, help)]);
        let refused = Refusal::ALL.map(|(_, name)| name).into_iter().zip(stats.refused);
        let (name, help) = (("refused", "reason"), "Newcomers turned away for this reason.");
        metrics.family((Counter, Connections), name, "refused, ", help, refused);
    }

    fn closed_section(&self, metrics: &mut Metrics) {
        let closed = Reason::ALL.map(|(_, name)| name).into_iter().zip(self.stats.closed);
        let help = "Connections closed for this reason.";
        metrics.family((Counter, Connections), ("connections", "reason"), "", help, closed);
        let help = "Connections that the server ended by a reset.";
        metrics.counters([("of all, by a reset", Connections, self.stats.resets, help)]);
    }

    fn listeners_section(&self, metrics: &mut Metrics) {
        for listener in &self.listeners {
            if let Ok((waiting, backlog)) = self.net.accept_queue(&listener.handle) {
                let value = listener.address.to_string();
                metrics.list.push(Metric {
                    title: format!("{value} waiting, of {backlog}").into(),
                    family: Some(("waiting", "listener", value)),
                    kind: Gauge,
                    unit: Connections,
                    help: "Connections that wait to be accepted.",
                    value: u64::from(waiting).into(),
                });
            }
        }
    }

    fn user_memory_section(&self, metrics: &mut Metrics) {
        let (ledger, count) = (self.ledger(), self.connections.len());
        let kinds = ledger.kinds().map(|(kind, bytes)| (kind, bytes as u64));
        let help = "Bytes that the server holds, by kind.";
        metrics.family((Gauge, Bytes), ("held", "kind"), "", help, kinds);
        let bytes = ledger.for_connections();
        metrics.gauges([
            ("ledger, without fixed", Bytes, Some(bytes as u64), "The sum of all but fixed."),
            ("per connection", Bytes, per_connection(bytes, count), "The same for each one."),
        ]);
        if let Some(resident) = self.net.resident_bytes() {
            let grown = resident.saturating_sub(self.start.resident_bytes);
            let each = per_connection(grown as usize, count);
            metrics.gauges([
                ("resident set", Bytes, Some(resident), "Memory that the process has."),
                ("grown since start", Bytes, Some(grown), "Growth of the resident set."),
                ("grown per connection", Bytes, each, "The same for each connection."),
            ]);
        }
    }

    fn kernel_memory_section(&self, metrics: &mut Metrics) {
        let objects = self.start.kernel_objects;
        let title = match objects.measured {
            true => "structures per connection",
            false => "structures per connection, assumed",
        };
        metrics.gauges([(title, Bytes, objects.bytes, "Fixed structures of one connection.")]);
        if let Some(each) = self.kernel_buffer_bytes() {
            let all = (objects.bytes + each) * self.connections.len() as u64;
            metrics.gauges([
                ("buffers per connection", Bytes, each, "Buffers of one: the mean of a sample."),
                ("connections, estimated", Bytes, all, "Structures and buffers of all."),
            ]);
        }
        if let Some(tcp) = memory::tcp_socket_statistics() {
            metrics.gauges([
                ("system TCP buffers", Bytes, tcp.buffer_bytes, "Of this network namespace."),
                ("system TCP sockets", Count, tcp.in_use, "Of this network namespace."),
            ]);
        }
    }

    /// How the kernel is set up against floods, and what it counts of them: for all of this network
    /// namespace, not for this process alone.
    fn kernel_section(&self, metrics: &mut Metrics) {
        let row = |(name, value, help)| (name, Count, value, help);
        metrics.gauges(kernel::settings().rows().map(row));
        let counters = self.net.kernel_counters();
        metrics.counters(counters.since(&self.start.kernel_counters).map(row));
    }

    fn timers_section(&self, metrics: &mut Metrics) {
        let (armed, stats) = (self.timers.armed() as u64, &self.stats);
        metrics.gauges([("armed", Count, armed, "Timers of connections and of the loop.")]);
        metrics.counters([
            ("fired", Count, stats.timers_fired, "Timers that fired after their deadline."),
            ("early", Count, stats.timers_early, "Timers that fired before it."),
        ]);
    }

    fn loop_section(&self, metrics: &mut Metrics) {
        let (stats, uptime) = (&self.stats, self.now.as_secs_f64());
        let busy = stats.busy.as_micros() as u64;
        let processor = Clock::cpu_time().as_millis() as u64;
        metrics.counters([
            ("log lines dropped", Count, log_lines::dropped(), "Lines that nobody took in time."),
            ("turns", Count, stats.turns, "Turns of the loop."),
            ("events", Count, stats.events, "Readiness events that the kernel reported."),
            ("busy, us", Microseconds, busy, "Time spent in turns, without the wait for events."),
            ("stale events", Count, stats.stale_events, "Events for connections that were gone."),
            ("carried", Count, stats.carried, "What turns left for the next for want of budget."),
            ("messages", Messages, stats.work.messages, "Complete messages on streams."),
            ("deliveries", Count, stats.work.deliveries, "Outputs handed to connections."),
            ("reads", Count, stats.work.reads, "Reads from connections."),
            ("writes", Count, stats.work.writes, "Writes to connections."),
            ("short writes", Count, stats.short_writes, "Writes that the kernel took a part of."),
            ("bytes in", Bytes, stats.bytes_in, "Bytes read from connections."),
            ("bytes out", Bytes, stats.bytes_out, "Bytes written to connections."),
            ("memory given back", Count, stats.trims, "Times that memory went back to the system."),
            ("processor time, ms", Milliseconds, processor, "Processor time of the process."),
        ]);
        let per_turn = MetricValue::Ratio(stats.events as f64 / stats.turns.max(1) as f64);
        let share = MetricValue::Ratio(100.0 * stats.busy.as_secs_f64() / uptime.max(1e-9));
        let longest = (stats.longest_turn.span.as_micros() as u64).into();
        metrics.gauges([
            ("events per turn", Count, per_turn, "The mean of all turns."),
            ("busy share percent", Percent, share, "Time spent in turns, of the uptime."),
            ("uptime, s", Seconds, (uptime as u64).into(), "Time since the start."),
            ("longest turn, us", Microseconds, longest, "How long the longest turn took."),
        ]);
        let work = Work::NAMES.into_iter().zip(stats.longest_turn.work);
        let (name, help) = (("longest_turn", "work"), "What the longest turn did.");
        metrics.family((Gauge, Count), name, "longest turn, ", help, work);
    }

    fn datagrams_section(&self, metrics: &mut Metrics) {
        let stats = &self.stats;
        let (full, large) = (stats.datagrams_dropped_full, stats.datagrams_dropped_too_large);
        let (looping, backlog) = (stats.datagrams_dropped_loop, stats.datagrams_dropped_backlog);
        metrics.counters([
            ("in", Datagrams, stats.datagrams_in, "Datagrams received."),
            ("out", Datagrams, stats.datagrams_out, "Datagrams sent."),
            ("dropped, buffer full", Datagrams, full, "Answers that the socket had no room for."),
            ("dropped, too large", Datagrams, large, "Answers larger than any datagram."),
            ("dropped, could loop", Datagrams, looping, "Came from a port of slabd, or port 0."),
            ("dropped, backlog", Datagrams, backlog, "Came while too much waited for delivery."),
            ("errors", Count, stats.datagram_errors, "Other errors of sockets for datagrams."),
        ]);
    }
}

/// Bytes per connection, when there are connections.
pub fn per_connection(bytes: usize, connections: usize) -> Option<u64> {
    bytes.checked_div(connections).map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferMode;
    use crate::hub::Hub;
    use crate::limits::Limits;
    use crate::metrics::MetricKind;
    use crate::net::sim::SimNet;
    use crate::service::Options;
    use std::collections::HashMap;

    #[test]
    fn metrics_are_named_apart_and_explained_and_counters_only_grow() {
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
                    let before = counted.insert(format!("{section}/{}", metric.title), count).unwrap_or(0);
                    assert!(count >= before, "{section}/{} was {before} and is {count}", metric.title);
                }
            }
        }
        assert!(counted["loop/messages"] > 20 && counted["closed by reason/peer-reset"] > 0, "{counted:?}");
    }

    #[test]
    fn only_the_sections_that_are_wanted_are_computed() {
        let reactor = Reactor::new(SimNet::new(7), Limits::default(), BufferMode::Pooled);
        let titles = |wanted: &dyn Fn(&str) -> bool| -> Vec<_> {
            reactor.metrics(wanted).iter().map(|section| section.title).collect()
        };
        assert_eq!(titles(&|title| title.contains("memory")), ["user memory, bytes", "kernel memory, bytes"]);
        assert_eq!(titles(&|_| false), [""; 0]);
        assert_eq!(titles(&|_| true).len(), 10);
    }
}
