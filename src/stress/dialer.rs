//! How connections are opened: so many, so fast, and no more at once than an accept queue holds.

use std::time::Duration;

use super::pace::{Arrivals, Pace};
use super::shape::Next;
use super::world::{Dial, Role, World};
use crate::clock::Time;
use crate::net::Net;

/// Connections on their way at once. Debian's listeners have accept queues of 511 (nginx, redis) and 1,024 (memcached); Rust's
/// standard library asks for 128. What finds no room there is tried again by the kernel after a second, which would be measured.
const CONNECTING_MAX: u64 = 100;

/// Dials in one turn.
const DIALS_PER_TURN: usize = 100;

/// A connection that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);

/// Connects a second, where nothing tells that one was accepted: no request is answered on it.
pub const UNANSWERED_RATE: f64 = 10_000.0;

pub struct Dialer {
    role: Role,
    dial: Dial,
    /// Still to be dialled.
    left: usize,
    pace: Option<Pace>,
    /// After a failure.
    not_before: Time,
    /// What could not be opened is tried again.
    tries_again: bool,
}

impl Dialer {
    /// `rate`: connects a second; `None`: as fast as they are accepted.
    pub fn new(role: Role, dial: Dial, count: usize, rate: Option<f64>, now: Time) -> Dialer {
        let pace = rate.map(|rate| Pace::new(rate, Arrivals::Even, 0, now));
        Dialer { role, dial, left: count, pace, not_before: now, tries_again: true }
    }

    /// The same, but each is tried once: failures are what the run is to show.
    pub fn once(role: Role, dial: Dial, count: usize, rate: Option<f64>, now: Time) -> Dialer {
        Dialer { tries_again: false, ..Dialer::new(role, dial, count, rate, now) }
    }

    /// One more is to be dialled, soon.
    pub fn again(&mut self, now: Time) {
        self.left += 1;
        self.not_before = self.not_before.max(now + RETRY);
    }

    /// One more is to be dialled, at once.
    pub fn more(&mut self) {
        self.left += 1;
    }

    /// No more are dialled.
    pub fn stop(&mut self) {
        self.left = 0;
    }

    pub fn left(&self) -> usize {
        self.left
    }

    /// Dials what is due; when more will be. `unanswered` of those that are open are not known to be accepted yet.
    pub fn act<N: Net>(&mut self, world: &mut World<N>, unanswered: u64) -> Next {
        for _ in 0..DIALS_PER_TURN {
            if self.left == 0 || world.meter.connecting + unanswered >= CONNECTING_MAX {
                return Next::OnEvent;
            }
            let due = self.pace.as_ref().map_or(world.now, Pace::next).max(self.not_before);
            if due > world.now {
                return Next::At(due);
            }
            if let Some(pace) = &mut self.pace {
                pace.take();
            }
            self.left -= 1;
            if world.dial(self.role, self.dial).is_none() && self.tries_again {
                self.again(world.now);
            }
        }
        Next::At(world.now)
    }
}
