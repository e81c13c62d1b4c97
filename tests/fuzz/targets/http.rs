//! HTTP requests, one after the other. They read alike at any cut of the bytes. A second reader,
//! which knows less and takes one line at a time, finds the same bodies in all that is accepted.

use std::mem::MaybeUninit;

use slabd::codec::http::{
    BodyFraming, BodyProgress, HeadLimits, RequestError, find_head, is_request_line, parse,
};
use slabd::limits::{CHUNK_FRAMING_SPARE, HEADERS_MAX};

/// Requests that were accepted, and the reason why no more follow. `None` if the rest is
/// incomplete.
type Outcome = (Vec<Request>, Option<RequestError>);

#[derive(Debug, PartialEq, Eq)]
struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    /// Length of the body with its framing.
    used: usize,
    framing: BodyFraming,
}

/// Runs the target. The first byte chooses the limits, and the other bytes are the stream.
pub fn http(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let (limits, max) = limits(*choice);
    let whole = read(stream, stream.len().max(1), &limits, max);
    for step in [1, 7, stream.len() / 2 + 1] {
        assert_eq!(read(stream, step, &limits, max), whole, "in pieces of {step}");
    }
    let mut at = 0;
    for request in &whole.0 {
        assert_eq!(stream[at..at + request.head.len()], request.head);
        check_head(request, &limits);
        at += request.head.len();
        check_body(request, &stream[at..at + request.used], max);
        at += request.used;
    }
}

/// Returns the usual limits, or very low ones.
fn limits(choice: u8) -> (HeadLimits, usize) {
    match choice % 4 {
        0 | 1 => (HeadLimits { bytes: 16 * 1024, headers: 100 }, 1 << 20),
        2 => (HeadLimits { bytes: 128, headers: 4 }, 16),
        _ => (HeadLimits { bytes: 64, headers: 1 }, 0),
    }
}

/// Reads requests from a stream that arrives in pieces of `step` bytes.
fn read(stream: &[u8], step: usize, limits: &HeadLimits, max: usize) -> Outcome {
    let (mut held, mut scanned, mut requests) = (Vec::new(), 0, Vec::new());
    let mut begun: Option<(usize, BodyFraming, BodyProgress)> = None;
    for piece in stream.chunks(step) {
        held.extend_from_slice(piece);
        loop {
            let (length, framing, progress) = match &mut begun {
                Some((length, framing, progress)) => (*length, *framing, progress),
                None => {
                    let length = match find_head(&held, scanned, limits) {
                        Ok(Some(length)) => length,
                        Ok(None) => break scanned = held.len(),
                        Err(error) => return (requests, Some(error)),
                    };
                    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
                    let framing = match parse(&held[..length], &mut fields, limits) {
                        Ok(head) => head.framing,
                        Err(error) => return (requests, Some(error)),
                    };
                    let begun = begun.insert((length, framing, BodyProgress::default()));
                    (length, framing, &mut begun.2)
                }
            };
            let (head, body) = held.split_at_mut(length);
            let head = head.to_vec();
            match progress.receive(framing, body, max) {
                Ok(Some((whole, used))) => {
                    let body = body[..whole].to_vec();
                    requests.push(Request { head, body, used, framing });
                    held.drain(..length + used);
                    (begun, scanned) = (None, 0);
                }
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// Checks that an accepted head can be read in one way only.
fn check_head(request: &Request, limits: &HeadLimits) {
    let head = &request.head;
    let shown = head.escape_ascii();
    assert!(head.len() <= limits.bytes, "{shown}");
    let text = head.strip_prefix(b"\r\n").unwrap_or(head);
    let text = text.strip_suffix(b"\r\n\r\n").expect("a blank line at the end");
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_plain = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        assert!(line.iter().all(is_plain), "control character: {shown}");
        line
    });
    assert_eq!(head.iter().filter(|byte| **byte == b'\r').count(), {
        head.windows(2).filter(|pair| pair == b"\r\n").count()
    });
    assert!(is_request_line(lines.next().unwrap_or_default()), "{shown}");
    let (mut lengths, mut codings, mut hosts, mut count) = (Vec::new(), Vec::new(), 0, 0);
    for line in lines {
        count += 1;
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic), "{shown}");
        match name.to_ascii_lowercase().as_slice() {
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value.to_ascii_lowercase()),
            b"host" => hosts += 1,
            _ => {}
        }
    }
    assert!(count <= limits.headers && hosts <= 1, "{shown}");
    let framing = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => BodyFraming::None,
        ([length], []) => {
            let length = std::str::from_utf8(length).expect("digits");
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{shown}");
            BodyFraming::Counted(length.parse().expect("a number"))
        }
        ([], [coding]) if coding == b"chunked" => BodyFraming::Chunked,
        _ => panic!("two lengths: {shown}"),
    };
    assert_eq!(request.framing, framing, "{shown}");
}

/// Checks an accepted body against what was sent.
fn check_body(request: &Request, sent: &[u8], max: usize) {
    assert!(request.body.len() <= max);
    match request.framing {
        BodyFraming::None => assert!(sent.is_empty()),
        BodyFraming::Counted(length) => {
            assert_eq!((sent.len() as u64, sent), (length, &request.body[..]));
        }
        BodyFraming::Chunked => {
            let shown = sent.escape_ascii();
            assert!(sent.len() <= 2 * request.body.len() + CHUNK_FRAMING_SPARE, "{shown}");
            assert_eq!(joined(sent).as_deref(), Some(&request.body[..]), "{shown}");
        }
    }
}

/// Joins the chunks of a body in the simplest way.
fn joined(mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = sent.windows(2).position(|pair| pair == b"\r\n")?;
        let digits = sent[..end].split(|&byte| byte == b';').next()?;
        assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit));
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        sent = &sent[end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(sent.get(..size)?);
        sent = sent[size..].strip_prefix(b"\r\n")?;
    }
    sent.ends_with(b"\r\n").then_some(body)
}
