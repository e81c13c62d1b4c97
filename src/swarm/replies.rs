//! A parser for the hub's replies, as a Redis client has one. It is independent of the server's
//! codec, so it can find errors there.

/// One reply, or one push message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    /// A bulk string, or a verbatim one without its format.
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Push(Vec<Value>),
    /// Keys and values, alternating.
    Map(Vec<Value>),
}

/// The result of parsing the front of some bytes.
pub enum Front {
    /// A whole reply and its length in bytes.
    Whole(Value, usize),
    /// The beginning of a reply.
    Partial,
    /// Not a reply.
    Wrong,
}

/// Maximum nesting of the hub's replies.
const DEPTH_MAX: usize = 4;

/// Parses one reply at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Front {
    let mut at = 0;
    match value(bytes, &mut at, DEPTH_MAX) {
        Ok(value) => Front::Whole(value, at),
        Err(Stop::Partial) => Front::Partial,
        Err(Stop::Wrong) => Front::Wrong,
    }
}

enum Stop {
    Partial,
    Wrong,
}

fn value(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Value, Stop> {
    let kind = *bytes.get(*at).ok_or(Stop::Partial)?;
    let end = bytes[*at..].windows(2).position(|pair| pair == b"\r\n").ok_or(Stop::Partial)? + *at;
    let line = std::str::from_utf8(&bytes[*at + 1..end]).map_err(|_| Stop::Wrong)?;
    *at = end + 2;
    let number = || line.parse::<i64>().map_err(|_| Stop::Wrong);
    match kind {
        b'+' => Ok(Value::Simple(line.into())),
        b'-' => Ok(Value::Error(line.into())),
        b':' => Ok(Value::Integer(number()?)),
        b'_' if line.is_empty() => Ok(Value::Null),
        b'$' | b'*' if number()? == -1 => Ok(Value::Null),
        b'$' => bulk(bytes, at, number()?),
        b'=' => match bulk(bytes, at, number()?)? {
            Value::Bulk(text) if text.starts_with(b"txt:") => Ok(Value::Bulk(text[4..].to_vec())),
            _ => Err(Stop::Wrong),
        },
        b'*' => Ok(Value::Array(values(bytes, at, number()?, depth)?)),
        b'>' => Ok(Value::Push(values(bytes, at, number()?, depth)?)),
        b'%' => Ok(Value::Map(values(bytes, at, 2 * number()?, depth)?)),
        _ => Err(Stop::Wrong),
    }
}

fn bulk(bytes: &[u8], at: &mut usize, length: i64) -> Result<Value, Stop> {
    let length = usize::try_from(length).map_err(|_| Stop::Wrong)?;
    let rest = &bytes[*at..];
    if rest.len() < length + 2 {
        return Err(Stop::Partial);
    }
    *at += length + 2;
    if &rest[length..length + 2] == b"\r\n" {
        Ok(Value::Bulk(rest[..length].to_vec()))
    } else {
        Err(Stop::Wrong)
    }
}

fn values(bytes: &[u8], at: &mut usize, count: i64, depth: usize) -> Result<Vec<Value>, Stop> {
    if depth == 0 || count < 0 {
        return Err(Stop::Wrong);
    }
    (0..count).map(|_| value(bytes, at, depth - 1)).collect()
}

impl Value {
    /// Returns the elements of an array or a push message, and none for other values.
    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(elements) | Value::Push(elements) => elements,
            _ => &[],
        }
    }

    /// Returns the bytes of a bulk string, simple string or error, and none for other values.
    pub fn text(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) => bytes,
            Value::Simple(text) | Value::Error(text) => text.as_bytes(),
            _ => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_parsed_only_when_it_is_whole() {
        let bytes = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let bulk = |text: &[u8]| Value::Bulk(text.into());
        for end in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..end]), Front::Partial), "{end}");
        }
        let Front::Whole(value, length) = parse(&[bytes, &b"+OK\r\n"[..]].concat()) else {
            panic!("whole")
        };
        assert_eq!(
            (value.elements(), length),
            (&[bulk(b"subscribe"), bulk(b"a"), Value::Integer(1)][..], bytes.len())
        );
        assert!(matches!(parse(b"%1\r\n+a\r\n_\r\n"), Front::Whole(Value::Map(_), 11)));
        assert!(matches!(parse(b"$-1\r\n"), Front::Whole(Value::Null, 5)));
        assert!(matches!(parse(b"=5\r\ntxt:a\r\n"), Front::Whole(text, 11) if text == bulk(b"a")));
        for wrong in [&b"x\r\n"[..], b"=1\r\na\r\n", b"$x\r\n", b"$1\r\nabc", b":\r\n", b"*-2\r\n"]
        {
            assert!(matches!(parse(wrong), Front::Wrong), "{}", wrong.escape_ascii());
        }
    }
}
