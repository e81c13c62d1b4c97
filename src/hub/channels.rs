//! Subscriptions in both directions: the subscribers of each topic, and the topics of each session.
//!
//! A topic is a channel, a pattern or a shard channel with at least one subscriber. It is removed
//! when its last subscriber leaves. Each subscription has two halves, one in the session's list and
//! one in the topic's. Each half stores the position of the other, so a subscription is removed in
//! O(1): the last entry of each list moves into the gap, and its other half gets the new position.
//! Closing a session costs as much as it has subscriptions.
//!
//! Most sessions have one subscription. It takes 16 bytes inline in the table of sessions, and 8 in
//! the topic's list. Lists may have millions of entries, so a full list grows by an eighth.
//!
//! Peers choose the names, so the tables of names use std's keyed SipHash. No order depends on a
//! hash table, so two runs with the same input give the same output.

mod invariants;

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;

use slab::Slab;

use super::glob;
use super::subscriptions::{
    LARGE_FROM, Large, Subscription, Subscriptions, push, release, release_table, table_bytes,
};
use crate::limits::{
    CHANNEL_NAME_MAX, CHANNELS_MAX, CONFIRMATIONS_MAX, HELD_MAX, PATTERNS_MAX,
    PATTERNS_PER_SESSION_MAX,
};

pub use super::subscriptions::{Kind, KindCounts, LimitReached, TopicId};

// Fewer than LARGE_FROM subscriptions can never exceed CONFIRMATIONS_MAX, so they are not summed.
const _: () = assert!(LARGE_FROM * (CONFIRMATION_FRAMING + CHANNEL_NAME_MAX) <= CONFIRMATIONS_MAX);

/// Length of the longest confirmation without its name, in bytes: a `punsubscribe` of a name with a
/// four-digit length, and a five-digit count of remaining subscriptions.
const CONFIRMATION_FRAMING: usize = b"*3\r\n$12\r\npunsubscribe\r\n$4096\r\n\r\n:65535\r\n".len();

/// The topic's half of a subscription: the session, and the slot among its subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Subscriber {
    session: u32,
    slot: u32,
}

const _: () = assert!(size_of::<Subscriber>() == 8);

struct Topic {
    /// Shared with the table of names.
    name: Rc<[u8]>,
    kind: Kind,
    /// The fan-out queue with the topic's undelivered messages, or [`NO_QUEUE`].
    queue: u32,
    subscribers: Vec<Subscriber>,
}

/// Stands for no queue: the topic has no undelivered messages.
const NO_QUEUE: u32 = u32::MAX;

impl Topic {
    /// Returns the memory held outside the table of topics, in bytes. An `Rc` has two counters.
    fn bytes(&self) -> usize {
        2 * size_of::<usize>()
            + self.name.len()
            + self.subscribers.capacity() * size_of::<Subscriber>()
    }
}

/// All topics and all subscriptions.
pub struct Channels {
    /// Session → subscriptions. Its length is one more than the highest session number that ever
    /// subscribed.
    sessions: Vec<Subscriptions>,
    /// Session → index, if it has [`LARGE_FROM`] subscriptions or more.
    large: HashMap<u32, Large>,
    topics: Slab<Topic>,
    /// By kind: name → slot in `topics`.
    names: [HashMap<Rc<[u8]>, u32>; Kind::ALL.len()],
    /// All patterns, for matching.
    patterns: Vec<TopicId>,
    /// Maximum number of channels and shard channels together.
    channels_max: usize,
    /// [`HELD_MAX`], except in tests.
    held_max: usize,
    /// Queues of removed topics: see [`Self::take_orphan`].
    orphans: Vec<u32>,
    /// Memory of topics and sessions outside their tables, in bytes: a running sum.
    held: usize,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels::new(CHANNELS_MAX)
    }
}

impl Channels {
    /// Allows at most `channels_max` channels and shard channels together.
    pub fn new(channels_max: usize) -> Channels {
        Channels {
            sessions: Vec::new(),
            large: HashMap::new(),
            topics: Slab::new(),
            names: Default::default(),
            patterns: Vec::new(),
            channels_max: channels_max.min((1 << TopicId::INDEX_BITS) - PATTERNS_MAX),
            held_max: HELD_MAX,
            orphans: Vec::new(),
            held: 0,
        }
    }

