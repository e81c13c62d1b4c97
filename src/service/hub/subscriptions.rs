//! The session's half of membership: what one session is subscribed to, 16 bytes for the first subscription. And how lists and
//! tables that may have millions of entries grow and shrink.

use std::collections::HashMap;

/// From this many subscriptions on, a session has an index of them; below, looking through the list is as fast.
const INDEX_FROM: usize = 32;

/// A list of at most this many entries keeps its memory while it is in use.
const KEPT_ENTRIES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];
}

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

/// Half of a subscription, kept with the session: the topic, and the place in its list of subscribers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub topic: TopicId,
    pub position: u32,
}

/// One session's subscriptions, numbered by slot: slot 0 is `first`, slot n is the n-th of `more.list`.
pub(super) struct Session {
    /// `TopicId::NONE` when there are no subscriptions.
    first: Subscription,
    /// Present when there is more than one.
    more: Option<Box<More>>,
}

const _: () = assert!(size_of::<Session>() == 16);

#[derive(Default)]
struct More {
    list: Vec<Subscription>,
    /// By kind, `first` included.
    counts: [u32; 3],
    /// The slot of each topic, `first` included: for a session with many subscriptions, else empty and without memory.
    index: HashMap<TopicId, u32>,
    /// What confirms the end of all of them, in bytes.
    confirmations: usize,
}

impl Default for Session {
    fn default() -> Session {
        Session { first: Subscription { topic: TopicId::NONE, position: 0 }, more: None }
    }
}

impl Session {
    pub(super) fn len(&self) -> usize {
        match &self.more {
            Some(more) => 1 + more.list.len(),
            None => usize::from(self.first.topic != TopicId::NONE),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Subscription> {
        let list = self.more.as_deref().map_or(&[][..], |more| &more.list);
        std::iter::once(self.first).chain(list.iter().copied()).take(self.len())
    }

    /// Subscriptions by kind.
    pub(super) fn counts(&self) -> [u32; 3] {
        let mut counts = [0; 3];
        match &self.more {
            Some(more) => counts = more.counts,
            None if self.first.topic != TopicId::NONE => counts[self.first.topic.kind() as usize] = 1,
            None => {}
        }
        counts
    }

    pub(super) fn slot_of(&self, topic: TopicId) -> Option<u32> {
        if let Some(more) = &self.more
            && !more.index.is_empty()
        {
            return more.index.get(&topic).copied();
        }
        self.iter().position(|subscription| subscription.topic == topic).map(|slot| slot as u32)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Subscription {
        match &mut self.more {
            Some(more) if slot > 0 => &mut more.list[slot as usize - 1],
            _ => &mut self.first,
        }
    }

    /// Adds a subscription and returns its slot.
    pub(super) fn push(&mut self, subscription: Subscription) -> u32 {
        let slot = self.len() as u32;
        if slot == 0 {
            self.first = subscription;
            return slot;
        }
        let counts = self.counts();
        let more = self.more.get_or_insert_with(|| Box::new(More { counts, ..More::default() }));
        push(&mut more.list, subscription);
        more.counts[subscription.topic.kind() as usize] += 1;
        if !more.index.is_empty() {
            more.index.insert(subscription.topic, slot);
        } else if more.list.len() >= INDEX_FROM {
            let all = std::iter::once(&self.first).chain(&more.list);
            more.index = all.zip(0..).map(|(subscription, slot)| (subscription.topic, slot)).collect();
        }
        slot
    }

    /// Takes out the subscription at `slot`, whose place the last one takes. Returns it, and the one that moved.
    pub(super) fn swap_remove(&mut self, slot: u32) -> (Subscription, Option<Subscription>) {
        let removed = *self.at_mut(slot);
        let Some(more) = &mut self.more else {
            self.first.topic = TopicId::NONE;
            return (removed, None);
        };
        more.counts[removed.topic.kind() as usize] -= 1;
        let last = more.list.pop().filter(|last| last.topic != removed.topic);
        release(&mut more.list);
        if more.list.len() < INDEX_FROM / 2 {
            more.index = HashMap::new();
        } else if more.index.remove(&removed.topic).is_some() {
            more.index.extend(last.map(|last| (last.topic, slot)));
            release_table(&mut more.index);
        }
        let alone = more.list.is_empty();
        if let Some(last) = last {
            *self.at_mut(slot) = last;
        }
        if alone {
            self.more = None;
        }
        (removed, last)
    }

    /// What was noted of more than one subscription.
    pub(super) fn confirmations(&self) -> Option<usize> {
        self.more.as_ref().map(|more| more.confirmations)
    }

    /// Of one alone, it is as easily seen from its name.
    pub(super) fn note_confirmations(&mut self, bytes: usize) {
        if let Some(more) = &mut self.more {
            more.confirmations = bytes;
        }
    }

    /// The list of more is there when needed, and its index whole or absent. Panics otherwise.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.more.is_some(), self.len() > 1);
        let indexed = self.more.as_deref().map_or(0, |more| more.index.len());
        assert!(indexed == self.len() || indexed == 0 && self.len() <= INDEX_FROM);
    }

    /// What it holds outside the table of sessions.
    pub(super) fn bytes(&self) -> usize {
        let Some(more) = &self.more else { return 0 };
        size_of::<More>() + more.list.capacity() * size_of::<Subscription>() + table_bytes(&more.index)
    }
}

/// Grows by a quarter at a time. The first three entries of 8 bytes fill the smallest block that malloc gives.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(3));
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
