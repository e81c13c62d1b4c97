//! One simulated stream: the state of both ends, and how reads, writes and arrivals change it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::os_error;
use crate::clock::Time;
use crate::sys::errno;

/// The end of a stream, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The stream has not ended.
    Open,
    /// The loop shut its side or closed the stream. The client still receives the bytes before it.
    Fin,
    /// The loop closed the stream with input unread, or the client sent to a closed stream. A reset
    /// destroys the bytes that the client has not received.
    Reset,
}

/// The state of one stream, of both ends.
pub(super) struct SimConnection {
    /// The far end's address.
    pub(super) peer: SocketAddr,
    pub(super) side: Side,
    /// Bytes that have arrived and that the loop has not read.
    pub(super) inbound: VecDeque<u8>,
    /// True once the client's FIN has arrived.
    pub(super) fin_arrived: bool,
    /// True once the client has reset or refused the stream.
    pub(super) broken: bool,
    /// A pending error. The next read, write or SO_ERROR query returns it once.
    pub(super) error: Option<i32>,
    /// True once the loop has shut its side.
    pub(super) shut: bool,
    /// True if a write found too little room, so the loop gets an edge when there is enough
    /// (SOCK_NOSPACE).
    pub(super) wants_room: bool,

    /// Bytes that the loop has written and the client has not received.
    pub(super) outbound: VecDeque<u8>,
    /// Maximum length of `outbound`.
    pub(super) window: usize,
    /// Bytes written that are never acknowledged, because the client was gone or a reset came
    /// first.
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
    /// A file of the loop that the far side has not answered yet.
    Connecting(u32),
    /// An open file of the loop.
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

    /// True when a third of the window is free, which is enough to raise an edge
    /// (sk_stream_is_writeable). A write succeeds with less room.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.len() < self.window && self.outbound.len() <= self.window - self.window / 3
    }

    /// Returns arrived bytes first, then the end of the stream if a FIN came, then an error, once.
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

    /// True in TCP_CLOSE: both sides have sent FIN and every byte is acknowledged. The stream has
    /// no peer then. In the simulation, a client acknowledges a byte when it takes it. On Linux,
    /// the client's kernel acknowledges it earlier.
    fn is_over(&self) -> bool {
        self.fin_arrived && self.shut && self.unacknowledged() == 0
    }

    /// True while the stream has a peer, by the rule of inet_getname.
    pub(super) fn has_peer(&self) -> bool {
        matches!(self.side, Side::Open(_)) && !self.broken && !self.is_over()
    }

    /// Returns the count of SIOCOUTQ in bytes. A reset leaves it unchanged (tcp_write_queue_purge).
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

    /// Closes the loop's side and sends the client a RST, which destroys the bytes under way to it.
    /// A Linux client can still read bytes that have reached its machine. Other systems discard
    /// them, and a server must not depend on them.
    pub(super) fn abort(&mut self) {
        self.side = Side::Closed;
        self.inbound = VecDeque::new();
        if !self.broken && !self.is_over() {
            self.outbound = VecDeque::new();
            self.end = End::Reset;
        }
    }

    /// Ends the stream at once with an error, for a reset or a refusal.
    pub(super) fn break_with(&mut self, error: i32) {
        self.broken = true;
        self.error = Some(error);
        self.lose_output();
    }

    /// Counts the bytes under way as never acknowledged.
    pub(super) fn lose_output(&mut self) {
        self.lost += std::mem::take(&mut self.outbound).len();
    }

    /// Answers the loop's SYN with a RST. The SYN stays unacknowledged.
    pub(super) fn refuse(&mut self) {
        self.break_with(errno::ECONNREFUSED);
        self.lost += 1;
    }

    /// Resets the stream after the loop has already received the error.
    pub(super) fn break_silently(&mut self) {
        self.break_with(errno::ECONNRESET);
        self.error = None;
    }

    /// True when a write would take at least one byte.
    pub(super) fn takes_output(&self) -> bool {
        let is_whole = !self.broken && !self.shut && self.error.is_none();
        is_whole && matches!(self.side, Side::Open(_)) && self.outbound.len() < self.window
    }

    /// Takes an arriving segment. Returns true when it raises an edge for the loop.
    pub(super) fn arrive(&mut self, segment: Segment) -> bool {
        if self.broken {
            return false;
        }
        match (segment, self.side) {
            // The loop has closed its end, so the kernel answers data with a RST.
            (Segment::Data(_), Side::Closed) => {
                self.abort();
                return false;
            }
            (Segment::Data(bytes), _) => self.inbound.extend(bytes),
            (Segment::Fin, _) => self.fin_arrived = true,
            (Segment::Room, Side::Open(_)) if self.wants_room && self.has_room() => {
                self.wants_room = false
            }
            (Segment::Room | Segment::Answer(_), _) => return false,
            (Segment::Reset, _) if self.is_over() => return false,
            // tcp_reset gives EPIPE only in CLOSE_WAIT. With the loop's side shut, the state is
            // LAST_ACK.
            (Segment::Reset, _) if self.fin_arrived && !self.shut => self.break_with(errno::EPIPE),
            (Segment::Reset, _) => self.break_with(errno::ECONNRESET),
        }
        true
    }
}

/// A segment on its way from a client to the loop.
pub(super) enum Segment {
    Data(Box<[u8]>),
    Fin,
    Reset,
    /// The answer to a dial: true accepts it.
    Answer(bool),
    /// Not a segment: the loop's kernel has memory for sending again.
    Room,
}

impl Segment {
    /// Returns the segment's name in the trace and its length in bytes.
    pub(super) fn described(&self) -> (&'static str, i64) {
        match self {
            Segment::Data(bytes) => ("arrives", bytes.len() as i64),
            Segment::Fin => ("arrives FIN", 0),
            Segment::Reset => ("arrives RST", 0),
            Segment::Answer(true) => ("arrives SYN-ACK", 0),
            Segment::Answer(false) => ("arrives refusal", 0),
            Segment::Room => ("room again", 0),
        }
    }
}
