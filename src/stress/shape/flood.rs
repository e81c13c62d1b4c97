//! Floods: attackers that hold connections without using them, or abuse them. Honest requests are
//! sent before, during and after.
//!
//! When the server closes an attacker, another takes its place, so the pressure stays the same.

use std::time::Duration;

use super::Shape;
use super::probes::{PROBE, Probes};
use crate::clock::Time;
use crate::net::Net;
use crate::stress::args::{ShapeName, TransportName};
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::pace::{Next, earliest};
use crate::stress::plan::{AFTER, BEFORE, Plan};
use crate::stress::record::Record;
use crate::stress::socketio::SocketIoForm;
use crate::stress::target::Scheme;
use crate::stress::websocket::{ANNOUNCED, WebSocketForm};
use crate::stress::wire::Wire;
use crate::stress::world::{PeerFlags, StressDial, World};

/// The role of attackers, beside that of [`PROBE`].
const ATTACKER: u8 = 0;

/// Time between two exact readings of the server's memory during the flood.
const PEAK_EVERY: Duration = Duration::from_secs(1);

/// Receive buffer asked for by a client that does not read. The kernel doubles it to 4,608 bytes
/// (socket(7)). With that much unread, the window is closed.
const TINY_BUFFER: usize = 2304;

/// Size of the requests of a client that never reads, in bytes. Their answers need only fill the
/// server's send buffer.
const UNREAD_BYTES: usize = 128 << 10;

/// Maximum number of requests of a client that never reads. This process buffers them while the
/// server does not read.
const UNREAD_REQUESTS: usize = 64;

/// Time between two further bytes of a client with a closed window. A server that gives up on the
/// connection (TCP_USER_TIMEOUT, tcp(7)) cannot tell the client; the next byte draws a reset.
const KNOCK: Duration = Duration::from_secs(1);

/// Number of bytes that a slow reader reads at a time.
const SIP: usize = 16;

/// Length of the string that a slowloris announces over RESP: the longest that Redis accepts from
/// an unauthenticated client.
const DRIPPED_BULK: usize = 16 * 1024;

/// Time after its request at which a client vanishes, so that the answer is acknowledged and no
/// data is in flight.
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// Longest wait for a moment in which the server's memory can be read.
const READING: Duration = Duration::from_secs(1);

/// Share above its start at which the server's resident set counts as reclaimed.
const BACK: f64 = 0.1;
/// The same in bytes if that is more. A small server touches as much of its program for the first
/// time in a flood.
const SMALL_GROWTH: u64 = 1 << 20;

/// A flood of any kind.
pub struct Flood {
    kind: ShapeName,
    plan: Plan,
    began: Time,
    dial: StressDial,
    /// Dialer of the attackers during the flood.
    attackers: Option<Dialer>,
    probes: Probes,
    stage: Stage,
    stage_ends: Time,
    peak_due: Time,
    /// First bytes of each attacker.
    bait: Vec<u8>,
    vanished: u64,
    cannot_vanish: Option<String>,
    flood_ended: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Before,
    During,
    /// The attackers are still connected, and the last honest requests end. Then the server's
    /// memory is read, which delays no request.
    Reading {
        is_asked: bool,
    },
    After,
    /// The last honest requests may be answered within their timeout.
    Ending,
}

impl Flood {
    pub fn new(plan: &Plan, kind: ShapeName, now: Time) -> Flood {
        let unread = matches!(kind, ShapeName::SlowRead | ShapeName::ZeroWindow);
        Flood {
            kind,
            began: now,
            dial: StressDial {
                unread,
                receive_buffer: if unread { TINY_BUFFER } else { 0 },
                bare: kind == ShapeName::HalfRequest,
                mute: matches!(kind, ShapeName::Silent | ShapeName::HalfUpgrade),
                http: (kind == ShapeName::Sids).then_some(plan.target.address),
                ..StressDial::default()
            },
            attackers: None,
            probes: Probes::new(plan, now),
            stage: Stage::Before,
            stage_ends: now + BEFORE,
            peak_due: now,
            bait: bait(kind, plan),
            vanished: 0,
            cannot_vanish: None,
            flood_ended: None,
            plan: plan.clone(),
        }
    }

