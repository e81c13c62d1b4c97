//! Upgrades: a request after which its connection speaks WebSocket, or carries server-sent events.

use std::borrow::Cow;

use super::error_body;
use super::exchange::{HttpExchange, JSON};
use super::routes::EventsForm;
use super::target;
use crate::codec::events;
use crate::codec::websocket::accept_key;
use crate::hub::channels::Kind;
use crate::hub::encoding::{CatchUpForm, Encoding};
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::protocol::{events as streams, websocket};
use crate::hub::sessions::{DROPS, PeerProtocol};
use crate::hub::verbs::too_long;
use crate::limits::EVENTS_RETRY;

/// The subprotocol of JSON messages.
const SUBPROTOCOL: &str = "slabd.v1.json";

/// Upgrades to a WebSocket on one channel, or to one of JSON.
pub fn to_websocket(
    exchange: &mut HttpExchange<'_, '_>,
    channel: Option<&[u8]>,
) -> MessageProgress {
    let (_, query) = target::split(exchange.head.target);
    let slow = target::pairs(query).flatten().find(|(key, _)| **key == *b"slow");
    let drops = match slow.as_ref().map(|(_, value)| &**value) {
        None | Some(b"close") => false,
        Some(b"drop") => true,
        Some(_) => {
            let text = "unknown value of slow; accepted: drop and close";
            exchange.answer(400, JSON, &error_body(text), &[]);
            return MessageProgress::Taken;
        }
    };
    let Some(wants_retained) = wants_retained(exchange) else { return MessageProgress::Taken };
    let Some(accept) = handshake(exchange) else { return MessageProgress::Taken };
    let mut pending = Vec::new();
    if let Some(channel) = channel {
        let HttpExchange { shared, session, server, .. } = exchange;
        if let Some(text) = too_long(Kind::Channel, channel, server.limits()) {
            exchange.answer_last(400, &text);
            return MessageProgress::Taken;
        }
        let subscribed =
            shared.subscribe_to(*session, Kind::Channel, channel, *server, &mut pending);
        if let Err(text) = subscribed {
            exchange.answer_last(429, &text);
            return MessageProgress::Taken;
        }
        if wants_retained {
            shared.catch_up(*session, channel, CatchUpForm::Messages);
        }
    }
    let is_json = channel.is_none();
    let encoding = if is_json { Encoding::WebSocketJson } else { Encoding::WebSocket };
    let offers = is_json && exchange.head.has_token("sec-websocket-protocol", SUBPROTOCOL);
    switch(exchange, &accept, offers.then_some(SUBPROTOCOL));
    finish(exchange, encoding, 0, drops)
}

/// Returns whether the query asks for the kept messages, or answers with an error.
fn wants_retained(exchange: &mut HttpExchange<'_, '_>) -> Option<bool> {
    let (_, query) = target::split(exchange.head.target);
    let value = target::pairs(query).flatten().find(|(key, _)| **key == *b"retained");
    match value.as_ref().map(|(_, value)| &**value) {
        None | Some(b"0") => Some(false),
        Some(b"1") => Some(true),
        Some(_) => {
            let text = "unknown value of retained; accepted: 0 and 1";
            exchange.answer(400, JSON, &error_body(text), &[]);
            None
        }
    }
}

/// Upgrades to a WebSocket that echoes.
pub fn to_echo(exchange: &mut HttpExchange<'_, '_>) -> MessageProgress {
    let Some(accept) = handshake(exchange) else { return MessageProgress::Taken };
    switch(exchange, &accept, None);
    finish(exchange, Encoding::WebSocket, websocket::ECHO, false)
}

/// Checks an opening handshake, and answers it. Returns false if the answer is an error.
pub fn accept_websocket(exchange: &mut HttpExchange<'_, '_>) -> bool {
    let accept = handshake(exchange);
    accept.iter().for_each(|accept| switch(exchange, accept, None));
    accept.is_some()
}

