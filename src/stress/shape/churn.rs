//! `churn`: keeps a number of connections open. Each sends one request, and a new one replaces it.

use super::Shape;
use crate::clock::Time;
use crate::net::Net;
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::pace::{Next, earliest};
use crate::stress::plan::Plan;
use crate::stress::world::{PeerFlags, StressDial, World};

/// The shape `churn`.
pub struct Churn {
    dialer: Dialer,
    until: Time,
    /// Connections still to open, if their number ends the run.
    left: Option<u64>,
    drains_until: Time,
    /// True if connects are due by the clock.
    is_paced: bool,
}

impl Churn {
    pub fn new(plan: &Plan, now: Time) -> Churn {
        let until = now + plan.duration;
        let first =
            plan.requests.map_or(plan.connections, |all| (all as usize).min(plan.connections));
        Churn {
            dialer: Dialer::new(
                0,
                StressDial::default(),
                first,
                plan.rate.or(plan.connect_rate),
                now,
            ),
            until,
            left: plan.requests.map(|all| all - first as u64),
            drains_until: until + plan.timeout,
            is_paced: plan.rate.is_some(),
        }
    }

    fn end_load<N: Net>(&mut self, world: &mut World<N>) {
        if self.is_paced && self.left.is_none() {
            let end = self.until.min(world.now);
            if let Some((first, unsent)) = self.dialer.due_before(end) {
                world.meter.charge_unsent(first, end, unsent, world.now);
            }
        }
        self.dialer.stop();
        let meter = &mut world.meter;
        meter.end_load(world.now);
        meter.wants_memory = Some(Reading::Highest);
    }

    /// Dials a connection in place of one that has ended, unless the number of requests is used up.
    fn replace<N: Net>(&mut self, world: &World<N>, was_open: bool) {
        match &mut self.left {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        match was_open {
            true => self.dialer.more(),
            false => self.dialer.again(world.now),
        }
    }
}

impl<N: Net> Shape<N> for Churn {
    fn act(&mut self, world: &mut World<N>) -> Next {
        let meter = &mut world.meter;
        if meter.load_began.is_none() {
            meter.begin_load(world.now);
        }
        // The slab keeps closed connections until the end of the turn; the meter does not.
        let is_empty = meter.open + meter.connecting == 0;
        let bounded = self.left == Some(0) && self.dialer.left() == 0 && is_empty;
        if (world.now >= self.until || bounded) && meter.load_ended.is_none() {
            self.end_load(world);
        }
        if world.meter.load_ended.is_some() {
            return match is_empty || world.now >= self.drains_until {
                true => Next::Done,
                false => Next::At(self.drains_until),
            };
        }
        let dialing = self.dialer.act(world, 0);
        earliest([dialing, Next::At(self.until)])
    }

    /// Sends the request. Its time counts from the moment at which the dial was due, because the
    /// connect belongs to it.
    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        let due = world.peers.get(slot as usize).map_or(world.now, |peer| peer.due);
        world.request(slot, 1, due);
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, _goes_on: bool) {
        world.leave(slot);
        if world.meter.load_ended.is_none() {
            self.replace(world, true);
        }
    }

    fn stop(&mut self, world: &mut World<N>) {
        if world.meter.load_ended.is_none() {
            self.end_load(world);
        }
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let was_open = world
            .peers
            .get(slot as usize)
            .is_some_and(|peer| !peer.flags.has(PeerFlags::CONNECTING));
        if world.meter.load_ended.is_none() {
            self.replace(world, was_open);
        }
    }
}
