//! Reads the routes from channels to events: to all of a namespace, or to rooms.

use super::table::{FileTable, FileValue, RouteError, check_event, namespace_of, title};
use super::template::{ChannelTemplate, FoundPlaceholder, NamedPlaceholders, Placeholder};
use super::{EventRoutes, Forward, FromRoute, Newcomers};
use crate::limits::{FORWARDS_MAX, NAMESPACE_CHANNELS_MAX, RETAINED_KEYS, RETAINED_KEYS_MAX};
use crate::retain_rule::RetainRule;

const KEYS: [&str; 6] = ["channel", "emit", "namespace", "room", "retain", "volatile"];

/// A route that was read, for checks against the others.
pub struct ReadFrom {
    pub channel: RouteChannel,
    /// `None`: the route is to a room.
    namespace: Option<u8>,
    room: Option<RouteChannel>,
}

/// A name of a channel in a route.
pub struct RouteChannel {
    /// The name of the route in errors.
    title: String,
    at: usize,
    text: String,
    template: ChannelTemplate,
}

impl RouteChannel {
    pub fn new(entry: &FileTable<'_>, key: &str, template: ChannelTemplate) -> RouteChannel {
        let value = entry.get(key);
        let text = value.and_then(|value| value.get_ref().as_str()).unwrap_or_default();
        let at = value.map_or(entry.at, |value| value.span().start);
        RouteChannel { title: format!("{}: {key}", entry.title), at, text: text.into(), template }
    }

    /// Returns the error about a name that may be another one.
    fn may_be(&self, other: &RouteChannel, accepted: &str) -> RouteError {
        let why = format!(
            "{}: '{}' may be '{}' of {}; accepted: {accepted}",
            self.title, self.text, other.text, other.title
        );
        RouteError { at: self.at, why }
    }
}

/// Adds a route from a channel.
pub fn add_from(
    at: usize,
    value: &FileValue<'_>,
    routes: &mut EventRoutes,
    known: &mut Vec<ReadFrom>,
) -> Result<(), RouteError> {
    let entry = FileTable::new(title("from", at, value, ["channel", "emit"]), value, &KEYS)?;
    let channel = entry.text("channel")?.ok_or_else(|| {
        entry.fail(entry.at, "channel is missing; expected the name of a channel")
    })?;
    let template = ChannelTemplate::read(channel, &mut NoPlaceholders)
        .map_err(|why| entry.wrong("channel", why))?;
    let channel = RouteChannel::new(&entry, "channel", template);
    let event = entry.text("emit")?.ok_or_else(|| {
        entry.fail(entry.at, "emit is missing; expected the name of the event that clients get")
    })?;
    check_event(event).map_err(|why| entry.wrong("emit", why))?;
    if routes.verbs && event == "message" {
        let why = "'message' carries the messages of the verbs, which verbs = true turns on";
        return Err(entry.wrong("emit", format!("{why}; accepted: any other name")));
    }
    let name = &channel.template.literal();
    let (namespace, room) = match entry.text("room")? {
        Some(text) => {
            let room = add_room(&entry, name, event, text, routes)?;
            (None, Some(RouteChannel::new(&entry, "room", room)))
        }
        None => (Some(add_to_namespace(&entry, name, event, routes, known)?), None),
    };
    known.push(ReadFrom { channel, namespace, room });
    Ok(())
}

fn add_room(
    entry: &FileTable<'_>,
    channel: &str,
    event: &str,
    text: &str,
    routes: &mut EventRoutes,
) -> Result<ChannelTemplate, RouteError> {
    for key in ["namespace", "retain", "volatile"] {
        if entry.has(key) {
            let why = "a route to a room has no such key, as a room is a channel, which any \
                       namespace may join";
            return Err(entry.wrong(key, why));
        }
    }
    let mut placeholders = FieldPlaceholders(Vec::new());
    let room =
        ChannelTemplate::read(text, &mut placeholders).map_err(|why| entry.wrong("room", why))?;
    let forwards = routes.forwards.entry(channel.into()).or_default();
    if forwards.len() == FORWARDS_MAX {
        let accepted = format!("up to {FORWARDS_MAX} for one channel");
        return Err(entry.wrong("room", format!("too many routes to rooms; accepted: {accepted}")));
    }
    if forwards.iter().any(|known| known.room == room && known.fields == placeholders.0) {
        let accepted = "one route for each channel and room";
        return Err(entry.wrong("room", format!("another route has it; accepted: {accepted}")));
    }
    forwards.push(Forward { event: event.into(), room: room.clone(), fields: placeholders.0 });
    Ok(room)
}

