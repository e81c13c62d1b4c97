//! Reads and checks the `[socketio]` section of the configuration file.

use std::collections::HashMap;
use std::time::Duration;

use super::require::{EventPlaceholders, requirements};
use super::requirement::ArgumentRules;
use super::rooms::{self, ReadFrom, RouteChannel};
use super::table::{FileTable, FileValue, RouteError, check_event, namespace_of, title};
use super::template::{ChannelTemplate, JsonTemplate, Placeholder};
use super::{ClusterAdapter, EventRate, EventRoutes, Namespace, OnRoute, source, template};
use crate::limits::{
    EVENT_SIZE, EVENT_SIZE_MAX, EVENTS_PER_SECOND, NAMESPACE_NAME_MAX, NAMESPACES_MAX,
    RATE_COUNT_MAX, ROUTES_MAX,
};
use crate::units::Size;

const KEYS: [&str; 5] = ["namespaces", "verbs", "adapter", "on", "from"];

const ON_KEYS: [&str; 13] = [
    "event",
    "on",
    "namespace",
    "require",
    "size",
    "rate",
    "publish",
    "data",
    "to",
    "reply",
    "ack",
    "join",
    "leave",
];

/// The keys that say what a route does.
const EFFECTS: [&str; 5] = ["publish", "reply", "ack", "join", "leave"];

/// Events that clients use without a route if `verbs` is on.
const VERBS: [&str; 3] = ["subscribe", "unsubscribe", "publish"];

const VERB_ADVICE: &str = "rename the event, or set verbs = false";

/// Reads the section. Each error names the route.
pub fn read(section: &FileValue<'_>) -> Result<EventRoutes, RouteError> {
    let entry = FileTable::new("socketio".into(), section, &KEYS)?;
    let mut routes = EventRoutes::default();
    for name in entry.list("namespaces", "a list of names, such as [\"/chat\"]")? {
        let refused =
            |why: String| Err(entry.fail(name.span().start, format!("namespaces: {why}")));
        let Some(name) = name.get_ref().as_str() else {
            return refused("expected names in quotes, such as \"/chat\"".into());
        };
        let is_name = name.len() > 1
            && name.len() <= NAMESPACE_NAME_MAX
            && name.starts_with('/')
            && !name.contains([',', '?'])
            && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        if !is_name {
            return refused(format!(
                "'{name}' is no namespace; accepted: a slash and a name without comma, question \
                 mark and space, up to {NAMESPACE_NAME_MAX} bytes; / exists without being named"
            ));
        }
        if routes.namespace(name).is_some() {
            return refused(format!("'{name}' is there twice"));
        }
        if routes.namespaces.len() == NAMESPACES_MAX {
            return refused(format!("too many; accepted: up to {}", NAMESPACES_MAX - 1));
        }
        routes.namespaces.push(Namespace { name: name.into(), ..Namespace::default() });
    }
    let on = entry.list("on", "tables, each headed [[socketio.on]]")?;
    let from = entry.list("from", "tables, each headed [[socketio.from]]")?;
    routes.verbs = entry.flag("verbs")?.unwrap_or(on.is_empty() && from.is_empty());
    routes.adapter = match entry.text("adapter")? {
        None => None,
        Some("redis") => Some(ClusterAdapter::Redis),
        Some("python-socketio") => Some(ClusterAdapter::Python),
        Some(other) => {
            let why = format!("there is no '{other}'; accepted: redis, python-socketio");
            return Err(entry.wrong("adapter", why));
        }
    };
    if on.len() + from.len() > ROUTES_MAX {
        let count = on.len() + from.len();
        let why = format!("there are {count} routes; accepted: up to {ROUTES_MAX}");
        return Err(entry.fail(entry.at, why));
    }
    let on: Vec<FileTable<'_>> =
        on.iter().enumerate().map(|(at, value)| on_entry(at, value)).collect::<Result<_, _>>()?;
    // Any route may use what a namespace requires of `auth`.
    for entry in &on {
        require_auth(entry, &mut routes)?;
    }
    let (mut titles, mut names) = (HashMap::new(), Vec::new());
    for (index, entry) in on.iter().enumerate() {
        add_on(entry, index as u16, &mut routes, &mut titles, &mut names)?;
    }
    let mut known: Vec<ReadFrom> = Vec::new();
    for (at, value) in from.iter().enumerate() {
        rooms::add_from(at, value, &mut routes, &mut known)?;
    }
    rooms::check_for_loops(&known)?;
    rooms::check_names(&names, &known)?;
    routes.source = source::section(section);
    Ok(routes)
}

