//! JSON as WebSocket clients speak it to the hub: how payloads and names become values and back.
//!
//! A payload is bytes. Its value loses nothing:
//! - The JSON text of an object, array, number, `true`, `false` or `null` is the value itself.
//! - Any other UTF-8 text is a string. So is a text that is itself a JSON string in quotes.
//! - Other bytes are a string of base64, under the key `base64` in place of `data`.
//!
//! The other way, a string stands for its own bytes, and any other value for its JSON text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::codec::events::base64;
pub use crate::codec::json::{JsonText, is_too_deep, string};
use crate::codec::socketio::is_reserved;

/// Appends a message to a subscriber, such as `{"channel":"news","data":"hello"}`.
pub fn message(out: &mut Vec<u8>, pattern: Option<&[u8]>, channel: &[u8], payload: &[u8]) {
    out.push(b'{');
    name(out, "channel", channel);
    if let Some(pattern) = pattern {
        out.push(b',');
        name(out, "pattern", pattern);
    }
    match std::str::from_utf8(payload) {
        Ok(text) => {
            out.extend_from_slice(b",\"data\":");
            value(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b",\"base64\":\"");
            base64(out, payload);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Appends the notice that messages of a channel or pattern may be missing: `{"gap":"news"}`.
pub fn gap(out: &mut Vec<u8>, topic: &[u8]) {
    out.push(b'{');
    name(out, "gap", topic);
    out.push(b'}');
}

/// Appends the value that stands for a payload of UTF-8. The caller has checked the encoding,
/// because the parser does not check the bytes inside strings that it skips.
pub fn value(out: &mut Vec<u8>, payload: &str) {
    match is_value(payload.as_bytes()) {
        true => out.extend_from_slice(payload.as_bytes()),
        false => string(out, payload),
    }
}

/// Appends a payload that routes publish and emit: any JSON is the value itself, a string too.
/// Other text is a string.
pub fn any_value(out: &mut Vec<u8>, payload: &str) {
    match is_string(payload.as_bytes()) {
        true => out.extend_from_slice(payload.as_bytes()),
        false => value(out, payload),
    }
}

/// Appends the value that stands for a payload. Bytes that are no text are an object with their
/// base64.
pub fn value_or_bytes(out: &mut Vec<u8>, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => value(out, text),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            base64(out, payload);
            out.extend_from_slice(b"\"}");
        }
    }
}

/// Returns true if a payload is the JSON text of a string. The caller knows that it is UTF-8.
pub fn is_string(payload: &[u8]) -> bool {
    payload.first() == Some(&b'"') && serde_json::from_slice::<IgnoredAny>(payload).is_ok()
}

/// Returns true if a payload is the JSON text of an event of Socket.IO with its arguments: an array
/// that begins with a name that is not reserved.
pub fn is_event(payload: &[u8]) -> bool {
    let inner = payload.strip_prefix(b"[").unwrap_or_default().trim_ascii_start();
    inner.first() == Some(&b'"')
        && is_value(payload)
        && serde_json::Deserializer::from_slice(inner)
            .into_iter::<JsonText<'_>>()
            .next()
            .is_some_and(|name| name.is_ok_and(|JsonText(name)| !is_reserved(&name)))
}

/// Appends a key and a name of a channel or pattern. A name that is not UTF-8 is in base64, and its
/// key says so.
pub fn name(out: &mut Vec<u8>, key: &str, name: &[u8]) {
    match std::str::from_utf8(name) {
        Ok(text) => {
            key_to(out, key, "");
            string(out, text);
        }
        Err(_) => {
            key_to(out, key, "_base64");
            out.push(b'"');
            base64(out, name);
            out.push(b'"');
        }
    }
}

fn key_to(out: &mut Vec<u8>, key: &str, suffix: &str) {
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Returns true if a payload is the JSON text of a value other than a string. Space around it, and
/// depth beyond `JSON_DEPTH_MAX`, make it a string.
fn is_value(payload: &[u8]) -> bool {
    let (Some(first), Some(last)) = (payload.first(), payload.last()) else { return false };
    let begins = matches!(first, b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n');
    begins
        && !last.is_ascii_whitespace()
        && !is_too_deep(payload)
        && serde_json::from_slice::<IgnoredAny>(payload).is_ok()
}

/// Returns the payload that a value stands for. Returns `None` for a string that holds half of a
/// surrogate pair, because that is no text.
pub fn payload(value: &RawValue) -> Option<Cow<'_, [u8]>> {
    let text = value.get();
    if !text.starts_with('"') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    match serde_json::from_str::<JsonText<'_>>(text) {
        Ok(JsonText(Cow::Borrowed(text))) => Some(Cow::Borrowed(text.as_bytes())),
        Ok(JsonText(Cow::Owned(text))) => Some(Cow::Owned(text.into_bytes())),
        Err(_) => None,
    }
}

/// Returns the bytes that a text of base64 stands for.
pub fn bytes(base64: &str) -> Option<Vec<u8>> {
    STANDARD.decode(base64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JSON_DEPTH_MAX;

    fn told(payload: &[u8]) -> String {
        let mut out = Vec::new();
        message(&mut out, None, b"c", payload);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_payload_has_a_value_that_stands_for_exactly_its_bytes() {
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        let (at, over) = (deep(JSON_DEPTH_MAX), deep(JSON_DEPTH_MAX + 1));
        for (payload, value) in [
            (&b"hello"[..], r#""hello""#),
            (b"", r#""""#),
            (b"{\"a\":[1,2.50]}", r#"{"a":[1,2.50]}"#),
            (b"12345678901234567890", "12345678901234567890"),
            (b"-1.5e3", "-1.5e3"),
            (b"true", "true"),
            (b"null", "null"),
            (b"\"quoted\"", r#""\"quoted\"""#),
            (b" 1", r#"" 1""#),
            (b"1\n", r#""1\n""#),
            (b"[1", r#""[1""#),
            (b"01", r#""01""#),
            (b"{\"a\":1} x", r#""{\"a\":1} x""#),
            (at.as_bytes(), &at),
            (over.as_bytes(), &format!("\"{over}\"")),
            ("ä\u{0}\u{2028}".as_bytes(), "\"ä\\u0000\u{2028}\""),
        ] {
            let text = told(payload);
            assert_eq!(text, format!(r#"{{"channel":"c","data":{value}}}"#));
            let parsed: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&text).unwrap();
            assert_eq!(parsed.len(), 2);
            let raw: Box<RawValue> = serde_json::from_str(value).unwrap();
            let stands_for = super::payload(&raw).unwrap();
            assert_eq!(*stands_for, *payload, "{}", payload.escape_ascii());
        }
    }

    #[test]
    fn a_route_keeps_the_type_of_a_string() {
        for (payload, value) in [
            (r#""5""#, r#""5""#),
            (r#""""#, r#""""#),
            ("5", "5"),
            ("five", r#""five""#),
            (r#"""#, r#""\"""#),
            (r#""a"b""#, r#""\"a\"b\"""#),
        ] {
            let mut out = Vec::new();
            any_value(&mut out, payload);
            assert_eq!(String::from_utf8(out).unwrap(), value, "{payload}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        assert_eq!(told(b"\xff\x00"), r#"{"channel":"c","base64":"/wA="}"#);
        assert_eq!(told(b"{\"a\":\"\xff\"}"), r#"{"channel":"c","base64":"eyJhIjoi/yJ9"}"#);
        assert_eq!(bytes("/wA=").as_deref(), Some(&b"\xff\x00"[..]));
        assert_eq!(bytes("/w"), None);
        let mut out = Vec::new();
        message(&mut out, Some(b"c*"), b"c\xff", b"1");
        let expected = r#"{"channel_base64":"Y/8=","pattern":"c*","data":1}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn half_a_surrogate_pair_is_no_payload() {
        let raw: Box<RawValue> = serde_json::from_str(r#""\ud800""#).unwrap();
        assert!(payload(&raw).is_none());
    }
}
