//! The hub recognises RESP, inline commands and other protocols by the bytes of each message, at
//! any cut of the stream. A line that is no command ends the stream if no command ran before it,
//! and so does a control character in any line. The hub executes nothing behind it.

use slabd::clock::Time;
use slabd::hub::Hub;
use slabd::limits::UNTRUSTED_INPUT_MAX;
use slabd::service::{ConnectionId, Options, Reply, Secret, Service, Taken};

use super::no_server::NoServer;

const NOT_IMPLEMENTED: &[u8] =
    b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Bytes that the spaces leave for the first line, within the limit before the password.
const FIRST_LINE_MAX: usize = 64;

/// The result of one message.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    start: usize,
    /// The end of the message. `None` if the message closed the connection.
    end: Option<usize>,
    answer: Vec<u8>,
}

/// Runs the target. The first byte is the length of the pieces, and the other bytes are the stream.
/// The hub serves the stream three times: with the usual limits, with the limits before the
/// password, and with these after many spaces, which leave the line little room.
pub fn sniff(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    check(stream, 0, piece, false);
    check(stream, 0, piece, true);
    // A command runs first, because blanks before it are bounded.
    let spaces =
        [b"*1\r\n$4\r\nQUIX\r\n".as_slice(), &[b' '; UNTRUSTED_INPUT_MAX - FIRST_LINE_MAX]];
    let spaces = spaces.concat();
    let steps = check(&[&spaces, stream].concat(), spaces.len(), piece, true);
    let line = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_too_long =
        |step: &Step| step.answer == b"-ERR Protocol error: too big inline request\r\n";
    if line.len() <= FIRST_LINE_MAX {
        assert!(!steps.get(1).is_some_and(is_too_long), "{}", stream.escape_ascii());
    } else {
        assert!(steps.get(1).is_some_and(|step| step.end.is_none()), "{}", stream.escape_ascii());
    }
}

/// Serves a stream whole and, after its first bytes, in pieces. Both must give the same steps.
/// Checks which of the messages are HTTP requests.
fn check(stream: &[u8], first: usize, piece: usize, password: bool) -> Vec<Step> {
    let whole = serve(stream, first, stream.len().max(1), password);
    let shown = || stream.escape_ascii();
    assert_eq!(whole, serve(stream, first, piece, password), "in pieces of {piece}: {}", shown());
    let mut has_run = false;
    for Step { start, end, answer } in &whole {
        let rest = &stream[*start..];
        let blanks = if has_run { 0 } else { blank_lines(rest) };
        let rest = &rest[blanks..];
        let is_error = answer.starts_with(b"-");
        if rest.starts_with(b"*") {
            // An array may hold any command. Even one that fails ends the guard.
            has_run |= !answer.starts_with(b"-ERR unknown command");
            continue;
        }
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let has_control = line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        let must_close = has_control || (!has_run && (is_foreign(line) || (is_error && !password)));
        assert!(!must_close || end.is_none(), "{} goes on behind {start}", shown());
        if answer == NOT_IMPLEMENTED {
            assert!(end.is_none() && names_http(line), "{} at {start}", shown());
        }
        has_run |= !is_error;
    }
    whole
}

/// Serves a stream that arrives in pieces of this length, as the loop does. Returns the steps.
fn serve(stream: &[u8], first: usize, piece: usize, password: bool) -> Vec<Step> {
    let password = password.then(|| Secret(b"pw"[..].into()));
    let (mut hub, mut server) =
        (Hub::new(&Options { password, ..Options::default() }), NoServer::default());
    let mut greeting = Vec::new();
    let reply = Reply::to(ConnectionId(0), Time::ZERO, &mut greeting);
    hub.connected(&mut reply.from(([127, 0, 0, 1], 1000).into()));
    assert!(greeting.is_empty());
    let (mut steps, mut start, mut scanned) = (Vec::new(), 0, 0);
    let ends = (first + 1..=stream.len())
        .filter(|end| (end - first).is_multiple_of(piece) || *end == stream.len());
    for arrived in ends {
        // The loop does not call the service without bytes.
        while start < arrived {
            let (mut input, mut answer) = (stream[start..arrived].to_vec(), Vec::new());
            let mut reply = Reply::to(ConnectionId(0), Time::ZERO, &mut answer);
            match hub.receive(&mut input, scanned, &mut reply, &mut server) {
                Taken::Message(length) => {
                    assert!((1..=input.len()).contains(&length), "{length} of {}", input.len());
                    assert_eq!(
                        input[length..],
                        stream[start + length..arrived],
                        "the bytes after a message change"
                    );
                    let closes = reply.closes_for().is_some();
                    steps.push(Step { start, end: (!closes).then_some(start + length), answer });
                    if closes {
                        return steps;
                    }
                    (start, scanned) = (start + length, 0);
                }
                Taken::Skip(length) => {
                    (start, scanned) = (start + length, 0);
                }
                Taken::Part(length) => {
                    // A long command of pub/sub is served in slices.
                    assert!(length < input.len(), "{length} of {}", input.len());
                    (start, scanned) = (start + length, 0);
                }
                Taken::Incomplete => {
                    assert!(
                        answer.is_empty() && input == stream[start..arrived],
                        "a part of a message changes something"
                    );
                    scanned = arrived - start;
                    break;
                }
                Taken::Later => {
                    panic!("a command waits, but nothing is undelivered: {}", stream.escape_ascii())
                }
            }
        }
    }
    let mut rest = stream[start..].to_vec();
    let mut answer = Vec::new();
    let mut reply = Reply::to(ConnectionId(0), Time::ZERO, &mut answer);
    assert!(
        !hub.ended(&mut rest, &mut reply) && reply.is_empty(),
        "the end of the stream completes a command"
    );
    steps
}

/// Returns the length of the blank lines at the front.
fn blank_lines(stream: &[u8]) -> usize {
    let run = stream.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
    stream[..run].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// True if no command looks like this line, whatever the hub's commands are.
fn is_foreign(line: &[u8]) -> bool {
    let word = line.trim_ascii().split(|byte| matches!(byte, b' ' | b'\t')).next();
    let word = word.unwrap_or_default();
    let is_quoted = word.iter().any(|byte| matches!(byte, b'"' | b'\''));
    names_http(line) || (!is_quoted && !word.iter().all(u8::is_ascii_alphabetic))
}

/// True if the last word of a line is a version of HTTP and not its only word.
fn names_http(line: &[u8]) -> bool {
    let mut words = line.trim_ascii().rsplit(|byte| matches!(byte, b' ' | b'\t'));
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/")).unwrap_or_default();
    let numbers: Vec<&[u8]> = version.split(|byte| *byte == b'.').collect();
    let are_numbers = |number: &&[u8]| !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    words.next().is_some() && numbers.len() == 2 && numbers.iter().all(are_numbers)
}
