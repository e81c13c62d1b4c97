//! A cluster with other servers of Socket.IO: Node's, over the channels of
//! `@socket.io/redis-adapter`, or python-socketio's, over the channel of its `RedisManager`.
//!
//! An event that another server sends to rooms goes to the sockets here that are in the channels of
//! these names, and to other subscribers of the channels. A publish here goes to the sockets of the
//! other servers as the event that it is for the sockets here. Other hubs get the publish itself.
//! So all hubs have the same name in the cluster, and drop events of this name.

mod outgoing;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use super::Shared;
use super::audience::{EventAudience, RoomMembers};
use super::broker::{Link, LinkWire, Published, SharedKind};
use super::channels::{Kind, TopicId, TopicLimits};
use super::encoding::pack_event;
use super::messages::MessageKind;
use super::sessions::SessionId;
use crate::codec::socketio::adapter::{self, ClusterAddress, ClusterEvent};
use crate::codec::socketio::python;
use crate::limits::{BROKER_QUEUE_MAX, MATCH_STEP, PUBLISH_STEPS_MAX};
use crate::routes::{ClusterAdapter, EventRoutes};
use crate::service::server::Server;
use outgoing::OutgoingEvent;

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
    /// Sockets that have a topic of their own, with its name. The topic is removed once it has no
    /// posts.
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

/// Counts of events received from and sent to the cluster.
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
    /// routes forward it to. Returns the search steps that this counts as.
    pub fn publish(
        &mut self,
        link: &mut Link,
        routes: &EventRoutes,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let mut steps = self.send_all(link, routes, channel, payload);
        if routes.has_forwards() && has_room(link, payload) {
            for (room, message) in routes.forward(channel, payload) {
                steps += self.send_all(link, routes, &room, &message);
            }
        }
        steps
    }

    /// Sends a publish to a room in each namespace. Returns the search steps that this counts as.
    fn send_all(
        &mut self,
        link: &mut Link,
        routes: &EventRoutes,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let mut event = OutgoingEvent::new(self.adapter, channel, payload);
        for namespace in 0..self.namespaces.len() {
            match has_room(link, payload) && self.send(link, routes, namespace, &mut event) {
                true => self.counters.sent += 1,
                false => self.counters.unsent += 1,
            }
        }
        event.steps()
    }

    /// Sends an event to the servers of a namespace. Returns false if it does not go there.
    fn send(
        &mut self,
        link: &mut Link,
        routes: &EventRoutes,
        namespace: usize,
        event: &mut OutgoingEvent<'_>,
    ) -> bool {
        // The name of a room is text.
        let Ok(room) = std::str::from_utf8(event.channel) else { return false };
        let number = namespace as u8;
        let from = routes.from(number, event.channel);
        // All sockets of a namespace get the event that a route names.
        let room = from.is_none().then_some(room);
        let to = ClusterAddress {
            sender: OWN_NAME,
            namespace: routes.namespace_name(number),
            room,
            volatile: from.is_some_and(|from| from.volatile),
        };
        let (name, message) = &mut self.scratch;
        name.clear();
        message.clear();
        match self.adapter {
            ClusterAdapter::Redis => {
                name.extend_from_slice(&self.namespaces[namespace].begin);
                if let Some(room) = room {
                    name.extend_from_slice(room.as_bytes());
                    name.push(b'#');
                }
            }
            ClusterAdapter::Python => name.extend_from_slice(PYTHON_CHANNEL),
        }
        let named = from.map(|from| &*from.emit);
        event.write(message, &to, named) && link.publish(name, message) == Published::Sent
    }
}

