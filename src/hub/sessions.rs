//! Sessions: the hub's clients. A connection is one way to reach a session.
//!
//! A session is attached to at most one connection at a time, and may outlive it. Channels, fan-out
//! and labels name a session by its slot in this table. A [`SessionId`] also carries a serial
//! number as the slot's generation, so a stale id misses after the slot has a new owner.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use super::encoding::Encoding;
use super::shares::{SessionSources, SourceKey};
use crate::clock::Tick;
use crate::service::ConnectionId;

/// The id of one session. It matches no session after that one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The slot in the table. A later session may reuse it.
    pub index: u32,
    /// The number of the session, counted from 1: the slot's generation, and the CLIENT ID.
    pub serial: u32,
}

impl SessionId {
    /// No session. The sender of a datagram has none.
    pub const NONE: SessionId = SessionId { index: u32::MAX, serial: 0 };
}

/// The protocol of a session's peer. It is told from the first bytes, and changes at most once
/// more, by an upgrade of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerProtocol {
    /// No complete first line yet.
    Unknown,
    Resp,
    Http,
    WebSocket,
    /// Server-sent events.
    Events,
    /// Socket.IO, by WebSocket or by polling.
    SocketIo,
}

impl PeerProtocol {
    /// The names, in the order of the arms.
    pub const NAMES: [&'static str; 6] =
        ["unknown", "resp", "http", "websocket", "events", "socketio"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Where the output of a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Connection(ConnectionId),
    /// The output waits for a poll of this client among [`PollClients`](super::polls::PollClients).
    Poll(u32),
}

/// A session without its subscriptions, in 24 bytes.
#[derive(Clone, Copy)]
pub struct Session {
    /// The number of the session; 0: the slot is free.
    pub serial: u32,
    /// The connection, or [`NOTHING`]. With the flag [`POLLS`]: a number among
    /// [`PollClients`](super::polls::PollClients). In a free slot: the next free slot.
    connection: u32,
    /// The time at which the session began.
    pub since: Tick,
    /// The peer's IPv4 address. It is stored because the kernel no longer reports it after both
    /// sides have closed. If the first byte is 0, the peer uses IPv6, and the hub asks the kernel
    /// instead. The other bytes and the port are then a hash of the peer's /64 network.
    address: [u8; 4],
    port: u16,
    facts: u8,
    /// The form in which the session gets its messages.
    pub encoding: Encoding,
    pub protocol: PeerProtocol,
    /// One byte for the session's protocol. A protocol that needs more keeps a table by session.
    pub protocol_state: u8,
    /// The number of the peer's User-Agent among [`SharedTexts`](super::texts::SharedTexts).
    pub agent: u8,
}

const _: () = assert!(size_of::<Session>() == 24);

/// Flag: the session has given the password, or no password is set.
pub const AUTHENTICATED: u8 = 1;
/// Flag: the session connected through the operator's listener.
pub const OPERATOR: u8 = 1 << 1;
/// Flag: the session's command was deferred. See [`Waiting`](super::waiting::Waiting).
pub const WAITING: u8 = 1 << 2;
/// Flag: the deferred command may now run when it is read again.
pub const RESUMED: u8 = 1 << 3;

/// Flag: a slow consumer misses messages and is not closed.
pub const DROPS: u8 = 1 << 4;
/// Flag: new subscriptions begin with the kept messages of their channel.
pub const RETAINED: u8 = 1 << 7;

/// Flag: the session has no connection of its own. Its output waits for the next poll.
pub const POLLS: u8 = 1 << 5;
/// Flag: a further namespace of a client, whose first session is attached to the connection.
pub const FURTHER: u8 = 1 << 6;

/// Stands for no connection, no session, or the end of the list of free slots.
const NOTHING: u32 = u32::MAX;

const NOBODY: Session = Session {
    serial: 0,
    connection: NOTHING,
    since: Tick(0),
    address: [0; 4],
    port: 0,
    facts: 0,
    encoding: Encoding::Resp2,
    protocol: PeerProtocol::Unknown,
    protocol_state: 0,
    agent: 0,
};

impl Session {
    pub fn is(&self, fact: u8) -> bool {
        self.facts & fact != 0
    }

    pub fn put(&mut self, fact: u8, on: bool) {
        self.facts = if on { self.facts | fact } else { self.facts & !fact };
    }

    /// Returns the connection, unless the session polls.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.destination()? {
            Destination::Connection(connection) => Some(connection),
            Destination::Poll(_) => None,
        }
    }

