//! RESP, the protocol of Redis: splits a stream into commands, and a command into arguments. The
//! module `reply` writes replies, and [`reader`] reads those of another server.
//!
//! Parsing is sans-IO and has two steps. [`frame`] finds the end of the first command and examines
//! no byte after it. [`Parser::parse`] then finds the arguments of that command.
//! [`Parser::parse_multibulk`] takes both steps in one pass, for the commands that client libraries
//! send. One parser serves every connection: an incomplete command costs no more than its bytes,
//! and is read again from its start. Only a command of many words has a parser of its own, which
//! goes on where it stopped.
//!
//! Sources: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, and `networking.c` and
//! `sds.c` of Redis 7 for inline commands, limits and error texts.

pub mod reader;
mod reply;
mod unquoted;

use super::line;
use crate::limits::{
    COUNT_LINE_MAX, INLINE_MAX, MAX_MESSAGE, SPARE_PARSER_MAX, UNTRUSTED_ARGUMENTS_MAX,
    UNTRUSTED_INPUT_MAX,
};
use reply::without_line_break;
use unquoted::{is_space, unquote_argument};

pub use reply::{
    Protocol, array, bulk, bulk_length, bulk_of, error, integer, map, null, push, push_before,
    pushed, simple, verbatim,
};

/// Maximum length of a command in bytes. Ranges are stored as two `u32` to save half of their
/// memory.
const ADDRESSABLE_MAX: usize = u32::MAX as usize;

/// Length of the shortest argument on the wire, `$0` and two line breaks, in bytes.
const ARGUMENT_MIN: usize = 6;

/// The limits of a command. They are checked as soon as a length is announced, before its bytes
/// arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Maximum number of arguments, the name included.
    pub arguments_max: usize,
    /// Maximum length of a multibulk command on the wire, in bytes. An incomplete one may hold one
    /// count line more.
    pub bytes_max: usize,
    /// Maximum length of an inline command without its line ending, in bytes.
    pub inline_max: usize,
}

impl CommandLimits {
    /// The limits for a client that has not given its password.
    pub const UNTRUSTED: CommandLimits = CommandLimits {
        arguments_max: UNTRUSTED_ARGUMENTS_MAX,
        bytes_max: UNTRUSTED_INPUT_MAX,
        inline_max: UNTRUSTED_INPUT_MAX,
    };

    /// The limits for a client that may send commands of up to `bytes_max` bytes. The number of
    /// arguments has no limit of its own.
    pub fn up_to(bytes_max: usize) -> CommandLimits {
        CommandLimits { arguments_max: bytes_max / ARGUMENT_MIN, bytes_max, inline_max: INLINE_MAX }
    }
}

impl Default for CommandLimits {
    fn default() -> Self {
        CommandLimits::up_to(MAX_MESSAGE)
    }
}

/// The result of [`frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole command for [`Parser::parse`], and its length with its framing in bytes. A command
    /// without arguments (an empty line, `*0`, `*-1`) gets no reply.
    Command { message: &'a [u8], length: usize },
    /// No whole command yet.
    Incomplete,
    /// The stream is not RESP, and no more commands can be found in it.
    Invalid(FrameError),
}

/// The reason why a stream is not RESP. More bytes do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The number of arguments is malformed.
    MultibulkLength,
    /// The number of arguments, or of the words of an inline command, is over the limit.
    TooManyArguments,
    /// The length of an argument is malformed, negative, or not followed by CRLF after that many
    /// bytes. Redis does not check the CRLF; the check finds clients that miscount.
    BulkLength,
    /// The length of an argument makes the command too long.
    TooLong,
    /// An argument starts with this byte instead of `$`.
    ExpectedDollar(u8),
    /// An inline command is over the limit.
    InlineTooBig,
    /// The line with the number of arguments is too long.
    MultibulkCountTooBig,
    /// The line with the length of an argument is too long.
    BulkCountTooBig,
    /// An inline command has a quote that is not closed, or a closing quote without a space after
    /// it.
    UnbalancedQuotes,
    /// An inline command contains this control character. Another protocol may be meant.
    ControlCharacter(u8),
}

impl FrameError {
    /// Appends the error text of Redis, without the `-ERR ` before it and the CRLF after it. Behind
    /// it, a limit is named with its value.
    pub fn write(&self, limits: &CommandLimits, out: &mut Vec<u8>) {
        let text: &[u8] = match (self, *limits == CommandLimits::UNTRUSTED) {
            (FrameError::TooManyArguments, true) => {
                b"Protocol error: unauthenticated multibulk length"
            }
            (FrameError::TooLong, true) => b"Protocol error: unauthenticated bulk length",
            _ => self.text(),
        };
        out.extend_from_slice(text);
        let CommandLimits { arguments_max, bytes_max, .. } = limits;
        let accepted = match self {
            FrameError::ExpectedDollar(got) => {
                return out.extend_from_slice(&[without_line_break(*got), b'\'']);
            }
            FrameError::ControlCharacter(byte) => {
                let accepted = "in an inline command; accepted: tabs, and CRLF or LF at its end";
                format!("{byte:02x} {accepted}")
            }
            FrameError::TooManyArguments | FrameError::TooLong
                if *limits == CommandLimits::UNTRUSTED =>
            {
                format!("; accepted before AUTH: up to {arguments_max} words and {bytes_max} bytes")
            }
            FrameError::TooManyArguments | FrameError::TooLong => {
                format!("; accepted: a command of up to {bytes_max} bytes (--max-message)")
            }
            _ => return,
        };
        out.extend_from_slice(accepted.as_bytes());
    }

