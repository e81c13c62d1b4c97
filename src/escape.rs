//! Makes foreign text safe for a log and a terminal.
//!
//! A peer, a file or the environment chooses such text. A terminal obeys control characters in it:
//! they can hide lines, change its title, or type on some. Line breaks could forge lines of the
//! log, and bidirectional controls show a text in another order than it is read.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns the text on one line: each control character, line breaks and tabs included, becomes an
/// escape such as `\u001b`, as in JSON and TOML.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_control)
}

/// Returns a text of several lines. It keeps its line breaks and tabs, and other control characters
/// become escapes.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |one| is_control(one) && !matches!(one, '\n' | '\t'))
}

/// Returns any bytes as text on one line. Bytes that are not UTF-8 become escapes such as `\xff`.
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&line(chunk.valid()));
        // Writing to a String cannot fail.
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for one in text.chars() {
        let code = u32::from(one);
        // Writing to a String cannot fail.
        let _ = match one {
            _ if !is_unsafe(one) => write!(out, "{one}"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            _ if code > 0xffff => write!(out, "\\U{code:08x}"),
            _ => write!(out, "\\u{code:04x}"),
        };
    }
    Cow::Owned(out)
}

/// Returns true for the control characters C0, DEL and C1, the separators of lines and paragraphs,
/// the bidirectional controls (UAX 9), and the invisible tags.
fn is_control(one: char) -> bool {
    one.is_control()
        || matches!(
            one,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_control_characters_stays_as_it_is() {
        for text in ["", "a b", "Zürich 東京 🚆 👩‍🚒 ÷ µs", "c:\\path \"'"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
            assert_eq!(bytes(text.as_bytes()), text);
        }
    }

    #[test]
    fn each_control_character_becomes_an_escape() {
        for (text, expected) in [
            ("\x1b[2J", "\\u001b[2J"),
            ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\0\x08\x7f", "\\u0000\\u0008\\u007f"),
            ("\u{85}\u{9b}31m", "\\u0085\\u009b31m"),
            ("\u{202e}drowssap\u{2066}", "\\u202edrowssap\\u2066"),
            ("\u{2028}\u{200f}\u{61c}\u{feff}", "\\u2028\\u200f\\u061c\\ufeff"),
            ("\u{e0041}", "\\U000e0041"),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\n\tb\r\n\x1bc"), "a\n\tb\\r\n\\u001bc");
    }

    #[test]
    fn bytes_that_are_not_utf_8_become_escapes() {
        assert_eq!(bytes(b"a\xff\xc3\xa9\x9b\xe2\x82"), "a\\xff\u{e9}\\x9b\\xe2\\x82");
        let all: Vec<u8> = (0..=255).collect();
        assert!(bytes(&all).chars().all(|one| !is_control(one)));
    }
}
