//! Sessions: who is talked with. A connection is one way to reach a session.
//!
//! A session is attached to at most one connection at a time, and may outlive it. Channels, fan-out
//! and labels know sessions by their place in this table; a [`SessionId`] also carries the serial
//! number, by which an id of a previous owner of the place misses.

use std::net::SocketAddr;
use std::time::Duration;

use super::encoding::Encoding;
use crate::clock::{Tick, Time};
use crate::service::ConnectionId;

/// Names a session for as long as it lives, and nobody afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The place in the table, which another session may have later.
    pub index: u32,
    /// Counts sessions from 1. It is the generation of the place, and what CLIENT ID tells.
    pub serial: u32,
}

impl SessionId {
    /// Nobody: the sender of a datagram has no session.
    pub const NONE: SessionId = SessionId { index: u32::MAX, serial: 0 };
}

/// What the hub knows of a session besides its subscriptions: 20 bytes.
#[derive(Clone, Copy)]
pub struct Session {
    /// 0: the place is free.
    pub serial: u32,
    /// How to reach it; of a free place, the next free one.
    connection: u32,
    pub since: Tick,
    /// Where it comes from, by IPv4: the kernel no longer tells once both sides have closed.
    /// 0.0.0.0: by IPv6, which the kernel is asked for.
    address: [u8; 4],
    port: u16,
    /// Facts in the lower half, the encoding in the upper.
    facts: u8,
    /// What its protocol keeps of it. A protocol that needs more has a table of its own, by session.
    pub protocol_state: u8,
}

const _: () = assert!(size_of::<Session>() == 20);
const _: () = assert!(Encoding::ALL.len() <= 1 << (u8::BITS - ENCODING_SHIFT));

const ENCODING_SHIFT: u32 = 4;

// Facts about a session.

/// Has given the password, or there is none.
pub const AUTHENTICATED: u8 = 1;
/// Came by the operator's listener, for as long as it lasts.
pub const OPERATOR: u8 = 1 << 1;
/// Its next command was put off: see [`Waiting`](super::waiting::Waiting).
pub const WAITING: u8 = 1 << 2;
/// That command comes again, and its turn has come.
pub const RESUMED: u8 = 1 << 3;

/// No connection, no session, no further free place.
const NOTHING: u32 = u32::MAX;

const NOBODY: Session =
    Session { serial: 0, connection: NOTHING, since: Tick(0), address: [0; 4], port: 0, facts: 0, protocol_state: 0 };

impl Session {
    pub fn is(&self, fact: u8) -> bool {
        self.facts & fact != 0
    }

    pub fn put(&mut self, fact: u8, on: bool) {
        self.facts = if on { self.facts | fact } else { self.facts & !fact };
    }

    /// What it is sent messages as.
    pub fn encoding(&self) -> Encoding {
        Encoding::ALL[usize::from(self.facts >> ENCODING_SHIFT)]
    }

    pub fn set_encoding(&mut self, encoding: Encoding) {
        self.facts = self.facts & ((1 << ENCODING_SHIFT) - 1) | (encoding as u8) << ENCODING_SHIFT;
    }

    /// How to reach it at present.
    pub fn connection(&self) -> Option<ConnectionId> {
        (self.connection != NOTHING && self.serial != 0).then_some(ConnectionId(self.connection))
    }

    /// Where it comes from, if by IPv4.
    pub fn peer(&self) -> Option<SocketAddr> {
        (self.address != [0; 4]).then(|| SocketAddr::from((self.address, self.port)))
    }

    pub fn age(&self, now: Time) -> Duration {
        Tick::LENGTH * now.tick().distance_from(self.since).max(0) as u32
    }
}

pub struct Sessions {
    table: Vec<Session>,
    /// The first free place; the others follow from there.
    free: u32,
    live: usize,
    /// Serial number of the latest.
    seen: u32,
    /// By connection: the place of the session attached to it.
    attached: Vec<u32>,
    /// Room to reserve at once, so that the tables never move.
    expected: usize,
}

impl Sessions {
    /// What each session takes up, and the entry of its connection.
    pub const BYTES_EACH: usize = size_of::<Session>() + size_of::<u32>();

    pub fn new(expected: usize) -> Sessions {
        Sessions { table: Vec::new(), free: NOTHING, live: 0, seen: 0, attached: Vec::new(), expected }
    }

    /// A new session, attached to a connection that has none.
    pub fn open(&mut self, connection: ConnectionId, peer: Option<SocketAddr>, now: Tick) -> SessionId {
        self.seen = self.seen.wrapping_add(1).max(1);
        let (address, port) = match peer {
            Some(SocketAddr::V4(peer)) => (peer.ip().octets(), peer.port()),
            _ => ([0; 4], 0),
        };
        let session = Session { serial: self.seen, since: now, address, port, ..NOBODY };
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
        let id = SessionId { index, serial: self.seen };
        self.attach(id, connection);
        id
    }

    /// Has a session reached by another connection from now on.
    pub fn attach(&mut self, session: SessionId, connection: ConnectionId) {
        let slot = connection.0 as usize;
        self.detach(session);
        if let Some(own) = self.get_mut(session) {
            own.connection = connection.0;
            if slot >= self.attached.len() {
                reserve(&mut self.attached, self.expected.max(slot + 1));
                self.attached.resize(slot + 1, NOTHING);
            }
            self.attached[slot] = session.index;
        }
    }

    /// A session has no connection for now.
    pub fn detach(&mut self, session: SessionId) {
        let Some(own) = self.get_mut(session) else { return };
        let slot = std::mem::replace(&mut own.connection, NOTHING);
        if let Some(attached) = self.attached.get_mut(slot as usize) {
            *attached = NOTHING;
        }
    }

