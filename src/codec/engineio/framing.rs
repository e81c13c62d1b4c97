//! The two ways in which packets travel: as WebSocket messages, or joined in the body of a poll.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{SEPARATOR, write_binary};
use crate::codec::websocket::{self, Opcode};

/// How packets are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each packet is a WebSocket message.
    Frames,
    /// Each packet follows a [`SEPARATOR`], and binary ones are in base64.
    Poll,
}

impl Framing {
    /// Appends a text packet, which `write` writes.
    pub fn text(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Framing::Frames => {
                let start = out.len();
                write(out);
                websocket::frame(out, Opcode::Text, start);
            }
            Framing::Poll => {
                out.push(SEPARATOR);
                write(out);
            }
        }
    }

    /// Appends a binary packet.
    pub fn binary(self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self {
            Framing::Frames => websocket::encode(out, Opcode::Binary, bytes),
            Framing::Poll => {
                out.push(SEPARATOR);
                write_binary(out, bytes);
            }
        }
    }
}

/// Turns packets that waited for a poll into WebSocket messages.
pub fn poll_to_frames(packets: &[u8], out: &mut Vec<u8>) {
    for packet in packets.split(|byte| *byte == SEPARATOR).skip(1) {
        match packet.strip_prefix(b"b") {
            Some(base64) => {
                let bytes = STANDARD.decode(base64).unwrap_or_default();
                Framing::Frames.binary(out, &bytes);
            }
            None => Framing::Frames.text(out, |out| out.extend_from_slice(packet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_poll_become_the_frames_that_they_would_have_been() {
        let (mut poll, mut frames, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (out, framing) in [(&mut poll, Framing::Poll), (&mut expected, Framing::Frames)] {
            framing.text(out, |out| out.extend_from_slice(b"42[\"a\"]"));
            (0..4).for_each(|length| framing.binary(out, &[0x1e, b'b', 0xff][..length.min(3)]));
            framing.text(out, |out| out.push(b'2'));
        }
        assert!(poll.starts_with(b"\x1e42[\"a\"]\x1eb"));
        poll_to_frames(&poll, &mut frames);
        assert_eq!(frames, expected);
        let mut none = Vec::new();
        poll_to_frames(b"", &mut none);
        assert!(none.is_empty());
    }
}
