//! Reads the replies and pushes of a server, in RESP2 and RESP3.
//!
//! [`ReplyReader::read`] looks for the first reply in the bytes of a stream. An incomplete reply is
//! not read again: the reader remembers its place, and the caller passes the same bytes again with
//! more behind them. Lengths, counts and depth are checked as soon as they are announced. A reply
//! with a string over the limit is read to its end and dropped, so that it takes no memory.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Streamed strings and
//! aggregates are not read, because no server sends them.

use super::number;
use crate::limits::{COUNT_LINE_MAX, REPLY_DEPTH_MAX, REPLY_ITEMS_MAX, REPLY_LINE_MAX};

/// The kind of a reply, or of one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A simple string, a bulk string, or a verbatim string without its format.
    Text,
    /// An error, simple or bulk.
    Error,
    Integer,
    Null,
    Boolean,
    Double,
    BigNumber,
    /// The items of an aggregate follow it. A map has two for each pair.
    Array,
    Map,
    Set,
    Push,
}

/// The limits of a reply.
#[derive(Clone, Copy, Debug)]
pub struct ReplyLimits {
    /// Longest reply that is kept, in bytes. A longer one is dropped.
    pub kept_max: usize,
    /// Longest reply that may be announced, in bytes. A longer one is an error.
    pub announced_max: usize,
}

/// The reason why a stream is no sequence of replies. More bytes do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No reply begins with this byte.
    Marker(u8),
    /// A line is too long, or is not what its marker announces.
    Line,
    /// A bulk string is not followed by CRLF.
    BulkEnd,
    /// An announced length or count is over the limit.
    TooLarge,
    /// Aggregates are nested too deeply.
    TooDeep,
}

impl ReplyError {
    /// Returns the error in words.
    pub fn words(self) -> &'static str {
        match self {
            ReplyError::Marker(_) => "no reply begins with this byte",
            ReplyError::Line => "malformed line",
            ReplyError::BulkEnd => "no line break behind a bulk string",
            ReplyError::TooLarge => "reply over the limit",
            ReplyError::TooDeep => "reply nested too deeply",
        }
    }
}

/// The result of [`ReplyReader::read`].
#[derive(Debug)]
pub enum ReplyStep<'r, 'i> {
    /// A whole reply, and its length in bytes.
    Whole(ReplyView<'r, 'i>, usize),
    /// No whole reply yet. This many bytes at the front are of no more use.
    Incomplete(usize),
    /// A reply of this kind has ended, which was over the limit. This many bytes at the front are
    /// of no more use.
    Dropped(ReplyKind, usize),
}

/// One reply and its items.
#[derive(Clone, Copy)]
pub struct ReplyView<'r, 'i> {
    source: &'i [u8],
    items: &'r [ReplyItem],
}

/// A reply may be a secret, so only its kinds are shown.
impl std::fmt::Debug for ReplyView<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.items.iter().map(|item| item.kind)).finish()
    }
}

impl<'i> ReplyView<'_, 'i> {
    /// Returns the kind of the reply itself.
    pub fn kind(&self) -> ReplyKind {
        self.kind_of(0).unwrap_or(ReplyKind::Null)
    }

    /// Returns the bytes of the reply itself, if it is no aggregate.
    pub fn text(&self) -> &'i [u8] {
        self.text_of(0)
    }

    /// Returns the number of items: the reply itself, and everything in it.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// Returns the kind of an item. Item 0 is the reply itself, and an aggregate comes before its
    /// items.
    pub fn kind_of(&self, index: usize) -> Option<ReplyKind> {
        self.items.get(index).map(|item| item.kind)
    }

    /// Returns the bytes of an item: a text, or the digits of a number. Empty for an aggregate, for
    /// a null and for no item.
    pub fn text_of(&self, index: usize) -> &'i [u8] {
        let range = self.items.get(index).map(|item| item.start as usize..item.end as usize);
        range.and_then(|range| self.source.get(range)).unwrap_or_default()
    }

    /// Returns an item that is a text.
    pub fn string(&self, index: usize) -> Option<&'i [u8]> {
        (self.kind_of(index)? == ReplyKind::Text).then(|| self.text_of(index))
    }

    /// Returns the first word of an error, such as `NOPERM`: its code.
    pub fn code(&self) -> &'i [u8] {
        self.text().split(|byte| *byte == b' ').next().unwrap_or_default()
    }
}

/// One item of a reply: the place of its bytes.
#[derive(Clone, Copy, Debug)]
struct ReplyItem {
    kind: ReplyKind,
    start: u32,
    end: u32,
}

