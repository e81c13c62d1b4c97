//! The invariants of the pool, checked by tests and simulations.

use super::{Buffer, BufferPool, Use};

impl BufferPool {
    /// Panics if a counter disagrees with the buffers. For tests: it walks all of them.
    pub fn check_invariants(&self) {
        let is_read = |buffer: &Buffer| matches!(buffer.used_for, Use::Read(_));
        let (read, write): (Vec<_>, Vec<_>) =
            self.buffers.iter().map(|(_, buffer)| buffer).partition(|buffer| is_read(buffer));
        let capacity =
            |buffers: &[&Buffer]| buffers.iter().map(|buffer| buffer.capacity()).sum::<usize>();
        assert_eq!(
            (self.read_bytes, self.write_bytes),
            (capacity(&read), capacity(&write)),
            "the lent bytes are miscounted"
        );
        assert_eq!(self.writes, write.len(), "the output buffers are miscounted");
        self.check_lists();
        assert_eq!(
            self.spare_bytes,
            self.spare.iter().flatten().map(Vec::capacity).sum::<usize>(),
            "the spare bytes are miscounted"
        );
    }
}
