//! The simulated kernel's part in accept, read, write and receive, with the faults of each.

use std::io;
use std::net::SocketAddr;

use super::connection::{Segment, Side};
use super::files::FileKind;
use super::{ClientId, Faults, Listener, SimNet, Socket, Stream, SystemCall, TraceEntry, os_error};
use crate::net::Ready;
use crate::sys::{DatagramBatch, errno};
use crate::token::{Source, Token};

impl SimNet {
    pub(super) fn accept_next(
        &mut self,
        listener: &Listener,
        token: Token,
    ) -> io::Result<(Stream, SocketAddr)> {
        // Linux reserves the file number before it looks into the queue, so this fails even if the
        // queue is empty.
        self.lowest_free_file()?;
        let is_empty = self.accept_queue_of(listener.0).0.is_empty();
        if let Some(failure) = self.accept_failure(is_empty) {
            if failure == errno::EAGAIN {
                self.wake(listener.0);
            } else if takes_connection(failure)
                && let Some(client) = self.accept_queue_of(listener.0).0.pop_front()
            {
                self.connection_mut(client).abort();
                self.accepts_lost += 1;
            }
            return Err(os_error(failure));
        }
        let Some(client) = self.accept_queue_of(listener.0).0.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let file = self.open(token, FileKind::Stream { client, watches_writable: false })?;
        let connection = self.connection_mut(client);
        connection.side = Side::Open(file);
        let peer = connection.peer;
        self.wake_if_ready(file);
        Ok((Stream(file), peer))
    }

    /// Returns the error of the next accept, ordered by a test or drawn at random.
    fn accept_failure(&mut self, is_empty: bool) -> Option<i32> {
        let ordered = match self.calls.attempt(SystemCall::Accept) {
            Err(error) => error.raw_os_error(),
            Ok(()) => self.accept_errors.front().copied(),
        };
        if let Some(failure) = ordered {
            // Such an error concerns a connection, so an empty queue cannot cause it.
            if is_empty && takes_connection(failure) {
                return None;
            }
            self.accept_errors.pop_front();
            return Some(failure);
        }
        let Faults { accept_aborted, accept_exhausted, interrupted, spurious_would_block, .. } =
            self.faults;
        const EXHAUSTED: [i32; 4] = [errno::EMFILE, errno::ENFILE, errno::ENOBUFS, errno::ENOMEM];
        if self.chance(accept_exhausted) {
            return Some(EXHAUSTED[self.random.usize(..EXHAUSTED.len())]);
        }
        if self.chance(interrupted) {
            return Some(errno::EINTR);
        }
        if !is_empty && self.chance(spurious_would_block) {
            return Some(errno::EAGAIN);
        }
        (!is_empty && self.chance(accept_aborted)).then_some(errno::ECONNABORTED)
    }

    pub(super) fn read_from(
        &mut self,
        client: ClientId,
        file: u32,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let waiting = self.connection(client).inbound.len();
        if let Err(failure) = self.calls.attempt(SystemCall::Read) {
            match failure.raw_os_error() {
                // The stream is not drained, so an edge must follow.
                Some(errno::EAGAIN) => self.wake(file),
                Some(errno::EINTR | errno::ENOMEM) => {}
                _ => self.connection_mut(client).break_silently(),
            }
            return Err(failure);
        }
        if waiting > 0 && self.chance(self.faults.spurious_would_block) {
            self.wake(file);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.chance(self.faults.interrupted) {
            return Err(os_error(errno::EINTR));
        }
        if waiting > 1 && into.len() > 1 && self.chance(self.faults.short_read) {
            let most = self.random.usize(1..waiting.min(into.len()));
            self.wake(file);
            return self.connection_mut(client).read(&mut into[..most]);
        }
        self.connection_mut(client).read(into)
    }

    pub(super) fn write_to(&mut self, client: ClientId, bytes: &[u8]) -> io::Result<usize> {
        if let Err(failure) = self.calls.attempt(SystemCall::Write) {
            match failure.raw_os_error() {
                Some(errno::EAGAIN) => self.run_short_of_memory(client),
                Some(errno::EINTR | errno::ENOMEM | errno::ENOBUFS) => {}
                _ => self.connection_mut(client).break_silently(),
            }
            return Err(failure);
        }
        if self.chance(self.faults.interrupted) {
            return Err(os_error(errno::EINTR));
        }
        let mut bytes = bytes;
        if self.connection(client).takes_output() && self.chance(self.faults.short_write) {
            self.run_short_of_memory(client);
            bytes = &bytes[..self.random.usize(..=bytes.len())];
            if bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let connection = self.connection_mut(client);
        let written = connection.write(bytes)?;
        if connection.client_gone && written > 0 {
            self.post(client, Segment::Reset);
            self.deliver_due();
        }
        Ok(written)
    }

    /// Stops taking output for this stream until the kernel has memory again.
    fn run_short_of_memory(&mut self, client: ClientId) {
        self.connection_mut(client).wants_room = true;
        self.post(client, Segment::Room);
    }

    pub(super) fn receive_from(
        &mut self,
        socket: &Socket,
        batch: &mut DatagramBatch,
    ) -> io::Result<usize> {
        batch.clear();
        if let Err(failure) = self.calls.attempt(SystemCall::Receive) {
            if failure.kind() == io::ErrorKind::WouldBlock {
                self.wake_if_ready(socket.0);
            }
            return Err(failure);
        }
        if let Some(failure) = self.receive_errors.pop_front() {
            return Err(os_error(failure));
        }
        if self.chance(self.faults.receive_failed) {
            return Err(os_error(errno::ECONNREFUSED));
        }
        if !self.datagrams_of(socket.0).is_empty() && self.chance(self.faults.spurious_would_block)
        {
            self.wake(socket.0);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let queue = self.datagrams_of(socket.0);
        while let Some((from, bytes)) = queue.front()
            && batch.push(*from, bytes)
        {
            queue.pop_front();
        }
        if batch.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(batch.len()) }
    }

    /// Notes the events of one poll in the trace.
    pub(super) fn note_ready(&mut self, events: &[Ready]) {
        for event in events {
            let what = match event.token.source() {
                Source::Connection { .. } if event.readable && event.writable => "ready rw, slot",
                Source::Connection { .. } if event.readable => "ready r, slot",
                Source::Connection { .. } => "ready w, slot",
                Source::Listener(_) => "ready, listener",
                Source::Socket(_) => "ready, socket",
                Source::Signals => "ready, signals",
                Source::Names => "ready, names",
            };
            self.note(what, event.token.to_usize() as u32, i64::from(event.read_on));
        }
    }

    pub(super) fn note(&mut self, what: &'static str, who: impl Into<u64>, amount: i64) {
        self.trace.note(TraceEntry { at: self.now, what, who: who.into(), amount });
    }

    pub(super) fn note_result(
        &mut self,
        what: &'static str,
        who: impl Into<u64>,
        result: Result<usize, &io::Error>,
    ) {
        let amount = match result {
            Ok(amount) => amount as i64,
            Err(error) => -i64::from(error.raw_os_error().unwrap_or(errno::EAGAIN)),
        };
        self.note(what, who, amount);
    }
}

/// True if an accept with this error also loses the connection. With ECONNABORTED, the connection
/// has already ended. With ENOSPC, epoll has no room for it.
fn takes_connection(failure: i32) -> bool {
    matches!(failure, errno::ECONNABORTED | errno::ENOSPC)
}
