//! Pure wire formats: bytes in, values out. A codec has no session, no reason to close, no clock.
//!
//! A framing finds the first message in the bytes of a stream. The framings of lines and of RESP
//! are stateless: the caller passes the number of bytes scanned before, so they do not scan them
//! twice.

pub mod engineio;
pub mod events;
pub mod http;
pub mod json;
pub mod line;
pub mod resp;
pub mod socketio;
pub mod websocket;
