//! The core of the loop: the connections, and everything the loop records about them. The services
//! are the other half. Neither half accesses the data of the other.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use log::warn;
use slab::Slab;

use super::dial_table::Dials;
use super::readings::Readings;
use crate::admission::{Admission, Gate};
use crate::buffer::{BudgetExceeded, BufferMode, BufferPool, Use};
use crate::clock::{LoopClock, Tick, Time};
use crate::connection::{Connection, Flags, Reason, State, Timeouts};
use crate::datagram_gate::DatagramGate;
use crate::kernel;
use crate::limits::{
    ACCEPT_RETRY, CATCH_UP_MAX, EVENTS_PER_POLL, KERNEL_RECEIVE_BUFFER_MAX, KERNEL_SEND_BUFFER_MAX,
    Limits, PENALTY_MAX, SPARE_SLOTS, SocketOptions, TRIM_BYTES, TRIM_FRACTION, WARNING_INTERVAL,
};
use crate::memory::KernelObjects;
use crate::net::{Net, Ready};
use crate::service::Service;
use crate::sources::SourceId;
use crate::stats::Stats;
use crate::timer::{self, TimerWheel};
use crate::token::{Generation, Source, Token};

/// The state of the loop without the services and the buffers of a turn.
pub struct Core<N: Net> {
    pub(super) net: N,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) now: Time,
    pub(super) clock: LoopClock,
    pub(super) stats: Stats,
    pub(super) listeners: Vec<Port<N::Listener>>,
    pub(super) sockets: Vec<Port<N::Socket>>,
    pub(super) admission: Admission,
    pub(super) datagram_gate: DatagramGate,
    pub(super) dials: Dials,

    pub(super) connections: Slab<Connection<N::Stream>>,
    pub(super) generation: Generation,
    pub(super) slots_used: usize,
    pub(super) pool: BufferPool,
    pub(super) timers: TimerWheel,
    /// Due times of the loop's own timers. The wheel may fire them early.
    pub(super) loop_timers_due: [Tick; LoopTimer::ALL.len()],

    pub(super) carry: Carry,
    pub(super) turn: Turn,
    pub(super) upkeep: Upkeep,
    pub(super) start: Start,
    pub(super) readings: Readings,
    /// When the drain began.
    pub(super) draining_since: Option<Time>,
    /// When the loop noticed that its process had been stopped; `None` once it has caught up.
    pub(super) catching_up_since: Option<Time>,
}

/// The carry lists: poll adds work, and the phases take it. Work beyond a budget stays for the next
/// turn.
#[derive(Default)]
pub struct Carry {
    pub(super) acceptable: VecDeque<u8>,
    pub(super) ready: VecDeque<Token>,
    pub(super) receivable: VecDeque<u8>,
    /// Closed connections to reap, each with its state before the close.
    pub(super) closed: Vec<(u32, State)>,
    /// Number of entries at the front of `closed` that the services have been notified of.
    pub(super) told: usize,
}

/// Lists that one turn fills and empties. They are kept to reuse their memory.
#[derive(Default)]
pub struct Turn {
    /// When the poll of this turn began, on the loop's time.
    pub(super) polled_at: Time,
    /// True if the process was stopped in the poll of this turn or right after it.
    pub(super) was_stopped: bool,
    /// When the turn began, on the system's time: after its poll.
    pub(super) began: Time,
    pub(super) events: Vec<Ready>,
    pub(super) flushes: Vec<Flush>,
    /// Bytes written from buffers in this turn.
    pub(super) written: usize,
    pub(super) drained: Vec<Drained>,
}

/// The highest number of bytes since the last trim, of one kind of memory.
#[derive(Default)]
pub struct Peak(pub(super) usize);

impl Peak {
    pub(super) fn note(&mut self, bytes: usize) {
        self.0 = self.0.max(bytes);
    }

    /// Returns true if a fall to these bytes is worth a trim.
    pub(super) fn has_fallen_to(&self, bytes: usize) -> bool {
        self.0 >= TRIM_BYTES && bytes <= self.0 / TRIM_FRACTION
    }
}

/// Periodic upkeep: memory, warnings, reports, signals.
#[derive(Default)]
pub struct Upkeep {
    pub(super) in_use: Peak,
    /// Of the output that waits in the services.
    pub(super) waiting: Peak,
    /// Bytes that the services held at the end of the last turn: for sessions, and fixed.
    pub(super) services_bytes: (usize, usize),
    pub(super) warned_at: Option<Time>,
    pub(super) report_due: bool,
    pub(super) signals_due: bool,
}

