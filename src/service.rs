//! The extension point: a service is a small file that implements [`Service`].
//!
//! A service is sans-IO. It gets bytes and the time. It returns the number of bytes used, its
//! output, and the time of its next wake-up. It never sees a socket, and it blocks the loop only
//! while it computes. One value of a service serves every connection and datagram of its listeners.
//!
//! The order of calls for each connection: one [`Service::connected`], any number of
//! [`Service::receive`], and one [`Service::closed`]. Then another connection may get the same
//! [`ConnectionId`]. A connection that the service has dialled begins with [`Service::dialled`].
//! [`Service::collect`] runs once per turn, after all input.

pub mod discard;
pub mod echo;
pub mod hello;
pub mod server;

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use crate::broker_settings::BrokerSettings;
use crate::clock::{Tick, Time};
use crate::codec::line;
use crate::connection::Reason;
use crate::demo::Demo;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::payload::Payload;
use crate::retain_rule::RetainRule;
use crate::routes::EventRoutes;
use server::{Parting, Server};

pub use crate::outbox::Dial;
pub use crate::secret::Secret;

/// The number of a connection. It is unique until [`Service::closed`] has reported the end of the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u32);

/// A protocol on top of the loop. Only [`Self::receive`] and [`Self::datagram`] are required.
pub trait Service {
    /// Handles a new connection from [`Reply::peer`]. Bytes appended to the reply are its greeting.
    fn connected(&mut self, _reply: &mut Reply<'_>) {}

    /// Handles the outcome of a dial that the service asked for with [`Output::dial`]: the peer's
    /// address, or the reason of the failure, such as "connection refused". After a success,
    /// [`Reply::connection`] is the connection, and bytes appended to the reply are the first that
    /// it sends. Its input comes by [`Self::receive`], and its end by [`Self::closed`].
    fn dialled(
        &mut self,
        _number: u32,
        _outcome: Result<SocketAddr, String>,
        _reply: &mut Reply<'_>,
    ) {
    }

    /// Serves the message at the front of a stream's input, if it is complete. The service may
    /// change the bytes of a message that it serves. The first `scanned` bytes have not changed
    /// since the service last returned [`Taken::Incomplete`] for them.
    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken;

    /// Handles the end of the stream, where `rest` is no complete message. Returns true if the end
    /// of the stream makes it complete.
    fn ended(&mut self, _rest: &mut [u8], _reply: &mut Reply<'_>) -> bool {
        false
    }

    /// Serves one datagram from [`Reply::peer`]. Bytes appended to `reply` go back as one datagram.
    /// If nothing is appended, nothing is sent.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, server: &mut dyn Server);

    /// Returns whether a connection is a subscriber. Subscribers have no idle timeout.
    fn listens(&self, _connection: ConnectionId) -> bool {
        false
    }

    /// Appends the error for a newcomer that finds no free slot, because of this setting.
    fn full(&self, _limit: &str, _out: &mut Vec<u8>) {}

    /// Appends a message with the reason why the connection is about to close, if the protocol has
    /// such a message.
    fn farewell(&self, _connection: ConnectionId, _reason: Reason, _out: &mut Vec<u8>) {}

    /// Handles the start of a close. The connection takes no more output, and ends when its pending
    /// output is sent.
    fn closing(&mut self, _connection: ConnectionId) {}

    /// Handles the end of a connection. Another connection may get its number from now on.
    fn closed(&mut self, _connection: ConnectionId, _parting: &Parting) {}

    /// Returns whether [`Self::closed`] needs the address and byte counts of the connection. The
    /// loop asks the kernel for them only then.
    fn remembers_closed(&self) -> bool {
        false
    }

    /// Returns whether [`Self::collect`] has more output to give.
    fn has_output(&self) -> bool {
        false
    }

    /// Returns when [`Self::collect`] must run at the latest; `None` for no such time.
    fn wakes_at(&self) -> Option<Tick> {
        None
    }

    /// Returns when [`Self::wake`] must run for a connection; `None` for no such time. `heard` is
    /// the time of its last message. A service that sets such a time during [`Self::receive`] calls
    /// [`Reply::wake_by`].
    fn wakes(&self, _connection: ConnectionId, _heard: Tick, _limits: &Limits) -> Option<Tick> {
        None
    }

    /// Handles the time that [`Self::wakes`] named for the connection of `reply`. After the call,
    /// `wakes` names a later time or none.
    fn wake(&mut self, _reply: &mut Reply<'_>, _server: &mut dyn Server) {}

    /// Puts out bytes, closes, and connections to read again, for any connection. It keeps to the
    /// turn's budget. Called once per turn.
    fn collect(&mut self, _output: &mut Output<'_>) {}

    /// Returns the bytes held for sessions, for the ledger. Called once per turn, so it must be
    /// O(1).
    fn bytes(&self) -> usize {
        0
    }

    /// Returns the bytes held whatever the number of sessions: bounded histories and tables.
    fn fixed_bytes(&self) -> usize {
        0
    }

    /// Returns the bytes of output that wait in the service, because no connection is theirs yet.
    /// When they have gone, the loop trims the heap. Must be O(1).
    fn waiting_bytes(&self) -> usize {
        0
    }

    /// Frees unused memory. Called some time after a load drop.
    fn shrink(&mut self) {}

    /// Panics if the service has broken its own invariants. For tests: it may walk everything.
    fn check_invariants(&self) {}

    /// Panics unless the open connections and the sessions of the service match. `held` lists all
    /// connections of the service that were not dialled. The flag is true if the connection is
    /// open. For tests.
    fn check_connections(&self, _held: &[(ConnectionId, bool)]) {}

    /// Returns a command line that tries the service by hand, over a stream or a datagram.
    fn example(&self, host: &str, port: u16, stream: bool) -> String {
        if stream { format!("nc {host} {port}") } else { format!("nc -u {host} {port}") }
    }
}

/// The result of [`Service::receive`] for the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A message of this many bytes, with its framing, was served or refused.
    Message(usize),
    /// This many bytes of a message were used, which may be none, and the message goes on. The loop
    /// passes the rest of it when the connection has room for more output.
    Part(usize),
    /// This many bytes at the front are done with and completed no message. A connection that was
    /// silent stays silent.
    Skip(usize),
    /// The input is empty or part of a message.
    Incomplete,
    /// The message must wait. The loop does not read the connection until [`Output::resume`], and
    /// then passes the same bytes again.
    Later,
}

/// Serves the line at the front of the input. A line longer than `max-line` gets an error, and the
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
        line::Framed::Line { line, length } => {
            serve(line, reply);
            Taken::Message(length)
        }
        line::Framed::Incomplete => Taken::Incomplete,
        line::Framed::TooLong => {
            reply.send(format!("error: line longer than {max} bytes\r\n").as_bytes());
            reply.close_for(Reason::LineTooLong);
            Taken::Message(input.len())
        }
    }
}

