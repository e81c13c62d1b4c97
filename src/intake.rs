//! Phase 5 for one connection: read, decode, serve, until the input is drained or a budget is used up.
//!
//! Bytes are read into one chunk that all connections share. A complete message is decoded and answered right there;
//! only the part of a message that is left over moves to a buffer of the connection.

use std::io;

use crate::buffer::{BufferPool, Use};
use crate::clock::{Tick, Time};
use crate::codec::FramingLimits;
use crate::codec::resp::CommandLimits;
use crate::connection::{Connection, Flags, Reason};
use crate::limits::Limits;
use crate::net::Net;
use crate::outbox::Outbox;
use crate::service::{Reply, Service, Taken};
use crate::stats::Stats;

/// What the input of a connection led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection goes on. `timer`: its deadline may have come nearer.
    GoOn { timer: bool },
    /// The service wants the server to answer the last message; then it goes on.
    Consult { timer: bool },
    /// What has been answered is still owed; then it closes.
    CloseAfterSending(Reason),
    /// It is over at once.
    Abort(Reason),
}

/// One connection, and what the loop lends it for its turn.
pub struct Intake<'a, N: Net> {
    pub net: &'a mut N,
    /// Who the service is told it is.
    pub session: u32,
    pub connection: &'a mut Connection<N::Stream>,
    pub service: &'a mut dyn Service,
    pub pool: &'a mut BufferPool,
    pub outbox: &'a mut Outbox,
    pub chunk: &'a mut [u8],
    pub limits: &'a Limits,
    pub stats: &'a mut Stats,
    pub now: Time,
    /// Where in the outbox its answers of this turn begin.
    pub start: u32,
    /// Messages served so far.
    pub messages: usize,
    /// The last of them is the server's to answer.
    pub consult: bool,
}

