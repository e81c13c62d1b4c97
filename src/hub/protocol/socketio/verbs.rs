//! Events of clients: the built-in verbs, and the routes of the configuration.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, PacketProgress, WRONG};
use crate::codec::socketio::{self, EventArguments, PacketKind, SocketPacket};
use crate::hub::channels::Kind as TopicKind;
use crate::hub::encoding::CatchUpForm;
use crate::hub::json::{self, JsonText};
use crate::hub::sessions::{RESUMED, SessionId};
use crate::hub::verbs::VerbResult;
use crate::limits::NAMES_AT_ONCE_MAX;
use crate::routes::{Actions, OnRoute, PLAIN_ACK, Sender};

/// Where the answer to an event goes: the namespace and the id of its acknowledgement.
#[derive(Clone, Copy)]
pub struct AckTo {
    namespace: u8,
    id: u64,
}

impl Client<'_> {
    /// Takes an event of a socket.
    pub fn event(
        &mut self,
        namespace: u8,
        socket: SessionId,
        packet: &SocketPacket<'_>,
        attachments: &[&[u8]],
    ) -> PacketProgress {
        let Ok(event) = socketio::arguments(packet.data) else { return WRONG };
        let ack = packet.id.map(|id| AckTo { namespace, id });
        let routes = self.shared.fanout.routes().clone();
        let result = if let Some(route) = routes.on(namespace, &event.event) {
            match attachments.is_empty() {
                true => self.run_route(namespace, socket, route, &event, ack),
                false => VerbResult::Refused("no binary here; accepted: JSON".into()),
            }
        } else if routes.verbs() {
            match &*event.event {
                "subscribe" => self.subscribe(socket, &event, ack),
                "unsubscribe" => self.unsubscribe(socket, &event, ack),
                "publish" => self.publish(&event, attachments, ack),
                _ => VerbResult::Refused(format!(
                    "no event {:?} here; expected subscribe, unsubscribe, publish or an event of \
                     the configuration",
                    event.event
                )),
            }
        } else {
            let text = "expected an event of the configuration";
            VerbResult::Refused(format!("no event {:?} here; {text}", event.event))
        };
        if result == VerbResult::Later {
            return PacketProgress::Waits;
        }
        if let Some(own) = self.shared.sessions.get_mut(self.speaker) {
            // An event that is refused before its publish does not use the flag up.
            own.put(RESUMED, false);
        }
        match result {
            VerbResult::Later | VerbResult::Done(()) => {}
            VerbResult::Refused(text) => {
                self.shared.socketio.refused += 1;
                self.answer(ack, |out| {
                    out.extend_from_slice(b"{\"error\":");
                    json::string(out, &text);
                    out.push(b'}');
                });
            }
        }
        self.shared.socketio.events += 1;
        PacketProgress::Taken
    }

    /// Sends an acknowledgement with one argument, if the client asked for one.
    fn answer(&mut self, ack: Option<AckTo>, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(AckTo { namespace, id }) = ack else { return };
        let routes = self.shared.fanout.routes();
        let name = routes.namespace_name(namespace);
        self.framing.text(self.out, |out| {
            socketio::write_head(out, PacketKind::Ack, 0, name, Some(id));
            out.push(b'[');
            write(out);
            out.push(b']');
        });
    }

    fn subscribe(
        &mut self,
        socket: SessionId,
        event: &EventArguments<'_>,
        ack: Option<AckTo>,
    ) -> VerbResult<()> {
        // The last argument may be options.
        let options = event.values.last().filter(|last| last.get().starts_with('{'));
        let count = event.values.len() - usize::from(options.is_some());
        let (names, options) = match (names(&event.values[..count]), options.map(read_options)) {
            (Ok(names), None) => (names, SubscribeOptions::default()),
            (Ok(names), Some(Ok(options))) => (names, options),
            (Err(text), _) | (_, Some(Err(text))) => return VerbResult::Refused(text),
        };
        let mut new = Vec::new();
        for JsonText(name) in &names {
            let subscribed = self.shared.subscribe_to(
                socket,
                TopicKind::Channel,
                name.as_bytes(),
                self.server,
                self.out,
            );
            match subscribed {
                Ok(is_new) => new.extend(is_new.then_some(name)),
                Err(text) => return VerbResult::Refused(text),
            }
        }
        self.answer(ack, |out| list(out, "subscribed", &names));
        for name in new.into_iter().filter(|_| options.retained) {
            self.shared.catch_up(socket, name.as_bytes(), CatchUpForm::Messages);
        }
        VerbResult::Done(())
    }

    fn unsubscribe(
        &mut self,
        socket: SessionId,
        event: &EventArguments<'_>,
        ack: Option<AckTo>,
    ) -> VerbResult<()> {
        let names = match names(&event.values) {
            Ok(names) => names,
            Err(text) => return VerbResult::Refused(text),
        };
        self.shared.deliver_now(socket, self.out);
        for JsonText(name) in &names {
            let shared = &mut *self.shared;
            let name = name.as_bytes();
            shared.channels.unsubscribe(&shared.sessions, socket.index, TopicKind::Channel, name);
        }
        self.answer(ack, |out| list(out, "unsubscribed", &names));
        VerbResult::Done(())
    }

    fn publish(
        &mut self,
        event: &EventArguments<'_>,
        attachments: &[&[u8]],
        ack: Option<AckTo>,
    ) -> VerbResult<()> {
        let expected = "expected publish(channel, data) with a string and a value";
        let [channel, data] = &event.values[..] else {
            return VerbResult::Refused(expected.into());
        };
        let Ok(JsonText(channel)) = serde_json::from_str(channel.get()) else {
            return VerbResult::Refused(expected.into());
        };
        let payload = match payload(data, attachments) {
            Ok(payload) => payload,
            Err(text) => return VerbResult::Refused(text.into()),
        };
        let published =
            self.shared.publish_from(self.speaker, channel.as_bytes(), &payload, self.server);
        match published {
            VerbResult::Done(receivers) => {
                self.answer(ack, |out| {
                    out.extend_from_slice(b"{\"published\":");
                    json::string(out, &channel);
                    out.extend_from_slice(format!(",\"receivers\":{receivers}}}").as_bytes());
                });
                VerbResult::Done(())
            }
            VerbResult::Later => VerbResult::Later,
            VerbResult::Refused(text) => VerbResult::Refused(text),
        }
    }

    fn run_route(
        &mut self,
        namespace: u8,
        socket: SessionId,
        route: &OnRoute,
        event: &EventArguments<'_>,
        ack: Option<AckTo>,
    ) -> VerbResult<()> {
        // A publish that has waited is counted already.
        let is_again = self.shared.sessions.get(self.speaker).is(RESUMED);
        let rate = route.rate();
        if !is_again && !self.io.rates.allow(socket.serial, route.index(), rate, self.now) {
            let event = &event.event;
            return VerbResult::Refused(format!("too many events {event:?}; accepted: {rate}"));
        }
        let sid = self.io.socket_sid(socket);
        let sid = std::str::from_utf8(&sid).unwrap_or_default();
        let auth = self.io.auths.get(&socket).map(|auth| auth.to_string()).unwrap_or_default();
        match route.run(&event.values, &Sender { sid, auth: &auth }) {
            Ok(actions) => self.act(namespace, socket, actions, ack, true),
            Err(text) => VerbResult::Refused(text),
        }
    }

    /// Does what a route wants. A publish that must wait comes first of all that is visible, so the
    /// event can be passed again. Unless it `may_wait`, it is made at once.
    pub fn act(
        &mut self,
        namespace: u8,
        socket: SessionId,
        actions: Actions,
        ack: Option<AckTo>,
        may_wait: bool,
    ) -> VerbResult<()> {
        let shared = &mut *self.shared;
        if let Some(room) = &actions.leave {
            shared.deliver_now(socket, self.out);
            shared.channels.unsubscribe(&shared.sessions, socket.index, TopicKind::Channel, room);
        }
        if let Some(room) = &actions.join
            && let Err(text) =
                shared.subscribe_to(socket, TopicKind::Channel, room, self.server, self.out)
        {
            return VerbResult::Refused(text);
        }
        if let Some((channel, payload)) = &actions.publish {
            let speaker = self.speaker;
            shared.except = actions.to_others.then_some(socket);
            let published = match may_wait {
                true => shared.publish_from(speaker, channel, payload, self.server),
                false => shared.publish_now(speaker, channel, payload, self.server),
            };
            shared.except = None;
            match published {
                VerbResult::Done(_) => {}
                VerbResult::Later => return VerbResult::Later,
                VerbResult::Refused(text) => return VerbResult::Refused(text),
            }
        }
        if let Some(reply) = &actions.reply {
            let routes = self.shared.fanout.routes();
            let name = routes.namespace_name(namespace);
            self.framing.text(self.out, |out| {
                socketio::write_head(out, PacketKind::Event, 0, name, None);
                out.extend_from_slice(reply);
            });
        }
        if let Some(AckTo { namespace, id }) = ack {
            let name = self.shared.fanout.routes().namespace_name(namespace);
            self.framing.text(self.out, |out| {
                socketio::write_head(out, PacketKind::Ack, 0, name, Some(id));
                out.extend_from_slice(actions.ack.as_deref().unwrap_or(PLAIN_ACK));
            });
        }
        VerbResult::Done(())
    }
}

