//! The core of the loop: its connections, and all that it knows of them. The services are the other
//! half; neither looks into the other.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use log::warn;
use slab::Slab;

use crate::admission::{Admission, Gate};
use crate::buffer::{BudgetExceeded, BufferMode, BufferPool};
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Flags, Reason, State, Timeouts};
use crate::kernel;
use crate::limits::{
    ACCEPT_RETRY, CATCH_UP_MAX, EVENTS_PER_POLL, KERNEL_RECEIVE_BUFFER_MAX, KERNEL_SEND_BUFFER_MAX, Limits,
    PENALTY_MAX, RECYCLES_PER_TURN, STOPPED_MIN, SocketOptions, WARNING_INTERVAL,
};
use crate::memory::KernelObjects;
use crate::net::{Net, Ready};
use crate::sources::SourceId;
use crate::stats::Stats;
use crate::timer::{self, TimerWheel};
use crate::token::{Generation, Source, Token};

pub struct Core<N: Net> {
    pub(super) net: N,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) now: Time,
    pub(super) stats: Stats,
    pub(super) listeners: Vec<Port<N::Listener>>,
    pub(super) sockets: Vec<Port<N::Socket>>,
    pub(super) admission: Admission,

    pub(super) connections: Slab<Connection<N::Stream>>,
    pub(super) generation: Generation,
    pub(super) slots_used: usize,
    pub(super) pool: BufferPool,
    pub(super) timers: TimerWheel,
    /// When the loop's own timers are really due: the wheel may fire them early.
    pub(super) loop_timers_due: [Tick; LoopTimer::ALL.len()],

    pub(super) carry: Carry,
    pub(super) turn: Turn,
    pub(super) upkeep: Upkeep,
    pub(super) start: Start,
    /// When it began to stop.
    pub(super) draining_since: Option<Time>,
    /// When it found that it had been stopped.
    pub(super) catching_up_since: Option<Time>,
}

/// Work that poll adds to and the phases take from. What a budget leaves undone stays here.
#[derive(Default)]
pub struct Carry {
    pub(super) acceptable: VecDeque<u8>,
    pub(super) ready: VecDeque<Token>,
    pub(super) receivable: VecDeque<u8>,
    /// Connections that are over and have yet to be reaped, with the state that each was in before.
    pub(super) closed: Vec<(u32, State)>,
    /// Of these, the first so many whose services have been told.
    pub(super) told: usize,
}

/// What is filled and emptied within a turn; kept for its memory.
#[derive(Default)]
pub struct Turn {
    pub(super) events: Vec<Ready>,
    pub(super) flushes: Vec<Flush>,
    pub(super) drained: Vec<Drained>,
}

/// What is looked after between times: memory, reports, warnings.
#[derive(Default)]
pub struct Upkeep {
    /// Most memory in use since it was last given back.
    pub(super) peak_bytes: usize,
    /// What the services held at the end of the last turn: for sessions, and otherwise.
    pub(super) services_bytes: (usize, usize),
    pub(super) warned_at: Option<Time>,
    pub(super) report_due: bool,
    pub(super) signals_due: bool,
}

/// What there was before any connection.
pub struct Start {
    pub(super) kernel_objects: KernelObjects,
    pub(super) kernel_counters: kernel::Counters,
    pub(super) resident_bytes: u64,
}

/// A listening address and the service behind it.
pub struct Port<H> {
    pub(super) handle: H,
    pub(super) address: std::net::SocketAddr,
    pub(super) service: u8,
    /// Not subject to admission, and let in to the slots kept back.
    pub(super) for_operator: bool,
    /// Accepts that have failed in a row.
    pub(super) failures: u32,
}

/// Something to send at the end of the turn: a range of the outbox, or when that is empty, the connection's own buffer.
pub struct Flush {
    pub(super) slot: u32,
    pub(super) range: Range<u32>,
}

/// A connection that has said all, in a drain, and whether it is owed anything.
pub struct Drained {
    pub(super) slot: u32,
    pub(super) answered: bool,
}

/// Timers of the loop itself; those of connections come after, by slot.
#[derive(Clone, Copy)]
pub enum LoopTimer {
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
    pub(super) const ALL: [LoopTimer; 5] =
        [LoopTimer::Retry, LoopTimer::Trim, LoopTimer::Report, LoopTimer::DrainTimeout, LoopTimer::Penalties];
    pub(super) const COUNT: u32 = LoopTimer::ALL.len() as u32;
}