/// The output of [`Service::collect`], for any connections. Bytes are written once, whatever the
/// number of connections that they go to.
pub struct Output<'a> {
    pub now: Time,
    pub server: &'a mut dyn Server,
    outbox: &'a mut Outbox,
    /// The index of the service that puts out.
    service: u8,
    /// Writes left in the turn's budget.
    writes: usize,
    /// Bytes left in the turn's budget.
    bytes: usize,
    /// True until the first delivery.
    first: bool,
}

impl<'a> Output<'a> {
    /// Creates the output of one turn, with its budget in writes and in bytes.
    pub fn new(
        now: Time,
        server: &'a mut dyn Server,
        outbox: &'a mut Outbox,
        writes: usize,
        bytes: usize,
    ) -> Output<'a> {
        Output { now, server, outbox, service: 0, writes, bytes, first: true }
    }

    /// Sets the index of the service that puts out.
    pub fn of_service(self, service: u8) -> Output<'a> {
        Output { service, ..self }
    }

    /// Asks the loop to open a connection. [`Service::dialled`] gets the outcome, in this turn or a
    /// later one. At most [`DIALLED_MAX`](crate::limits::DIALLED_MAX) may be open at a time.
    pub fn dial(&mut self, dial: Dial) {
        self.outbox.dial(self.service, dial);
    }

    /// Returns whether a delivery of `length` bytes fits the budget. The first delivery of a turn
    /// always fits, because it may be larger than any budget.
    pub fn has_room(&self, length: usize) -> bool {
        self.writes > 0 && (length <= self.bytes || self.first)
    }

    /// Returns the buffer that encoders append to. The appended range goes to [`Self::deliver`].
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.outbox.bytes_mut()
    }

    /// Sends a range of the bytes to a connection. Returns false and sends nothing if the turn's
    /// budget is used up.
    pub fn deliver(&mut self, connection: ConnectionId, range: &Range<u32>) -> bool {
        let has_room = self.spend(range.len());
        if has_room {
            self.outbox.deliver(connection.0, range.clone());
        }
        has_room
    }

    /// Returns a range of the bytes, for a client that takes them later with `more` bytes. Returns
    /// `None` if the turn's budget is used up.
    pub fn take(&mut self, range: &Range<u32>, more: usize) -> Option<&[u8]> {
        self.spend(range.len() + more).then(|| self.outbox.bytes(range))
    }

    /// Takes a delivery of `length` bytes off the budget, if it fits.
    fn spend(&mut self, length: usize) -> bool {
        let has_room = self.has_room(length);
        if has_room {
            self.writes -= 1;
            self.bytes = self.bytes.saturating_sub(length);
            self.first = false;
        }
        has_room
    }

    /// Sends a range to a connection, even if it is longer than what is left of the budget.
    pub fn deliver_whole(&mut self, connection: ConnectionId, range: &Range<u32>) {
        self.writes = self.writes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(range.len());
        self.first = false;
        self.outbox.deliver(connection.0, range.clone());
    }

    /// Sends a range, a shared payload and a second range to a connection. The payload is not
    /// copied, so it does not count against the budget. Returns false and sends nothing if the
    /// budget is used up.
    pub fn deliver_shared(
        &mut self,
        connection: ConnectionId,
        head: &Range<u32>,
        payload: &Rc<Payload>,
        tail: &Range<u32>,
    ) -> bool {
        let has_room = self.spend(head.len() + tail.len());
        if has_room {
            self.outbox.deliver_shared(connection.0, head.clone(), payload, tail.clone());
        }
        has_room
    }

    /// Closes a connection once its pending output is sent.
    pub fn close(&mut self, connection: ConnectionId) {
        self.outbox.close(connection.0, Reason::ServiceClosed);
    }

    /// Resumes a connection whose message returned [`Taken::Later`].
    pub fn resume(&mut self, connection: ConnectionId) {
        self.outbox.resume(connection.0);
    }
}

