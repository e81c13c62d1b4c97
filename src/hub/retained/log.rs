//! The log of one channel: its kept messages, in the order of their publishes.
//!
//! A message with a known key is appended, and its key's earlier record is dead from then on. The
//! records lie in segments of 16 KiB. A segment of which more than half is dead is written anew, so
//! a publish never moves more than a segment. A cursor is the number of a message: behind it, a
//! reader meets each record once, and again if it changes.

use std::collections::BTreeMap;

use slab::Slab;

use super::index::{KeyIndex, RecordPlace};
use super::record::{self, KeptRecord};
use crate::limits::{SEGMENT_BYTES, SEGMENT_DEAD_MIN};

const _: () = assert!(SEGMENT_BYTES <= 1 << u16::BITS);

/// The records of one channel.
pub struct Log {
    segments: Slab<LogSegment>,
    /// The first number of each segment → the segment.
    order: BTreeMap<u64, u32>,
    index: KeyIndex,
    /// The number of the latest message; 0: none.
    last: u64,
    /// Number of records that are neither dead nor graves.
    values: usize,
    /// Number of changes to segments.
    changes: u64,
    /// Segments that begin below this number have been swept for graves.
    swept: u64,
    /// Memory of the segments' records, in bytes.
    held: usize,
}

struct LogSegment {
    /// The number of its first record, when it had all.
    first: u64,
    bytes: Vec<u8>,
    /// Bytes of its dead records.
    dead: usize,
    /// When one of its records died last, counted in changes of the log.
    changed: u64,
}

/// A state of the records that one call of [`Log::read`] has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStamp {
    first: u64,
    changed: u64,
}

impl LogSegment {
    fn live(&self) -> usize {
        self.bytes.len() - self.dead
    }

    fn records(&self) -> impl Iterator<Item = (u16, KeptRecord<'_>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = record::read(&self.bytes[at..], self.first)?;
            let offset = at as u16;
            at += record.length;
            Some((offset, record))
        })
    }
}

impl Log {
    /// Creates the log of a channel with at most `max` keys.
    pub fn new(max: usize) -> Log {
        Log {
            segments: Slab::new(),
            order: BTreeMap::new(),
            index: KeyIndex::new(max),
            last: 0,
            values: 0,
            changes: 0,
            swept: 0,
            held: 0,
        }
    }

    /// Returns the number of values.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Returns whether the log has no live record.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Returns the number of the latest message; 0: none.
    pub fn last(&self) -> u64 {
        self.last
    }

    fn record(&self, place: RecordPlace) -> Option<KeptRecord<'_>> {
        let segment = self.segments.get(place.segment as usize)?;
        record::read(segment.bytes.get(usize::from(place.offset)..)?, segment.first)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<RecordPlace> {
        self.index.find(hash, |place| self.record(place).is_some_and(|own| own.key == key))
    }

    /// Appends a message, and kills the earlier one with the same key. `is_grave`: the message
    /// removes its key. Returns its number.
    pub fn append(&mut self, key: &[u8], payload: &[u8], is_grave: bool) -> u64 {
        let hash = self.index.hash(key);
        let before = self.find(hash, key);
        self.last += 1;
        let place = self.write(self.last, key, payload, is_grave);
        self.values += usize::from(!is_grave);
        match before {
            None => self.index.insert(hash, place),
            Some(before) => {
                self.index.replace(hash, before, place);
                self.kill(before);
                self.tidy(before.segment);
            }
        }
        self.last
    }

