//! Writes replies and pushes, in RESP2 and RESP3.

use crate::limits::COUNT_LINE_MAX;

/// The version of RESP for replies. A connection starts with RESP2; `HELLO 3` switches to RESP3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// Appends a simple string, `+text`. Line breaks become spaces.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    one_line(out, b'+', text.as_bytes());
}

/// Appends an error, `-text`. The text starts with the kind of error, as in `ERR unknown command`.
/// Line breaks become spaces.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    one_line(out, b'-', text);
}

/// Appends an integer, `:value`.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    head(out, b':', value.unsigned_abs(), value < 0);
}

/// Appends a bulk string: `$length` and any bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + COUNT_LINE_MAX);
    head(out, b'$', bytes.len() as u64, false);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a bulk string of several parts.
pub fn bulk_of(out: &mut Vec<u8>, parts: &[&[u8]]) {
    head(out, b'$', parts.iter().map(|part| part.len() as u64).sum(), false);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// Returns the length of a bulk string of `length` bytes with its framing.
pub fn bulk_length(length: usize) -> usize {
    let digits = length.checked_ilog10().unwrap_or(0) as usize + 1;
    digits + length + 5
}

/// Appends a text for people: a verbatim string in RESP3, a bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, text: &str, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            const FORMAT: &[u8] = b"txt:";
            head(out, b'=', (FORMAT.len() + text.len()) as u64, false);
            out.extend_from_slice(FORMAT);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a null; in RESP2 this is the null bulk string.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(if protocol == Protocol::Resp2 { b"$-1\r\n" } else { b"_\r\n" });
}

/// Appends the head of an array. The caller appends `length` values.
pub fn array(out: &mut Vec<u8>, length: usize) {
    head(out, b'*', length as u64, false);
}

/// Appends the head of a map. The caller appends `length` pairs of values. In RESP2 a map is an
/// array of twice that length.
pub fn map(out: &mut Vec<u8>, length: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => head(out, b'*', 2 * length as u64, false),
        Protocol::Resp3 => head(out, b'%', length as u64, false),
    }
}

/// Appends the head of a push, a message that is no reply. The caller appends `length` values. In
/// RESP2 a push is an array.
pub fn push(out: &mut Vec<u8>, length: usize, protocol: Protocol) {
    head(out, if protocol == Protocol::Resp2 { b'*' } else { b'>' }, length as u64, false);
}

/// Appends the beginning of a push whose last bulk string, of `length` bytes, and CRLF follow.
pub fn push_before(out: &mut Vec<u8>, protocol: Protocol, words: &[&[u8]], length: usize) {
    push(out, words.len() + 1, protocol);
    words.iter().for_each(|word| bulk(out, word));
    head(out, b'$', length as u64, false);
}

/// Appends a whole push of bulk strings: see [`push`].
pub fn pushed(out: &mut Vec<u8>, protocol: Protocol, words: &[&[u8]]) {
    push(out, words.len(), protocol);
    words.iter().for_each(|word| bulk(out, word));
}

fn one_line(out: &mut Vec<u8>, marker: u8, text: &[u8]) {
    out.push(marker);
    out.extend(text.iter().map(|byte| without_line_break(*byte)));
    out.extend_from_slice(b"\r\n");
}

pub(super) fn without_line_break(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }
}

/// Appends a marker, a number and CRLF. The line is built from its end on the stack and appended at
/// once.
fn head(out: &mut Vec<u8>, marker: u8, mut magnitude: u64, negative: bool) {
    // One marker, one sign, 20 digits and CRLF.
    let mut composed = [0; 24];
    composed[22..].copy_from_slice(b"\r\n");
    let mut at = 22;
    loop {
        at -= 1;
        composed[at] = b'0' + (magnitude % 10) as u8;
        magnitude /= 10;
        if magnitude == 0 {
            break;
        }
    }
    if negative {
        at -= 1;
        composed[at] = b'-';
    }
    at -= 1;
    composed[at] = marker;
    out.extend_from_slice(&composed[at..]);
}
