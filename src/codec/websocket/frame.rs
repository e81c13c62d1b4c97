//! The head of a WebSocket frame (RFC 6455, section 5.2).

use super::{CONTROL_PAYLOAD_MAX, CloseCode, Opcode, Role};

pub(super) const FINAL: u8 = 0x80;
pub(super) const MASKED: u8 = 0x80;

/// A valid head.
pub(super) struct FrameHead {
    pub is_last: bool,
    /// `None`: the frame continues a message.
    pub opcode: Option<Opcode>,
    /// Length of the payload, in bytes.
    pub length: usize,
    /// Zeros if the frame has no mask.
    pub mask: [u8; 4],
    /// Length of the head itself, in bytes.
    pub size: usize,
}

impl FrameHead {
    /// Parses the head at the front of `bytes`. Returns `None` if it is incomplete and, so far,
    /// valid. `is_inside` is true between the frames of a message. `room` is the number of bytes
    /// that the message may still have.
    #[inline]
    pub fn parse(
        bytes: &[u8],
        role: Role,
        is_inside: bool,
        room: usize,
    ) -> Result<Option<FrameHead>, CloseCode> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = opcode(first, is_inside)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let (is_last, is_masked) = (first & FINAL != 0, second & MASKED != 0);
        if is_masked != (role == Role::Server) {
            return Err(CloseCode::Protocol);
        }
        let short = second & !MASKED;
        let (length, at) = match short {
            126.. if is_control(opcode) => return Err(CloseCode::Protocol),
            126 => match bytes.get(2..).and_then(|bytes| bytes.first_chunk()) {
                None => return Ok(None),
                Some(long) => (u64::from(u16::from_be_bytes(*long)), 4),
            },
            127 => match bytes.get(2..).and_then(|bytes| bytes.first_chunk()) {
                None => return Ok(None),
                Some(long) => (u64::from_be_bytes(*long), 10),
            },
            _ => (u64::from(short), 2),
        };
        let is_minimal = match short {
            126 => length > CONTROL_PAYLOAD_MAX as u64,
            127 => length > u64::from(u16::MAX) && length <= i64::MAX as u64,
            _ => true,
        };
        if !is_minimal {
            return Err(CloseCode::Protocol);
        }
        let length = usize::try_from(length).map_err(|_| CloseCode::TooBig)?;
        if !is_control(opcode) && length > room {
            return Err(CloseCode::TooBig);
        }
        if !is_masked {
            return Ok(Some(FrameHead { is_last, opcode, length, mask: [0; 4], size: at }));
        }
        let Some(&mask) = bytes.get(at..).and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        Ok(Some(FrameHead { is_last, opcode, length, mask, size: at + 4 }))
    }

    pub fn is_control(&self) -> bool {
        is_control(self.opcode)
    }
}

/// Returns the opcode in the first byte of a frame, or `None` if the frame continues a message.
fn opcode(first: u8, is_inside: bool) -> Result<Option<Opcode>, CloseCode> {
    let is_last = first & FINAL != 0;
    match first & !FINAL {
        0 if is_inside => Ok(None),
        1 if !is_inside => Ok(Some(Opcode::Text)),
        2 if !is_inside => Ok(Some(Opcode::Binary)),
        8 if is_last => Ok(Some(Opcode::Close)),
        9 if is_last => Ok(Some(Opcode::Ping)),
        10 if is_last => Ok(Some(Opcode::Pong)),
        _ => Err(CloseCode::Protocol),
    }
}

fn is_control(opcode: Option<Opcode>) -> bool {
    matches!(opcode, Some(Opcode::Close | Opcode::Ping | Opcode::Pong))
}