    /// Subscribes a session to a topic. Returns true if the subscription is new.
    pub fn subscribe(
        &mut self,
        session: u32,
        kind: Kind,
        name: &[u8],
    ) -> Result<bool, LimitReached> {
        let known = self.topic(kind, name);
        if known.is_some_and(|topic| self.slot_of(session, topic).is_some()) {
            return Ok(false);
        }
        if self.held + name.len() > self.held_max {
            return Err(LimitReached::Memory);
        }
        let confirmations = CONFIRMATION_FRAMING + name.len();
        if self.len(session) + 1 >= LARGE_FROM
            && self.confirmations(session) + confirmations > CONFIRMATIONS_MAX
        {
            return Err(LimitReached::Confirmations);
        }
        if kind == Kind::Pattern
            && self.counts(session)[kind as usize] as usize >= PATTERNS_PER_SESSION_MAX
        {
            return Err(LimitReached::PatternsOfSession);
        }
        let topic = match known {
            Some(topic) => topic,
            None => self.create(kind, name)?,
        };
        self.attach(session, topic);
        Ok(true)
    }

    /// Unsubscribes a session from a topic. Returns true if it was subscribed.
    pub fn unsubscribe(&mut self, session: u32, kind: Kind, name: &[u8]) -> bool {
        let Some(topic) = self.topic(kind, name) else { return false };
        let Some(slot) = self.slot_of(session, topic) else { return false };
        let own = &mut self.sessions[session as usize];
        self.held -= own.bytes();
        let (removed, moved) = own.swap_remove(slot);
        self.held += own.bytes();
        let length = own.len();
        if let Some(large) = self.large.get_mut(&session) {
            self.held -= table_bytes(&large.index);
            large.index.remove(&topic);
            large.index.extend(moved.map(|moved| (moved.topic, slot)));
            release_table(&mut large.index);
            self.held += table_bytes(&large.index);
            large.counts[kind as usize] -= 1;
            large.confirmations -= CONFIRMATION_FRAMING + name.len();
            if length < LARGE_FROM / 2 {
                self.forget_large(session);
            }
        }
        if let Some(moved) = moved {
            self.topics[moved.topic.index()].subscribers[moved.position as usize].slot = slot;
        }
        self.detach(removed);
        true
    }

    /// Ends all subscriptions of one kind. Calls `each` with the name and the remaining count of
    /// Redis's reply: shard channels are counted apart, channels and patterns together.
    pub fn unsubscribe_all(
        &mut self,
        session: u32,
        kind: Kind,
        mut each: impl FnMut(&[u8], usize),
    ) {
        if self.counts(session)[kind as usize] == 0 {
            return;
        }
        let mut remaining =
            if kind == Kind::Shard { self.shard_count(session) } else { self.count(session) };
        for subscription in self.take(session).iter() {
            if subscription.topic.kind() == kind {
                remaining -= 1;
                each(&self.topics[subscription.topic.index()].name, remaining);
                self.detach(subscription);
            } else {
                self.put_back(session, subscription);
            }
        }
    }

    /// Ends all subscriptions of a session, MONITOR included.
    pub fn close(&mut self, session: u32) {
        for subscription in self.take(session).iter() {
            self.detach(subscription);
        }
    }

    /// Returns a session's number of channels and patterns, which Redis's replies count together.
    pub fn count(&self, session: u32) -> usize {
        let counts = self.counts(session);
        (counts[Kind::Channel as usize] + counts[Kind::Pattern as usize]) as usize
    }

    /// Returns a session's number of shard channels, which Redis's replies count apart.
    pub fn shard_count(&self, session: u32) -> usize {
        self.counts(session)[Kind::Shard as usize] as usize
    }

    /// Returns true if a session has a subscription of any kind, MONITOR included.
    pub fn listens(&self, session: u32) -> bool {
        self.len(session) > 0
    }

    /// Returns true if a session has a subscription other than MONITOR.
    pub fn is_subscribed(&self, session: u32) -> bool {
        match self.len(session) {
            0 => false,
            1 => self.sessions[session as usize].iter().all(|only| only.topic.kind() != Kind::Feed),
            _ => true,
        }
    }

    /// Returns a session's number of subscriptions of all kinds.
    pub fn len(&self, session: u32) -> usize {
        self.sessions.get(session as usize).map_or(0, Subscriptions::len)
    }

