//! Socket.IO: its clients, over WebSocket and by polling (Engine.IO 4, Socket.IO 5).
//!
//! A *client* is a session of the hub. With WebSocket it is attached to a connection. While it
//! polls it is attached to none, and its output waits in [`PollClients`](crate::hub::polls); each
//! poll comes as a request on a connection with a session of its own. A *socket* is a client in a
//! namespace. The client's session is its first socket. Each further namespace is one more session
//! with the same route, so subscriptions and fan-out know nothing of namespaces.

mod client;
mod partials;
mod polling;
mod sid;
mod sockets;
mod upgrade;
mod verbs;

use std::collections::{HashMap, VecDeque};

use super::progress::MessageProgress;
use crate::clock::Tick;
use crate::codec::engineio::{Framing, Open};
use crate::codec::websocket::{CloseCode, Opcode, encode_close};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::sessions::{PeerProtocol, Session, SessionId};
use crate::limits::{Limits, UPGRADE_TIMEOUT};
use crate::routes::EventRates;
use crate::service::Reply;
use crate::service::server::Server;

use client::Client;
use partials::Partials;
use sid::Sids;

pub use client::PacketProgress;
pub use polling::PollOutcome;

/// State of a client: the number of its pings, in five bits.
const PINGS: u8 = 0b1_1111;
/// State of a client: it has not answered the last ping.
const PINGED: u8 = 1 << 5;
/// State of a client: its own session is a socket.
const IS_SOCKET: u8 = 1 << 6;
/// State of a client: it has connected to a namespace.
const HAS_CONNECTED: u8 = 1 << 7;

/// The Socket.IO side of the hub.
pub struct SocketIo {
    sids: Sids,
    /// The further sockets of clients with more than one, by the client.
    further: HashMap<SessionId, Vec<SessionId>>,
    /// Events whose attachments have not all arrived.
    partials: Partials,
    /// When the oldest of them must be complete.
    partials_due: Option<Tick>,
    /// WebSockets that are to replace the polls of a client.
    probes: HashMap<SessionId, UpgradeProbe>,
    /// How often the session of a client has stopped to be a socket.
    rejoins: HashMap<SessionId, u32>,
    /// The parts of the `auth` of a socket that routes need.
    auths: HashMap<SessionId, Box<str>>,
    /// Requests that wait in the middle of their packets, with the bytes that are done.
    posts: HashMap<SessionId, polling::PostPlace>,
    /// Clients that poll and have no namespace yet, oldest first, with others that had none.
    newcomers: VecDeque<SessionId>,
    /// How often sockets have used routes.
    rates: EventRates,
    /// Bytes of what is kept of `auth`s, and of the departures.
    held: usize,
    /// Messages to publish for sockets that have ended, as channel and payload.
    departures: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Answers to requests of clients that have ended.
    answers: VecDeque<polling::PollAnswer>,
    /// WebSockets that were to replace the polls of clients that have ended.
    orphans: Vec<SessionId>,
}

/// Stands for a client that has ended.
const NO_CLIENT: u32 = u32::MAX;

/// A WebSocket that is to replace the polls of a client.
struct UpgradeProbe {
    /// The client among [`PollClients`](crate::hub::polls::PollClients), or [`NO_CLIENT`].
    client: u32,
    since: Tick,
    /// True once it has sent its first packet.
    is_heard: bool,
}

impl SocketIo {
    /// `sid_key` is the key of the sids; `None`: a secret one.
    pub fn new(sid_key: Option<u64>) -> SocketIo {
        SocketIo {
            sids: Sids::new(sid_key),
            further: HashMap::new(),
            partials: Partials::default(),
            partials_due: None,
            probes: HashMap::new(),
            rejoins: HashMap::new(),
            auths: HashMap::new(),
            rates: EventRates::default(),
            posts: HashMap::new(),
            newcomers: VecDeque::new(),
            held: 0,
            departures: VecDeque::new(),
            answers: VecDeque::new(),
            orphans: Vec::new(),
        }
    }

    /// Finds the live client of a sid.
    pub fn find(&self, shared: &Shared, sid: &[u8]) -> Option<SessionId> {
        let session = self.sids.find(sid)?;
        let own = shared.sessions.get(session);
        (own.protocol == PeerProtocol::SocketIo && own.destination().is_some()).then_some(session)
    }

