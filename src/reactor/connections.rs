//! What the phases do for one connection: serve it, write to it, look at its deadline.

use std::io;

use super::{Drained, Flush, Reactor, arm, close, enqueue, timer_id};
use crate::buffer::Use;
use crate::clock::Tick;
use crate::connection::{Flags, Reason, Sent, State};
use crate::intake::{Intake, Outcome};
use crate::limits::UNTRUSTED_OUTPUT_MAX;
use crate::net::Net;
use crate::timer;
use crate::token::Token;

impl<N: Net> Reactor<N> {
    /// One ready connection.
    pub(super) fn serve(&mut self, slot: u32, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        if !connection.flags.has(Flags::BLOCKED) && self.pool.len(&connection.output) > 0 {
            self.flushes.push(Flush { slot, range: 0..0 });
        }
        match connection.state() {
            State::Silent | State::Open | State::Partial if !connection.flags.has(Flags::PAUSED) => {
                self.take_input(slot, now);
            }
            State::Lingering(reason) => self.drop_input(slot, reason),
            _ => {}
        }
    }

    /// Reads, decodes and serves; then decides whether the connection goes on, comes again, or ends.
    fn take_input(&mut self, slot: u32, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        let start = self.outbox.position();
        let was_untrusted = connection.flags.has(Flags::UNTRUSTED);
        let intake = Intake {
            net: &mut self.net,
            session: slot,
            service: &mut *self.services[connection.flags.service() as usize],
            connection,
            pool: &mut self.pool,
            outbox: &mut self.outbox,
            chunk: &mut self.chunk,
            limits: &self.limits,
            stats: &mut self.stats,
            now: self.now,
            start,
            messages: 0,
            consult: false,
        };
        let (reason, timer) = match intake.run(now) {
            Outcome::Abort(reason) => {
                return close(&mut self.closed, &mut self.connections[slot as usize], slot, reason);
            }
            Outcome::CloseAfterSending(reason) => (Some(reason), false),
            Outcome::GoOn { timer } => (None, timer),
            Outcome::Consult { timer } => (self.consult(slot, start), timer),
        };
        // Who has yet to give a password has said nothing that counts.
        let connection = &self.connections[slot as usize];
        if connection.has_spoken() && !connection.flags.has(Flags::UNTRUSTED) {
            self.speaks(slot);
        }
        if reason.is_some() {
            return self.outbox.commit(slot, start, reason);
        }
        let connection = &mut self.connections[slot as usize];
        // Another deadline runs for who becomes known, or is known no more.
        if timer || connection.flags.has(Flags::UNTRUSTED) != was_untrusted {
            arm(&mut self.timers, connection, slot, &self.timeouts, now);
        }
        let drained = !connection.has_input_waiting();
        if !drained && !connection.flags.has(Flags::PAUSED) {
            enqueue(&mut self.ready, connection, slot);
        }
        if drained && connection.flags.has(Flags::DRAINING) {
            let answered = self.outbox.position() > start || self.pool.len(&connection.output) > 0;
            self.drained.push(Drained { slot, answered });
        }
        self.outbox.commit(slot, start, None);
    }

