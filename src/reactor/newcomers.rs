//! Phase 4 for one new connection: judges it, then admits it, refuses it, or lets another make way
//! for it.

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;

use slab::Slab;

use super::Reactor;
use super::core::{Core, LoopTimer, Port};
use crate::admission::{AcceptError, Decision, Gate, Refusal, Silent, is_out_of_files};
use crate::buffer::{BufferMode, Use};
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Flags, Reason, State};
use crate::limits::{
    ACCEPT_FAILURES, FORGIVEN_PER_MESSAGE, GATE_REOPENS, IDLE_MIN, IDLE_SAMPLE, NEWCOMERS_SHARE,
    RECYCLED_PER_PENALTY, RESERVED_SLOTS, TOLD_PER_TURN,
};
use crate::net::Net;
use crate::service::{ConnectionId, Reply};
use crate::sources::{SourceId, Standing};
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
        if for_operator {
            self.make_way_at_the_door(now);
            return self.admit(stream, peer, service, SourceId::OPERATOR, time);
        }
        core.admission.forget_stale(&|token| silent_one(&core.connections, token, now));
        let standing = Standing::of(peer.ip(), &core.limits);
        let source = core.admission.sources.find(peer.ip(), standing, now);
        // The operator's connections do not count against the public slots.
        let others = core.others_held();
        let is_full = core.admission.gate == Gate::Full
            || others >= core.public_slots()
            || core.peers_held() >= core.limits.max_connections;
        let verdict = core.admission.judge(source, is_full, &core.limits, now);
        let has_place = match verdict {
            Decision::Admit => true,
            // A dry run only counts the decision. It admits the newcomer if a slot is free.
            _ if core.limits.admission_dry_run => !is_full,
            Decision::Recycle(None) if is_full && core.spares_silent(now) => {
                self.evict_idle(None, time) || self.core.recycle(None)
            }
            Decision::Recycle(scope) => {
                core.recycle(scope) || (scope.is_none() && is_full && self.evict_idle(None, time))
            }
            Decision::Evict(scope) => self.evict_idle(scope, time),
            Decision::Refuse(_) => false,
        };
        let core = &mut self.core;
        if core.limits.admission_dry_run && has_place {
            match verdict {
                Decision::Admit => {}
                Decision::Recycle(_) => core.stats.recycled += 1,
                _ => core.stats.refused[verdict.refusal(is_full) as usize] += 1,
            }
        }
        if !matches!(verdict, Decision::Admit | Decision::Evict(None)) {
            core.tell_of_a_flood(peer, time);
        }
        match has_place {
            true => self.admit(stream, peer, service, source, time),
            false => self.refuse(stream, service, verdict.refusal(is_full), time),
        }
    }

    /// Closes the longest idle connection of the source that has most connections, or of one
    /// source. A subscriber stays, and so does a connection with unread input or unsent output.
    /// Returns false if no connection is idle for [`IDLE_MIN`].
    ///
    /// It chooses from a sample, so its cost does not grow with the number of connections. After a
    /// search in vain, the next one waits for a tick.
    fn evict_idle(&mut self, scope: Option<SourceId>, time: Time) -> bool {
        let now = time.tick();
        if self.core.admission.found_no_idle == Some((now, scope)) {
            return false;
        }
        let step = self.core.slots_used.div_ceil(IDLE_SAMPLE).max(1);
        let start = self.core.admission.random(step);
        let sources = &self.core.admission.sources;
        let longest = (start..self.core.slots_used)
            .step_by(step)
            .filter_map(|slot| Some((slot as u32, self.core.idle_one(slot as u32, now)?)))
            .filter(|(_, (source, _))| scope.is_none_or(|scope| sources.belongs(*source, scope)))
            .map(|(slot, (source, idle))| (sources.weight(source), idle, slot))
            .filter(|(_, _, slot)| !self.listens(*slot))
            .max();
        let Some((_, _, slot)) = longest else {
            self.core.admission.found_no_idle = Some((now, scope));
            return false;
        };
        self.dismiss(slot, Reason::IdleEvicted);
        let held = self.core.connections.len();
        self.core.warn(
            time,
            format_args!("{held} connections held; the longest idle make way for newcomers"),
        );
        true
    }

    /// Frees one of the operator's [`RESERVED_SLOTS`] for a newcomer, if all are taken. A
    /// connection that is closing makes way first, then one that is silent or has not sent the
    /// password, then the one that has been idle for longest.
    fn make_way_at_the_door(&mut self, now: Tick) {
        let Core { connections, admission, .. } = &self.core;
        let held = admission
            .door
            .iter()
            .filter(|slot| !matches!(connections[**slot as usize].state(), State::Closed(_)));
        if held.clone().count() < RESERVED_SLOTS {
            return;
        }
        let last = held.min_by_key(|slot| {
            let one = &connections[**slot as usize];
            let is_known = one.has_spoken() && !one.flags.has(Flags::UNTRUSTED);
            (one.is_serving(), is_known, Reverse(now.distance_from(one.waits_since())))
        });
        if let Some(slot) = last.copied() {
            self.dismiss(slot, Reason::Recycled);
        }
    }

    /// Refuses a newcomer. At a limit on connections, it gets an error and a FIN, at most
    /// [`TOLD_PER_TURN`] times per turn. Otherwise it is reset, which leaves no state in the
    /// kernel.
    fn refuse(&mut self, mut stream: N::Stream, service: u8, refusal: Refusal, now: Time) {
        let Reactor { core, services, outbox, .. } = self;
        // Memory may run out before the slots do.
        let by_memory = core.slots_in_budget() < core.limits.max_connections;
        let refusal = if refusal == Refusal::Full && by_memory { Refusal::Memory } else { refusal };
        core.stats.refused[refusal as usize] += 1;
        // The refused stream is registered under this generation. The next connection needs
        // another, or late events would match it.
        core.generation = core.generation.next();
        let limit = match refusal {
            Refusal::Memory => "memory-budget",
            Refusal::SourceConnections => "max-connections-per-source",
            _ => "max-connections",
        };
        let is_full = matches!(refusal, Refusal::Full | Refusal::Memory);
        if is_full && core.admission.gate == Gate::Open {
            core.admission.gate = Gate::Full;
            let held = core.connections.len();
            core.warn(now, format_args!("{limit} reached: {held} held, newcomers are refused"));
        }
        let may_be_told = is_full || refusal == Refusal::SourceConnections;
        if !may_be_told || core.admission.told >= TOLD_PER_TURN {
            return core.net.reset(stream);
        }
        core.admission.told += 1;
        let start = outbox.len();
        let bytes = outbox.bytes_mut();
        services[service as usize].full(limit, bytes);
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
        let token = Token::connection(self.connections.vacant_key() as u32, self.generation);
        let mut connection = Connection::new(stream, self.generation, service, source, now);
        connection.flags.put(Flags::SILENT, !is_operator);
        let (slot, has_room) = self.occupy(connection);
        match is_operator {
            true => {
                self.admission.sources.connected(source, false);
                self.admission.door.push(slot);
            }
            false => self.admission.enters(token, source),
        }
        if !has_room {
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
        if !is_operator && self.timers.fires(LoopTimer::Silent as u32).is_none() {
            // The timer works out the first deadline, which may be that of an older connection.
            if self.is_under_pressure() {
                self.arm_loop_timer_at(LoopTimer::Silent, now);
            }
        }
        Some(slot)
    }

    /// Puts a connection into a free slot, with the buffers that it starts with. Returns the slot,
    /// and false if the memory budget has no room for the connection.
    pub(super) fn occupy(&mut self, mut connection: Connection<N::Stream>) -> (u32, bool) {
        let slot = self.connections.vacant_key() as u32;
        self.slots_used = self.slots_used.max(slot as usize + 1);
        self.stats.states[connection.state().index()] += 1;
        self.generation = self.generation.next();
        let slots_fit = self.reserve(self.connections.len() + 1);
        let input = self.pool.open(Use::Read(slot));
        let output = self.pool.open(Use::Write(slot));
        let has_room = slots_fit.is_ok() && input.is_ok() && output.is_ok();
        connection.input = input.unwrap_or_default();
        connection.output = output.unwrap_or_default();
        self.connections.insert(connection);
        (slot, has_room)
    }

    /// Returns the slots that are open to every newcomer. A listener for the operator reserves
    /// some.
    pub(super) fn public_slots(&self) -> usize {
        let has_door = self.listeners.iter().any(|listener| listener.for_operator);
        let reserved = if has_door { RESERVED_SLOTS } else { 0 };
        self.limits.max_connections.saturating_sub(reserved).min(self.slots_in_budget()).max(1)
    }

    /// Returns the connections that the memory budget has room for. Above the eviction bound, a
    /// newcomer would evict other connections.
    pub(super) fn slots_in_budget(&self) -> usize {
        let buffers = match self.pool.mode {
            BufferMode::Pooled => 0,
            BufferMode::Fixed(size) => {
                2 * size.next_power_of_two() + self.pool.kernel_bytes_per_write
            }
        };
        let each = Self::BYTES_PER_CONNECTION + self.start.kernel_objects.bytes as usize;
        self.pool.eviction_bound() / (each + buffers)
    }

    /// Returns whether enough slots are free to open a full gate again.
    pub(super) fn has_room_again(&self) -> bool {
        let slots = self.public_slots();
        let free = (slots / GATE_REOPENS).max(1);
        let held = self.connections.len().saturating_sub(self.admission.sources.dialled());
        held.saturating_sub(self.admission.sources.operators()) + free <= slots
            && held + free <= self.limits.max_connections
    }

    /// Returns the connections that count against the public slots: all accepted ones but those of
    /// the operator.
    fn others_held(&self) -> usize {
        self.peers_held().saturating_sub(self.admission.sources.operators())
    }

    /// Returns the connections that count against `max-connections`: all that were accepted.
    fn peers_held(&self) -> usize {
        let held = self.connections.len() - self.carry.closed.len();
        held.saturating_sub(self.admission.sources.dialled())
    }

    /// Returns whether silent connections harm others: half of the silent set or of the slots is
    /// taken. Below that, a silent connection may stay.
    pub(super) fn is_under_pressure(&self) -> bool {
        2 * self.admission.silent() >= self.limits.max_silent
            || 2 * self.others_held() >= self.public_slots()
    }

    /// Closes a silent connection; phase 10 reaps it. Returns false if every candidate is too new
    /// to have sent a message. It is then as likely to be honest as the newcomer.
    fn recycle(&mut self, scope: Option<SourceId>) -> bool {
        let connections = &self.connections;
        let now = self.now.tick();
        let of = |token| silent_one(connections, token, now);
        let oldest = match scope {
            Some(scope) => self.admission.oldest_of(scope, of),
            None => self.admission.take_oldest(now, of),
        };
        let Some(Source::Connection { slot, .. }) = oldest.map(Token::source) else { return false };
        let connection = &self.connections[slot as usize];
        self.stats.recycled += 1;
        self.stats.eviction_age_ticks = now.distance_from(connection.waits_since()).max(0) as u32;
        self.punish(connection.source, self.limits.penalty / RECYCLED_PER_PENALTY);
        self.leaves_silent_set(slot);
        self.close(slot, Reason::Recycled);
        true
    }

    /// Returns whether an idle connection should make way before a silent one: few are silent, and
    /// each for a short time only.
    fn spares_silent(&mut self, now: Tick) -> bool {
        let connections = &self.connections;
        let of = |token| silent_one(connections, token, now);
        let is_few = NEWCOMERS_SHARE * self.admission.silent() < self.public_slots();
        is_few && !matches!(self.admission.overdue(Tick::count(IDLE_MIN), now, &of), Some(Ok(_)))
    }

    /// Returns the oldest silent connection if it is overdue. Otherwise arms the timer to look
    /// again. Without pressure, silent connections may stay, and the next newcomer arms the timer.
    pub(super) fn overdue_silent(&mut self, now: Time) -> Option<u32> {
        let timeout = self.timeouts.first_message();
        if timeout == 0 || !self.is_under_pressure() {
            return None;
        }
        let connections = &self.connections;
        let of = |token| silent_one(connections, token, now.tick());
        match self.admission.overdue(timeout, now.tick(), &of)? {
            Ok(token) => match token.source() {
                Source::Connection { slot, .. } => Some(slot),
                _ => None,
            },
            Err(next) => {
                self.arm_loop_timer_at(LoopTimer::Silent, next);
                None
            }
        }
    }

    /// Returns the source of a connection and the ticks for which it has been idle. Returns `None`
    /// if it must not make way.
    fn idle_one(&self, slot: u32, now: Tick) -> Option<(SourceId, u32)> {
        let connection = self.connections.get(slot as usize)?;
        let flags = connection.flags;
        let idle = now.distance_from(connection.waits_since()).max(0) as u32;
        let owes = flags.has(Flags::IN_OUTBOX) || self.pool.len(&connection.output) > 0;
        let may_go = connection.state() == State::Open
            && !matches!(connection.source, SourceId::OPERATOR | SourceId::DIALLED)
            && !connection.has_input_waiting()
            && !owes
            && idle >= Tick::count(IDLE_MIN);
        may_go.then_some((connection.source, idle))
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

    /// Takes a connection out of the silent set, because it has completed a message. That makes up
    /// for others of its source.
    pub(super) fn speaks(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.flags.has(Flags::SILENT) {
            let forgiven = self.limits.penalty / RECYCLED_PER_PENALTY * FORGIVEN_PER_MESSAGE;
            let (source, now) = (connection.source, self.now.tick());
            self.admission.sources.forgive(source, forgiven, now);
            self.leaves_silent_set(slot);
        }
    }

    /// Takes a connection out of the silent set, if it is there.
    pub(super) fn leaves_silent_set(&mut self, slot: u32) {
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
        since: connection.waits_since(),
        source: connection.source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
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
            reactor.net_mut().advance(Duration::from_millis(50));
            let now = reactor.net_mut().now();
            reactor.net_mut().hold_time_at(now);
            reactor.turn().unwrap();
            assert_eq!(reactor.core.upkeep.warned_at.is_some(), is_logged, "{connections}");
        }
        assert_eq!(reactor.core.stats.recycled, 1);
    }
}
