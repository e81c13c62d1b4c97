//! The memory ledger: every byte of user memory that the server holds for its connections, by kind.
//!
//! The ledger keeps no counts. It reads the size of each structure, so it cannot drift, and it
//! costs nothing per connection. The kernel's share is measured in [`crate::memory`].

/// The bytes held, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Slots of the slab that have been used: connections, and the free slots between them.
    pub slab: usize,
    /// Nodes of the timer wheel that have been used, one per slot.
    pub wheel: usize,
    /// Buffers lent for parts of messages.
    pub read_buffers: usize,
    /// Buffers lent for unsent output.
    pub write_buffers: usize,
    /// Spare buffers kept for reuse.
    pub spare_buffers: usize,
    /// Memory of the services for their sessions, such as subscriptions.
    pub services: usize,
    /// Tables that grow with the work of a turn: outbox, carry and flush lists, the pool's tables.
    pub tables: usize,
    /// Memory that does not depend on the number of connections: the wheel's ring, the read chunk,
    /// the events of a poll, the buffers for datagrams, and the services' histories.
    pub fixed: usize,
}

impl Ledger {
    /// Returns the bytes that connections cost: all kinds except `fixed`.
    pub fn for_connections(&self) -> usize {
        self.total() - self.fixed
    }

    /// Returns the sum of all kinds in bytes.
    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Returns the kinds with their names, in the order of the fields.
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