    fn text(&self) -> &'static [u8] {
        match self {
            FrameError::MultibulkLength | FrameError::TooManyArguments => {
                b"Protocol error: invalid multibulk length"
            }
            FrameError::BulkLength | FrameError::TooLong => b"Protocol error: invalid bulk length",
            FrameError::ExpectedDollar(_) => b"Protocol error: expected '$', got '",
            FrameError::InlineTooBig => b"Protocol error: too big inline request",
            FrameError::MultibulkCountTooBig => b"Protocol error: too big mbulk count string",
            FrameError::BulkCountTooBig => b"Protocol error: too big bulk count string",
            FrameError::UnbalancedQuotes => b"Protocol error: unbalanced quotes in request",
            FrameError::ControlCharacter(_) => b"Protocol error: control character 0x",
        }
    }
}

/// Finds the command at the front of `bytes`. The caller knows that the first `scanned` bytes
/// contain no LF, so an inline command is not scanned twice. A multibulk command is walked from its
/// start, from one announced length to the next. The way in which a stream was cut into segments
/// does not change the commands and errors found in it.
pub fn frame<'a>(bytes: &'a [u8], scanned: usize, limits: &CommandLimits) -> Frame<'a> {
    if bytes.first() == Some(&b'*') {
        let mut walk = ArgumentWalk::default();
        return match walk.go_on(bytes, limits, |_, _| ()) {
            Ok(true) => Frame::Command { message: &bytes[..walk.at], length: walk.at },
            Ok(false) => Frame::Incomplete,
            Err(error) => Frame::Invalid(error),
        };
    }
    let (scanned, most) = (scanned.min(bytes.len()), limits.inline_max.min(ADDRESSABLE_MAX));
    if let Some(byte) = control_character(bytes, scanned, most) {
        return Frame::Invalid(FrameError::ControlCharacter(byte));
    }
    match line::decode(bytes, scanned, most) {
        line::Framed::Line { line, length } => Frame::Command { message: line, length },
        line::Framed::Incomplete => Frame::Incomplete,
        line::Framed::TooLong => Frame::Invalid(FrameError::InlineTooBig),
    }
}

/// Returns the first control character of the line at the front of `bytes`, at most `most` bytes
/// behind its start. A tab is none, nor is the CR before the LF. A CR at the end may be that one.
fn control_character(bytes: &[u8], scanned: usize, most: usize) -> Option<u8> {
    // The next byte tells about a CR that was the last byte scanned.
    let from = scanned.saturating_sub(1);
    let end = bytes.len().min(most.saturating_add(1));
    for at in from..end {
        match bytes[at] {
            b'\n' => return None,
            b'\t' => {}
            b'\r' if bytes.get(at + 1).is_none_or(|next| *next == b'\n') => {}
            byte if byte.is_ascii_control() => return Some(byte),
            _ => {}
        }
    }
    None
}

/// A walk over a multibulk command, from argument to argument.
#[derive(Default)]
struct ArgumentWalk {
    /// Position of the next argument, or the end of the command. 0: the walk has not begun.
    at: usize,
    /// Number of arguments left.
    left: u64,
}

impl ArgumentWalk {
    /// Walks on as far as `bytes` reach. Returns true at the end of the command. Calls `each` with
    /// the start and end of each argument.
    #[inline]
    fn go_on(
        &mut self,
        bytes: &[u8],
        limits: &CommandLimits,
        mut each: impl FnMut(u32, u32),
    ) -> Result<bool, FrameError> {
        if self.at == 0 {
            let Some((count, at)) = multibulk_count(bytes)? else { return Ok(false) };
            if count > limits.arguments_max as u64 {
                return Err(FrameError::TooManyArguments);
            }
            (self.at, self.left) = (at, count);
        }
        while self.left > 0 {
            let found = bulk_range(bytes, self.at, limits.bytes_max.min(ADDRESSABLE_MAX))?;
            let Some((start, end)) = found else { return Ok(false) };
            each(start as u32, end as u32);
            self.at = end + 2;
            self.left -= 1;
        }
        Ok(true)
    }
}

/// Returns the announced number of arguments and the start of the first one. A negative number
/// counts as 0.
fn multibulk_count(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let read = count_line(bytes, FrameError::MultibulkLength, FrameError::MultibulkCountTooBig)?;
    Ok(read.map(|(count, next)| (count.max(0).unsigned_abs(), next)))
}

/// Returns the start and end of the argument whose `$` is at `at`, without its CRLF, or `None` if
/// it is incomplete.
fn bulk_range(
    bytes: &[u8],
    at: usize,
    bytes_max: usize,
) -> Result<Option<(usize, usize)>, FrameError> {
    match bytes.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err(FrameError::ExpectedDollar(other)),
    }
    let read = count_line(&bytes[at..], FrameError::BulkLength, FrameError::BulkCountTooBig)?;
    let Some((length, header)) = read else { return Ok(None) };
    let start = at + header;
    let length = usize::try_from(length).map_err(|_| FrameError::BulkLength)?;
    let end_line = start
        .checked_add(length)
        .and_then(|end| end.checked_add(2))
        .filter(|end| *end <= bytes_max);
    let end_line = end_line.ok_or(FrameError::TooLong)?;
    match bytes.get(end_line - 2..end_line) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((start, end_line - 2))),
        Some(_) => Err(FrameError::BulkLength),
    }
}

