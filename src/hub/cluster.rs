//! A cluster with other servers of Socket.IO: Node's, over the channels of
//! `@socket.io/redis-adapter`, or python-socketio's, over the channel of its `RedisManager`.
//!
//! An event that another server sends to rooms goes to the sockets here that are in the channels of
//! these names, and to other subscribers of the channels. A publish here goes to the sockets of the
//! other servers as the event that it is for the sockets here. Other hubs get the publish itself.
//! So all hubs have the same name in the cluster, and drop events of this name.

mod outgoing;

use std::collections::VecDeque;
use std::rc::Rc;

use super::Shared;
use super::audience::{EventAudience, RoomMembers};
use super::broker::{Link, Published, SharedKind};
use super::channels::{Kind, TopicId, TopicLimits};
use super::encoding::{EventForm, pack_event};
use super::messages::MessageKind;
use super::sessions::SessionId;
use crate::codec::socketio::adapter::{self, ClusterAddress, ClusterEvent};
use crate::codec::socketio::python;
use crate::routes::{ClusterAdapter, EventRoutes};
use crate::service::server::Server;

/// The name of all hubs in the cluster. Other servers have names of random characters.
const OWN_NAME: &str = "slabd";

/// How the names of the channels of `@socket.io/redis-adapter` begin: those of its events, requests
/// and answers.
const NODE_CHANNELS: [&[u8]; 3] = [b"socket.io#", b"socket.io-request#", b"socket.io-response#"];

/// The channel of a `RedisManager`.
const PYTHON_CHANNEL: &[u8] = b"socketio";

/// Finds the socket of a sid.
pub type FindSocket<'a> = &'a dyn Fn(&[u8]) -> Option<SessionId>;

/// The hub's part in a cluster.
pub struct Cluster {
    adapter: ClusterAdapter,
    /// By the number of the namespace.
    namespaces: Vec<ClusterNamespace>,
    /// Sockets with a topic of their own, and its name. It goes once nothing is posted to it.
    addressed: VecDeque<(SessionId, Box<[u8]>)>,
    /// Scratch: the name of a channel, and a message.
    scratch: (Vec<u8>, Vec<u8>),
    /// Longest event, in bytes of JSON.
    event_max: usize,
    pub counters: ClusterCounters,
}

/// A namespace in the cluster.
struct ClusterNamespace {
    /// The beginning of the names of its channels for Node servers.
    begin: Box<[u8]>,
    /// The pattern of these names.
    pattern: Box<[u8]>,
}

/// What the hub has had from the cluster, and sent to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterCounters {
    pub received: u64,
    pub sent: u64,
    /// Events of others that were malformed, too long or too many.
    pub refused: u64,
    /// Publishes here that are no event for others, or for which the broker had no room.
    pub unsent: u64,
}

impl Cluster {
    /// `event_max`: the longest event that is accepted from others, in bytes of JSON.
    pub fn new(adapter: ClusterAdapter, routes: &EventRoutes, event_max: usize) -> Cluster {
        let namespaces = routes.namespace_names().map(|name| {
            let begin = format!("socket.io#{name}#").into_bytes();
            let escape = |byte: &u8| b"*?[]\\^-".contains(byte).then_some(b'\\');
            let escaped = begin.iter().flat_map(|byte| escape(byte).into_iter().chain([*byte]));
            let pattern = escaped.chain([b'*']).collect();
            ClusterNamespace { begin: begin.into(), pattern }
        });
        Cluster {
            adapter,
            namespaces: namespaces.collect(),
            addressed: VecDeque::new(),
            scratch: (Vec::new(), Vec::new()),
            event_max,
            counters: ClusterCounters::default(),
        }
    }

    /// Returns the names that are subscribed at the broker.
    pub fn names(&self) -> Vec<(SharedKind, &[u8])> {
        match self.adapter {
            ClusterAdapter::Redis => {
                let patterns = self.namespaces.iter().map(|namespace| &*namespace.pattern);
                patterns.map(|pattern| (SharedKind::Pattern, pattern)).collect()
            }
            ClusterAdapter::Python => vec![(SharedKind::Channel, PYTHON_CHANNEL)],
        }
    }

