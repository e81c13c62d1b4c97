//! What the loop counts: plain numbers that the phases bump and others render. All grow from zero for the life of
//! the process.

use crate::connection::Reason;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub turns: u64,
    /// Readiness events the kernel reported.
    pub events: u64,
    /// Events for a connection that was gone already.
    pub stale_events: u64,
    /// Connections, listeners and sockets that a turn left for the next, a budget being used up.
    pub carried: u64,

    pub accepted: u64,
    /// Connections the peer gave up before they were accepted (ECONNABORTED and the like).
    pub accept_aborted: u64,
    /// Accepts that failed for want of files or memory; tried again 100 ms later.
    pub accept_exhausted: u64,
    /// Connections closed at once because memory for them was over the budget.
    pub accept_over_budget: u64,
    /// Connections closed, by [`Reason`].
    pub closed: [u64; Reason::ALL.len()],

    pub reads: u64,
    pub writes: u64,
    /// Writes that the kernel took only part of, or nothing.
    pub short_writes: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Complete messages on streams.
    pub messages: u64,

    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Answers not sent because the socket's buffer was full.
    pub datagrams_dropped_full: u64,
    /// Answers not sent because no datagram is that large.
    pub datagrams_dropped_too_large: u64,
    /// Datagrams not answered because they came from a port that slabd serves, or from port 0: answering could loop.
    pub datagrams_dropped_loop: u64,
    /// Other errors in receiving or sending datagrams.
    pub datagram_errors: u64,

    /// Timers that fired on time.
    pub timers_fired: u64,
    /// Timers that fired before their deadline and were armed again.
    pub timers_early: u64,
    /// Times that memory was given back to the system after a load drop.
    pub trims: u64,
}

impl Stats {
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub fn closed_for(&self, reason: Reason) -> u64 {
        self.closed[reason as usize]
    }
}
