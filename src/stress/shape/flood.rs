//! Floods: peers that hold connections without using them, or spoil them; and beside them honest requests, before, during and after.
//!
//! Each attacker is replaced when the server gets rid of it, so the pressure stays for as long as the flood lasts.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Next, Shape, earliest};
use crate::clock::{Clock, Time};
use crate::net::Net;
use crate::stress::dialer::Dialer;
use crate::stress::meter::{Reading, Times};
use crate::stress::pace::{Arrivals, Pace};
use crate::stress::plan::{Plan, ShapeName};
use crate::stress::record::{Probe, Record};
use crate::stress::target::Scheme;
use crate::stress::world::{Dial, Flags, World};

const ATTACKER: u8 = 0;
const PROBE: u8 = 1;

/// How long is probed before and after the flood.
pub const BEFORE: Duration = Duration::from_secs(2);
pub const AFTER: Duration = Duration::from_secs(5);

/// The server's memory is read exactly this often while the flood is on.
const PEAK_EVERY: Duration = Duration::from_secs(1);

/// Honest clients come from as many addresses as this, in 127.2.0.0/16, where the attackers' can be told apart.
const HONEST_SOURCES: u32 = 4096;

/// The smallest receive buffer of Linux (socket(7)): after that much, the server's window is closed.
const TINY_BUFFER: usize = 2304;

/// Requests that a peer sends which does not read the answers, or not fast.
const UNREAD_REQUESTS: u32 = 64;

/// Bytes that a slow reader reads at a time.
const SIP: usize = 16;

const PHASES: [&str; 3] = ["before", "during", "after"];

pub struct Flood {
    kind: ShapeName,
    plan: Plan,
    began: Time,
    attackers: Dialer,
    probes: Pace,
    probe: Dial,
    honest_sources: bool,
    number: u32,
    /// Index into `PHASES`.
    phase: usize,
    phase_ends: Time,
    peak_due: Time,
    sent: [u64; 3],
    answered: [u64; 3],
    times: [Times; 3],
    /// What an attacker says, whole.
    bait: Vec<u8>,
    vanished: u64,
    cannot_vanish: Option<String>,
    flood_ended: Option<Time>,
}

impl Flood {
    pub fn new(plan: &Plan, kind: ShapeName, now: Time) -> Flood {
        let unread = matches!(kind, ShapeName::SlowRead | ShapeName::ZeroWindow);
        let dial = Dial { unread, receive_buffer: if unread { TINY_BUFFER } else { 0 }, ..Dial::default() };
        Flood {
            kind,
            began: now,
            attackers: Dialer::new(ATTACKER, dial, 0, plan.connect_rate, now),
            probes: Pace::new(plan.probe_rate, Arrivals::Even, plan.seed, now),
            probe: Dial::default(),
            honest_sources: plan.sources.len() > 1 && plan.target.address.is_ipv4() && plan.target.is_loopback(),
            number: 0,
            phase: 0,
            phase_ends: now + BEFORE,
            peak_due: now,
            sent: [0; 3],
            answered: [0; 3],
            times: [Times::new(), Times::new(), Times::new()],
            bait: bait(kind, plan),
            vanished: 0,
            cannot_vanish: None,
            flood_ended: None,
            plan: plan.clone(),
        }
    }

    /// The next phase begins; false behind the last.
    fn next_phase<N: Net>(&mut self, world: &mut World<N>) -> bool {
        self.phase += 1;
        match self.phase {
            1 => {
                world.meter.load_began = Some(world.now);
                world.meter.cpu_at_load = Some(Clock::cpu_time());
                (0..self.plan.connections).for_each(|_| self.attackers.more());
                self.phase_ends = world.now + self.plan.duration;
                self.peak_due = world.now + PEAK_EVERY;
            }
            2 => {
                world.meter.load_ended = Some(world.now);
                world.meter.cpu_in_load = world.meter.cpu_at_load.map(|then| Clock::cpu_time().saturating_sub(then));
                self.attackers.stop();
                self.flood_ended = Some(world.now);
                let attackers = world.peers.iter().filter(|(_, peer)| peer.role == ATTACKER);
                let slots: Vec<u32> = attackers.map(|(slot, _)| slot as u32).collect();
                slots.into_iter().for_each(|slot| world.reset(slot));
                self.phase_ends = world.now + AFTER;
            }
            _ => return false,
        }
        true
    }

    /// Honest clients that are due: each on a connection of its own, from an address of its own.
    fn probe_due<N: Net>(&mut self, world: &mut World<N>) -> Next {
        while self.probes.next() <= world.now {
            let due = self.probes.take();
            if self.honest_sources {
                self.number = (self.number + 1) % HONEST_SOURCES;
                self.probe.source = Some(IpAddr::V4(Ipv4Addr::from(0x7f02_0001 + self.number)));
            }
            self.sent[self.phase.min(2)] += 1;
            if let Some(slot) = world.dial(PROBE, self.probe) {
                let peer = &mut world.peers[slot as usize];
                peer.serial = self.phase as u32;
                peer.due = due;
            }
        }
        Next::At(self.probes.next())
    }

