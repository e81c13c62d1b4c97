//! The loop between turns: set up, change, stop, look at. And its own timers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::core::{Core, Drained, Flush, LoopTimer, Port};
use super::{Reactor, push_once};
use crate::admission::Gate;
use crate::buffer::BufferMode;
use crate::clock::Time;
use crate::connection::{Reason, SERVICES_MAX, State};
use crate::ledger::Ledger;
use crate::limits::{Limits, PENALTY_MAX, READ_CHUNK, RECYCLES_PER_TURN};
use crate::net::{Net, Ready, Signal};
use crate::outbox::Outbox;
use crate::service::Service;
use crate::stats::Stats;
use crate::sys::{self, DatagramBatch};
use crate::timer::TimerWheel;
use crate::token::Token;

impl<N: Net> Reactor<N> {
    pub fn new(net: N, limits: Limits, buffers: BufferMode) -> Reactor<N> {
        Reactor {
            core: Core::new(net, limits, buffers),
            services: Vec::new(),
            outbox: Outbox::default(),
            chunk: vec![0; read_chunk(buffers)].into_boxed_slice(),
            datagrams: DatagramBatch::new(),
        }
    }

    /// Size of an entry of the table of connections.
    pub const BYTES_PER_SLOT: usize = Core::<N>::BYTES_PER_SLOT;

    /// Has chance decide as this seed says, for a simulation that is to play the same way again.
    pub fn seed(&mut self, seed: u64) {
        self.core.admission.seed(seed);
    }

    /// Adds a service; returns its index for [`Self::listen`] and [`Self::bind`].
    pub fn add_service(&mut self, service: Box<dyn Service>) -> u8 {
        assert!(self.services.len() < SERVICES_MAX, "more services than a connection can tell apart");
        self.services.push(service);
        (self.services.len() - 1) as u8
    }

    /// Listens for streams on behalf of a service; returns the address with the port obtained.
    pub fn listen(&mut self, address: SocketAddr, backlog: u32, service: u8) -> io::Result<SocketAddr> {
        let token = Token::listener(self.core.listeners.len() as u8);
        let handle = self.core.net.listen(address, backlog, &self.core.limits.sockets, token)?;
        let address = self.core.net.listener_address(&handle)?;
        self.core.listeners.push(Port { handle, address, service, for_operator: false, failures: 0 });
        Ok(address)
    }

    /// The same for the operator: admission does not judge who comes this way, and some slots are kept for them.
    pub fn listen_for_operator(&mut self, address: SocketAddr, backlog: u32, service: u8) -> io::Result<SocketAddr> {
        let address = self.listen(address, backlog, service)?;
        if let Some(listener) = self.core.listeners.last_mut() {
            listener.for_operator = true;
        }
        Ok(address)
    }

    /// Binds a datagram socket on behalf of a service; returns the address with the port obtained.
    pub fn bind(&mut self, address: SocketAddr, service: u8) -> io::Result<SocketAddr> {
        let handle = self.core.net.bind(address, Token::socket(self.core.sockets.len() as u8))?;
        let address = self.core.net.socket_address(&handle)?;
        self.core.sockets.push(Port { handle, address, service, for_operator: false, failures: 0 });
        Ok(address)
    }

    /// Takes back the last [`Self::listen`].
    pub fn unlisten_last(&mut self) {
        if let Some(listener) = self.core.listeners.pop() {
            self.core.net.close_listener(listener.handle);
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

    /// Changes the limits while running: see [`Core::set_limits`].
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.set_limits(limits);
    }

    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Makes [`Self::take_report_due`] come true every so often; never for zero.
    pub fn set_report_every(&mut self, every: Duration) {
        self.core.set_report_every(every);
    }

    pub fn take_report_due(&mut self) -> bool {
        std::mem::take(&mut self.core.upkeep.report_due)
    }

    pub fn take_signals(&mut self) -> Vec<Signal> {
        if std::mem::take(&mut self.core.upkeep.signals_due) { self.core.net.signals() } else { Vec::new() }
    }

    /// Starts to stop in good order.
    pub fn drain(&mut self) {
        self.core.drain();
    }

    pub fn is_draining(&self) -> bool {
        self.core.draining_since.is_some()
    }

    pub fn is_drained(&self) -> bool {
        self.is_draining() && self.core.connections.is_empty()
    }

    pub fn connections(&self) -> usize {
        self.core.connections.len()
    }

    /// What is held, as of the end of the last turn.
    pub fn ledger(&self) -> Ledger {
        let (chunk, tables) = (self.chunk.len(), self.outbox.capacity_bytes());
        let datagrams = self.datagrams.answer_bytes() + self.datagrams.receive_bytes();
        let ledger = self.core.ledger();
        Ledger { tables: ledger.tables + tables, fixed: ledger.fixed + chunk + datagrams, ..ledger }
    }

    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    pub fn now(&self) -> Time {
        self.core.now
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

    /// Gives memory back to the system after a load drop. Slots can be freed only when none is in use: a connection
    /// does not move.
    fn trim(&mut self) {
        self.services.iter_mut().for_each(|service| service.shrink());
        self.outbox.shrink_to_fit();
        self.datagrams.shrink();
        self.core.trim();
    }

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
                (0..self.core.sockets.len() as u8).for_each(|index| push_once(&mut self.core.carry.receivable, index));
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
            LoopTimer::DrainTimeout => {
                self.core.slots().into_iter().for_each(|slot| self.dismiss(slot, Reason::DrainTimeout));
            }
        }
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
            // Nothing reserved fits any budget.
            let _ = self.reserve(0);
        }
        self.upkeep.peak_bytes = self.bytes_in_use();
        sys::trim_heap();
        // Room for the next load, reserved only now: it would else be carved from pages that the trim is to give back.
        if self.connections.is_empty() {
            let slots = self.limits.max_connections + RECYCLES_PER_TURN;
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
            write_buffers: self.pool.write_bytes(),
            spare_buffers: self.pool.spare_bytes(),
            services,
            tables: lists + self.admission.bytes() + self.pool.table_bytes(),
            fixed: self.timers.fixed_bytes()
                + self.admission.sources.bytes()
                + loop_timers
                + self.turn.events.capacity() * size_of::<Ready>()
                + services_fixed,
        }
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
    use crate::connection::Connection;
    use crate::limits::CONNECTION_BYTES;
    use crate::net::mio::MioNet;

    /// In a debug build mio's stream has 16 bytes, for checks of its own.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "sizes are those of a release build")]
    fn sizes_of_what_each_connection_has() {
        assert_eq!(size_of::<<MioNet as Net>::Stream>(), 4);
        assert_eq!(size_of::<Connection<<MioNet as Net>::Stream>>(), 32);
        assert_eq!(Core::<MioNet>::BYTES_PER_SLOT, 32, "the slab's free list must fit where a connection lies");
        assert_eq!(TimerWheel::BYTES_PER_TIMER, 12);
        assert_eq!(Core::<MioNet>::BYTES_PER_CONNECTION, CONNECTION_BYTES);
    }
}
