//! The flags of a connection, with the index of its service, in two bytes.

/// Maximum number of services: the flags hold their index in three bits.
pub const SERVICES_MAX: usize = 1 << (u16::BITS - Flags::SERVICE_SHIFT);

/// The flags of a connection, which do not depend on its state.
#[derive(Clone, Copy, Default)]
pub struct Flags(u16);

impl Flags {
    /// The kernel may hold input that no further edge will announce.
    pub const READABLE: Flags = Flags(1);
    /// A short read does not mean drained ([`Ready::read_on`]).
    pub const READ_ON: Flags = Flags(1 << 1);
    /// On the carry list.
    pub const QUEUED: Flags = Flags(1 << 2);
    /// The input buffer may hold a complete message, because decoding stopped at a budget.
    pub const UNDECODED: Flags = Flags(1 << 3);
    /// Not read, because too much output is unsent.
    pub const PAUSED: Flags = Flags(1 << 4);
    /// The last write was short. A writable edge will announce room for more.
    pub const BLOCKED: Flags = Flags(1 << 5);
    /// Registered for writable edges, which happens at most once.
    pub const WATCHES_WRITABLE: Flags = Flags(1 << 6);
    /// The server is draining. The connection closes when its input has been answered.
    pub const DRAINING: Flags = Flags(1 << 7);
    /// On the flush list with a range of the outbox. More output goes to the connection's buffer.
    pub const IN_OUTBOX: Flags = Flags(1 << 8);
    /// Not authenticated yet: smaller limits on its input and output apply.
    pub const UNTRUSTED: Flags = Flags(1 << 9);
    /// Unsent output exceeds the soft limit, which is allowed only for a time.
    pub const OVER_SOFT_LIMIT: Flags = Flags(1 << 10);

    /// In the silent set of [`admission`](crate::admission).
    pub const SILENT: Flags = Flags(1 << 11);

    /// The reason for the close has been sent. A reset could destroy that message.
    pub const TOLD: Flags = Flags(1 << 12);

    /// The bits from here up hold the index of the connection's service.
    const SERVICE_SHIFT: u32 = 13;

    pub fn of_service(index: u8) -> Flags {
        Flags(u16::from(index) << Flags::SERVICE_SHIFT)
    }

    pub fn service(self) -> u8 {
        (self.0 >> Flags::SERVICE_SHIFT) as u8
    }

    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }

    pub fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }

    pub fn put(&mut self, flag: Flags, on: bool) {
        if on { self.set(flag) } else { self.clear(flag) }
    }
}
