//! The channels and messages that the hub shares with other hubs over a broker.
//!
//! A channel or pattern is subscribed at the broker while it has subscribers here. A publish goes
//! to the broker, and its message is delivered here when it comes back. So all hubs see one order.
//! While the link is down, a publish is delivered here alone, at once.
//!
//! The broker sends a message once for the channel and once for each pattern that is subscribed.
//! Each of these goes to the subscribers of that one topic, so nobody gets it twice.

mod gaps;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use super::Shared;
use super::broker::notices::NOTICES;
use super::broker::{
    Arrival, FromBroker, Link, LinkEvent, LinkWire, Published, SharedChannels, SharedKind,
};
use super::channels::{Kind, TopicChange};
use super::cluster::{Cluster, FindSocket};
use super::link_log::LinkLog;
use super::messages::MessageKind;
use super::publishing::Unpublished;
use super::retained::Retained;
use super::sessions::SessionId;
use super::shared_values::SharedValues;
use crate::broker_settings::BrokerSettings;
use crate::clock::{Tick, Time};
use crate::connection::Reason;
use crate::limits::{
    BROKER_BACKLOG_MAX, BROKER_QUEUE_HIGH, BROKER_READS_PER_CALL, BROKER_REPLY_TIME,
    BROKER_WRITE_MAX, EXEMPT_SHARE, Limits, OWN_MESSAGES_MAX,
};
use crate::service::server::Server;
use crate::service::{ConnectionId, Dial, Options, Output, Reply, Taken};

/// The hub's end of the link to a broker.
pub struct Sharing {
    pub link: Link,
    /// The retained values at the broker.
    pub values: SharedValues,
    shared: SharedChannels,
    /// The part in a cluster of Socket.IO.
    pub cluster: Option<Box<Cluster>>,
    /// Channels that stay subscribed: routes forward their messages, or they are kept.
    permanent: Vec<Vec<u8>>,
    connections: [Option<ConnectionId>; 2],
    /// The numbers of the dials under way.
    dials: [Option<u32>; 2],
    last_dial: u32,
    /// Publishes that leave out their sender when they come back, in the order of the publishes.
    own: VecDeque<OwnMessage>,
    hasher: RandomState,
    /// The place in the table of topics from which subscribers have yet to be told of a gap.
    gap_from: Option<usize>,
    /// True if there was another gap while subscribers were told of one.
    is_gap_repeated: bool,
    /// True if the link has an event or output that no input announces.
    has_work: bool,
    log: LinkLog,
    /// Messages from the broker that were dropped because too many wait for their receivers.
    dropped: u64,
}

/// A publish that leaves out a session when it comes back.
struct OwnMessage {
    /// A hash of the channel and the payload.
    hash: u64,
    sender: SessionId,
    /// When it is given up: the broker may refuse or drop a message.
    until: Tick,
}

impl Sharing {
    /// Creates the link. The permanent channels are wanted whether or not they have subscribers.
    pub fn new(
        settings: BrokerSettings,
        permanent: Vec<Vec<u8>>,
        cluster: Option<Cluster>,
        retained: &mut Retained,
        seed: u64,
    ) -> Sharing {
        let shared = SharedChannels::new(&settings.channels);
        let mut link = Link::new(settings, seed, Tick(0));
        let permanent: Vec<_> =
            permanent.into_iter().filter(|channel| shared.has(channel, &mut 0)).collect();
        permanent.iter().for_each(|channel| link.subscribe(SharedKind::Channel, channel));
        let names = cluster.iter().flat_map(Cluster::names);
        names.for_each(|(kind, name)| link.subscribe(kind, name));
        let is_shared = |channel: &[u8]| shared.has(channel, &mut 0);
        let values = SharedValues::new(retained, is_shared, &mut link, seed);
        Sharing {
            link,
            values,
            shared,
            cluster: cluster.map(Box::new),
            permanent,
            connections: [None; 2],
            dials: [None; 2],
            last_dial: 0,
            own: VecDeque::new(),
            hasher: RandomState::new(),
            gap_from: None,
            is_gap_repeated: false,
            has_work: true,
            log: LinkLog::default(),
            dropped: 0,
        }
    }

    /// Returns which connection of the link this is.
    pub fn wire(&self, connection: ConnectionId) -> Option<LinkWire> {
        LinkWire::ALL.into_iter().find(|wire| self.connections[*wire as usize] == Some(connection))
    }