    /// Returns the way by which the session gets its output, or `None` if it gets none any more.
    pub fn destination(&self) -> Option<Destination> {
        let is_reached = self.connection != NOTHING && self.serial != 0;
        is_reached.then_some(match self.is(POLLS) {
            true => Destination::Poll(self.connection),
            false => Destination::Connection(ConnectionId(self.connection)),
        })
    }

    /// Returns the peer's address if it is an IPv4 address.
    pub fn peer(&self) -> Option<SocketAddr> {
        (self.address[0] != 0).then(|| SocketAddr::from((self.address, self.port)))
    }

    /// Returns the peer's source: its IPv4 address, or a hash of its IPv6 /64 network.
    fn source(&self) -> SourceKey {
        let address = u64::from(u32::from_be_bytes(self.address));
        let rest = if self.address[0] == 0 { self.port } else { 0 };
        address << 16 | u64::from(rest)
    }

    pub fn set_destination(&mut self, destination: Destination) {
        self.put(POLLS, matches!(destination, Destination::Poll(_)));
        self.connection = match destination {
            Destination::Connection(ConnectionId(slot)) => slot,
            Destination::Poll(number) => number,
        };
    }

    pub fn age(&self, now: Tick) -> Duration {
        Tick::LENGTH * now.distance_from(self.since).max(0) as u32
    }
}

/// The slab of all sessions.
pub struct Sessions {
    table: Vec<Session>,
    /// The first free slot: the head of a linked list.
    free: u32,
    /// Number of live sessions.
    live: usize,
    /// Number of live sessions by [`PeerProtocol`].
    by_protocol: [u32; PeerProtocol::NAMES.len()],
    /// Serial number of the newest session.
    seen: u32,
    /// Connection → slot of its session, or [`NOTHING`].
    attached: Vec<u32>,
    /// Number of entries to reserve at once, so the tables never move.
    expected: usize,
    /// The key of the hash of IPv6 networks. Peers choose their addresses.
    networks: RandomState,
}

impl Sessions {
    /// Memory of one session and of its connection's entry, in bytes.
    pub const BYTES_EACH: usize = size_of::<Session>() + size_of::<u32>();

    pub fn new(expected: usize) -> Sessions {
        Sessions {
            table: Vec::new(),
            free: NOTHING,
            live: 0,
            by_protocol: [0; PeerProtocol::NAMES.len()],
            seen: 0,
            attached: Vec::new(),
            expected,
            networks: RandomState::new(),
        }
    }

    /// Opens a session and attaches it to a connection that has none. Returns its id.
    pub fn open(
        &mut self,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        now: Tick,
    ) -> SessionId {
        self.seen = self.seen.wrapping_add(1).max(1);
        let (address, port) = match peer {
            Some(SocketAddr::V4(peer)) => (peer.ip().octets(), peer.port()),
            Some(SocketAddr::V6(peer)) => {
                // An IPv4 address within IPv6 has no /64 of its own.
                let network = match peer.ip().to_ipv4_mapped() {
                    Some(address) => u64::from(address.to_bits()),
                    None => (peer.ip().to_bits() >> 64) as u64 | 1 << 63,
                };
                let [a, b, c, d, e, ..] = self.networks.hash_one(network).to_be_bytes();
                ([0, a, b, c], u16::from_be_bytes([d, e]))
            }
            None => ([0; 4], 0),
        };
        let session = Session { serial: self.seen, since: now, address, port, ..NOBODY };
        let id = self.insert(session);
        self.attach(id, connection);
        id
    }

    /// Opens a session beside that of a peer, with its address, its facts and its protocol. It is
    /// attached to no connection, even if it is reached by one.
    pub fn open_beside(
        &mut self,
        other: SessionId,
        destination: Destination,
        now: Tick,
    ) -> SessionId {
        self.seen = self.seen.wrapping_add(1).max(1);
        let mut session = Session { serial: self.seen, since: now, ..self.get(other) };
        session.facts &= AUTHENTICATED | OPERATOR;
        (session.agent, session.protocol_state) = (0, 0);
        session.set_destination(destination);
        session.put(FURTHER, matches!(destination, Destination::Connection(_)));
        self.insert(session)
    }

    fn insert(&mut self, session: Session) -> SessionId {
        let index = self.free;
        if index == NOTHING {
            reserve(&mut self.table, self.expected);
            self.table.push(session);
        } else {
            self.free = self.table[index as usize].connection;
            self.table[index as usize] = session;
        }
        let index = if index == NOTHING { self.table.len() as u32 - 1 } else { index };
        self.live += 1;
        self.by_protocol[session.protocol as usize] += 1;
        SessionId { index, serial: session.serial }
    }

