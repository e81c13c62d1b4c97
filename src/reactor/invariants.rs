//! What is true between any two turns. Tests and simulations check it after every one; it walks everything, so the
//! server does not.

use std::collections::{HashMap, HashSet};

use super::Reactor;
use super::core::{Core, LoopTimer, timer_id};
use crate::clock::Tick;
use crate::connection::{Flags, State};
use crate::limits::CATCH_UP_MAX;
use crate::net::Net;
use crate::token::Token;

/// What the loop relies on the network for, for one of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// It will read only when an edge says that there is something.
    pub relies_on_input_edge: bool,
    /// It has output that it will write only when an edge says that there is room.
    pub relies_on_room_edge: bool,
    /// It was told that a short read does not mean drained.
    pub reads_on: bool,
    /// It reads what comes: it is not paused, nor closing.
    pub reads: bool,
    /// Input that it holds and has not decoded, in bytes.
    pub held: usize,
    /// Output that waits for room, in bytes.
    pub unsent: usize,
}

/// What simulations look at between turns, to hold it against what they know of the other side.
impl<N: Net> Reactor<N> {
    /// Calls `each` for every stream that the loop holds, with its slot.
    pub fn each_stream(&self, mut each: impl FnMut(u32, &N::Stream, Watch)) {
        for (slot, connection) in &self.core.connections {
            let flags = connection.flags;
            let watch = Watch {
                relies_on_input_edge: connection.reads() && !flags.has(Flags::READABLE),
                relies_on_room_edge: flags.has(Flags::BLOCKED),
                reads_on: flags.has(Flags::READ_ON),
                reads: connection.reads() && !flags.has(Flags::PAUSED),
                held: self.core.pool.len(&connection.input),
                unsent: self.core.pool.len(&connection.output),
            };
            each(slot as u32, &connection.stream, watch);
        }
    }

    /// Listeners and datagram sockets: each has a file open.
    pub fn ports(&self) -> usize {
        self.core.listeners.len() + self.core.sockets.len()
    }

    /// Whether services have output that is not delivered yet.
    pub fn has_output(&self) -> bool {
        self.services.iter().any(|service| service.has_output())
    }

    /// Whether deadlines wait for input that arrived while the process was stopped.
    pub fn is_held_for_input(&self) -> bool {
        self.core.catching_up_since.is_some()
    }

    /// When the first of the timers was due that should have fired: a budget was used up, or it was armed after the phase in which they fire.
    pub fn overdue(&self) -> Option<Tick> {
        let due = self.core.timers.next_fires().filter(|tick| tick.distance_from(self.core.now.tick()) <= 0);
        due.filter(|_| self.core.catching_up_since.is_none_or(|since| self.core.now.since(since) >= CATCH_UP_MAX))
    }

    /// Panics where the loop has broken its own rules, and says which.
    pub fn check_invariants(&self) {
        let core = &self.core;
        assert!(
            self.outbox.is_empty() && core.turn.flushes.is_empty() && core.turn.drained.is_empty(),
            "a turn left work of its own"
        );
        let queued: HashSet<Token> = core.carry.ready.iter().copied().collect();
        assert_eq!(queued.len(), core.carry.ready.len(), "a connection is queued twice");
        let over: HashMap<u32, State> = core.carry.closed.iter().copied().collect();
        let mut states = [0; State::NAMES.len()];
        let mut buffers = 0;
        for (slot, connection) in &core.connections {
            buffers += usize::from(connection.input.is_some()) + usize::from(connection.output.is_some());
            let is_over = matches!(connection.state(), State::Closed(_));
            assert_eq!(is_over, over.contains_key(&(slot as u32)), "slot {slot} is over, or to be reaped");
            states[over.get(&(slot as u32)).copied().unwrap_or(connection.state()).index()] += 1;
            if is_over {
                continue;
            }
            let flags = connection.flags;
            let token = Token::connection(slot as u32, connection.generation);
            let fires = core.timers.fires(timer_id(slot as u32));
            assert!(fires.is_some(), "slot {slot} has no deadline in the wheel");
            if let (Some(fires), Some((due, reason))) = (fires, self.deadline_of(slot as u32)) {
                // What was due when it was armed fires at once.
                let is_in_time = fires.distance_from(due) <= 0 || fires.distance_from(core.now.tick()) <= 0;
                assert!(is_in_time, "slot {slot}: its timer fires after {reason:?} is due");
            }
            assert_eq!(flags.has(Flags::QUEUED), queued.contains(&token), "slot {slot}: flag and list disagree");
            let waiting = connection.reads() && connection.has_input_waiting() && !flags.has(Flags::PAUSED);
            assert!(!waiting || flags.has(Flags::QUEUED), "slot {slot} has undrained input and no turn to come");
            let unsent = core.pool.len(&connection.output);
            let will_flush = flags.has(Flags::BLOCKED) || flags.has(Flags::QUEUED);
            assert!(unsent == 0 || will_flush, "slot {slot} has {unsent} bytes unsent and nobody will send them");
            assert!(!flags.has(Flags::BLOCKED) || flags.has(Flags::WATCHES_WRITABLE), "slot {slot} waits for no edge");
            let paused_for_nothing = flags.has(Flags::PAUSED) && unsent <= core.limits.low_watermark;
            assert!(!paused_for_nothing, "slot {slot} is paused with {unsent} bytes unsent");
        }
        let silent = core.connections.iter().filter(|(_, connection)| connection.flags.has(Flags::SILENT)).count();
        assert_eq!(core.admission.silent(), silent, "the silent set and the flags disagree");
        assert_eq!(core.pool.lent(), buffers, "buffers lent out and held");
        assert_eq!(core.stats.states, states, "connections by state");
        core.pool.check_invariants();
        core.timers.check_invariants();
        let loop_timers = LoopTimer::ALL.iter().filter(|timer| core.timers.fires(**timer as u32).is_some()).count();
        assert_eq!(core.timers.armed(), core.connections.len() + loop_timers, "timers and those that have one");
        assert!(core.connections.len() <= core.slots_used && core.slots_used <= core.connections.capacity(), "slots");
        self.services.iter().for_each(|service| service.check_invariants());
        let accounted = core.connections.len() as u64 + core.stats.closed_total();
        assert_eq!(core.stats.accepted, accounted, "accepted = open + closed");
        let held: usize = core
            .connections
            .iter()
            .map(|(_, connection)| core.pool.capacity(&connection.input) + core.pool.capacity(&connection.output))
            .sum();
        assert_eq!(
            held,
            core.pool.read_bytes() + core.pool.write_bytes(),
            "buffers of connections, and those lent out, in bytes"
        );
        let ledger = self.ledger();
        let budgeted = ledger.slab + ledger.wheel + ledger.read_buffers + ledger.write_buffers + ledger.spare_buffers;
        // A slot is needed even to turn a connection away.
        assert!(
            budgeted <= core.limits.memory_budget + Core::<N>::BYTES_PER_CONNECTION,
            "{ledger:?} is over the budget"
        );
    }
}
