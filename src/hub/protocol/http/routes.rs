//! The routes: what each path means, and the methods that it takes.

use std::borrow::Cow;

use super::target;
use crate::hosts::UrlPath;
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::encoding::Encoding;
use crate::hub::protocol::websocket;
use crate::hub::sessions::{PeerProtocol, SessionId};
use crate::limits::{NAMES_AT_ONCE_MAX, WEB_PATTERNS_MAX};

/// Names of channels and patterns.
pub type NamedTopics<'a> = Vec<(Kind, Cow<'a, [u8]>)>;

/// A path with its parameters, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Page,
    /// The channel of a WebSocket that carries payloads alone; `None` for JSON.
    WebSocket(Option<Cow<'a, [u8]>>),
    Echo,
    /// The names to subscribe to. If there is a single channel, its events carry payloads alone.
    Events(NamedTopics<'a>, EventsForm),
    Publish(Cow<'a, [u8]>),
    Metrics,
    Health,
    Ready,
    /// The kept messages of a channel, behind a cursor.
    Retained(Cow<'a, [u8]>, u64),
    /// A request of a client of Socket.IO.
    SocketIo,
    /// The official client of Socket.IO, for pages.
    Script,
}

/// The form of server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsForm {
    /// The payload alone.
    Payload,
    /// JSON that names the channel.
    Json,
}

/// The reason why a target has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path, or no name of a channel in it.
    NotFound,
    /// A percent sign without two hexadecimal digits.
    BadEscape,
    /// `/events` without a channel or pattern.
    NoNames,
    /// More names than [`NAMES_AT_ONCE_MAX`], or more patterns than [`WEB_PATTERNS_MAX`].
    TooManyNames,
    /// `after` is no number.
    BadCursor,
}

impl NoRoute {
    pub fn status(self) -> u16 {
        if self == NoRoute::NotFound { 404 } else { 400 }
    }

    pub fn text(self) -> &'static str {
        match self {
            NoRoute::NotFound => {
                "no such path; expected /, /ws, /ws/CHANNEL, /events, /events/CHANNEL, \
                 /publish/CHANNEL, /retained/CHANNEL, /echo, /metrics, /healthz, /readyz or the \
                 path of Socket.IO"
            }
            NoRoute::BadEscape => {
                "a percent sign without two hexadecimal digits; expected one such as %20"
            }
            NoRoute::NoNames => "no channel; expected one such as /events?channel=news",
            NoRoute::BadCursor => "after is no cursor; expected the next of the page before",
            NoRoute::TooManyNames => {
                "too many names; accepted: up to 1024 channels and patterns, and 64 patterns"
            }
        }
    }
}

impl<'a> Route<'a> {
    /// Returns the route of a request's target. `socketio` is the path of Socket.IO.
    pub fn of(target: &'a str, socketio: &UrlPath) -> Result<Route<'a>, NoRoute> {
        let (path, query) = target::split(target);
        if socketio.is(path) {
            return Ok(Route::SocketIo);
        }
        // The names that the script has on Node's server.
        if let Some("socket.io.js" | "socket.io.min.js") = socketio.below(path) {
            return Ok(Route::Script);
        }
        let channel = |name: &'a str| match target::decode(name) {
            None => Err(NoRoute::BadEscape),
            Some(name) if name.is_empty() => Err(NoRoute::NotFound),
            Some(name) => Ok(name),
        };
        Ok(match path {
            "/" => Route::Page,
            "/ws" => Route::WebSocket(None),
            "/echo" => Route::Echo,
            "/events" => Route::Events(names(query)?, EventsForm::Json),
            "/metrics" => Route::Metrics,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            _ => {
                if let Some(name) = path.strip_prefix("/ws/") {
                    Route::WebSocket(Some(channel(name)?))
                } else if let Some(name) = path.strip_prefix("/events/") {
                    Route::Events(vec![(Kind::Channel, channel(name)?)], EventsForm::Payload)
                } else if let Some(name) = path.strip_prefix("/publish/") {
                    Route::Publish(channel(name)?)
                } else if let Some(name) = path.strip_prefix("/retained/") {
                    Route::Retained(channel(name)?, cursor(query)?)
                } else {
                    return Err(NoRoute::NotFound);
                }
            }
        })
    }

