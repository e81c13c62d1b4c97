//! RESP, the protocol of Redis: splits a stream into commands, and a command into arguments. The
//! module `reply` writes replies.
//!
//! Parsing is sans-IO and has two steps. [`frame`] finds the end of the first command and examines
//! no byte after it. [`Parser::parse`] then finds the arguments of that command.
//! [`Parser::parse_multibulk`] takes both steps in one pass, for the commands that client libraries
//! send. Only the parser's two vectors live between calls, so one parser serves every connection,
//! and an incomplete command costs no more than its bytes.
//!
//! Sources: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, and `networking.c` and
//! `sds.c` of Redis 7 for inline commands, limits and error texts.

mod reply;

use super::line;
use crate::limits::{COUNT_LINE_MAX, UNTRUSTED_ARGUMENTS_MAX, UNTRUSTED_INPUT_MAX};
use reply::without_line_break;

pub use reply::{Protocol, array, bulk, error, integer, map, null, push, pushed, simple, verbatim};

/// Maximum length of a command in bytes. Ranges are stored as two `u32` to save half of their
/// memory.
const ADDRESSABLE_MAX: usize = u32::MAX as usize;

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
}

impl Default for CommandLimits {
    fn default() -> Self {
        CommandLimits {
            // Enough for a SUBSCRIBE of 1,023 channels. Redis allows 2^31, for its keyspace
            // commands.
            arguments_max: 1024,
            // The limit of a connection's pending output: no subscriber could get a longer message.
            bytes_max: 1024 * 1024,
            // Redis's PROTO_INLINE_MAX_SIZE.
            inline_max: 64 * 1024,
        }
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
    /// The number of arguments is malformed or over the limit. The words of an inline command have
    /// the same limit.
    MultibulkLength,
    /// The length of an argument is malformed, negative, over the limit, or not followed by CRLF
    /// after that many bytes. Redis does not check the CRLF; the check finds clients that miscount.
    BulkLength,
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
}

impl FrameError {
    /// Appends the error text of Redis, without the `-ERR ` before it and the CRLF after it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text: &[u8] = match self {
            FrameError::MultibulkLength => b"Protocol error: invalid multibulk length",
            FrameError::BulkLength => b"Protocol error: invalid bulk length",
            FrameError::ExpectedDollar(_) => b"Protocol error: expected '$', got '",
            FrameError::InlineTooBig => b"Protocol error: too big inline request",
            FrameError::MultibulkCountTooBig => b"Protocol error: too big mbulk count string",
            FrameError::BulkCountTooBig => b"Protocol error: too big bulk count string",
            FrameError::UnbalancedQuotes => b"Protocol error: unbalanced quotes in request",
        };
        out.extend_from_slice(text);
        if let FrameError::ExpectedDollar(got) = self {
            out.extend_from_slice(&[without_line_break(*got), b'\'']);
        }
    }
}

/// Finds the command at the front of `bytes`. The caller knows that the first `scanned` bytes
/// contain no LF, so an inline command is not scanned twice. A multibulk command is walked from its
/// start, from one announced length to the next. The way in which a stream was cut into segments
/// does not change the commands and errors found in it.
pub fn frame<'a>(bytes: &'a [u8], scanned: usize, limits: &CommandLimits) -> Frame<'a> {
    if bytes.first() == Some(&b'*') {
        return match walk_multibulk(bytes, limits, |_, _| ()) {
            Ok(Some(length)) => Frame::Command { message: &bytes[..length], length },
            Ok(None) => Frame::Incomplete,
            Err(error) => Frame::Invalid(error),
        };
    }
    match line::decode(bytes, scanned.min(bytes.len()), limits.inline_max.min(ADDRESSABLE_MAX)) {
        line::Decoded::Line { line, length } => Frame::Command { message: line, length },
        line::Decoded::Incomplete => Frame::Incomplete,
        line::Decoded::TooLong => Frame::Invalid(FrameError::InlineTooBig),
    }
}

