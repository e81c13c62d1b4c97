//! A message of the hub as an event of Socket.IO.

use crate::codec::engineio::Framing;
use crate::codec::socketio::{self, PacketKind};
use crate::hub::json;
use crate::routes::EventRoutes;

/// Appends kept messages as one event whose argument is an array of their values. Bytes that are
/// no text have no place in it, and are left out.
pub fn array(
    out: &mut Vec<u8>,
    framing: Framing,
    namespace: u8,
    event: &str,
    payloads: &[&[u8]],
    routes: &EventRoutes,
) {
    if !payloads.iter().any(|payload| std::str::from_utf8(payload).is_ok()) {
        // An empty array would say that there is nothing.
        return;
    }
    framing.text(out, |out| {
        let name = routes.namespace_name(namespace);
        socketio::write_head(out, PacketKind::Event, 0, name, None);
        out.push(b'[');
        json::string(out, event);
        out.extend_from_slice(b",[");
        let start = out.len();
        for text in payloads.iter().filter_map(|payload| std::str::from_utf8(payload).ok()) {
            if out.len() > start {
                out.push(b',');
            }
            json::any_value(out, text);
        }
        out.extend_from_slice(b"]]");
    });
}

/// Appends a message as an event. A route names the event; without one it is
/// `message(channel, data)`, or the event that the payload itself is.
pub fn message(
    out: &mut Vec<u8>,
    framing: Framing,
    namespace: u8,
    channel: &[u8],
    payload: &[u8],
    routes: &EventRoutes,
) {
    let name = routes.namespace_name(namespace);
    let emits = routes.emits(namespace, channel);
    let text = std::str::from_utf8(payload).ok();
    if emits.is_none() && text.is_some() && json::is_event(payload) {
        return framing.text(out, |out| {
            socketio::write_head(out, PacketKind::Event, 0, name, None);
            out.extend_from_slice(payload);
        });
    }
    let kind = if text.is_some() { PacketKind::Event } else { PacketKind::BinaryEvent };
    framing.text(out, |out| {
        socketio::write_head(out, kind, usize::from(text.is_none()), name, None);
        out.push(b'[');
        match emits {
            Some(event) => json::string(out, event),
            None => {
                out.extend_from_slice(b"\"message\",");
                json::string(out, &String::from_utf8_lossy(channel));
            }
        }
        out.push(b',');
        match text {
            Some(text) if emits.is_some() => json::any_value(out, text),
            Some(text) => json::value(out, text),
            None => out.extend_from_slice(socketio::PLACEHOLDER),
        }
        out.push(b']');
    });
    if text.is_none() {
        framing.binary(out, payload);
    }
}

/// Appends the event `gap(topic)`: messages of the topic may be missing.
pub fn gap(out: &mut Vec<u8>, framing: Framing, namespace: u8, topic: &[u8], routes: &EventRoutes) {
    framing.text(out, |out| {
        let name = routes.namespace_name(namespace);
        socketio::write_head(out, PacketKind::Event, 0, name, None);
        out.extend_from_slice(b"[\"gap\",");
        json::string(out, &String::from_utf8_lossy(topic));
        out.push(b']');
    });
}
