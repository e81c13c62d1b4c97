//! The messages of python-socketio's `RedisManager`: an event for the servers of a cluster, in
//! JSON.
//!
//! A message is an object with the method `emit`, the event, its arguments, the rooms, and the
//! server that sends it. Attachments are base64 behind the arguments. Python has no list of one
//! argument that is null: it means no argument.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::adapter::{BadClusterEvent, ClusterAddress, ClusterEvent};
use super::is_reserved;
use super::placeholder::{PLACEHOLDER, check_placeholders};
use crate::codec::json::{self, JsonText};
use crate::limits::{ATTACHMENTS_MAX, CLUSTER_ROOMS_MAX};

#[derive(Deserialize)]
struct PythonMessage<'a> {
    #[serde(borrow)]
    method: JsonText<'a>,
    #[serde(borrow)]
    host_id: Option<JsonText<'a>>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    binary: Option<bool>,
    #[serde(borrow)]
    namespace: Option<JsonText<'a>>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    skip_sid: Option<&'a RawValue>,
}

/// Reads a message. Its event may have `most` bytes. Returns `None` if `own` has sent it, or if it
/// is a request.
pub fn read<'a>(
    message: &'a [u8],
    own: &str,
    most: usize,
) -> Result<Option<ClusterEvent<'a>>, BadClusterEvent> {
    let text = std::str::from_utf8(message).map_err(|_| BadClusterEvent::Form)?;
    let message: PythonMessage<'_> =
        serde_json::from_str(text).map_err(|_| BadClusterEvent::Form)?;
    if message.method.0 != "emit" || message.host_id.is_some_and(|sender| sender.0 == own) {
        return Ok(None);
    }
    let name = message.event.ok_or(BadClusterEvent::Form)?.get();
    match serde_json::from_str(name) {
        Ok(JsonText(name)) if !is_reserved(&name) => {}
        _ => return Err(BadClusterEvent::Name),
    }
    let data = message.data.ok_or(BadClusterEvent::Form)?;
    let (arguments, attachments) = match message.binary {
        Some(true) => binary(data)?,
        _ => (data.get(), Vec::new()),
    };
    let arguments = match arguments.strip_prefix('[').and_then(|some| some.strip_suffix(']')) {
        Some(arguments) => arguments.trim(),
        None => arguments,
    };
    let mut json = vec![b'['];
    json.extend_from_slice(name.as_bytes());
    if !["", "null"].contains(&arguments) {
        json.push(b',');
        json.extend_from_slice(arguments.as_bytes());
    }
    json.push(b']');
    if json.len() > most || json::is_too_deep(&json) {
        return Err(BadClusterEvent::Size);
    }
    if !attachments.is_empty() && check_placeholders(arguments, attachments.len()).is_err() {
        return Err(BadClusterEvent::Form);
    }
    Ok(Some(ClusterEvent {
        namespace: message.namespace.map_or("/".into(), |name| name.0),
        data: json,
        attachments,
        rooms: rooms(message.room, true)?,
        except: rooms(message.skip_sid, false)?,
        volatile: false,
    }))
}

/// The JSON of an event's arguments, and the attachments.
type BinaryParts<'a> = (&'a str, Vec<Cow<'a, [u8]>>);

/// Splits the data of a binary event into its JSON and its attachments.
fn binary(data: &RawValue) -> Result<BinaryParts<'_>, BadClusterEvent> {
    let parts = list(data, ATTACHMENTS_MAX + 1)?;
    let (arguments, attachments) = parts.split_first().ok_or(BadClusterEvent::Form)?;
    let decoded = attachments.iter().map(|part| {
        let JsonText(text) = serde_json::from_str(part.get()).map_err(|_| BadClusterEvent::Form)?;
        let bytes = STANDARD.decode(&*text).map_err(|_| BadClusterEvent::Form)?;
        Ok(bytes.into())
    });
    Ok((arguments.get(), decoded.collect::<Result<_, _>>()?))
}

/// Returns the rooms that are null, one name, or a list of names. No room is there twice.
/// `null_is_all`: null is the room of all sockets, which stands as no room.
fn rooms(
    value: Option<&RawValue>,
    null_is_all: bool,
) -> Result<Vec<Cow<'_, str>>, BadClusterEvent> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let names = match value.get().starts_with('[') {
        true => list(value, CLUSTER_ROOMS_MAX)?,
        false => vec![value],
    };
    if null_is_all && names.iter().any(|name| name.get() == "null") {
        return Ok(Vec::new());
    }
    let names = names.into_iter().filter(|name| name.get() != "null").map(|name| {
        let is_number = name.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        match serde_json::from_str(name.get()) {
            Ok(JsonText(name)) => Ok(name),
            Err(_) if is_number => Ok(name.get().into()),
            Err(_) => Err(BadClusterEvent::Form),
        }
    });
    let mut names = names.collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Returns the values of an array, which may be `most`.
