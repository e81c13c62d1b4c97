//! How connections are opened: so many, so fast, and no more at once than an accept queue holds.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::{Arrivals, Next, Pace, earliest};
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
    /// When those that failed are tried again, in order.
    retries: VecDeque<Time>,
    /// What could not be opened is tried again.
    tries_again: bool,
}

impl Dialer {
    /// `rate`: connects a second; `None`: as fast as they are accepted.
    pub fn new(role: Role, dial: Dial, count: usize, rate: Option<f64>, now: Time) -> Dialer {
        let pace = rate.map(|rate| Pace::new(rate, Arrivals::Even, 0, now));
        Dialer { role, dial, left: count, pace, retries: VecDeque::new(), tries_again: true }
    }

    /// The same, but each is tried once: failures are what the run is to show.
    pub fn once(role: Role, dial: Dial, count: usize, rate: Option<f64>, now: Time) -> Dialer {
        Dialer { tries_again: false, ..Dialer::new(role, dial, count, rate, now) }
    }

    /// One more is to be dialled, soon.
    pub fn again(&mut self, now: Time) {
        self.retries.push_back(now + RETRY);
    }

    /// One more is to be dialled, at once.
    pub fn more(&mut self) {
        self.left += 1;
    }

    /// No more are dialled.
    pub fn stop(&mut self) {
        self.left = 0;
        self.retries.clear();
    }

    /// Still to be dialled, those included that are to be tried again.
    pub fn left(&self) -> usize {
        self.left + self.retries.len()
    }

    /// At a rate: when the next is due, and how many are until `end`.
    pub fn due_before(&self, end: Time) -> Option<(Time, u64)> {
        self.pace.as_ref().map(|pace| (pace.next(), pace.due_before(end)))
    }

    /// Dials what is due; when more will be. `unanswered` of those that are open are not known to be accepted yet.
    pub fn act<N: Net>(&mut self, world: &mut World<N>, unanswered: u64) -> Next {
        while self.retries.front().is_some_and(|time| *time <= world.now) {
            self.retries.pop_front();
            self.left += 1;
        }
        let retry = self.retries.front().map_or(Next::OnEvent, |time| Next::At(*time));
        for _ in 0..DIALS_PER_TURN {
            if self.left == 0 || world.meter.connecting + unanswered >= CONNECTING_MAX {
                return retry;
            }
            let due = self.pace.as_ref().map_or(world.now, Pace::next);
            if due > world.now {
                return earliest([Next::At(due), retry]);
            }
            if let Some(pace) = &mut self.pace {
                pace.take();
            }
            self.left -= 1;
            if world.dial(self.role, Dial { due: Some(due), ..self.dial }).is_none() {
                match self.tries_again {
                    true => self.again(world.now),
                    // There is no more of it: to go on would only count failures.
                    false if world.exhausted.is_some() => self.stop(),
                    false => {}
                }
            }
        }
        Next::At(world.now)
    }
}
