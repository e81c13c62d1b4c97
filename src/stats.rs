//! The counters of the loop. Its phases increment them, from zero until a client resets them.
//! `reactor/sections.rs` has the help of each.

use std::time::Duration;

use crate::admission::Refusal;
use crate::connection::{Reason, State};
use crate::metrics::histogram::Histogram;

/// The work of turns, counted by kind.
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
    /// The names of the kinds of work.
    pub const NAMES: [&'static str; 7] =
        ["messages", "deliveries", "reads", "writes", "datagrams", "accepts", "expiries"];

    /// Returns the counts in the order of [`Work::NAMES`].
    pub fn counts(&self) -> [u64; 7] {
        let Work { messages, deliveries, reads, writes, datagrams, accepts, expiries } = *self;
        [messages, deliveries, reads, writes, datagrams, accepts, expiries]
    }
}

/// The longest turn so far, without its poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestTurn {
    pub span: Duration,
    /// Its work, in the order of [`Work::NAMES`].
    pub work: [u64; 7],
}

/// The counters of one loop.
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
    /// Connections that the loop has opened for services.
    pub dialled: u64,
    pub dials_failed: u64,
    /// Connections by [`State::index`]. A closed connection counts until it is reaped.
    pub states: [u64; State::NAMES.len()],
    /// Closed connections by [`Reason`].
    pub closed: [u64; Reason::ALL.len()],
    pub resets: u64,

    pub work: Work,
    /// The work of all turns before the present one.
    work_before: Work,
    /// Nanoseconds of each turn, without its poll.
    pub turn_durations: Histogram,
    /// Nanoseconds from the end of poll's timeout to the return of poll. It is not counted for a
    /// poll that an event ended sooner, or that had no timeout.
    pub poll_delays: Histogram,
    /// Write calls of each turn.
    pub writes_per_turn: Histogram,
    pub longest_turn: LongestTurn,
    pub short_writes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Answers dropped because the buffer of the socket was full.
    pub datagrams_dropped_full: u64,
    /// Answers too large for a datagram.
    pub datagrams_dropped_too_large: u64,
    /// Datagrams from a port of slabd or port 0, and answers that came back too often.
    pub datagrams_dropped_loop: u64,
    /// Datagrams above the rate of their network.
    pub datagrams_dropped_rate: u64,
    /// Answers not sent to the port of a service.
    pub datagrams_dropped_port: u64,
    /// Publishes received while the backlog was full.
    pub datagrams_dropped_backlog: u64,
    pub datagram_errors: u64,

    pub evicted: u64,
    /// Refused newcomers by [`Refusal`].
    pub refused: [u64; Refusal::ALL.len()],
    pub recycled: u64,
    /// Age of the last recycled connection: its silence, in ticks.
    pub eviction_age_ticks: u32,

    pub timers_fired: u64,
    pub timers_early: u64,
    /// Stops of the process that the loop noticed.
    pub stops: u64,
    pub trims: u64,
}

impl Stats {
    /// Resets the counters, except those of connections: accepted and dialled ones must equal open
    /// and closed ones.
    pub fn reset(&mut self) {
        let Stats { accepted, dialled, states, closed, resets, .. } = *self;
        *self = Stats { accepted, dialled, states, closed, resets, ..Stats::default() };
    }

    /// Moves a connection from one state to another. The new state `Closed` has no count.
    pub fn moved(&mut self, from: State, to: State) {
        if from != to {
            self.states[from.index()] -= 1;
            if let Some(count) = self.states.get_mut(to.index()) {
                *count += 1;
            }
        }
    }

    /// Records the length and the writes of a finished turn, and its work if it is the longest so
    /// far.
    pub fn turn_took(&mut self, span: Duration) {
        self.turn_durations.count(nanoseconds(span));
        self.writes_per_turn.count(self.work.writes - self.work_before.writes);
        if span > self.longest_turn.span {
            let (work, before) = (self.work.counts(), self.work_before.counts());
            let work = std::array::from_fn(|kind| work[kind] - before[kind]);
            self.longest_turn = LongestTurn { span, work };
        }
        self.work_before = self.work;
    }

    /// Records how late poll returned. `None` means that it did not wait for its whole timeout.
    pub fn poll_was_late(&mut self, delay: Option<Duration>) {
        delay.into_iter().for_each(|delay| self.poll_delays.count(nanoseconds(delay)));
    }

    /// Returns the time spent in turns, without polls.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.turn_durations.sum())
    }

    /// Returns the number of closed connections.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Returns the number of connections closed for this reason.
    pub fn closed_for(&self, reason: Reason) -> u64 {
        self.closed[reason as usize]
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
