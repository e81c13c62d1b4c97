//! THE LOOP. One thread, one table of connections, and turns: [`Reactor::turn`] is all there is to it.
//!
//! A turn asks the kernel what is ready, serves it within budgets, and sends what came of it. Its ten
//! phases are numbered here as in the README. A byte's way through them: `Net::read` fills the chunk,
//! [`intake`] gives it to the [`Service`], whose answer is put into the [`Outbox`]; at the end of the
//! turn it leaves by `Net::write`.
//!
//! The loop has two halves: the [`Core`], which knows connections and no protocol, and the services,
//! which know protocols and no socket. A phase that needs both lends the one to the other.
//!
//! Three rules explain the rest:
//! - Readiness is edge-triggered. What a budget leaves undone stays on its work list, the *carry*.
//!   While one of these holds work, the next poll does not wait.
//! - Nothing is freed before the last phase. Until then a slot means the same connection to every
//!   phase.
//! - Costs follow events. No phase walks the table of connections.

mod connections;
mod control;
mod core;
mod datagrams;
mod intake;
mod invariants;
mod newcomers;
mod sections;
mod server;

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
use crate::connection::{Flags, Reason};
use crate::limits::{
    DATAGRAMS_PER_BATCH, REAPS_PER_TURN, RECYCLES_PER_TURN, TRIM_BYTES, TRIM_DELAY, TRIM_FRACTION, UNTRUSTED_OUTPUT_MAX,
};
use crate::net::Net;
use crate::outbox::{Entry, Outbox};
use crate::service::{ConnectionId, Output, Service};
use crate::sys::DatagramBatch;
use crate::token::{Source, Token};

pub struct Reactor<N: Net> {
    /// The connections, and all that is known of them.
    core: Core<N>,
    services: Vec<Box<dyn Service>>,
    /// What the services put out in this turn.
    outbox: Outbox,
    /// Where all connections read.
    chunk: Box<[u8]>,
    datagrams: DatagramBatch,
}

impl<N: Net> Reactor<N> {
    /// One turn of the loop.
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

    /// Phase 1: no wait when work was carried over, else until the next timer, or until a service wants
    /// to be woken.
    fn poll_timeout(&self) -> Option<Duration> {
        let Core { carry, admission, timers, now, .. } = &self.core;
        let accepts = !carry.acceptable.is_empty() && admission.gate != Gate::Exhausted;
        let carried = !carry.ready.is_empty() || !carry.receivable.is_empty() || !carry.closed.is_empty();
        if accepts || carried || self.has_output() {
            return Some(Duration::ZERO);
        }
        let wakes = self.services.iter().filter_map(|service| service.wakes_at());
        let waits = wakes.chain(timers.next_fires()).map(|tick| tick.wait_from(*now));
        waits.min()
    }

