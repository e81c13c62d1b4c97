//! Setup, changes, inspection and stop of the loop between turns, and the loop's own timers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::core::{Core, Drained, Flush, LoopTimer, Peak, Port};
use super::{Reactor, push_once};
use crate::admission::Gate;
use crate::buffer::BufferMode;
use crate::clock::Time;
use crate::connection::{Reason, SERVICES_MAX, State};
use crate::ledger::Ledger;
use crate::limits::{Limits, PENALTY_MAX, READ_CHUNK, REAPS_PER_TURN, SPARE_SLOTS};
use crate::net::{Net, Ready, Signal};
use crate::outbox::Outbox;
use crate::service::Service;
use crate::stats::Stats;
use crate::sys::{self, DatagramBatch};
use crate::timer::TimerWheel;
use crate::token::Token;

impl<N: Net> Reactor<N> {
    /// Creates a loop without services and listeners. It reserves room for `max-connections`.
    pub fn new(net: N, limits: Limits, buffers: BufferMode) -> Reactor<N> {
        Reactor {
            core: Core::new(net, limits, buffers),
            services: Vec::new(),
            outbox: Outbox::default(),
            chunk: vec![0; read_chunk(buffers)].into_boxed_slice(),
            datagrams: DatagramBatch::new(),
        }
    }

    /// Size of an entry in the table of connections, in bytes.
    pub const BYTES_PER_SLOT: usize = Core::<N>::BYTES_PER_SLOT;

    /// Seeds the random decisions of admission, so that a simulation can be replayed.
    pub fn seed(&mut self, seed: u64) {
        self.core.admission.seed(seed);
    }

    /// Adds a service and returns its index for [`Self::listen`] and [`Self::bind`]. Panics beyond
    /// [`SERVICES_MAX`] services.
    pub fn add_service(&mut self, service: Box<dyn Service>) -> u8 {
        assert!(
            self.services.len() < SERVICES_MAX,
            "a connection's flags have room for {SERVICES_MAX} services"
        );
        self.services.push(service);
        (self.services.len() - 1) as u8
    }

