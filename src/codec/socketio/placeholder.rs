//! Placeholders: the objects in a packet's JSON that stand for its attachments.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::engineio::BadPacket;
use crate::codec::json::JsonText;

/// Stands for the first attachment.
pub const PLACEHOLDER: &[u8] = b"{\"_placeholder\":true,\"num\":0}";

const MARK: &str = "_placeholder";
const NUMBER: &str = "num";

/// Returns the attachment that a value of a binary packet stands for, or `None` if the value is
/// none. The packet has `attachments` of them.
pub fn placeholder(value: &RawValue, attachments: usize) -> Option<Result<usize, BadPacket>> {
    if !value.get().starts_with('{') {
        return None;
    }
    let marks: Marks<'_> = serde_json::from_str(value.get()).ok()?;
    marks.attachment(attachments)
}

/// Checks that each placeholder in the JSON of a packet, at any depth, stands for one of so many
/// attachments. The JSON is valid.
pub fn check_placeholders(json: &str, attachments: usize) -> Result<(), BadPacket> {
    let mut open: Vec<Marks<'_>> = Vec::new();
    let mut rest = json;
    while let Some(at) = rest.find(['"', '{', '[', '}', ']']) {
        let (byte, found) = (rest.as_bytes()[at], &rest[at..]);
        rest = &found[1..];
        match byte {
            b'{' | b'[' => open.push(Marks::default()),
            b'}' | b']' => {
                let closed = open.pop().and_then(|marks| marks.attachment(attachments));
                closed.transpose()?;
            }
            _ => {
                let (string, behind) = found.split_at(end_of_string(found));
                rest = behind;
                let value = behind.trim_start().strip_prefix(':').map(str::trim_start);
                let (Some(value), Some(marks)) = (value, open.last_mut()) else { continue };
                if is_key(string, MARK) {
                    marks.is_placeholder = value.starts_with("true");
                } else if is_key(string, NUMBER) {
                    marks.number =
                        value.split(|c: char| ",}".contains(c)).next().map(str::trim_end);
                }
            }
        }
    }
    Ok(())
}

/// Returns true if a value is or has a placeholder, at any depth. Keys of an object may repeat; one
/// that marks a placeholder suffices.
pub fn has_placeholder(value: &RawValue) -> bool {
    let mut rest = value.get();
    while let Some(start) = rest.find('"') {
        let (string, behind) = rest[start..].split_at(end_of_string(&rest[start..]));
        rest = behind;
        let is_true = || {
            let value = behind.trim_start().strip_prefix(':');
            value.is_some_and(|value| value.trim_start().starts_with("true"))
        };
        if is_key(string, MARK) && is_true() {
            return true;
        }
    }
    false
}

/// Returns the length of the string, with its quotes, at the front of a valid JSON text.
fn end_of_string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// Returns true if a string is this key, however it is escaped.
fn is_key(string: &str, expected: &str) -> bool {
    if !string.contains('\\') {
        return string.get(1..string.len() - 1) == Some(expected);
    }
    serde_json::from_str(string).is_ok_and(|JsonText(key)| key == expected)
}

/// The reference of an object to an attachment. As in JavaScript, the last of two equal keys
/// counts.
#[derive(Default)]
struct Marks<'a> {
    is_placeholder: bool,
    number: Option<&'a str>,
}

impl Marks<'_> {
    /// Returns the attachment that the object stands for, or `None` if it is no placeholder.
    fn attachment(&self, attachments: usize) -> Option<Result<usize, BadPacket>> {
        let number = self.is_placeholder.then_some(self.number)?;
        let number = number.and_then(|number| number.parse().ok());
        Some(number.filter(|number| *number < attachments).ok_or(BadPacket::Placeholder))
    }
}

