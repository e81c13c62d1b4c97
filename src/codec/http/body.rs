//! Finds the end of a request's body, counted or chunked, while it arrives.

use super::{BodyFraming, RequestError, is_field_value, is_token, trim};
use crate::limits::{CHUNK_FRAMING_SPARE, CHUNK_LINE_MAX, MAX_MESSAGE_MAX};

/// State of a partly received body.
///
/// A chunked body stays as it was sent until it is complete. So the caller keeps all bytes after
/// the head, and no byte is looked at again before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyProgress {
    /// Where the next chunk line or trailer field begins. It may lie beyond the input.
    next: u32,
    /// Bytes of the line at `next` that hold no line end.
    scanned: u32,
    /// Sum of the chunks before `next`.
    data: u32,
    /// True after the last chunk.
    in_trailers: bool,
}

const _: () = assert!(size_of::<BodyProgress>() <= 24);

impl BodyProgress {
    /// Looks at the body at the front of `input`, which is all that came after the head. The body
    /// may have `max` bytes.
    ///
    /// Once the body is complete, returns its length and the number of bytes that it took with its
    /// framing. It lies at the front of `input` then. Returns `None` if it is incomplete; nothing
    /// has changed in `input` then.
    pub fn receive(
        &mut self,
        framing: BodyFraming,
        input: &mut [u8],
        max: usize,
    ) -> Result<Option<(usize, usize)>, RequestError> {
        match framing {
            BodyFraming::None => Ok(Some((0, 0))),
            BodyFraming::Counted(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > max {
                    return Err(RequestError::BodyTooLong);
                }
                Ok((input.len() >= length).then_some((length, length)))
            }
            BodyFraming::Chunked => {
                if !self.is_complete(input, max.min(MAX_MESSAGE_MAX))? {
                    return Ok(None);
                }
                Ok(Some((join_chunks(input), self.next as usize)))
            }
        }
    }

    /// Goes on to the end of a chunked body. Returns false if it is incomplete.
    fn is_complete(&mut self, input: &[u8], max: usize) -> Result<bool, RequestError> {
        loop {
            if !self.in_trailers && self.next > 0 && !ends_chunk(input, self.next as usize)? {
                return Ok(false);
            }
            let Some(rest) = input.get(self.next as usize..) else { return Ok(false) };
            let Some(line) = next_line(rest, self.scanned as usize)? else {
                self.scanned = rest.len() as u32;
                return Ok(false);
            };
            self.scanned = 0;
            self.next += line.len() as u32 + 2;
            if self.in_trailers {
                if line.is_empty() {
                    return Ok(true);
                }
                check_trailer(line)?;
            } else {
                let size = chunk_size(line)?;
                // Both are at most `max` here, so the sum does not overflow.
                if size > max || self.data as usize + size > max {
                    return Err(RequestError::BodyTooLong);
                }
                self.data += size as u32;
                if size == 0 {
                    self.in_trailers = true;
                } else {
                    self.next += size as u32 + 2;
                }
            }
            let framing = (self.next - self.data) as usize;
            if framing > self.data as usize + CHUNK_FRAMING_SPARE {
                return Err(RequestError::ChunkFraming);
            }
        }
    }
}

/// Checks the CRLF that ends a chunk right before `next`. Returns false if it has not arrived.
fn ends_chunk(input: &[u8], next: usize) -> Result<bool, RequestError> {
    let arrived = input.get(next - 2..).unwrap_or(&[]);
    match arrived {
        [b'\r', b'\n', ..] => Ok(true),
        [] | [b'\r'] => Ok(false),
        _ => Err(RequestError::ChunkEnd),
    }
}

/// Returns the first line without its CRLF, or `None` if it is incomplete. The first `scanned`
/// bytes hold no line end.
fn next_line(input: &[u8], scanned: usize) -> Result<Option<&[u8]>, RequestError> {
    let within = &input[..input.len().min(CHUNK_LINE_MAX)];
    match memchr::memchr(b'\n', &within[scanned..]) {
        Some(found) => match within[..scanned + found].strip_suffix(b"\r") {
            Some(line) => Ok(Some(line)),
            None => Err(RequestError::ChunkLine),
        },
        None if within.len() < CHUNK_LINE_MAX => Ok(None),
        None => Err(RequestError::ChunkLine),
    }
}

/// Reads a chunk line: hexadecimal digits, and extensions, which are checked and ignored.
fn chunk_size(line: &[u8]) -> Result<usize, RequestError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let mut size = 0_usize;
    for &byte in &line[..digits] {
        let digit = (byte as char).to_digit(16).unwrap_or(0);
        size = size.checked_mul(16).ok_or(RequestError::ChunkLine)? | digit as usize;
    }
    if digits == 0 || !are_extensions(&line[digits..]) {
        return Err(RequestError::ChunkLine);
    }
    Ok(size)
}

