//! The hub recognises RESP, inline commands and HTTP by the bytes of each message, at any cut of
//! the stream. It answers an HTTP request with 501 and ends the stream. It does not execute
//! anything after the request's first line.

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
/// password, and with these after many spaces, which leave the first line little room.
pub fn sniff(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    check(stream, 0, piece, false);
    check(stream, 0, piece, true);
    let spaces = [b' '; UNTRUSTED_INPUT_MAX - FIRST_LINE_MAX];
    let steps = check(&[&spaces, stream].concat(), spaces.len(), piece, true);
    let line = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let length = line.strip_suffix(b"\r").unwrap_or(line).len();
    let is_refused = steps
        .first()
        .is_some_and(|step| step.answer == b"-ERR Protocol error: too big inline request\r\n");
    assert_eq!(is_refused, length > FIRST_LINE_MAX, "{}", stream.escape_ascii());
}

/// Serves a stream whole and, after its first bytes, in pieces. Both must give the same steps.
/// Checks which of the messages are HTTP requests.
fn check(stream: &[u8], first: usize, piece: usize, password: bool) -> Vec<Step> {
    let whole = serve(stream, first, stream.len().max(1), password);
    let shown = || stream.escape_ascii();
    assert_eq!(whole, serve(stream, first, piece, password), "in pieces of {piece}: {}", shown());
    for Step { start, end, answer } in &whole {
        // Only a message that is a line can be a request.
        let rest = &stream[*start..];
        let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest, |end| &rest[..=end]);
        let is_request = is_request(line);
        assert_eq!(is_request, answer == NOT_IMPLEMENTED, "{} at {start}", shown());
        assert!(!is_request || end.is_none(), "{} goes on after {end:?}", shown());
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

/// True if a message is the first line of an HTTP/1 request, with its line break.
fn is_request(message: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(message.strip_suffix(b"\n").unwrap_or(message)) else {
        return is_request_with_odd_target(message);
    };
    let line = line.strip_suffix('\r').unwrap_or(line);
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else { return false };
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let minor = version.strip_prefix("HTTP/1.").unwrap_or_default().as_bytes();
    known.contains(&method) && !target.is_empty() && minor.len() == 1 && minor[0].is_ascii_digit()
}

/// True if a message is a request line whose target is not UTF-8.
fn is_request_with_odd_target(message: &[u8]) -> bool {
    let text: Vec<u8> =
        message.iter().map(|byte| if byte.is_ascii() { *byte } else { b'x' }).collect();
    text.is_ascii() && is_request(&text)
}
