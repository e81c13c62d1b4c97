//! Inline commands, as people type them, and the guard of a connection's first line.
//!
//! A browser, a mail server or a proxy can be made to connect here and to send a request of its own
//! protocol, with commands of the hub behind the first line. So a connection closes at its first
//! message if that comes as a line and is no command: nothing behind it is looked at. The guard
//! holds until a command has run. A command as an array (`*`) needs no guard, because no other
//! protocol begins like that.

use super::{RespState, commands};
use crate::codec::resp::{self, Command, CommandLimits, Frame, FrameError, Parser};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::limits::{FIRST_WORD_MAX, LEADING_BLANKS_MAX};
use crate::service::Reply;

/// The response to a malformed request line, or to a request behind a command.
const HTTP_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: application/json\r\nContent-Length: 85\r\n\r\n\
    {\"error\":\"malformed request line, or a request on a connection of Redis's protocol\"}\n";

/// The reason why a connection is closed for its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    Frame(FrameError),
    /// The first message is no command.
    NotACommand,
    /// Too many blank lines precede the first command.
    TooManyBlanks,
    /// An HTTP request.
    Http,
}

impl From<FrameError> for InputError {
    fn from(error: FrameError) -> InputError {
        InputError::Frame(error)
    }
}

impl InputError {
    /// Sends the error and closes the connection.
    pub fn send(self, limits: &CommandLimits, reply: &mut Reply<'_>) {
        reply.close_for(Reason::ProtocolError);
        let mut text = b"ERR ".to_vec();
        match self {
            InputError::Http => return reply.send(HTTP_REFUSED),
            InputError::Frame(error) => error.write(limits, &mut text),
            InputError::NotACommand => text.extend_from_slice(
                b"Protocol error: the first line is no command; expected one, such as PING",
            ),
            InputError::TooManyBlanks => text.extend_from_slice(
                format!(
                    "Protocol error: too many blanks before the first command; accepted: up to \
                     {LEADING_BLANKS_MAX} bytes"
                )
                .as_bytes(),
            ),
        }
        resp::error(reply.bytes_mut(), &text);
    }
}

/// Returns the length of the blank lines at the front of a connection's input. They are no message.
/// The result is above [`LEADING_BLANKS_MAX`] if there are too many.
pub fn leading_blanks(input: &[u8]) -> usize {
    let (mut end, mut at) = (0, 0);
    while at <= LEADING_BLANKS_MAX {
        match input.get(at) {
            Some(b' ' | b'\t') => at += 1,
            Some(b'\r') if input.get(at + 1) == Some(&b'\n') => at += 1,
            Some(b'\n') => {
                at += 1;
                end = at;
            }
            _ => break,
        }
    }
    end
}

/// Takes the inline command at the front of `input`. Returns the command and its length in bytes,
/// or `None` if it is incomplete. The result does not depend on how the stream was cut.
pub fn take<'a>(
    parser: &'a mut Parser,
    input: &'a [u8],
    scanned: usize,
    limits: &CommandLimits,
    is_first: bool,
) -> Result<Option<(Command<'a>, usize)>, InputError> {
    if is_first && !may_begin_a_line(&input[..input.len().min(limits.inline_max)]) {
        return Err(InputError::NotACommand);
    }
    let (message, length) = match resp::frame(input, scanned, limits) {
        Frame::Incomplete => return Ok(None),
        Frame::Invalid(error) => return Err(error.into()),
        Frame::Command { message, length } => (message, length),
    };
    let version = protocol_version(message);
    let refusal = match version {
        Some(version) if version.starts_with(b"HTTP/") => InputError::Http,
        _ => InputError::NotACommand,
    };
    if is_first && version.is_some() {
        return Err(refusal);
    }
    let words = parser.parse(message, limits)?;
    if is_first && words.is_empty() {
        return Err(InputError::TooManyBlanks);
    }
    if version.is_some() && !words.is_empty() && !commands::accepts(words) {
        return Err(refusal);
    }
    Ok(Some((words, length)))
}

/// Judges the reply to a connection's first inline command, which has run. An error closes the
/// connection. Before the password, an error to a real command only leaves the guard in place: no
/// command that matters runs until the password is given.
pub fn judge_first(
    shared: &mut Shared,
    session: SessionId,
    words: Command<'_>,
    reply: &mut Reply<'_>,
    waits: bool,
) {
    let failed = reply.bytes().first() == Some(&b'-');
    if failed && (shared.is_authenticated(session) || !commands::accepts(words)) {
        reply.close_for(Reason::ProtocolError);
    }
    if failed || waits {
        RespState::forget_command(shared, session);
    }
}

/// Returns false if no command's name, and no method of HTTP, begins like `line`. A word in quotes
/// is judged with its line.
fn may_begin_a_line(line: &[u8]) -> bool {
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let word = &line[start..];
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let end = word.iter().position(|byte| !is_letter(byte)).unwrap_or(word.len());
    // Control characters have an error of their own.
    let may_follow = |byte: &u8| matches!(byte, b' ' | b'"' | b'\'') || byte.is_ascii_control();
    end <= FIRST_WORD_MAX && word.get(end).is_none_or(may_follow)
}

/// Returns the last word of a line if it names a version of a protocol, as in `HTTP/1.1` or
/// `SIP/2.0`, and is not the only word. The request lines of many protocols end like this, and some
/// begin with a word that is a command here, such as SUBSCRIBE of SIP.
pub fn protocol_version(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let start = line.iter().rposition(|byte| matches!(byte, b' ' | b'\t'))? + 1;
    let version = &line[start..];
    let slash = version.iter().position(|byte| *byte == b'/')?;
    let (name, number) = (&version[..slash], &version[slash + 1..]);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let point = number.iter().position(|byte| *byte == b'.')?;
    let is_version = !name.is_empty()
        && name.iter().all(u8::is_ascii_uppercase)
        && is_number(&number[..point])
        && is_number(&number[point + 1..]);
    is_version.then_some(version)
}
