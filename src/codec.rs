//! How a byte stream is cut into messages. A stream has no boundaries of its own; a framing gives it some.
//!
//! Framings are sans-IO and stateless: they look at bytes and say where the first message is. What they have
//! already scanned in vain they are told again, so no byte is looked at twice.

pub mod line;
pub mod resp;

use crate::connection::Reason;

/// The framing that a service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Whatever has arrived is a message.
    Raw,
    /// A message ends at LF or CRLF, which are not part of it. At the end of the stream an unended line is one too.
    Lines,
    /// A message is a command of the Redis protocol: a whole array of bulk strings, or an inline line.
    Commands,
}

/// What a message may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingLimits {
    /// Bytes of a line without its ending.
    pub line_max: usize,
    pub commands: resp::CommandLimits,
}

/// What the front of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole message, and how many bytes it and its framing take up.
    Message { message: &'a [u8], length: usize },
    /// Part of one, or nothing.
    Incomplete,
    /// No message can be found any more.
    Invalid(Invalid),
}

/// Why no message can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A line of more than so many bytes.
    LineTooLong(usize),
    /// Not the Redis protocol.
    Command(resp::FrameError),
}

impl Invalid {
    /// The line that tells the peer.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Invalid::Command(error) => {
                let mut text = b"ERR ".to_vec();
                error.write(&mut text);
                resp::error(out, &text);
            }
            Invalid::LineTooLong(max) => {
                out.extend_from_slice(format!("error: line longer than {max} bytes\r\n").as_bytes())
            }
        }
    }

    /// The reason that the connection is closed for.
    pub fn reason(self) -> Reason {
        match self {
            Invalid::LineTooLong(_) => Reason::LineTooLong,
            Invalid::Command(_) => Reason::ProtocolError,
        }
    }
}

impl Framing {
    /// Looks for a message at the front of `bytes`. The first `scanned` of them are known to hold no end of one.
    pub fn decode<'a>(self, bytes: &'a [u8], scanned: usize, limits: &FramingLimits) -> Decoded<'a> {
        match self {
            Framing::Raw if bytes.is_empty() => Decoded::Incomplete,
            Framing::Raw => Decoded::Message { message: bytes, length: bytes.len() },
            Framing::Lines => line::decode(bytes, scanned, limits.line_max),
            Framing::Commands => match resp::frame(bytes, scanned, &limits.commands) {
                resp::Frame::Command { message, length } => Decoded::Message { message, length },
                resp::Frame::Incomplete => Decoded::Incomplete,
                resp::Frame::Invalid(error) => Decoded::Invalid(Invalid::Command(error)),
            },
        }
    }

    /// What is left at the end of the stream: the last message, if the framing lets the end complete one.
    pub fn decode_end(self, rest: &[u8]) -> Option<&[u8]> {
        match self {
            // It has been a message already, or is not a whole command.
            Framing::Raw | Framing::Commands => None,
            Framing::Lines => (!rest.is_empty()).then(|| line::strip_cr(rest)),
        }
    }
}
