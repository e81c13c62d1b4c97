//! Who is subscribed to what, in both directions: sessions by topic, topics by session.
//!
//! A topic is a channel, a pattern or a shard channel that has subscribers; with its last one it goes. Each list
//! remembers where its other half stands in the other list, so that a subscription is removed in O(1): the last
//! entry of the list takes the gap, and its own other half is told. Closing a session costs its own subscriptions.
//!
//! Most sessions have one subscription. It lies inline in the table of sessions: 16 bytes there and 8 in the
//! topic's list. Lists grow by an eighth, not to the double, because there may be millions of entries.
//!
//! Names come from peers, so their tables hash with std's keyed SipHash. No order depends on a hash table:
//! two runs with the same input give the same output.

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;

use slab::Slab;

use super::glob;
use crate::limits::{
    CHANNEL_NAME_MAX, CHANNELS_MAX, CONFIRMATIONS_MAX, HELD_MAX, PATTERNS_MAX, PATTERNS_PER_SESSION_MAX,
};

use super::subscriptions::{LARGE_FROM, Large, Subscription, Subscriptions, push, release, release_table, table_bytes};

pub use super::subscriptions::{Kind, KindCounts, LimitReached, TopicId};

// What a session with fewer subscriptions owes for their end need not be added up.
const _: () = assert!(LARGE_FROM * (CONFIRMATION_FRAMING + CHANNEL_NAME_MAX) <= CONFIRMATIONS_MAX);

/// Bytes of a confirmation besides the name: `punsubscribe`, the longest, of a name of four digits' length, with five digits remaining.
const CONFIRMATION_FRAMING: usize = b"*3\r\n$12\r\npunsubscribe\r\n$4096\r\n\r\n:65535\r\n".len();

/// The other half, kept with the topic: the session, and the place among its subscriptions.
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
    /// What [`Channels::queue`] was told.
    queue: u32,
    subscribers: Vec<Subscriber>,
}

/// A topic to which nothing is undelivered.
const NO_QUEUE: u32 = u32::MAX;

impl Topic {
    /// What it holds outside the table of topics. An `Rc` has two counters before the bytes.
    fn bytes(&self) -> usize {
        2 * size_of::<usize>() + self.name.len() + self.subscribers.capacity() * size_of::<Subscriber>()
    }
}

pub struct Channels {
    /// By session. Grows with the highest number that ever subscribed.
    sessions: Vec<Subscriptions>,
    /// What is known besides of those with [`LARGE_FROM`] subscriptions or more.
    large: HashMap<u32, Large>,
    topics: Slab<Topic>,
    /// By kind: the place of each name in `topics`.
    names: [HashMap<Rc<[u8]>, u32>; Kind::ALL.len()],
    /// All patterns, for matching.
    patterns: Vec<TopicId>,
    channels_max: usize,
    /// [`HELD_MAX`], but in tests.
    held_max: usize,
    /// Queues of topics that have gone: see [`Self::take_orphan`].
    orphans: Vec<u32>,
    /// What topics and sessions hold outside their tables: each of their `bytes()`, summed as they change.
    held: usize,
}

impl Default for Channels {
    fn default() -> Channels {
        Channels::new(CHANNELS_MAX)
    }
}

impl Channels {
    /// `channels_max`: different channels and shard channels together.
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

    /// Returns whether the subscription is new.
    pub fn subscribe(&mut self, session: u32, kind: Kind, name: &[u8]) -> Result<bool, LimitReached> {
        let known = self.topic(kind, name);
        if known.is_some_and(|topic| self.slot_of(session, topic).is_some()) {
            return Ok(false);
        }
        if self.held + name.len() > self.held_max {
            return Err(LimitReached::Memory);
        }
        let confirmations = CONFIRMATION_FRAMING + name.len();
        if self.len(session) + 1 >= LARGE_FROM && self.confirmations(session) + confirmations > CONFIRMATIONS_MAX {
            return Err(LimitReached::Confirmations);
        }
        if kind == Kind::Pattern && self.counts(session)[kind as usize] as usize >= PATTERNS_PER_SESSION_MAX {
            return Err(LimitReached::PatternsOfSession);
        }
        let topic = match known {
            Some(topic) => topic,
            None => self.create(kind, name)?,
        };
        self.attach(session, topic);
        Ok(true)
    }

    /// Returns whether there was such a subscription.
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

