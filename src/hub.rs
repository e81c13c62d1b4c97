//! The messaging hub: the sessions, channels, fan-out and access rules that all protocols share.
//!
//! A protocol ([`protocol`]) parses a peer's bytes and calls the hub's verbs: subscribe,
//! unsubscribe, publish. The hub sees session ids and never a socket. [`fanout`] delivers each
//! published message to the subscribers in [`channels`], in the [`encoding`] of each subscriber.

mod access;
mod audience;
pub mod broker;
pub mod channels;
mod cluster;
mod counters;
mod encoding;
mod fanout;
mod feed;
pub mod glob;
mod guesses;
mod history;
mod invariants;
mod json;
mod labels;
mod leaving;
mod link_log;
mod messages;
mod patterns;
mod polls;
mod protocol;
mod publishing;
mod retained;
mod sections;
mod sessions;
mod shared_values;
mod shares;
mod sharing;
mod subscriptions;
mod texts;
mod verbs;
mod waiting;

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Tick;
use crate::connection::Reason;
use crate::demo::Demo;
use crate::limits::{ASKED_MAX, ASKERS_RESUMED, COMPILE_STEPS, Limits, RESUMED_PER_TURN};
use crate::retain_rule::RetainRule;
use crate::service::server::{Parting, Server};
use crate::service::{ConnectionId, Options, Output, Reply, Service, Taken};
use access::Access;
use channels::{Channels, Kind, Refused, TopicId, TopicLimits};
use counters::{Rate, SocketIoCounters};
use fanout::Fanout;
use feed::Feed;
use history::History;
use labels::Labels;
use leaving::Leaving;
use polls::PollClients;
use protocol::Protocols;
use retained::Retained;
use retained::catch_up::{CatchUpWorld, CatchUps};
use sessions::{AUTHENTICATED, OPERATOR, PeerProtocol, SessionId, Sessions};
use sharing::Sharing;
use texts::SharedTexts;
use waiting::Waiting;

/// The service that runs the hub.
pub struct Hub {
    protocols: Protocols,
    shared: Shared,
}

/// The state that all protocols share.
struct Shared {
    sessions: Sessions,
    labels: Labels,
    /// The User-Agents of clients of HTTP.
    agents: SharedTexts,
    channels: Channels,
    fanout: Fanout,
    /// The link to a broker; `None`: the hub is alone.
    sharing: Option<Box<Sharing>>,
    /// Clients that poll, with their output.
    polls: PollClients,
    /// The kept messages, and the sessions that catch up with them.
    retained: Retained,
    catch_ups: CatchUps,
    feed: Feed,
    access: Access,
    /// True if operators' commands are served only on the operator's listener.
    operators_by_door: bool,
    /// The application whose page is at `/`.
    demo: Option<Demo>,
    /// True if publishes must wait for an EXEC that has paused.
    is_held_up: bool,
    /// Sessions whose publish was deferred.
    publishers: Waiting,
    /// Sessions whose publish of a large message waits for earlier ones to the same topics.
    large_publishers: Waiting,
    /// Sessions whose search command was deferred.
    searchers: Waiting,
    /// Sessions whose subscriptions end over the next turns.
    leaving: Leaving,
    /// The time of the last turn.
    now: Tick,
    history: History,
    /// The session that the current publish leaves out.
    except: Option<SessionId>,
    /// Scratch list: the topics of the current publish. Reused, so a publish allocates nothing.
    topics: Vec<TopicId>,
    /// Steps of commands about the server in this turn.
    asked: usize,
    /// Scratch: the name of the channel of a WebSocket.
    channel_name: Vec<u8>,
    commands_processed: u64,
    command_rate: Rate,
    /// Unix time at which the clock read [`Time::ZERO`], from the first INFO on.
    started: Option<Duration>,
    datagrams_refused: u64,
    /// Messages from clients of WebSocket.
    websocket_messages: u64,
    socketio: SocketIoCounters,
    /// Requests of HTTP answered.
    http_requests: u64,
    /// Commands that MONITOR did not show because the backlog was too large.
    commands_not_shown: u64,
}

/// Returns the rules of the settings and those of the routes.
fn retain_rules(options: &Options) -> impl Iterator<Item = RetainRule> {
    options.retain.iter().chain(options.routes.retained()).cloned()
}

