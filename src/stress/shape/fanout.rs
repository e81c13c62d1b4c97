//! `fanout`: N subscribers of one channel, M messages published to it; whether each arrived, in order, and when.

use std::time::Duration;

use super::{Next, Shape, earliest};
use crate::clock::{Clock, Time};
use crate::net::Net;
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::pace::Pace;
use crate::stress::plan::Plan;
use crate::stress::record::{Delivery, Record};
use crate::stress::wire::{command, payload};
use crate::stress::world::{Dial, Flags, World};

const SUBSCRIBER: u8 = 0;
const PUBLISHER: u8 = 1;

/// A message begins with this, its number and the time when it was due, both of 16 hexadecimal digits.
const MARK: &[u8] = b"slabd:";
const HEAD: usize = MARK.len() + 2 * 16;

pub struct Fanout {
    plan: Plan,
    subscribers: Dialer,
    publisher: Dialer,
    subscribe: Vec<u8>,
    /// The slot of the publisher, once it is let in.
    publishes: Option<u32>,
    padding: Vec<u8>,
    pace: Option<Pace>,
    subscribed: u64,
    published: u64,
    delivery: Delivery,
    /// When the last message arrived.
    progress: Time,
}

impl Fanout {
    pub fn new(plan: &Plan, now: Time) -> Fanout {
        Fanout {
            subscribers: Dialer::once(SUBSCRIBER, Dial::default(), plan.connections, plan.connect_rate, now),
            publisher: Dialer::once(PUBLISHER, Dial::default(), 1, None, now),
            subscribe: command(&[b"SUBSCRIBE", plan.channel.as_bytes()]),
            publishes: None,
            padding: payload(plan.size.saturating_sub(HEAD).max(1)),
            pace: None,
            subscribed: 0,
            published: 0,
            delivery: Delivery::default(),
            progress: now,
            plan: plan.clone(),
        }
    }

    fn begin<N: Net>(&mut self, world: &mut World<N>) {
        let meter = &mut world.meter;
        meter.load_began = Some(world.now);
        meter.cpu_at_load = Some(Clock::cpu_time());
        meter.answered_before_load = meter.answered;
        meter.wants_memory = Some(Reading::Highest);
        self.pace = self.plan.rate.map(|rate| Pace::new(rate, self.plan.arrivals, self.plan.seed, world.now));
        self.progress = world.now;
    }

    fn publish<N: Net>(&mut self, world: &mut World<N>, publisher: u32, due: Time) {
        self.published += 1;
        self.delivery.expected += self.subscribed;
        let mut text = MARK.to_vec();
        text.extend_from_slice(format!("{:016x}{:016x}", self.published, due.as_nanos()).as_bytes());
        text.extend_from_slice(&self.padding);
        world.send(publisher, &command(&[b"PUBLISH", self.plan.channel.as_bytes(), &text]), 1, due);
    }

    /// What may be on its way goes out.
    fn publish_due<N: Net>(&mut self, world: &mut World<N>, publisher: u32) -> Next {
        while self.published < self.plan.messages {
            let arrived = self.delivery.delivered / self.subscribed.max(1);
            let due = match &mut self.pace {
                Some(pace) if pace.next() > world.now => return Next::At(pace.next()),
                Some(pace) => pace.take(),
                None if self.published >= arrived + self.plan.in_flight as u64 => break,
                None => world.now,
            };
            self.publish(world, publisher, due);
        }
        Next::OnEvent
    }

    fn is_complete(&self) -> bool {
        self.published >= self.plan.messages && self.delivery.delivered >= self.delivery.expected
    }

    fn end<N: Net>(&mut self, world: &mut World<N>) -> Next {
        let meter = &mut world.meter;
        meter.load_ended = Some(self.progress);
        meter.cpu_in_load = meter.cpu_at_load.map(|then| Clock::cpu_time().saturating_sub(then));
        Next::Done
    }
}

impl<N: Net> Shape<N> for Fanout {
    fn act(&mut self, world: &mut World<N>) -> Next {
        let waiting = world.meter.open.saturating_sub(self.subscribed);
        let dialing = self.subscribers.act(world, waiting);
        if world.meter.load_began.is_none() {
            let settled = self.subscribers.left() == 0 && world.meter.connecting == 0;
            if settled && world.meter.open == 0 && self.publishes.is_none() && self.publisher.left() == 1 {
                return Next::Done;
            }
            if settled && waiting == 0 {
                self.publisher.act(world, 0);
            }
            let Some(_) = self.publishes else {
                let is_refused = settled && self.publisher.left() == 0 && world.meter.connecting == 0 && waiting == 0;
                return if is_refused && world.outstanding == 0 { Next::Done } else { dialing };
            };
            self.begin(world);
        }
        let Some(publisher) = self.publishes else { return self.end(world) };
        let publishing = self.publish_due(world, publisher);
        let gives_up = self.progress + self.plan.timeout;
        if self.is_complete() || world.now >= gives_up {
            return self.end(world);
        }
        earliest([publishing, Next::At(gives_up)])
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        match world.peers[slot as usize].role {
            SUBSCRIBER => {
                world.peers[slot as usize].flags.set(Flags::LISTENS);
                let now = world.now;
                world.send(slot, &self.subscribe, 0, now);
            }
            _ => self.publishes = Some(slot),
        }
    }

    fn message(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        if is_error {
            world.meter.refused(message);
            return true;
        }
        let peer = &mut world.peers[slot as usize];
        let Some(at) = memchr::memmem::find(message, MARK) else {
            // The confirmation that it is subscribed.
            self.subscribed += 1;
            return true;
        };
        let number = |from: usize| {
            let digits = message.get(at + from..at + from + 16)?;
            u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (Some(serial), Some(due)) = (number(MARK.len()), number(MARK.len() + 16)) else {
            world.meter.error("wrong answer", 1);
            return true;
        };
        if serial as u32 <= peer.serial {
            self.delivery.out_of_order += 1;
        } else {
            peer.serial = serial as u32;
        }
        self.delivery.delivered += 1;
        self.progress = world.now;
        world.meter.delivery_latency.record(world.now.since(Time::from_nanos(due)), 1);
        true
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &world.peers[slot as usize];
        if peer.role == PUBLISHER {
            self.publishes = None;
        } else if peer.flags.has(Flags::LISTENS) {
            // What it was sent and did not get is lost; what is published from now on is not for it.
            self.subscribed = self.subscribed.saturating_sub(1);
        }
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        let meter = &mut world.meter;
        let load = meter.load_ended.zip(meter.load_began).map_or(Duration::ZERO, |(end, start)| end.since(start));
        self.delivery.subscribers = self.subscribed;
        self.delivery.published = self.published;
        self.delivery.lost = self.delivery.expected.saturating_sub(self.delivery.delivered);
        self.delivery.latency = meter.delivery_latency.summary(true);
        if !load.is_zero() {
            let each = self.delivery.delivered as f64 / load.as_secs_f64();
            record.notes.push(format!("{each:.0} deliveries a second"));
        }
        if self.published < self.plan.messages {
            let left = self.plan.messages - self.published;
            record.notes.push(format!("{left} messages were not published: the run ended before"));
        }
        record.delivery = Some(self.delivery.clone());
    }
}