    /// Returns the topics that a session is subscribed to.
    pub fn topics_of(&self, session: u32) -> impl Iterator<Item = TopicId> {
        let own = self.sessions.get(session as usize);
        own.into_iter().flat_map(Subscriptions::iter).map(|subscription| subscription.topic)
    }

    /// Returns true if a session is subscribed to a topic.
    pub fn is_member(&self, session: u32, topic: TopicId) -> bool {
        self.slot_of(session, topic).is_some()
    }

    /// Returns the topic with this name, if it has subscribers.
    pub fn topic(&self, kind: Kind, name: &[u8]) -> Option<TopicId> {
        self.names[kind as usize].get(name).map(|&index| TopicId::new(kind, index as usize))
    }

    /// Returns the name of a topic.
    pub fn name(&self, topic: TopicId) -> &[u8] {
        &self.topics[topic.index()].name
    }

    /// Returns the session at a position of the topic's list of subscribers.
    pub fn subscriber(&self, topic: TopicId, position: usize) -> Option<u32> {
        self.topics[topic.index()].subscribers.get(position).map(|subscriber| subscriber.session)
    }

    /// Returns the fan-out queue of a topic, if it has undelivered messages.
    pub fn queue(&self, topic: TopicId) -> Option<u32> {
        Some(self.topics[topic.index()].queue).filter(|queue| *queue != NO_QUEUE)
    }

    /// Sets the fan-out queue of a topic.
    pub fn set_queue(&mut self, topic: TopicId, queue: Option<u32>) {
        self.topics[topic.index()].queue = queue.unwrap_or(NO_QUEUE);
    }

    /// Takes the queue of a topic that lost its last subscriber, so fan-out can drop it.
    pub fn take_orphan(&mut self) -> Option<u32> {
        self.orphans.pop()
    }

    /// Returns the sessions subscribed to a topic: at least one.
    pub fn subscribers(&self, topic: TopicId) -> impl ExactSizeIterator<Item = u32> {
        self.topics[topic.index()].subscribers.iter().map(|subscriber| subscriber.session)
    }

    /// Adds the patterns that match a channel's name to `found`, and the steps taken to `steps`.
    /// Stops beyond `steps_max` steps and returns false.
    pub fn match_patterns(
        &self,
        channel: &[u8],
        found: &mut Vec<TopicId>,
        steps: &mut usize,
        steps_max: usize,
    ) -> bool {
        self.patterns.iter().all(|pattern| {
            if glob::matches(self.name(*pattern), channel, steps) {
                found.push(*pattern);
            }
            *steps <= steps_max
        })
    }

    /// Returns every topic of a kind with its name. Takes time for the topics of all kinds.
    pub fn topics(&self, kind: Kind) -> impl Iterator<Item = (TopicId, &[u8])> {
        let of_kind = self.topics.iter().filter(move |(_, topic)| topic.kind == kind);
        of_kind.map(move |(index, topic)| (TopicId::new(kind, index), &*topic.name))
    }

    /// Returns the number of topics of all kinds.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Returns the number of distinct patterns.
    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// Returns the memory held, in bytes, without the allocator's overhead. Hash tables are
    /// estimated from their capacity. O(1).
    pub fn bytes(&self) -> usize {
        // The slab marks each entry as taken or free in at most one word.
        let topics = self.topics.capacity() * (size_of::<Topic>() + size_of::<usize>());
        let sessions = self.sessions.capacity() * size_of::<Subscriptions>();
        let large = table_bytes(&self.large);
        let names: usize = self.names.iter().map(table_bytes).sum();
        sessions
            + large
            + topics
            + names
            + self.patterns.capacity() * size_of::<TopicId>()
            + self.held
    }

    /// Frees all memory if there are no subscriptions. The lists of subscriptions and subscribers
    /// shrink whenever they lose entries.
    pub fn shrink(&mut self) {
        if self.topics.is_empty() {
            *self = Channels {
                orphans: mem::take(&mut self.orphans),
                ..Channels::new(self.channels_max)
            };
        }
    }

    /// Returns the memory of both halves of a session's subscriptions, in bytes.
    pub fn bytes_of(&self, session: u32) -> usize {
        let Some(session) = self.sessions.get(session as usize) else { return 0 };
        size_of::<Subscriptions>() + session.bytes() + session.len() * size_of::<Subscriber>()
    }

