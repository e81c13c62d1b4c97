//! Reads the head of a request: request line, fields, and how the body is framed.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use httparse::{Header, Status};

use super::{HeadLimits, RequestError, is_token, trim};

/// The head of a request. All texts lie in the bytes that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// Any token; methods are case-sensitive.
    pub method: &'a str,
    /// The path with its query, `*` for OPTIONS, or `host:port` for CONNECT. It is ASCII, still
    /// percent-encoded, and has no fragment.
    pub target: &'a str,
    /// The version is HTTP/1.`minor`: 0 or 1.
    pub minor: u8,
    /// False if the client closes the connection after the answer, or expects the server to.
    pub keep_alive: bool,
    /// True if the client sends the body only after an answer of 100.
    pub expects_continue: bool,
    pub framing: BodyFraming,
    /// The host of an absolute target, else of the field Host, with the port if there is one. It is
    /// well-formed. Empty only in HTTP/1.0.
    pub host: &'a str,
    pub headers: &'a [Header<'a>],
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Counted(u64),
    /// The body is chunked.
    Chunked,
}

/// Reads a head, with its blank line, that [`find_head`](super::find_head) found: its first line is
/// a request line, and each line ends with CRLF. `headers` is room for its fields.
pub fn parse<'a>(
    bytes: &'a [u8],
    headers: &'a mut [MaybeUninit<Header<'a>>],
    limits: &HeadLimits,
) -> Result<RequestHead<'a>, RequestError> {
    let room = limits.headers.min(headers.len());
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut headers[..room]);
    match parsed {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(RequestError::RequestLine),
        Err(error) => return Err(refusal(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(RequestError::RequestLine);
    };
    let headers: &[Header<'_>] = request.headers;
    let (target, authority) = split_target(method, target)?;
    let fields = Fields::read(headers, minor)?;
    let framing = fields.framing(minor)?;
    if framing == BodyFraming::None && matches!(method, "POST" | "PUT" | "PATCH") {
        return Err(RequestError::LengthRequired);
    }
    Ok(RequestHead {
        method,
        target,
        minor,
        keep_alive: !fields.close && (minor == 1 || fields.keep_alive),
        expects_continue: fields.expects_continue,
        framing,
        host: authority.unwrap_or(fields.host.unwrap_or("")),
        headers,
    })
}

/// Says what an error of the parser means.
fn refusal(error: httparse::Error) -> RequestError {
    match error {
        httparse::Error::HeaderName => RequestError::FieldName,
        httparse::Error::HeaderValue => RequestError::FieldValue,
        httparse::Error::TooManyHeaders => RequestError::TooManyHeaders,
        httparse::Error::Version => RequestError::Version,
        _ => RequestError::RequestLine,
    }
}

/// Returns the path and the query of a target, and the host that an absolute target names.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(&'a str, Option<&'a str>), RequestError> {
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(RequestError::Target);
    }
    if method == "CONNECT" {
        return match split_authority(target) {
            Some((_, Some(_))) => Ok((target, Some(target))),
            _ => Err(RequestError::Target),
        };
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((target, None));
    }
    let (scheme, rest) = target.split_once("://").ok_or(RequestError::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(RequestError::Target);
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A query behind an empty path ends up here too: its question mark is in no host.
    split_authority(authority).ok_or(RequestError::Target)?;
    let path = match (path, method) {
        ("", "OPTIONS") => "*",
        ("", _) => "/",
        _ => path,
    };
    Ok((path, Some(authority)))
}

/// Splits `host[:port]` and checks both: the host is a name of letters, digits, `-`, `.`, `_` and
/// `~`, or an IPv6 address in brackets, which are part of it. An empty port is none.
///
/// The standard allows more characters in a name. No client needs them, and an allow-list that
/// other servers read differently is worth nothing.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            authority.split_at(address.len() + 2)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if host.is_empty() || (!host.starts_with('[') && !host.bytes().all(is_name)) {
        return None;
    }
    match port.strip_prefix(':') {
        None => port.is_empty().then_some((host, None)),
        Some("") => Some((host, None)),
        // `parse` alone would take a sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// The fields that decide how the connection and the body go on.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    /// Codings as far as they were read; `None` without Transfer-Encoding.
    codings: Option<Codings>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    /// A bit for each field of [`ONCE`] that was seen.
    seen: u8,
}

