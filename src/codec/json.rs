//! JSON for all codecs and protocols that speak it: texts, and a bound on depth.

use std::borrow::Cow;

use serde::Deserialize;

use crate::limits::JSON_DEPTH_MAX;

/// A string. Without escapes it is borrowed from the text, also inside an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct JsonText<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Returns true if a text has more than [`JSON_DEPTH_MAX`] levels of objects and arrays. A text
/// that is no JSON gives either.
pub fn is_too_deep(text: &[u8]) -> bool {
    is_deeper_than(text, JSON_DEPTH_MAX)
}

/// Returns true if a text has more levels of objects and arrays. A text that is no JSON gives
/// either.
pub fn is_deeper_than(text: &[u8], levels: usize) -> bool {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = text.get(at)
                    && *byte != b'"'
                {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
        at += 1;
    }
    false
}
