//! The output of all services in one turn: the bytes in one buffer, the connections they are for,
//! in the order of the calls, and the dials.
//!
//! At the end of the turn, bytes are written from here straight to the sockets. Only the part that
//! a socket does not take is copied to a buffer of its connection.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::connection::Reason;
use crate::limits::SPARE_OUTBOX_MAX;
use crate::payload::Payload;

/// The bytes and closes of one turn.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    payloads: Vec<Rc<Payload>>,
    resumed: Vec<u32>,
    dials: Vec<(u8, Dial)>,
}

/// Output for one connection.
#[derive(Clone, Debug)]
pub struct Entry {
    pub slot: u32,
    /// The range of the outbox's bytes. Empty if the entry is only a close.
    pub range: Range<u32>,
    /// The shared payload behind these bytes: an index, or [`Outbox::NO_PAYLOAD`].
    pub payload: u32,
    /// True if the connection itself asked for this output.
    pub is_own: bool,
    /// The reason to close the connection once the output is sent.
    pub close: Option<Reason>,
}

/// A connection that a service asks the loop to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The service's own number of the dial, which comes back with its outcome.
    pub number: u32,
    /// An IP address or a name.
    pub host: String,
    pub port: u16,
    /// Time for the whole dial, with the look-up of the name.
    pub timeout: Duration,
}

impl Outbox {
    /// Stands for no payload.
    pub const NO_PAYLOAD: u32 = u32::MAX;

    /// Returns the position of the next byte.
    pub fn position(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Returns the buffer that services append their answers to.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes everything since `start` output for the connection in `slot`.
    pub fn commit(&mut self, slot: u32, start: u32, close: Option<Reason>) {
        let range = start..self.position();
        if !range.is_empty() || close.is_some() {
            let payload = Self::NO_PAYLOAD;
            self.entries.push(Entry { slot, range, payload, is_own: true, close });
        }
    }

    /// Makes a range output for a connection that did not ask for it. Several may share one range.
    pub fn deliver(&mut self, slot: u32, range: Range<u32>) {
        if !range.is_empty() {
            let payload = Self::NO_PAYLOAD;
            self.entries.push(Entry { slot, range, payload, is_own: false, close: None });
        }
    }

    /// Makes a range, a shared payload and a second range output for a connection.
    pub fn deliver_shared(
        &mut self,
        slot: u32,
        head: Range<u32>,
        payload: &Rc<Payload>,
        tail: Range<u32>,
    ) {
        if !self.payloads.last().is_some_and(|last| Rc::ptr_eq(last, payload)) {
            self.payloads.push(payload.clone());
        }
        let payload = self.payloads.len() as u32 - 1;
        self.entries.push(Entry { slot, range: head, payload, is_own: false, close: None });
        self.deliver(slot, tail);
    }

    /// Closes a connection once its pending output is sent.
    pub fn close(&mut self, slot: u32, reason: Reason) {
        let (range, payload) = (0..0, Self::NO_PAYLOAD);
        self.entries.push(Entry { slot, range, payload, is_own: false, close: Some(reason) });
    }

    /// Resumes a connection that waits for its service.
    pub fn resume(&mut self, slot: u32) {
        self.resumed.push(slot);
    }

    /// Takes the list of resumed connections, in the order of the calls.
    pub fn take_resumed(&mut self) -> impl Iterator<Item = u32> {
        self.resumed.drain(..)
    }

    /// Asks the loop to dial for the service with this index.
    pub fn dial(&mut self, service: u8, dial: Dial) {
        self.dials.push((service, dial));
    }

    /// Returns whether a service has asked for a dial.
    pub fn has_dials(&self) -> bool {
        !self.dials.is_empty()
    }

    /// Takes the dials, each with the index of its service.
    pub fn take_dials(&mut self) -> Vec<(u8, Dial)> {
        std::mem::take(&mut self.dials)
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Returns the payload of an entry.
    pub fn payload(&self, index: u32) -> Option<&Rc<Payload>> {
        self.payloads.get(index as usize)
    }

    /// Returns the bytes of output in this turn so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.entries.is_empty() && self.dials.is_empty()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > SPARE_OUTBOX_MAX {
            self.bytes = Vec::new();
        }
        self.entries.clear();
        self.payloads.clear();
    }

    /// Returns the memory kept from turn to turn, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        let resumed = self.resumed.capacity() * size_of::<u32>();
        let payloads = self.payloads.capacity() * size_of::<Rc<Payload>>();
        let dials = self.dials.capacity() * size_of::<(u8, Dial)>();
        resumed
            + payloads
            + dials
            + self.bytes.capacity()
            + self.entries.capacity() * size_of::<Entry>()
    }

    /// Frees the part of that memory that is unused.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.payloads.shrink_to_fit();
        self.resumed.shrink_to_fit();
    }
}
