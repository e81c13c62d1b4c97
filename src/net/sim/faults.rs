//! The faults of the simulated network, and how often each strikes.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::SimNet;
use crate::net::Ready;

/// The faults of a network. Those of type `f64` are probabilities from 0 to 1. The default has
/// none.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Maximum length of a client's segment in bytes. `None` keeps each send in one segment.
    pub segment_max: Option<usize>,
    /// Maximum delay of a segment, FIN or RST. Some arrive together with the client's previous one.
    pub delay_max: Duration,
    /// Range of a new client's window: the bytes that the loop can write before the client takes
    /// any.
    pub window: RangeInclusive<usize>,
    /// A poll reports a source that has nothing new.
    pub spurious_event: f64,
    /// A closed file is reported once more under its old token. Epoll does this while a copy of the
    /// file is open elsewhere (epoll(7), question 6).
    pub stale_event: f64,
    /// A read, accept or receive gives `WouldBlock` although it could succeed. An edge follows.
    pub spurious_would_block: f64,
    /// A read gives only a part of the waiting bytes. The rest follows at once with a new edge.
    pub short_read: f64,
    /// A write is taken in part for lack of memory. There is room again within `delay_max`.
    pub short_write: f64,
    /// A waiting poll ends early, as if a signal had interrupted it.
    pub poll_interrupted: f64,
    /// A signal interrupts a read, write or accept (EINTR).
    pub interrupted: f64,
    /// The first connection in an accept queue has ended (ECONNABORTED).
    pub accept_aborted: f64,
    /// An accept fails for lack of files or memory. The connection stays queued, and no edge
    /// follows.
    pub accept_exhausted: f64,
    /// The events of one poll come in random order instead of the order of their causes.
    pub shuffled_events: bool,
    /// A waiting poll ends up to `clock_jump_max` late, as if the machine had been suspended.
    pub clock_jump: f64,
    pub clock_jump_max: Duration,
    /// A datagram is lost on its way to the loop.
    pub datagram_lost: f64,
    /// A datagram overtakes datagrams that wait before it.
    pub datagram_reordered: f64,
    /// A datagram arrives twice.
    pub datagram_duplicated: f64,
    /// A receive returns the error of an ICMP message. The datagrams stay queued.
    pub receive_failed: f64,
    /// The kernel does not take a datagram from the loop (`WouldBlock`).
    pub send_would_block: f64,
    /// Maximum number of datagrams that wait in a socket. Further ones are dropped.
    pub datagram_queue: usize,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            segment_max: None,
            delay_max: Duration::ZERO,
            window: 64 * 1024..=64 * 1024,
            spurious_event: 0.0,
            stale_event: 0.0,
            spurious_would_block: 0.0,
            short_read: 0.0,
            short_write: 0.0,
            poll_interrupted: 0.0,
            interrupted: 0.0,
            accept_aborted: 0.0,
            accept_exhausted: 0.0,
            shuffled_events: false,
            clock_jump: 0.0,
            clock_jump_max: Duration::ZERO,
            datagram_lost: 0.0,
            datagram_reordered: 0.0,
            datagram_duplicated: 0.0,
            receive_failed: 0.0,
            send_would_block: 0.0,
            datagram_queue: 1024,
        }
    }
}

impl Faults {
    /// Returns nearly all faults at once, for sweeps over seeds. Each is rare enough that most
    /// exchanges still succeed. Spurious events are left out, because they rescue a loop that
    /// missed an edge: sweep with and without them. Clock jumps are left out, because they make
    /// every deadline pass.
    pub fn harsh() -> Faults {
        Faults {
            segment_max: Some(24),
            delay_max: Duration::from_millis(20),
            window: 1..=64,
            stale_event: 0.2,
            spurious_would_block: 0.1,
            short_read: 0.1,
            short_write: 0.05,
            poll_interrupted: 0.1,
            interrupted: 0.05,
            accept_aborted: 0.05,
            accept_exhausted: 0.05,
            shuffled_events: true,
            datagram_lost: 0.05,
            datagram_reordered: 0.1,
            datagram_duplicated: 0.05,
            receive_failed: 0.05,
            send_would_block: 0.05,
            datagram_queue: 16,
            ..Faults::default()
        }
    }
}

impl SimNet {
    /// Makes the next poll report this event as well. The event may name a closed source.
    pub fn inject(&mut self, event: Ready) {
        self.injected.push(event);
    }

    /// Replaces the faults from now on. Existing clients keep their windows.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Limits file numbers to values below `limit`, as RLIMIT_NOFILE does. Only the loop's files
    /// count.
    pub fn set_file_limit(&mut self, limit: usize) {
        self.file_limit = limit;
    }

    /// Sets the system's clock, as an operator or NTP does. The monotonic clock goes on.
    pub fn set_system_clock(&mut self, time: Duration) {
        self.system_clock = (time, self.now);
    }
}
