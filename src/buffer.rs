//! Buffers that a connection has only while it needs one.
//!
//! The service decodes a complete message where it was read, and the turn sends the answer from the
//! outbox. So most connections never own a buffer. Two things need one: part of a message, and
//! output that the peer is too slow to take. The pool lends buffers in size classes of powers of
//! two. A four-byte index names a buffer, which goes back to the pool as soon as it is empty.
//!
//! Large payloads are not copied: the output of each receiver refers to the one copy, in the
//! buffer's [`tail`]. [`stalled`] finds the connection to evict when memory runs out.
//!
//! In fixed mode ([`BufferMode::Fixed`]), every connection instead keeps two buffers of a given
//! size for life. It exists to measure the cost of that common design on the same server.

mod invariants;
mod memory;
mod stalled;
mod tail;

use std::collections::HashMap;
use std::num::NonZeroU32;

use slab::Slab;

use crate::clock::Tick;
use crate::limits::EVICTION_MARGIN;
use stalled::{Ends, LISTS, ListPlace};
use tail::Tail;

pub use stalled::Keep;

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
    pub fn slot(self) -> u32 {
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
    used_for: Use,
    /// Output behind `bytes`, from the first shared payload on.
    tail: Option<Box<Tail>>,
    place: ListPlace,
    /// Bytes that the peer took since the last progress.
    taken: usize,
}

impl Buffer {
    /// Returns the bytes that an eviction may free. A shared payload counts for each of its
    /// holders.
    fn weight(&self) -> usize {
        self.bytes.capacity() + self.tail.as_ref().map_or(0, |tail| tail.weight())
    }

    /// Returns the capacity of all own bytes.
    fn capacity(&self) -> usize {
        self.bytes.capacity() + self.tail.as_ref().map_or(0, |tail| tail.own())
    }
}

