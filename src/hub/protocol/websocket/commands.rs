//! The commands of `/ws`: JSON objects that subscribe, publish, log in and ping.
//!
//! Each message is one object. Its `id`, if it has one, comes back with the outcome. An error
//! leaves the connection open, unless the message is no object.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::WebSocketClient;
use crate::codec::websocket::{Opcode, frame};
use crate::hub::access::Attempt;
use crate::hub::channels::Kind;
use crate::hub::encoding::CatchUpForm;
use crate::hub::json::{self, JsonText};
use crate::hub::verbs::VerbResult;
use crate::limits::{JSON_DEPTH_MAX, LABEL_MAX, NAMES_AT_ONCE_MAX, WEB_PATTERNS_MAX};

/// A message of a client. Exactly one key but `id`, `data`, `base64` and `retained` is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientMessage<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    subscribe: Option<Names<'a>>,
    #[serde(borrow)]
    psubscribe: Option<Names<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<Names<'a>>,
    #[serde(borrow)]
    punsubscribe: Option<Names<'a>>,
    #[serde(borrow)]
    publish: Option<JsonText<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<JsonText<'a>>,
    retained: Option<bool>,
    #[serde(borrow)]
    ping: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<JsonText<'a>>,
}

/// Keeps a null, which an optional member without this function would lose.
fn given<'a, D: Deserializer<'a>>(member: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(member).map(Some)
}

/// A message of which only the `id` counts.
#[derive(Deserialize)]
struct OnlyId<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    id: Option<&'a RawValue>,
}

/// The names of a string, or of an array of strings. There are at most [`NAMES_AT_ONCE_MAX`].
struct Names<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Names<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Names<'a>, D::Error> {
        from.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'a> Visitor<'a> for NamesVisitor {
    type Value = Names<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name, or an array of 1 to {NAMES_AT_ONCE_MAX} names")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Names<'a>, E> {
        Ok(Names(vec![Cow::Borrowed(name)]))
    }

    fn visit_str<E>(self, name: &str) -> Result<Names<'a>, E> {
        Ok(Names(vec![Cow::Owned(name.to_string())]))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Names<'a>, A::Error> {
        let mut names = Vec::new();
        while let Some(JsonText(name)) = array.next_element()? {
            if names.len() == NAMES_AT_ONCE_MAX {
                return Err(serde::de::Error::invalid_length(names.len() + 1, &self));
            }
            names.push(name);
        }
        match names.is_empty() {
            true => Err(serde::de::Error::invalid_length(0, &self)),
            false => Ok(Names(names)),
        }
    }
}

const EXPECTED: &str = "expected one of subscribe, psubscribe, unsubscribe, punsubscribe, publish \
                        with data or base64, ping and auth, such as {\"subscribe\":\"news\"}";

/// Runs the command of one message. A refusal closes the connection.
pub fn run(client: &mut WebSocketClient<'_, '_>, text: &[u8]) -> VerbResult<()> {
    if json::is_too_deep(text) {
        return VerbResult::Refused(format!("JSON deeper than {JSON_DEPTH_MAX} levels"));
    }
    if text.trim_ascii_start().first() != Some(&b'{') {
        return VerbResult::Refused("no JSON object; expected one such as {\"ping\":1}".into());
    }
    let message: ClientMessage<'_> = match serde_json::from_slice(text) {
        Ok(message) => message,
        // The reasons of the parser quote at most a key of the client.
        Err(error) if error.is_data() => {
            let id = serde_json::from_slice::<OnlyId<'_>>(text).ok().and_then(|only| only.id);
            send_error(client, id.filter(fits), &format!("{EXPECTED}: {error}"));
            return VerbResult::Done(());
        }
        Err(error) => return VerbResult::Refused(format!("not JSON: {error}")),
    };
    let id = message.id;
    if !id.iter().all(fits) {
        let text = format!("the id is too long; accepted: up to {LABEL_MAX} bytes");
        send_error(client, None, &text);
        return VerbResult::Done(());
    }
    if !client.shared.is_authenticated(client.session) && message.auth.is_none() {
        let WebSocketClient { shared, session, server, .. } = client;
        shared.note_refused(*session, *server);
        send_error(client, id, "the password is missing; send {\"auth\":\"PASSWORD\"} first");
        return VerbResult::Done(());
    }
    let given = [
        message.subscribe.is_some(),
        message.psubscribe.is_some(),
        message.unsubscribe.is_some(),
        message.punsubscribe.is_some(),
        message.publish.is_some(),
        message.ping.is_some(),
        message.auth.is_some(),
    ];
    let verbs = given.iter().filter(|given| **given).count();
    if verbs != 1 {
        let text = match verbs {
            0 => EXPECTED,
            _ => "more than one command in a message; send each in a message of its own",
        };
        send_error(client, id, text);
        return VerbResult::Done(());
    }
    let verbs = [
        (message.subscribe, Kind::Channel, true, "subscribed"),
        (message.psubscribe, Kind::Pattern, true, "psubscribed"),
        (message.unsubscribe, Kind::Channel, false, "unsubscribed"),
        (message.punsubscribe, Kind::Pattern, false, "punsubscribed"),
    ];
    for (names, kind, subscribes, outcome) in verbs {
        if let Some(Names(names)) = names {
            let form = (kind, subscribes, message.retained == Some(true));
            return change(client, id, &names, form, outcome);
        }
    }
    if let Some(JsonText(channel)) = message.publish {
        let base64 = message.base64.as_ref().map(|text| &*text.0);
        return publish(client, id, &channel, message.data, base64);
    }
    if message.ping.is_some() {
        send(client, id, |out| out.extend_from_slice(b"\"pong\":1"));
    }
    match message.auth {
        Some(JsonText(password)) => log_in(client, id, &password),
        None => VerbResult::Done(()),
    }
}

