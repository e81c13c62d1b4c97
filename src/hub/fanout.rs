//! Fan-out: a message is stored once, encoded once per turn, and each receiver gets all its pending
//! messages in one write.
//!
//! Nothing is queued per receiver. Each topic with undelivered messages has a *queue* of posts and
//! a walk over its subscribers. Each receiver visited has a *watermark*, the number of its last
//! post. Its pending messages are the posts of all its topics above its watermark. Three things
//! follow:
//! - A receiver gets the messages of all its topics together, in the order of the publishes.
//! - A publish costs time for its topics, and none for its receivers.
//! - A message published during a walk reaches the receivers not visited yet in the same write.
//!
//! Two rules keep this correct. A new subscriber's watermark is the latest post. Before a session
//! changes its subscriptions, it gets its pending messages ([`Fanout::deliver_now`]).

mod batch;
mod in_flight;
mod invariants;
mod missed;
mod mutes;
mod posts;
mod rendered;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use super::channels::{Channels, TopicId};
use super::encoding::{By, Encoding};
use super::messages::Messages;
use super::polls::PollClients;
use super::sessions::{DROPS, Destination, Sessions};
use crate::clock::Tick;
use crate::limits::{
    BACKLOG_MAX, BACKLOG_POSTS_MAX, MONITOR_BACKLOG_MAX, SEARCHED_MAX, SPARE_MESSAGES_MAX,
    SPARE_QUEUES_MAX, VISITS_PER_QUEUE, VISITS_PER_TURN,
};
use crate::routes::EventRoutes;
use crate::service::Output;
use batch::Batch;
use in_flight::InFlight;
use missed::Missed;
use mutes::Mutes;
use posts::{Post, Queue};
use rendered::Rendered;

/// The undelivered messages of all topics, and the state of their delivery.
#[derive(Default)]
pub struct Fanout {
    messages: Messages,
    queues: Vec<Queue>,
    /// Queues in use, in the order of their next walk.
    order: VecDeque<u32>,
    /// Queues not in use.
    spare: VecDeque<u32>,
    /// Number of queues at the end of `spare` that have kept their memory.
    warm: usize,
    /// Number of undelivered posts.
    posts: usize,
    /// Memory of the queues' lists of posts, in bytes.
    post_bytes: usize,
    /// The number of the latest post. Numbering starts at 1 whenever the backlog is empty.
    latest: u32,
    /// Session → watermark: the number of the session's last post. 0: none of the present posts.
    had: Vec<u32>,
    /// Sessions with a watermark above 0.
    met: Vec<u32>,
    /// The number of the turn. An encoded message is valid for one turn.
    turn: u32,
    batch: Batch,
    in_flight: InFlight,
    rendered: Rendered,
    missed: Missed,
    /// The events that messages become for clients of Socket.IO.
    routes: Rc<EventRoutes>,
    /// The sessions that catch up with kept messages.
    pub mutes: Mutes,
    /// Sessions that an undelivered post leaves out.
    excepted: HashSet<u32>,
    /// True if slow sockets miss an undelivered event.
    has_volatile: bool,
    /// Search steps of commands in this turn.
    searched: usize,
    /// Search steps of deliveries in this turn.
    looked_through: usize,
    /// True while much waits to be sent to the broker.
    pub is_link_full: bool,
    /// Messages published.
    pub published: u64,
    /// Messages delivered, counted per receiver.
    pub delivered: u64,
}

impl Fanout {
    pub fn new(routes: Rc<EventRoutes>) -> Fanout {
        Fanout { routes, ..Fanout::default() }
    }

    /// Returns the events that messages become for clients of Socket.IO.
    pub fn routes(&self) -> &Rc<EventRoutes> {
        &self.routes
    }

    /// Returns true if messages are undelivered.
    pub fn has_output(&self) -> bool {
        !self.order.is_empty()
    }

    /// Returns the bytes of the messages that are not delivered yet.
    pub fn backlog(&self) -> usize {
        self.messages.held()
    }

    /// Returns true if a publish must wait: the backlog is full, much waits to be sent to the
    /// broker, or this turn's search budget is used up.
    pub fn is_backlogged(&self) -> bool {
        self.is_link_full || self.has_backlog()
    }

    /// Returns true if messages must wait that do not go to the broker.
    pub fn has_backlog(&self) -> bool {
        self.messages.held() >= BACKLOG_MAX
            || self.posts.max(self.messages.len()) >= BACKLOG_POSTS_MAX
            || self.latest > u32::MAX / 2
            || self.has_searched_enough()
    }

    /// Returns true if the backlog is too large for MONITOR to add to it.
    pub fn is_overfull(&self) -> bool {
        self.holds(MONITOR_BACKLOG_MAX)
    }

    /// Returns true if so many bytes of messages are undelivered, or very many messages. The posts
    /// of a message beyond its first one count, because an event of a cluster has many.
    pub fn holds(&self, bytes: usize) -> bool {
        let further = self.posts.saturating_sub(self.messages.len()) * size_of::<Post>();
        self.messages.held() + further >= bytes || self.messages.len() >= 4 * BACKLOG_POSTS_MAX
    }

