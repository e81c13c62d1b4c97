//! `ping`: requests and answers on open connections, in a closed loop or at a fixed rate.
//!
//! In the closed loop, each connection sends its next request after the answer to the last one. At
//! a rate, requests are due by the clock. A request that finds no free connection waits, and its
//! time counts from the moment it was due. So the figures include every request that a stall of the
//! server delayed, not only those in flight (coordinated omission; G. Tene, "How NOT to Measure
//! Latency").

use std::collections::VecDeque;
use std::time::Duration;

use super::Shape;
use crate::clock::Time;
use crate::net::Net;
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::pace::{Arrivals, Next, Pace, earliest};
use crate::stress::plan::Plan;
use crate::stress::record::Record;
use crate::stress::world::{StressDial, World};
use crate::token::{Source, Token};

/// Maximum number of requests sent in one turn at a rate, before the loop polls for answers again.
const REQUESTS_PER_TURN: usize = 1024;

/// The shape `ping`.
pub struct Ping {
    dialer: Dialer,
    connections: u64,
    pipeline: u32,
    rate: Option<f64>,
    arrivals: Arrivals,
    seed: u64,
    duration: Duration,
    /// Requests still to send, if their number ends the run.
    requests_left: Option<u64>,
    timeout: Duration,
    phase: PingPhase,
    /// At a rate: idle connections, the longest idle first, so that all are used. Some may have
    /// ended.
    idle: VecDeque<Token>,
    /// At a rate: requests to send again, with the moments at which they were due.
    repeated: VecDeque<Time>,
    /// Highest number of open connections so far, and when it was reached. If no more open within
    /// the timeout, the load starts with these.
    risen: (u64, Time),
    /// Connections at the start of the load, if fewer than asked for.
    began_with: Option<u64>,
}

enum PingPhase {
    Opening,
    Loading {
        pace: Option<Pace>,
        until: Time,
    },
    /// No more requests are sent. The run waits for outstanding answers, at most until this moment.
    Draining {
        until: Time,
    },
    Done,
}

impl Ping {
    pub fn new(plan: &Plan, now: Time) -> Ping {
        Ping {
            dialer: Dialer::new(0, StressDial::default(), plan.connections, plan.connect_rate, now),
            connections: plan.connections as u64,
            pipeline: plan.pipeline as u32,
            rate: plan.rate,
            arrivals: plan.arrivals,
            seed: plan.seed,
            duration: plan.duration,
            requests_left: plan.requests,
            timeout: plan.timeout,
            phase: PingPhase::Opening,
            idle: VecDeque::new(),
            repeated: VecDeque::new(),
            risen: (0, now),
            began_with: None,
        }
    }

    /// Starts another load at this rate, on the same number of connections; for a search.
    pub fn restart<N: Net>(&mut self, world: &mut World<N>, rate: f64) {
        self.rate = Some(rate);
        let there =
            world.meter.open as usize + world.meter.connecting as usize + self.dialer.left();
        (there..self.connections as usize).for_each(|_| self.dialer.more());
        self.risen = (0, world.now);
        self.phase = PingPhase::Opening;
    }

    /// True if all connections are open, or no more have opened within the timeout.
    fn is_ready<N: Net>(&mut self, world: &World<N>) -> bool {
        let open = world.meter.open;
        if open > self.risen.0 {
            self.risen = (open, world.now);
        }
        if world.now >= self.risen.1 + self.timeout {
            return true;
        }
        let is_settled = self.dialer.left() == 0 || world.meter.failed_in_all() > 0;
        // Before the load, only preludes can be outstanding.
        world.outstanding == 0
            && (open >= self.connections || (world.meter.connecting == 0 && is_settled))
    }

    fn begin<N: Net>(&mut self, world: &mut World<N>) {
        let meter = &mut world.meter;
        meter.begin_load(world.now);
        let pace = self.rate.map(|rate| Pace::new(rate, self.arrivals, self.seed, world.now));
        if world.meter.open < self.connections {
            self.began_with = Some(world.meter.open);
        }
        self.phase = PingPhase::Loading { pace, until: world.now + self.duration };
        self.idle.clear();
        let open = world.peers.iter().filter(|(_, peer)| peer.is_open());
        let slots: Vec<u32> = open.map(|(slot, _)| slot as u32).collect();
        slots.into_iter().for_each(|slot| self.is_free(world, slot));
    }

