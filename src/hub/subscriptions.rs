//! The subscriptions of one session, which are the session's half of membership. The first takes 16
//! bytes. The rules by which lists and tables of millions of entries grow and shrink are here too.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use thin_vec::ThinVec;

use crate::limits::Limits;

/// Number of subscriptions from which a session has an index of them. A scan of a shorter list is
/// as fast, because 96 subscriptions fill only twelve cache lines.
pub(super) const LARGE_FROM: usize = 96;

/// A list or table with room for at most this many entries is not shrunk.
const KEPT_ENTRIES: usize = 64;

/// The kind of a topic, and of the subscriptions to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
    /// A topic of the hub's own, which Redis does not count as a subscription. The output of
    /// MONITOR has an empty name. In a cluster of Socket.IO the others are the sockets of a
    /// namespace, with its name, and a single socket, with its sid.
    Feed,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Channel, Kind::Pattern, Kind::Shard, Kind::Feed];
}

/// Numbers of subscriptions, by [`Kind`].
pub type KindCounts = [u32; Kind::ALL.len()];

/// The id of a topic. It is valid until the next change, because the id of an emptied topic is
/// reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicId(u32);

impl TopicId {
    /// The kind is in the upper two bits, the slot in the table in the other thirty.
    pub(super) const INDEX_BITS: u32 = 30;
    /// No topic.
    pub const NONE: TopicId = TopicId(u32::MAX);

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

/// The limit that refused a subscription. A refused subscription changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitReached {
    /// `max_patterns_per_connection`.
    PatternsOfSession,
    /// `max_patterns`.
    Patterns,
    /// `max_other_patterns`.
    OtherPatterns,
    /// `max_channels`.
    Channels,
    /// `subscription_memory`.
    Memory,
}

/// A subscription was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    pub limit: LimitReached,
    /// True if there is room, but the source has its share already.
    pub by_share: bool,
}

/// The limits of all subscriptions together.
#[derive(Clone, Copy, Debug)]
pub struct TopicLimits {
    pub bytes: usize,
    pub channels: usize,
    pub patterns: usize,
    pub other_patterns: usize,
    pub patterns_per_session: usize,
    /// True if the session's source may have more than its share.
    pub is_trusted: bool,
}

impl TopicLimits {
    pub fn of(limits: &Limits) -> TopicLimits {
        TopicLimits {
            bytes: limits.subscription_memory,
            channels: match limits.max_channels {
                0 => usize::MAX,
                most => most,
            },
            patterns: limits.max_patterns,
            other_patterns: limits.max_other_patterns,
            patterns_per_session: limits.max_patterns_per_connection,
            is_trusted: false,
        }
    }
}

/// The session's half of a subscription: the topic, and the position in its list of subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub topic: TopicId,
    pub position: u32,
}

/// The subscriptions of one session, by slot: slot 0 is `first`, slot n is `more[n - 1]`.
pub(super) struct Subscriptions {
    /// Its topic is `TopicId::NONE` if the session has no subscriptions.
    first: Subscription,
    /// One word while empty. Most sessions have one subscription, so it usually is.
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

    /// Counts the subscriptions by kind. O(n).
    pub(super) fn counts(&self) -> KindCounts {
        let mut counts = KindCounts::default();
        self.iter().for_each(|subscription| counts[subscription.topic.kind() as usize] += 1);
        counts
    }

    /// Returns the slot of a topic's subscription. O(n).
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
            // The list's head and one subscription fill the allocator's smallest block.
            self.more.reserve_exact(if slot == 1 { 1 } else { (self.more.len() / 4).max(3) });
        }
        self.more.push(subscription);
        slot
    }

    /// Removes the subscription at `slot` and moves the last one there. Returns the removed one,
    /// and the one that moved.
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

    /// Returns the memory held outside the table of sessions, in bytes. A list has a head of two
    /// words.
    pub(super) fn bytes(&self) -> usize {
        match self.more.capacity() {
            0 => 0,
            capacity => 2 * size_of::<usize>() + capacity * size_of::<Subscription>(),
        }
    }
}

/// The index of a session with [`LARGE_FROM`] subscriptions or more. With it, none of the session's
/// commands scans all of them.
#[derive(Default)]
pub(super) struct Large {
    pub counts: KindCounts,
    /// Topic → slot.
    pub index: HashMap<TopicId, u32>,
}

impl Large {
    /// Adds a subscription to the index.
    pub(super) fn note(&mut self, topic: TopicId, slot: u32) {
        self.counts[topic.kind() as usize] += 1;
        self.index.insert(topic, slot);
    }
}

/// Appends an entry. A full list grows by an eighth. Its first three entries of 8 bytes fill the
/// smallest block of malloc.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(3));
    }
    list.push(entry);
}

/// Shrinks a list that uses less than a quarter of its memory, and keeps room for it to double.
pub(super) fn release<T>(list: &mut Vec<T>) {
    if list.capacity() > KEPT_ENTRIES && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

/// Shrinks a table by the same rule as [`release`].
pub(super) fn release_table<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > KEPT_ENTRIES && table.len() < table.capacity() / 4 {
        table.shrink_to(table.len() * 2);
    }
}

/// Returns the memory of a table of std, in bytes: a power of two of buckets, filled to at most
/// 7/8, with one control byte each.
pub(super) fn table_bytes<K, V, S>(table: &HashMap<K, V, S>) -> usize {
    match table.capacity() {
        0 => 0,
        capacity => (capacity * 8).div_ceil(7).next_power_of_two() * (size_of::<(K, V)>() + 1) + 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_grows_by_an_eighth_so_it_moves_seldom() {
        let (mut list, mut moves) = (Vec::new(), 0);
        for entry in 0..10_000u64 {
            let before = list.capacity();
            push(&mut list, entry);
            moves += usize::from(list.capacity() != before);
            assert!(list.capacity() <= list.len() + (list.len() / 8).max(3));
        }
        assert!(moves < 80, "{moves} moves");
    }

    #[test]
    fn a_session_needs_memory_outside_the_table_from_its_second_subscription_on() {
        let mut own = Subscriptions::default();
        let bytes = [0, 16 + 8, 16 + 4 * 8, 16 + 4 * 8, 16 + 4 * 8].map(|bytes| {
            own.push(Subscription { topic: TopicId::new(Kind::Channel, own.len()), position: 0 });
            (own.bytes(), bytes)
        });
        assert!(bytes.iter().all(|(held, expected)| held == expected), "{bytes:?}");
        (0..4).for_each(|_| _ = own.swap_remove(0));
        assert_eq!((own.len(), own.bytes()), (1, 0));
    }

    #[test]
    fn a_list_shrinks_when_less_than_a_quarter_of_it_is_used() {
        let mut own = Subscriptions::default();
        for index in 0..17 {
            own.push(Subscription { topic: TopicId::new(Kind::Channel, index), position: 0 });
        }
        assert_eq!(own.bytes(), 16 + 16 * 8);
        for (left, capacity) in [(5, 16), (4, 3)] {
            while own.len() > left {
                own.swap_remove(0);
            }
            assert_eq!(own.bytes(), 16 + capacity * 8, "{left} subscriptions");
        }
    }
}
