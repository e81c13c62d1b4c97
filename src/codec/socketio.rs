//! Packets of Socket.IO, version 5: the texts of Engine.IO's messages.
//!
//! A packet is `type[attachments-][namespace,][id][JSON]`. Its attachments are the binary messages
//! that follow it; a placeholder in the JSON stands for each.

pub mod adapter;
mod placeholder;
pub mod python;

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::engineio::{BadPacket, PacketType};
use super::json::{self, JsonText};
use crate::limits::{ATTACHMENTS_MAX, EVENT_ARGUMENTS_MAX};

use placeholder::check_placeholders;
pub use placeholder::{PLACEHOLDER, has_placeholder, placeholder};

/// The type of a packet; its value is the digit on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    Connect = b'0',
    Disconnect = b'1',
    Event = b'2',
    Ack = b'3',
    ConnectError = b'4',
    BinaryEvent = b'5',
    BinaryAck = b'6',
}

impl PacketKind {
    fn of(digit: u8) -> Option<PacketKind> {
        Some(match digit {
            b'0' => PacketKind::Connect,
            b'1' => PacketKind::Disconnect,
            b'2' => PacketKind::Event,
            b'3' => PacketKind::Ack,
            b'4' => PacketKind::ConnectError,
            b'5' => PacketKind::BinaryEvent,
            b'6' => PacketKind::BinaryAck,
            _ => return None,
        })
    }

    pub fn is_binary(self) -> bool {
        matches!(self, PacketKind::BinaryEvent | PacketKind::BinaryAck)
    }
}

/// A packet whose JSON has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPacket<'a> {
    pub kind: PacketKind,
    /// Number of binary messages that follow: 1 to [`ATTACHMENTS_MAX`] for a binary packet, else 0.
    pub attachments: usize,
    /// `/` if the packet names none.
    pub namespace: &'a str,
    /// Number of the acknowledgement that an event asks for, or that this packet is.
    pub id: Option<u64>,
    /// JSON in UTF-8. An event has an array that begins with its name, an acknowledgement an array.
    /// Packets of other kinds have an object, a string (only `ConnectError`), or nothing.
    pub data: &'a [u8],
}

/// Reads a packet. Its JSON has at most `JSON_DEPTH_MAX` levels, and each placeholder in it stands
/// for an attachment.
pub fn parse(text: &[u8]) -> Result<SocketPacket<'_>, BadPacket> {
    let text = std::str::from_utf8(text).map_err(|_| BadPacket::Text)?;
    let kind = text.bytes().next().and_then(PacketKind::of).ok_or(BadPacket::Type)?;
    let mut rest = &text[1..];
    let mut attachments = 0;
    if kind.is_binary() {
        let (count, behind) = rest.split_once('-').ok_or(BadPacket::Attachments)?;
        attachments = attachment_count(count)?;
        rest = behind;
    }
    let mut namespace = "/";
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, data) = rest.split_at(digits);
    let id = match id {
        "" => None,
        id => Some(id.parse().map_err(|_| BadPacket::Id)?),
    };
    check_data(kind, data)?;
    if kind.is_binary() {
        check_placeholders(data, attachments)?;
    }
    Ok(SocketPacket { kind, attachments, namespace, id, data: data.as_bytes() })
}

fn attachment_count(digits: &str) -> Result<usize, BadPacket> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadPacket::Attachments);
    }
    match digits.parse() {
        Ok(0) => Err(BadPacket::Attachments),
        Ok(count) if count <= ATTACHMENTS_MAX => Ok(count),
        _ => Err(BadPacket::TooManyAttachments),
    }
}

/// Checks that a packet has the JSON that packets of its kind have.
fn check_data(kind: PacketKind, data: &str) -> Result<(), BadPacket> {
    let expected = match (kind, data.bytes().next()) {
        (PacketKind::Connect | PacketKind::Disconnect, None) => return Ok(()),
        (PacketKind::Connect, Some(b'{')) => true,
        (PacketKind::ConnectError, Some(b'{' | b'"')) => true,
        (PacketKind::Ack | PacketKind::BinaryAck, Some(b'[')) => true,
        (PacketKind::Event | PacketKind::BinaryEvent, Some(b'[')) => true,
        _ => false,
    };
    if !expected {
        return Err(BadPacket::Payload);
    }
    if json::is_too_deep(data.as_bytes()) {
        return Err(BadPacket::TooDeep);
    }
    if matches!(kind, PacketKind::Event | PacketKind::BinaryEvent) {
        let EventHead(name) = serde_json::from_str(data).map_err(|_| BadPacket::Payload)?;
        return event_name(name).map(|_| ());
    }
    serde_json::from_str(data).map(|IgnoredAny| ()).map_err(|_| BadPacket::Payload)
}