/// Returns whether bytes are chunk extensions: `;name`, `;name=token` or `;name="text"`, any
/// number of them. Blanks and tabs may stand around the name and the value, but not before the
/// first semicolon: other servers differ about blanks behind a size.
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(extension) = rest.strip_prefix(b";") else { return false };
        let Some((name, after)) = split_token(trim_start(extension)) else { return false };
        debug_assert!(!name.is_empty());
        rest = trim_start(after);
        if let Some(value) = rest.strip_prefix(b"=") {
            let value = trim_start(value);
            let after = match value.strip_prefix(b"\"") {
                Some(quoted) => split_quoted(quoted),
                None => split_token(value).map(|(_, after)| after),
            };
            let Some(after) = after else { return false };
            rest = trim_start(after);
        }
    }
    true
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Splits a token off the front; `None` if there is none.
fn split_token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.iter().take_while(|&&byte| is_token(byte)).count();
    (length > 0).then(|| bytes.split_at(length))
}

/// Returns what follows a quoted string, which begins after its first quote.
fn split_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut bytes = bytes.iter();
    loop {
        let byte = match *bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => *bytes.next()?,
            byte => byte,
        };
        if !is_field_value(byte) {
            return None;
        }
    }
}

/// Checks a trailer field. Trailers are ignored, so the check only finds those that a client would
/// expect to be obeyed.
fn check_trailer(line: &[u8]) -> Result<(), RequestError> {
    /// Fields about framing, routing, access and the body (RFC 9110, 6.5.1).
    const FORBIDDEN: [&str; 24] = [
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "sec-fetch-site",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
    ];
    let (name, rest) = split_token(line).ok_or(RequestError::Trailer)?;
    let value = rest.strip_prefix(b":").ok_or(RequestError::Trailer)?;
    let is_forbidden =
        FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()));
    if is_forbidden || !trim(value).iter().all(|&byte| is_field_value(byte)) {
        return Err(RequestError::Trailer);
    }
    Ok(())
}