    /// Returns true if [`Shared::collect_sharing`] has something to do.
    pub fn has_work(&self) -> bool {
        let is_addressed = self.cluster.as_ref().is_some_and(|cluster| cluster.has_addressed());
        let is_due = self.gap_from.is_some() || is_addressed || self.values.has_work();
        self.has_work || is_due
    }

    /// Returns when [`Shared::collect_sharing`] must be called at the latest.
    pub fn wakes_at(&self, now: Tick) -> Option<Tick> {
        let times = self.link.poll_timeout().into_iter().chain(self.values.wakes_at(now));
        times.min_by_key(|due| due.distance_from(now))
    }

    /// Returns true while publishers wait for room on the link.
    fn is_full(&self) -> bool {
        self.link.is_up() && self.link.queued(LinkWire::First) >= BROKER_QUEUE_HIGH
    }

    /// Returns whether the link is up, the names wanted, the bytes that wait to be sent, and the
    /// messages dropped here.
    pub fn gauges(&self) -> [u64; 4] {
        let link = &self.link;
        let queued: usize = LinkWire::ALL.into_iter().map(|wire| link.queued(wire)).sum();
        [u64::from(link.is_up()), link.names() as u64, queued as u64, self.dropped]
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let cluster = self.cluster.as_ref().map_or(0, |cluster| cluster.bytes());
        let own = self.own.capacity() * size_of::<OwnMessage>();
        cluster + self.link.bytes() + self.values.bytes() + own
    }

    /// Returns unused memory to the allocator.
    pub fn shrink(&mut self) {
        self.link.shrink();
        self.own.shrink_to_fit();
        self.cluster.iter_mut().for_each(|cluster| cluster.shrink());
    }

    /// Subscribes at the broker what has got subscribers here, and the other way round.
    fn follow(&mut self, changes: Vec<TopicChange>, now: Tick) {
        for TopicChange { kind, name, has_subscribers } in changes {
            if kind == Kind::Channel && has_subscribers && self.link.is_own_probe(&name) {
                self.link.handle_circle(now);
                continue;
            }
            let kind = match kind {
                Kind::Channel if !self.shared.has(&name, &mut 0) => continue,
                Kind::Channel if self.permanent.iter().any(|own| **own == *name) => continue,
                Kind::Channel => SharedKind::Channel,
                Kind::Pattern => SharedKind::Pattern,
                Kind::Shard | Kind::Feed => continue,
            };
            if self.cluster_source(kind, &name).is_some() {
                continue;
            }
            match has_subscribers {
                true => self.link.subscribe(kind, &name),
                false => self.link.unsubscribe(kind, &name, now),
            }
            self.has_work = true;
        }
    }

    /// Returns true if a channel is shared.
    pub fn shares(&self, channel: &[u8]) -> bool {
        self.shared.has(channel, &mut 0)
    }

    /// Returns which of the cluster's names at the broker this is.
    fn cluster_source(&self, kind: SharedKind, name: &[u8]) -> Option<u8> {
        self.cluster.as_ref()?.source(kind, name)
    }

    /// Notes that a message leaves out its sender when it comes back.
    fn expect_own(&mut self, channel: &[u8], payload: &[u8], sender: SessionId, now: Tick) {
        self.give_up_own(now);
        if self.own.len() >= OWN_MESSAGES_MAX {
            self.own.pop_front();
        }
        let hash = self.hasher.hash_one((channel, payload));
        let until = now.plus(Tick::count(BROKER_REPLY_TIME));
        self.own.push_back(OwnMessage { hash, sender, until });
    }

    /// Returns the session that a message leaves out. Own messages come back in the order of their
    /// publishes, so those before it do not come any more.
    fn take_own(&mut self, channel: &[u8], payload: &[u8], now: Tick) -> Option<SessionId> {
        self.give_up_own(now);
        if self.own.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one((channel, payload));
        let place = self.own.iter().position(|own| own.hash == hash)?;
        self.own.drain(..=place).next_back().map(|own| own.sender)
    }

    /// Tells all subscribers that messages may be missing, in the next turns.
    fn note_gap(&mut self) {
        self.is_gap_repeated = self.gap_from.is_some_and(|from| from > 0);
        self.gap_from.get_or_insert(0);
    }

