//! HTTP/1.1 for a server: finds the head of a request and says why a request is refused.
//!
//! The module `head` reads a head, `body` finds the end of a body, `response` writes answers.
//! A request is served in three steps. [`find_head`] finds the blank line after the head,
//! [`parse`] reads the head, and [`BodyProgress::receive`] waits for the body. None of them
//! allocates.
//!
//! A request that two servers might read differently is refused, and its connection must close: the
//! next bytes could be a part of the body or another request. One leniency of the standard stays:
//! one empty line before a request line, because old browsers send it after a body.
//!
//! Sources: RFC 9110 (semantics) and RFC 9112 (HTTP/1.1).

mod body;
mod head;
mod response;

pub use body::BodyProgress;
pub use head::{BodyFraming, RequestHead, parse, split_authority};
pub use response::{Response, decimal, imf_fixdate, reason};

/// The limits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Maximum length of the request line and the header fields with the blank line, in bytes.
    pub bytes: usize,
    /// Maximum number of header fields, at most [`HEADERS_MAX`](crate::limits::HEADERS_MAX).
    pub headers: usize,
}

/// The reason why a request is refused. The next request's start is unknown, so the connection must
/// close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestError {
    /// The first line is no request line.
    RequestLine,
    /// A line ends with LF alone.
    BareLf,
    /// More than one empty line comes before the request line.
    EmptyLines,
    /// The target has a form or a byte that is not allowed.
    Target,
    /// The name of a field is empty, has a byte that is not allowed, or has white space around it.
    FieldName,
    /// The value of a field has a control character.
    FieldValue,
    /// A field that may be there only once is there twice.
    FieldTwice,
    /// Host is missing.
    NoHost,
    /// Host is no name or address with a port.
    Host,
    /// Content-Length is no number.
    ContentLength,
    /// Both Content-Length and Transfer-Encoding are there.
    TwoLengths,
    /// Transfer-Encoding is malformed, or chunked is not the last coding.
    TransferEncoding,
    /// Transfer-Encoding in HTTP/1.0.
    TransferEncodingOld,
    /// The size of a chunk is malformed, or its line is too long.
    ChunkLine,
    /// A chunk is not followed by CRLF.
    ChunkEnd,
    /// The chunk lines and trailers are much longer than the body.
    ChunkFraming,
    /// A trailer field is malformed, or says something that must be known before the body.
    Trailer,
    /// A request that has a body by its method does not say how long it is.
    LengthRequired,
    /// The body is longer than allowed.
    BodyTooLong,
    /// The request line is longer than the head may be.
    TargetTooLong,
    /// Expect is something else than 100-continue.
    Expectation,
    /// The head is too long.
    HeadTooLong,
    /// The head has too many fields.
    TooManyHeaders,
    /// Transfer-Encoding names a coding other than chunked.
    UnknownCoding,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl RequestError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            RequestError::LengthRequired => 411,
            RequestError::BodyTooLong => 413,
            RequestError::TargetTooLong => 414,
            RequestError::Expectation => 417,
            RequestError::HeadTooLong | RequestError::TooManyHeaders => 431,
            RequestError::UnknownCoding => 501,
            RequestError::Version => 505,
            _ => 400,
        }
    }

    /// What is wrong, and what is accepted. It has no quotes, so it fits a JSON string as it is.
    pub fn text(self) -> &'static str {
        match self {
            RequestError::RequestLine => {
                "malformed request line; expected a line such as GET / HTTP/1.1"
            }
            RequestError::BareLf => "a line of the head ends with LF alone; expected CRLF",
            RequestError::EmptyLines => "empty lines before the request line; accepted: one",
            RequestError::Target => {
                "malformed request target; expected a path such as /ws/news, with other bytes \
                 than ASCII percent-encoded"
            }
            RequestError::FieldName => {
                "malformed header field; expected Name: value, with no white space before the colon"
            }
            RequestError::FieldValue => {
                "control character in a header field; accepted: visible characters, blanks, tabs"
            }
            RequestError::FieldTwice => {
                "two header fields of a name that is accepted only once, such as Host, \
                 Content-Length, Origin or Authorization"
            }
            RequestError::NoHost => "no Host; expected a header field such as Host: localhost:9999",
            RequestError::Host => {
                "malformed host; expected a name or address such as localhost:9999 or [::1]:9999"
            }
            RequestError::ContentLength => "malformed Content-Length; expected digits only",
            RequestError::TwoLengths => {
                "both Content-Length and Transfer-Encoding; accepted: one of them"
            }
            RequestError::TransferEncoding => {
                "malformed Transfer-Encoding; accepted: chunked, once"
            }
            RequestError::TransferEncodingOld => {
                "Transfer-Encoding in HTTP/1.0; accepted: Content-Length"
            }
            RequestError::ChunkLine => {
                "malformed chunk; expected a line of hexadecimal digits that end with CRLF"
            }
            RequestError::ChunkEnd => {
                "chunk of another length than announced; expected CRLF after it"
            }
            RequestError::ChunkFraming => "chunks too small; expected five bytes or more in each",
            RequestError::Trailer => {
                "trailer field that is malformed or belongs before the body; send it as a header"
            }
            RequestError::LengthRequired => {
                "no length of the body; expected Content-Length or Transfer-Encoding: chunked"
            }
            RequestError::BodyTooLong => "body too long; accepted: up to --max-message bytes",
            RequestError::TargetTooLong => {
                "request line too long; accepted: up to --max-head bytes"
            }
            RequestError::Expectation => "unknown Expect; accepted: 100-continue",
            RequestError::HeadTooLong => {
                "request line and header fields too long; accepted: up to --max-head bytes"
            }
            RequestError::TooManyHeaders => "too many header fields; accepted: up to --max-headers",
            RequestError::UnknownCoding => "unknown transfer coding; accepted: chunked",
            RequestError::Version => "unsupported version; accepted: HTTP/1.1, HTTP/1.0",
        }
    }
}

