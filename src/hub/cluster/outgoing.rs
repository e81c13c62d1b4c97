//! The event that a publish here is for the other servers of a cluster.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::codec::socketio::adapter::{self, ClusterAddress};
use crate::codec::socketio::python;
use crate::hub::encoding::EventForm;
use crate::hub::json;
use crate::routes::ClusterAdapter;

/// A publish as an event for the servers of all namespaces.
pub struct OutgoingEvent<'a> {
    adapter: ClusterAdapter,
    pub channel: &'a [u8],
    payload: &'a [u8],
    /// The event where a route names it, and where none does. `None`: not transcoded yet.
    transcoded: [Option<Transcoded<'a>>; 2],
}

/// An event in the form of the other servers.
#[derive(Default)]
struct Transcoded<'a> {
    /// For servers of Python: the JSON of the event's name. Empty if a route names it.
    event: Cow<'a, [u8]>,
    /// The event's arguments. For Node servers its name precedes them, unless a route names it.
    data: Vec<u8>,
    is_binary: bool,
    /// False if the JSON of the payload is no text for Node servers.
    is_event: bool,
}

impl<'a> OutgoingEvent<'a> {
    pub fn new(adapter: ClusterAdapter, channel: &'a [u8], payload: &'a [u8]) -> Self {
        OutgoingEvent { adapter, channel, payload, transcoded: [None, None] }
    }

    /// Appends the message for a namespace. `named`: the event that a route names. Returns false
    /// if the payload is no event for the other servers.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        to: &ClusterAddress<'_>,
        named: Option<&str>,
    ) -> bool {
        let (adapter, channel, payload) = (self.adapter, self.channel, self.payload);
        let known = &mut self.transcoded[usize::from(named.is_none())];
        let own = known.get_or_insert_with(|| match adapter {
            ClusterAdapter::Redis => for_node(named.is_some(), channel, payload),
            ClusterAdapter::Python => for_python(named.is_some(), channel, payload),
        });
        match (adapter, named) {
            (ClusterAdapter::Redis, Some(name)) => adapter::write(out, to, |out| {
                adapter::array(out, 2);
                adapter::text(out, name);
                out.extend_from_slice(&own.data);
            }),
            (ClusterAdapter::Redis, None) => {
                adapter::write(out, to, |out| out.extend_from_slice(&own.data));
            }
            (ClusterAdapter::Python, Some(name)) => {
                let mut event = Vec::new();
                json::string(&mut event, name);
                python::write(out, to, &event, &own.data, own.is_binary);
            }
            (ClusterAdapter::Python, None) => {
                python::write(out, to, &own.event, &own.data, own.is_binary);
            }
        }
        own.is_event
    }

    /// Returns the search steps that transcoding counts as: one for each byte.
    pub fn steps(&self) -> usize {
        self.transcoded.iter().flatten().count() * self.payload.len()
    }
}

/// Transcodes a payload for Node servers.
fn for_node<'a>(is_named: bool, channel: &[u8], payload: &[u8]) -> Transcoded<'a> {
    let mut data = Vec::new();
    let is_event = match (is_named, EventForm::unnamed(payload)) {
        (false, EventForm::Own(own)) => adapter::value(&mut data, own),
        (is_named, _) => {
            if !is_named {
                adapter::array(&mut data, 3);
                adapter::text(&mut data, "message");
                adapter::text(&mut data, &String::from_utf8_lossy(channel));
            }
            match std::str::from_utf8(payload) {
                Err(_) => {
                    adapter::bytes(&mut data, payload);
                    true
                }
                Ok(text) => {
                    let value = json_value(is_named, text);
                    std::str::from_utf8(&value).is_ok_and(|value| adapter::value(&mut data, value))
                }
            }
        }
    };
    Transcoded { data, is_event, ..Transcoded::default() }
}

