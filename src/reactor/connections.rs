//! Work on one connection: serving it, writing to it, checking its deadline. [`super::intake`]
//! reads and decodes its input.

use std::io;

use super::Reactor;
use super::core::{Core, Drained, Flush, timer_id};
use super::intake::{Intake, Served};
use crate::buffer::Use;
use crate::clock::Tick;
use crate::connection::{Flags, Reason, Sent, State};
use crate::limits::{BATCH_MAX, UNTRUSTED_OUTPUT_MAX};
use crate::net::Net;
use crate::outbox::Outbox;
use crate::service::{ConnectionId, Reply};
use crate::timer;
use crate::token::Token;

/// How far the output of a connection was written.
enum Written {
    All,
    /// A budget or a signal ended the writing.
    Part,
    /// The kernel took less than it was given.
    UntilFull,
}

impl<N: Net> Reactor<N> {
    /// Serves one connection from the carry list.
    pub(super) fn serve(&mut self, slot: u32, now: Tick) {
        let core = &mut self.core;
        let connection = &core.connections[slot as usize];
        if !connection.flags.has(Flags::BLOCKED) && core.pool.len(&connection.output) > 0 {
            core.turn.flushes.push(Flush { slot, range: 0..0 });
        }
        match connection.state() {
            State::Lingering(reason) => core.drop_input(slot, reason, &mut self.chunk),
            State::Connecting => self.dial_ready(slot, now),
            _ if connection.reads() && !connection.flags.has(Flags::PAUSED) => {
                self.take_input(slot, now);
            }
            _ => {}
        }
    }

    /// Reads and serves the connection's input. Then keeps the connection, queues it again, or
    /// closes it.
    fn take_input(&mut self, slot: u32, now: Tick) {
        let Reactor { core, services, outbox, chunk, .. } = self;
        let flags = core.connections[slot as usize].flags;
        let was_untrusted = flags.has(Flags::UNTRUSTED);
        let start = outbox.position();
        let service = &mut *services[flags.service() as usize];
        let (reason, timer) = match Intake::new(core, service, outbox, slot).run(chunk, now) {
            Served::Abort(reason) => return core.close(slot, reason),
            Served::CloseAfterSending(reason) => (Some(reason), false),
            Served::GoOn { timer } => (None, timer),
        };
        // A message from an unauthenticated peer does not take its connection out of the silent
        // set.
        let connection = &core.connections[slot as usize];
        let is_untrusted = connection.flags.has(Flags::UNTRUSTED);
        if connection.has_spoken() && !is_untrusted {
            core.speaks(slot);
        }
        if reason.is_some() {
            return outbox.commit(slot, start, reason);
        }
        // Logging in or out changes the deadline that applies.
        if timer || is_untrusted != was_untrusted {
            core.arm(slot);
        }
        let connection = &core.connections[slot as usize];
        let drained = !connection.has_input_waiting();
        if drained && connection.flags.has(Flags::DRAINING) {
            let answered = outbox.position() > start || core.pool.len(&connection.output) > 0;
            core.turn.drained.push(Drained { slot, answered });
        }
        if !drained && !connection.flags.has(Flags::PAUSED) && !connection.is_waiting() {
            core.enqueue(slot);
        }
        outbox.commit(slot, start, None);
    }

