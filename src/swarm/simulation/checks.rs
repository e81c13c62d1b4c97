//! The checks after every turn, in addition to the loop's own invariants.

use std::collections::HashMap;

use super::super::{Violation, ensure};
use super::Simulation;
use crate::clock::Tick;
use crate::limits::DATAGRAMS_PER_BATCH;
use crate::net::Net;
use crate::net::sim::ClientId;
use crate::sources::SourceId;
use crate::stats::Work;

/// Maximum number of turns that input may wait while the loop could take it. Budgets of one
/// connection per turn and repeated errors can cause long waits.
const WAIT_MAX: u32 = 200;

/// Unread input of one connection, in the kernel and in its buffer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wait {
    client: Option<ClientId>,
    unread: usize,
    held: usize,
    turns: u32,
}

impl Simulation {
    /// Compares the loop's view of each stream with the kernel's. If the loop relies on an edge,
    /// that edge must come. If the kernel has unread input, the loop must know it or get an edge.
    pub(super) fn check_against_the_kernel(&mut self) -> Result<(), Violation> {
        let net = self.reactor.net();
        let (mut streams, mut outcome) = (0, Ok(()));
        self.reactor.each_stream(|slot, stream, watch| {
            streams += 1;
            let state = net.readiness(stream);
            self.waits.resize(self.waits.len().max(slot as usize + 1), Wait::default());
            let wait = &mut self.waits[slot as usize];
            let same = Wait {
                client: Some(net.client_at(stream)),
                unread: state.unread,
                held: watch.held,
                turns: wait.turns,
            };
            let waits = *wait == same && state.has_unread && watch.reads;
            *wait = Wait { turns: if waits { wait.turns + 1 } else { 0 }, ..same };
            let fault = if watch.relies_on_input_edge && state.has_unread && !state.edge_is_due {
                "the loop has lost track of its unread input, and no edge will come"
            } else if watch.relies_on_room_edge && !state.edge_is_due && !state.room_is_due {
                "the loop waits for room, and no edge will come"
            } else if watch.reads_on && !state.has_ended {
                "the loop took an event of another stream as the end of this one"
            } else if wait.turns > WAIT_MAX {
                "the loop does not take its input"
            } else {
                return;
            };
            outcome = Err(Violation::from(format!(
                "slot {slot}, client {:?}: {fault}",
                net.client_at(stream)
            )));
        });
        outcome?;
        let (ports, files) = (self.reactor.ports(), net.open_files());
        ensure(files == streams + ports, || {
            format!("{files} files are open, but {streams} streams and {ports} ports exist")
        })
    }

    /// Checks that the last turn kept within its budgets.
    pub(super) fn check_budgets(&self, before: Work) -> Result<(), Violation> {
        let (work, limits) = (self.reactor.stats().work, self.reactor.limits());
        let services = self.services.len() as u64;
        let batches = limits.datagram_batches_per_turn * DATAGRAMS_PER_BATCH;
        // Each connection answers once per turn and gets a last message in a drain. Each service
        // delivers within its budget.
        let outputs = limits.deliveries_per_turn as u64 * services
            + 2 * limits.connections_per_turn as u64
            + limits.accepts_per_turn as u64;
        let messages = limits.messages_per_turn
            * limits.connections_per_turn.min(self.reactor.connections() + 64);
        for (name, done, most) in [
            ("accepts", work.accepts - before.accepts, limits.accepts_per_turn as u64),
            ("datagrams", work.datagrams - before.datagrams, batches as u64),
            ("expiries", work.expiries - before.expiries, limits.expiries_per_turn as u64),
            ("outputs", work.deliveries - before.deliveries, outputs),
            ("messages", work.messages - before.messages, messages as u64),
        ] {
            ensure(done <= most, || {
                format!("{done} {name} in a turn, where the budget is {most}")
            })?;
        }
        Ok(())
    }

    /// Checks that a drain ends in time. Its timer is in the wheel, and each turn closes all due
    /// connections.
    pub(super) fn check_drain(&self) -> Result<(), Violation> {
        let Some(since) = self.drained_at else { return Ok(()) };
        let (took, held) = (self.reactor.now().since(since), self.reactor.connections());
        let most = self.reactor.limits().drain_timeout + 3 * Tick::LENGTH;
        let is_late =
            took > most && self.reactor.overdue().is_none() && !self.reactor.is_held_for_input();
        ensure(held == 0 || !is_late, || {
            format!("{held} connections are still held {took:?} after the drain began")
        })
    }

    /// Checks that a deadline is overdue only because of the budget of expiries.
    pub(super) fn check_deadlines(&mut self) -> Result<(), Violation> {
        self.most_held = self.most_held.max(self.reactor.connections());
        let (before, turns) = self.overdue;
        // A timer that a message armed for this very tick fires in the next turn.
        let now = self.reactor.now().tick();
        let overdue = self.reactor.overdue().filter(|due| due.distance_from(now) < 0);
        self.overdue =
            (overdue, if overdue.is_some() && overdue == before { turns + 1 } else { 0 });
        // Each turn expires a budget of timers. All connections may be due at the same tick, and
        // the loop has a few timers besides.
        let most = self.most_held / self.reactor.limits().expiries_per_turn + 8;
        ensure(self.overdue.1 <= most, || format!("deadlines are overdue for {turns} turns"))
    }

    /// Checks that two connections count for one source if and only if they come from one address.
    pub(super) fn check_sources(&self) -> Result<(), Violation> {
        let net = self.reactor.net();
        let (mut addresses, mut sources) = (HashMap::new(), HashMap::new());
        let mut outcome = Ok(());
        self.reactor.each_stream(|slot, stream, watch| {
            let is_counted = ![SourceId::NONE, SourceId::OPERATOR].contains(&watch.source);
            let Some(peer) = net.peer_address(stream).ok().filter(|_| is_counted) else { return };
            let address = *addresses.entry(watch.source).or_insert(peer.ip());
            let source = *sources.entry(peer.ip()).or_insert(watch.source);
            if address != peer.ip() || source != watch.source {
                let text = format!("slot {slot}, from {peer}: counts for {:?}", watch.source);
                outcome = Err(Violation::from(text));
            }
        });
        outcome
    }
}
