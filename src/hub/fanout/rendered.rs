//! Large messages in encodings that change the payload: each is encoded once, for all receivers.
//!
//! The encoded message is a payload of its own, which the output of its receivers shares. It is
//! kept until the last receiver of the topic has it, because their walk may take many turns.

use std::rc::Rc;

use super::super::encoding::Encoding;
use crate::payload::Payload;

/// The encoded messages.
#[derive(Default)]
pub(super) struct Rendered(Vec<RenderedPost>);

struct RenderedPost {
    queue: u32,
    /// The number of the post.
    post: u32,
    encoding: Encoding,
    payload: Rc<Payload>,
}

impl Rendered {
    pub fn get(&self, post: u32, encoding: Encoding) -> Option<&Rc<Payload>> {
        let known = self.0.iter().find(|known| (known.post, known.encoding) == (post, encoding));
        known.map(|known| &known.payload)
    }

    /// Encodes the message of a post, unless it is encoded already. Its payload has about `length`
    /// bytes. Returns a new payload.
    pub fn make(
        &mut self,
        (queue, post): (u32, u32),
        encoding: Encoding,
        length: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Option<&Rc<Payload>> {
        if self.get(post, encoding).is_some() {
            return None;
        }
        let mut bytes = Vec::with_capacity(length + length / 8);
        encode(&mut bytes);
        let payload = Rc::new(Payload::new(&bytes));
        self.0.push(RenderedPost { queue, post, encoding, payload });
        self.0.last().map(|last| &last.payload)
    }

    /// Forgets the posts of a queue up to this number, because they are delivered.
    pub fn forget(&mut self, queue: u32, until: u32) {
        self.0.retain(|known| known.queue != queue || known.post > until);
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|known| known.payload.len()).sum::<usize>()
            + self.0.capacity() * size_of::<RenderedPost>()
    }
}
