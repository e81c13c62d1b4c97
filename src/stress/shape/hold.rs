//! `hold`: opens so many connections, asks once on each, keeps them, and asks each again at the end.

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
use crate::stress::world::{Dial, PeerFlags, World};

/// From the last answer until the server's memory is read: what it lets go of after traffic is gone by then.
const SETTLE: Duration = Duration::from_secs(1);

/// Connections asked at once at the end.
const CHECKS_AT_ONCE: u64 = 100;

pub struct Hold {
    dialer: Dialer,
    /// Whether there is anything to say: over plain TCP only when it was given.
    asks: bool,
    duration: Duration,
    phase: HoldPhase,
    /// Answered once, and again at the end.
    answered: [u64; 2],
    /// When the last answer came, or the last connection was opened where nothing is asked.
    progress: Time,
    /// Without any progress for so long, no more are opened.
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
    /// Slots up to `end` are asked, from `next` on.
    Checking {
        next: usize,
        end: usize,
    },
    Done,
}

impl Hold {
    pub fn new(plan: &Plan, now: Time) -> Hold {
        let asks = plan.target.scheme != Scheme::Tcp || plan.send.is_some();
        let rate = plan.connect_rate.or((!asks).then_some(UNANSWERED_RATE));
        Hold {
            dialer: Dialer::once(0, Dial::default(), plan.connections, rate, now),
            asks,
            duration: plan.duration,
            phase: HoldPhase::Opening,
            answered: [0; 2],
            progress: now,
            patience: plan.timeout * 2,
            gave_up: false,
        }
    }

    /// Asks the connections that are still there, some at a time.
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
                // Again: some servers take seconds to let go of what traffic cost them.
                world.meter.wants_memory = Some(Reading::Latest);
                // Slots of connections that have ended are empty.
                let end = world.peers.iter().next_back().map_or(0, |(slot, _)| slot + 1);
                self.phase = if self.asks { HoldPhase::Checking { next: 0, end } } else { HoldPhase::Done };
                if self.asks { self.check(world) } else { Next::Done }
            }
            HoldPhase::Settling { until } | HoldPhase::Holding { until } => earliest([Next::At(until)]),
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
            // It may greet: that is no answer, and no wrong one.
            false => world.peers[slot as usize].flags.set(PeerFlags::DISCARDS),
        }
    }

    fn answered(&mut self, world: &mut World<N>, _slot: u32, _goes_on: bool) {
        self.progress = world.now;
        self.answered[usize::from(matches!(self.phase, HoldPhase::Checking { .. }))] += 1;
    }

    fn ended(&mut self, _world: &mut World<N>, _slot: u32) {}

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        if self.gave_up {
            record.notes.push("no more connections were opened when for long none had been answered".into());
        }
        if self.asks {
            let [once, again] = self.answered;
            record.notes.push(format!(
                "{} connections were answered when they had opened, and {} again at the end; {} were open then",
                count(once),
                count(again),
                count(world.meter.open)
            ));
        } else {
            record.notes.push("nothing was said on the connections: give --send, or a scheme that has requests".into());
        }
    }
}
