//! The requests of each scheme, and the search for the end of an answer; sans-IO.

use super::target::{Scheme, Target};
use crate::codec::resp;

/// Longest answer in bytes. A longer one counts as a wrong answer.
pub const ANSWER_MAX: usize = 64 << 20;

/// The form of requests and answers.
#[derive(Clone, Debug)]
pub struct Wire {
    form: Form,
    /// Bytes to send first on each connection, such as AUTH.
    prelude: Vec<u8>,
    /// Number of answers to the prelude.
    pub prelude_answers: u32,
    /// Requests for a full pipeline, back to back.
    batch: Vec<u8>,
    request_length: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// The answer has the bytes of the request.
    Echo,
    /// The answer is one line.
    Line,
    Resp,
    Http,
}

/// The answer at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole {
        length: usize,
        /// True for an error reply, or a status of 400 or more.
        is_error: bool,
        /// True if the server closes the connection after the answer.
        is_last: bool,
    },
    /// The answer cannot be complete with fewer than `needs` bytes.
    Incomplete { needs: usize },
    /// The bytes break the protocol or do not answer the request.
    Wrong,
}

const fn whole(length: usize) -> Answer {
    Answer::Whole { length, is_error: false, is_last: false }
}

impl Wire {
    /// Returns the form for a target: requests with a payload of `size` bytes, or `send` unchanged.
    /// At most `pipeline` requests are sent at once.
    pub fn new(target: &Target, size: usize, pipeline: usize, send: Option<&[u8]>) -> Wire {
        let payload = payload(size);
        let (form, request) = match (target.scheme, send) {
            (Scheme::Tcp | Scheme::Udp, None) => {
                (Form::Echo, [&payload[..payload.len() - 1], b"\n"].concat())
            }
            (Scheme::Tcp | Scheme::Udp, Some(line)) => (Form::Line, line.to_vec()),
            (Scheme::Resp, Some(line)) => (Form::Resp, line.to_vec()),
            // Without a payload, this is the request of redis-benchmark.
            (Scheme::Resp, None) if size <= 4 => (Form::Resp, command(&[b"PING"])),
            (Scheme::Resp, None) => (Form::Resp, command(&[b"PING", &payload])),
            (Scheme::Http, Some(request)) => (Form::Http, request.to_vec()),
            (Scheme::Http, None) => (
                Form::Http,
                format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", target.path, target.host)
                    .into_bytes(),
            ),
        };
        let mut prelude = Vec::new();
        if let Some(password) = &target.password {
            prelude = match &target.user {
                Some(user) => command(&[b"AUTH", user.as_bytes(), &password.0]),
                None => command(&[b"AUTH", &password.0]),
            };
        }
        let prelude_answers = u32::from(!prelude.is_empty());
        Wire {
            form,
            prelude,
            prelude_answers,
            request_length: request.len(),
            batch: request.repeat(pipeline.max(1)),
        }
    }

    /// Returns the bytes to send first on each connection; empty if there are none.
    pub fn prelude(&self) -> &[u8] {
        &self.prelude
    }

    /// Returns the bytes of `count` requests, at most those of a full pipeline.
    pub fn requests(&self, count: usize) -> &[u8] {
        debug_assert!(count * self.request_length <= self.batch.len(), "{count} requests at once");
        &self.batch[..(count * self.request_length).min(self.batch.len())]
    }

    /// Returns the bytes of one request.
    pub fn request(&self) -> &[u8] {
        &self.batch[..self.request_length]
    }

    /// Finds the answer at the front of the received bytes.
    pub fn answer(&self, bytes: &[u8]) -> Answer {
        if bytes.is_empty() {
            return Answer::Incomplete { needs: 1 };
        }
        let answer = match self.form {
            Form::Echo => {
                let request = self.request();
                let known = bytes.len().min(request.len());
                match bytes[..known] == request[..known] {
                    false => Answer::Wrong,
                    true if known < request.len() => Answer::Incomplete { needs: request.len() },
                    true => whole(known),
                }
            }
            Form::Line => memchr::memchr(b'\n', bytes)
                .map_or(Answer::Incomplete { needs: bytes.len() + 1 }, |at| whole(at + 1)),
            Form::Resp => resp_reply(bytes),
            Form::Http => http_response(bytes),
        };
        match answer {
            Answer::Incomplete { needs } if needs.max(bytes.len()) > ANSWER_MAX => Answer::Wrong,
            answer => answer,
        }
    }
}

