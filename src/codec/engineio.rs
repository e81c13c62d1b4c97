//! Packets of Engine.IO, version 4, for both transports.
//!
//! A packet of text is one digit and its data. A websocket has one packet in each message. The body
//! of a poll has packets with the byte 0x1e between them. There, and on a websocket of a client
//! that is set to base64, a binary packet is `b` and base64.

mod framing;

use std::fmt;
use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::events::base64;
use super::json;

pub use framing::{Framing, poll_to_frames};

/// Stands between the packets of a body.
pub const SEPARATOR: u8 = 0x1e;

/// Precedes the base64 of a binary packet.
const BINARY: u8 = b'b';

/// Length of a session id, in base64url characters.
pub const SID_LENGTH: usize = 20;

/// The type of a packet; its value is the digit on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    Open = b'0',
    Close = b'1',
    Ping = b'2',
    Pong = b'3',
    Message = b'4',
    Upgrade = b'5',
    Noop = b'6',
}

impl PacketType {
    pub fn digit(self) -> u8 {
        self as u8
    }

    fn of(digit: u8) -> Option<PacketType> {
        Some(match digit {
            b'0' => PacketType::Open,
            b'1' => PacketType::Close,
            b'2' => PacketType::Ping,
            b'3' => PacketType::Pong,
            b'4' => PacketType::Message,
            b'5' => PacketType::Upgrade,
            b'6' => PacketType::Noop,
            _ => return None,
        })
    }
}

/// A packet in a text.
#[derive(Debug, PartialEq, Eq)]
pub enum EnginePacket<'a> {
    /// The data behind the digit may be empty.
    Text(PacketType, &'a [u8]),
    /// A binary message.
    Binary(Vec<u8>),
}

/// Says why a packet of Engine.IO or Socket.IO is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPacket {
    /// The type is missing or unknown.
    Type,
    /// The text is not UTF-8.
    Text,
    Base64,
    /// The number of attachments is missing or malformed.
    Attachments,
    TooManyAttachments,
    /// The number of an acknowledgement has more than 64 bits.
    Id,
    /// The payload is no JSON, or not the JSON that packets of this type have.
    Payload,
    TooDeep,
    TooManyArguments,
    ReservedEvent,
    /// A placeholder names an attachment that the packet does not have.
    Placeholder,
}

impl fmt::Display for BadPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPacket::Type => "unknown packet type",
            BadPacket::Text => "text is not UTF-8",
            BadPacket::Base64 => "invalid base64",
            BadPacket::Attachments => "invalid number of attachments",
            BadPacket::TooManyAttachments => "too many attachments",
            BadPacket::Id => "acknowledgement number too large",
            BadPacket::Payload => "invalid payload",
            BadPacket::TooDeep => "JSON too deep",
            BadPacket::TooManyArguments => "too many arguments",
            BadPacket::ReservedEvent => "reserved event name",
            BadPacket::Placeholder => "placeholder without attachment",
        })
    }
}

/// Splits a packet of text into its type and its data. Returns `None` for any other bytes.
pub fn decode(text: &[u8]) -> Option<(PacketType, &[u8])> {
    let (digit, data) = text.split_first()?;
    Some((PacketType::of(*digit)?, data))
}

/// Reads one packet: the text message of a websocket, or a piece of a body. The caller knows that
/// the text is UTF-8.
pub fn packet(text: &[u8]) -> Result<EnginePacket<'_>, BadPacket> {
    if let Some(base64) = text.strip_prefix(&[BINARY]) {
        return STANDARD.decode(base64).map(EnginePacket::Binary).map_err(|_| BadPacket::Base64);
    }
    let (kind, data) = decode(text).ok_or(BadPacket::Type)?;
    Ok(EnginePacket::Text(kind, data))
}

/// Reads the packets of a body one by one, up to the first that is bad. A body that is not UTF-8
/// has no good packet.
pub fn packets(body: &[u8]) -> impl Iterator<Item = Result<EnginePacket<'_>, BadPacket>> {
    let is_text = std::str::from_utf8(body).is_ok();
    let mut rest = Some(body);
    std::iter::from_fn(move || {
        let all = rest?;
        let (text, behind) = match memchr::memchr(SEPARATOR, all) {
            Some(at) => (&all[..at], Some(&all[at + 1..])),
            None => (all, None),
        };
        let read = if is_text { packet(text) } else { Err(BadPacket::Text) };
        rest = behind.filter(|_| read.is_ok());
        Some(read)
    })
}

/// Separates the next packet of a body from those that `out` has from `start` on.
pub fn join(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(SEPARATOR);
    }
}

/// Appends a binary packet as a body has it.
pub fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(BINARY);
    base64(out, bytes);
}

