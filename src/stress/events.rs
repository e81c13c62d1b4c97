//! Server-sent events as a client reads them (HTML, section 9.2): the head of the answer, and the
//! end of each event; sans-IO.

use super::answer::{ANSWER_MAX, Answer, WRONG};
use super::http::{Coding, Head};

/// The reasons why an answer is wrong.
const NO_EVENTS: &str = "wrong answer: 200 without Content-Type: text/event-stream";
const CHUNK: &str = "wrong answer: a malformed chunk";
const ENDED: &str = "wrong answer: the end of the event stream";

/// The place of a connection in a stream of events.
#[derive(Debug, Default)]
pub struct EventReader {
    is_begun: bool,
    /// The chunks of the body, if it has any.
    chunks: Option<ChunkReader>,
    /// Number of bytes at the front of the next input that the chunks have been taken off from.
    clean: usize,
    /// Start of the last line in the next input. No event ends before it.
    line: usize,
    /// Number of bytes at the front of the next input that were searched for line ends.
    searched: usize,
    /// True if the last event ended with CR. An LF that follows belongs to it.
    is_after_return: bool,
}

impl EventReader {
    /// Finds the event at the front of `bytes`, with its comments. The first answer is the head.
    pub fn take(&mut self, bytes: &mut [u8]) -> Answer {
        if !self.is_begun {
            return self.begin(bytes);
        }
        if let Some(chunks) = &mut self.chunks
            && self.clean < bytes.len()
        {
            let Ok(found) = chunks.take_off(&mut bytes[self.clean..]) else {
                return Answer::Wrong(CHUNK);
            };
            // The heads of the chunks leave a gap, which moves to the front and is dropped.
            self.clean += found;
            let gap = bytes.len() - self.clean;
            bytes.copy_within(..self.clean, gap);
            return Answer::Part { length: gap, is_error: false };
        }
        if std::mem::take(&mut self.is_after_return) && bytes.starts_with(b"\n") {
            self.clean = self.clean.saturating_sub(1);
            return Answer::Part { length: 1, is_error: false };
        }
        match self.event_end(bytes) {
            Some(length) => {
                (self.line, self.searched) = (0, 0);
                self.clean = self.clean.saturating_sub(length);
                self.is_after_return = bytes[length - 1] == b'\r';
                Answer::Whole { length, is_error: false, is_last: false }
            }
            None if self.chunks.as_ref().is_some_and(|chunks| chunks.place == ChunkPlace::End) => {
                Answer::Wrong(ENDED)
            }
            None if bytes.len() > ANSWER_MAX => Answer::Wrong(WRONG),
            None => Answer::Incomplete { needs: bytes.len() + 1 },
        }
    }

    /// Returns the end of the first event: after the first empty line. Lines end with LF, CR or
    /// both.
    fn event_end(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let found = memchr::memchr2(b'\n', b'\r', &bytes[self.searched..]);
            self.searched = found.map_or(bytes.len(), |found| self.searched + found);
            let end = self.searched;
            // An LF may follow.
            if found.is_none() || (bytes[end..] == *b"\r" && end > self.line) {
                return None;
            }
            let next = end + if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
            if end == self.line {
                return Some(next);
            }
            (self.line, self.searched) = (next, next);
        }
    }

    fn begin(&mut self, bytes: &[u8]) -> Answer {
        let mut is_stream = false;
        let head = Head::read(bytes, &mut |name, value| {
            if name.eq_ignore_ascii_case(b"content-type") {
                let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
                is_stream = kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream");
            }
        });
        match head {
            Ok(None) => Answer::Incomplete { needs: bytes.len() + 1 },
            Err(why) => Answer::Wrong(why),
            Ok(Some(head)) if head.status != 200 => {
                Answer::Whole { length: bytes.len(), is_error: true, is_last: true }
            }
            Ok(Some(_)) if !is_stream => Answer::Wrong(NO_EVENTS),
            Ok(Some(head)) => {
                self.is_begun = true;
                self.chunks = (head.coding == Coding::Chunked).then(ChunkReader::default);
                Answer::Whole { length: head.length, is_error: false, is_last: false }
            }
        }
    }
}