/// Returns whether a line without its CRLF is a request line: `token SP target SP HTTP/d.d`. The
/// method may be any token, because a list of methods would leave the others to another protocol.
pub fn is_request_line(line: &[u8]) -> bool {
    let Some((rest, version)) = line.split_last_chunk::<9>() else { return false };
    let [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version else { return false };
    let Some(space) = memchr::memchr(b' ', rest) else { return false };
    let (method, target) = (&rest[..space], &rest[space + 1..]);
    major.is_ascii_digit()
        && minor.is_ascii_digit()
        && !method.is_empty()
        && method.iter().all(|&byte| is_token(byte))
        && !target.is_empty()
        && target.iter().all(|&byte| byte > b' ' && byte != 0x7f)
}

/// Finds the end of the head at the front of `input`. Returns its length with the blank line, or
/// `None` if it is incomplete. An earlier call has found the first `scanned` bytes incomplete. A
/// first line that is no request line is refused as soon as it ends, before the next line arrives.
pub fn find_head(
    input: &[u8],
    scanned: usize,
    limits: &HeadLimits,
) -> Result<Option<usize>, RequestError> {
    let within = &input[..input.len().min(limits.bytes)];
    // An empty line may precede the request line.
    let start = if within.starts_with(b"\r\n") { 2 } else { 0 };
    let mut from = scanned.min(within.len());
    // The search runs backwards, because the last line end is near.
    let has_no_line = |end: usize| memchr::memrchr(b'\n', &within[start.min(end)..end]).is_none();
    // Looked up once a line ends, so bytes that come one by one are not scanned each time.
    let mut is_first = None;
    while let Some(found) = memchr::memchr(b'\n', &within[from..]) {
        let end = from + found;
        if !within[..end].ends_with(b"\r") {
            return Err(RequestError::BareLf);
        }
        if *is_first.get_or_insert_with(|| has_no_line(from)) && end > start {
            let line = &within[start..end - 1];
            if !is_request_line(line) {
                let is_empty = line.is_empty();
                let error = RequestError::RequestLine;
                return Err(if is_empty { RequestError::EmptyLines } else { error });
            }
            is_first = Some(false);
        }
        if within[..end].ends_with(b"\r\n\r") {
            return Ok(Some(end + 1));
        }
        from = end + 1;
    }
    if within.len() < limits.bytes {
        return Ok(None);
    }
    let is_first = is_first.unwrap_or_else(|| has_no_line(from));
    Err(if is_first { RequestError::TargetTooLong } else { RequestError::HeadTooLong })
}

/// Returns whether a byte may be part of a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether a byte may be part of the value of a field: a visible one, a blank or a tab.
fn is_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Returns a value without the blanks and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::limits::HEADERS_MAX;

    const LIMITS: HeadLimits = HeadLimits { bytes: 200, headers: 4 };

    #[test]
    fn a_request_line_is_told_by_its_grammar() {
        for line in [
            "GET / HTTP/1.1",
            "post / HTTP/1.1",
            "PRI * HTTP/2.0",
            "M-SEARCH * HTTP/1.1",
            "GET http://host/ HTTP/0.9",
            "x y HTTP/9.9",
            "GET /\u{e9} HTTP/1.1",
        ] {
            assert!(is_request_line(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            "GET / HTTP/1.",
            "GET / HTTP/1.1 ",
            "GET / HTTP/11.1",
            "GET / http/1.1",
            "GET / RTSP/1.0",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET  HTTP/1.1",
            "GET HTTP/1.1",
            " GET / HTTP/1.1",
            " / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET /a b HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET /\t HTTP/1.1",
            "G(T / HTTP/1.1",
            "PUBLISH news HTTP",
            "SET a b",
            " HTTP/1.1",
        ] {
            assert!(!is_request_line(line.as_bytes()), "{line}");
        }
    }

    /// Finds a head in bytes that arrive whole, and one by one. Both must give the same.
    fn found(bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        let whole = find_head(bytes, 0, &LIMITS);
        let mut dripped = Ok(None);
        for length in 1..=bytes.len() {
            dripped = find_head(&bytes[..length], length - 1, &LIMITS);
            if dripped != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, dripped, "{}", bytes.escape_ascii());
        whole
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives() {
        assert_eq!(found(b"GET / HTTP/1.1\r\nA: b\r\n\r\n"), Ok(Some(24)));
        assert_eq!(found(b"GET / HTTP/1.1\r\n\r\nGET"), Ok(Some(18)));
        assert_eq!(found(b"\r\nGET / HTTP/1.1\r\n\r\n"), Ok(Some(20)));
        assert_eq!(found(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Err(RequestError::EmptyLines));
        assert_eq!(found(b"PUBLISH a 1\r\nGET"), Err(RequestError::RequestLine));
        assert_eq!(found(b"\r\nPUBLISH a 1\r\nGET"), Err(RequestError::RequestLine));
        assert_eq!(found(b"\r\n"), Ok(None));
        assert_eq!(found(b"PUBLISH a 1\r"), Ok(None));
        assert_eq!(found(b"GET / HTTP/1.1\r\nA: b\r\n\r"), Ok(None));
        assert_eq!(found(b"GET / HTTP/1.1\n"), Err(RequestError::BareLf));
        assert_eq!(found(b"GET / HTTP/1.1\r\n\n"), Err(RequestError::BareLf));
        assert_eq!(found(b"\n"), Err(RequestError::BareLf));
    }

    #[test]
    fn a_head_is_bounded_in_bytes_to_the_byte() {
        let head = |length: usize| {
            let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
            head.resize(length - 4, b'a');
            head.extend_from_slice(b"\r\n\r\n");
            head
        };
        assert_eq!(found(&head(199)), Ok(Some(199)));
        assert_eq!(found(&head(200)), Ok(Some(200)));
        assert_eq!(found(&head(201)), Err(RequestError::HeadTooLong));
        let line = |length: usize| {
            let mut line = b"\r\nGET /".to_vec();
            line.resize(length - 11, b'a');
            line.extend_from_slice(b" HTTP/1.1\r\n");
            line
        };
        assert_eq!(found(&line(199)), Ok(None));
        assert_eq!(found(&line(200)), Err(RequestError::HeadTooLong));
        assert_eq!(found(&line(201)), Err(RequestError::TargetTooLong));
        assert_eq!(found(&line(4000)), Err(RequestError::TargetTooLong));
        // A defect behind the limit does not change the answer.
        assert_eq!(found(&[&line(199)[..], b"a\n"].concat()), Err(RequestError::HeadTooLong));
    }

    /// Reads a head and returns its framing.
    fn framing(head: &str) -> Result<BodyFraming, RequestError> {
        let limits = HeadLimits { bytes: 4096, headers: 4 };
        let length = find_head(head.as_bytes(), 0, &limits)?.expect("a whole head");
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        parse(&head.as_bytes()[..length], &mut headers, &limits).map(|head| head.framing)
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let head = |fields: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "B: c\r\n".repeat(fields - 1))
        };
        assert_eq!(framing(&head(3)), Ok(BodyFraming::None));
        assert_eq!(framing(&head(4)), Ok(BodyFraming::None));
        assert_eq!(framing(&head(5)), Err(RequestError::TooManyHeaders));
    }
}
