//! What the operator is shown: the report line, and the status table of SIGUSR1. Rendered from counters; nothing here
//! is on the loop's path.

use std::fmt::Write;
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::connection::Reason;
use crate::memory::{self, KernelObjects};
use crate::net::Net;
use crate::reactor::Reactor;
use crate::stats::Stats;

/// Connections whose kernel memory is asked for in one report.
const SAMPLE: usize = 64;

/// Remembers the last report, to tell rates, and the resident set before any connection.
pub struct Reporter {
    objects: KernelObjects,
    resident_at_start: u64,
    last: Stats,
    last_time: Time,
    last_cpu: Duration,
}

impl Reporter {
    pub fn new(now: Time) -> Reporter {
        Reporter {
            objects: memory::kernel_objects(),
            resident_at_start: memory::resident_bytes().unwrap_or(0),
            last: Stats::default(),
            last_time: now,
            last_cpu: Clock::cpu_time(),
        }
    }

    /// One line on the time since the last report.
    pub fn report<N: Net>(&mut self, reactor: &Reactor<N>) -> String {
        let (now, cpu, stats) = (reactor.now(), Clock::cpu_time(), reactor.stats().clone());
        let seconds = now.since(self.last_time).as_secs_f64().max(1e-9);
        let rate = |new: u64, old: u64| (new - old) as f64 / seconds;
        let busy = (cpu.saturating_sub(self.last_cpu)).as_secs_f64() / seconds;
        let line = format!(
            "{} connections, {} user and {} kernel bytes each, {:.0} turns/s, {:.0} messages/s, {:.0} datagrams/s, {:.1} % busy",
            reactor.connections(),
            per_connection(reactor.ledger().for_connections(), reactor.connections()),
            self.kernel_bytes_each(reactor).map_or("-".into(), |bytes| bytes.to_string()),
            rate(stats.turns, self.last.turns),
            rate(stats.messages, self.last.messages),
            rate(stats.datagrams_in, self.last.datagrams_in),
            100.0 * busy,
        );
        (self.last, self.last_time, self.last_cpu) = (stats, now, cpu);
        line
    }

    /// Fixed structures and buffers of one connection in the kernel, the latter as a mean over a sample.
    fn kernel_bytes_each<N: Net>(&self, reactor: &Reactor<N>) -> Option<u64> {
        Some(self.objects.bytes + reactor.sample_kernel_buffer_bytes(SAMPLE)?)
    }

    /// The whole status as a table.
    pub fn status<N: Net>(&self, reactor: &Reactor<N>) -> String {
        let mut table = Table::default();
        connections(&mut table, reactor);
        self.user_memory(&mut table, reactor);
        self.kernel_memory(&mut table, reactor);
        loop_and_timers(&mut table, reactor);
        datagrams(&mut table, reactor.stats());
        table.text
    }

    fn user_memory<N: Net>(&self, table: &mut Table, reactor: &Reactor<N>) {
        let (ledger, count) = (reactor.ledger(), reactor.connections());
        table.section("user memory, bytes");
        for (kind, bytes) in ledger.kinds() {
            table.row(kind, bytes);
        }
        table.row("ledger, without fixed", ledger.for_connections());
        table.row("per connection", per_connection(ledger.for_connections(), count));
        if let Some(resident) = memory::resident_bytes() {
            let grown = resident.saturating_sub(self.resident_at_start) as usize;
            table.row("resident set", resident);
            table.row("grown since start", grown);
            table.row("grown per connection", per_connection(grown, count));
        }
    }

    fn kernel_memory<N: Net>(&self, table: &mut Table, reactor: &Reactor<N>) {
        table.section("kernel memory, bytes");
        let assumed = if self.objects.measured { "" } else { ", assumed" };
        table.row(&format!("structures per connection{assumed}"), self.objects.bytes);
        if let Some(bytes) = reactor.sample_kernel_buffer_bytes(SAMPLE) {
            table.row("buffers per connection", bytes);
            table.row("connections, estimated", (self.objects.bytes + bytes) * reactor.connections() as u64);
        }
        if let Some(tcp) = memory::tcp_socket_statistics() {
            table.row("system TCP buffers", tcp.buffer_bytes);
            table.row("system TCP sockets", tcp.in_use);
        }
    }
}

fn connections<N: Net>(table: &mut Table, reactor: &Reactor<N>) {
    let stats = reactor.stats();
    table.section("connections");
    table.row("held", reactor.connections());
    table.row("max-connections", reactor.limits().max_connections);
    for (state, count) in reactor.connections_by_state() {
        table.row(state, count);
    }
    table.row("accepted", stats.accepted);
    table.row("accept gate", format!("{:?}", reactor.gate()).to_lowercase());
    table.row("accept aborted", stats.accept_aborted);
    table.row("accept exhausted", stats.accept_exhausted);
    table.row("accept over budget", stats.accept_over_budget);
    table.section("closed by reason");
    for reason in Reason::ALL {
        table.row(reason.name(), stats.closed_for(reason));
    }
}

fn loop_and_timers<N: Net>(table: &mut Table, reactor: &Reactor<N>) {
    let stats = reactor.stats();
    table.section("timers");
    table.row("armed", reactor.armed_timers());
    table.row("fired", stats.timers_fired);
    table.row("early", stats.timers_early);
    table.section("loop");
    table.row("turns", stats.turns);
    table.row("events", stats.events);
    table.row("stale events", stats.stale_events);
    table.row("carried", stats.carried);
    table.row("messages", stats.messages);
    table.row("reads", stats.reads);
    table.row("writes", stats.writes);
    table.row("short writes", stats.short_writes);
    table.row("bytes in", stats.bytes_in);
    table.row("bytes out", stats.bytes_out);
    table.row("memory given back", stats.trims);
    table.row("uptime, s", reactor.now().as_secs_f64() as u64);
    table.row("processor time, ms", Clock::cpu_time().as_millis());
}

fn datagrams(table: &mut Table, stats: &Stats) {
    table.section("datagrams");
    table.row("in", stats.datagrams_in);
    table.row("out", stats.datagrams_out);
    table.row("dropped, buffer full", stats.datagrams_dropped_full);
    table.row("dropped, too large", stats.datagrams_dropped_too_large);
    table.row("dropped, could loop", stats.datagrams_dropped_loop);
    table.row("errors", stats.datagram_errors);
}

fn per_connection(bytes: usize, connections: usize) -> String {
    bytes.checked_div(connections).map_or("-".into(), |bytes| bytes.to_string())
}

#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn section(&mut self, title: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "\n  {title}");
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.text, "\n    {name:<34} {value:>14}");
    }
}
