//! The key of a message: a field of the JSON object that is its payload.
//!
//! A key is a string, a number, `true` or `false`. Strings are compared as texts, whatever their
//! escapes, and numbers as they are written: 1 and 1.0 are two keys.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::hub::json::{JsonText, is_too_deep};
use crate::limits::RETAINED_KEY_MAX;

/// The key of a message, and what the message does to it.
#[derive(Debug, PartialEq, Eq)]
pub struct MessageKey<'a> {
    /// The JSON text of the key, in one form for each value.
    pub text: Cow<'a, [u8]>,
    /// True if the object has `"deleted":true`.
    pub removes: bool,
}

/// The members of an object that matter: the key and `deleted`.
struct Members<'f>(&'f str);

/// Returns the key of a payload. Returns `None` if the payload is no JSON object with a suitable
/// field of this name.
pub fn key_of<'a>(payload: &'a [u8], field: &str) -> Option<MessageKey<'a>> {
    if payload.first() != Some(&b'{') || is_too_deep(payload) {
        return None;
    }
    let text = std::str::from_utf8(payload).ok()?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let (key, removes) = Members(field).deserialize(&mut parser).ok()?;
    parser.end().ok()?;
    let key = key?;
    let text = match key.as_bytes() {
        [b'"', ..] if key.contains('\\') => {
            let JsonText(text) = serde_json::from_str(key).ok()?;
            Cow::Owned(serde_json::to_vec(&text).ok()?)
        }
        [b'"' | b'-' | b'0'..=b'9' | b't' | b'f', ..] => Cow::Borrowed(key.as_bytes()),
        // A null, an object or an array.
        _ => return None,
    };
    (text.len() <= RETAINED_KEY_MAX).then_some(MessageKey { text, removes })
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = (Option<&'de str>, bool);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = (Option<&'de str>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// As in JavaScript, the last of several members with one name counts.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut key, mut removes) = (None, false);
        while let Some(JsonText(name)) = map.next_key()? {
            let is_deleted = name == "deleted";
            if name == self.0 || is_deleted {
                let value = map.next_value::<&RawValue>()?.get();
                if name == self.0 {
                    key = Some(value);
                }
                if is_deleted {
                    removes = value == "true";
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((key, removes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_field_of_an_object_and_is_compared_as_a_value() {
        for (payload, expected) in [
            (r#"{"id":5,"checked":true}"#, Some(("5", false))),
            (r#"{"checked":true,"id":5}"#, Some(("5", false))),
            (r#"{ "id" : 5 }"#, Some(("5", false))),
            (r#"{"id":"ada"}"#, Some((r#""ada""#, false))),
            (r#"{"id":"\u0061da"}"#, Some((r#""ada""#, false))),
            (r#"{"id":"\u00e4"}"#, Some(("\"ä\"", false))),
            (r#"{"\u0069d":1}"#, Some(("1", false))),
            (r#"{"id":1,"id":2}"#, Some(("2", false))),
            (r#"{"id":-1.50}"#, Some(("-1.50", false))),
            (r#"{"id":true}"#, Some(("true", false))),
            (r#"{"id":5,"deleted":true}"#, Some(("5", true))),
            (r#"{"id":5,"deleted":false}"#, Some(("5", false))),
            (r#"{"id":5,"deleted":"true"}"#, Some(("5", false))),
            (r#"{"id":5,"deleted":[true]}"#, Some(("5", false))),
            (r#"{"id":5,"x":{"id":7,"deleted":true}}"#, Some(("5", false))),
            (r#"{"id":null}"#, None),
            (r#"{"id":[5]}"#, None),
            (r#"{"id":{"a":5}}"#, None),
            (r#"{"other":5}"#, None),
            (r#"{"id":5"#, None),
            (r#"{"id":5}x"#, None),
            (r#"{"id":"\ud800"}"#, None),
            (r#"[{"id":5}]"#, None),
            (r#"5"#, None),
            ("", None),
        ] {
            let found = key_of(payload.as_bytes(), "id");
            let found = found.map(|key| (String::from_utf8(key.text.into()).unwrap(), key.removes));
            let expected = expected.map(|(key, removes)| (key.to_string(), removes));
            assert_eq!(found, expected, "{payload}");
        }
        assert_eq!(key_of(b"{\"id\":\"\xff\"}", "id"), None);
        let deep = format!(r#"{{"id":5,"x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        assert_eq!(key_of(deep.as_bytes(), "id"), None);
    }

    #[test]
    fn a_key_has_at_most_255_bytes() {
        for (length, fits) in [(254, true), (255, true), (256, false)] {
            let payload = format!(r#"{{"id":"{}"}}"#, "x".repeat(length - 2));
            assert_eq!(key_of(payload.as_bytes(), "id").is_some(), fits, "{length}");
        }
    }
}
