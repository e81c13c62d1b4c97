//! `churn`: connections that open, ask once, are answered, and close; so many at once.

use super::{Next, Shape, earliest};
use crate::clock::{Clock, Time};
use crate::net::Net;
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::plan::Plan;
use crate::stress::world::{Dial, Flags, World};

pub struct Churn {
    dialer: Dialer,
    until: Time,
    /// Connections to open in all, where they bound the run.
    left: Option<u64>,
    drains_until: Time,
}

impl Churn {
    pub fn new(plan: &Plan, now: Time) -> Churn {
        let until = now + plan.duration;
        let first = plan.requests.map_or(plan.connections, |all| (all as usize).min(plan.connections));
        Churn {
            dialer: Dialer::new(0, Dial::default(), first, plan.rate.or(plan.connect_rate), now),
            until,
            left: plan.requests.map(|all| all - first as u64),
            drains_until: until + plan.timeout,
        }
    }

    /// One is gone: another takes its place.
    fn replace<N: Net>(&mut self, world: &World<N>, in_order: bool) {
        match &mut self.left {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        match in_order {
            true => self.dialer.more(),
            false => self.dialer.again(world.now),
        }
    }
}

impl<N: Net> Shape<N> for Churn {
    fn act(&mut self, world: &mut World<N>) -> Next {
        let meter = &mut world.meter;
        if meter.load_began.is_none() {
            meter.load_began = Some(world.now);
            meter.cpu_at_load = Some(Clock::cpu_time());
        }
        let bounded = self.left == Some(0) && self.dialer.left() == 0 && world.peers.is_empty();
        if (world.now >= self.until || bounded) && meter.load_ended.is_none() {
            self.dialer.stop();
            meter.load_ended = Some(world.now);
            meter.answered_in_load = Some(meter.answered);
            meter.cpu_in_load = meter.cpu_at_load.map(|then| Clock::cpu_time().saturating_sub(then));
            meter.wants_memory = Some(Reading::Highest);
        }
        if meter.load_ended.is_some() {
            return match world.peers.is_empty() || world.now >= self.drains_until {
                true => Next::Done,
                false => Next::At(self.drains_until),
            };
        }
        let dialing = self.dialer.act(world, 0);
        earliest([dialing, Next::At(self.until)])
    }

    /// The time of its request counts from the dial: it is the whole use of a connection.
    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        let dialled = world.peers.get(slot as usize).map_or(world.now, |peer| peer.due);
        world.request(slot, 1, dialled);
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32) {
        world.close(slot);
        if world.meter.load_ended.is_none() {
            self.replace(world, true);
        }
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let was_open = world.peers.get(slot as usize).is_some_and(|peer| !peer.flags.has(Flags::CONNECTING));
        if world.meter.load_ended.is_none() {
            self.replace(world, was_open);
        }
    }
}
