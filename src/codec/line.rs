//! Lines: a message ends at LF, and a CR before it belongs to the ending (as in RFC 5198 and telnet).

/// What the front of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A line without its ending, and how many bytes both take up.
    Line { line: &'a [u8], length: usize },
    /// Part of a line, or nothing.
    Incomplete,
    /// A line longer than it may be; more bytes never change that.
    TooLong,
}

/// The first line of `bytes`, of at most `max` bytes without its ending. The first `scanned` bytes
/// are known to hold no LF.
pub fn decode(bytes: &[u8], scanned: usize, max: usize) -> Decoded<'_> {
    match memchr::memchr(b'\n', &bytes[scanned..]) {
        Some(found) => {
            let end = scanned + found;
            let line = strip_cr(&bytes[..end]);
            if line.len() > max { Decoded::TooLong } else { Decoded::Line { line, length: end + 1 } }
        }
        // A CR may yet turn out to be part of the ending.
        None if strip_cr(bytes).len() > max => Decoded::TooLong,
        None => Decoded::Incomplete,
    }
}

pub fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `stream` given in pieces, remembering what was scanned as the loop does.
    fn lines(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, Vec<Vec<u8>>> {
        let (mut held, mut scanned, mut found) = (Vec::new(), 0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match decode(&held, scanned, max) {
                    Decoded::Line { line, length } => {
                        found.push(line.to_vec());
                        held.drain(..length);
                        scanned = 0;
                    }
                    Decoded::Incomplete => break scanned = held.len(),
                    Decoded::TooLong => return Err(found),
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn every_case_whole_byte_by_byte_and_with_trailing_data() {
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
                assert_eq!(lines(&[&stream[..cut], &stream[cut..]], 16).unwrap(), *expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_length_at_its_limit_one_below_and_one_above() {
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
        assert_eq!(decode(&[b'x'; 8], 0, 8), Decoded::Incomplete);
        assert_eq!(decode(&[b'x'; 9], 8, 8), Decoded::TooLong);
        assert_eq!(lines(&[b"ok\n", &[b'x'; 9]], 8), Err(vec![b"ok".to_vec()]));
    }
}
