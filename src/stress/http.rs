//! The end of an HTTP answer: RFC 9112, section 6.3; sans-IO.
//!
//! A [`Reader`] keeps its place within the answer, so that no byte of a body is buffered or read
//! twice. It is tolerant as that document allows a client to be: lines may end with LF alone, a
//! header may be folded, the reason phrase may be missing.

use super::answer::Answer;

/// Longest head of an answer in bytes, with all interim headers; also the longest chunk line, and
/// all trailers together.
pub const HEAD_MAX: usize = 64 << 10;

/// A request method that changes where an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// The answer has no body.
    Head,
    /// An answer of 2xx opens a tunnel, which ends HTTP on the connection.
    Connect,
    #[default]
    Other,
}

impl Asked {
    /// Returns the kind of a method. Methods are case-sensitive.
    pub fn of(method: &[u8]) -> Asked {
        match method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Other,
        }
    }
}

/// True for a method whose request may be sent twice: RFC 9110, section 9.2.2.
pub fn is_idempotent(method: &[u8]) -> bool {
    [&b"GET"[..], b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"].contains(&method)
}

/// The place of a connection within an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    place: AnswerPart,
    is_error: bool,
    is_last: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AnswerPart {
    #[default]
    Head,
    /// Within a body or a chunk, with this many bytes to come.
    Body(u64),
    ChunkLine,
    Chunk(u64),
    /// Before the line end of a chunk.
    ChunkEnd,
    /// Among the trailers, which may have this many more bytes.
    Trailers(u32),
    /// In a body that ends with the connection.
    ToEnd,
}

/// The reasons why bytes are no HTTP answer.
const NO_STATUS: &str = "wrong answer: no status line of HTTP/1";
const NO_COLON: &str = "wrong answer: a header without a colon";
const LONG_HEAD: &str = "wrong answer: a head of more than 64 KiB";
const UPGRADE: &str = "wrong answer: 101 ends HTTP";
const LENGTH: &str = "wrong answer: a Content-Length that is no number, or two that differ";
const CODING: &str = "wrong answer: a Transfer-Encoding that is malformed";
const CHUNK: &str = "wrong answer: a malformed chunk";
const LONG_TRAILERS: &str = "wrong answer: trailers of more than 64 KiB";

impl Reader {
    /// True if the answer has begun: an end of the connection would cut it short.
    pub fn is_within(&self) -> bool {
        self.place != AnswerPart::Head
    }

    /// Takes the end of the connection. Returns true if it completes the answer, and whether the
    /// answer is an error.
    pub fn end(&mut self) -> Option<bool> {
        let whole = (self.place == AnswerPart::ToEnd).then_some(self.is_error);
        *self = Reader::default();
        whole
    }

    /// Takes the bytes at the front that are read up to the end of the answer or of `bytes`.
    pub fn take(&mut self, asked: Asked, bytes: &[u8]) -> Answer {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let step = match self.place {
                AnswerPart::Head => self.head(asked, rest),
                AnswerPart::ToEnd => Ok(Step::Past(rest.len())),
                AnswerPart::Body(left) | AnswerPart::Chunk(left) => {
                    let length = left.min(rest.len() as u64);
                    let (is_chunk, left) =
                        (matches!(self.place, AnswerPart::Chunk(_)), left - length);
                    self.place = match (is_chunk, left) {
                        (true, 0) => AnswerPart::ChunkEnd,
                        (true, _) => AnswerPart::Chunk(left),
                        (false, _) => AnswerPart::Body(left),
                    };
                    match (is_chunk, left) {
                        (false, 0) => Ok(Step::Whole(length as usize)),
                        _ => Ok(Step::Past(length as usize)),
                    }
                }
                AnswerPart::ChunkLine => self.chunk_line(rest),
                AnswerPart::ChunkEnd => self.chunk_end(rest),
                AnswerPart::Trailers(room) => self.trailer(rest, room),
            };
            match step {
                Ok(Step::Past(length)) => at += length,
                Ok(Step::Whole(length)) => {
                    let (is_error, is_last) = (self.is_error, self.is_last);
                    *self = Reader::default();
                    return Answer::Whole { length: at + length, is_error, is_last };
                }
                Ok(Step::Short) if at == 0 => {
                    return Answer::Incomplete { needs: bytes.len() + 1 };
                }
                Ok(Step::Short) => return self.part(at),
                Err(why) => return Answer::Wrong(why),
            }
            if at == bytes.len() {
                return self.part(at);
            }
        }
    }

    fn part(&self, length: usize) -> Answer {
        Answer::Part { length, is_error: self.is_error }
    }

    /// Reads a whole head, and finds out how the body ends.
    fn head(&mut self, asked: Asked, bytes: &[u8]) -> Result<Step, &'static str> {
        let Some(head) = Head::read(bytes, &mut |_, _| {})? else { return Ok(Step::Short) };
        match head.status {
            101 => return Err(UPGRADE),
            // An interim answer: the final one follows.
            100..200 => return Ok(Step::Past(head.length)),
            _ => {}
        }
        self.is_error = head.status >= 400;
        self.is_last = head.closes();
        let is_tunnel = asked == Asked::Connect && (200..300).contains(&head.status);
        self.is_last |= is_tunnel;
        if asked == Asked::Head || matches!(head.status, 204 | 304) || is_tunnel {
            return Ok(Step::Whole(head.length));
        }
        self.place = match (head.coding, head.body_length) {
            (Coding::Chunked, _) => AnswerPart::ChunkLine,
            (Coding::Wrong, _) => return Err(CODING),
            (Coding::Other, _) | (Coding::None, BodyLength::None) => AnswerPart::ToEnd,
            (Coding::None, BodyLength::Wrong) => return Err(LENGTH),
            (Coding::None, BodyLength::Bytes(0)) => return Ok(Step::Whole(head.length)),
            (Coding::None, BodyLength::Bytes(length)) => AnswerPart::Body(length),
        };
        Ok(Step::Past(head.length))
    }

    /// Reads the length of a chunk. Extensions say nothing about its end.
    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Step, &'static str> {
        let Some(line) = HttpLine::at(bytes) else {
            return if bytes.len() > HEAD_MAX { Err(CHUNK) } else { Ok(Step::Short) };
        };
        let digits = line.text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let behind = line.text[digits..].trim_ascii_start();
        if line.length > HEAD_MAX || digits == 0 || !matches!(behind.first(), None | Some(b';')) {
            return Err(CHUNK);
        }
        let mut length: u64 = 0;
        for digit in &line.text[..digits] {
            let value = char::from(*digit).to_digit(16).map(u64::from).ok_or(CHUNK)?;
            length =
                length.checked_mul(16).and_then(|length| length.checked_add(value)).ok_or(CHUNK)?;
        }
        self.place = if length == 0 {
            AnswerPart::Trailers(HEAD_MAX as u32)
        } else {
            AnswerPart::Chunk(length)
        };
        Ok(Step::Past(line.length))
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<Step, &'static str> {
        let length = match bytes {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [] | [b'\r'] => return Ok(Step::Short),
            _ => return Err(CHUNK),
        };
        self.place = AnswerPart::ChunkLine;
        Ok(Step::Past(length))
    }

    /// Reads a trailer. An empty line ends them, and the answer.
    fn trailer(&mut self, bytes: &[u8], room: u32) -> Result<Step, &'static str> {
        let room = room as usize;
        let Some(line) = HttpLine::at(bytes).filter(|line| line.length <= room) else {
            return if bytes.len() > room { Err(LONG_TRAILERS) } else { Ok(Step::Short) };
        };
        if line.text.is_empty() {
            return Ok(Step::Whole(line.length));
        }
        self.place = AnswerPart::Trailers((room - line.length) as u32);
        Ok(Step::Past(line.length))
    }
}