/// The options behind the names of `subscribe`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeOptions {
    /// True for the kept messages of the channels first.
    #[serde(default)]
    retained: bool,
}

fn read_options(options: &&RawValue) -> Result<SubscribeOptions, String> {
    serde_json::from_str(options.get())
        .map_err(|error| format!("expected options such as {{\"retained\":true}}: {error}"))
}

/// Returns values as names of channels.
fn names<'a>(values: &[&'a RawValue]) -> Result<Vec<JsonText<'a>>, String> {
    let count = values.len();
    if count == 0 || count > NAMES_AT_ONCE_MAX {
        return Err(format!("expected 1 to {NAMES_AT_ONCE_MAX} names of channels"));
    }
    let all = values.iter().map(|name| serde_json::from_str(name.get()));
    all.collect::<Result<_, _>>().map_err(|_| "expected names of channels, as strings".into())
}

/// Returns the payload that a value stands for: a string's bytes, an attachment, or JSON text.
fn payload<'a>(
    data: &'a RawValue,
    attachments: &[&'a [u8]],
) -> Result<std::borrow::Cow<'a, [u8]>, &'static str> {
    // In an event of text, an object that looks like a placeholder is an object.
    if !attachments.is_empty() {
        if let Some(Ok(at)) = socketio::placeholder(data, attachments.len()) {
            return Ok(attachments[at].into());
        }
        if socketio::has_placeholder(data) {
            return Err("binary inside a value; send it as an argument of its own");
        }
    }
    json::payload(data).ok_or("half of a surrogate pair is no text")
}

/// Appends an outcome with names, such as `{"subscribed":["a","b"]}`.
fn list(out: &mut Vec<u8>, key: &str, names: &[JsonText<'_>]) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":[");
    for (JsonText(name), at) in names.iter().zip(0..) {
        if at > 0 {
            out.push(b',');
        }
        json::string(out, name);
    }
    out.extend_from_slice(b"]}");
}
