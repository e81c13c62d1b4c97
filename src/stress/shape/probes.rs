//! Honest requests beside a flood. Each is due by the clock, opens a connection, and counts for the
//! phase of the flood in which it was due.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::clock::Time;
use crate::net::Net;
use crate::stress::meter::Times;
use crate::stress::pace::{Arrivals, Next, Pace};
use crate::stress::plan::{PROBES_IN_FLIGHT_MAX, PROBES_PER_TURN, Plan};
use crate::stress::record::{Probe, Record};
use crate::stress::world::{PeerFlags, StressDial, World};

/// The role of honest connections.
pub const PROBE: u8 = 1;

/// Number of addresses of honest clients, in 127.2.0.0/16. The attackers use other networks.
const SOURCES: u32 = 4096;

/// Names of the phases of a flood.
pub const PHASES: [&str; 3] = ["before", "during", "after"];

/// The honest requests of one run.
pub struct Probes {
    rate: f64,
    pace: Pace,
    /// Phase of the flood; `None` if no more requests are due.
    phase: Option<usize>,
    /// Requests in flight by slot: the moment each was due, and its phase.
    waiting: BTreeMap<u32, (Time, usize)>,
    sent: [u64; 3],
    answered: [u64; 3],
    times: [Times; 3],
    from_many_sources: bool,
    number: u32,
    /// Requests not sent because too many were in flight.
    left_out: u64,
    /// Requests not sent because this machine had no file or port left.
    not_dialled: u64,
}

impl Probes {
    pub fn new(plan: &Plan, now: Time) -> Probes {
        Probes {
            rate: plan.probe_rate,
            pace: Pace::new(plan.probe_rate, Arrivals::Even, plan.seed, now),
            phase: Some(0),
            waiting: BTreeMap::new(),
            sent: [0; 3],
            answered: [0; 3],
            times: [Times::new(), Times::new(), Times::new()],
            from_many_sources: plan.sources.len() > 1
                && plan.target.address.is_ipv4()
                && plan.target.address.ip().is_loopback(),
            number: 0,
            left_out: 0,
            not_dialled: 0,
        }
    }

    /// Enters a phase. Its first request is due now.
    pub fn enter(&mut self, phase: usize, now: Time) {
        self.phase = Some(phase);
        self.pace = Pace::new(self.rate, Arrivals::Even, 0, now);
    }

    /// Sends no more requests. Those in flight may still be answered.
    pub fn stop(&mut self) {
        self.phase = None;
    }

    /// True if no request is in flight.
    pub fn are_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Dials the connections of the requests that are due.
    pub fn act<N: Net>(&mut self, world: &mut World<N>) -> Next {
        let Some(phase) = self.phase else { return Next::OnEvent };
        let mut dialled = 0;
        while self.pace.next() <= world.now {
            if dialled == PROBES_PER_TURN {
                return Next::At(world.now);
            }
            let due = self.pace.take();
            if self.waiting.len() >= PROBES_IN_FLIGHT_MAX {
                self.left_out += 1;
                continue;
            }
            dialled += 1;
            self.dial(world, phase, due);
        }
        Next::At(self.pace.next())
    }

    /// Dials for one honest client, from the next address.
    fn dial<N: Net>(&mut self, world: &mut World<N>, phase: usize, due: Time) {
        let mut how = StressDial::default();
        if self.from_many_sources {
            self.number = (self.number + 1) % SOURCES;
            how.source = Some(IpAddr::V4(Ipv4Addr::from(0x7f02_0001 + self.number)));
        }
        let exhausted = world.exhausted.take();
        let slot = world.dial(PROBE, how);
        if world.exhausted.is_some() {
            // This machine has no file or port left. The server is not to blame.
            self.not_dialled += 1;
            return;
        }
        world.exhausted = exhausted;
        self.sent[phase] += 1;
        match slot {
            Some(slot) => drop(self.waiting.insert(slot, (due, phase))),
            None => self.times[phase].record(world.now.since(due), 1),
        }
    }

    /// Sends the request on its open connection.
    pub fn opened<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let due = self.waiting.get(&slot).map_or(world.now, |(due, _)| *due);
        world.request(slot, 1, due);
    }

    /// Takes the answer and closes the connection. An error reply is no answer, and has no time.
    pub fn answered<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let is_refused =
            world.peers.get(slot as usize).is_some_and(|peer| peer.flags.has(PeerFlags::REFUSED));
        if let Some((due, phase)) = self.waiting.remove(&slot)
            && !is_refused
        {
            self.answered[phase] += 1;
            self.times[phase].record(world.now.since(due), 1);
        }
        world.leave(slot);
    }

    /// Counts a failed request with its wait so far.
    pub fn failed(&mut self, slot: u32, now: Time) {
        if let Some((due, phase)) = self.waiting.remove(&slot) {
            self.times[phase].record(now.since(due), 1);
        }
    }

    /// Adds the three phases to the record.
    pub fn finish(&mut self, record: &mut Record, timeout: Duration, now: Time) {
        for (due, phase) in std::mem::take(&mut self.waiting).into_values() {
            // An interrupt cuts requests short; the server is not to blame.
            match record.interrupted {
                true => self.sent[phase] -= 1,
                false => self.times[phase].record(now.since(due), 1),
            }
        }
        if self.answered[0] < self.sent[0] {
            let note = "honest requests failed before the flood began, so failures during the \
                flood prove little";
            record.notes.push(note.into());
        }
        for (phase, name) in PHASES.iter().enumerate() {
            record.probes.push(Probe {
                phase: name.to_string(),
                sent: self.sent[phase],
                answered: self.answered[phase],
                latency: self.times[phase].summary(true),
            });
        }
        if self.left_out > 0 {
            record.notes.push(format!(
                "{} honest requests were not sent when due, because {PROBES_IN_FLIGHT_MAX} were in \
                 flight, each for at most {timeout:?}",
                self.left_out
            ));
        }
        if self.not_dialled > 0 {
            record.notes.push(format!(
                "{} honest requests were not sent when due, because this machine had no file or \
                 local port left",
                self.not_dialled
            ));
        }
    }
}
