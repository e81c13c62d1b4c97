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
//! [`Shares`] bound the part of all this that one source may hold.
//!
//! Peers choose the names, so the tables of names use std's keyed SipHash. No order depends on a
//! hash table, so two runs with the same input give the same output.

mod invariants;
mod lookups;

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;

use slab::Slab;

use super::glob::PatternShape;
use super::patterns::Patterns;
use super::shares::{Amount, SessionSources, Shares, allows};
use super::subscriptions::{
    LARGE_FROM, Large, Subscription, Subscriptions, push, release, release_table, table_bytes,
};
use crate::limits::{FEW_SUBSCRIPTIONS, SUBSCRIPTION_BYTES, TOPIC_BYTES};

pub use super::subscriptions::{Kind, KindCounts, LimitReached, Refused, TopicId, TopicLimits};

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
    /// The subscriber whose source is charged for the topic.
    payer: u32,
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
#[derive(Default)]
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
    patterns: Patterns,
    /// The bytes and topics that each source is charged for.
    shares: Shares,
    /// Queues of removed topics: see [`Self::take_orphan`].
    orphans: Vec<u32>,
    /// The topics that came and went, for the broker. `None`: nobody asks.
    changes: Option<Vec<TopicChange>>,
    /// Memory of topics and sessions outside their tables, in bytes: a running sum.
    held: usize,
}

/// A topic has got its first subscriber, or lost its last one.
pub struct TopicChange {
    pub kind: Kind,
    pub name: Rc<[u8]>,
    pub has_subscribers: bool,
}

/// Charged to a session's source for each subscription beyond the first few.
const SUBSCRIPTION: Amount =
    Amount { bytes: SUBSCRIPTION_BYTES, channels: 0, indexed: 0, others: 0 };

impl Channels {
    /// Subscribes a session to a topic. Returns true if the subscription is new.
    pub fn subscribe(
        &mut self,
        sources: &dyn SessionSources,
        session: u32,
        kind: Kind,
        name: &[u8],
        limits: &TopicLimits,
    ) -> Result<bool, Refused> {
        let known = self.topic(kind, name);
        if known.is_some_and(|topic| self.slot_of(session, topic).is_some()) {
            return Ok(false);
        }
        if kind == Kind::Pattern
            && self.counts(session)[kind as usize] as usize >= limits.patterns_per_session
        {
            return Err(Refused { limit: LimitReached::PatternsOfSession, by_share: false });
        }
        let mut cost = match known {
            Some(_) => Amount::default(),
            None => price(kind, name),
        };
        if self.len(session) >= FEW_SUBSCRIPTIONS {
            cost.bytes += SUBSCRIPTION_BYTES;
        }
        self.admit(sources, session, &cost, limits)?;
        let topic = known.unwrap_or_else(|| self.create(sources, session, kind, name));
        self.attach(sources, session, topic);
        Ok(true)
    }

    /// Refuses what goes beyond a limit, or beyond the share of the session's source.
    fn admit(
        &self,
        sources: &dyn SessionSources,
        session: u32,
        cost: &Amount,
        limits: &TopicLimits,
    ) -> Result<(), Refused> {
        let names = |kind: Kind| self.names[kind as usize].len();
        let channels = names(Kind::Channel) + names(Kind::Shard);
        let wants = |own: u32, cost: u32, total: usize, max: usize, limit: LimitReached| {
            (own as usize, cost as usize, total, max, limit)
        };
        // A few subscriptions to topics of others cost nothing, and need no look at the shares.
        let own = match *cost == Amount::default() {
            true => Amount::default(),
            false => self.shares.of(sources.source(session)),
        };
        let (indexed, others) = (self.patterns.indexed(), self.patterns.others());
        let memory = (own.bytes, cost.bytes, self.used(), limits.bytes, LimitReached::Memory);
        let resources = [
            wants(own.channels, cost.channels, channels, limits.channels, LimitReached::Channels),
            wants(own.indexed, cost.indexed, indexed, limits.patterns, LimitReached::Patterns),
            wants(
                own.others,
                cost.others,
                others,
                limits.other_patterns,
                LimitReached::OtherPatterns,
            ),
            memory,
        ];
        for (own, cost, total, max, limit) in resources.into_iter().filter(|wants| wants.1 > 0) {
            if total.saturating_add(cost) > max {
                return Err(Refused { limit, by_share: false });
            }
            if !limits.is_trusted && !allows(own, cost, total, max) {
                return Err(Refused { limit, by_share: true });
            }
        }
        let fits =
            self.used() <= limits.bytes && self.topics.len() < (1 << TopicId::INDEX_BITS) - 1;
        let limit = LimitReached::Memory;
        if fits { Ok(()) } else { Err(Refused { limit, by_share: false }) }
    }

