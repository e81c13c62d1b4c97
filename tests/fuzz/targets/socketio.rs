//! Packets of Socket.IO. A simpler reader, which builds all values of the JSON, accepts the same
//! packets and finds the same in them. Packets written again are read back.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use slabd::codec::socketio::{
    PacketKind, SocketPacket, arguments, has_placeholder, is_reserved, list, parse, placeholder,
    write_head,
};
use slabd::limits::{ATTACHMENTS_MAX, EVENT_ARGUMENTS_MAX, JSON_DEPTH_MAX};

/// Runs the target: all bytes are a packet.
pub fn socketio(text: &[u8]) {
    let found = parse(text);
    let shown = || format!("{found:?} in {}", text.escape_ascii());
    match (&found, read(text)) {
        (Ok(_), Verdict::Bad) => panic!("accepted: {}", shown()),
        (Err(_), Verdict::Good) => panic!("refused: {}", shown()),
        _ => {}
    }
    let Ok(packet) = found else { return };
    assert!(packet.attachments <= ATTACHMENTS_MAX, "{}", shown());
    let mut out = Vec::new();
    let SocketPacket { kind, attachments, namespace, id, data } = packet;
    write_head(&mut out, kind, attachments, namespace, id);
    out.extend_from_slice(data);
    assert_eq!(parse(out.strip_prefix(b"4").expect("a message")).as_ref(), Ok(&packet));
    if !data.is_empty() {
        assert!(text.ends_with(data), "{}", shown());
        assert!(parse(&[text, b"x"].concat()).is_err(), "{}", shown());
        check_values(&packet);
    }
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// The simpler reader does not know: it refuses half a surrogate pair and huge numbers.
    Unknown,
}

/// Reads a packet in the simplest way.
fn read(text: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(text) else { return Verdict::Bad };
    let mut chars = text.chars().peekable();
    let digit = chars.next().and_then(|digit| digit.to_digit(7));
    let Some(kind) = digit else { return Verdict::Bad };
    let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        digits
    };
    let mut attachments = 0;
    if kind >= 5 {
        attachments = number(&mut chars).parse::<u128>().unwrap_or(0);
        if chars.next() != Some('-') || !(1..=ATTACHMENTS_MAX as u128).contains(&attachments) {
            return Verdict::Bad;
        }
    }
    if chars.peek() == Some(&'/') {
        chars.by_ref().find(|c| *c == ',');
    }
    let id = number(&mut chars);
    if !id.is_empty() && id.trim_start_matches('0').len() > 20 {
        return Verdict::Bad;
    }
    if id.parse::<u128>().is_ok_and(|id| id > u128::from(u64::MAX)) {
        return Verdict::Bad;
    }
    verdict(kind, attachments as u64, &chars.collect::<String>())
}

fn verdict(kind: u32, attachments: u64, data: &str) -> Verdict {
    if data.is_empty() {
        return if kind < 2 { Verdict::Good } else { Verdict::Bad };
    }
    let is_plain = data == data.trim_start();
    let node: Node = match serde_json::from_str(data) {
        Ok(node) => node,
        // Levels beyond the parser's own limit are beyond ours, too.
        Err(_) if data.contains(['e', 'E', '\\']) || deepest(data) => return Verdict::Unknown,
        Err(_) => return Verdict::Bad,
    };
    let fits = match (kind, &node) {
        (0, Node::Object(_)) => true,
        (2 | 5, Node::Array(values)) => match values.first() {
            Some(Node::Text(name)) => !is_reserved(name),
            Some(Node::Number(_)) => true,
            _ => false,
        },
        (3 | 6, Node::Array(_)) => true,
        (4, Node::Object(_) | Node::Text(_)) => true,
        _ => false,
    };
    let fits = fits && (kind < 5 || node.has_attachments(attachments));
    let fits = fits && is_plain && node.depth() <= JSON_DEPTH_MAX;
    if fits { Verdict::Good } else { Verdict::Bad }
}

/// Returns true if a text may have more levels than the parser of the simpler reader takes.
fn deepest(data: &str) -> bool {
    data.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > 100
}

/// A JSON value. An object keeps keys that repeat.
enum Node {
    Other,
    True,
    /// `None` if it is no natural number.
    Number(Option<u64>),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn depth(&self) -> usize {
        match self {
            Node::Array(values) => 1 + values.iter().map(Node::depth).max().unwrap_or(0),
            Node::Object(values) => {
                1 + values.iter().map(|(_, value)| value.depth()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn has_placeholder(&self) -> bool {
        match self {
            Node::Array(values) => values.iter().any(Node::has_placeholder),
            Node::Object(values) => values.iter().any(|(key, value)| {
                key == "_placeholder" && matches!(value, Node::True) || value.has_placeholder()
            }),
            _ => false,
        }
    }

    fn is_placeholder(&self) -> bool {
        matches!(self.last("_placeholder"), Some(Node::True))
    }

    /// Returns the last value of a key.
    fn last(&self, key: &str) -> Option<&Node> {
        let Node::Object(values) = self else { return None };
        values.iter().rfind(|(other, _)| other == key).map(|(_, value)| value)
    }

    /// Returns true if each placeholder stands for one of so many attachments.
    fn has_attachments(&self, count: u64) -> bool {
        let number = self.last("num");
        let is_fine = matches!(number, Some(Node::Number(Some(number))) if *number < count);
        (is_fine || !self.is_placeholder())
            && match self {
                Node::Array(values) => values.iter().all(|value| value.has_attachments(count)),
                Node::Object(values) => {
                    values.iter().all(|(_, value)| value.has_attachments(count))
                }
                _ => true,
            }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Other)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(if value { Node::True } else { Node::Other })
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Number(Some(value)))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Number(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Number(None))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Node, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = array.next_element()? {
                    values.push(value);
                }
                Ok(Node::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut values = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    values.push(entry);
                }
                Ok(Node::Object(values))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Checks what an accepted packet has in its JSON.
fn check_values(packet: &SocketPacket<'_>) {
    let is_event = matches!(packet.kind, PacketKind::Event | PacketKind::BinaryEvent);
    let node = serde_json::from_slice(packet.data).ok();
    if !is_event {
        if let Some(Node::Array(values)) = node
            && values.len() <= EVENT_ARGUMENTS_MAX
        {
            assert_eq!(list(packet.data).expect("a list").len(), values.len());
        }
        return;
    }
    let all = match arguments(packet.data) {
        Ok(all) => all,
        Err(_) => {
            let commas = packet.data.iter().filter(|byte| **byte == b',').count();
            return assert!(commas > EVENT_ARGUMENTS_MAX);
        }
    };
    assert!(!is_reserved(&all.event));
    let Some(Node::Array(nodes)) = node else { return };
    if let Node::Text(name) = &nodes[0] {
        assert_eq!(&all.event, name);
    }
    assert_eq!(all.values.len() + 1, nodes.len());
    for (value, node) in all.values.iter().zip(&nodes[1..]) {
        assert_eq!(has_placeholder(value), node.has_placeholder(), "{value}");
        let read = placeholder(value, packet.attachments);
        assert_eq!(read.is_some(), node.is_placeholder(), "{value}");
        match read {
            Some(Ok(number)) => assert!(number < packet.attachments),
            Some(Err(_)) => assert!(!packet.kind.is_binary(), "{value}"),
            None => {}
        }
    }
}
