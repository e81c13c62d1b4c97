//! The messaging hub: the sessions, channels, fan-out and access rules that all protocols share.
//!
//! A protocol ([`protocol`]) parses a peer's bytes and calls the hub's verbs: subscribe,
//! unsubscribe, publish. The hub sees session ids and never a socket. [`fanout`] delivers each
//! published message to the subscribers in [`channels`], in the [`encoding`] of each subscriber.

mod access;
pub mod channels;
mod encoding;
mod fanout;
pub mod glob;
mod invariants;
mod labels;
mod messages;
mod protocol;
mod sessions;
mod subscriptions;
mod waiting;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;
use crate::connection::Reason;
use crate::limits::{CLOSED_KEPT, PUBLISH_STEPS_MAX};
use crate::net::Transferred;
use crate::service::server::{Parting, Server};
use crate::service::{ConnectionId, Options, Output, Reply, Service, Taken};
use access::Access;
use channels::{Channels, Kind, LimitReached, TopicId};
use fanout::Fanout;
use labels::Labels;
use protocol::Resp;
use sessions::{AUTHENTICATED, OPERATOR, SessionId, Sessions};
use waiting::Waiting;

/// The service that runs the hub.
pub struct Hub {
    resp: Resp,
    shared: Shared,
}

/// The state that all protocols share.
struct Shared {
    sessions: Sessions,
    labels: Labels,
    channels: Channels,
    fanout: Fanout,
    access: Access,
    /// Sessions whose publish was deferred.
    publishers: Waiting,
    /// Sessions whose search command was deferred.
    searchers: Waiting,
    /// The last sessions that ended, oldest first.
    closed: VecDeque<Closed>,
    /// Unix time at which the clock read [`Time::ZERO`].
    unix_start: Duration,
    /// Scratch list: the topics of the current publish. Reused, so a publish allocates nothing.
    topics: Vec<TopicId>,
    commands_processed: u64,
    datagrams_refused: u64,
    /// Commands that MONITOR did not show because the backlog was too large.
    commands_not_shown: u64,
}

/// A session that has ended, as CLIENT CLOSED lists it.
struct Closed {
    serial: u32,
    peer: Option<SocketAddr>,
    age: Duration,
    transferred: Transferred,
    reason: &'static str,
}

/// A publish was refused because matching its channel's name with all patterns takes too long.
struct TooDear;

impl Hub {
    pub fn new(options: &Options) -> Hub {
        let shared = Shared {
            sessions: Sessions::new(options.max_connections),
            labels: Labels::default(),
            channels: Channels::default(),
            fanout: Fanout::default(),
            access: Access::new(options),
            publishers: Waiting::default(),
            searchers: Waiting::default(),
            closed: VecDeque::new(),
            unix_start: options.unix_start,
            topics: Vec::new(),
            commands_processed: 0,
            datagrams_refused: 0,
            commands_not_shown: 0,
        };
        Hub { resp: Resp::default(), shared }
    }
}

/// The hub's verbs.
impl Shared {
    /// Returns true if a session has given the password, or no password is set.
    fn is_authenticated(&self, session: SessionId) -> bool {
        self.sessions.get(session).is(AUTHENTICATED)
    }

    fn set_authenticated(&mut self, session: SessionId, on: bool) {
        if let Some(own) = self.sessions.get_mut(session) {
            own.put(AUTHENTICATED, on);
        }
    }

