//! Writes WebSocket frames. Each message is one frame.

use super::frame::{FINAL, MASKED};
use super::{CONTROL_PAYLOAD_MAX, Opcode, mask};

/// Appends a frame as a server sends it.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(10 + payload.len());
    encode_head(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the head of a frame as a server sends it. The caller appends `length` bytes of payload.
pub fn encode_head(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    head(out, opcode, length, 0);
}

/// Makes all bytes of `out` from `start` on the payload of a frame, as a server sends it.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, start: usize) {
    let end = out.len();
    encode_head(out, opcode, end - start);
    // The head is behind the payload now; it goes before it.
    let head = out.len() - end;
    out[start..].rotate_right(head);
}

/// Appends a frame as a client sends it.
pub fn encode_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    out.reserve(14 + payload.len());
    head(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[start..], mask);
}

fn head(out: &mut Vec<u8>, opcode: Opcode, length: usize, masked: u8) {
    out.push(FINAL | opcode as u8);
    if length <= CONTROL_PAYLOAD_MAX {
        return out.push(masked | length as u8);
    }
    debug_assert!(matches!(opcode, Opcode::Text | Opcode::Binary), "a long control frame");
    match u16::try_from(length) {
        Ok(length) => {
            out.push(masked | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