    /// Unsubscribes a session from a topic. Returns true if it was subscribed.
    pub fn unsubscribe(
        &mut self,
        sources: &dyn SessionSources,
        session: u32,
        kind: Kind,
        name: &[u8],
    ) -> bool {
        let slot = self.topic(kind, name).and_then(|topic| self.slot_of(session, topic));
        slot.is_some_and(|slot| {
            self.leave(sources, session, slot);
            true
        })
    }

    /// Looks at up to `most` subscriptions of a session from the last one before `next` on, and
    /// ends those of a kind. Calls `each` with the name and the remaining count of Redis's reply.
    /// Moves `next`. Returns false when no subscription of the kind is left.
    pub fn unsubscribe_some(
        &mut self,
        sources: &dyn SessionSources,
        session: u32,
        kind: Kind,
        next: &mut u32,
        most: usize,
        mut each: impl FnMut(&[u8], usize),
    ) -> bool {
        *next = (*next).min(self.len(session) as u32);
        for _ in 0..most.min(*next as usize) {
            *next -= 1;
            let Subscription { topic, .. } = *self.sessions[session as usize].at_mut(*next);
            if topic.kind() == kind {
                let name = self.topics[topic.index()].name.clone();
                // The last subscription moves into the gap. The walk has passed it already.
                self.leave(sources, session, *next);
                each(&name, self.count_of(session, kind));
            }
        }
        *next > 0 && self.counts(session)[kind as usize] > 0
    }

    /// Ends up to `most` subscriptions of a session, MONITOR included. Returns true if some are
    /// left.
    pub fn close_some(&mut self, sources: &dyn SessionSources, session: u32, most: usize) -> bool {
        for slot in (0..self.len(session) as u32).rev().take(most) {
            self.leave(sources, session, slot);
        }
        self.listens(session)
    }