/// An event's name and its arguments.
#[derive(Debug)]
pub struct EventArguments<'a> {
    /// The digits, if the name is a number.
    pub event: Cow<'a, str>,
    pub values: Vec<&'a RawValue>,
}

/// Splits the data of an event. It has at most [`EVENT_ARGUMENTS_MAX`] arguments.
pub fn arguments(data: &[u8]) -> Result<EventArguments<'_>, BadPacket> {
    let mut values = list(data)?;
    if values.is_empty() {
        return Err(BadPacket::Payload);
    }
    Ok(EventArguments { event: event_name(values.remove(0))?, values })
}

/// Returns the elements of a JSON array: the data of an acknowledgement.
pub fn list(data: &[u8]) -> Result<Vec<&RawValue>, BadPacket> {
    let Elements(values) = serde_json::from_slice(data).map_err(|_| BadPacket::Payload)?;
    if values.len() > EVENT_ARGUMENTS_AND_NAME {
        return Err(BadPacket::TooManyArguments);
    }
    Ok(values)
}

const EVENT_ARGUMENTS_AND_NAME: usize = EVENT_ARGUMENTS_MAX + 1;

/// Returns the name of an event: a string that is not reserved, or a number.
fn event_name(name: &RawValue) -> Result<Cow<'_, str>, BadPacket> {
    let text = name.get();
    match text.bytes().next() {
        Some(b'"') => {}
        Some(b'-' | b'0'..=b'9') => return Ok(Cow::Borrowed(text)),
        _ => return Err(BadPacket::Payload),
    }
    let JsonText(name) = serde_json::from_str(text).map_err(|_| BadPacket::Payload)?;
    if is_reserved(&name) { Err(BadPacket::ReservedEvent) } else { Ok(name) }
}

/// Returns true for a name that means something to the libraries of clients and servers.
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect"
            | "connect_error"
            | "disconnect"
            | "disconnecting"
            | "newListener"
            | "removeListener"
    )
}

/// The first element of an array. The others are checked and skipped.
struct EventHead<'a>(&'a RawValue);

impl<'de> Deserialize<'de> for EventHead<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstElement;
        impl<'de> Visitor<'de> for FirstElement {
            type Value = EventHead<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array with the name of an event")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let name = array.next_element()?;
                while let Some(IgnoredAny) = array.next_element()? {}
                name.map(EventHead).ok_or_else(|| serde::de::Error::invalid_length(0, &self))
            }
        }
        deserializer.deserialize_seq(FirstElement)
    }
}

/// The elements of an array: one more than an event may have, at most.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllElements;
        impl<'de> Visitor<'de> for AllElements {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = array.next_element()? {
                    if values.len() <= EVENT_ARGUMENTS_AND_NAME {
                        values.push(value);
                    }
                }
                Ok(Elements(values))
            }
        }
        deserializer.deserialize_seq(AllElements)
    }
}

/// Appends all of a packet that precedes its JSON, with the type of its Engine.IO packet.
pub fn write_head(
    out: &mut Vec<u8>,
    kind: PacketKind,
    attachments: usize,
    namespace: &str,
    id: Option<u64>,
) {
    out.push(PacketType::Message.digit());
    out.push(kind as u8);
    // Writing to a Vec cannot fail.
    if kind.is_binary() {
        let _ = write!(out, "{attachments}-");
    }
    if namespace != "/" {
        let _ = write!(out, "{namespace},");
    }
    if let Some(id) = id {
        let _ = write!(out, "{id}");
    }
}

/// Appends the answer to a client that connected to a namespace. `sid` is its id there.
pub fn write_connect(out: &mut Vec<u8>, namespace: &str, sid: &str) {
    write_head(out, PacketKind::Connect, 0, namespace, None);
    object(out, "{\"sid\":", sid);
}