    fn give_up_own(&mut self, now: Tick) {
        while self.own.front().is_some_and(|own| own.until.distance_from(now) <= 0) {
            self.own.pop_front();
        }
    }

    /// Does what the link wants.
    fn act(&mut self, event: LinkEvent, output: &mut Output<'_>) {
        match event {
            LinkEvent::Dial { wire, host, port, timeout } => {
                self.last_dial = self.last_dial.wrapping_add(1);
                self.dials[wire as usize] = Some(self.last_dial);
                output.dial(Dial { number: self.last_dial, host, port, timeout });
            }
            LinkEvent::HangUp { wire } => {
                self.dials[wire as usize] = None;
                if let Some(connection) = self.connections[wire as usize].take() {
                    // Its unsent bytes must not arrive behind those of the next connection.
                    output.server.kill(connection, Reason::ServiceClosed);
                }
            }
            LinkEvent::Up => self.log.up(&self.link.host()),
            LinkEvent::Gap => self.note_gap(),
            LinkEvent::Down(fault) => {
                self.own.clear();
                self.log.down(&self.link.host(), &fault);
            }
            LinkEvent::Failed(fault) => {
                self.log.failed(&self.link.host(), &fault, output.now.tick());
            }
            LinkEvent::Refused { kind, name, code } => self.log.refused(kind, &name, &code),
        }
    }

    /// Hands the bytes of the link to its connections, as far as these have sent the last ones.
    fn send(&mut self, output: &mut Output<'_>) {
        let now = output.now.tick();
        for wire in LinkWire::ALL {
            let Some(connection) = self.connections[wire as usize] else { continue };
            if output.server.unsent(connection) > 0 {
                continue;
            }
            let bytes = self.link.output(wire, now);
            let length = bytes.len().min(BROKER_WRITE_MAX);
            self.has_work |= length < bytes.len();
            if length > 0 {
                let out = output.bytes_mut();
                let start = out.len() as u32;
                out.extend_from_slice(&bytes[..length]);
                let end = out.len() as u32;
                output.deliver_whole(connection, &(start..end));
                self.link.consume_output(wire, length);
            }
        }
    }
}

/// Returns how many bytes of messages from the broker may wait for their receivers.
fn backlog_max(limits: &Limits) -> usize {
    BROKER_BACKLOG_MAX.min(limits.memory_budget / EXEMPT_SHARE)
}

impl Shared {
    /// Shares this hub's channels over a broker from now on.
    pub(super) fn join_broker(&mut self, settings: &BrokerSettings, options: &Options) {
        let forwarded = options.routes.forwarded().map(<[u8]>::to_vec);
        let kept = self.retained.channels().map(<[u8]>::to_vec);
        let seed = options.sid_key.unwrap_or_else(|| RandomState::new().hash_one(0));
        let permanent = forwarded.chain(kept).collect();
        let cluster = options.routes.adapter();
        let cluster =
            cluster.map(|adapter| Cluster::new(adapter, &options.routes, settings.max_message));
        let sharing = Sharing::new(settings.clone(), permanent, cluster, &mut self.retained, seed);
        self.sharing = Some(Box::new(sharing));
        self.channels.note_changes();
    }

    /// Publishes a message at the broker if its channel is shared. It goes to its receivers when it
    /// comes back. Returns false if it is to be delivered here at once.
    pub(super) fn share(&mut self, channel: &[u8], payload: &[u8]) -> Result<bool, Unpublished> {
        let Shared { sharing, channels, fanout, retained, .. } = self;
        let Some(sharing) = sharing else { return Ok(false) };
        let mut steps = 0;
        let is_shared = sharing.shared.has(channel, &mut steps);
        fanout.note_searched(steps);
        if !is_shared || sharing.cluster.as_ref().is_some_and(|cluster| cluster.owns(channel)) {
            return Ok(false);
        }
        // A name that was subscribed before the publish is subscribed at the broker before it.
        sharing.follow(channels.take_changes(), self.now);
        let Sharing { values, link, .. } = &mut **sharing;
        let published = values.publish(link, retained, channel, payload);
        if published == Published::Sent
            && let Some(cluster) = &mut sharing.cluster
        {
            let steps = cluster.publish(&mut sharing.link, fanout.routes(), channel, payload);
            fanout.note_searched(steps);
        }
        sharing.has_work = true;
        fanout.is_link_full = sharing.is_full();
        match published {
            Published::StaysHere => Ok(false),
            Published::QueueFull => Err(Unpublished::QueueFull),
            Published::Sent => {
                if let Some(sender) = self.except
                    && let Some(topic) = channels.topic(Kind::Channel, channel)
                    && channels.is_member(sender.index, topic)
                {
                    sharing.expect_own(channel, payload, sender, self.now);
                }
                Ok(true)
            }
        }
    }

