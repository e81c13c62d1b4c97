//! The wait before the link dials again: longer after each failure, and never the same for two
//! servers.

use crate::clock::Tick;
use crate::limits::{BROKER_BACKOFF_MAX, BROKER_BACKOFF_MIN};

/// The failures since the link was last up.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the wait after a further failure, in ticks. The longest wait doubles with each
    /// failure; the wait is random between half of it and all of it.
    pub fn next(&mut self, random: &mut fastrand::Rng) -> u32 {
        let least = BROKER_BACKOFF_MIN.as_millis() as u64;
        let most = BROKER_BACKOFF_MAX.as_millis() as u64;
        let longest = most.min((2 * least) << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let millis = random.u64(least.max(longest / 2)..=longest);
        // The present tick is partly over.
        (millis / Tick::LENGTH.as_millis() as u64) as u32 + 1
    }

    /// Forgets the failures, after a real success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_50_ms_to_a_second_with_jitter() {
        let mut random = fastrand::Rng::with_seed(1);
        let ticks = |millis: u32| millis / 16 + 1;
        for (failures, least, most) in [
            (0, 50, 100),
            (1, 100, 200),
            (2, 200, 400),
            (3, 400, 800),
            (4, 500, 1000),
            (99, 500, 1000),
        ] {
            let waits: Vec<u32> =
                (0..1000).map(|_| Backoff { failures }.next(&mut random)).collect();
            let found = (waits.iter().min().copied(), waits.iter().max().copied());
            assert_eq!(found, (Some(ticks(least)), Some(ticks(most))), "{failures} failures");
        }
        let mut backoff = Backoff { failures: 9 };
        backoff.reset();
        assert!(backoff.next(&mut random) <= ticks(100));
        let mut forever = Backoff { failures: u32::MAX - 1 };
        assert!(forever.next(&mut random) <= ticks(1000));
    }
}