impl<N: Net> Intake<'_, N> {
    /// Serves the connection for this turn. Its answers are in the outbox, not yet committed.
    pub fn run(mut self, now: Tick) -> Outcome {
        let mut reads = 0;
        let ended = loop {
            if self.unsent() >= self.limits.high_watermark {
                self.connection.flags.set(Flags::PAUSED);
                break Ok(None);
            }
            if self.service.is_backlogged() {
                break Ok(None);
            }
            // First what an earlier turn left, then new input.
            let step = if self.connection.flags.has(Flags::UNDECODED) {
                self.decode_held()
            } else if self.connection.flags.has(Flags::READABLE) && reads < self.limits.reads_per_turn {
                reads += 1;
                self.read()
            } else {
                break Ok(None);
            };
            match step {
                Ok(None) if self.messages < self.limits.messages_per_turn && !self.consult => {}
                ended => break ended,
            }
        };
        self.stats.work.messages += self.messages as u64;
        let partial = self.pool.len(&self.connection.input) > 0;
        let timer = self.connection.received(self.messages, partial, now);
        match ended {
            Ok(None) if self.consult => Outcome::Consult { timer },
            Ok(None) => Outcome::GoOn { timer },
            Ok(Some(reason)) => Outcome::CloseAfterSending(reason),
            Err(reason) => Outcome::Abort(reason),
        }
    }

    /// What it is owed, with the answers of this turn.
    fn unsent(&self) -> usize {
        self.pool.len(&self.connection.output) + (self.outbox.position() - self.start) as usize
    }

    /// Reads once and decodes what came. `Some`: close in order, for this reason; `Err`: at once.
    fn read(&mut self) -> Result<Option<Reason>, Reason> {
        self.stats.work.reads += 1;
        let length = match self.net.read(&mut self.connection.stream, self.chunk) {
            Ok(0) => return self.end_of_stream(),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.connection.flags.clear(Flags::READABLE);
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(Reason::of_error(&error)),
        };
        self.stats.bytes_in += length as u64;
        // A short read drained the socket (epoll(7)), which saves asking again; but the end of a stream
        // that has already been announced must still be read.
        if length < self.chunk.len() && !self.connection.flags.has(Flags::READ_ON) {
            self.connection.flags.clear(Flags::READABLE);
        }
        if self.pool.len(&self.connection.input) > 0 || self.pool.is_fixed() {
            self.hold(0, length)?;
            return self.decode_held();
        }
        let (used, scanned, ended) = self.decode(Source::Chunk(length), 0);
        if ended.is_none() {
            self.hold(used, length)?;
            self.pool.set_scanned(&self.connection.input, scanned);
        }
        Ok(ended)
    }

    /// Decodes what the connection's buffer holds.
    fn decode_held(&mut self) -> Result<Option<Reason>, Reason> {
        let already = self.pool.scanned(&self.connection.input);
        let (used, scanned, ended) = self.decode(Source::Held, already);
        self.pool.consume(&mut self.connection.input, used);
        self.pool.set_scanned(&self.connection.input, scanned);
        Ok(ended)
    }

    /// Moves a part of the chunk to the connection's buffer.
    fn hold(&mut self, from: usize, to: usize) -> Result<(), Reason> {
        self.pool
            .append(&mut self.connection.input, Use::Read(self.session), &self.chunk[from..to])
            .map_err(|_over_budget| Reason::MemoryBudget)
    }

    /// Serves the messages at the front of `source`, up to the turn's budget. How many bytes they took, how many of
    /// the rest were scanned in vain, and whether the connection is to close.
    fn decode(&mut self, source: Source, already: usize) -> (usize, usize, Option<Reason>) {
        let bytes = match source {
            Source::Chunk(length) => &self.chunk[..length],
            Source::Held => self.pool.bytes(&self.connection.input),
        };
        let (mut used, mut scanned) = (0, already);
        // One connection's answers to what it has pipelined must not pile up: it goes on in a later turn.
        let start = self.outbox.len();
        self.connection.flags.clear(Flags::UNDECODED);
        loop {
            let full = self.outbox.len() >= start + self.limits.high_watermark;
            if self.messages == self.limits.messages_per_turn || self.consult || full || self.service.is_backlogged() {
                if used < bytes.len() {
                    self.connection.flags.set(Flags::UNDECODED);
                }
                return (used, 0, None);
            }
            let untrusted = self.connection.flags.has(Flags::UNTRUSTED);
            let commands = if untrusted { CommandLimits::UNTRUSTED } else { CommandLimits::default() };
            let limits = FramingLimits { line_max: self.limits.max_line, commands };
            let mut reply = Reply::new(self.session, self.outbox.bytes_mut()).at(self.now);
            match self.service.take(&bytes[used..], scanned, &limits, &mut reply) {
                Taken::Message { length } => {
                    (used, scanned) = (used + length, 0);
                    self.messages += 1;
                    self.consult = reply.wants_consultation();
                    let (trust, closes) = (reply.changes_trust(), reply.closes_for());
                    if let Some(trusted) = trust {
                        self.connection.change_trust(trusted, self.unsent());
                    }
                    if let Some(reason) = closes {
                        return (used, 0, Some(reason));
                    }
                }
                Taken::Incomplete => return (used, bytes.len() - used, None),
                Taken::Invalid(invalid) => {
                    invalid.write(self.outbox.bytes_mut());
                    return (bytes.len(), 0, Some(invalid.reason()));
                }
            }
        }
    }

    /// The peer sent its last byte: what is left may be a last message.
    fn end_of_stream(&mut self) -> Result<Option<Reason>, Reason> {
        if let Some(message) = self.service.framing().decode_end(self.pool.bytes(&self.connection.input)) {
            let mut reply = Reply::new(self.session, self.outbox.bytes_mut()).at(self.now);
            self.service.message(message, &mut reply);
            self.messages += 1;
        }
        Ok(Some(Reason::PeerClosed))
    }
}

/// Where the bytes to decode are.
#[derive(Clone, Copy)]
enum Source {
    /// The first so many of the chunk.
    Chunk(usize),
    /// The connection's input buffer.
    Held,
}