impl Hub {
    pub fn new(options: &Options) -> Hub {
        let shared = Shared {
            sessions: Sessions::new(options.max_connections),
            labels: Labels::default(),
            agents: SharedTexts::default(),
            channels: Channels::default(),
            fanout: Fanout::new(options.routes.clone()),
            sharing: None,
            polls: PollClients::default(),
            retained: Retained::new(retain_rules(options)),
            catch_ups: CatchUps::default(),
            feed: Feed::default(),
            access: Access::new(options),
            operators_by_door: options.operators_by_door,
            demo: options.demo,
            is_held_up: false,
            publishers: Waiting::default(),
            large_publishers: Waiting::default(),
            searchers: Waiting::default(),
            leaving: Leaving::default(),
            now: Tick(0),
            history: History::default(),
            except: None,
            topics: Vec::new(),
            asked: 0,
            channel_name: Vec::new(),
            commands_processed: 0,
            command_rate: Rate::default(),
            started: None,
            datagrams_refused: 0,
            websocket_messages: 0,
            socketio: SocketIoCounters::default(),
            http_requests: 0,
            commands_not_shown: 0,
        };
        let mut hub = Hub { protocols: Protocols::new(options.sid_key), shared };
        if let Some(settings) = &options.broker {
            hub.shared.join_broker(settings, options);
        }
        hub
    }
}

/// The hub's verbs.
impl Shared {
    /// Returns true if a session has given the password, or no password is set.
    fn is_authenticated(&self, session: SessionId) -> bool {
        self.sessions.get(session).is(AUTHENTICATED)
    }

    /// Returns true if a session may run operators' commands.
    fn is_operator(&self, session: SessionId) -> bool {
        !self.operators_by_door || self.sessions.get(session).is(OPERATOR)
    }

    /// Returns true if commands about the server have taken their share of this turn.
    fn has_asked_enough(&self) -> bool {
        self.asked >= ASKED_MAX || self.fanout.has_searched_enough()
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
        limits: &TopicLimits,
        out: &mut Vec<u8>,
    ) -> Result<bool, Refused> {
        self.deliver_now(session, out);
        self.feed.is_watched |= kind == Kind::Feed && name.is_empty();
        let Shared { channels, sessions, fanout, .. } = self;
        let compiled = channels.other_patterns();
        let is_new = channels.subscribe(sessions, session.index, kind, name, limits)?;
        fanout.note_searched(COMPILE_STEPS * (channels.other_patterns() - compiled));
        if is_new && let Some(topic) = channels.topic(kind, name) {
            fanout.mutes.forget(session.index, topic);
        }
        self.fanout.subscribed(session.index);
        Ok(is_new)
    }

    /// Appends a session's pending messages to its reply, before its subscriptions change.
    fn deliver_now(&mut self, session: SessionId, out: &mut Vec<u8>) {
        self.publish_feed();
        if self.fanout.has_output() && self.channels.listens(session.index) {
            let encoding = self.sessions.get(session).encoding;
            self.fanout.deliver_now(&mut self.channels, session.index, encoding, out);
        }
    }

    /// Ends a session, and its subscriptions.
    fn end(&mut self, session: SessionId) {
        self.labels.close(session.index);
        self.agents.give_back(self.sessions.get(session).agent);
        self.access.guesses.forget(session);
        match self.leave(session) {
            true => self.sessions.close(session),
            false => self.sessions.retire(session),
        }
    }

    /// Ends the subscriptions of a session that receives nothing more. Returns false if they are so
    /// many that they end over the next turns.
    fn leave(&mut self, session: SessionId) -> bool {
        self.leaving.end(&mut self.channels, &self.sessions, session)
    }

    /// Returns the memory that the hub holds for a session, in bytes.
    fn bytes_of(&self, session: SessionId) -> usize {
        Sessions::BYTES_EACH
            + self.labels.bytes_of(session.index)
            + self.channels.bytes_of(session.index)
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
        if let Some(wire) = self.shared.wire(reply.connection) {
            let io = &self.protocols.socketio;
            let find = |sid: &[u8]| io.find_socket(sid);
            return self.shared.hear(wire, input, reply.now, &find, server);
        }
        let session = reply
            .connection
            .map_or(SessionId::NONE, |connection| self.shared.sessions.of(connection));
        self.protocols.receive(&mut self.shared, session, input, scanned, reply, server)
    }

