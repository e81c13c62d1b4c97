//! Buffers that a connection has only while it needs one.
//!
//! The service decodes a complete message where it was read, and the turn sends the answer from the
//! outbox. So most connections never own a buffer. Two things need one: part of a message, and
//! output that the peer is too slow to take. The pool lends buffers in size classes of powers of
//! two. A four-byte index names a buffer, which goes back to the pool as soon as it is empty.
//!
//! In fixed mode ([`BufferMode::Fixed`]), every connection instead keeps two buffers of a given
//! size for life. It exists to measure the cost of that common design on the same server.

use std::num::NonZeroU32;

use slab::Slab;

use crate::limits::{EVICTION_MARGIN, SPARE_BUFFERS_MAX};

/// How connections get buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferMode {
    /// From the pool, while there are bytes to hold.
    Pooled,
    /// Two buffers of this size in bytes, from accept to close. They grow for a larger message and
    /// shrink back.
    Fixed(usize),
}

/// The use of a buffer, and the slot of its connection. The ledger counts the two uses separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Input: part of a message.
    Read(u32),
    /// Output: bytes that the kernel has not taken yet.
    Write(u32),
}

impl Use {
    fn slot(self) -> u32 {
        let (Use::Read(slot) | Use::Write(slot)) = self;
        slot
    }
}

/// The name of a buffer in the pool. An `Option<BufferId>` takes four bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(NonZeroU32);

impl BufferId {
    fn new(key: usize) -> BufferId {
        let id = u32::try_from(key + 1).expect("fewer buffers than 2^32");
        BufferId(NonZeroU32::new(id).expect("one was added"))
    }

