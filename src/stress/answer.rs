//! What the search for the end of an answer finds, in each protocol.

use std::ops::Range;

/// Longest answer in bytes, beside those of HTTP. A longer one counts as a wrong answer.
pub const ANSWER_MAX: usize = 64 << 20;

/// The answer at the front of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole {
        length: usize,
        /// True for an error reply, or a status of 400 or more.
        is_error: bool,
        /// True if the server closes the connection after the answer.
        is_last: bool,
    },
    /// The first `length` bytes belong to the answer, and more will follow; or they concern no
    /// request.
    Part { length: usize, is_error: bool },
    /// A message of WebSocket, with its payload.
    Message { payload: Range<usize>, length: usize, is_error: bool },
    /// A ping of WebSocket, which wants a pong with the same payload.
    Ping { payload: Range<usize>, length: usize },
    /// The server of Socket.IO has opened a session. The packet that connects to its namespace is
    /// due.
    Opened { length: usize },
    /// A ping of Engine.IO, which wants a pong.
    EnginePing { length: usize },
    /// The server closes the connection with this code and reason.
    Close { code: u16, reason: Range<usize>, length: usize },
    /// The answer cannot be complete with fewer than `needs` bytes.
    Incomplete { needs: usize },
    /// The bytes break the protocol or do not answer the request. The kind of error says how.
    Wrong(&'static str),
}

/// The kind of error of an answer that breaks its protocol.
pub const WRONG: &str = "wrong answer";
