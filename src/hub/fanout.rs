//! The way of messages to their receivers: kept once, encoded once a turn, one write for whatever
//! waits for a receiver.
//!
//! Nothing is queued per receiver. Each topic with undelivered messages has a *queue* of them, and a
//! walk over its subscribers; each receiver met on a walk has a number, the last message that it has
//! had. What waits for it follows from these: the messages of all its topics behind that number. So
//! it gets everything at once, whatever channels it came by, in the order of the publishes; a
//! publish costs its topics and not its receivers; and messages that come while a large channel is
//! walked join those of the receivers that are still to come.
//!
//! The rules that make this right: who subscribes is up to date from then on; and a session that
//! changes its subscriptions is given what waits for it first ([`Fanout::deliver_now`]).

use std::collections::VecDeque;
use std::ops::Range;

use super::channels::{Channels, TopicId};
use super::encoding::{By, Encoding};
use super::messages::Messages;
use super::sessions::Sessions;
use crate::limits::{
    BACKLOG_MAX, BACKLOG_POSTS_MAX, BATCH_MAX, MONITOR_BACKLOG_MAX, SEARCHED_MAX, SPARE_MESSAGES_MAX, SPARE_QUEUES_MAX,
    VISITS_PER_QUEUE, VISITS_PER_TURN,
};
use crate::service::Output;

#[derive(Default)]
pub struct Fanout {
    messages: Messages,
    queues: Vec<Queue>,
    /// Queues that are in use, in the order in which they have their turns.
    order: VecDeque<u32>,
    /// Queues that are not in use.
    spare: VecDeque<u32>,
    /// Those of them, the last, that have kept their memory.
    warm: usize,
    /// Posts that are undelivered.
    posts: usize,
    /// What the queues' lists of posts take up.
    post_bytes: usize,
    /// The number of the latest post. Counts from 1 since nothing was undelivered.
    latest: u32,
    /// By session: the number of the last post that it has had; 0 where it has had none of those that
    /// are undelivered.
    had: Vec<u32>,
    /// The sessions with another number than 0.
    met: Vec<u32>,
    /// Counts turns: an encoding lasts for one.
    turn: u32,
    batch: Batch,
    /// Steps of searching that commands took in this turn, and that deliveries took.
    searched: usize,
    looked_through: usize,
    pub published: u64,
    pub delivered: u64,
}

/// The undelivered messages of one topic, and how far the walk over its subscribers has come.
struct Queue {
    topic: TopicId,
    posts: Vec<Post>,
    /// Subscribers that the walk has yet to visit: the first so many. It goes from the last to the
    /// first, so that whoever takes the place of one who left is met, if not twice.
    unvisited: usize,
    /// Posts up to this number are delivered to all when the walk ends. 0: no walk has begun.
    until: u32,
}

/// A message on its way to the subscribers of one topic.
#[derive(Clone, Copy)]
struct Post {
    number: u32,
    message: u32,
    /// When the encodings were made.
    turn: u32,
    /// Where they are in the outbox; empty: not made.
    encoded: [(u32, u32); Encoding::ALL.len()],
}

/// What the last receiver was sent. The next mostly gets the same.
#[derive(Default)]
struct Batch {
    /// Of these queues, the posts behind this number, in this encoding.
    queues: Vec<u32>,
    had: u32,
    encoding: Option<Encoding>,
    range: Range<u32>,
    count: usize,
    /// The number of the last post that a receiver has had with it.
    last: u32,
    // What follows is filled for each receiver anew, and kept for its memory.
    /// The queues of the receiver's topics.
    found: Vec<u32>,
    /// The posts in these that it has not had: number, queue, and place in the queue.
    posts: Vec<(u32, u32, u32)>,
    /// Where the posts lie in the outbox, neighbours joined.
    parts: Vec<Range<u32>>,
}

impl Fanout {
    pub fn has_output(&self) -> bool {
        !self.order.is_empty()
    }