/// A function that creates a service.
pub type Constructor = fn(&Options) -> Box<dyn Service>;

/// The settings that a service is created with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The password that clients of the hub must give. `None`: only clients on this machine are
    /// served.
    pub password: Option<Secret>,
    /// True if operators' commands are served only on the operator's listener.
    pub operators_by_door: bool,
    /// Maximum number of connections, to reserve room for.
    pub max_connections: usize,
    /// The channels whose messages the hub keeps.
    pub retain: Vec<RetainRule>,
    /// The routes of Socket.IO.
    pub routes: Rc<EventRoutes>,
    /// The application whose page is at `/`.
    pub demo: Option<Demo>,
    /// The link to a broker. `None`: the hub is alone.
    pub broker: Option<BrokerSettings>,
    /// The key of the sids of Socket.IO, for simulations. `None`: a secret one.
    pub sid_key: Option<u64>,
}

/// The answer to a message. Its bytes are in the loop's outbox, and leave at the end of the turn.
pub struct Reply<'a> {
    /// The connection served; `None` for a datagram.
    pub connection: Option<ConnectionId>,
    /// The address of the peer. Set only for a new connection and for a datagram.
    pub peer: Option<SocketAddr>,
    /// True for a new connection of the operator's listener.
    pub is_operator: bool,
    pub now: Time,
    bytes: &'a mut Vec<u8>,
    start: usize,
    empty_datagram: bool,
    late: bool,
    close: Option<Reason>,
    trust: Option<bool>,
    wake: Option<Tick>,
}