fn on_entry<'a>(at: usize, value: &'a FileValue<'a>) -> Result<FileTable<'a>, RouteError> {
    let entry = FileTable::new(title("on", at, value, ["event", "on"]), value, &ON_KEYS)?;
    match (entry.has("event"), entry.text("on")?) {
        (true, None) | (false, Some("connect" | "disconnect")) => Ok(entry),
        (false, Some(other)) => {
            let accepted = "connect, disconnect; the event of a client is the key event";
            Err(entry.wrong("on", format!("there is no '{other}'; accepted: {accepted}")))
        }
        (true, Some(_)) => Err(entry.wrong("on", "event is set too; give one of them")),
        (false, None) => {
            let accepted = "event = \"NAME\", on = \"connect\" or on = \"disconnect\"";
            Err(entry.fail(entry.at, format!("the event is missing; accepted: {accepted}")))
        }
    }
}

/// Notes what a route of `connect` requires of `auth`.
fn require_auth(entry: &FileTable<'_>, routes: &mut EventRoutes) -> Result<(), RouteError> {
    if entry.text("on")? != Some("connect") || !entry.has("require") {
        return Ok(());
    }
    let namespace = namespace_of(entry, routes)?;
    let (rules, size) = (requirements(entry)?, size_of(entry)?);
    if rules.len() != 1 || rules.value(0).is_some() {
        return Err(entry.unexpected("require", "a table: the fields of auth"));
    }
    let known = &mut routes.namespaces[usize::from(namespace)];
    if !known.auth_rules.is_empty() {
        let accepted = "one such route in each namespace";
        return Err(entry
            .wrong("require", format!("another route of connect has it; accepted: {accepted}")));
    }
    (known.auth_rules, known.auth_size) = (rules, size);
    Ok(())
}

/// Adds a route of an event, of `connect` or of `disconnect`.
fn add_on(
    entry: &FileTable<'_>,
    index: u16,
    routes: &mut EventRoutes,
    titles: &mut HashMap<(u8, String), String>,
    names: &mut Vec<RouteChannel>,
) -> Result<(), RouteError> {
    let namespace = namespace_of(entry, routes)?;
    let event = entry.text("event")?;
    let on = entry.text("on")?;
    check_keys(entry, on)?;
    if let Some(event) = event {
        check_event(event).map_err(|why| entry.wrong("event", why))?;
        if routes.verbs && VERBS.contains(&event) {
            let why = format!("'{event}' is a built-in verb (verbs = true); {VERB_ADVICE}");
            return Err(entry.wrong("event", why));
        }
        if let Some(other) = titles.insert((namespace, event.into()), entry.title.clone()) {
            let accepted = "one route for each event and namespace";
            return Err(entry.wrong("event", format!("{other} has it too; accepted: {accepted}")));
        }
    }
    let known = &mut routes.namespaces[usize::from(namespace)];
    let route = on_route(entry, index, known)?;
    let published = route.publish.as_ref().map(|(channel, _)| ("publish", channel));
    for (key, template) in
        route.join.as_ref().map(|room| ("join", room)).into_iter().chain(published)
    {
        names.push(RouteChannel::new(entry, key, template.clone()));
    }
    match (event, on) {
        (Some(event), _) => drop(known.on.insert(event.into(), route)),
        (None, Some("connect")) => known.connect.push(route),
        (None, _) => known.disconnect.push(route),
    }
    Ok(())
}

/// Refuses keys that mean nothing in a route, and a route that does nothing.
fn check_keys(entry: &FileTable<'_>, on: Option<&str>) -> Result<(), RouteError> {
    let without: &[&str] = match on {
        None => &[],
        Some("connect") => &["ack", "rate"],
        Some(_) => &["ack", "reply", "join", "leave", "to", "require", "rate"],
    };
    if let (Some(key), Some(on)) = (without.iter().find(|key| entry.has(key)), on) {
        return Err(entry.wrong(key, format!("a route of {on} has no such key")));
    }
    for (key, needs) in [("size", "require"), ("to", "publish")] {
        if entry.has(key) && !entry.has(needs) {
            return Err(entry.wrong(key, format!("it needs {needs}, which is missing")));
        }
    }
    let replies_with_data = entry.get("reply").is_some_and(|reply| reply.get_ref().is_str());
    if entry.has("data") && !entry.has("publish") && !replies_with_data {
        let accepted = "publish, or reply with the name of an event";
        return Err(entry.wrong("data", format!("nothing uses it; accepted: {accepted}")));
    }
    let checks_auth = on == Some("connect") && entry.has("require");
    if !checks_auth && !EFFECTS.iter().any(|key| entry.has(key)) {
        let accepted = EFFECTS.join(", ");
        return Err(entry.fail(entry.at, format!("the route does nothing; accepted: {accepted}")));
    }
    Ok(())
}