    /// What an attacker does once it is connected.
    fn attack<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let now = world.now;
        match self.kind {
            ShapeName::Slowloris => {
                world.send(slot, &self.bait[..1], 0, now);
                world.peers[slot as usize].serial = 1;
                world.wake(slot, self.plan.drip);
            }
            ShapeName::Announce => {
                world.send(slot, &self.bait, 0, now);
                world.wake(slot, self.plan.drip);
            }
            ShapeName::SlowRead | ShapeName::ZeroWindow => {
                world.send(slot, &self.bait, 0, now);
                if self.kind == ShapeName::SlowRead {
                    world.wake(slot, self.plan.drip);
                }
            }
            ShapeName::Rst => {
                world.send(slot, &self.bait, 0, now);
                // The request leaves with this turn; then it is gone.
                world.wake(slot, Duration::ZERO);
            }
            ShapeName::Vanish => {
                // Every second one leaves behind data that nobody will acknowledge: keepalive does not end those.
                world.send(slot, &self.bait, 0, now);
                if slot.is_multiple_of(2) {
                    self.vanish(world, slot);
                } else {
                    world.wake(slot, Duration::from_millis(200));
                }
            }
            _ => {}
        }
    }

    fn vanish<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        match world.net.deafen(&world.peers[slot as usize].stream) {
            Ok(()) => self.vanished += 1,
            Err(error) => self.cannot_vanish = Some(error.to_string()),
        }
    }
}

/// What an attacker says to begin with.
fn bait(kind: ShapeName, plan: &Plan) -> Vec<u8> {
    let wire = crate::stress::wire::Wire::new(&plan.target, plan.size, 1, plan.send.as_deref());
    match (kind, plan.target.scheme) {
        (ShapeName::SlowRead | ShapeName::ZeroWindow, _) => wire.request().repeat(UNREAD_REQUESTS as usize),
        (ShapeName::Announce, Scheme::Http) => {
            let (path, host) = (&plan.target.path, &plan.target.host);
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1073741824\r\n\r\n").into_bytes()
        }
        // 512 MiB less one byte: as much as Redis lets one string be (proto-max-bulk-len).
        (ShapeName::Announce, _) => b"*2\r\n$4\r\nECHO\r\n$536870911\r\n".to_vec(),
        _ => wire.request().to_vec(),
    }
}

impl<N: Net> Shape<N> for Flood {
    fn act(&mut self, world: &mut World<N>) -> Next {
        if world.now >= self.phase_ends && !self.next_phase(world) {
            return Next::Done;
        }
        if self.phase == 1 && world.now >= self.peak_due {
            world.meter.wants_memory = Some(Reading::Highest);
            self.peak_due = world.now + PEAK_EVERY;
        }
        let dialing = self.attackers.act(world, 0);
        earliest([self.probe_due(world), dialing, Next::At(self.phase_ends)])
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &mut world.peers[slot as usize];
        match peer.role {
            PROBE => {
                let due = peer.due;
                world.request(slot, 1, due);
            }
            _ => {
                peer.flags.set(Flags::DISCARDS);
                self.attack(world, slot);
            }
        }
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, _goes_on: bool) {
        let peer = &world.peers[slot as usize];
        if peer.role == PROBE {
            let phase = peer.serial as usize % PHASES.len();
            self.answered[phase] += 1;
            self.times[phase].record(world.now.since(peer.due), 1);
            world.close(slot);
        }
    }

    fn woken(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &mut world.peers[slot as usize];
        let now = world.now;
        match self.kind {
            ShapeName::Slowloris => {
                // All but the end of the request, over and over, is never a whole one.
                let at = (peer.serial as usize).min(self.bait.len().saturating_sub(2));
                peer.serial += 1;
                world.send(slot, &self.bait[at..=at], 0, now);
                world.wake(slot, self.plan.drip);
            }
            ShapeName::Announce => {
                world.send(slot, b"x", 0, now);
                world.wake(slot, self.plan.drip);
            }
            ShapeName::SlowRead => {
                let _ = world.read_some(slot, SIP);
                world.wake(slot, self.plan.drip);
            }
            ShapeName::Rst => {
                world.reset(slot);
                self.attackers.more();
            }
            ShapeName::Vanish => self.vanish(world, slot),
            _ => {}
        }
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &world.peers[slot as usize];
        if peer.role == ATTACKER && self.phase == 1 {
            match peer.flags.has(Flags::CONNECTING) {
                true => self.attackers.again(world.now),
                false => self.attackers.more(),
            }
        }
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        for (phase, name) in PHASES.iter().enumerate() {
            record.probes.push(Probe {
                phase: name.to_string(),
                sent: self.sent[phase],
                answered: self.answered[phase],
                latency: self.times[phase].summary(true),
            });
        }
        record.latency = None;
        record.requests.rate = 0.0;
        let unanswered = record.probes.last().map_or(0, |after| after.sent - after.answered);
        let on_their_way = world.peers.iter().filter(|(_, peer)| peer.role == PROBE).count() as u64;
        // The last ones had no time to be answered.
        if let Some(after) = record.probes.last_mut() {
            after.sent -= unanswered.min(on_their_way);
        }
        let (Some(ended), Some(server)) = (self.flood_ended, &record.server) else { return };
        let ended_s = ended.since(self.began).as_secs_f64();
        let back = server.rss_before + server.rss_before / 10;
        let after = record
            .samples
            .iter()
            .find(|sample| sample.t_s >= ended_s && sample.server_rss.is_some_and(|rss| rss <= back));
        record.reclaim_s = after.map(|sample| sample.t_s - ended_s);
        if record.reclaim_s.is_none() {
            let megabytes = server.rss_at_end.saturating_sub(server.rss_before) as f64 / f64::from(1 << 20);
            record.notes.push(format!("{megabytes:.1} MiB of the server's memory were not back when the run ended"));
        }
        if self.kind == ShapeName::Vanish {
            record.notes.push(format!("{} peers vanished: all that is sent to them is dropped", self.vanished));
        }
        if let Some(error) = &self.cannot_vanish {
            record.notes.push(format!("some could not vanish: {error}"));
        }
    }
}