/// Moves the chunks of a complete body together at the front. Returns their length.
fn join_chunks(input: &mut [u8]) -> usize {
    let (mut from, mut length) = (0, 0);
    while let Ok(Some(line)) = next_line(&input[from..], 0) {
        let start = from + line.len() + 2;
        let Ok(size @ 1..) = chunk_size(line) else { break };
        input.copy_within(start..start + size, length);
        length += size;
        from = start + size + 2;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 20_000;

    /// Receives a chunked body whole and byte by byte, with and without bytes behind it. All must
    /// give the same body or refusal.
    fn received(bytes: &[u8]) -> Result<Option<Vec<u8>>, RequestError> {
        let mut whole = bytes.to_vec();
        let outcome = BodyProgress::default().receive(BodyFraming::Chunked, &mut whole, MAX);
        let mut dripped = (Ok(None), Vec::new());
        let mut progress = BodyProgress::default();
        for length in 0..=bytes.len() {
            dripped.1 = bytes[..length].to_vec();
            dripped.0 = progress.receive(BodyFraming::Chunked, &mut dripped.1, MAX);
            if dripped.0 != Ok(None) {
                break;
            }
            assert_eq!(dripped.1, bytes[..length]);
        }
        assert_eq!(outcome, dripped.0, "{}", bytes.escape_ascii());
        let Some((length, used)) = outcome? else { return Ok(None) };
        assert_eq!(used, dripped.1.len(), "the body is complete at its last byte");
        assert_eq!(whole[..length], dripped.1[..length]);
        assert_eq!(whole[used..], bytes[used..], "what follows is left alone");
        Ok(Some(whole[..length].to_vec()))
    }

    #[test]
    fn chunks_join_at_the_front() {
        for (sent, body) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5\r\nhello\r\n000\r\n\r\nGET / HTTP/1.1\r\n\r\n", "hello"),
            ("1\r\na\r\n2\r\n\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789"),
            ("1;a\r\nx\r\n0;b=c; d = \"e;\\\"f\"\t\r\n\r\n", "x"),
            ("1\r\nx\r\n0\r\nA: b\r\nDigest:\tc \r\n\r\nrest", "x"),
        ] {
            assert_eq!(received(sent.as_bytes()), Ok(Some(body.into())), "{sent:?}");
        }
        for sent in
            ["", "5", "5\r", "5\r\n", "5\r\nhello", "5\r\nhello\r", "0\r\n", "0\r\na: b\r\n"]
        {
            assert_eq!(received(sent.as_bytes()), Ok(None), "{sent:?}");
        }
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        use RequestError::{BodyTooLong, ChunkEnd, ChunkLine, Trailer};
        for (sent, refusal) in [
            ("\r\n", ChunkLine),
            ("+5\r\n", ChunkLine),
            ("-5\r\n", ChunkLine),
            ("0x5\r\n", ChunkLine),
            (" 5\r\n", ChunkLine),
            ("5 \r\n", ChunkLine),
            ("5 ;a\r\n", ChunkLine),
            ("5\n", ChunkLine),
            ("5_0\r\n", ChunkLine),
            ("g\r\n", ChunkLine),
            ("5;\r\n", ChunkLine),
            ("5;a=\r\n", ChunkLine),
            ("5;a=b c\r\n", ChunkLine),
            ("5;a=\"b\r\n", ChunkLine),
            ("5;a=\"b\nc\"\r\n", ChunkLine),
            ("5;a=\"b\rc\"\r\n", ChunkLine),
            ("5;a=\"b\\\r\n", ChunkLine),
            ("5;a=\"b\"c\r\n", ChunkLine),
            ("5;\0\r\n", ChunkLine),
            ("5\r\r\n", ChunkLine),
            ("10000000000000000\r\n", ChunkLine),
            ("ffffffffffffffff\r\n", BodyTooLong),
            ("1\r\nxy\r\n", ChunkEnd),
            ("1\r\nx\n0\r\n\r\n", ChunkEnd),
            ("1\r\nx\ry", ChunkEnd),
            ("1\r\nx0\r\n\r\n", ChunkEnd),
            ("0\r\nContent-Length: 5\r\n\r\n", Trailer),
            ("0\r\ntransfer-ENCODING: x\r\n\r\n", Trailer),
            ("0\r\nHost: x\r\n\r\n", Trailer),
            ("0\r\na : b\r\n\r\n", Trailer),
            ("0\r\n: b\r\n\r\n", Trailer),
            ("0\r\na\r\n\r\n", Trailer),
            ("0\r\n a: b\r\n\r\n", Trailer),
            ("0\r\na: b\r\n c\r\n\r\n", Trailer),
            ("0\r\na: \0\r\n\r\n", Trailer),
            ("0\r\na: b\rc\r\n\r\n", Trailer),
            ("0\r\na: b\n\r\n", ChunkLine),
            ("0\r\n\n", ChunkLine),
        ] {
            assert_eq!(received(sent.as_bytes()), Err(refusal), "{sent:?}");
        }
    }

    #[test]
    fn a_body_is_bounded_to_the_byte() {
        for (length, fits) in [(MAX - 1, true), (MAX, true), (MAX + 1, false)] {
            let body = vec![b'a'; length];
            let expected = if fits { Ok(Some(length)) } else { Err(RequestError::BodyTooLong) };
            let one = [format!("{length:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            assert_eq!(received(&one).map(|body| body.map(|body| body.len())), expected);
            let rest = format!("{:x}\r\n", length - 1);
            let two = [b"1\r\na\r\n", rest.as_bytes(), &body[1..], b"\r\n0\r\n\r\n"].concat();
            assert_eq!(received(&two).map(|body| body.map(|body| body.len())), expected);
            let mut counted = body;
            let framing = BodyFraming::Counted(length as u64);
            let outcome = BodyProgress::default().receive(framing, &mut counted, MAX);
            assert_eq!(outcome.map(|end| end.map(|end| end.0)), expected);
        }
        let huge = BodyFraming::Counted(u64::MAX);
        let refused = BodyProgress::default().receive(huge, &mut [], MAX);
        assert_eq!(refused, Err(RequestError::BodyTooLong));
        let short = BodyProgress::default().receive(BodyFraming::Counted(2), &mut [b'a'], MAX);
        assert_eq!(short, Ok(None));
    }

    #[test]
    fn chunk_lines_and_trailers_are_bounded() {
        let line = |length: usize| format!("0;{}\r\n\r\n", "a".repeat(length - 4));
        assert_eq!(received(line(CHUNK_LINE_MAX - 1).as_bytes()), Ok(Some(Vec::new())));
        assert_eq!(received(line(CHUNK_LINE_MAX).as_bytes()), Ok(Some(Vec::new())));
        assert_eq!(received(line(CHUNK_LINE_MAX + 1).as_bytes()), Err(RequestError::ChunkLine));
        // Each chunk of one byte has four bytes of framing more than data.
        let chunks = |count: usize| format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(count));
        let fit = CHUNK_FRAMING_SPARE / 4;
        let received_chunks = |count| received(chunks(count).as_bytes());
        assert_eq!(received_chunks(fit - 2), Ok(Some(vec![b'a'; fit - 2])));
        assert_eq!(received_chunks(fit + 1), Err(RequestError::ChunkFraming));
        let trailers = format!("0\r\n{}", "a: bcdefghi\r\n".repeat(CHUNK_FRAMING_SPARE / 13));
        assert_eq!(received(trailers.as_bytes()), Ok(None));
        let trailers = format!("{trailers}a: bcdefghi\r\n");
        assert_eq!(received(trailers.as_bytes()), Err(RequestError::ChunkFraming));
        // Chunks of five bytes are accepted up to the longest body.
        let fives = format!("{}0\r\n\r\n", "5\r\n01234\r\n".repeat(MAX / 5));
        assert_eq!(received(fives.as_bytes()).unwrap().unwrap().len(), MAX);
    }
}