/// An aggregate that has not ended.
#[derive(Clone, Copy, Debug, Default)]
struct OpenAggregate {
    /// Number of its items to come.
    left: u32,
    /// For attributes, which are dropped: the number of items before them, and one.
    attributes_after: u32,
}

/// Finds replies in a stream. Its memory is that of the items of the largest reply.
pub struct ReplyReader {
    limits: ReplyLimits,
    /// The bytes of the current reply that have been read.
    at: usize,
    /// The bytes behind them that have been searched for the end of a line.
    searched: usize,
    /// The bytes of the current bulk string, with CRLF, that are still to come.
    bulk: Option<usize>,
    open: [OpenAggregate; REPLY_DEPTH_MAX],
    depth: usize,
    items: Vec<ReplyItem>,
    /// Number of items so far, those of attributes included.
    counted: usize,
    /// Number of bytes of the current reply before those, which are of no more use.
    passed: usize,
    /// The kind of the current reply, if it is being dropped.
    dropped: Option<ReplyKind>,
}

impl ReplyReader {
    pub fn new(limits: ReplyLimits) -> ReplyReader {
        ReplyReader {
            limits,
            at: 0,
            searched: 0,
            bulk: None,
            open: [OpenAggregate::default(); REPLY_DEPTH_MAX],
            depth: 0,
            items: Vec::new(),
            counted: 0,
            passed: 0,
            dropped: None,
        }
    }

    /// Begins with a new stream.
    pub fn reset(&mut self) {
        *self = ReplyReader::new(self.limits);
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<ReplyItem>()
    }

    /// Reads the reply at the front of `input`. After [`ReplyStep::Incomplete`], `input` must begin
    /// with the same bytes, without those that were of no more use. An error is final.
    pub fn read<'r, 'i>(&'r mut self, input: &'i [u8]) -> Result<ReplyStep<'r, 'i>, ReplyError> {
        if self.at == 0 && self.passed == 0 {
            self.items.clear();
            (self.counted, self.depth) = (0, 0);
        }
        loop {
            let found = self.item(input)?;
            if self.passed + self.at > self.limits.announced_max {
                return Err(ReplyError::TooLarge);
            }
            if self.at > self.limits.kept_max {
                self.drop_reply();
            }
            match found {
                ItemEnd::More => {}
                ItemEnd::Nothing => {
                    let useless = match self.dropped {
                        None => 0,
                        Some(_) => std::mem::take(&mut self.at),
                    };
                    self.passed += useless;
                    return Ok(ReplyStep::Incomplete(useless));
                }
                ItemEnd::End => break,
            }
        }
        let length = std::mem::take(&mut self.at);
        self.passed = 0;
        match self.dropped.take() {
            Some(kind) => Ok(ReplyStep::Dropped(kind, length)),
            None => Ok(ReplyStep::Whole(ReplyView { source: input, items: &self.items }, length)),
        }
    }

