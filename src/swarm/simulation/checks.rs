//! What must be so after every turn, beside the loop's own invariants.

use super::super::{Violation, ensure};
use super::Simulation;
use crate::clock::Tick;
use crate::limits::DATAGRAMS_PER_BATCH;
use crate::net::sim::ClientId;
use crate::stats::Work;

/// Turns that input may wait while nothing keeps the loop from taking it: budgets of one connection a turn, and errors in a row.
const WAIT_MAX: u32 = 200;

/// Input of one connection, in the kernel and in its buffer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wait {
    client: Option<ClientId>,
    unread: usize,
    held: usize,
    turns: u32,
}

impl Simulation {
    /// What the loop relies on, the kernel must be going to do; and what the kernel has, the loop must know of or be going to be told.
    pub(super) fn check_against_the_kernel(&mut self) -> Result<(), Violation> {
        let net = self.reactor.net();
        let (mut streams, mut outcome) = (0, Ok(()));
        self.reactor.each_stream(|slot, stream, watch| {
            streams += 1;
            let state = net.readiness(stream);
            self.waits.resize(self.waits.len().max(slot as usize + 1), Wait::default());
            let wait = &mut self.waits[slot as usize];
            let same =
                Wait { client: Some(net.client_at(stream)), unread: state.unread, held: watch.held, turns: wait.turns };
            let waits = *wait == same && state.has_unread && watch.reads;
            *wait = Wait { turns: if waits { wait.turns + 1 } else { 0 }, ..same };
            let fault = if watch.relies_on_input_edge && state.has_unread && !state.edge_is_due {
                "has unread input, no edge comes, and the loop does not know"
            } else if watch.relies_on_room_edge && !state.edge_is_due && !state.room_is_due {
                "waits for room, and nobody will tell of it"
            } else if watch.reads_on && !state.has_ended {
                "reads on, though its peer has not ended: an event that was another's"
            } else if wait.turns > WAIT_MAX {
                "has input that is not taken"
            } else {
                return;
            };
            outcome = Err(Violation::from(format!("slot {slot}, client {:?}: {fault}", net.client_at(stream))));
        });
        outcome?;
        let (ports, files) = (self.reactor.ports(), net.open_files());
        ensure(files == streams + ports, || format!("{files} files are open for {streams} streams and {ports} ports"))
    }

    pub(super) fn check_budgets(&self, before: Work) -> Result<(), Violation> {
        let (work, limits) = (self.reactor.stats().work, self.reactor.limits());
        let services = self.services.len() as u64;
        let batches = limits.datagram_batches_per_turn * DATAGRAMS_PER_BATCH;
        // Each connection answers once a turn, and says farewell in a drain; each service delivers within its budget.
        let outputs = limits.deliveries_per_turn as u64 * services
            + 2 * limits.connections_per_turn as u64
            + limits.accepts_per_turn as u64;
        let messages = limits.messages_per_turn * limits.connections_per_turn.min(self.reactor.connections() + 64);
        for (name, done, most) in [
            ("accepts", work.accepts - before.accepts, limits.accepts_per_turn as u64),
            ("datagrams", work.datagrams - before.datagrams, batches as u64),
            ("expiries", work.expiries - before.expiries, limits.expiries_per_turn as u64),
            ("outputs", work.deliveries - before.deliveries, outputs),
            ("messages", work.messages - before.messages, messages as u64),
        ] {
            ensure(done <= most, || format!("{done} {name} in a turn, of {most} at most"))?;
        }
        Ok(())
    }

    /// A drain ends in time: its timer is one of the wheel's, and each turn closes all.
    pub(super) fn check_drain(&self) -> Result<(), Violation> {
        let Some(since) = self.drained_at else { return Ok(()) };
        let (took, held) = (self.reactor.now().since(since), self.reactor.connections());
        let most = self.reactor.limits().drain_timeout + 3 * Tick::LENGTH;
        let is_late = took > most && self.reactor.overdue().is_none() && !self.reactor.is_held_for_input();
        ensure(held == 0 || !is_late, || format!("{held} connections are held {took:?} after the drain began"))
    }

    /// No deadline is overdue but for the budget.
    pub(super) fn check_deadlines(&mut self) -> Result<(), Violation> {
        self.most_held = self.most_held.max(self.reactor.connections());
        let (before, turns) = self.overdue;
        let overdue = self.reactor.overdue();
        self.overdue = (overdue, if overdue.is_some() && overdue == before { turns + 1 } else { 0 });
        // Each turn expires some: as many turns as it takes for all of the same tick, and some for the loop's own timers.
        let most = self.most_held / self.reactor.limits().expiries_per_turn + 8;
        ensure(self.overdue.1 <= most, || format!("deadlines are overdue for {turns} turns"))
    }
}