    /// Whether so much is undelivered, or was searched for in this turn, that a publish must wait.
    pub fn is_backlogged(&self) -> bool {
        self.messages.held() >= BACKLOG_MAX
            || self.posts.max(self.messages.len()) >= BACKLOG_POSTS_MAX
            || self.latest > u32::MAX / 2
            || self.has_searched_enough()
    }

    /// Whether so much is undelivered that MONITOR shows no more.
    pub fn is_overfull(&self) -> bool {
        self.messages.held() >= MONITOR_BACKLOG_MAX || self.messages.len() >= 4 * BACKLOG_POSTS_MAX
    }

    pub fn has_searched_enough(&self) -> bool {
        self.searched >= SEARCHED_MAX
    }

    /// A command has searched for so many steps.
    pub fn note_searched(&mut self, steps: usize) {
        self.searched += steps;
    }

    /// Queues a message for the subscribers of some topics; returns how many they are.
    pub fn publish(&mut self, channels: &mut Channels, topics: &[TopicId], channel: &[u8], payload: &[u8]) -> usize {
        self.forget_orphans(channels);
        if topics.is_empty() {
            return 0;
        }
        let message = self.messages.push(channel, payload, topics.len());
        let mut receivers = 0;
        for topic in topics {
            receivers += channels.subscribers(*topic).len();
            self.latest += 1;
            self.posts += 1;
            let queue = channels.queue(*topic).unwrap_or_else(|| self.start_queue(channels, *topic));
            let encoded = [(0, 0); Encoding::ALL.len()];
            let post = Post { number: self.latest, message, turn: self.turn, encoded };
            let posts = &mut self.queues[queue as usize].posts;
            let before = posts.capacity();
            posts.push(post);
            self.post_bytes += (posts.capacity() - before) * size_of::<Post>();
        }
        receivers
    }

    /// A session that has nothing undelivered has a new subscription: what was published before is
    /// not for it.
    pub fn subscribed(&mut self, session: u32) {
        if self.has_output() {
            self.has_had_all(session);
        }
    }

    /// Appends what waits for a session, ahead of others and as part of its answer: what was
    /// published before it unsubscribed comes before the confirmation, and nothing after.
    pub fn deliver_now(&mut self, channels: &mut Channels, session: u32, encoding: Encoding, out: &mut Vec<u8>) {
        self.forget_orphans(channels);
        // One command may ask for each of its names.
        if self.had(session) == self.latest {
            return;
        }
        self.searched += self.find_queues(channels, session);
        self.find_posts(self.had(session));
        for (_, queue, place) in &self.batch.posts {
            let Queue { topic, posts, .. } = &self.queues[*queue as usize];
            let (channel, payload) = self.messages.get(posts[*place as usize].message);
            encoding.encode(out, By::topic(channels, *topic), channel, payload);
        }
        self.delivered += self.batch.posts.len() as u64;
        self.has_had_all(session);
    }