    /// Returns true if this turn's search budget is used up.
    pub fn has_searched_enough(&self) -> bool {
        self.searched >= SEARCHED_MAX
    }

    /// Adds the search steps of a command to this turn's count.
    pub fn note_searched(&mut self, steps: usize) {
        self.searched += steps;
    }

    /// Returns true if a large message to these topics must wait for earlier ones.
    pub fn is_full(&self, topics: &[TopicId]) -> bool {
        self.in_flight.is_full(topics)
    }

    /// Returns true if receivers have yet to take large messages.
    pub fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Forgets the large messages that have arrived or stall. Returns true if there were any.
    pub fn collect_in_flight(&mut self, now: Tick) -> bool {
        self.in_flight.collect(now)
    }

    /// Notes a new subscription: the session gets no messages published before it. The caller has
    /// delivered the session's pending messages.
    pub fn subscribed(&mut self, session: u32) {
        if self.has_output() {
            self.has_had_all(session);
        }
    }

    /// Appends a session's pending messages to its reply at once. So messages published before an
    /// unsubscribe arrive before its confirmation, and none arrives after it.
    pub fn deliver_now(
        &mut self,
        channels: &mut Channels,
        session: u32,
        encoding: Encoding,
        out: &mut Vec<u8>,
    ) {
        self.forget_orphans(channels);
        // A command with many names calls this for each of them.
        if self.had(session) == self.latest {
            return;
        }
        self.searched += self.find_queues(channels, session);
        self.find_posts(session, encoding.namespace(), channels);
        for (_, queue, place) in &self.batch.posts {
            let Queue { topic, posts, .. } = &self.queues[*queue as usize];
            let message = posts[*place as usize].message;
            let by = By::topic(channels, *topic, self.messages.kind(message));
            let (channel, payload) = self.messages.get_for(message, channels, *topic);
            encoding.encode(out, by, channel, payload, &self.routes);
        }
        self.delivered += self.batch.posts.len() as u64;
        self.has_had_all(session);
    }

    /// Delivers as much as the turn's budget allows. Topics take turns, so a small topic does not
    /// wait for all subscribers of a large one.
    pub fn collect(
        &mut self,
        channels: &mut Channels,
        sessions: &Sessions,
        polls: &mut PollClients,
        output: &mut Output<'_>,
    ) {
        self.forget_orphans(channels);
        (self.searched, self.looked_through) = (0, 0);
        self.turn = self.turn.wrapping_add(1);
        self.walk_all(channels, sessions, polls, output);
        (self.batch.encoding, self.batch.large) = (None, None);
    }

    fn walk_all(
        &mut self,
        channels: &mut Channels,
        sessions: &Sessions,
        polls: &mut PollClients,
        output: &mut Output<'_>,
    ) {
        let mut visits = VISITS_PER_TURN;
        while let Some(queue) = self.order.front().copied() {
            let share = visits.min(VISITS_PER_QUEUE);
            let visited = self.walk(queue, share, channels, sessions, polls, output);
            let Some(visited) = visited else { return };
            visits -= visited;
            if visits == 0 {
                return;
            }
            match self.queues[queue as usize].unvisited {
                0 => self.end_walk(channels),
                _ => self.order.rotate_left(1),
            }
        }
    }

    /// Continues the walk of a topic for at most `visits` visits. Returns the number made, or
    /// `None` if delivery must go on in the next turn.
    fn walk(
        &mut self,
        queue: u32,
        visits: usize,
        channels: &Channels,
        sessions: &Sessions,
        polls: &mut PollClients,
        output: &mut Output<'_>,
    ) -> Option<usize> {
        let own = &mut self.queues[queue as usize];
        let (topic, last) = (own.topic, own.posts.last().map_or(0, |post| post.number));
        let subscribers = channels.subscribers(topic).len();
        if own.until == 0 {
            (own.until, own.unvisited) = (last, subscribers);
        }
        // Subscribers may have left since the last turn.
        let mut unvisited = own.unvisited.min(subscribers);
        let mut visited = 0;
        while unvisited > 0 && visited < visits {
            let session = channels.subscriber(topic, unvisited - 1);
            let is_served = session.is_none_or(|session| {
                self.had(session) >= last || self.serve(session, channels, sessions, polls, output)
            });
            if !is_served {
                self.queues[queue as usize].unvisited = unvisited;
                return None;
            }
            unvisited -= 1;
            visited += 1;
        }
        self.queues[queue as usize].unvisited = unvisited;
        Some(visited)
    }