    /// In the closed loop, sends the next requests on an idle connection.
    fn ask<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let count = match &mut self.requests_left {
            Some(left) => {
                let count = (*left).min(u64::from(self.pipeline));
                *left -= count;
                count as u32
            }
            None => self.pipeline,
        };
        if count > 0 {
            world.request(slot, count, world.now);
        }
    }

    /// Uses an idle connection, or keeps it for the next request that is due.
    fn is_free<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        match self.phase {
            PingPhase::Loading { pace: Some(_), .. } => {
                let generation = world.peers[slot as usize].generation;
                self.idle.push_back(Token::connection(slot, generation));
            }
            PingPhase::Loading { pace: None, .. } => self.ask(world, slot),
            _ => {}
        }
    }

    /// At a rate, sends the requests that are due on idle connections.
    fn send_due<N: Net>(&mut self, world: &mut World<N>) -> Next {
        let PingPhase::Loading { pace: Some(pace), until } = &mut self.phase else {
            return Next::OnEvent;
        };
        for _ in 0..REQUESTS_PER_TURN {
            let is_over = self.requests_left == Some(0) || pace.next() >= *until;
            if self.repeated.is_empty() {
                if is_over {
                    return Next::OnEvent;
                }
                if pace.next() > world.now {
                    return Next::At(pace.next());
                }
            }
            let Some(token) = self.idle.pop_front() else { return Next::OnEvent };
            let Source::Connection { slot, generation } = token.source() else { continue };
            let peer = world.peers.get(slot as usize);
            if peer.is_some_and(|peer| peer.generation.get() == generation && peer.is_open()) {
                if let Some(due) = self.repeated.pop_front() {
                    world.request(slot, 1, due);
                    continue;
                }
                world.request(slot, 1, pace.take());
                self.requests_left = self.requests_left.map(|left| left - 1);
            }
        }
        Next::At(world.now)
    }

    fn end_load<N: Net>(&mut self, world: &mut World<N>) {
        if let PingPhase::Loading { pace: Some(pace), until } = &self.phase {
            let end = (*until).min(world.now);
            let unsent = pace.due_before(end).min(self.requests_left.unwrap_or(u64::MAX));
            world.meter.charge_unsent(pace.next(), end, unsent, world.now);
        }
        let meter = &mut world.meter;
        meter.wants_memory = Some(Reading::Highest);
        meter.end_load(world.now);
        self.phase = PingPhase::Draining { until: world.now + self.timeout };
    }

    /// Counts the requests that are unanswered at the end, with their wait so far.
    fn give_up<N: Net>(&mut self, world: &mut World<N>) {
        let waiting = world.peers.iter().filter(|(_, peer)| peer.outstanding > 0 && peer.is_open());
        let slots: Vec<u32> = waiting.map(|(slot, _)| slot as u32).collect();
        let mut unanswered = 0;
        for slot in slots {
            let peer = &world.peers[slot as usize];
            unanswered += u64::from(peer.outstanding);
            world.meter.latency.record(world.now.since(peer.due), u64::from(peer.outstanding));
            // A late answer must not count as that of a later request.
            world.close(slot);
        }
        for due in std::mem::take(&mut self.repeated) {
            world.meter.sent += 1;
            world.meter.latency.record(world.now.since(due), 1);
            unanswered += 1;
        }
        world.meter.error("unanswered at the end", unanswered);
    }
}

impl<N: Net> Shape<N> for Ping {
    fn act(&mut self, world: &mut World<N>) -> Next {
        let dialing = self.dialer.act(world, 0);
        match &self.phase {
            PingPhase::Opening => {
                if !self.is_ready(world) {
                    return earliest([dialing, Next::At(self.risen.1 + self.timeout)]);
                }
                if world.meter.opened == 0 {
                    self.phase = PingPhase::Done;
                    return Next::Done;
                }
                self.begin(world);
                Next::At(world.now)
            }
            PingPhase::Loading { until, .. } => {
                let until = *until;
                // A request that is due before the end leaves although this turn may be late.
                let sending = self.send_due(world);
                let is_asked = self.requests_left == Some(0)
                    && world.outstanding == 0
                    && self.repeated.is_empty();
                if world.now >= until || is_asked {
                    self.end_load(world);
                    return Next::At(world.now);
                }
                earliest([sending, dialing, Next::At(until)])
            }
            PingPhase::Draining { until } => {
                let until = *until;
                if world.now >= until || world.outstanding == 0 {
                    self.give_up(world);
                    self.phase = PingPhase::Done;
                    return Next::Done;
                }
                Next::At(until)
            }
            PingPhase::Done => Next::Done,
        }
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        self.is_free(world, slot);
    }

    fn repeats(&mut self, count: u32, due: Time) -> bool {
        let PingPhase::Loading { pace, .. } = &self.phase else {
            // After the load nothing is sent again, and the server has not seen these requests.
            return matches!(self.phase, PingPhase::Draining { .. });
        };
        match pace {
            Some(_) => self.repeated.extend((0..count).map(|_| due)),
            // A connection sends the next requests when it is open, and so sends these.
            None => {
                let left = &mut self.requests_left;
                *left = left.map(|left| left + u64::from(count));
            }
        }
        true
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, goes_on: bool) {
        if goes_on {
            self.is_free(world, slot);
        }
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        if matches!(self.phase, PingPhase::Opening | PingPhase::Loading { .. }) {
            self.dialer.replace(world, slot);
        }
    }

    fn stop(&mut self, world: &mut World<N>) {
        if matches!(self.phase, PingPhase::Loading { .. }) {
            self.end_load(world);
        }
        if matches!(self.phase, PingPhase::Draining { .. }) {
            self.give_up(world);
        }
    }

    fn finish(&mut self, _world: &mut World<N>, record: &mut Record) {
        if let Some(open) = self.began_with {
            let asked = self.connections;
            record.notes.push(format!(
                "the load began with {open} of {asked} connections, because no more opened"
            ));
        }
    }
}
