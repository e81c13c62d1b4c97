//! The generator's connections, and the actions of a shape on them: dial, send, wake, close.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slab::Slab;

use super::http::Reader;
use super::meter::{Meter, reason};
use super::socketio::polling::Couriers;
use super::sources;
use super::wire::{Incoming, Wire};
use crate::buffer::{BufferId, BufferMode, BufferPool, Use};
use crate::clock::{Tick, Time};
use crate::limits::READ_CHUNK;
use crate::net::{ConnectOptions, Net, Ready};
use crate::timer::{self, TimerWheel};
use crate::token::{Generation, Token};

/// Maximum number of bytes that the generator buffers in all: unsent output and incomplete answers.
const BUFFERS_MAX: usize = 1 << 30;

/// Size of one read in bytes: twice the server's, because answers are longer than requests.
const CHUNK: usize = 2 * READ_CHUNK;

/// The close code of a client that is done: RFC 6455, section 7.4.1.
const GOODBYE: u16 = 1000;

/// The purpose of a connection. Each shape names its own numbers.
pub type PeerRole = u8;

/// One connection of the generator.
pub struct Peer<S> {
    pub stream: S,
    pub generation: Generation,
    pub role: PeerRole,
    pub flags: PeerFlags,
    /// Outstanding answers.
    pub outstanding: u32,
    /// Requests to send with the next flush.
    pub to_send: u32,
    /// Start of the timeout: the moment of the dial, of the request or of the last answer.
    pub since: Tick,
    /// Moment at which the shape wants to be woken.
    pub wakes: Option<Tick>,
    /// Moment at which the oldest request was due; while connecting, that of the dial.
    pub due: Time,
    /// Moment of the dial.
    pub dialled: Time,
    /// Bytes that the incomplete answer needs before parsing it again makes sense.
    pub needs: usize,
    /// A number for the shape's own use.
    pub serial: u32,
    /// Place in what the server sends.
    pub incoming: Incoming,
    /// Incomplete answer.
    pub input: Option<BufferId>,
    /// Pending output.
    pub output: Option<BufferId>,
}

impl<S> Peer<S> {
    /// True if the connection is established, authenticated and not closed.
    pub fn is_open(&self) -> bool {
        !self.flags.has(PeerFlags::CONNECTING)
            && !self.flags.has(PeerFlags::PRELUDE)
            && !self.flags.has(PeerFlags::CLOSED)
    }
}

/// The state of a connection, as a set of flags.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerFlags(u16);

impl PeerFlags {
    /// The connect is not complete.
    pub const CONNECTING: PeerFlags = PeerFlags(1);
    /// The connection is on the work list.
    pub const QUEUED: PeerFlags = PeerFlags(1 << 1);
    /// The connection is on the list to flush.
    pub const FLUSHING: PeerFlags = PeerFlags(1 << 2);
    /// The kernel's send buffer is full.
    pub const BLOCKED: PeerFlags = PeerFlags(1 << 3);
    /// The connection is closed; its slot is freed at the end of the turn.
    pub const CLOSED: PeerFlags = PeerFlags(1 << 4);
    /// The driver does not read from the connection.
    pub const UNREAD: PeerFlags = PeerFlags(1 << 5);
    /// The connection is closed by a reset.
    pub const RESETS: PeerFlags = PeerFlags(1 << 6);
    /// The answer to the prelude is outstanding.
    pub const PRELUDE: PeerFlags = PeerFlags(1 << 7);
    /// Each arriving reply is a message for the shape instead of an answer.
    pub const LISTENS: PeerFlags = PeerFlags(1 << 8);
    /// Arriving bytes are dropped.
    pub const DISCARDS: PeerFlags = PeerFlags(1 << 9);
    /// The server has sent FIN. This is how the driver sees the end of an unread connection.
    pub const ENDING: PeerFlags = PeerFlags(1 << 10);
    /// At least one answer to the last requests was an error.
    pub const REFUSED: PeerFlags = PeerFlags(1 << 11);
    /// The server has answered a request without an error.
    pub const SERVED: PeerFlags = PeerFlags(1 << 12);
    /// The server has sent error replies only, as one does that has no room for a connection.
    pub const UNSERVED: PeerFlags = PeerFlags(1 << 13);
    /// The pings of the server get no pong, and a session that opens connects to no namespace.
    pub const MUTE: PeerFlags = PeerFlags(1 << 15);
    /// The connection has no prelude.
    pub const BARE: PeerFlags = PeerFlags(1 << 14);

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

/// The connections of the generator, with their buffers, timers and counters.
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
    pub(super) couriers: Couriers,
    pub address: SocketAddr,
    pub timeout: Duration,
    sources: Vec<IpAddr>,
    next_source: usize,
    generation: Generation,
    /// Outstanding answers of all connections.
    pub outstanding: u64,
    /// Reason why this machine can open no more connections: no file, port or memory is left.
    pub exhausted: Option<String>,
}