    /// Enters the next stage when the present one has ended. Returns false after the last.
    fn advance<N: Net>(&mut self, world: &mut World<N>) -> bool {
        let is_over = world.now >= self.stage_ends;
        match self.stage {
            Stage::Before if is_over => self.begin(world),
            Stage::During if is_over => {
                world.meter.end_load(world.now);
                self.probes.stop();
                // A reading that was requested during the flood and not yet made is dropped.
                world.meter.wants_memory = None;
                self.stage = Stage::Reading { is_asked: false };
                // By then, all honest requests are answered or have timed out.
                self.stage_ends = world.now + self.plan.timeout + Duration::from_millis(100);
            }
            Stage::Reading { is_asked: false } if self.probes.are_settled() || is_over => {
                world.meter.wants_memory = Some(Reading::Highest);
                self.stage = Stage::Reading { is_asked: true };
                self.stage_ends = world.now + READING;
            }
            Stage::Reading { is_asked: true } if world.meter.wants_memory.is_none() || is_over => {
                self.end(world)
            }
            Stage::After if is_over => {
                self.probes.stop();
                self.stage = Stage::Ending;
                self.stage_ends = world.now + self.plan.timeout + Duration::from_millis(100);
            }
            Stage::Ending => return !self.probes.are_settled() && !is_over,
            _ => {}
        }
        true
    }

    fn begin<N: Net>(&mut self, world: &mut World<N>) {
        world.meter.begin_load(world.now);
        let (count, rate) = (self.plan.connections, self.plan.connect_rate);
        self.attackers = Some(Dialer::new(ATTACKER, self.dial, count, rate, world.now));
        self.probes.enter(1, world.now);
        self.stage = Stage::During;
        self.stage_ends = world.now + self.plan.duration;
        self.peak_due = world.now + PEAK_EVERY;
    }

    fn end<N: Net>(&mut self, world: &mut World<N>) {
        self.attackers = None;
        self.flood_ended = Some(world.now);
        // Vanished clients stay silent, because a reset would do the server's work.
        if self.kind != ShapeName::Vanish {
            let attackers = world.peers.iter().filter(|(_, peer)| peer.role == ATTACKER);
            let slots: Vec<u32> = attackers.map(|(slot, _)| slot as u32).collect();
            slots.into_iter().for_each(|slot| world.reset(slot));
        }
        self.probes.enter(2, world.now);
        self.stage = Stage::After;
        self.stage_ends = world.now + AFTER;
    }