    /// Opens a listener for a service. Returns its address, with the port that the kernel chose if
    /// `address` has port 0. Fails when the kernel refuses the address or is out of files.
    pub fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        service: u8,
    ) -> io::Result<SocketAddr> {
        let token = Token::listener(self.core.listeners.len() as u8);
        let handle = self.core.net.listen(address, backlog, &self.core.limits.sockets, token)?;
        let address = self.core.net.listener_address(&handle)?;
        self.core.listeners.push(Port {
            handle,
            address,
            service,
            for_operator: false,
            failures: 0,
        });
        Ok(address)
    }

    /// Opens a listener for the operator. Its connections bypass admission and may use the reserved
    /// slots.
    pub fn listen_for_operator(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        service: u8,
    ) -> io::Result<SocketAddr> {
        let address = self.listen(address, backlog, service)?;
        if let Some(listener) = self.core.listeners.last_mut() {
            listener.for_operator = true;
        }
        Ok(address)
    }

    /// Binds a datagram socket for a service. Returns its address, with the port that the kernel
    /// chose if `address` has port 0. Fails when the kernel refuses the address or is out of files.
    pub fn bind(&mut self, address: SocketAddr, service: u8) -> io::Result<SocketAddr> {
        let handle = self.core.net.bind(address, Token::socket(self.core.sockets.len() as u8))?;
        let address = self.core.net.socket_address(&handle)?;
        self.core.sockets.push(Port { handle, address, service, for_operator: false, failures: 0 });
        Ok(address)
    }

    /// Closes the listener that [`Self::listen`] opened last.
    pub fn unlisten_last(&mut self) {
        if let Some(listener) = self.core.listeners.pop() {
            self.core.net.close_listener(listener.handle);
        }
    }

    /// Returns a command line that tries a service by hand.
    pub fn example(&self, service: u8, address: SocketAddr, stream: bool) -> String {
        // A listener on all addresses can be reached over loopback.
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            ip if ip.is_ipv4() => "127.0.0.1".into(),
            _ => "::1".into(),
        };
        self.services[service as usize].example(&host, address.port(), stream)
    }

    /// Changes the limits at run time. See [`Core::set_limits`].
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.set_limits(limits);
    }

    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Sets how often [`Self::take_report_due`] returns true. Zero means never.
    pub fn set_report_every(&mut self, every: Duration) {
        self.core.set_report_every(every);
    }

    /// Returns true once after each report interval.
    pub fn take_report_due(&mut self) -> bool {
        std::mem::take(&mut self.core.upkeep.report_due)
    }

    /// Ends a turn after this time at the latest, even if nothing happens.
    pub fn wake_after(&mut self, time: Duration) {
        self.core.arm_loop_timer(LoopTimer::Wake, time, self.core.now);
    }

    /// Returns the signals received since the last call.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        if std::mem::take(&mut self.core.upkeep.signals_due) {
            self.core.net.signals()
        } else {
            Vec::new()
        }
    }

    /// Starts a drain. See [`Core::drain`].
    pub fn drain(&mut self) {
        self.core.drain();
    }

    pub fn is_draining(&self) -> bool {
        self.core.draining_since.is_some()
    }

    /// Returns whether a drain has reaped the last connection.
    pub fn is_drained(&self) -> bool {
        self.is_draining() && self.core.connections.is_empty()
    }

    /// Returns the number of connections in the table, including closed ones that wait to be
    /// reaped.
    pub fn connections(&self) -> usize {
        self.core.connections.len()
    }

    /// Returns the connections that clients may open, and how many of them the memory budget has
    /// room for.
    pub fn capacity(&self) -> (usize, usize) {
        (self.core.public_slots(), self.core.slots_in_budget())
    }

    /// Returns the memory ledger as of the end of the last turn.
    pub fn ledger(&self) -> Ledger {
        let (chunk, tables) = (self.chunk.len(), self.outbox.capacity_bytes());
        let datagrams = self.datagrams.answer_bytes() + self.datagrams.receive_bytes();
        let ledger = self.core.ledger();
        Ledger { tables: ledger.tables + tables, fixed: ledger.fixed + chunk + datagrams, ..ledger }
    }

    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// Returns the time that phase 3 of the last turn read.
    pub fn now(&self) -> Time {
        self.core.now
    }

    /// Returns when the last turn began, on the system's time: a stop of the process counts.
    pub fn began(&self) -> Time {
        self.core.turn.began
    }

    pub fn gate(&self) -> Gate {
        self.core.admission.gate
    }

    pub fn net(&self) -> &N {
        &self.core.net
    }

    pub fn net_mut(&mut self) -> &mut N {
        &mut self.core.net
    }

    /// Gives memory back to the system after a load drop. The table of connections shrinks only
    /// when it is empty, because connections do not move.
    fn trim(&mut self) {
        self.services.iter_mut().for_each(|service| service.shrink());
        self.outbox.shrink_to_fit();
        self.datagrams.shrink();
        self.core.upkeep.waiting = Peak(Core::<N>::waiting_bytes(&self.services));
        self.core.trim();
    }

    /// Handles one of the loop's own timers, or arms it again if it fired early.
    pub(super) fn loop_timer(&mut self, timer: LoopTimer, now: Time) {
        let due = self.core.loop_timers_due[timer as usize];
        if due.distance_from(now.tick()) > 0 {
            return self.core.timers.arm(timer as u32, due);
        }
        match timer {
            LoopTimer::Retry => {
                if self.core.admission.gate == Gate::Exhausted {
                    self.core.admission.gate = Gate::Open;
                }
                (0..self.core.listeners.len() as u8)
                    .for_each(|index| push_once(&mut self.core.carry.acceptable, index));
                (0..self.core.sockets.len() as u8)
                    .for_each(|index| push_once(&mut self.core.carry.receivable, index));
            }
            LoopTimer::Trim => self.trim(),
            LoopTimer::Report => {
                self.core.upkeep.report_due = true;
                self.core.arm_loop_timer(LoopTimer::Report, self.core.limits.report_every, now);
            }
            LoopTimer::Penalties => {
                if self.core.admission.sources.forget_penalties(now.tick()) {
                    self.core.arm_loop_timer(LoopTimer::Penalties, PENALTY_MAX, now);
                }
            }
            LoopTimer::Silent => self.close_overdue_silent(now),
            LoopTimer::Dials => self.expire_dials(now.tick()),
            LoopTimer::Wake => {}
            LoopTimer::DrainTimeout => {
                self.core.stop_dials();
                self.core
                    .slots()
                    .into_iter()
                    .for_each(|slot| self.dismiss(slot, Reason::DrainTimeout));
            }
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Closes silent connections that are overdue, the oldest first, while there is pressure. One
    /// turn closes at most a budget.
    fn close_overdue_silent(&mut self, now: Time) {
        for _ in 0..REAPS_PER_TURN {
            let Some(slot) = self.core.overdue_silent(now) else { return };
            self.core.punish(self.core.connections[slot as usize].source, self.core.limits.penalty);
            self.core.leaves_silent_set(slot);
            self.dismiss(slot, Reason::FirstMessageTimeout);
        }
        self.core.arm_loop_timer_at(LoopTimer::Silent, now.tick().plus(1));
    }
}

impl<N: Net> Core<N> {
    fn trim(&mut self) {
        self.stats.trims += 1;
        self.pool.shrink_to_fit();
        self.carry.ready.shrink_to_fit();
        self.carry.closed.shrink_to_fit();
        self.turn.flushes.shrink_to_fit();
        self.turn.drained.shrink_to_fit();
        self.admission.shrink();
        if self.connections.is_empty() {
            self.connections = Slab::new();
            self.timers.truncate(LoopTimer::ALL.len());
            self.slots_used = 0;
            // Reserving nothing cannot fail.
            let _ = self.reserve(0);
        }
        self.upkeep.in_use = Peak(self.bytes_in_use());
        sys::trim_heap();
        // The trim comes first, because room reserved before it would occupy pages that it gives
        // back.
        if self.connections.is_empty() {
            let slots = self.limits.max_connections + SPARE_SLOTS;
            self.connections.reserve_exact(slots);
            self.timers.reserve(slots + LoopTimer::ALL.len());
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        let lists = self.carry.ready.capacity() * size_of::<Token>()
            + self.carry.closed.capacity() * size_of::<(u32, State)>()
            + self.turn.flushes.capacity() * size_of::<Flush>()
            + self.turn.drained.capacity() * size_of::<Drained>();
        let loop_timers = LoopTimer::ALL.len() * TimerWheel::BYTES_PER_TIMER;
        let (services, services_fixed) = self.upkeep.services_bytes;
        Ledger {
            slab: self.slots_used * Self::BYTES_PER_SLOT,
            wheel: self.timers.bytes().saturating_sub(loop_timers),
            read_buffers: self.pool.read_bytes(),
            write_buffers: self.pool.write_bytes() + self.pool.shared_bytes(),
            spare_buffers: self.pool.spare_bytes(),
            services,
            tables: lists + self.admission.bytes() + self.pool.table_bytes(),
            fixed: self.timers.fixed_bytes()
                + self.admission.sources.bytes()
                + self.datagram_gate.bytes()
                + self.dials.bytes()
                + loop_timers
                + self.turn.events.capacity() * size_of::<Ready>()
                + services_fixed,
        }
    }
}

/// Returns the bytes that one read asks for.
fn read_chunk(buffers: BufferMode) -> usize {
    match buffers {
        BufferMode::Pooled => READ_CHUNK,
        BufferMode::Fixed(size) => size.min(READ_CHUNK),
    }
}

/// Pins the bytes of a connection at compile time. Only a release build checks them, because in a
/// debug build mio's stream has 16 bytes, for checks of its own.
#[cfg(not(debug_assertions))]
const _: () = {
    use crate::connection::Connection;
    use crate::limits::CONNECTION_BYTES;
    use crate::net::mio::MioNet;

    assert!(size_of::<<MioNet as Net>::Stream>() == 4);
    assert!(size_of::<Connection<<MioNet as Net>::Stream>>() == 32);
    // A slab entry must be no larger than a connection.
    assert!(Core::<MioNet>::BYTES_PER_SLOT == 32);
    assert!(TimerWheel::BYTES_PER_TIMER == 12);
    assert!(Core::<MioNet>::BYTES_PER_CONNECTION == CONNECTION_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Use;
    use crate::net::sim::SimNet;
    use crate::service::ConnectionId;
    use crate::service::hello::Hello;
    use crate::service::server::Server;
    use std::collections::VecDeque;

    /// Returns a loop with this many connections, each with a part of a line in its buffer.
    fn reactor(connections: usize) -> Reactor<SimNet> {
        let limits = Limits { max_silent_per_source: connections, ..Limits::default() };
        let mut reactor = Reactor::new(SimNet::new(7), limits, BufferMode::Pooled);
        let service = reactor.add_service(Box::new(Hello));
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
        for _ in 0..connections {
            let client = reactor.net_mut().client(address).unwrap();
            reactor.net_mut().client_send(client, b"part");
        }
        (0..3).for_each(|_| {
            let now = reactor.net_mut().now();
            reactor.net_mut().hold_time_at(now);
            reactor.turn().unwrap();
            reactor.check_invariants();
        });
        assert_eq!(reactor.connections(), connections);
        reactor
    }

    #[test]
    fn the_ledger_counts_the_capacity_of_every_list_of_the_loop() {
        let mut reactor = reactor(0);
        let before = reactor.ledger();
        let core = &mut reactor.core;
        core.carry.ready = VecDeque::with_capacity(10);
        core.carry.closed = Vec::with_capacity(200);
        core.turn.flushes = Vec::with_capacity(3000);
        core.turn.drained = Vec::with_capacity(40_000);
        let lists = 10 * size_of::<Token>()
            + 200 * size_of::<(u32, State)>()
            + 3000 * size_of::<Flush>()
            + 40_000 * size_of::<Drained>();
        assert_eq!(before.tables, 0);
        assert_eq!(reactor.ledger(), Ledger { tables: lists, ..before });
    }

    #[test]
    fn the_ledger_counts_the_read_chunk_and_the_datagrams_as_fixed_memory() {
        let reactor = reactor(0);
        let datagrams = reactor.datagrams.answer_bytes() + reactor.datagrams.receive_bytes();
        let own = reactor.ledger().fixed - reactor.core.ledger().fixed;
        assert_eq!(own, READ_CHUNK + datagrams);
    }

    #[test]
    fn memory_in_use_is_that_of_the_connections_and_their_buffers() {
        for connections in [0, 1, 5] {
            let each = Core::<SimNet>::BYTES_PER_CONNECTION + 64;
            assert_eq!(reactor(connections).core.bytes_in_use(), connections * each);
        }
    }

    #[test]
    fn an_idle_loop_that_trims_keeps_room_for_the_next_load() {
        let mut reactor = reactor(0);
        reactor.core.trim();
        let slots = reactor.core.limits.max_connections + SPARE_SLOTS;
        assert_eq!(reactor.core.connections.capacity(), slots);
        assert_eq!(reactor.core.timers.capacity(), slots + LoopTimer::ALL.len());
    }

    #[test]
    fn the_memory_of_a_connection_is_its_slot_and_both_buffers() {
        let mut reactor = reactor(1);
        let Core { pool, connections, .. } = &mut reactor.core;
        pool.append(&mut connections[0].output, Use::Write(0), &[0; 100]).unwrap();
        reactor.core.start.kernel_objects.bytes = 700;
        let facts = Server::connection(&reactor.core, ConnectionId(0)).unwrap();
        assert_eq!(facts.kernel_bytes, 700 + 7, "and the greeting, which the peer has not read");
        assert_eq!((facts.input, facts.output), ((4, 64), (100, 128)));
        assert_eq!(facts.user_bytes, Core::<SimNet>::BYTES_PER_CONNECTION + 64 + 128);
    }
}