/// Appends the answer to a client that may not connect to a namespace.
pub fn write_connect_error(out: &mut Vec<u8>, namespace: &str, message: &str) {
    write_head(out, PacketKind::ConnectError, 0, namespace, None);
    object(out, "{\"message\":", message);
}

/// Appends an object with one text.
fn object(out: &mut Vec<u8>, start: &str, text: &str) {
    out.extend_from_slice(start.as_bytes());
    json::string(out, text);
    out.push(b'}');
}

/// Appends the packet that ends a client's part in a namespace.
pub fn write_disconnect(out: &mut Vec<u8>, namespace: &str) {
    write_head(out, PacketKind::Disconnect, 0, namespace, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JSON_DEPTH_MAX;

    /// Each line: a packet, and its kind, attachments, namespace, id and data; or the reason to
    /// refuse it. Then, if the npm package socket.io-parser 4.2.6 reads another packet, what it
    /// reads.
    const CASES: &str = include_str!("socketio/cases.txt");

    fn shown(packet: Result<SocketPacket<'_>, BadPacket>) -> String {
        match packet {
            Err(reason) => format!("error\t{reason:?}"),
            Ok(packet) => {
                let id = packet.id.map_or("-".to_string(), |id| id.to_string());
                let data = match packet.data {
                    b"" => "-",
                    data => std::str::from_utf8(data).unwrap(),
                };
                let (kind, namespace) = (packet.kind, packet.namespace);
                format!("{kind:?}\t{}\t{namespace}\t{id}\t{data}", packet.attachments)
            }
        }
    }

    #[test]
    fn each_packet_is_read_as_the_table_says() {
        let (mut good, mut bad) = (0, 0);
        for line in CASES.lines() {
            let (text, expected) = line.split_once('\t').unwrap();
            let expected = expected.split_once("\tnpm ").map_or(expected, |(ours, _)| ours);
            let text = text.replace('⏎', "\n").replace('⇥', "\t");
            assert_eq!(shown(parse(text.as_bytes())), expected, "{text:?}");
            let is_bad = expected.starts_with("error\t");
            (good, bad) = (good + usize::from(!is_bad), bad + usize::from(is_bad));
            if is_bad {
                continue;
            }
            let packet = parse(text.as_bytes()).unwrap();
            // A packet written again is read back.
            let mut out = Vec::new();
            let SocketPacket { kind, attachments, namespace, id, data } = packet;
            write_head(&mut out, kind, attachments, namespace, id);
            out.extend_from_slice(data);
            assert_eq!(out[0], b'4');
            assert_eq!(parse(&out[1..]).as_ref(), Ok(&packet), "{text:?}");
            // Any cut is a packet or an error, and the rest of another packet is an error.
            for cut in 0..text.len() {
                let _ = parse(&text.as_bytes()[..cut]);
            }
            if !data.is_empty() {
                let twice = parse(&[text.as_bytes(), text.as_bytes()].concat()).map(drop);
                assert_eq!(twice, Err(BadPacket::Payload), "{text:?}");
            }
            if matches!(kind, PacketKind::Event | PacketKind::BinaryEvent) {
                let all = arguments(data).unwrap();
                assert_eq!(all.values.len() + 1, list(data).unwrap().len());
            }
        }
        assert!(good >= 60 && bad >= 60, "{good} good and {bad} bad cases");
    }

    #[test]
    fn a_packet_that_is_not_utf_8_is_refused() {
        for text in [&b"\xff"[..], b"2[\"\xff\"]", b"0/\xc3,", b"2[\"a\",\"\xed\xa0\x80\"]"] {
            assert_eq!(parse(text), Err(BadPacket::Text), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn json_may_have_as_many_levels_as_the_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for (levels, expected) in [
            (JSON_DEPTH_MAX - 1, Ok(())),
            (JSON_DEPTH_MAX, Ok(())),
            (JSON_DEPTH_MAX + 1, Err(BadPacket::TooDeep)),
            (100_000, Err(BadPacket::TooDeep)),
        ] {
            let inner = nested(levels - 1);
            for text in
                [format!("2[\"a\",{inner}]"), format!("3[{inner}]"), format!("0{{\"a\":{inner}}}")]
            {
                assert_eq!(parse(text.as_bytes()).map(drop), expected, "{levels} levels");
            }
        }
        assert_eq!(parse("2[\"a\"".repeat(100_000).as_bytes()), Err(BadPacket::TooDeep));
    }

    #[test]
    fn an_event_may_have_as_many_arguments_as_the_limit() {
        for (count, fits) in [
            (0, true),
            (EVENT_ARGUMENTS_MAX - 1, true),
            (EVENT_ARGUMENTS_MAX, true),
            (EVENT_ARGUMENTS_MAX + 1, false),
            (100 * EVENT_ARGUMENTS_MAX, false),
        ] {
            let data = format!("[\"a\"{}]", ",1".repeat(count));
            match arguments(data.as_bytes()) {
                Ok(all) => {
                    assert!(fits, "{count} arguments");
                    assert_eq!((all.event.as_ref(), all.values.len()), ("a", count));
                    assert!(matches!(all.event, Cow::Borrowed(_)));
                }
                Err(error) => assert!(!fits && error == BadPacket::TooManyArguments, "{count}"),
            }
            assert!(parse(format!("2{data}").as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_packet_may_have_as_many_attachments_as_the_limit() {
        for (count, fits) in
            [(ATTACHMENTS_MAX - 1, true), (ATTACHMENTS_MAX, true), (ATTACHMENTS_MAX + 1, false)]
        {
            let text = format!("5{count}-[\"a\"]");
            let read = parse(text.as_bytes()).map(|packet| packet.attachments);
            let expected = if fits { Ok(count) } else { Err(BadPacket::TooManyAttachments) };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn an_event_is_split_into_its_name_and_its_arguments() {
        for (data, event, values) in [
            ("[\"a\"]", "a", &[][..]),
            ("[\"\\u00e4\\n\",1]", "ä\n", &["1"]),
            ("[ 7 , {\"b\": [1, 2]} , \"c,d\" ]", "7", &["{\"b\": [1, 2]}", "\"c,d\""]),
            ("[-1.5e3,null,1e999]", "-1.5e3", &["null", "1e999"]),
        ] {
            let all = arguments(data.as_bytes()).unwrap();
            assert_eq!(all.event, event);
            assert!(all.values.iter().map(|value| value.get()).eq(values.iter().copied()));
        }
        for (data, error) in [
            ("", BadPacket::Payload),
            ("[]", BadPacket::Payload),
            ("{}", BadPacket::Payload),
            ("[null]", BadPacket::Payload),
            ("[\"a\"] x", BadPacket::Payload),
            ("[\"connect\"]", BadPacket::ReservedEvent),
        ] {
            assert_eq!(arguments(data.as_bytes()).map(drop), Err(error), "{data}");
        }
        assert!(list(b"[]").unwrap().is_empty());
    }

    #[test]
    fn packets_of_the_server_read_as_the_official_ones() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        for (found, expected) in [
            (written(&|out| write_connect(out, "/", "ab")), "40{\"sid\":\"ab\"}"),
            (written(&|out| write_connect(out, "/x", "ab")), "40/x,{\"sid\":\"ab\"}"),
            (
                written(&|out| write_connect_error(out, "/x", "Invalid namespace")),
                "44/x,{\"message\":\"Invalid namespace\"}",
            ),
            (
                written(&|out| write_connect_error(out, "/", "a\"\n")),
                "44{\"message\":\"a\\\"\\n\"}",
            ),
            (written(&|out| write_disconnect(out, "/")), "41"),
            (written(&|out| write_disconnect(out, "/x")), "41/x,"),
            (written(&|out| write_head(out, PacketKind::Event, 3, "/", None)), "42"),
            (written(&|out| write_head(out, PacketKind::Ack, 0, "/x", Some(7))), "43/x,7"),
            (written(&|out| write_head(out, PacketKind::BinaryEvent, 1, "/", None)), "451-"),
            (
                written(&|out| write_head(out, PacketKind::BinaryAck, 2, "/x", Some(u64::MAX))),
                "462-/x,18446744073709551615",
            ),
        ] {
            assert_eq!(found, expected);
            let _ = parse(&found.as_bytes()[1..]);
        }
    }
}