    /// Closes finished connections during a drain. For the first half of `drain-timeout`, a
    /// subscriber stays open while its service has output to deliver, and so does a dialled
    /// connection. This runs after all
    /// connections were served, because a publish acknowledged in this turn may be for any of them.
    pub(super) fn close_drained(&mut self) {
        let Reactor { core, services, outbox, .. } = self;
        let mut drained = std::mem::take(&mut core.turn.drained);
        let waits = core
            .draining_since
            .is_some_and(|since| core.now.since(since) < core.limits.drain_timeout / 2);
        for Drained { slot, answered } in drained.drain(..) {
            let connection = &core.connections[slot as usize];
            let service = &services[connection.flags.service() as usize];
            if !connection.is_serving() {
                continue;
            }
            let gets_more = connection.is_dialled() || service.listens(ConnectionId(slot));
            if waits && service.has_output() && gets_more {
                core.enqueue(slot);
                continue;
            }
            let start = outbox.position();
            service.farewell(ConnectionId(slot), Reason::Drain, outbox.bytes_mut());
            let owes = answered || outbox.position() > start;
            if !owes && core.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes == 0) {
                // All sent bytes are acknowledged. A reset could destroy nothing, so lingering is
                // unnecessary.
                core.close(slot, Reason::Drain);
            } else {
                outbox.commit(slot, start, Some(Reason::Drain));
            }
        }
        core.turn.drained = drained;
    }

    /// Returns whether the connection is a subscriber. Subscribers have no idle timeout.
    pub(super) fn listens(&self, slot: u32) -> bool {
        let connection = &self.core.connections[slot as usize];
        let service = &self.services[connection.flags.service() as usize];
        !connection.is_dialled() && service.listens(ConnectionId(slot))
    }

    /// Returns the nearest deadline of a connection, and the reason to close it when that deadline
    /// passes.
    pub(super) fn deadline_of(&self, slot: u32) -> Option<(Tick, Reason)> {
        let (connection, timeouts) = (&self.core.connections[slot as usize], &self.core.timeouts);
        match self.listens(slot) {
            true => connection.deadline_of_listener(timeouts),
            false => connection.deadline(timeouts),
        }
    }

    /// Handles a connection's timer: closes the connection if its deadline has passed, otherwise
    /// arms the timer again.
    pub(super) fn connection_timer(&mut self, slot: u32, now: Tick) {
        let passed = |deadline: Option<(Tick, Reason)>| {
            deadline.filter(|(due, _)| due.distance_from(now) <= 0).map(|(_, reason)| reason)
        };
        if passed(self.deadline_of(slot)) == Some(Reason::OutputTimeout) {
            // The kernel reports room only when a third of the send buffer is free
            // (sk_stream_is_writeable). A slow reader may not get there in time. So the loop tries
            // a write, and closes only a peer that has taken nothing.
            self.core.connections[slot as usize].flags.clear(Flags::BLOCKED);
            self.core.flush_one(Flush { slot, range: 0..0 }, &self.outbox, now);
        }
        let deadline = self.deadline_of(slot);
        let Some(reason) = passed(deadline) else {
            let has_woken = self.wake(slot, now);
            let (listens, wakes) = (self.listens(slot), self.wakes(slot));
            let core = &mut self.core;
            core.stats.timers_early += u64::from(!has_woken);
            let due = deadline.map_or(now.plus(timer::HORIZON), |(due, _)| due);
            let is_service = wakes.is_some_and(|wakes| wakes.distance_from(due) < 0);
            let due = wakes.filter(|_| is_service).unwrap_or(due);
            // If the subscriber unsubscribes, its idle deadline is at least one idle timeout from
            // now.
            let looks_again = now.plus(if listens { core.timeouts.idle() } else { 0 });
            let is_sooner =
                listens && core.timeouts.idle() != 0 && looks_again.distance_from(due) < 0;
            return core.timers.arm_by(timer_id(slot), if is_sooner { looks_again } else { due });
        };
        self.core.stats.timers_fired += 1;
        let is_late = matches!(reason, Reason::FirstMessageTimeout | Reason::MessageTimeout);
        if is_late && self.core.is_under_pressure() {
            let source = self.core.connections[slot as usize].source;
            self.core.punish(source, self.core.limits.penalty);
        }
        self.dismiss(slot, reason);
    }

    /// Returns when the service wants to be woken for a connection, if it does.
    pub(super) fn wakes(&self, slot: u32) -> Option<Tick> {
        let connection = &self.core.connections[slot as usize];
        if connection.state() == State::Connecting {
            return None;
        }
        let service = &self.services[connection.flags.service() as usize];
        let wakes = service.wakes(ConnectionId(slot), connection.waits_since(), &self.core.limits);
        // A paused client is not read, so its answer to a ping cannot arrive.
        wakes.filter(|_| connection.is_serving() && !connection.flags.has(Flags::PAUSED))
    }

    /// Wakes the service for a connection if it is time. Phase 8 hands over what it puts out.
    fn wake(&mut self, slot: u32, now: Tick) -> bool {
        let is_due = self.wakes(slot).is_some_and(|due| due.distance_from(now) <= 0);
        if is_due {
            let Reactor { core, services, outbox, .. } = self;
            let start = outbox.position();
            let service = core.connections[slot as usize].flags.service();
            let service = &mut services[service as usize];
            let mut reply = Reply::to(ConnectionId(slot), core.now, outbox.bytes_mut());
            service.wake(&mut reply, core);
            let close = reply.closes_for();
            outbox.commit(slot, start, close);
        }
        is_due
    }

    /// Closes a connection at once. A peer that has taken all its output first gets a farewell that
    /// names the reason. Its connection then ends with a FIN instead of a reset.
    pub(super) fn dismiss(&mut self, slot: u32, reason: Reason) {
        let Reactor { core, services, outbox, .. } = self;
        let connection = &mut core.connections[slot as usize];
        let waits = core.pool.len(&connection.output) > 0 || connection.flags.has(Flags::IN_OUTBOX);
        let takes_output =
            !waits && core.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes == 0);
        if connection.is_serving() && takes_output {
            let start = outbox.position() as usize;
            let bytes = outbox.bytes_mut();
            services[connection.flags.service() as usize].farewell(
                ConnectionId(slot),
                reason,
                bytes,
            );
            if bytes.len() > start {
                // Best effort: the peer may be gone already.
                let _ = core.net.write(&mut connection.stream, &bytes[start..]);
                bytes.truncate(start);
                connection.flags.set(Flags::TOLD);
            }
        }
        core.close(slot, reason);
    }
}

