//! Inline commands: agreement with a splitter that is written as a state machine after Redis's `sdssplitargs`, whole and from every
//! prefix, with what was scanned remembered and without.

use slabd::codec::resp::{CommandLimits, Frame, FrameError, Parser, frame};

/// The first byte chooses the limits, the others are the stream.
pub fn inline(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    if stream.first() == Some(&b'*') {
        return;
    }
    let limits = limits(*choice);
    let whole = frame(stream, 0, &limits);
    assert_eq!(whole, framed(stream, &limits), "{}", stream.escape_ascii());
    // As the loop does it: what was looked at in vain is not looked at again.
    let mut scanned = 0;
    for cut in (1..=stream.len()).step_by(stream.len() / 64 + 1) {
        let (resumed, anew) = (frame(&stream[..cut], scanned, &limits), frame(&stream[..cut], 0, &limits));
        assert_eq!(resumed, anew, "{} resumed at {scanned}", stream[..cut].escape_ascii());
        match resumed {
            Frame::Incomplete => scanned = cut,
            decided => {
                assert_eq!(decided, whole, "{} cut at {cut}", stream.escape_ascii());
                break;
            }
        }
    }
    let message = match whole {
        Frame::Command { message, length } => {
            assert!(message.len() < length && length <= stream.len() && message.len() <= limits.inline_max);
            message
        }
        // A datagram's command need not end with a line break.
        Frame::Incomplete => stream,
        Frame::Invalid(_) => return,
    };
    let mut parser = Parser::default();
    let words = parser.parse(message, &limits).map(|command| command.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
    assert_eq!(words, split(message, limits.arguments_max), "{}", message.escape_ascii());
    // Words are half of the bytes at most, and lists have at most twice the room they need.
    let (held, most) = (parser.bytes(), 128 + 10 * message.len());
    assert!(held <= most, "{held} bytes held for {} received", message.len());
}

fn limits(choice: u8) -> CommandLimits {
    match choice % 4 {
        0 => CommandLimits::default(),
        1 => CommandLimits::UNTRUSTED,
        _ => CommandLimits { arguments_max: 3, bytes_max: 40, inline_max: 16 },
    }
}

/// A line ends at LF, before which one CR is no part of it.
fn framed<'a>(stream: &'a [u8], limits: &CommandLimits) -> Frame<'a> {
    let mut lines = stream.splitn(2, |byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let message = if line.ends_with(b"\r") { &line[..line.len() - 1] } else { line };
    match lines.next() {
        _ if message.len() > limits.inline_max => Frame::Invalid(FrameError::InlineTooBig),
        Some(_) => Frame::Command { message, length: line.len() + 1 },
        None => Frame::Incomplete,
    }
}

/// Where the splitter is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Between,
    Word,
    Quoted(u8),
    /// Just behind a closing quote.
    Closed,
}

/// The words of a line, one byte after the other.
fn split(line: &[u8], words_max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut state, mut words, mut word) = (State::Between, Vec::new(), Vec::new());
    let mut at = 0;
    while at < line.len() {
        let byte = line[at];
        let space = matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
        let mut taken = 1;
        match state {
            State::Between if space => {}
            State::Between if words.len() == words_max => return Err(FrameError::MultibulkLength),
            State::Between => (state, taken) = (State::Word, 0),
            // Neither vertical tab nor form feed ends a word that has no quotes.
            State::Word if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {
                words.push(std::mem::take(&mut word));
                state = State::Between;
            }
            State::Word if byte == b'"' || byte == b'\'' => state = State::Quoted(byte),
            State::Word => word.push(byte),
            State::Quoted(quote) if byte == quote => state = State::Closed,
            State::Quoted(b'"') if byte == b'\\' => {
                let (unescaped, length) = escape(&line[at..]);
                word.push(unescaped);
                taken = length;
            }
            State::Quoted(_) if line[at..].starts_with(b"\\'") => {
                word.push(b'\'');
                taken = 2;
            }
            State::Quoted(_) => word.push(byte),
            State::Closed if space => {
                words.push(std::mem::take(&mut word));
                state = State::Between;
            }
            State::Closed => return Err(FrameError::UnbalancedQuotes),
        }
        at += taken;
    }
    match state {
        State::Quoted(_) => return Err(FrameError::UnbalancedQuotes),
        State::Word | State::Closed => words.push(word),
        State::Between => {}
    }
    Ok(words)
}

/// What a backslash in double quotes and what follows it stand for, and how long that is.
fn escape(rest: &[u8]) -> (u8, usize) {
    let hex = rest.get(2..4).and_then(|digits| std::str::from_utf8(digits).ok());
    let hex = hex.filter(|digits| digits.chars().all(|digit| digit.is_ascii_hexdigit()));
    match (rest.get(1), hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
        (None, _) => (b'\\', 1),
        (Some(b'x'), Some(byte)) => (byte, 4),
        (Some(b'n'), _) => (b'\n', 2),
        (Some(b'r'), _) => (b'\r', 2),
        (Some(b't'), _) => (b'\t', 2),
        (Some(b'b'), _) => (8, 2),
        (Some(b'a'), _) => (7, 2),
        (Some(other), _) => (*other, 2),
    }
}
