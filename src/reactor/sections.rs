//! The status of the loop as sections of rows: for SIGUSR1, and for INFO. Read from counters and from the kernel; nothing here is on the
//! loop's path.

use super::Reactor;
use crate::admission::Refusal;
use crate::clock::{Clock, Tick};
use crate::connection::Reason;
use crate::kernel;
use crate::log_lines;
use crate::memory;
use crate::net::Net;
use crate::service::server::Section;

/// Connections whose kernel memory is asked for in one report.
const SAMPLE: usize = 64;

impl<N: Net> Reactor<N> {
    /// Everything there is to tell, in the order of reading. Walks all connections once.
    pub fn sections(&self) -> Vec<Section> {
        vec![
            self.connections_section(),
            self.admission_section(),
            self.closed_section(),
            self.listeners_section(),
            self.user_memory_section(),
            self.kernel_memory_section(),
            self.kernel_section(),
            self.timers_section(),
            self.loop_section(),
            self.datagrams_section(),
        ]
    }

    /// Structures and buffers of one connection in the kernel, the latter as a mean over a sample.
    pub fn kernel_bytes_each(&self) -> Option<u64> {
        Some(self.kernel_objects.bytes + self.sample_kernel_buffer_bytes(SAMPLE)?)
    }

    fn connections_section(&self) -> Section {
        let mut rows = Rows::of("connections");
        rows.add("held", self.connections());
        rows.add("max-connections", self.limits.max_connections);
        for (state, count) in self.connections_by_state() {
            rows.add(state, count);
        }
        rows.add("accepted", self.stats.accepted);
        rows.add("accept gate", format!("{:?}", self.gate).to_lowercase());
        rows.add("accept aborted", self.stats.accept_aborted);
        rows.add("accept exhausted", self.stats.accept_exhausted);
        rows.add("accept shed", self.stats.accept_shed);
        rows.add("accept over budget", self.stats.accept_over_budget);
        rows.add("evicted", self.stats.evicted);
        rows.section
    }

    fn admission_section(&self) -> Section {
        let mut rows = Rows::of("admission");
        let (sources, penalised) = self.admission.sources.totals(self.now.tick());
        let dry = if self.limits.admission_dry_run { ", dry run" } else { "" };
        rows.add("policy", format!("{}{dry}", self.limits.admission));
        rows.add("silent", self.admission.silent());
        rows.add("max-silent", self.limits.max_silent);
        rows.add("eviction age, ms", (Tick::LENGTH * self.stats.eviction_age_ticks).as_millis());
        rows.add("recycled", self.stats.recycled);
        for refusal in Refusal::ALL {
            rows.add(refusal.name(), self.stats.refused[refusal as usize]);
        }
        rows.add("sources", sources);
        rows.add("sources penalised", penalised);
        rows.section
    }

    fn closed_section(&self) -> Section {
        let mut rows = Rows::of("closed by reason");
        for reason in Reason::ALL {
            rows.add(reason.name(), self.stats.closed_for(reason));
        }
        rows.add("of all, by a reset", self.stats.resets);
        rows.section
    }

    fn listeners_section(&self) -> Section {
        let mut rows = Rows::of("accept queues");
        for listener in &self.listeners {
            if let Ok((waiting, backlog)) = self.net.accept_queue(&listener.handle) {
                rows.add(&format!("{} waiting, of {backlog}", listener.address), waiting);
            }
        }
        rows.section
    }

    fn user_memory_section(&self) -> Section {
        let mut rows = Rows::of("user memory, bytes");
        let (ledger, count) = (self.ledger(), self.connections());
        for (kind, bytes) in ledger.kinds() {
            rows.add(kind, bytes);
        }
        rows.add("ledger, without fixed", ledger.for_connections());
        rows.add("per connection", per_connection(ledger.for_connections(), count));
        if let Some(resident) = self.net.resident_bytes() {
            let grown = resident.saturating_sub(self.resident_at_start) as usize;
            rows.add("resident set", resident);
            rows.add("grown since start", grown);
            rows.add("grown per connection", per_connection(grown, count));
        }
        rows.section
    }