    /// Phase 2: asks what became ready, and sorts it onto the work lists.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let core = &mut self.core;
        if core.stats.turns > 0 {
            core.stats.turn_took(core.net.now().since(core.now));
        }
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
            }
        }
        core.turn.events = events;
        polled
    }

    /// Phase 3: the one reading of the clock. It is passed down; nothing below reads another.
    fn read_clock(&mut self) -> Time {
        self.core.now = self.core.net.now();
        self.core.now
    }

    /// Phase 4: takes new connections, from each listener in turn.
    fn accept(&mut self, now: Time) {
        self.core.admission.told = 0;
        for _ in 0..self.core.limits.accepts_per_turn {
            let core = &mut self.core;
            // A connection that was closed to make way keeps its file until it is reaped.
            if core.admission.gate == Gate::Exhausted || core.carry.closed.len() >= RECYCLES_PER_TURN {
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

    /// Phase 5: serves the connections that are readable, or writable, or were left over.
    fn serve_connections(&mut self, now: Time) {
        for _ in 0..self.core.carry.ready.len().min(self.core.limits.connections_per_turn) {
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

    /// Phase 6: takes datagrams a batch at a time, from each socket in turn, and answers them at once.
    fn serve_datagrams(&mut self, now: Time) {
        for _ in 0..self.core.limits.datagram_batches_per_turn {
            let core = &mut self.core;
            let Some(index) = core.carry.receivable.pop_front() else { break };
            let Some(socket) = core.sockets.get(index as usize) else { continue };
            match core.net.receive(&socket.handle, &mut self.datagrams) {
                Ok(count) => {
                    core.stats.datagrams_in += count as u64;
                    core.stats.work.datagrams += count as u64;
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

    /// Phase 7: acts on the timers that are due.
    fn expire_timers(&mut self, now: Time) {
        if self.core.is_catching_up(now) {
            return;
        }
        for _ in 0..self.core.limits.expiries_per_turn {
            let Some(id) = self.core.timers.poll_expired(now.tick()) else { return };
            self.core.stats.work.expiries += 1;
            match id.checked_sub(LoopTimer::COUNT) {
                Some(slot) => self.connection_timer(slot, now.tick()),
                None => self.loop_timer(LoopTimer::ALL[id as usize], now),
            }
        }
    }

    /// Phase 8: has the services put out what is for others, and gives all output of the turn to its
    /// connections: bytes to send, closes, and inputs to go on with.
    fn collect(&mut self, now: Time) {
        self.close_drained();
        let (writes, bytes) = (self.core.limits.deliveries_per_turn, self.core.limits.output_per_turn);
        for service in &mut self.services {
            service.collect(&mut Output::new(now, &mut self.core, &mut self.outbox, writes, bytes));
        }
        self.core.stats.work.deliveries += self.outbox.entries().len() as u64;
        for index in 0..self.outbox.entries().len() {
            self.hand_over(self.outbox.entries()[index].clone(), now);
        }
        self.outbox.take_resumed().for_each(|slot| self.core.go_on(slot));
    }

    /// Gives one entry of the outbox to its connection: to be flushed, or to wait behind what is unsent.
    fn hand_over(&mut self, entry: Entry, now: Time) {
        let Reactor { core, services, outbox, .. } = self;
        let Entry { slot, mut range, is_own, close } = entry;
        let Some(connection) = core.connections.get_mut(slot as usize) else { return };
        // A closing connection has had its last answer; a closed one has none to come.
        if !connection.is_serving() {
            return;
        }
        // Behind unsent output, more must queue. A blocked connection is flushed when it is writable
        // again; one that has become so, or has output of this turn, is on the flush list already.
        let unsent = core.pool.len(&connection.output);
        let behind = unsent > 0 || connection.flags.has(Flags::IN_OUTBOX);
        if behind || core.pool.is_fixed() {
            let bytes = outbox.bytes(&range);
            let untrusted = behind && connection.flags.has(Flags::UNTRUSTED);
            // What it asked for itself is bounded by the watermark, at which it is not read; one answer
            // comes on top.
            let own = if is_own { core.limits.high_watermark } else { 0 };
            let most = if untrusted { UNTRUSTED_OUTPUT_MAX } else { core.limits.output_limit + own };
            if unsent + bytes.len() > most {
                return core.close(slot, Reason::OutputLimit);
            }
            if core.pool.append(&mut connection.output, Use::Write(slot), bytes).is_err() {
                return core.close(slot, Reason::MemoryBudget);
            }
            if connection.owes(unsent + bytes.len(), core.limits.output_soft_limit, now.tick()) {
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

    /// Phase 9: writes to every connection that has something to send, once.
    fn flush(&mut self, now: Time) {
        let mut flushes = std::mem::take(&mut self.core.turn.flushes);
        for flush in flushes.drain(..) {
            self.core.flush_one(flush, &self.outbox, now.tick());
        }
        self.core.turn.flushes = flushes;
        self.outbox.clear();
    }

    /// Phase 10: frees the connections that are over, at most a budget of them.
    fn reap(&mut self, now: Time) {
        self.core.evict();
        let Reactor { core, services, .. } = self;
        // They receive nothing any more, though to free them may take more turns than this.
        for (slot, _) in &core.carry.closed[core.carry.told..] {
            let service = core.connections[*slot as usize].flags.service();
            services[service as usize].closing(ConnectionId(*slot));
        }
        core.upkeep.peak_bytes = core.upkeep.peak_bytes.max(core.bytes_in_use());
        let any_closed = !core.carry.closed.is_empty();
        for _ in 0..REAPS_PER_TURN {
            let Some((slot, state)) = self.core.carry.closed.pop() else { break };
            self.part(slot, state, now);
        }
        self.core.carry.told = self.core.carry.closed.len();
        let core = &mut self.core;
        if any_closed {
            // Less fits any budget.
            let _ = core.reserve(core.connections.len());
            if core.admission.gate == Gate::Exhausted || core.has_room_again() {
                core.admission.gate = Gate::Open;
            }
        }
        core.upkeep.services_bytes = self
            .services
            .iter()
            .fold((0, 0), |(bytes, fixed), service| (bytes + service.bytes(), fixed + service.fixed_bytes()));
        let (used, peak) = (core.bytes_in_use(), core.upkeep.peak_bytes);
        let dropped = peak >= TRIM_BYTES && used <= peak / TRIM_FRACTION;
        let emptied = any_closed && core.connections.is_empty() && self.ledger().for_connections() >= TRIM_BYTES;
        if (dropped || emptied) && self.core.timers.fires(LoopTimer::Trim as u32).is_none() {
            self.core.arm_loop_timer(LoopTimer::Trim, TRIM_DELAY, now);
        }
    }
}

/// Puts a listener or socket on its work list, unless it is there: there are few of them.
fn push_once(list: &mut VecDeque<u8>, index: u8) {
    if !list.contains(&index) {
        list.push_back(index);
    }
}
