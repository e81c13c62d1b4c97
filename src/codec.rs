//! Pure wire formats: bytes in, values out. No session, no reason to close, no clock.
//!
//! A stream has no boundaries of its own; a framing gives it some. Framings are stateless: they look
//! at bytes and say where the first message is. What they have already scanned in vain they are told
//! again, so no byte is looked at twice.

pub mod line;
pub mod resp;