    /// Returns a session's numbers of subscriptions, by [`Kind`].
    pub fn counts(&self, session: u32) -> KindCounts {
        match self.large(session) {
            Some(large) => large.counts,
            None => self
                .sessions
                .get(session as usize)
                .map_or(KindCounts::default(), Subscriptions::counts),
        }
    }

    fn slot_of(&self, session: u32, topic: TopicId) -> Option<u32> {
        match self.large(session) {
            Some(large) => large.index.get(&topic).copied(),
            None => self.sessions.get(session as usize)?.slot_of(topic),
        }
    }

    fn large(&self, session: u32) -> Option<&Large> {
        if self.len(session) < LARGE_FROM / 2 { None } else { self.large.get(&session) }
    }

    /// Creates a topic without subscribers. The caller attaches the first one at once.
    fn create(&mut self, kind: Kind, name: &[u8]) -> Result<TopicId, LimitReached> {
        let channels =
            self.topics.len() - self.patterns.len() - self.names[Kind::Feed as usize].len();
        match kind {
            Kind::Pattern if self.patterns.len() >= PATTERNS_MAX => {
                return Err(LimitReached::Patterns);
            }
            Kind::Channel | Kind::Shard if channels >= self.channels_max => {
                return Err(LimitReached::Channels);
            }
            _ => {}
        }
        let name: Rc<[u8]> = name.into();
        let topic = Topic { name: name.clone(), kind, queue: NO_QUEUE, subscribers: Vec::new() };
        self.held += topic.bytes();
        let index = self.topics.insert(topic);
        self.names[kind as usize].insert(name, index as u32);
        let topic = TopicId::new(kind, index);
        if kind == Kind::Pattern {
            push(&mut self.patterns, topic);
        }
        Ok(topic)
    }

    fn attach(&mut self, session: u32, topic: TopicId) {
        let index = session as usize;
        if index >= self.sessions.len() {
            let length = self.sessions.len();
            if index >= self.sessions.capacity() {
                self.sessions.reserve_exact((index + 1 - length).max(length / 4));
            }
            self.sessions.resize_with(index + 1, Subscriptions::default);
        }
        let slot = self.join(
            session,
            Subscription { topic, position: self.topics[topic.index()].subscribers.len() as u32 },
        );
        let list = &mut self.topics[topic.index()];
        self.held -= list.bytes();
        push(&mut list.subscribers, Subscriber { session, slot });
        self.held += list.bytes();
    }

    /// Adds the session's half of a subscription and returns its slot.
    fn join(&mut self, session: u32, subscription: Subscription) -> u32 {
        let own = &mut self.sessions[session as usize];
        self.held -= own.bytes();
        let slot = own.push(subscription);
        self.held += own.bytes();
        let length = slot as usize + 1;
        if length > LARGE_FROM / 2
            && let Some(large) = self.large.get_mut(&session)
        {
            let name = &self.topics[subscription.topic.index()].name;
            let before = table_bytes(&large.index);
            large.note(subscription.topic, slot, CONFIRMATION_FRAMING + name.len());
            self.held = self.held - before + table_bytes(&large.index);
        } else if length >= LARGE_FROM {
            let mut large = Large::default();
            for (subscription, slot) in self.sessions[session as usize].iter().zip(0..) {
                large.note(subscription.topic, slot, self.confirmation(subscription.topic));
            }
            self.held += table_bytes(&large.index);
            self.large.insert(session, large);
        }
        slot
    }

    /// Returns an upper bound for the replies that would end all of a session's subscriptions, in
    /// bytes.
    fn confirmations(&self, session: u32) -> usize {
        match self.large(session) {
            Some(large) => large.confirmations,
            None => self.topics_of(session).map(|topic| self.confirmation(topic)).sum(),
        }
    }

    fn confirmation(&self, topic: TopicId) -> usize {
        CONFIRMATION_FRAMING + self.name(topic).len()
    }

    fn forget_large(&mut self, session: u32) {
        if let Some(large) = self.large.remove(&session) {
            self.held -= table_bytes(&large.index);
        }
    }

    /// Removes all of a session's halves. The caller detaches or puts back each of them.
    fn take(&mut self, session: u32) -> Subscriptions {
        self.forget_large(session);
        let taken = self.sessions.get_mut(session as usize).map(mem::take).unwrap_or_default();
        self.held -= taken.bytes();
        taken
    }