    /// Ends all subscriptions of a session, MONITOR included.
    pub fn close(&mut self, sources: &dyn SessionSources, session: u32) {
        self.close_some(sources, session, usize::MAX);
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

    /// Notes each topic that comes or goes from now on, for [`Self::take_changes`].
    pub fn note_changes(&mut self) {
        self.changes = Some(Vec::new());
    }

    /// Takes the topics that came and went since the last call, in that order.
    pub fn take_changes(&mut self) -> Vec<TopicChange> {
        self.changes.as_mut().map(mem::take).unwrap_or_default()
    }

    fn note_change(&mut self, kind: Kind, name: &Rc<[u8]>, has_subscribers: bool) {
        if let Some(changes) = &mut self.changes {
            changes.push(TopicChange { kind, name: name.clone(), has_subscribers });
        }
    }

    /// Returns the memory held, in bytes, without the allocator's overhead. Hash tables are
    /// estimated from their capacity. O(1).
    pub fn bytes(&self) -> usize {
        // The slab marks each entry as taken or free in at most one word.
        let topics = self.topics.capacity() * (size_of::<Topic>() + size_of::<usize>());
        let sessions = self.sessions.capacity() * size_of::<Subscriptions>();
        let large = table_bytes(&self.large);
        let names: usize = self.names.iter().map(table_bytes).sum();
        let changes = self.changes.as_ref().map_or(0, Vec::capacity) * size_of::<TopicChange>();
        let own = sessions + large + topics + names + changes;
        own + self.patterns.bytes() + self.shares.bytes() + self.held
    }

    /// Frees all memory if there are no subscriptions. The lists of subscriptions and subscribers
    /// shrink whenever they lose entries.
    pub fn shrink(&mut self) {
        if self.topics.is_empty() {
            let (orphans, changes) = (mem::take(&mut self.orphans), self.changes.take());
            *self = Channels { orphans, changes, ..Channels::default() };
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

    /// Returns the memory that counts against the limit, in bytes.
    fn used(&self) -> usize {
        self.held + self.topics.len() * size_of::<(Topic, Rc<[u8]>, u32)>()
    }

    /// Creates a topic without subscribers. The caller attaches the first one at once.
    fn create(
        &mut self,
        sources: &dyn SessionSources,
        session: u32,
        kind: Kind,
        name: &[u8],
    ) -> TopicId {
        self.shares.charge(sources.source(session), &price(kind, name));
        let name: Rc<[u8]> = name.into();
        self.note_change(kind, &name, true);
        let topic = Topic {
            name: name.clone(),
            kind,
            queue: NO_QUEUE,
            payer: session,
            subscribers: Vec::new(),
        };
        self.held += topic.bytes();
        let index = self.topics.insert(topic);
        let topic = TopicId::new(kind, index);
        if kind == Kind::Pattern {
            self.patterns.insert(&name, topic);
        }
        self.names[kind as usize].insert(name, index as u32);
        topic
    }

    fn attach(&mut self, sources: &dyn SessionSources, session: u32, topic: TopicId) {
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
        if slot as usize >= FEW_SUBSCRIPTIONS {
            self.shares.charge(sources.source(session), &SUBSCRIPTION);
        }
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
            let before = table_bytes(&large.index);
            large.note(subscription.topic, slot);
            self.held = self.held - before + table_bytes(&large.index);
        } else if length >= LARGE_FROM {
            let mut large = Large::default();
            for (subscription, slot) in self.sessions[session as usize].iter().zip(0..) {
                large.note(subscription.topic, slot);
            }
            self.held += table_bytes(&large.index);
            self.large.insert(session, large);
        }
        slot
    }

    fn forget_large(&mut self, session: u32) {
        if let Some(large) = self.large.remove(&session) {
            self.held -= table_bytes(&large.index);
        }
    }

    /// Removes the subscription in a slot of a session.
    fn leave(&mut self, sources: &dyn SessionSources, session: u32, slot: u32) {
        let own = &mut self.sessions[session as usize];
        self.held -= own.bytes();
        let (removed, moved) = own.swap_remove(slot);
        self.held += own.bytes();
        let length = own.len();
        if length + 1 >= LARGE_FROM / 2
            && let Some(large) = self.large.get_mut(&session)
        {
            self.held -= table_bytes(&large.index);
            large.index.remove(&removed.topic);
            large.index.extend(moved.map(|moved| (moved.topic, slot)));
            release_table(&mut large.index);
            self.held += table_bytes(&large.index);
            large.counts[removed.topic.kind() as usize] -= 1;
            if length < LARGE_FROM / 2 {
                self.forget_large(session);
            }
        }
        if let Some(moved) = moved {
            self.topics[moved.topic.index()].subscribers[moved.position as usize].slot = slot;
        }
        if length >= FEW_SUBSCRIPTIONS {
            self.shares.refund(sources.source(session), &SUBSCRIPTION);
        }
        self.detach(sources, session, removed);
    }

    /// Removes the topic's half of a subscription, after the session's half, and an emptied topic.
    fn detach(&mut self, sources: &dyn SessionSources, session: u32, subscription: Subscription) {
        let Subscription { topic, position } = subscription;
        let list = &mut self.topics[topic.index()];
        self.held -= list.bytes();
        list.subscribers.swap_remove(position as usize);
        release(&mut list.subscribers);
        self.held += list.bytes();
        if let Some(moved) = list.subscribers.get(position as usize) {
            self.sessions[moved.session as usize].at_mut(moved.slot).position = position;
        }
        let Some(next) = list.subscribers.first().map(|subscriber| subscriber.session) else {
            return self.remove(sources, topic);
        };
        if list.payer == session {
            list.payer = next;
            let [from, to] = [session, next].map(|session| sources.source(session));
            if from != to {
                let price = price(list.kind, &list.name);
                self.shares.refund(from, &price);
                self.shares.charge(to, &price);
            }
        }
    }

    fn remove(&mut self, sources: &dyn SessionSources, topic: TopicId) {
        let removed = self.topics.remove(topic.index());
        self.held -= removed.bytes();
        self.orphans.extend(Some(removed.queue).filter(|queue| *queue != NO_QUEUE));
        self.note_change(removed.kind, &removed.name, false);
        let names = &mut self.names[removed.kind as usize];
        names.remove(&removed.name);
        release_table(names);
        if removed.kind == Kind::Pattern {
            self.patterns.remove(&removed.name, topic);
        }
        let price = price(removed.kind, &removed.name);
        self.shares.refund(sources.source(removed.payer), &price);
    }
}

/// Returns what a topic is charged.
fn price(kind: Kind, name: &[u8]) -> Amount {
    let bytes = TOPIC_BYTES + name.len();
    let (channels, indexed, others) = match kind {
        Kind::Channel | Kind::Shard => (1, 0, 0),
        Kind::Pattern if PatternShape::of(name) == PatternShape::Other => (0, 0, 1),
        Kind::Pattern => (0, 1, 0),
        Kind::Feed => (0, 0, 0),
    };
    Amount { bytes, channels, indexed, others }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Tick;
    use crate::hub::sessions::Sessions;
    use crate::service::ConnectionId;

    use crate::limits::Limits;

    type Model = BTreeSet<(u32, Kind, Vec<u8>)>;

    /// Returns a table without sessions. All sessions then have the same source.
    fn alone() -> Sessions {
        Sessions::new(0)
    }

    fn limits() -> TopicLimits {
        TopicLimits { is_trusted: true, ..TopicLimits::of(&Limits::default()) }
    }

    fn subscribe(
        channels: &mut Channels,
        session: u32,
        kind: Kind,
        name: &[u8],
    ) -> Result<bool, Refused> {
        channels.subscribe(&alone(), session, kind, name, &limits())
    }

    fn unsubscribe(channels: &mut Channels, session: u32, kind: Kind, name: &[u8]) -> bool {
        channels.unsubscribe(&alone(), session, kind, name)
    }

    fn names(channels: &Channels, topics: impl Iterator<Item = TopicId>) -> Vec<&[u8]> {
        let mut names: Vec<_> = topics.map(|topic| channels.name(topic)).collect();
        names.sort();
        names
    }

    fn matching(channels: &Channels, channel: &[u8]) -> Vec<TopicId> {
        let mut found = Vec::new();
        channels.match_patterns(channel, &mut found, usize::MAX).unwrap();
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
            assert_eq!(subscribe(&mut channels, session, kind, name), Ok(new));
            assert_eq!((channels.count(session), channels.shard_count(session)), (count, shards));
            channels.check_invariants(&alone());
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
            assert_eq!(unsubscribe(&mut channels, 7, kind, name), was);
            channels.check_invariants(&alone());
        }
        assert!(!unsubscribe(&mut channels, 3, Kind::Shard, b"news"));
        assert!(!unsubscribe(&mut channels, 1000, Kind::Shard, b"news"));
        assert!(
            !channels.is_subscribed(3)
                && !channels.is_subscribed(1000)
                && channels.is_subscribed(2)
        );
        assert_eq!(channels.topic(Kind::Channel, b"news"), None);
    }

    /// Ends all subscriptions of a kind, `most` at a time. Returns their names and the remaining
    /// counts.
    fn end_all(
        channels: &mut Channels,
        session: u32,
        kind: Kind,
        most: usize,
    ) -> Vec<(Vec<u8>, usize)> {
        let (mut ended, mut next) = (Vec::new(), u32::MAX);
        while channels.unsubscribe_some(
            &alone(),
            session,
            kind,
            &mut next,
            most,
            |name, remaining| {
                ended.push((name.to_vec(), remaining));
            },
        ) {
            channels.check_invariants(&alone());
        }
        channels.check_invariants(&alone());
        ended
    }

    #[test]
    fn all_subscriptions_of_a_kind_end_the_latest_first_and_other_kinds_stay() {
        for most in [1, 2, 5, usize::MAX] {
            let mut channels = Channels::default();
            for name in [b"a", b"b", b"c"] {
                for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
                    assert_eq!(subscribe(&mut channels, 1, kind, name), Ok(true));
                    assert_eq!(subscribe(&mut channels, 2, kind, name), Ok(true));
                }
            }
            for (kind, expected) in
                [(Kind::Shard, [2, 1, 0]), (Kind::Channel, [5, 4, 3]), (Kind::Pattern, [2, 1, 0])]
            {
                let ended = end_all(&mut channels, 1, kind, most);
                let counts: Vec<usize> = ended.iter().map(|(_, count)| *count).collect();
                let mut names: Vec<Vec<u8>> = ended.into_iter().map(|(name, _)| name).collect();
                names.sort();
                assert_eq!(
                    (counts, names),
                    (expected.to_vec(), vec![vec![b'a'], vec![b'b'], vec![b'c']])
                );
                assert_eq!(end_all(&mut channels, 1, kind, most), [], "nothing is left");
                assert_eq!(sessions(&channels, kind, b"a"), [2]);
            }
            assert!(!channels.is_subscribed(1));
            assert_eq!(end_all(&mut channels, 1000, Kind::Channel, most), [], "never seen");
            channels.close(&alone(), 1000);
            channels.shrink();
            assert_eq!(channels.count(2), 6, "shrinking ends no subscription");
            while channels.close_some(&alone(), 2, most) {
                channels.check_invariants(&alone());
            }
            channels.check_invariants(&alone());
            assert!(channels.bytes() > 0);
            channels.shrink();
            assert_eq!(channels.bytes(), 0);
            channels.check_invariants(&alone());
        }
    }

