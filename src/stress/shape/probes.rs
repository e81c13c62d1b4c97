//! Honest requests beside a flood: due by the clock, each on a connection of its own, each accounted to the phase in which it was due.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::clock::Time;
use crate::net::Net;
use crate::stress::meter::Times;
use crate::stress::pace::{Arrivals, Next, Pace};
use crate::stress::plan::{PROBES_IN_FLIGHT_MAX, PROBES_PER_TURN, Plan};
use crate::stress::record::{Probe, Record};
use crate::stress::world::{Dial, PeerFlags, World};

/// The role of their connections.
pub const PROBE: u8 = 1;

/// Honest clients come from as many addresses as this, in 127.2.0.0/16, where the attackers' can be told apart.
const SOURCES: u32 = 4096;

pub const PHASES: [&str; 3] = ["before", "during", "after"];

pub struct Probes {
    rate: f64,
    pace: Pace,
    /// None: no more are due.
    phase: Option<usize>,
    /// Those on their way, by slot: when each was due, and in which phase.
    waiting: BTreeMap<u32, (Time, usize)>,
    sent: [u64; 3],
    answered: [u64; 3],
    times: [Times; 3],
    from_many_sources: bool,
    number: u32,
    /// They were due, and too many were on their way.
    left_out: u64,
    /// They were due, and this machine had no file or port left.
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

    /// From now on they belong to another phase, in which they are due from now on.
    pub fn enter(&mut self, phase: usize, now: Time) {
        self.phase = Some(phase);
        self.pace = Pace::new(self.rate, Arrivals::Even, 0, now);
    }

    /// No more are due; those on their way may still be answered.
    pub fn stop(&mut self) {
        self.phase = None;
    }

    /// Whether all that were sent are answered or have failed.
    pub fn are_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Dials those that are due.
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

    /// One honest client, from an address of its own.
    fn dial<N: Net>(&mut self, world: &mut World<N>, phase: usize, due: Time) {
        let mut how = Dial::default();
        if self.from_many_sources {
            self.number = (self.number + 1) % SOURCES;
            how.source = Some(IpAddr::V4(Ipv4Addr::from(0x7f02_0001 + self.number)));
        }
        let exhausted = world.exhausted.take();
        let slot = world.dial(PROBE, how);
        if world.exhausted.is_some() {
            // For want of files or ports here: that says nothing about the server.
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

    /// Its connection is established, and let in.
    pub fn opened<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let due = self.waiting.get(&slot).map_or(world.now, |(due, _)| *due);
        world.request(slot, 1, due);
    }

    /// It has its answer. To be refused is not to be served.
    pub fn answered<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let is_refused = world.peers.get(slot as usize).is_some_and(|peer| peer.flags.has(PeerFlags::REFUSED));
        if let Some((due, phase)) = self.waiting.remove(&slot) {
            self.answered[phase] += u64::from(!is_refused);
            self.times[phase].record(world.now.since(due), 1);
        }
        world.close(slot);
    }

    /// It failed, or waited longer than the timeout: so long at least it would have taken.
    pub fn failed(&mut self, slot: u32, now: Time) {
        if let Some((due, phase)) = self.waiting.remove(&slot) {
            self.times[phase].record(now.since(due), 1);
        }
    }

    pub fn finish(&mut self, record: &mut Record, timeout: Duration, now: Time) {
        for (due, phase) in std::mem::take(&mut self.waiting).into_values() {
            // Nobody is charged with what an interrupt cut short.
            match record.interrupted {
                true => self.sent[phase] -= 1,
                false => self.times[phase].record(now.since(due), 1),
            }
        }
        if self.answered[0] < self.sent[0] {
            let note =
                "honest requests failed or were refused before the flood began: how they fare beside it says little";
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
                "{} honest requests were due and not sent: {PROBES_IN_FLIGHT_MAX} were on their way already, none longer than {timeout:?}",
                self.left_out
            ));
        }
        if self.not_dialled > 0 {
            record.notes.push(format!(
                "{} honest requests were due and not sent: this machine had no file or local port left for them",
                self.not_dialled
            ));
        }
    }
}