    /// Reads one item, the head of an aggregate, or a part of a bulk string that is being dropped.
    fn item(&mut self, input: &[u8]) -> Result<ItemEnd, ReplyError> {
        if let Some(left) = self.bulk {
            return self.bulk(input, left);
        }
        let Some((line, behind)) = self.line(input)? else { return Ok(ItemEnd::Nothing) };
        let marker = input[self.at];
        let start = self.at + 1;
        self.counted += 1;
        if self.counted > REPLY_ITEMS_MAX {
            return Err(ReplyError::TooLarge);
        }
        let kind = match marker {
            b'+' => ReplyKind::Text,
            b'-' => ReplyKind::Error,
            b':' if number(line).is_some() => ReplyKind::Integer,
            b'_' if line.is_empty() => ReplyKind::Null,
            b'#' if matches!(line, b"t" | b"f") => ReplyKind::Boolean,
            b',' if is_double(line) => ReplyKind::Double,
            b'(' if is_big_number(line) => ReplyKind::BigNumber,
            b'$' | b'!' | b'=' => {
                self.at = behind;
                return self.start_bulk(input, marker, line);
            }
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                self.at = behind;
                return self.start_aggregate(marker, line);
            }
            _ => return Err(ReplyError::Line),
        };
        self.at = behind;
        self.push(kind, start, start + line.len());
        Ok(self.ended())
    }

    /// Returns the line at the reader's place, without its marker and CRLF, and the place behind
    /// it.
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, ReplyError> {
        let Some(rest) = input.get(self.at..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let longest = match rest[0] {
            b'+' | b'-' | b'(' => REPLY_LINE_MAX,
            b':' | b'_' | b'#' | b',' | b'$' | b'!' | b'=' => COUNT_LINE_MAX,
            b'*' | b'%' | b'~' | b'>' | b'|' => COUNT_LINE_MAX,
            other => return Err(ReplyError::Marker(other)),
        };
        let searched = self.searched.min(rest.len());
        let Some(end) = memchr::memchr(b'\r', &rest[searched..]).map(|at| at + searched) else {
            self.searched = rest.len();
            return if rest.len() > longest { Err(ReplyError::Line) } else { Ok(None) };
        };
        if end > longest {
            return Err(ReplyError::Line);
        }
        match rest.get(end + 1) {
            None => {
                self.searched = end;
                Ok(None)
            }
            Some(b'\n') => {
                self.searched = 0;
                Ok(Some((&rest[1..end], self.at + end + 2)))
            }
            Some(_) => Err(ReplyError::Line),
        }
    }

    fn start_bulk(&mut self, input: &[u8], marker: u8, line: &[u8]) -> Result<ItemEnd, ReplyError> {
        let length = number(line).ok_or(ReplyError::Line)?;
        if length == -1 && marker == b'$' {
            self.push(ReplyKind::Null, 0, 0);
            return Ok(self.ended());
        }
        let length = usize::try_from(length).map_err(|_| ReplyError::Line)?;
        // So the result does not depend on how much of it has arrived.
        let announced = length.saturating_add(self.passed + self.at + 2);
        if announced > self.limits.announced_max {
            return Err(ReplyError::TooLarge);
        }
        let kind = match marker {
            b'!' => ReplyKind::Error,
            _ => ReplyKind::Text,
        };
        if marker == b'=' && length < FORMAT_LENGTH {
            return Err(ReplyError::Line);
        }
        // A verbatim string begins with its format, such as `txt:`.
        let format = if marker == b'=' { FORMAT_LENGTH } else { 0 };
        self.push(kind, self.at + format, self.at + length);
        if self.at + length + 2 > self.limits.kept_max {
            self.drop_reply();
        }
        self.bulk(input, length + 2)
    }

    /// Reads on in a bulk string of which `left` bytes are to come. They are taken at once, unless
    /// the reply is being dropped.
    fn bulk(&mut self, input: &[u8], left: usize) -> Result<ItemEnd, ReplyError> {
        let there = input.len().saturating_sub(self.at);
        if there < left {
            // The line break is looked at as a whole.
            let taken = match self.dropped {
                None => 0,
                Some(_) => there.min(left.saturating_sub(2)),
            };
            self.at += taken;
            self.bulk = Some(left - taken);
            return Ok(ItemEnd::Nothing);
        }
        self.at += left;
        self.bulk = None;
        match &input[self.at - 2..self.at] {
            b"\r\n" => Ok(self.ended()),
            _ => Err(ReplyError::BulkEnd),
        }
    }

    fn start_aggregate(&mut self, marker: u8, line: &[u8]) -> Result<ItemEnd, ReplyError> {
        let count = number(line).ok_or(ReplyError::Line)?;
        let kind = match marker {
            b'*' if count == -1 => {
                self.push(ReplyKind::Null, 0, 0);
                return Ok(self.ended());
            }
            b'*' => ReplyKind::Array,
            b'~' => ReplyKind::Set,
            // A push is no part of a reply.
            b'>' if self.depth > 0 => return Err(ReplyError::Marker(marker)),
            b'>' => ReplyKind::Push,
            _ => ReplyKind::Map,
        };
        let count = usize::try_from(count).map_err(|_| ReplyError::Line)?;
        let per_entry = if kind == ReplyKind::Map { 2 } else { 1 };
        // Each item has a line of its own.
        if count > (REPLY_ITEMS_MAX - self.counted) / per_entry {
            return Err(ReplyError::TooLarge);
        }
        let left = (count * per_entry) as u32;
        let attributes_after = match marker {
            b'|' => self.items.len() as u32 + 1,
            _ => 0,
        };
        if marker != b'|' {
            self.push(kind, 0, 0);
        }
        let Some(place) = self.open.get_mut(self.depth) else { return Err(ReplyError::TooDeep) };
        *place = OpenAggregate { left, attributes_after };
        self.depth += 1;
        if left > 0 {
            return Ok(ItemEnd::More);
        }
        Ok(self.close())
    }

    /// Begins to drop the current reply.
    fn drop_reply(&mut self) {
        let kind = self.items.first().map_or(ReplyKind::Map, |item| item.kind);
        self.dropped.get_or_insert(kind);
    }

    fn push(&mut self, kind: ReplyKind, start: usize, end: usize) {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        // A dropped reply moves to the front again and again, so its places mean nothing.
        if self.dropped.is_none() || self.items.is_empty() {
            self.items.push(ReplyItem { kind, start: place(start), end: place(end) });
        }
    }

    /// Counts an item as read, and closes all aggregates that end with it.
    fn ended(&mut self) -> ItemEnd {
        match self.depth.checked_sub(1).and_then(|top| self.open.get_mut(top)) {
            None => ItemEnd::End,
            Some(top) => {
                top.left -= 1;
                if top.left > 0 { ItemEnd::More } else { self.close() }
            }
        }
    }

    /// Closes the innermost aggregate, which has no more items to come.
    fn close(&mut self) -> ItemEnd {
        self.depth -= 1;
        match self.open[self.depth].attributes_after {
            0 => self.ended(),
            // The item that they belong to follows.
            after => {
                self.items.truncate(after as usize - 1);
                ItemEnd::More
            }
        }
    }
}