    /// Returns which connection of the link this is.
    pub(super) fn wire(&self, connection: Option<ConnectionId>) -> Option<LinkWire> {
        self.sharing.as_ref()?.wire(connection?)
    }

    /// Reads replies of the broker, and delivers the messages among them.
    pub(super) fn hear(
        &mut self,
        wire: LinkWire,
        input: &[u8],
        now: Time,
        find: FindSocket<'_>,
        server: &dyn Server,
    ) -> Taken {
        let mut used = 0;
        for _ in 0..BROKER_READS_PER_CALL {
            let Some(sharing) = &mut self.sharing else { break };
            sharing.has_work = true;
            let (length, heard) = sharing.link.handle_input(wire, &input[used..], now.tick());
            match heard {
                Some(FromBroker::Message(arrival)) => self.arrived(&arrival, find, server),
                Some(FromBroker::Answer(answer)) => self.take_reply(answer),
                None => {}
            }
            if length == 0 {
                break;
            }
            used += length;
        }
        if used == 0 { Taken::Incomplete } else { Taken::Message(used) }
    }

    /// Delivers a message of the broker to the subscribers of its topic.
    fn arrived(&mut self, arrival: &Arrival<'_>, find: FindSocket<'_>, server: &dyn Server) {
        let Arrival { kind, topic, channel, payload } = *arrival;
        if let Some(channel) = channel.strip_prefix(NOTICES) {
            return self.take_notice(channel, payload);
        }
        let is_missed = match kind {
            SharedKind::Channel => self.take_value(channel, payload),
            SharedKind::Pattern => !self.is_silent(channel),
        };
        let Some(sharing) = &mut self.sharing else { return };
        let source = sharing.cluster_source(kind, topic);
        let is_shared = sharing.shared.has(channel, &mut 0);
        if !is_missed || !is_shared && source.is_none() {
            return;
        }
        let own = match kind {
            SharedKind::Channel if source.is_none() => sharing.take_own(channel, payload, self.now),
            _ => None,
        };
        if self.is_overrun(server) {
            // The link is read whatever waits for receivers, so that the broker keeps it.
            self.drop_arrival();
            if kind == SharedKind::Channel {
                self.retained.store(channel, payload);
            }
            return;
        }
        if let Some(source) = source {
            self.hear_cluster(source, channel, payload, find, server);
        }
        if !is_shared {
            return;
        }
        self.topics.clear();
        let topic_kind = match kind {
            SharedKind::Channel => Kind::Channel,
            SharedKind::Pattern => Kind::Pattern,
        };
        self.topics.extend(self.channels.topic(topic_kind, topic));
        // The names of the cluster are subscribed whether or not they have subscribers here.
        if source.is_some() && self.topics.is_empty() {
            return;
        }
        match kind {
            SharedKind::Pattern => {
                let Shared { fanout, channels, topics, .. } = self;
                fanout.published += 1;
                fanout.publish(channels, topics, channel, payload, MessageKind::Plain);
            }
            SharedKind::Channel => {
                // Another session may have got the number since then.
                self.except = own.filter(|sender| self.sessions.at(sender.index) == *sender);
                self.post(channel, payload);
                self.except = None;
                if self.fanout.routes().has_forwards() {
                    self.forward(channel, payload);
                }
            }
        }
    }

    /// Handles the outcome of a dial.
    pub(super) fn dialled(
        &mut self,
        number: u32,
        outcome: Result<SocketAddr, String>,
        reply: &mut Reply<'_>,
    ) {
        let Some(sharing) = &mut self.sharing else { return };
        let wire = LinkWire::ALL
            .into_iter()
            .find(|wire| sharing.dials[*wire as usize].take_if(|own| *own == number).is_some());
        let Some(wire) = wire else { return reply.close() };
        sharing.has_work = true;
        match outcome {
            Ok(_) => {
                sharing.connections[wire as usize] = reply.connection;
                sharing.link.handle_connected(wire, reply.now.tick());
            }
            Err(error) => sharing.link.handle_failed(wire, &error, reply.now.tick()),
        }
    }