impl<'a> Reply<'a> {
    /// Creates a reply to a message of a stream.
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
            wake: None,
        }
    }

    /// Creates a reply to a datagram.
    pub fn to_datagram(peer: SocketAddr, now: Time, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        let reply = Reply::to(ConnectionId(u32::MAX), now, bytes);
        Reply { connection: None, peer: Some(peer), ..reply }
    }

    /// Creates a reply that goes nowhere, for a dial that failed.
    pub fn to_nobody(now: Time, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        Reply { connection: None, ..Reply::to(ConnectionId(u32::MAX), now, bytes) }
    }

    /// Sets the address of the peer.
    pub fn from(self, peer: SocketAddr) -> Reply<'a> {
        Reply { peer: Some(peer), ..self }
    }

    /// Sets whether the connection came by the operator's listener.
    pub fn by_operator(self, is_operator: bool) -> Reply<'a> {
        Reply { is_operator, ..self }
    }

    /// Appends bytes to the answer.
    pub fn send(&mut self, bytes: &[u8]) {
        self.empty_datagram |= bytes.is_empty();
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the buffer that encoders append the answer to.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.bytes
    }

    /// Closes the connection once the answer is sent. Has no effect for a datagram.
    pub fn close(&mut self) {
        self.close_for(Reason::ServiceClosed);
    }

    /// Closes the connection once the answer is sent, for the given reason. The first reason
    /// counts.
    pub fn close_for(&mut self, reason: Reason) {
        self.close.get_or_insert(reason);
    }

    /// Drops and counts a datagram, because the backlog is full and datagrams do not wait.
    pub fn drop_late(&mut self) {
        self.late = true;
    }

    /// Returns whether the datagram was dropped as late.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Sets whether the client is trusted. An untrusted client may have at most
    /// [`UNTRUSTED_OUTPUT_MAX`](crate::limits::UNTRUSTED_OUTPUT_MAX) bytes of unsent output, and
    /// must become trusted within `first-message-timeout`. A connection is trusted unless this is
    /// called.
    pub fn trust(&mut self, trusted: bool) {
        self.trust = Some(trusted);
    }

    pub fn changes_trust(&self) -> Option<bool> {
        self.trust
    }

    /// Makes the loop look at [`Service::wakes`] for the connection at this time at the latest.
    pub fn wake_by(&mut self, due: Tick) {
        self.wake = Some(due);
    }

    pub fn wakes_by(&self) -> Option<Tick> {
        self.wake
    }

    /// Truncates the answer to `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start + length);
    }

    /// Returns the bytes appended so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Returns the number of bytes appended so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the reason to close the connection once the answer is sent, if any.
    pub fn closes_for(&self) -> Option<Reason> {
        self.close
    }

    /// Returns whether a datagram gets an answer, which may be an empty datagram.
    pub fn answers_datagram(&self) -> bool {
        self.empty_datagram || !self.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::server::NoServer;
    use super::*;

    /// Returns the answers of `service` to a message on a stream and as a datagram (`None`: no
    /// answer).
    pub fn answers(service: &mut dyn Service, message: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut stream, mut datagram) = (Vec::new(), Vec::new());
        let mut reply = Reply::to(ConnectionId(1), Time::ZERO, &mut stream);
        let mut input = message.to_vec();
        // A service of lines needs a line break.
        if service.receive(&mut input, 0, &mut reply, &mut NoServer::default()) == Taken::Incomplete
        {
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