    /// Sends a session its pending messages, at most one batch and the large messages around it.
    /// Returns false if the turn has no room for them, or if more remain for the next turn.
    fn serve(
        &mut self,
        session: u32,
        channels: &Channels,
        sessions: &Sessions,
        polls: &mut PollClients,
        output: &mut Output<'_>,
    ) -> bool {
        if !output.has_room(0) || self.looked_through >= SEARCHED_MAX {
            return false;
        }
        // A session without a connection loses its messages.
        let Some((destination, encoding)) = sessions.destination(session) else {
            self.has_had_all(session);
            return true;
        };
        let id = sessions.at(session);
        if let Destination::Connection(connection) = destination
            && sessions.get(id).is(DROPS)
            && self.misses(id, connection, channels, output)
        {
            return true;
        }
        let is_slow = (self.has_volatile || self.routes.has_volatile())
            && encoding.namespace().is_some()
            && match destination {
                Destination::Connection(connection) => output.server.unsent(connection) > 0,
                Destination::Poll(client) => !polls.is_waiting(client),
            };
        loop {
            self.make_batch(session, encoding, is_slow, channels, output);
            let range = &self.batch.range;
            let delivered = match (destination, &self.batch.large) {
                (Destination::Connection(connection), None) => output.deliver(connection, range),
                (Destination::Connection(connection), Some((payload, end))) => {
                    output.deliver_shared(connection, range, payload, end)
                }
                (Destination::Poll(client), large) => {
                    // The payload is the whole message, as polls change each.
                    let large = large.as_ref().map_or(&[][..], |(payload, _)| payload.bytes());
                    output.take(range, large.len()).is_some_and(|bytes| {
                        polls.append(client, |out| {
                            out.extend_from_slice(bytes);
                            out.extend_from_slice(large);
                        });
                        true
                    })
                }
            };
            if !delivered {
                return false;
            }
            self.delivered += self.batch.count as u64;
            self.has_had(session, self.batch.last);
            // A large message is a batch of its own, and costs little to hand over.
            if !self.batch.goes_on {
                return self.batch.last == self.latest;
            }
        }
    }

    /// Returns the watermark of a session: the number of its last post, or 0.
    fn had(&self, session: u32) -> u32 {
        self.had.get(session as usize).copied().unwrap_or(0)
    }

    /// Moves a session's watermark to the latest post: nothing is pending for it.
    fn has_had_all(&mut self, session: u32) {
        if self.latest > 0 {
            self.has_had(session, self.latest);
        }
    }

    /// Moves a session's watermark.
    fn has_had(&mut self, session: u32, last: u32) {
        let index = session as usize;
        if index >= self.had.len() {
            self.had.resize(index + 1, 0);
        }
        if self.had[index] == 0 {
            self.met.push(session);
        }
        self.had[index] = last;
    }

    /// Ends the walk of the first topic, whose subscribers have all been visited. Posts added since
    /// the walk began stay for the next walk.
    fn end_walk(&mut self, channels: &mut Channels) {
        let Some(queue) = self.order.pop_front() else { return };
        let own = &mut self.queues[queue as usize];
        let done = own.posts.partition_point(|post| post.number <= own.until);
        own.posts.drain(..done).for_each(|post| self.messages.release(post.message));
        self.posts -= done;
        self.rendered.forget(queue, own.until);
        own.until = 0;
        if own.posts.is_empty() {
            channels.set_queue(own.topic, None);
            self.retire(queue);
        } else {
            self.order.push_back(queue);
        }
        self.start_anew_if_empty();
    }

    /// Drops the queues of topics that have lost their last subscriber.
    fn forget_orphans(&mut self, channels: &mut Channels) {
        let mut any = false;
        while let Some(queue) = channels.take_orphan() {
            let own = &mut self.queues[queue as usize];
            self.posts -= own.posts.len();
            own.posts.drain(..).for_each(|post| self.messages.release(post.message));
            self.rendered.forget(queue, u32::MAX);
            self.retire(queue);
            any = true;
        }
        if any {
            self.order.retain(|queue| !self.queues[*queue as usize].posts.is_empty());
            self.start_anew_if_empty();
        }
    }

    /// Returns an empty queue to the spare ones.
    fn retire(&mut self, queue: u32) {
        let posts = &mut self.queues[queue as usize].posts;
        let bytes = posts.capacity() * size_of::<Post>();
        // Warm queues keep their memory, so a publish allocates nothing. A queue that a rare burst
        // has made large gives its memory back.
        if self.warm >= SPARE_QUEUES_MAX || bytes > SPARE_MESSAGES_MAX {
            *posts = Vec::new();
            self.post_bytes -= bytes;
            self.spare.push_front(queue);
        } else {
            self.warm += 1;
            self.spare.push_back(queue);
        }
    }

    /// Resets all watermarks and the numbering once the backlog is empty.
    fn start_anew_if_empty(&mut self) {
        if self.order.is_empty() {
            self.latest = 0;
            self.excepted.clear();
            self.has_volatile = false;
            self.met.drain(..).for_each(|session| self.had[session as usize] = 0);
        }
    }

    /// Returns the memory held, in bytes: of the backlog and of the warm queues.
    pub fn bytes(&self) -> usize {
        let words = self.order.capacity()
            + self.spare.capacity()
            + self.had.capacity()
            + self.met.capacity();
        let queues = self.queues.capacity() * size_of::<Queue>();
        let Batch { queues: own, found, posts, parts, .. } = &self.batch;
        let batch = (own.capacity() + found.capacity()) * size_of::<u32>()
            + posts.capacity() * size_of::<(u32, u32, u32)>()
            + parts.capacity() * size_of::<Range<u32>>();
        let own =
            self.post_bytes + self.in_flight.bytes() + self.rendered.bytes() + self.missed_bytes();
        let own = own + self.mutes.bytes() + self.excepted.capacity() * size_of::<u64>();
        self.messages.bytes() + own + queues + batch + words * size_of::<u32>()
    }