    /// Delivers what the turn's budget allows. Topics take turns, so that none waits for all the
    /// subscribers of another.
    pub fn collect(&mut self, channels: &mut Channels, sessions: &Sessions, output: &mut Output<'_>) {
        self.forget_orphans(channels);
        (self.searched, self.looked_through) = (0, 0);
        self.turn = self.turn.wrapping_add(1);
        self.batch.encoding = None;
        let mut visits = VISITS_PER_TURN;
        while let Some(queue) = self.order.front().copied() {
            let share = visits.min(VISITS_PER_QUEUE);
            let Some(visited) = self.walk(queue, share, channels, sessions, output) else { return };
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

    /// Goes on with the walk of a topic for so many visits; returns how many it made. `None`: the
    /// turn's budget of writes is used up.
    fn walk(
        &mut self,
        queue: u32,
        visits: usize,
        channels: &Channels,
        sessions: &Sessions,
        output: &mut Output<'_>,
    ) -> Option<usize> {
        let own = &mut self.queues[queue as usize];
        let (topic, last) = (own.topic, own.posts.last().map_or(0, |post| post.number));
        let subscribers = channels.subscribers(topic).len();
        if own.until == 0 {
            (own.until, own.unvisited) = (last, subscribers);
        }
        // Others may have left meanwhile.
        let mut unvisited = own.unvisited.min(subscribers);
        let mut visited = 0;
        while unvisited > 0 && visited < visits {
            let session = channels.subscriber(topic, unvisited - 1);
            let is_served = session
                .is_none_or(|session| self.had(session) >= last || self.serve(session, channels, sessions, output));
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

    /// Sends a session what waits for it, at most a batch. False: the turn has no room for that, or
    /// there is more for the next turn.
    fn serve(&mut self, session: u32, channels: &Channels, sessions: &Sessions, output: &mut Output<'_>) -> bool {
        if !output.has_room(0) || self.looked_through >= SEARCHED_MAX {
            return false;
        }
        // Nobody can be reached there for now.
        let Some((connection, encoding)) = sessions.route(session) else {
            self.has_had_all(session);
            return true;
        };
        self.make_batch(session, encoding, channels, output);
        let delivered = output.deliver(connection, &self.batch.range);
        if !delivered {
            return false;
        }
        self.delivered += self.batch.count as u64;
        self.has_had(session, self.batch.last);
        self.batch.last == self.latest
    }

    /// Puts what waits for a session into one range of the outbox, unless the last batch is the same.
    fn make_batch(&mut self, session: u32, encoding: Encoding, channels: &Channels, output: &mut Output<'_>) {
        self.looked_through += self.find_queues(channels, session);
        let had = self.had(session);
        let batch = &self.batch;
        if batch.encoding == Some(encoding) && batch.had == had && batch.queues == batch.found {
            return;
        }
        self.find_posts(had);
        self.cut_batch();
        self.encode(encoding, channels, output);
        let batch = &mut self.batch;
        std::mem::swap(&mut batch.queues, &mut batch.found);
        (batch.had, batch.encoding, batch.count) = (had, Some(encoding), batch.posts.len());
        // Messages of several topics that were encoded for others apart are put together once more.
        let mut parts = batch.parts.drain(..);
        let first = parts.next().unwrap_or_default();
        batch.range = match parts.len() {
            0 => first,
            _ => {
                let bytes = output.bytes_mut();
                let start = bytes.len() as u32;
                for part in std::iter::once(first).chain(parts) {
                    bytes.extend_from_within(part.start as usize..part.end as usize);
                }
                start..bytes.len() as u32
            }
        };
    }

    /// Leaves for the next turn what is more than a reader can take at once: patterns that overlap
    /// multiply a backlog.
    fn cut_batch(&mut self) {
        let (queues, messages, latest) = (&self.queues, &self.messages, self.latest);
        let Batch { posts, last, .. } = &mut self.batch;
        let mut bytes = 0;
        let most = posts.iter().position(|(_, queue, place)| {
            let (channel, payload) = messages.get(queues[*queue as usize].posts[*place as usize].message);
            bytes += channel.len() + payload.len();
            bytes > BATCH_MAX
        });
        *last = latest;
        if let Some(most) = most.map(|most| most.max(1)).filter(|most| *most < posts.len()) {
            posts.truncate(most);
            *last = posts[most - 1].0;
        }
    }

    /// Encodes the posts found, those that this turn has not encoded yet, and notes where they are.
    fn encode(&mut self, encoding: Encoding, channels: &Channels, output: &mut Output<'_>) {
        let Batch { posts, parts, .. } = &mut self.batch;
        for (_, queue, place) in posts.iter() {
            let Queue { topic, posts, .. } = &mut self.queues[*queue as usize];
            let post = &mut posts[*place as usize];
            if post.turn != self.turn {
                (post.turn, post.encoded) = (self.turn, Default::default());
            }
            let (start, end) = &mut post.encoded[encoding as usize];
            if start == end {
                let bytes = output.bytes_mut();
                *start = bytes.len() as u32;
                let (channel, payload) = self.messages.get(post.message);
                encoding.encode(bytes, By::topic(channels, *topic), channel, payload);
                *end = bytes.len() as u32;
            }
            match parts.last_mut() {
                Some(last) if last.end == *start => last.end = *end,
                _ => parts.push(*start..*end),
            }
        }
    }

    /// Finds the queues of a session's topics: looks through whichever are fewer. Returns the steps.
    fn find_queues(&mut self, channels: &Channels, session: u32) -> usize {
        let found = &mut self.batch.found;
        found.clear();
        let subscriptions = channels.len(session);
        if self.order.len() <= subscriptions {
            let own =
                self.order.iter().filter(|queue| channels.is_member(session, self.queues[**queue as usize].topic));
            found.extend(own);
        } else {
            found.extend(channels.topics_of(session).filter_map(|topic| channels.queue(topic)));
        }
        self.order.len().min(subscriptions)
    }

    /// Finds the posts of those queues behind a number, in the order of their publishes.
    fn find_posts(&mut self, had: u32) {
        let Batch { found, posts, .. } = &mut self.batch;
        posts.clear();
        for queue in found.iter() {
            let own = &self.queues[*queue as usize].posts;
            let first = own.partition_point(|post| post.number <= had);
            posts.extend((first..).zip(&own[first..]).map(|(place, post)| (post.number, *queue, place as u32)));
        }
        if found.len() > 1 {
            posts.sort_unstable();
        }
    }

    /// The number of the last post that a session has had.
    fn had(&self, session: u32) -> u32 {
        self.had.get(session as usize).copied().unwrap_or(0)
    }

    /// Nothing waits for a session any more.
    fn has_had_all(&mut self, session: u32) {
        if self.latest > 0 {
            self.has_had(session, self.latest);
        }
    }

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

    fn start_queue(&mut self, channels: &mut Channels, topic: TopicId) -> u32 {
        let queue = self.spare.pop_back().unwrap_or_else(|| {
            self.queues.push(Queue { topic, posts: Vec::new(), unvisited: 0, until: 0 });
            self.queues.len() as u32 - 1
        });
        self.warm = self.warm.saturating_sub(1);
        let own = &mut self.queues[queue as usize];
        (own.topic, own.unvisited, own.until) = (topic, 0, 0);
        channels.set_queue(topic, Some(queue));
        self.order.push_back(queue);
        queue
    }

    /// All subscribers of the first topic have been visited. What has joined since the walk began is
    /// for the next one.
    fn end_walk(&mut self, channels: &mut Channels) {
        let Some(queue) = self.order.pop_front() else { return };
        let own = &mut self.queues[queue as usize];
        let done = own.posts.partition_point(|post| post.number <= own.until);
        own.posts.drain(..done).for_each(|post| self.messages.release(post.message));
        self.posts -= done;
        own.until = 0;
        if own.posts.is_empty() {
            channels.set_queue(own.topic, None);
            self.retire(queue);
        } else {
            self.order.push_back(queue);
        }
        self.start_anew_if_empty();
    }

    /// The queues of topics that have lost their last subscriber.
    fn forget_orphans(&mut self, channels: &mut Channels) {
        let mut any = false;
        while let Some(queue) = channels.take_orphan() {
            let own = &mut self.queues[queue as usize];
            self.posts -= own.posts.len();
            own.posts.drain(..).for_each(|post| self.messages.release(post.message));
            self.retire(queue);
            any = true;
        }
        if any {
            self.order.retain(|queue| !self.queues[*queue as usize].posts.is_empty());
            self.start_anew_if_empty();
        }
    }

    fn retire(&mut self, queue: u32) {
        let posts = &mut self.queues[queue as usize].posts;
        let bytes = posts.capacity() * size_of::<Post>();
        // A publish allocates nothing once warm; what a rare burst has made of a queue goes back.
        if self.warm >= SPARE_QUEUES_MAX || bytes > SPARE_MESSAGES_MAX {
            *posts = Vec::new();
            self.post_bytes -= bytes;
            self.spare.push_front(queue);
        } else {
            self.warm += 1;
            self.spare.push_back(queue);
        }
    }

    /// Once nothing is undelivered, what sessions have had does not matter.
    fn start_anew_if_empty(&mut self) {
        if self.order.is_empty() {
            self.latest = 0;
            self.met.drain(..).for_each(|session| self.had[session as usize] = 0);
        }
    }

    /// Memory held, in bytes: of what waits, and of a warm fan-out.
    pub fn bytes(&self) -> usize {
        let words = self.order.capacity() + self.spare.capacity() + self.had.capacity() + self.met.capacity();
        let queues = self.queues.capacity() * size_of::<Queue>();
        let Batch { queues: own, found, posts, parts, .. } = &self.batch;
        let batch = (own.capacity() + found.capacity()) * size_of::<u32>()
            + posts.capacity() * size_of::<(u32, u32, u32)>()
            + parts.capacity() * size_of::<Range<u32>>();
        self.messages.bytes() + self.post_bytes + queues + batch + words * size_of::<u32>()
    }

    pub fn shrink(&mut self) {
        self.messages.shrink();
        if self.order.is_empty() {
            (self.queues, self.spare, self.order) = Default::default();
            (self.had, self.met, self.batch) = Default::default();
            (self.post_bytes, self.warm) = (0, 0);
        }
    }

    /// What is counted is what is there.
    pub fn check_invariants(&self) {
        let waiting = || self.order.iter().map(|queue| &self.queues[*queue as usize]);
        assert_eq!(self.posts, waiting().map(|queue| queue.posts.len()).sum::<usize>(), "posts");
        assert!(waiting().all(|queue| !queue.posts.is_empty() && queue.posts.is_sorted_by_key(|post| post.number)));
        assert_eq!(self.messages.is_empty(), self.order.is_empty(), "messages");
        assert_eq!(self.order.len() + self.spare.len(), self.queues.len(), "queues");
        let met = self.had.iter().filter(|had| **had > 0).count();
        assert!(met == self.met.len() && (self.latest > 0 || met == 0), "sessions met");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::resp::{self, Protocol};
    use crate::hub::Hub;
    use crate::hub::channels::Kind;
    use crate::hub::tests::{connect, disconnect, exchange, hub, session, subscribe, turn};
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
    fn a_large_message_that_matches_many_patterns_costs_its_bytes_once() {
        let mut hub = hub(32);
        for number in 0..512u32 {
            let pattern = format!("{:*<1$}", "", 1 + number as usize % 250);
            let pattern = format!("{pattern}{}", ["", "s", "ws"][number as usize / 250]);
            subscribe(&mut hub, number / 16, Kind::Pattern, pattern.as_bytes());
        }
        let payload = vec![b'x'; 1_000_000];
        assert_eq!(hub.shared.publish(b"news", &payload).ok(), Some(512));
        assert!(hub.shared.fanout.is_backlogged(), "no more is taken");
        let held = hub.shared.fanout.bytes();
        assert!(held < 5 << 19, "{held} bytes wait");
        let mut delivered = 0;
        while hub.has_output() {
            let turn = turn(&mut hub, 1024, 4 << 20);
            // A receiver gets one of its sixteen at a time.
            assert!((1..=2).contains(&turn.len()));
            assert!(
                turn.iter().all(|(_, bytes)| bytes.starts_with(b"*4\r\n$8\r\npmessage") && bytes.len() < 1_001_000)
            );
            delivered += turn.len();
        }
        assert_eq!((delivered, hub.shared.fanout.delivered), (512, 512));
        assert!(hub.shared.fanout.bytes() < 64 << 10, "what a large message needed is not kept");
    }

    /// Against the obvious way: every message encoded for every subscriber when it is published.
    #[test]
    fn whatever_is_published_and_however_small_the_turns_each_gets_its_own_in_order() {
        for seed in 0..64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hub = hub(6);
            for connection in [1, 3] {
                let session = session(&hub, connection);
                hub.shared.sessions.get_mut(session).unwrap().set_encoding(Encoding::Resp3);
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
                    0 => drop(hub.shared.subscribe(session, kind, name, own)),
                    1 => {
                        hub.shared.deliver_now(session, own);
                        hub.shared.channels.unsubscribe(session.index, kind, name);
                        assert_eq!(*own, expected[connection as usize], "seed {seed}");
                    }
                    2..7 => publish(&mut hub, &mut random, &mut expected),
                    7 if random.u8(..8) == 0 => {
                        // Its number goes to another. What it was owed, it loses.
                        disconnect(&mut hub, connection);
                        connect(&mut hub, connection);
                        expected[connection as usize] = got[connection as usize].clone();
                    }
                    _ => {
                        let (count, bytes) = (random.usize(1..6), random.usize(..2000));
                        let turn = turn(&mut hub, count, bytes);
                        turn.into_iter().for_each(|(connection, bytes)| got[connection as usize].extend(bytes));
                    }
                }
                hub.check_invariants();
            }
            while hub.has_output() {
                let turn = turn(&mut hub, 3, 50);
                turn.into_iter().for_each(|(connection, bytes)| got[connection as usize].extend(bytes));
            }
            assert_eq!(got, expected, "seed {seed}");
        }
    }

    /// A random publish to a random channel, and what everybody is to get of it.
    fn publish(hub: &mut Hub, random: &mut fastrand::Rng, expected: &mut [Vec<u8>]) {
        let channel = [&b"a"[..], b"ab", b"c"][random.usize(..3)];
        let payload = vec![random.lowercase() as u8; random.usize(..600)];
        let shard = random.u32(..4) == 0;
        let mut receivers = 0;
        let channels = &hub.shared.channels;
        let exact = if shard { Kind::Shard } else { Kind::Channel };
        let mut topics = Vec::from_iter(channels.topic(exact, channel));
        if !shard {
            channels.match_patterns(channel, &mut topics, &mut 0, usize::MAX);
        }
        for topic in topics {
            for session in channels.subscribers(topic) {
                let head: &[&[u8]] = match topic.kind() {
                    Kind::Channel => &[b"message"],
                    Kind::Shard => &[b"smessage"],
                    Kind::Pattern => &[b"pmessage", channels.name(topic)],
                    Kind::Feed => unreachable!("nobody monitors"),
                };
                let (connection, encoding) = hub.shared.sessions.route(session).unwrap();
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
    fn whatever_waits_for_a_receiver_leaves_in_one_write_whatever_channels_it_came_by() {
        let mut hub = hub(3);
        for (connection, names) in [(0, &["a", "b", "c"][..]), (1, &["a", "b"]), (2, &["a", "c"])] {
            names.iter().for_each(|name| subscribe(&mut hub, connection, Kind::Channel, name.as_bytes()));
        }
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        for (channel, receivers) in [(b"a", &[0, 1, 2][..]), (b"b", &[0, 1]), (b"c", &[0, 2]), (b"a", &[0, 1, 2])] {
            assert_eq!(hub.shared.publish(channel, b"x").ok(), Some(receivers.len()));
            let message = message(&[b"message"], channel, b"x", Encoding::Resp2);
            receivers.iter().for_each(|receiver| expected[*receiver].extend(&message));
        }
        let mut got = turn(&mut hub, 3, 1 << 20);
        got.sort();
        assert_eq!(got, expected.into_iter().enumerate().map(|(at, bytes)| (at as u32, bytes)).collect::<Vec<_>>());
        assert!(!hub.has_output());
    }

    #[test]
    fn what_comes_during_a_walk_joins_for_those_still_to_come_and_follows_for_the_others() {
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
    fn a_topic_of_few_does_not_wait_for_all_the_subscribers_of_another() {
        let mut hub = hub(1001);
        (0..1000).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"many"));
        subscribe(&mut hub, 1000, Kind::Channel, b"few");
        hub.shared.publish(b"many", b"x").ok();
        hub.shared.publish(b"few", b"x").ok();
        let served = turn(&mut hub, VISITS_PER_QUEUE + 1, 1 << 20);
        assert_eq!(served.last().map(|(connection, _)| *connection), Some(1000));
    }

    #[test]
    fn a_delivery_larger_than_the_turns_bytes_goes_alone_and_none_is_lost() {
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
    fn a_publish_that_patterns_make_too_dear_goes_to_nobody_and_others_wait_for_the_next_turn() {
        let mut hub = hub(4);
        let names: Vec<String> = (0..32u8).map(|number| format!("*{}{}b*", "a".repeat(252), number as char)).collect();
        for (number, name) in names.iter().enumerate() {
            subscribe(&mut hub, number as u32 / 16, Kind::Pattern, name.as_bytes());
        }
        subscribe(&mut hub, 2, Kind::Pattern, b"*");
        assert!(hub.shared.publish(&[b'a'; 4096], b"x").is_err() && !hub.shared.fanout.has_output());
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH a x\r\n"), (vec![], Taken::Later));
        assert_eq!(exchange(&mut hub, 0, b"PING\r\n").1, Taken::Message(6), "nobody else waits");
        turn(&mut hub, 1, 1);
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH a x\r\n"), (b":1\r\n".to_vec(), Taken::Message(13)));
        turn(&mut hub, 1, 1000);
        assert_eq!(hub.shared.publish(&[b'a'; 60], b"x").ok(), Some(1));
    }

    /// Messages wait longer than a turn where there are many: a connection may end meanwhile, and
    /// another get its number.
    #[test]
    fn what_waits_for_who_had_the_number_before_does_not_come_ahead_of_the_next_ones_answer() {
        for command in [&b"UNSUBSCRIBE x\r\n"[..], b"RESET\r\n", b"QUIT\r\n"] {
            let mut hub = hub(3);
            (1..3).for_each(|connection| subscribe(&mut hub, connection, Kind::Channel, b"private"));
            assert_eq!(hub.shared.publish(b"private", b"secret").ok(), Some(2));
            disconnect(&mut hub, 1);
            connect(&mut hub, 1);
            subscribe(&mut hub, 1, Kind::Channel, b"public");
            subscribe(&mut hub, 1, Kind::Channel, b"private");
            assert_eq!(hub.shared.publish(b"public", b"news").ok(), Some(1));
            let (answer, _) = exchange(&mut hub, 1, command);
            assert!(answer.starts_with(&message(&[b"message"], b"public", b"news", Encoding::Resp2)));
            let shown = answer.escape_ascii().to_string();
            assert!(!shown.contains("secret"), "{shown}");
            assert_eq!(turn(&mut hub, 10, 1000).len(), 1, "the other subscriber's");
        }
    }

    #[test]
    fn publishes_wait_at_the_backlog_and_not_one_byte_below_it() {
        for (payload, waits) in [(BACKLOG_MAX - 2, false), (BACKLOG_MAX - 1, true), (BACKLOG_MAX, true)] {
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
    fn a_receiver_of_overlapping_patterns_is_sent_a_batch_a_turn() {
        let mut hub = hub(1);
        ["a*", "*a", "*", "?"].iter().for_each(|name| subscribe(&mut hub, 0, Kind::Pattern, name.as_bytes()));
        for payload in [BATCH_MAX / 2, BATCH_MAX - 2, BATCH_MAX / 2 + 1, 10] {
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
        assert_eq!(got.windows(8).filter(|word| word == b"pmessage").count(), 16);
        assert!(turns > 8, "{turns}");
    }

    #[test]
    fn to_subscribe_again_to_all_costs_no_search_for_each() {
        let mut hub = hub(2);
        let names: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        names.iter().for_each(|name| subscribe(&mut hub, 0, Kind::Channel, name.as_bytes()));
        names.iter().for_each(|name| drop(hub.shared.publish(name.as_bytes(), b"x")));
        let (answer, _) = exchange(&mut hub, 0, format!("SUBSCRIBE {}\r\n", names.join(" ")).as_bytes());
        assert!(answer.starts_with(b"*3\r\n$7\r\nmessage") && answer.ends_with(b":1000\r\n"));
        assert!(hub.shared.fanout.searched < 5000, "{} steps", hub.shared.fanout.searched);
    }

    #[test]
    fn after_a_burst_a_publish_is_warm_again() {
        let mut hub = hub(1);
        (0..40).for_each(|name| subscribe(&mut hub, 0, Kind::Channel, format!("{name}").as_bytes()));
        (0..40).for_each(|name| drop(hub.shared.publish(format!("{name}").as_bytes(), b"x")));
        turn(&mut hub, 10, 1 << 20);
        for _ in 0..2 {
            hub.shared.publish(b"1", b"x").ok();
            let fanout = &hub.shared.fanout;
            assert!(fanout.warm < SPARE_QUEUES_MAX && fanout.queues[fanout.order[0] as usize].posts.capacity() > 1);
            turn(&mut hub, 10, 1 << 20);
            assert_eq!(hub.shared.fanout.warm, SPARE_QUEUES_MAX);
        }
    }

    #[test]
    fn monitor_shows_no_more_at_its_backlog_and_not_one_byte_below_it() {
        for (payload, shown) in [(MONITOR_BACKLOG_MAX - 2, true), (MONITOR_BACKLOG_MAX - 1, false)] {
            let mut hub = hub(3);
            subscribe(&mut hub, 0, Kind::Channel, b"a");
            subscribe(&mut hub, 1, Kind::Feed, b"");
            hub.shared.publish(b"a", &vec![b'x'; payload]).ok();
            exchange(&mut hub, 2, b"PING\r\n");
            let lines = turn(&mut hub, 10, 4 << 20).into_iter().filter(|(connection, _)| *connection == 1);
            assert_eq!((lines.count(), hub.shared.commands_not_shown), (usize::from(shown), u64::from(!shown)));
        }
    }

    /// Those that wait are served in the order in which they came.
    #[test]
    fn publishes_that_wait_are_served_in_turn() {
        let mut hub = hub(5);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        for connection in 1..4 {
            assert_eq!(exchange(&mut hub, connection, b"PUBLISH b x\r\n").1, Taken::Later);
        }
        let resumed = |hub: &mut Hub| {
            let (mut outbox, mut server): (Outbox, NoServer) = Default::default();
            hub.collect(&mut Output::new(crate::clock::Time::ZERO, &mut server, &mut outbox, 10, 1 << 20));
            outbox.take_resumed().collect::<Vec<_>>()
        };
        assert_eq!(resumed(&mut hub), [1, 2, 3]);
        assert_eq!(exchange(&mut hub, 1, b"PUBLISH b x\r\n").1, Taken::Message(13));
        // Another backlog keeps one waiting: it stays ahead of those who come now.
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        assert_eq!(exchange(&mut hub, 2, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(exchange(&mut hub, 4, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH b x\r\n").1, Taken::Later);
        assert_eq!(resumed(&mut hub), [2, 3, 4]);
        // Commands of another kind do not wait for them.
        assert_eq!(exchange(&mut hub, 0, b"CLIENT ID\r\n").1, Taken::Message(11));
    }
}
