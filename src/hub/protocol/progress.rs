//! How far a message of a client was served.

/// The outcome of a message, or of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageProgress {
    Taken,
    /// Taken, and the client still counts as silent until it speaks again.
    StaysSilent,
    /// The message must wait, and is passed again.
    Waits,
}
