//! The answers of a connection: found in what arrives, counted, and told to the shape; and the end
//! of a connection, which may complete an answer or cut one short.

use std::io;

use super::answer::Answer;
use super::driver::Driver;
use super::meter::{REFUSAL_MAX, reason};
use super::socketio::PONG;
use super::world::PeerFlags;
use crate::buffer::Use;
use crate::net::Net;

/// The kind of error of a request whose connection ended within the answer.
const CUT_SHORT: &str = "answer cut short";

/// The kind of error of a request that the server refused to take from a client that polls.
const UNPOSTED: &str = "post refused";

/// The kind of error of a request whose connection ended before the answer.
const CLOSED: &str = "connection closed";

impl<N: Net> Driver<N> {
    /// Takes the answers in the first `length` bytes of the chunk, and keeps an incomplete one. An
    /// answer in many parts is joined once, when it can be complete.
    pub(super) fn take(&mut self, slot: u32, length: usize) {
        let mut chunk = std::mem::take(&mut self.world.chunk);
        let mut joined = std::mem::take(&mut self.joined);
        let bytes = &mut chunk[..length];
        let kept = self.world.pool.len(&self.world.peers[slot as usize].input);
        let has_memory = if kept == 0 {
            let rest = self.take_answers(slot, bytes);
            self.keep(slot, rest)
        } else if !self.keep(slot, bytes) {
            false
        } else if kept + length >= self.world.peers[slot as usize].needs {
            joined.clear();
            let world = &mut self.world;
            let peer = &mut world.peers[slot as usize];
            joined.extend_from_slice(world.pool.bytes(&peer.input));
            world.pool.release(&mut peer.input);
            let rest = self.take_answers(slot, &mut joined);
            self.keep(slot, rest)
        } else {
            true
        };
        if !has_memory {
            self.end(slot, "generator out of memory");
        }
        self.world.poll_on(slot);
        self.world.chunk = chunk;
        self.joined = joined;
    }

    /// Keeps a part of an answer until the rest arrives. Returns false if there is no memory for
    /// it.
    fn keep(&mut self, slot: u32, bytes: &[u8]) -> bool {
        let world = &mut self.world;
        match world.peers.get_mut(slot as usize) {
            Some(peer) if !bytes.is_empty() && !peer.flags.has(PeerFlags::CLOSED) => {
                world.pool.append(&mut peer.input, Use::Read(slot), bytes).is_ok()
            }
            _ => true,
        }
    }