/// Returns the length of the multibulk command at the front of `bytes`, or `None` if it is
/// incomplete. Calls `each` with the start and end of each argument.
#[inline]
fn walk_multibulk(
    bytes: &[u8],
    limits: &CommandLimits,
    mut each: impl FnMut(u32, u32),
) -> Result<Option<usize>, FrameError> {
    let Some((count, mut at)) = multibulk_count(bytes)? else { return Ok(None) };
    if count > limits.arguments_max as u64 {
        return Err(FrameError::MultibulkLength);
    }
    for _ in 0..count {
        let found = bulk_range(bytes, at, limits.bytes_max.min(ADDRESSABLE_MAX))?;
        let Some((start, end)) = found else { return Ok(None) };
        each(start as u32, end as u32);
        at = end + 2;
    }
    Ok(Some(at))
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
    let end_line = end_line.ok_or(FrameError::BulkLength)?;
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
        self.ranges.clear();
        let ranges = &mut self.ranges;
        let length = walk_multibulk(bytes, limits, |start, end| ranges.push((start, end)))?;
        Ok(length.map(|length| (Command { source: bytes, ranges: &self.ranges }, length)))
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

    /// Splits an inline command like Redis's `sdssplitargs`, with two differences: NUL is an
    /// ordinary byte, and the number of words is limited.
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
                return Err(FrameError::MultibulkLength);
            }
            let start = self.unquoted.len();
            rest = unquote_argument(rest, &mut self.unquoted)?;
            self.ranges.push((start as u32, self.unquoted.len() as u32));
        }
    }
}

/// Appends the argument at the front of `rest`, and returns the bytes after it. A quote may open
/// within a word. The argument ends where the quote closes.
fn unquote_argument<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], FrameError> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                let behind = unquote(*quote, quoted, out)?;
                return if behind.first().is_none_or(|next| is_space(*next)) {
                    Ok(behind)
                } else {
                    Err(FrameError::UnbalancedQuotes)
                };
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

/// Appends the bytes up to the closing `quote`, and returns the bytes after it. Within single
/// quotes the only escape is `\'`.
fn unquote<'a>(quote: u8, mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], FrameError> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(FrameError::UnbalancedQuotes),
            [byte, behind @ ..] if *byte == quote => return Ok(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [b'\\', b'x', high, low, behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) << 4 | hex_value(*low), behind)
            }
            [b'\\', escaped, behind @ ..] if quote == b'"' => (unescape(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        out.push(byte);
        rest = behind;
    }
}

/// Returns the byte that an escape stands for.
fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// Returns the value of an ASCII hex digit.
fn hex_value(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { (digit | 0x20) - b'a' + 10 }
}

/// Returns true for the spaces of C's `isspace`. Unlike `is_ascii_whitespace`, it includes the
/// vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The arguments of a command, its name first. It has no `Debug`, because one may be a password.
#[derive(Clone, Copy)]
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

    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone {
        self.ranges.iter().map(move |(start, end)| &self.source[*start as usize..*end as usize])
    }
}