    /// A hash table may double when an entry is replaced, and it never shrinks without a call.
    #[test]
    fn the_memory_of_a_large_sessions_index_is_counted_and_freed() {
        for _ in 0..50 {
            let mut channels = Channels::default();
            for name in 0..112 {
                subscribe(&mut channels, 0, Kind::Channel, format!("{name}").as_bytes()).unwrap();
            }
            assert!(unsubscribe(&mut channels, 0, Kind::Channel, b"5"));
            channels.check_invariants(&alone());
        }
        let mut channels = Channels::default();
        let names: Vec<String> = (0..5000).map(|name| name.to_string()).collect();
        for name in &names {
            subscribe(&mut channels, 0, Kind::Channel, name.as_bytes()).unwrap();
        }
        let most = channels.held;
        for name in &names[50..] {
            assert!(unsubscribe(&mut channels, 0, Kind::Channel, name.as_bytes()));
        }
        channels.check_invariants(&alone());
        assert!(
            channels.held < most / 50,
            "{} of {most} bytes are held for 50 channels",
            channels.held
        );
    }

    fn refused(limit: LimitReached, by_share: bool) -> Result<bool, Refused> {
        Err(Refused { limit, by_share })
    }

    #[test]
    fn a_name_one_byte_beyond_the_memory_limit_is_refused() {
        let mut channels = Channels::default();
        let limits = TopicLimits { bytes: 1000, ..limits() };
        let mut subscribe = |session, name: &[u8]| {
            channels.subscribe(&alone(), session, Kind::Channel, name, &limits)
        };
        assert_eq!(subscribe(0, &[b'x'; 841]), refused(LimitReached::Memory, false));
        assert_eq!(subscribe(0, &[b'x'; 840]), Ok(true));
        assert_eq!(subscribe(1, b"y"), refused(LimitReached::Memory, false));
        assert!(unsubscribe(&mut channels, 0, Kind::Channel, &[b'x'; 840]));
        assert_eq!((channels.count(0), channels.used()), (0, 0));
        channels.check_invariants(&alone());
    }

