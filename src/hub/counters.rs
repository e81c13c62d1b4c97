//! Counters of the hub, and how fast one grows.

use crate::clock::Time;

/// Counts of the work of clients of Socket.IO.
#[derive(Default)]
pub struct SocketIoCounters {
    pub events: u64,
    /// Events without a route, and events that a route or a verb refused.
    pub refused: u64,
    /// Clients that changed from polling to WebSocket.
    pub upgrades: u64,
    /// Clients that polled, had no namespace, and made room for newcomers.
    pub recycled: u64,
}

/// How fast a counter grows, measured between two looks at it.
#[derive(Default)]
pub struct Rate {
    since: Time,
    count: u64,
    per_second: u64,
}

impl Rate {
    /// Returns the growth per second, over at least the last second.
    pub fn per_second(&mut self, count: u64, now: Time) -> u64 {
        let seconds = now.since(self.since).as_secs_f64();
        if seconds >= 1.0 {
            // CONFIG RESETSTAT sets the counter to zero.
            self.per_second = (count.saturating_sub(self.count) as f64 / seconds) as u64;
            (self.since, self.count) = (now, count);
        }
        self.per_second
    }
}
