//! Fixed limits of HTTP.

use super::MAX_MESSAGE_MAX;

/// Shortest `max_head`, in bytes. The head of a browser without cookies fits.
pub const HEAD_MIN: usize = 1024;

/// Longest `max_head`, in bytes. A client that sends a head slowly may hold this much.
pub const HEAD_MAX: usize = 1 << 20;

/// Largest `max_headers`. Their places are on the stack, 8 KiB.
pub const HEADERS_MAX: usize = 256;

/// Longest chunk line or trailer field of a chunked body, in bytes with its CRLF. Signatures that
/// clients put there have some 100 bytes.
pub const CHUNK_LINE_MAX: usize = 1024;

/// Chunk lines, extensions and trailers of a body may have as many bytes as its data, and this many
/// more. Chunks of five bytes always fit, and so do 4,096 chunks of one byte.
pub const CHUNK_FRAMING_SPARE: usize = 16 * 1024;

// A position in a chunked body as it is sent is stored in four bytes.
const _: () = assert!(
    2 * MAX_MESSAGE_MAX as u64 + (CHUNK_FRAMING_SPARE + CHUNK_LINE_MAX) as u64 + 4
        <= u32::MAX as u64
);