enum Step {
    /// This many bytes belong to the answer, which goes on.
    Past(usize),
    /// The answer ends after this many bytes.
    Whole(usize),
    /// The next line is incomplete.
    Short,
}

/// A line without its end, which is LF or CRLF, and its length with it.
struct HttpLine<'a> {
    text: &'a [u8],
    length: usize,
}

impl<'a> HttpLine<'a> {
    fn at(bytes: &'a [u8]) -> Option<HttpLine<'a>> {
        let end = memchr::memchr(b'\n', bytes)?;
        let text = &bytes[..end];
        Some(HttpLine { text: text.strip_suffix(b"\r").unwrap_or(text), length: end + 1 })
    }
}

/// The end of an answer, as its head announces it.
#[derive(Debug)]
pub struct Head {
    pub length: usize,
    pub status: u16,
    is_http_1_0: bool,
    says_close: bool,
    says_keep_alive: bool,
    pub coding: Coding,
    body_length: BodyLength,
}

/// The transfer codings of a body, as far as its end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    None,
    /// Chunked is the last coding.
    Chunked,
    Other,
    Wrong,
}

/// The value of all headers Content-Length together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyLength {
    None,
    Bytes(u64),
    Wrong,
}

impl Head {
    /// Reads the head at the front of `bytes`, and calls `see` with the name and the value of each
    /// header. Returns `None` if the head is incomplete.
    pub fn read(
        bytes: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<Head>, &'static str> {
        match Head::read_any(bytes, see)? {
            Some(head) if head.length <= HEAD_MAX => Ok(Some(head)),
            None if bytes.len() <= HEAD_MAX => Ok(None),
            _ => Err(LONG_HEAD),
        }
    }

