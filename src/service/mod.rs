//! What a listener serves: the extension point. A service is a small file that implements [`Service`].
//!
//! A service is sans-IO: it is given messages and appends bytes to a [`Reply`]. It never sees a socket, a
//! token or a clock, and it cannot block the loop but by being slow. One value of it serves every
//! connection and datagram of its listeners.

pub mod discard;
pub mod echo;
pub mod hello;
pub mod hub;

use std::ops::Range;

use crate::codec::Framing;
use crate::outbox::Outbox;

pub trait Service {
    /// How messages are found in a stream.
    fn framing(&self) -> Framing;

    /// A peer connected: what to greet it with.
    fn connected(&mut self, _reply: &mut Reply<'_>) {}

    /// One whole message of a stream.
    fn message(&mut self, message: &[u8], reply: &mut Reply<'_>);

    /// One datagram. What is appended to `reply` goes back as one datagram; nothing appended, nothing sent.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>);

    /// The connection of a session ended; its id may be another's from now on.
    fn closed(&mut self, _session: u32) {}

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

    /// Gives back to the system what is not needed: called some time after a load drop.
    fn shrink(&mut self) {}

    /// Panics where the service has broken its own rules. For tests: it may walk everything.
    fn check_invariants(&self) {}

    /// A line to try for people: by a stream, or by a datagram.
    fn example(&self, host: &str, port: u16, stream: bool) -> String {
        if stream { format!("nc {host} {port}") } else { format!("nc -u {host} {port}") }
    }
}

/// Where a service puts output for sessions of its choice. Bytes are written once, whoever many they go to.
pub struct Deliveries<'a> {
    outbox: &'a mut Outbox,
    /// Deliveries that this turn still has room for.
    left: usize,
}

impl<'a> Deliveries<'a> {
    pub fn new(outbox: &'a mut Outbox, left: usize) -> Deliveries<'a> {
        Deliveries { outbox, left }
    }

    /// Appends bytes; returns where they are, for [`Self::deliver`].
    pub fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.outbox.position();
        self.outbox.bytes_mut().extend_from_slice(bytes);
        start..self.outbox.position()
    }

    /// Sends a range of bytes to a session. False, and nothing sent, when the turn has no room left.
    pub fn deliver(&mut self, session: u32, range: &Range<u32>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.outbox.commit_range(session, range.clone(), None);
        true
    }
}

/// Makes one value of a service.
pub type Constructor = fn() -> Box<dyn Service>;

/// Every service by its name in `--listen`. Add yours here.
pub const SERVICES: &[(&str, Constructor)] = &[
    ("hello", || Box::new(hello::Hello)),
    ("echo", || Box::new(echo::Echo)),
    ("discard", || Box::new(discard::Discard)),
    ("hub", || Box::<hub::Hub>::default()),
];

/// Where a service puts its answer. The bytes lie in the loop's own buffer of this turn, and leave at its end.
pub struct Reply<'a> {
    /// Who asks: the number of its connection, reused after it closed. 0 for a datagram, which has no session.
    pub session: u32,
    bytes: &'a mut Vec<u8>,
    start: usize,
    empty_datagram: bool,
    close: bool,
}

impl<'a> Reply<'a> {
    pub fn new(session: u32, bytes: &'a mut Vec<u8>) -> Reply<'a> {
        let start = bytes.len();
        Reply { session, bytes, start, empty_datagram: false, close: false }
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
        self.close = true;
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn wants_close(&self) -> bool {
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