impl<N: Net> World<N> {
    pub fn new(
        net: N,
        address: SocketAddr,
        sources: Vec<IpAddr>,
        wire: Wire,
        timeout: Duration,
    ) -> World<N> {
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
            couriers: Couriers::default(),
            address,
            timeout,
            sources,
            next_source: 0,
            generation: Generation::FIRST,
            outstanding: 0,
            exhausted: None,
        }
    }

    /// Dials the target, from the next source address unless `options` names one. Returns the slot.
    /// If the dial fails at once, counts the failure and returns `None`.
    pub fn dial(&mut self, role: PeerRole, options: StressDial) -> Option<u32> {
        let source = options.source.or_else(|| {
            self.next_source = (self.next_source + 1) % self.sources.len().max(1);
            self.sources.get(self.next_source).copied()
        });
        let slot = self.peers.vacant_key() as u32;
        let address = options.http.unwrap_or(self.address);
        // The sources are those of the target, and a publisher may have another server.
        let source =
            source.filter(|source| options.http.is_none() || sources::fits(*source, address.ip()));
        let how = ConnectOptions { source, receive_buffer: options.receive_buffer };
        let stream = match self.net.connect(address, &how, Token::connection(slot, self.generation))
        {
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
        if options.mute {
            flags.set(PeerFlags::MUTE);
        }
        if options.bare || options.http.is_some() {
            flags.set(PeerFlags::BARE);
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
            incoming: match options.http {
                Some(_) => Incoming::Answers(Reader::default()),
                None => self.wire.incoming(self.generation.get()),
            },
            serial: 0,
            input: None,
            output: None,
        });
        self.generation = self.generation.next();
        self.meter.connecting += 1;
        self.arm(slot);
        Some(slot)
    }

    /// Sends `count` of the wire's requests, which were due at `due`.
    pub fn request(&mut self, slot: u32, count: u32, due: Time) {
        let Some(peer) = self.expect_answers(slot, count, due) else { return };
        peer.to_send += count;
        self.flush_later(slot);
        self.arm(slot);
    }

    /// Sends other bytes, which the server will give `answers` answers to.
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

    /// Counts `answers` more as outstanding. Returns `None` if the connection is closed.
    fn expect_answers(
        &mut self,
        slot: u32,
        answers: u32,
        due: Time,
    ) -> Option<&mut Peer<N::Stream>> {
        let peer =
            self.peers.get_mut(slot as usize).filter(|peer| !peer.flags.has(PeerFlags::CLOSED))?;
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

    /// Sends the prelude, such as AUTH. It does not count as a request of the load.
    pub(super) fn say_prelude(&mut self, slot: u32) {
        let prelude = self.wire.prelude().to_vec();
        let peer = &mut self.peers[slot as usize];
        peer.flags.set(PeerFlags::PRELUDE);
        // The moment of the dial stays: for churn, the time of a request counts from it.
        let (answers, due) = (self.wire.prelude_answers, peer.due);
        self.send(slot, &prelude, answers, due);
        self.meter.sent -= u64::from(answers);
    }

    /// Takes back the outstanding requests of a connection, which are to be sent again.
    pub(super) fn take_back(&mut self, slot: u32) -> u32 {
        let count = self.peers[slot as usize].outstanding;
        self.settle(slot);
        self.meter.sent -= u64::from(count);
        self.meter.repeated += u64::from(count);
        count
    }

    /// Clears the outstanding answers, for shapes that take the answers themselves.
    pub fn settle(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        self.outstanding -= u64::from(peer.outstanding);
        peer.outstanding = 0;
    }

    pub(super) fn flush_later(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if !peer.flags.has(PeerFlags::FLUSHING) {
            peer.flags.set(PeerFlags::FLUSHING);
            self.flushes.push(slot);
        }
    }

    /// Wakes the shape for this connection after `span`.
    pub fn wake(&mut self, slot: u32, span: Duration) {
        let due = self.now.tick().plus(Tick::count(span));
        if let Some(peer) = self.peers.get_mut(slot as usize) {
            peer.wakes = Some(due);
        }
        self.arm(slot);
    }

    /// Closes a connection, by FIN unless [`Self::reset`] asked for a RST. Its slot is free at the
    /// end of the turn.
    pub fn close(&mut self, slot: u32) {
        let Some(peer) =
            self.peers.get_mut(slot as usize).filter(|peer| !peer.flags.has(PeerFlags::CLOSED))
        else {
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

    /// Closes a connection in the way of its protocol: a client of Socket.IO leaves its namespace,
    /// and over WebSocket, a Close frame says so first.
    pub fn leave(&mut self, slot: u32) {
        self.disconnect(slot);
        if let Some(close) = self.wire.websocket().map(|form| form.close(GOODBYE)) {
            self.send(slot, &close, 0, self.now);
        }
        // A connection that cannot take this is closed all the same.
        let _ = self.write(slot);
        self.close(slot);
    }

    /// Closes a connection by a RST.
    pub fn reset(&mut self, slot: u32) {
        if let Some(peer) = self.peers.get_mut(slot as usize) {
            peer.flags.set(PeerFlags::RESETS);
        }
        self.close(slot);
    }

    /// Reads at most `most` bytes from a connection that the driver does not read.
    pub fn read_some(&mut self, slot: u32, most: usize) -> io::Result<usize> {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return Ok(0) };
        let most = most.min(self.chunk.len());
        let length = self.net.read(&mut peer.stream, &mut self.chunk[..most])?;
        self.meter.bytes_in += length as u64;
        Ok(length)
    }

    /// Returns the earlier of the shape's wake-up and the timeout of a connect or an answer.
    pub(super) fn deadline(&self, peer: &Peer<N::Stream>) -> Option<Tick> {
        let waits = peer.flags.has(PeerFlags::CONNECTING)
            || (peer.outstanding > 0 && !peer.flags.has(PeerFlags::UNREAD));
        let timeout = waits.then(|| peer.since.plus(Tick::count(self.timeout)));
        match (timeout, peer.wakes) {
            (Some(timeout), Some(wakes)) => {
                Some(if wakes.distance_from(timeout) < 0 { wakes } else { timeout })
            }
            (timeout, wakes) => timeout.or(wakes),
        }
    }

    /// Arms the connection's timer for its deadline.
    pub(super) fn arm(&mut self, slot: u32) {
        let Some(peer) = self.peers.get(slot as usize) else { return };
        if let Some(due) = self.deadline(peer) {
            // Beyond the horizon of the wheel, the timer fires early and is armed again.
            let ahead = due.distance_from(self.now.tick()).clamp(0, timer::HORIZON as i32) as u32;
            self.timers.arm_by(slot, self.now.tick().plus(ahead));
        }
    }

    /// Puts a connection on the work list, unless it is there already.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if !peer.flags.has(PeerFlags::QUEUED) {
            peer.flags.set(PeerFlags::QUEUED);
            self.ready.push_back(Token::connection(slot, peer.generation));
        }
    }

    /// Writes once to a connection: its pending output, or new requests without a copy. Fails if
    /// the connection is broken or there is no memory for its output.
    pub(super) fn write(&mut self, slot: u32) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return Ok(()) };
        peer.flags.clear(PeerFlags::FLUSHING);
        if peer.flags.has(PeerFlags::CLOSED)
            || peer.flags.has(PeerFlags::BLOCKED)
            || peer.flags.has(PeerFlags::CONNECTING)
        {
            return Ok(());
        }
        self.poll(slot)?;
        let Some(peer) = self.peers.get_mut(slot as usize) else { return Ok(()) };
        let count = std::mem::take(&mut peer.to_send) as usize;
        let requests = self.wire.requests(count, peer.generation.get());
        let is_pending = self.pool.len(&peer.output) > 0;
        if is_pending && !requests.is_empty() {
            let appended = self.pool.append(&mut peer.output, Use::Write(slot), requests);
            appended.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        }
        let bytes = if is_pending { self.pool.bytes(&peer.output) } else { requests };
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len();
        let sent = match self.net.write(&mut peer.stream, bytes) {
            Ok(sent) => sent,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        self.meter.bytes_out += sent as u64;
        match is_pending {
            true => self.pool.consume(&mut peer.output, sent),
            false if sent < length => {
                let appended =
                    self.pool.append(&mut peer.output, Use::Write(slot), &requests[sent..]);
                appended.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            }
            false => {}
        }
        if sent < length {
            peer.flags.set(PeerFlags::BLOCKED);
        }
        Ok(())
    }
}

/// The options of a dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct StressDial {
    /// Source address; `None` is the next of the run.
    pub source: Option<IpAddr>,
    /// Receive buffer in bytes; 0 is the kernel's default.
    pub receive_buffer: usize,
    /// True if the driver must not read from the connection.
    pub unread: bool,
    /// Moment at which the connect was due; `None` is now.
    pub due: Option<Time>,
    /// True if the connection has no prelude.
    pub bare: bool,
    /// True if a client of Socket.IO only opens a session.
    pub mute: bool,
    /// Address of a connection that speaks HTTP without a prelude: of the publisher of events.
    pub http: Option<SocketAddr>,
}