/// Returns true if an `id` may come back. It does so with each name of a message.
fn fits(id: &&RawValue) -> bool {
    id.get().len() <= LABEL_MAX
}

/// Begins or ends the subscriptions to some names. After an error, what is confirmed stands.
fn change(
    client: &mut WebSocketClient<'_, '_>,
    id: Option<&RawValue>,
    names: &[Cow<'_, str>],
    (kind, subscribes, wants_retained): (Kind, bool, bool),
    outcome: &str,
) -> VerbResult<()> {
    if kind == Kind::Pattern && names.len() > WEB_PATTERNS_MAX {
        let text = format!("{} patterns; accepted: up to {WEB_PATTERNS_MAX}", names.len());
        send_error(client, id, &text);
        return VerbResult::Done(());
    }
    if client.shared.must_wait_to_search(client.session) {
        return VerbResult::Later;
    }
    for name in names {
        let WebSocketClient { shared, session, reply, server, .. } = client;
        let changed = match subscribes {
            true => {
                let out = reply.bytes_mut();
                let name = name.as_bytes();
                let is_new = shared.subscribe_to(*session, kind, name, *server, out);
                if is_new == Ok(true) && kind == Kind::Channel && wants_retained {
                    shared.catch_up(*session, name, CatchUpForm::Messages);
                }
                is_new.map(drop)
            }
            false => {
                shared.deliver_now(*session, reply.bytes_mut());
                shared.channels.unsubscribe(&shared.sessions, session.index, kind, name.as_bytes());
                Ok(())
            }
        };
        match changed {
            Ok(()) => send(client, id, |out| {
                let _ = write!(out, "\"{outcome}\":");
                json::string(out, name);
            }),
            Err(text) => {
                send_error(client, id, &text);
                break;
            }
        }
    }
    VerbResult::Done(())
}

fn publish(
    client: &mut WebSocketClient<'_, '_>,
    id: Option<&RawValue>,
    channel: &str,
    data: Option<&RawValue>,
    base64: Option<&str>,
) -> VerbResult<()> {
    let payload = match (data, base64) {
        (Some(value), None) => match json::payload(value) {
            Some(payload) => payload,
            None => {
                send_error(client, id, "data has half of a surrogate pair, which is no text");
                return VerbResult::Done(());
            }
        },
        (None, Some(text)) => match json::bytes(text) {
            Some(bytes) => Cow::Owned(bytes),
            None => {
                send_error(client, id, "base64 is malformed; expected it with padding");
                return VerbResult::Done(());
            }
        },
        _ => {
            send_error(client, id, "a publish has either data or base64");
            return VerbResult::Done(());
        }
    };
    let WebSocketClient { shared, session, server, .. } = client;
    let channel_name = channel.as_bytes();
    match shared.publish_from(*session, channel_name, &payload, *server) {
        VerbResult::Done(receivers) => send(client, id, |out| {
            out.extend_from_slice(b"\"published\":");
            json::string(out, channel);
            // Writing to a Vec cannot fail.
            let _ = write!(out, ",\"receivers\":{receivers}");
        }),
        VerbResult::Refused(text) => send_error(client, id, &text),
        VerbResult::Later => return VerbResult::Later,
    }
    VerbResult::Done(())
}

fn log_in(
    client: &mut WebSocketClient<'_, '_>,
    id: Option<&RawValue>,
    password: &str,
) -> VerbResult<()> {
    let WebSocketClient { shared, session, reply, server, .. } = client;
    match shared.log_in(*session, None, password.as_bytes(), reply.now, *server) {
        VerbResult::Done(Attempt::Right | Attempt::NoPassword) => {
            shared.set_authenticated(*session, true);
            reply.trust(true);
            // Pings begin now.
            reply.wake_by(reply.now.tick());
            send(client, id, |out| out.extend_from_slice(b"\"authenticated\":true"));
        }
        VerbResult::Done(Attempt::Wrong) | VerbResult::Refused(_) => {
            send_error(client, id, "wrong password");
        }
        VerbResult::Later => return VerbResult::Later,
    }
    VerbResult::Done(())
}

/// Sends an object with the members that `write` appends, and with the id of the command.
fn send(
    client: &mut WebSocketClient<'_, '_>,
    id: Option<&RawValue>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let out = client.reply.bytes_mut();
    let start = out.len();
    out.push(b'{');
    write(out);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.get().as_bytes());
    }
    out.push(b'}');
    frame(out, Opcode::Text, start);
}

fn send_error(client: &mut WebSocketClient<'_, '_>, id: Option<&RawValue>, text: &str) {
    send(client, id, |out| {
        out.extend_from_slice(b"\"error\":");
        json::string(out, text);
    });
}