    #[test]
    fn a_subscription_beyond_a_limit_is_refused_and_changes_nothing() {
        let limits = TopicLimits {
            channels: 3,
            patterns: 3,
            other_patterns: 2,
            patterns_per_session: 4,
            ..limits()
        };
        let mut channels = Channels::default();
        for (kind, names, limit) in [
            (Kind::Channel, ["a", "b", "c", "d"], LimitReached::Channels),
            (Kind::Pattern, ["a", "b*", "c\\**", "d*"], LimitReached::Patterns),
            (Kind::Pattern, ["", "?a", "*b", "[c]"], LimitReached::OtherPatterns),
        ] {
            let skipped = usize::from(names[0].is_empty());
            for (number, name) in names.iter().enumerate().skip(skipped) {
                // Two sessions, because a session may have four patterns.
                let session = u32::from(limit == LimitReached::OtherPatterns);
                let taken = channels.subscribe(&alone(), session, kind, name.as_bytes(), &limits);
                let expected = if number < 3 { Ok(true) } else { refused(limit, false) };
                assert_eq!(taken, expected, "{name}");
                channels.check_invariants(&alone());
            }
            let known = names[1].as_bytes();
            let taken = channels.subscribe(&alone(), 7, kind, known, &limits);
            assert_eq!(taken, Ok(true), "an existing topic is not counted again");
            assert!(unsubscribe(&mut channels, 7, kind, known));
        }
        for (session, patterns) in [(0, 3), (1, 2)] {
            assert_eq!(channels.counts(session)[Kind::Pattern as usize], patterns);
        }
        assert_eq!(channels.subscribe(&alone(), 0, Kind::Pattern, b"?a", &limits), Ok(true));
        let fifth = channels.subscribe(&alone(), 0, Kind::Pattern, b"*b", &limits);
        assert_eq!(fifth, refused(LimitReached::PatternsOfSession, false));
        let again = channels.subscribe(&alone(), 0, Kind::Pattern, b"?a", &limits);
        assert_eq!(again, Ok(false), "an existing subscription is no error");
        channels.check_invariants(&alone());
    }

