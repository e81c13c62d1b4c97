//! Server-sent events: the format of `text/event-stream` (HTML Standard, section 9.2).
//!
//! An event is a block of lines that ends with a blank line. CR, LF and CRLF all end a line. So a
//! payload is cut at each of them, and no payload can begin a field of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const DATA: &[u8] = b"data: ";

/// The comment that keeps a stream alive.
pub const COMMENT: &[u8] = b":\n\n";

/// Appends the field that sets the time after which a client connects again.
pub fn retry(out: &mut Vec<u8>, milliseconds: u64) {
    out.extend_from_slice(format!("retry: {milliseconds}\n\n").as_bytes());
}

/// Appends one event whose payload, a text, `write` appends.
pub fn event_of(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(DATA);
    write(out);
    match memchr::memchr2(b'\r', b'\n', &out[start..]) {
        None => out.extend_from_slice(b"\n\n"),
        // Rare: JSON is seldom spread over lines.
        Some(_) => {
            let text = out.split_off(start + DATA.len());
            out.truncate(start);
            event(out, &text);
        }
    }
}

/// Appends bytes as base64.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends one event. Each line of the payload is a field `data`. A payload that is not UTF-8
/// becomes an event of the type `base64`.
pub fn event(out: &mut Vec<u8>, payload: &[u8]) {
    if std::str::from_utf8(payload).is_err() {
        out.extend_from_slice(b"event: base64\ndata: ");
        base64(out, payload);
        return out.extend_from_slice(b"\n\n");
    }
    let mut rest = payload;
    loop {
        out.extend_from_slice(DATA);
        let end = memchr::memchr2(b'\r', b'\n', rest);
        let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
        out.extend_from_slice(line);
        out.push(b'\n');
        if end.is_none() {
            break;
        }
        rest = behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_payload_is_a_data_field_and_no_payload_begins_another_field() {
        for (payload, expected) in [
            (&b""[..], "data: \n\n"),
            (b"hello", "data: hello\n\n"),
            (b"a\nb", "data: a\ndata: b\n\n"),
            (b"a\r\nb\rc", "data: a\ndata: b\ndata: c\n\n"),
            (b"a\n\nid: 7", "data: a\ndata: \ndata: id: 7\n\n"),
            (b"a\r\rretry: 1\n", "data: a\ndata: \ndata: retry: 1\ndata: \n\n"),
            ("\u{2028}ä".as_bytes(), "data: \u{2028}ä\n\n"),
            (b"\xff\n", "event: base64\ndata: /wo=\n\n"),
        ] {
            let mut out = b"before".to_vec();
            event(&mut out, payload);
            assert_eq!(&out[6..], expected.as_bytes(), "{}", payload.escape_ascii());
            if std::str::from_utf8(payload).is_ok() {
                out.truncate(6);
                event_of(&mut out, |out| out.extend_from_slice(payload));
                assert_eq!(&out[6..], expected.as_bytes(), "{}", payload.escape_ascii());
            }
        }
    }
}
