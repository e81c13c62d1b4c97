//! Writes the heads and bodies of answers.

use crate::calendar::civil;
use crate::limits::COUNT_LINE_MAX;

/// An answer to a request. The date comes from [`imf_fixdate`], once a second.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: u16,
    /// The type of the body; empty for no such field.
    pub content_type: &'a str,
    /// The version of the request: HTTP/1.`minor`.
    pub minor: u8,
    /// False if the connection closes after the answer.
    pub keep_alive: bool,
    pub date: &'a [u8; 29],
    /// Further fields. Names and values have no line breaks.
    pub extra: &'a [(&'a str, &'a str)],
}

impl Response<'_> {
    /// Appends an answer with its body. An answer to HEAD has `head_only` and tells the length of
    /// the body that GET would give.
    pub fn write(&self, out: &mut Vec<u8>, body: &[u8], head_only: bool) {
        out.reserve(256 + body.len());
        self.begin(out);
        // These have no body by definition, and must not have a length (RFC 9110, 8.6).
        let has_length = self.status >= 200 && self.status != 204 && self.status != 304;
        if has_length {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, body.len());
            out.extend_from_slice(b"\r\n");
        }
        self.end(out);
        if has_length && !head_only {
            out.extend_from_slice(body);
        }
    }

    /// Appends the head of an answer up to the value of its last field, Content-Length.
    pub fn write_head_to_length(&self, out: &mut Vec<u8>) {
        self.begin(out);
        self.end(out);
        out.truncate(out.len() - 2);
        out.extend_from_slice(b"Content-Length: ");
    }

    /// Appends the head of an answer whose body ends with the connection, such as events.
    pub fn write_stream_head(&self, out: &mut Vec<u8>) {
        debug_assert!(!self.keep_alive, "only the end of the connection ends such a body");
        self.begin(out);
        self.end(out);
    }

    /// Appends `101 Switching Protocols`; `extra` has the fields of the handshake.
    pub fn write_upgrade(&self, out: &mut Vec<u8>, protocol: &str) {
        debug_assert!(self.status == 101 && self.content_type.is_empty());
        self.begin(out);
        field(out, "Upgrade", protocol);
        field(out, "Connection", "Upgrade");
        for (name, value) in self.extra {
            field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the status line and the fields before Content-Length.
    fn begin(&self, out: &mut Vec<u8>) {
        if self.status == 200 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\nServer: slabd\r\nDate: ");
        } else {
            out.extend_from_slice(b"HTTP/1.1 ");
            decimal(out, self.status as usize);
            out.push(b' ');
            out.extend_from_slice(reason(self.status).as_bytes());
            out.extend_from_slice(b"\r\nServer: slabd\r\nDate: ");
        }
        out.extend_from_slice(self.date);
        out.extend_from_slice(b"\r\n");
        if !self.content_type.is_empty() {
            field(out, "Content-Type", self.content_type);
        }
    }

    /// Appends the fields after Content-Length, and the blank line.
    fn end(&self, out: &mut Vec<u8>) {
        for (name, value) in self.extra {
            field(out, name, value);
        }
        match (self.keep_alive, self.minor) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!name.contains(['\r', '\n']) && !value.contains(['\r', '\n']));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; COUNT_LINE_MAX];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// Returns the reason phrase of a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// Formats a time, in seconds since 1970, as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
/// Years after 9999 do not fit and wrap around.
pub fn imf_fixdate(seconds: u64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = (days % 7) as usize * 3;
    let month = (month - 1) as usize * 3;
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    text[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    let year = year % 10_000;
    for (at, number) in [
        (5, day),
        (12, year / 100),
        (14, year % 100),
        (17, second / 3600),
        (20, second / 60 % 60),
        (23, second % 60),
    ] {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    const ANSWER: Response<'_> = Response {
        status: 200,
        content_type: "application/json",
        minor: 1,
        keep_alive: true,
        date: DATE,
        extra: &[],
    };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_its_length_and_whether_the_connection_stays() {
        let common = "Server: slabd\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let whole = format!(
            "HTTP/1.1 200 OK\r\n{common}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        );
        assert_eq!(written(|out| ANSWER.write(out, b"{}", true)), whole);
        assert_eq!(written(|out| ANSWER.write(out, b"{}", false)), whole.clone() + "{}");
        let refused = Response {
            status: 405,
            keep_alive: false,
            content_type: "",
            extra: &[("Allow", "GET, HEAD")],
            ..ANSWER
        };
        assert_eq!(
            written(|out| refused.write(out, b"", false)),
            format!(
                "HTTP/1.1 405 Method Not Allowed\r\n{common}Content-Length: 0\r\n\
                 Allow: GET, HEAD\r\nConnection: close\r\n\r\n"
            )
        );
        let old = written(|out| Response { minor: 0, ..ANSWER }.write(out, b"", false));
        assert!(old.contains("\r\nConnection: keep-alive\r\n"), "{old}");
    }

    #[test]
    fn answers_without_a_body_have_no_length() {
        let none = written(|out| Response { status: 204, ..ANSWER }.write(out, b"x", false));
        assert!(!none.contains("Length") && none.ends_with("\r\n\r\n"), "{none}");
        let events = Response { keep_alive: false, content_type: "text/event-stream", ..ANSWER };
        let events = written(|out| events.write_stream_head(out));
        assert!(!events.contains("Length") && events.contains("Connection: close\r\n"), "{events}");
        let upgrade = Response {
            status: 101,
            content_type: "",
            extra: &[("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            ..ANSWER
        };
        let upgrade = written(|out| upgrade.write_upgrade(out, "websocket"));
        assert!(upgrade.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{upgrade}");
        assert!(
            upgrade.ends_with(
                "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            ),
            "{upgrade}"
        );
    }

    #[test]
    fn a_date_is_written_as_http_writes_it() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_704_067_199, "Sun, 31 Dec 2023 23:59:59 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX / 2, ""),
        ] {
            let date = imf_fixdate(seconds);
            let date = std::str::from_utf8(&date).unwrap();
            assert!(text.is_empty() || date == text, "{seconds}: {date}");
        }
    }
}