/// Returns true if a line without its ending is an HTTP/1 request line: method, target and version,
/// separated by single spaces (RFC 9112, section 3). A web page can make a browser send a request
/// anywhere, with commands in its body.
pub fn is_http_request_line(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    parts.next().is_none()
        && method.is_some_and(|method| METHODS.contains(&method))
        && target.is_some_and(|target| !target.is_empty())
        && matches!(version, Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9']))
}

#[cfg(test)]
mod tests {
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
            (b" \t\x0b\x0c ", &[]),
            (b"PING", &[b"PING"]),
            (b"  PING\t a  b ", &[b"PING", b"a", b"b"]),
            (b"a *1 $2", &[b"a", b"*1", b"$2"]),
            (b" *1", &[b"*1"]),
            (b"a\0b \xff", &[b"a\0b", b"\xff"]),
            (b"a\x0bb", &[b"a\x0bb"]),
            (b"a\rb", &[b"a", b"b"]),
            (b"\"\" ''", &[b"", b""]),
            (b"\"hello world\" 'a b'", &[b"hello world", b"a b"]),
            (b"\"a'b\" 'a\"b'", &[b"a'b", b"a\"b"]),
            (b"\"\\n\\r\\t\\b\\a\\\\\\\"\\q\"", &[b"\n\r\t\x08\x07\\\"q"]),
            (b"\"\\x00\\xfF\\xAg\\x4\\x\"", &[b"\0\xffxAgx4x"]),
            (b"'\\n\\x41\\'\\\\ '", &[b"\\n\\x41'\\\\ "]),
            (b"foo\"bar baz\" x'y z'", &[b"foobar baz", b"xy z"]),
            (b"\"a\"\x0b'b'\x0c", &[b"a", b"b"]),
            (b"a\\n \\\"b\"", &[b"a\\n", b"\\b"]),
        ];
        for (line, expected) in cases {
            for ending in [&b"\n"[..], b"\r\n"] {
                check(&[line, ending].concat(), command(expected), &CommandLimits::default());
            }
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
        FrameError::UnbalancedQuotes.write(&mut text);
        assert_eq!(text, b"Protocol error: unbalanced quotes in request");
    }

    #[test]
    fn an_inline_command_with_one_word_too_many_is_refused() {
        for limits in [CommandLimits::default(), CommandLimits::UNTRUSTED] {
            let most = limits.arguments_max;
            for (words, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
                let line = format!(" {}\r\n", " \"a\"".repeat(words)).into_bytes();
                let expected = match fits {
                    true => command(&vec![&b"a"[..]; words]),
                    false => Step::Refused(FrameError::MultibulkLength),
                };
                assert_eq!(steps([&line[..]], &limits), [expected]);
            }
        }
        assert_eq!(CommandLimits::default().arguments_max, 1024);
        assert_eq!(CommandLimits::default().bytes_max, 1 << 20);
    }

    #[test]
    fn a_multibulk_command_beyond_the_default_limits_is_refused() {
        let limits = CommandLimits::default();
        for (count, fits) in [(1023, true), (1024, true), (1025, false)] {
            let stream = [format!("*{count}\r\n"), "$1\r\na\r\n".repeat(count)].concat();
            let framed = frame(stream.as_bytes(), 0, &limits);
            assert_eq!(matches!(framed, Frame::Command { .. }), fits, "{count}");
            assert_eq!(framed == Frame::Invalid(FrameError::MultibulkLength), !fits);
        }
        // `*1`, the length and the line breaks are 16 bytes.
        for (length, fits) in
            [((1 << 20) - 17, true), ((1 << 20) - 16, true), ((1 << 20) - 15, false)]
        {
            let announced = format!("*1\r\n${length}\r\n");
            let expected =
                if fits { Frame::Incomplete } else { Frame::Invalid(FrameError::BulkLength) };
            assert_eq!(frame(announced.as_bytes(), 0, &limits), expected, "{length}");
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
            (b"*9223372036854775807\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*9223372036854775808\r\n", FrameError::MultibulkLength, "invalid multibulk length"),
            (b"*1\r\nx", FrameError::ExpectedDollar(b'x'), "expected '$', got 'x'"),
            (b"*1\r\n\r", FrameError::ExpectedDollar(b'\r'), "expected '$', got ' '"),
            (b"*1\r\n\xff", FrameError::ExpectedDollar(0xff), "expected '$', got '\u{fffd}'"),
            (b"*2\r\n$1\r\na\r\n*", FrameError::ExpectedDollar(b'*'), "expected '$', got '*'"),
            (b"*1\r\n$\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$-1\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$x\r\n", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$4\rx", FrameError::BulkLength, "invalid bulk length"),
            (b"*1\r\n$9223372036854775807\r\n", FrameError::BulkLength, "invalid bulk length"),
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
            error.write(&mut written);
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
            let expected =
                if fits { command(&arguments) } else { Step::Invalid(FrameError::MultibulkLength) };
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
                    false => check(&head, Step::Invalid(FrameError::BulkLength), &limits),
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
        check(b"*1\r\n$9223372036854775807\r\n", Step::Invalid(FrameError::BulkLength), &limits);
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
            let mut stream = seeds[random.usize(..seeds.len())].to_vec();
            for _ in 0..random.usize(1..6) {
                let (at, byte) =
                    (random.usize(..stream.len()), ALPHABET[random.usize(..ALPHABET.len())]);
                match random.u8(..4) {
                    0 => stream[at] = byte,
                    1 => stream.insert(at, byte),
                    2 if stream.len() > 1 => drop(stream.remove(at)),
                    _ => stream.extend_from_within(random.usize(..=at)..=at),
                }
            }
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

    #[test]
    fn only_an_http_request_line_is_recognized_as_one() {
        for method in
            ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
        {
            assert!(is_http_request_line(format!("{method} / HTTP/1.1").as_bytes()), "{method}");
        }
        assert!(is_http_request_line(b"GET /a?b=c HTTP/1.0"));
        assert!(is_http_request_line(b"OPTIONS * HTTP/1.1"));
        for line in [
            "",
            "GET",
            "GET ",
            "GET /",
            "GET / ",
            "GET key",
            "GET  HTTP/1.1",
            "GET / HTTP/1.",
            "GET / HTTP/1.1 ",
            "GET / HTTP/2.0",
            "GET / HTTP/1.x",
            "GET / HTTP/1.10",
            "GET / http/1.1",
            "get / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "SET / HTTP/1.1",
            "PRI * HTTP/2.0",
            "PUBLISH a HTTP/1.1",
            "PING",
        ] {
            assert!(!is_http_request_line(line.as_bytes()), "{line}");
        }
    }
}