#[derive(Clone, Copy, Default)]
struct Codings {
    chunked: bool,
    unknown: bool,
}

/// Fields that decide about access, or on which a handshake stands. Two of them may mean different
/// things to two programs.
const ONCE: [&str; 5] =
    ["origin", "authorization", "sec-fetch-site", "sec-websocket-key", "sec-websocket-version"];

impl<'a> Fields<'a> {
    fn read(headers: &[Header<'a>], minor: u8) -> Result<Fields<'a>, RequestError> {
        let mut fields = Fields::default();
        for Header { name, value } in headers {
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            // Most fields are told apart by their length alone.
            match name.len() {
                4 if is("host") => {
                    let host = std::str::from_utf8(value).map_err(|_| RequestError::Host)?;
                    split_authority(host).ok_or(RequestError::Host)?;
                    set_once(&mut fields.host, host)?;
                }
                6 if is("expect") && minor == 1 => {
                    for element in value.split(|&byte| byte == b',').map(trim) {
                        if !element.eq_ignore_ascii_case(b"100-continue") {
                            return Err(RequestError::Expectation);
                        }
                    }
                    fields.expects_continue = true;
                }
                10 if is("connection") => {
                    for element in value.split(|&byte| byte == b',').map(trim) {
                        fields.close |= element.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if is("content-length") => {
                    set_once(&mut fields.length, content_length(value)?)?;
                }
                17 if is("transfer-encoding") => {
                    fields.codings.get_or_insert_default().read(value)?;
                }
                6 | 13 | 14 | 17 | 21 => fields.mark(name)?,
                _ => {}
            }
        }
        if fields.host.is_none() && minor == 1 {
            return Err(RequestError::NoHost);
        }
        Ok(fields)
    }

    /// Notes one of the fields that may be there only once.
    fn mark(&mut self, name: &str) -> Result<(), RequestError> {
        if let Some(at) = ONCE.iter().position(|once| name.eq_ignore_ascii_case(once)) {
            if self.seen & (1 << at) != 0 {
                return Err(RequestError::FieldTwice);
            }
            self.seen |= 1 << at;
        }
        Ok(())
    }

    fn framing(&self, minor: u8) -> Result<BodyFraming, RequestError> {
        match (self.codings, self.length) {
            (None, None) => Ok(BodyFraming::None),
            (None, Some(length)) => Ok(BodyFraming::Counted(length)),
            (Some(_), Some(_)) => Err(RequestError::TwoLengths),
            (Some(_), None) if minor == 0 => Err(RequestError::TransferEncodingOld),
            (Some(Codings { unknown: true, .. }), None) => Err(RequestError::UnknownCoding),
            (Some(Codings { chunked: true, .. }), None) => Ok(BodyFraming::Chunked),
            (Some(_), None) => Err(RequestError::TransferEncoding),
        }
    }
}

impl Codings {
    /// Reads one line of Transfer-Encoding, which may be one of several.
    fn read(&mut self, value: &[u8]) -> Result<(), RequestError> {
        for coding in value.split(|&byte| byte == b',').map(trim) {
            let is_token = !coding.is_empty() && coding.iter().all(|&byte| is_token(byte));
            if !is_token || self.chunked {
                return Err(RequestError::TransferEncoding);
            }
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            *self = Codings { chunked: is_chunked, unknown: self.unknown || !is_chunked };
        }
        Ok(())
    }
}

fn set_once<T>(field: &mut Option<T>, value: T) -> Result<(), RequestError> {
    match field.replace(value) {
        Some(_) => Err(RequestError::FieldTwice),
        None => Ok(()),
    }
}

/// Reads Content-Length: digits alone. A list, a sign, and a number of more than 64 bits are
/// refused.
fn content_length(value: &[u8]) -> Result<u64, RequestError> {
    let mut length = 0_u64;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
            .filter(|_| digit <= 9)
            .ok_or(RequestError::ContentLength)?;
    }
    if value.is_empty() { Err(RequestError::ContentLength) } else { Ok(length) }
}

impl<'a> RequestHead<'a> {
    /// Returns the value of the first field of this name, without the white space around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Returns whether a field of this name, which may have several lines, lists a token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|element| trim(element).eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns whether the client asks for another protocol, such as `websocket`. HTTP/1.0 has no
    /// upgrades.
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        self.minor == 1
            && self.has_token("connection", "upgrade")
            && self.has_token("upgrade", protocol)
    }

    /// Returns the values of all fields of this name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let headers: &'a [Header<'a>] = self.headers;
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::find_head;
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, headers: 32 };

    /// Reads a head and passes it to `look`.
    fn read<T>(text: &str, look: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, RequestError> {
        let length = find_head(text.as_bytes(), 0, &LIMITS)?.expect("a whole head");
        assert_eq!(length, text.len());
        let mut headers = [const { MaybeUninit::uninit() }; 32];
        parse(text.as_bytes(), &mut headers, &LIMITS).map(|head| look(&head))
    }

    fn with(line: &str, fields: &str) -> String {
        format!("{line}\r\nHost: a:1\r\n{fields}\r\n")
    }

    #[test]
    fn a_head_says_what_is_asked_for() {
        let text = "\r\nPOST /publish/a?b=%20 HTTP/1.1\r\nhOsT: [::1]:9999\r\n\
                    Content-Length: 5\r\nX: \t y z \t\r\nx: 2\r\nEmpty:\r\n\r\n";
        read(text, |head| {
            assert_eq!(head.method, "POST");
            assert_eq!(head.target, "/publish/a?b=%20");
            assert_eq!(head.minor, 1);
            assert!(head.keep_alive && !head.expects_continue);
            assert_eq!(head.framing, BodyFraming::Counted(5));
            assert_eq!(head.host, "[::1]:9999");
            assert_eq!(head.header("x"), Some(&b"y z"[..]));
            assert_eq!(head.values("X").count(), 2);
            assert_eq!(head.header("empty"), Some(&b""[..]));
            assert_eq!(head.header("y"), None);
        })
        .unwrap();
    }

    #[test]
    fn a_body_has_one_length() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        ] {
            let text = with("POST / HTTP/1.1", fields);
            assert_eq!(read(&text, |_| ()), Err(RequestError::TwoLengths), "{fields}");
        }
    }

