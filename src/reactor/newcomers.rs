//! Phase 4 for one new connection: judges it, then admits it, refuses it, or recycles another for
//! it.

use std::io;
use std::net::SocketAddr;

use slab::Slab;

use super::Reactor;
use super::core::{Core, LoopTimer, Port};
use crate::admission::{AcceptError, Decision, Gate, Refusal, Silent, is_out_of_files};
use crate::buffer::Use;
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Flags, Reason, State};
use crate::limits::{
    ACCEPT_FAILURES, GATE_REOPENS, RECYCLED_PER_PENALTY, RESERVED_SLOTS, TOLD_PER_TURN,
};
use crate::net::Net;
use crate::service::{ConnectionId, Reply};
use crate::sources::SourceId;
use crate::token::{Source, Token};

impl<N: Net> Reactor<N> {
    /// Judges a newcomer and carries out the decision.
    pub(super) fn receive(
        &mut self,
        stream: N::Stream,
        peer: SocketAddr,
        listener: u8,
        time: Time,
    ) {
        let core = &mut self.core;
        let Port { service, for_operator, .. } = core.listeners[listener as usize];
        let now = time.tick();
        let held = core.connections.len() - core.carry.closed.len();
        if for_operator {
            return match held < core.limits.max_connections {
                true => self.admit(stream, peer, service, SourceId::OPERATOR, time),
                false => self.refuse(stream, service, Refusal::Full, time),
            };
        }
        core.admission.forget_stale(&|token| silent_one(&core.connections, token, now));
        let source = core.admission.sources.find(peer.ip(), now);
        core.admission.sources.trust(source, core.limits.trusted_sources.contain(peer.ip()));
        // The operator's connections do not count against the public slots.
        let others = held.saturating_sub(core.admission.sources.operators());
        let is_full = core.admission.gate == Gate::Full
            || others >= core.public_slots()
            || held >= core.limits.max_connections;
        let verdict = core.admission.judge(source, is_full, &core.limits, now);
        match verdict {
            Decision::Admit => self.admit(stream, peer, service, source, time),
            // A dry run only counts the decision. It admits the newcomer if a slot is free.
            _ if core.limits.admission_dry_run && !is_full => {
                core.count(verdict);
                self.admit(stream, peer, service, source, time);
            }
            _ if core.limits.admission_dry_run => self.refuse(stream, service, Refusal::Full, time),
            Decision::Recycle if core.recycle_oldest() => {
                core.count(verdict);
                core.tell_of_a_flood(peer, time);
                self.admit(stream, peer, service, source, time);
            }
            Decision::Recycle if is_full => self.refuse(stream, service, Refusal::Full, time),
            Decision::Recycle => self.refuse(stream, service, Refusal::SilentSet, time),
            Decision::Refuse(refusal) => {
                self.refuse(stream, service, refusal, time);
                self.core.tell_of_a_flood(peer, time);
            }
        }
    }

    /// Refuses a newcomer. At a limit on connections, it gets an error and a FIN, at most
    /// [`TOLD_PER_TURN`] times per turn. Otherwise it is reset, which leaves no state in the
    /// kernel.
    fn refuse(&mut self, mut stream: N::Stream, service: u8, refusal: Refusal, now: Time) {
        let Reactor { core, services, outbox, .. } = self;
        core.stats.refused[refusal as usize] += 1;
        // The refused stream is registered under this generation. The next connection needs
        // another, or late events would match it.
        core.generation = core.generation.next();
        if refusal == Refusal::Full && core.admission.gate == Gate::Open {
            core.admission.gate = Gate::Full;
            let held = core.connections.len();
            core.warn(
                now,
                format_args!("max-connections reached: {held} held, newcomers are refused"),
            );
        }
        let may_be_told = matches!(refusal, Refusal::Full | Refusal::SourceConnections);
        if !may_be_told || core.admission.told >= TOLD_PER_TURN {
            return core.net.reset(stream);
        }
        core.admission.told += 1;
        let start = outbox.len();
        let bytes = outbox.bytes_mut();
        services[service as usize].full(bytes);
        if bytes.len() > start {
            // Best effort: the peer may be gone already.
            let _ = core.net.write(&mut stream, &bytes[start..]);
            bytes.truncate(start);
        }
        core.net.close(stream);
    }