pub(super) fn timer_id(slot: u32) -> u32 {
    slot + LoopTimer::COUNT
}

impl<N: Net> Core<N> {
    pub(super) fn new(net: N, limits: Limits, buffers: BufferMode) -> Core<N> {
        let now = net.now();
        let mut pool = BufferPool::new(buffers, limits.memory_budget);
        pool.set_kernel_bytes_per_write(kernel_buffers(&limits));
        let slots = limits.max_connections + RECYCLES_PER_TURN;
        let start = Start {
            kernel_objects: net.kernel_objects(),
            kernel_counters: net.kernel_counters(),
            resident_bytes: net.resident_bytes().unwrap_or(0),
        };
        Core {
            timeouts: Timeouts::new(&limits),
            now,
            stats: Stats::default(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            admission: Admission::default(),
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
            draining_since: None,
            catching_up_since: None,
            net,
            limits,
        }
    }

    /// The slot that a token names, while it is that connection's.
    pub(super) fn slot_of(&mut self, token: Token) -> Option<u32> {
        let Source::Connection { slot, generation } = token.source() else { return None };
        let connection = self.connections.get(slot as usize);
        let is_it = connection.is_some_and(|connection| connection.generation.get() == generation);
        if !is_it {
            // Meant for a connection that is gone.
            self.stats.stale_events += 1;
        }
        is_it.then_some(slot)
    }

    /// Puts a connection on the list of those to serve, unless it is there.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.flags.has(Flags::QUEUED) {
            connection.flags.set(Flags::QUEUED);
            self.carry.ready.push_back(Token::connection(slot, connection.generation));
        }
    }

    /// Ends a connection: the one way there is. It is reaped in the last phase.
    pub(super) fn close(&mut self, slot: u32, reason: Reason) {
        let connection = &mut self.connections[slot as usize];
        let state = connection.state();
        if connection.close(reason) {
            self.carry.closed.push((slot, state));
        }
    }

    /// Sees to it that the connection's timer fires by its deadline. Without a deadline it fires once a revolution all the same: every
    /// connection is in the wheel, always.
    pub(super) fn arm(&mut self, slot: u32) {
        let deadline = self.connections[slot as usize].deadline(&self.timeouts);
        let due = deadline.map_or(self.now.tick().plus(timer::HORIZON), |(due, _)| due);
        self.timers.arm_by(timer_id(slot), due);
    }

    /// Reads a connection again that its service has let wait.
    pub(super) fn go_on(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let before = connection.state();
        if connection.go_on(self.now.tick()) {
            self.stats.moved(before, connection.state());
            self.arm(slot);
            self.enqueue(slot);
        }
    }

    /// Changes the limits while running. New timeouts reach connections that are already open: this walks all of them, once,
    /// because an operator asked. New options of sockets reach those accepted from now on.
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
        for slot in self.slots() {
            self.arm(slot);
        }
    }

    /// Has a report come due every so often; never for zero.
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
                warn!("options of sockets on {} not changed: {error}", listener.address);
            }
        }
    }

    /// Starts to stop: nothing new is accepted, what has arrived is answered, what is owed is sent, then each connection
    /// closes. This is the one walk over all connections, at the end of the server's life.
    pub(super) fn drain(&mut self) {
        // Asked again, it goes on as it is: its end must not move away.
        if self.draining_since.is_some() {
            return;
        }
        self.draining_since = Some(self.now);
        for listener in self.listeners.drain(..) {
            self.net.close_listener(listener.handle);
        }
        for socket in self.sockets.drain(..) {
            self.net.close_socket(socket.handle);
        }
        self.carry.acceptable.clear();
        self.carry.receivable.clear();
        self.arm_loop_timer(LoopTimer::DrainTimeout, self.limits.drain_timeout, self.now);
        for slot in self.slots() {
            let flags = &mut self.connections[slot as usize].flags;
            flags.set(Flags::DRAINING);
            flags.set(Flags::READABLE);
            self.enqueue(slot);
        }
    }

    /// The slots in use. Walks all of them.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.connections.iter().map(|(slot, _)| slot as u32).collect()
    }

    /// Size of a slab entry: the slab keeps its free list where the connections are.
    pub(super) const BYTES_PER_SLOT: usize = size_of::<SlabEntry<Connection<N::Stream>>>();

    /// Slab and wheel, which grow together, per connection.
    pub(super) const BYTES_PER_CONNECTION: usize = Self::BYTES_PER_SLOT + TimerWheel::BYTES_PER_TIMER;

    /// Takes so many connections off the budget: slots and timers that have been used, and what the kernel has for each connection.
    pub(super) fn reserve(&mut self, connections: usize) -> Result<(), BudgetExceeded> {
        let kernel = self.start.kernel_objects.bytes as usize * connections;
        self.pool.set_reserved(self.slots_used * Self::BYTES_PER_CONNECTION + kernel)
    }

    /// What the present connections need: less than is held, after a load drop.
    pub(super) fn bytes_in_use(&self) -> usize {
        self.connections.len() * Self::BYTES_PER_CONNECTION + self.pool.read_bytes() + self.pool.write_bytes()
    }

    /// A warning that may be caused again and again.
    pub(super) fn warn(&mut self, now: Time, message: std::fmt::Arguments<'_>) {
        if self.upkeep.warned_at.is_none_or(|then| now.since(then) >= WARNING_INTERVAL) {
            self.upkeep.warned_at = Some(now);
            warn!("{message}");
        }
    }

    pub(super) fn arm_loop_timer(&mut self, timer: LoopTimer, after: Duration, now: Time) {
        let due = now.tick().plus(Tick::count(after));
        self.loop_timers_due[timer as usize] = due;
        self.timers.arm(timer as u32, due);
    }

    /// Adds to the penalty of a source.
    pub(super) fn punish(&mut self, source: SourceId, penalty: Duration) {
        self.admission.sources.punish(source, penalty, self.now.tick());
        if self.timers.fires(LoopTimer::Penalties as u32).is_none() {
            self.arm_loop_timer(LoopTimer::Penalties, PENALTY_MAX, self.now);
        }
    }

    /// Whether the process was stopped, and what peers sent meanwhile is still being read: until it is, nobody is to blame for silence.
    pub(super) fn is_catching_up(&mut self, now: Time) -> bool {
        let has_read_all = self.turn.events.len() < EVENTS_PER_POLL && self.carry.ready.is_empty();
        let was_stopped = |next: Tick| now.tick().distance_from(next) > Tick::count(STOPPED_MIN) as i32;
        if has_read_all || !self.timers.next_fires().is_some_and(was_stopped) {
            self.catching_up_since = None;
            return false;
        }
        let since = *self.catching_up_since.get_or_insert(now);
        now.since(since) < CATCH_UP_MAX
    }

    pub(super) fn retry_later(&mut self, now: Time) {
        // Armed already, it must not move away.
        if self.timers.fires(LoopTimer::Retry as u32).is_none() {
            self.arm_loop_timer(LoopTimer::Retry, ACCEPT_RETRY, now);
        }
    }

    /// Before the budget is passed, who holds most is closed, and their buffers are free at once.
    pub(super) fn evict(&mut self) {
        while let Some(slot) = self.pool.largest_over_budget() {
            let connection = &mut self.connections[slot as usize];
            self.pool.release(&mut connection.input);
            self.pool.release(&mut connection.output);
            self.close(slot, Reason::MemoryBudget);
            self.stats.evicted += 1;
        }
    }
}

/// The layout of an entry of the slab crate, which is private to it: what it takes in memory is measured on this.
#[expect(dead_code, reason = "only its size is used")]
enum SlabEntry<T> {
    Vacant(usize),
    Occupied(T),
}

/// What the kernel may hold in buffers for a connection whose peer takes nothing, in bytes.
fn kernel_buffers(limits: &Limits) -> usize {
    let SocketOptions { send_buffer, notsent_lowat, receive_buffer, .. } = limits.sockets;
    let send = match (send_buffer, notsent_lowat) {
        (0, 0) => KERNEL_SEND_BUFFER_MAX,
        // Packets have as much overhead again, at most.
        (0, lowat) => 2 * lowat,
        (size, _) => size,
    };
    send + if receive_buffer == 0 { KERNEL_RECEIVE_BUFFER_MAX } else { receive_buffer }
}
