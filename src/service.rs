//! What a listener serves: the extension point. A service is a small file that implements [`Service`].
//!
//! A service is sans-IO: it is given bytes and the time, and says what it used of them, what it puts
//! out, and when it wants to be woken. It never sees a socket, and it cannot block the loop but by
//! being slow. One value of it serves every connection and datagram of its listeners.
//!
//! The rule that ties the calls: for each connection come one [`Service::connected`], any number of
//! [`Service::receive`], and one [`Service::closed`], after which another connection may have its
//! number. [`Service::collect`] comes once a turn, after all input.

pub mod discard;
pub mod echo;
pub mod hello;
pub mod server;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::clock::{Tick, Time};
use crate::codec::line;
use crate::connection::Reason;
use crate::outbox::Outbox;
use server::{Parting, Server};

/// The number of a connection: nobody else's until [`Service::closed`] has told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u32);

pub trait Service {
    /// A peer connected, from [`Reply::peer`]: what to greet it with.
    fn connected(&mut self, _reply: &mut Reply<'_>) {}

    /// Serves the message at the front of a stream's input, if a whole one is there. The service may
    /// change the bytes of a message that it serves. The first `scanned` bytes are as they were when
    /// the service last found them [`Taken::Incomplete`].
    fn receive(&mut self, input: &mut [u8], scanned: usize, reply: &mut Reply<'_>, server: &mut dyn Server) -> Taken;

    /// The peer has sent its last byte, and `rest` is no whole message. True where the end of the
    /// stream completes it.
    fn ended(&mut self, _rest: &mut [u8], _reply: &mut Reply<'_>) -> bool {
        false
    }

    /// One datagram, from [`Reply::peer`]. What is appended to `reply` goes back as one datagram;
    /// nothing appended, nothing sent.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, server: &mut dyn Server);

    /// Whether a connection waits for what others send, so that its silence is no fault.
    fn listens(&self, _connection: ConnectionId) -> bool {
        false
    }

    /// Appends what a newcomer is told that finds no slot free.
    fn full(&self, _out: &mut Vec<u8>) {}

    /// Appends what tells a peer that its connection is about to be closed and why, where the
    /// protocol can carry that.
    fn farewell(&self, _connection: ConnectionId, _reason: Reason, _out: &mut Vec<u8>) {}

    /// A connection has had its last answer: it is sent no more, and ends when the peer has what it
    /// is owed.
    fn closing(&mut self, _connection: ConnectionId) {}

    /// A connection ended; its number may be another's from now on.
    fn closed(&mut self, _connection: ConnectionId, _parting: &Parting) {}

    /// Whether [`Self::closed`] is to be told the address and the bytes of the connection, which the
    /// kernel must be asked for.
    fn remembers_closed(&self) -> bool {
        false
    }

    /// Whether there is output that [`Self::collect`] has not given yet.
    fn has_output(&self) -> bool {
        false
    }

    /// When [`Self::collect`] must be called at the latest. `None`: the service waits for no moment.
    fn wakes_at(&self) -> Option<Tick> {
        None
    }

    /// Puts out what is for others than those who asked, up to the turn's budget: bytes, closes, and
    /// connections to go on with. Called once a turn.
    fn collect(&mut self, _output: &mut Output<'_>) {}

    /// Bytes held for sessions, for the ledger. Asked once a turn, so O(1).
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

/// What became of the front of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A message of so many bytes, its framing included, was served or refused.
    Message(usize),
    /// Part of a message, or nothing.
    Incomplete,
    /// There is a message, and it must wait. The connection is read no more until
    /// [`Output::resume`]; then the same bytes come again.
    Later,
}

/// Serves the line at the front of some input. A line longer than `max-line` is told so, and the
/// connection closes.
pub fn receive_line(
    input: &mut [u8],
    scanned: usize,
    reply: &mut Reply<'_>,
    server: &dyn Server,
    serve: impl FnOnce(&[u8], &mut Reply<'_>),
) -> Taken {
    let max = server.limits().max_line;
    match line::decode(input, scanned, max) {
        line::Decoded::Line { line, length } => {
            serve(line, reply);
            Taken::Message(length)
        }
        line::Decoded::Incomplete => Taken::Incomplete,
        line::Decoded::TooLong => {
            reply.send(format!("error: line longer than {max} bytes\r\n").as_bytes());
            reply.close_for(Reason::LineTooLong);
            Taken::Message(input.len())
        }
    }
}

/// Where a service puts output for connections of its choice. Bytes are written once, however many
/// connections they go to.
pub struct Output<'a> {
    pub now: Time,
    pub server: &'a mut dyn Server,
    outbox: &'a mut Outbox,
    /// Writes that this turn still has room for.
    writes: usize,
    /// And their bytes.
    bytes: usize,
    /// Nothing has been delivered yet.
    first: bool,
}

impl<'a> Output<'a> {
    pub fn new(
        now: Time,
        server: &'a mut dyn Server,
        outbox: &'a mut Outbox,
        writes: usize,
        bytes: usize,
    ) -> Output<'a> {
        Output { now, server, outbox, writes, bytes, first: true }
    }

    /// Whether a delivery of so many bytes would be made. What is larger than any turn has room for
    /// goes alone.
    pub fn has_room(&self, length: usize) -> bool {
        self.writes > 0 && (length <= self.bytes || self.first)
    }

    /// Where encoders append; the range since then is for [`Self::deliver`].
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.outbox.bytes_mut()
    }

    /// Sends a range of the bytes to a connection. False, and nothing sent, when the turn has no
    /// room left.
    pub fn deliver(&mut self, connection: ConnectionId, range: &Range<u32>) -> bool {
        if !self.has_room(range.len()) {
            return false;
        }
        self.writes -= 1;
        self.bytes = self.bytes.saturating_sub(range.len());
        self.first = false;
        self.outbox.deliver(connection.0, range.clone());
        true
    }

    /// Closes a connection once it has been sent what it is owed.
    pub fn close(&mut self, connection: ConnectionId) {
        self.outbox.close(connection.0, Reason::ServiceClosed);
    }

    /// Goes on with a connection whose message was taken [`Taken::Later`].
    pub fn resume(&mut self, connection: ConnectionId) {
        self.outbox.resume(connection.0);
    }
}

/// Makes one value of a service.
pub type Constructor = fn(&Options) -> Box<dyn Service>;

/// What services are told when they are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What peers of the hub must say before they may do anything; `None`: only this machine is
    /// served.
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

/// Where a service puts its answer. The bytes lie in the loop's own buffer of this turn, and leave
/// at its end.
pub struct Reply<'a> {
    /// The connection that asks; `None` for a datagram.
    pub connection: Option<ConnectionId>,
    /// Where it comes from: told with a new connection and with a datagram.
    pub peer: Option<SocketAddr>,
    /// It came by the operator's listener: told with a new connection.
    pub is_operator: bool,
    pub now: Time,
    bytes: &'a mut Vec<u8>,
    start: usize,
    empty_datagram: bool,
    late: bool,
    close: Option<Reason>,
    trust: Option<bool>,
}