/// Length of the format of a verbatim string with its colon, in bytes.
const FORMAT_LENGTH: usize = 4;

/// The outcome of a step of the reader.
enum ItemEnd {
    /// The end of an item, or the head of an aggregate.
    More,
    /// Nothing yet.
    Nothing,
    /// The end of the reply.
    End,
}

fn is_double(line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).unwrap_or_default();
    !text.starts_with('+') && text.parse::<f64>().is_ok()
}

fn is_big_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::resp::tests::mutated;

    /// A reply as a text, such as `[a :1]`, or why there is none.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Reply(String),
        Dropped(ReplyKind),
        Invalid(ReplyError),
    }

    const LIMITS: ReplyLimits = ReplyLimits { kept_max: 200, announced_max: 1000 };

    fn shown(view: &ReplyView<'_, '_>) -> String {
        let item = |index| {
            let text = view.text_of(index).escape_ascii().to_string();
            format!("{:?}({text})", view.kind_of(index).unwrap())
        };
        (0..view.count()).map(item).collect::<Vec<_>>().join(" ")
    }

    /// Reads a stream that comes in pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: ReplyLimits) -> Vec<Seen> {
        let mut reader = ReplyReader::new(limits);
        let (mut held, mut seen) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                let used = match reader.read(&held) {
                    Ok(ReplyStep::Whole(view, used)) => {
                        seen.push(Seen::Reply(shown(&view)));
                        used
                    }
                    Ok(ReplyStep::Dropped(kind, used)) => {
                        seen.push(Seen::Dropped(kind));
                        used
                    }
                    Ok(ReplyStep::Incomplete(used)) => {
                        held.drain(..used);
                        break;
                    }
                    Err(error) => {
                        seen.push(Seen::Invalid(error));
                        return seen;
                    }
                };
                assert!(used > 0);
                held.drain(..used);
            }
            assert!(held.len() <= limits.kept_max + REPLY_LINE_MAX);
        }
        seen
    }

    /// Asserts the result for a stream as a whole, byte by byte, and with bytes behind it.
    fn check(stream: &[u8], expected: &[Seen]) {
        let name = stream.escape_ascii().to_string();
        assert_eq!(read([stream], LIMITS), expected, "{name}");
        assert_eq!(read(stream.chunks(1), LIMITS), expected, "{name}");
        let mut more = expected.to_vec();
        if !matches!(expected.last(), Some(Seen::Invalid(_))) {
            more.push(Seen::Reply("Text(OK)".into()));
        }
        let trailed = [stream, b"+OK\r\n"].concat();
        assert_eq!(read([&trailed[..]], LIMITS), more, "{name}");
        assert_eq!(read(trailed.chunks(1), LIMITS), more, "{name}");
    }

    #[test]
    fn every_type_of_reply_is_read() {
        for (stream, expected) in [
            ("+OK\r\n", "Text(OK)"),
            ("+\r\n", "Text()"),
            ("-ERR no\r\n", "Error(ERR no)"),
            (":0\r\n", "Integer(0)"),
            (":-9223372036854775808\r\n", "Integer(-9223372036854775808)"),
            ("$0\r\n\r\n", "Text()"),
            ("$5\r\na\r\nb\n\r\n", "Text(a\\r\\nb\\n)"),
            ("$-1\r\n", "Null()"),
            ("*-1\r\n", "Null()"),
            ("_\r\n", "Null()"),
            ("#t\r\n#f\r\n", "Boolean(t)|Boolean(f)"),
            (",1.5\r\n,-inf\r\n,nan\r\n,10\r\n", "Double(1.5)|Double(-inf)|Double(nan)|Double(10)"),
            ("(-123456789012345678901234567890\r\n", "BigNumber(-123456789012345678901234567890)"),
            ("!8\r\nERR a\r\nb\r\n", "Error(ERR a\\r\\nb)"),
            ("=7\r\ntxt:a b\r\n", "Text(a b)"),
            ("=4\r\ntxt:\r\n", "Text()"),
            ("*0\r\n", "Array()"),
            ("*2\r\n$1\r\na\r\n:1\r\n", "Array() Text(a) Integer(1)"),
            ("*2\r\n*1\r\n*0\r\n_\r\n", "Array() Array() Array() Null()"),
            ("%1\r\n+a\r\n%0\r\n", "Map() Text(a) Map()"),
            ("~1\r\n+a\r\n", "Set() Text(a)"),
            (">2\r\n+message\r\n$1\r\nx\r\n", "Push() Text(message) Text(x)"),
            ("|1\r\n+ttl\r\n:5\r\n+OK\r\n", "Text(OK)"),
            ("|0\r\n+OK\r\n", "Text(OK)"),
            ("*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n+b\r\n+c\r\n", "Array() Text(b) Text(c)"),
            ("|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n+d\r\n>1\r\n+e\r\n", "Push() Text(e)"),
        ] {
            let expected: Vec<Seen> =
                expected.split('|').map(|text| Seen::Reply(text.into())).collect();
            check(stream.as_bytes(), &expected);
        }
    }

    #[test]
    fn a_stream_that_is_no_sequence_of_replies_is_refused() {
        use ReplyError::{BulkEnd, Line, Marker, TooDeep, TooLarge};
        for (stream, error) in [
            ("HTTP/1.1 400 Bad Request\r\n", Marker(b'H')),
            ("\r\n", Marker(b'\r')),
            ("PING\r\n", Marker(b'P')),
            (":\r\n", Line),
            (":+1\r\n", Line),
            (":01\r\n", Line),
            (":9223372036854775808\r\n", Line),
            (":1\rx", Line),
            ("_x\r\n", Line),
            ("#y\r\n", Line),
            (",x\r\n", Line),
            ("(\r\n", Line),
            ("(1a\r\n", Line),
            ("$\r\n", Line),
            ("$-2\r\n", Line),
            ("$?\r\n", Line),
            ("*?\r\n", Line),
            ("*-2\r\n", Line),
            ("%-1\r\n", Line),
            ("=3\r\ntxt\r\n", Line),
            ("!-1\r\n", Line),
            ("$1\r\nab\r\n", BulkEnd),
            ("$1\r\na\rb", BulkEnd),
            ("*1\r\n>1\r\n+a\r\n", Marker(b'>')),
            ("$9223372036854775807\r\n", TooLarge),
            ("*9223372036854775807\r\n", TooLarge),
            ("%4611686018427387904\r\n", TooLarge),
            ("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", TooDeep),
        ] {
            check(stream.as_bytes(), &[Seen::Invalid(error)]);
        }
    }

    #[test]
    fn every_limit_of_a_reply_holds_at_its_bound() {
        let is_invalid = |stream: &[u8], limits: ReplyLimits| {
            let whole = read([stream], limits);
            assert_eq!(read(stream.chunks(7), limits), whole);
            matches!(whole.last(), Some(Seen::Invalid(_)))
        };
        let large = ReplyLimits { kept_max: 1 << 20, announced_max: 1 << 20 };
        for (more, fails) in [(0, false), (1, true)] {
            let line = format!("+{}\r\n", "x".repeat(REPLY_LINE_MAX - 1 + more));
            assert_eq!(is_invalid(line.as_bytes(), large), fails, "a line");
            let endless = "x".repeat(REPLY_LINE_MAX - 1 + more);
            assert_eq!(is_invalid(format!("-{endless}").as_bytes(), large), fails, "no line");
            let digits = format!(":{}", "1".repeat(COUNT_LINE_MAX - 1 + more));
            assert_eq!(is_invalid(digits.as_bytes(), large), fails, "a number");
            let items = format!("*{}\r\n", REPLY_ITEMS_MAX - 1 + more);
            let stream = items + &"_\r\n".repeat(REPLY_ITEMS_MAX - 1);
            assert_eq!(is_invalid(stream.as_bytes(), large), fails, "items");
            let deep = "*1\r\n".repeat(REPLY_DEPTH_MAX + more) + "_\r\n";
            assert_eq!(is_invalid(deep.as_bytes(), large), fails, "depth");
            let announced = format!("${}\r\n", LIMITS.announced_max - 8 + more);
            assert_eq!(is_invalid(announced.as_bytes(), LIMITS), fails, "an announced length");
        }
        // Attributes count, although they are dropped.
        let attributes = "|1\r\n_\r\n_\r\n".repeat(REPLY_ITEMS_MAX);
        assert!(is_invalid(attributes.as_bytes(), large));
    }

    #[test]
    fn a_reply_over_the_limit_is_dropped_without_being_held_and_the_next_one_is_read() {
        let push = |length: usize| {
            let payload = "x".repeat(length);
            format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n${length}\r\n{payload}\r\n")
        };
        // Without the payload, the push takes 32 bytes.
        let kept = LIMITS.kept_max - 32;
        for (length, is_kept) in [(kept - 1, true), (kept, true), (kept + 1, false), (900, false)] {
            let stream = push(length);
            match (read([stream.as_bytes()], LIMITS)[..].first(), is_kept) {
                (Some(Seen::Reply(_)), true) | (Some(Seen::Dropped(ReplyKind::Push)), false) => {}
                (seen, _) => panic!("{length}: {seen:?}"),
            }
            check(stream.as_bytes(), &read([stream.as_bytes()], LIMITS));
        }
        let many = format!("*40\r\n{}", ":12345\r\n".repeat(40));
        check(many.as_bytes(), &[Seen::Dropped(ReplyKind::Array)]);
        // While it is dropped, the bytes are of no use as soon as they are there.
        let mut reader = ReplyReader::new(LIMITS);
        let stream = push(900);
        let Ok(ReplyStep::Incomplete(useless)) = reader.read(&stream.as_bytes()[..600]) else {
            panic!("not incomplete")
        };
        assert_eq!(useless, 600);
    }

    #[test]
    fn a_dropped_reply_that_never_ends_is_an_error() {
        let piece = format!("$150\r\n{}\r\n", "x".repeat(150));
        let stream = format!("*40\r\n{}", piece.repeat(40));
        let seen = read(stream.as_bytes().chunks(64), LIMITS);
        assert_eq!(seen, [Seen::Invalid(ReplyError::TooLarge)]);
    }

    #[test]
    fn a_mutated_stream_gives_the_same_replies_in_pieces_of_any_size() {
        const ALPHABET: &[u8] = b"+-:_#,($!=*%~>|0123456789\r\n\r\ntfinfx\xff";
        let seeds: [&[u8]; 4] = [
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n:1\r\n+OK\r\n",
            b"%2\r\n$5\r\nproto\r\n:3\r\n+modules\r\n*1\r\n%1\r\n+a\r\n,1.5\r\n-ERR x\r\n",
            b"|1\r\n+a\r\n#t\r\n*3\r\n$-1\r\n_\r\n(12345678901234567890\r\n~1\r\n=5\r\ntxt:x\r\n",
            b"*2\r\n*0\r\n!5\r\nERR a\r\n$40\r\n0123456789012345678901234567890123456789\r\n:5\r\n",
        ];
        let limits = ReplyLimits { kept_max: 40, announced_max: 80 };
        let (mut replies, mut dropped, mut errors) = (0, 0, 0);
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let stream = mutated(&mut random, &seeds, ALPHABET, 0..4);
            let whole = read([&stream[..]], limits);
            for size in [1, random.usize(2..9)] {
                let pieces = read(stream.chunks(size), limits);
                assert_eq!(pieces, whole, "seed {seed}: {}", stream.escape_ascii());
            }
            for seen in whole {
                match seen {
                    Seen::Reply(_) => replies += 1,
                    Seen::Dropped(_) => dropped += 1,
                    Seen::Invalid(_) => errors += 1,
                }
            }
        }
        assert!(
            replies > 15_000 && dropped > 500 && errors > 5_000,
            "{replies} {dropped} {errors}"
        );
    }

    #[test]
    fn a_debug_text_of_a_reply_does_not_show_its_bytes() {
        let mut reader = ReplyReader::new(LIMITS);
        let Ok(ReplyStep::Whole(view, _)) = reader.read(b"$6\r\nsecret\r\n") else { panic!() };
        assert_eq!(format!("{view:?}"), "[Text]");
    }
}