/// Returns the number after the marker at the front of `bytes`, and the length of its line with
/// CRLF.
fn count_line(
    bytes: &[u8],
    invalid: FrameError,
    too_big: FrameError,
) -> Result<Option<(i64, usize)>, FrameError> {
    // Most numbers have one or two digits. These patterns take a third of the time of the search
    // below.
    match bytes {
        [_, ones @ b'0'..=b'9', b'\r', b'\n', ..] => return Ok(Some((i64::from(ones - b'0'), 4))),
        [_, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            return Ok(Some((i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), 5)));
        }
        _ => {}
    }
    match bytes.iter().take(COUNT_LINE_MAX + 1).position(|byte| *byte == b'\r') {
        None if bytes.len() > COUNT_LINE_MAX => Err(too_big),
        None => Ok(None),
        Some(end) => match bytes.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                Ok(Some((number(bytes.get(1..end).unwrap_or_default()).ok_or(invalid)?, end + 2)))
            }
            Some(_) => Err(invalid),
        },
    }
}

/// Parses a decimal number in its canonical spelling, like Redis's `string2ll`: no plus, no leading
/// zeros, no `-0`. Returns `None` for any other text, and for numbers beyond 64 bits.
pub fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // The sum is negative, because `i64::MIN` has no positive counterpart.
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Splits commands into arguments. Its memory is reused by the next command. It grows to that of
/// the longest command so far: 8 bytes per argument, and the bytes of an inline command.
#[derive(Default)]
pub struct Parser {
    /// The walk over the current multibulk command.
    walk: ArgumentWalk,
    /// Start and end of each argument, in the message or in `unquoted`.
    ranges: Vec<(u32, u32)>,
    /// The arguments of an inline command without quotes, concatenated.
    unquoted: Vec<u8>,
}

impl Parser {
    /// Returns the memory held, in bytes. It depends on the commands received, not on the lengths
    /// that clients announce.
    pub fn bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<(u32, u32)>() + self.unquoted.capacity()
    }

    /// Parses the multibulk command at the front of `bytes` in one pass. Returns the command and
    /// its length in bytes, or `None` if it is incomplete.
    pub fn parse_multibulk<'a>(
        &'a mut self,
        bytes: &'a [u8],
        limits: &CommandLimits,
    ) -> Result<Option<(Command<'a>, usize)>, FrameError> {
        self.walk = ArgumentWalk::default();
        self.ranges.clear();
        self.go_on(bytes, limits)
    }

    /// Parses on where the last call found the command incomplete. `bytes` begin with the bytes of
    /// that call. A complete command is returned again.
    pub fn go_on<'a>(
        &'a mut self,
        bytes: &'a [u8],
        limits: &CommandLimits,
    ) -> Result<Option<(Command<'a>, usize)>, FrameError> {
        let ranges = &mut self.ranges;
        let complete = self.walk.go_on(bytes, limits, |start, end| ranges.push((start, end)))?;
        let command = Command { source: bytes, ranges: &self.ranges };
        Ok(complete.then_some((command, self.walk.at)))
    }

    /// Frees the memory of a rare large command.
    pub fn release(&mut self) {
        if self.bytes() > SPARE_PARSER_MAX {
            *self = Parser::default();
        }
    }

    /// Returns the number of arguments found in the current command.
    pub fn arguments(&self) -> usize {
        self.ranges.len()
    }

    /// Splits a message of [`Frame::Command`] into its arguments. Returns no arguments for other
    /// bytes that start with `*`.
    pub fn parse<'a>(
        &'a mut self,
        message: &'a [u8],
        limits: &CommandLimits,
    ) -> Result<Command<'a>, FrameError> {
        if message.first() == Some(&b'*') {
            return Ok(match self.parse_multibulk(message, limits) {
                Ok(Some((command, _))) => command,
                _ => Command { source: message, ranges: &[] },
            });
        }
        self.ranges.clear();
        self.unquoted.clear();
        if message.len() > ADDRESSABLE_MAX {
            return Err(FrameError::InlineTooBig);
        }
        self.split_inline(message, limits.arguments_max)?;
        Ok(Command { source: &self.unquoted, ranges: &self.ranges })
    }

    /// Parses the first arguments of the rest of a complete command: at most `words_max`, and no
    /// more once they take `bytes_max` bytes. Returns them with the number of bytes that they take.
    pub fn parse_rest<'a>(
        &'a mut self,
        rest: &'a [u8],
        is_inline: bool,
        words_max: usize,
        bytes_max: usize,
    ) -> Result<(Command<'a>, usize), FrameError> {
        self.ranges.clear();
        self.unquoted.clear();
        let mut at = 0;
        while at < rest.len() && at < bytes_max && self.ranges.len() < words_max {
            if is_inline {
                at += rest[at..].iter().take_while(|byte| is_space(**byte)).count();
                let start = self.unquoted.len();
                let behind = unquote_argument(&rest[at..], &mut self.unquoted)?;
                if behind.len() < rest.len() - at {
                    self.ranges.push((start as u32, self.unquoted.len() as u32));
                }
                at = rest.len() - behind.len();
            } else {
                let found = bulk_range(rest, at, rest.len())?;
                let Some((start, end)) = found else { return Err(FrameError::BulkLength) };
                self.ranges.push((start as u32, end as u32));
                at = end + 2;
            }
        }
        let source = if is_inline { &self.unquoted } else { rest };
        Ok((Command { source, ranges: &self.ranges }, at))
    }

    /// Returns the number of bytes before the second argument of the complete multibulk command at
    /// the front of `bytes`, or before the end of the first word of an inline one.
    pub fn first_bytes(&mut self, command: &[u8]) -> usize {
        let start = match multibulk_count(command) {
            Ok(Some((_, start))) if command.first() == Some(&b'*') => start,
            _ => 0,
        };
        let is_inline = command.first() != Some(&b'*');
        let first = self.parse_rest(&command[start..], is_inline, 1, usize::MAX);
        start + first.map_or(0, |(_, length)| length)
    }

    /// Splits an inline command like Redis's `sdssplitargs`, but the number of words is limited,
    /// and NUL is an ordinary byte. [`frame`] has refused control characters before.
    fn split_inline(&mut self, line: &[u8], words_max: usize) -> Result<(), FrameError> {
        let mut rest = line;
        loop {
            while let [first, behind @ ..] = rest
                && is_space(*first)
            {
                rest = behind;
            }
            if rest.is_empty() {
                return Ok(());
            }
            if self.ranges.len() >= words_max {
                return Err(FrameError::TooManyArguments);
            }
            let start = self.unquoted.len();
            rest = unquote_argument(rest, &mut self.unquoted)?;
            self.ranges.push((start as u32, self.unquoted.len() as u32));
        }
    }
}