    /// Starts the attack on an open connection.
    fn attack<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let now = world.now;
        match self.kind {
            ShapeName::Slowloris => self.drip(world, slot),
            ShapeName::HalfRequest => world.send(slot, &self.bait, 0, now),
            ShapeName::Sids => self.guess(world, slot),
            ShapeName::HalfUpgrade => self.send_bait(world, slot),
            ShapeName::Unpolled => world.wake(slot, Duration::ZERO),
            ShapeName::Announce => {
                self.send_bait(world, slot);
                if !self.withholds_attachments() {
                    world.wake(slot, self.plan.drip);
                }
            }
            ShapeName::SlowRead | ShapeName::ZeroWindow => {
                world.send(slot, &self.bait, 0, now);
                world.wake(
                    slot,
                    if self.kind == ShapeName::SlowRead { self.plan.drip } else { KNOCK },
                );
            }
            ShapeName::Rst => {
                self.send_bait(world, slot);
                // The request leaves in this turn; the reset follows in the next.
                world.wake(slot, Duration::ZERO);
            }
            ShapeName::Vanish => {
                // Every second client vanishes at once and leaves unacknowledged data behind.
                // Keepalive does not detect such a peer.
                self.send_bait(world, slot);
                if slot.is_multiple_of(2) {
                    self.vanish(world, slot);
                } else {
                    world.wake(slot, ANSWER_TIME);
                }
            }
            _ => {}
        }
    }

    /// Sends the first bytes of the attack. Those of a client that polls name its session.
    fn send_bait<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let polls = world.peers[slot as usize].incoming.polls();
        let own =
            polls.zip(world.wire.socketio()).map(|(polls, form)| polls.attack(form, self.kind));
        let now = world.now;
        world.send(slot, own.as_deref().unwrap_or(&self.bait), 0, now);
    }

    /// Sends a request with a guessed id of a session.
    fn guess<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        if let Some(guess) = world.wire.socketio().map(SocketIoForm::guess) {
            world.send(slot, &guess, 0, world.now);
        }
    }

    /// True if the attackers announce attachments, and are clients like others beside that.
    fn withholds_attachments(&self) -> bool {
        let Plan { target, transport, .. } = &self.plan;
        self.kind == ShapeName::Announce
            && (target.scheme, *transport) == (Scheme::SocketIo, TransportName::WebSocket)
    }

    /// Sends the next byte of a request that never ends.
    fn drip<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &mut world.peers[slot as usize];
        let at = peer.serial as usize;
        if self.plan.target.scheme == Scheme::Resp && at + 1 >= self.bait.len() + DRIPPED_BULK {
            // Without its last byte, the string never completes.
            return;
        }
        peer.serial += 1;
        let bytes = match world.wire.websocket() {
            Some(form) => form.fragment(at == 0),
            None => vec![self.bait.get(at).copied().unwrap_or(b'a')],
        };
        let now = world.now;
        world.send(slot, &bytes, 0, now);
        world.wake(slot, self.plan.drip);
    }

    fn sip<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        match world.read_some(slot, SIP) {
            Ok(1..) => world.wake(slot, self.plan.drip),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                world.wake(slot, self.plan.drip);
            }
            // The server has closed or reset the connection.
            Ok(0) | Err(_) => {
                world.meter.closed_by_server += 1;
                world.close(slot);
                self.ended(world, slot);
            }
        }
    }

    fn vanish<N: Net>(&mut self, world: &mut World<N>, slot: u32) {
        match world.net.deafen(&world.peers[slot as usize].stream) {
            Ok(()) => self.vanished += 1,
            Err(error) => self.cannot_vanish = Some(error.to_string()),
        }
    }

    /// Records how long the server took to free the flood's memory, or a note that says why that
    /// time is unknown.
    fn reclaim(&self, record: &mut Record) {
        let (Some(ended), Some(server)) = (self.flood_ended, &record.server) else { return };
        let ended_s = ended.since(self.began).as_secs_f64();
        let tenth = (server.rss_before as f64 * BACK) as u64;
        let back = server.rss_before + tenth.max(SMALL_GROWTH);
        let sampled =
            || record.samples.iter().filter_map(|sample| Some((sample.t_s, sample.server_rss?)));
        let peak = sampled().map(|(_, rss)| rss).max().unwrap_or(0).max(server.rss_at_peak);
        if peak <= back {
            let note = "the server's memory rose by a tenth or 1 MiB at most, so there was nothing \
                        to free";
            return record.notes.push(note.into());
        }
        record.reclaim_s = sampled()
            .find(|(t_s, rss)| *t_s >= ended_s && *rss <= back)
            .map(|(t_s, _)| t_s - ended_s);
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let missing = mebibytes(server.rss_at_end.saturating_sub(server.rss_before));
        let grown = mebibytes(peak - server.rss_before);
        if record.reclaim_s.is_some() {
            return;
        }
        record.notes.push(match server.rss_at_end {
            0 => "the server's memory could not be read when the run ended".into(),
            // INFO is not asked often enough to time it.
            end if end <= back => format!(
                "the server's memory rose by {grown:.1} MiB and was free again when the run ended; \
                 the moment at which it was freed is unknown"
            ),
            _ => format!(
                "the server's memory rose by {grown:.1} MiB, of which {missing:.1} MiB were not \
                 freed when the run ended"
            ),
        });
    }
}

/// Returns the first bytes of an attacker.
fn bait(kind: ShapeName, plan: &Plan) -> Vec<u8> {
    let wire = Wire::new(plan, 1);
    let head = |method, length| plan.request.head(&plan.target, method, length);
    match (kind, plan.target.scheme) {
        (ShapeName::SlowRead | ShapeName::ZeroWindow, scheme) => {
            let request = wire.request();
            let requests = request.repeat((UNREAD_BYTES / request.len()).clamp(1, UNREAD_REQUESTS));
            // A client that does not read does not wait for the upgrade.
            let upgrade = if scheme == Scheme::WebSocket { wire.prelude() } else { &[] };
            [upgrade, &requests].concat()
        }
        (ShapeName::HalfRequest, scheme) => {
            let is_upgrade = matches!(scheme, Scheme::WebSocket | Scheme::SocketIo);
            let request = if is_upgrade { wire.prelude() } else { wire.request() };
            request[..request.len().div_ceil(2)].to_vec()
        }
        (ShapeName::Slowloris, Scheme::Resp) => {
            format!("*2\r\n$4\r\nECHO\r\n${DRIPPED_BULK}\r\n").into_bytes()
        }
        // The header's value never ends.
        (ShapeName::Slowloris, Scheme::Http) => [head("GET", None), b"X-a: ".to_vec()].concat(),
        (ShapeName::Slowloris, Scheme::SocketIo) => {
            let request = wire.prelude();
            [&request[..request.len() - 2], b"X-a: "].concat()
        }
        // The line never ends.
        (ShapeName::Slowloris, _) => {
            let request = wire.request();
            request.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default().to_vec()
        }
        (ShapeName::Announce, Scheme::Http) => {
            [head("POST", Some(ANNOUNCED)), b"\r\n".to_vec()].concat()
        }
        (ShapeName::Announce, Scheme::SocketIo) => {
            wire.socketio().map(SocketIoForm::announcement).unwrap_or_default()
        }
        (ShapeName::Announce, Scheme::WebSocket) => {
            wire.websocket().map(WebSocketForm::announcement).unwrap_or_default()
        }
        // 512 MiB less one byte: the longest string that Redis accepts (proto-max-bulk-len).
        (ShapeName::Announce, _) => b"*2\r\n$4\r\nECHO\r\n$536870911\r\n".to_vec(),
        _ => wire.request().to_vec(),
    }
}