    /// Returns unused memory to the allocator.
    pub fn shrink(&mut self) {
        self.messages.shrink();
        self.in_flight.shrink();
        self.rendered.shrink();
        self.missed.shrink();
        self.mutes.shrink();
        self.excepted.shrink_to_fit();
        if self.order.is_empty() {
            (self.queues, self.spare, self.order) = Default::default();
            (self.had, self.met, self.batch) = Default::default();
            (self.post_bytes, self.warm) = (0, 0);
        }
    }

    /// Panics unless the running counts are right. O(n).
    pub fn check_invariants(&self) {
        let waiting = || self.order.iter().map(|queue| &self.queues[*queue as usize]);
        assert_eq!(
            self.posts,
            waiting().map(|queue| queue.posts.len()).sum::<usize>(),
            "post count"
        );
        assert!(waiting().all(
            |queue| !queue.posts.is_empty() && queue.posts.is_sorted_by_key(|post| post.number)
        ));
        self.in_flight.check_invariants();
        assert_eq!(self.messages.is_empty(), self.order.is_empty(), "messages");
        assert_eq!(self.order.len() + self.spare.len(), self.queues.len(), "queues");
        let met = self.had.iter().filter(|had| **had > 0).count();
        assert!(met == self.met.len() && (self.latest > 0 || met == 0), "sessions met");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::codec::resp::{self, Protocol};
    use crate::hub::channels::{Kind, TopicLimits};
    use crate::hub::tests::{connect, disconnect, exchange, hub, session, subscribe, turn};
    use crate::hub::{Hub, Shared};
    use crate::limits::{
        BATCH_MAX, COMPILE_STEPS, IN_FLIGHT_MAX, LARGE_PAYLOAD, Limits, MATCH_STEP, SLICE_NAMES,
        SLICE_STEPS,
    };
    use crate::outbox::Outbox;
    use crate::service::server::NoServer;
    use crate::service::{Service, Taken};

    fn message(head: &[&[u8]], channel: &[u8], payload: &[u8], encoding: Encoding) -> Vec<u8> {
        let protocol = if encoding == Encoding::Resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let words: Vec<&[u8]> = head.iter().chain(&[channel, payload]).copied().collect();
        let mut out = Vec::new();
        resp::pushed(&mut out, protocol, &words);
        out
    }

    #[test]
    fn a_large_message_that_matches_many_patterns_is_stored_once() {
        let mut hub = hub(32);
        for number in 0..512u32 {
            let pattern = format!("{:*<1$}", "", 1 + number as usize % 250);
            let pattern = format!("{pattern}{}", ["", "s", "ws"][number as usize / 250]);
            subscribe(&mut hub, number / 16, Kind::Pattern, pattern.as_bytes());
        }
        let payload = vec![b'x'; 1_000_000];
        assert_eq!(hub.shared.publish(b"news", &payload).ok(), Some(512));
        assert!(hub.shared.fanout.is_backlogged(), "the backlog is full");
        let held = hub.shared.fanout.bytes();
        assert!(held < 5 << 19, "{held} bytes are held");
        let mut delivered = 0;
        while hub.has_output() {
            let turn = turn(&mut hub, 1024, 4 << 20);
            assert!(
                turn.iter().all(|(_, bytes)| bytes.starts_with(b"*4\r\n$8\r\npmessage")
                    && bytes.len() < 1_001_000)
            );
            delivered += turn.len();
        }
        assert_eq!((delivered, hub.shared.fanout.delivered), (512, 512));
        turn(&mut hub, 1, 1);
        assert!(hub.shared.fanout.bytes() < 64 << 10, "the memory of the large message is freed");
    }

    /// The model is the obvious way: each publish encodes the message for each subscriber.
    #[test]
    fn each_receiver_gets_its_messages_in_order_in_turns_of_any_size() {
        for seed in 0..64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hub = hub(6);
            for connection in [1, 3] {
                let session = session(&hub, connection);
                hub.shared.sessions.get_mut(session).unwrap().encoding = Encoding::Resp3;
            }
            let (mut expected, mut got) = (vec![Vec::new(); 6], vec![Vec::new(); 6]);
            for _ in 0..400 {
                let connection = random.u32(..6);
                let own = &mut got[connection as usize];
                let session = session(&hub, connection);
                let (kind, name) = [
                    (Kind::Channel, &b"a"[..]),
                    (Kind::Channel, b"ab"),
                    (Kind::Pattern, b"a*"),
                    (Kind::Pattern, b"*b"),
                    (Kind::Shard, b"a"),
                ][random.usize(..5)];
                match random.u32(..10) {
                    0 => drop(hub.shared.subscribe(
                        session,
                        kind,
                        name,
                        &TopicLimits::of(&Limits::default()),
                        own,
                    )),
                    1 => {
                        hub.shared.deliver_now(session, own);
                        let Shared { channels, sessions, .. } = &mut hub.shared;
                        channels.unsubscribe(sessions, session.index, kind, name);
                        assert_eq!(*own, expected[connection as usize], "seed {seed}");
                    }
                    2..7 => publish(&mut hub, &mut random, &mut expected),
                    7 if random.u8(..8) == 0 => {
                        // The slot gets a new owner, and the pending messages are lost.
                        disconnect(&mut hub, connection);
                        connect(&mut hub, connection);
                        expected[connection as usize] = got[connection as usize].clone();
                    }
                    _ => {
                        let (count, bytes) = (random.usize(1..6), random.usize(..2000));
                        let turn = turn(&mut hub, count, bytes);
                        turn.into_iter()
                            .for_each(|(connection, bytes)| got[connection as usize].extend(bytes));
                    }
                }
                hub.check_invariants();
            }
            while hub.has_output() {
                let turn = turn(&mut hub, 3, 50);
                turn.into_iter()
                    .for_each(|(connection, bytes)| got[connection as usize].extend(bytes));
            }
            assert_eq!(got, expected, "seed {seed}");
        }
    }

