//! The event loop: one thread, one table of connections, ten phases per turn.
//!
//! [`Reactor::turn`] is one turn. It asks the kernel which sockets are ready, serves them within
//! budgets, and sends their output. The documentation uses the same numbers and names for the
//! phases.
//!
//! A byte's way through a turn: `Net::read` fills a chunk that all connections share. [`intake`]
//! passes the bytes to the connection's [`Service`], which appends its answer to the [`Outbox`].
//! Phase 9 sends the answer with `Net::write`.
//!
//! The loop has two halves. The [`Core`] owns the connections and contains no protocol. The
//! services implement the protocols and never see a socket. A phase that needs both lends the core
//! to the service.
//!
//! Three rules hold in every phase:
//! - Readiness is edge-triggered. When a budget stops a socket before it is drained, the socket
//!   stays on its *carry list*, because no new event will come for it. While a carry list holds
//!   work, the next poll does not wait.
//! - Nothing is freed before phase 10. Until then, a slot means the same connection in every phase.
//! - A turn costs what its events cost. Only a change of limits and a drain walk all connections.

mod connections; // phases 5, 7 and 9 for one connection
mod control; // between turns: setup, signals, drain; in phase 7: the loop's own timers
mod core; // the half without protocols
mod datagrams; // phase 6 for one batch
mod dial_table; // the dials under way
mod dials; // the connections that the loop opens: begun in phase 8, answered in phase 5
mod drain; // between turns: begins a drain; phase 10: goes on with it
mod intake; // phase 5: reads and decodes the input of one connection
mod invariants; // checked by tests and simulations after every turn
mod newcomers; // phase 4 for one new connection
mod readings; // metrics: values of the kernel
mod sections; // metrics
mod server; // the loop as services see it; phase 10 for one connection

pub use invariants::Watch;
pub use sections::per_connection;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use log::debug;

use self::core::{Core, Flush, LoopTimer};
use crate::admission::Gate;
use crate::buffer::Use;
use crate::clock::Time;
use crate::connection::{Flags, Reason, State};
use crate::limits::{
    DATAGRAMS_PER_BATCH, DIALLED_OUTPUT_MAX, REAPS_PER_TURN, RECYCLES_PER_TURN, TRIM_BYTES,
    TRIM_DELAY, UNTRUSTED_OUTPUT_MAX,
};
use crate::net::Net;
use crate::outbox::{Entry, Outbox};
use crate::service::{ConnectionId, Output, Service};
use crate::sys::DatagramBatch;
use crate::token::{Source, Token};

/// The loop and its state, on the network `N`: mio or the simulation.
pub struct Reactor<N: Net> {
    /// Connections, listeners, timers, buffers and counters.
    core: Core<N>,
    /// Each connection's flags hold an index into this list.
    services: Vec<Box<dyn Service>>,
    /// Output of the services in this turn.
    outbox: Outbox,
    /// Read buffer that all connections share.
    chunk: Box<[u8]>,
    /// Buffers for one batch of datagrams and its answers.
    datagrams: DatagramBatch,
}

impl<N: Net> Reactor<N> {
    /// Runs one turn of the loop. Fails if poll fails.
    pub fn turn(&mut self) -> io::Result<()> {
        let timeout = self.poll_timeout(); // 1
        self.poll(timeout)?; //               2
        let now = self.read_clock(); //       3
        self.accept(now); //                  4
        self.serve_connections(now); //       5
        self.serve_datagrams(now); //         6
        self.expire_timers(now); //           7
        self.collect(now); //                 8
        self.flush(now); //                   9
        self.reap(now); //                   10
        Ok(())
    }

    /// Phase 1: works out the poll timeout. It is zero while work is carried over. Otherwise poll
    /// waits for the next timer or the next wake-up that a service asked for.
    fn poll_timeout(&self) -> Option<Duration> {
        let Core { carry, admission, timers, now, .. } = &self.core;
        // Without a free file, accepting waits for the retry timer.
        let accepts = !carry.acceptable.is_empty() && admission.gate != Gate::Exhausted;
        let carried =
            !carry.ready.is_empty() || !carry.receivable.is_empty() || !carry.closed.is_empty();
        if accepts || carried || self.has_output() {
            return Some(Duration::ZERO);
        }
        let wakes = self.services.iter().filter_map(|service| service.wakes_at());
        let waits = wakes.chain(timers.next_fires()).map(|tick| tick.wait_from(*now));
        waits.min()
    }