    /// Attaches a session to a connection, and detaches it from the previous one.
    pub fn attach(&mut self, session: SessionId, connection: ConnectionId) {
        let slot = connection.0 as usize;
        self.detach(session);
        if let Some(own) = self.get_mut(session) {
            own.set_destination(Destination::Connection(connection));
            if slot >= self.attached.len() {
                reserve(&mut self.attached, self.expected.max(slot + 1));
                self.attached.resize(slot + 1, NOTHING);
            }
            self.attached[slot] = session.index;
        }
    }

    /// Detaches a session from its connection, or from its polls.
    pub fn detach(&mut self, session: SessionId) {
        let Some(own) = self.get_mut(session) else { return };
        let connection = own.connection();
        own.connection = NOTHING;
        own.put(POLLS, false);
        let attached = connection.and_then(|slot| self.attached.get_mut(slot.0 as usize));
        if let Some(attached) = attached.filter(|attached| **attached == session.index) {
            *attached = NOTHING;
        }
    }

    /// Ends a session but keeps its slot, because it has subscriptions.
    pub fn retire(&mut self, session: SessionId) {
        self.detach(session);
        if let Some(own) = self.get_mut(session) {
            (own.protocol_state, own.agent) = (0, 0);
        }
    }

    /// Ends a session and frees its slot. Stale ids of it miss from now on.
    pub fn close(&mut self, session: SessionId) {
        if self.get(session).serial == 0 {
            return;
        }
        self.detach(session);
        self.by_protocol[self.get(session).protocol as usize] -= 1;
        self.table[session.index as usize] = Session { connection: self.free, ..NOBODY };
        self.free = session.index;
        self.live -= 1;
    }

    /// Returns the session attached to a connection, or [`SessionId::NONE`].
    pub fn of(&self, connection: ConnectionId) -> SessionId {
        match self.attached.get(connection.0 as usize) {
            Some(&index) if index != NOTHING => self.at(index),
            _ => SessionId::NONE,
        }
    }

    /// Returns the id of the session in a slot. A free slot's id has the serial number 0.
    pub fn at(&self, index: u32) -> SessionId {
        self.table
            .get(index as usize)
            .map_or(SessionId::NONE, |own| SessionId { index, serial: own.serial })
    }

    /// Returns a copy of a session. If it has ended, the copy has the serial number 0.
    pub fn get(&self, session: SessionId) -> Session {
        self.table
            .get(session.index as usize)
            .filter(|own| own.serial == session.serial)
            .copied()
            .unwrap_or(NOBODY)
    }

    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.table
            .get_mut(session.index as usize)
            .filter(|own| own.serial == session.serial && own.serial != 0)
    }

    /// Returns the destination and the encoding of the session in a slot, or `None` if it has none.
    pub fn destination(&self, index: u32) -> Option<(Destination, Encoding)> {
        let own = self.table.get(index as usize)?;
        Some((own.destination()?, own.encoding))
    }

    /// Sets the protocol of a session.
    pub fn set_protocol(&mut self, session: SessionId, protocol: PeerProtocol) {
        let Some(own) = self.get_mut(session) else { return };
        let before = std::mem::replace(&mut own.protocol, protocol);
        self.by_protocol[before as usize] -= 1;
        self.by_protocol[protocol as usize] += 1;
    }

    /// Returns the number of live sessions by protocol, in the order of [`PeerProtocol::NAMES`].
    pub fn by_protocol(&self) -> [u32; PeerProtocol::NAMES.len()] {
        self.by_protocol
    }

    /// Returns the number of connections with a session. Walks the whole table, so only tests call
    /// it.
    pub fn attached(&self) -> usize {
        self.attached.iter().filter(|index| **index != NOTHING).count()
    }

    /// Returns the serial number of the newest session.
    pub fn newest(&self) -> i64 {
        i64::from(self.seen)
    }

    /// Returns the number of live sessions.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns the number of slots, free ones included, for walks over all sessions.
    pub fn places(&self) -> u32 {
        self.table.len() as u32
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.table.len() * size_of::<Session>() + self.attached.len() * size_of::<u32>()
    }

    /// Frees all memory if no session is live.
    pub fn shrink(&mut self) {
        if self.live == 0 {
            *self = Sessions { seen: self.seen, ..Sessions::new(self.expected) };
        }
    }

    /// Panics unless sessions and connections name each other and every slot is free or taken.
    /// O(n).
    pub fn check_invariants(&self) {
        let mut free = 0;
        let mut next = self.free;
        while next != NOTHING {
            let own = &self.table[next as usize];
            assert_eq!(own.serial, 0, "a live session is in the list of free slots");
            (next, free) = (own.connection, free + 1);
            assert!(free <= self.table.len(), "the list of free slots has a cycle");
        }
        assert_eq!(free + self.live, self.table.len(), "a slot is neither free nor taken");
        let mut by_protocol = [0; PeerProtocol::NAMES.len()];
        let live = self.table.iter().filter(|own| own.serial != 0);
        live.for_each(|own| by_protocol[own.protocol as usize] += 1);
        assert_eq!(self.by_protocol, by_protocol, "the sessions by protocol are miscounted");
        let serials: HashSet<u32> =
            self.table.iter().map(|own| own.serial).filter(|serial| *serial != 0).collect();
        assert_eq!(serials.len(), self.live, "two live sessions have the same serial number");
        let own = self.table.iter().zip(0..).filter(|(own, _)| own.serial != 0);
        for (own, index) in own.filter(|(own, _)| !own.is(FURTHER)) {
            if let Some(ConnectionId(slot)) = own.connection() {
                assert_eq!(
                    self.attached[slot as usize], index,
                    "the session's connection names another session"
                );
            }
        }
        for (&index, slot) in self.attached.iter().zip(0..).filter(|(index, _)| **index != NOTHING)
        {
            assert_eq!(
                self.table[index as usize].connection, slot,
                "the connection's session names another connection"
            );
        }
    }
}