/// Returns a payload of changing characters, so that a shifted answer does not match.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size.max(1)).map(|index| b"abcdefghijklmnopqrstuvwxyz0123456789"[index % 36]).collect()
}

/// Returns a command as a RESP array of bulk strings.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::array(&mut out, words.len());
    for word in words {
        resp::bulk(&mut out, word);
    }
    out
}

/// Finds a RESP2 or RESP3 reply at the front of `bytes`. It counts nested replies instead of
/// recursing into them, so that deep nesting needs no stack.
pub fn resp_reply(bytes: &[u8]) -> Answer {
    let mut at = 0;
    let mut left: u64 = 1;
    let mut last_line = 0;
    while left > 0 {
        let Some(end) = memchr::memchr(b'\n', &bytes[at..]).map(|end| at + end) else {
            // Each missing reply has at least three bytes.
            return Answer::Incomplete { needs: bytes.len().max(at + 3 * left as usize - 1) + 1 };
        };
        let line = &bytes[at..end];
        let Some(line) = line.strip_suffix(b"\r").filter(|line| !line.is_empty()) else {
            return Answer::Wrong;
        };
        last_line = at;
        at = end + 1;
        left -= 1;
        let length = || resp::number(&line[1..]);
        match line[0] {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'!' | b'=' => match length() {
                Some(length @ 0..) if (length as u64) < ANSWER_MAX as u64 => {
                    at += length as usize + 2;
                    if at > bytes.len() {
                        return Answer::Incomplete { needs: at + 3 * left as usize };
                    }
                }
                Some(-1) => {}
                _ => return Answer::Wrong,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match length() {
                Some(length @ 0..) if (length as u64) < ANSWER_MAX as u64 => {
                    let each = if matches!(line[0], b'%' | b'|') { 2 } else { 1 };
                    left += length as u64 * each + u64::from(line[0] == b'|');
                }
                Some(-1) => {}
                _ => return Answer::Wrong,
            },
            _ => return Answer::Wrong,
        }
    }
    Answer::Whole {
        length: at,
        is_error: last_line == 0 && matches!(bytes[0], b'-' | b'!'),
        is_last: false,
    }
}

/// Finds an HTTP/1.1 response at the front of `bytes`, whose body ends by Content-Length or by its
/// chunks (RFC 9112).
fn http_response(bytes: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Answer::Incomplete { needs: bytes.len() + 1 },
        Err(_) => return Answer::Wrong,
    };
    let status = response.code.unwrap_or(0);
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let says = |name: &str, word: &str| {
        header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    let body = if (100..200).contains(&status) || status == 204 || status == 304 {
        head
    } else if says("transfer-encoding", "chunked") {
        match chunks_end(bytes, head) {
            Ok(end) => end,
            Err(()) => return Answer::Wrong,
        }
    } else {
        match header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) if length < ANSWER_MAX => head + length,
            // A body without a length ends with the connection, so no second request could follow.
            _ => return Answer::Wrong,
        }
    };
    match body {
        end if end <= bytes.len() => Answer::Whole {
            length: end,
            is_error: status >= 400,
            is_last: says("connection", "close")
                || (response.version == Some(0) && !says("connection", "keep-alive")),
        },
        end => Answer::Incomplete { needs: end },
    }
}

