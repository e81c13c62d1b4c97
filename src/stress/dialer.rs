//! Opens a number of connections, at a rate or as fast as the server accepts.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::{Arrivals, Next, Pace, earliest};
use super::world::{PeerFlags, PeerRole, StressDial, World};
use crate::clock::Time;
use crate::net::Net;

/// Maximum number of connects in flight at once. The accept queues of servers hold 511 connections
/// (nginx, redis), 1,024 (memcached) or 128 (Rust's standard library). If the queue is full, the
/// kernel repeats the SYN after a second, and that second would be measured.
const CONNECTING_MAX: u64 = 100;

/// Maximum number of dials in one turn.
const DIALS_PER_TURN: usize = 100;

/// Time after which a failed or refused connect is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Connects per second if no requests are sent, because then no answer shows that the server has
/// accepted the connection.
pub const UNANSWERED_RATE: f64 = 10_000.0;

/// The dialer of one role of connections.
pub struct Dialer {
    role: PeerRole,
    dial: StressDial,
    /// Connections still to dial.
    left: usize,
    pace: Option<Pace>,
    /// Moments of the retries, in order.
    retries: VecDeque<Time>,
    /// True if failed connects are tried again.
    tries_again: bool,
}

impl Dialer {
    /// Returns a dialer of `count` connections. `rate` is connects per second; `None` is as fast as
    /// the server accepts.
    pub fn new(
        role: PeerRole,
        dial: StressDial,
        count: usize,
        rate: Option<f64>,
        now: Time,
    ) -> Dialer {
        let pace = rate.map(|rate| Pace::new(rate, Arrivals::Even, 0, now));
        Dialer { role, dial, left: count, pace, retries: VecDeque::new(), tries_again: true }
    }

    /// Returns a dialer that tries each connection once, for runs that show failures.
    pub fn once(
        role: PeerRole,
        dial: StressDial,
        count: usize,
        rate: Option<f64>,
        now: Time,
    ) -> Dialer {
        Dialer { tries_again: false, ..Dialer::new(role, dial, count, rate, now) }
    }

    /// Dials one more connection after [`RETRY`].
    pub fn again(&mut self, now: Time) {
        self.retries.push_back(now + RETRY);
    }

    /// Dials one more connection now.
    pub fn more(&mut self) {
        self.left += 1;
    }

    /// Dials in place of a connection that has ended. A failed connect waits for [`RETRY`], and so
    /// does a server's refusal. The end of a connection that was served costs the load no pause.
    pub fn replace<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let flags = world.peers.get(slot as usize).map_or(PeerFlags::default(), |peer| peer.flags);
        let was_established = !flags.has(PeerFlags::CONNECTING) && !flags.has(PeerFlags::PRELUDE);
        world.meter.reconnects += u64::from(was_established);
        match was_established && !flags.has(PeerFlags::UNSERVED) {
            true => self.more(),
            false => self.again(world.now),
        }
    }

    /// Dials no more connections.
    pub fn stop(&mut self) {
        self.left = 0;
        self.retries.clear();
    }

    /// Returns the number of connections still to dial, retries included.
    pub fn left(&self) -> usize {
        self.left + self.retries.len()
    }

    /// Returns when the next connect is due and how many are due until `end`, if there is a rate.
    pub fn due_before(&self, end: Time) -> Option<(Time, u64)> {
        self.pace.as_ref().map(|pace| (pace.next(), pace.due_before(end)))
    }

    /// Dials the connections that are due, and returns when to act next. `unanswered` is the number
    /// of open connections that the server may not have accepted yet.
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
            if world.dial(self.role, StressDial { due: Some(due), ..self.dial }).is_none() {
                match self.tries_again {
                    true => self.again(world.now),
                    // This machine can open no more connections, so each further dial would fail
                    // too.
                    false if world.exhausted.is_some() => self.stop(),
                    false => {}
                }
            }
        }
        Next::At(world.now)
    }
}