    fn read_any(
        bytes: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<Head>, &'static str> {
        // RFC 9112, section 2.2: empty lines before an answer are skipped.
        let mut at = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if !b"HTTP/1.".starts_with(&bytes[at..bytes.len().min(at + 7)]) {
            return Err(NO_STATUS);
        }
        let Some(line) = HttpLine::at(&bytes[at..]) else { return Ok(None) };
        let (is_http_1_0, status) = status_line(line.text).ok_or(NO_STATUS)?;
        at += line.length;
        let mut head = Head {
            length: 0,
            status,
            is_http_1_0,
            says_close: false,
            says_keep_alive: false,
            coding: Coding::None,
            body_length: BodyLength::None,
        };
        loop {
            let begin = at;
            let Some(line) = HttpLine::at(&bytes[at..]) else { return Ok(None) };
            at += line.length;
            if line.text.is_empty() {
                head.length = at;
                return Ok(Some(head));
            }
            let mut end = begin + line.text.len();
            // A line that begins with a blank continues the header before it.
            loop {
                match bytes.get(at) {
                    None => return Ok(None),
                    Some(b' ' | b'\t') => {
                        let Some(line) = HttpLine::at(&bytes[at..]) else { return Ok(None) };
                        end = at + line.text.len();
                        at += line.length;
                    }
                    Some(_) => break,
                }
            }
            head.header(&bytes[begin..end], see)?;
        }
    }

