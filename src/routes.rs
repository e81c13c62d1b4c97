//! The routes of Socket.IO: which events become publishes, and which messages become events.
//!
//! [`EventRoutes`] is the `[socketio]` section of the configuration file, checked. It is pure: it
//! knows no session and no socket. Without routes, the built-in verbs are on. With routes, an event
//! that has none is dropped.

mod rates;
mod require;
mod requirement;
mod rooms;
mod run;
mod section;
mod source;
mod table;
mod template;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde_json::value::RawValue;

pub use rates::EventRates;
pub use run::OnRoute;
pub use table::{FileValue, RouteError};

use crate::retain_rule::RetainRule;
use requirement::ArgumentRules;
use run::{Forward, ForwardedMessage};

/// The format in which other servers of Socket.IO share events over the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterAdapter {
    /// Node servers with `@socket.io/redis-adapter`.
    Redis,
    /// Servers of python-socketio with a `RedisManager`.
    Python,
}

/// The routes of all namespaces.
#[derive(Debug)]
pub struct EventRoutes {
    /// The first is `/`, which exists always.
    namespaces: Vec<Namespace>,
    verbs: bool,
    adapter: Option<ClusterAdapter>,
    forwards: HashMap<Vec<u8>, Vec<Forward>>,
    retained: Vec<RetainRule>,
    /// True if the messages of a channel are volatile.
    has_volatile: bool,
    /// The section of the file; empty: there is none.
    source: String,
}

/// The routes of one namespace.
#[derive(Debug, Default)]
struct Namespace {
    name: String,
    on: HashMap<String, OnRoute>,
    connect: Vec<OnRoute>,
    disconnect: Vec<OnRoute>,
    /// The channels of `from`, in the order of the file.
    channels: Vec<String>,
    from: HashMap<Vec<u8>, FromRoute>,
    /// What `auth` must have: one argument, or none if no route requires something of it.
    auth_rules: ArgumentRules,
    /// Largest `auth`, in bytes of JSON.
    auth_size: usize,
    /// The leaves of `auth` that routes use.
    kept_auth: Vec<usize>,
}

/// How often one socket may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRate {
    pub count: u32,
    pub per: Duration,
}

/// Shows the rate as it is written in the file.
impl fmt::Display for EventRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// The socket whose event a route handles.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The Socket.IO sid, which other clients may know.
    pub sid: &'a str,
    /// The text that [`EventRoutes::auth`] returned when the socket connected.
    pub auth: &'a str,
}

/// What a route wants done, in this order: leave, join, publish, reply, ack.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions {
    pub leave: Option<Vec<u8>>,
    pub join: Option<Vec<u8>>,
    /// A channel and a payload of JSON.
    pub publish: Option<(Vec<u8>, Vec<u8>)>,
    /// True if the socket itself does not get what it publishes.
    pub to_others: bool,
    /// JSON: an array of an event's name and its argument.
    pub reply: Option<Vec<u8>>,
    /// JSON: an array of one argument. `None`: the acknowledgement is [`PLAIN_ACK`].
    pub ack: Option<Vec<u8>>,
}

/// The arguments of the acknowledgement of a route without `ack`. Those of an error are
/// `[{"error":"…"}]`, so a client can look for `error` in any.
pub const PLAIN_ACK: &[u8] = b"[{}]";

/// How the messages of a channel look to the sockets of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct FromRoute {
    /// The name of the event. Its argument is the payload: a value of JSON, a string of JSON too,
    /// or else a string or bytes.
    pub emit: String,
    /// True if a socket misses messages while it is slow.
    pub volatile: bool,
    pub newcomers: Newcomers,
}

/// What a socket gets of a channel's retained messages when it connects.
#[derive(Debug, PartialEq, Eq)]
pub enum Newcomers {
    GetNothing,
    /// Each message, as it came.
    GetEach,
    /// An event of this name, with arrays of messages as its argument.
    GetAll(Rc<str>),
}

