//! What goes wrong in the simulated network, and how often.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What goes wrong, and how often: probabilities from 0 to 1. By default nothing does.
#[derive(Clone, Debug)]
pub struct Faults {
    /// What a client sends travels in segments of one to this many bytes; whole when `None`.
    pub segment_max: Option<usize>,
    /// Each segment, FIN and RST arrives together with what the client sent before it, or up to this much later.
    pub delay_max: Duration,
    /// Bytes that the loop can write to a new client before the client takes some.
    pub window: RangeInclusive<usize>,
    /// A poll reports a source that has nothing new.
    pub spurious_event: f64,
    /// A file that closes is reported once more, under the token it had: as epoll does while a copy of the file is open elsewhere
    /// (epoll(7), question 6), or another thread had taken the event already.
    pub stale_event: f64,
    /// A read, accept or receive that could do something gives `WouldBlock`; an edge follows.
    pub spurious_would_block: f64,
    /// A read gives a part of what is there, and the rest arrives just after it, with an edge of its own.
    pub short_read: f64,
    /// A write with room is taken in part, for want of memory; there is room again within `delay_max`.
    pub short_write: f64,
    /// A poll that would wait is cut short, as by a signal.
    pub poll_interrupted: f64,
    /// A read, write or accept is cut short in that way: EINTR.
    pub interrupted: f64,
    /// The connection at the head of an accept queue is gone: ECONNABORTED.
    pub accept_aborted: f64,
    /// An accept fails for want of files or memory; the connection waits on, and no edge tells when to try again.
    pub accept_exhausted: f64,
    /// Events of one poll come in any order, not in that of their causes.
    pub shuffled_events: bool,
    /// A poll that would wait ends up to `clock_jump_max` late: the machine slept, or the process was stopped.
    pub clock_jump: f64,
    pub clock_jump_max: Duration,
    /// A datagram is lost on its way to the loop.
    pub datagram_lost: f64,
    /// A datagram overtakes those that wait before it.
    pub datagram_reordered: f64,
    /// A datagram arrives twice.
    pub datagram_duplicated: f64,
    /// A receive gives an error that an ICMP message brought, and the datagrams wait on.
    pub receive_failed: f64,
    /// A datagram is not taken from the loop: `WouldBlock`.
    pub send_would_block: f64,
    /// Datagrams that wait in a socket; those beyond are dropped.
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
    /// Nearly everything at once, tuned so that most things still work out: for sweeps over seeds. Without spurious
    /// events, because they rescue a loop that missed an edge: sweep with and without. Without jumps of the clock, which let every
    /// deadline pass.
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
