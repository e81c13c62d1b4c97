//! Phase 5 for one connection: reads and serves until the input is drained or a budget is used up.
//!
//! Bytes are read into one chunk that all connections share. The service decodes them there and
//! answers at once. Only undecoded bytes are copied to a buffer of the connection.

use std::io;

use super::core::{Core, timer_id};
use super::dials::dialled_max;
use crate::buffer::Use;
use crate::clock::Tick;
use crate::connection::{Flags, Reason, State};
use crate::limits::{DIALLED_INPUT_MAX, INPUT_SHARE};
use crate::net::Net;
use crate::outbox::Outbox;
use crate::service::{ConnectionId, Reply, Service, Taken};

/// The outcome of serving a connection's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The connection goes on. `timer` is true when its deadline may be nearer than before.
    GoOn { timer: bool },
    /// The connection closes when its pending output is sent.
    CloseAfterSending(Reason),
    /// The connection closes at once.
    Abort(Reason),
}

/// `Ok(Some)` closes the connection after its pending output; `Err` closes it at once.
type Ending = Result<Option<Reason>, Reason>;

/// One connection, and the parts of the loop that serve it in this turn.
pub struct Intake<'a, N: Net> {
    core: &'a mut Core<N>,
    service: &'a mut dyn Service,
    outbox: &'a mut Outbox,
    slot: u32,
    /// Position in the outbox where the connection's answers of this turn begin.
    start: u32,
    /// Messages served so far.
    messages: usize,
    /// True if the service took bytes that completed no message.
    has_skipped: bool,
}

