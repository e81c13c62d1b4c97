//! Output behind the bytes of a buffer: shared payloads, each followed by own bytes.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{BudgetExceeded, BufferId, BufferPool, Use};
use crate::payload::Payload;

/// The parts of the output of one connection, from the first shared payload on.
#[derive(Default)]
pub(super) struct Tail {
    parts: VecDeque<Part>,
    /// Bytes of the first payload that are sent.
    sent: usize,
    /// Unsent bytes of all parts.
    unsent: usize,
    /// Lengths of all payloads.
    shared: usize,
    /// Capacity of the own bytes of all parts.
    own: usize,
}

/// A shared payload and the own bytes behind it.
struct Part {
    payload: Rc<Payload>,
    own: Vec<u8>,
}

impl Tail {
    /// Appends a payload. Returns the bytes of memory that it adds: none unless this is its first
    /// holder.
    pub(super) fn push(&mut self, payload: Rc<Payload>) -> usize {
        let (length, holders) = (payload.len(), payload.holders.get());
        payload.holders.set(holders + 1);
        self.unsent += length;
        self.shared += length;
        self.parts.push_back(Part { payload, own: Vec::new() });
        if holders == 0 { length } else { 0 }
    }

    /// Returns the own bytes at the end.
    pub(super) fn last(&mut self) -> &mut Vec<u8> {
        &mut self.parts.back_mut().expect("a tail has a part").own
    }

    /// Notes that `bytes` were appended to the own bytes at the end, and the change of their
    /// capacity.
    pub(super) fn grew(&mut self, bytes: usize, before: usize, after: usize) {
        self.unsent += bytes;
        self.own = self.own - before + after;
    }

    /// Returns the unsent bytes of the first payload.
    pub(super) fn first(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| &part.payload.bytes()[self.sent..])
    }

    /// Notes that the peer took `count` bytes of the first payload. Once that is sent, returns the
    /// own bytes behind it and the bytes of memory that it frees.
    pub(super) fn take(&mut self, count: usize) -> Option<(Vec<u8>, usize)> {
        let payload = &self.parts.front()?.payload;
        payload.taken.set(payload.taken.get() + count as u64);
        self.sent += count;
        self.unsent -= count;
        (self.sent == payload.len()).then(|| self.pop())?
    }

    fn pop(&mut self) -> Option<(Vec<u8>, usize)> {
        let Part { payload, own } = self.parts.pop_front()?;
        self.sent = 0;
        self.unsent -= own.len();
        self.own -= own.capacity();
        self.shared -= payload.len();
        Some((own, let_go(&payload)))
    }

    /// Lets all payloads go. Returns the bytes of memory that this frees.
    pub(super) fn clear(&mut self) -> usize {
        self.parts.drain(..).map(|part| let_go(&part.payload)).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Returns the unsent bytes of payloads that others may share.
    pub(super) fn unsent_shared(&self) -> usize {
        self.shared - self.sent
    }

    /// Returns the capacity of the own bytes.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Returns the bytes that the tail keeps in memory, shared ones included.
    pub(super) fn weight(&self) -> usize {
        self.own + self.shared
    }
}

impl BufferPool {
    /// Appends bytes behind a shared payload.
    pub(super) fn append_to_tail(
        &mut self,
        key: usize,
        input: &[u8],
    ) -> Result<(), BudgetExceeded> {
        let Some(tail) = &mut self.buffers[key].tail else { return Ok(()) };
        let (length, before) = (tail.last().len(), tail.last().capacity());
        let larger = match length + input.len() > before {
            true => Some(self.lend(length + input.len())?),
            false => None,
        };
        let Some(tail) = &mut self.buffers[key].tail else { return Ok(()) };
        let bytes = tail.last();
        let smaller = larger.map(|mut larger| {
            larger.extend_from_slice(bytes);
            std::mem::replace(bytes, larger)
        });
        bytes.extend_from_slice(input);
        let after = bytes.capacity();
        tail.grew(input.len(), before, after);
        self.count(self.buffers[key].used_for, before, after);
        smaller.into_iter().for_each(|smaller| self.keep(smaller));
        self.reweigh(key);
        Ok(())
    }

    /// Appends a shared payload to the output in `slot`.
    pub fn append_shared(
        &mut self,
        slot: &mut Option<BufferId>,
        used_for: Use,
        payload: Rc<Payload>,
    ) {
        let key = slot.get_or_insert_with(|| self.insert(Vec::new(), used_for)).key();
        self.shared_bytes += self.buffers[key].tail.get_or_insert_default().push(payload);
        self.reweigh(key);
    }

    /// Drops `count` bytes of the tail of a buffer whose own bytes are all consumed.
    pub(super) fn take_shared(&mut self, key: usize, mut count: usize) {
        while count > 0 {
            let buffer = &mut self.buffers[key];
            let own = count.min(buffer.bytes.len() - buffer.done as usize);
            buffer.done += own as u32;
            count -= own;
            let Some(tail) = &mut buffer.tail else { break };
            let taken = count.min(tail.first().len());
            count -= taken;
            let Some((next, freed)) = tail.take(taken) else { continue };
            if tail.is_empty() {
                buffer.tail = None;
            }
            buffer.done = 0;
            let used_for = buffer.used_for;
            let old = std::mem::replace(&mut buffer.bytes, next);
            self.shared_bytes -= freed;
            self.count(used_for, old.capacity(), 0);
            self.keep(old);
            self.reweigh(key);
        }
        debug_assert_eq!(count, 0, "more bytes consumed than held");
    }
}

/// Removes a holder of a payload. Returns the bytes of memory that this frees.
fn let_go(payload: &Payload) -> usize {
    let holders = payload.holders.get() - 1;
    payload.holders.set(holders);
    if holders == 0 { payload.len() } else { 0 }
}