    /// Returns a table of this many sessions, each from an address of its own: 10.0.0.1 and so on.
    fn from_addresses(count: u8) -> Sessions {
        let mut sessions = Sessions::new(0);
        for number in 1..=count {
            let peer = format!("10.0.0.{number}:7").parse().unwrap();
            sessions.open(ConnectionId(number.into()), Some(peer), Tick(0));
        }
        sessions
    }

    #[test]
    fn one_source_cannot_take_everything_and_a_newcomer_gets_its_few() {
        let long = "x".repeat(1800);
        for (kind, prefix, suffix, limit) in [
            (Kind::Channel, "", "", LimitReached::Channels),
            (Kind::Shard, "", "", LimitReached::Channels),
            (Kind::Pattern, "", "*", LimitReached::Patterns),
            (Kind::Pattern, "", "", LimitReached::Patterns),
            (Kind::Pattern, "*", "", LimitReached::OtherPatterns),
            (Kind::Channel, "", &long, LimitReached::Memory),
        ] {
            let limits = TopicLimits {
                channels: if limit == LimitReached::Channels { 80 } else { usize::MAX },
                patterns: 80,
                other_patterns: 80,
                bytes: if limit == LimitReached::Memory { 165_000 } else { usize::MAX },
                is_trusted: false,
                ..limits()
            };
            let (sessions, mut channels) = (from_addresses(5), Channels::default());
            let mut fill = |session, limits: &TopicLimits| {
                let (mut count, mut refused) = (0, None);
                while refused.is_none() {
                    let name = format!("{prefix}{session}-{count}{suffix}");
                    let taken =
                        channels.subscribe(&sessions, session, kind, name.as_bytes(), limits);
                    refused = taken.err();
                    count += usize::from(refused.is_none());
                }
                channels.check_invariants(&sessions);
                (count, refused.unwrap())
            };
            for (session, least, most) in [(0, 60, 76), (1, 5, 10), (2, 1, 3)] {
                let (count, refused) = fill(session, &limits);
                assert!((least..=most).contains(&count), "{kind:?} {limit:?}: {count}");
                // The charges are estimates, so the last bytes may be less than a share.
                let is_nearly_full = limit == LimitReached::Memory && session == 2;
                let by_share = refused.by_share || is_nearly_full;
                assert_eq!((refused.limit, by_share), (limit, true));
            }
            // A trusted source may have all the rest.
            let trusted = TopicLimits { is_trusted: true, ..limits };
            assert_eq!(fill(3, &trusted).1, Refused { limit, by_share: false });
            (0..4).for_each(|session| channels.close(&sessions, session));
            channels.check_invariants(&sessions);
        }
    }

    #[test]
    fn a_topic_is_charged_to_a_subscriber_that_stays() {
        let (sessions, mut channels) = (from_addresses(3), Channels::default());
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..3000 {
            let (session, kind) = (random.u32(..3), Kind::ALL[random.usize(..4)]);
            let name = format!("{}*", random.u32(..12)).into_bytes();
            let name = &name[..name.len() - random.usize(..2)];
            match random.u32(..20) {
                0 => channels.close(&sessions, session),
                1..10 => drop(channels.unsubscribe(&sessions, session, kind, name)),
                _ => drop(channels.subscribe(&sessions, session, kind, name, &limits())),
            }
            channels.check_invariants(&sessions);
        }
        (0..3).for_each(|session| channels.close(&sessions, session));
        channels.check_invariants(&sessions);
    }

