//! The memory ledger: every byte the server holds for its connections, by kind.
//!
//! It is not kept, it is read off: each structure knows its own size, so the ledger can neither drift nor cost
//! anything per connection. User memory only; the kernel's share is measured by [`crate::memory`].

/// Bytes held, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Slots of the slab that have been used: connections, and free slots between them.
    pub slab: usize,
    /// Nodes of the timer wheel that have been used, one per slot.
    pub wheel: usize,
    /// Buffers lent out for parts of messages.
    pub read_buffers: usize,
    /// Buffers lent out for output the peers have not taken.
    pub write_buffers: usize,
    /// Free buffers kept for reuse.
    pub spare_buffers: usize,
    /// What the services hold for their sessions: subscriptions, say.
    pub services: usize,
    /// Tables that grow with the work of a turn: outbox, carry and flush lists, the pool's own.
    pub tables: usize,
    /// What is there however few connections there are: the wheel's ring, the read chunk, the events of a poll, the answers to
    /// datagrams, the receive buffers for them as far as reserved, and what services keep of the past.
    pub fixed: usize,
}

impl Ledger {
    /// What connections cost: everything but the fixed part.
    pub fn for_connections(&self) -> usize {
        self.total() - self.fixed
    }

    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The kinds by name, in the order of the fields.
    pub fn kinds(&self) -> [(&'static str, usize); 8] {
        [
            ("slab", self.slab),
            ("wheel", self.wheel),
            ("read-buffers", self.read_buffers),
            ("write-buffers", self.write_buffers),
            ("spare-buffers", self.spare_buffers),
            ("services", self.services),
            ("tables", self.tables),
            ("fixed", self.fixed),
        ]
    }
}
