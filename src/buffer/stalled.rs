//! Which connection to evict: the buffers by weight, and those of one weight in the order in which
//! they made progress.
//!
//! Input makes progress when it grows to the next weight, and output when its peer takes an eighth
//! of it. So a peer that dribbles counts as stalled.

use super::{Buffer, BufferId, BufferPool};
use crate::clock::Tick;
use crate::limits::EXEMPT_SHARE;

const NONE: u32 = u32::MAX;

/// Number of lists: one for each power of two, for each [`Keep`].
pub(super) const LISTS: usize = 3 * WEIGHTS;
const WEIGHTS: usize = u32::BITS as usize;

/// Whether a connection is evicted when memory runs out, in the order of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It may be evicted.
    No,
    /// It is exempt, unless all exempt ones hold too much.
    Exempt,
    /// It is never evicted, because its buffers have limits of their own.
    Always,
}

/// The keys of the first and the last buffer of a list. The first has stalled for longest.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    first: u32,
    last: u32,
}

impl Ends {
    pub(super) const EMPTY: Ends = Ends { first: NONE, last: NONE };
}

/// The place of a buffer in a list.
#[derive(Clone, Copy)]
pub(super) struct ListPlace {
    before: u32,
    after: u32,
    /// Time of the last progress.
    since: Tick,
    list: u8,
    /// [`Buffer::weight`].
    weight: usize,
}

impl ListPlace {
    pub(super) const NOWHERE: ListPlace =
        ListPlace { before: NONE, after: NONE, since: Tick(0), list: 0, weight: 0 };
}

impl BufferPool {
    /// Returns the slot to evict: the one whose buffer has the largest product of weight and time
    /// without progress. An exempt one is evicted only if all exempt ones hold too much.
    pub fn most_stalled(&self) -> Option<u32> {
        // In fixed mode, all connections hold about the same memory, so none is a better choice.
        if self.is_fixed() {
            return None;
        }
        let is_too_much = self.exempt_bytes > self.budget / EXEMPT_SHARE;
        let lists = if is_too_much { 2 * WEIGHTS } else { WEIGHTS };
        let score = |list: usize, place: &ListPlace| {
            let stalled = self.now.distance_from(place.since).max(0) as u64 + 1;
            (stalled << (list % WEIGHTS), list)
        };
        let first = (0..lists).filter_map(|list| {
            let buffer = self.buffers.get(self.stalled[list].first as usize)?;
            Some((score(list, &buffer.place), buffer.used_for.slot()))
        });
        first.max_by_key(|(score, _)| *score).map(|(_, slot)| slot)
    }

    /// Sets whether a connection may be evicted. Returns true if that changes anything.
    pub fn keep_slot(&mut self, slot: u32, keep: Keep) -> bool {
        match keep {
            Keep::No => self.exempt.remove(&slot).is_some(),
            _ => self.exempt.insert(slot, keep) != Some(keep),
        }
    }

    /// Moves buffers to the right lists after their connection became exempt or lost that.
    pub fn reweigh_all(&mut self, buffers: [&Option<BufferId>; 2]) {
        for id in buffers.into_iter().flatten() {
            self.reweigh(id.key());
        }
    }

    /// Adds a buffer to the list of its weight, as the one that has just made progress.
    pub(super) fn enlist(&mut self, key: usize) {
        let buffer = &self.buffers[key];
        let (weight, list) = (buffer.weight(), self.list_of(buffer));
        let before = std::mem::replace(&mut self.stalled[list].last, key as u32);
        match before {
            NONE => self.stalled[list].first = key as u32,
            before => self.buffers[before as usize].place.after = key as u32,
        }
        self.buffers[key].place =
            ListPlace { before, after: NONE, since: self.now, list: list as u8, weight };
        self.exempt_bytes += if is_exempt(list) { weight } else { 0 };
    }

    /// Removes a buffer from its list.
    pub(super) fn delist(&mut self, key: usize) {
        let ListPlace { before, after, list, weight, .. } = self.buffers[key].place;
        let list = usize::from(list);
        match before {
            NONE => self.stalled[list].first = after,
            before => self.buffers[before as usize].place.after = after,
        }
        match after {
            NONE => self.stalled[list].last = before,
            after => self.buffers[after as usize].place.before = before,
        }
        self.exempt_bytes -= if is_exempt(list) { weight } else { 0 };
    }

    /// Moves a buffer to the list of its new weight. It keeps its place if its list is the same.
    pub(super) fn reweigh(&mut self, key: usize) {
        let buffer = &self.buffers[key];
        let (weight, list) = (buffer.weight(), self.list_of(buffer));
        let place = &mut self.buffers[key].place;
        if usize::from(place.list) == list {
            let before = std::mem::replace(&mut place.weight, weight);
            if is_exempt(list) {
                self.exempt_bytes = self.exempt_bytes - before + weight;
            }
        } else {
            self.delist(key);
            self.enlist(key);
        }
    }

    /// Notes that the peer took `count` bytes of a buffer's output.
    pub(super) fn note_taken(&mut self, key: usize, count: usize) {
        let buffer = &mut self.buffers[key];
        buffer.taken += count;
        if buffer.taken >= buffer.place.weight / 8 {
            buffer.taken = 0;
            self.delist(key);
            self.enlist(key);
        }
    }

    fn list_of(&self, buffer: &Buffer) -> usize {
        let class = buffer.weight().max(1).next_power_of_two().ilog2() as usize;
        let keep = match self.exempt.is_empty() {
            true => None,
            false => self.exempt.get(&buffer.used_for.slot()).copied(),
        };
        class.min(WEIGHTS - 1) + keep.unwrap_or(Keep::No) as usize * WEIGHTS
    }

    /// Panics unless each buffer is in one list, in the order of progress. For tests.
    pub(super) fn check_lists(&self) {
        let (mut listed, mut exempt) = (0, 0);
        for (list, ends) in self.stalled.iter().enumerate() {
            let (mut before, mut next) = (NONE, ends.first);
            let mut since = None;
            while next != NONE {
                let buffer = &self.buffers[next as usize];
                let place = buffer.place;
                assert_eq!(
                    (place.before, usize::from(place.list)),
                    (before, list),
                    "a broken list"
                );
                assert_eq!(buffer.weight(), place.weight, "a buffer has another weight");
                assert_eq!(self.list_of(buffer), list, "a buffer is in the wrong list");
                assert!(
                    since.is_none_or(|since: Tick| place.since.distance_from(since) >= 0),
                    "a list is out of order"
                );
                (since, listed) = (Some(place.since), listed + 1);
                exempt += if is_exempt(list) { place.weight } else { 0 };
                (before, next) = (next, place.after);
            }
            assert_eq!(ends.last, before, "a list ends at the wrong buffer");
        }
        assert_eq!(listed, self.buffers.len(), "a buffer is missing from the lists");
        assert_eq!(exempt, self.exempt_bytes, "the exempt bytes are miscounted");
    }
}

/// Returns whether a list is one of exempt connections, whose bytes are counted.
fn is_exempt(list: usize) -> bool {
    list / WEIGHTS == Keep::Exempt as usize
}