    /// Ends all subscriptions of one kind. `each` is given the name, and what Redis's reply counts as remaining: shard
    /// channels for a shard channel, channels and patterns together for the others. Not called if there are none.
    pub fn unsubscribe_all(&mut self, session: u32, kind: Kind, mut each: impl FnMut(&[u8], usize)) {
        if self.counts(session)[kind as usize] == 0 {
            return;
        }
        let mut remaining = if kind == Kind::Shard { self.shard_count(session) } else { self.count(session) };
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

    /// Ends all subscriptions of a session, MONITOR included. Costs their number.
    pub fn close(&mut self, session: u32) {
        for subscription in self.take(session).iter() {
            self.detach(subscription);
        }
    }

    /// Channels and patterns of a session, which Redis's replies count together.
    pub fn count(&self, session: u32) -> usize {
        let counts = self.counts(session);
        (counts[Kind::Channel as usize] + counts[Kind::Pattern as usize]) as usize
    }

    /// Shard channels of a session, which Redis's replies count apart.
    pub fn shard_count(&self, session: u32) -> usize {
        self.counts(session)[Kind::Shard as usize] as usize
    }

    /// Whether a session has subscriptions of any kind, MONITOR included.
    pub fn listens(&self, session: u32) -> bool {
        self.len(session) > 0
    }

    /// Whether a session has subscriptions in the words of Redis.
    pub fn is_subscribed(&self, session: u32) -> bool {
        match self.len(session) {
            0 => false,
            1 => self.sessions[session as usize].iter().all(|only| only.topic.kind() != Kind::Feed),
            _ => true,
        }
    }

    /// Subscriptions of a session, of all kinds together.
    pub fn len(&self, session: u32) -> usize {
        self.sessions.get(session as usize).map_or(0, Subscriptions::len)
    }

    /// The topics that a session is subscribed to.
    pub fn topics_of(&self, session: u32) -> impl Iterator<Item = TopicId> {
        let own = self.sessions.get(session as usize);
        own.into_iter().flat_map(Subscriptions::iter).map(|subscription| subscription.topic)
    }

    /// Whether a session is subscribed to a topic.
    pub fn is_member(&self, session: u32, topic: TopicId) -> bool {
        self.slot_of(session, topic).is_some()
    }

    /// The topic of this very name, if anybody is subscribed to it.
    pub fn topic(&self, kind: Kind, name: &[u8]) -> Option<TopicId> {
        self.names[kind as usize].get(name).map(|&index| TopicId::new(kind, index as usize))
    }

    pub fn name(&self, topic: TopicId) -> &[u8] {
        &self.topics[topic.index()].name
    }

    /// The subscriber at a place of the topic's list.
    pub fn subscriber(&self, topic: TopicId, place: usize) -> Option<u32> {
        self.topics[topic.index()].subscribers.get(place).map(|subscriber| subscriber.session)
    }

    /// What fan-out keeps of a topic to which messages are undelivered.
    pub fn queue(&self, topic: TopicId) -> Option<u32> {
        Some(self.topics[topic.index()].queue).filter(|queue| *queue != NO_QUEUE)
    }

    pub fn set_queue(&mut self, topic: TopicId, queue: Option<u32>) {
        self.topics[topic.index()].queue = queue.unwrap_or(NO_QUEUE);
    }

    /// The queue of a topic that has gone with its last subscriber, for fan-out to forget.
    pub fn take_orphan(&mut self) -> Option<u32> {
        self.orphans.pop()
    }

    /// The sessions subscribed to a topic; never none.
    pub fn subscribers(&self, topic: TopicId) -> impl ExactSizeIterator<Item = u32> {
        self.topics[topic.index()].subscribers.iter().map(|subscriber| subscriber.session)
    }

    /// Adds the patterns that a channel's name matches to `found`, and the steps that took to `steps`. Stops at `steps_max`; whether all
    /// have been looked at.
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

    /// Every topic of a kind. Costs the number of topics of all kinds.
    pub fn topics(&self, kind: Kind) -> impl Iterator<Item = (TopicId, &[u8])> {
        let of_kind = self.topics.iter().filter(move |(_, topic)| topic.kind == kind);
        of_kind.map(move |(index, topic)| (TopicId::new(kind, index), &*topic.name))
    }

    /// Topics of all kinds.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Different patterns, all sessions together.
    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// Memory held, in bytes, without the allocator's own. Hash tables are estimated from
    /// their capacity. O(1).
    pub fn bytes(&self) -> usize {
        // The slab marks each of its entries as taken or free: at most a word.
        let topics = self.topics.capacity() * (size_of::<Topic>() + size_of::<usize>());
        let sessions = self.sessions.capacity() * size_of::<Subscriptions>();
        let large = table_bytes(&self.large);
        let names: usize = self.names.iter().map(table_bytes).sum();
        sessions + large + topics + names + self.patterns.capacity() * size_of::<TopicId>() + self.held
    }

    /// Gives all memory back if nobody is subscribed. Lists of topics and sessions do so on their own.
    pub fn shrink(&mut self) {
        if self.topics.is_empty() {
            *self = Channels { orphans: mem::take(&mut self.orphans), ..Channels::new(self.channels_max) };
        }
    }

    /// What a session's subscriptions take up, in bytes: its half, and its places in the topics' lists.
    pub fn bytes_of(&self, session: u32) -> usize {
        let Some(session) = self.sessions.get(session as usize) else { return 0 };
        size_of::<Subscriptions>() + session.bytes() + session.len() * size_of::<Subscriber>()
    }

    /// Subscriptions of a session by [`Kind`].
    pub fn counts(&self, session: u32) -> KindCounts {
        match self.large(session) {
            Some(large) => large.counts,
            None => self.sessions.get(session as usize).map_or(KindCounts::default(), Subscriptions::counts),
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

    /// A new topic, for a first subscriber to be attached at once.
    fn create(&mut self, kind: Kind, name: &[u8]) -> Result<TopicId, LimitReached> {
        let channels = self.topics.len() - self.patterns.len() - self.names[Kind::Feed as usize].len();
        match kind {
            Kind::Pattern if self.patterns.len() >= PATTERNS_MAX => return Err(LimitReached::Patterns),
            Kind::Channel | Kind::Shard if channels >= self.channels_max => return Err(LimitReached::Channels),
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
        let slot =
            self.join(session, Subscription { topic, position: self.topics[topic.index()].subscribers.len() as u32 });
        let list = &mut self.topics[topic.index()];
        self.held -= list.bytes();
        push(&mut list.subscribers, Subscriber { session, slot });
        self.held += list.bytes();
    }

    /// Adds the session's half of a subscription; returns its slot.
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

    /// Bytes that confirm the end of all subscriptions of a session, or somewhat more.
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

    /// Takes all subscriptions of a session out of its half, for each to be detached or put back.
    fn take(&mut self, session: u32) -> Subscriptions {
        self.forget_large(session);
        let taken = self.sessions.get_mut(session as usize).map(mem::take).unwrap_or_default();
        self.held -= taken.bytes();
        taken
    }

    fn put_back(&mut self, session: u32, subscription: Subscription) {
        let slot = self.join(session, subscription);
        self.topics[subscription.topic.index()].subscribers[subscription.position as usize].slot = slot;
    }

    /// Removes the topic's half of a subscription whose other half is gone already, and an emptied topic.
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

    /// Membership agrees in both directions, and so do the counts. Panics otherwise; for tests and the simulator.
    pub fn check_invariants(&self) {
        let (mut halves, mut held) = (0, 0);
        for (index, topic) in &self.topics {
            let id = TopicId::new(topic.kind, index);
            assert!(!topic.subscribers.is_empty(), "an empty topic");
            assert_eq!(self.topic(topic.kind, &topic.name), Some(id), "the name leads elsewhere");
            for (subscriber, position) in topic.subscribers.iter().zip(0..) {
                let other = self.sessions[subscriber.session as usize].iter().nth(subscriber.slot as usize);
                assert_eq!(other, Some(Subscription { topic: id, position }), "the session's half");
            }
            halves += topic.subscribers.len();
            held += topic.bytes();
        }
        for (own, session) in self.sessions.iter().zip(0..) {
            let mut counts = KindCounts::default();
            for (subscription, slot) in own.iter().zip(0..) {
                let other = self.topics[subscription.topic.index()].subscribers[subscription.position as usize];
                assert_eq!(other, Subscriber { session, slot }, "the topic's half");
                assert_eq!(self.slot_of(session, subscription.topic), Some(slot), "the index, or a topic twice");
                counts[subscription.topic.kind() as usize] += 1;
            }
            assert_eq!(counts, self.counts(session));
            let confirmations: usize = self.topics_of(session).map(|topic| self.confirmation(topic)).sum();
            assert_eq!(confirmations, self.confirmations(session));
            let is_large = self.large.contains_key(&session);
            assert!(if is_large { own.len() >= LARGE_FROM / 2 } else { own.len() < LARGE_FROM });
            halves -= own.len();
            held += own.bytes();
        }
        assert_eq!(halves, 0, "sessions and topics count the same");
        assert_eq!(self.names.iter().map(HashMap::len).sum::<usize>(), self.topics.len());
        assert_eq!(self.patterns.len(), self.names[Kind::Pattern as usize].len());
        assert!(self.patterns.iter().all(|pattern| self.topics[pattern.index()].kind == Kind::Pattern));
        held += self.large.values().map(|large| table_bytes(&large.index)).sum::<usize>();
        assert_eq!(held, self.held, "the running count of memory");
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
        let mut sessions: Vec<_> =
            channels.topic(kind, name).map_or(Vec::new(), |topic| channels.subscribers(topic).collect());
        sessions.sort();
        sessions
    }

    #[test]
    fn subscriptions_are_counted_as_redis_does() {
        let mut channels = Channels::default();
        // Session, kind, name; whether it is new; channels and patterns after it; shard channels after it.
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
        assert_eq!(names(&channels, matching(&channels, b"news").into_iter()), [&b"n*"[..], b"news"]);
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
        assert!(!channels.is_subscribed(3) && !channels.is_subscribed(1000) && channels.is_subscribed(2));
        assert_eq!(channels.topic(Kind::Channel, b"news"), None);
    }

    #[test]
    fn ending_all_of_a_kind_goes_in_order_and_leaves_the_others() {
        let mut channels = Channels::default();
        for name in [b"a", b"b", b"c"] {
            for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
                assert_eq!(channels.subscribe(1, kind, name), Ok(true));
                assert_eq!(channels.subscribe(2, kind, name), Ok(true));
            }
        }
        for (kind, expected) in [(Kind::Shard, [2, 1, 0]), (Kind::Channel, [5, 4, 3]), (Kind::Pattern, [2, 1, 0])] {
            let mut ended = Vec::new();
            channels.unsubscribe_all(1, kind, |name, remaining| ended.push((name.to_vec(), remaining)));
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
        assert_eq!(channels.count(2), 6, "shrinking takes nothing from the subscribed");
        channels.close(2);
        channels.check_invariants();
        assert!(channels.bytes() > 0);
        channels.shrink();
        assert_eq!(channels.bytes(), 0);
        channels.check_invariants();
    }

    /// A hash table may double when an entry is replaced in it, and keeps its memory until it is told.
    #[test]
    fn the_index_of_a_large_session_is_counted_and_given_back() {
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
        assert!(channels.held < most / 50, "{} of {most} bytes are held for 50 channels", channels.held);
    }

    #[test]
    fn memory_held_at_its_limit_one_below_and_one_above() {
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
    fn what_ending_all_subscriptions_owes_at_its_limit_one_below_and_one_above() {
        assert_eq!(CONFIRMATION_FRAMING, 40);
        let names: Vec<Vec<u8>> = (0..1065).map(|number| format!("{number:0>452}").into_bytes()).collect();
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
            assert_eq!(channels.subscribe(0, Kind::Channel, &names[0]), Ok(false), "it has this one");
            assert_eq!(channels.subscribe(1, Kind::Shard, &name), Ok(true), "others have their own limit");
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
    fn limits_refuse_and_change_nothing() {
        let mut channels = Channels::new(3);
        for name in [b"a", b"b"] {
            assert_eq!(channels.subscribe(0, Kind::Channel, name), Ok(true));
        }
        assert_eq!(channels.subscribe(0, Kind::Shard, b"a"), Ok(true));
        assert_eq!(channels.subscribe(0, Kind::Shard, b"b"), Err(LimitReached::Channels));
        assert_eq!(channels.subscribe(0, Kind::Channel, b"c"), Err(LimitReached::Channels));
        assert_eq!(channels.subscribe(1, Kind::Channel, b"a"), Ok(true), "a known channel is no more");
        for number in 0..PATTERNS_MAX {
            let session = 2 + (number / PATTERNS_PER_SESSION_MAX) as u32;
            assert_eq!(channels.subscribe(session, Kind::Pattern, number.to_string().as_bytes()), Ok(true));
        }
        assert_eq!(channels.subscribe(2, Kind::Pattern, b"20"), Err(LimitReached::PatternsOfSession));
        assert_eq!(channels.subscribe(2, Kind::Pattern, b"0"), Ok(false));
        assert_eq!(channels.subscribe(0, Kind::Pattern, b"new"), Err(LimitReached::Patterns));
        assert_eq!(channels.subscribe(0, Kind::Pattern, b"0"), Ok(true), "a known pattern is no more");
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
                listed.extend(channels.subscribers(topic).map(|session| (session, kind, name.to_vec())));
            }
        }
        assert_eq!(listed, *model);
    }

    /// One run: `sessions` and `topics` are the ranges that numbers are drawn from.
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
                    let together = |e: &&(u32, Kind, _)| (e.1 == Kind::Shard) == (kind == Kind::Shard);
                    let mut remaining = model.iter().filter(|e| e.0 == session).filter(together).count();
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
                        let patterns = model.iter().filter(|e| e.0 == session && e.1 == Kind::Pattern);
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
    fn random_operations_agree_with_a_set() {
        for seed in 0..16 {
            random_run(seed, 12, 6, 1000);
        }
        for seed in 16..20 {
            // Few sessions with many subscriptions: these have an index.
            random_run(seed, 2, 120, 1500);
            // Many subscribers of few topics.
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
    fn lists_give_memory_back_when_they_have_shrunk() {
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
}