    /// Ends a session. Whatever others hold of its id misses from now on.
    pub fn close(&mut self, session: SessionId) {
        if self.get(session).serial == 0 {
            return;
        }
        self.detach(session);
        self.table[session.index as usize] = Session { connection: self.free, ..NOBODY };
        self.free = session.index;
        self.live -= 1;
    }

    /// The session attached to a connection, or nobody.
    pub fn of(&self, connection: ConnectionId) -> SessionId {
        match self.attached.get(connection.0 as usize) {
            Some(&index) if index != NOTHING => self.at(index),
            _ => SessionId::NONE,
        }
    }

    /// The id of the session at a place.
    pub fn at(&self, index: u32) -> SessionId {
        self.table.get(index as usize).map_or(SessionId::NONE, |own| SessionId { index, serial: own.serial })
    }

    /// What is known of a session; of one that has ended, nothing.
    pub fn get(&self, session: SessionId) -> Session {
        self.table.get(session.index as usize).filter(|own| own.serial == session.serial).copied().unwrap_or(NOBODY)
    }

    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.table.get_mut(session.index as usize).filter(|own| own.serial == session.serial && own.serial != 0)
    }

    /// How to reach the session at a place, and what it is to be sent.
    pub fn route(&self, index: u32) -> Option<(ConnectionId, Encoding)> {
        let own = self.table.get(index as usize)?;
        Some((own.connection()?, own.encoding()))
    }

    /// Sessions that live.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Places that there are, free ones included: for walks in slices.
    pub fn places(&self) -> u32 {
        self.table.len() as u32
    }

    pub fn bytes(&self) -> usize {
        self.table.len() * size_of::<Session>() + self.attached.len() * size_of::<u32>()
    }

    /// Gives all memory back once nobody is left.
    pub fn shrink(&mut self) {
        if self.live == 0 {
            *self = Sessions { seen: self.seen, ..Sessions::new(self.expected) };
        }
    }

    /// Sessions and connections name each other, and every place is either free or taken.
    pub fn check_invariants(&self) {
        let mut free = 0;
        let mut next = self.free;
        while next != NOTHING {
            let own = &self.table[next as usize];
            assert_eq!(own.serial, 0, "a free place has an owner");
            (next, free) = (own.connection, free + 1);
            assert!(free <= self.table.len(), "free places in a circle");
        }
        assert_eq!(free + self.live, self.table.len(), "places free and taken");
        for (own, index) in self.table.iter().zip(0..).filter(|(own, _)| own.serial != 0) {
            if let Some(ConnectionId(slot)) = own.connection() {
                assert_eq!(self.attached[slot as usize], index, "its connection has another session");
            }
        }
        for (&index, slot) in self.attached.iter().zip(0..).filter(|(index, _)| **index != NOTHING) {
            assert_eq!(self.table[index as usize].connection, slot, "its session has another connection");
        }
    }
}

/// Room for all at once: what is not used yet costs no memory, and moving would leave holes in the
/// heap.
fn reserve<T>(table: &mut Vec<T>, expected: usize) {
    if table.len() == table.capacity() {
        table.reserve_exact(expected.max(table.len() + 1) - table.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_outlives_its_connections_and_an_old_id_misses() {
        let mut sessions = Sessions::new(4);
        let (one, other) = (ConnectionId(7), ConnectionId(2));
        let first = sessions.open(one, None, Tick(0));
        assert_eq!((sessions.of(one), sessions.route(first.index).unwrap().0), (first, one));
        sessions.detach(first);
        assert_eq!((sessions.of(one), sessions.route(first.index)), (SessionId::NONE, None));
        sessions.attach(first, other);
        sessions.attach(first, one);
        assert_eq!((sessions.of(other), sessions.of(one)), (SessionId::NONE, first), "at most one connection");
        sessions.check_invariants();
        sessions.close(first);
        let second = sessions.open(other, Some("10.0.0.1:5".parse().unwrap()), Tick(3));
        assert_eq!(second.index, first.index, "the place is used again");
        assert!(sessions.get(first).serial == 0 && sessions.get_mut(first).is_none());
        sessions.close(first);
        sessions.attach(first, one);
        assert_eq!((sessions.len(), sessions.of(one), sessions.of(other)), (1, SessionId::NONE, second));
        assert_eq!(sessions.get(second).peer(), Some("10.0.0.1:5".parse().unwrap()));
        sessions.check_invariants();
        sessions.close(second);
        sessions.shrink();
        assert_eq!((sessions.bytes(), sessions.len()), (0, 0));
        assert!(sessions.open(one, None, Tick(0)).serial > second.serial, "ids grow for ever");
    }

    /// Against a list: whatever opens, moves and closes.
    #[test]
    fn sessions_and_connections_agree_whatever_happens() {
        for seed in 0..16 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut sessions = Sessions::new(0);
            let mut model: Vec<(SessionId, Option<u32>)> = Vec::new();
            for _ in 0..500 {
                let slot = random.u32(..12);
                let free = model.iter().all(|(_, at)| *at != Some(slot));
                let chosen = (!model.is_empty()).then(|| random.usize(..model.len()));
                match (random.u32(..4), chosen) {
                    (0, _) if free => model.push((sessions.open(ConnectionId(slot), None, Tick(0)), Some(slot))),
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
                    let expected = model.iter().find(|(_, at)| *at == Some(slot)).map_or(SessionId::NONE, |one| one.0);
                    assert_eq!(sessions.of(ConnectionId(slot)), expected, "seed {seed}");
                }
            }
        }
    }
}