    /// Returns true if a service has output that is not delivered yet.
    pub fn has_output(&self) -> bool {
        self.services.iter().any(|service| service.has_output())
    }

    /// Phase 2: polls the kernel for readiness events and sorts them onto the carry lists.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let core = &mut self.core;
        let started = core.net.now();
        if core.stats.turns > 0 {
            core.stats.turn_took(started.since(core.turn.began));
        }
        let (polled_at, was_stopped) = core.clock.read(started);
        core.note_stop(was_stopped);
        core.turn.polled_at = polled_at;
        core.clock.waits(timeout);
        let mut events = std::mem::take(&mut core.turn.events);
        events.clear();
        let polled = core.net.poll(&mut events, timeout);
        core.stats.turns += 1;
        core.stats.events += events.len() as u64;
        for event in &events {
            match event.token.source() {
                Source::Connection { .. } => {
                    if let Some(slot) = core.slot_of(event.token) {
                        core.connections[slot as usize].note_ready(event);
                        core.enqueue(slot);
                    }
                }
                Source::Listener(index) => push_once(&mut core.carry.acceptable, index),
                Source::Socket(index) => push_once(&mut core.carry.receivable, index),
                Source::Signals => core.upkeep.signals_due = true,
                Source::Names => core.dials.names_due = true,
            }
        }
        core.turn.events = events;
        polled
    }

    /// Phase 3: reads the clock for this turn. All later phases get this `now` as a parameter.
    fn read_clock(&mut self) -> Time {
        let core = &mut self.core;
        core.turn.began = core.net.now();
        core.stats.poll_was_late(core.clock.lateness(core.turn.began));
        let (now, was_stopped) = core.clock.read(core.turn.began);
        core.note_stop(was_stopped);
        core.turn.was_stopped = was_stopped;
        core.now = now;
        core.pool.now = now.tick();
        now
    }

    /// Phase 4: accepts new connections, at most a budget, from the listeners in turn.
    fn accept(&mut self, now: Time) {
        self.core.admission.told = 0;
        for _ in 0..self.core.limits.accepts_per_turn {
            let core = &mut self.core;
            // A recycled connection keeps its file until phase 10. Too many of them would use up
            // all files.
            if core.admission.gate == Gate::Exhausted
                || core.carry.closed.len() >= RECYCLES_PER_TURN
            {
                break;
            }
            let Some(index) = core.carry.acceptable.pop_front() else { break };
            let Some(listener) = core.listeners.get_mut(index as usize) else { continue };
            let slot = core.connections.vacant_key() as u32;
            match core.net.accept(&listener.handle, Token::connection(slot, core.generation)) {
                Ok((stream, peer)) => {
                    listener.failures = 0;
                    core.carry.acceptable.push_back(index);
                    debug!("accepted {peer} in slot {slot}");
                    self.receive(stream, peer, index, now);
                }
                Err(error) => core.accept_failed(index, &error, now),
            }
        }
        self.core.stats.carried += self.core.carry.acceptable.len() as u64;
    }

    /// Phase 5: serves ready connections, at most a budget, in the order of the carry list.
    fn serve_connections(&mut self, now: Time) {
        for _ in 0..self.core.carry.ready.len().min(self.core.limits.connections_per_turn) {
            // The rest of the connections waits, so that the outbox stays small.
            if self.outbox.len() >= self.core.limits.output_per_turn {
                break;
            }
            let Some(token) = self.core.carry.ready.pop_front() else { break };
            if let Some(slot) = self.core.slot_of(token) {
                self.core.connections[slot as usize].flags.clear(Flags::QUEUED);
                self.serve(slot, now.tick());
            }
        }
        self.core.stats.carried += self.core.carry.ready.len() as u64;
    }

    /// Phase 6: receives datagrams in batches, at most a budget, and answers each batch at once.
    /// The sockets take turns.
    fn serve_datagrams(&mut self, now: Time) {
        for _ in 0..self.core.limits.datagram_batches_per_turn {
            let core = &mut self.core;
            let Some(index) = core.carry.receivable.pop_front() else { break };
            let Some(socket) = core.sockets.get(index as usize) else { continue };
            match core.net.receive(&socket.handle, &mut self.datagrams) {
                Ok(count) => {
                    core.stats.datagrams_in += count as u64;
                    core.stats.work.datagrams += count as u64;
                    // A full batch means that more datagrams may wait in the socket.
                    if count == DATAGRAMS_PER_BATCH {
                        core.carry.receivable.push_back(index);
                    }
                    self.answer_datagrams(index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    core.stats.datagram_errors += 1;
                    core.retry_later(now);
                }
            }
        }
        self.core.stats.carried += self.core.carry.receivable.len() as u64;
    }

    /// Phase 7: expires timers, at most a budget. The ids of the loop's own timers come first, and
    /// those of the connections follow, by slot.
    ///
    /// A timer expires if it was due before this turn's poll, because that poll has then reported
    /// all input that arrived in time.
    fn expire_timers(&mut self, now: Time) {
        if self.core.is_catching_up(now) {
            return;
        }
        let due_by = self.core.turn.polled_at.tick();
        for _ in 0..self.core.limits.expiries_per_turn {
            let Some(id) = self.core.timers.poll_expired(due_by) else { return };
            self.core.stats.work.expiries += 1;
            match id.checked_sub(LoopTimer::COUNT) {
                Some(slot) => self.connection_timer(slot, due_by),
                None => self.loop_timer(LoopTimer::ALL[id as usize], now),
            }
        }
    }

    /// Phase 8: collects the services' output and hands it to its connections. Output is bytes to
    /// send, closes, connections to read again, and dials.
    fn collect(&mut self, now: Time) {
        self.close_drained();
        let (writes, bytes) =
            (self.core.limits.deliveries_per_turn, self.core.limits.output_per_turn);
        for (index, service) in self.services.iter_mut().enumerate() {
            let output = Output::new(now, &mut self.core, &mut self.outbox, writes, bytes);
            service.collect(&mut output.of_service(index as u8));
        }
        self.dial(now);
        self.core.stats.work.deliveries += self.outbox.entries().len() as u64;
        for index in 0..self.outbox.entries().len() {
            self.hand_over(self.outbox.entries()[index].clone(), now);
        }
        self.outbox.take_resumed().for_each(|slot| self.core.go_on(slot));
    }

    /// Hands one entry of the outbox to its connection. Its bytes are flushed in this turn, or they
    /// queue behind unsent output.
    fn hand_over(&mut self, entry: Entry, now: Time) {
        let Reactor { core, services, outbox, .. } = self;
        let Entry { slot, mut range, payload, is_own, close } = entry;
        let Some(connection) = core.connections.get_mut(slot as usize) else { return };
        // A connection that is closing or closed takes no more output.
        if !connection.is_serving() {
            return;
        }
        // New output queues behind unsent output. A blocked connection is flushed after its next
        // writable edge. Any other connection with unsent output is on the flush list or the carry
        // list already. In fixed mode, all output goes through the connection's buffer.
        let unsent = core.pool.len(&connection.output);
        let behind = unsent > 0 || connection.flags.has(Flags::IN_OUTBOX);
        let payload = outbox.payload(payload);
        if behind || payload.is_some() || core.pool.is_fixed() {
            let bytes = outbox.bytes(&range);
            let added = bytes.len() + payload.map_or(0, |payload| payload.len());
            let untrusted = behind && connection.flags.has(Flags::UNTRUSTED);
            // Answers to the connection's own requests may exceed the limit by the high watermark.
            // The loop stops reading at the watermark, but one answer may still pass it.
            let own = if is_own { core.limits.high_watermark } else { 0 };
            let most = match untrusted {
                true => UNTRUSTED_OUTPUT_MAX,
                false if connection.is_dialled() => {
                    dials::dialled_max(DIALLED_OUTPUT_MAX, &core.limits)
                }
                false => core.limits.output_limit + own,
            };
            // Shared payloads wait for a peer that takes output. One that is alone always fits.
            let shared = core.pool.shared_len(&connection.output);
            let is_over = unsent > 0 && unsent + added > most;
            if is_over
                && (unsent - shared + bytes.len() > most || !connection.is_taking(now.tick()))
            {
                return core.close(slot, Reason::OutputLimit);
            }
            if let Err(reason) = core.hold(Use::Write(slot), bytes) {
                return core.close(slot, reason);
            }
            let connection = &mut core.connections[slot as usize];
            if let Some(payload) = payload {
                let payload = payload.clone();
                core.pool.append_shared(&mut connection.output, Use::Write(slot), payload);
            }
            if connection.owes(unsent + added, core.limits.output_soft_limit, now.tick()) {
                core.arm(slot);
            }
            range = 0..0;
        }
        let connection = &mut core.connections[slot as usize];
        if let Some(reason) = close {
            let before = connection.state();
            connection.begin_closing(reason, now.tick());
            core.stats.moved(before, connection.state());
            services[connection.flags.service() as usize].closing(ConnectionId(slot));
            core.arm(slot);
        }
        if !behind {
            let connection = &mut core.connections[slot as usize];
            connection.output_progress(now.tick());
            connection.flags.set(Flags::IN_OUTBOX);
            core.turn.flushes.push(Flush { slot, range });
        }
    }

    /// Phase 9: flushes each connection that has output, with one write.
    fn flush(&mut self, now: Time) {
        let mut flushes = std::mem::take(&mut self.core.turn.flushes);
        self.core.turn.written = 0;
        for flush in flushes.drain(..) {
            self.core.flush_one(flush, &self.outbox, now.tick());
        }
        self.core.turn.flushes = flushes;
        self.outbox.clear();
    }

    /// Phase 10: reaps closed connections, at most a budget. Then it updates the memory budget, the
    /// accept gate and the trim timer.
    fn reap(&mut self, now: Time) {
        let Reactor { core, services, .. } = self;
        core.count_services(services);
        core.evict();
        // Services stop delivering to closed connections now, even if a later turn reaps them.
        for (slot, state) in &core.carry.closed[core.carry.told..] {
            if *state == State::Connecting {
                continue;
            }
            let service = core.connections[*slot as usize].flags.service();
            services[service as usize].closing(ConnectionId(*slot));
        }
        let waiting = Core::<N>::waiting_bytes(services);
        core.upkeep.waiting.note(waiting);
        core.upkeep.in_use.note(core.bytes_in_use());
        let any_closed = !core.carry.closed.is_empty();
        for _ in 0..REAPS_PER_TURN {
            let Some((slot, state)) = self.core.carry.closed.pop() else { break };
            self.part(slot, state, now);
        }
        self.core.carry.told = self.core.carry.closed.len();
        self.core.drain_dialled();
        let Reactor { core, services, .. } = self;
        if any_closed {
            core.count_services(services);
            // Fewer connections need a smaller reserve, so this cannot fail.
            let _ = core.reserve(core.connections.len());
            if core.admission.gate == Gate::Exhausted || core.has_room_again() {
                core.admission.gate = Gate::Open;
            }
        }
        // The heap is trimmed a while after a load drop, or after the last connection has gone.
        let dropped = core.upkeep.in_use.has_fallen_to(core.bytes_in_use())
            || core.upkeep.waiting.has_fallen_to(waiting);
        let emptied = any_closed
            && core.connections.is_empty()
            && self.ledger().for_connections() >= TRIM_BYTES;
        if (dropped || emptied) && self.core.timers.fires(LoopTimer::Trim as u32).is_none() {
            self.core.arm_loop_timer(LoopTimer::Trim, TRIM_DELAY, now);
        }
    }
}

/// Adds a listener or socket to its carry list, unless it is there. A list has at most a few
/// entries, so a scan is cheap.
fn push_once(list: &mut VecDeque<u8>, index: u8) {
    if !list.contains(&index) {
        list.push_back(index);
    }
}
