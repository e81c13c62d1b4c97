//! A large payload, kept once for all its receivers.

use std::cell::{Cell, OnceCell};

/// The bytes of a large message. The fan-out and the output of each receiver share them.
pub struct Payload {
    bytes: Box<[u8]>,
    /// Number of parts of unsent output that this payload is.
    pub holders: Cell<u32>,
    /// Bytes that all receivers together have taken.
    pub taken: Cell<u64>,
    /// Whether the bytes are UTF-8, once it has been asked.
    is_text: OnceCell<bool>,
}

impl Payload {
    pub fn new(bytes: &[u8]) -> Payload {
        Payload {
            bytes: bytes.into(),
            holders: Cell::new(0),
            taken: Cell::new(0),
            is_text: OnceCell::new(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true if the bytes are UTF-8. Looks at them only once.
    pub fn is_text(&self) -> bool {
        *self.is_text.get_or_init(|| std::str::from_utf8(&self.bytes).is_ok())
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
