//! What a shape can do: dial, send, close. The generator's connections, and the parts of the loop that serve them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slab::Slab;

use super::meter::{Meter, reason};
use super::wire::Wire;
use crate::buffer::{BufferId, BufferMode, BufferPool, Use};
use crate::clock::{Tick, Time};
use crate::limits::READ_CHUNK;
use crate::net::{ConnectOptions, Net, Ready};
use crate::timer::{self, TimerWheel};
use crate::token::{Generation, Token};

/// What the generator may hold in unsent and partly received bytes together.
const BUFFERS_MAX: usize = 1 << 30;

/// Bytes asked for by one read: the server's own figure, twice, because answers are longer than requests.
const CHUNK: usize = 2 * READ_CHUNK;

/// What a connection is for. Each shape gives its own names to the numbers.
pub type Role = u8;

/// One connection of the generator.
pub struct Peer<S> {
    pub stream: S,
    pub generation: Generation,
    pub role: Role,
    pub flags: PeerFlags,
    /// Answers that are waited for.
    pub outstanding: u32,
    /// Requests to be sent with the next flush.
    pub to_send: u32,
    /// Since when it connects or waits for an answer: what the timeout counts from.
    pub since: Tick,
    /// When its shape asked to be called.
    pub wakes: Option<Tick>,
    /// When the oldest request was due; of one that connects, when it was to be dialled.
    pub due: Time,
    /// When it was dialled.
    pub dialled: Time,
    /// An answer of which a part is there is not looked at before so many bytes are.
    pub needs: usize,
    /// A number of its shape's.
    pub serial: u32,
    /// Part of an answer.
    pub input: Option<BufferId>,
    /// What the kernel did not take yet.
    pub output: Option<BufferId>,
}