impl Default for EventRoutes {
    /// No routes: the verbs are on, and the only namespace is `/`.
    fn default() -> EventRoutes {
        EventRoutes {
            namespaces: vec![Namespace { name: "/".into(), ..Namespace::default() }],
            verbs: true,
            adapter: None,
            forwards: HashMap::new(),
            retained: Vec::new(),
            has_volatile: false,
            source: String::new(),
        }
    }
}

/// Routes are equal if their sections are, whatever the comments and spaces of the file.
impl PartialEq for EventRoutes {
    fn eq(&self, other: &EventRoutes) -> bool {
        self.source == other.source
    }
}

impl Eq for EventRoutes {}

impl EventRoutes {
    /// Reads and checks the section of the configuration file.
    pub fn read(section: &FileValue<'_>) -> Result<EventRoutes, RouteError> {
        section::read(section)
    }

    /// Returns the section for a configuration file; empty: there is none.
    pub fn to_toml(&self) -> &str {
        &self.source
    }

    /// Returns the number of the namespace of this name; 0 is `/`.
    pub fn namespace(&self, name: &str) -> Option<u8> {
        self.namespaces.iter().position(|namespace| namespace.name == name).map(|at| at as u8)
    }

    /// Returns the name of a namespace. A number that no namespace has counts as 0.
    pub fn namespace_name(&self, namespace: u8) -> &str {
        &self.of(namespace).name
    }

    /// Returns the names of all namespaces, in the order of their numbers.
    pub fn namespace_names(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(|namespace| namespace.name.as_str())
    }

    /// Returns how the server takes part in a cluster of other servers over the broker.
    pub fn adapter(&self) -> Option<ClusterAdapter> {
        self.adapter
    }

    /// Returns whether clients may use the built-in verbs.
    pub fn verbs(&self) -> bool {
        self.verbs
    }

    /// Returns the route of an event of clients.
    pub fn on(&self, namespace: u8, event: &str) -> Option<&OnRoute> {
        self.of(namespace).on.get(event)
    }

    /// Returns the routes that run when a socket has connected. They have no arguments.
    pub fn on_connect(&self, namespace: u8) -> &[OnRoute] {
        &self.of(namespace).connect
    }

    /// Returns the routes that run when a socket ends. They have no arguments.
    pub fn on_disconnect(&self, namespace: u8) -> &[OnRoute] {
        &self.of(namespace).disconnect
    }

    /// Returns what routes use of the `auth` of a CONNECT, for [`Sender::auth`]. The text is empty
    /// if they use nothing. The caller keeps it while the socket lives. An error is for
    /// CONNECT_ERROR.
    pub fn auth(&self, namespace: u8, auth: Option<&RawValue>) -> Result<String, String> {
        let Namespace { auth_rules, auth_size, kept_auth, .. } = self.of(namespace);
        if auth_rules.is_empty() {
            return Ok(String::new());
        }
        if let Some(size) = auth.map(|auth| auth.get().len()).filter(|size| size > auth_size) {
            return Err(format!("auth has {size} bytes; accepted: up to {auth_size}"));
        }
        let checked = auth_rules.check_auth(auth).map_err(|why| format!("auth: {why}"))?;
        if kept_auth.is_empty() {
            return Ok(String::new());
        }
        let kept = kept_auth.iter().map(|leaf| checked.leaves[*leaf].as_deref().unwrap_or("null"));
        Ok(format!("[{}]", kept.collect::<Vec<_>>().join(",")))
    }

    /// Returns how the messages of a channel look. `None`: they arrive as `message`, or under the
    /// name that their payload has.
    pub fn from(&self, namespace: u8, channel: &[u8]) -> Option<&FromRoute> {
        self.of(namespace).from.get(channel)
    }

    /// Returns whether a slow socket may miss messages of any channel.
    pub fn has_volatile(&self) -> bool {
        self.has_volatile
    }

    /// Returns the name of the event that the messages of a channel become.
    pub fn emits(&self, namespace: u8, channel: &[u8]) -> Option<&str> {
        Some(&self.from(namespace, channel)?.emit)
    }

