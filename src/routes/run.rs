//! What a route does with an event or a message.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::requirement::{ArgumentRules, CheckedArguments, JsonFields, quoted};
use super::template::{ChannelTemplate, JsonTemplate, PlaceholderValues};
use super::{Actions, EventRate, Sender};
use crate::codec::json::{self, JsonText};
use crate::limits::JSON_DEPTH_MAX;

/// What an event of a client does.
#[derive(Debug)]
pub struct OnRoute {
    pub(super) index: u16,
    pub(super) rules: ArgumentRules,
    /// Largest arguments, in bytes of JSON.
    pub(super) size: usize,
    pub(super) rate: EventRate,
    pub(super) leave: Option<ChannelTemplate>,
    pub(super) join: Option<ChannelTemplate>,
    pub(super) publish: Option<(ChannelTemplate, JsonTemplate)>,
    pub(super) to_others: bool,
    /// An event and its argument.
    pub(super) reply: Option<(String, Option<JsonTemplate>)>,
    pub(super) ack: Option<JsonTemplate>,
}

impl OnRoute {
    /// Returns what an event does. An error is for its sender. A route of
    /// [`EventRoutes::on_connect`](super::EventRoutes::on_connect) or `on_disconnect` has no
    /// arguments.
    pub fn run(&self, arguments: &[&RawValue], sender: &Sender<'_>) -> Result<Actions, String> {
        let size: usize = arguments.iter().map(|argument| argument.get().len()).sum();
        if size > self.size {
            return Err(format!("the arguments have {size} bytes; accepted: up to {}", self.size));
        }
        let checked = self.rules.check(arguments)?;
        let auth = match sender.auth {
            "" => Vec::new(),
            auth => serde_json::from_str(auth).unwrap_or_default(),
        };
        let values = PlaceholderValues { checked: &checked, sid: sender.sid, auth };
        let fill = |template: &ChannelTemplate| template.fill(&values);
        let (leave, join) = (self.leave.as_ref().map(fill), self.join.as_ref().map(fill));
        let mut actions = Actions {
            leave: leave.transpose()?,
            join: join.transpose()?,
            to_others: self.to_others,
            ..Actions::default()
        };
        if let Some((channel, data)) = &self.publish {
            let mut payload = Vec::new();
            data.fill(&values, &mut payload);
            check_depth(&payload)?;
            // Receivers would treat this array as an event and its arguments.
            if data.is_placeholder() && names_an_event(&payload) {
                let accepted = "accepted: any other JSON";
                return Err(format!("the value is an array that begins with a string; {accepted}"));
            }
            actions.publish = Some((channel.fill(&values)?, payload));
        }
        if let Some((event, data)) = &self.reply {
            let mut reply = Vec::from(*b"[");
            json::string(&mut reply, event);
            if let Some(data) = data {
                reply.push(b',');
                data.fill(&values, &mut reply);
            }
            reply.push(b']');
            check_depth(&reply)?;
            actions.reply = Some(reply);
        }
        if let Some(data) = &self.ack {
            let mut ack = Vec::from(*b"[");
            data.fill(&values, &mut ack);
            ack.push(b']');
            check_depth(&ack)?;
            actions.ack = Some(ack);
        }
        Ok(actions)
    }

    /// Returns how often one socket may use the route.
    pub fn rate(&self) -> EventRate {
        self.rate
    }

    /// Returns the number of the route among all, for [`EventRates`](super::EventRates).
    pub fn index(&self) -> u16 {
        self.index
    }
}

fn check_depth(text: &[u8]) -> Result<(), String> {
    match json::is_too_deep(text) {
        true => Err(format!("JSON deeper than {JSON_DEPTH_MAX} levels")),
        false => Ok(()),
    }
}

/// Returns true if a payload of JSON is an array that begins with a string.
fn names_an_event(payload: &[u8]) -> bool {
    let Some(array) = payload.strip_prefix(b"[") else { return false };
    array.trim_ascii_start().starts_with(b"\"")
}

/// A route from a channel to rooms, which are channels as well.
#[derive(Debug)]
pub struct Forward {
    pub(super) event: String,
    pub(super) room: ChannelTemplate,
    /// The fields of the payload that the name of the room has.
    pub(super) fields: Vec<String>,
}

/// A message to forward, read once for all routes of its channel.
pub struct ForwardedMessage<'a> {
    /// JSON: the payload, or a string of it.
    value: Cow<'a, str>,
    /// The fields that some route needs, if the payload is an object.
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl ForwardedMessage<'_> {
    /// Reads a payload for some routes. Returns `None` if it is no text.
    pub fn read<'a>(payload: &'a [u8], routes: &[Forward]) -> Option<ForwardedMessage<'a>> {
        let payload = std::str::from_utf8(payload).ok()?;
        // The array around it adds a level.
        let is_too_deep = json::is_deeper_than(payload.as_bytes(), JSON_DEPTH_MAX - 1);
        let value = serde_json::from_str::<&RawValue>(payload).ok().filter(|_| !is_too_deep);
        let needs_fields = routes.iter().any(|route| !route.fields.is_empty());
        let fields = value.filter(|_| needs_fields).map(|value| serde_json::from_str(value.get()));
        Some(ForwardedMessage {
            value: value.map_or_else(|| quoted(payload).into(), |value| value.get().into()),
            fields: fields.and_then(Result::ok).map_or(Vec::new(), |JsonFields(fields)| fields),
        })
    }
}

impl Forward {
    /// Returns the channel of the room and the payload to publish there for a message. Returns
    /// `None` if the payload names no room.
    pub fn run(&self, message: &ForwardedMessage<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut checked = CheckedArguments::default();
        for name in &self.fields {
            let mut named = message.fields.iter().filter(|(known, _)| known == name);
            let (Some((_, field)), None) = (named.next(), named.next()) else { return None };
            checked.leaves.push(Some(name_value(field)?));
        }
        let values = PlaceholderValues { checked: &checked, sid: "", auth: Vec::new() };
        let room = self.room.fill(&values).ok()?;
        let mut payload = Vec::with_capacity(self.event.len() + message.value.len() + 8);
        payload.push(b'[');
        json::string(&mut payload, &self.event);
        payload.push(b',');
        payload.extend_from_slice(message.value.as_bytes());
        payload.push(b']');
        Some((room, payload))
    }
}

/// Returns the JSON text of a field that may be a part of a channel's name: a string, an integer
/// or a boolean.
fn name_value(field: &RawValue) -> Option<String> {
    let text = field.get();
    if text.starts_with('"') {
        let JsonText(text) = serde_json::from_str(text).ok()?;
        return Some(quoted(&text));
    }
    let is_plain = matches!(text, "true" | "false") || serde_json::from_str::<i64>(text).is_ok();
    is_plain.then(|| text.to_string())
}
