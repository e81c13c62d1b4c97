//! What the services put out in one turn, in the order they did: the bytes in one buffer, and whose they are.
//!
//! Answers are written straight from here to their sockets at the end of the turn. Only what a peer is too slow to
//! take is copied into a buffer of its connection.

use std::ops::Range;

use crate::connection::Reason;

#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    resumed: Vec<u32>,
}

/// Output of one connection.
#[derive(Clone, Debug)]
pub struct Entry {
    pub slot: u32,
    /// Where in the outbox's bytes. May be empty when there is only a close.
    pub range: Range<u32>,
    /// The connection asked for it; else others did.
    pub is_own: bool,
    /// Close once it is sent, and why.
    pub close: Option<Reason>,
}

impl Outbox {
    /// Where the next byte goes.
    pub fn position(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Where services append their answers.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Everything since `start` is output of the connection in `slot`.
    pub fn commit(&mut self, slot: u32, start: u32, close: Option<Reason>) {
        let range = start..self.position();
        if !range.is_empty() || close.is_some() {
            self.entries.push(Entry { slot, range, is_own: true, close });
        }
    }

    /// A range is output for a connection that did not ask for it; several may share one.
    pub fn deliver(&mut self, slot: u32, range: Range<u32>) {
        if !range.is_empty() {
            self.entries.push(Entry { slot, range, is_own: false, close: None });
        }
    }

    /// A connection is to close once it has been sent what it is owed.
    pub fn close(&mut self, slot: u32, reason: Reason) {
        self.entries.push(Entry { slot, range: 0..0, is_own: false, close: Some(reason) });
    }

    /// A connection whose service let it wait is to go on.
    pub fn resume(&mut self, slot: u32) {
        self.resumed.push(slot);
    }

    /// The connections to go on with, in the order in which they were named.
    pub fn take_resumed(&mut self) -> impl Iterator<Item = u32> {
        self.resumed.drain(..)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Memory held for the next turn, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        let resumed = self.resumed.capacity() * size_of::<u32>();
        resumed + self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Gives back what of that memory is not in use.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.resumed.shrink_to_fit();
    }
}