    fn key(&self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The memory budget has no room for another buffer, or for a larger one.
#[derive(Debug, PartialEq, Eq)]
pub struct BudgetExceeded;

/// The smallest buffer: 2^6 = 64 bytes, a cache line.
const CLASS_MIN: u32 = 6;
/// The largest buffer that the pool keeps for reuse: 2^20 = 1 MiB.
const CLASS_MAX: u32 = 20;
const CLASSES: usize = (CLASS_MAX - CLASS_MIN + 1) as usize;

struct Buffer {
    bytes: Vec<u8>,
    /// Bytes at the front that have been consumed.
    done: u32,
    /// Bytes after `done` in which a scan found no end of a message.
    scanned: u32,
    /// Index of this buffer in the list of its class.
    place: u32,
    used_for: Use,
}

/// The pool: all lent and spare buffers, and the memory budget.
pub struct BufferPool {
    mode: BufferMode,
    buffers: Slab<Buffer>,
    /// Keys of the lent buffers by class, to find a largest one quickly. Buffers above the last
    /// class are in its list.
    lent: [Vec<u32>; CLASSES],
    spare: [Vec<Vec<u8>>; CLASSES],
    spare_bytes: usize,
    read_bytes: usize,
    write_bytes: usize,
    /// Bytes of the budget that the connections take without their buffers.
    pub(crate) reserved: usize,
    /// Bytes that the kernel may buffer for each connection with unsent output.
    kernel_bytes_per_write: usize,
    /// Number of buffers lent for output.
    writes: usize,
    budget: usize,
}

impl BufferPool {
    /// Creates a pool. Its buffers and the reserved bytes together stay within `budget` bytes.
    pub fn new(mode: BufferMode, budget: usize) -> BufferPool {
        BufferPool {
            mode,
            buffers: Slab::new(),
            lent: std::array::from_fn(|_| Vec::new()),
            spare: std::array::from_fn(|_| Vec::new()),
            spare_bytes: 0,
            read_bytes: 0,
            write_bytes: 0,
            reserved: 0,
            kernel_bytes_per_write: 0,
            writes: 0,
            budget,
        }
    }

    /// Reserves `bytes` of the budget for other memory. Fails when the budget is used up.
    pub fn set_reserved(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        self.reserved = bytes;
        self.make_way(0)
    }

    pub fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    pub fn set_kernel_bytes_per_write(&mut self, bytes: usize) {
        self.kernel_bytes_per_write = bytes;
    }

    /// Returns the bytes that count against the budget. Spare buffers do not: they are freed first.
    fn used(&self) -> usize {
        self.reserved
            + self.read_bytes
            + self.write_bytes
            + self.writes * self.kernel_bytes_per_write
    }

    /// Returns the bytes of the budget that may be used before connections are evicted.
    pub fn eviction_bound(&self) -> usize {
        self.budget - self.budget / EVICTION_MARGIN
    }

    /// Returns the slot to evict while the budget is nearly used up: one with a buffer of the
    /// largest class. Evicting early keeps the budget from being exceeded.
    pub fn largest_over_budget(&self) -> Option<u32> {
        // In fixed mode, all connections hold about the same memory, so none is a better choice.
        let is_near = !self.is_fixed() && self.used() > self.eviction_bound();
        let largest = self.lent.iter().rev().find_map(|class| class.last()).filter(|_| is_near)?;
        Some(self.buffers[*largest as usize].used_for.slot())
    }

    pub fn is_fixed(&self) -> bool {
        matches!(self.mode, BufferMode::Fixed(_))
    }

    /// Returns the buffer that a new connection starts with: none, or a fixed one.
    pub fn open(&mut self, used_for: Use) -> Result<Option<BufferId>, BudgetExceeded> {
        match self.mode {
            BufferMode::Pooled => Ok(None),
            BufferMode::Fixed(size) => {
                let mut bytes = self.lend(size)?;
                // A server of that design declares `[0; SIZE]` for each connection, which touches
                // all of the memory.
                bytes.resize(size, 0);
                bytes.clear();
                self.count(used_for, 0, bytes.capacity());
                Ok(Some(self.insert(bytes, used_for)))
            }
        }
    }

    /// Appends `input` to the buffer in `slot`. Lends a buffer if there is none. Fails when the
    /// budget is used up.
    pub fn append(
        &mut self,
        slot: &mut Option<BufferId>,
        used_for: Use,
        input: &[u8],
    ) -> Result<(), BudgetExceeded> {
        if input.is_empty() {
            return Ok(());
        }
        let Some(id) = slot else {
            let mut bytes = self.lend(input.len())?;
            bytes.extend_from_slice(input);
            self.count(used_for, 0, bytes.capacity());
            *slot = Some(self.insert(bytes, used_for));
            return Ok(());
        };
        self.make_room(id, input.len())?;
        self.buffers[id.key()].bytes.extend_from_slice(input);
        Ok(())
    }

    /// Inserts `front` before the bytes of the buffer. Fails when the budget is used up.
    pub fn prepend(
        &mut self,
        slot: &mut Option<BufferId>,
        used_for: Use,
        front: &[u8],
    ) -> Result<(), BudgetExceeded> {
        let mut behind = slot.take();
        let joined = self.append(slot, used_for, front).and_then(|()| {
            let rest = self.bytes(&behind).to_vec();
            self.append(slot, used_for, &rest)
        });
        self.release(&mut behind);
        joined
    }

    /// Returns the bytes in the buffer; none if there is no buffer.
    pub fn bytes(&self, slot: &Option<BufferId>) -> &[u8] {
        slot.as_ref().map_or(&[], |id| {
            let buffer = &self.buffers[id.key()];
            &buffer.bytes[buffer.done as usize..]
        })
    }

    /// Returns the same bytes, mutable.
    pub fn bytes_mut(&mut self, slot: &Option<BufferId>) -> &mut [u8] {
        slot.as_ref().map_or(&mut [], |id| {
            let buffer = &mut self.buffers[id.key()];
            &mut buffer.bytes[buffer.done as usize..]
        })
    }

    /// Takes the memory of a buffer out of the pool. Returns it with the number of consumed bytes
    /// at its front. The buffer seems empty until [`Self::lower`].
    pub fn lift(&mut self, slot: &Option<BufferId>) -> (Vec<u8>, usize) {
        slot.as_ref().map_or_else(Default::default, |id| {
            let buffer = &mut self.buffers[id.key()];
            (std::mem::take(&mut buffer.bytes), std::mem::take(&mut buffer.done) as usize)
        })
    }

    /// Puts the memory from [`Self::lift`] back.
    pub fn lower(&mut self, slot: &Option<BufferId>, bytes: Vec<u8>, done: usize) {
        if let Some(id) = slot {
            let buffer = &mut self.buffers[id.key()];
            (buffer.bytes, buffer.done) = (bytes, done as u32);
        }
    }

    pub fn len(&self, slot: &Option<BufferId>) -> usize {
        self.bytes(slot).len()
    }

    /// Returns the capacity of the buffer in bytes.
    pub fn capacity(&self, slot: &Option<BufferId>) -> usize {
        slot.as_ref().map_or(0, |id| self.buffers[id.key()].bytes.capacity())
    }

    /// Returns the number of [`Self::bytes`] in which a scan found no end of a message.
    pub fn scanned(&self, slot: &Option<BufferId>) -> usize {
        slot.as_ref().map_or(0, |id| self.buffers[id.key()].scanned as usize)
    }

    pub fn set_scanned(&mut self, slot: &Option<BufferId>, scanned: usize) {
        if let Some(id) = slot {
            self.buffers[id.key()].scanned = scanned as u32;
        }
    }

    /// Drops the first `count` bytes. An empty buffer then goes back to the pool.
    pub fn consume(&mut self, slot: &mut Option<BufferId>, count: usize) {
        let Some(id) = slot else { return };
        let buffer = &mut self.buffers[id.key()];
        buffer.done += count as u32;
        buffer.scanned = buffer.scanned.saturating_sub(count as u32);
        debug_assert!(buffer.done as usize <= buffer.bytes.len());
        if buffer.done as usize == buffer.bytes.len() {
            buffer.done = 0;
            buffer.bytes.clear();
            match self.mode {
                BufferMode::Pooled => self.release(slot),
                BufferMode::Fixed(size) => self.shrink(slot, size),
            }
        }
    }

    /// Gives the buffer in `slot` back to the pool, with any bytes in it.
    pub fn release(&mut self, slot: &mut Option<BufferId>) {
        let Some(id) = slot.take() else { return };
        self.delist(id.key());
        let buffer = self.buffers.remove(id.key());
        self.writes -= usize::from(matches!(buffer.used_for, Use::Write(_)));
        self.count(buffer.used_for, buffer.bytes.capacity(), 0);
        self.keep(buffer.bytes);
    }

    /// Returns the bytes lent for partial input.
    pub fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    /// Returns the bytes lent for unsent output.
    pub fn write_bytes(&self) -> usize {
        self.write_bytes
    }

    /// Returns the bytes of free buffers kept for reuse.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    /// Returns the bytes of the pool's own tables.
    pub fn table_bytes(&self) -> usize {
        self.buffers.capacity() * size_of::<Buffer>()
            + self.spare.iter().map(|class| class.capacity() * size_of::<Vec<u8>>()).sum::<usize>()
            + self.lent.iter().map(|class| class.capacity() * size_of::<u32>()).sum::<usize>()
    }

    /// Returns the number of buffers lent.
    pub fn lent(&self) -> usize {
        self.buffers.len()
    }

    /// Frees all spare buffers, and the table of buffers if none is lent.
    pub fn shrink_to_fit(&mut self) {
        self.drop_spare();
        self.lent.iter_mut().for_each(Vec::shrink_to_fit);
        if self.buffers.is_empty() {
            self.buffers = Slab::new();
        } else {
            self.buffers.shrink_to_fit();
        }
    }

    /// Panics if a counter disagrees with the buffers. For tests: it walks all of them.
    pub fn check_invariants(&self) {
        let is_read = |buffer: &Buffer| matches!(buffer.used_for, Use::Read(_));
        let (read, write): (Vec<_>, Vec<_>) =
            self.buffers.iter().map(|(_, buffer)| buffer).partition(|buffer| is_read(buffer));
        let capacity = |buffers: &[&Buffer]| {
            buffers.iter().map(|buffer| buffer.bytes.capacity()).sum::<usize>()
        };
        assert_eq!(
            (self.read_bytes, self.write_bytes),
            (capacity(&read), capacity(&write)),
            "the lent bytes are miscounted"
        );
        assert_eq!(self.writes, write.len(), "the output buffers are miscounted");
        let listed = self.lent.iter().map(Vec::len).sum::<usize>();
        assert_eq!(listed, self.buffers.len(), "a buffer is missing from the lists by class");
        for (key, buffer) in &self.buffers {
            let class = listed_class(buffer.bytes.capacity());
            assert_eq!(
                self.lent[class].get(buffer.place as usize),
                Some(&(key as u32)),
                "a buffer is not at its place in its list"
            );
        }
        assert_eq!(
            self.spare_bytes,
            self.spare.iter().flatten().map(Vec::capacity).sum::<usize>(),
            "the spare bytes are miscounted"
        );
    }

    fn insert(&mut self, bytes: Vec<u8>, used_for: Use) -> BufferId {
        let key = self.buffers.insert(Buffer { bytes, done: 0, scanned: 0, place: 0, used_for });
        self.writes += usize::from(matches!(used_for, Use::Write(_)));
        self.enlist(key);
        BufferId::new(key)
    }

    /// Adds a buffer to the list of its class.
    fn enlist(&mut self, key: usize) {
        let list = &mut self.lent[listed_class(self.buffers[key].bytes.capacity())];
        self.buffers[key].place = list.len() as u32;
        list.push(key as u32);
    }

    /// Removes a buffer from the list of its class. The last buffer of the list moves to its place.
    fn delist(&mut self, key: usize) {
        let buffer = &self.buffers[key];
        let (list, place) =
            (&mut self.lent[listed_class(buffer.bytes.capacity())], buffer.place as usize);
        list.swap_remove(place);
        if let Some(moved) = list.get(place) {
            self.buffers[*moved as usize].place = place as u32;
        }
    }

    /// Returns an empty buffer of at least `size` bytes: a spare one or a new one.
    fn lend(&mut self, size: usize) -> Result<Vec<u8>, BudgetExceeded> {
        let class = class_for(size);
        if let Some(bytes) = self.spare.get_mut(class).and_then(Vec::pop) {
            self.spare_bytes -= bytes.capacity();
            return Ok(bytes);
        }
        self.make_way(capacity_of(class))?;
        Ok(Vec::with_capacity(capacity_of(class)))
    }

    /// Makes room for `more` bytes in the budget by freeing spare buffers. Fails if that is not
    /// enough.
    fn make_way(&mut self, more: usize) -> Result<(), BudgetExceeded> {
        let needed = self.used() + more;
        if needed + self.spare_bytes > self.budget {
            self.drop_spare();
        }
        if needed > self.budget { Err(BudgetExceeded) } else { Ok(()) }
    }

    fn drop_spare(&mut self) {
        self.spare = std::array::from_fn(|_| Vec::new());
        self.spare_bytes = 0;
    }

    /// Makes room for `more` bytes at the end of a buffer. It moves the bytes to the front if that
    /// helps, and otherwise to a larger buffer.
    fn make_room(&mut self, id: &BufferId, more: usize) -> Result<(), BudgetExceeded> {
        let key = id.key();
        let buffer = &mut self.buffers[key];
        let (done, old) = (buffer.done as usize, buffer.bytes.capacity());
        let held = buffer.bytes.len() - done;
        if buffer.bytes.len() + more <= old {
            return Ok(());
        }
        // Moving pays only if it frees at least as much as it copies.
        if held + more <= old && done >= held {
            buffer.bytes.copy_within(done.., 0);
            buffer.bytes.truncate(held);
            buffer.done = 0;
            return Ok(());
        }
        let mut larger = self.lend((held + more).max(old))?;
        self.delist(key);
        let buffer = &mut self.buffers[key];
        larger.extend_from_slice(&buffer.bytes[done..]);
        buffer.done = 0;
        let used_for = buffer.used_for;
        let (capacity, smaller) = (larger.capacity(), std::mem::replace(&mut buffer.bytes, larger));
        self.enlist(key);
        self.count(used_for, old, capacity);
        self.keep(smaller);
        Ok(())
    }

    /// Shrinks an empty fixed buffer to `size`, if it had grown.
    fn shrink(&mut self, slot: &mut Option<BufferId>, size: usize) {
        let Some(id) = slot else { return };
        let old = self.buffers[id.key()].bytes.capacity();
        if old > capacity_of(class_for(size)) {
            let key = id.key();
            self.delist(key);
            let buffer = &mut self.buffers[key];
            buffer.bytes = Vec::with_capacity(capacity_of(class_for(size)));
            let (used_for, new) = (buffer.used_for, buffer.bytes.capacity());
            self.enlist(key);
            self.count(used_for, old, new);
        }
    }

    fn count(&mut self, used_for: Use, old: usize, new: usize) {
        let bytes = match used_for {
            Use::Read(_) => &mut self.read_bytes,
            Use::Write(_) => &mut self.write_bytes,
        };
        *bytes = *bytes - old + new;
    }

    /// Keeps a free buffer for reuse, unless the pool has enough spare ones.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        let class = class_for(bytes.capacity());
        if class < CLASSES
            && capacity_of(class) == bytes.capacity()
            && self.spare_bytes + bytes.capacity() <= SPARE_BUFFERS_MAX
        {
            bytes.clear();
            self.spare_bytes += bytes.capacity();
            self.spare[class].push(bytes);
        }
    }
}

/// Returns the smallest class that holds `size` bytes, also above the largest kept class.
fn class_for(size: usize) -> usize {
    let bits = size.max(1).next_power_of_two().trailing_zeros();
    bits.saturating_sub(CLASS_MIN) as usize
}

/// Returns the class whose list has a buffer of this capacity.
fn listed_class(capacity: usize) -> usize {
    class_for(capacity).min(CLASSES - 1)
}

/// Returns the buffer size of a class in bytes.
fn capacity_of(class: usize) -> usize {
    1 << (class as u32 + CLASS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 1 << 20;
    const READ: Use = Use::Read(7);
    const WRITE: Use = Use::Write(7);

    fn pool() -> BufferPool {
        BufferPool::new(BufferMode::Pooled, BUDGET)
    }

    #[test]
    fn a_buffer_is_lent_only_while_there_are_bytes_to_hold() {
        let mut pool = pool();
        let mut slot = pool.open(READ).unwrap();
        assert_eq!(slot, None);
        pool.append(&mut slot, READ, b"").unwrap();
        assert_eq!(slot, None);
        pool.append(&mut slot, READ, b"part").unwrap();
        assert_eq!((pool.bytes(&slot), pool.read_bytes(), pool.lent()), (&b"part"[..], 64, 1));
        pool.consume(&mut slot, 2);
        assert_eq!(pool.bytes(&slot), b"rt");
        pool.consume(&mut slot, 2);
        assert_eq!((&slot, pool.read_bytes(), pool.lent(), pool.spare_bytes()), (&None, 0, 0, 64));
        pool.shrink_to_fit();
        assert_eq!((pool.spare_bytes(), pool.table_bytes()), (0, 0));
    }

    #[test]
    fn prepended_bytes_come_first() {
        let mut pool = pool();
        let mut slot = None;
        pool.append(&mut slot, WRITE, b"xxbehind").unwrap();
        pool.consume(&mut slot, 2);
        pool.prepend(&mut slot, WRITE, b"front, ").unwrap();
        assert_eq!((pool.bytes(&slot), pool.lent()), (&b"front, behind"[..], 1));
        pool.check_invariants();
    }

    #[test]
    fn a_size_fits_its_class_at_the_limit_and_one_below_but_not_one_above() {
        for (size, class) in
            [(1, 64), (63, 64), (64, 64), (65, 128), (1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 21)]
        {
            assert_eq!(capacity_of(class_for(size)), class, "{size}");
        }
    }

    #[test]
    fn a_growing_buffer_keeps_its_bytes_and_its_capacity_is_counted() {
        let mut pool = pool();
        let mut slot = None;
        let mut expected = Vec::new();
        for round in 0..200u8 {
            pool.append(&mut slot, WRITE, &[round; 37]).unwrap();
            expected.extend_from_slice(&[round; 37]);
            if round % 3 == 0 {
                pool.consume(&mut slot, 20);
                expected.drain(..20);
            }
            assert_eq!(pool.bytes(&slot), expected);
        }
        assert_eq!(pool.write_bytes(), 8192);
        pool.release(&mut slot);
        assert_eq!(pool.write_bytes(), 0);
    }

    #[test]
    fn a_buffer_fits_the_budget_at_its_limit_and_above_but_not_one_byte_below() {
        for (budget, fits) in [(127, false), (128, true), (129, true)] {
            let mut pool = BufferPool::new(BufferMode::Pooled, budget);
            let mut first = None;
            pool.append(&mut first, READ, b"x").unwrap();
            let mut second = None;
            assert_eq!(pool.append(&mut second, WRITE, b"y").is_ok(), fits, "budget {budget}");
            assert_eq!(second.is_some(), fits);
            assert_eq!(pool.bytes(&first), b"x");
        }
    }

    #[test]
    fn the_largest_buffer_is_named_only_when_the_budget_is_nearly_used_up() {
        for (small, named) in [(55, None), (56, None), (57, Some(2))] {
            // The bound leaves an eighth of the budget free: 7,168 of 8,192 bytes may be used.
            let mut pool = BufferPool::new(BufferMode::Pooled, 8192);
            let (mut large, mut slots) = (None, Vec::new());
            pool.append(&mut large, Use::Write(2), &[0; 2048 + 1024]).unwrap();
            pool.consume(&mut large, 1);
            for slot in 0..small - 8 {
                slots.push(None);
                if pool.append(slots.last_mut().unwrap(), Use::Read(100 + slot), b"x").is_err() {
                    break;
                }
            }
            pool.check_invariants();
            assert_eq!(pool.largest_over_budget(), named, "{small}");
        }
    }

    #[test]
    fn kernel_buffers_for_unsent_output_count_against_the_budget() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 100_000);
        pool.set_kernel_bytes_per_write(90_000);
        let (mut read, mut write) = (None, None);
        pool.append(&mut read, READ, b"x").unwrap();
        assert_eq!(pool.largest_over_budget(), None);
        pool.append(&mut write, Use::Write(9), &[0; 100]).unwrap();
        assert_eq!(pool.largest_over_budget(), Some(9));
        pool.release(&mut write);
        assert_eq!(pool.largest_over_budget(), None);
        pool.check_invariants();
    }