    /// Publishes a random message to a random channel, and adds it to the receivers' expected
    /// bytes.
    fn publish(hub: &mut Hub, random: &mut fastrand::Rng, expected: &mut [Vec<u8>]) {
        let channel = [&b"a"[..], b"ab", b"c"][random.usize(..3)];
        let payload = vec![random.lowercase() as u8; random.usize(..600)];
        let shard = random.u32(..4) == 0;
        let mut receivers = 0;
        let channels = &hub.shared.channels;
        let exact = if shard { Kind::Shard } else { Kind::Channel };
        let mut topics = Vec::from_iter(channels.topic(exact, channel));
        if !shard {
            channels.match_patterns(channel, &mut topics, usize::MAX).unwrap();
        }
        for topic in topics {
            for session in channels.subscribers(topic) {
                let head: &[&[u8]] = match topic.kind() {
                    Kind::Channel => &[b"message"],
                    Kind::Shard => &[b"smessage"],
                    Kind::Pattern => &[b"pmessage", channels.name(topic)],
                    Kind::Feed => unreachable!("there is no monitor"),
                };
                let (destination, encoding) = hub.shared.sessions.destination(session).unwrap();
                let Destination::Connection(connection) = destination else {
                    panic!("nobody polls")
                };
                expected[connection.0 as usize].extend(message(head, channel, &payload, encoding));
                receivers += 1;
            }
        }
        let told = match shard {
            true => hub.shared.publish_shard(channel, &payload),
            false => hub.shared.publish(channel, &payload).ok().unwrap(),
        };
        assert_eq!(told, receivers);
    }

    #[test]
    fn pending_messages_of_all_channels_leave_in_one_write() {
        let mut hub = hub(3);
        for (connection, names) in [(0, &["a", "b", "c"][..]), (1, &["a", "b"]), (2, &["a", "c"])] {
            names
                .iter()
                .for_each(|name| subscribe(&mut hub, connection, Kind::Channel, name.as_bytes()));
        }
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        for (channel, receivers) in
            [(b"a", &[0, 1, 2][..]), (b"b", &[0, 1]), (b"c", &[0, 2]), (b"a", &[0, 1, 2])]
        {
            assert_eq!(hub.shared.publish(channel, b"x").ok(), Some(receivers.len()));
            let message = message(&[b"message"], channel, b"x", Encoding::Resp2);
            receivers.iter().for_each(|receiver| expected[*receiver].extend(&message));
        }
        let mut got = turn(&mut hub, 3, 1 << 20);
        got.sort();
        assert_eq!(
            got,
            expected
                .into_iter()
                .enumerate()
                .map(|(at, bytes)| (at as u32, bytes))
                .collect::<Vec<_>>()
        );
        assert!(!hub.has_output());
    }