impl<S> Peer<S> {
    /// Established, let in, and not closed.
    pub fn is_open(&self) -> bool {
        !self.flags.has(PeerFlags::CONNECTING)
            && !self.flags.has(PeerFlags::PRELUDE)
            && !self.flags.has(PeerFlags::CLOSED)
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerFlags(u16);

impl PeerFlags {
    pub const CONNECTING: PeerFlags = PeerFlags(1);
    pub const QUEUED: PeerFlags = PeerFlags(1 << 1);
    pub const FLUSHING: PeerFlags = PeerFlags(1 << 2);
    /// The kernel's buffer is full.
    pub const BLOCKED: PeerFlags = PeerFlags(1 << 3);
    pub const CLOSED: PeerFlags = PeerFlags(1 << 4);
    /// Nothing is read from it.
    pub const UNREAD: PeerFlags = PeerFlags(1 << 5);
    /// It ends by a reset.
    pub const RESETS: PeerFlags = PeerFlags(1 << 6);
    /// The answer to what it said first is still to come.
    pub const PRELUDE: PeerFlags = PeerFlags(1 << 7);
    /// All that arrives is a message for the shape, not an answer.
    pub const LISTENS: PeerFlags = PeerFlags(1 << 8);
    /// All that arrives is dropped.
    pub const DISCARDS: PeerFlags = PeerFlags(1 << 9);
    /// The kernel told that no more will arrive: how the end of one that is not read from is known.
    pub const ENDING: PeerFlags = PeerFlags(1 << 10);
    /// Of the answers to what it asked last, one was an error.
    pub const REFUSED: PeerFlags = PeerFlags(1 << 11);

    pub fn has(self, flag: PeerFlags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: PeerFlags) {
        self.0 |= flag.0;
    }

    pub fn clear(&mut self, flag: PeerFlags) {
        self.0 &= !flag.0;
    }
}

pub struct World<N: Net> {
    pub net: N,
    pub now: Time,
    pub meter: Meter,
    pub wire: Wire,
    pub peers: Slab<Peer<N::Stream>>,
    pub(super) timers: TimerWheel,
    pub(super) pool: BufferPool,
    pub(super) ready: VecDeque<Token>,
    pub(super) flushes: Vec<u32>,
    pub(super) closed: Vec<u32>,
    pub(super) chunk: Box<[u8]>,
    pub(super) events: Vec<Ready>,
    pub address: SocketAddr,
    pub timeout: Duration,
    sources: Vec<IpAddr>,
    next_source: usize,
    generation: Generation,
    /// Answers that are waited for, in all.
    pub outstanding: u64,
    /// A connect failed for want of files or ports: more would fail alike.
    pub exhausted: Option<String>,
}

impl<N: Net> World<N> {
    pub fn new(net: N, address: SocketAddr, sources: Vec<IpAddr>, wire: Wire, timeout: Duration) -> World<N> {
        let now = net.now();
        World {
            net,
            now,
            meter: Meter::default(),
            wire,
            peers: Slab::new(),
            timers: TimerWheel::new(0, now.tick()),
            pool: BufferPool::new(BufferMode::Pooled, BUFFERS_MAX),
            ready: VecDeque::new(),
            flushes: Vec::new(),
            closed: Vec::new(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            events: Vec::new(),
            address,
            timeout,
            sources,
            next_source: 0,
            generation: Generation::FIRST,
            outstanding: 0,
            exhausted: None,
        }
    }

    /// Starts a connection, from the next source address; its slot. A failure is counted.
    pub fn dial(&mut self, role: Role, options: Dial) -> Option<u32> {
        let source = options.source.or_else(|| {
            self.next_source = (self.next_source + 1) % self.sources.len().max(1);
            self.sources.get(self.next_source).copied()
        });
        let slot = self.peers.vacant_key() as u32;
        let how = ConnectOptions { source, receive_buffer: options.receive_buffer };
        let stream = match self.net.connect(self.address, &how, Token::connection(slot, self.generation)) {
            Ok(stream) => stream,
            Err(error) => {
                let why = reason(&error);
                self.meter.fail(&why);
                if matches!(why.as_str(), "no file left" | "no local port" | "no memory") {
                    self.exhausted = Some(why);
                }
                return None;
            }
        };
        let mut flags = PeerFlags::CONNECTING;
        if options.unread {
            flags.set(PeerFlags::UNREAD);
        }
        self.peers.insert(Peer {
            stream,
            generation: self.generation,
            role,
            flags,
            outstanding: 0,
            to_send: 0,
            since: self.now.tick(),
            wakes: None,
            due: options.due.unwrap_or(self.now),
            dialled: self.now,
            needs: 0,
            serial: 0,
            input: None,
            output: None,
        });
        self.generation = self.generation.next();
        self.meter.connecting += 1;
        self.arm(slot);
        Some(slot)
    }

    /// Sends so many of the wire's requests, which were due at `due`.
    pub fn request(&mut self, slot: u32, count: u32, due: Time) {
        let Some(peer) = self.expect_answers(slot, count, due) else { return };
        peer.to_send += count;
        self.flush_later(slot);
        self.arm(slot);
    }

    /// Sends other bytes, to which so many answers are expected.
    pub fn send(&mut self, slot: u32, bytes: &[u8], answers: u32, due: Time) {
        if self.expect_answers(slot, answers, due).is_none() {
            return;
        }
        let peer = &mut self.peers[slot as usize];
        if self.pool.append(&mut peer.output, Use::Write(slot), bytes).is_err() {
            self.meter.error("generator out of memory", 1);
            return self.close(slot);
        }
        self.flush_later(slot);
        self.arm(slot);
    }

    /// So many more answers are waited for, unless the connection is closed.
    fn expect_answers(&mut self, slot: u32, answers: u32, due: Time) -> Option<&mut Peer<N::Stream>> {
        let peer = self.peers.get_mut(slot as usize).filter(|peer| !peer.flags.has(PeerFlags::CLOSED))?;
        if peer.outstanding == 0 {
            peer.flags.clear(PeerFlags::REFUSED);
            peer.due = due;
            peer.since = self.now.tick();
        }
        peer.outstanding += answers;
        self.outstanding += u64::from(answers);
        self.meter.sent += u64::from(answers);
        Some(peer)
    }

    /// What has to be said before anything else. It is no request of the load's.
    pub(super) fn say_prelude(&mut self, slot: u32) {
        let prelude = self.wire.prelude().to_vec();
        let (answers, now) = (self.wire.prelude_answers, self.now);
        self.peers[slot as usize].flags.set(PeerFlags::PRELUDE);
        self.send(slot, &prelude, answers, now);
        self.meter.sent -= u64::from(answers);
    }

    /// All that was waited for is there; for shapes that look at answers themselves.
    pub fn settle(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        self.outstanding -= u64::from(peer.outstanding);
        peer.outstanding = 0;
    }

    fn flush_later(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if !peer.flags.has(PeerFlags::FLUSHING) {
            peer.flags.set(PeerFlags::FLUSHING);
            self.flushes.push(slot);
        }
    }

    /// Has the shape called for this connection after `span`.
    pub fn wake(&mut self, slot: u32, span: Duration) {
        let due = self.now.tick().plus(Tick::count(span));
        if let Some(peer) = self.peers.get_mut(slot as usize) {
            peer.wakes = Some(due);
        }
        self.arm(slot);
    }

    /// Ends a connection in order. The slot is free at the end of the turn.
    pub fn close(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot as usize).filter(|peer| !peer.flags.has(PeerFlags::CLOSED)) else {
            return;
        };
        match peer.flags.has(PeerFlags::CONNECTING) {
            true => self.meter.connecting -= 1,
            false => self.meter.open -= 1,
        }
        peer.flags.set(PeerFlags::CLOSED);
        self.outstanding -= u64::from(peer.outstanding);
        self.closed.push(slot);
    }

    /// Ends it by a reset.
    pub fn reset(&mut self, slot: u32) {
        if let Some(peer) = self.peers.get_mut(slot as usize) {
            peer.flags.set(PeerFlags::RESETS);
        }
        self.close(slot);
    }

    /// Reads from a connection again that was not read from.
    pub fn read_some(&mut self, slot: u32, most: usize) -> io::Result<usize> {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return Ok(0) };
        let most = most.min(self.chunk.len());
        let length = self.net.read(&mut peer.stream, &mut self.chunk[..most])?;
        self.meter.bytes_in += length as u64;
        Ok(length)
    }

    /// When the connection wants attention: its shape's wish, or the timeout of what it waits for.
    pub(super) fn deadline(&self, peer: &Peer<N::Stream>) -> Option<Tick> {
        let waits =
            peer.flags.has(PeerFlags::CONNECTING) || (peer.outstanding > 0 && !peer.flags.has(PeerFlags::UNREAD));
        let timeout = waits.then(|| peer.since.plus(Tick::count(self.timeout)));
        match (timeout, peer.wakes) {
            (Some(timeout), Some(wakes)) => Some(if wakes.distance_from(timeout) < 0 { wakes } else { timeout }),
            (timeout, wakes) => timeout.or(wakes),
        }
    }

    pub(super) fn arm(&mut self, slot: u32) {
        let Some(peer) = self.peers.get(slot as usize) else { return };
        if let Some(due) = self.deadline(peer) {
            // Further away than the wheel reaches it fires early, and is armed again.
            let ahead = due.distance_from(self.now.tick()).clamp(0, timer::HORIZON as i32) as u32;
            self.timers.arm_by(slot, self.now.tick().plus(ahead));
        }
    }

    /// Puts a connection on the list of those to serve, unless it is there.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if !peer.flags.has(PeerFlags::QUEUED) {
            peer.flags.set(PeerFlags::QUEUED);
            self.ready.push_back(Token::connection(slot, peer.generation));
        }
    }
}

/// How to dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dial {
    /// From this address; `None`: the next of the run's.
    pub source: Option<IpAddr>,
    pub receive_buffer: usize,
    /// Do not read from it.
    pub unread: bool,
    /// When it was due, where that was before it could be dialled.
    pub due: Option<Time>,
}