/// The arguments of a command, its name first. It has no `Debug`, because one may be a password.
#[derive(Clone, Copy, Default)]
pub struct Command<'a> {
    source: &'a [u8],
    ranges: &'a [(u32, u32)],
}

impl<'a> Command<'a> {
    pub fn len(self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns an argument; the name has index 0.
    pub fn get(self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|(start, end)| &self.source[*start as usize..*end as usize])
    }

    /// Returns the arguments without the first one.
    pub fn skip_first(self) -> Command<'a> {
        Command { ranges: self.ranges.get(1..).unwrap_or_default(), ..self }
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone {
        self.ranges.iter().map(move |(start, end)| &self.source[*start as usize..*end as usize])
    }
}

#[cfg(test)]
pub mod tests {
    use std::ops::Range;

    use super::*;

    /// A step in reading a stream: a command with its arguments, or an error.
    #[derive(Debug, PartialEq, Eq)]
    enum Step {
        Command(Vec<Vec<u8>>),
        Refused(FrameError),
        Invalid(FrameError),
    }

    /// Asserts that parsing a multibulk command in one pass gives the same result as in two.
    fn agree_in_one_pass(bytes: &[u8], scanned: usize, limits: &CommandLimits) {
        if bytes.first() != Some(&b'*') {
            return;
        }
        let (mut one, mut two) = (Parser::default(), Parser::default());
        let words = |command: Command<'_>| command.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let in_one = one
            .parse_multibulk(bytes, limits)
            .map(|found| found.map(|(command, length)| (words(command), length)));
        let in_two = match frame(bytes, scanned, limits) {
            Frame::Command { message, length } => {
                Ok(two.parse(message, limits).ok().map(|command| (words(command), length)))
            }
            Frame::Incomplete => Ok(None),
            Frame::Invalid(error) => Err(error),
        };
        assert_eq!(in_one, in_two, "{}", bytes.escape_ascii());
    }