/// The first packet of a session.
pub struct Open<'a> {
    pub sid: &'a str,
    /// True if the client may change to a websocket.
    pub upgrades: bool,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// Longest body of a poll, in bytes.
    pub max_payload: usize,
}

impl Open<'_> {
    /// Appends the packet. Clients expect exactly these five keys.
    pub fn write(&self, out: &mut Vec<u8>) {
        let upgrades = if self.upgrades { "\"websocket\"" } else { "" };
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "0{{\"sid\":\"{}\",\"upgrades\":[{upgrades}],\"pingInterval\":{},\"pingTimeout\":{},\
             \"maxPayload\":{}}}",
            self.sid,
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload,
        );
    }
}

/// Says why a request is refused; the value is the code in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineError {
    UnknownTransport = 0,
    UnknownSession = 1,
    BadHandshakeMethod = 2,
    BadRequest = 3,
    Forbidden = 4,
    UnsupportedVersion = 5,
}

impl EngineError {
    /// Returns the status of the answer.
    pub fn status(self) -> u16 {
        if self == EngineError::Forbidden { 403 } else { 400 }
    }

    /// Returns the body of an answer with a message of its own: JSON.
    pub fn body_with(self, message: &str) -> Vec<u8> {
        let mut body = format!("{{\"code\":{},\"message\":", self as u8).into_bytes();
        json::string(&mut body, message);
        body.push(b'}');
        body
    }

    /// Returns the body of the answer to a poll: JSON.
    pub fn body(self) -> &'static str {
        match self {
            EngineError::UnknownTransport => r#"{"code":0,"message":"Transport unknown"}"#,
            EngineError::UnknownSession => r#"{"code":1,"message":"Session ID unknown"}"#,
            EngineError::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            EngineError::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            EngineError::Forbidden => r#"{"code":4,"message":"Forbidden"}"#,
            EngineError::UnsupportedVersion => {
                r#"{"code":5,"message":"Unsupported protocol version"}"#
            }
        }
    }
}

/// Writes a session id: base64url of the 64 bits of `id` and the lower 56 bits of `check`.
pub fn write_sid(id: u64, check: u64) -> [u8; SID_LENGTH] {
    let mut bytes = [0; 15];
    // The highest byte of `check` comes first, and `id` covers it.
    bytes[7..].copy_from_slice(&check.to_be_bytes());
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    let mut sid = [0; SID_LENGTH];
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut sid);
    debug_assert!(written.is_ok_and(|written| written == SID_LENGTH));
    sid
}

