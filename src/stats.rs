//! What the loop counts: plain numbers that the phases bump and others render. All grow from zero for the life of
//! the process.

use std::time::Duration;

use crate::admission::Refusal;
use crate::connection::Reason;

/// What a turn spends its time on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Complete messages on streams.
    pub messages: u64,
    /// Outputs handed to connections by the outbox.
    pub deliveries: u64,
    pub reads: u64,
    pub writes: u64,
    pub datagrams: u64,
    pub accepts: u64,
    pub expiries: u64,
}

impl Work {
    pub fn counts(&self) -> [(&'static str, u64); 7] {
        [
            ("messages", self.messages),
            ("deliveries", self.deliveries),
            ("reads", self.reads),
            ("writes", self.writes),
            ("datagrams", self.datagrams),
            ("accepts", self.accepts),
            ("expiries", self.expiries),
        ]
    }

    fn since(&self, earlier: &Work) -> Work {
        Work {
            messages: self.messages - earlier.messages,
            deliveries: self.deliveries - earlier.deliveries,
            reads: self.reads - earlier.reads,
            writes: self.writes - earlier.writes,
            datagrams: self.datagrams - earlier.datagrams,
            accepts: self.accepts - earlier.accepts,
            expiries: self.expiries - earlier.expiries,
        }
    }
}

/// The longest turn so far, from the end of its poll to its own, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestTurn {
    pub span: Duration,
    pub work: Work,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub turns: u64,
    /// Readiness events the kernel reported.
    pub events: u64,
    /// Times that events were let gather before a poll.
    pub gathers: u64,
    /// Events for a connection that was gone already.
    pub stale_events: u64,
    /// Connections, listeners and sockets that a turn left for the next, a budget being used up.
    pub carried: u64,

    pub accepted: u64,
    /// Connections the peer gave up before they were accepted (ECONNABORTED and the like).
    pub accept_aborted: u64,
    /// Accepts that failed for want of files or memory; tried again 100 ms later.
    pub accept_exhausted: u64,
    /// Waiting connections turned away because there was no file for them.
    pub accept_shed: u64,
    /// Connections closed at once because memory for them was over the budget.
    pub accept_over_budget: u64,
    /// Connections closed, by [`Reason`].
    pub closed: [u64; Reason::ALL.len()],
    /// Connections that we ended by a reset.
    pub resets: u64,

    pub work: Work,
    /// Work done when the present turn began.
    work_before: Work,
    /// Time spent in turns, without waiting for events.
    pub busy: Duration,
    pub longest_turn: LongestTurn,
    /// Writes that the kernel took only part of, or nothing.
    pub short_writes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Answers not sent because the socket's buffer was full.
    pub datagrams_dropped_full: u64,
    /// Answers not sent because no datagram is that large.
    pub datagrams_dropped_too_large: u64,
    /// Datagrams not answered because they came from a port that slabd serves, or from port 0: answering could loop.
    pub datagrams_dropped_loop: u64,
    /// Datagrams not looked at because too much waited for delivery.
    pub datagrams_dropped_backlog: u64,
    /// Other errors in receiving or sending datagrams.
    pub datagram_errors: u64,

    /// Connections closed because they held most when the budget was nearly used up.
    pub evicted: u64,
    /// Newcomers turned away, by [`Refusal`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Silent connections that made way for a newcomer; in a dry run, those that would have.
    pub recycled: u64,
    /// How long the last of them had been silent.
    pub eviction_age_ticks: u32,

    /// Timers that fired on time.
    pub timers_fired: u64,
    /// Timers that fired before their deadline and were armed again.
    pub timers_early: u64,
    /// Times that memory was given back to the system after a load drop.
    pub trims: u64,
}

impl Stats {
    /// Counts from zero again, but for connections: those accepted must stay those open and closed.
    pub fn reset(&mut self) {
        *self = Stats { accepted: self.accepted, closed: self.closed, resets: self.resets, ..Stats::default() };
    }

    /// A turn is over that took so long.
    pub fn turn_took(&mut self, span: Duration) {
        self.busy += span;
        if span > self.longest_turn.span {
            self.longest_turn = LongestTurn { span, work: self.work.since(&self.work_before) };
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