    #[test]
    fn the_scan_position_moves_with_consumed_bytes() {
        let mut pool = pool();
        let mut slot = None;
        pool.append(&mut slot, READ, b"abcdef").unwrap();
        pool.set_scanned(&slot, 5);
        pool.consume(&mut slot, 2);
        assert_eq!(pool.scanned(&slot), 3);
        pool.consume(&mut slot, 3);
        assert_eq!(pool.scanned(&slot), 0);
    }

    #[test]
    fn a_fixed_buffer_stays_for_life_and_shrinks_back() {
        let mut pool = BufferPool::new(BufferMode::Fixed(4096), BUDGET);
        let mut slot = pool.open(READ).unwrap();
        assert_eq!(pool.read_bytes(), 4096);
        pool.append(&mut slot, READ, &[1; 5000]).unwrap();
        assert_eq!(pool.read_bytes(), 8192);
        pool.consume(&mut slot, 5000);
        assert_eq!((slot.is_some(), pool.read_bytes()), (true, 4096));
        pool.release(&mut slot);
        assert_eq!((pool.read_bytes(), pool.lent()), (0, 0));
    }

    #[test]
    fn the_pool_keeps_a_bounded_amount_of_spare_buffers() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 64 << 20);
        let mut slots: Vec<Option<BufferId>> = (0..100).map(|_| None).collect();
        for slot in &mut slots {
            pool.append(slot, READ, &[0; 100_000]).unwrap();
        }
        slots.iter_mut().for_each(|slot| pool.release(slot));
        assert!(pool.spare_bytes() <= SPARE_BUFFERS_MAX);
        assert_eq!(pool.read_bytes(), 0);
    }

    #[test]
    fn the_pool_keeps_spare_buffers_up_to_the_bound() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 64 << 20);
        let mut slots: Vec<Option<BufferId>> = (0..10).map(|_| None).collect();
        for slot in &mut slots {
            pool.append(slot, READ, &[0; 128 * 1024]).unwrap();
        }
        slots.iter_mut().for_each(|slot| pool.release(slot));
        assert_eq!(pool.spare_bytes(), SPARE_BUFFERS_MAX, "eight buffers of 128 KiB");
    }

    #[test]
    fn spare_buffers_are_dropped_when_they_no_longer_fit_the_budget() {
        for (reserved, kept) in
            [(BUDGET / 2 - 1, true), (BUDGET / 2, true), (BUDGET / 2 + 1, false)]
        {
            let (mut pool, mut slot) = (pool(), None);
            pool.append(&mut slot, READ, &vec![0; BUDGET / 2]).unwrap();
            pool.release(&mut slot);
            assert_eq!(pool.set_reserved(reserved), Ok(()));
            assert_eq!(pool.spare_bytes(), if kept { BUDGET / 2 } else { 0 }, "{reserved}");
        }
    }

    #[test]
    fn the_memory_of_the_pools_tables_is_that_of_all_its_lists() {
        let mut pool = pool();
        pool.buffers.reserve_exact(3);
        pool.spare[3].reserve_exact(20);
        pool.lent[2].reserve_exact(100);
        let entry = size_of::<Buffer>();
        assert_eq!(pool.table_bytes(), 3 * entry + 20 * size_of::<Vec<u8>>() + 100 * 4);
        pool.shrink_to_fit();
        assert_eq!(pool.table_bytes(), 0);
    }
}
