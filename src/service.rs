//! What a listener serves: the extension point. A service is a small file that implements [`Service`].
//!
//! A service is sans-IO: it is given messages and appends bytes to a [`Reply`]. It never sees a socket, a
//! token or a clock, and it cannot block the loop but by being slow. One value of it serves every
//! connection and datagram of its listeners.

pub mod discard;
pub mod echo;
pub mod hello;
pub mod hub;
pub mod server;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::clock::Time;
use crate::codec::{Decoded, Framing, FramingLimits, Invalid};
use crate::connection::Reason;
use crate::outbox::Outbox;
use server::{Parting, Server};

pub trait Service {
    /// How messages are found in a stream.
    fn framing(&self) -> Framing;

    /// Serves the message at the front of `bytes`, if a whole one is there: framing and [`Self::message`] in one, for services that can do
    /// both in one pass. The first `scanned` bytes are known to hold no end of one.
    fn take(&mut self, bytes: &[u8], scanned: usize, limits: &FramingLimits, reply: &mut Reply<'_>) -> Taken {
        take_by_framing(self, bytes, scanned, limits, reply)
    }

    /// A peer connected, from [`Reply::peer`]: what to greet it with.
    fn connected(&mut self, _reply: &mut Reply<'_>) {}

    /// One whole message of a stream.
    fn message(&mut self, message: &[u8], reply: &mut Reply<'_>);

    /// Answers the message that asked for it by [`Reply::consult`], before the session's next message is taken.
    fn consult(&mut self, _server: &mut dyn Server, _reply: &mut Reply<'_>) {}

    /// One datagram, from [`Reply::peer`]. What is appended to `reply` goes back as one datagram; nothing appended, nothing sent.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>);

    /// Whether a session waits for what others send, so that to say nothing is no fault of its.
    fn listens(&self, _session: u32) -> bool {
        false
    }

    /// Appends what a newcomer is told that finds no slot free.
    fn full(&self, _out: &mut Vec<u8>) {}

    /// Appends what tells a session that it is about to be closed and why, where its protocol can carry that.
    fn farewell(&self, _session: u32, _reason: Reason, _out: &mut Vec<u8>) {}

    /// A session has had its last answer: it is sent no more, and its connection ends when the peer has what it is owed.
    fn closing(&mut self, _session: u32) {}

    /// The connection of a session ended; its number may be another's from now on.
    fn closed(&mut self, _session: u32, _parting: &Parting) {}

    /// Whether [`Self::closed`] is to be told the address and the bytes of the connection, which the kernel must be asked for.
    fn remembers_closed(&self) -> bool {
        false
    }

    /// Whether there is output that [`Self::poll_output`] has not given yet.
    fn has_output(&self) -> bool {
        false
    }

    /// Whether so much output waits that no more input should be taken first.
    fn is_backlogged(&self) -> bool {
        false
    }

    /// Puts out what is for other sessions than the one that asked, up to the turn's budget. Called once a turn.
    fn poll_output(&mut self, _deliveries: &mut Deliveries<'_>) {}

    /// Bytes held for sessions, for the ledger.
    fn bytes(&self) -> usize {
        0
    }

    /// Bytes held however few sessions there are: bounded histories and tables.
    fn fixed_bytes(&self) -> usize {
        0
    }

    /// Gives back to the system what is not needed: called some time after a load drop.
    fn shrink(&mut self) {}

    /// Panics where the service has broken its own rules. For tests: it may walk everything.
    fn check_invariants(&self) {}

    /// A line to try for people: by a stream, or by a datagram.
    fn example(&self, host: &str, port: u16, stream: bool) -> String {
        if stream { format!("nc {host} {port}") } else { format!("nc -u {host} {port}") }
    }
}

/// [`Service::take`] in two steps: the framing finds the message, the service answers it.
pub fn take_by_framing<S: Service + ?Sized>(
    service: &mut S,
    bytes: &[u8],
    scanned: usize,
    limits: &FramingLimits,
    reply: &mut Reply<'_>,
) -> Taken {
    match service.framing().decode(bytes, scanned, limits) {
        Decoded::Message { message, length } => {
            service.message(message, reply);
            Taken::Message { length }
        }
        Decoded::Incomplete => Taken::Incomplete,
        Decoded::Invalid(invalid) => Taken::Invalid(invalid),
    }
}

/// What became of the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A message of so many bytes, its framing included, was served.
    Message {
        length: usize,
    },
    Incomplete,
    Invalid(Invalid),
}

/// Where a service puts output for sessions of its choice. Bytes are written once, whoever many they go to.
pub struct Deliveries<'a> {
    outbox: &'a mut Outbox,
    /// Deliveries that this turn still has room for.
    left: usize,
    /// And their bytes.
    bytes_left: usize,
    /// Nothing has been delivered yet.
    first: bool,
}

impl<'a> Deliveries<'a> {
    pub fn new(outbox: &'a mut Outbox, left: usize, bytes_left: usize) -> Deliveries<'a> {
        Deliveries { outbox, left, bytes_left, first: true }
    }

    /// Whether a delivery of so many bytes would be made. What is larger than any turn has room for goes alone.
    pub fn has_room(&self, length: usize) -> bool {
        self.left > 0 && (length <= self.bytes_left || self.first)
    }

    /// Appends bytes; returns where they are, for [`Self::deliver`].
    pub fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.outbox.position();
        self.outbox.bytes_mut().extend_from_slice(bytes);
        start..self.outbox.position()
    }

    /// Bytes that have been put, to change some of them.
    pub fn bytes_mut(&mut self, range: &Range<u32>) -> &mut [u8] {
        &mut self.outbox.bytes_mut()[range.start as usize..range.end as usize]
    }

    /// Sends a range of bytes to a session. False, and nothing sent, when the turn has no room left.
    pub fn deliver(&mut self, session: u32, range: &Range<u32>) -> bool {
        if !self.has_room(range.len()) {
            return false;
        }
        self.left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(range.len());
        self.first = false;
        self.outbox.deliver(session, range.clone());
        true
    }
}

/// Makes one value of a service.
pub type Constructor = fn(&Options) -> Box<dyn Service>;

/// What services are told when they are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What peers of the hub must say before they may do anything; `None`: only this machine is served.
    pub password: Option<Secret>,
    /// Datagrams a second that one source may have answered; 0: any number.
    pub datagram_rate: u32,
    /// Connections that there may be, to reserve room for.
    pub max_connections: usize,
    /// The time of day at [`Time::ZERO`], since 1970 in UTC.
    pub unix_start: Duration,
}

/// A text that is never shown: it has no Display, and its Debug tells nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Box<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Every service by its name in `--listen`. Add yours here.
pub const SERVICES: &[(&str, Constructor)] = &[
    ("hello", |_| Box::new(hello::Hello)),
    ("echo", |_| Box::new(echo::Echo)),
    ("discard", |_| Box::new(discard::Discard)),
    ("hub", |options| Box::new(hub::Hub::new(options))),
];

/// Where a service puts its answer. The bytes lie in the loop's own buffer of this turn, and leave at its end.
pub struct Reply<'a> {
    /// Who asks: the number of its connection, reused after it closed. 0 for a datagram, which has no session.
    pub session: u32,
    /// Where it comes from: told with a new connection and with a datagram.
    pub peer: Option<SocketAddr>,
    /// It came by the operator's listener: told with a new connection.
    pub is_operator: bool,
    pub now: Time,
    bytes: &'a mut Vec<u8>,
    start: usize,
    empty_datagram: bool,
    close: Option<Reason>,
    consult: bool,
    trust: Option<bool>,
}