    #[test]
    fn a_message_published_during_a_walk_reaches_unvisited_receivers_in_the_same_write() {
        let mut hub = hub(4);
        (0..4).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"a"));
        let one = |payload| message(&[b"message"], b"a", payload, Encoding::Resp2);
        hub.shared.publish(b"a", b"1").ok();
        assert_eq!(turn(&mut hub, 2, 1000), [(3, one(b"1")), (2, one(b"1"))]);
        hub.shared.publish(b"a", b"2").ok();
        let both = [one(b"1"), one(b"2")].concat();
        assert_eq!(turn(&mut hub, 2, 1000), [(1, both.clone()), (0, both)]);
        assert_eq!(turn(&mut hub, 9, 1000), [(3, one(b"2")), (2, one(b"2"))]);
        assert!(!hub.has_output());
    }

    #[test]
    fn a_small_topic_does_not_wait_for_all_subscribers_of_a_large_one() {
        let mut hub = hub(1001);
        (0..1000).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"many"));
        subscribe(&mut hub, 1000, Kind::Channel, b"few");
        hub.shared.publish(b"many", b"x").ok();
        hub.shared.publish(b"few", b"x").ok();
        let served = turn(&mut hub, VISITS_PER_QUEUE + 1, 1 << 20);
        assert_eq!(served.last().map(|(connection, _)| *connection), Some(1000));
    }

    #[test]
    fn a_delivery_larger_than_the_turns_budget_goes_alone_and_none_is_lost() {
        for (budget, each_turn) in [(0, 1), (2992, 1), (2993, 1), (2994, 1), (5985, 1), (5986, 2)] {
            let mut hub = hub(5);
            (0..5).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"a"));
            assert_eq!(hub.shared.publish(b"a", &[b'x'; 3000 - 40]).ok(), Some(5));
            let mut got = Vec::new();
            while hub.has_output() {
                let turn = turn(&mut hub, 1024, budget);
                if !turn.is_empty() {
                    assert_eq!(turn[0].1.len(), 2993);
                    assert!(turn.len() <= each_turn, "{budget}: {}", turn.len());
                }
                got.extend(turn.into_iter().map(|(connection, _)| connection));
            }
            assert_eq!(got, [4, 3, 2, 1, 0]);
        }
    }

    #[test]
    fn a_dear_publish_is_refused_before_it_is_matched_and_a_cheap_one_is_served() {
        let mut hub = hub(4);
        for number in 0..32u8 {
            let pattern = format!("*{}{}b*", "a".repeat(250), number as char);
            subscribe(&mut hub, 0, Kind::Pattern, pattern.as_bytes());
        }
        subscribe(&mut hub, 2, Kind::Pattern, b"*");
        assert!(
            hub.shared.publish(&[b'a'; 4096], b"x").is_err() && !hub.shared.fanout.has_output()
        );
        assert_eq!(hub.shared.fanout.searched, 32 * COMPILE_STEPS, "a refusal costs no search");
        let dear = [&b"PUBLISH "[..], &[b'a'; 4096], b" x\r\n"].concat();
        assert_eq!(
            String::from_utf8_lossy(&exchange(&mut hub, 3, &dear).0),
            "-ERR matching a channel name of 4096 bytes with the patterns would take too long; \
             the limit is 262144 steps: use a shorter name\r\n"
        );
        assert_eq!(hub.shared.publish(&[b'a'; 60], b"x").ok(), Some(1));
    }

    #[test]
    fn publishes_wait_when_those_of_the_turn_have_matched_enough() {
        let mut hub = hub(4);
        subscribe(&mut hub, 0, Kind::Pattern, b"*a?*");
        turn(&mut hub, 1, 1);
        let name = [b'b'; 4096];
        let mut publishes = 0;
        while !hub.shared.fanout.has_searched_enough() {
            assert_eq!(hub.shared.publish(&name, b"x").ok(), Some(0));
            publishes += 1;
        }
        assert_eq!(publishes, SEARCHED_MAX / MATCH_STEP / name.len());
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH a x\r\n"), (vec![], Taken::Later));
        assert_eq!(exchange(&mut hub, 0, b"PING\r\n").1, Taken::Message(6), "only publishes wait");
        turn(&mut hub, 1, 1);
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH a x\r\n").1, Taken::Message(13));
    }

    /// A backlog may outlast a connection. The next connection may then get the same number.
    #[test]
    fn a_new_session_does_not_get_the_pending_messages_of_the_slots_previous_owner() {
        for command in [&b"UNSUBSCRIBE x\r\n"[..], b"RESET\r\n", b"QUIT\r\n"] {
            let mut hub = hub(3);
            (1..3)
                .for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"private"));
            assert_eq!(hub.shared.publish(b"private", b"secret").ok(), Some(2));
            disconnect(&mut hub, 1);
            connect(&mut hub, 1);
            subscribe(&mut hub, 1, Kind::Channel, b"public");
            subscribe(&mut hub, 1, Kind::Channel, b"private");
            assert_eq!(hub.shared.publish(b"public", b"news").ok(), Some(1));
            let (answer, _) = exchange(&mut hub, 1, command);
            assert!(answer.starts_with(&message(
                &[b"message"],
                b"public",
                b"news",
                Encoding::Resp2
            )));
            let shown = answer.escape_ascii().to_string();
            assert!(!shown.contains("secret"), "{shown}");
            assert_eq!(
                turn(&mut hub, 10, 1000).len(),
                1,
                "only the other subscriber gets a delivery"
            );
        }
    }

    #[test]
    fn a_publish_waits_at_a_full_backlog_and_not_one_byte_below_it() {
        for (payload, waits) in
            [(BACKLOG_MAX - 2, false), (BACKLOG_MAX - 1, true), (BACKLOG_MAX, true)]
        {
            let mut hub = hub(2);
            subscribe(&mut hub, 0, Kind::Channel, b"a");
            hub.shared.publish(b"a", &vec![b'x'; payload]).ok();
            assert_eq!(hub.shared.fanout.is_backlogged(), waits, "{payload}");
            let taken = exchange(&mut hub, 1, b"PUBLISH a x\r\n").1;
            assert_eq!(taken, if waits { Taken::Later } else { Taken::Message(13) });
        }
        let mut hub = hub(1);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        for count in 1..=BACKLOG_POSTS_MAX {
            assert!(!hub.shared.fanout.is_backlogged(), "{count}");
            hub.shared.publish(b"a", b"").ok();
        }
        assert!(hub.shared.fanout.is_backlogged());
    }

    #[test]
    fn a_receiver_of_overlapping_patterns_gets_one_batch_per_turn() {
        let mut hub = hub(1);
        ["a*", "*a", "*", "?"]
            .iter()
            .for_each(|name| subscribe(&mut hub, 0, Kind::Pattern, name.as_bytes()));
        for payload in [60_000; 15].into_iter().chain([10]) {
            hub.shared.publish(b"a", &vec![b'x'; payload]).ok();
        }
        let (mut got, mut turns) = (Vec::new(), 0);
        while hub.has_output() {
            for (_, bytes) in turn(&mut hub, 10, 16 << 20) {
                assert!(bytes.len() < BATCH_MAX + 1000);
                got.extend(bytes);
            }
            turns += 1;
        }
        assert_eq!(got.windows(8).filter(|word| word == b"pmessage").count(), 64);
        assert_eq!(turns, 60_usize.div_ceil(BATCH_MAX / 60_001), "eight messages fit a batch");
    }

    #[test]
    fn subscribing_again_to_all_channels_searches_once_and_not_per_channel() {
        let mut hub = hub(2);
        let names: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        names.iter().for_each(|name| subscribe(&mut hub, 0, Kind::Channel, name.as_bytes()));
        names.iter().for_each(|name| drop(hub.shared.publish(name.as_bytes(), b"x")));
        let (answer, _) =
            exchange(&mut hub, 0, format!("SUBSCRIBE {}\r\n", names.join(" ")).as_bytes());
        assert!(answer.starts_with(b"*3\r\n$7\r\nmessage") && answer.ends_with(b":1000\r\n"));
        let slices = names.len().div_ceil(SLICE_NAMES) * SLICE_STEPS;
        let searched = hub.shared.fanout.searched - slices;
        assert!(searched < 5000, "{searched} steps");
    }

    #[test]
    fn after_a_burst_a_publish_allocates_nothing() {
        let mut hub = hub(1);
        (0..40)
            .for_each(|name| subscribe(&mut hub, 0, Kind::Channel, format!("{name}").as_bytes()));
        (0..40).for_each(|name| drop(hub.shared.publish(format!("{name}").as_bytes(), b"x")));
        turn(&mut hub, 10, 1 << 20);
        for _ in 0..2 {
            hub.shared.publish(b"1", b"x").ok();
            let fanout = &hub.shared.fanout;
            assert!(
                fanout.warm < SPARE_QUEUES_MAX
                    && fanout.queues[fanout.order[0] as usize].posts.capacity() > 1
            );
            turn(&mut hub, 10, 1 << 20);
            assert_eq!(hub.shared.fanout.warm, SPARE_QUEUES_MAX);
        }
    }

    #[test]
    fn monitor_shows_a_command_one_byte_below_its_backlog_and_not_at_it() {
        for (payload, shown) in [(MONITOR_BACKLOG_MAX - 2, true), (MONITOR_BACKLOG_MAX - 1, false)]
        {
            let mut hub = hub(3);
            subscribe(&mut hub, 0, Kind::Channel, b"a");
            subscribe(&mut hub, 1, Kind::Feed, b"");
            hub.shared.publish(b"a", &vec![b'x'; payload]).ok();
            exchange(&mut hub, 2, b"PING\r\n");
            let lines =
                turn(&mut hub, 10, 4 << 20).into_iter().filter(|(connection, _)| *connection == 1);
            assert_eq!(
                (lines.count(), hub.shared.commands_not_shown),
                (usize::from(shown), u64::from(!shown))
            );
        }
    }

    /// Runs a turn and returns the connections that it resumed.
    fn resumed(hub: &mut Hub) -> Vec<u32> {
        let (mut outbox, mut server): (Outbox, NoServer) = Default::default();
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, 10, 1 << 20));
        outbox.take_resumed().collect()
    }

    #[test]
    fn deferred_publishes_run_in_the_order_of_their_arrival() {
        let mut hub = hub(5);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        for connection in 1..4 {
            assert_eq!(exchange(&mut hub, connection, b"PUBLISH b x\r\n").1, Taken::Later);
        }
        assert_eq!(resumed(&mut hub), [1, 2, 3]);
        assert_eq!(exchange(&mut hub, 1, b"PUBLISH b x\r\n").1, Taken::Message(13));
        // Another backlog defers connection 2 again. Connection 2 stays ahead of those that arrive
        // now.
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        assert_eq!(exchange(&mut hub, 2, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(exchange(&mut hub, 4, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(resumed(&mut hub), [2, 3, 4]);
        // Other commands do not wait behind publishes.
        assert_eq!(exchange(&mut hub, 0, b"CLIENT ID\r\n").1, Taken::Message(11));
    }

    #[test]
    fn a_batch_at_the_maximum_one_byte_below_and_one_above() {
        for (length, turns) in [(BATCH_MAX - 1, 1), (BATCH_MAX, 1), (BATCH_MAX + 1, 2)] {
            let mut hub = hub(1);
            subscribe(&mut hub, 0, Kind::Channel, b"a");
            let mut left = length;
            while left > 0 {
                let payload = (left - 1).min(60_000);
                assert_eq!(hub.shared.publish(b"a", &vec![b'x'; payload]).ok(), Some(1));
                left -= payload + 1;
            }
            let taken =
                (0..9).take_while(|_| hub.has_output() && turn(&mut hub, 9, 4 << 20).len() == 1);
            assert_eq!(taken.count(), turns, "{length} bytes");
        }
    }

    #[test]
    fn a_large_message_is_shared_by_its_receivers_and_keeps_its_place_among_small_ones() {
        let mut hub = hub(4);
        let other = session(&hub, 1);
        hub.shared.sessions.get_mut(other).unwrap().encoding = Encoding::Resp3;
        (0..3).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"a"));
        subscribe(&mut hub, 2, Kind::Pattern, b"a*");
        let payloads = [1, LARGE_PAYLOAD, LARGE_PAYLOAD - 1, 2, LARGE_PAYLOAD, LARGE_PAYLOAD + 1]
            .map(|length| vec![b'x'; length]);
        payloads.iter().for_each(|payload| drop(hub.shared.publish(b"a", payload)));
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, 100, 1 << 20));
        assert!(!hub.has_output(), "large messages do not count against the budget in bytes");
        let mut got = [const { Vec::new() }; 3];
        for entry in outbox.entries() {
            let own: &mut Vec<u8> = &mut got[entry.slot as usize];
            own.extend_from_slice(outbox.bytes(&entry.range));
            let payload = outbox.payload(entry.payload);
            own.extend_from_slice(payload.map_or(&[], |payload| payload.bytes()));
        }
        let encodings = [Encoding::Resp2, Encoding::Resp3, Encoding::Resp2];
        for (connection, encoding) in encodings.into_iter().enumerate() {
            let mut expected = Vec::new();
            for payload in &payloads {
                expected.extend(message(&[b"message"], b"a", payload, encoding));
                if connection == 2 {
                    expected.extend(message(&[b"pmessage", b"a*"], b"a", payload, encoding));
                }
            }
            assert!(got[connection] == expected, "connection {connection}");
        }
    }

    #[test]
    fn a_publish_of_a_large_message_waits_for_earlier_ones_to_its_topics_alone() {
        let mut hub = hub(6);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        subscribe(&mut hub, 0, Kind::Channel, b"b");
        subscribe(&mut hub, 0, Kind::Pattern, b"*b");
        let publish = |channel: &str, length: usize| {
            let head = format!("*3\r\n$7\r\nPUBLISH\r\n$2\r\n{channel}\r\n${length}\r\n");
            [head.as_bytes(), &vec![b'x'; length], b"\r\n"].concat()
        };
        hub.shared.publish(b"xb", &vec![b'x'; IN_FLIGHT_MAX]).ok();
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, 100, 1 << 20));
        assert!(!hub.has_output() && hub.wakes_at().is_none());
        for (connection, channel, length, taken) in [
            (1, "xb", LARGE_PAYLOAD, false),
            (2, "yb", LARGE_PAYLOAD, false),
            (3, "xb", LARGE_PAYLOAD - 1, true),
            (4, "aa", LARGE_PAYLOAD, true),
        ] {
            let (_, how) = exchange(&mut hub, connection, &publish(channel, length));
            assert_eq!(how != Taken::Later, taken, "{channel} {length}");
        }
        assert_eq!(hub.wakes_at(), Some(Tick(1)));
        hub.check_invariants();
        // The receiver has taken all of it.
        drop(outbox);
        assert_eq!(resumed(&mut hub), [1, 2]);
        assert_eq!(exchange(&mut hub, 1, &publish("xb", LARGE_PAYLOAD)).0, b":1\r\n");
        hub.check_invariants();
    }

    #[test]
    fn the_memory_of_fan_out_is_that_of_all_its_tables() {
        let mut fanout = Fanout::default();
        fanout.order.reserve_exact(1);
        fanout.spare.reserve_exact(20);
        fanout.had.reserve_exact(300);
        fanout.met.reserve_exact(4000);
        fanout.queues.reserve_exact(7);
        fanout.batch.queues.reserve_exact(50_000);
        fanout.batch.found.reserve_exact(600_000);
        fanout.batch.posts.reserve_exact(11);
        fanout.batch.parts.reserve_exact(13);
        fanout.post_bytes = 5;
        let lists = 7 * size_of::<Queue>() + 11 * 12 + 13 * 8 + 5;
        assert_eq!(fanout.bytes(), 4 * 654_321 + lists);
    }
}