fn list(value: &RawValue, most: usize) -> Result<Vec<&RawValue>, BadClusterEvent> {
    if !value.get().starts_with('[') {
        return Err(BadClusterEvent::Form);
    }
    // The text is valid, so an error means too many.
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    AtMost(most).deserialize(&mut deserializer).map_err(|_| BadClusterEvent::Count)
}

/// Reads an array of at most so many values.
struct AtMost(usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of at most {} values", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            if list.len() == self.0 {
                return Err(A::Error::invalid_length(self.0 + 1, &self));
            }
            list.push(value);
        }
        Ok(list)
    }
}

/// Appends the data of an event with an attachment, without the brackets of the array. `before` is
/// the JSON of the arguments before the attachment.
pub fn attach(out: &mut Vec<u8>, before: &[u8], attachment: &[u8]) {
    out.push(b'[');
    if !before.is_empty() {
        out.extend_from_slice(before);
        out.push(b',');
    }
    out.extend_from_slice(PLACEHOLDER);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "],\"{}\"", STANDARD.encode(attachment));
}

/// Appends a message with an event. `event` is the JSON of its name. `data` is the JSON of its
/// arguments without the brackets of the array, or with an attachment what [`attach`] makes.
pub fn write(
    out: &mut Vec<u8>,
    to: &ClusterAddress<'_>,
    event: &[u8],
    data: &[u8],
    is_binary: bool,
) {
    out.extend_from_slice(b"{\"method\":\"emit\",\"event\":");
    out.extend_from_slice(event);
    out.extend_from_slice(b",\"data\":[");
    out.extend_from_slice(data);
    let _ = write!(out, "],\"binary\":{is_binary},\"namespace\":");
    json::string(out, to.namespace);
    out.extend_from_slice(b",\"room\":");
    match to.room {
        Some(room) => json::string(out, room),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"skip_sid\":null,\"callback\":null,\"host_id\":");
    json::string(out, to.sender);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a `RedisManager` of python-socketio 5.18 publishes.
    const PLAIN: &str = concat!(
        r#"{"method": "emit", "event": "e", "data": [1, "\u00e4", [2]], "binary": false, "#,
        r#""namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "a1"}"#
    );
    const BINARY: &str = concat!(
        r#"{"method": "emit", "event": "e", "data": [[{"a": {"_placeholder": true, "num": 0}}], "#,
        r#""AP8="], "binary": true, "namespace": "/chat", "room": ["r", "s", "r"], "#,
        r#""skip_sid": "x", "callback": null, "host_id": "a1"}"#
    );

    fn event(message: &str) -> ClusterEvent<'_> {
        read(message.as_bytes(), "slabd", 1000).unwrap().unwrap()
    }

    fn data(message: &str) -> String {
        String::from_utf8(event(message).data).unwrap()
    }

    #[test]
    fn messages_of_the_manager_are_read() {
        assert_eq!(data(PLAIN), r#"["e",1, "\u00e4", [2]]"#);
        let plain = event(PLAIN);
        assert_eq!((&*plain.namespace, plain.rooms.len(), plain.except.len()), ("/", 0, 0));
        assert_eq!(data(BINARY), r#"["e",{"a": {"_placeholder": true, "num": 0}}]"#);
        let binary = event(BINARY);
        assert_eq!((&*binary.namespace, binary.attachments), ("/chat", vec![vec![0, 255].into()]));
        assert_eq!((binary.rooms, binary.except), (vec!["r".into(), "s".into()], vec!["x".into()]));
        for nothing in ["[]", "[null]", "null"] {
            let message = PLAIN.replace(r#"[1, "\u00e4", [2]]"#, nothing);
            match nothing {
                "null" => {
                    let refused = read(message.as_bytes(), "slabd", 1000);
                    assert_eq!(refused, Err(BadClusterEvent::Form));
                }
                _ => assert_eq!(data(&message), r#"["e"]"#, "{nothing}"),
            }
        }
    }

    #[test]
    fn own_messages_and_requests_are_no_events() {
        assert_eq!(read(PLAIN.as_bytes(), "a1", 1000), Ok(None));
        for method in ["callback", "disconnect", "enter_room", "leave_room", "close_room"] {
            let request = format!(r#"{{"method": "{method}", "sid": "x", "host_id": "a1"}}"#);
            assert_eq!(read(request.as_bytes(), "slabd", 1000), Ok(None));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_malformed_is_refused() {
        for whole in [PLAIN, BINARY] {
            for length in 0..whole.len() {
                assert!(read(&whole.as_bytes()[..length], "slabd", 1000).is_err(), "{length}");
            }
        }
        for (from, to, expected) in [
            ("\"num\": 0", "\"num\": 1", BadClusterEvent::Form),
            ("AP8=", "AP8", BadClusterEvent::Form),
            ("\"x\"", "{}", BadClusterEvent::Form),
            ("\"event\": \"e\"", "\"event\": \"disconnect\"", BadClusterEvent::Name),
            ("\"event\": \"e\"", "\"event\": []", BadClusterEvent::Name),
        ] {
            let wrong = BINARY.replace(from, to);
            assert_eq!(read(wrong.as_bytes(), "slabd", 1000), Err(expected), "{to}");
        }
        assert!(read(b"\x80\x04\x95pickle", "slabd", 1000).is_err());
    }

    #[test]
    fn a_null_among_the_rooms_is_the_room_of_all_sockets() {
        let with = |room: &str, skip: &str| {
            let text = PLAIN.replace(r#""room": null"#, &format!(r#""room": {room}"#));
            text.replace(r#""skip_sid": null"#, &format!(r#""skip_sid": {skip}"#))
        };
        for (room, skip, rooms, except) in [
            (r#"["a", null]"#, "null", &[][..], &[][..]),
            (r#"["a"]"#, r#"["b", null]"#, &["a"], &["b"]),
            ("[null]", "[null]", &[], &[]),
        ] {
            let text = with(room, skip);
            let event = event(&text);
            assert_eq!(event.rooms, rooms, "{room} {skip}");
            assert_eq!(event.except, except, "{room} {skip}");
        }
    }

    #[test]
    fn each_bound_holds_at_the_limit_and_beyond() {
        let count = |list: String| {
            let message = BINARY.replace(r#"["r", "s", "r"]"#, &list);
            read(message.as_bytes(), "slabd", 1000).map(|one| one.unwrap().rooms.len())
        };
        let rooms = |count: usize| format!("{:?}", (0..count).collect::<Vec<_>>());
        for fits in [CLUSTER_ROOMS_MAX - 1, CLUSTER_ROOMS_MAX] {
            assert_eq!(count(rooms(fits)), Ok(fits));
        }
        assert_eq!(count(rooms(CLUSTER_ROOMS_MAX + 1)), Err(BadClusterEvent::Count));
        let attached = |count: usize| {
            let message = BINARY.replace("\"AP8=\"", &["\"AP8=\""].repeat(count).join(","));
            read(message.as_bytes(), "slabd", 1000).map(|one| one.unwrap().attachments.len())
        };
        for fits in [ATTACHMENTS_MAX - 1, ATTACHMENTS_MAX] {
            assert_eq!(attached(fits), Ok(fits));
        }
        assert_eq!(attached(ATTACHMENTS_MAX + 1), Err(BadClusterEvent::Count));
        let size = data(PLAIN).len();
        assert!(read(PLAIN.as_bytes(), "slabd", size).is_ok());
        assert_eq!(read(PLAIN.as_bytes(), "slabd", size - 1), Err(BadClusterEvent::Size));
        let deep = |levels: usize| {
            let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let message = PLAIN.replace(r#"[1, "\u00e4", [2]]"#, &nested);
            read(message.as_bytes(), "slabd", 1000).is_ok()
        };
        let most = crate::limits::JSON_DEPTH_MAX;
        assert_eq!([most - 1, most, most + 1].map(deep), [true, true, false]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let room = Some("r");
        let to = ClusterAddress { sender: "slabd", namespace: "/n", room, volatile: false };
        let mut out = Vec::new();
        write(&mut out, &to, b"\"e\"", b"1,{\"a\":null}", false);
        let event = read(&out, "other", 1000).unwrap().unwrap();
        assert_eq!(event.data, br#"["e",1,{"a":null}]"#);
        assert_eq!((&*event.namespace, &event.rooms[..]), ("/n", &[Cow::from("r")][..]));
        assert_eq!(read(&out, "slabd", 1000), Ok(None));
        for (before, data) in [(&b""[..], "[\"e\",P]"), (b"1", "[\"e\",1,P]")] {
            let mut out = Vec::new();
            let mut attached = Vec::new();
            attach(&mut attached, before, b"\xff");
            write(&mut out, &to, b"\"e\"", &attached, true);
            let event = read(&out, "other", 1000).unwrap().unwrap();
            let placeholder = std::str::from_utf8(PLACEHOLDER).unwrap();
            assert_eq!(event.data, data.replace('P', placeholder).as_bytes());
            assert_eq!(event.attachments, [&[255][..]]);
        }
    }
}
