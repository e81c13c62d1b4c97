//! Multibulk commands. Reading in one pass agrees with reading in two passes and with a simple
//! splitter, at any cut of the bytes. The parser keeps its limits. Its memory follows the received
//! bytes, not the announced ones.

use slabd::codec::resp::{Command, CommandLimits, Frame, FrameError, Parser, frame};

/// A command's words and its length, or `None` if a part of it is missing.
type Found = Result<Option<(Vec<Vec<u8>>, usize)>, FrameError>;

/// Runs the target. The first byte chooses the limits, and the other bytes are the stream after its
/// `*`.
pub fn resp(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let limits = limits(*choice);
    let stream = [b"*", rest].concat();
    let whole = check(&stream, &limits);
    // The result does not depend on the bytes after the command or on the cut.
    let length = match &whole {
        Ok(Some((_, length))) => *length,
        _ => stream.len(),
    };
    let mut decided = None;
    for cut in cuts(stream.len()) {
        let part = check(&stream[..cut], &limits);
        match (&decided, &part) {
            (None, Ok(None)) => {
                assert!(cut < length || whole == Ok(None), "still undecided at {cut} of {length}")
            }
            (None, _) => decided = Some(part),
            (Some(before), part) => assert_eq!(before, part, "the result changed at {cut}"),
        }
    }
    assert!(decided.is_none_or(|decided| decided == whole));
}

/// Returns the usual limits, those before the password, or very low ones.
fn limits(choice: u8) -> CommandLimits {
    match choice % 4 {
        0 => CommandLimits::default(),
        1 => CommandLimits::UNTRUSTED,
        _ => CommandLimits { arguments_max: 3, bytes_max: 40, inline_max: 16 },
    }
}

/// Returns all cuts of a short stream, or some of a long one. The end is always one of them.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (1..length).step_by(length / 32 + 1).chain([length])
}

/// Reads the front of `bytes` in three ways and checks that they agree. Returns the result.
fn check(bytes: &[u8], limits: &CommandLimits) -> Found {
    let mut parser = Parser::default();
    let expected = reference(bytes, limits);
    let in_one = parser
        .parse_multibulk(bytes, limits)
        .map(|found| found.map(|(command, length)| (words(command), length)));
    assert_eq!(in_one, expected, "in one pass: {}", bytes.escape_ascii());
    let in_two = match frame(bytes, 0, limits) {
        Frame::Command { message, length } => {
            assert_eq!(message, &bytes[..length]);
            Ok(parser.parse(message, limits).ok().map(|command| (words(command), length)))
        }
        Frame::Incomplete => Ok(None),
        Frame::Invalid(error) => Err(error),
    };
    assert_eq!(in_two, expected, "in two passes: {}", bytes.escape_ascii());
    if let Ok(Some((words, length))) = &expected {
        assert!(words.len() <= limits.arguments_max && *length <= bytes.len());
        assert!(*length <= limits.bytes_max || words.is_empty(), "{length} bytes");
    }
    // An argument takes at least six bytes, and its range takes eight. A list has room for at least
    // four ranges, and at most twice the room it needs.
    let (held, most) = (parser.bytes(), 64 + 16 * (bytes.len() / 6));
    assert!(held <= most, "{held} bytes held for {} received", bytes.len());
    expected
}

fn words(command: Command<'_>) -> Vec<Vec<u8>> {
    command.iter().map(<[u8]>::to_vec).collect()
}

/// Reads a command in the simplest way.
fn reference(bytes: &[u8], limits: &CommandLimits) -> Found {
    let Some((count, mut at)) =
        line(&bytes[1..], FrameError::MultibulkLength, FrameError::MultibulkCountTooBig)?
    else {
        return Ok(None);
    };
    at += 1;
    if count > limits.arguments_max as i64 {
        return Err(FrameError::TooManyArguments);
    }
    let mut words = Vec::new();
    for _ in 0..count.max(0) {
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'$') => at += 1,
            Some(other) => return Err(FrameError::ExpectedDollar(*other)),
        }
        let Some((length, read)) =
            line(&bytes[at..], FrameError::BulkLength, FrameError::BulkCountTooBig)?
        else {
            return Ok(None);
        };
        at += read;
        let end = at as i128 + i128::from(length) + 2;
        if length < 0 || end > limits.bytes_max as i128 {
            return Err(if length < 0 { FrameError::BulkLength } else { FrameError::TooLong });
        }
        let end = end as usize;
        if end > bytes.len() {
            return Ok(None);
        }
        if &bytes[end - 2..end] != b"\r\n" {
            return Err(FrameError::BulkLength);
        }
        words.push(bytes[at..end - 2].to_vec());
        at = end;
    }
    Ok(Some((words, at)))
}

/// Reads a number and CRLF after their marker. Returns the number and its length. A line has at
/// most 32 bytes with its marker.
fn line(
    bytes: &[u8],
    invalid: FrameError,
    too_big: FrameError,
) -> Result<Option<(i64, usize)>, FrameError> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\r').filter(|end| *end < 32) else {
        return if bytes.len() >= 32 { Err(too_big) } else { Ok(None) };
    };
    match bytes.get(end + 1) {
        None => Ok(None),
        Some(b'\n') => {
            let text = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid)?;
            let number: i64 = text.parse().map_err(|_| invalid)?;
            // The codec accepts only the canonical spelling.
            if number.to_string() == text { Ok(Some((number, end + 2))) } else { Err(invalid) }
        }
        Some(_) => Err(invalid),
    }
}
