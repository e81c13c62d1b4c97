//! Time as the loop sees it: the one file that reads a clock.
//!
//! The loop reads [`Clock::now`] once per turn and passes the answer down, so everything below it can
//! run on virtual time. Deadlines are kept per connection as a [`Tick`], four bytes long.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on the monotonic clock: nanoseconds since the loop was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    pub const ZERO: Time = Time(0);

    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The tick this moment lies in.
    pub fn tick(self) -> Tick {
        Tick((self.0 / TICK_NANOS) as u32)
    }

    /// How long from `earlier` until this moment; zero when it is not later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

const TICK_NANOS: u64 = 16_000_000;

/// A moment in units of 16 ms, the grain of every deadline. Wraps after 795 days, so two ticks are
/// compared by their distance ([`Tick::distance_from`]), never by their value: right for any two moments less
/// than 397 days apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    pub const LENGTH: Duration = Duration::from_nanos(TICK_NANOS);

    /// How many ticks lie between `earlier` and this one; negative when this one is the earlier.
    pub fn distance_from(self, earlier: Tick) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    pub fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// The length of a timeout in ticks. Rounded up, and one more because the present tick is already
    /// partly over: a deadline may come up to two ticks late, never early.
    pub fn count(timeout: Duration) -> u32 {
        u32::try_from(timeout.as_nanos().div_ceil(TICK_NANOS as u128) + 1).unwrap_or(u32::MAX / 2)
    }

    /// From `now` until the start of this tick; zero when it has begun.
    pub fn wait_from(self, now: Time) -> Duration {
        let ticks = self.distance_from(now.tick());
        if ticks <= 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(ticks as u64 * TICK_NANOS - now.0 % TICK_NANOS)
    }
}

/// The real clock, and the processor time this process has used.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time of day, since 1970 in UTC.
    pub fn unix_time() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Processor time of the whole process, user and system together. With one thread, its growth over
    /// wall time is the share of time the loop was busy, and costs nothing per turn to know.
    pub fn cpu_time() -> Duration {
        crate::sys::cpu_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn ticks_compare_by_distance_across_the_wrap() {
        let before = Tick(u32::MAX - 1);
        let after = before.plus(3);
        assert_eq!(after, Tick(1));
        assert_eq!(after.distance_from(before), 3);
        assert_eq!(before.distance_from(after), -3);
    }

    #[test]
    fn a_timeout_is_never_early_and_at_most_two_ticks_late() {
        for start in [0, 1, 15 * MS, 16 * MS - 1, 16 * MS] {
            for timeout in [1, 15, 16, 17, 1000] {
                let timeout = Duration::from_millis(timeout);
                let due = Time(start).tick().plus(Tick::count(timeout));
                let fires = Time(start) + due.wait_from(Time(start));
                let late = fires.since(Time(start) + timeout);
                assert!(fires >= Time(start) + timeout, "early: {start} {timeout:?}");
                assert!(late <= 2 * Tick::LENGTH, "late: {start} {timeout:?} by {late:?}");
            }
        }
    }

    #[test]
    fn waiting_for_a_past_tick_is_no_wait() {
        let now = Time(100 * 16 * MS);
        assert_eq!(Tick(99).wait_from(now), Duration::ZERO);
        assert_eq!(Tick(100).wait_from(now), Duration::ZERO);
        assert_eq!(Tick(101).wait_from(now), Tick::LENGTH);
    }
}