    #[test]
    fn a_few_subscriptions_to_topics_of_others_are_charged_to_no_source() {
        let (sessions, mut channels) = (from_addresses(3), Channels::default());
        for number in 0..FEW_SUBSCRIPTIONS + 2 {
            for session in 0..2 {
                let name = number.to_string().into_bytes();
                channels.subscribe(&sessions, session, Kind::Channel, &name, &limits()).unwrap();
            }
            let charged = (number + 1).saturating_sub(FEW_SUBSCRIPTIONS) * SUBSCRIPTION_BYTES;
            assert_eq!(channels.shares.of(sessions.source(1)).bytes, charged, "{number}");
        }
        channels.check_invariants(&sessions);
    }

    fn agree(channels: &Channels, model: &Model, session: u32) {
        channels.check_invariants(&alone());
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
                    channels.close(&alone(), session);
                    model.retain(|entry| entry.0 != session);
                }
                1..3 => {
                    let together =
                        |e: &&(u32, Kind, _)| (e.1 == Kind::Shard) == (kind == Kind::Shard);
                    let mut remaining =
                        model.iter().filter(|e| e.0 == session).filter(together).count();
                    for (name, left) in end_all(&mut channels, session, kind, random.usize(1..9)) {
                        remaining -= 1;
                        assert_eq!(left, remaining);
                        assert!(model.remove(&(session, kind, name)));
                    }
                    assert!(!model.iter().any(|entry| entry.0 == session && entry.1 == kind));
                }
                3 => channels.shrink(),
                roll if (roll < 75) == growing => {
                    match subscribe(&mut channels, session, kind, &name) {
                        Ok(new) => assert_eq!(new, model.insert(entry)),
                        Err(refused) => panic!("{refused:?}"),
                    }
                }
                _ => assert_eq!(
                    unsubscribe(&mut channels, session, kind, &name),
                    model.remove(&entry)
                ),
            }
            agree(&channels, &model, session);
        }
        for session in 0..sessions {
            channels.close(&alone(), session);
            channels.check_invariants(&alone());
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
            assert_eq!(subscribe(&mut channels, session, Kind::Channel, b"news"), Ok(true));
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
            assert_eq!(subscribe(&mut channels, 0, Kind::Channel, name.as_bytes()), Ok(true));
            assert_eq!(subscribe(&mut channels, number, Kind::Shard, b"news"), Ok(true));
        }
        channels.check_invariants(&alone());
        let full = channels.held;
        for number in 5..10_000u32 {
            assert!(unsubscribe(&mut channels, 0, Kind::Channel, number.to_string().as_bytes()));
            assert!(unsubscribe(&mut channels, number, Kind::Shard, b"news"));
        }
        channels.check_invariants(&alone());
        assert!(channels.held < full / 100, "{} of {full}", channels.held);
    }

    #[test]
    fn the_memory_of_channels_is_that_of_all_its_tables() {
        let mut channels = Channels::default();
        assert_eq!(channels.bytes(), 0);
        for number in 0..LARGE_FROM {
            let name = format!("name {number}");
            subscribe(&mut channels, 7, Kind::Channel, name.as_bytes()).unwrap();
            subscribe(&mut channels, 3, Kind::Pattern, b"n*").unwrap();
        }
        let tables = [
            channels.sessions.capacity() * 16,
            channels.topics.capacity() * (size_of::<Topic>() + 8),
            channels.patterns.bytes(),
            channels.shares.bytes(),
            table_bytes(&channels.large),
            channels.names.iter().map(table_bytes).sum(),
            channels.held,
        ];
        assert!(tables.iter().all(|bytes| *bytes > 0), "{tables:?}");
        assert_eq!(channels.bytes(), tables.iter().sum::<usize>());
        [3, 7].iter().for_each(|session| channels.close(&alone(), *session));
        channels.shrink();
        assert_eq!(channels.bytes(), 0);
    }
}