fn on_route(
    entry: &FileTable<'_>,
    index: u16,
    namespace: &mut Namespace,
) -> Result<OnRoute, RouteError> {
    let is_event = entry.has("event");
    let rules = if is_event { requirements(entry)? } else { ArgumentRules::default() };
    let Namespace { auth_rules, kept_auth, .. } = namespace;
    let mut placeholders = EventPlaceholders { rules: &rules, auth_rules, kept_auth };
    let channel = |key: &str, placeholders: &mut EventPlaceholders<'_>| {
        let Some(text) = entry.text(key)? else { return Ok(None) };
        let template = ChannelTemplate::read(text, placeholders);
        template.map(Some).map_err(|why| entry.wrong(key, why))
    };
    let (leave, join) = (channel("leave", &mut placeholders)?, channel("join", &mut placeholders)?);
    let to_others = match entry.text("to")? {
        None | Some("all") => false,
        Some("others") => true,
        Some(other) => {
            let why = format!("there is no '{other}'; accepted: all, others");
            return Err(entry.wrong("to", why));
        }
    };
    // Without `data`, the value is the first argument.
    let data = match json(entry, "data", entry.get("data"), &mut placeholders)? {
        Some(data) => Some(data),
        None => (!rules.is_empty()).then(|| JsonTemplate::of(Placeholder::Argument(0))),
    };
    let publish = match (channel("publish", &mut placeholders)?, &data) {
        (None, _) => None,
        (Some(channel), Some(data)) => {
            check_first_text(entry)?;
            Some((channel, data.clone()))
        }
        (Some(_), None) => {
            return Err(entry.wrong("publish", "there is no argument to publish; it needs data"));
        }
    };
    Ok(OnRoute {
        index,
        size: size_of(entry)?,
        rate: rate(entry)?,
        leave,
        join,
        publish,
        to_others,
        reply: reply(entry, data, &mut placeholders)?,
        ack: json(entry, "ack", entry.get("ack"), &mut placeholders)?,
        rules,
    })
}

fn json(
    entry: &FileTable<'_>,
    key: &str,
    value: Option<&FileValue<'_>>,
    placeholders: &mut EventPlaceholders<'_>,
) -> Result<Option<JsonTemplate>, RouteError> {
    let template = value.map(|value| JsonTemplate::read(value, placeholders)).transpose();
    template.map_err(|(at, why)| entry.fail(at, format!("{key}: {why}")))
}

/// Refuses `data` that is an array whose first text a client could choose. Receivers take such an
/// array for an event and its arguments.
fn check_first_text(entry: &FileTable<'_>) -> Result<(), RouteError> {
    let array = entry.get("data").and_then(|data| data.get_ref().as_array());
    let Some(first) = array.and_then(|array| array.first()) else { return Ok(()) };
    let Some(name) = first.get_ref().as_str() else { return Ok(()) };
    let wrong = |why: String| entry.fail(first.span().start, format!("data: {why}"));
    match template::parts(name).map_err(wrong)?.as_slice() {
        [template::TextPart::Literal(name)] => check_event(name).map_err(wrong),
        _ => Err(wrong(
            "the first text of an array names an event; accepted: a name without placeholders"
                .into(),
        )),
    }
}

