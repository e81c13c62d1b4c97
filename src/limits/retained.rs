//! The limits of retained values: their rules, their memory, and how newcomers get them.

use std::time::Duration;

use super::ASKED_MAX;

/// Default of `retained_memory`, in bytes. A million values such as `{"index":5,"checked":true}`
/// fit.
pub const RETAINED_MEMORY: usize = 64 << 20;

/// Maximum number of channels whose messages are kept. An eviction looks at each.
pub const RETAIN_RULES_MAX: usize = 256;

/// Maximum number of keys that a rule of retained values may name.
pub const RETAINED_KEYS_MAX: usize = 1 << 24;

/// Maximum number of keys of a rule that names no number.
pub const RETAINED_KEYS: usize = 1_000_000;

/// Longest key of a retained value, in bytes of its JSON text. Its length is one byte.
pub const RETAINED_KEY_MAX: usize = u8::MAX as usize;

/// Longest message that is kept, in bytes. Making room for it may evict some twenty thousand small
/// values, which takes 2 ms.
pub const RETAINED_VALUE_MAX: usize = 1 << 20;

/// Maximum number of values that one publish evicts. It suffices for the longest message; more are
/// over only after the bound was lowered.
pub const EVICTED_AT_ONCE: usize = 32 * 1024;

/// Number of values that the fullest channel loses before the channels are compared again.
pub const EVICTED_PER_LOOK: usize = 64;

/// Size of a segment of kept messages, in bytes. Writing one anew takes some 50 us, and one segment
/// makes one chunk for newcomers.
pub const SEGMENT_BYTES: usize = 16 * 1024;

/// A segment with fewer dead bytes is not written anew.
pub const SEGMENT_DEAD_MIN: usize = 1024;

/// Average number of keys in one table of the index when a channel is full. A table that grows
/// moves its keys within a turn.
pub const KEYS_PER_TABLE: usize = 256;

/// Maximum number of segments that one turn sweeps for removed keys, some 10 us each.
pub const SWEEPS_PER_TURN: usize = 16;

/// Bytes of kept messages after which a turn serves no further newcomer, some 50 us. The next turn
/// follows at once, so more would only delay others.
pub const CATCH_UP_BYTES: usize = 64 * 1024;

/// Maximum number of chunks that one turn encodes for newcomers, some 50 us each.
pub const CATCH_UP_CHUNKS: usize = 2;

/// Maximum number of newcomers that have an unsent chunk at a time. A turn may have to write to all
/// of them, some 20 us each.
pub const CATCH_UPS_IN_FLIGHT: usize = 16;

/// A newcomer counts as one of these for this long after its last chunk. Newcomers that do not read
/// delay the others by no more.
pub const CATCH_UP_PATIENCE: Duration = Duration::from_millis(100);

/// Maximum number of newcomers that one turn looks at, some 0.1 ms.
pub const CATCH_UPS_VISITED: usize = 1024;

/// Size of the messages of one chunk, in bytes with their channel and framing. A larger message is
/// a chunk of its own.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Framing that a message in a chunk counts as, in bytes.
pub const CHUNK_MESSAGE_BYTES: usize = 32;

/// A shorter chunk is copied for each receiver.
pub const CHUNK_SHARED_MIN: usize = 4096;

/// Maximum number of chunks kept for further newcomers at the same place.
pub const CHUNKS_KEPT: usize = 8;

/// Size of a page of kept messages from which it takes no further one, in bytes.
pub const RETAINED_PAGE_BYTES: usize = 64 * 1024;

/// Steps that one such page counts as. It takes some 0.1 ms.
pub const RETAINED_PAGE_STEPS: usize = ASKED_MAX / 2;