    /// Removes the record of a key. Returns true if there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hash = self.index.hash(key);
        let Some(place) = self.find(hash, key) else { return false };
        self.index.remove(hash, place);
        self.kill(place);
        self.tidy(place.segment);
        true
    }

    /// Returns true if the log has a value for the key.
    pub fn has(&self, key: &[u8]) -> bool {
        self.value(key).is_some()
    }

    /// Returns the value of a key.
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.find(self.index.hash(key), key);
        let record = place.and_then(|place| self.record(place)).filter(|record| !record.is_grave);
        record.map(|record| record.payload)
    }

    /// Removes the record that has not changed for longest. Returns its number, or `None` if there
    /// is none.
    pub fn remove_oldest(&mut self) -> Option<u64> {
        let segment = *self.order.first_key_value()?.1;
        let found = self.segments[segment as usize].records().find(|(_, one)| !one.is_dead);
        let (place, number, hash) = found.map(|(offset, record)| {
            (RecordPlace { segment, offset }, record.number, self.index.hash(record.key))
        })?;
        self.index.remove(hash, place);
        self.kill(place);
        self.tidy(segment);
        Some(number)
    }

    /// Returns true if the log has graves.
    pub fn has_graves(&self) -> bool {
        self.index.len() > self.values
    }

    /// Removes the graves of one segment: the next one after that of the last call. The caller
    /// knows that no reader needs them.
    pub fn sweep(&mut self) {
        let next = self.order.range(self.swept..).next().or_else(|| self.order.first_key_value());
        let Some((&first, &segment)) = next else { return };
        self.swept = first + 1;
        let records = self.segments[segment as usize].records();
        let graves: Vec<(u64, RecordPlace)> = records
            .filter(|(_, record)| record.is_grave && !record.is_dead)
            .map(|(offset, record)| (self.index.hash(record.key), RecordPlace { segment, offset }))
            .collect();
        for (hash, place) in &graves {
            self.index.remove(*hash, *place);
            self.kill(*place);
        }
        if !graves.is_empty() {
            self.tidy(segment);
        }
    }

    /// Calls `each` with the live records behind a cursor, oldest first, until it returns false.
    /// Stops at the end of the first segment that has any. Returns the cursor behind the last
    /// record that it accepted, or [`Self::last`] if there is none.
    pub fn read<'a>(
        &'a self,
        cursor: u64,
        mut each: impl FnMut(&KeptRecord<'a>) -> bool,
    ) -> (u64, ReadStamp) {
        let start = self.order.range(..=cursor).next_back().map_or(0, |(first, _)| *first);
        for segment in self.order.range(start..).map(|(_, segment)| *segment) {
            let own = &self.segments[segment as usize];
            let live = own.records().map(|(_, record)| record).filter(|record| !record.is_dead);
            let mut behind = live.filter(|record| record.number > cursor).peekable();
            if behind.peek().is_some() {
                let last = behind.take_while(|record| each(record)).last();
                let reached = last.map_or(cursor, |record| record.number);
                return (reached, ReadStamp { first: own.first, changed: own.changed });
            }
        }
        (self.last.max(cursor), ReadStamp::default())
    }

    /// Returns true if none of the records read with a stamp has died since then.
    pub fn is_current(&self, stamp: ReadStamp) -> bool {
        let segment = self.order.get(&stamp.first);
        segment.is_some_and(|own| self.segments[*own as usize].changed == stamp.changed)
    }

    /// Appends a record to the last segment, or to a new one.
    fn write(&mut self, number: u64, key: &[u8], payload: &[u8], is_grave: bool) -> RecordPlace {
        let last = self.order.last_key_value().map(|(first, segment)| (*first, *segment));
        let length = |first: u64| record::length(number - first, key, payload);
        let fits = last.filter(|(first, segment)| {
            self.segments[*segment as usize].bytes.len() + length(*first) <= SEGMENT_BYTES
        });
        let segment = match fits {
            Some((_, segment)) => segment,
            None => {
                self.changes += 1;
                let (bytes, changed) = (Vec::new(), self.changes);
                let new = LogSegment { first: number, bytes, dead: 0, changed };
                let segment = self.segments.insert(new) as u32;
                self.order.insert(number, segment);
                segment
            }
        };
        let own = &mut self.segments[segment as usize];
        let (offset, before) = (own.bytes.len(), own.bytes.capacity());
        let needed = offset + record::length(number - own.first, key, payload);
        if needed > before {
            // A small log stays small.
            let capacity = needed.max((2 * before).min(SEGMENT_BYTES));
            own.bytes.reserve_exact(capacity - offset);
        }
        record::write(&mut own.bytes, number - own.first, key, payload, is_grave);
        self.held += own.bytes.capacity() - before;
        RecordPlace { segment, offset: offset as u16 }
    }

    /// Marks a record as dead. It is in no index.
    fn kill(&mut self, place: RecordPlace) {
        let own = &mut self.segments[place.segment as usize];
        let bytes = &mut own.bytes[usize::from(place.offset)..];
        self.changes += 1;
        own.changed = self.changes;
        if let Some(record) = record::read(bytes, own.first) {
            let (length, is_grave) = (record.length, record.is_grave);
            record::kill(bytes);
            own.dead += length;
            self.values -= usize::from(!is_grave);
        }
    }

    /// Frees a segment without live records, and writes one anew of which more than half is dead.
    fn tidy(&mut self, segment: u32) {
        let own = &self.segments[segment as usize];
        let (first, live) = (own.first, own.live());
        if live == 0 {
            let gone = self.segments.remove(segment as usize);
            self.held -= gone.bytes.capacity();
            self.order.remove(&first);
            if self.segments.is_empty() {
                self.segments = Slab::new();
            }
        } else if own.dead > live && own.dead >= SEGMENT_DEAD_MIN {
            let before = self.order.range(..first).next_back().map(|(_, segment)| *segment);
            let into = before.filter(|before| self.has_room(*before, live));
            self.rewrite(segment, into);
        }
    }

    /// Returns true if a segment has room for the live records of the next one. Their heads may
    /// become longer, so it must stay half empty.
    fn has_room(&self, segment: u32, live: usize) -> bool {
        self.segments[segment as usize].bytes.len() + live <= SEGMENT_BYTES / 2
    }

    /// Writes the live records of a segment anew, behind those of `into` or in place.
    fn rewrite(&mut self, segment: u32, into: Option<u32>) {
        let own = &mut self.segments[segment as usize];
        let (first, live) = (own.first, own.live());
        let old = LogSegment { bytes: std::mem::take(&mut own.bytes), ..*own };
        own.dead = 0;
        let target = into.unwrap_or(segment);
        let held_before = old.bytes.capacity()
            + into.map_or(0, |into| self.segments[into as usize].bytes.capacity());
        if into.is_some() {
            self.segments.remove(segment as usize);
            self.order.remove(&first);
        }
        let new = &mut self.segments[target as usize];
        // The log has changed since the last reading, because a record has died.
        new.changed = self.changes;
        new.bytes.reserve_exact(live);
        for (offset, record) in old.records().filter(|(_, record)| !record.is_dead) {
            let to = RecordPlace { segment: target, offset: new.bytes.len() as u16 };
            let KeptRecord { number, key, payload, is_grave, .. } = record;
            record::write(&mut new.bytes, number - new.first, key, payload, is_grave);
            self.index.replace(self.index.hash(key), RecordPlace { segment, offset }, to);
        }
        self.held = self.held + new.bytes.capacity() - held_before;
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        // A node of a B-tree is at least half full.
        let order = 2 * self.order.len() * size_of::<(u64, u32)>();
        let segments = self.segments.capacity() * (size_of::<LogSegment>() + size_of::<usize>());
        self.held + segments + order + self.index.bytes()
    }

    /// Panics unless the segments, the index and the counts agree. O(n), for tests.
    pub fn check_invariants(&self) {
        self.index.check_invariants();
        assert_eq!(self.order.len(), self.segments.len(), "a segment is in no order");
        let (mut last, mut values, mut live, mut held) = (0, 0, 0, 0);
        for (first, segment) in &self.order {
            let own = &self.segments[*segment as usize];
            assert_eq!(own.first, *first, "a segment is at the wrong place");
            assert!(own.live() > 0, "a segment has no live record");
            assert!(
                own.dead <= own.live() || own.dead < SEGMENT_DEAD_MIN,
                "a segment is mostly dead"
            );
            held += own.bytes.capacity();
            let mut end = 0;
            for (offset, record) in own.records() {
                assert!(record.number > last && record.number <= self.last, "the order is broken");
                (last, end) = (record.number, usize::from(offset) + record.length);
                if !record.is_dead {
                    values += usize::from(!record.is_grave);
                    live += 1;
                    let place = self.find(self.index.hash(record.key), record.key);
                    assert_eq!(
                        place,
                        Some(RecordPlace { segment: *segment, offset }),
                        "a key is lost"
                    );
                }
            }
            assert_eq!(end, own.bytes.len(), "a segment ends within a record");
        }
        assert_eq!((self.values, self.index.len()), (values, live), "the records are miscounted");
        assert_eq!(self.held, held, "the memory of the records is miscounted");
    }
}
