//! What a connection speaks is told from its bytes: a stream of the hub is taken for RESP, inline commands or HTTP, message by message,
//! and however it was cut. An HTTP request is answered 501 and ends the stream, and nothing behind its first line is carried out.

use slabd::codec::resp::CommandLimits;
use slabd::codec::{FramingLimits, Invalid};
use slabd::service::hub::Hub;
use slabd::service::{Options, Reply, Service, Taken};

use super::no_server::NoServer;

const NOT_IMPLEMENTED: &[u8] = b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const LIMITS: CommandLimits = CommandLimits { arguments_max: 16, bytes_max: 256, inline_max: 64 };

/// One message: where it ended, and what was answered.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Answered { end: usize, answer: Vec<u8>, closes: bool },
    Invalid(Invalid),
}

/// The first byte is how long the pieces of the stream are, the others are the stream.
pub fn sniff(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = serve(stream, stream.len().max(1));
    let shown = || stream.escape_ascii();
    assert_eq!(whole, serve(stream, usize::from(*piece).max(1)), "in pieces of {piece}: {}", shown());
    let mut start = 0;
    for step in &whole {
        let Step::Answered { end, answer, closes } = step else { break };
        let is_request = is_request(&stream[start..*end]);
        assert_eq!(is_request, answer == NOT_IMPLEMENTED, "{} at {start}", shown());
        assert!(!is_request || *closes, "{} goes on behind {end}", shown());
        start = *end;
    }
}

/// What the hub makes of a stream that arrives in pieces of this length, as the loop would have it served.
fn serve(stream: &[u8], piece: usize) -> Vec<Step> {
    let limits = FramingLimits { line_max: 64, commands: LIMITS };
    let mut hub = Hub::new(&Options::default());
    hub.connected(&mut Reply::new(0, &mut Vec::new()).from(([127, 0, 0, 1], 1000).into()));
    let (mut steps, mut used, mut scanned) = (Vec::new(), 0, 0);
    let ends = (1..=stream.len()).filter(|end| end % piece == 0 || *end == stream.len());
    for arrived in ends {
        loop {
            let mut answer = Vec::new();
            let mut reply = Reply::new(0, &mut answer);
            match hub.take(&stream[used..arrived], scanned, &limits, &mut reply) {
                Taken::Message { length } => {
                    if reply.wants_consultation() {
                        hub.consult(&mut NoServer, &mut reply);
                    }
                    let closes = reply.closes_for().is_some();
                    (used, scanned) = (used + length, 0);
                    steps.push(Step::Answered { end: used, answer, closes });
                    if closes {
                        return steps;
                    }
                }
                Taken::Incomplete => break scanned = arrived - used,
                Taken::Invalid(invalid) => {
                    steps.push(Step::Invalid(invalid));
                    return steps;
                }
            }
        }
    }
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
