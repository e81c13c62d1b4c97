//! THE LOOP. One thread, one table of connections, and turns: [`Reactor::turn`] is all there is to it.
//!
//! A turn asks the kernel what is ready, serves it within budgets, and sends what came of it. Its ten phases are
//! numbered here as in the README. A byte's way through them: `Net::read` fills the chunk, [`Intake`](crate::intake::Intake)
//! decodes it and calls the [`Service`], whose answer is put into the [`Outbox`]; at the end of the turn it leaves by `Net::write`.
//!
//! Three rules explain the rest:
//! - Readiness is edge-triggered. What a budget leaves undone stays on its work list, the *carry*: `ready`,
//!   `acceptable` and `receivable`. While one of them holds work, the next poll does not wait.
//! - Nothing is freed before the last phase. Until then a slot means the same connection to every phase.
//! - Costs follow events. No phase walks the table of connections.

mod connections;
mod control;
mod datagrams;
mod invariants;
mod newcomers;
mod sections;
mod server;

pub use invariants::Watch;
pub use sections::per_connection;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use log::debug;
use slab::Slab;

use crate::admission::{Admission, Gate};
use crate::buffer::{BufferPool, Use};
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Flags, Reason, Timeouts};
use crate::gather::Gather;
use crate::kernel;
use crate::limits::{
    CONSULTS_PER_TURN, DATAGRAMS_PER_BATCH, FACTS_PER_TURN, Limits, RECYCLES_PER_TURN, TRIM_BYTES, TRIM_DELAY,
    TRIM_FRACTION, UNTRUSTED_OUTPUT_MAX,
};
use crate::memory::KernelObjects;
use crate::net::{Net, Ready};
use crate::outbox::Outbox;
use crate::service::{Deliveries, Service};
use crate::stats::Stats;
use crate::sys::DatagramBatch;
use crate::timer::{self, TimerWheel};
use crate::token::{Generation, Source, Token};

pub struct Reactor<N: Net> {
    net: N,
    limits: Limits,
    timeouts: Timeouts,

    services: Vec<Box<dyn Service>>,
    /// What a service holds that is being lent the loop: for sessions, and otherwise.
    lent_service: (usize, usize),
    listeners: Vec<Port<N::Listener>>,
    sockets: Vec<Port<N::Socket>>,
    gate: Gate,
    admission: Admission,

    connections: Slab<Connection<N::Stream>>,
    generation: Generation,
    pool: BufferPool,
    timers: TimerWheel,

    // The carry: work lists that poll adds to and the phases take from.
    acceptable: VecDeque<u8>,
    ready: VecDeque<Token>,
    receivable: VecDeque<u8>,

    gather: Gather,

    // Filled and emptied within a turn; kept for their memory.
    events: Vec<Ready>,
    chunk: Box<[u8]>,
    datagrams: DatagramBatch,
    outbox: Outbox,
    flushes: Vec<Flush>,
    closed: Vec<u32>,
    drained: Vec<Drained>,
    /// Newcomers told in this turn that there is no slot.
    told: usize,
    /// Commands answered with the loop's help in this turn.
    consults: usize,
    /// Connections that the kernel was asked about for them.
    facts: Cell<usize>,

    stats: Stats,
    now: Time,
    slots_used: usize,
    /// Most memory in use since it was last given back.
    peak_bytes: usize,
    warned_at: Option<Time>,
    /// When it found that it had been stopped.
    catching_up_since: Option<Time>,
    /// When it began to stop.
    draining_since: Option<Time>,
    kernel_objects: KernelObjects,
    kernel_counters_at_start: kernel::Counters,
    /// Resident set before any connection.
    resident_at_start: u64,
    report_every: Duration,
    report_due: bool,
    /// When the loop's own timers are really due: the wheel may fire them early.
    loop_timers_due: [Tick; LoopTimer::ALL.len()],
    signals_due: bool,
}

/// A listening address and the service behind it.
struct Port<H> {
    handle: H,
    address: SocketAddr,
    service: u8,
    /// Not subject to admission, and let in to the slots kept back.
    for_operator: bool,
    /// Accepts that have failed in a row.
    failures: u32,
}

