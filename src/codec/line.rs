//! Line framing: a message ends at LF. A CR before the LF is part of the ending, as in RFC 5198 and
//! telnet.

/// The result of [`decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A line without its ending, and the length with its ending in bytes.
    Line { line: &'a [u8], length: usize },
    /// No whole line yet.
    Incomplete,
    /// The first line is longer than allowed. More bytes do not change this result.
    TooLong,
}

/// Decodes the first line of `bytes`, which may have `max` bytes without its ending. The caller
/// knows that the first `scanned` bytes contain no LF.
pub fn decode(bytes: &[u8], scanned: usize, max: usize) -> Framed<'_> {
    match memchr::memchr(b'\n', &bytes[scanned..]) {
        Some(found) => {
            let end = scanned + found;
            let line = strip_cr(&bytes[..end]);
            if line.len() > max { Framed::TooLong } else { Framed::Line { line, length: end + 1 } }
        }
        // A final CR does not count, because it may be part of the ending.
        None if strip_cr(bytes).len() > max => Framed::TooLong,
        None => Framed::Incomplete,
    }
}

/// Returns a line without a CR at its end.
pub fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a stream that arrives in pieces. Like the loop, it remembers the scanned length.
    fn lines(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, Vec<Vec<u8>>> {
        let (mut held, mut scanned, mut found) = (Vec::new(), 0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match decode(&held, scanned, max) {
                    Framed::Line { line, length } => {
                        found.push(line.to_vec());
                        held.drain(..length);
                        scanned = 0;
                    }
                    Framed::Incomplete => break scanned = held.len(),
                    Framed::TooLong => return Err(found),
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn lines_are_found_whole_byte_by_byte_and_with_trailing_data() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b"no ending", &[]),
            (b"\n", &[b""]),
            (b"\r\n", &[b""]),
            (b"one\n", &[b"one"]),
            (b"one\r\n", &[b"one"]),
            (b"a\rb\n", &[b"a\rb"]),
            (b"a\r\r\n", &[b"a\r"]),
            (b"one\r\ntwo\nthree", &[b"one", b"two"]),
            (b"\0\xff\xfe\n\n\n", &[b"\0\xff\xfe", b"", b""]),
        ];
        for (stream, expected) in cases {
            assert_eq!(lines(&[stream], 16).unwrap(), *expected);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(lines(&bytes, 16).unwrap(), *expected, "byte by byte");
            let trailed = lines(&[stream, b"x"], 16).unwrap();
            assert_eq!(trailed, *expected, "with trailing data");
            for cut in 0..stream.len() {
                assert_eq!(
                    lines(&[&stream[..cut], &stream[cut..]], 16).unwrap(),
                    *expected,
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_line_one_byte_too_long_is_refused() {
        for ending in [&b"\n"[..], b"\r\n"] {
            for (length, fits) in [(7, true), (8, true), (9, false)] {
                let stream = [&vec![b'x'; length][..], ending].concat();
                assert_eq!(lines(&[&stream], 8).is_ok(), fits, "{length} whole");
                let bytes: Vec<&[u8]> = stream.chunks(1).collect();
                assert_eq!(lines(&bytes, 8).is_ok(), fits, "{length} byte by byte");
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused_as_soon_as_it_is_too_long() {
        assert_eq!(decode(&[b'x'; 8], 0, 8), Framed::Incomplete);
        assert_eq!(decode(&[b'x'; 9], 8, 8), Framed::TooLong);
        assert_eq!(lines(&[b"ok\n", &[b'x'; 9]], 8), Err(vec![b"ok".to_vec()]));
    }
}
