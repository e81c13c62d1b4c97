//! The loop between turns: set up, change, stop, look at. And its own timers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::warn;
use slab::Slab;

use super::{Drained, Flush, LoopTimer, Port, Reactor, arm, enqueue, push_once};
use crate::admission::{Admission, Gate};
use crate::buffer::{BudgetExceeded, BufferMode, BufferPool};
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Flags, Reason, SERVICES_MAX, State, Timeouts};
use crate::gather::Gather;
use crate::ledger::Ledger;
use crate::limits::{
    ACCEPT_RETRY, CATCH_UP_MAX, EVENTS_PER_POLL, KERNEL_BUFFERS_MAX, Limits, READ_CHUNK, RECYCLES_PER_TURN,
    STOPPED_MIN, WARNING_INTERVAL,
};
use crate::net::{Net, Ready, Signal};
use crate::outbox::Outbox;
use crate::service::Service;
use crate::sources::{PENALTY_MAX, SourceId};
use crate::stats::Stats;
use crate::sys::{self, DatagramBatch};
use crate::timer::TimerWheel;
use crate::token::{Generation, Token};

impl<N: Net> Reactor<N> {
    pub fn new(net: N, limits: Limits, buffers: BufferMode) -> Reactor<N> {
        let now = net.now();
        let mut pool = BufferPool::new(buffers, limits.memory_budget);
        pool.set_kernel_bytes_per_write(kernel_buffers(&limits));
        Reactor {
            timeouts: Timeouts::new(&limits),
            services: Vec::new(),
            lent_service: (0, 0),
            listeners: Vec::new(),
            sockets: Vec::new(),
            gate: Gate::Open,
            admission: Admission::default(),
            connections: Slab::with_capacity(limits.max_connections + RECYCLES_PER_TURN),
            generation: Generation::FIRST,
            pool,
            timers: TimerWheel::new(limits.max_connections + RECYCLES_PER_TURN + LoopTimer::ALL.len(), now.tick()),
            acceptable: VecDeque::new(),
            ready: VecDeque::new(),
            receivable: VecDeque::new(),
            gather: Gather::default(),
            events: Vec::with_capacity(EVENTS_PER_POLL),
            chunk: vec![0; read_chunk(buffers)].into_boxed_slice(),
            datagrams: DatagramBatch::new(),
            outbox: Outbox::default(),
            flushes: Vec::new(),
            closed: Vec::new(),
            drained: Vec::new(),
            told: 0,
            consults: 0,
            facts: Cell::new(0),
            stats: Stats::default(),
            now,
            slots_used: 0,
            peak_bytes: 0,
            warned_at: None,
            catching_up_since: None,
            draining_since: None,
            kernel_objects: net.kernel_objects(),
            kernel_counters_at_start: net.kernel_counters(),
            resident_at_start: net.resident_bytes().unwrap_or(0),
            report_every: Duration::ZERO,
            report_due: false,
            loop_timers_due: [now.tick(); _],
            signals_due: false,
            net,
            limits,
        }
    }

    /// Has chance decide as this seed says, for a simulation that is to play the same way again.
    pub fn seed(&mut self, seed: u64) {
        self.admission.seed(seed);
    }

    /// Adds a service; returns its index for [`Self::listen`] and [`Self::bind`].
    pub fn add_service(&mut self, service: Box<dyn Service>) -> u8 {
        assert!(self.services.len() < SERVICES_MAX, "more services than a connection can tell apart");
        self.services.push(service);
        (self.services.len() - 1) as u8
    }

    /// Listens for streams on behalf of a service; returns the address with the port obtained.
    pub fn listen(&mut self, address: SocketAddr, backlog: u32, service: u8) -> io::Result<SocketAddr> {
        let token = Token::listener(self.listeners.len() as u8);
        let handle = self.net.listen(address, backlog, &self.limits.sockets, token)?;
        let address = self.net.listener_address(&handle)?;
        self.listeners.push(Port { handle, address, service, for_operator: false, failures: 0 });
        Ok(address)
    }