    /// Returns the channels that a socket is subscribed to when it connects.
    pub fn channels(&self, namespace: u8) -> impl Iterator<Item = &str> {
        self.of(namespace).channels.iter().map(String::as_str)
    }

    /// Returns whether any message may go to a room, so that a publish must look.
    pub fn has_forwards(&self) -> bool {
        !self.forwards.is_empty()
    }

    /// Returns the channels whose messages may go to a room.
    pub fn forwarded(&self) -> impl Iterator<Item = &[u8]> {
        self.forwards.keys().map(Vec::as_slice)
    }

    /// Returns the rooms that a message goes to, each with the payload to publish there. What is
    /// published there is not forwarded again.
    pub fn forward(
        &self,
        channel: &[u8],
        payload: &[u8],
    ) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let routes = self.forwards.get(channel).map_or(&[][..], Vec::as_slice);
        let has_routes = !routes.is_empty();
        let message = has_routes.then(|| ForwardedMessage::read(payload, routes)).flatten();
        routes.iter().filter_map(move |route| route.run(message.as_ref()?))
    }

    /// Returns what the hub keeps for newcomers, one for each channel.
    pub fn retained(&self) -> impl Iterator<Item = &RetainRule> {
        self.retained.iter()
    }

    fn of(&self, namespace: u8) -> &Namespace {
        self.namespaces.get(usize::from(namespace)).unwrap_or(&self.namespaces[0])
    }
}

#[cfg(test)]
mod tests {
    use super::section::tests::read_text;
    use super::*;

    /// The checkboxes.
    const CHECKBOXES: &str = r#"
[[socketio.on]]
event   = "client:checkbox:change"
require = { index = "integer 0..999999", checked = "boolean" }
publish = "internal-server:checkbox:change"

[[socketio.from]]
channel = "internal-server:checkbox:change"
emit    = "server:checkbox:change"
retain  = { key = "index", as = "server:checkbox:state", max = 1000000 }
"#;

    /// A chat with rooms, and who is there.
    const CHAT: &str = r#"
[socketio]
namespaces = ["/chat"]

[[socketio.on]]
on        = "connect"
namespace = "/chat"
require   = { name = "string 1..32", age = "integer? 0..150" }
publish   = "people"
data      = { sid = "{sid}", name = "{auth.name}" }
reply     = { event = "welcome", data = "Hello {auth.name}!" }

[[socketio.on]]
on        = "disconnect"
namespace = "/chat"
publish   = "people"
data      = { sid = "{sid}", deleted = true }

[[socketio.on]]
event     = "join"
namespace = "/chat"
require   = "string 1..32"
join      = "room.{0}"
ack       = { joined = "{0}" }

[[socketio.on]]
event     = "leave"
namespace = "/chat"
require   = "string 1..32"
leave     = "room.{0}"

[[socketio.on]]
event     = "say"
namespace = "/chat"
require   = ["string 1..32", "string 1..500"]
publish   = "room.{0}"
data      = ["said", { room = "{0}", from = "{auth.name}", text = "{1}" }]
to        = "others"
rate      = "5/s"

[[socketio.from]]
channel   = "people"
emit      = "person"
namespace = "/chat"
retain    = { key = "sid", as = "people" }
"#;

    /// A board of cursors.
    const CURSORS: &str = r#"
[[socketio.on]]
event   = "move"
require = { x = "number 0..1", y = "number 0..1" }
publish = "cursors"
data    = { sid = "{sid}", x = "{x}", y = "{y}" }
to      = "others"
rate    = "60/s"

[[socketio.on]]
on      = "disconnect"
publish = "cursors.gone"
data    = "{sid}"

[[socketio.from]]
channel  = "cursors"
emit     = "cursor"
volatile = true

[[socketio.from]]
channel = "cursors.gone"
emit    = "gone"
"#;

    fn routes(text: &str) -> EventRoutes {
        read_text(text).unwrap_or_else(|why| panic!("{why} in {text}"))
    }

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    const ADA: Sender<'_> = Sender { sid: "AbC-_1", auth: "" };