/// Returns true if an event of this payload may have room in the queue of the link. An event has
/// about as many bytes as its payload, and transcoding takes time.
fn has_room(link: &Link, payload: &[u8]) -> bool {
    link.queued(LinkWire::First) + payload.len() <= BROKER_QUEUE_MAX
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
        // A channel whose messages are events for all sockets is no room.
        let is_room = |room: &&Cow<'_, str>| routes.from(namespace, room.as_bytes()).is_none();
        for room in event.except.iter().filter(is_room) {
            audience.except.extend(match find(room.as_bytes()) {
                // Nothing is posted to its topic, so any stands for it.
                Some(_) => self
                    .socket(namespace, room, find)
                    .map(|one| RoomMembers { topic: TopicId::NONE, only: Some(one.index) }),
                None => self.members(room),
            });
        }
        self.topics.clear();
        if event.rooms.is_empty() {
            self.topics.extend(self.channels.topic(Kind::Feed, name.as_bytes()));
            self.post_event((b"", payload), kind, &Rc::new(audience), true);
            return;
        }
        let rooms = || event.rooms.iter().filter(is_room);
        for room in rooms() {
            // The sid of a socket here is a room of this socket alone. Others may know it.
            audience.to.extend(match find(room.as_bytes()) {
                Some(_) => self
                    .socket(namespace, room, find)
                    .and_then(|one| self.address(one, room.as_bytes(), server)),
                None => self.members(room),
            });
        }
        self.topics.extend(audience.to.iter().map(|members| members.topic));
        let audience = Rc::new(audience);
        let is_posted = self.post_event((b"", payload), kind, &audience, true);
        if !is_binary && self.channels.pattern_count() > 0 {
            let rooms = rooms().filter(|room| find(room.as_bytes()).is_none());
            let rooms = rooms.map(|room| room.as_bytes());
            self.post_to_patterns(rooms, (payload, kind), &audience, is_posted, server);
        }
    }

    /// Posts an event to the patterns that match its rooms. They have no part in which of the
    /// sockets get it. `is_posted`: the event is the last message already.
    fn post_to_patterns<'a>(
        &mut self,
        rooms: impl Iterator<Item = &'a [u8]>,
        (payload, kind): (&[u8], MessageKind),
        audience: &Rc<EventAudience>,
        mut is_posted: bool,
        server: &dyn Server,
    ) {
        let mut steps_left = PUBLISH_STEPS_MAX;
        for room in rooms {
            if !self.sharing.as_ref().is_some_and(|sharing| sharing.shares(room)) {
                continue;
            }
            self.topics.clear();
            let found = self.channels.match_patterns(room, &mut self.topics, steps_left);
            let steps = found.as_ref().map_or(0, |steps| *steps);
            steps_left -= steps.min(steps_left);
            self.fanout.note_searched(MATCH_STEP * steps);
            // The rooms of one event may hold and cost as much as one message.
            if found.is_err() || !self.topics.is_empty() && self.is_overrun(server) {
                return self.drop_arrival();
            }
            is_posted |= self.post_event((room, payload), kind, audience, !is_posted);
        }
    }

    /// Posts an event to the topics that were found. Returns true if there are any. An event that
    /// is not new is the last message.
    fn post_event(
        &mut self,
        (channel, payload): (&[u8], &[u8]),
        kind: MessageKind,
        audience: &Rc<EventAudience>,
        is_new: bool,
    ) -> bool {
        let Shared { fanout, channels, topics, .. } = self;
        if topics.is_empty() {
            return false;
        }
        fanout.published += 1;
        match is_new {
            true => fanout.publish_event(channels, topics, (channel, payload), kind, audience),
            false => fanout.repeat_event(channels, topics, channel),
        }
        true
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
    use crate::limits::{BROKER_BACKLOG_MAX, CLUSTER_ROOMS_MAX};
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
        let text = format!(
            "[socketio]\nadapter = \"{adapter}\"\nnamespaces = [\"/chat\"]\n\
             [[socketio.from]]\nchannel = \"all\"\nemit = \"e\"\n"
        );
        let table = toml::de::DeTable::parse(&text).unwrap();
        let routes = EventRoutes::read(table.get_ref().get("socketio").unwrap()).unwrap();
        let broker = crate::broker_settings::BrokerSettings {
            urls: vec!["redis://broker.example".parse().unwrap()],
            prefix: Default::default(),
            channels: vec![Default::default()],
            password: None,
            max_message: 1 << 20,
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
        node_event(sender, r#"["e",1]"#, rooms, except)
    }

    fn node_event(sender: &str, data: &str, rooms: &[&str], except: &[&str]) -> Vec<u8> {
        let mut message = Vec::new();
        let list = |out: &mut Vec<u8>, names: &[&str]| {
            adapter::array(out, names.len() as u32);
            names.iter().for_each(|name| adapter::text(out, name));
        };
        adapter::array(&mut message, 3);
        adapter::text(&mut message, sender);
        let packet = format!(r#"{{"type":2,"data":{data},"nsp":"/"}}"#);
        assert!(adapter::value(&mut message, &packet));
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

    /// A message of a Node server arrives by way of the broker.
    fn arrive(hub: &mut Hub, message: &[u8]) {
        let socket = session(hub, 4);
        let find = |sid: &[u8]| (sid == SID).then_some(socket);
        hub.shared.hear_cluster(0, b"socket.io#/#", message, &find, &NoServer::default());
    }

    /// Subscribes session 5 to many rooms, and returns their names.
    fn many_rooms(hub: &mut Hub, count: usize) -> Vec<String> {
        let rooms: Vec<String> = (0..count).map(|number| format!("room{number:04}")).collect();
        rooms.iter().for_each(|room| subscribe(hub, 5, Kind::Channel, room.as_bytes()));
        turn(hub, 100, 1 << 20);
        rooms
    }

    fn texts(rooms: &[String]) -> Vec<&str> {
        rooms.iter().map(String::as_str).collect()
    }

    #[test]
    fn an_event_for_many_rooms_is_stored_once() {
        let mut hub = hub("redis");
        let rooms = many_rooms(&mut hub, 100);
        let length = crate::limits::LARGE_PAYLOAD;
        let data = format!(r#"["e","{}"]"#, "x".repeat(length));
        for patterns in [0, 1] {
            if patterns == 1 {
                subscribe(&mut hub, 5, Kind::Pattern, b"room*");
                turn(&mut hub, 100, 1 << 20);
            }
            arrive(&mut hub, &node_event("node01", &data, &texts(&rooms), &[]));
            let held = hub.shared.fanout.backlog();
            assert!(held < 2 * length, "{held} bytes are held");
            let mut got = Vec::new();
            while hub.shared.fanout.has_output() {
                got.extend(turn(&mut hub, 100, 1 << 26).into_iter().flat_map(|(_, bytes)| bytes));
            }
            let text = String::from_utf8(got).unwrap();
            for room in &rooms {
                let by = |head: &str| text.matches(&format!("{head}$8\r\n{room}\r\n$")).count();
                assert_eq!(by("$7\r\nmessage\r\n"), 1, "{room}");
                assert_eq!(by("$8\r\npmessage\r\n$5\r\nroom*\r\n"), patterns, "{room}");
            }
            assert_eq!(hub.shared.fanout.backlog(), 0);
        }
    }

    #[test]
    fn what_an_event_holds_for_its_rooms_is_bounded() {
        let mut hub = hub("redis");
        let rooms = many_rooms(&mut hub, CLUSTER_ROOMS_MAX);
        let event = |data: &str, except: &[&str]| node_event("node01", data, &[], except);
        arrive(&mut hub, &event("[\"e\"]", &texts(&rooms)));
        let held = hub.shared.fanout.backlog();
        assert!(held > CLUSTER_ROOMS_MAX * size_of::<RoomMembers>(), "exceptions count: {held}");
        turn(&mut hub, 100, 1 << 20);
        // The posts to the rooms count, too.
        arrive(&mut hub, &node_event("node01", "[\"e\"]", &texts(&rooms), &[]));
        assert!(hub.shared.fanout.holds(CLUSTER_ROOMS_MAX * 80));
        while hub.shared.fanout.has_output() {
            turn(&mut hub, 100, 1 << 26);
        }
        // Patterns get a copy of a small event for each of its rooms.
        subscribe(&mut hub, 5, Kind::Pattern, b"room*");
        turn(&mut hub, 100, 1 << 20);
        let data = format!(r#"["e","{}"]"#, "x".repeat(60 << 10));
        for is_dropped in [false, true] {
            arrive(&mut hub, &node_event("node01", &data, &texts(&rooms), &[]));
            let dropped = hub.shared.sharing.as_ref().unwrap().gauges()[3];
            assert_eq!(dropped, u64::from(is_dropped));
            assert!(hub.shared.fanout.backlog() < BROKER_BACKLOG_MAX + (1 << 20));
        }
    }

    #[test]
    fn an_event_for_a_socket_reaches_no_channel_or_pattern_of_its_sid() {
        let sid = std::str::from_utf8(SID).unwrap();
        let mut hub = hub("redis");
        subscribe(&mut hub, 0, Kind::Channel, SID);
        subscribe(&mut hub, 5, Kind::Channel, SID);
        subscribe(&mut hub, 5, Kind::Pattern, b"*");
        turn(&mut hub, 100, 1 << 20);
        let of = (ClusterAdapter::Redis, &b"socket.io#/#"[..]);
        assert_eq!(receivers(of, &mut hub, "node01", &[sid], &[]), [0, 0, 0, 0, 1, 0]);
        assert_eq!(receivers(of, &mut hub, "node01", &[], &[sid]), [1, 1, 1, 0, 0, 0]);
        assert_eq!(receivers(of, &mut hub, "node01", &["r", sid], &[]), [1, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn an_event_that_cannot_be_queued_is_not_transcoded() {
        for (length, is_transcoded) in
            [(BROKER_QUEUE_MAX - 1, true), (BROKER_QUEUE_MAX, true), (BROKER_QUEUE_MAX + 1, false)]
        {
            let mut hub = hub("redis");
            let routes = hub.shared.fanout.routes().clone();
            let sharing = hub.shared.sharing.as_mut().unwrap();
            let cluster = sharing.cluster.as_mut().unwrap();
            let steps = cluster.publish(&mut sharing.link, &routes, b"r", &vec![b'x'; length]);
            // There are two namespaces, and the link is down.
            assert_eq!(steps, if is_transcoded { length } else { 0 });
            assert_eq!((cluster.counters.unsent, cluster.counters.sent), (2, 0));
        }
    }

    #[test]
    fn the_channel_of_a_from_is_no_room_that_excludes() {
        let mut hub = hub("redis");
        let of = (ClusterAdapter::Redis, &b"socket.io#/#"[..]);
        subscribe(&mut hub, 0, Kind::Channel, b"all");
        turn(&mut hub, 100, 1 << 20);
        assert_eq!(receivers(of, &mut hub, "node01", &[], &["all"]), [1, 1, 1, 0, 1, 0]);
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
