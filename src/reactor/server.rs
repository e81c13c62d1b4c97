//! The loop as the services see it, and the end of a connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::Reactor;
use super::core::{Core, timer_id};
use crate::buffer::Keep;
use crate::clock::{Tick, Time};
use crate::config;
use crate::connection::{Farewell, Flags, Reason, State};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::net::Net;
use crate::service::ConnectionId;
use crate::service::server::{Facts, Parting, Server};
use crate::sources::SourceId;
use log::debug;

impl<N: Net> Reactor<N> {
    /// Frees a closed connection: tells its service, and closes or resets its socket. `state` is
    /// its state before the close.
    pub(super) fn part(&mut self, slot: u32, state: State, now: Time) {
        let Reactor { core, services, .. } = self;
        core.leaves_silent_set(slot);
        let mut connection = core.connections.remove(slot as usize);
        core.stats.moved(state, connection.state());
        core.admission.sources.closed(connection.source);
        if connection.source == SourceId::OPERATOR {
            core.admission.door.retain(|held| *held != slot);
        }
        core.timers.disarm(timer_id(slot));
        core.pool.release(&mut connection.input);
        core.pool.release(&mut connection.output);
        core.pool.keep_slot(slot, Keep::No);
        // The service does not know of an attempt that failed.
        if state == State::Connecting {
            return core.net.close(connection.stream);
        }
        let Some(reason) = connection.reason() else { return };
        debug!("closed slot {slot}: {}", reason.name());
        core.stats.closed[reason as usize] += 1;
        let service = &mut services[connection.flags.service() as usize];
        let (mut peer, mut transferred) = (None, Default::default());
        if service.remembers_closed() {
            peer = core.net.peer_address(&connection.stream).ok();
            transferred = core.net.transferred(&connection.stream).unwrap_or_default();
            // The kernel counts the peer's FIN as a byte.
            let fin = u64::from(reason == Reason::PeerClosed);
            transferred.received = transferred.received.saturating_sub(fin);
        }
        service
            .closed(ConnectionId(slot), &Parting { peer, reason: reason.name(), transferred, now });
        let resets = match reason.farewell() {
            _ if connection.flags.has(Flags::TOLD) => false,
            Farewell::Fin => false,
            Farewell::FinIfAcknowledged => {
                core.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes > 0)
            }
            Farewell::Reset => true,
        };
        if resets {
            core.stats.resets += 1;
            core.net.reset(connection.stream);
        } else {
            core.net.close(connection.stream);
        }
    }
}

impl<N: Net> Server for Core<N> {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn system_time(&self) -> Duration {
        self.net.system_time()
    }

    fn connection(&self, connection: ConnectionId) -> Option<Facts> {
        let connection = self.connections.get(connection.0 as usize)?;
        let stream = &connection.stream;
        let buffers = [&connection.input, &connection.output]
            .map(|id| (self.pool.len(id), self.pool.capacity(id)));
        let ticks = self.now.tick().distance_from(connection.waits_since()).max(0) as u32;
        Some(Facts {
            peer: self.net.peer_address(stream).ok(),
            file: self.net.file_number(stream),
            local: self.net.local_address(stream).ok(),
            idle: Tick::LENGTH * ticks,
            input: buffers[0],
            output: buffers[1],
            user_bytes: Self::BYTES_PER_CONNECTION + buffers[0].1 + buffers[1].1,
            kernel_bytes: self.start.kernel_objects.bytes
                + self.net.buffer_bytes(stream).unwrap_or(0),
            transferred: self.net.transferred(stream).unwrap_or_default(),
            is_closing: !connection.is_serving(),
            is_blocked: connection.flags.has(Flags::BLOCKED),
            now: self.now,
        })
    }

    fn unsent(&self, connection: ConnectionId) -> usize {
        self.connections.get(connection.0 as usize).map_or(0, |one| self.pool.len(&one.output))
    }

    fn is_serving(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection.0 as usize).is_some_and(|one| one.is_serving())
    }

    fn is_under_pressure(&self) -> bool {
        Core::is_under_pressure(self)
    }

    fn is_draining(&self) -> bool {
        self.draining_since.is_some()
    }

    fn peer(&self, connection: ConnectionId) -> Option<SocketAddr> {
        self.net.peer_address(&self.connections.get(connection.0 as usize)?.stream).ok()
    }

    fn local(&self, connection: ConnectionId) -> Option<SocketAddr> {
        self.net.local_address(&self.connections.get(connection.0 as usize)?.stream).ok()
    }

    fn kill(&mut self, connection: ConnectionId, reason: Reason) {
        if self.connections.contains(connection.0 as usize) {
            self.close(connection.0, reason);
        }
    }

    fn exempt(&mut self, connection: ConnectionId, on: bool) {
        let Some(own) = self.connections.get(connection.0 as usize) else { return };
        let keep = if on { Keep::Exempt } else { Keep::No };
        if !own.is_dialled() && self.pool.keep_slot(connection.0, keep) {
            self.pool.reweigh_all([&own.input, &own.output]);
        }
    }

    fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        Core::metrics(self, wanted)
    }

    fn reset_counters(&mut self) {
        self.stats.reset();
    }

    fn settings(&self) -> Vec<(String, String)> {
        config::limits_as_texts(&self.limits)
    }

    fn set(&mut self, changes: &[(String, String)]) -> Result<(), String> {
        let limits =
            config::with_changes(&self.limits, changes).map_err(|error| error.to_string())?;
        self.set_limits(limits);
        Ok(())
    }

    fn shut_down(&mut self) {
        self.drain();
    }
}