    /// Runs an event with arguments in JSON.
    fn run(routes: &EventRoutes, event: &str, arguments: &[&str]) -> Result<Actions, String> {
        run_as(routes, 0, event, arguments, &ADA)
    }

    fn run_as(
        routes: &EventRoutes,
        namespace: u8,
        event: &str,
        arguments: &[&str],
        sender: &Sender<'_>,
    ) -> Result<Actions, String> {
        let arguments: Vec<Box<RawValue>> = arguments.iter().map(|text| raw(text)).collect();
        let arguments: Vec<&RawValue> = arguments.iter().map(|value| &**value).collect();
        routes.on(namespace, event).unwrap().run(&arguments, sender)
    }

    /// Returns the channel and the payload of a publish.
    fn published(actions: Actions) -> (String, String) {
        let (channel, payload) = actions.publish.unwrap();
        (String::from_utf8(channel).unwrap(), String::from_utf8(payload).unwrap())
    }

    fn payload_of(routes: &EventRoutes, event: &str, argument: &str) -> Result<String, String> {
        run(routes, event, &[argument]).map(|actions| published(actions).1)
    }

    /// A route of the event `e` with one requirement, which publishes its argument.
    fn requiring(require: &str) -> EventRoutes {
        routes(&format!("[[socketio.on]]\nevent='e'\nrequire={require}\npublish='c'"))
    }

    #[test]
    fn without_routes_the_verbs_are_on_and_the_only_namespace_is_the_root() {
        let routes = EventRoutes::default();
        assert!(routes.verbs());
        assert_eq!((routes.namespace("/"), routes.namespace("/x")), (Some(0), None));
        assert_eq!(routes.namespace_name(0), "/");
        assert_eq!(routes.emits(0, b"news"), None);
        assert_eq!(routes.channels(0).count() + routes.retained().count(), 0);
        assert!(routes.on(0, "subscribe").is_none() && !routes.has_forwards());
        assert_eq!(routes.auth(0, Some(&raw("{\"a\":1}"))).unwrap(), "");
    }