    /// Admits a newcomer: gives it a slot and a deadline, and sends the service's greeting.
    fn admit(
        &mut self,
        stream: N::Stream,
        peer: SocketAddr,
        service: u8,
        source: SourceId,
        time: Time,
    ) {
        let Some(slot) = self.core.enter(stream, service, source, time.tick()) else { return };
        let start = self.outbox.position();
        let greeting = Reply::to(ConnectionId(slot), time, self.outbox.bytes_mut());
        let mut greeting = greeting.from(peer).by_operator(source == SourceId::OPERATOR);
        self.services[service as usize].connected(&mut greeting);
        let (close, trust) = (greeting.closes_for(), greeting.changes_trust());
        self.core.connections[slot as usize].flags.put(Flags::UNTRUSTED, trust == Some(false));
        self.outbox.commit(slot, start, close);
    }
}

impl<N: Net> Core<N> {
    /// Gives a newcomer its slot and its deadline. Returns `None` if the memory budget has no room
    /// for it; the connection then closes.
    fn enter(
        &mut self,
        stream: N::Stream,
        service: u8,
        source: SourceId,
        now: Tick,
    ) -> Option<u32> {
        let is_operator = source == SourceId::OPERATOR;
        self.stats.accepted += 1;
        self.stats.work.accepts += 1;
        self.stats.states[State::Silent.index()] += 1;
        let slot = self.connections.vacant_key() as u32;
        self.slots_used = self.slots_used.max(slot as usize + 1);
        let slots_fit = self.reserve(self.connections.len() + 1);
        let mut connection = Connection::new(stream, self.generation, service, source, now);
        self.generation = self.generation.next();
        let input = self.pool.open(Use::Read(slot));
        let output = self.pool.open(Use::Write(slot));
        let over_budget = slots_fit.is_err() || input.is_err() || output.is_err();
        connection.input = input.unwrap_or_default();
        connection.output = output.unwrap_or_default();
        connection.flags.put(Flags::SILENT, !is_operator);
        let token = Token::connection(slot, connection.generation);
        match is_operator {
            true => self.admission.sources.connected(source, false),
            false => self.admission.enters(token, source),
        }
        self.connections.insert(connection);
        if over_budget {
            self.close(slot, Reason::MemoryBudget);
            self.stats.accept_over_budget += 1;
            let (held, budget) = (self.connections.len(), self.limits.memory_budget);
            self.warn(
                self.now,
                format_args!("memory-budget of {budget} bytes is used up at {held} connections"),
            );
            return None;
        }
        self.arm(slot);
        Some(slot)
    }

    /// Returns the slots that are open to every newcomer. A listener for the operator reserves
    /// some.
    fn public_slots(&self) -> usize {
        let has_door = self.listeners.iter().any(|listener| listener.for_operator);
        let reserved = if has_door { RESERVED_SLOTS } else { 0 };
        // Above the eviction bound, a newcomer would evict other connections.
        let each = Self::BYTES_PER_CONNECTION + self.start.kernel_objects.bytes as usize;
        let fit = self.pool.eviction_bound() / each;
        self.limits.max_connections.saturating_sub(reserved).min(fit).max(1)
    }

    /// Returns whether enough slots are free to open a full gate again.
    pub(super) fn has_room_again(&self) -> bool {
        let slots = self.public_slots();
        let free = (slots / GATE_REOPENS).max(1);
        let held = self.connections.len();
        held.saturating_sub(self.admission.sources.operators()) + free <= slots
            && held + free <= self.limits.max_connections
    }

    fn count(&mut self, verdict: Decision) {
        match verdict {
            Decision::Admit => {}
            Decision::Recycle => self.stats.recycled += 1,
            Decision::Refuse(refusal) => self.stats.refused[refusal as usize] += 1,
        }
    }

    /// Closes the oldest silent connection; phase 10 reaps it. Returns false if every silent
    /// connection is too new to have sent a message. It is then as likely to be honest as the
    /// newcomer.
    fn recycle_oldest(&mut self) -> bool {
        let connections = &self.connections;
        let now = self.now.tick();
        let oldest = self.admission.take_oldest(|token| silent_one(connections, token, now));
        let Some(Source::Connection { slot, .. }) = oldest.map(Token::source) else { return false };
        let connection = &self.connections[slot as usize];
        self.stats.eviction_age_ticks = now.distance_from(connection.waits_since()).max(0) as u32;
        // One recycled connection proves nothing. A source with several silent connections is
        // flooding.
        let source = connection.source;
        if self.admission.sources.counts(source).1 > 1 {
            let penalty = self.limits.penalty / RECYCLED_PER_PENALTY;
            self.punish(source, penalty);
        }
        self.speaks(slot);
        self.close(slot, Reason::Recycled);
        true
    }

