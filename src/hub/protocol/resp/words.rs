//! The words of a command: access, comparison, and quotation in errors.

use std::borrow::Cow;

use crate::codec::resp::{self, Command};
use crate::limits::SHOWN_MAX;

/// Returns word `index` of a command, or an empty word.
pub fn word<'a>(words: Command<'a>, index: usize) -> &'a [u8] {
    words.get(index).unwrap_or_default()
}

/// Compares without regard to case.
pub fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Returns a client's word for an error text, cut to [`SHOWN_MAX`] bytes.
pub fn shown(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)])
}

/// Appends the error for a wrong number of arguments.
pub fn wrong_number(name: &str, out: &mut Vec<u8>) {
    resp::error(out, format!("ERR wrong number of arguments for '{name}' command").as_bytes());
}