impl<'de> Deserialize<'de> for Marks<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectMarks;
        impl<'de> Visitor<'de> for ObjectMarks {
            type Value = Marks<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut marks = Marks::default();
                while let Some(JsonText(key)) = map.next_key()? {
                    match &*key {
                        MARK => {
                            let value: &RawValue = map.next_value()?;
                            marks.is_placeholder = value.get() == "true";
                        }
                        NUMBER => marks.number = Some(map.next_value::<&RawValue>()?.get()),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(marks)
            }
        }
        deserializer.deserialize_map(ObjectMarks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_placeholder_names_an_attachment_of_the_packet() {
        const BAD: Option<Result<usize, BadPacket>> = Some(Err(BadPacket::Placeholder));
        for (text, attachments, expected) in [
            (r#"{"_placeholder":true,"num":0}"#, 1, Some(Ok(0))),
            (r#"{"num":9,"_placeholder":true}"#, 10, Some(Ok(9))),
            (r#"{ "_placeholder" : true , "num" : 1 }"#, 2, Some(Ok(1))),
            (r#"{"_placeholder":true,"num":0,"x":[{}]}"#, 1, Some(Ok(0))),
            (r#"{"\u005fplaceholder":true,"num":0}"#, 1, Some(Ok(0))),
            (r#"{"_placeholder":false,"_placeholder":true,"num":5,"num":0}"#, 1, Some(Ok(0))),
            (r#"{"_placeholder":true,"_placeholder":false,"num":0}"#, 1, None),
            (r#"{"_placeholder":true,"num":0}"#, 0, BAD),
            (r#"{"_placeholder":true,"num":1}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":-1}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":0.5}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":"0"}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":"splice"}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":null}"#, 1, BAD),
            (r#"{"_placeholder":true,"num":99999999999999999999}"#, 1, BAD),
            (r#"{"_placeholder":true}"#, 1, BAD),
            (r#"{"_placeholder":1,"num":0}"#, 1, None),
            (r#"{"_placeholder":"true","num":0}"#, 1, None),
            (r#"{"placeholder":true,"num":0}"#, 1, None),
            (r#"{"a":{"_placeholder":true,"num":0}}"#, 1, None),
            (r#"[{"_placeholder":true,"num":0}]"#, 1, None),
            (r#""_placeholder""#, 1, None),
            ("{}", 1, None),
            ("true", 1, None),
        ] {
            assert_eq!(placeholder(raw(text), attachments), expected, "{text}");
            // The same holds for the object anywhere in a packet.
            let checked = expected.and_then(Result::err).map_or(Ok(()), Err);
            for json in [format!("[\"a\",{text}]"), format!("[1,{{\"x\":[ [], {text} ]}},2]")] {
                assert_eq!(check_placeholders(&json, attachments), checked, "{json}");
            }
        }
        assert_eq!(placeholder(raw(std::str::from_utf8(PLACEHOLDER).unwrap()), 1), Some(Ok(0)));
    }

    #[test]
    fn each_placeholder_of_a_packet_is_checked() {
        const BAD: Result<(), BadPacket> = Err(BadPacket::Placeholder);
        for (json, expected) in [
            (r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#, Ok(())),
            (r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":2}]"#, BAD),
            (r#"["a",{"_placeholder":true,"num":2},{"_placeholder":true,"num":0}]"#, BAD),
            (r#"["a",{"b":{"_placeholder":true,"num":9},"num":0}]"#, BAD),
            (r#"["a",{"num":9,"b":{"_placeholder":true,"num":1}}]"#, Ok(())),
            (r#"["a",{"_placeholder":true,"b":{"num":0}}]"#, BAD),
            (r#"["a",{"_placeholder":true,"b":[{}],"num":1}]"#, Ok(())),
            (r#"["{\"_placeholder\":true}","]}"]"#, Ok(())),
            (r#"["_placeholder",true,"num"]"#, Ok(())),
            (r#"["a",{"n\u0075m":5,"_placeholder":true}]"#, BAD),
            ("[]", Ok(())),
            ("", Ok(())),
        ] {
            assert_eq!(check_placeholders(json, 2), expected, "{json}");
        }
        let deep = format!("{}{{\"_placeholder\":true}}{}", "[".repeat(60), "]".repeat(60));
        assert_eq!(check_placeholders(&deep, 2), BAD);
    }

    #[test]
    fn a_placeholder_is_found_at_any_depth_and_only_as_a_key_whose_value_is_true() {
        let deep = format!("{}{{\"_placeholder\":true}}{}", "[".repeat(60), "]".repeat(60));
        for (text, expected) in [
            (deep.as_str(), true),
            (r#"{"_placeholder":true,"num":0}"#, true),
            (r#"[1,"x",{"a":[{"b":{"_placeholder" :  true}}]}]"#, true),
            (r#"{"a":"\\","_placeholder":true}"#, true),
            (r#"{"a":"\"","_placeholder":true}"#, true),
            (r#"{"_plac\u0065holder":true}"#, true),
            (r#"{"_placeholder":{"_placeholder":true}}"#, true),
            (r#"{"_placeholder":1}"#, false),
            (r#"{"_placeholder":"true"}"#, false),
            (r#"{"_placeholder":false,"a":true}"#, false),
            (r#"["_placeholder",true]"#, false),
            (r#""{\"_placeholder\":true}""#, false),
            (r#"{"a":"_placeholder","b":true}"#, false),
            (r#"{"x_placeholder":true}"#, false),
            (r#"{"_placeholder\\":true}"#, false),
            (r#""_placeholder""#, false),
            (r#""""#, false),
            ("17", false),
            ("[]", false),
        ] {
            assert_eq!(has_placeholder(raw(text)), expected, "{text}");
        }
    }
}