    /// Returns which of these names this is. With Node servers it is the number of the namespace.
    pub fn source(&self, kind: SharedKind, name: &[u8]) -> Option<u8> {
        let source = match (self.adapter, kind) {
            (ClusterAdapter::Redis, SharedKind::Pattern) => {
                self.namespaces.iter().position(|own| *own.pattern == *name)
            }
            (ClusterAdapter::Python, SharedKind::Channel) => (name == PYTHON_CHANNEL).then_some(0),
            _ => None,
        };
        source.map(|number| number as u8)
    }

    /// Returns true if a channel is one of the cluster's own. A publish here stays off it at the
    /// broker, so that clients of the hub cannot act as servers of the cluster.
    pub fn owns(&self, channel: &[u8]) -> bool {
        match self.adapter {
            ClusterAdapter::Redis => NODE_CHANNELS.iter().any(|begin| channel.starts_with(begin)),
            ClusterAdapter::Python => channel == PYTHON_CHANNEL,
        }
    }

    /// Returns true if a socket has a topic of its own.
    pub fn has_addressed(&self) -> bool {
        !self.addressed.is_empty()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let addressed = self.addressed.capacity() * size_of::<(SessionId, Box<[u8]>)>();
        let sids: usize = self.addressed.iter().map(|(_, sid)| sid.len()).sum();
        addressed + sids + self.scratch.0.capacity() + self.scratch.1.capacity()
    }

    /// Returns unused memory to the allocator.
    pub fn shrink(&mut self) {
        self.addressed.shrink_to_fit();
        self.scratch = (Vec::new(), Vec::new());
    }

    /// Sends a publish to the other servers, once for each namespace, and once for each room that
    /// routes forward it to.
    pub fn publish(
        &mut self,
        link: &mut Link,
        routes: &EventRoutes,
        channel: &[u8],
        payload: &[u8],
    ) {
        for namespace in 0..self.namespaces.len() {
            self.send(link, routes, namespace, channel, payload);
        }
        if routes.has_forwards() {
            for (room, message) in routes.forward(channel, payload) {
                for namespace in 0..self.namespaces.len() {
                    self.send(link, routes, namespace, &room, &message);
                }
            }
        }
    }

    fn send(
        &mut self,
        link: &mut Link,
        routes: &EventRoutes,
        namespace: usize,
        channel: &[u8],
        payload: &[u8],
    ) {
        // The name of a room is text.
        let Ok(room) = std::str::from_utf8(channel) else { return self.counters.unsent += 1 };
        let number = namespace as u8;
        let form = EventForm::of(number, channel, payload, routes);
        // All sockets of a namespace get the event that a route names.
        let room = (!matches!(form, EventForm::Named(_))).then_some(room);
        let from = routes.from(number, channel);
        let to = ClusterAddress {
            sender: OWN_NAME,
            namespace: routes.namespace_name(number),
            room,
            volatile: from.is_some_and(|from| from.volatile),
        };
        let (name, message) = &mut self.scratch;
        name.clear();
        message.clear();
        let is_event = match self.adapter {
            ClusterAdapter::Redis => {
                name.extend_from_slice(&self.namespaces[namespace].begin);
                if let Some(room) = room {
                    name.extend_from_slice(room.as_bytes());
                    name.push(b'#');
                }
                outgoing::write_node(message, &to, form, channel, payload)
            }
            ClusterAdapter::Python => {
                name.extend_from_slice(PYTHON_CHANNEL);
                outgoing::write_python(message, &to, form, channel, payload);
                true
            }
        };
        if is_event && link.publish(name, message) == Published::Sent {
            self.counters.sent += 1;
        } else {
            self.counters.unsent += 1;
        }
    }
}

