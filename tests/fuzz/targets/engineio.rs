//! Bodies of Engine.IO's polls. A simpler reader finds the same packets, and packets written again
//! are read back. A session id has one text.

use slabd::codec::engineio::{
    EnginePacket, PacketType, SEPARATOR, SID_LENGTH, decode, join, packet, packets, read_sid,
    write_binary, write_sid,
};

/// A packet: its digit and data, or binary data. `Err` ends a body.
type Found = Result<(Option<char>, Vec<u8>), ()>;

/// Runs the target: all bytes are a body, and the first of them a session id.
pub fn engineio(body: &[u8]) {
    let found: Vec<Found> = packets(body).map(|read| read.map(shown).map_err(drop)).collect();
    assert_eq!(found, expected(body), "{}", body.escape_ascii());
    check_written(&found);
    check_one(body);
    if let Some((sid, _)) = body.split_first_chunk::<SID_LENGTH>()
        && let Some((id, check)) = read_sid(sid)
    {
        assert_eq!(&write_sid(id, check), sid);
        assert!(check < 1 << 56);
    }
    assert_eq!(read_sid(body).is_some(), body.len() == SID_LENGTH && body.iter().all(is_base64url));
}

fn is_base64url(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn shown(packet: EnginePacket<'_>) -> (Option<char>, Vec<u8>) {
    match packet {
        EnginePacket::Text(kind, data) => (Some(kind.digit() as char), data.to_vec()),
        EnginePacket::Binary(bytes) => (None, bytes),
    }
}

/// Reads a body in the simplest way.
fn expected(body: &[u8]) -> Vec<Found> {
    let Ok(text) = std::str::from_utf8(body) else { return vec![Err(())] };
    let mut found = Vec::new();
    for packet in text.split('\u{1e}') {
        let mut rest = packet.chars();
        let read = match rest.next() {
            Some(digit @ '0'..='6') => Ok((Some(digit), rest.as_str().into())),
            Some('b') => bytes_of(rest.as_str()).map(|bytes| (None, bytes)).ok_or(()),
            _ => Err(()),
        };
        found.push(read);
        if found.last() == Some(&Err(())) {
            break;
        }
    }
    found
}

/// Reads base64, six bits at a time.
fn bytes_of(base64: &str) -> Option<Vec<u8>> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = base64.trim_end_matches('=');
    let padding = base64.len() - letters.len();
    if !base64.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0usize, 0);
    for letter in letters.chars() {
        bits = bits << 6 | LETTERS.find(letter)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // The bits of the last letter that belong to no byte are zeros.
    (bits == 0 && count < 6).then_some(bytes)
}

/// Writes the packets again, behind other bytes.
fn check_written(found: &[Found]) {
    let mut out = b"HTTP".to_vec();
    let good: Vec<Found> = found.iter().filter(|packet| packet.is_ok()).cloned().collect();
    for (digit, data) in good.iter().flatten() {
        join(&mut out, 4);
        match digit {
            None => write_binary(&mut out, data),
            Some(digit) => {
                out.push(*digit as u8);
                out.extend_from_slice(data);
            }
        }
    }
    if !good.is_empty() {
        let again: Vec<Found> =
            packets(&out[4..]).map(|read| read.map(shown).map_err(drop)).collect();
        assert_eq!(again, good, "{}", out.escape_ascii());
    }
}

/// Checks that a message of a websocket is read like a body without a separator.
fn check_one(text: &[u8]) {
    if std::str::from_utf8(text).is_err() || text.contains(&SEPARATOR) {
        return;
    }
    let alone = packet(text);
    assert_eq!(packets(text).collect::<Vec<_>>(), [packet(text)]);
    let split = decode(text).map(|(kind, data)| EnginePacket::Text(kind, data));
    assert_eq!(split, alone.ok().filter(|packet| matches!(packet, EnginePacket::Text(..))));
    assert_eq!(split.is_some(), text.first().is_some_and(|digit| (b'0'..=b'6').contains(digit)));
    assert!(PacketType::Noop.digit() == b'6');
}
