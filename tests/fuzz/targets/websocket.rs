//! WebSocket frames. The results do not depend on the cuts, the memory follows the messages, and
//! messages written again are read back. Tungstenite finds the same messages and errors, as far as
//! it looks: it accepts lengths that are not in their shortest form, and sees an error only when it
//! has the whole frame.

use std::io::{Cursor, Read, Result, Write};

use slabd::codec::websocket::{
    CloseCode, Decoded, Decoder, Opcode, Role, encode, encode_masked, parse_close,
};
use slabd::limits::MESSAGE_GAP_MAX;
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// The messages and control frames of a stream, and the error that ends it.
#[derive(Default, PartialEq, Eq, Debug)]
struct Found {
    messages: Vec<(Opcode, Vec<u8>)>,
    error: Option<CloseCode>,
}

/// Runs the target. The first byte chooses the role, the limit and the length of the pieces. The
/// other bytes are the stream.
pub fn websocket(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let max_message = [4, 130, 300, 70_000][usize::from(choice >> 1 & 3)];
    let piece = usize::from(choice >> 3) + 2;
    let whole = decode(role, max_message, stream, stream.len().max(1));
    for piece in [1, piece] {
        let cut = decode(role, max_message, stream, piece);
        assert_eq!(cut, whole, "in pieces of {piece}: {}", stream.escape_ascii());
    }
    check_second_opinion(role, max_message, stream, &whole);
    check_encoders(&whole);
}

/// Decodes a stream that arrives in pieces.
fn decode(role: Role, max_message: usize, stream: &[u8], piece: usize) -> Found {
    let (mut decoder, mut held, mut found) = (Decoder::new(role), Vec::new(), Found::default());
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut held, max_message) {
                Err(code) => {
                    found.error = Some(code);
                    return found;
                }
                Ok(Decoded::Incomplete { used }) => break drop(held.drain(..used)),
                Ok(Decoded::Control { opcode, payload, used }) => {
                    found.messages.push((opcode, held[payload].to_vec()));
                    held.drain(..used);
                }
                Ok(Decoded::Message { opcode, payload, used }) => {
                    found.messages.push((opcode, held[payload].to_vec()));
                    held.drain(..used);
                    decoder.taken();
                }
            }
        }
        // Dead bytes are as long as the payload or the gap. A control frame may be incomplete.
        let most = max_message + max_message.max(MESSAGE_GAP_MAX) + 14 + 131;
        assert!(held.len() <= most, "{} bytes held, of {max_message} at most", held.len());
        if !decoder.is_begun() {
            decoder = Decoder::new(role);
        }
    }
    found
}

/// Compares with tungstenite, up to the first close frame.
fn check_second_opinion(role: Role, max_message: usize, stream: &[u8], whole: &Found) {
    let close = whole.messages.iter().position(|(opcode, _)| *opcode == Opcode::Close);
    let mine = &whole.messages[..close.unwrap_or(whole.messages.len())];
    let config = WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message.max(125)))
        .read_buffer_size(256);
    let their_role = if role == Role::Server { TheirRole::Server } else { TheirRole::Client };
    let end = Duplex(Cursor::new(stream));
    let mut theirs = WebSocket::from_raw_socket(end, their_role, Some(config));
    let shown = || format!("{role:?} up to {max_message}: {}", stream.escape_ascii());
    for (opcode, payload) in mine {
        let message = theirs.read().unwrap_or_else(|error| panic!("{error} in {}", shown()));
        assert_eq!(opcode_of(&message), *opcode, "{}", shown());
        assert_eq!(message.into_data(), *payload, "{}", shown());
    }
    let last = theirs.read();
    if let Some(close) = close {
        return check_close(&whole.messages[close].1, last);
    }
    let agrees = match (whole.error, &last) {
        (None, _) => is_end(&last),
        (Some(CloseCode::InvalidText), Err(Error::Utf8(_))) => true,
        (Some(CloseCode::TooBig), Err(Error::Capacity(_))) => true,
        (Some(CloseCode::Protocol), Err(Error::Capacity(_) | Error::Protocol(_))) => true,
        (Some(CloseCode::Protocol), _) => has_long_form(stream),
        // Tungstenite has not seen the whole frame.
        (Some(_), _) => is_end(&last),
    };
    assert!(agrees, "{:?} against {last:?}: {}", whole.error, shown());
}

fn is_end(last: &std::result::Result<Message, Error>) -> bool {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    matches!(last, Err(Error::Protocol(ResetWithoutClosingHandshake)))
}

fn opcode_of(message: &Message) -> Opcode {
    match message {
        Message::Text(_) => Opcode::Text,
        Message::Binary(_) => Opcode::Binary,
        Message::Ping(_) => Opcode::Ping,
        Message::Pong(_) => Opcode::Pong,
        Message::Close(_) | Message::Frame(_) => Opcode::Close,
    }
}

/// Compares what both read of a close frame. Tungstenite answers a forbidden code with the code of
/// a protocol error, and forbids 1014, which IANA has registered later.
fn check_close(payload: &[u8], theirs: std::result::Result<Message, Error>) {
    let shown = || format!("close with {}: {theirs:?}", payload.escape_ascii());
    match (parse_close(payload), &theirs) {
        (Ok(None), Ok(Message::Close(None))) => {}
        (Ok(Some((1014, _))), Ok(Message::Close(Some(close)))) => {
            assert_eq!(u16::from(close.code), 1002, "{}", shown());
        }
        (Ok(Some((code, reason))), Ok(Message::Close(Some(close)))) => {
            assert_eq!((code, reason), (close.code.into(), close.reason.as_str()), "{}", shown());
        }
        (Err(CloseCode::InvalidText), Err(Error::Utf8(_))) => {}
        (Err(CloseCode::Protocol), Err(_)) => {}
        (Err(CloseCode::Protocol), Ok(Message::Close(Some(close)))) => {
            assert_eq!(u16::from(close.code), 1002, "{}", shown());
        }
        (mine, _) => panic!("{mine:?} against {}", shown()),
    }
}

/// Returns true if a frame of the stream has a length that is not in its shortest form.
fn has_long_form(mut stream: &[u8]) -> bool {
    loop {
        let [_, second, rest @ ..] = stream else { return false };
        let (length, form, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 126, rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 127, rest)
            }
            (126 | 127, _) => return false,
            (short, rest) => (u64::from(short), 0, rest),
        };
        if (form == 126 && length < 126) || (form == 127 && length < 65_536) {
            return true;
        }
        let behind = usize::try_from(length).unwrap_or(usize::MAX);
        let behind = behind.saturating_add(if second & 0x80 != 0 { 4 } else { 0 });
        let Some(next) = rest.get(behind..) else { return false };
        stream = next;
    }
}

/// Writes what was found again, as a server and as a client. The other end finds it again.
fn check_encoders(found: &Found) {
    let (mut from_server, mut from_client) = (Vec::new(), Vec::new());
    for (opcode, payload) in &found.messages {
        encode(&mut from_server, *opcode, payload);
        let mask = (payload.len() as u32).wrapping_mul(0x9e37_79b1).to_le_bytes();
        encode_masked(&mut from_client, *opcode, payload, mask);
    }
    for (role, stream) in [(Role::Client, from_server), (Role::Server, from_client)] {
        let again = decode(role, usize::MAX / 4, &stream, stream.len().max(1));
        assert_eq!((again.messages, again.error), (found.messages.clone(), None));
    }
}

/// A connection that reads a stream, and sends nowhere.
struct Duplex<'a>(Cursor<&'a [u8]>);

impl Read for Duplex<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        self.0.read(out)
    }
}

impl Write for Duplex<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