/// Reads what [`write_sid`] wrote. Returns `None` for any other text. Each pair has one text.
pub fn read_sid(text: &[u8]) -> Option<(u64, u64)> {
    if text.len() != SID_LENGTH {
        return None;
    }
    let mut bytes = [0; 15];
    URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    let (id, check) = bytes.split_first_chunk::<8>()?;
    let mut last = [0; 8];
    last[1..].copy_from_slice(check);
    Some((u64::from_be_bytes(*id), u64::from_be_bytes(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: a body, and each of its packets, or the reason of the error that ends it. Then,
    /// if the npm package engine.io-parser 5.2.3 reads other packets, what it reads.
    const CASES: &str = include_str!("engineio/cases.txt");

    fn shown(read: &Result<EnginePacket<'_>, BadPacket>) -> String {
        match read {
            Ok(EnginePacket::Text(kind, data)) => {
                format!("{} {}", kind.digit() as char, String::from_utf8_lossy(data))
            }
            Ok(EnginePacket::Binary(bytes)) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("b {hex}")
            }
            Err(reason) => format!("error {reason:?}"),
        }
    }

    #[test]
    fn each_body_is_read_as_the_table_says() {
        let mut bad = 0;
        for line in CASES.lines() {
            let line = line.replace('⏎', "\n");
            let mut columns = line.split('\t').filter(|column| !column.starts_with("npm "));
            let body = columns.next().unwrap().replace('␞', "\u{1e}");
            let expected: Vec<&str> = columns.collect();
            let found: Vec<String> =
                packets(body.as_bytes()).map(|read| shown(&read).replace('\u{1e}', "␞")).collect();
            assert_eq!(found, expected, "{body:?}");
            bad += usize::from(line.contains("\terror "));
            // A websocket has one packet in each text, and finds the same.
            if found.len() == 1 && !body.contains('\u{1e}') {
                assert_eq!(shown(&packet(body.as_bytes())), found[0]);
                let text = decode(body.as_bytes());
                assert_eq!(text.is_some(), found[0].as_bytes()[0].is_ascii_digit(), "{body:?}");
            }
        }
        assert!(bad >= 50 && CASES.lines().count() - bad >= 40, "{bad} bad cases");
    }

    #[test]
    fn a_good_packet_is_read_alike_before_and_behind_another_one() {
        for line in CASES.lines().filter(|line| !line.contains("error") && !line.contains('␞')) {
            let body = line.split('\t').next().unwrap().replace('⏎', "\n");
            let alone = shown(&packet(body.as_bytes()));
            for all in [format!("{body}\u{1e}3x"), format!("3x\u{1e}{body}")] {
                let mut both: Vec<String> =
                    packets(all.as_bytes()).map(|read| shown(&read)).collect();
                let other = both.iter().position(|packet| packet == "3 x").unwrap();
                both.remove(other);
                assert_eq!(both, [alone.as_str()]);
            }
            // Each shorter text is another packet or an error, never a wait for more.
            for cut in 0..body.len() {
                let count = packets(&body.as_bytes()[..cut]).count();
                assert_eq!(count, 1, "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_that_is_not_utf_8_has_one_bad_packet() {
        for body in [&b"4\xff"[..], b"4a\x1e4\xc3", b"\xff\x1e4a", b"4\xc3\x1e\xa4", b"b\xff"] {
            let read: Vec<_> = packets(body).collect();
            assert_eq!(read, [Err(BadPacket::Text)], "{}", body.escape_ascii());
        }
    }

    #[test]
    fn written_packets_are_read_back() {
        let mut out = b"HTTP".to_vec();
        let start = out.len();
        for bytes in [&b""[..], b"\x00", b"\xff\xfe", b"abc", b"\x1e\x1e\x1e\x1e"] {
            join(&mut out, start);
            write_binary(&mut out, bytes);
            join(&mut out, start);
            out.extend_from_slice(&[PacketType::Message.digit(), b'x']);
        }
        assert_eq!(out.iter().filter(|byte| **byte == SEPARATOR).count(), 9);
        let found: Vec<String> = packets(&out[start..]).map(|read| shown(&read)).collect();
        let binary = found.iter().step_by(2).map(String::as_str);
        assert!(binary.eq(["b ", "b 00", "b fffe", "b 616263", "b 1e1e1e1e"]), "{found:?}");
        assert!(found.iter().skip(1).step_by(2).all(|packet| packet == "4 x"), "{found:?}");
    }

    #[test]
    fn the_first_packet_has_exactly_five_keys() {
        let mut out = Vec::new();
        let mut open = Open {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_millis(20_001),
            max_payload: 1_000_000,
        };
        open.write(&mut out);
        open.upgrades = false;
        out.push(b'\n');
        open.write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "0{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"upgrades\":[\"websocket\"],\
             \"pingInterval\":25000,\"pingTimeout\":20001,\"maxPayload\":1000000}\n\
             0{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"upgrades\":[],\
             \"pingInterval\":25000,\"pingTimeout\":20001,\"maxPayload\":1000000}"
        );
    }

    #[test]
    fn the_body_of_an_error_has_its_code_and_only_forbidden_is_not_400() {
        use EngineError::*;
        for (error, code, status) in [
            (UnknownTransport, 0, 400),
            (UnknownSession, 1, 400),
            (BadHandshakeMethod, 2, 400),
            (BadRequest, 3, 400),
            (Forbidden, 4, 403),
            (UnsupportedVersion, 5, 400),
        ] {
            assert_eq!((error as u16, error.status()), (code, status));
            let body: serde_json::Value = serde_json::from_str(error.body()).unwrap();
            assert_eq!(body["code"], code);
            assert_eq!(body.as_object().unwrap().len(), 2);
        }
    }

    #[test]
    fn each_session_id_has_one_text() {
        let top = (1 << 56) - 1;
        for id in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            for check in [0, 1, 0xa5_5a01_2345_6789, top] {
                let sid = write_sid(id, check);
                assert_eq!(read_sid(&sid), Some((id, check)));
                assert!(sid.iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c)));
                // A change of any character is another id, or none.
                for at in 0..SID_LENGTH {
                    for other in 0..=255 {
                        let mut changed = sid;
                        changed[at] = other;
                        assert_eq!(read_sid(&changed) == Some((id, check)), other == sid[at]);
                    }
                }
                for length in 0..SID_LENGTH {
                    assert_eq!(read_sid(&sid[..length]), None);
                }
                assert_eq!(read_sid(&[&sid[..], b"A"].concat()), None);
                assert_eq!(read_sid(&[&sid[..], b"="].concat()), None);
            }
        }
        assert_eq!(write_sid(7, top + 1), write_sid(7, 0), "bits above the 56th are left out");
        assert_eq!(&write_sid(0, 0), b"AAAAAAAAAAAAAAAAAAAA");
        assert_eq!(&write_sid(u64::MAX, u64::MAX), b"____________________");
    }
}