/// Transcodes a payload for servers of Python.
fn for_python<'a>(is_named: bool, channel: &[u8], payload: &'a [u8]) -> Transcoded<'a> {
    let mut own = Transcoded { is_event: true, ..Transcoded::default() };
    if let (false, EventForm::Own(data)) = (is_named, EventForm::unnamed(payload)) {
        let (event, arguments) = split_event(data);
        own.event = event.as_bytes().into();
        own.data.extend_from_slice(arguments.as_bytes());
        return own;
    }
    let mut before = Vec::new();
    if !is_named {
        own.event = b"\"message\"".into();
        json::string(&mut before, &String::from_utf8_lossy(channel));
    }
    match std::str::from_utf8(payload) {
        Err(_) => {
            own.is_binary = true;
            python::attach(&mut own.data, &before, payload);
        }
        Ok(text) => {
            own.data = before;
            if !is_named {
                own.data.push(b',');
            }
            own.data.extend_from_slice(&json_value(is_named, text));
        }
    }
    own
}

/// Returns the JSON of a payload as an argument.
fn json_value(is_named: bool, text: &str) -> Vec<u8> {
    let mut value = Vec::new();
    match is_named {
        true => json::any_value(&mut value, text),
        false => json::value(&mut value, text),
    }
    value
}

/// Splits the JSON of an event into that of its name and those of its arguments.
fn split_event(data: &str) -> (&str, &str) {
    let inner = data.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(inner).into_iter::<&RawValue>();
    let name = values.next().and_then(Result::ok).map_or("", RawValue::get);
    let rest = inner[values.byte_offset()..].trim_start();
    (name, rest.strip_prefix(',').unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_transcoded_once_for_all_namespaces() {
        for adapter in [ClusterAdapter::Redis, ClusterAdapter::Python] {
            let payload: &[u8] = br#"["e",{"a":[1.5]}]"#;
            let mut event = OutgoingEvent::new(adapter, b"c", payload);
            assert_eq!(event.steps(), 0);
            for (namespace, named, transcoded) in
                [("/", None, 1), ("/chat", None, 1), ("/a", Some("n"), 2), ("/b", Some("m"), 2)]
            {
                let to =
                    ClusterAddress { sender: "slabd", namespace, room: Some("c"), volatile: false };
                let mut out = Vec::new();
                assert!(event.write(&mut out, &to, named));
                assert_eq!(event.steps(), transcoded * payload.len(), "{namespace}");
                let read = match adapter {
                    ClusterAdapter::Redis => adapter::read(&out, 1000).unwrap(),
                    ClusterAdapter::Python => python::read(&out, "other", 1000).unwrap().unwrap(),
                };
                let whole = String::from_utf8_lossy(payload);
                let expected = match named {
                    Some(name) => format!("[\"{name}\",{whole}]"),
                    None => whole.into(),
                };
                assert_eq!(String::from_utf8(read.data).unwrap(), expected);
                assert_eq!(read.namespace, namespace);
            }
        }
    }

    #[test]
    fn a_publish_is_the_same_event_for_servers_of_python_as_here() {
        let to =
            ClusterAddress { sender: "slabd", namespace: "/", room: Some("c"), volatile: false };
        for (named, payload, expected) in [
            (None, r#"["e"]"#, r#"["e"]"#),
            (None, r#"[ "e\"," , [1,"]"],2 ]"#, r#"["e\",",[1,"]"],2]"#),
            (None, "x", r#"["message","c","x"]"#),
            (None, "5", r#"["message","c",5]"#),
            (Some("n"), r#"{"a":1}"#, r#"["n",{"a":1}]"#),
        ] {
            let mut out = Vec::new();
            OutgoingEvent::new(ClusterAdapter::Python, b"c", payload.as_bytes())
                .write(&mut out, &to, named);
            let event = python::read(&out, "other", 1000).unwrap().unwrap();
            let data = String::from_utf8(event.data).unwrap();
            assert_eq!(data, expected);
            assert_eq!((&event.rooms[..], event.attachments.len()), (&["c".into()][..], 0));
        }
        for (named, expected) in [(None, r#"["message","c",P]"#), (Some("n"), r#"["n",P]"#)] {
            let mut out = Vec::new();
            OutgoingEvent::new(ClusterAdapter::Python, b"c", b"\xff").write(&mut out, &to, named);
            let event = python::read(&out, "other", 1000).unwrap().unwrap();
            let placeholder = r#"{"_placeholder":true,"num":0}"#;
            assert_eq!(event.data, expected.replace('P', placeholder).as_bytes());
            assert_eq!(event.attachments, [&b"\xff"[..]]);
        }
    }
}