impl<'a> Reply<'a> {
    pub fn new(session: u32, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        let start = bytes.len();
        Reply {
            session,
            peer: None,
            is_operator: false,
            now: Time::ZERO,
            bytes,
            start,
            empty_datagram: false,
            close: None,
            consult: false,
            trust: None,
        }
    }

    pub fn at(self, now: Time) -> Reply<'a> {
        Reply { now, ..self }
    }

    pub fn from(self, peer: SocketAddr) -> Reply<'a> {
        Reply { peer: Some(peer), ..self }
    }

    pub fn by_operator(self, is_operator: bool) -> Reply<'a> {
        Reply { is_operator, ..self }
    }

    /// Appends to the answer.
    pub fn send(&mut self, bytes: &[u8]) {
        self.empty_datagram |= bytes.is_empty();
        self.bytes.extend_from_slice(bytes);
    }

    /// Where the answer is appended to, for encoders.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.bytes
    }

    /// Closes the connection once the answer is sent. No meaning for datagrams.
    pub fn close(&mut self) {
        self.close.get_or_insert(Reason::ServiceClosed);
    }

    /// The same, because an operator wants its connection gone.
    pub fn close_as_killed(&mut self) {
        self.close = Some(Reason::Killed);
    }

    /// The answer needs the server: has [`Service::consult`] called.
    pub fn consult(&mut self) {
        self.consult = true;
    }

    pub fn wants_consultation(&self) -> bool {
        self.consult
    }

    /// Whether the peer is known well enough to have the usual limits. One that is not may send little at a time, and be owed little:
    /// [`UNTRUSTED_INPUT_MAX`](crate::limits::UNTRUSTED_INPUT_MAX). Connections are trusted unless this is called.
    pub fn trust(&mut self, trusted: bool) {
        self.trust = Some(trusted);
    }

    pub fn changes_trust(&self) -> Option<bool> {
        self.trust
    }

    /// Takes back what was appended since it was `length` bytes long.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start + length);
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the connection is to be closed once the answer is sent, if it is.
    pub fn closes_for(&self) -> Option<Reason> {
        self.close
    }

    /// Whether there is an answer at all: a datagram may be answered by an empty one.
    pub fn answers_datagram(&self) -> bool {
        self.empty_datagram || !self.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `service` answers to a message, and to the same as a datagram (`None`: nothing is sent).
    pub fn answers(service: &mut dyn Service, message: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut stream, mut datagram) = (Vec::new(), Vec::new());
        service.message(message, &mut Reply::new(1, &mut stream));
        let mut reply = Reply::new(0, &mut datagram);
        service.datagram(message, &mut reply);
        let answered = reply.answers_datagram();
        (stream, answered.then_some(datagram))
    }
}