    /// Takes a header, whose value may have folded lines.
    fn header(
        &mut self,
        text: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        if matches!(text[0], b' ' | b'\t') {
            // Blank space before the first header belongs to none.
            return Ok(());
        }
        let colon = memchr::memchr(b':', text).ok_or(NO_COLON)?;
        let (name, value) = (text[..colon].trim_ascii_end(), &text[colon + 1..]);
        if name.is_empty() {
            return Err(NO_COLON);
        }
        see(name, value.trim_ascii());
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"content-length") {
            for length in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.body_length = match (self.body_length, number(length)) {
                    (BodyLength::None, Some(length)) => BodyLength::Bytes(length),
                    (BodyLength::Bytes(known), Some(length)) if known == length => continue,
                    _ => BodyLength::Wrong,
                };
            }
        } else if is(b"transfer-encoding") {
            for coding in listed(value) {
                self.coding = match (self.coding, coding.eq_ignore_ascii_case(b"chunked")) {
                    (Coding::Wrong | Coding::Chunked, true) => Coding::Wrong,
                    (Coding::Wrong, false) => Coding::Wrong,
                    (_, true) => Coding::Chunked,
                    // After chunks, another coding leaves the end of the connection as the end.
                    (_, false) => Coding::Other,
                };
            }
        } else if is(b"connection") {
            for option in listed(value) {
                self.says_close |= option.eq_ignore_ascii_case(b"close");
                self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// Returns the length of a body that is announced as such.
    pub fn body(&self) -> Option<u64> {
        match (self.coding, self.body_length) {
            (Coding::None, BodyLength::Bytes(length)) => Some(length),
            _ => None,
        }
    }

    /// True if the server closes the connection after the answer.
    fn closes(&self) -> bool {
        // A coding in HTTP/1.0 comes from a server that is not to be trusted with a second answer.
        let is_faulty = self.is_http_1_0 && self.coding != Coding::None;
        self.says_close || is_faulty || (self.is_http_1_0 && !self.says_keep_alive)
    }
}

/// Returns whether an answer is of HTTP/1.0, and its status. Later versions 1.x are as 1.1.
fn status_line(line: &[u8]) -> Option<(bool, u16)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first().filter(|(minor, _)| minor.is_ascii_digit())?;
    let code = rest.trim_ascii_start();
    let (digits, reason) = code.split_at_checked(3)?;
    let is_apart = rest.len() > code.len() && matches!(reason.first(), None | Some(b' ' | b'\t'));
    let status = number(digits).filter(|status| *status >= 100 && is_apart)?;
    Some((*minor == b'0', status as u16))
}