impl<'a, N: Net> Intake<'a, N> {
    pub fn new(
        core: &'a mut Core<N>,
        service: &'a mut dyn Service,
        outbox: &'a mut Outbox,
        slot: u32,
    ) -> Intake<'a, N> {
        let start = outbox.position();
        Intake { core, service, outbox, slot, start, messages: 0, has_skipped: false }
    }

    /// Serves the connection for this turn. Its answers are in the outbox, and the caller commits
    /// them.
    pub fn run(mut self, chunk: &mut [u8], now: Tick) -> Served {
        let mut reads = 0;
        let grace = self.core.timeouts.first_message();
        self.core.connections[self.slot as usize].begins_to_log_in(grace, now);
        let ended = loop {
            if self.unsent() >= self.core.limits.high_watermark && !self.is_dialled() {
                self.flags().set(Flags::PAUSED);
                break Ok(None);
            }
            // Input from an earlier turn comes before new input.
            let step = if self.flags().has(Flags::UNDECODED) {
                self.serve_held()
            } else if self.flags().has(Flags::READABLE)
                && reads < self.core.limits.reads_per_turn
                && !self.must_hold_off()
            {
                reads += 1;
                self.read(chunk)
            } else {
                break Ok(None);
            };
            let goes_on = self.messages < self.core.limits.messages_per_turn && !self.is_waiting();
            if step != Ok(None) || !goes_on {
                break step;
            }
        };
        let core = self.core;
        core.stats.work.messages += self.messages as u64;
        let connection = &mut core.connections[self.slot as usize];
        let (before, partial) = (connection.state(), core.pool.len(&connection.input) > 0);
        if self.has_skipped && !partial {
            connection.skipped(now);
        }
        let timer = connection.received(self.messages, partial, now);
        core.stats.moved(before, connection.state());
        match ended {
            Ok(None) => Served::GoOn { timer },
            Ok(Some(reason)) => Served::CloseAfterSending(reason),
            Err(reason) => Served::Abort(reason),
        }
    }

    fn flags(&mut self) -> &mut Flags {
        &mut self.core.connections[self.slot as usize].flags
    }

    /// Returns whether the service makes the connection wait.
    fn is_waiting(&self) -> bool {
        self.core.connections[self.slot as usize].is_waiting()
    }

    /// Returns whether the loop has dialled the connection. It is then read whatever else waits:
    /// a server that sends more than is read closes the connection.
    fn is_dialled(&self) -> bool {
        self.core.connections[self.slot as usize].is_dialled()
    }

    /// Returns whether the rest of a large message must stay in the kernel. While any connection
    /// waits for its service, large messages must not fill the memory budget.
    fn must_hold_off(&self) -> bool {
        let core = &*self.core;
        let held = core.pool.len(&core.connections[self.slot as usize].input);
        held >= core.limits.high_watermark
            && core.pool.read_bytes() >= core.limits.memory_budget / INPUT_SHARE
            && core.stats.states[State::Waiting.index()] > 0
            && !self.is_dialled()
    }

    /// Returns the bytes of unsent output, with the answers of this turn.
    fn unsent(&self) -> usize {
        let connection = &self.core.connections[self.slot as usize];
        self.core.pool.len(&connection.output) + (self.outbox.position() - self.start) as usize
    }

    /// Reads once and serves the bytes.
    fn read(&mut self, chunk: &mut [u8]) -> Ending {
        let core = &mut *self.core;
        let connection = &mut core.connections[self.slot as usize];
        core.stats.work.reads += 1;
        let length = match core.net.read(&mut connection.stream, chunk) {
            Ok(0) => return self.end_of_stream(),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.flags.clear(Flags::READABLE);
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(Reason::of_error(&error)),
        };
        core.stats.bytes_in += length as u64;
        // A short read means that the socket is drained (epoll(7)), which saves a second read. If
        // the peer has announced the end of its stream, the loop reads on until it finds the end.
        if length < chunk.len() && !connection.flags.has(Flags::READ_ON) {
            connection.flags.clear(Flags::READABLE);
        }
        if core.pool.len(&connection.input) > 0 || core.pool.is_fixed() {
            self.hold(&chunk[..length])?;
            return self.serve_held();
        }
        let (used, scanned, ended) = self.serve(&mut chunk[..length], 0);
        if ended.is_none() {
            self.hold(&chunk[used..length])?;
            self.core.pool.set_scanned(&self.core.connections[self.slot as usize].input, scanned);
        }
        Ok(ended)
    }

    /// Serves the input in the connection's buffer. The bytes are lifted out of the pool meanwhile,
    /// because the service also borrows the core.
    fn serve_held(&mut self) -> Ending {
        let input = &self.core.connections[self.slot as usize].input;
        let already = self.core.pool.scanned(input);
        let (mut bytes, done) = self.core.pool.lift(input);
        let (used, scanned, ended) = self.serve(&mut bytes[done..], already);
        let Core { pool, connections, .. } = &mut *self.core;
        let input = &mut connections[self.slot as usize].input;
        pool.lower(input, bytes, done);
        pool.consume(input, used);
        pool.set_scanned(input, scanned);
        Ok(ended)
    }

    /// Copies a part of the chunk to the connection's buffer. Services bound the messages of their
    /// clients. The bound here is that of a server that the loop has dialled.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if self.is_dialled() {
            let core = &*self.core;
            let held = core.pool.len(&core.connections[self.slot as usize].input);
            if held + bytes.len() > dialled_max(DIALLED_INPUT_MAX, &core.limits) {
                return Err(Reason::ProtocolError);
            }
        }
        self.core.hold(Use::Read(self.slot), bytes)
    }

    /// Serves the messages at the front of `input`, up to the turn's budget. Returns the bytes
    /// used, the bytes of the rest that were scanned without finding a message, and the reason to
    /// close, if any.
    fn serve(&mut self, input: &mut [u8], already: usize) -> (usize, usize, Option<Reason>) {
        let (mut used, mut scanned) = (0, already);
        // The answers to one connection's pipelined messages must not pile up. Beyond this bound, a
        // later turn serves the rest.
        let full = self.outbox.len() + self.core.limits.high_watermark;
        self.flags().clear(Flags::UNDECODED);
        // A message may have killed its own connection.
        while used < input.len() && self.core.connections[self.slot as usize].is_serving() {
            if self.messages == self.core.limits.messages_per_turn || self.outbox.len() >= full {
                self.flags().set(Flags::UNDECODED);
                return (used, 0, None);
            }
            let mut reply =
                Reply::to(ConnectionId(self.slot), self.core.now, self.outbox.bytes_mut());
            let taken = self.service.receive(&mut input[used..], scanned, &mut reply, self.core);
            let (trust, closes) = (reply.changes_trust(), reply.closes_for());
            if let Some(due) = reply.wakes_by() {
                self.core.timers.arm_by(timer_id(self.slot), due);
            }
            if let Some(trusted) = trust {
                let (unsent, now) = (self.unsent(), self.core.now.tick());
                self.core.connections[self.slot as usize].change_trust(trusted, unsent, now);
            }
            if closes.is_some() {
                self.messages += usize::from(matches!(taken, Taken::Message(_)));
                return (input.len(), 0, closes);
            }
            match taken {
                Taken::Message(length) => {
                    debug_assert!(
                        (1..=input.len() - used).contains(&length),
                        "a service uses at least one byte and at most its input"
                    );
                    (used, scanned) = (used + length, 0);
                    self.messages += 1;
                }
                Taken::Part(length) => {
                    debug_assert!(length < input.len() - used, "the last part is a message");
                    (used, scanned) = (used + length, 0);
                    self.messages += 1;
                }
                Taken::Skip(length) => {
                    debug_assert!((1..=input.len() - used).contains(&length), "skips some bytes");
                    (used, scanned) = (used + length, 0);
                    self.has_skipped = true;
                }
                Taken::Incomplete => return (used, input.len() - used, None),
                Taken::Later => {
                    let core = &mut *self.core;
                    let connection = &mut core.connections[self.slot as usize];
                    let before = connection.state();
                    connection.wait_for_service();
                    core.stats.moved(before, connection.state());
                    return (used, 0, None);
                }
            }
        }
        (used, 0, None)
    }

    /// Handles the end of the peer's stream. The rest of the input may be a last message.
    fn end_of_stream(&mut self) -> Ending {
        let Core { pool, connections, now, .. } = &mut *self.core;
        let rest = pool.bytes_mut(&connections[self.slot as usize].input);
        let mut reply = Reply::to(ConnectionId(self.slot), *now, self.outbox.bytes_mut());
        self.messages += usize::from(self.service.ended(rest, &mut reply));
        Ok(Some(Reason::PeerClosed))
    }
}