    fn put_back(&mut self, session: u32, subscription: Subscription) {
        let slot = self.join(session, subscription);
        self.topics[subscription.topic.index()].subscribers[subscription.position as usize].slot =
            slot;
    }

    /// Removes the topic's half of a subscription, after the session's half, and an emptied topic.
    fn detach(&mut self, subscription: Subscription) {
        let Subscription { topic, position } = subscription;
        let list = &mut self.topics[topic.index()];
        self.held -= list.bytes();
        list.subscribers.swap_remove(position as usize);
        release(&mut list.subscribers);
        self.held += list.bytes();
        if let Some(moved) = list.subscribers.get(position as usize) {
            self.sessions[moved.session as usize].at_mut(moved.slot).position = position;
        } else if list.subscribers.is_empty() {
            self.remove(topic);
        }
    }

    fn remove(&mut self, topic: TopicId) {
        let removed = self.topics.remove(topic.index());
        self.held -= removed.bytes();
        self.orphans.extend(Some(removed.queue).filter(|queue| *queue != NO_QUEUE));
        let names = &mut self.names[removed.kind as usize];
        names.remove(&removed.name);
        release_table(names);
        if removed.kind == Kind::Pattern {
            self.patterns.retain(|&pattern| pattern != topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    type Model = BTreeSet<(u32, Kind, Vec<u8>)>;

    fn names(channels: &Channels, topics: impl Iterator<Item = TopicId>) -> Vec<&[u8]> {
        let mut names: Vec<_> = topics.map(|topic| channels.name(topic)).collect();
        names.sort();
        names
    }

    fn matching(channels: &Channels, channel: &[u8]) -> Vec<TopicId> {
        let mut found = Vec::new();
        assert!(channels.match_patterns(channel, &mut found, &mut 0, usize::MAX));
        found
    }

    fn sessions(channels: &Channels, kind: Kind, name: &[u8]) -> Vec<u32> {
        let mut sessions: Vec<_> = channels
            .topic(kind, name)
            .map_or(Vec::new(), |topic| channels.subscribers(topic).collect());
        sessions.sort();
        sessions
    }

    #[test]
    fn subscriptions_are_counted_as_in_redis() {
        let mut channels = Channels::default();
        // Session, kind, name, whether the subscription is new, the number of channels and
        // patterns, and the number of shard channels.
        type Step = (u32, Kind, &'static [u8], bool, usize, usize);
        let steps: &[Step] = &[
            (7, Kind::Channel, b"news", true, 1, 0),
            (7, Kind::Channel, b"news", false, 1, 0),
            (7, Kind::Pattern, b"news", true, 2, 0),
            (7, Kind::Pattern, b"n*", true, 3, 0),
            (7, Kind::Shard, b"news", true, 3, 1),
            (7, Kind::Shard, b"news", false, 3, 1),
            (2, Kind::Shard, b"news", true, 0, 1),
            (2, Kind::Channel, b"", true, 1, 1),
            (2, Kind::Channel, b"\0\r\n\xff", true, 2, 1),
        ];
        for &(session, kind, name, new, count, shards) in steps {
            assert_eq!(channels.subscribe(session, kind, name), Ok(new));
            assert_eq!((channels.count(session), channels.shard_count(session)), (count, shards));
            channels.check_invariants();
        }
        assert_eq!(sessions(&channels, Kind::Shard, b"news"), [2, 7]);
        assert_eq!(sessions(&channels, Kind::Channel, b"news"), [7]);
        assert_eq!(
            names(&channels, matching(&channels, b"news").into_iter()),
            [&b"n*"[..], b"news"]
        );
        assert_eq!(names(&channels, matching(&channels, b"nest").into_iter()), [b"n*"]);
        assert_eq!(names(&channels, matching(&channels, b"x").into_iter()), [&b""[..]; 0]);
        assert_eq!(channels.pattern_count(), 2);
        assert_eq!(channels.topics(Kind::Channel).count(), 3);
        for (kind, name, was) in [
            (Kind::Channel, &b"n*"[..], false),
            (Kind::Channel, b"news", true),
            (Kind::Channel, b"news", false),
            (Kind::Shard, b"never", false),
        ] {
            assert_eq!(channels.unsubscribe(7, kind, name), was);
            channels.check_invariants();
        }
        assert!(!channels.unsubscribe(3, Kind::Shard, b"news"));
        assert!(!channels.unsubscribe(1000, Kind::Shard, b"news"));
        assert!(
            !channels.is_subscribed(3)
                && !channels.is_subscribed(1000)
                && channels.is_subscribed(2)
        );
        assert_eq!(channels.topic(Kind::Channel, b"news"), None);
    }

    #[test]
    fn all_subscriptions_of_a_kind_end_in_order_and_other_kinds_stay() {
        let mut channels = Channels::default();
        for name in [b"a", b"b", b"c"] {
            for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
                assert_eq!(channels.subscribe(1, kind, name), Ok(true));
                assert_eq!(channels.subscribe(2, kind, name), Ok(true));
            }
        }
        for (kind, expected) in
            [(Kind::Shard, [2, 1, 0]), (Kind::Channel, [5, 4, 3]), (Kind::Pattern, [2, 1, 0])]
        {
            let mut ended = Vec::new();
            channels
                .unsubscribe_all(1, kind, |name, remaining| ended.push((name.to_vec(), remaining)));
            channels.check_invariants();
            let expected = [b"a", b"b", b"c"].iter().map(|name| name.to_vec()).zip(expected);
            assert_eq!(ended, expected.collect::<Vec<_>>());
            channels.unsubscribe_all(1, kind, |_, _| unreachable!("nothing is left"));
            assert_eq!(sessions(&channels, kind, b"a"), [2]);
        }
        assert!(!channels.is_subscribed(1));
        channels.unsubscribe_all(1000, Kind::Channel, |_, _| unreachable!("never seen"));
        channels.close(1000);
        channels.shrink();
        assert_eq!(channels.count(2), 6, "shrinking ends no subscription");
        channels.close(2);
        channels.check_invariants();
        assert!(channels.bytes() > 0);
        channels.shrink();
        assert_eq!(channels.bytes(), 0);
        channels.check_invariants();
    }

    /// A hash table may double when an entry is replaced, and it never shrinks without a call.
    #[test]
    fn the_memory_of_a_large_sessions_index_is_counted_and_freed() {
        for _ in 0..50 {
            let mut channels = Channels::default();
            for name in 0..112 {
                channels.subscribe(0, Kind::Channel, format!("{name}").as_bytes()).unwrap();
            }
            assert!(channels.unsubscribe(0, Kind::Channel, b"5"));
            channels.check_invariants();
        }
        let mut channels = Channels::default();
        let names: Vec<String> = (0..5000).map(|name| name.to_string()).collect();
        for name in &names {
            channels.subscribe(0, Kind::Channel, name.as_bytes()).unwrap();
        }
        let most = channels.held;
        for name in &names[50..] {
            assert!(channels.unsubscribe(0, Kind::Channel, name.as_bytes()));
        }
        channels.check_invariants();
        assert!(
            channels.held < most / 50,
            "{} of {most} bytes are held for 50 channels",
            channels.held
        );
    }

    #[test]
    fn a_name_one_byte_beyond_the_memory_limit_is_refused() {
        let mut channels = Channels { held_max: 1000, ..Channels::default() };
        assert_eq!(channels.subscribe(0, Kind::Channel, &[b'x'; 1001]), Err(LimitReached::Memory));
        assert_eq!((channels.count(0), channels.bytes_of(0)), (0, 0));
        assert_eq!(channels.subscribe(0, Kind::Channel, &[b'x'; 1000]), Ok(true));
        assert_eq!(channels.subscribe(1, Kind::Channel, b"y"), Err(LimitReached::Memory));
        assert!(channels.unsubscribe(0, Kind::Channel, &[b'x'; 1000]));
        assert_eq!(channels.subscribe(1, Kind::Channel, &[b'y'; 999]), Ok(true));
        channels.check_invariants();
    }

    #[test]
    fn a_name_one_byte_beyond_the_confirmations_limit_is_refused() {
        assert_eq!(CONFIRMATION_FRAMING, 40);
        let names: Vec<Vec<u8>> =
            (0..1065).map(|number| format!("{number:0>452}").into_bytes()).collect();
        let fill = |channels: &mut Channels| {
            for name in &names {
                assert_eq!(channels.subscribe(0, Kind::Channel, name), Ok(true));
            }
        };
        let left = CONFIRMATIONS_MAX - names.len() * (452 + CONFIRMATION_FRAMING);
        for (length, fits) in [(0, true), (1, true), (2, false)] {
            let mut channels = Channels::default();
            fill(&mut channels);
            let name = vec![b'x'; left - CONFIRMATION_FRAMING - 1 + length];
            let expected = if fits { Ok(true) } else { Err(LimitReached::Confirmations) };
            assert_eq!(channels.subscribe(0, Kind::Shard, &name), expected);
            assert_eq!(
                channels.subscribe(0, Kind::Channel, &names[0]),
                Ok(false),
                "an existing subscription is no error"
            );
            assert_eq!(
                channels.subscribe(1, Kind::Shard, &name),
                Ok(true),
                "the limit is per session"
            );
            channels.check_invariants();
            assert!(channels.unsubscribe(0, Kind::Channel, &names[7]));
            assert_eq!(channels.subscribe(0, Kind::Channel, &names[7]), Ok(true));
            channels.unsubscribe_all(0, Kind::Channel, |_, _| ());
            channels.check_invariants();
            fill(&mut channels);
            channels.check_invariants();
        }
    }

    #[test]
    fn a_subscription_beyond_a_limit_is_refused_and_changes_nothing() {
        let mut channels = Channels::new(3);
        for name in [b"a", b"b"] {
            assert_eq!(channels.subscribe(0, Kind::Channel, name), Ok(true));
        }
        assert_eq!(channels.subscribe(0, Kind::Shard, b"a"), Ok(true));
        assert_eq!(channels.subscribe(0, Kind::Shard, b"b"), Err(LimitReached::Channels));
        assert_eq!(channels.subscribe(0, Kind::Channel, b"c"), Err(LimitReached::Channels));
        assert_eq!(
            channels.subscribe(1, Kind::Channel, b"a"),
            Ok(true),
            "an existing channel is not counted again"
        );
        for number in 0..PATTERNS_MAX {
            let session = 2 + (number / PATTERNS_PER_SESSION_MAX) as u32;
            assert_eq!(
                channels.subscribe(session, Kind::Pattern, number.to_string().as_bytes()),
                Ok(true)
            );
        }
        assert_eq!(
            channels.subscribe(2, Kind::Pattern, b"20"),
            Err(LimitReached::PatternsOfSession)
        );
        assert_eq!(channels.subscribe(2, Kind::Pattern, b"0"), Ok(false));
        assert_eq!(channels.subscribe(0, Kind::Pattern, b"new"), Err(LimitReached::Patterns));
        assert_eq!(
            channels.subscribe(0, Kind::Pattern, b"0"),
            Ok(true),
            "an existing pattern is not counted again"
        );
        channels.check_invariants();
        assert!(channels.unsubscribe(0, Kind::Channel, b"b"));
        assert!(channels.unsubscribe(2, Kind::Pattern, b"1"));
        assert_eq!(channels.subscribe(0, Kind::Channel, b"c"), Ok(true));
        assert_eq!(channels.subscribe(2, Kind::Pattern, b"new"), Ok(true));
        channels.check_invariants();
    }

    fn agree(channels: &Channels, model: &Model, session: u32) {
        channels.check_invariants();
        let of = |kind| model.iter().filter(|entry| entry.0 == session && entry.1 == kind).count();
        assert_eq!(channels.count(session), of(Kind::Channel) + of(Kind::Pattern));
        assert_eq!(channels.shard_count(session), of(Kind::Shard));
        assert_eq!(channels.is_subscribed(session), model.iter().any(|entry| entry.0 == session));
        let mut listed = Model::new();
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for (topic, name) in channels.topics(kind) {
                assert_eq!(channels.name(topic), name);
                listed.extend(
                    channels.subscribers(topic).map(|session| (session, kind, name.to_vec())),
                );
            }
        }
        assert_eq!(listed, *model);
    }

    /// Runs random operations on sessions `0..sessions` and topics `0..topics`.
    fn random_run(seed: u64, sessions: u32, topics: u32, operations: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut channels, mut model) = (Channels::default(), Model::new());
        let mut growing = true;
        for _ in 0..operations {
            if random.u32(..200) == 0 {
                growing = !growing;
            }
            let session = random.u32(..sessions);
            let kind = Kind::ALL[random.usize(..3)];
            let name = random.u32(..topics).to_string().into_bytes();
            let entry = (session, kind, name.clone());
            match random.u32(..100) {
                0 => {
                    channels.close(session);
                    model.retain(|entry| entry.0 != session);
                }
                1..3 => {
                    let together =
                        |e: &&(u32, Kind, _)| (e.1 == Kind::Shard) == (kind == Kind::Shard);
                    let mut remaining =
                        model.iter().filter(|e| e.0 == session).filter(together).count();
                    channels.unsubscribe_all(session, kind, |name, left| {
                        remaining -= 1;
                        assert_eq!(left, remaining);
                        assert!(model.remove(&(session, kind, name.to_vec())));
                    });
                    assert!(!model.iter().any(|entry| entry.0 == session && entry.1 == kind));
                }
                3 => channels.shrink(),
                roll if (roll < 75) == growing => match channels.subscribe(session, kind, &name) {
                    Ok(new) => assert_eq!(new, model.insert(entry)),
                    Err(limit) => {
                        assert_eq!(limit, LimitReached::PatternsOfSession);
                        let patterns =
                            model.iter().filter(|e| e.0 == session && e.1 == Kind::Pattern);
                        assert_eq!(patterns.count(), PATTERNS_PER_SESSION_MAX);
                    }
                },
                _ => assert_eq!(channels.unsubscribe(session, kind, &name), model.remove(&entry)),
            }
            agree(&channels, &model, session);
        }
        for session in 0..sessions {
            channels.close(session);
            channels.check_invariants();
        }
        channels.shrink();
        assert_eq!(channels.bytes(), 0);
    }

    #[test]
    fn random_operations_on_channels_agree_with_a_set() {
        for seed in 0..16 {
            random_run(seed, 12, 6, 1000);
        }
        for seed in 16..20 {
            // Two sessions with so many subscriptions that they have an index.
            random_run(seed, 2, 120, 1500);
            // Many subscribers of two topics.
            random_run(seed, 150, 2, 1500);
        }
    }

    #[test]
    fn a_subscriber_of_one_channel_costs_at_most_forty_bytes() {
        let mut worst = 0;
        let mut channels = Channels::default();
        for session in 0..15_000 {
            assert_eq!(channels.subscribe(session, Kind::Channel, b"news"), Ok(true));
            if session >= 1000 {
                worst = worst.max(channels.bytes() / (session as usize + 1));
            }
        }
        let each = channels.bytes() as f64 / 15_000.0;
        println!("{each:.1} bytes each, {worst} at worst on the way");
        assert!(each <= 40.0 && worst <= 40, "{each} each, {worst} at worst");
    }

    #[test]
    fn lists_free_memory_when_they_lose_entries() {
        let mut channels = Channels::default();
        for number in 0..10_000u32 {
            let name = number.to_string();
            assert_eq!(channels.subscribe(0, Kind::Channel, name.as_bytes()), Ok(true));
            assert_eq!(channels.subscribe(number, Kind::Shard, b"news"), Ok(true));
        }
        channels.check_invariants();
        let full = channels.held;
        for number in 5..10_000u32 {
            assert!(channels.unsubscribe(0, Kind::Channel, number.to_string().as_bytes()));
            assert!(channels.unsubscribe(number, Kind::Shard, b"news"));
        }
        channels.check_invariants();
        assert!(channels.held < full / 100, "{} of {full}", channels.held);
    }

    #[test]
    fn the_memory_of_channels_is_that_of_all_its_tables() {
        let mut channels = Channels::default();
        assert_eq!(channels.bytes(), 0);
        for number in 0..LARGE_FROM {
            let name = format!("name {number}");
            channels.subscribe(7, Kind::Channel, name.as_bytes()).unwrap();
            channels.subscribe(3, Kind::Pattern, b"n*").unwrap();
        }
        let tables = [
            channels.sessions.capacity() * 16,
            channels.topics.capacity() * (size_of::<Topic>() + 8),
            channels.patterns.capacity() * 4,
            table_bytes(&channels.large),
            channels.names.iter().map(table_bytes).sum(),
            channels.held,
        ];
        assert!(tables.iter().all(|bytes| *bytes > 0), "{tables:?}");
        assert_eq!(channels.bytes(), tables.iter().sum::<usize>());
        [3, 7].iter().for_each(|session| channels.close(*session));
        channels.shrink();
        assert_eq!(channels.bytes(), 0);
    }
}