    #[test]
    fn the_client_says_whether_the_connection_stays() {
        for (line, fields, stays) in [
            ("GET / HTTP/1.1", "", true),
            ("GET / HTTP/1.1", "Connection: close\r\n", false),
            ("GET / HTTP/1.1", "Connection: x,\tClose\r\n", false),
            ("GET / HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("GET / HTTP/1.1", "Connection: closed\r\n", true),
            ("GET / HTTP/1.0", "", false),
            ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            assert_eq!(read(&with(line, fields), |head| head.keep_alive), Ok(stays), "{fields}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_names_a_host() {
        for (line, expected) in [
            ("GET /a?b HTTP/1.1", Ok(("/a?b", "a:1"))),
            ("GET //a HTTP/1.1", Ok(("//a", "a:1"))),
            ("GET HTTP://b/c?d HTTP/1.1", Ok(("/c?d", "b"))),
            ("GET https://b:2 HTTP/1.1", Ok(("/", "b:2"))),
            ("OPTIONS http://b HTTP/1.1", Ok(("*", "b"))),
            ("OPTIONS * HTTP/1.1", Ok(("*", "a:1"))),
            ("OPTIONS /a HTTP/1.1", Ok(("/a", "a:1"))),
            ("CONNECT b:2 HTTP/1.1", Ok(("b:2", "b:2"))),
            ("CONNECT b HTTP/1.1", Err(RequestError::Target)),
            ("CONNECT /b HTTP/1.1", Err(RequestError::Target)),
            ("GET * HTTP/1.1", Err(RequestError::Target)),
            ("GET b:2 HTTP/1.1", Err(RequestError::Target)),
            ("GET a HTTP/1.1", Err(RequestError::Target)),
            ("GET http://b?c HTTP/1.1", Err(RequestError::Target)),
            ("GET http:///c HTTP/1.1", Err(RequestError::Target)),
            ("GET http://u@b/ HTTP/1.1", Err(RequestError::Target)),
            ("GET ftp://b/ HTTP/1.1", Err(RequestError::Target)),
            ("GET /a#b HTTP/1.1", Err(RequestError::Target)),
            ("GET /\u{e9} HTTP/1.1", Err(RequestError::Target)),
        ] {
            let text = with(line, "");
            let mut seen = None;
            let outcome = read(&text, |head| {
                seen = Some((head.target.to_string(), head.host.to_string()));
            });
            let seen = seen.as_ref().map(|(target, host)| (target.as_str(), host.as_str()));
            assert_eq!(outcome.map(|()| seen.unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists_over_several_lines() {
        let text = with(
            "GET /ws HTTP/1.1",
            "connection: keep-alive\r\nConnection:\tx ,\tUPGRADE\t, y\r\n\
             Upgrade: h2c, WebSocket\r\n",
        );
        read(&text, |head| {
            assert!(head.has_token("Connection", "upgrade"));
            assert!(head.has_token("CONNECTION", "Keep-Alive"));
            assert!(!head.has_token("connection", "upgrad"));
            assert!(!head.has_token("connection", ""));
            assert!(head.upgrades_to("websocket") && head.upgrades_to("h2c"));
            assert!(!head.upgrades_to("web"));
        })
        .unwrap();
        let old = text.replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(read(&old, |head| head.upgrades_to("websocket")), Ok(false));
        let alone = with("GET /ws HTTP/1.1", "Upgrade: websocket\r\n");
        assert_eq!(read(&alone, |head| head.upgrades_to("websocket")), Ok(false));
    }

    #[test]
    fn an_expectation_is_to_be_known() {
        let expects =
            |line: &str, fields: &str| read(&with(line, fields), |head| head.expects_continue);
        let line = "GET / HTTP/1.1";
        assert_eq!(expects(line, "Expect: 100-Continue\r\n"), Ok(true));
        assert_eq!(expects(line, ""), Ok(false));
        assert_eq!(expects(line, "Expect: x\r\n"), Err(RequestError::Expectation));
        assert_eq!(expects(line, "Expect:\r\n"), Err(RequestError::Expectation));
        let two = "Expect: 100-continue, x\r\n";
        assert_eq!(expects(line, two), Err(RequestError::Expectation));
        assert_eq!(expects("GET / HTTP/1.0", "Expect: x\r\n"), Ok(false));
    }

    #[test]
    fn an_authority_is_a_name_or_an_address() {
        for (authority, expected) in [
            ("a", Some(("a", None))),
            ("a.b-c_d~e.", Some(("a.b-c_d~e.", None))),
            ("a:", Some(("a", None))),
            ("a:0", Some(("a", Some(0)))),
            ("a:65535", Some(("a", Some(65_535)))),
            ("a:65536", None),
            ("a:+1", None),
            ("a:-1", None),
            ("a:1a", None),
            ("a:1:2", None),
            ("a:1 ", None),
            ("", None),
            (":1", None),
            ("a b", None),
            ("a,b", None),
            ("u@a", None),
            ("a/b", None),
            ("a%41", None),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:1", Some(("[::1]", Some(1)))),
            ("[::ffff:1.2.3.4]:", Some(("[::ffff:1.2.3.4]", None))),
            ("[::1", None),
            ("::1", None),
            ("[::1]1", None),
            ("[::1]]", None),
            ("[fe80::1%eth0]", None),
            ("[1.2.3.4]", None),
            ("[]", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(split_authority(authority), expected, "{authority}");
        }
    }
}