impl Shared {
    /// Returns true if the hub is part of a cluster of Socket.IO.
    pub(super) fn has_cluster(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.cluster.is_some())
    }

    fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        self.sharing.as_mut()?.cluster.as_deref_mut()
    }

    /// Takes a message that came for one of the names of the cluster.
    pub(super) fn hear_cluster(
        &mut self,
        source: u8,
        channel: &[u8],
        message: &[u8],
        find: FindSocket<'_>,
        server: &dyn Server,
    ) {
        let Some(cluster) = self.cluster_mut() else { return };
        let most = cluster.event_max;
        let read = match cluster.adapter {
            ClusterAdapter::Redis => {
                if adapter::sender(message) == Some(OWN_NAME.as_bytes()) {
                    return;
                }
                cluster.counters.received += 1;
                let begin = &cluster.namespaces[usize::from(source)].begin;
                let room = channel.strip_prefix(&**begin).unwrap_or_default();
                // The channel names the room of an event that is for one room.
                if let Some(room) = room.strip_suffix(b"#")
                    && !self.has_room(room, find)
                {
                    return;
                }
                adapter::read(message, most).map(|event| (source, event))
            }
            ClusterAdapter::Python => match python::read(message, OWN_NAME, most).transpose() {
                None => return,
                Some(read) => {
                    cluster.counters.received += 1;
                    let Ok(event) = read else { return self.refuse_event() };
                    let number = self.fanout.routes().namespace(&event.namespace);
                    let Some(number) = number else { return };
                    Ok((number, event))
                }
            },
        };
        match read {
            Ok((namespace, event)) => self.deliver_event(namespace, &event, find, server),
            Err(_) => self.refuse_event(),
        }
    }

    fn refuse_event(&mut self) {
        if let Some(cluster) = self.cluster_mut() {
            cluster.counters.refused += 1;
        }
    }

    /// Returns true if an event for a room may have receivers here.
    fn has_room(&self, room: &[u8], find: FindSocket<'_>) -> bool {
        self.channels.topic(Kind::Channel, room).is_some()
            || self.channels.pattern_count() > 0
            || find(room).is_some()
    }

    fn deliver_event(
        &mut self,
        namespace: u8,
        event: &ClusterEvent<'_>,
        find: FindSocket<'_>,
        server: &dyn Server,
    ) {
        let routes = self.fanout.routes().clone();
        let name = routes.namespace_name(namespace);
        if event.namespace != name {
            return;
        }
        let is_binary = !event.attachments.is_empty();
        let mut packed = Vec::new();
        if is_binary {
            pack_event(&mut packed, &event.data, &event.attachments);
        }
        let (kind, payload) = match is_binary {
            true => (MessageKind::BinaryEvent, &packed),
            false => (MessageKind::Event, &event.data),
        };
        let mut audience = EventAudience { namespace, is_binary, ..EventAudience::default() };
        audience.volatile = event.volatile;
        for room in &event.except {
            audience.except.extend(self.members(room));
            let socket = self.socket(namespace, room, find);
            // Nothing is posted to its topic, so any stands for it.
            let topic = TopicId::NONE;
            audience.except.extend(socket.map(|one| RoomMembers { topic, only: Some(one.index) }));
        }
        if event.rooms.is_empty() {
            self.topics.clear();
            self.topics.extend(self.channels.topic(Kind::Feed, name.as_bytes()));
            return self.post_event(b"", payload, kind, &Rc::new(audience));
        }
        // A channel whose messages are events for all sockets is no room.
        let is_room = |room: &str| routes.from(namespace, room.as_bytes()).is_none();
        let rooms = || event.rooms.iter().filter(|room| is_room(room));
        for room in rooms() {
            audience.to.extend(self.members(room));
            let socket = self.socket(namespace, room, find);
            audience.to.extend(socket.and_then(|one| self.address(one, room.as_bytes(), server)));
        }
        let (audience, mut next) = (Rc::new(audience), 0);
        for room in rooms() {
            let room = room.as_bytes();
            let is_shared = self.sharing.as_ref().is_some_and(|sharing| sharing.shares(room));
            // Patterns get the event as well, but have no part in which of the sockets do.
            if is_shared && self.find_topics(room).is_ok() {
                self.post_event(room, payload, kind, &audience);
            }
            while let Some(members) = audience.to.get(next)
                && self.channels.name(members.topic) == room
            {
                next += 1;
                if members.only.is_some() {
                    self.topics.clear();
                    self.topics.push(members.topic);
                    self.post_event(b"", payload, kind, &audience);
                }
            }
        }
    }

    /// Posts an event to the topics that were found.
    fn post_event(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        kind: MessageKind,
        audience: &Rc<EventAudience>,
    ) {
        let Shared { fanout, channels, topics, .. } = self;
        if !topics.is_empty() {
            fanout.published += 1;
            fanout.publish_event(channels, topics, (channel, payload), kind, audience);
        }
    }

    /// Returns the socket of a namespace that a room stands for, as its sid.
    fn socket(&self, namespace: u8, room: &str, find: FindSocket<'_>) -> Option<SessionId> {
        let socket = find(room.as_bytes())?;
        let own = self.sessions.get(socket);
        let is_live = own.destination().is_some() && own.encoding.namespace() == Some(namespace);
        is_live.then_some(socket)
    }

    /// Returns the subscribers of a channel that is shared.
    fn members(&self, room: &str) -> Option<RoomMembers> {
        let topic = self.channels.topic(Kind::Channel, room.as_bytes())?;
        let is_shared = self.sharing.as_ref()?.shares(room.as_bytes());
        is_shared.then_some(RoomMembers { topic, only: None })
    }

    /// Gives a socket a topic of its own, so that an event for it alone comes in its order.
    fn address(
        &mut self,
        socket: SessionId,
        sid: &[u8],
        server: &dyn Server,
    ) -> Option<RoomMembers> {
        if self.channels.topic(Kind::Feed, sid).is_none() {
            let mut limits = TopicLimits::of(server.limits());
            limits.is_trusted = true;
            let Shared { channels, sessions, .. } = self;
            // The topic has no posts yet, so what is pending for the socket may stay so.
            if channels.subscribe(sessions, socket.index, Kind::Feed, sid, &limits).is_err() {
                self.refuse_event();
                return None;
            }
            self.cluster_mut()?.addressed.push_back((socket, sid.into()));
        }
        let topic = self.channels.topic(Kind::Feed, sid)?;
        Some(RoomMembers { topic, only: Some(socket.index) })
    }

    /// Removes the topics of single sockets to which nothing is posted any more.
    pub(super) fn collect_cluster(&mut self) {
        let Shared { sharing, channels, sessions, .. } = self;
        let cluster = sharing.as_mut().and_then(|sharing| sharing.cluster.as_mut());
        let Some(cluster) = cluster else { return };
        cluster.addressed.retain(|(socket, sid)| {
            let Some(topic) = channels.topic(Kind::Feed, sid) else { return false };
            let is_done = channels.queue(topic).is_none();
            if is_done {
                channels.unsubscribe(sessions, socket.index, Kind::Feed, sid);
            }
            !is_done
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::encoding::Encoding;
    use crate::hub::tests::{connect, session, subscribe, turn};
    use crate::service::Options;
    use crate::service::server::NoServer;

    /// Rooms of each session, and its namespace of Socket.IO. Session 5 speaks RESP.
    const PLACES: [(Option<u8>, &[&str]); 6] = [
        (Some(0), &["r"]),
        (Some(0), &["s", "r"]),
        (Some(0), &["s"]),
        (Some(1), &["r", "s"]),
        (Some(0), &[]),
        (None, &["r", "s"]),
    ];

    /// The sid of session 4.
    const SID: &[u8] = b"sid-of-the-socket-04";

    fn hub(adapter: &str) -> Hub {
        let text = format!("[socketio]\nadapter = \"{adapter}\"\nnamespaces = [\"/chat\"]\n");
        let table = toml::de::DeTable::parse(&text).unwrap();
        let routes = EventRoutes::read(table.get_ref().get("socketio").unwrap()).unwrap();
        let broker = crate::broker_settings::BrokerSettings {
            urls: vec!["redis://broker.example".parse().unwrap()],
            prefix: Default::default(),
            channels: vec![Default::default()],
            password: None,
            max_message: 1000,
        };
        let options =
            Options { routes: Rc::new(routes), broker: Some(broker), ..Options::default() };
        let mut hub = Hub::new(&options);
        for ((namespace, rooms), connection) in PLACES.into_iter().zip(0..) {
            connect(&mut hub, connection);
            let session = session(&hub, connection);
            if let Some(namespace) = namespace {
                let own = hub.shared.sessions.get_mut(session).unwrap();
                own.encoding = Encoding::SocketIo(namespace);
                let name = ["/", "/chat"][usize::from(namespace)];
                subscribe(&mut hub, connection, Kind::Feed, name.as_bytes());
            }
            for room in rooms {
                subscribe(&mut hub, connection, Kind::Channel, room.as_bytes());
            }
        }
        turn(&mut hub, 100, 100_000);
        hub
    }

    fn node_message(sender: &str, rooms: &[&str], except: &[&str]) -> Vec<u8> {
        let mut message = Vec::new();
        let list = |out: &mut Vec<u8>, names: &[&str]| {
            adapter::array(out, names.len() as u32);
            names.iter().for_each(|name| adapter::text(out, name));
        };
        adapter::array(&mut message, 3);
        adapter::text(&mut message, sender);
        assert!(adapter::value(&mut message, r#"{"type":2,"data":["e",1],"nsp":"/"}"#));
        message.extend_from_slice(&[0x82]);
        adapter::text(&mut message, "rooms");
        list(&mut message, rooms);
        adapter::text(&mut message, "except");
        list(&mut message, except);
        message
    }

    fn python_message(sender: &str, rooms: &[&str], except: &[&str]) -> Vec<u8> {
        let text = format!(
            r#"{{"method":"emit","event":"e","data":[1],"namespace":"/","room":{},
                "skip_sid":{except:?},"host_id":"{sender}"}}"#,
            if rooms.is_empty() { "null".into() } else { format!("{rooms:?}") },
        );
        text.into_bytes()
    }

    /// Returns how often each session gets an event of these rooms and exceptions. `sender` sends
    /// it to the first namespace.
    fn receivers(
        (adapter, channel): (ClusterAdapter, &[u8]),
        hub: &mut Hub,
        sender: &str,
        rooms: &[&str],
        except: &[&str],
    ) -> [usize; 6] {
        let message = match adapter {
            ClusterAdapter::Redis => node_message(sender, rooms, except),
            ClusterAdapter::Python => python_message(sender, rooms, except),
        };
        let socket = session(hub, 4);
        let find = |sid: &[u8]| (sid == SID).then_some(socket);
        hub.shared.hear_cluster(0, channel, &message, &find, &NoServer::default());
        let mut counts = [0; 6];
        for (connection, bytes) in turn(hub, 100, 100_000) {
            let event = b"[\"e\",1]";
            counts[connection as usize] +=
                bytes.windows(event.len()).filter(|some| some == event).count();
        }
        counts
    }

    /// The link is down, so it counts the publishes that were meant for the broker.
    #[test]
    fn a_publish_to_the_channels_of_the_adapter_stays_off_the_broker() {
        for (adapter, channels) in [
            (
                "redis",
                [
                    ("socket.io#/#", 0),
                    ("socket.io#/#r#", 0),
                    ("socket.io-request#/#", 0),
                    ("socket.io-response#/#uid123#", 0),
                    ("socket.io", 1),
                    ("socketio", 2),
                ]
                .as_slice(),
            ),
            ("python-socketio", [("socketio", 0), ("socket.io#/#", 1)].as_slice()),
        ] {
            let mut hub = hub(adapter);
            for (channel, meant) in channels {
                assert!(hub.shared.publish(channel.as_bytes(), b"x").is_ok());
                let link = &hub.shared.sharing.as_ref().unwrap().link;
                assert_eq!(link.counters().local, *meant, "{channel}");
            }
        }
    }

    #[test]
    fn an_event_of_a_cluster_reaches_its_audience_once() {
        let sid = std::str::from_utf8(SID).unwrap();
        for (rooms, except, expected) in [
            (&[][..], &[][..], [1, 1, 1, 0, 1, 0]),
            (&["r"], &[], [1, 1, 0, 0, 0, 1]),
            // A client of another protocol gets it by each of its channels.
            (&["r", "s"], &[], [1, 1, 1, 0, 0, 2]),
            (&["r"], &["s"], [1, 0, 0, 0, 0, 0]),
            (&[], &["r"], [0, 0, 1, 0, 1, 0]),
            (&[sid], &[], [0, 0, 0, 0, 1, 0]),
            (&[sid, "r"], &[], [1, 1, 0, 0, 1, 1]),
            (&[], &[sid], [1, 1, 1, 0, 0, 0]),
            (&["nobody"], &[], [0; 6]),
        ] {
            for (name, of) in [
                ("redis", (ClusterAdapter::Redis, &b"socket.io#/#"[..])),
                ("python-socketio", (ClusterAdapter::Python, PYTHON_CHANNEL)),
            ] {
                let mut hub = hub(name);
                assert_eq!(receivers(of, &mut hub, "node01", rooms, except), expected, "{rooms:?}");
                assert_eq!(receivers(of, &mut hub, OWN_NAME, rooms, except), [0; 6], "its own");
                turn(&mut hub, 100, 100_000);
                let left = hub.shared.channels.topic(Kind::Feed, SID);
                assert!(left.is_none(), "the topic of the socket goes");
            }
        }
    }
}
