//! Notices about the retained values of a channel, which all servers get on a channel beside it.

use std::str;

use crate::limits::WRITE_NUMBERS;

/// The start of the names of the channels of notices.
pub const NOTICES: &[u8] = b"slabd:kept:";

/// The life of a hash. It changes when the broker has lost values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Random; 0: not known.
    pub name: u64,
    /// Values with a smaller number are older than this life. 0: none are left.
    pub from: u64,
}

impl Life {
    /// Returns the text that the broker has.
    pub fn text(&self) -> String {
        format!("{:016x}:{}", self.name, self.from)
    }

    fn of(text: &[u8]) -> Option<Life> {
        let (name, from) = str::from_utf8(text).ok()?.split_once(':')?;
        Some(Life { name: u64::from_str_radix(name, 16).ok()?, from: number_of(from.as_bytes())? })
    }
}

/// A notice. A script publishes it in the same step as the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'i> {
    /// `NUMBER` or `NUMBER TOKEN`: the next message of the channel is the value of this number. A
    /// token says which server has delivered it already, while it had no link.
    Written { number: u64, token: Option<&'i [u8]> },
    /// `-FIELD`: this value has made room for others.
    Evicted(&'i [u8]),
    /// `=TOKEN LIFE NUMBER`: a server has come. This is the last number so far.
    Opened { token: &'i [u8], life: Life, number: u64 },
    /// `+TOKEN`: a server has restored values that the broker had lost.
    Restored(&'i [u8]),
    /// `*TOKEN`: what a server has published before has come back, or never will.
    Reached(&'i [u8]),
}

impl<'i> Notice<'i> {
    /// Returns the notice of a payload. Anybody may publish anything there.
    pub fn of(payload: &'i [u8]) -> Option<Notice<'i>> {
        let (first, rest) = payload.split_first()?;
        match first {
            b'-' => Some(Notice::Evicted(rest)),
            b'+' => Some(Notice::Restored(rest)),
            b'*' => Some(Notice::Reached(rest)),
            b'=' => {
                let mut words = rest.split(|byte| *byte == b' ');
                let token = words.next()?;
                let life = Life::of(words.next()?)?;
                let number = number_of(words.next()?)?;
                Some(Notice::Opened { token, life, number })
            }
            _ => {
                let mut words = payload.splitn(2, |byte| *byte == b' ');
                let number = number_of(words.next()?)?;
                Some(Notice::Written { number, token: words.next() })
            }
        }
    }
}

/// Returns a number of a write. A larger one would stay in the hash for good.
fn number_of(text: &[u8]) -> Option<u64> {
    let number = str::from_utf8(text).ok()?.parse().ok()?;
    (number < WRITE_NUMBERS).then_some(number)
}

/// Returns the number and the message of a value.
pub fn value_of(value: &[u8]) -> Option<(u64, &[u8])> {
    let blank = value.iter().position(|byte| *byte == b' ')?;
    let number = str::from_utf8(&value[..blank]).ok()?.parse().ok()?;
    Some((number, &value[blank + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_reads_back_and_nonsense_is_none() {
        let life = Life { name: 0x1f, from: 5 };
        let opened = format!("=ab {} 7", life.text());
        for (payload, expected) in [
            ("7", Some(Notice::Written { number: 7, token: None })),
            ("7 ab", Some(Notice::Written { number: 7, token: Some(b"ab") })),
            ("-\"a b\"", Some(Notice::Evicted(b"\"a b\""))),
            ("-", Some(Notice::Evicted(b""))),
            ("*ab", Some(Notice::Reached(b"ab"))),
            ("+ab", Some(Notice::Restored(b"ab"))),
            (&opened, Some(Notice::Opened { token: b"ab", life, number: 7 })),
            ("=ab 1f", None),
            ("=ab x 7", None),
            ("=ab 1f 7", None),
            ("=ab 1f:x 7", None),
            ("=ab 1f:5 100000000000000", None),
            ("99999999999999", Some(Notice::Written { number: WRITE_NUMBERS - 1, token: None })),
            ("100000000000000", None),
            ("18446744073709551615", None),
            ("", None),
            ("x", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(Notice::of(payload.as_bytes()), expected, "{payload}");
        }
        assert_eq!(value_of(b"12 {} x"), Some((12, &b"{} x"[..])));
        assert_eq!(value_of(b"0 "), Some((0, &b""[..])));
        for nonsense in [&b"12"[..], b"", b" x", b"-1 x", b"x y"] {
            assert_eq!(value_of(nonsense), None);
        }
    }
}
