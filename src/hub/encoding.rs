//! Encodings: the form in which a receiver of each protocol gets a message.
//!
//! A new protocol adds a variant here and changes nothing else in the hub. Fan-out encodes a
//! message for the first receiver that needs an encoding, and shares the bytes with all later ones.

mod event;

pub use event::{EventForm, pack_event};

use std::rc::Rc;

use super::channels::{Channels, Kind, TopicId};
use super::json;
use super::messages::MessageKind;
use crate::codec::engineio::Framing;
use crate::codec::events;
use crate::codec::resp::{self, Protocol};
use crate::codec::websocket::{self, Opcode};
use crate::payload::Payload;
use crate::routes::EventRoutes;

/// The form in which a session gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    Resp2,
    Resp3,
    /// A WebSocket message that is the payload alone.
    WebSocket,
    /// A WebSocket message of JSON, which names the channel.
    WebSocketJson,
    /// A server-sent event that is the payload alone.
    Events,
    /// A server-sent event of JSON, which names the channel.
    EventsJson,
    /// An event of Socket.IO in the namespace with this number, as WebSocket messages.
    SocketIo(u8),
    /// The same for a poll.
    SocketIoPolling(u8),
}

/// The form in which a newcomer gets the kept messages of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatchUpForm {
    /// Each as an ordinary message.
    Messages,
    /// Many at a time, as an array in one event of this name. Protocols without events have the
    /// other form.
    Array(Rc<str>),
}

/// The kind of subscription through which a message reaches a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    Channel,
    Shard,
    Pattern(&'a [u8]),
    /// MONITOR: the payload is a finished line.
    Feed,
    /// No message: the subscriber may have missed some, and the broker's link is up again. The
    /// channel is the name of the topic.
    Gap,
    /// A room of a cluster of Socket.IO: the payload is an event for its sockets.
    Event,
    /// The same with attachments. Only sockets get it.
    BinaryEvent,
}

impl<'a> By<'a> {
    /// Returns how the subscribers of a topic get a message.
    pub fn topic(channels: &'a Channels, topic: TopicId, kind: MessageKind) -> By<'a> {
        match topic.kind() {
            _ if kind == MessageKind::Gap => By::Gap,
            Kind::Channel | Kind::Feed if kind == MessageKind::Event => By::Event,
            Kind::Channel | Kind::Feed if kind == MessageKind::BinaryEvent => By::BinaryEvent,
            Kind::Channel => By::Channel,
            Kind::Shard => By::Shard,
            Kind::Pattern => By::Pattern(channels.name(topic)),
            Kind::Feed => By::Feed,
        }
    }

    fn pattern(self) -> Option<&'a [u8]> {
        match self {
            By::Pattern(pattern) => Some(pattern),
            _ => None,
        }
    }
}

impl Encoding {
    /// Number of kinds, where all namespaces of Socket.IO are one.
    pub const KINDS: usize = 8;

    /// Returns the number of the kind.
    pub fn kind(self) -> usize {
        match self {
            Encoding::Resp2 => 0,
            Encoding::Resp3 => 1,
            Encoding::WebSocket => 2,
            Encoding::WebSocketJson => 3,
            Encoding::Events => 4,
            Encoding::EventsJson => 5,
            Encoding::SocketIo(_) => 6,
            Encoding::SocketIoPolling(_) => 7,
        }
    }

    /// Returns the namespace of a socket of Socket.IO.
    pub fn namespace(self) -> Option<u8> {
        match self {
            Encoding::SocketIo(namespace) | Encoding::SocketIoPolling(namespace) => Some(namespace),
            _ => None,
        }
    }

    /// Returns true if the payload stands unchanged in the encoded message. The receivers of a
    /// large message then share its payload, whatever their encodings are.
    pub fn keeps_payload(self) -> bool {
        matches!(self, Encoding::Resp2 | Encoding::Resp3 | Encoding::WebSocket)
    }

    /// Appends what precedes the payload of a large message. [`Self::end`] follows it.
    pub fn encode_head(self, out: &mut Vec<u8>, by: By<'_>, channel: &[u8], payload: &Payload) {
        if self == Encoding::WebSocket {
            let opcode = if payload.is_text() { Opcode::Text } else { Opcode::Binary };
            return websocket::encode_head(out, opcode, payload.len());
        }
        let (protocol, length) = (self.resp(), payload.len());
        match by {
            By::Channel | By::Event => {
                resp::push_before(out, protocol, &[b"message", channel], length);
            }
            By::Shard => resp::push_before(out, protocol, &[b"smessage", channel], length),
            By::Pattern(pattern) => {
                resp::push_before(out, protocol, &[b"pmessage", pattern, channel], length);
            }
            // A line of MONITOR is never large.
            By::Feed | By::Gap | By::BinaryEvent => {}
        }
    }

