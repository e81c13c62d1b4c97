//! The memory of the buffers: how they grow, and which are kept for reuse.

use super::{BudgetExceeded, BufferId, BufferPool, CLASSES, Use, capacity_of, class_for};
use crate::limits::SPARE_BUFFERS_MAX;

impl BufferPool {
    /// Returns an empty buffer of at least `size` bytes: a spare one or a new one.
    pub(super) fn lend(&mut self, size: usize) -> Result<Vec<u8>, BudgetExceeded> {
        let class = class_for(size);
        if let Some(bytes) = self.spare.get_mut(class).and_then(Vec::pop) {
            self.spare_bytes -= bytes.capacity();
            return Ok(bytes);
        }
        self.make_way(capacity_of(class))?;
        // The system may refuse what the budget allows, as with ulimit -v.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity_of(class)).map_err(|_| BudgetExceeded)?;
        Ok(bytes)
    }

    /// Makes room for `more` bytes in the budget by freeing spare buffers. Fails if that is not
    /// enough.
    pub(super) fn make_way(&mut self, more: usize) -> Result<(), BudgetExceeded> {
        let needed = self.used() + more;
        if needed + self.spare_bytes > self.budget {
            self.drop_spare();
        }
        if needed > self.budget { Err(BudgetExceeded) } else { Ok(()) }
    }

    pub(super) fn drop_spare(&mut self) {
        self.spare = std::array::from_fn(|_| Vec::new());
        self.spare_bytes = 0;
    }

    /// Makes room for `more` bytes at the end of a buffer. It moves the bytes to the front if that
    /// helps, and otherwise to a larger buffer.
    pub(super) fn make_room(&mut self, id: &BufferId, more: usize) -> Result<(), BudgetExceeded> {
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
        let used_for = buffer.used_for;
        if held + more > capacity_of(CLASSES - 1) {
            // Such a buffer grows in place or moves by changing page tables (mremap(2)), which
            // costs no copy, and by a quarter, because doubling it could waste megabytes.
            let wanted = (held + more) + (held + more) / 4;
            self.make_way(wanted.saturating_sub(old))?;
            let buffer = &mut self.buffers[key];
            buffer.bytes.drain(..done);
            buffer.done = 0;
            let refused = buffer.bytes.try_reserve_exact(wanted - held).is_err();
            if refused {
                return Err(BudgetExceeded);
            }
            let capacity = buffer.bytes.capacity();
            self.count(used_for, old, capacity);
            self.reweigh(key);
            return Ok(());
        }
        let mut larger = self.lend((held + more).max(old))?;
        let buffer = &mut self.buffers[key];
        larger.extend_from_slice(&buffer.bytes[done..]);
        buffer.done = 0;
        let (capacity, smaller) = (larger.capacity(), std::mem::replace(&mut buffer.bytes, larger));
        self.count(used_for, old, capacity);
        self.keep(smaller);
        self.reweigh(key);
        Ok(())
    }

    /// Shrinks an empty fixed buffer to `size`, if it had grown.
    pub(super) fn shrink(&mut self, slot: &mut Option<BufferId>, size: usize) {
        let Some(id) = slot else { return };
        let old = self.buffers[id.key()].bytes.capacity();
        if old > capacity_of(class_for(size)) {
            let key = id.key();
            let buffer = &mut self.buffers[key];
            buffer.bytes = Vec::with_capacity(capacity_of(class_for(size)));
            let (used_for, new) = (buffer.used_for, buffer.bytes.capacity());
            self.count(used_for, old, new);
            self.reweigh(key);
        }
    }

    pub(super) fn count(&mut self, used_for: Use, old: usize, new: usize) {
        let bytes = match used_for {
            Use::Read(_) => &mut self.read_bytes,
            Use::Write(_) => &mut self.write_bytes,
        };
        *bytes = *bytes - old + new;
    }

    /// Keeps a free buffer for reuse, unless the pool has enough spare ones.
    pub(super) fn keep(&mut self, mut bytes: Vec<u8>) {
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
