//! What is true between any two turns. Tests and simulations check it after every one; it walks everything, so the
//! server does not.

use std::collections::HashSet;

use super::{Reactor, timer_id};
use crate::connection::{Flags, State};
use crate::net::Net;
use crate::token::Token;

impl<N: Net> Reactor<N> {
    /// Panics where the loop has broken its own rules, and says which.
    pub fn check_invariants(&self) {
        assert!(
            self.outbox.is_empty() && self.flushes.is_empty() && self.closed.is_empty(),
            "a turn left work of its own"
        );
        let queued: HashSet<Token> = self.ready.iter().copied().collect();
        assert_eq!(queued.len(), self.ready.len(), "a connection is queued twice");
        let mut buffers = 0;
        for (slot, connection) in &self.connections {
            let flags = connection.flags;
            let token = Token::connection(slot as u32, connection.generation);
            assert!(!matches!(connection.state(), State::Closed(_)), "slot {slot} is closed and not reaped");
            assert!(self.timers.fires(timer_id(slot as u32)).is_some(), "slot {slot} has no deadline in the wheel");
            assert_eq!(flags.has(Flags::QUEUED), queued.contains(&token), "slot {slot}: flag and list disagree");
            let waiting = connection.reads() && connection.has_input_waiting() && !flags.has(Flags::PAUSED);
            assert!(!waiting || flags.has(Flags::QUEUED), "slot {slot} has undrained input and no turn to come");
            let unsent = self.pool.len(&connection.output);
            let will_flush = flags.has(Flags::BLOCKED) || flags.has(Flags::QUEUED);
            assert!(unsent == 0 || will_flush, "slot {slot} has {unsent} bytes unsent and nobody will send them");
            assert!(!flags.has(Flags::BLOCKED) || flags.has(Flags::WATCHES_WRITABLE), "slot {slot} waits for no edge");
            let paused_for_nothing = flags.has(Flags::PAUSED) && unsent <= self.limits.low_watermark;
            assert!(!paused_for_nothing, "slot {slot} is paused with {unsent} bytes unsent");
            buffers += usize::from(connection.input.is_some()) + usize::from(connection.output.is_some());
        }
        let silent = self.connections.iter().filter(|(_, connection)| connection.flags.has(Flags::SILENT)).count();
        assert_eq!(self.admission.silent(), silent, "the silent set and the flags disagree");
        assert_eq!(self.pool.lent(), buffers, "buffers lent out and held");
        self.pool.check_invariants();
        self.timers.check_invariants();
        self.services.iter().for_each(|service| service.check_invariants());
        let accounted = self.connections.len() as u64 + self.stats.closed_total();
        assert_eq!(self.stats.accepted, accounted, "accepted = open + closed");
        let ledger = self.ledger();
        let budgeted = ledger.slab + ledger.wheel + ledger.read_buffers + ledger.write_buffers + ledger.spare_buffers;
        // A slot is needed even to turn a connection away.
        assert!(budgeted <= self.limits.memory_budget + Self::BYTES_PER_CONNECTION, "{ledger:?} is over the budget");
    }
}