    /// Subscribes a session. Appends its pending messages to `out` first, so they precede the
    /// confirmation. Returns true if the subscription is new.
    fn subscribe(
        &mut self,
        session: SessionId,
        kind: Kind,
        name: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, LimitReached> {
        self.deliver_now(session, out);
        let is_new = self.channels.subscribe(session.index, kind, name)?;
        self.fanout.subscribed(session.index);
        Ok(is_new)
    }

    /// Appends a session's pending messages to its reply, before its subscriptions change.
    fn deliver_now(&mut self, session: SessionId, out: &mut Vec<u8>) {
        if self.fanout.has_output() && self.channels.listens(session.index) {
            let encoding = self.sessions.get(session).encoding();
            self.fanout.deliver_now(&mut self.channels, session.index, encoding, out);
        }
    }

    /// Publishes to a channel and to the patterns that match it. Returns the number of receivers.
    fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Result<usize, TooDear> {
        self.topics.clear();
        self.topics.extend(self.channels.topic(Kind::Channel, channel));
        let mut steps = 0;
        let all =
            self.channels.match_patterns(channel, &mut self.topics, &mut steps, PUBLISH_STEPS_MAX);
        self.fanout.note_searched(steps);
        if !all {
            return Err(TooDear);
        }
        self.fanout.published += 1;
        Ok(self.fanout.publish(&mut self.channels, &self.topics, channel, payload))
    }

    /// Publishes to a shard channel, which no pattern matches. Returns the number of receivers.
    fn publish_shard(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let topic = self.channels.topic(Kind::Shard, channel);
        self.fanout.published += 1;
        self.fanout.publish(&mut self.channels, topic.as_slice(), channel, payload)
    }

    /// Removes a session's subscriptions and name, for RESET and when the session ends.
    fn forget(&mut self, session: SessionId) {
        self.channels.close(session.index);
        self.labels.forget_name(session.index);
    }

    /// Returns the memory that the hub holds for a session, in bytes.
    fn bytes_of(&self, session: SessionId) -> usize {
        Sessions::BYTES_EACH
            + self.labels.bytes_of(session.index)
            + self.channels.bytes_of(session.index)
    }

    /// Returns the time since 1970-01-01 00:00 UTC.
    fn unix_time(&self, now: Time) -> Duration {
        self.unix_start + now.since(Time::ZERO)
    }

    fn remember_closed(&mut self, session: SessionId, parting: &Parting) {
        let own = self.sessions.get(session);
        if self.closed.len() >= CLOSED_KEPT {
            self.closed.pop_front();
        }
        let Parting { peer, reason, transferred, now } = *parting;
        let peer = own.peer().or(peer);
        self.closed.push_back(Closed {
            serial: own.serial,
            peer,
            age: own.age(now),
            transferred,
            reason,
        });
    }
}

impl Service for Hub {
    fn connected(&mut self, reply: &mut Reply<'_>) {
        let Some(connection) = reply.connection else { return };
        let session = self.shared.sessions.open(connection, reply.peer, reply.now.tick());
        if let Some(own) = self.shared.sessions.get_mut(session) {
            own.put(AUTHENTICATED, !self.shared.access.needs_password());
            own.put(OPERATOR, reply.is_operator);
        }
        if reply.peer.is_some_and(|peer| !self.shared.access.admits(peer.ip())) {
            reply.send(protocol::DENIED);
            return reply.close();
        }
        if self.shared.access.needs_password() {
            reply.trust(false);
        }
    }

    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        let session = reply
            .connection
            .map_or(SessionId::NONE, |connection| self.shared.sessions.of(connection));
        self.resp.receive(&mut self.shared, session, input, scanned, reply, server)
    }

    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, server: &mut dyn Server) {
        self.resp.datagram(&mut self.shared, datagram, reply, server);
    }

    /// Subscribers and monitors are exempt from the idle timeout, as from Redis's `timeout`. TCP
    /// keepalive detects the dead ones.
    fn listens(&self, connection: ConnectionId) -> bool {
        self.shared.channels.listens(self.shared.sessions.of(connection).index)
    }

    fn full(&self, out: &mut Vec<u8>) {
        protocol::full(out);
    }

    fn farewell(&self, connection: ConnectionId, reason: Reason, out: &mut Vec<u8>) {
        let session = self.shared.sessions.of(connection);
        protocol::farewell(self.shared.sessions.get(session).encoding(), reason, out);
    }

    /// A closing connection receives nothing more, so a publish later in this turn must not count
    /// it as a receiver.
    fn closing(&mut self, connection: ConnectionId) {
        self.shared.channels.close(self.shared.sessions.of(connection).index);
    }

    fn closed(&mut self, connection: ConnectionId, parting: &Parting) {
        let session = self.shared.sessions.of(connection);
        if session == SessionId::NONE {
            return;
        }
        self.shared.remember_closed(session, parting);
        self.shared.forget(session);
        self.shared.labels.close(session.index);
        self.resp.closed(session);
        self.shared.sessions.close(session);
    }

    fn remembers_closed(&self) -> bool {
        true
    }

    fn has_output(&self) -> bool {
        let Shared { fanout, publishers, searchers, .. } = &self.shared;
        fanout.has_output()
            || !publishers.is_empty()
            || !searchers.is_empty()
            || self.resp.has_work()
    }

    fn collect(&mut self, output: &mut Output<'_>) {
        let Shared { sessions, channels, fanout, publishers, searchers, .. } = &mut self.shared;
        fanout.collect(channels, sessions, output);
        if !fanout.is_backlogged() {
            publishers.collect(sessions, output);
        }
        searchers.collect(sessions, output);
        self.resp.collect(&mut self.shared, output);
    }

    fn bytes(&self) -> usize {
        let Shared { sessions, labels, channels, fanout, publishers, searchers, .. } = &self.shared;
        let waiting = publishers.bytes() + searchers.bytes();
        sessions.bytes()
            + labels.bytes()
            + channels.bytes()
            + fanout.bytes()
            + waiting
            + self.resp.walk_bytes()
    }

    fn fixed_bytes(&self) -> usize {
        let Shared { access, closed, .. } = &self.shared;
        access.bytes() + closed.capacity() * size_of::<Closed>() + self.resp.parser_bytes()
    }

    fn shrink(&mut self) {
        let Shared { sessions, labels, channels, fanout, publishers, searchers, .. } =
            &mut self.shared;
        sessions.shrink();
        labels.shrink();
        channels.shrink();
        fanout.shrink();
        publishers.shrink();
        searchers.shrink();
    }

    fn check_invariants(&self) {
        self.check();
    }

    fn check_connections(&self, held: &[(ConnectionId, bool)]) {
        self.shared.check_connections(held);
    }

    fn example(&self, host: &str, port: u16, stream: bool) -> String {
        protocol::example(host, port, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::service::server::NoServer;

    /// Returns a hub with this many sessions. Their connections are numbered from 0.
    pub fn hub(sessions: u32) -> Hub {
        let mut hub = Hub::new(&Options::default());
        (0..sessions).for_each(|connection| connect(&mut hub, connection));
        hub
    }

    pub fn connect(hub: &mut Hub, connection: u32) {
        hub.connected(&mut Reply::to(ConnectionId(connection), Time::ZERO, &mut Vec::new()));
    }

    pub fn disconnect(hub: &mut Hub, connection: u32) {
        let parting = Parting {
            peer: None,
            reason: "eof",
            transferred: Transferred::default(),
            now: Time::ZERO,
        };
        hub.closed(ConnectionId(connection), &parting);
    }

    pub fn session(hub: &Hub, connection: u32) -> SessionId {
        hub.shared.sessions.of(ConnectionId(connection))
    }

    pub fn subscribe(hub: &mut Hub, connection: u32, kind: Kind, name: &[u8]) {
        let session = session(hub, connection);
        hub.shared.subscribe(session, kind, name, &mut Vec::new()).unwrap();
    }

    /// Sends a command on a connection. Returns the reply and how the hub took the command.
    pub fn exchange(hub: &mut Hub, connection: u32, command: &[u8]) -> (Vec<u8>, Taken) {
        let mut answer = Vec::new();
        let mut reply = Reply::to(ConnectionId(connection), Time::ZERO, &mut answer);
        let taken = hub.receive(&mut command.to_vec(), 0, &mut reply, &mut NoServer::default());
        (answer, taken)
    }

    /// Runs one turn with a budget of writes and bytes. Returns each delivery, in order.
    pub fn turn(hub: &mut Hub, writes: usize, bytes: usize) -> Vec<(u32, Vec<u8>)> {
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, writes, bytes));
        hub.check_invariants();
        outbox
            .entries()
            .iter()
            .map(|entry| (entry.slot, outbox.bytes(&entry.range).to_vec()))
            .collect()
    }

    #[test]
    fn the_history_of_closed_sessions_counts_as_fixed_memory() {
        let mut hub = hub(CLOSED_KEPT as u32 + 10);
        let before = hub.fixed_bytes();
        (0..CLOSED_KEPT as u32 + 10).for_each(|connection| disconnect(&mut hub, connection));
        assert_eq!(hub.shared.closed.len(), CLOSED_KEPT);
        let history = hub.fixed_bytes() - before;
        assert_eq!(history, hub.shared.closed.capacity() * size_of::<Closed>());
        assert!((CLOSED_KEPT..=2 * CLOSED_KEPT).contains(&hub.shared.closed.capacity()));
    }

    #[test]
    fn the_memory_of_the_hub_is_that_of_all_its_parts() {
        let mut hub = hub(10);
        let sessions = hub.bytes();
        assert_eq!(sessions, 10 * Sessions::BYTES_EACH);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        exchange(&mut hub, 2, b"CLIENT SETNAME x\r\n");
        hub.shared.publish(b"a", b"x").ok();
        let Shared { labels, channels, fanout, .. } = &hub.shared;
        let parts = [labels.bytes(), channels.bytes(), fanout.bytes()];
        assert!(parts.iter().all(|bytes| *bytes > 0), "{parts:?}");
        let waiting = hub.shared.publishers.bytes() + hub.shared.searchers.bytes();
        let walks = hub.resp.walk_bytes();
        assert_eq!(hub.bytes(), sessions + parts.iter().sum::<usize>() + waiting + walks);
    }
}