impl<N: Net> Core<N> {
    /// Reads and drops the input of a lingering connection. Unread input would make the kernel
    /// reset the connection on close.
    fn drop_input(&mut self, slot: u32, reason: Reason, chunk: &mut [u8]) {
        let connection = &mut self.connections[slot as usize];
        for _ in 0..self.limits.reads_per_turn {
            self.stats.work.reads += 1;
            match self.net.read(&mut connection.stream, chunk) {
                Ok(0) => return self.close(slot, reason),
                Ok(length) => self.stats.bytes_in += length as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return connection.flags.clear(Flags::READABLE);
                }
                Err(_) => return self.close(slot, reason),
            }
        }
        self.enqueue(slot);
    }

    /// Writes a connection's pending output, at most [`BATCH_MAX`] bytes. The rest waits in the
    /// connection's buffer for the next turn or the next writable edge.
    pub(super) fn flush_one(&mut self, Flush { slot, range }: Flush, outbox: &Outbox, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        if let State::Closed(_) = connection.state() {
            return;
        }
        connection.flags.clear(Flags::IN_OUTBOX);
        let mut bytes = outbox.bytes(&range);
        if !bytes.is_empty() && self.pool.len(&connection.output) > 0 {
            // More output is queued behind this range. Joining them sends both with one write.
            if self.pool.prepend(&mut connection.output, Use::Write(slot), bytes).is_err() {
                return self.close(slot, Reason::MemoryBudget);
            }
            bytes = &[];
        }
        // Output that has waited goes on waiting once a turn has written enough.
        if bytes.is_empty()
            && self.pool.len(&connection.output) > 0
            && self.turn.written >= self.limits.output_per_turn
        {
            return self.enqueue(slot);
        }
        let has_waited = bytes.is_empty();
        let written = match self.write(slot, bytes, now) {
            Ok(written) => written,
            Err(reason) => return self.close(slot, reason),
        };
        let connection = &mut self.connections[slot as usize];
        let unsent = self.pool.len(&connection.output);
        if connection.flags.has(Flags::UNTRUSTED) && unsent > UNTRUSTED_OUTPUT_MAX {
            return self.close(slot, Reason::OutputLimit);
        }
        if connection.owes(unsent, self.limits.output_soft_limit, now) {
            self.arm(slot);
        }
        match written {
            // The kernel did not report a full buffer, so no writable edge will come.
            Written::Part => self.enqueue(slot),
            Written::UntilFull => self.block(slot, now),
            Written::All => {
                // A service that dials has more to send when what waited is sent.
                if has_waited && self.connections[slot as usize].is_dialled() {
                    self.enqueue(slot);
                }
                self.all_written(slot, now);
            }
        }
    }

    /// Writes `fresh` or, if that is empty, the connection's buffer. The rest of `fresh` goes to
    /// the buffer.
    fn write(&mut self, slot: u32, mut fresh: &[u8], now: Tick) -> Result<Written, Reason> {
        let mut left = BATCH_MAX;
        loop {
            let connection = &mut self.connections[slot as usize];
            let held = self.pool.bytes(&connection.output);
            let bytes = if fresh.is_empty() { held } else { fresh };
            if bytes.is_empty() {
                return Ok(Written::All);
            }
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                return Ok(Written::Part);
            }
            let asked = bytes.len();
            self.stats.work.writes += 1;
            let (sent, interrupted) = match self.net.write(&mut connection.stream, bytes) {
                Ok(sent) => (sent, false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, true),
                Err(error) => return Err(Reason::of_error(&error)),
            };
            self.stats.bytes_out += sent as u64;
            if sent > 0 {
                connection.output_progress(now);
            }
            if fresh.is_empty() {
                self.turn.written += sent;
                self.pool.consume(&mut connection.output, sent);
            } else {
                self.hold(Use::Write(slot), &fresh[sent..])?;
                fresh = &[];
            }
            left -= sent;
            match sent < asked {
                true if interrupted => return Ok(Written::Part),
                true => return Ok(Written::UntilFull),
                false => {}
            }
        }
    }

    /// Goes on with a connection whose output is all written.
    fn all_written(&mut self, slot: u32, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        let before = connection.state();
        let sent = connection.all_sent();
        self.stats.moved(before, connection.state());
        match sent {
            Sent::Close(reason) => self.close(slot, reason),
            Sent::ShutAndLinger => {
                // A failed shutdown means that the connection is broken. The next read reports it.
                let _ = self.net.shutdown_write(&mut connection.stream);
                connection.flags.set(Flags::READABLE);
                self.enqueue(slot);
            }
            Sent::GoOn => self.resume(slot, now),
        }
    }

    /// Marks a connection as blocked after a short write, and asks the kernel to report when it has
    /// room.
    fn block(&mut self, slot: u32, now: Tick) {
        self.stats.short_writes += 1;
        let connection = &mut self.connections[slot as usize];
        connection.flags.set(Flags::BLOCKED);
        if !connection.flags.has(Flags::WATCHES_WRITABLE) {
            let token = Token::connection(slot, connection.generation);
            if self.net.watch_writable(&mut connection.stream, token).is_err() {
                return self.close(slot, Reason::PeerReset);
            }
            connection.flags.set(Flags::WATCHES_WRITABLE);
        }
        self.arm(slot);
        self.resume(slot, now);
    }

    /// Reads a paused connection again once its unsent output is down to the low watermark.
    fn resume(&mut self, slot: u32, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        if connection.flags.has(Flags::PAUSED)
            && self.pool.len(&connection.output) <= self.limits.low_watermark
        {
            connection.resume(now);
            // Its service may want to be woken before the deadline.
            self.timers.arm_by(timer_id(slot), now);
            self.enqueue(slot);
        }
    }
}