    /// Reads a stream that arrives in pieces. Like the loop, it remembers the scanned length.
    fn steps<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &CommandLimits) -> Vec<Step> {
        let (mut held, mut scanned, mut found, mut parser) =
            (Vec::new(), 0, Vec::new(), Parser::default());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                agree_in_one_pass(&held, scanned, limits);
                match frame(&held, scanned, limits) {
                    Frame::Command { message, length } => {
                        assert!(message.len() <= length && length <= held.len());
                        found.push(match parser.parse(message, limits) {
                            Ok(command) => {
                                assert_eq!(command.iter().len(), command.len());
                                assert_eq!(command.is_empty(), command.get(0).is_none());
                                assert!(
                                    command
                                        .iter()
                                        .enumerate()
                                        .all(|(i, argument)| command.get(i) == Some(argument))
                                );
                                assert_eq!(command.get(command.len()), None);
                                Step::Command(command.iter().map(<[u8]>::to_vec).collect())
                            }
                            Err(error) => Step::Refused(error),
                        });
                        held.drain(..length);
                        scanned = 0;
                    }
                    Frame::Incomplete => break scanned = held.len(),
                    Frame::Invalid(error) => {
                        found.push(Step::Invalid(error));
                        return found;
                    }
                }
            }
        }
        found
    }

    fn command(arguments: &[&[u8]]) -> Step {
        Step::Command(arguments.iter().map(|argument| argument.to_vec()).collect())
    }

    /// Checks one command whole, byte by byte, cut in two at each place, and with trailing data.
    fn check(stream: &[u8], expected: Step, limits: &CommandLimits) {
        let shown = stream.escape_ascii();
        let expected = [expected];
        assert_eq!(steps([stream], limits), expected, "{shown} whole");
        assert_eq!(steps(stream.chunks(1), limits), expected, "{shown} byte by byte");
        for cut in 0..stream.len() {
            assert_eq!(
                steps([&stream[..cut], &stream[cut..]], limits),
                expected,
                "{shown} cut at {cut}"
            );
        }
        // A command is complete only with its last byte. An error may be found earlier.
        if !matches!(expected[0], Step::Invalid(_)) {
            for cut in 0..stream.len() {
                assert_eq!(
                    frame(&stream[..cut], 0, limits),
                    Frame::Incomplete,
                    "{shown} cut at {cut}"
                );
            }
            for trailing in [&b"x"[..], b"*", b"*1\r\n$", b"\r", b"\"", b"xxxxxxxx"] {
                assert_eq!(
                    steps([stream, trailing], limits),
                    expected,
                    "{shown} with trailing data"
                );
            }
            let trailed = [stream, b"PING\r\n*1\r\n$4\r\nPING\r\n"].concat();
            let [first] = expected;
            let all = [first, command(&[b"PING"]), command(&[b"PING"])];
            assert_eq!(steps([&trailed[..]], limits), all, "{shown} with commands behind it");
            assert_eq!(
                steps(trailed.chunks(1), limits),
                all,
                "{shown} with commands behind it, byte by byte"
            );
        } else {
            for trailing in [&b"x"[..], b"\r\n", b"*1\r\n$4\r\nPING\r\n", &[b'x'; 100]] {
                assert_eq!(
                    steps([&[stream, trailing].concat()[..]], limits),
                    expected,
                    "{shown} with trailing data"
                );
            }
        }
    }

    #[test]
    fn a_multibulk_command_is_split_into_arguments() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"*1\r\n$4\r\nPING\r\n", &[b"PING"]),
            (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &[b"ECHO", b""]),
            (b"*1\r\n$0\r\n\r\n", &[b""]),
            (
                b"*3\r\n$7\r\nPUBLISH\r\n$2\r\n\r\n\r\n$6\r\n\0\xff*1\r\n\r\n",
                &[b"PUBLISH", b"\r\n", b"\0\xff*1\r\n"],
            ),
            (b"*2\r\n$10\r\n0123456789\r\n$2\r\n\"'\r\n", &[b"0123456789", b"\"'"]),
            (b"*0\r\n", &[]),
            (b"*-1\r\n", &[]),
            (b"*-9223372036854775808\r\n", &[]),
        ];
        for (stream, expected) in cases {
            check(stream, command(expected), &CommandLimits::default());
        }
    }

    #[test]
    fn an_inline_command_is_split_into_words_and_unquoted() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b" \t  ", &[]),
            (b"PING", &[b"PING"]),
            (b"  PING\t a  b ", &[b"PING", b"a", b"b"]),
            (b"a *1 $2", &[b"a", b"*1", b"$2"]),
            (b" *1", &[b"*1"]),
            (b"a\x80b \xff", &[b"a\x80b", b"\xff"]),
            (b"a\tb", &[b"a", b"b"]),
            (b"\"\" ''", &[b"", b""]),
            (b"\"hello world\" 'a b'", &[b"hello world", b"a b"]),
            (b"\"a'b\" 'a\"b'", &[b"a'b", b"a\"b"]),
            (b"\"\\n\\r\\t\\b\\a\\\\\\\"\\q\"", &[b"\n\r\t\x08\x07\\\"q"]),
            (b"\"\\x00\\xfF\\xAg\\x4\\x\"", &[b"\0\xffxAgx4x"]),
            (b"'\\n\\x41\\'\\\\ '", &[b"\\n\\x41'\\\\ "]),
            (b"foo\"bar baz\" x'y z'", &[b"foobar baz", b"xy z"]),
            (b"\"a\"\t'b'\t", &[b"a", b"b"]),
            (b"a\\n \\\"b\"", &[b"a\\n", b"\\b"]),
        ];
        for (line, expected) in cases {
            for ending in [&b"\n"[..], b"\r\n"] {
                check(&[line, ending].concat(), command(expected), &CommandLimits::default());
            }
        }
    }

    #[test]
    fn a_control_character_in_an_inline_command_is_refused() {
        let controls = (0..=0x1f).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\n'));
        for byte in controls {
            let expected = || Step::Invalid(FrameError::ControlCharacter(byte));
            for line in [vec![byte, b'a'], vec![b'a', byte, b'b', b'\n'], vec![byte, b'\r', b'\n']]
            {
                check(&line, expected(), &CommandLimits::default());
            }
        }
        let mut text = Vec::new();
        FrameError::ControlCharacter(0x1b).write(&CommandLimits::default(), &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "Protocol error: control character 0x1b in an inline command; accepted: tabs, and CRLF \
             or LF at its end"
        );
    }

    #[test]
    fn of_a_long_line_and_a_control_character_the_first_is_refused() {
        let limits = CommandLimits { inline_max: 8, ..CommandLimits::default() };
        for (length, error) in [
            (7, FrameError::ControlCharacter(1)),
            (8, FrameError::ControlCharacter(1)),
            (9, FrameError::InlineTooBig),
        ] {
            let line = [&vec![b'x'; length][..], b"\x01\r\n"].concat();
            check(&line, Step::Invalid(error), &limits);
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        let cases: &[&[u8]] = &[
            b"\"",
            b"'",
            b"a \"b",
            b"a 'b",
            b"\"a\"b",
            b"'a'b",
            b"\"a\"'b'",
            b"\"a\\\"",
            b"'a\\'",
            b"'a\\\\'",
            b"\"\\",
            b"\"\\x4",
        ];
        for line in cases {
            check(
                &[line, &b"\r\n"[..]].concat(),
                Step::Refused(FrameError::UnbalancedQuotes),
                &CommandLimits::default(),
            );
        }
        let mut text = Vec::new();
        FrameError::UnbalancedQuotes.write(&CommandLimits::default(), &mut text);
        assert_eq!(text, b"Protocol error: unbalanced quotes in request");
    }

    #[test]
    fn an_inline_command_with_one_word_too_many_is_refused() {
        let limits = CommandLimits::UNTRUSTED;
        let most = limits.arguments_max;
        for (words, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
            let line = format!(" {}\r\n", " \"a\"".repeat(words)).into_bytes();
            let expected = match fits {
                true => command(&vec![&b"a"[..]; words]),
                false => Step::Refused(FrameError::TooManyArguments),
            };
            assert_eq!(steps([&line[..]], &limits), [expected]);
        }
    }

    #[test]
    fn an_authenticated_client_may_send_a_command_of_any_number_of_words_within_its_bytes() {
        let limits = CommandLimits::up_to(6006);
        for (count, fits) in [(999, true), (1000, true), (1001, true), (1002, false)] {
            let announced = format!("*{count}\r\n");
            let refused = Frame::Invalid(FrameError::TooManyArguments);
            let expected = if fits { Frame::Incomplete } else { refused };
            assert_eq!(frame(announced.as_bytes(), 0, &limits), expected, "{count}");
        }
        let stream = |count| [format!("*{count}\r\n"), "$0\r\n\r\n".repeat(count)].concat();
        for (count, fits) in [(998, true), (999, true), (1000, false)] {
            let (stream, limits) = (stream(count), CommandLimits::up_to(6000));
            let found = match fits {
                true => command(&vec![&b""[..]; count]),
                false => Step::Invalid(FrameError::TooLong),
            };
            for piece in [stream.len(), 1000, 7] {
                assert_eq!(
                    steps(stream.as_bytes().chunks(piece), &limits),
                    std::slice::from_ref(&found)
                );
            }
        }
        let words = vec![&b"a"[..]; INLINE_MAX / 2];
        let line = [&words.join(&b' ')[..], b"\n"].concat();
        assert_eq!(steps([&line[..]], &CommandLimits::default()), [command(&words)]);
    }

    #[test]
    fn a_command_beyond_the_default_limits_is_refused() {
        let limits = CommandLimits::default();
        assert_eq!((limits.bytes_max, limits.inline_max), (16 << 20, 64 << 10));
        // `*1`, the length and the line breaks are 17 bytes.
        for (length, fits) in
            [((16 << 20) - 18, true), ((16 << 20) - 17, true), ((16 << 20) - 16, false)]
        {
            let announced = format!("*1\r\n${length}\r\n");
            let expected =
                if fits { Frame::Incomplete } else { Frame::Invalid(FrameError::TooLong) };
            assert_eq!(frame(announced.as_bytes(), 0, &limits), expected, "{length}");
        }
    }

    #[test]
    fn the_error_for_a_command_over_a_limit_names_the_limit() {
        let text = |error: FrameError, limits: &CommandLimits| {
            let mut text = Vec::new();
            error.write(limits, &mut text);
            String::from_utf8(text).unwrap()
        };
        let own = CommandLimits::up_to(100_000);
        assert_eq!(
            [FrameError::TooLong, FrameError::TooManyArguments].map(|error| text(error, &own)),
            ["bulk", "multibulk"].map(|part| format!(
                "Protocol error: invalid {part} length; accepted: a command of up to 100000 bytes \
                (--max-message)"
            ))
        );
        let untrusted = CommandLimits::UNTRUSTED;
        assert_eq!(
            [FrameError::TooLong, FrameError::TooManyArguments]
                .map(|error| text(error, &untrusted)),
            ["bulk", "multibulk"].map(|part| format!(
                "Protocol error: unauthenticated {part} length; accepted before AUTH: up to 16 \
                words and 4096 bytes"
            ))
        );
        assert_eq!(text(FrameError::BulkLength, &untrusted), "Protocol error: invalid bulk length");
    }

    #[test]
    fn a_parser_that_goes_on_finds_the_same_arguments_and_walks_each_once() {
        let words: Vec<Vec<u8>> = (0..5000u32).map(|word| vec![b'x'; word as usize % 7]).collect();
        let mut stream = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            stream.extend(format!("${}\r\n", word.len()).bytes());
            stream.extend([&word[..], b"\r\n"].concat());
        }
        let limits = CommandLimits::default();
        for piece in [1, 2, 1000, stream.len()] {
            let (mut parser, mut at) = (Parser::default(), 0);
            for end in (piece..stream.len()).step_by(piece) {
                assert!(parser.go_on(&stream[..end], &limits).is_ok_and(|found| found.is_none()));
                assert!(parser.walk.at >= at && parser.walk.at + 13 > end, "it begins anew");
                at = parser.walk.at;
            }
            for _ in 0..2 {
                let (found, length) = parser.go_on(&stream, &limits).ok().flatten().unwrap();
                assert_eq!(length, stream.len());
                assert!(found.iter().eq(words.iter().map(|word| &word[..])));
            }
            let after = [&stream[..], b"$bad"].concat();
            assert!(parser.go_on(&after, &limits).is_ok_and(|found| found.is_some()));
            assert!(parser.bytes() >= 8 * words.len());
            parser.ranges.reserve(SPARE_PARSER_MAX);
            parser.release();
            assert_eq!(parser.bytes(), 0);
        }
    }

    #[test]
    fn a_malformed_frame_gets_the_error_text_of_redis() {
        let digits = [b'1'; 40];
        let cases: &[(&[u8], FrameError, &str)] = &[
            (b"*\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*-\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*-0\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*+1\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*01\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*1 \r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*1\n\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*1\rx", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*9223372036854775808\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*1\r\nx", FrameError::ExpectedDollar(b'x'), "expected '$', got 'x'"),
            (b"*1\r\n\r", FrameError::ExpectedDollar(b'\r'), "expected '$', got ' '"),
            (b"*1\r\n\xff", FrameError::ExpectedDollar(0xff), "expected '$', got '\u{fffd}'"),
            (b"*2\r\n$1\r\na\r\n*", FrameError::ExpectedDollar(b'*'), "expected '$', got '*'"),
            (b"*1\r\n$\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$-1\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$x\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$4\rx", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$18446744073709551616\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$1\r\nabc", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$1\r\na\rb", FrameError::BulkLength, "invalid bulk length"),
            (
                &[b"*", &digits[..]].concat(),
                FrameError::MultibulkCountTooBig,
                "too big mbulk count string",
            ),
            (
                &[b"*1\r\n$", &digits[..]].concat(),
                FrameError::BulkCountTooBig,
                "too big bulk count string",
            ),
            (&[b'x'; 65_537], FrameError::InlineTooBig, "too big inline request"),
        ];
        for (stream, error, text) in cases {
            if stream.len() < 100 {
                check(stream, Step::Invalid(*error), &CommandLimits::default());
            }
            assert_eq!(steps([*stream], &CommandLimits::default()), [Step::Invalid(*error)]);
            let mut written = Vec::new();
            error.write(&CommandLimits::default(), &mut written);
            assert_eq!(String::from_utf8_lossy(&written), format!("Protocol error: {text}"));
        }
    }

    #[test]
    fn a_command_one_beyond_any_limit_is_refused() {
        let limits = CommandLimits { arguments_max: 3, bytes_max: 64, inline_max: 8 };
        for (count, fits) in [(2, true), (3, true), (4, false)] {
            let stream =
                [format!("*{count}\r\n").into_bytes(), b"$1\r\na\r\n".repeat(count)].concat();
            let arguments = vec![&b"a"[..]; count];
            let expected = if fits {
                command(&arguments)
            } else {
                Step::Invalid(FrameError::TooManyArguments)
            };
            check(&stream, expected, &limits);
        }
        // The length of the whole frame counts, and it is checked before the bytes have arrived.
        for front in [&b"*1\r\n"[..], b"*2\r\n$5\r\nfirst\r\n"] {
            for (frame_length, fits) in [(63, true), (64, true), (65, false)] {
                let length = frame_length - front.len() - 7;
                let head = [front, format!("${length}\r\n").as_bytes()].concat();
                let stream = [&head[..], &vec![b'x'; length], b"\r\n"].concat();
                assert_eq!(stream.len(), frame_length);
                match fits {
                    true => {
                        assert!(matches!(steps([&stream[..]], &limits)[..], [Step::Command(_)]))
                    }
                    false => check(&head, Step::Invalid(FrameError::TooLong), &limits),
                }
            }
        }
        for (length, fits) in [(7, true), (8, true), (9, false)] {
            let word = vec![b'x'; length];
            let expected =
                || if fits { command(&[&word]) } else { Step::Invalid(FrameError::InlineTooBig) };
            check(&[&word[..], b"\n"].concat(), expected(), &limits);
            check(&[&word[..], b"\r\n"].concat(), expected(), &limits);
        }
        for (length, error) in
            [(31, FrameError::MultibulkLength), (32, FrameError::MultibulkLength)]
                .into_iter()
                .chain([(33, FrameError::MultibulkCountTooBig)])
        {
            let line = [b"*".to_vec(), vec![b'0'; length - 1], b"\r\n".to_vec()].concat();
            check(&line, Step::Invalid(error), &limits);
        }
        for (length, error) in [(32, FrameError::BulkLength), (33, FrameError::BulkCountTooBig)] {
            let line = [b"*1\r\n$".to_vec(), vec![b'0'; length - 1], b"\r\n".to_vec()].concat();
            check(&line, Step::Invalid(error), &limits);
        }
    }

    #[test]
    fn unlimited_limits_and_a_wrong_scanned_length_do_not_panic() {
        let limits = CommandLimits {
            arguments_max: usize::MAX,
            bytes_max: usize::MAX,
            inline_max: usize::MAX,
        };
        check(b"*1\r\n$9223372036854775807\r\n", Step::Invalid(FrameError::TooLong), &limits);
        assert_eq!(steps([&b"*9223372036854775807\r\n$1\r\na\r\n"[..]], &limits), []);
        assert_eq!(frame(b"ab", 3, &limits), Frame::Incomplete);
        let none = CommandLimits { arguments_max: 0, bytes_max: 0, inline_max: 0 };
        assert_eq!(steps([&b"\r\n*0\r\n*1\r\n"[..]], &none).len(), 3);
    }

    #[test]
    fn an_incomplete_message_has_no_arguments() {
        let mut parser = Parser::default();
        for message in [
            &b"*"[..],
            b"*\r\n",
            b"*2\r\n$1\r\na\r\n",
            b"*1\r\n$4\r\nPIN",
            b"*9223372036854775807\r\n",
        ] {
            let parsed = parser.parse(message, &CommandLimits::default());
            assert!(parsed.is_ok_and(|command| command.is_empty()));
        }
    }

    #[test]
    fn a_warm_parser_does_not_grow() {
        let mut parser = Parser::default();
        let messages = [
            &b"SUBSCRIBE \"a\" b c d e f"[..],
            b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n",
            b"PING",
            b"",
            b"\"x",
        ];
        let limits = &CommandLimits::default();
        let _ = parser.parse(messages[0], limits);
        let warm = (parser.ranges.capacity(), parser.unquoted.capacity());
        for message in messages.iter().cycle().take(100) {
            let _ = parser.parse(message, limits);
        }
        assert_eq!((parser.ranges.capacity(), parser.unquoted.capacity()), warm);
    }

    /// Returns one of some streams after a number of changes: bytes of the alphabet in place of
    /// others or between them, removed bytes, and a part that is repeated.
    pub fn mutated(
        random: &mut fastrand::Rng,
        streams: &[&[u8]],
        alphabet: &[u8],
        changes: Range<usize>,
    ) -> Vec<u8> {
        let mut stream = streams[random.usize(..streams.len())].to_vec();
        for _ in 0..random.usize(changes) {
            let (at, byte) =
                (random.usize(..stream.len()), alphabet[random.usize(..alphabet.len())]);
            match random.u8(..4) {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                2 if stream.len() > 1 => drop(stream.remove(at)),
                _ => stream.extend_from_within(random.usize(..=at)..=at),
            }
        }
        stream
    }

    #[test]
    fn a_mutated_stream_gives_the_same_commands_in_pieces_of_any_size() {
        const ALPHABET: &[u8] = b"*$-0123456789\r\n\r\n\r\n \"'\\xabPING\0\xff";
        let seeds: [&[u8]; 5] = [
            b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$12\r\nhello\r\nworld\r\n",
            b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$0\r\n\r\n*0\r\n*-1\r\nPING\r\n",
            b"ECHO \"a\\x41\\n\" 'b\\'c' d\r\nPING\n\n*1\r\n$1\r\nx\r\n",
            b"*1\r\n$30\r\n012345678901234567890123456789\r\nQUIT\r\n",
            b"*12345678901234567890123456789012345\r\n",
        ];
        let limits = CommandLimits { arguments_max: 4, bytes_max: 48, inline_max: 24 };
        let (mut commands, mut errors) = (0, 0);
        for seed in 0..10_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let stream = mutated(&mut random, &seeds, ALPHABET, 1..6);
            let whole = steps([&stream[..]], &limits);
            assert_eq!(
                steps(stream.chunks(1), &limits),
                whole,
                "seed {seed}: {}",
                stream.escape_ascii()
            );
            let size = random.usize(2..9);
            assert_eq!(
                steps(stream.chunks(size), &limits),
                whole,
                "seed {seed}: {}",
                stream.escape_ascii()
            );
            commands += whole.iter().filter(|step| matches!(step, Step::Command(_))).count();
            errors += whole.iter().filter(|step| matches!(step, Step::Invalid(_))).count();
            // The parser must not panic on any bytes.
            let _ = Parser::default().parse(&stream, &limits);
        }
        assert!(commands > 5_000 && errors > 2_000, "{commands} commands and {errors} errors");
    }

    #[test]
    fn a_number_is_accepted_only_in_its_canonical_spelling() {
        for value in
            [0, 1, -1, 9, 10, -10, 1234567890, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1]
        {
            let text = value.to_string();
            assert_eq!(number(text.as_bytes()), Some(value));
            assert_eq!(encoded(|out| integer(out, value)), format!(":{text}\r\n"));
        }
        for text in ["", "-", "--1", "+1", "01", "-0", "00", " 1", "1 ", "1a", "a", "1.0"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        assert_eq!(number(b"9223372036854775808"), None);
        assert_eq!(number(b"-9223372036854775809"), None);
        assert_eq!(number(&[b'9'; 100]), None);
    }

    /// Returns the bytes that `write` appends to a buffer, which it must not change otherwise.
    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_string()
    }

    #[test]
    fn replies_are_written_in_the_format_of_each_protocol() {
        use Protocol::{Resp2, Resp3};
        assert_eq!(encoded(|out| simple(out, "OK")), "+OK\r\n");
        assert_eq!(encoded(|out| simple(out, "")), "+\r\n");
        assert_eq!(encoded(|out| simple(out, "a\r\nb")), "+a  b\r\n");
        assert_eq!(
            encoded(|out| error(out, b"ERR unknown command 'a\r\n+b'")),
            "-ERR unknown command 'a  +b'\r\n"
        );
        assert_eq!(encoded(|out| bulk(out, b"")), "$0\r\n\r\n");
        assert_eq!(encoded(|out| bulk(out, b"hello\r\nworld")), "$12\r\nhello\r\nworld\r\n");
        assert_eq!(encoded(|out| null(out, Resp2)), "$-1\r\n");
        assert_eq!(encoded(|out| null(out, Resp3)), "_\r\n");
        assert_eq!(encoded(|out| array(out, 0)), "*0\r\n");
        assert_eq!(encoded(|out| array(out, 1024)), "*1024\r\n");
        assert_eq!(encoded(|out| map(out, 7, Resp2)), "*14\r\n");
        assert_eq!(encoded(|out| map(out, 7, Resp3)), "%7\r\n");
        assert_eq!(encoded(|out| push(out, 3, Resp2)), "*3\r\n");
        assert_eq!(encoded(|out| push(out, 3, Resp3)), ">3\r\n");
        assert_eq!(encoded(|out| array(out, usize::MAX)), format!("*{}\r\n", usize::MAX));
    }

    #[test]
    fn an_encoded_command_is_parsed_back_to_its_arguments() {
        let arguments: [&[u8]; 4] = [b"PUBLISH", b"", b"\r\n*1\r\n", &[0xff; 300]];
        let mut out = Vec::new();
        array(&mut out, arguments.len());
        arguments.iter().for_each(|argument| bulk(&mut out, argument));
        check(&out, command(&arguments), &CommandLimits::default());
    }
}