fn add_to_namespace(
    entry: &FileTable<'_>,
    channel: &str,
    event: &str,
    routes: &mut EventRoutes,
    known: &[ReadFrom],
) -> Result<u8, RouteError> {
    let index = namespace_of(entry, routes)?;
    let same = |route: &&ReadFrom| {
        route.namespace == Some(index) && route.channel.template.literal() == channel
    };
    if let Some(other) = known.iter().find(same) {
        let other = &other.channel.title;
        let accepted = "one route for each channel and namespace";
        return Err(entry.wrong("channel", format!("{other} has it too; accepted: {accepted}")));
    }
    if routes.namespaces[usize::from(index)].channels.len() == NAMESPACE_CHANNELS_MAX {
        let accepted = format!("up to {NAMESPACE_CHANNELS_MAX} in a namespace");
        return Err(entry.fail(entry.at, format!("too many routes; accepted: {accepted}")));
    }
    let newcomers = retain(entry, channel, routes)?;
    let volatile = entry.flag("volatile")? == Some(true);
    routes.has_volatile |= volatile;
    let namespace = &mut routes.namespaces[usize::from(index)];
    let route = FromRoute { emit: event.into(), volatile, newcomers };
    namespace.from.insert(channel.into(), route);
    namespace.channels.push(channel.into());
    Ok(index)
}

/// Reads `retain`.
fn retain(
    entry: &FileTable<'_>,
    channel: &str,
    routes: &mut EventRoutes,
) -> Result<Newcomers, RouteError> {
    let Some(value) = entry.get("retain") else { return Ok(Newcomers::GetNothing) };
    let title = format!("{}: retain", entry.title);
    let table = FileTable::new(title, value, &["key", "as", "max"])?;
    let key = table.text("key")?;
    if key == Some("") {
        return Err(table.wrong("key", "expected the name of a field"));
    }
    let max = table.count("max", RETAINED_KEYS_MAX)?;
    if key.is_none() && max.is_some() {
        return Err(
            table.wrong("max", "it needs key; without a key, only the last message is kept")
        );
    }
    let event = table.text("as")?;
    if let Some(event) = event {
        check_event(event).map_err(|why| table.wrong("as", why))?;
    }
    let max = max.unwrap_or(if key.is_some() { RETAINED_KEYS } else { 1 });
    let rule = RetainRule { channel: channel.into(), key: key.map(String::from), max };
    match routes.retained.iter().find(|known| known.channel == channel) {
        Some(known) if *known != rule => {
            let accepted = "the same key and max for one channel";
            return Err(table.fail(
                table.at,
                format!(
                    "another route has a different retain for this channel; accepted: {accepted}"
                ),
            ));
        }
        Some(_) => {}
        None => routes.retained.push(rule),
    }
    Ok(match event {
        Some(event) => Newcomers::GetAll(event.into()),
        None => Newcomers::GetEach,
    })
}

/// Refuses a room that may be the channel of a route. A message could come back to where it came
/// from, and go round for ever.
pub fn check_for_loops(known: &[ReadFrom]) -> Result<(), RouteError> {
    for room in known.iter().filter_map(|route| route.room.as_ref()) {
        let overlaps = |next: &&ReadFrom| room.template.overlaps(&next.channel.template);
        if let Some(ReadFrom { channel, .. }) = known.iter().find(overlaps) {
            return Err(room.may_be(channel, "rooms that no route takes messages from"));
        }
    }
    Ok(())
}

/// Refuses a name with placeholders that clients could fill so that it is the channel of a `from`,
/// or a name of another form. Two names of one form are alike by intent: a room, and a publish to
/// it.
pub fn check_names(names: &[RouteChannel], known: &[ReadFrom]) -> Result<(), RouteError> {
    for name in names.iter().filter(|name| name.template.has_placeholders()) {
        let others = known.iter().map(|from| &from.channel).chain(names);
        let mut others = others.filter(|other| !name.template.has_form_of(&other.template));
        if let Some(other) = others.find(|other| name.template.overlaps(&other.template)) {
            return Err(name.may_be(other, "a prefix that no other name has"));
        }
    }
    Ok(())
}

/// A name without placeholders.
struct NoPlaceholders;

impl NamedPlaceholders for NoPlaceholders {
    fn find(&mut self, name: &str) -> Result<FoundPlaceholder, String> {
        Err(format!(
            "{{{name}}} is a placeholder; accepted: the whole name of one channel, as all messages \
             of the route come from there"
        ))
    }
}

/// The fields of a payload.
struct FieldPlaceholders(Vec<String>);

impl NamedPlaceholders for FieldPlaceholders {
    fn find(&mut self, name: &str) -> Result<FoundPlaceholder, String> {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || name == "sid" || name.starts_with("auth.") {
            let accepted = "fields of the payload, such as {room}";
            return Err(format!("a message has no {{{name}}}; accepted: {accepted}"));
        }
        let at = self.0.iter().position(|known| known == name).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(name.into());
        }
        Ok(FoundPlaceholder { placeholder: Placeholder::Leaf(at), names_channels: true })
    }
}