    #[test]
    fn the_checkboxes_publish_what_they_require_and_emit_what_is_published() {
        let routes = routes(CHECKBOXES);
        assert!(!routes.verbs());
        let change = "client:checkbox:change";
        let actions = run(&routes, change, &[r#" { "checked" : true, "index" : 5 } "#]).unwrap();
        assert!(!actions.to_others);
        assert_eq!((&actions.ack, &actions.reply), (&None, &None));
        let expected =
            ("internal-server:checkbox:change".into(), r#"{"index":5,"checked":true}"#.into());
        assert_eq!(published(actions), expected);
        for (argument, why) in [
            (
                r#"{"index":1000000,"checked":true}"#,
                "index: expected integer 0..999999; found 1000000",
            ),
            (r#"{"index":-1,"checked":true}"#, "index: expected integer 0..999999; found -1"),
            (r#"{"index":1.5,"checked":true}"#, "index: expected integer 0..999999; found 1.5"),
            (r#"{"index":1,"checked":"yes"}"#, "checked: expected boolean; found a string"),
            (r#"{"index":1}"#, "checked is missing; expected boolean"),
            (r#"{"index":1,"index":2,"checked":true}"#, "index is there twice"),
            (r#"{"x":1,"index":1,"checked":true}"#, "unknown field 'x'; accepted: index, checked"),
            (r#"[5,true]"#, "expected an object with index, checked"),
            ("null", "expected an object with index, checked"),
        ] {
            assert_eq!(run(&routes, change, &[argument]).unwrap_err(), why);
        }
        assert_eq!(run(&routes, change, &[]).unwrap_err(), "expected one argument; found 0");
        assert_eq!(
            run(&routes, change, &["1", "2"]).unwrap_err(),
            "expected one argument; found 2"
        );
        let channel = b"internal-server:checkbox:change";
        assert_eq!(routes.emits(0, channel), Some("server:checkbox:change"));
        assert_eq!(routes.channels(0).collect::<Vec<_>>(), ["internal-server:checkbox:change"]);
        let rule = RetainRule {
            channel: "internal-server:checkbox:change".into(),
            key: Some("index".into()),
            max: 1_000_000,
        };
        assert_eq!(routes.retained().collect::<Vec<_>>(), [&rule]);
        let newcomers = &routes.from(0, channel).unwrap().newcomers;
        assert_eq!(*newcomers, Newcomers::GetAll("server:checkbox:state".into()));
    }

    #[test]
    fn the_chat_knows_names_by_auth_and_rooms_by_argument() {
        let routes = routes(CHAT);
        let chat = routes.namespace("/chat").unwrap();
        assert_eq!(routes.namespace_name(chat), "/chat");
        assert!(routes.on(0, "say").is_none() && routes.channels(0).count() == 0);
        let auth = raw(r#"{"password":"x","age":5,"name":"Ada \"A\""}"#);
        let kept = routes.auth(chat, Some(&auth)).unwrap();
        assert_eq!(kept, r#"["Ada \"A\""]"#);
        let ada = Sender { auth: &kept, ..ADA };
        let actions = routes.on_connect(chat)[0].run(&[], &ada).unwrap();
        assert_eq!(actions.reply.as_deref(), Some(&br#"["welcome","Hello Ada \"A\"!"]"#[..]));
        let person = r#"{"sid":"AbC-_1","name":"Ada \"A\""}"#;
        assert_eq!(published(actions), ("people".into(), person.into()));
        let actions = routes.on_disconnect(chat)[0].run(&[], &ada).unwrap();
        assert_eq!(published(actions).1, r#"{"sid":"AbC-_1","deleted":true}"#);
        let actions = run_as(&routes, chat, "join", &["\"lobby\""], &ada).unwrap();
        assert_eq!(actions.join.as_deref(), Some(&b"room.lobby"[..]));
        assert_eq!(actions.ack.as_deref(), Some(&br#"[{"joined":"lobby"}]"#[..]));
        let actions = run_as(&routes, chat, "leave", &["\"lobby\""], &ada).unwrap();
        assert_eq!(actions.leave.as_deref(), Some(&b"room.lobby"[..]));
        let actions = run_as(&routes, chat, "say", &["\"lobby\"", r#""[\"x\"]""#], &ada).unwrap();
        assert!(actions.to_others);
        let said = r#"["said",{"room":"lobby","from":"Ada \"A\"","text":"[\"x\"]"}]"#;
        assert_eq!(published(actions), ("room.lobby".into(), said.into()));
        assert_eq!(routes.on(chat, "say").unwrap().rate().count, 5);
    }

    #[test]
    fn what_auth_must_have_is_checked_when_a_socket_connects() {
        let routes = routes(CHAT);
        let chat = routes.namespace("/chat").unwrap();
        for (auth, why) in [
            (None, "auth: name is missing; expected string 1..32"),
            (Some("{}"), "auth: name is missing; expected string 1..32"),
            (Some("null"), "auth: name is missing; expected string 1..32"),
            (Some("[]"), "auth: expected an object with name, age"),
            (Some(r#"{"name":5}"#), "auth: name: expected string 1..32; found 5"),
            (Some(r#"{"name":"a","age":200}"#), "auth: age: expected integer 0..150; found 200"),
        ] {
            let auth = auth.map(raw);
            assert_eq!(routes.auth(chat, auth.as_deref()).unwrap_err(), why);
        }
        let long = raw(&format!(r#"{{"name":"a","other":"{}"}}"#, "x".repeat(1024)));
        assert!(routes.auth(chat, Some(&long)).unwrap_err().contains("up to 1024"));
        assert_eq!(routes.auth(0, None).unwrap(), "");
    }

    #[test]
    fn the_cursors_go_to_others_and_are_volatile() {
        let routes = routes(CURSORS);
        let actions = run(&routes, "move", &[r#"{"x":0.25,"y":1}"#]).unwrap();
        assert!(actions.to_others);
        assert_eq!(published(actions).1, r#"{"sid":"AbC-_1","x":0.25,"y":1}"#);
        assert!(routes.from(0, b"cursors").unwrap().volatile);
        assert!(!routes.from(0, b"cursors.gone").unwrap().volatile);
        assert_eq!(routes.from(0, b"cursors").unwrap().newcomers, Newcomers::GetNothing);
        let actions = routes.on_disconnect(0)[0].run(&[], &ADA).unwrap();
        assert_eq!(published(actions), ("cursors.gone".into(), "\"AbC-_1\"".into()));
    }

    #[test]
    fn each_type_accepts_its_values_and_writes_equal_ones_alike() {
        for (require, given, passes) in [
            ("'integer'", "9007199254740991", Some("9007199254740991")),
            ("'integer'", "9007199254740992", None),
            ("'integer'", "-9007199254740991", Some("-9007199254740991")),
            ("'integer'", "1.0", None),
            ("'integer'", "1e2", None),
            ("'integer'", "\"1\"", None),
            ("'integer -5..5'", "-5", Some("-5")),
            ("'integer -5..5'", "-6", None),
            ("'integer -5..5'", "5", Some("5")),
            ("'integer -5..5'", "6", None),
            ("'number'", "1", Some("1")),
            ("'number'", "1.50", Some("1.5")),
            ("'number'", "1e2", Some("100.0")),
            ("'number'", "1e400", None),
            ("'number 0..1'", "0", Some("0")),
            ("'number 0..1'", "1.0", Some("1.0")),
            ("'number 0..1'", "1.0000001", None),
            ("'number 0..1'", "-0.1", None),
            ("'boolean'", "true", Some("true")),
            ("'boolean'", "1", None),
            ("'boolean'", "null", None),
            ("'string'", "\"\"", Some("\"\"")),
            ("'string'", r#""\u0061\/\n""#, Some(r#""a/\n""#)),
            ("'string'", r#""\ud800""#, None),
            ("'string 2..3'", "\"a\"", None),
            ("'string 2..3'", "\"ab\"", Some("\"ab\"")),
            ("'string 2..3'", "\"abc\"", Some("\"abc\"")),
            ("'string 2..3'", "\"abcd\"", None),
            ("'string 2..3'", "\"ää\"", None),
            ("'string 2..3'", "5", None),
            ("'any'", "null", Some("null")),
            ("'any'", "{\"a\":[1]}", Some("{\"a\":[1]}")),
            ("'any'", "[1,\"a\"]", Some("[1,\"a\"]")),
            ("{ a = 'integer?', b = 'any' }", "{\"b\":[\"x\"]}", Some("{\"b\":[\"x\"]}")),
            ("{ a = 'integer?', b = 'any' }", "{\"b\":1,\"a\":2}", Some("{\"a\":2,\"b\":1}")),
            ("{ a = 'integer?', b = 'any' }", "{\"a\":1}", None),
        ] {
            let routes = requiring(require);
            assert_eq!(
                payload_of(&routes, "e", given).ok().as_deref(),
                passes,
                "{require} {given}"
            );
        }
    }

    #[test]
    fn an_argument_that_is_any_json_cannot_name_an_event_of_receivers() {
        let routes = requiring("'any'");
        for array in ["[\"admin\",1]", "[ \"admin\"]", "[\"\"]"] {
            let why = payload_of(&routes, "e", array).unwrap_err();
            assert!(why.contains("begins with a string"), "{why}");
        }
        for value in ["[]", "[1]", "[[\"admin\"]]", "\"[\\\"admin\\\"]\"", "{\"a\":[\"admin\"]}"] {
            assert_eq!(payload_of(&routes, "e", value).unwrap(), value);
        }
        let routes = super::tests::routes(
            "[[socketio.on]]\nevent='e'\nrequire={ a = 'any' }\npublish='c'\ndata='{a}'",
        );
        assert!(payload_of(&routes, "e", r#"{"a":["admin"]}"#).is_err());
    }

    #[test]
    fn the_size_of_all_arguments_is_bounded() {
        let text =
            "[[socketio.on]]\nevent='e'\nrequire=['string','string']\nsize='1KiB'\nack='{1}'";
        let routes = routes(text);
        let argument = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        for (length, passes) in [(1023, true), (1024, true), (1025, false)] {
            let arguments = [argument(24), argument(length - 24)];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            assert_eq!(run(&routes, "e", &arguments).is_ok(), passes, "{length}");
        }
    }

    #[test]
    fn json_that_is_nested_too_deep_is_refused() {
        let text = "[[socketio.on]]\nevent='e'\nrequire='any'\npublish='c'\ndata=[1,['{0}']]";
        let routes = routes(text);
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(payload_of(&routes, "e", &deep(62)).is_ok());
        assert_eq!(payload_of(&routes, "e", &deep(63)).unwrap_err(), "JSON deeper than 64 levels");
    }

    #[test]
    fn a_value_in_the_name_of_a_channel_is_plain() {
        let text = "[[socketio.on]]\nevent='e'\nrequire=['string','string']\njoin='dm.{0}.{1}'";
        let dm = routes(text);
        let joined = |one: &str, two: &str| {
            let actions = run(&dm, "e", &[one, two])?;
            Ok::<_, String>(String::from_utf8(actions.join.unwrap()).unwrap())
        };
        assert_eq!(joined("\"a\"", "\"b-c*\"").unwrap(), "dm.a.b-c*");
        let long = format!("\"{}\"", "x".repeat(256));
        assert!(joined("\"a\"", &long).is_ok());
        for (one, two, why) in [
            ("\"\"", "\"b\"", "{0} is empty"),
            ("\"a\"", "\"\"", "{1} is empty"),
            ("\"a.b\"", "\"c\"", "{0} has '.', which separates it in the name of the channel"),
            ("\"a\"", "\"b.c\"", "{1} has '.', which separates it in the name of the channel"),
            ("\"a\"", "\"\\n\"", "{1} has a control character"),
            ("\"\\u0085\"", "\"b\"", "{0} has a control character"),
            ("\"a\"", &format!("\"{}\"", "x".repeat(257)), "{1} is longer than 256 bytes"),
        ] {
            assert_eq!(joined(one, two).unwrap_err(), why);
        }
    }

    /// A sid has a length of its own, so a separator in it is harmless.
    #[test]
    fn a_sid_in_the_name_of_a_channel_may_have_its_separator() {
        let routes = routes("[[socketio.on]]\nevent='e'\njoin='dm-{sid}'\nack='{sid}'");
        let actions = run(&routes, "e", &[]).unwrap();
        assert_eq!(actions.join.as_deref(), Some(&b"dm-AbC-_1"[..]));
    }

    /// Two events have one channel only if their values are equal. No value leaves its string.
    #[test]
    fn placeholders_keep_their_values_apart_and_inside_their_strings() {
        let text = "[[socketio.on]]\nevent='e'\nrequire=['string','string']\njoin='dm.{0}-to-{1}'\n\
                    publish='c'\ndata={ all = '<{0}|{1}>', one = '{0}', list = ['{1}'] }";
        let routes = routes(text);
        let mut random = fastrand::Rng::with_seed(7);
        let pieces =
            ["-", "-to-", "a", "\"", "\\", "{", "}", "{0}", "\n", "ä", "]", ",", "\u{2028}"];
        let mut names = HashMap::new();
        for _ in 0..20_000 {
            let mut word =
                || (0..random.usize(0..4)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let words: [String; 2] = [word(), word()];
            let json = words.clone().map(|word| serde_json::to_string(&word).unwrap());
            let Ok(actions) = run(&routes, "e", &[&json[0], &json[1]]) else { continue };
            let payload = actions.publish.unwrap().1;
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let [one, two] = &words;
            let expected =
                serde_json::json!({"all": format!("<{one}|{two}>"), "one": one, "list": [two]});
            assert_eq!(value, expected);
            let other = names.insert(actions.join.unwrap(), words.clone());
            assert!(other.is_none_or(|other| other == words));
        }
        assert!(names.len() > 1000);
    }

    #[test]
    fn a_message_goes_to_the_room_that_its_payload_names() {
        let routes = routes(
            "[[socketio.from]]\nchannel='orders'\nemit='order'\nroom='shop.{shop}.{paid}'\n\
             [[socketio.from]]\nchannel='orders'\nemit='any order'\nroom='all'",
        );
        assert!(routes.has_forwards() && routes.forward(b"other", b"5").next().is_none());
        let run = |payload: &str| -> Vec<(String, String)> {
            let texts = |(room, message)| {
                (String::from_utf8(room).unwrap(), String::from_utf8(message).unwrap())
            };
            routes.forward(b"orders", payload.as_bytes()).map(texts).collect()
        };
        let all = |value: &str| ("all".into(), format!(r#"["any order",{value}]"#));
        let paid = r#"{"shop":"north","paid":true,"n":[1]}"#;
        let room = ("shop.north.true".into(), format!(r#"["order",{paid}]"#));
        assert_eq!(run(&format!(" {paid}\n")), [room, all(paid)]);
        assert_eq!(run(r#"{"shop":7,"paid":1}"#)[0].0, "shop.7.1");
        for payload in [
            r#"{"shop":"north"}"#,
            r#"{"shop":"a.b","paid":true}"#,
            r#"{"shop":"","paid":true}"#,
            r#"{"shop":1.5,"paid":true}"#,
            r#"{"shop":null,"paid":true}"#,
            r#"{"shop":["a"],"paid":true}"#,
            r#"{"shop":"a","shop":"b","paid":true}"#,
            "5",
        ] {
            assert_eq!(run(payload), [all(payload)]);
        }
        assert_eq!(run("two words"), [all("\"two words\"")]);
        assert_eq!(routes.forward(b"orders", b"\xff").count(), 0);
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert_eq!(run(&deep(63)), [all(&deep(63))]);
        assert_eq!(run(&deep(64)), [all(&format!("\"{}\"", deep(64)))]);
    }

    #[test]
    fn two_namespaces_may_show_one_channel_under_different_names() {
        let text = "[socketio]\nnamespaces=['/b']\n\
                    [[socketio.from]]\nchannel='c'\nemit='x'\nretain={ key = 'k', as = 'all' }\n\
                    [[socketio.from]]\nchannel='c'\nemit='y'\nnamespace='/b'\nretain={ key = 'k' }";
        let two = routes(text);
        assert_eq!((two.emits(0, b"c"), two.emits(1, b"c")), (Some("x"), Some("y")));
        assert_eq!(two.retained().count(), 1);
        assert_eq!(two.from(1, b"c").unwrap().newcomers, Newcomers::GetEach);
        let why = read_text(&text.replace("{ key = 'k' }", "{ key = 'z' }")).unwrap_err();
        assert!(why.contains("the same key and max"), "{why}");
    }

    #[test]
    fn a_section_is_written_as_it_is_read() {
        let odd = "[socketio]\nverbs = true\n[[socketio.on]]\n'event' = \"a\\\"\\\\\\n\\u0001ä\"\n\
                   require = { 'a b' = 'any?', c = 'integer' }\nack = [1, 0x1f, 1.5, {}, []]";
        for text in [CHECKBOXES, CHAT, CURSORS, odd] {
            let first = routes(text);
            let second = routes(first.to_toml());
            assert_eq!(first.to_toml(), second.to_toml());
            assert_eq!(first, second);
        }
        let written = routes(CHECKBOXES);
        assert!(
            written
                .to_toml()
                .contains("require = { index = \"integer 0..999999\", checked = \"boolean\" }")
        );
        assert_ne!(written, routes(CURSORS));
        assert_eq!(written, routes(&format!("# a comment\n{CHECKBOXES}")));
    }
}