/// Returns a whole number in decimal digits.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Returns the elements of a list that are not empty. A comma within quotes separates nothing.
pub fn listed(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let elements = value.split(move |byte| {
        let escapes = is_quoted && *byte == b'\\' && !is_escaped;
        is_quoted ^= *byte == b'"' && !is_escaped;
        is_escaped = escapes;
        *byte == b',' && !is_quoted
    });
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of bytes that arrive in parts, and then the end of the connection.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Outcome {
        /// An answer of this many bytes.
        Whole {
            length: usize,
            is_error: bool,
            is_last: bool,
        },
        /// The end of the connection ends the answer.
        ToEnd {
            is_error: bool,
        },
        CutShort,
        Wrong(&'static str),
    }

    /// Reads an answer from parts of `step` bytes, as the driver does: it keeps what is not taken.
    fn read(asked: Asked, bytes: &[u8], step: usize) -> Outcome {
        let mut reader = Reader::default();
        let (mut kept, mut taken) = (Vec::new(), 0);
        for part in bytes.chunks(step) {
            kept.extend_from_slice(part);
            while !kept.is_empty() {
                match reader.take(asked, &kept) {
                    Answer::Whole { length, is_error, is_last } => {
                        let length = taken + length;
                        return Outcome::Whole { length, is_error, is_last };
                    }
                    Answer::Part { length, .. } => {
                        assert!((1..=kept.len()).contains(&length));
                        kept.drain(..length);
                        taken += length;
                    }
                    Answer::Incomplete { needs } => {
                        assert!(needs > kept.len());
                        break;
                    }
                    Answer::Wrong(why) => return Outcome::Wrong(why),
                    other => panic!("{other:?}"),
                }
            }
        }
        match reader.end() {
            Some(is_error) => Outcome::ToEnd { is_error },
            None => Outcome::CutShort,
        }
    }

    /// Checks an answer whole, in parts of several sizes, cut short, and with data behind it.
    fn check(asked: Asked, answer: &str, expected: Outcome) {
        let bytes = answer.as_bytes();
        for step in [bytes.len(), 1, 2, 3, 7] {
            assert_eq!(read(asked, bytes, step), expected, "{answer:?} by {step}");
        }
        let Outcome::Whole { length, .. } = expected else { return };
        assert_eq!(length, bytes.len(), "{answer:?}");
        for behind in ["\0\u{ff}", "HTTP/1.1 500 No\r\n\r\n", "\r\n", "5\r\n"] {
            let longer = [bytes, behind.as_bytes()].concat();
            for step in [longer.len(), 1, 5] {
                assert_eq!(read(asked, &longer, step), expected, "{answer:?} and more by {step}");
            }
        }
        for end in 0..bytes.len() {
            let cut = read(asked, &bytes[..end], 4);
            assert_eq!(cut, Outcome::CutShort, "{answer:?} up to {end}");
        }
    }

    fn whole(answer: &str) -> Outcome {
        Outcome::Whole { length: answer.len(), is_error: false, is_last: false }
    }

    fn last(answer: &str) -> Outcome {
        Outcome::Whole { length: answer.len(), is_error: false, is_last: true }
    }

    fn error(answer: &str) -> Outcome {
        Outcome::Whole { length: answer.len(), is_error: true, is_last: false }
    }

    #[test]
    fn an_answer_ends_after_its_content_length() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-LENGTH:5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5,5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n ,5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\nX: y\r\n\r\nhello",
            "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 \r\nContent-Length : 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            "HTTP/1.1 200 OK\nContent-Length: 5\r\n\nhello",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\tContent-Length: 9\r\n\
             Content-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\n ignored: 1\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.2 301 Moved\r\nLocation: /x\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: not-close\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            check(Asked::Other, answer, whole(answer));
        }
        for answer in [
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            check(Asked::Other, answer, last(answer));
        }
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 999 Odd\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            check(Asked::Other, answer, error(answer));
        }
    }

    /// Whatever the bytes are, it does not matter in which parts they arrive.
    #[test]
    fn random_bytes_read_alike_in_any_parts() {
        let seeds = [
            "HTTP/1.1 100 x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nA: b\r\n c\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n\
             5;a\r\nhello\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.0 200\nConnection: keep-alive\n\nhello",
        ];
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..4) {
                    0 if bytes.len() > 1 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, *rng.choice(b"\r\n :,;0a\xff\0").unwrap()),
                    2 => bytes[at] = rng.u8(..),
                    _ => bytes.truncate(at + 1),
                }
            }
            let asked = *rng.choice(&[Asked::Head, Asked::Connect, Asked::Other]).unwrap();
            let whole = read(asked, &bytes, bytes.len());
            for step in [1, rng.usize(1..20)] {
                let parts = read(asked, &bytes, step);
                assert_eq!(parts, whole, "{asked:?} by {step}: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn some_answers_have_no_body_whatever_their_headers_say() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n";
        check(Asked::Head, head, whole(head));
        let head = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(Asked::Head, head, error(head));
        for answer in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n",
            "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            check(Asked::Other, answer, whole(answer));
        }
        let tunnel = "HTTP/1.1 200 Connected\r\nContent-Length: 7\r\n\r\n";
        check(Asked::Connect, tunnel, last(tunnel));
        let refused = "HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno";
        check(Asked::Connect, refused, error(refused));
        assert_eq!(Asked::of(b"head"), Asked::Other);
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        for answer in [
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
            "HTTP/1.1 102 x\n\nHTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            // The options of an interim answer are not those of the final one.
            "HTTP/1.1 199 x\r\nConnection: close\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ] {
            check(Asked::Other, answer, whole(answer));
        }
        for asked in [Asked::Other, Asked::Head] {
            check(asked, "HTTP/1.1 101 Switching Protocols\r\n\r\n", Outcome::Wrong(UPGRADE));
        }
    }

    #[test]
    fn an_answer_ends_after_its_last_chunk() {
        for answer in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n00A\r\nhellohello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
             5;a=\"b\r\"\r\nhello\r\n00\r\nX-T: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
             a \t;x=y\r\n0123456789\r\n1\r\n!\r\n0;last\r\nA: b\r\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: x;y=\"a,\\\"b\", chunked,\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            // A length beside the coding does not count.
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\na\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\na\n0\n\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\nContent-Length: 1\r\n\r\na",
        ] {
            check(Asked::Other, answer, whole(answer));
        }
        let faulty = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\
            \r\n0\r\n\r\n";
        check(Asked::Other, faulty, last(faulty));
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunks in [
            "xyz\r\n",
            "\r\n",
            ";a\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "5 5\r\n",
            "10000000000000000\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n",
            "3\r\nabc\rx",
        ] {
            check(Asked::Other, &format!("{head}{chunks}"), Outcome::Wrong(CHUNK));
        }
        let twice = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n";
        check(Asked::Other, twice, Outcome::Wrong(CODING));
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\nz",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ] {
            check(Asked::Other, answer, Outcome::ToEnd { is_error: false });
        }
        check(Asked::Other, "HTTP/1.1 502 Bad\r\n\r\nno", Outcome::ToEnd { is_error: true });
    }

    #[test]
    fn a_wrong_answer_is_named() {
        for (wrong, why) in [
            ("not http\r\n\r\n", NO_STATUS),
            ("SSH-2.0-OpenSSH\r\n", NO_STATUS),
            ("HTTP/2 200\r\n\r\n", NO_STATUS),
            ("HTTP/1.1 20\r\n\r\n", NO_STATUS),
            ("HTTP/1.1 2000 x\r\n\r\n", NO_STATUS),
            ("HTTP/1.1 099 x\r\n\r\n", NO_STATUS),
            ("HTTP/1.1200 OK\r\n\r\n", NO_STATUS),
            ("HTTP/1.x 200 OK\r\n\r\n", NO_STATUS),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NO_COLON),
            ("HTTP/1.1 200 OK\r\n: x\r\n\r\n", NO_COLON),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 5\r\n\r\n", LENGTH),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", LENGTH),
        ] {
            check(Asked::Other, wrong, Outcome::Wrong(why));
        }
    }

    #[test]
    fn a_head_and_trailers_of_64_kib_are_read_and_longer_ones_are_not() {
        let few = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
        for (length, is_read) in [(HEAD_MAX - 1, true), (HEAD_MAX, true), (HEAD_MAX + 1, false)] {
            let padding = length - few.len() - "a: \r\n\r\n".len();
            let long = format!("{few}a: {}\r\n\r\n", "x".repeat(padding));
            let expected = if is_read { whole(&long) } else { Outcome::Wrong(LONG_HEAD) };
            for step in [long.len(), 4096] {
                assert_eq!(read(Asked::Other, long.as_bytes(), step), expected, "{length}");
            }
            let many = "a:\r\n".repeat((length - few.len() - 2) / 4);
            let many = format!("{few}{many}\r\n");
            assert_eq!(read(Asked::Other, many.as_bytes(), 9999), whole(&many), "many headers");
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
            let trailers = format!("a: {}\r\n\r\n", "x".repeat(length - "a: \r\n\r\n".len()));
            let answer = format!("{chunked}{trailers}");
            let expected = if is_read { whole(&answer) } else { Outcome::Wrong(LONG_TRAILERS) };
            assert_eq!(read(Asked::Other, answer.as_bytes(), 4096), expected, "{length}");
        }
        let endless = ["HTTP/1.1 200 OK\r\na: ", &"x".repeat(HEAD_MAX)].concat();
        assert_eq!(read(Asked::Other, endless.as_bytes(), 1000), Outcome::Wrong(LONG_HEAD));
    }
}
