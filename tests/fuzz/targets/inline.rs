//! Inline commands. The codec agrees with a splitter written as a state machine after Redis's
//! `sdssplitargs`. It does so for the whole stream and for each prefix, both resumed and from the
//! start.

use slabd::codec::resp::{CommandLimits, Frame, FrameError, Parser, frame};

/// Runs the target. The first byte chooses the limits, and the other bytes are the stream.
pub fn inline(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    if stream.first() == Some(&b'*') {
        return;
    }
    let limits = limits(*choice);
    let whole = frame(stream, 0, &limits);
    assert_eq!(whole, framed(stream, &limits), "{}", stream.escape_ascii());
    // The loop remembers how far the codec has scanned, so the codec resumes there.
    let mut scanned = 0;
    for cut in (1..=stream.len()).step_by(stream.len() / 64 + 1) {
        let (resumed, anew) =
            (frame(&stream[..cut], scanned, &limits), frame(&stream[..cut], 0, &limits));
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
            assert!(
                message.len() < length
                    && length <= stream.len()
                    && message.len() <= limits.inline_max
            );
            message
        }
        // The command of a datagram may lack a line break.
        Frame::Incomplete => stream,
        Frame::Invalid(_) => return,
    };
    let mut parser = Parser::default();
    let words = parser
        .parse(message, &limits)
        .map(|command| command.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
    assert_eq!(words, split(message, limits.arguments_max), "{}", message.escape_ascii());
    // At most half of the bytes start a word, and a list has at most twice the room it needs.
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

/// Returns the expected frame. A line ends at LF, and one CR before it is not part of the line. The
/// frame depends on the first byte, if any, that shows that the line is too long or no text.
fn framed<'a>(stream: &'a [u8], limits: &CommandLimits) -> Frame<'a> {
    for (at, byte) in stream.iter().enumerate() {
        let ends = |at: usize| stream.get(at + 1).is_none_or(|next| *next == b'\n');
        match byte {
            b'\n' => {
                let line = &stream[..at];
                let message = line.strip_suffix(b"\r").unwrap_or(line);
                return Frame::Command { message, length: at + 1 };
            }
            b'\t' => {}
            b'\r' if ends(at) => {}
            0..=0x1f | 0x7f => return Frame::Invalid(FrameError::ControlCharacter(*byte)),
            _ => {}
        }
        if at >= limits.inline_max && *byte != b'\r' {
            return Frame::Invalid(FrameError::InlineTooBig);
        }
    }
    Frame::Incomplete
}

/// The state of the splitter.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Between,
    Word,
    Quoted(u8),
    /// Directly after a closing quote.
    Closed,
}

/// Splits a line into its words, byte by byte.
fn split(line: &[u8], words_max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut state, mut words, mut word) = (State::Between, Vec::new(), Vec::new());
    let mut at = 0;
    while at < line.len() {
        let byte = line[at];
        let space = matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
        let mut taken = 1;
        match state {
            State::Between if space => {}
            State::Between if words.len() == words_max => return Err(FrameError::TooManyArguments),
            State::Between => (state, taken) = (State::Word, 0),
            // Vertical tab and form feed do not end a word without quotes.
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

/// Returns the byte of an escape sequence in double quotes, and the length of the sequence.
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