/// The place in a body of chunks: RFC 9112, section 7.1. It may stop at any byte.
#[derive(Debug, Default)]
struct ChunkReader {
    place: ChunkPlace,
    /// Length of the chunk, or what is left of it.
    left: u64,
    has_digit: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPlace {
    #[default]
    Digits,
    /// Behind the digits, in a line whose rest says nothing about the end.
    Line,
    Data,
    /// Before the line end of the data.
    DataEnd,
    /// Behind the last chunk.
    End,
}

impl ChunkReader {
    /// Takes the chunks off `bytes` in place, and returns the length of the data in them.
    fn take_off(&mut self, bytes: &mut [u8]) -> Result<usize, ()> {
        let (mut at, mut found) = (0, 0);
        while at < bytes.len() {
            let byte = bytes[at];
            match self.place {
                ChunkPlace::Digits => match char::from(byte).to_digit(16) {
                    Some(digit) => {
                        let left = self.left.checked_mul(16).ok_or(())?;
                        (self.left, self.has_digit) = (left | u64::from(digit), true);
                    }
                    None if !self.has_digit => return Err(()),
                    None => {
                        self.place = ChunkPlace::Line;
                        continue;
                    }
                },
                ChunkPlace::Line if byte == b'\n' && self.left == 0 => {
                    self.place = ChunkPlace::End;
                }
                ChunkPlace::Line if byte == b'\n' => self.place = ChunkPlace::Data,
                ChunkPlace::Line => {}
                ChunkPlace::Data => {
                    let length = self.left.min((bytes.len() - at) as u64) as usize;
                    bytes.copy_within(at..at + length, found);
                    (at, found, self.left) =
                        (at + length, found + length, self.left - length as u64);
                    if self.left == 0 {
                        self.place = ChunkPlace::DataEnd;
                    }
                    continue;
                }
                ChunkPlace::DataEnd if byte == b'\n' => *self = ChunkReader::default(),
                ChunkPlace::DataEnd if byte == b'\r' => {}
                ChunkPlace::DataEnd => return Err(()),
                ChunkPlace::End => return Ok(found),
            }
            at += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\n";

    /// Reads bytes that arrive in parts of `step`, as the driver does. Returns the answers as text,
    /// the first of them a head, or the reason why one is wrong.
    fn read(bytes: &str, step: usize) -> Result<Vec<String>, &'static str> {
        let mut reader = EventReader::default();
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        for part in bytes.as_bytes().chunks(step) {
            kept.extend_from_slice(part);
            while !kept.is_empty() {
                let length = match reader.take(&mut kept) {
                    Answer::Whole { length, is_error, is_last } => {
                        assert_eq!(is_error, is_last);
                        let mark = if is_error { "refused: " } else { "" };
                        let text = String::from_utf8_lossy(&kept[..length]);
                        found.push(format!("{mark}{}", text.trim_end()));
                        length
                    }
                    Answer::Part { length, is_error: false } => length,
                    Answer::Incomplete { needs } => {
                        assert!(needs > kept.len());
                        break;
                    }
                    Answer::Wrong(why) => return Err(why),
                    other => panic!("{other:?}"),
                };
                kept.drain(..length);
            }
        }
        Ok(found)
    }

    /// Returns the events behind a head, however the bytes are cut.
    fn events(header: &str, body: &str) -> Vec<String> {
        let head = format!("{HEAD}{header}\r\n");
        let bytes = format!("{head}{body}");
        for step in 1..bytes.len() {
            let found = read(&bytes, step).unwrap();
            assert_eq!(found, read(&bytes, bytes.len()).unwrap(), "by {step}");
            assert_eq!(found[0], head.trim_end());
        }
        read(&bytes, bytes.len()).unwrap()[1..].to_vec()
    }

    #[test]
    fn an_event_ends_with_an_empty_line() {
        let body = ": hi\n\nretry: 2\ndata: a\n\ndata: b\ndata\n\ndata: c\n";
        let expected = [": hi", "retry: 2\ndata: a", "data: b\ndata"];
        assert_eq!(events("", body), expected);
        assert_eq!(events("", &body.replace('\n', "\r")).len(), 3);
        assert_eq!(events("", "data: a\r\n\rdata: b\n\r\n").len(), 2);
    }

    #[test]
    fn no_byte_of_a_long_event_is_searched_twice() {
        let mut reader = EventReader { is_begun: true, ..EventReader::default() };
        let mut bytes = b"data: a\ndata: bbb".to_vec();
        assert_eq!(reader.take(&mut bytes), Answer::Incomplete { needs: bytes.len() + 1 });
        assert_eq!((reader.line, reader.searched), (8, bytes.len()));
        // An LF may follow a CR, and both end one line.
        for (part, searched) in [("\r", 17), ("\ndata: c\r", 26), ("\n", 28)] {
            bytes.extend_from_slice(part.as_bytes());
            assert_eq!(reader.take(&mut bytes), Answer::Incomplete { needs: bytes.len() + 1 });
            assert_eq!(reader.searched, searched, "{part:?}");
        }
        bytes.extend_from_slice(b"\r\nx");
        let length = bytes.len() - 1;
        let answer = Answer::Whole { length, is_error: false, is_last: false };
        assert_eq!(reader.take(&mut bytes), answer);
        assert_eq!((reader.line, reader.searched), (0, 0));
    }

    #[test]
    fn chunks_are_taken_off_wherever_they_are_cut() {
        let body =
            "5\r\ndata:\r\n1;x=y\r\n \r\n00A\r\na\n\ndata: b\r\nD \r\n\r\n\r\ndata: c\n\n\r\n";
        let expected = ["data: a", "data: b", "data: c"];
        for coding in ["Transfer-Encoding: chunked\r\n", "transfer-encoding: x, Chunked\r\n"] {
            assert_eq!(events(coding, body), expected);
        }
        let wrong = |body: &str| {
            let bytes = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}");
            let whys = [1, 3, bytes.len()].map(|step| read(&bytes, step));
            assert!(whys.iter().all(|why| *why == whys[0]), "{whys:?}");
            whys[0].clone()
        };
        for body in ["x\r\n", "\r\n", "1\r\nab\r\n", "fffffffffffffffff\r\n"] {
            assert_eq!(wrong(body), Err(CHUNK), "{body:?}");
        }
        assert_eq!(wrong("1\r\na\r\n0\r\n\r\n"), Err(ENDED));
    }

    #[test]
    fn an_answer_that_is_no_stream_is_refused() {
        let no = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read(no, no.len()).unwrap(), [format!("refused: {no}")]);
        for (head, why) in [
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", NO_EVENTS),
            ("HTTP/1.1 200 OK\r\n\r\n", NO_EVENTS),
            ("+PONG\r\n", "wrong answer: no status line of HTTP/1"),
        ] {
            assert_eq!(read(head, 1), Err(why), "{head:?}");
        }
    }
}