/// Measurements from before the first connection.
pub struct Start {
    pub(super) kernel_objects: KernelObjects,
    pub(super) kernel_counters: kernel::Counters,
    pub(super) resident_bytes: u64,
    /// The time of the system's clock.
    pub(super) system_time: Duration,
}

/// A listener or a datagram socket, and the service behind it.
pub struct Port<H> {
    pub(super) handle: H,
    pub(super) address: std::net::SocketAddr,
    pub(super) service: u8,
    /// Connections bypass admission and may use the reserved slots.
    pub(super) for_operator: bool,
    /// Consecutive accepts that failed.
    pub(super) failures: u32,
}

/// A connection to flush at the end of the turn. Its output is a range of the outbox or, if that is
/// empty, the connection's own buffer.
pub struct Flush {
    pub(super) slot: u32,
    pub(super) range: Range<u32>,
}

/// A finished connection of a drain: its input is served. `answered` is true when the connection
/// has an answer of this turn or unsent output.
pub struct Drained {
    pub(super) slot: u32,
    pub(super) answered: bool,
}

/// The loop's own timers. The timers of connections follow, by slot.
#[derive(Clone, Copy)]
pub enum LoopTimer {
    /// Accepts and receives again after an error.
    Retry,
    /// Gives memory back after a load drop.
    Trim,
    Report,
    /// Closes the connections that are left when `drain-timeout` ends.
    DrainTimeout,
    /// Forgets expired penalties.
    Penalties,
    /// Closes overdue silent connections under pressure.
    Silent,
    /// Gives up dials that have run out of time.
    Dials,
    /// Ends a poll, for the caller of the loop.
    Wake,
}

impl LoopTimer {
    pub(super) const ALL: [LoopTimer; 8] = [
        LoopTimer::Retry,
        LoopTimer::Trim,
        LoopTimer::Report,
        LoopTimer::DrainTimeout,
        LoopTimer::Penalties,
        LoopTimer::Silent,
        LoopTimer::Dials,
        LoopTimer::Wake,
    ];
    pub(super) const COUNT: u32 = LoopTimer::ALL.len() as u32;
}

/// Returns the timer id of the connection in a slot.
pub(super) fn timer_id(slot: u32) -> u32 {
    slot + LoopTimer::COUNT
}

