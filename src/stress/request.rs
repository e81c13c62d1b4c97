//! An HTTP request, from the method, headers and body that the user gives.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::input;
use super::target::Target;

/// Maximum length of a request's body in bytes. Each connection may have a copy of it to send.
pub const BODY_MAX: usize = 16 << 20;

/// Maximum length of the given headers in bytes; servers accept 8 to 64 KiB.
pub const HEADERS_MAX: usize = 64 << 10;

/// Headers whose values a report may quote. Others may hold a secret.
const QUOTED: [&str; 8] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// The parts of an HTTP request that do not come from the target.
#[derive(Clone, Default)]
pub struct HttpRequest {
    method: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl HttpRequest {
    /// Checks the parts. A body that begins with `@` is the name of a file.
    pub fn new(
        method: Option<&str>,
        headers: &[String],
        body: Option<&str>,
    ) -> Result<HttpRequest, String> {
        if let Some(method) = method.filter(|method| !is_token(method)) {
            return Err(format!(
                "--method: '{}' is not a method; expected one, such as POST",
                method.escape_debug()
            ));
        }
        let headers: Vec<(String, String)> =
            headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
        let length: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        if length > HEADERS_MAX {
            return Err(format!(
                "--header: {length} bytes of headers are too many; accepted: up to {HEADERS_MAX} \
                 bytes"
            ));
        }
        let body = match body.map(|text| (text, text.strip_prefix('@'))) {
            None => None,
            Some((_, Some(file))) => Some(input::read("body", file.as_ref(), BODY_MAX as u64)?),
            Some((text, None)) if text.len() <= BODY_MAX => Some(text.as_bytes().to_vec()),
            Some((text, None)) => {
                return Err(format!(
                    "--body: {} bytes are too many; accepted: up to {BODY_MAX} bytes",
                    text.len()
                ));
            }
        };
        let request = HttpRequest { method: method.map(String::from), headers, body };
        request.check_length()?;
        Ok(request)
    }

    /// Fails if a given Content-Length is not that of the body.
    fn check_length(&self) -> Result<(), String> {
        let length = self.body.as_ref().map_or(0, Vec::len);
        match self.value("content-length") {
            Some(given) if given.parse() != Ok(length) => Err(format!(
                "--header: Content-Length is {given}, and the body has {length} bytes; leave it \
                 out, because slabd stress sets it"
            )),
            _ => Ok(()),
        }
    }

    /// Returns the method: GET, or POST if there is a body, unless one is given.
    pub fn method(&self) -> &str {
        let default = if self.body.is_some() { "POST" } else { "GET" };
        self.method.as_deref().unwrap_or(default)
    }

    /// True if a header of this name is given.
    pub fn has_header(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the whole request.
    pub fn bytes(&self, target: &Target) -> Vec<u8> {
        // RFC 9110, section 8.6: a method that expects a body has a length, be it 0.
        let expects = matches!(self.method(), "POST" | "PUT" | "PATCH");
        let body = self.body.as_deref().or(expects.then_some(&[]));
        let length = body.filter(|_| self.value("transfer-encoding").is_none());
        let mut bytes = self.head(target, self.method(), length.map(|body| body.len() as u64));
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    /// Returns the request for a stream of events.
    pub fn events(&self, target: &Target) -> Vec<u8> {
        let mut bytes = self.head(target, "GET", None);
        if !self.has_header("accept") {
            bytes.extend_from_slice(b"Accept: text/event-stream\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// Returns the request that publishes a message.
    pub fn publish(&self, target: &Target, message: &[u8]) -> Vec<u8> {
        let mut bytes = self.head(target, "POST", Some(message.len() as u64));
        if !self.has_header("content-type") {
            bytes.extend_from_slice(b"Content-Type: text/plain\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(message);
        bytes
    }

    /// Returns the head without the empty line at its end.
    pub fn head(&self, target: &Target, method: &str, length: Option<u64>) -> Vec<u8> {
        // RFC 9112, section 3.2.3: CONNECT names the host instead of a path.
        let path = if method == "CONNECT" { &target.host } else { &target.path };
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let mut add = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if self.value("host").is_none() {
            add("Host", target.authority());
        }
        if self.value("authorization").is_none()
            && (target.user.is_some() || target.password.is_some())
        {
            let user = target.user.as_deref().unwrap_or_default().as_bytes();
            let password = target.password.as_ref().map_or(&[][..], |secret| &secret.0);
            add(
                "Authorization",
                &format!("Basic {}", STANDARD.encode([user, b":", password].concat())),
            );
        }
        for (name, value) in &self.headers {
            // The body of a flood's request has another length.
            if !name.eq_ignore_ascii_case("content-length") {
                add(name, value);
            }
        }
        if let Some(length) = length {
            add("Content-Length", &length.to_string());
        }
        head.into_bytes()
    }

    /// Returns the given parts by the names of their flags, for the report. A value that may be a
    /// secret is left out.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut shown = Vec::new();
        shown.extend(self.method.clone().map(|method| ("method", method)));
        if !self.headers.is_empty() {
            let quote = |(name, value): &(String, String)| match QUOTED
                .contains(&name.to_ascii_lowercase().as_str())
            {
                true => format!("{name}: {value}"),
                false => format!("{name}: …"),
            };
            let quoted: Vec<String> = self.headers.iter().map(quote).collect();
            shown.push(("header", quoted.join(", ")));
        }
        shown.extend(self.body.as_ref().map(|body| ("body", format!("{} bytes", body.len()))));
        shown
    }
}

/// Leaves the values of the headers and the body out.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parameters()).finish()
    }
}

/// Splits `NAME: VALUE`. The error never quotes the value.
fn header(text: &str) -> Result<(String, String), String> {
    let example = "expected NAME: VALUE, such as 'Accept: text/html'";
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("--header: there is no colon; {example}"))?;
    if !is_token(name) {
        return Err(format!(
            "--header: '{}' is not the name of a header; {example}",
            name.escape_debug()
        ));
    }
    let value = value.trim_matches([' ', '\t']);
    match value.chars().all(|c| c == '\t' || !c.is_control()) {
        true => Ok((name.into(), value.into())),
        false => Err(format!(
            "--header: the value of {name} contains a control character; expected one line of text"
        )),
    }
}

/// True for the name of a header or a method: RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Option<&str>, headers: &[&str], body: Option<&str>) -> HttpRequest {
        try_request(method, headers, body).unwrap()
    }

    fn try_request(
        method: Option<&str>,
        headers: &[&str],
        body: Option<&str>,
    ) -> Result<HttpRequest, String> {
        let headers: Vec<String> = headers.iter().map(|text| text.to_string()).collect();
        HttpRequest::new(method, &headers, body)
    }

    fn sent(target: &str, request: &HttpRequest) -> String {
        String::from_utf8(request.bytes(&Target::parse(target).unwrap())).unwrap()
    }

    #[test]
    fn a_request_has_the_right_host_length_and_authorization() {
        let plain = HttpRequest::default();
        for (target, expected) in [
            ("http://127.0.0.1/x?y#z", "GET /x?y HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            ("http://127.0.0.1:81", "GET / HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n"),
            ("http://[::1]:80", "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"),
            ("http://[::1]:8080?q", "GET /?q HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"),
            (
                "http://Aladdin:open%20sesame@127.0.0.1/",
                "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                 Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
            ),
        ] {
            assert_eq!(sent(target, &plain), expected, "{target}");
        }
        for (request, expected) in [
            (
                request(None, &["X-A: b ", "x-empty:"], Some("hello")),
                "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\r\nx-empty: \r\n\
                 Content-Length: 5\r\n\r\nhello",
            ),
            (
                request(Some("PUT"), &["host: a.b", "Content-Length: 0"], None),
                "PUT / HTTP/1.1\r\nhost: a.b\r\nContent-Length: 0\r\n\r\n",
            ),
            (request(Some("HEAD"), &[], None), "HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            (
                request(Some("CONNECT"), &[], None),
                "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            ),
            (
                request(None, &["Transfer-Encoding: chunked"], Some("0\r\n\r\n")),
                "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
        ] {
            assert_eq!(sent("http://127.0.0.1", &request), expected);
        }
        let own = request(None, &["Authorization: Bearer x"], None);
        assert!(!sent("http://a:b@127.0.0.1", &own).contains("Basic"), "the given one wins");
    }

    #[test]
    fn a_publish_has_one_content_type() {
        let target = Target::parse("http://127.0.0.1/a").unwrap();
        for (headers, expected) in [
            (&[][..], "Content-Length: 1\r\nContent-Type: text/plain\r\n\r\nx"),
            (&["content-type: a/b"], "content-type: a/b\r\nContent-Length: 1\r\n\r\nx"),
        ] {
            let bytes = request(None, headers, None).publish(&target, b"x");
            let text = String::from_utf8(bytes).unwrap();
            let expected = format!("POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\n{expected}");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_part_that_would_break_the_request_is_refused() {
        for (method, header, body, why) in [
            (Some(""), "a: b", None, "--method: '' is not a method; expected one, such as POST"),
            (Some("GET /"), "a: b", None, "--method: 'GET /' is not"),
            (Some("G\r\nX"), "a: b", None, "--method: 'G\\r\\nX' is not"),
            (None, "", None, "--header: there is no colon; expected NAME: VALUE, such as"),
            (None, "a", None, "no colon"),
            (None, ": b", None, "--header: '' is not the name"),
            (None, "a b: c", None, "'a b' is not the name of a header"),
            (None, "a\r\nb: c", None, "'a\\r\\nb' is not the name of a header"),
            (None, "a: b\r\nX: secret", None, "the value of a contains a control character"),
            (None, "a: b\nsecret", None, "control character"),
            (None, "a: secret\0", None, "control character"),
            (None, "a: secret\x7f", None, "control character"),
            (None, "Content-Length: 4", Some("hello"), "the body has 5 bytes; leave it out"),
            (None, "Content-Length: x", Some("hello"), "the body has 5 bytes"),
            (None, "a: b", Some("@/nonexistent"), "--body: cannot read /nonexistent"),
            (
                None,
                "a: b",
                Some("@/dev/zero"),
                "--body: cannot read /dev/zero: it is a character device",
            ),
            (None, "a: b", Some("@"), "--body: the file has no name"),
        ] {
            let error = try_request(method, &[header], body).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{header:?}: {error}");
        }
        for (length, is_accepted) in
            [(HEADERS_MAX - 1, true), (HEADERS_MAX, true), (HEADERS_MAX + 1, false)]
        {
            let header = format!("a: {}", "x".repeat(length - 5));
            assert_eq!(try_request(None, &[&header], None).is_ok(), is_accepted, "{length}");
        }
        for (length, is_accepted) in [(BODY_MAX - 1, true), (BODY_MAX, true), (BODY_MAX + 1, false)]
        {
            let body = "x".repeat(length);
            assert_eq!(try_request(None, &[], Some(&body)).is_ok(), is_accepted, "{length}");
        }
    }

    #[test]
    fn a_report_leaves_the_values_of_unknown_headers_out() {
        let request =
            request(Some("PUT"), &["Accept: a/b", "X-Api-Key: k3y", "COOKIE: k3y"], Some("k3y"));
        let shown = format!("{:?}{:?}", request.parameters(), request);
        assert!(shown.contains("Accept: a/b, X-Api-Key: …, COOKIE: …"), "{shown}");
        assert!(shown.contains("3 bytes") && !shown.contains("k3y"), "{shown}");
    }
}