/// The pool: all lent and spare buffers, and the memory budget.
pub struct BufferPool {
    pub(crate) mode: BufferMode,
    buffers: Slab<Buffer>,
    /// The lent buffers by weight.
    stalled: [Ends; LISTS],
    /// Slots that are exempt from eviction, or never evicted.
    exempt: HashMap<u32, Keep>,
    /// Weight of the buffers of exempt slots.
    exempt_bytes: usize,
    spare: [Vec<Vec<u8>>; CLASSES],
    spare_bytes: usize,
    read_bytes: usize,
    write_bytes: usize,
    /// Bytes of the payloads in unsent output. Each counts once, however many connections share it.
    shared_bytes: usize,
    /// Bytes that the services hold.
    pub(crate) services: usize,
    /// The time of this turn.
    pub(crate) now: Tick,
    /// Bytes of the budget that the connections take without their buffers.
    pub(crate) reserved: usize,
    /// Bytes that the kernel may buffer for each connection with unsent output.
    pub(crate) kernel_bytes_per_write: usize,
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
            stalled: [Ends::EMPTY; LISTS],
            exempt: HashMap::new(),
            exempt_bytes: 0,
            spare: std::array::from_fn(|_| Vec::new()),
            spare_bytes: 0,
            read_bytes: 0,
            write_bytes: 0,
            shared_bytes: 0,
            services: 0,
            now: Tick(0),
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
        // Services bound their tables themselves. Even if these take more than half of the budget,
        // connections keep the other half.
        self.reserved + self.services.min(self.budget / 2) + self.evictable()
    }

    /// Returns the bytes that evictions can free.
    fn evictable(&self) -> usize {
        self.read_bytes
            + self.write_bytes
            + self.shared_bytes
            + self.writes * self.kernel_bytes_per_write
    }

    /// Returns the bytes of the budget that may be used before connections are evicted.
    pub fn eviction_bound(&self) -> usize {
        self.budget - self.budget / EVICTION_MARGIN
    }

    /// Returns whether connections must be evicted. Evicting early keeps the budget from being
    /// exceeded.
    pub fn is_nearly_full(&self) -> bool {
        self.used() > self.eviction_bound()
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
        if self.buffers[id.key()].tail.is_some() {
            return self.append_to_tail(id.key(), input);
        }
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
        let Some(id) = slot else { return self.append(slot, used_for, front) };
        let key = id.key();
        let held = self.buffers[key].bytes.len() - self.buffers[key].done as usize;
        let mut joined = self.lend(front.len() + held)?;
        let buffer = &mut self.buffers[key];
        joined.extend_from_slice(front);
        joined.extend_from_slice(&buffer.bytes[buffer.done as usize..]);
        buffer.done = 0;
        let (used_for, new) = (buffer.used_for, joined.capacity());
        let old = std::mem::replace(&mut buffer.bytes, joined);
        self.count(used_for, old.capacity(), new);
        self.keep(old);
        self.reweigh(key);
        Ok(())
    }

    /// Returns the first bytes in the buffer: all of them, or all up to a shared payload, or those
    /// of a payload. None if there is no buffer.
    pub fn bytes(&self, slot: &Option<BufferId>) -> &[u8] {
        slot.as_ref().map_or(&[], |id| {
            let Buffer { bytes, done, tail, .. } = &self.buffers[id.key()];
            match tail {
                Some(tail) if *done as usize == bytes.len() => tail.first(),
                _ => &bytes[*done as usize..],
            }
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
            // CLIENT NO-EVICT may have weighed the buffer while its bytes were lifted.
            self.reweigh(id.key());
        }
    }

    /// Returns the number of bytes in the buffer, with those of shared payloads.
    pub fn len(&self, slot: &Option<BufferId>) -> usize {
        slot.as_ref().map_or(0, |id| {
            let Buffer { bytes, done, tail, .. } = &self.buffers[id.key()];
            bytes.len() - *done as usize + tail.as_ref().map_or(0, |tail| tail.unsent())
        })
    }

    /// Returns the number of these bytes that belong to shared payloads.
    pub fn shared_len(&self, slot: &Option<BufferId>) -> usize {
        let tail = slot.as_ref().and_then(|id| self.buffers[id.key()].tail.as_ref());
        tail.map_or(0, |tail| tail.unsent_shared())
    }

    /// Returns the capacity of the buffer in bytes, without shared payloads.
    pub fn capacity(&self, slot: &Option<BufferId>) -> usize {
        slot.as_ref().map_or(0, |id| self.buffers[id.key()].capacity())
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
        let key = id.key();
        let buffer = &mut self.buffers[key];
        let own = count.min(buffer.bytes.len() - buffer.done as usize);
        buffer.done += own as u32;
        buffer.scanned = buffer.scanned.saturating_sub(count as u32);
        if count > own {
            self.take_shared(key, count - own);
        }
        let buffer = &mut self.buffers[key];
        if (buffer.done as usize) < buffer.bytes.len() || buffer.tail.is_some() {
            if matches!(buffer.used_for, Use::Write(_)) && count > 0 {
                self.note_taken(key, count);
            }
            return;
        }
        buffer.done = 0;
        buffer.bytes.clear();
        match self.mode {
            BufferMode::Pooled => self.release(slot),
            BufferMode::Fixed(size) => self.shrink(slot, size),
        }
    }

    /// Gives the buffer in `slot` back to the pool, with any bytes in it.
    pub fn release(&mut self, slot: &mut Option<BufferId>) {
        let Some(id) = slot.take() else { return };
        self.delist(id.key());
        let mut buffer = self.buffers.remove(id.key());
        self.writes -= usize::from(matches!(buffer.used_for, Use::Write(_)));
        self.count(buffer.used_for, buffer.capacity(), 0);
        self.shared_bytes -= buffer.tail.as_mut().map_or(0, |tail| tail.clear());
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

    /// Returns the bytes of the payloads in unsent output. Each counts once.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Returns the bytes of free buffers kept for reuse.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    /// Returns the bytes of the pool's own tables.
    pub fn table_bytes(&self) -> usize {
        self.buffers.capacity() * size_of::<Buffer>()
            + self.spare.iter().map(|class| class.capacity() * size_of::<Vec<u8>>()).sum::<usize>()
            + self.exempt.capacity() * 3 * size_of::<u32>()
    }

    /// Returns the number of buffers lent.
    pub fn lent(&self) -> usize {
        self.buffers.len()
    }

    /// Frees all spare buffers, and the table of buffers if none is lent.
    pub fn shrink_to_fit(&mut self) {
        self.drop_spare();
        self.exempt.shrink_to_fit();
        if self.buffers.is_empty() {
            self.buffers = Slab::new();
        } else {
            self.buffers.shrink_to_fit();
        }
    }

    fn insert(&mut self, bytes: Vec<u8>, used_for: Use) -> BufferId {
        let key = self.buffers.insert(Buffer {
            bytes,
            done: 0,
            scanned: 0,
            used_for,
            tail: None,
            place: ListPlace::NOWHERE,
            taken: 0,
        });
        self.writes += usize::from(matches!(used_for, Use::Write(_)));
        self.enlist(key);
        BufferId::new(key)
    }
}

/// Returns the smallest class that holds `size` bytes, also above the largest kept class.
fn class_for(size: usize) -> usize {
    let bits = size.max(1).next_power_of_two().trailing_zeros();
    bits.saturating_sub(CLASS_MIN) as usize
}

/// Returns the buffer size of a class in bytes.
fn capacity_of(class: usize) -> usize {
    1 << (class as u32 + CLASS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SPARE_BUFFERS_MAX;
    use crate::payload::Payload;
    use std::rc::Rc;

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
    fn the_pool_is_nearly_full_above_seven_eighths_of_the_budget() {
        for (small, full) in [(55, false), (56, false), (57, true)] {
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
            assert_eq!(pool.is_nearly_full(), full, "{small}");
            assert_eq!(pool.most_stalled(), Some(2), "the largest of one age");
        }
    }

    #[test]
    fn kernel_buffers_for_unsent_output_count_against_the_budget() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 100_000);
        pool.set_kernel_bytes_per_write(90_000);
        let (mut read, mut write) = (None, None);
        pool.append(&mut read, READ, b"x").unwrap();
        assert!(!pool.is_nearly_full());
        pool.append(&mut write, Use::Write(9), &[0; 100]).unwrap();
        assert_eq!((pool.is_nearly_full(), pool.most_stalled()), (true, Some(9)));
        pool.release(&mut write);
        assert!(!pool.is_nearly_full());
        pool.check_invariants();
    }

    /// Returns the slots in the order of their eviction.
    fn evicted(pool: &mut BufferPool, slots: &mut [Option<BufferId>]) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(slot) = pool.most_stalled() {
            pool.release(&mut slots[slot as usize]);
            pool.check_invariants();
            order.push(slot);
        }
        order
    }

    #[test]
    fn of_equal_buffers_the_one_that_stalled_first_is_evicted_first() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 1 << 30);
        let mut slots: Vec<Option<BufferId>> = (0..6).map(|_| None).collect();
        for (slot, key) in (0..6).zip(&mut slots) {
            pool.now = Tick(10 * slot);
            let used_for = if slot % 2 == 0 { Use::Read(slot) } else { Use::Write(slot) };
            pool.append(key, used_for, &[0; 1000]).unwrap();
        }
        pool.now = Tick(100);
        // Output makes progress with an eighth of its bytes; less does not count. Input that
        // dribbles makes none.
        pool.consume(&mut slots[1], 128);
        pool.consume(&mut slots[3], 127);
        pool.append(&mut slots[2], Use::Read(2), b"x").unwrap();
        pool.check_invariants();
        assert_eq!(evicted(&mut pool, &mut slots), [0, 2, 3, 4, 5, 1]);
    }

    #[test]
    fn a_large_buffer_in_progress_outlives_smaller_stalled_ones() {
        let mut pool = BufferPool::new(BufferMode::Pooled, 1 << 30);
        let mut slots: Vec<Option<BufferId>> = (0..3).map(|_| None).collect();
        pool.append(&mut slots[0], Use::Read(0), &[0; 600_000]).unwrap();
        pool.now = Tick(50);
        for _ in 0..8 {
            pool.append(&mut slots[1], Use::Read(1), &[0; 1 << 20]).unwrap();
        }
        pool.append(&mut slots[2], Use::Write(2), &[0; 100]).unwrap();
        pool.now = Tick(52);
        assert_eq!(evicted(&mut pool, &mut slots), [0, 1, 2]);
    }

    #[test]
    fn exempt_connections_are_evicted_only_beyond_their_share() {
        for (bytes, first) in [(1 << 20, None), ((1 << 20) + 1, Some(0))] {
            let mut pool = BufferPool::new(BufferMode::Pooled, 4 << 20);
            let mut slots: Vec<Option<BufferId>> = (0..2).map(|_| None).collect();
            assert!(pool.keep_slot(0, Keep::Exempt));
            pool.append(&mut slots[0], Use::Read(0), &vec![0; bytes]).unwrap();
            assert_eq!(pool.most_stalled(), first);
            pool.append(&mut slots[1], Use::Write(1), &[0; 10]).unwrap();
            assert_eq!(pool.most_stalled(), first.or(Some(1)));
            pool.check_invariants();
        }
    }

    #[test]
    fn a_shared_payload_is_counted_once_and_sent_between_own_bytes() {
        let mut pool = pool();
        let payload = Rc::new(Payload::new(&[7; 5000]));
        let mut slots: Vec<Option<BufferId>> = (0..3).map(|_| None).collect();
        for (number, slot) in (0..).zip(&mut slots) {
            if number > 0 {
                pool.append(slot, Use::Write(number), b"head").unwrap();
            }
            for _ in 0..2 {
                pool.append_shared(slot, Use::Write(number), payload.clone());
                pool.append(slot, Use::Write(number), b"tail").unwrap();
                pool.append(slot, Use::Write(number), &[b'.'; 100]).unwrap();
                pool.check_invariants();
            }
        }
        assert_eq!((pool.shared_bytes(), pool.len(&slots[1])), (5000, 4 + 2 * 5104));
        pool.prepend(&mut slots[1], Use::Write(1), b"front ").unwrap();
        let behind = [&b"tail"[..], &[b'.'; 100]].concat();
        let expected = [&b"front head"[..], &[7; 5000], &behind, &[7; 5000], &behind].concat();
        for step in [1, 7, 999, 20_000] {
            let mut got = Vec::new();
            let mut slot = None;
            pool.append(&mut slot, WRITE, b"front head").unwrap();
            for _ in 0..2 {
                pool.append_shared(&mut slot, WRITE, payload.clone());
                pool.append(&mut slot, WRITE, &behind).unwrap();
            }
            while slot.is_some() {
                let part = pool.bytes(&slot);
                let part = &part[..part.len().min(step)];
                got.extend_from_slice(part);
                let (length, before) = (part.len(), pool.len(&slot));
                pool.consume(&mut slot, length);
                assert_eq!(pool.len(&slot), before - length);
                pool.check_invariants();
            }
            assert!(got == expected, "steps of {step}");
        }
        assert_eq!(payload.taken.get(), 4 * 2 * 5000);
        let length = pool.len(&slots[1]);
        pool.consume(&mut slots[1], length);
        pool.release(&mut slots[0]);
        assert_eq!((pool.shared_bytes(), payload.holders.get()), (5000, 2));
        pool.release(&mut slots[2]);
        assert_eq!((pool.shared_bytes(), pool.write_bytes(), pool.lent()), (0, 0, 0));
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
        let entry = size_of::<Buffer>();
        assert_eq!(pool.table_bytes(), 3 * entry + 20 * size_of::<Vec<u8>>());
        pool.keep_slot(1, Keep::Exempt);
        assert!(pool.table_bytes() > 3 * entry + 20 * size_of::<Vec<u8>>());
        pool.keep_slot(1, Keep::No);
        pool.shrink_to_fit();
        assert_eq!(pool.table_bytes(), 0);
    }
}