impl SessionSources for Sessions {
    fn source(&self, session: u32) -> SourceKey {
        self.table.get(session as usize).map_or(0, Session::source)
    }
}

/// Reserves room for all expected entries at once. Untouched pages cost no memory, while growing
/// step by step would leave holes in the heap.
fn reserve<T>(table: &mut Vec<T>, expected: usize) {
    if table.len() == table.capacity() {
        table.reserve_exact(expected.max(table.len() + 1) - table.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_outlives_its_connection_and_a_stale_id_misses() {
        let mut sessions = Sessions::new(4);
        let (one, other) = (ConnectionId(7), ConnectionId(2));
        let first = sessions.open(one, None, Tick(0));
        assert_eq!((sessions.of(one), sessions.get(first).connection()), (first, Some(one)));
        sessions.detach(first);
        assert_eq!((sessions.of(one), sessions.destination(first.index)), (SessionId::NONE, None));
        sessions.attach(first, other);
        sessions.attach(first, one);
        assert_eq!(
            (sessions.of(other), sessions.of(one)),
            (SessionId::NONE, first),
            "at most one connection"
        );
        sessions.check_invariants();
        sessions.close(first);
        let second = sessions.open(other, Some("10.0.0.1:5".parse().unwrap()), Tick(3));
        assert_eq!(second.index, first.index, "the slot is reused");
        assert!(sessions.get(first).serial == 0 && sessions.get_mut(first).is_none());
        sessions.close(first);
        sessions.attach(first, one);
        assert_eq!(
            (sessions.len(), sessions.of(one), sessions.of(other)),
            (1, SessionId::NONE, second)
        );
        assert_eq!(sessions.get(second).peer(), Some("10.0.0.1:5".parse().unwrap()));
        sessions.check_invariants();
        sessions.close(second);
        sessions.shrink();
        assert_eq!((sessions.bytes(), sessions.len()), (0, 0));
        assert!(
            sessions.open(one, None, Tick(0)).serial > second.serial,
            "serial numbers keep growing"
        );
    }

    #[test]
    fn random_operations_on_sessions_agree_with_a_list() {
        for seed in 0..16 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut sessions = Sessions::new(0);
            let mut model: Vec<(SessionId, Option<u32>)> = Vec::new();
            for _ in 0..500 {
                let slot = random.u32(..12);
                let free = model.iter().all(|(_, at)| *at != Some(slot));
                let chosen = (!model.is_empty()).then(|| random.usize(..model.len()));
                match (random.u32(..4), chosen) {
                    (0, _) if free => {
                        model.push((sessions.open(ConnectionId(slot), None, Tick(0)), Some(slot)))
                    }
                    (1, Some(at)) if free => {
                        sessions.attach(model[at].0, ConnectionId(slot));
                        model[at].1 = Some(slot);
                    }
                    (2, Some(at)) => {
                        sessions.detach(model[at].0);
                        model[at].1 = None;
                    }
                    (3, Some(at)) => sessions.close(model.swap_remove(at).0),
                    _ => {}
                }
                sessions.check_invariants();
                assert_eq!(sessions.len(), model.len());
                for slot in 0..12 {
                    let expected = model
                        .iter()
                        .find(|(_, at)| *at == Some(slot))
                        .map_or(SessionId::NONE, |one| one.0);
                    assert_eq!(sessions.of(ConnectionId(slot)), expected, "seed {seed}");
                }
            }
        }
    }
}