/// Reads `reply`: the name of an event, or a table with the name and its argument.
fn reply(
    entry: &FileTable<'_>,
    data: Option<JsonTemplate>,
    placeholders: &mut EventPlaceholders<'_>,
) -> Result<Option<(String, Option<JsonTemplate>)>, RouteError> {
    let Some(value) = entry.get("reply") else { return Ok(None) };
    if let Some(event) = value.get_ref().as_str() {
        check_event(event).map_err(|why| entry.wrong("reply", why))?;
        return Ok(Some((event.into(), data)));
    }
    let table = FileTable::new(format!("{}: reply", entry.title), value, &["event", "data"])?;
    let event = table.text("event")?.ok_or_else(|| {
        table.fail(table.at, "event is missing; expected such as { event = \"welcome\" }")
    })?;
    check_event(event).map_err(|why| table.wrong("event", why))?;
    Ok(Some((event.into(), json(&table, "data", table.get("data"), placeholders)?)))
}

fn size_of(entry: &FileTable<'_>) -> Result<usize, RouteError> {
    let Some(value) = entry.get("size") else { return Ok(EVENT_SIZE) };
    let bytes = match (value.get_ref().as_str(), value.get_ref().as_integer()) {
        (Some(text), _) => text.parse().map(|Size(bytes)| bytes).ok(),
        (_, Some(number)) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    let within = bytes.filter(|bytes| (2..=EVENT_SIZE_MAX).contains(bytes));
    within.ok_or_else(|| {
        entry.wrong("size", format!("accepted: 2 to {EVENT_SIZE_MAX} bytes, such as \"4KiB\""))
    })
}

fn rate(entry: &FileTable<'_>) -> Result<EventRate, RouteError> {
    let default = EventRate { count: EVENTS_PER_SECOND, per: Duration::from_secs(1) };
    let Some(text) = entry.text("rate")? else { return Ok(default) };
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.parse().ok().filter(|count| (1..=RATE_COUNT_MAX).contains(count))?;
        Some(EventRate { count, per: Duration::from_secs(seconds) })
    });
    parsed.ok_or_else(|| {
        let accepted = format!("1 to {RATE_COUNT_MAX} a second, minute or hour, such as \"20/s\"");
        entry.wrong("rate", format!("'{text}' is no rate; accepted: {accepted}"))
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Reads the section of a file. An error begins with its line.
    pub fn read_text(text: &str) -> Result<EventRoutes, String> {
        let table = toml::de::DeTable::parse(text).unwrap();
        let section = table.get_ref().get("socketio").unwrap();
        read(section).map_err(|error| {
            let line = text[..error.at].matches('\n').count() + 1;
            format!("{line}: {}", error.why)
        })
    }

    /// Sections that are refused, each with its line and a part of the error.
    #[test]
    fn a_section_that_cannot_be_used_is_refused_with_what_is_accepted() {
        let on = "[[socketio.on]]\n";
        let from = "[[socketio.from]]\n";
        let cases = errors();
        assert!(cases.len() >= 60, "{}", cases.len());
        let mut wrong = Vec::new();
        for (text, line, parts) in cases {
            let text = text.replace("ON ", on).replace("FROM ", from);
            let why = read_text(&text).err().unwrap_or_default();
            let is_expected = why.starts_with(&format!("{line}: "))
                && parts.split(" & ").all(|part| why.contains(part));
            if !is_expected {
                wrong.push(format!("{text}\n-- expected {line}: {parts}\n-- found {why}\n"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn errors() -> Vec<(&'static str, usize, &'static str)> {
        vec![
            ("socketio = 5", 1, "expected a table; found integer"),
            (
                "[socketio]\nnamespace = ['/a']",
                2,
                "no key 'namespace'; accepted: namespaces, verbs",
            ),
            ("[socketio]\nnamespaces = '/a'", 2, "namespaces: expected a list & found string"),
            ("[socketio]\nnamespaces = [5]", 2, "expected names in quotes"),
            ("[socketio]\nnamespaces = ['chat']", 2, "'chat' is no namespace; accepted: a slash"),
            ("[socketio]\nnamespaces = ['/']", 2, "/ exists without being named"),
            ("[socketio]\nnamespaces = ['/a,b']", 2, "without comma"),
            ("[socketio]\nnamespaces = ['/a', '/a']", 2, "'/a' is there twice"),
            ("[socketio]\nverbs = 1", 2, "verbs: expected true or false; found integer"),
            ("[socketio]\non = 5", 2, "headed [[socketio.on]]"),
            ("[socketio]\non = [5]", 2, "socketio.on 1: expected a table"),
            ("[socketio]\nfrom = { channel = 'a' }", 2, "headed [[socketio.from]]"),
            ("ON evnt = 'x'", 2, "no key 'evnt'; accepted: event, on, namespace"),
            ("ON publish = 'a'\ndata = 1", 1, "the event is missing & on = \"connect\""),
            ("ON event = 'x'\non = 'connect'", 3, "event is set too"),
            ("ON on = 'message'\npublish = 'a'", 2, "no 'message'; accepted: connect, disconnect"),
            ("ON event = 5\nack = 1", 2, "event: expected a string in quotes; found integer"),
            ("ON event = ''\nack = 1", 2, "1 to 256 bytes"),
            ("ON event = 'connect'\nack = 1", 2, "'connect' is reserved"),
            ("ON event = 'newListener'\nack = 1", 2, "reserved by Socket.IO"),
            ("ON event = 'x'", 1, "on 1 (event \"x\"): the route does nothing; accepted: publish"),
            ("ON event = 'x'\nack = 1\nON event = 'x'\nack = 2", 5, "on 2 (event \"x\") & on 1"),
            (
                "ON event = 'x'\nnamespace = '/a'\nack = 1",
                3,
                "'/a' is not in namespaces; accepted: /",
            ),
            ("[socketio]\nverbs = true\nON event = 'publish'\nack = 1", 4, "is a built-in verb"),
            ("ON event = 'x'\nrequire = 5\nack = 1", 3, "expected a type such as & found integer"),
            (
                "ON event = 'x'\nrequire = 'int'\nack = 1",
                3,
                "'int' is not a type; accepted: integer",
            ),
            ("ON event = 'x'\nrequire = 'integer 1'\nack = 1", 3, "such as \"integer 0..99\""),
            ("ON event = 'x'\nrequire = 'integer 1..2 3'\nack = 1", 3, "is not a type"),
            ("ON event = 'x'\nrequire = 'integer 2..1'\nack = 1", 3, "an empty range"),
            ("ON event = 'x'\nrequire = 'integer 0..9007199254740992'\nack = 1", 3, "JavaScript"),
            ("ON event = 'x'\nrequire = 'number 0..inf'\nack = 1", 3, "is not a type"),
            ("ON event = 'x'\nrequire = 'number 0..nan'\nack = 1", 3, "is not a type"),
            ("ON event = 'x'\nrequire = 'boolean 0..1'\nack = 1", 3, "is not a type"),
            ("ON event = 'x'\nrequire = 'string -1..1'\nack = 1", 3, "is not a type"),
            ("ON event = 'x'\nrequire = 'string?'\nack = 1", 3, "cannot be optional"),
            ("ON event = 'x'\nrequire = []\nack = 1", 3, "the list is empty"),
            ("ON event = 'x'\nrequire = {}\nack = 1", 3, "the table is empty"),
            ("ON event = 'x'\nrequire = { a = 1 }\nack = 1", 3, "expected a type such as"),
            ("ON event = 'x'\nrequire = { sid = 'any' }\nack = 1", 3, "'sid' could not have"),
            ("ON event = 'x'\nrequire = { 0 = 'any' }\nack = 1", 3, "'0' could not have"),
            ("ON event = 'x'\nrequire = { '' = 'any' }\nack = 1", 3, "'' could not have"),
            (
                "ON event = 'x'\nrequire = [{ a = 'any' }, { a = 'any' }]\nack = 1",
                3,
                "the field 'a'",
            ),
            ("ON event = 'x'\nrequire = 'any'\nsize = '1k'\nack = 1", 4, "2 to 1000000 bytes"),
            ("ON event = 'x'\nrequire = 'any'\nsize = 1\nack = 1", 4, "2 to 1000000 bytes"),
            ("ON event = 'x'\nrequire = 'any'\nsize = 1000001\nack = 1", 4, "2 to 1000000 bytes"),
            ("ON event = 'x'\nsize = 10\nack = 1", 3, "size: it needs require"),
            ("ON event = 'x'\nrate = 5\nack = 1", 3, "rate: expected a string in quotes"),
            (
                "ON event = 'x'\nrate = '5'\nack = 1",
                3,
                "'5' is no rate; accepted: 1 to 10000 a second",
            ),
            ("ON event = 'x'\nrate = '0/s'\nack = 1", 3, "'0/s' is no rate"),
            ("ON event = 'x'\nrate = '10001/s'\nack = 1", 3, "'10001/s' is no rate"),
            ("ON event = 'x'\nrate = '5/d'\nack = 1", 3, "'5/d' is no rate"),
            ("ON event = 'x'\npublish = 'a'", 3, "no argument to publish; it needs data"),
            ("ON event = 'x'\npublish = ''\ndata = 1", 3, "name of a channel is empty"),
            ("ON event = 'x'\npublish = \"a\\n\"\ndata = 1", 3, "has a control character"),
            ("ON event = 'x'\nack = 1\nto = 'others'", 4, "to: it needs publish"),
            (
                "ON event = 'x'\npublish = 'a'\ndata = 1\nto = 'me'",
                5,
                "no 'me'; accepted: all, others",
            ),
            (
                "ON event = 'x'\nack = 1\ndata = 1",
                4,
                "data: nothing uses it; accepted: publish, or",
            ),
            ("ON event = 'x'\ndata = 1\nreply = { event = 'a' }", 3, "data: nothing uses it"),
            ("ON event = 'x'\npublish = 'a'\ndata = 1979-05-27", 4, "found a date or time"),
            ("ON event = 'x'\npublish = 'a'\ndata = nan", 4, "JSON has no nan"),
            ("ON event = 'x'\npublish = 'a'\ndata = [[[[[[[[[1]]]]]]]]]", 4, "too deep & 8 levels"),
            ("ON event = 'x'\npublish = 'a'\ndata = '{'", 4, "a lone {; accepted: a placeholder"),
            ("ON event = 'x'\npublish = 'a'\ndata = 'a } b'", 4, "a lone }"),
            ("ON event = 'x'\npublish = 'a'\ndata = '{a{b}'", 4, "a lone {"),
            ("ON event = 'x'\npublish = 'a'\ndata = '{}'", 4, "there is no {}"),
            ("ON event = 'x'\npublish = 'a'\ndata = { b = '{a}' }", 4, "there is no {a}, as only"),
            (
                "ON event = 'x'\nrequire = { a = 'any' }\nack = '{b}'",
                4,
                "accepted: {a}, {0}, {sid}",
            ),
            ("ON event = 'x'\nrequire = 'any'\nack = '{1}'", 4, "there is no {1}"),
            ("ON event = 'x'\nrequire = 'any'\nack = '{00}'", 4, "there is no {00}"),
            ("ON event = 'x'\nrequire = 'any'\nack = '{+0}'", 4, "there is no {+0}"),
            ("ON event = 'x'\nack = { '{sid}' = 1 }", 3, "a key has no placeholders"),
            ("ON event = 'x'\nack = '{auth.name}'", 3, "a route of connect requires of auth"),
            ("ON event = 'x'\npublish = '{sid}'\ndata = 1", 3, "begins with a placeholder"),
            (
                "ON event = 'x'\nrequire = 'string'\njoin = 'a{0}{sid}'",
                4,
                "nothing separates {sid}",
            ),
            ("ON event = 'x'\nrequire = 'any'\njoin = 'a.{0}'", 4, "{0} may not be in the name"),
            ("ON event = 'x'\nrequire = 'number'\njoin = 'a.{0}'", 4, "{0} may not be in the name"),
            ("ON event = 'x'\nrequire = { a = 'any' }\nleave = 'a.{0}'", 4, "{0} may not be"),
            (
                "ON event = 'x'\nrequire = { a = 'string?' }\nleave = 'a.{a}'",
                4,
                "a required integer",
            ),
            ("ON event = 'x'\npublish = 'a'\ndata = ['{sid}']", 4, "without placeholders"),
            ("ON event = 'x'\npublish = 'a'\ndata = ['connect']", 4, "'connect' is reserved"),
            ("ON event = 'x'\nreply = 'disconnect'", 3, "reply: 'disconnect' is reserved"),
            ("ON event = 'x'\nreply = { data = 1 }", 3, "reply: event is missing"),
            (
                "ON event = 'x'\nreply = { event = 'a', x = 1 }",
                3,
                "no key 'x'; accepted: event, data",
            ),
            ("ON event = 'x'\nreply = 5", 3, "reply: expected a table; found integer"),
            ("ON on = 'connect'\nrequire = 'string'", 3, "a table: the fields of auth"),
            ("ON on = 'connect'\nrequire = [{ a = 'any' }, 'any']", 3, "the fields of auth"),
            (
                "ON on='connect'\nrequire={ a = 'any' }\nON on='connect'\nrequire={ b = 'any' }",
                6,
                "another route of connect has it",
            ),
            ("ON on = 'connect'\nack = 1", 3, "a route of connect has no such key"),
            ("ON on = 'disconnect'\nreply = 'bye'", 3, "a route of disconnect has no such key"),
            ("ON on = 'disconnect'\njoin = 'a'", 3, "a route of disconnect has no such key"),
            ("ON on = 'disconnect'\npublish = 'a'", 3, "it needs data"),
            (
                "ON on = 'connect'\nrequire = { a = 'any' }\npublish = 'x'\ndata = '{a}'",
                5,
                "{auth.a}",
            ),
            ("FROM emit = 'a'", 1, "channel is missing"),
            ("FROM channel = 'a'", 1, "from 1 (channel \"a\"): emit is missing"),
            ("FROM channel = 'a.{x}'\nemit = 'b'", 2, "the whole name of one channel"),
            ("FROM channel = 'a'\nemit = 'connect'", 3, "'connect' is reserved"),
            ("FROM channel = 'a'\nemit = 'b'\nto = 'others'", 4, "no key 'to'; accepted: channel"),
            ("FROM channel = 'a'\nemit = 'b'\nnamespace = '/x'", 4, "'/x' is not in namespaces"),
            (
                "FROM channel = 'a'\nemit = 'b'\nFROM channel = 'a'\nemit = 'c'",
                5,
                "from 1 (channel",
            ),
            (
                "FROM channel = 'a'\nemit = 'b'\nvolatile = 'yes'",
                4,
                "volatile: expected true or false",
            ),
            ("[socketio]\nverbs = true\nFROM channel = 'a'\nemit = 'message'", 5, "of the verbs"),
            ("FROM channel = 'a'\nemit = 'b'\nretain = true", 4, "retain: expected a table"),
            ("FROM channel = 'a'\nemit = 'b'\nretain = { keys = 'x' }", 4, "no key 'keys'"),
            ("FROM channel = 'a'\nemit = 'b'\nretain = { key = '' }", 4, "the name of a field"),
            ("FROM channel = 'a'\nemit = 'b'\nretain = { key = 'x', max = 0 }", 4, "1 to 16777216"),
            (
                "FROM channel = 'a'\nemit = 'b'\nretain = { key = 'x', max = 16777217 }",
                4,
                "1 to 16",
            ),
            ("FROM channel = 'a'\nemit = 'b'\nretain = { max = 5 }", 4, "max: it needs key"),
            ("FROM channel = 'a'\nemit = 'b'\nretain = { as = 'connect' }", 4, "as: 'connect' is"),
            ("FROM channel = 'a'\nemit = 'b'\nroom = '{x}'", 4, "begins with a placeholder"),
            ("FROM channel = 'a'\nemit = 'b'\nroom = 'r.{sid}'", 4, "a message has no {sid}"),
            ("FROM channel = 'a'\nemit = 'b'\nroom = 'r.{0}'", 4, "fields of the payload"),
            ("FROM channel = 'a'\nemit = 'b'\nroom = 'r'\nnamespace = '/'", 5, "any namespace may"),
            (
                "FROM channel = 'a'\nemit = 'b'\nroom = 'r'\nretain = {}",
                5,
                "a route to a room has no",
            ),
            (
                "FROM channel='a'\nemit='b'\nroom='r'\nFROM channel='a'\nemit='c'\nroom='r'",
                8,
                "one route for each channel and room",
            ),
            // Loops.
            ("FROM channel = 'a'\nemit = 'b'\nroom = 'a'", 4, "'a' may be 'a' & no route takes"),
            ("FROM channel = 'a.b'\nemit = 'b'\nroom = 'a.{x}'", 4, "'a.{x}' may be 'a.b'"),
            (
                "FROM channel='a'\nemit='x'\nroom='b'\nFROM channel='b'\nemit='x'\nroom='a'",
                4,
                "'b' of socketio.from 2",
            ),
            ("FROM channel = 'a.b.c'\nemit = 'b'\nroom = 'a.{x}.c'", 4, "may be 'a.b.c'"),
            // Names that clients could fill to be another route's.
            ("ON event = 'x'\nrequire = 'string'\njoin = 'a{0}'", 4, "'a' beside {0} could be"),
            ("ON event = 'x'\nrequire = 'string'\njoin = 'a.{0}b'", 4, "'b' beside {0} could be"),
            (
                "ON event='x'\nrequire='string'\npublish='a.{0}'\nFROM channel='a.b'\nemit='e'",
                4,
                "on 1 (event \"x\"): publish: 'a.{0}' may be 'a.b' of socketio.from 1 & a prefix",
            ),
            (
                "ON event='x'\nrequire='string'\njoin='a.{0}'\nON event='y'\njoin='a.b'",
                4,
                "'a.{0}' may be 'a.b' of socketio.on 2",
            ),
            (
                "ON event='y'\njoin='a.b-{sid}'\nON event='x'\nrequire='string'\njoin='a.{0}'",
                3,
                "'a.b-{sid}' may be 'a.{0}' of socketio.on 2",
            ),
            (
                "ON event='x'\njoin='a.{sid}'\nFROM channel='a.b-_45678901234567890'\nemit='e'",
                3,
                "may be 'a.b-_45678901234567890'",
            ),
        ]
    }

    #[test]
    fn names_that_no_client_can_make_alike_are_accepted() {
        for (join, publish, channel) in [
            ("room.{0}", "room.{sid}", "room"),
            ("room.{0}", "room.admin.{sid}", "room.admin.a"),
            ("room.{0}", "rooms.{sid}", "roo.m"),
            ("room.{0}.x", "room.{sid}.y", "room.a.z"),
            ("user.{sid}", "user.{0}", "use.r"),
            ("user:{sid}", "chat.{0}", "user:list"),
            ("user:{sid}", "chat.{0}", "user:1234567890123456789:"),
        ] {
            let text = format!(
                "[[socketio.on]]\nevent='e'\nrequire='string'\njoin='{join}'\n\
                 [[socketio.on]]\nevent='f'\nrequire='string'\npublish='{publish}'\n\
                 [[socketio.from]]\nchannel='{channel}'\nemit='e'"
            );
            assert_eq!(read_text(&text).err(), None, "{text}");
        }
    }

    #[test]
    fn rooms_that_no_route_listens_to_are_accepted() {
        for (channel, room) in [
            ("a", "b"),
            ("a", "a.{x}"),
            ("a.b.d", "a.{x}.c"),
            ("ab", "a.{x}"),
            ("x.a.b", "a.{x}"),
            ("a.bc", "a.{x}.c"),
            ("a.b.c.d", "a.{x}.c.{y}.d"),
            ("a.b.c", "a.{x}"),
        ] {
            let text = format!("[[socketio.from]]\nchannel='{channel}'\nemit='e'\nroom='{room}'");
            assert_eq!(read_text(&text).err(), None, "{text}");
        }
    }

    #[test]
    fn the_numbers_of_routes_namespaces_and_channels_are_bounded() {
        let on = |count: usize| {
            let route = |at| format!("[[socketio.on]]\nevent='e{at}'\nack=1\n");
            read_text(&(0..count).map(route).collect::<String>())
        };
        assert_eq!(on(1024).unwrap().on(0, "e1023").unwrap().index(), 1023);
        assert!(on(1025).unwrap_err().contains("accepted: up to 1024"));
        let from = |count: usize| {
            let route = |at| format!("[[socketio.from]]\nchannel='c{at}'\nemit='e'\n");
            read_text(&(0..count).map(route).collect::<String>())
        };
        let rooms = |count: usize| {
            let route = |at| format!("[[socketio.from]]\nchannel='c'\nemit='e'\nroom='r{at}'\n");
            read_text(&(0..count).map(route).collect::<String>())
        };
        assert_eq!(rooms(15).unwrap().forward(b"c", b"5").count(), 15);
        assert_eq!(rooms(16).unwrap().forward(b"c", b"5").count(), 16);
        assert!(rooms(17).unwrap_err().contains("accepted: up to 16 for one channel"));
        assert_eq!(from(64).unwrap().channels(0).count(), 64);
        assert!(from(65).unwrap_err().contains("accepted: up to 64"));
        let namespaces = |count: usize| {
            let names = (0..count).map(|at| format!("'/n{at}',")).collect::<String>();
            read_text(&format!("[socketio]\nnamespaces=[{names}]"))
        };
        assert_eq!(namespaces(63).unwrap().namespace("/n62"), Some(63));
        assert!(namespaces(64).unwrap_err().contains("accepted: up to 63"));
        assert!(namespaces(63).unwrap().verbs());
    }
}