    /// Takes the answers at the front of `bytes`, and returns the rest: an incomplete part.
    fn take_answers<'a>(&mut self, slot: u32, mut bytes: &'a mut [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            let world = &mut self.world;
            let peer = &mut world.peers[slot as usize];
            let length = match world.wire.answer(&mut peer.incoming, bytes) {
                Answer::Whole { length, is_error, is_last } => {
                    if !self.take_answer(slot, &bytes[..length], is_error, is_last) {
                        return &[];
                    }
                    length
                }
                Answer::Message { payload, length, is_error } => {
                    if !self.take_answer(slot, &bytes[payload], is_error, false) {
                        return &[];
                    }
                    length
                }
                Answer::Part { length, is_error } => {
                    // The head is at the front of the first part.
                    if is_error {
                        world.meter.keep_refusal(bytes);
                    }
                    length
                }
                Answer::Incomplete { needs } => {
                    peer.needs = needs;
                    return bytes;
                }
                Answer::Ping { payload, length } => {
                    self.answer_ping(slot, &bytes[payload]);
                    length
                }
                Answer::Opened { length } => {
                    if peer.flags.has(PeerFlags::MUTE) {
                        if !self.take_answer(slot, &[], false, false) {
                            return &[];
                        }
                    } else if let Some(packet) =
                        world.wire.socketio().map(|form| form.connect().to_vec())
                    {
                        world.emit(slot, &packet, 0);
                    }
                    length
                }
                Answer::EnginePing { length } => {
                    self.answer_engine_ping(slot);
                    length
                }
                Answer::Close { code, reason, .. } => {
                    self.take_close(slot, code, &bytes[reason]);
                    return &[];
                }
                Answer::Wrong(kind) => {
                    world.meter.is_strange(bytes);
                    if peer.flags.has(PeerFlags::PRELUDE) {
                        let name = world.wire.prelude_name();
                        self.fail(slot, &format!("{name} failed: {kind}"));
                        return &[];
                    }
                    if peer.outstanding == 0 {
                        world.meter.error(kind, 1);
                    }
                    self.end(slot, kind);
                    return &[];
                }
            };
            bytes = &mut bytes[length..];
        }
        bytes
    }

    /// Answers a ping of the server with a pong.
    fn answer_ping(&mut self, slot: u32, payload: &[u8]) {
        let world = &mut self.world;
        if world.peers[slot as usize].flags.has(PeerFlags::MUTE) {
            return;
        }
        if let Some(pong) = world.wire.websocket().map(|form| form.pong(payload)) {
            world.meter.pings += 1;
            world.send(slot, &pong, 0, world.now);
        }
    }

    /// Answers a ping of the server's Engine.IO with a pong.
    fn answer_engine_ping(&mut self, slot: u32) {
        let world = &mut self.world;
        if !world.peers[slot as usize].flags.has(PeerFlags::MUTE) {
            world.meter.pings += 1;
            world.emit(slot, PONG, 0);
        }
    }

    /// Takes the close of a connection by the server's Close frame, and answers it.
    fn take_close(&mut self, slot: u32, code: u16, reason: &[u8]) {
        let world = &mut self.world;
        world.meter.closed_with(code, reason);
        world.meter.closed_by_server += 1;
        if let Some(close) = world.wire.websocket().map(|form| form.close(code)) {
            world.send(slot, &close, 0, world.now);
            // The server may not wait for the answer.
            let _ = world.write(slot);
        }
        self.end(slot, CLOSED);
    }

    /// Ends a connection that did not get as far as its first request.
    pub(super) fn fail(&mut self, slot: u32, why: &str) {
        if self.ends_courier(slot, Some(why)) {
            return;
        }
        let world = &mut self.world;
        world.meter.fail(why);
        world.close(slot);
        self.shape.ended(world, slot);
    }

    /// Takes an answer to the oldest outstanding request. The server closes the connection if it
    /// is the last. Returns false if the connection is closed then.
    fn take_answer(&mut self, slot: u32, answer: &[u8], is_error: bool, is_last: bool) -> bool {
        if self.ends_courier(slot, is_error.then_some(UNPOSTED)) {
            return false;
        }
        let world = &mut self.world;
        let peer = &mut world.peers[slot as usize];
        if !is_error {
            peer.flags.set(PeerFlags::SERVED);
            peer.flags.clear(PeerFlags::UNSERVED);
        } else if world.wire.refuses_connections() && !peer.flags.has(PeerFlags::SERVED) {
            peer.flags.set(PeerFlags::UNSERVED);
        }
        if peer.outstanding == 0 || peer.flags.has(PeerFlags::LISTENS) {
            // No request is outstanding. This is a message of a channel, or the server's reason for
            // closing the connection.
            let is_open = self.shape.message(world, slot, answer, is_error);
            if is_open && is_last {
                self.world.meter.closed_by_server += 1;
                self.end(slot, CLOSED);
            }
            return is_open && !is_last;
        }
        peer.outstanding -= 1;
        world.outstanding -= 1;
        if peer.flags.has(PeerFlags::PRELUDE) {
            peer.flags.clear(PeerFlags::SERVED);
            if is_error {
                let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let line = line[..line.len().min(REFUSAL_MAX)].trim_ascii().escape_ascii();
                let why = format!("{} failed: {line}", world.wire.prelude_name());
                if let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") {
                    // The body of an HTTP answer says more than its status.
                    world.meter.keep_refusal(&answer[end + 4..]);
                }
                self.fail(slot, &why);
                return false;
            }
            if peer.outstanding == 0 {
                peer.flags.clear(PeerFlags::PRELUDE);
                world.meter.opened += 1;
                self.shape.opened(world, slot);
            }
            return !world.peers[slot as usize].flags.has(PeerFlags::CLOSED);
        }
        if is_error {
            peer.flags.set(PeerFlags::REFUSED);
            world.meter.refused(answer);
        } else {
            world.meter.latency.record(world.now.since(peer.due), 1);
            world.meter.answered += 1;
        }
        // The server still answers, so the timeout starts again for the other requests.
        peer.since = world.now.tick();
        if peer.outstanding == 0 {
            self.shape.answered(world, slot, !is_last);
        }
        if is_last && !self.world.peers[slot as usize].flags.has(PeerFlags::CLOSED) {
            self.world.meter.closed_by_server += 1;
            self.end_in_order(slot);
        }
        !self.world.peers[slot as usize].flags.has(PeerFlags::CLOSED)
    }

    /// Takes the end of a connection by the server: by FIN, or by an error of its own.
    pub(super) fn ended_by_server(&mut self, slot: u32, error: Option<io::Error>) {
        let world = &mut self.world;
        let peer = &mut world.peers[slot as usize];
        if peer.flags.has(PeerFlags::CLOSED) {
            return;
        }
        let is_cut = peer.incoming.is_within() || world.pool.len(&peer.input) > 0;
        if error.is_none()
            && let Some(is_error) = peer.incoming.end()
            && peer.outstanding > 0
        {
            // The end of the connection completes the answer.
            self.take_answer(slot, &[], is_error, true);
            return;
        }
        world.meter.closed_by_server += 1;
        if peer.flags.has(PeerFlags::PRELUDE) {
            let name = world.wire.prelude_name();
            return self.fail(slot, &format!("closed during {name}"));
        }
        // After a FIN, the kernel reports a reset as a broken pipe.
        if let Some(error) = error.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            return self.end(slot, &format!("connection {}", reason(&error)));
        }
        match is_cut {
            true => self.end(slot, CUT_SHORT),
            false => self.end_in_order(slot),
        }
    }

    /// Ends a connection that the server closed in order. If it was in use, requests that the
    /// server has not begun to answer are sent again on another: RFC 9112, section 9.3.1.
    fn end_in_order(&mut self, slot: u32) {
        let world = &mut self.world;
        let peer = &world.peers[slot as usize];
        let may_repeat = peer.outstanding > 0
            && peer.flags.has(PeerFlags::SERVED)
            && world.wire.is_repeatable()
            && !peer.flags.has(PeerFlags::CLOSED);
        if may_repeat && self.shape.repeats(peer.outstanding, peer.due) {
            world.take_back(slot);
        }
        self.end(slot, CLOSED);
    }

    /// Closes a connection and counts its outstanding requests as errors of this kind.
    pub(super) fn end(&mut self, slot: u32, kind: &str) {
        if self.ends_courier(slot, Some(kind)) {
            return;
        }
        let world = &mut self.world;
        if world.peers[slot as usize].flags.has(PeerFlags::CLOSED) {
            return;
        }
        let unanswered = world.peers[slot as usize].outstanding;
        world.meter.error(kind, u64::from(unanswered));
        world.close(slot);
        self.shape.ended(world, slot);
    }
}
