//! A message of the hub as an event of Socket.IO.

use std::borrow::Cow;

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

/// The form that a message takes for the sockets of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventForm<'a> {
    /// The event of this name, with the payload as its argument.
    Named(&'a str),
    /// The event that the payload itself is, as JSON.
    Own(&'a str),
    /// The event `message` with the channel and this text.
    Text(&'a str),
    /// The event `message` with the channel and the payload as an attachment.
    Bytes,
}

impl<'a> EventForm<'a> {
    /// Returns what a message becomes. A route names the event of all messages of a channel.
    pub fn of(
        namespace: u8,
        channel: &[u8],
        payload: &'a [u8],
        routes: &'a EventRoutes,
    ) -> EventForm<'a> {
        match routes.emits(namespace, channel) {
            Some(event) => EventForm::Named(event),
            None => EventForm::unnamed(payload),
        }
    }

    /// Returns what a message becomes if no route names the event.
    pub fn unnamed(payload: &'a [u8]) -> EventForm<'a> {
        match std::str::from_utf8(payload) {
            Ok(text) if json::is_event(payload) => EventForm::Own(text),
            Ok(text) => EventForm::Text(text),
            Err(_) => EventForm::Bytes,
        }
    }
}

/// Appends an event and its attachments as one payload, for [`packed`].
pub fn pack_event(out: &mut Vec<u8>, data: &[u8], attachments: &[Cow<'_, [u8]>]) {
    let length = |out: &mut Vec<u8>, part: &[u8]| {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    };
    length(out, data);
    out.extend_from_slice(data);
    for attachment in attachments {
        length(out, attachment);
        out.extend_from_slice(attachment);
    }
}

/// Takes a part off the front of a payload of [`pack_event`].
fn part<'a>(packed: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = packed.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *packed = rest;
    Some(part)
}

/// Appends an event of a cluster. If it is binary, the payload is as [`pack_event`] makes it, else
/// it is the event itself.
pub fn packed(
    out: &mut Vec<u8>,
    framing: Framing,
    namespace: u8,
    payload: &[u8],
    is_binary: bool,
    routes: &EventRoutes,
) {
    let name = routes.namespace_name(namespace);
    let mut rest = payload;
    let data = if is_binary { part(&mut rest).unwrap_or_default() } else { payload };
    let attachments: Vec<&[u8]> = match is_binary {
        true => std::iter::from_fn(|| part(&mut rest)).collect(),
        false => Vec::new(),
    };
    let kind = if is_binary { PacketKind::BinaryEvent } else { PacketKind::Event };
    framing.text(out, |out| {
        socketio::write_head(out, kind, attachments.len(), name, None);
        out.extend_from_slice(data);
    });
    attachments.into_iter().for_each(|attachment| framing.binary(out, attachment));
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
    let form = EventForm::of(namespace, channel, payload, routes);
    let text = std::str::from_utf8(payload).ok();
    if let EventForm::Own(_) = form {
        return framing.text(out, |out| {
            socketio::write_head(out, PacketKind::Event, 0, name, None);
            out.extend_from_slice(payload);
        });
    }
    let kind = if text.is_some() { PacketKind::Event } else { PacketKind::BinaryEvent };
    framing.text(out, |out| {
        socketio::write_head(out, kind, usize::from(text.is_none()), name, None);
        out.push(b'[');
        match form {
            EventForm::Named(event) => json::string(out, event),
            _ => {
                out.extend_from_slice(b"\"message\",");
                json::string(out, &String::from_utf8_lossy(channel));
            }
        }
        out.push(b',');
        match text {
            Some(text) if matches!(form, EventForm::Named(_)) => json::any_value(out, text),
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