    /// Handles the end of a connection. Returns true if it was one of the link.
    pub(super) fn lost_wire(&mut self, connection: ConnectionId, now: Tick) -> bool {
        let Some(sharing) = &mut self.sharing else { return false };
        let Some(wire) = sharing.wire(connection) else { return false };
        sharing.connections[wire as usize] = None;
        sharing.link.handle_closed(wire, now);
        sharing.has_work = true;
        true
    }

    /// Does what is due on the link, and sends what it has to send.
    pub(super) fn collect_sharing(&mut self, output: &mut Output<'_>) {
        self.collect_cluster();
        let Shared { sharing, channels, .. } = self;
        let Some(sharing) = sharing else { return };
        let now = output.now.tick();
        sharing.has_work = false;
        sharing.follow(channels.take_changes(), now);
        if sharing.link.poll_timeout().is_some_and(|due| due.distance_from(now) <= 0) {
            sharing.link.handle_timeout(now);
        }
        self.keep_values();
        let Shared { sharing, fanout, .. } = self;
        let Some(sharing) = sharing else { return };
        sharing.send(output);
        while let Some(event) = sharing.link.poll_event() {
            sharing.act(event, output);
        }
        fanout.is_link_full = sharing.is_full();
        self.tell_of_gap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_settings::{BrokerPrefix, BrokerUrl, SharedPattern};
    use crate::hub::Hub;
    use crate::hub::encoding::Encoding;
    use crate::hub::tests::{connect, session, subscribe, turn};
    use crate::limits::{GAPS_PER_TURN, MAX_MESSAGE};
    use crate::service::server::NoServer;

    /// Returns a hub whose broker never answers, with one subscriber of a channel.
    fn hub() -> Hub {
        let url: BrokerUrl = "redis://127.0.0.1".parse().unwrap();
        let broker = BrokerSettings {
            urls: vec![url],
            prefix: BrokerPrefix::default(),
            channels: vec![SharedPattern::default()],
            password: None,
            max_message: 1 << 20,
        };
        let options = Options { broker: Some(broker), sid_key: Some(1), ..Options::default() };
        let mut hub = Hub::new(&options);
        connect(&mut hub, 0);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        hub
    }

    /// A message of the broker arrives on the channel.
    fn arrive(hub: &mut Hub, kind: SharedKind, topic: &[u8], payload: &[u8]) {
        let arrival = Arrival { kind, topic, channel: b"a", payload };
        hub.shared.arrived(&arrival, &|_| None, &NoServer::default());
    }

    fn sharing(hub: &mut Hub) -> &mut Sharing {
        hub.shared.sharing.as_mut().unwrap()
    }

    #[test]
    fn a_message_goes_to_the_subscribers_of_its_one_topic() {
        let mut hub = hub();
        connect(&mut hub, 1);
        subscribe(&mut hub, 1, Kind::Pattern, b"*");
        arrive(&mut hub, SharedKind::Channel, b"a", b"x");
        let delivered = turn(&mut hub, 100, 1 << 20);
        assert_eq!(delivered.iter().map(|one| one.0).collect::<Vec<_>>(), [0]);
        arrive(&mut hub, SharedKind::Pattern, b"*", b"y");
        let delivered = turn(&mut hub, 100, 1 << 20);
        assert_eq!(delivered.iter().map(|one| one.0).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn messages_that_come_too_fast_are_dropped_and_told_as_a_gap() {
        for (length, dropped) in
            [(BROKER_BACKLOG_MAX - 2, 0), (BROKER_BACKLOG_MAX - 1, 1), (BROKER_BACKLOG_MAX, 1)]
        {
            let mut hub = hub();
            // The channel's name counts, too.
            assert_eq!(hub.shared.publish(b"a", &vec![b'x'; length]), Ok(1));
            arrive(&mut hub, SharedKind::Channel, b"a", b"y");
            let sharing = sharing(&mut hub);
            assert_eq!((sharing.dropped, sharing.gap_from.is_some()), (dropped, dropped > 0));
        }
    }

    #[test]
    fn the_backlog_of_the_broker_is_a_part_of_a_small_memory_budget() {
        let limits = |memory_budget| Limits { memory_budget, ..Limits::default() };
        let whole = EXEMPT_SHARE * BROKER_BACKLOG_MAX;
        assert_eq!(backlog_max(&limits(whole - EXEMPT_SHARE)), BROKER_BACKLOG_MAX - 1);
        assert_eq!(backlog_max(&limits(whole)), BROKER_BACKLOG_MAX);
        assert_eq!(backlog_max(&limits(2 * whole)), BROKER_BACKLOG_MAX);
    }

    /// One read may bring both.
    #[test]
    fn two_long_messages_of_the_broker_arrive_in_one_turn() {
        for length in [1 << 20, MAX_MESSAGE] {
            let mut hub = hub();
            for byte in [b'x', b'y'] {
                arrive(&mut hub, SharedKind::Channel, b"a", &vec![byte; length]);
            }
            assert_eq!(sharing(&mut hub).dropped, 0);
            let mut delivered = Vec::new();
            for _ in 0..4 {
                delivered.extend(turn(&mut hub, 100, 1 << 26).into_iter().flat_map(|one| one.1));
            }
            let count = |byte| delivered.iter().filter(|own| **own == byte).count();
            assert_eq!((count(b'x'), count(b'y')), (length, length));
        }
    }

    #[test]
    fn own_messages_are_remembered_up_to_a_bound() {
        for (count, is_first_known) in
            [(OWN_MESSAGES_MAX - 1, true), (OWN_MESSAGES_MAX, true), (OWN_MESSAGES_MAX + 1, false)]
        {
            let mut hub = hub();
            let sender = session(&hub, 0);
            let sharing = sharing(&mut hub);
            (0..count).for_each(|number| {
                sharing.expect_own(b"a", &number.to_le_bytes(), sender, Tick(0))
            });
            let first = sharing.take_own(b"a", &0_usize.to_le_bytes(), Tick(0));
            assert_eq!(first, is_first_known.then_some(sender), "{count}");
            let last = sharing.take_own(b"a", &(count - 1).to_le_bytes(), Tick(0));
            assert_eq!(last, Some(sender));
            assert!(sharing.own.is_empty(), "those before the last come no more");
            sharing.expect_own(b"a", b"x", sender, Tick(0));
            let late = Tick(0).plus(Tick::count(BROKER_REPLY_TIME));
            assert_eq!(sharing.take_own(b"a", b"x", late), None, "the broker has dropped it");
        }
    }

    #[test]
    fn a_sender_that_is_left_out_gets_the_messages_of_others() {
        let mut hub = hub();
        connect(&mut hub, 1);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        let sender = session(&hub, 0);
        sharing(&mut hub).expect_own(b"a", b"own", sender, Tick(0));
        for payload in [b"one", b"own", b"two"] {
            arrive(&mut hub, SharedKind::Channel, b"a", payload);
        }
        let delivered = turn(&mut hub, 100, 1 << 20);
        let of = |connection: u32| {
            let own = delivered.iter().filter(|one| one.0 == connection);
            own.flat_map(|one| one.1.clone()).collect::<Vec<u8>>()
        };
        let message =
            |payload: &str| format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\n{payload}\r\n");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(of(0)), message("one") + &message("two"));
        assert_eq!(text(of(1)), message("one") + &message("own") + &message("two"));
    }

    /// A gap is told a part of the table at a time.
    #[test]
    fn each_subscriber_of_a_shared_channel_is_told_of_a_gap() {
        let mut hub = hub();
        let count = 2 * GAPS_PER_TURN as u32;
        for connection in 1..count {
            connect(&mut hub, connection);
            let session = session(&hub, connection);
            hub.shared.sessions.get_mut(session).unwrap().encoding = Encoding::Resp3;
            subscribe(&mut hub, connection, Kind::Channel, format!("{connection}").as_bytes());
        }
        sharing(&mut hub).gap_from = Some(0);
        let mut told = 0;
        for _ in 0..8 {
            let delivered = turn(&mut hub, 10_000, 1 << 20);
            told +=
                delivered.iter().filter(|one| one.1.starts_with(b">2\r\n$3\r\ngap\r\n")).count();
        }
        assert_eq!(told as u32, count - 1, "a client of RESP2 has no form for it");
        assert_eq!(sharing(&mut hub).gap_from, None);
    }
}