impl<'a> Reply<'a> {
    /// To a stream.
    pub fn to(connection: ConnectionId, now: Time, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        let start = bytes.len();
        Reply {
            connection: Some(connection),
            peer: None,
            is_operator: false,
            now,
            bytes,
            start,
            empty_datagram: false,
            late: false,
            close: None,
            trust: None,
        }
    }

    /// To a datagram.
    pub fn to_datagram(peer: SocketAddr, now: Time, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        let reply = Reply::to(ConnectionId(u32::MAX), now, bytes);
        Reply { connection: None, peer: Some(peer), ..reply }
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
        self.close_for(Reason::ServiceClosed);
    }

    /// The same, for a reason of the service's own. The first reason is the one that counts.
    pub fn close_for(&mut self, reason: Reason) {
        self.close.get_or_insert(reason);
    }

    /// A datagram comes at a time when it would have to wait: it is dropped, and counted.
    pub fn drop_late(&mut self) {
        self.late = true;
    }

    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Whether the peer is known well enough to be owed as much as others. One that is not may be
    /// owed [`UNTRUSTED_OUTPUT_MAX`](crate::limits::UNTRUSTED_OUTPUT_MAX), and must become known by
    /// the deadline of a first message. Connections are trusted unless this is called.
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

    /// What has been appended so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
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
    use super::server::NoServer;
    use super::*;

    /// What `service` answers to a message, and to the same as a datagram (`None`: nothing is sent).
    pub fn answers(service: &mut dyn Service, message: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut stream, mut datagram) = (Vec::new(), Vec::new());
        let mut reply = Reply::to(ConnectionId(1), Time::ZERO, &mut stream);
        let mut input = message.to_vec();
        // Services of lines want theirs to end.
        if service.receive(&mut input, 0, &mut reply, &mut NoServer::default()) == Taken::Incomplete {
            input.push(b'\n');
            service.receive(&mut input, 0, &mut reply, &mut NoServer::default());
        }
        let from = "127.0.0.1:1000".parse().unwrap();
        let mut reply = Reply::to_datagram(from, Time::ZERO, &mut datagram);
        service.datagram(message, &mut reply, &mut NoServer::default());
        let answered = reply.answers_datagram();
        (stream, answered.then_some(datagram))
    }
}
