//! The words of a command: how they are looked at, and shown in errors.

use std::borrow::Cow;

use crate::codec::resp::{self, Command};
use crate::limits::SHOWN_MAX;

/// Word `index` of a command; nothing where there is none.
pub fn word<'a>(words: Command<'a>, index: usize) -> &'a [u8] {
    words.get(index).unwrap_or_default()
}

pub fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// A peer's word as errors show it: not longer than people read.
pub fn shown(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)])
}

pub fn wrong_number(name: &str, out: &mut Vec<u8>) {
    resp::error(out, format!("ERR wrong number of arguments for '{name}' command").as_bytes());
}
