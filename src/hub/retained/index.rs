//! The index of a log: where the record of each key lies.
//!
//! The keys are in the records. The index has 8 bytes for each: the place of the record, and 16
//! bits of the key's hash. It consists of many small tables, because a turn may grow one of some
//! hundred keys, but not one of a million.

use std::hash::{BuildHasher, RandomState};

use crate::limits::KEYS_PER_TABLE;

/// The place of a record: its segment and the offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    pub segment: u32,
    pub offset: u16,
}

/// The index of one log. Peers choose the keys, so their hash is std's keyed SipHash.
pub struct KeyIndex {
    tables: Box<[KeyTable]>,
    hasher: RandomState,
    keys: usize,
    /// Memory of the tables' slots, in bytes.
    held: usize,
}

/// A table with linear probing. Its number of slots is zero or a power of two.
#[derive(Clone, Default)]
struct KeyTable {
    slots: Box<[u64]>,
    keys: u32,
}

/// A free slot. No record lies at the last offset of the last segment.
const FREE: u64 = u64::MAX;

/// Fewest slots of a table that has keys.
const SLOTS_MIN: usize = 4;

fn pack(hash: u64, place: RecordPlace) -> u64 {
    hash << 48 | u64::from(place.segment) << 16 | u64::from(place.offset)
}

fn place_of(slot: u64) -> RecordPlace {
    RecordPlace { segment: (slot >> 16) as u32, offset: slot as u16 }
}

impl KeyTable {
    /// Returns the slot where the search for a key begins. The slot's own upper bits are those of
    /// the hash.
    fn home(&self, slot: u64) -> usize {
        (slot >> 48) as usize & (self.slots.len() - 1)
    }

    /// Returns the number of the slot that `is_it` accepts among those with the same hash.
    fn find(&self, hash: u64, mut is_it: impl FnMut(RecordPlace) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let tag = pack(hash, RecordPlace { segment: 0, offset: 0 });
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == FREE {
                return None;
            }
            if slot >> 48 == tag >> 48 && is_it(place_of(slot)) {
                return Some(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home(slot);
        while self.slots[at] != FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![FREE; slots].into());
        before.iter().filter(|slot| **slot != FREE).for_each(|slot| self.put(*slot));
    }

    /// Frees a slot, and moves later slots of the same run so that no search ends too early.
    fn free(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == FREE {
                break;
            }
            let from_home = at.wrapping_sub(self.home(slot)) & mask;
            if from_home >= (at.wrapping_sub(gap) & mask) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = FREE;
    }
}

impl KeyIndex {
    /// Creates an index for at most `max` keys.
    pub fn new(max: usize) -> KeyIndex {
        let tables = max.div_ceil(KEYS_PER_TABLE).max(1).next_power_of_two();
        let tables = vec![KeyTable::default(); tables].into();
        KeyIndex { tables, hasher: RandomState::new(), keys: 0, held: 0 }
    }

    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn table(&self, hash: u64) -> &KeyTable {
        // The lowest 16 bits choose the slot.
        &self.tables[(hash >> 16) as usize & (self.tables.len() - 1)]
    }

    fn table_mut(&mut self, hash: u64) -> &mut KeyTable {
        &mut self.tables[(hash >> 16) as usize & (self.tables.len() - 1)]
    }

    /// Returns the place of a key. `is_it` returns true if the record at a place has the key.
    pub fn find(&self, hash: u64, is_it: impl FnMut(RecordPlace) -> bool) -> Option<RecordPlace> {
        let table = self.table(hash);
        table.find(hash, is_it).map(|slot| place_of(table.slots[slot]))
    }

    /// Adds a key that the index does not have.
    pub fn insert(&mut self, hash: u64, place: RecordPlace) {
        let table = self.table_mut(hash);
        let before = table.slots.len();
        // At most three quarters are taken, so searches are short.
        if (table.keys as usize + 1) * 4 > before * 3 {
            table.resize((2 * before).max(SLOTS_MIN));
        }
        table.put(pack(hash, place));
        table.keys += 1;
        let grown = table.slots.len() - before;
        self.held += grown * size_of::<u64>();
        self.keys += 1;
    }

    /// Notes that the record of a key has moved.
    pub fn replace(&mut self, hash: u64, from: RecordPlace, to: RecordPlace) {
        let table = self.table_mut(hash);
        if let Some(slot) = table.find(hash, |place| place == from) {
            table.slots[slot] = pack(hash, to);
        }
    }

    /// Removes the key whose record is at a place.
    pub fn remove(&mut self, hash: u64, place: RecordPlace) {
        let table = self.table_mut(hash);
        let Some(slot) = table.find(hash, |own| own == place) else { return };
        table.free(slot);
        table.keys -= 1;
        let before = table.slots.len();
        match table.keys as usize {
            0 => table.resize(0),
            keys if keys < before / 8 => table.resize(before / 4),
            _ => {}
        }
        let freed = before - table.slots.len();
        self.held -= freed * size_of::<u64>();
        self.keys -= 1;
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.held + size_of_val(&*self.tables)
    }

    /// Panics unless the counts are right and each slot is found from its home. For tests.
    pub fn check_invariants(&self) {
        let mut keys = 0;
        for table in &self.tables {
            let taken = table.slots.iter().filter(|slot| **slot != FREE);
            taken.clone().for_each(|slot| {
                let found = table.find(slot >> 48, |place| place == place_of(*slot));
                assert!(found.is_some(), "a search for a key ends too early");
            });
            assert_eq!(table.keys as usize, taken.count(), "the keys of a table are miscounted");
            keys += table.keys as usize;
        }
        assert_eq!(self.keys, keys, "the keys are miscounted");
        let held: usize = self.tables.iter().map(|table| size_of_val(&*table.slots)).sum();
        assert_eq!(self.held, held, "the memory of the index is miscounted");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn random_operations_on_the_index_agree_with_a_map() {
        for (seed, max) in [(1, 1), (2, 100), (3, 100_000)] {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut index, mut model) = (KeyIndex::new(max), HashMap::new());
            for step in 0..20_000u32 {
                // The keys grow in number, then shrink.
                let key = random.u32(..1000);
                let hash = index.hash(&key.to_le_bytes());
                let place = RecordPlace { segment: step, offset: random.u16(..) };
                let adds = random.u32(..20_000) > step;
                match model.get(&key).copied() {
                    None if adds => {
                        index.insert(hash, place);
                        model.insert(key, place);
                    }
                    Some(before) if adds => {
                        index.replace(hash, before, place);
                        model.insert(key, place);
                    }
                    Some(before) => {
                        index.remove(hash, before);
                        model.remove(&key);
                    }
                    None => {}
                }
                if step % 500 == 0 {
                    index.check_invariants();
                }
            }
            assert_eq!(index.len(), model.len());
            for key in 0..1000u32 {
                let expected = model.get(&key).copied();
                let hash = index.hash(&key.to_le_bytes());
                assert_eq!(index.find(hash, |place| Some(place) == expected), expected);
            }
            for (key, place) in model {
                index.remove(index.hash(&key.to_le_bytes()), place);
            }
            index.check_invariants();
            assert_eq!((index.len(), index.held), (0, 0), "an empty index holds no slots");
        }
    }
}