/// Returns the end of the chunks that begin at `at`. If it is not among `bytes`, returns the least
/// length that may contain it. Fails on a malformed chunk.
fn chunks_end(bytes: &[u8], mut at: usize) -> Result<usize, ()> {
    let more = bytes.len() + 1;
    loop {
        match httparse::parse_chunk_size(bytes.get(at..).ok_or(())?) {
            Ok(httparse::Status::Complete((head, 0))) => {
                // An empty line ends the trailers.
                let rest = &bytes[at + head..];
                if rest.starts_with(b"\r\n") {
                    return Ok(at + head + 2);
                }
                return Ok(
                    memchr::memmem::find(rest, b"\r\n\r\n").map_or(more, |end| at + head + end + 4)
                );
            }
            Ok(httparse::Status::Complete((head, length))) if length < ANSWER_MAX as u64 => {
                at += head + length as usize + 2;
                if at >= bytes.len() {
                    return Ok(at + 1);
                }
            }
            Ok(httparse::Status::Partial) => return Ok(more),
            _ => return Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks an answer whole, cut at every byte, and followed by another.
    fn check(wire: &Wire, answer: &[u8], expected: Answer) {
        assert_eq!(wire.answer(answer), expected, "{}", answer.escape_ascii());
        for end in 0..answer.len() {
            let Answer::Incomplete { needs } = wire.answer(&answer[..end]) else {
                panic!("{}", answer[..end].escape_ascii())
            };
            assert!(
                (end + 1..=answer.len()).contains(&needs),
                "{needs} of {end}: {}",
                answer.escape_ascii()
            );
        }
        let behind = [answer, answer].concat();
        assert_eq!(wire.answer(&behind), expected, "{} twice", answer.escape_ascii());
    }

    fn wire(target: &str) -> Wire {
        Wire::new(&Target::parse(target).unwrap(), 3, 2, None)
    }

    #[test]
    fn the_end_of_a_resp_reply_is_found() {
        let wire = wire("resp://127.0.0.1");
        assert_eq!(wire.requests(2), b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
        for reply in [
            "+PONG\r\n",
            ":12\r\n",
            "$3\r\nabc\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n$1\r\na\r\n*1\r\n:1\r\n+x\r\n",
            "%1\r\n+a\r\n*2\r\n+b\r\n+c\r\n",
            "|1\r\n+a\r\n+b\r\n+c\r\n",
            ">2\r\n+a\r\n_\r\n",
            "=5\r\ntxt:a\r\n",
            ",1.5\r\n",
        ] {
            check(&wire, reply.as_bytes(), whole(reply.len()));
        }
        let error = Answer::Whole { length: 6, is_error: true, is_last: false };
        check(&wire, b"-ERR\r\n", error);
        // An error inside an array is a value.
        check(&wire, b"*1\r\n-E\r\n", whole(8));
        for wrong in [
            "x\r\n",
            "\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*99999999999\r\n",
            "+a\n",
            "$9999999999999999999\r\n",
        ] {
            assert_eq!(wire.answer(wrong.as_bytes()), Answer::Wrong, "{wrong:?}");
        }
        // Deep nesting needs no stack.
        assert!(matches!(
            wire.answer("*1\r\n".repeat(200_000).as_bytes()),
            Answer::Incomplete { .. }
        ));
    }

    #[test]
    fn the_prelude_sends_the_password() {
        let wire = wire("resp://:word@127.0.0.1");
        assert_eq!(
            (wire.prelude(), wire.prelude_answers),
            (&b"*2\r\n$4\r\nAUTH\r\n$4\r\nword\r\n"[..], 1)
        );
    }

    #[test]
    fn the_end_of_an_http_response_is_found() {
        let wire = wire("http://127.0.0.1/x");
        assert_eq!(wire.request(), b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n");
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
             a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
        ] {
            check(&wire, response.as_bytes(), whole(response.len()));
        }
        let refused = "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        check(
            &wire,
            refused.as_bytes(),
            Answer::Whole { length: refused.len(), is_error: true, is_last: true },
        );
        for wrong in [
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            assert_eq!(wire.answer(wrong.as_bytes()), Answer::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn an_echo_is_the_request_and_a_line_is_any_line() {
        let echo = wire("tcp://127.0.0.1:1");
        check(&echo, b"ab\n", whole(3));
        assert_eq!(echo.answer(b"ax"), Answer::Wrong);
        let line =
            Wire::new(&Target::parse("tcp://127.0.0.1:1").unwrap(), 3, 1, Some(b"version\r\n"));
        assert_eq!(line.request(), b"version\r\n");
        check(&line, b"VERSION 1\r\n", whole(11));
    }
}
