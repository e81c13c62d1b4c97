//! What a connection speaks is told from its bytes: a stream of the hub is taken for RESP, inline commands or HTTP, message by message,
//! and however it was cut. An HTTP request is answered 501 and ends the stream, and nothing behind its first line is carried out.

use slabd::clock::Time;
use slabd::hub::Hub;
use slabd::limits::UNTRUSTED_INPUT_MAX;
use slabd::service::{ConnectionId, Options, Reply, Secret, Service, Taken};

use super::no_server::NoServer;

const NOT_IMPLEMENTED: &[u8] = b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Where a password is due, what is left of the longest inline command for the first line of a stream.
const FIRST_LINE_MAX: usize = 64;

/// What became of one message.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    start: usize,
    /// Where it ended; `None`: it was the last, and all that had come was taken with it.
    end: Option<usize>,
    answer: Vec<u8>,
}

/// The first byte is how long the pieces of the stream are, the others are the stream. It is served three times: with the usual limits;
/// with those of a peer that owes the password; and so behind as many spaces as leave its first line little room.
pub fn sniff(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    check(stream, 0, piece, false);
    check(stream, 0, piece, true);
    let spaces = [b' '; UNTRUSTED_INPUT_MAX - FIRST_LINE_MAX];
    let steps = check(&[&spaces, stream].concat(), spaces.len(), piece, true);
    let line = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let length = line.strip_suffix(b"\r").unwrap_or(line).len();
    let is_refused =
        steps.first().is_some_and(|step| step.answer == b"-ERR Protocol error: too big inline request\r\n");
    assert_eq!(is_refused, length > FIRST_LINE_MAX, "{}", stream.escape_ascii());
}

/// Serves a stream whole, and behind its first bytes in pieces, and looks for requests among its messages.
fn check(stream: &[u8], first: usize, piece: usize, password: bool) -> Vec<Step> {
    let whole = serve(stream, first, stream.len().max(1), password);
    let shown = || stream.escape_ascii();
    assert_eq!(whole, serve(stream, first, piece, password), "in pieces of {piece}: {}", shown());
    for Step { start, end, answer } in &whole {
        // A message that is no line, and what is no message, is no request either.
        let rest = &stream[*start..];
        let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest, |end| &rest[..=end]);
        let is_request = is_request(line);
        assert_eq!(is_request, answer == NOT_IMPLEMENTED, "{} at {start}", shown());
        assert!(!is_request || end.is_none(), "{} goes on behind {end:?}", shown());
    }
    whole
}

/// What the hub makes of a stream that arrives in pieces of this length, as the loop would have it served.
fn serve(stream: &[u8], first: usize, piece: usize, password: bool) -> Vec<Step> {
    let password = password.then(|| Secret(b"pw"[..].into()));
    let (mut hub, mut server) = (Hub::new(&Options { password, ..Options::default() }), NoServer::default());
    let mut greeting = Vec::new();
    let reply = Reply::to(ConnectionId(0), Time::ZERO, &mut greeting);
    hub.connected(&mut reply.from(([127, 0, 0, 1], 1000).into()));
    assert!(greeting.is_empty());
    let (mut steps, mut start, mut scanned) = (Vec::new(), 0, 0);
    let ends = (first + 1..=stream.len()).filter(|end| (end - first).is_multiple_of(piece) || *end == stream.len());
    for arrived in ends {
        // The loop asks for no message where there are no bytes.
        while start < arrived {
            let (mut input, mut answer) = (stream[start..arrived].to_vec(), Vec::new());
            let mut reply = Reply::to(ConnectionId(0), Time::ZERO, &mut answer);
            match hub.receive(&mut input, scanned, &mut reply, &mut server) {
                Taken::Message(length) => {
                    assert!((1..=input.len()).contains(&length), "{length} of {}", input.len());
                    assert_eq!(input[length..], stream[start + length..arrived], "what is behind a message stays");
                    let closes = reply.closes_for().is_some();
                    steps.push(Step { start, end: (!closes).then_some(start + length), answer });
                    if closes {
                        return steps;
                    }
                    (start, scanned) = (start + length, 0);
                }
                Taken::Incomplete => {
                    assert!(answer.is_empty() && input == stream[start..arrived], "half a message changes nothing");
                    scanned = arrived - start;
                    break;
                }
                Taken::Later => panic!("nothing is undelivered: {}", stream.escape_ascii()),
            }
        }
    }
    let mut rest = stream[start..].to_vec();
    let mut answer = Vec::new();
    let mut reply = Reply::to(ConnectionId(0), Time::ZERO, &mut answer);
    assert!(!hub.ended(&mut rest, &mut reply) && reply.is_empty(), "the end of a stream completes no command");
    steps
}

/// Whether a message is the first line of an HTTP/1 request, with its ending.
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

/// A target may have bytes that are no text: what is around it must be.
fn is_request_with_odd_target(message: &[u8]) -> bool {
    let text: Vec<u8> = message.iter().map(|byte| if byte.is_ascii() { *byte } else { b'x' }).collect();
    text.is_ascii() && is_request(&text)
}
