//! Fixed limits of the routes of Socket.IO.

use super::CHANNEL_NAME;

/// Maximum number of namespaces. Their number is one byte of a session.
pub const NAMESPACES_MAX: usize = 64;

/// Longest name of a namespace, in bytes. Every packet of the namespace has it.
pub const NAMESPACE_NAME_MAX: usize = 64;

/// Maximum number of routes. The number of a route is two bytes.
pub const ROUTES_MAX: usize = 1024;

/// Maximum number of channels whose messages all sockets of a namespace get. A socket subscribes to
/// all of them when it connects.
pub const NAMESPACE_CHANNELS_MAX: usize = 64;

/// Maximum number of routes from one channel to rooms. A publish there is copied for each of them
/// in one turn, whatever its size.
pub const FORWARDS_MAX: usize = 16;

/// Largest `size` of a route, in bytes: the largest message of Engine.IO by polling.
pub const EVENT_SIZE_MAX: usize = 1_000_000;

/// Default `size` of a route, in bytes. The arguments of a click, a move or a line of chat fit.
pub const EVENT_SIZE: usize = 1024;

/// Default `rate` of a route, in events a second of one socket. A person clicks some ten times a
/// second.
pub const EVENTS_PER_SECOND: u32 = 20;

/// Largest count of a `rate`. No client needs more of one event.
pub const RATE_COUNT_MAX: u32 = 10_000;

/// Longest name of an event that a route has, in bytes.
pub const EVENT_NAME_MAX: usize = 256;

/// Levels of objects and arrays that `data`, `reply` and `ack` may have.
pub const DATA_LEVELS_MAX: usize = 8;

/// Longest value that a placeholder puts into the name of a channel, in bytes.
pub const NAME_VALUE_MAX: usize = 256;

/// Number of sockets and routes whose rates are known at a time, at 16 bytes each. A socket is
/// forgotten when its last event no longer counts, so 100,000 events a second fit.
pub const RATES_MAX: usize = 1 << 16;

/// Rates that share a place in the table: a new one replaces the one that ends first.
pub const RATES_PER_PLACE: usize = 8;

const _: () = {
    assert!(NAMESPACES_MAX <= u8::MAX as usize);
    assert!(ROUTES_MAX <= u16::MAX as usize);
    assert!(EVENT_SIZE <= EVENT_SIZE_MAX);
    assert!(NAME_VALUE_MAX <= CHANNEL_NAME);
    assert!(RATES_MAX.is_multiple_of(RATES_PER_PLACE));
};
