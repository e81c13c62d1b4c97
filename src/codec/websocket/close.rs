//! Close frames: their codes and their reasons (RFC 6455, sections 5.5.1 and 7.4).

use super::{CONTROL_PAYLOAD_MAX, Opcode, encode_head};

/// The codes that an end of a connection sends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    Normal = 1000,
    GoingAway = 1001,
    Protocol = 1002,
    InvalidText = 1007,
    Policy = 1008,
    TooBig = 1009,
    TryAgainLater = 1013,
}

impl CloseCode {
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Returns a short text, which suits a close frame if there is none more precise.
    pub fn reason(self) -> &'static str {
        match self {
            CloseCode::Normal => "",
            CloseCode::GoingAway => "the server is shutting down",
            CloseCode::Protocol => "protocol error",
            CloseCode::InvalidText => "text is not UTF-8",
            CloseCode::Policy => "policy violation",
            CloseCode::TooBig => "message too big",
            CloseCode::TryAgainLater => "try again later",
        }
    }
}

/// Appends a close frame as a server sends it. A reason too long for a control frame is cut.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut length = reason.len().min(CONTROL_PAYLOAD_MAX - 2);
    while !reason.is_char_boundary(length) {
        length -= 1;
    }
    encode_head(out, Opcode::Close, 2 + length);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..length]);
}

/// Returns the code and the reason in the payload of a close frame. An empty payload has none. An
/// error names the code to answer with.
pub fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !is_sent(code) {
        return Err(CloseCode::Protocol);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| CloseCode::InvalidText)?;
    Ok(Some((code, reason)))
}

/// Returns true for a code that a close frame may have: one of RFC 6455 or of IANA's registry, or
/// one for libraries and applications. 1004 is reserved; 1005, 1006 and 1015 are never sent.
fn is_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_with_a_valid_code_is_parsed() {
        assert_eq!(parse_close(b""), Ok(None));
        assert_eq!(parse_close(b"\x03\xe8"), Ok(Some((1000, ""))));
        assert_eq!(parse_close("\x03\u{f0}bye".as_bytes()), Err(CloseCode::Protocol));
        assert_eq!(parse_close(b"\x03\xf0bye \xc3\xa9"), Ok(Some((1008, "bye é"))));
        assert_eq!(parse_close(b"\x03"), Err(CloseCode::Protocol));
        assert_eq!(parse_close(b"\x03\xe8\xc3"), Err(CloseCode::InvalidText));
        // A bad code counts before a bad reason.
        assert_eq!(parse_close(b"\x00\x00\xc3"), Err(CloseCode::Protocol));
    }

    #[test]
    fn only_registered_and_private_codes_are_valid() {
        let valid = |code: &u16| parse_close(&code.to_be_bytes()).is_ok();
        let mut found: Vec<u16> = (0..=u16::MAX).filter(valid).collect();
        let private = found.split_off(11);
        assert_eq!(found, [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013]);
        assert_eq!((private[0], private[1], private[2000]), (1014, 3000, 4999));
        assert_eq!(private.len(), 2001);
    }

    #[test]
    fn a_reason_is_cut_between_characters_to_fit_a_control_frame() {
        for (reason, length) in [
            ("a".repeat(122), 122),
            ("a".repeat(123), 123),
            ("a".repeat(124), 123),
            ("é".repeat(61), 122),
            ("é".repeat(62), 122),
            (format!("a{}", "é".repeat(61)), 123),
        ] {
            let mut out = Vec::new();
            encode_close(&mut out, CloseCode::Policy.code(), &reason);
            assert_eq!(out[..2], [0x88, 2 + length as u8]);
            assert_eq!(parse_close(&out[2..]), Ok(Some((1008, &reason[..length]))));
        }
    }
}
