//! Values that the kernel reports in /proc. Reading one takes a millisecond at worst, so many
//! clients that ask for metrics at a time share one reading.

use std::cell::Cell;

use crate::clock::Time;
use crate::kernel::{Counters, KernelSettings};
use crate::limits::READINGS_KEPT;
use crate::memory::TcpSockets;

/// The last readings.
#[derive(Default)]
pub struct Readings {
    pub resident_bytes: KeptReading<Option<u64>>,
    pub tcp_sockets: KeptReading<Option<TcpSockets>>,
    pub kernel_settings: KeptReading<KernelSettings>,
    pub kernel_counters: KeptReading<Counters>,
}

/// A value, and when it was read.
pub struct KeptReading<T>(Cell<Option<(Time, T)>>);

impl<T> Default for KeptReading<T> {
    fn default() -> KeptReading<T> {
        KeptReading(Cell::new(None))
    }
}

impl<T: Copy> KeptReading<T> {
    /// Returns the value. Reads it anew if it is older than [`READINGS_KEPT`].
    pub fn get(&self, now: Time, read: impl FnOnce() -> T) -> T {
        let kept = self.0.get().filter(|(then, _)| now.since(*then) < READINGS_KEPT);
        let (then, value) = kept.unwrap_or_else(|| (now, read()));
        self.0.set(Some((then, value)));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_again_once_it_is_old() {
        let reading = KeptReading::default();
        let at = |nanos| Time::from_nanos(nanos);
        let kept = READINGS_KEPT.as_nanos() as u64;
        assert_eq!(reading.get(at(5), || 1), 1);
        assert_eq!(reading.get(at(4 + kept), || 2), 1);
        assert_eq!(reading.get(at(5 + kept), || 3), 3);
        assert_eq!(reading.get(at(5 + kept), || 4), 3);
    }
}