    /// Appends the packet that opens a client.
    pub fn write_open(
        &self,
        session: SessionId,
        upgrades: bool,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) {
        let sid = self.sids.client(session);
        let open = Open {
            sid: std::str::from_utf8(&sid).unwrap_or_default(),
            upgrades,
            ping_interval: limits.socketio_ping_interval,
            ping_timeout: limits.socketio_ping_timeout,
            max_payload: limits.max_message,
        };
        open.write(out);
    }

    /// Takes a WebSocket message of a client.
    pub fn message(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        (opcode, payload): (Opcode, &[u8]),
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> MessageProgress {
        if self.probes.contains_key(&session) {
            return self.probe(shared, session, (opcode, payload), reply);
        }
        let now = reply.now;
        let is_pinged = |shared: &Shared| shared.sessions.get(session).protocol_state & PINGED != 0;
        let was_pinged = is_pinged(shared);
        let mut trusts = None;
        let mut client = Client {
            io: self,
            shared,
            server,
            session,
            speaker: session,
            framing: Framing::Frames,
            out: reply.bytes_mut(),
            now,
            trusts: &mut trusts,
        };
        let progress = match opcode {
            Opcode::Binary => client.binary(payload),
            _ => client.text(payload),
        };
        if let Some(trusted) = trusts {
            reply.trust(trusted);
        }
        if was_pinged && !is_pinged(shared) {
            // The next ping may be due before the end of the wait for this answer.
            reply.wake_by(now.tick());
        }
        match progress {
            PacketProgress::Taken => MessageProgress::Taken,
            PacketProgress::StaysSilent => MessageProgress::StaysSilent,
            PacketProgress::Waits => MessageProgress::Waits,
            PacketProgress::Ends(reason) => {
                let code = match reason {
                    Reason::ServiceClosed => CloseCode::Normal,
                    _ => CloseCode::Protocol,
                };
                encode_close(reply.bytes_mut(), code.code(), "");
                reply.close_for(reason);
                MessageProgress::Taken
            }
        }
    }

    /// Returns when a session wants to be woken: for the next ping, for the end of the wait for its
    /// answer, or for the end of the time to connect or to upgrade.
    pub fn wakes(&self, session: SessionId, own: &Session, now: Tick, limits: &Limits) -> Tick {
        if let Some(probe) = self.probes.get(&session) {
            return probe.since.plus(Tick::count(UPGRADE_TIMEOUT));
        }
        wakes(own, now, limits)
    }

    /// Pings a client with a WebSocket, or closes one whose time is over.
    pub fn wake(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        reply: &mut Reply<'_>,
        server: &dyn Server,
    ) {
        let now = reply.now.tick();
        let is_over = self.probes.contains_key(&session)
            || is_over(&shared.sessions.get(session), now, server.limits());
        if is_over {
            encode_close(reply.bytes_mut(), CloseCode::Policy.code(), "");
            return reply.close_for(Reason::PingTimeout);
        }
        ping(shared, session, now, server.limits());
        Framing::Frames.text(reply.bytes_mut(), |out| out.push(b'2'));
    }

    /// Handles the start of a close: the further sockets of the client receive nothing more, and
    /// a WebSocket that was to replace polls does so no more.
    pub fn closing(&mut self, shared: &mut Shared, session: SessionId) {
        self.end_probe(shared, session);
        self.end_cut_off(shared, session);
        for socket in self.further.get(&session).into_iter().flatten() {
            shared.leave(*socket);
        }
    }

    /// Handles the end of a session: of a client with a WebSocket, of a WebSocket that was to
    /// replace polls, or of a connection with a poll. A poll that is cut off ends its client.
    pub fn closed(&mut self, shared: &mut Shared, session: SessionId) {
        self.posts.remove(&session);
        self.end_probe(shared, session);
        self.end_cut_off(shared, session);
        self.end_sockets(shared, session);
        self.partials.take(session);
    }

    /// Ends the client whose poll waits on the connection of a session.
    fn end_cut_off(&mut self, shared: &mut Shared, session: SessionId) {
        if let Some(client) = shared.polls.waiting(session).map(|poll| poll.client) {
            shared.polls.end_wait(client);
            self.end_polling(shared, client, None);
        }
    }

    fn end_probe(&mut self, shared: &mut Shared, session: SessionId) {
        if let Some(probe) = self.probes.remove(&session)
            && let Some(client) = shared.polls.get_mut(probe.client)
        {
            client.probe = SessionId::NONE;
        }
    }

    /// Returns when [`Self::collect`] must run at the latest.
    pub fn wakes_at(&self) -> Option<Tick> {
        self.partials_due
    }

    /// Returns the memory of the tables, in bytes.
    pub fn bytes(&self) -> usize {
        self.further.capacity() * size_of::<(SessionId, Vec<SessionId>)>()
            + self.partials.bytes()
            + self.probes.capacity() * size_of::<(SessionId, UpgradeProbe)>()
            + self.auths.capacity() * size_of::<(SessionId, Box<str>)>()
            + self.posts.capacity() * size_of::<(SessionId, polling::PostPlace)>()
            + self.rejoins.capacity() * size_of::<(SessionId, u32)>()
            + self.newcomers.capacity() * size_of::<SessionId>()
            + self.answers.iter().map(|answer| answer.body.len()).sum::<usize>()
            + self.held
    }

    /// Returns the bytes held whatever the number of clients.
    pub fn fixed_bytes(&self) -> usize {
        self.rates.bytes() + self.departures.capacity() * size_of::<(Vec<u8>, Vec<u8>)>()
    }

    /// Panics unless all tables are those of live sessions. For tests.
    pub fn check_invariants(&self, is_live: impl Fn(SessionId) -> bool) {
        for session in self.further.keys().chain(self.further.values().flatten()) {
            assert!(is_live(*session), "a further socket of {session:?}, which has ended");
        }
        for session in self.auths.keys().chain(self.rejoins.keys()).chain(self.probes.keys()) {
            assert!(is_live(*session), "facts of {session:?}, which has ended");
        }
        for session in self.posts.keys().chain(self.partials.clients()) {
            assert!(is_live(*session), "packets of {session:?}, which has ended");
        }
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.further.shrink_to_fit();
        self.partials.shrink();
        self.probes.shrink_to_fit();
        self.auths.shrink_to_fit();
        self.posts.shrink_to_fit();
        self.newcomers.shrink_to_fit();
    }
}

/// Begins a client: its time counts from now.
fn begin(shared: &mut Shared, session: SessionId, now: Tick) {
    if let Some(own) = shared.sessions.get_mut(session) {
        (own.since, own.protocol_state) = (now, 0);
    }
}

/// Returns the number of whole ping intervals since a client began.
fn intervals(own: &Session, now: Tick, limits: &Limits) -> u32 {
    let interval = Tick::count(limits.socketio_ping_interval).max(1);
    now.distance_from(own.since).max(0) as u32 / interval
}

/// Returns the time of a client's last ping, or of its beginning.
fn last_ping(own: &Session, now: Tick, limits: &Limits) -> Tick {
    let passed = intervals(own, now, limits);
    let behind = (passed as u8).wrapping_sub(own.protocol_state) & PINGS;
    let sent = passed - u32::from(behind).min(passed);
    own.since.plus(sent * Tick::count(limits.socketio_ping_interval))
}

/// Returns when a client must be looked at next.
fn wakes(own: &Session, now: Tick, limits: &Limits) -> Tick {
    let is_pinged = own.protocol_state & PINGED != 0;
    let wait = if is_pinged { limits.socketio_ping_timeout } else { limits.socketio_ping_interval };
    let due = last_ping(own, now, limits).plus(Tick::count(wait).max(1));
    let connects_by = own.since.plus(Tick::count(limits.socketio_connect_timeout));
    match own.protocol_state & HAS_CONNECTED == 0 && connects_by.distance_from(due) < 0 {
        true => connects_by,
        false => due,
    }
}

/// Returns true if a client whose time has come is to be closed: it has not answered a ping, or has
/// connected to no namespace in time.
fn is_over(own: &Session, now: Tick, limits: &Limits) -> bool {
    let connects_by = own.since.plus(Tick::count(limits.socketio_connect_timeout));
    let is_late = own.protocol_state & HAS_CONNECTED == 0 && connects_by.distance_from(now) <= 0;
    own.protocol_state & PINGED != 0 || is_late
}

/// Notes that a client is pinged now.
fn ping(shared: &mut Shared, session: SessionId, now: Tick, limits: &Limits) {
    let own = shared.sessions.get(session);
    let count = intervals(&own, now, limits) as u8 & PINGS;
    if let Some(own) = shared.sessions.get_mut(session) {
        own.protocol_state = own.protocol_state & !PINGS | count | PINGED;
    }
}
