//! `hold`: opens connections, sends a request on each, keeps them, and sends another at the end.

use std::time::Duration;

use super::Shape;
use crate::clock::Time;
use crate::net::Net;
use crate::report::figures::count;
use crate::stress::dialer::{Dialer, UNANSWERED_RATE};
use crate::stress::meter::Reading;
use crate::stress::pace::{Next, earliest};
use crate::stress::plan::Plan;
use crate::stress::record::Record;
use crate::stress::target::Scheme;
use crate::stress::world::{PeerFlags, StressDial, World};

/// Time from the last answer until the server's memory is read. The server may free buffers
/// meanwhile.
const SETTLE: Duration = Duration::from_secs(1);

/// Maximum number of requests in flight at once at the end.
const CHECKS_AT_ONCE: u64 = 100;

/// The shape `hold`.
pub struct Hold {
    dialer: Dialer,
    /// True if the shape sends requests. Over plain TCP it needs --send for that, and a stream of
    /// events takes none.
    asks: bool,
    scheme: Scheme,
    duration: Duration,
    phase: HoldPhase,
    /// Answers after opening, and answers at the end.
    answered: [u64; 2],
    /// Moment of the last answer; without requests, of the last opened connection.
    progress: Time,
    /// Time without progress after which the shape opens no more connections.
    patience: Duration,
    gave_up: bool,
}

enum HoldPhase {
    Opening,
    Settling {
        until: Time,
    },
    Holding {
        until: Time,
    },
    /// Sends the last requests, on the slots from `next` to `end`.
    Checking {
        next: usize,
        end: usize,
    },
    Done,
}

impl Hold {
    pub fn new(plan: &Plan, now: Time) -> Hold {
        let scheme = plan.target.scheme;
        let asks = !matches!(scheme, Scheme::Tcp | Scheme::Events) || plan.send.is_some();
        let is_unanswered = !asks && scheme == Scheme::Tcp;
        let rate = plan.connect_rate.or(is_unanswered.then_some(UNANSWERED_RATE));
        Hold {
            dialer: Dialer::once(0, StressDial::default(), plan.connections, rate, now),
            asks,
            scheme,
            duration: plan.duration,
            phase: HoldPhase::Opening,
            answered: [0; 2],
            progress: now,
            patience: plan.timeout * 2,
            gave_up: false,
        }
    }

    /// Sends a request on each open connection, a bounded number at once.
    fn check<N: Net>(&mut self, world: &mut World<N>) -> Next {
        let HoldPhase::Checking { next, end } = &mut self.phase else { return Next::Done };
        while next < end && world.outstanding < CHECKS_AT_ONCE {
            let slot = *next;
            *next += 1;
            if world.peers.get(slot).is_some_and(|peer| peer.is_open()) {
                world.request(slot as u32, 1, world.now);
            }
        }
        if next < end || world.outstanding > 0 {
            return Next::OnEvent;
        }
        self.phase = HoldPhase::Done;
        Next::Done
    }
}

impl<N: Net> Shape<N> for Hold {
    fn act(&mut self, world: &mut World<N>) -> Next {
        match self.phase {
            HoldPhase::Opening => {
                if world.now >= self.progress + self.patience && !self.gave_up {
                    self.gave_up = true;
                    self.dialer.stop();
                }
                let dialing = self.dialer.act(world, world.outstanding);
                if self.dialer.left() > 0 || world.meter.connecting > 0 || world.outstanding > 0 {
                    return earliest([dialing, Next::At(self.progress + self.patience)]);
                }
                if world.meter.open == 0 {
                    self.phase = HoldPhase::Done;
                    return Next::Done;
                }
                self.phase = HoldPhase::Settling { until: world.now + SETTLE };
                Next::At(world.now + SETTLE)
            }
            HoldPhase::Settling { until } if world.now >= until => {
                world.meter.wants_memory = Some(Reading::Latest);
                let until = world.now + self.duration;
                self.phase = HoldPhase::Holding { until };
                Next::At(until)
            }
            HoldPhase::Holding { until } if world.now >= until => {
                // Some servers need seconds to free the memory of traffic, so the last reading
                // counts.
                world.meter.wants_memory = Some(Reading::Latest);
                let end = world.peers.iter().next_back().map_or(0, |(slot, _)| slot + 1);
                self.phase =
                    if self.asks { HoldPhase::Checking { next: 0, end } } else { HoldPhase::Done };
                if self.asks { self.check(world) } else { Next::Done }
            }
            HoldPhase::Settling { until } | HoldPhase::Holding { until } => {
                earliest([Next::At(until)])
            }
            HoldPhase::Checking { .. } => self.check(world),
            HoldPhase::Done => Next::Done,
        }
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        if !self.asks {
            self.progress = world.now;
        }
        match self.asks {
            true => world.request(slot, 1, world.now),
            // The server may send a greeting.
            false => world.peers[slot as usize].flags.set(PeerFlags::DISCARDS),
        }
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, _goes_on: bool) {
        self.progress = world.now;
        if world.peers[slot as usize].flags.has(PeerFlags::REFUSED) {
            return;
        }
        self.answered[usize::from(matches!(self.phase, HoldPhase::Checking { .. }))] += 1;
    }

    fn ended(&mut self, _world: &mut World<N>, _slot: u32) {}

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        if self.gave_up {
            record.notes.push(
                "the server stopped answering new connections, so no more were opened".into(),
            );
        }
        if self.asks {
            let [once, again] = self.answered;
            record.notes.push(format!(
                "{} connections got an answer after opening, and {} at the end; {} were open then",
                count(once),
                count(again),
                count(world.meter.open)
            ));
        } else if self.scheme == Scheme::Events {
            record.notes.push(format!(
                "{} streams of events began, and {} were open at the end",
                count(world.meter.opened),
                count(world.meter.open)
            ));
        } else {
            record.notes.push(
                "no requests were sent: give --send, or a target with resp:// or http://".into(),
            );
        }
    }
}