/// Something to send at the end of the turn: a range of the outbox, or when that is empty, the connection's own buffer.
struct Flush {
    slot: u32,
    range: Range<u32>,
}

/// A connection that has said all, in a drain, and whether it is owed anything.
struct Drained {
    slot: u32,
    answered: bool,
}

/// Timers of the loop itself; those of connections come after, by slot.
#[derive(Clone, Copy)]
enum LoopTimer {
    /// Accept and receive again after an error for want of resources.
    Retry,
    /// Give memory back after a load drop.
    Trim,
    Report,
    /// The drain has taken too long.
    DrainTimeout,
    /// Forget the penalties that are over.
    Penalties,
}

impl LoopTimer {
    const ALL: [LoopTimer; 5] =
        [LoopTimer::Retry, LoopTimer::Trim, LoopTimer::Report, LoopTimer::DrainTimeout, LoopTimer::Penalties];
    const COUNT: u32 = LoopTimer::ALL.len() as u32;
}

fn timer_id(slot: u32) -> u32 {
    slot + LoopTimer::COUNT
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
        self.drain_outbox(now); //            8
        self.flush(now); //                   9
        self.reap(now); //                   10
        Ok(())
    }

    /// Phase 1: no wait when work was carried over, else until the next timer.
    fn poll_timeout(&self) -> Option<Duration> {
        let accepts = !self.acceptable.is_empty() && self.gate != Gate::Exhausted;
        if accepts || self.has_output() || !self.ready.is_empty() || !self.receivable.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.next_fires().map(|tick| tick.wait_from(self.now))
    }

    /// Phase 2: asks what became ready, and sorts it onto the work lists.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.stats.turns > 0 {
            self.stats.turn_took(self.net.now().since(self.now));
        }
        let may_wait = !self.limits.gather.is_zero() && timeout.is_none_or(|timeout| timeout > self.limits.gather);
        if may_wait && self.gather.pays(self.events.len()) {
            self.stats.gathers += 1;
            self.net.pause(self.limits.gather);
        }
        self.events.clear();
        self.net.poll(&mut self.events, timeout)?;
        self.stats.turns += 1;
        self.stats.events += self.events.len() as u64;
        for event in &self.events {
            match event.token.source() {
                Source::Connection { slot, generation } => match self.connections.get_mut(slot as usize) {
                    Some(connection) if connection.generation.get() == generation => {
                        connection.note_ready(event);
                        enqueue(&mut self.ready, connection, slot);
                    }
                    // Meant for a connection that is gone.
                    _ => self.stats.stale_events += 1,
                },
                Source::Listener(index) => push_once(&mut self.acceptable, index),
                Source::Socket(index) => push_once(&mut self.receivable, index),
                Source::Signals => self.signals_due = true,
            }
        }
        Ok(())
    }

    /// Phase 3: the one reading of the clock. It is passed down; nothing below reads another.
    fn read_clock(&mut self) -> Time {
        self.now = self.net.now();
        self.now
    }

    /// Phase 4: takes new connections, from each listener in turn.
    fn accept(&mut self, now: Time) {
        self.told = 0;
        for _ in 0..self.limits.accepts_per_turn {
            // Who was closed to make way keeps its file until the end of the turn.
            if self.gate == Gate::Exhausted || self.closed.len() >= RECYCLES_PER_TURN {
                break;
            }
            let Some(index) = self.acceptable.pop_front() else { break };
            let Some(listener) = self.listeners.get_mut(index as usize) else { continue };
            let slot = self.connections.vacant_key() as u32;
            match self.net.accept(&listener.handle, Token::connection(slot, self.generation)) {
                Ok((stream, peer)) => {
                    listener.failures = 0;
                    self.acceptable.push_back(index);
                    debug!("accepted {peer} in slot {slot}");
                    self.receive(stream, peer, index, now);
                }
                Err(error) => self.accept_failed(index, &error, now),
            }
        }
        self.stats.carried += self.acceptable.len() as u64;
    }

    /// Phase 5: serves the connections that are readable, or writable, or were left over.
    fn serve_connections(&mut self, now: Time) {
        self.consults = 0;
        self.facts.set(0);
        for _ in 0..self.ready.len().min(self.limits.connections_per_turn) {
            if self.outbox.len() >= self.limits.output_per_turn || self.is_backlogged() || self.has_consulted_enough() {
                break;
            }
            let Some(token) = self.ready.pop_front() else { break };
            let Source::Connection { slot, generation } = token.source() else { continue };
            match self.connections.get_mut(slot as usize) {
                Some(connection) if connection.generation.get() == generation => {
                    connection.flags.clear(Flags::QUEUED);
                    self.serve(slot, now.tick());
                }
                _ => self.stats.stale_events += 1,
            }
        }
        self.stats.carried += self.ready.len() as u64;
    }

    fn has_consulted_enough(&self) -> bool {
        self.consults >= CONSULTS_PER_TURN || self.facts.get() >= FACTS_PER_TURN
    }

    /// Whether so much waits for delivery that who has been promised it comes first.
    pub fn is_backlogged(&self) -> bool {
        self.services.iter().any(|service| service.is_backlogged())
    }

    /// Phase 6: takes datagrams a batch at a time, from each socket in turn, and answers them at once.
    fn serve_datagrams(&mut self, now: Time) {
        for _ in 0..self.limits.datagram_batches_per_turn {
            if self.is_backlogged() {
                break;
            }
            let Some(index) = self.receivable.pop_front() else { break };
            let Some(socket) = self.sockets.get(index as usize) else { continue };
            match self.net.receive(&socket.handle, &mut self.datagrams) {
                Ok(count) => {
                    self.stats.datagrams_in += count as u64;
                    self.stats.work.datagrams += count as u64;
                    self.answer_datagrams(index);
                    if count == DATAGRAMS_PER_BATCH {
                        self.receivable.push_back(index);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.stats.datagram_errors += 1;
                    self.retry_later(now);
                }
            }
        }
        self.stats.carried += self.receivable.len() as u64;
    }

    /// Phase 7: acts on the timers that are due.
    fn expire_timers(&mut self, now: Time) {
        if self.is_catching_up(now) {
            return;
        }
        for _ in 0..self.limits.expiries_per_turn {
            let Some(id) = self.timers.poll_expired(now.tick()) else { return };
            self.stats.work.expiries += 1;
            match id.checked_sub(LoopTimer::COUNT) {
                Some(slot) => self.connection_timer(slot, now.tick()),
                None => self.loop_timer(LoopTimer::ALL[id as usize], now),
            }
        }
    }

    /// Phase 8: gives what the services put out to the connections: bytes to send, and closes.
    fn drain_outbox(&mut self, now: Time) {
        self.close_drained();
        for service in &mut self.services {
            let count = self.limits.deliveries_per_turn;
            let bytes = self.limits.output_per_turn;
            service.poll_output(&mut Deliveries::new(&mut self.outbox, count, bytes));
        }
        self.stats.work.deliveries += self.outbox.entries().len() as u64;
        for entry in self.outbox.entries() {
            let connection = &mut self.connections[entry.slot as usize];
            // Who is closing has had its last answer; who is closed has none to come.
            if !connection.is_serving() {
                continue;
            }
            // Behind unsent output, more must queue. A blocked connection is flushed when it is writable again; one that
            // has become so, or has output of this turn, is on the flush list already.
            let unsent = self.pool.len(&connection.output);
            let behind = unsent > 0 || connection.flags.has(Flags::IN_OUTBOX);
            let mut range = entry.range.clone();
            if behind || self.pool.is_fixed() {
                let bytes = self.outbox.bytes(&entry.range);
                let untrusted = behind && connection.flags.has(Flags::UNTRUSTED);
                // What it asked for itself is bounded by the watermark, at which it is not read; one answer comes on top.
                let own = if entry.is_own { self.limits.high_watermark } else { 0 };
                let most = if untrusted { UNTRUSTED_OUTPUT_MAX } else { self.limits.output_limit + own };
                if unsent + bytes.len() > most {
                    close(&mut self.closed, connection, entry.slot, Reason::OutputLimit);
                    continue;
                }
                if self.pool.append(&mut connection.output, Use::Write(entry.slot), bytes).is_err() {
                    close(&mut self.closed, connection, entry.slot, Reason::MemoryBudget);
                    continue;
                }
                if connection.owes(unsent + bytes.len(), self.limits.output_soft_limit, now.tick()) {
                    arm(&mut self.timers, connection, entry.slot, &self.timeouts, now.tick());
                }
                range = 0..0;
            }
            if let Some(reason) = entry.close {
                connection.begin_closing(reason, now.tick());
                self.services[connection.flags.service() as usize].closing(entry.slot);
                arm(&mut self.timers, connection, entry.slot, &self.timeouts, now.tick());
            }
            if !behind {
                connection.output_progress(now.tick());
                connection.flags.set(Flags::IN_OUTBOX);
                self.flushes.push(Flush { slot: entry.slot, range });
            }
        }
    }

    /// Phase 9: writes to every connection that has something to send, once.
    fn flush(&mut self, now: Time) {
        let mut flushes = std::mem::take(&mut self.flushes);
        for flush in flushes.drain(..) {
            self.flush_one(flush, now.tick());
        }
        self.flushes = flushes;
        self.outbox.clear();
    }

    /// Phase 10: frees the connections that closed during the turn.
    fn reap(&mut self, now: Time) {
        self.evict();
        self.peak_bytes = self.peak_bytes.max(self.bytes_in_use());
        let any_closed = !self.closed.is_empty();
        while let Some(slot) = self.closed.pop() {
            self.speaks(slot);
            let mut connection = self.connections.remove(slot as usize);
            self.admission.sources.closed(connection.source);
            self.timers.disarm(timer_id(slot));
            self.pool.release(&mut connection.input);
            self.pool.release(&mut connection.output);
            if let Some(reason) = connection.reason() {
                debug!("closed slot {slot}: {}", reason.name());
                self.stats.closed[reason as usize] += 1;
            }
            self.part(slot, connection, now);
        }
        if any_closed {
            // Less fits any budget.
            let _ = self.reserve(self.connections.len());
            if self.gate == Gate::Exhausted || self.has_room_again() {
                self.gate = Gate::Open;
            }
        }
        let dropped = self.peak_bytes >= TRIM_BYTES && self.bytes_in_use() <= self.peak_bytes / TRIM_FRACTION;
        let emptied = any_closed && self.connections.is_empty() && self.ledger().for_connections() >= TRIM_BYTES;
        if (dropped || emptied) && self.timers.fires(LoopTimer::Trim as u32).is_none() {
            self.arm_loop_timer(LoopTimer::Trim, TRIM_DELAY, now);
        }
    }
}

/// Puts a connection on the list of those to serve, unless it is there.
fn enqueue<S>(ready: &mut VecDeque<Token>, connection: &mut Connection<S>, slot: u32) {
    if !connection.flags.has(Flags::QUEUED) {
        connection.flags.set(Flags::QUEUED);
        ready.push_back(Token::connection(slot, connection.generation));
    }
}

/// The same for listeners and sockets, of which there are few.
fn push_once(list: &mut VecDeque<u8>, index: u8) {
    if !list.contains(&index) {
        list.push_back(index);
    }
}

/// Ends a connection: the one way there is. It is reaped in the last phase.
fn close<S>(closed: &mut Vec<u32>, connection: &mut Connection<S>, slot: u32, reason: Reason) {
    if connection.close(reason) {
        closed.push(slot);
    }
}

/// Sees to it that the connection's timer fires by its deadline. Without a deadline it fires once a revolution all the same: every
/// connection is in the wheel, always.
fn arm<S>(timers: &mut TimerWheel, connection: &Connection<S>, slot: u32, timeouts: &Timeouts, now: Tick) {
    let due = connection.deadline(timeouts).map_or(now.plus(timer::HORIZON), |(due, _)| due);
    timers.arm_by(timer_id(slot), due);
}