impl<N: Net> Shape<N> for Flood {
    fn act(&mut self, world: &mut World<N>) -> Next {
        if !self.advance(world) {
            return Next::Done;
        }
        if self.stage == Stage::During && world.now >= self.peak_due {
            world.meter.wants_memory = Some(Reading::Highest);
            self.peak_due = world.now + PEAK_EVERY;
        }
        let dialing =
            self.attackers.as_mut().map_or(Next::OnEvent, |attackers| attackers.act(world, 0));
        let ends = match self.stage {
            // The memory is read between this turn and the next.
            Stage::Reading { is_asked: true } => world.now,
            _ => self.stage_ends,
        };
        earliest([self.probes.act(world), dialing, Next::At(ends)])
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &mut world.peers[slot as usize];
        match peer.role {
            PROBE => self.probes.opened(world, slot),
            _ => {
                // Frames are read, because a Close frame says why the server closes.
                let has_frames = world.wire.websocket().is_some() && !self.dial.bare;
                match self.kind {
                    ShapeName::Sids => peer.flags.set(PeerFlags::LISTENS),
                    _ if self.withholds_attachments() => {}
                    _ if has_frames => peer.flags.set(PeerFlags::MUTE),
                    _ => peer.flags.set(PeerFlags::DISCARDS),
                }
                self.attack(world, slot);
            }
        }
    }

    fn message(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        if self.kind == ShapeName::Sids && world.peers[slot as usize].role == ATTACKER {
            self.guess(world, slot);
            return true;
        }
        self.unasked(world, slot, message, is_error)
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, _goes_on: bool) {
        if world.peers[slot as usize].role == PROBE {
            self.probes.answered(world, slot);
        }
    }

    fn woken(&mut self, world: &mut World<N>, slot: u32) {
        let now = world.now;
        match self.kind {
            ShapeName::Slowloris => self.drip(world, slot),
            ShapeName::Announce => {
                world.send(slot, b"x", 0, now);
                world.wake(slot, self.plan.drip);
            }
            ShapeName::SlowRead => self.sip(world, slot),
            ShapeName::ZeroWindow => {
                let peer = &mut world.peers[slot as usize];
                let at = peer.serial as usize % self.bait.len();
                peer.serial += 1;
                world.send(slot, &self.bait[at..=at], 0, now);
                world.wake(slot, KNOCK);
            }
            ShapeName::Rst | ShapeName::Unpolled => {
                match self.kind {
                    ShapeName::Rst => world.reset(slot),
                    _ => world.close(slot),
                }
                if let Some(attackers) = &mut self.attackers {
                    attackers.replace(world, slot);
                }
            }
            ShapeName::Vanish => self.vanish(world, slot),
            _ => {}
        }
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &world.peers[slot as usize];
        match (peer.role, &mut self.attackers) {
            (PROBE, _) => self.probes.failed(slot, world.now),
            (_, Some(attackers)) => attackers.replace(world, slot),
            _ => {}
        }
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        self.probes.finish(record, self.plan.timeout, world.now);
        record.latency = None;
        record.requests.rate = 0.0;
        // A connect that this machine could not make is not the server's failure.
        let mut own = 0;
        record.connections.failed.retain(|why, count| {
            let is_own = matches!(why.as_str(), "no file left" | "no local port" | "no memory");
            own += if is_own { *count } else { 0 };
            !is_own
        });
        if own > 0 {
            record.notes.push(format!(
                "{own} connects failed because this machine, not the server, had no files, ports \
                 or memory left"
            ));
        }
        self.reclaim(record);
        if self.kind == ShapeName::Vanish {
            record.notes.push(format!(
                "{} peers vanished and dropped everything sent to them until the end of the run. \
                 Memory that came back was reclaimed by the server's own defences",
                self.vanished
            ));
        }
        if let Some(error) = &self.cannot_vanish {
            record.notes.push(format!("some peers could not vanish: {error}"));
        }
    }
}