    fn kernel_memory_section(&self) -> Section {
        let mut rows = Rows::of("kernel memory, bytes");
        let objects = self.kernel_objects;
        let assumed = if objects.measured { "" } else { ", assumed" };
        rows.add(&format!("structures per connection{assumed}"), objects.bytes);
        if let Some(bytes) = self.sample_kernel_buffer_bytes(SAMPLE) {
            rows.add("buffers per connection", bytes);
            rows.add("connections, estimated", (objects.bytes + bytes) * self.connections() as u64);
        }
        if let Some(tcp) = memory::tcp_socket_statistics() {
            rows.add("system TCP buffers", tcp.buffer_bytes);
            rows.add("system TCP sockets", tcp.in_use);
        }
        rows.section
    }

    /// What the kernel keeps from us in a flood: for all of this network namespace, not for us alone.
    fn kernel_section(&self) -> Section {
        let mut rows = Rows::of("kernel");
        let text = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        for (name, value) in kernel::settings().rows() {
            rows.add(name, text(value));
        }
        for (name, value) in self.net.kernel_counters().since(&self.kernel_counters_at_start) {
            rows.add(name, text(value));
        }
        rows.section
    }

    fn timers_section(&self) -> Section {
        let mut rows = Rows::of("timers");
        rows.add("armed", self.armed_timers());
        rows.add("fired", self.stats.timers_fired);
        rows.add("early", self.stats.timers_early);
        rows.section
    }

    fn loop_section(&self) -> Section {
        let mut rows = Rows::of("loop");
        let (stats, uptime) = (&self.stats, self.now.as_secs_f64());
        rows.add("log lines dropped", log_lines::dropped());
        rows.add("turns", stats.turns);
        rows.add("events", stats.events);
        rows.add("events per turn", format!("{:.2}", stats.events as f64 / stats.turns.max(1) as f64));
        rows.add("gathers", stats.gathers);
        rows.add("busy, us", stats.busy.as_micros());
        rows.add("busy share percent", format!("{:.2}", 100.0 * stats.busy.as_secs_f64() / uptime.max(1e-9)));
        rows.add("longest turn, us", stats.longest_turn.span.as_micros());
        for (name, count) in stats.longest_turn.work.counts() {
            rows.add(&format!("longest turn, {name}"), count);
        }
        rows.add("stale events", stats.stale_events);
        rows.add("carried", stats.carried);
        rows.add("messages", stats.work.messages);
        rows.add("deliveries", stats.work.deliveries);
        rows.add("reads", stats.work.reads);
        rows.add("writes", stats.work.writes);
        rows.add("short writes", stats.short_writes);
        rows.add("bytes in", stats.bytes_in);
        rows.add("bytes out", stats.bytes_out);
        rows.add("memory given back", stats.trims);
        rows.add("uptime, s", uptime as u64);
        rows.add("processor time, ms", Clock::cpu_time().as_millis());
        rows.section
    }

    fn datagrams_section(&self) -> Section {
        let mut rows = Rows::of("datagrams");
        rows.add("in", self.stats.datagrams_in);
        rows.add("out", self.stats.datagrams_out);
        rows.add("dropped, buffer full", self.stats.datagrams_dropped_full);
        rows.add("dropped, too large", self.stats.datagrams_dropped_too_large);
        rows.add("dropped, could loop", self.stats.datagrams_dropped_loop);
        rows.add("dropped, backlog", self.stats.datagrams_dropped_backlog);
        rows.add("errors", self.stats.datagram_errors);
        rows.section
    }
}

/// Bytes per connection, for people: a dash when there is none.
pub fn per_connection(bytes: usize, connections: usize) -> String {
    bytes.checked_div(connections).map_or("-".into(), |bytes| bytes.to_string())
}

/// A section in the making.
struct Rows {
    section: Section,
}

impl Rows {
    fn of(title: &'static str) -> Rows {
        Rows { section: Section { title, rows: Vec::new() } }
    }

    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.section.rows.push((name.into(), value.to_string()));
    }
}