/// Checks an opening handshake (RFC 6455, section 4.2.1). Returns the answer to its key, or answers
/// with an error.
fn handshake(exchange: &mut HttpExchange<'_, '_>) -> Option<[u8; 28]> {
    let head = exchange.head;
    let upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    if head.minor == 0 || !head.upgrades_to("websocket") {
        let text = "this path speaks WebSocket; send Upgrade: websocket and Connection: Upgrade, \
                    or use new WebSocket(…) in a page";
        exchange.answer(426, JSON, &error_body(text), &upgrade);
        return None;
    }
    if head.header("sec-websocket-version") != Some(b"13") {
        let version = [upgrade[0], upgrade[1], ("Sec-WebSocket-Version", "13")];
        let text = "unknown version of WebSocket; accepted: Sec-WebSocket-Version: 13";
        exchange.answer(426, JSON, &error_body(text), &version);
        return None;
    }
    let mut keys = head.values("sec-websocket-key");
    let accept = match (keys.next(), keys.next()) {
        (Some(key), None) => accept_key(key),
        _ => None,
    };
    if accept.is_none() {
        let text = "expected one Sec-WebSocket-Key, the base64 of 16 bytes";
        exchange.answer(400, JSON, &error_body(text), &[]);
    }
    accept
}

fn switch(exchange: &mut HttpExchange<'_, '_>, accept: &[u8; 28], subprotocol: Option<&str>) {
    let accept = std::str::from_utf8(accept).unwrap_or_default();
    let mut extra = vec![("Sec-WebSocket-Accept", accept)];
    extra.extend(subprotocol.map(|name| ("Sec-WebSocket-Protocol", name)));
    exchange.write(101, "", true, &extra, |response, out| {
        response.write_upgrade(out, "websocket");
    });
}

/// Makes the session one of WebSocket. While connections are short, the client must answer a ping
/// before it counts as one that speaks. A browser does so within a round trip.
fn finish(
    exchange: &mut HttpExchange<'_, '_>,
    encoding: Encoding,
    state: u8,
    drops: bool,
) -> MessageProgress {
    let HttpExchange { shared, session, server, reply, has_password, .. } = exchange;
    if *has_password {
        shared.set_authenticated(*session, true);
    }
    shared.sessions.set_protocol(*session, PeerProtocol::WebSocket);
    let must_answer = server.is_under_pressure();
    if let Some(own) = shared.sessions.get_mut(*session) {
        own.encoding = encoding;
        own.protocol_state = state;
        own.put(DROPS, drops);
    }
    websocket::begin(shared, *session, must_answer, reply);
    if must_answer { MessageProgress::StaysSilent } else { MessageProgress::Taken }
}

/// Begins a stream of server-sent events. The head leaves before any message.
pub fn to_events(
    exchange: &mut HttpExchange<'_, '_>,
    names: &[(Kind, Cow<'_, [u8]>)],
    form: EventsForm,
) -> MessageProgress {
    let is_head = exchange.head.method == "HEAD";
    let mut pending = Vec::new();
    let Some(wants_retained) = wants_retained(exchange) else { return MessageProgress::Taken };
    if exchange.shared.must_wait_to_search(exchange.session) {
        return MessageProgress::Waits;
    }
    for (kind, name) in names.iter().filter(|_| !is_head) {
        let HttpExchange { shared, session, server, .. } = exchange;
        if let Some(text) = too_long(*kind, name, server.limits()) {
            exchange.answer_last(400, &text);
            return MessageProgress::Taken;
        }
        let is_new = shared.subscribe_to(*session, *kind, name, *server, &mut pending);
        match is_new {
            Ok(true) if wants_retained && *kind == Kind::Channel => {
                shared.catch_up(*session, name, CatchUpForm::Messages);
            }
            Ok(_) => {}
            Err(text) => {
                exchange.answer_last(429, &text);
                return MessageProgress::Taken;
            }
        }
    }
    let extra = [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")];
    exchange.write(200, "text/event-stream", false, &extra, |response, out| {
        response.write_stream_head(out);
        if !is_head {
            events::retry(out, EVENTS_RETRY);
            out.extend_from_slice(events::COMMENT);
        }
    });
    if is_head {
        exchange.reply.close();
        return MessageProgress::Taken;
    }
    let HttpExchange { shared, session, server, reply, has_password, .. } = exchange;
    if *has_password {
        shared.set_authenticated(*session, true);
    }
    shared.sessions.set_protocol(*session, PeerProtocol::Events);
    if let Some(own) = shared.sessions.get_mut(*session) {
        own.encoding = match form {
            EventsForm::Payload => Encoding::Events,
            EventsForm::Json => Encoding::EventsJson,
        };
        own.protocol_state = 0;
    }
    streams::begin(shared, *session, reply, *server);
    MessageProgress::Taken
}