    /// In a drain: closes those that have said all, and for half of its timeout not before those that listen have what waits to be delivered. A
    /// publish that was acknowledged in this very turn may be for any of them, so this comes when all have been served.
    pub(super) fn close_drained(&mut self) {
        let mut drained = std::mem::take(&mut self.drained);
        let waits = self.draining_since.is_some_and(|since| self.now.since(since) < self.limits.drain_timeout / 2);
        for Drained { slot, answered } in drained.drain(..) {
            let connection = &mut self.connections[slot as usize];
            let service = &mut self.services[connection.flags.service() as usize];
            if !connection.is_serving() {
                continue;
            }
            if waits && service.has_output() && service.listens(slot) {
                enqueue(&mut self.ready, connection, slot);
                continue;
            }
            let start = self.outbox.position();
            service.farewell(slot, Reason::Drain, self.outbox.bytes_mut());
            let owes = answered || self.outbox.position() > start;
            if !owes && self.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes == 0) {
                // Nothing is on its way to it that a reset could destroy, so there is nothing to linger for.
                close(&mut self.closed, connection, slot, Reason::Drain);
            } else {
                self.outbox.commit(slot, start, Some(Reason::Drain));
            }
        }
        self.drained = drained;
    }

    /// A lingering connection: input is read so that the kernel need not reset it, and dropped.
    fn drop_input(&mut self, slot: u32, reason: Reason) {
        let connection = &mut self.connections[slot as usize];
        for _ in 0..self.limits.reads_per_turn {
            self.stats.work.reads += 1;
            match self.net.read(&mut connection.stream, &mut self.chunk) {
                Ok(0) => return close(&mut self.closed, connection, slot, reason),
                Ok(length) => self.stats.bytes_in += length as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return connection.flags.clear(Flags::READABLE);
                }
                Err(_) => return close(&mut self.closed, connection, slot, reason),
            }
        }
        enqueue(&mut self.ready, connection, slot);
    }

    /// Whether it waits for what others send.
    fn listens(&self, slot: u32) -> bool {
        self.services[self.connections[slot as usize].flags.service() as usize].listens(slot)
    }

    /// The nearest deadline of a connection that applies to it now, and what passing it means.
    pub(super) fn deadline_of(&self, slot: u32) -> Option<(Tick, Reason)> {
        let connection = &self.connections[slot as usize];
        match self.listens(slot) {
            true => connection.deadline_of_listener(&self.timeouts),
            false => connection.deadline(&self.timeouts),
        }
    }

    /// A connection's timer fired: its deadline has passed, or has moved away meanwhile.
    pub(super) fn connection_timer(&mut self, slot: u32, now: Tick) {
        let passed = |deadline: Option<(Tick, Reason)>| {
            deadline.filter(|(due, _)| due.distance_from(now) <= 0).map(|(_, reason)| reason)
        };
        if passed(self.deadline_of(slot)) == Some(Reason::OutputTimeout) {
            // The kernel says that there is room only when a third of its buffer is free (sk_stream_is_writeable), which a slow reader
            // may not reach in time. So it is asked by a write, and only a peer that has really taken nothing is closed.
            self.connections[slot as usize].flags.clear(Flags::BLOCKED);
            self.flush_one(Flush { slot, range: 0..0 }, now);
        }
        let deadline = self.deadline_of(slot);
        let Some(reason) = passed(deadline) else {
            self.stats.timers_early += 1;
            let listens = self.listens(slot);
            let due = deadline.map_or(now.plus(timer::HORIZON), |(due, _)| due);
            // Whenever it stops listening, its deadline is no nearer than the idle timeout from now.
            let looks_again = now.plus(if listens { self.timeouts.idle() } else { 0 });
            let is_sooner = listens && self.timeouts.idle() != 0 && looks_again.distance_from(due) < 0;
            return self.timers.arm_by(timer_id(slot), if is_sooner { looks_again } else { due });
        };
        self.stats.timers_fired += 1;
        if matches!(reason, Reason::FirstMessageTimeout | Reason::MessageTimeout) {
            let source = self.connections[slot as usize].source;
            self.punish(source, self.limits.penalty);
        }
        self.dismiss(slot, reason);
    }

    /// Ends a connection at once. A peer that has taken all its output is told why, and then sees an end in order; no more is waited for.
    pub(super) fn dismiss(&mut self, slot: u32, reason: Reason) {
        let connection = &mut self.connections[slot as usize];
        let waits = self.pool.len(&connection.output) > 0 || connection.flags.has(Flags::IN_OUTBOX);
        let takes_output = !waits && self.net.unacknowledged(&connection.stream).is_ok_and(|bytes| bytes == 0);
        if connection.is_serving() && takes_output {
            let start = self.outbox.position();
            let bytes = self.outbox.bytes_mut();
            self.services[connection.flags.service() as usize].farewell(slot, reason, bytes);
            if bytes.len() > start as usize {
                // Best effort: who is gone already cannot be told.
                let _ = self.net.write(&mut connection.stream, &bytes[start as usize..]);
                bytes.truncate(start as usize);
                connection.flags.set(Flags::TOLD);
            }
        }
        close(&mut self.closed, connection, slot, reason);
    }

    /// Before the budget is passed, who holds most is closed, and their buffers are free at once.
    pub(super) fn evict(&mut self) {
        while let Some(slot) = self.pool.largest_over_budget() {
            let connection = &mut self.connections[slot as usize];
            self.pool.release(&mut connection.input);
            self.pool.release(&mut connection.output);
            close(&mut self.closed, connection, slot, Reason::MemoryBudget);
            self.stats.evicted += 1;
        }
    }

    /// One write. What the kernel does not take waits in the connection's buffer for the next writable edge.
    pub(super) fn flush_one(&mut self, Flush { slot, range }: Flush, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        if let State::Closed(_) = connection.state() {
            return;
        }
        connection.flags.clear(Flags::IN_OUTBOX);
        let mut from_outbox = !range.is_empty();
        if from_outbox && self.pool.len(&connection.output) > 0 {
            // There is more behind it: both leave in one write.
            if self.pool.prepend(&mut connection.output, Use::Write(slot), self.outbox.bytes(&range)).is_err() {
                return close(&mut self.closed, connection, slot, Reason::MemoryBudget);
            }
            from_outbox = false;
        }
        let bytes = if from_outbox { self.outbox.bytes(&range) } else { self.pool.bytes(&connection.output) };
        let owed = bytes.len();
        if owed > 0 {
            self.stats.work.writes += 1;
            let (sent, interrupted) = match self.net.write(&mut connection.stream, bytes) {
                Ok(sent) => (sent, false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, true),
                Err(error) => return close(&mut self.closed, connection, slot, Reason::of_error(&error)),
            };
            self.stats.bytes_out += sent as u64;
            if from_outbox {
                let rest = &self.outbox.bytes(&range)[sent..];
                if self.pool.append(&mut connection.output, Use::Write(slot), rest).is_err() {
                    return close(&mut self.closed, connection, slot, Reason::MemoryBudget);
                }
            } else {
                self.pool.consume(&mut connection.output, sent);
            }
            if sent > 0 {
                connection.output_progress(now);
            }
            let untrusted = connection.flags.has(Flags::UNTRUSTED);
            if untrusted && self.pool.len(&connection.output) > UNTRUSTED_OUTPUT_MAX {
                return close(&mut self.closed, connection, slot, Reason::OutputLimit);
            }
            if connection.owes(self.pool.len(&connection.output), self.limits.output_soft_limit, now) {
                arm(&mut self.timers, connection, slot, &self.timeouts, now);
            }
            if interrupted {
                // The kernel found no lack of room, so no edge will tell of any: the next turn tries again.
                return enqueue(&mut self.ready, connection, slot);
            }
            if sent < owed {
                return self.block(slot, now);
            }
        }
        match connection.all_sent() {
            Sent::Close(reason) => close(&mut self.closed, connection, slot, reason),
            Sent::ShutAndLinger => {
                // If that fails the connection is broken, and the next read says so.
                let _ = self.net.shutdown_write(&mut connection.stream);
                connection.flags.set(Flags::READABLE);
                enqueue(&mut self.ready, connection, slot);
            }
            Sent::GoOn => self.resume(slot, now),
        }
    }

    /// The kernel's buffer for this connection is full: the rest goes when it says that there is room.
    fn block(&mut self, slot: u32, now: Tick) {
        self.stats.short_writes += 1;
        let connection = &mut self.connections[slot as usize];
        connection.flags.set(Flags::BLOCKED);
        if !connection.flags.has(Flags::WATCHES_WRITABLE) {
            let token = Token::connection(slot, connection.generation);
            if self.net.watch_writable(&mut connection.stream, token).is_err() {
                return close(&mut self.closed, connection, slot, Reason::PeerReset);
            }
            connection.flags.set(Flags::WATCHES_WRITABLE);
        }
        arm(&mut self.timers, connection, slot, &self.timeouts, now);
        self.resume(slot, now);
    }

    /// Reads a paused connection again once little enough of its output is unsent.
    fn resume(&mut self, slot: u32, now: Tick) {
        let connection = &mut self.connections[slot as usize];
        if connection.flags.has(Flags::PAUSED) && self.pool.len(&connection.output) <= self.limits.low_watermark {
            connection.resume(now);
            arm(&mut self.timers, connection, slot, &self.timeouts, now);
            enqueue(&mut self.ready, connection, slot);
        }
    }
}
