//! The loop as its services see it: answers to commands that ask about the server, and the farewell to a connection.

use super::{Reactor, close};
use crate::clock::{Tick, Time};
use crate::config;
use crate::connection::{Connection, Farewell, Flags, Reason};
use crate::net::Net;
use crate::service::discard::Discard;
use crate::service::server::{Facts, Parting, Section, Server};
use crate::service::{Reply, Service};

impl<N: Net> Reactor<N> {
    /// Has a service answer the last message of a connection with the server's help. The reason to close it for afterwards, if any.
    pub(super) fn consult(&mut self, slot: u32, start: u32) -> Option<Reason> {
        let index = self.connections[slot as usize].flags.service() as usize;
        // The service is taken out, so that it can be lent everything else.
        let mut service: Box<dyn Service> = std::mem::replace(&mut self.services[index], Box::new(Discard));
        let mut bytes = std::mem::take(self.outbox.bytes_mut());
        let mut reply = Reply::new(slot, &mut bytes).at(self.now);
        self.lent_service = (service.bytes(), service.fixed_bytes());
        self.consults += 1;
        service.consult(self, &mut reply);
        let (closes, trusts) = (reply.closes_for(), reply.changes_trust());
        *self.outbox.bytes_mut() = bytes;
        self.services[index] = service;
        self.lent_service = (0, 0);
        if let Some(trusted) = trusts {
            let connection = &mut self.connections[slot as usize];
            let unsent = self.pool.len(&connection.output) + (self.outbox.position() - start) as usize;
            connection.change_trust(trusted, unsent);
        }
        closes
    }

    /// The end of a connection: its service is told, its socket closed.
    pub(super) fn part(&mut self, slot: u32, connection: Connection<N::Stream>, now: Time) {
        let service = &mut self.services[connection.flags.service() as usize];
        let (mut peer, mut transferred) = (None, Default::default());
        if service.remembers_closed() {
            peer = self.net.peer_address(&connection.stream).ok();
            transferred = self.net.transferred(&connection.stream).unwrap_or_default();
            // The kernel counts the peer's FIN as a byte.
            let fin = u64::from(connection.reason() == Some(Reason::PeerClosed));
            transferred.received = transferred.received.saturating_sub(fin);
        }
        let reason = connection.reason().map_or("", Reason::name);
        service.closed(slot, &Parting { peer, reason, transferred, now });
        let resets = match connection.reason().map_or(Farewell::Fin, Reason::farewell) {
            _ if connection.flags.has(Flags::TOLD) => false,
            Farewell::Fin => false,
            Farewell::FinIfAcknowledged => self.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes > 0),
            Farewell::Reset => true,
        };
        if resets {
            self.stats.resets += 1;
            self.net.reset(connection.stream);
        } else {
            self.net.close(connection.stream);
        }
    }
}

impl<N: Net> Server for Reactor<N> {
    fn now(&self) -> Time {
        self.now
    }

    fn connection(&self, session: u32) -> Option<Facts> {
        let connection = self.connections.get(session as usize)?;
        self.facts.set(self.facts.get() + 1);
        let stream = &connection.stream;
        let buffers = [&connection.input, &connection.output].map(|id| (self.pool.len(id), self.pool.capacity(id)));
        let ticks = self.now.tick().distance_from(connection.waits_since()).max(0) as u32;
        Some(Facts {
            peer: self.net.peer_address(stream).ok(),
            file: self.net.file_number(stream),
            local: self.net.local_address(stream).ok(),
            idle: Tick::LENGTH * ticks,
            input: buffers[0],
            output: buffers[1],
            user_bytes: Self::BYTES_PER_CONNECTION + buffers[0].1 + buffers[1].1,
            kernel_bytes: self.kernel_objects.bytes + self.net.buffer_bytes(stream).unwrap_or(0),
            transferred: self.net.transferred(stream).unwrap_or_default(),
            is_closing: !connection.is_serving(),
            is_blocked: connection.flags.has(Flags::BLOCKED),
        })
    }

    fn kill(&mut self, session: u32) {
        if let Some(connection) = self.connections.get_mut(session as usize) {
            close(&mut self.closed, connection, session, Reason::Killed);
        }
    }

    fn sections(&self) -> Vec<Section> {
        Reactor::sections(self)
    }

    fn reset_counters(&mut self) {
        self.stats.reset();
    }

    fn settings(&self) -> Vec<(String, String)> {
        config::limits_as_texts(&self.limits)
    }

    fn set(&mut self, changes: &[(String, String)]) -> Result<(), String> {
        let limits = config::with_changes(&self.limits, changes).map_err(|error| error.to_string())?;
        self.set_limits(limits);
        Ok(())
    }

    fn shut_down(&mut self) {
        self.drain();
    }
}
