//! A large payload, kept once for all its receivers.

use std::cell::Cell;

/// The bytes of a large message. The fan-out and the output of each receiver share them.
pub struct Payload {
    bytes: Box<[u8]>,
    /// Number of parts of unsent output that this payload is.
    pub holders: Cell<u32>,
    /// Bytes that all receivers together have taken.
    pub taken: Cell<u64>,
}

impl Payload {
    pub fn new(bytes: &[u8]) -> Payload {
        Payload { bytes: bytes.into(), holders: Cell::new(0), taken: Cell::new(0) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
