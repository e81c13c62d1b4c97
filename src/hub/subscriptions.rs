//! The session's half of membership: what one session is subscribed to, 16 bytes for the first
//! subscription. And how lists and tables that may have millions of entries grow and shrink.

use std::collections::HashMap;

use thin_vec::ThinVec;

/// From this many subscriptions on, a session has an index of them. Looking through a shorter list
/// is as fast: 96 of them are twelve cache lines.
pub(super) const LARGE_FROM: usize = 96;

/// A list of at most this many entries keeps its memory while it is in use.
const KEPT_ENTRIES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
    /// What MONITOR shows: one topic, without a name. It is no subscription in the words of Redis.
    Feed,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Channel, Kind::Pattern, Kind::Shard, Kind::Feed];
}

/// Subscriptions by [`Kind`].
pub type KindCounts = [u32; Kind::ALL.len()];

/// Names a topic until the next change: an emptied topic's number is given to another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicId(u32);

impl TopicId {
    /// The kind is in the upper two bits, the place in the table in the others.
    pub(super) const INDEX_BITS: u32 = 30;
    const NONE: TopicId = TopicId(u32::MAX);

    pub(super) fn new(kind: Kind, index: usize) -> TopicId {
        TopicId((kind as u32) << Self::INDEX_BITS | index as u32)
    }

    pub(super) fn kind(self) -> Kind {
        Kind::ALL[(self.0 >> Self::INDEX_BITS) as usize]
    }

    pub(super) fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// Why a subscription was refused. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitReached {
    /// `PATTERNS_PER_SESSION_MAX`.
    PatternsOfSession,
    /// `CONFIRMATIONS_MAX`.
    Confirmations,
    /// `PATTERNS_MAX`.
    Patterns,
    /// The most channels that there may be.
    Channels,
    /// `HELD_MAX`.
    Memory,
}

/// Half of a subscription, kept with the session: the topic, and the place in its list of subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub topic: TopicId,
    pub position: u32,
}

/// One session's subscriptions, numbered by slot: slot 0 is `first`, slot n is the n-th of `more`.
pub(super) struct Subscriptions {
    /// `TopicId::NONE` when there are no subscriptions.
    first: Subscription,
    /// One word while it is empty: most sessions have one subscription.
    more: ThinVec<Subscription>,
}

const _: () = assert!(size_of::<Subscriptions>() == 16);

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        let none = Subscription { topic: TopicId::NONE, position: 0 };
        Subscriptions { first: none, more: ThinVec::new() }
    }
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.topic != TopicId::NONE) + self.more.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Subscription> {
        std::iter::once(self.first).chain(self.more.iter().copied()).take(self.len())
    }

    /// Subscriptions by kind. Looks at all of them.
    pub(super) fn counts(&self) -> KindCounts {
        let mut counts = KindCounts::default();
        self.iter().for_each(|subscription| counts[subscription.topic.kind() as usize] += 1);
        counts
    }

    /// Where a topic stands. Looks at all of them.
    pub(super) fn slot_of(&self, topic: TopicId) -> Option<u32> {
        self.iter().position(|subscription| subscription.topic == topic).map(|slot| slot as u32)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Subscription {
        match slot {
            0 => &mut self.first,
            slot => &mut self.more[slot as usize - 1],
        }
    }

    /// Adds a subscription and returns its slot.
    pub(super) fn push(&mut self, subscription: Subscription) -> u32 {
        let slot = self.len() as u32;
        if slot == 0 {
            self.first = subscription;
            return slot;
        }
        if self.more.len() == self.more.capacity() {
            // A second subscription fills the smallest block that holds a list's head as well.
            self.more.reserve_exact(if slot == 1 { 1 } else { (self.more.len() / 4).max(3) });
        }
        self.more.push(subscription);
        slot
    }

    /// Takes out the subscription at `slot`, whose place the last one takes. Returns it, and the
    /// one that moved.
    pub(super) fn swap_remove(&mut self, slot: u32) -> (Subscription, Option<Subscription>) {
        let removed = *self.at_mut(slot);
        let Some(last) = self.more.pop() else {
            self.first.topic = TopicId::NONE;
            return (removed, None);
        };
        if self.more.len() < self.more.capacity() / 4 || self.more.is_empty() {
            self.more.shrink_to_fit();
        }
        if slot == self.len() as u32 {
            return (removed, None);
        }
        *self.at_mut(slot) = last;
        (removed, Some(last))
    }

    /// What it holds outside the table of sessions: a list has a head of two words.
    pub(super) fn bytes(&self) -> usize {
        match self.more.capacity() {
            0 => 0,
            capacity => 2 * size_of::<usize>() + capacity * size_of::<Subscription>(),
        }
    }
}

/// What is known besides of a session with [`LARGE_FROM`] subscriptions or more, so that none of
/// its commands looks at all of them.
#[derive(Default)]
pub(super) struct Large {
    pub counts: KindCounts,
    /// The slot of each topic.
    pub index: HashMap<TopicId, u32>,
    /// What confirms the end of all of them, in bytes.
    pub confirmations: usize,
}

impl Large {
    pub(super) fn note(&mut self, topic: TopicId, slot: u32, confirmation: usize) {
        self.counts[topic.kind() as usize] += 1;
        self.index.insert(topic, slot);
        self.confirmations += confirmation;
    }
}

/// Grows by an eighth at a time. The first three entries of 8 bytes fill the smallest block that malloc gives.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(3));
    }
    list.push(entry);
}

/// Gives memory back once a list is down to a quarter of it, keeping room to double.
pub(super) fn release<T>(list: &mut Vec<T>) {
    if list.capacity() > KEPT_ENTRIES && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

pub(super) fn release_table<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > KEPT_ENTRIES && table.len() < table.capacity() / 4 {
        table.shrink_to(table.len() * 2);
    }
}

/// What std's hash table allocates: a power of two of places filled to 7/8, with one control byte each.
pub(super) fn table_bytes<K, V>(table: &HashMap<K, V>) -> usize {
    match table.capacity() {
        0 => 0,
        capacity => (capacity * 8).div_ceil(7).next_power_of_two() * (size_of::<(K, V)>() + 1) + 16,
    }
}