impl<N: Net> Core<N> {
    pub(super) fn new(net: N, limits: Limits, buffers: BufferMode) -> Core<N> {
        let now = net.now();
        let mut pool = BufferPool::new(buffers, limits.memory_budget);
        pool.set_kernel_bytes_per_write(kernel_buffers(&limits));
        let start = Start {
            kernel_objects: net.kernel_objects(),
            kernel_counters: net.kernel_counters(),
            resident_bytes: net.resident_bytes().unwrap_or(0),
            system_time: net.system_time(),
        };
        // The tables need no room for connections that the memory budget has no room for.
        let fit = limits.memory_budget
            / (Self::BYTES_PER_CONNECTION + start.kernel_objects.bytes as usize);
        let slots = limits.max_connections.min(fit) + SPARE_SLOTS;
        Core {
            timeouts: Timeouts::new(&limits),
            now,
            clock: LoopClock::start(now),
            stats: Stats::default(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            admission: Admission::default(),
            datagram_gate: DatagramGate::default(),
            dials: Dials::default(),
            connections: Slab::with_capacity(slots),
            generation: Generation::FIRST,
            slots_used: 0,
            pool,
            timers: TimerWheel::new(slots + LoopTimer::ALL.len(), now.tick()),
            loop_timers_due: [now.tick(); _],
            carry: Carry::default(),
            turn: Turn { events: Vec::with_capacity(EVENTS_PER_POLL), ..Turn::default() },
            upkeep: Upkeep::default(),
            start,
            readings: Readings::default(),
            draining_since: None,
            catching_up_since: None,
            net,
            limits,
        }
    }

    /// Returns the slot that a token names. Returns `None` if that connection is gone.
    pub(super) fn slot_of(&mut self, token: Token) -> Option<u32> {
        let Source::Connection { slot, generation } = token.source() else { return None };
        let connection = self.connections.get(slot as usize);
        let is_it = connection.is_some_and(|connection| connection.generation.get() == generation);
        if !is_it {
            // The slot is free or has a new owner.
            self.stats.stale_events += 1;
        }
        is_it.then_some(slot)
    }

    /// Adds a connection to the carry list, unless it is there.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.flags.has(Flags::QUEUED) {
            connection.flags.set(Flags::QUEUED);
            self.carry.ready.push_back(Token::connection(slot, connection.generation));
        }
    }

    /// Closes a connection. Every close goes through here, and phase 10 reaps the connection.
    pub(super) fn close(&mut self, slot: u32, reason: Reason) {
        let connection = &mut self.connections[slot as usize];
        let state = connection.state();
        if connection.close(reason) {
            self.carry.closed.push((slot, state));
        }
    }

    /// Makes the connection's timer fire by its deadline. Without a deadline, it fires once per
    /// revolution, because every connection stays in the wheel.
    pub(super) fn arm(&mut self, slot: u32) {
        let deadline = self.connections[slot as usize].deadline(&self.timeouts);
        let due = deadline.map_or(self.now.tick().plus(timer::HORIZON), |(due, _)| due);
        self.timers.arm_by(timer_id(slot), due);
    }

    /// Reads a connection again after its service made it wait.
    pub(super) fn go_on(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let before = connection.state();
        if connection.go_on(self.now.tick()) {
            self.stats.moved(before, connection.state());
            self.arm(slot);
            self.enqueue(slot);
        }
    }

    /// Changes the limits at run time. New timeouts apply to open connections too, so this walks
    /// all of them. New socket options apply to connections accepted from now on.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.pool.set_kernel_bytes_per_write(kernel_buffers(&limits));
        self.timeouts = Timeouts::new(&limits);
        self.pool.set_budget(limits.memory_budget);
        if self.admission.gate == Gate::Full {
            self.admission.gate = Gate::Open;
        }
        if limits.report_every != self.limits.report_every {
            self.set_report_every(limits.report_every);
        }
        let sockets_change = limits.sockets != self.limits.sockets;
        self.limits = limits;
        if sockets_change {
            self.configure_listeners();
        }
        if let Some(since) = self.draining_since {
            self.arm_loop_timer(LoopTimer::DrainTimeout, self.limits.drain_timeout, since);
        }
        // Each timer fires now, and then by the new deadline of its connection or service.
        for slot in self.slots() {
            self.timers.arm_by(timer_id(slot), self.now.tick());
        }
        self.arm_loop_timer_at(LoopTimer::Silent, self.now.tick());
    }

    /// Sets how often a report becomes due. Zero means never.
    pub(super) fn set_report_every(&mut self, every: Duration) {
        self.limits.report_every = every;
        self.timers.disarm(LoopTimer::Report as u32);
        if !every.is_zero() {
            self.arm_loop_timer(LoopTimer::Report, every, self.now);
        }
    }

    fn configure_listeners(&mut self) {
        for listener in &self.listeners {
            if let Err(error) = self.net.configure(&listener.handle, &self.limits.sockets) {
                warn!("cannot change the socket options of listener {}: {error}", listener.address);
            }
        }
    }

    /// Returns the slots in use. Walks the whole table.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.connections.iter().map(|(slot, _)| slot as u32).collect()
    }

    /// Size of a slab entry in bytes. The slab keeps its free list inside vacant entries.
    pub(super) const BYTES_PER_SLOT: usize = size_of::<SlabEntry<Connection<N::Stream>>>();

    /// Bytes of slab and wheel per connection. Both grow together.
    pub(super) const BYTES_PER_CONNECTION: usize =
        Self::BYTES_PER_SLOT + TimerWheel::BYTES_PER_TIMER;

    /// Reserves budget for `connections` connections: the slots and timers used so far, and the
    /// kernel's structures. Fails when the budget is used up.
    pub(super) fn reserve(&mut self, connections: usize) -> Result<(), BudgetExceeded> {
        let kernel = self.start.kernel_objects.bytes as usize * connections;
        self.pool.set_reserved(self.slots_used * Self::BYTES_PER_CONNECTION + kernel)
    }

    /// Returns the bytes of output that wait in the services.
    pub(super) fn waiting_bytes(services: &[Box<dyn Service>]) -> usize {
        services.iter().map(|service| service.waiting_bytes()).sum()
    }

    /// Asks the services for the memory that they hold. That takes some hundred instructions, so a
    /// turn does it once more only if it closes connections.
    pub(super) fn count_services(&mut self, services: &[Box<dyn Service>]) {
        let bytes = services.iter().map(|service| service.bytes()).sum();
        let fixed = services.iter().map(|service| service.fixed_bytes()).sum();
        self.pool.services = bytes;
        self.upkeep.services_bytes = (bytes, fixed);
    }

    /// Returns the bytes that the present connections need. After a load drop, more is held.
    pub(super) fn bytes_in_use(&self) -> usize {
        self.connections.len() * Self::BYTES_PER_CONNECTION
            + self.pool.read_bytes()
            + self.pool.write_bytes()
            + self.pool.shared_bytes()
    }

    /// Logs a warning, at most one per [`WARNING_INTERVAL`], because peers may cause it at any
    /// rate.
    pub(super) fn warn(&mut self, now: Time, message: std::fmt::Arguments<'_>) {
        if self.upkeep.warned_at.is_none_or(|then| now.since(then) >= WARNING_INTERVAL) {
            self.upkeep.warned_at = Some(now);
            warn!("{message}");
        }
    }

    /// Arms one of the loop's own timers, to fire `after` counted from `now`.
    pub(super) fn arm_loop_timer(&mut self, timer: LoopTimer, after: Duration, now: Time) {
        self.arm_loop_timer_at(timer, now.tick().plus(Tick::count(after)));
    }

    pub(super) fn arm_loop_timer_at(&mut self, timer: LoopTimer, due: Tick) {
        self.loop_timers_due[timer as usize] = due;
        self.timers.arm(timer as u32, due);
    }

    /// Adds to the penalty of a source, and arms the timer that forgets expired penalties. Only a
    /// connection that harmed others counts: one that held a place while places were short.
    pub(super) fn punish(&mut self, source: SourceId, penalty: Duration) {
        self.admission.sources.punish(source, penalty, self.now.tick());
        if self.timers.fires(LoopTimer::Penalties as u32).is_none() {
            self.arm_loop_timer(LoopTimer::Penalties, PENALTY_MAX, self.now);
        }
    }

    /// Records that the process was stopped before this moment.
    pub(super) fn note_stop(&mut self, was_stopped: bool) {
        if was_stopped {
            self.stats.stops += 1;
            self.catching_up_since.get_or_insert(self.now);
        }
    }

    /// Returns whether the process was stopped and the loop is still reading the input that arrived
    /// meanwhile. Until it has, or [`CATCH_UP_MAX`] has passed, no connection times out.
    pub(super) fn is_catching_up(&mut self, now: Time) -> bool {
        let Some(since) = self.catching_up_since else { return false };
        let has_read_all = self.turn.events.len() < EVENTS_PER_POLL && self.carry.ready.is_empty();
        // The poll of a turn that was stopped afterwards has not seen all input.
        let is_over = has_read_all && !self.turn.was_stopped;
        if is_over || now.since(since) >= CATCH_UP_MAX {
            self.catching_up_since = None;
        }
        self.catching_up_since.is_some()
    }

    /// Arms the timer that accepts and receives again.
    pub(super) fn retry_later(&mut self, now: Time) {
        // A timer that is already armed must not be postponed.
        if self.timers.fires(LoopTimer::Retry as u32).is_none() {
            self.arm_loop_timer(LoopTimer::Retry, ACCEPT_RETRY, now);
        }
    }

    /// Closes connections while the memory budget is nearly used up: those whose buffers are large
    /// and have made no progress for long. Their buffers are free at once.
    pub(super) fn evict(&mut self) {
        while self.pool.is_nearly_full()
            && let Some(slot) = self.pool.most_stalled()
        {
            self.evict_one(slot);
        }
    }

    fn evict_one(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        self.pool.release(&mut connection.input);
        self.pool.release(&mut connection.output);
        self.close(slot, Reason::MemoryBudget);
        self.stats.evicted += 1;
    }

    /// Appends bytes to a buffer of a connection. If the memory budget has no room for them, others
    /// that have stalled for longer make way. Otherwise the connection must be closed.
    pub(super) fn hold(&mut self, used_for: Use, bytes: &[u8]) -> Result<(), Reason> {
        loop {
            let connection = &mut self.connections[used_for.slot() as usize];
            let buffer = match used_for {
                Use::Read(_) => &mut connection.input,
                Use::Write(_) => &mut connection.output,
            };
            if self.pool.append(buffer, used_for, bytes).is_ok() {
                return Ok(());
            }
            match self.pool.most_stalled() {
                Some(other) if other != used_for.slot() => self.evict_one(other),
                _ => return Err(Reason::MemoryBudget),
            }
        }
    }
}

/// The layout of the slab crate's private entry type, to measure its size.
#[expect(dead_code, reason = "only its size is used")]
enum SlabEntry<T> {
    Vacant(usize),
    Occupied(T),
}

/// Returns the bytes that the kernel may buffer for a connection whose peer takes nothing.
fn kernel_buffers(limits: &Limits) -> usize {
    let SocketOptions { send_buffer, notsent_lowat, receive_buffer, .. } = limits.sockets;
    let send = match (send_buffer, notsent_lowat) {
        (0, 0) => KERNEL_SEND_BUFFER_MAX,
        // The overhead of packets at most doubles their size.
        (0, lowat) => 2 * lowat,
        (size, _) => size,
    };
    send + if receive_buffer == 0 { KERNEL_RECEIVE_BUFFER_MAX } else { receive_buffer }
}
