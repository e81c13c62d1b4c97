//! One simulated stream: both ends of it, and what reads, writes and arrivals do to them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::os_error;
use crate::clock::Time;
use crate::sys::errno;

/// How a stream ended in the eyes of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// The loop shut its side or closed. Comes after the bytes that are still to be received.
    Fin,
    /// The loop closed with input unread, or the client sent to a closed stream. Destroys what was not received yet.
    Reset,
}

/// One stream, both ends of it.
pub(super) struct SimConnection {
    /// The far end's address.
    pub(super) peer: SocketAddr,
    pub(super) side: Side,
    /// Arrived and not read.
    pub(super) inbound: VecDeque<u8>,
    /// The client's FIN has arrived.
    pub(super) fin_arrived: bool,
    /// Reset by the client, or refused by it.
    pub(super) broken: bool,
    /// Told once, by the next read, write or question (SO_ERROR).
    pub(super) error: Option<i32>,
    /// The loop has shut its side.
    pub(super) shut: bool,
    /// The loop found no room to write and is to be told of some (SOCK_NOSPACE).
    pub(super) wants_room: bool,

    /// Written and not received by the client.
    pub(super) outbound: VecDeque<u8>,
    pub(super) window: usize,
    /// Written and never to be acknowledged: nobody was there any more, or a reset came first.
    lost: usize,
    pub(super) end: End,
    pub(super) client_shut: bool,
    pub(super) client_gone: bool,
    pub(super) last_arrival: Time,
}

/// The loop's side of a stream.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// In the accept queue.
    Waiting,
    Connecting(u32),
    Open(u32),
    Closed,
}

impl SimConnection {
    pub(super) fn new(peer: SocketAddr, side: Side, window: usize) -> SimConnection {
        SimConnection {
            peer,
            side,
            inbound: VecDeque::new(),
            fin_arrived: false,
            broken: false,
            error: None,
            shut: false,
            wants_room: false,
            outbound: VecDeque::new(),
            window,
            lost: 0,
            end: End::Open,
            client_shut: false,
            client_gone: false,
            last_arrival: Time::ZERO,
        }
    }

    /// Room worth announcing: a third of the window (sk_stream_is_writeable). A write is taken with less.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.len() < self.window && self.outbound.len() <= self.window - self.window / 3
    }

    /// What has arrived comes before the end of the stream, and that before an error, which comes once.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.inbound.is_empty() {
            let length = into.len().min(self.inbound.len());
            for (to, from) in into.iter_mut().zip(self.inbound.drain(..length)) {
                *to = from;
            }
            return Ok(length);
        }
        match self.error {
            _ if self.fin_arrived => Ok(0),
            Some(error) => {
                self.error = None;
                Err(os_error(error))
            }
            None if self.broken => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(os_error(error));
        }
        if self.broken || self.shut {
            return Err(os_error(errno::EPIPE));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let length = match self.side {
            Side::Open(_) => bytes.len().min(self.window.saturating_sub(self.outbound.len())),
            Side::Waiting | Side::Connecting(_) | Side::Closed => 0,
        };
        self.wants_room |= length < bytes.len();
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.client_gone {
            self.lost += length;
        } else {
            self.outbound.extend(&bytes[..length]);
        }
        Ok(length)
    }

    /// Both sides have ended in good order and all is acknowledged: TCP_CLOSE, which knows no peer and sends nothing. Here a client
    /// acknowledges what it takes; in Linux its kernel does so before.
    fn is_over(&self) -> bool {
        self.fin_arrived && self.shut && self.unacknowledged() == 0
    }

    /// Whether there is a peer (inet_getname asks the same).
    pub(super) fn has_peer(&self) -> bool {
        matches!(self.side, Side::Open(_)) && !self.broken && !self.is_over()
    }

    /// What SIOCOUTQ counts: a reset leaves it as it is (tcp_write_queue_purge).
    pub(super) fn unacknowledged(&self) -> usize {
        self.outbound.len() + self.lost
    }

    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        if self.broken || self.is_over() {
            return Err(os_error(errno::ENOTCONN));
        }
        self.shut = true;
        self.end = End::Fin;
        Ok(())
    }

    pub(super) fn close(&mut self) {
        if !self.inbound.is_empty() {
            self.abort();
        } else if !self.broken {
            self.end = if self.end == End::Open { End::Fin } else { self.end };
        }
        self.side = Side::Closed;
    }

    /// Our side is gone, and a RST tells the client. It destroys what was under way to it: Linux would still let a
    /// client read what has reached its machine, others do not, and a server must not count on it.
    pub(super) fn abort(&mut self) {
        self.side = Side::Closed;
        self.inbound = VecDeque::new();
        if !self.broken && !self.is_over() {
            self.outbound = VecDeque::new();
            self.end = End::Reset;
        }
    }

    /// Reset, or refused: over at once.
    pub(super) fn break_with(&mut self, error: i32) {
        self.broken = true;
        self.error = Some(error);
        self.lose_output();
    }

    /// Nobody will acknowledge what is under way.
    pub(super) fn lose_output(&mut self) {
        self.lost += std::mem::take(&mut self.outbound).len();
    }

    /// Our SYN is answered by a RST, and stays unacknowledged.
    pub(super) fn refuse(&mut self) {
        self.break_with(errno::ECONNREFUSED);
        self.lost += 1;
    }

    /// Broken, and the loop has been told so already.
    pub(super) fn break_silently(&mut self) {
        self.break_with(errno::ECONNRESET);
        self.error = None;
    }

    /// Whether a write would move something.
    pub(super) fn takes_output(&self) -> bool {
        let is_whole = !self.broken && !self.shut && self.error.is_none();
        is_whole && matches!(self.side, Side::Open(_)) && self.outbound.len() < self.window
    }

    /// A segment arrives. True when the loop has something new to look at.
    pub(super) fn arrive(&mut self, segment: Segment) -> bool {
        if self.broken {
            return false;
        }
        match (segment, self.side) {
            // Nobody is there to read it.
            (Segment::Data(_), Side::Closed) => {
                self.abort();
                return false;
            }
            (Segment::Data(bytes), _) => self.inbound.extend(bytes),
            (Segment::Fin, _) => self.fin_arrived = true,
            (Segment::Room, Side::Open(_)) if self.wants_room && self.has_room() => self.wants_room = false,
            (Segment::Room, _) => return false,
            (Segment::Reset, _) if self.is_over() => return false,
            // In CLOSE_WAIT alone; with our side shut too it is LAST_ACK or CLOSING (tcp_reset).
            (Segment::Reset, _) if self.fin_arrived && !self.shut => self.break_with(errno::EPIPE),
            (Segment::Reset, _) => self.break_with(errno::ECONNRESET),
        }
        true
    }
}

/// What a client sends, and its way to the loop.
pub(super) enum Segment {
    Data(Box<[u8]>),
    Fin,
    Reset,
    /// No segment: the loop's own kernel has found memory to send with.
    Room,
}

impl Segment {
    /// For the trace: what arrives, and how many bytes.
    pub(super) fn described(&self) -> (&'static str, i64) {
        match self {
            Segment::Data(bytes) => ("arrives", bytes.len() as i64),
            Segment::Fin => ("arrives FIN", 0),
            Segment::Reset => ("arrives RST", 0),
            Segment::Room => ("room again", 0),
        }
    }
}