    /// Returns the bytes behind the payload of a large message.
    pub fn end(self) -> &'static [u8] {
        if self == Encoding::WebSocket { b"" } else { b"\r\n" }
    }

    fn resp(self) -> Protocol {
        if self == Encoding::Resp3 { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// Appends some kept messages of a channel in this encoding.
    pub fn encode_kept(
        self,
        out: &mut Vec<u8>,
        form: &CatchUpForm,
        channel: &[u8],
        payloads: &[&[u8]],
        routes: &EventRoutes,
    ) {
        match (self, form) {
            (Encoding::SocketIo(namespace), CatchUpForm::Array(event)) => {
                event::array(out, Framing::Frames, namespace, event, payloads, routes);
            }
            (Encoding::SocketIoPolling(namespace), CatchUpForm::Array(event)) => {
                event::array(out, Framing::Poll, namespace, event, payloads, routes);
            }
            _ => payloads
                .iter()
                .for_each(|payload| self.encode(out, By::Channel, channel, payload, routes)),
        }
    }

    /// Appends the notice that messages of a topic may be missing. A client of RESP2, or of one
    /// channel by WebSocket, has no form for it.
    fn encode_gap(self, out: &mut Vec<u8>, topic: &[u8], routes: &EventRoutes) {
        match self {
            Encoding::Resp2 | Encoding::WebSocket => {}
            Encoding::Resp3 => resp::pushed(out, Protocol::Resp3, &[b"gap", topic]),
            Encoding::WebSocketJson => {
                let start = out.len();
                json::gap(out, topic);
                websocket::frame(out, Opcode::Text, start);
            }
            Encoding::Events | Encoding::EventsJson => {
                out.extend_from_slice(b"event: gap\n");
                events::event_of(out, |out| json::gap(out, topic));
            }
            Encoding::SocketIo(namespace) => {
                event::gap(out, Framing::Frames, namespace, topic, routes)
            }
            Encoding::SocketIoPolling(namespace) => {
                event::gap(out, Framing::Poll, namespace, topic, routes)
            }
        }
    }

    /// Appends a message in this encoding.
    pub fn encode(
        self,
        out: &mut Vec<u8>,
        by: By<'_>,
        channel: &[u8],
        payload: &[u8],
        routes: &EventRoutes,
    ) {
        match (by, self.namespace()) {
            (By::Gap, _) => return self.encode_gap(out, channel, routes),
            (By::BinaryEvent, None) => return,
            (By::Event | By::BinaryEvent, Some(namespace)) => {
                let is_poll = matches!(self, Encoding::SocketIoPolling(_));
                let framing = if is_poll { Framing::Poll } else { Framing::Frames };
                let is_binary = by == By::BinaryEvent;
                return event::packed(out, framing, namespace, payload, is_binary, routes);
            }
            _ => {}
        }
        match self {
            Encoding::Resp2 | Encoding::Resp3 => {
                encode_resp(out, self.resp(), by, channel, payload)
            }
            Encoding::WebSocket => websocket::encode(out, opcode(payload), payload),
            Encoding::WebSocketJson => {
                let start = out.len();
                json::message(out, by.pattern(), channel, payload);
                websocket::frame(out, Opcode::Text, start);
            }
            Encoding::Events => events::event(out, payload),
            Encoding::EventsJson => {
                events::event_of(out, |out| json::message(out, by.pattern(), channel, payload));
            }
            Encoding::SocketIo(namespace) => {
                event::message(out, Framing::Frames, namespace, channel, payload, routes);
            }
            Encoding::SocketIoPolling(namespace) => {
                event::message(out, Framing::Poll, namespace, channel, payload, routes);
            }
        }
    }
}

fn encode_resp(out: &mut Vec<u8>, protocol: Protocol, by: By<'_>, channel: &[u8], payload: &[u8]) {
    match by {
        By::Channel | By::Event => resp::pushed(out, protocol, &[b"message", channel, payload]),
        By::Shard => resp::pushed(out, protocol, &[b"smessage", channel, payload]),
        By::Pattern(pattern) => {
            resp::pushed(out, protocol, &[b"pmessage", pattern, channel, payload]);
        }
        By::Feed => out.extend_from_slice(payload),
        By::Gap | By::BinaryEvent => {}
    }
}

/// Returns the opcode of a message of one payload: text if it is UTF-8.
fn opcode(payload: &[u8]) -> Opcode {
    match std::str::from_utf8(payload) {
        Ok(_) => Opcode::Text,
        Err(_) => Opcode::Binary,
    }
}
