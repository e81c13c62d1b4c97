//! RESP as a client speaks it: writes commands, and finds the end of a reply; sans-IO.

use super::answer::{ANSWER_MAX, Answer, WRONG};
use crate::codec::resp;

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
            return Answer::Wrong(WRONG);
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
                _ => return Answer::Wrong(WRONG),
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match length() {
                Some(length @ 0..) if (length as u64) < ANSWER_MAX as u64 => {
                    let each = if matches!(line[0], b'%' | b'|') { 2 } else { 1 };
                    left += length as u64 * each + u64::from(line[0] == b'|');
                }
                Some(-1) => {}
                _ => return Answer::Wrong(WRONG),
            },
            _ => return Answer::Wrong(WRONG),
        }
    }
    Answer::Whole {
        length: at,
        is_error: last_line == 0 && matches!(bytes[0], b'-' | b'!'),
        is_last: false,
    }
}