    /// Returns the methods that the route takes, as the header Allow lists them.
    pub fn allows(&self) -> &'static str {
        match self {
            Route::Publish(_) => "POST, OPTIONS",
            Route::SocketIo => "GET, POST, OPTIONS",
            Route::WebSocket(_) | Route::Echo => "GET, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Returns true if the route needs the password where one is set.
    pub fn needs_password(&self) -> bool {
        // Clients of /ws and of Socket.IO may send the password as their first message.
        !matches!(
            self,
            Route::Page
                | Route::Health
                | Route::Ready
                | Route::WebSocket(None)
                | Route::SocketIo
                | Route::Script
        )
    }

    /// Returns true if the body of a request is used. Other bodies are read and dropped.
    pub fn takes_body(&self) -> bool {
        matches!(self, Route::Publish(_))
    }

    /// Returns true if pages of other origins, and other names of the server, are no danger.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Route::Health | Route::Ready | Route::Script)
    }

    /// Returns the number of the route's path among [`PATHS`].
    pub fn number(&self) -> u8 {
        match self {
            Route::Page => 0,
            Route::Publish(_) => 1,
            Route::Metrics => 2,
            Route::Health => 3,
            Route::Ready => 4,
            Route::SocketIo | Route::Script => 5,
            Route::Retained(..) => 6,
            Route::WebSocket(_) | Route::Echo | Route::Events(..) => 7,
        }
    }
}

/// The paths of the last request of a session, as CLIENT LIST shows them.
const PATHS: [&str; 9] = [
    "/",
    "/publish",
    "/metrics",
    "/healthz",
    "/readyz",
    "/socket.io/",
    "/retained",
    "-",
    "/socket.io/",
];

/// The number of a poll that waits or has waited, until the next request of its connection.
pub const POLLED: u8 = 8;

/// Returns the channels and patterns in the query of `/events`.
fn names(query: &str) -> Result<NamedTopics<'_>, NoRoute> {
    let (mut names, mut patterns) = (Vec::new(), 0);
    for pair in target::pairs(query) {
        let (key, value) = pair.ok_or(NoRoute::BadEscape)?;
        match &*key {
            b"channel" => names.push((Kind::Channel, value)),
            b"pattern" => {
                patterns += 1;
                names.push((Kind::Pattern, value));
            }
            _ => {}
        }
        if names.len() > NAMES_AT_ONCE_MAX || patterns > WEB_PATTERNS_MAX {
            return Err(NoRoute::TooManyNames);
        }
    }
    match names.is_empty() || names.iter().any(|(_, name)| name.is_empty()) {
        true => Err(NoRoute::NoNames),
        false => Ok(names),
    }
}

/// Returns a name for the lines of CLIENT LIST, which have blanks between their fields.
pub fn plain(name: &[u8]) -> String {
    let is_plain = |c: char| c.is_ascii_graphic();
    String::from_utf8_lossy(name).chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}

/// Returns the cursor in the query of `/retained/CHANNEL`; 0 if there is none.
fn cursor(query: &str) -> Result<u64, NoRoute> {
    let after = target::pairs(query).flatten().find(|(key, _)| **key == *b"after");
    let Some((_, value)) = after else { return Ok(0) };
    let text = std::str::from_utf8(&value).ok();
    text.and_then(|text| text.parse().ok()).ok_or(NoRoute::BadCursor)
}

