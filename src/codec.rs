//! Pure wire formats: bytes in, values out. A codec has no session, no reason to close, no clock.
//!
//! A framing finds the first message in the bytes of a stream. Framings are stateless. The caller
//! passes the number of bytes scanned before, so a framing does not scan them twice.

pub mod line;
pub mod resp;