    fn dialled(&mut self, number: u32, outcome: Result<SocketAddr, String>, reply: &mut Reply<'_>) {
        self.shared.dialled(number, outcome, reply);
    }

    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, server: &mut dyn Server) {
        self.protocols.resp.datagram(&mut self.shared, datagram, reply, server);
    }

    /// Subscribers and monitors are exempt from the idle timeout, as from Redis's `timeout`. TCP
    /// keepalive detects the dead ones.
    fn listens(&self, connection: ConnectionId) -> bool {
        let session = self.shared.sessions.of(connection);
        let own = self.shared.sessions.get(session);
        // The answer to a poll is no message, so the connection is no more idle behind it.
        let polls = own.protocol == PeerProtocol::Http && own.protocol_state == protocol::POLLED;
        polls || self.shared.channels.listens(session.index)
    }

    fn full(&self, limit: &str, out: &mut Vec<u8>) {
        protocol::full(limit, out);
    }

    fn farewell(&self, connection: ConnectionId, reason: Reason, out: &mut Vec<u8>) {
        let session = self.shared.sessions.of(connection);
        self.protocols.farewell(&self.shared, session, reason, out);
    }

    /// A closing connection receives nothing more, so a publish later in this turn must not count
    /// it as a receiver.
    fn closing(&mut self, connection: ConnectionId) {
        let session = self.shared.sessions.of(connection);
        self.shared.note_closing(session);
        self.protocols.closing(&mut self.shared, session);
        self.shared.leave(session);
    }

    fn closed(&mut self, connection: ConnectionId, parting: &Parting) {
        let Hub { protocols, shared } = self;
        let session = shared.sessions.of(connection);
        if shared.lost_wire(connection, parting.now.tick()) || session == SessionId::NONE {
            return;
        }
        shared.remember_closed(session, parting);
        protocols.closed(shared, session);
        shared.end(session);
    }

    fn remembers_closed(&self) -> bool {
        true
    }

    fn has_output(&self) -> bool {
        let Shared { fanout, publishers, searchers, leaving, .. } = &self.shared;
        fanout.has_output()
            || self.shared.sharing.as_ref().is_some_and(|sharing| sharing.has_work())
            || self.shared.catch_ups.has_work()
            || self.shared.retained.has_work()
            || !leaving.is_empty()
            // The link wakes the loop when there is room again.
            || !publishers.is_empty() && !fanout.is_link_full
            || !searchers.is_empty()
            || self.protocols.has_output(&self.shared)
    }

    /// Publishes that wait for receivers, and newcomers that are slow, are looked at again in the
    /// next tick.
    fn wakes_at(&self) -> Option<Tick> {
        let Shared { access, fanout, polls, large_publishers, catch_ups, now, .. } = &self.shared;
        let waits = !large_publishers.is_empty() || !catch_ups.is_empty();
        let next = waits.then(|| now.plus(1));
        let others = [
            access.guesses.wakes_at(),
            fanout.wakes_at(),
            polls.wakes_at(),
            self.shared.sharing.as_ref().and_then(|sharing| sharing.wakes_at(*now)),
            self.protocols.socketio.wakes_at(),
        ];
        next.into_iter()
            .chain(others.into_iter().flatten())
            .min_by_key(|due| due.distance_from(*now))
    }

    fn wakes(&self, connection: ConnectionId, heard: Tick, limits: &Limits) -> Option<Tick> {
        let session = self.shared.sessions.of(connection);
        self.protocols.wakes(&self.shared, session, heard, limits)
    }

    fn wake(&mut self, reply: &mut Reply<'_>, server: &mut dyn Server) {
        let Some(connection) = reply.connection else { return };
        let session = self.shared.sessions.of(connection);
        self.protocols.wake(&mut self.shared, session, reply, server);
    }

    fn collect(&mut self, output: &mut Output<'_>) {
        self.shared.publish_feed();
        self.shared.now = output.now.tick();
        self.protocols.answer_polls(&mut self.shared, output);
        self.shared.collect_sharing(output);
        let Shared {
            sessions,
            channels,
            fanout,
            polls,
            access,
            publishers,
            large_publishers,
            searchers,
            leaving,
            retained,
            catch_ups,
            ..
        } = &mut self.shared;
        leaving.collect(channels, sessions);
        retained.memory_max = output.server.limits().retained_memory;
        retained.sweep();
        catch_ups.collect(CatchUpWorld { retained, channels, sessions, fanout, polls, output });
        fanout.collect_missed(sessions, output);
        fanout.collect(channels, sessions, polls, output);
        if fanout.collect_in_flight(output.now.tick()) || !fanout.has_in_flight() {
            large_publishers.collect(sessions, RESUMED_PER_TURN, output);
        }
        if !fanout.is_backlogged() && !self.protocols.resp.holds_publishers() {
            publishers.collect(sessions, RESUMED_PER_TURN, output);
        }
        searchers.collect(sessions, ASKERS_RESUMED, output);
        access.guesses.collect(output.now, |session| {
            sessions.get(session).connection().into_iter().for_each(|one| output.resume(one));
        });
        self.shared.asked = 0;
        self.protocols.collect(&mut self.shared, output);
    }

    fn bytes(&self) -> usize {
        let Shared { sessions, labels, channels, fanout, access, leaving, .. } = &self.shared;
        let Shared { publishers, large_publishers, searchers, .. } = &self.shared;
        let waiting =
            publishers.bytes() + large_publishers.bytes() + searchers.bytes() + leaving.bytes();
        sessions.bytes()
            + labels.bytes()
            + channels.bytes()
            + fanout.bytes()
            + self.shared.sharing.as_ref().map_or(0, |sharing| sharing.bytes())
            + waiting
            + access.guesses.bytes()
            + self.shared.retained.bytes()
            + self.shared.catch_ups.bytes()
            + self.shared.feed.bytes()
            + self.shared.polls.bytes()
            + self.shared.agents.bytes()
            + self.shared.channel_name.capacity()
            + self.protocols.bytes()
    }

    fn waiting_bytes(&self) -> usize {
        self.shared.polls.held()
    }

    fn fixed_bytes(&self) -> usize {
        let Shared { access, history, .. } = &self.shared;
        let timers = self.shared.polls.fixed_bytes();
        let Protocols { resp, socketio, .. } = &self.protocols;
        let protocols = resp.parser_bytes() + socketio.fixed_bytes();
        access.fixed_bytes() + history.bytes() + timers + protocols
    }

    fn shrink(&mut self) {
        self.shared.sharing.iter_mut().for_each(|sharing| sharing.shrink());
        let Shared { sessions, labels, channels, fanout, feed, access, .. } = &mut self.shared;
        feed.shrink();
        sessions.shrink();
        access.guesses.shrink();
        labels.shrink();
        channels.shrink();
        fanout.shrink();
        let Shared { publishers, large_publishers, searchers, .. } = &mut self.shared;
        publishers.shrink();
        large_publishers.shrink();
        searchers.shrink();
        self.shared.leaving.shrink();
        self.shared.polls.shrink();
        self.protocols.shrink();
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
    use super::history::Closed;
    use super::*;
    use crate::clock::Time;
    use crate::limits::CLOSED_KEPT;
    use crate::net::Transferred;
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
        let limits = TopicLimits::of(&Limits::default());
        hub.shared.subscribe(session, kind, name, &limits, &mut Vec::new()).unwrap();
    }

    /// Sends a command on a connection. Returns the reply and how the hub took the command.
    pub fn exchange(hub: &mut Hub, connection: u32, command: &[u8]) -> (Vec<u8>, Taken) {
        let (mut answer, mut used) = (Vec::new(), 0);
        let mut reply = Reply::to(ConnectionId(connection), Time::ZERO, &mut answer);
        loop {
            let mut input = command[used..].to_vec();
            match hub.receive(&mut input, 0, &mut reply, &mut NoServer::default()) {
                Taken::Part(length) => used += length,
                Taken::Message(length) => return (answer, Taken::Message(used + length)),
                taken => return (answer, taken),
            }
        }
    }

    /// Runs one turn with a budget of writes and bytes. Returns each delivery, in order.
    pub fn turn(hub: &mut Hub, writes: usize, bytes: usize) -> Vec<(u32, Vec<u8>)> {
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, writes, bytes));
        hub.check_invariants();
        let (mut delivered, mut is_behind_payload) = (Vec::new(), false);
        for entry in outbox.entries() {
            let payload = outbox.payload(entry.payload).map_or(&[][..], |payload| payload.bytes());
            let bytes = [outbox.bytes(&entry.range), payload].concat();
            match delivered.last_mut() {
                Some((slot, before)) if is_behind_payload && *slot == entry.slot => {
                    Vec::extend(before, bytes)
                }
                _ => delivered.push((entry.slot, bytes)),
            }
            is_behind_payload = !payload.is_empty();
        }
        delivered
    }

    #[test]
    fn the_history_of_closed_sessions_counts_as_fixed_memory() {
        let mut hub = hub(CLOSED_KEPT as u32 + 10);
        let before = hub.fixed_bytes();
        (0..CLOSED_KEPT as u32 + 10).for_each(|connection| disconnect(&mut hub, connection));
        assert_eq!(hub.shared.history.closed.len(), CLOSED_KEPT);
        let history = hub.fixed_bytes() - before;
        assert_eq!(history, hub.shared.history.closed.capacity() * size_of::<Closed>());
        assert!((CLOSED_KEPT..=2 * CLOSED_KEPT).contains(&hub.shared.history.closed.capacity()));
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
        let walks = hub.protocols.bytes();
        assert_eq!(hub.bytes(), sessions + parts.iter().sum::<usize>() + waiting + walks);
    }
}