/// Returns the path of a session, as CLIENT LIST shows it. The channel of a WebSocket or of events
/// is that of its subscription.
pub fn path_of(shared: &Shared, session: SessionId) -> String {
    let own = shared.sessions.get(session);
    let with_channel = |prefix: &str| {
        let topic = shared.channels.topics_of(session.index).next();
        let name = topic.map(|topic| plain(shared.channels.name(topic)));
        format!("{prefix}{}", name.unwrap_or_default())
    };
    match (own.protocol, own.encoding) {
        (PeerProtocol::Unknown | PeerProtocol::Resp, _) => "-".into(),
        (PeerProtocol::Http, _) => {
            PATHS.get(usize::from(own.protocol_state)).map_or("-", |it| it).into()
        }
        (PeerProtocol::WebSocket, _) if websocket::is_echo(&own) => "/echo".into(),
        (PeerProtocol::WebSocket, Encoding::WebSocket) => with_channel("/ws/"),
        (PeerProtocol::WebSocket, _) => "/ws".into(),
        (PeerProtocol::Events, Encoding::Events) => with_channel("/events/"),
        (PeerProtocol::Events, _) => "/events".into(),
        (PeerProtocol::SocketIo, encoding) => {
            let namespace = encoding.namespace().unwrap_or_default();
            format!("/socket.io{}", shared.fanout.routes().namespace_name(namespace))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_a_route_and_names_are_decoded_once() {
        let named = |name: &'static str| Cow::Borrowed(name.as_bytes());
        let channel = |name| vec![(Kind::Channel, named(name))];
        for (target, expected) in [
            ("/", Ok(Route::Page)),
            ("/?x=1", Ok(Route::Page)),
            ("/socket.io/socket.io.js", Ok(Route::Script)),
            ("/socket.io/socket.io.min.js?v=4", Ok(Route::Script)),
            ("/socket.io/socket.io.esm.min.js", Err(NoRoute::NotFound)),
            ("/ws", Ok(Route::WebSocket(None))),
            ("/ws/news", Ok(Route::WebSocket(Some(named("news"))))),
            ("/ws/a%2Fb%2525", Ok(Route::WebSocket(Some(named("a/b%25"))))),
            ("/ws/a/b+c", Ok(Route::WebSocket(Some(named("a/b+c"))))),
            ("/ws/", Err(NoRoute::NotFound)),
            ("/ws/%zz", Err(NoRoute::BadEscape)),
            ("/wsx", Err(NoRoute::NotFound)),
            ("/events/a", Ok(Route::Events(channel("a"), EventsForm::Payload))),
            ("/events?channel=a+b", Ok(Route::Events(channel("a b"), EventsForm::Json))),
            ("/events", Err(NoRoute::NoNames)),
            ("/events?channel=", Err(NoRoute::NoNames)),
            ("/events?channel=%", Err(NoRoute::BadEscape)),
            ("/publish/n", Ok(Route::Publish(named("n")))),
            ("/publish", Err(NoRoute::NotFound)),
            ("/retained/a%20b", Ok(Route::Retained(named("a b"), 0))),
            ("/retained/n?after=17&x=", Ok(Route::Retained(named("n"), 17))),
            ("/retained/n?after=", Err(NoRoute::BadCursor)),
            ("/retained/n?after=-1", Err(NoRoute::BadCursor)),
            ("/retained/n?after=18446744073709551616", Err(NoRoute::BadCursor)),
            ("/retained/", Err(NoRoute::NotFound)),
            ("/healthz", Ok(Route::Health)),
            ("//", Err(NoRoute::NotFound)),
        ] {
            assert_eq!(Route::of(target, &UrlPath::default()), expected, "{target}");
        }
    }

    #[test]
    fn a_request_for_events_names_up_to_1024_channels() {
        for (count, fits) in [
            (NAMES_AT_ONCE_MAX - 1, true),
            (NAMES_AT_ONCE_MAX, true),
            (NAMES_AT_ONCE_MAX + 1, false),
        ] {
            let query = "channel=a&".repeat(count);
            assert_eq!(names(&query).is_ok(), fits, "{count}");
        }
        for (count, fits) in
            [(WEB_PATTERNS_MAX - 1, true), (WEB_PATTERNS_MAX, true), (WEB_PATTERNS_MAX + 1, false)]
        {
            let query = "pattern=a*&".repeat(count);
            assert_eq!(names(&query).is_ok(), fits, "{count} patterns");
        }
    }
}