    /// Logs a rate-limited warning of a flood. INFO admission has the figures.
    fn tell_of_a_flood(&mut self, peer: SocketAddr, now: Time) {
        let (recycled, refused) = (self.stats.recycled, self.stats.refused.iter().sum::<u64>());
        self.warn(
            now,
            format_args!(
                "newcomers exceed max-silent or a cap per source, the last from {}: so far \
                 {recycled} silent connections recycled, {refused} newcomers refused; \
                 see INFO admission",
                peer.ip()
            ),
        );
    }

    /// Takes a connection out of the silent set, because it has completed a message or closes.
    pub(super) fn speaks(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.flags.has(Flags::SILENT) {
            connection.flags.clear(Flags::SILENT);
            self.admission.no_longer_silent(connection.source);
        }
    }

    /// Handles a failed accept. The listener is tried again at once, or when the retry timer fires.
    pub(super) fn accept_failed(&mut self, index: u8, error: &io::Error, now: Time) {
        let listener = &mut self.listeners[index as usize];
        let address = listener.address;
        match AcceptError::of(error) {
            AcceptError::Drained => listener.failures = 0,
            AcceptError::Aborted => {
                self.carry.acceptable.push_back(index);
                self.stats.accept_aborted += 1;
            }
            AcceptError::Failed => {
                self.stats.accept_aborted += 1;
                listener.failures = listener.failures.saturating_add(1);
                if listener.failures < ACCEPT_FAILURES {
                    return self.carry.acceptable.push_back(index);
                }
                // The retry timer puts the listener back on the carry list.
                self.retry_later(now);
                self.warn(now, format_args!("cannot accept on {address}: {error}; will retry"));
            }
            AcceptError::Exhausted => {
                self.carry.acceptable.push_back(index);
                self.stats.accept_exhausted += 1;
                self.admission.gate = Gate::Exhausted;
                // Connections are shed once per wait, however often the gate opens meanwhile.
                // Otherwise a flood could use up processor time.
                let is_first = self.timers.fires(LoopTimer::Retry as u32).is_none();
                self.retry_later(now);
                if is_first {
                    self.shed(error);
                }
                self.warn(now, format_args!("cannot accept on {address}: {error}; will retry"));
            }
        }
    }

    /// Closes waiting connections when no file is left to accept them, so that they do not hang.
    /// Each retry closes at most one turn's budget, because a flood could otherwise use up
    /// processor time.
    fn shed(&mut self, error: &io::Error) {
        if !is_out_of_files(error) {
            return;
        }
        let mut waiting = self.carry.acceptable.clone();
        for _ in 0..self.limits.accepts_per_turn {
            let Some(index) = waiting.pop_front() else { return };
            let Some(listener) =
                self.listeners.get(index as usize).filter(|listener| !listener.for_operator)
            else {
                continue;
            };
            // The queue is empty, or shedding failed. The rest waits for the retry.
            if self.net.shed(&listener.handle).unwrap_or(false) {
                self.stats.accept_shed += 1;
                waiting.push_back(index);
            }
        }
    }
}

/// Returns the facts about a silent connection. Returns `None` if the token's connection has left
/// the silent set.
fn silent_one<S>(connections: &Slab<Connection<S>>, token: Token, now: Tick) -> Option<Silent> {
    let Source::Connection { slot, generation } = token.source() else { return None };
    let connection = connections.get(slot as usize)?;
    let is_it = connection.generation.get() == generation && connection.flags.has(Flags::SILENT);
    is_it.then(|| Silent {
        has_unread: connection.has_input_waiting(),
        is_new: now.distance_from(connection.waits_since()) <= 0,
        source: connection.source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buffer::BufferMode;
    use crate::limits::Limits;
    use crate::net::sim::SimNet;
    use crate::service::discard::Discard;

    #[test]
    fn a_flood_is_logged_and_ordinary_newcomers_are_not() {
        let limits = Limits { max_silent: 2, ..Limits::default() };
        let mut reactor = Reactor::new(SimNet::new(7), limits, BufferMode::Pooled);
        let service = reactor.add_service(Box::new(Discard));
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
        for (connections, is_logged) in [(1, false), (2, false), (3, true)] {
            reactor.net_mut().client(address).unwrap();
            reactor.net_mut().advance(Duration::from_secs(1));
            let now = reactor.net_mut().now();
            reactor.net_mut().hold_time_at(now);
            reactor.turn().unwrap();
            assert_eq!(reactor.core.upkeep.warned_at.is_some(), is_logged, "{connections}");
        }
        assert_eq!(reactor.core.stats.recycled, 1);
    }
}