    /// The same for the operator: admission does not judge who comes this way, and some slots are kept for them.
    pub fn listen_for_operator(&mut self, address: SocketAddr, backlog: u32, service: u8) -> io::Result<SocketAddr> {
        let address = self.listen(address, backlog, service)?;
        if let Some(listener) = self.listeners.last_mut() {
            listener.for_operator = true;
        }
        Ok(address)
    }

    /// Binds a datagram socket on behalf of a service; returns the address with the port obtained.
    pub fn bind(&mut self, address: SocketAddr, service: u8) -> io::Result<SocketAddr> {
        let handle = self.net.bind(address, Token::socket(self.sockets.len() as u8))?;
        let address = self.net.socket_address(&handle)?;
        self.sockets.push(Port { handle, address, service, for_operator: false, failures: 0 });
        Ok(address)
    }

    /// Takes back the last [`Self::listen`].
    pub fn unlisten_last(&mut self) {
        if let Some(listener) = self.listeners.pop() {
            self.net.close_listener(listener.handle);
        }
    }

    /// A line for people to try a service with.
    pub fn example(&self, service: u8, address: SocketAddr, stream: bool) -> String {
        // What listens on every address is tried on this machine.
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            ip if ip.is_ipv4() => "127.0.0.1".into(),
            _ => "::1".into(),
        };
        self.services[service as usize].example(&host, address.port(), stream)
    }

    /// Changes the limits while running. New timeouts reach connections that are already open: this walks all of them, once,
    /// because an operator asked. New options of sockets reach those accepted from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.pool.set_kernel_bytes_per_write(kernel_buffers(&limits));
        self.timeouts = Timeouts::new(&limits);
        self.pool.set_budget(limits.memory_budget);
        if self.gate == Gate::Full {
            self.gate = Gate::Open;
        }
        let sockets_change = limits.sockets != self.limits.sockets;
        self.limits = limits;
        if sockets_change {
            self.configure_listeners();
        }
        if let Some(since) = self.draining_since {
            self.arm_loop_timer(LoopTimer::DrainTimeout, self.limits.drain_timeout, since);
        }
        let now = self.now.tick();
        for (slot, connection) in &self.connections {
            arm(&mut self.timers, connection, slot as u32, &self.timeouts, now);
        }
    }

    fn configure_listeners(&mut self) {
        for listener in &self.listeners {
            if let Err(error) = self.net.configure(&listener.handle, &self.limits.sockets) {
                warn!("options of sockets on {} not changed: {error}", listener.address);
            }
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes [`Self::take_report_due`] come true every so often; never for zero.
    pub fn set_report_every(&mut self, every: Duration) {
        self.report_every = every;
        self.timers.disarm(LoopTimer::Report as u32);
        if !every.is_zero() {
            self.arm_loop_timer(LoopTimer::Report, every, self.now);
        }
    }

    pub fn take_report_due(&mut self) -> bool {
        std::mem::take(&mut self.report_due)
    }

    pub fn take_signals(&mut self) -> Vec<Signal> {
        if std::mem::take(&mut self.signals_due) { self.net.signals() } else { Vec::new() }
    }

    /// Starts to stop: nothing new is accepted, what has arrived is answered, what is owed is sent, then each connection
    /// closes. This is the one walk over all connections, at the end of the server's life.
    pub fn drain(&mut self) {
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
        self.acceptable.clear();
        self.receivable.clear();
        self.arm_loop_timer(LoopTimer::DrainTimeout, self.limits.drain_timeout, self.now);
        for (slot, connection) in &mut self.connections {
            connection.flags.set(Flags::DRAINING);
            connection.flags.set(Flags::READABLE);
            enqueue(&mut self.ready, connection, slot as u32);
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining_since.is_some()
    }

    pub fn is_drained(&self) -> bool {
        self.is_draining() && self.connections.is_empty()
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections by state, in the order of the arms of [`State`]. Walks all of them: for a status that someone asked for.
    pub fn connections_by_state(&self) -> [(&'static str, usize); 5] {
        let mut counts = [("silent", 0), ("open", 0), ("partial", 0), ("closing", 0), ("lingering", 0)];
        for (_, connection) in &self.connections {
            match connection.state() {
                State::Silent => counts[0].1 += 1,
                State::Open => counts[1].1 += 1,
                State::Partial => counts[2].1 += 1,
                State::Closing(_) => counts[3].1 += 1,
                State::Lingering(_) => counts[4].1 += 1,
                // Reaped before the turn ends.
                State::Closed(_) => {}
            }
        }
        counts
    }

    /// The kernel's buffer bytes of up to `sample` connections spread over the slab: their mean, when there are any.
    pub fn sample_kernel_buffer_bytes(&self, sample: usize) -> Option<u64> {
        let step = self.slots_used.div_ceil(sample).max(1);
        let sampled = (0..self.slots_used).step_by(step).filter_map(|slot| {
            let connection = self.connections.get(slot)?;
            self.net.buffer_bytes(&connection.stream).ok()
        });
        let (count, sum) = sampled.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        (count > 0).then(|| sum / count)
    }

    pub fn ledger(&self) -> Ledger {
        let lists = self.ready.capacity() * size_of::<Token>()
            + self.flushes.capacity() * size_of::<Flush>()
            + self.closed.capacity() * size_of::<u32>()
            + self.drained.capacity() * size_of::<Drained>();
        let loop_timers = LoopTimer::ALL.len() * TimerWheel::BYTES_PER_TIMER;
        Ledger {
            slab: self.slots_used * Self::BYTES_PER_SLOT,
            wheel: self.timers.bytes().saturating_sub(loop_timers),
            read_buffers: self.pool.read_bytes(),
            write_buffers: self.pool.write_bytes(),
            spare_buffers: self.pool.spare_bytes(),
            services: self.services.iter().map(|service| service.bytes()).sum::<usize>() + self.lent_service.0,
            tables: lists + self.admission.bytes() + self.outbox.capacity_bytes() + self.pool.table_bytes(),
            fixed: self.timers.fixed_bytes()
                + self.admission.sources.bytes()
                + loop_timers
                + self.chunk.len()
                + self.events.capacity() * size_of::<Ready>()
                + self.datagrams.answer_bytes()
                + self.datagrams.receive_bytes()
                + self.services.iter().map(|service| service.fixed_bytes()).sum::<usize>()
                + self.lent_service.1,
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn armed_timers(&self) -> usize {
        self.timers.armed()
    }

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn gate(&self) -> Gate {
        self.gate
    }

    pub fn net(&self) -> &N {
        &self.net
    }

    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// Size of a slab entry: the slab keeps its free list where the connections are.
    pub const BYTES_PER_SLOT: usize = size_of::<SlabEntry<Connection<N::Stream>>>();

    /// Slab and wheel, which grow together, per connection.
    pub(super) const BYTES_PER_CONNECTION: usize = Self::BYTES_PER_SLOT + TimerWheel::BYTES_PER_TIMER;

    /// Takes so many connections off the budget: slots and timers that have been used, and what the kernel has for each connection.
    pub(super) fn reserve(&mut self, connections: usize) -> Result<(), BudgetExceeded> {
        let kernel = self.kernel_objects.bytes as usize * connections;
        self.pool.set_reserved(self.slots_used * Self::BYTES_PER_CONNECTION + kernel)
    }

    /// What the present connections need: less than is held, after a load drop.
    pub(super) fn bytes_in_use(&self) -> usize {
        self.connections.len() * Self::BYTES_PER_CONNECTION + self.pool.read_bytes() + self.pool.write_bytes()
    }

    /// A warning that may be caused again and again.
    pub(super) fn warn(&mut self, now: Time, message: std::fmt::Arguments<'_>) {
        if self.warned_at.is_none_or(|then| now.since(then) >= WARNING_INTERVAL) {
            self.warned_at = Some(now);
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
        let has_read_all = self.events.len() < EVENTS_PER_POLL && self.ready.is_empty();
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

    /// Gives memory back to the system after a load drop. Slots can be freed only when none is in use: a connection
    /// does not move.
    fn trim(&mut self) {
        self.stats.trims += 1;
        self.pool.shrink_to_fit();
        self.services.iter_mut().for_each(|service| service.shrink());
        self.ready.shrink_to_fit();
        self.flushes.shrink_to_fit();
        self.closed.shrink_to_fit();
        self.drained.shrink_to_fit();
        self.outbox.shrink_to_fit();
        self.datagrams.shrink();
        self.admission.shrink();
        if self.connections.is_empty() {
            self.connections = Slab::new();
            self.timers.truncate(LoopTimer::ALL.len());
            self.slots_used = 0;
            // Nothing reserved fits any budget.
            let _ = self.reserve(0);
        }
        self.peak_bytes = self.bytes_in_use();
        sys::trim_heap();
        // Room for the next load, reserved only now: it would else be carved from pages that the trim is to give back.
        if self.connections.is_empty() {
            let slots = self.limits.max_connections + RECYCLES_PER_TURN;
            self.connections.reserve_exact(slots);
            self.timers.reserve(slots + LoopTimer::ALL.len());
        }
    }

    pub(super) fn loop_timer(&mut self, timer: LoopTimer, now: Time) {
        let due = self.loop_timers_due[timer as usize];
        if due.distance_from(now.tick()) > 0 {
            return self.timers.arm(timer as u32, due);
        }
        match timer {
            LoopTimer::Retry => {
                if self.gate == Gate::Exhausted {
                    self.gate = Gate::Open;
                }
                (0..self.listeners.len() as u8).for_each(|index| push_once(&mut self.acceptable, index));
                (0..self.sockets.len() as u8).for_each(|index| push_once(&mut self.receivable, index));
            }
            LoopTimer::Trim => self.trim(),
            LoopTimer::Report => {
                self.report_due = true;
                self.arm_loop_timer(LoopTimer::Report, self.report_every, now);
            }
            LoopTimer::Penalties => {
                if self.admission.sources.forget_penalties(now.tick()) {
                    self.arm_loop_timer(LoopTimer::Penalties, PENALTY_MAX, now);
                }
            }
            LoopTimer::DrainTimeout => {
                let slots: Vec<u32> = self.connections.iter().map(|(slot, _)| slot as u32).collect();
                slots.into_iter().for_each(|slot| self.dismiss(slot, Reason::DrainTimeout));
            }
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
    match (limits.sockets.send_buffer, limits.sockets.receive_buffer) {
        (0, _) | (_, 0) => KERNEL_BUFFERS_MAX,
        (send, receive) => send + receive,
    }
}

/// How much one read asks for.
fn read_chunk(buffers: BufferMode) -> usize {
    match buffers {
        BufferMode::Pooled => READ_CHUNK,
        BufferMode::Fixed(size) => size.min(READ_CHUNK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONNECTION_BYTES;
    use crate::net::mio::MioNet;

    /// In a debug build mio's stream has 16 bytes, for checks of its own.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "sizes are those of a release build")]
    fn sizes_of_what_each_connection_has() {
        assert_eq!(size_of::<<MioNet as Net>::Stream>(), 4);
        assert_eq!(size_of::<Connection<<MioNet as Net>::Stream>>(), 32);
        assert_eq!(Reactor::<MioNet>::BYTES_PER_SLOT, 32, "the slab's free list must fit where a connection lies");
        assert_eq!(TimerWheel::BYTES_PER_TIMER, 12);
        assert_eq!(Reactor::<MioNet>::BYTES_PER_CONNECTION, CONNECTION_BYTES);
    }
}
