//! What the loop counts: plain numbers that the phases bump. What each is, is said where it is
//! shown: in `reactor/sections.rs`. All grow from zero for the life of the process.

use std::time::Duration;

use crate::admission::Refusal;
use crate::connection::{Reason, State};

/// What a turn spends its time on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub messages: u64,
    pub deliveries: u64,
    pub reads: u64,
    pub writes: u64,
    pub datagrams: u64,
    pub accepts: u64,
    pub expiries: u64,
}

impl Work {
    pub const NAMES: [&'static str; 7] =
        ["messages", "deliveries", "reads", "writes", "datagrams", "accepts", "expiries"];

    /// The counts in the order of [`Work::NAMES`].
    pub fn counts(&self) -> [u64; 7] {
        let Work { messages, deliveries, reads, writes, datagrams, accepts, expiries } = *self;
        [messages, deliveries, reads, writes, datagrams, accepts, expiries]
    }
}

/// The longest turn so far, from the end of its poll to its own, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestTurn {
    pub span: Duration,
    /// In the order of [`Work::NAMES`].
    pub work: [u64; 7],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub turns: u64,
    pub events: u64,
    pub stale_events: u64,
    pub carried: u64,

    pub accepted: u64,
    pub accept_aborted: u64,
    pub accept_exhausted: u64,
    pub accept_shed: u64,
    pub accept_over_budget: u64,
    /// By [`State::index`]. A connection that closes counts until it is reaped.
    pub states: [u64; State::NAMES.len()],
    /// By [`Reason`].
    pub closed: [u64; Reason::ALL.len()],
    pub resets: u64,

    pub work: Work,
    /// Work done when the present turn began.
    work_before: Work,
    /// Time spent in turns, without waiting for events.
    pub busy: Duration,
    pub longest_turn: LongestTurn,
    pub short_writes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub datagrams_dropped_full: u64,
    pub datagrams_dropped_too_large: u64,
    pub datagrams_dropped_loop: u64,
    pub datagrams_dropped_backlog: u64,
    pub datagram_errors: u64,

    pub evicted: u64,
    /// By [`Refusal`].
    pub refused: [u64; Refusal::ALL.len()],
    pub recycled: u64,
    /// How long the last of those recycled had been silent.
    pub eviction_age_ticks: u32,

    pub timers_fired: u64,
    pub timers_early: u64,
    pub trims: u64,
}

impl Stats {
    /// Counts from zero again, but for connections: those accepted must stay those open and closed.
    pub fn reset(&mut self) {
        let Stats { accepted, states, closed, resets, .. } = *self;
        *self = Stats { accepted, states, closed, resets, ..Stats::default() };
    }

    /// A connection went from one state to another. A closed one is in none.
    pub fn moved(&mut self, from: State, to: State) {
        if from != to {
            self.states[from.index()] -= 1;
            if let Some(count) = self.states.get_mut(to.index()) {
                *count += 1;
            }
        }
    }

    /// A turn is over that took so long.
    pub fn turn_took(&mut self, span: Duration) {
        self.busy += span;
        if span > self.longest_turn.span {
            let (work, before) = (self.work.counts(), self.work_before.counts());
            let work = std::array::from_fn(|kind| work[kind] - before[kind]);
            self.longest_turn = LongestTurn { span, work };
        }
        self.work_before = self.work;
    }

    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub fn closed_for(&self, reason: Reason) -> u64 {
        self.closed[reason as usize]
    }
}
