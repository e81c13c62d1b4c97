//! Time as the loop sees it. No other file reads a clock.
//!
//! The loop reads [`Clock::now`] once per turn and passes the time down, so all code below it can
//! run on virtual time. Each connection stores its deadline as a [`Tick`] of four bytes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits::STOPPED_MIN;

/// A moment on the monotonic clock, in nanoseconds since the loop was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The moment when the loop was created.
    pub const ZERO: Time = Time(0);

    /// Returns the moment this many nanoseconds after [`Time::ZERO`].
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Returns the nanoseconds since [`Time::ZERO`].
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the seconds since [`Time::ZERO`].
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns the tick of this moment.
    pub fn tick(self) -> Tick {
        Tick((self.0 / TICK_NANOS) as u32)
    }

    /// Returns the time from `earlier` to this moment, or zero if `earlier` is later.
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

impl std::ops::Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The time of the loop: the time of the system, without the spans in which the process was
/// stopped. All deadlines are on this time, so a stop counts for nobody.
///
/// The loop says by when it means to read the clock next. If it is later by more than
/// [`STOPPED_MIN`], then the process was stopped or got no processor time, and the clock goes on
/// from its last reading. Nobody knows when in a wait the stop began, so the whole wait does not
/// count.
#[derive(Clone, Copy, Debug)]
pub struct LoopClock {
    now: Time,
    stopped: Duration,
    expected: Time,
}

impl LoopClock {
    /// Starts a clock that is expected to be read at once.
    pub fn start(now: Time) -> LoopClock {
        LoopClock { now, stopped: Duration::ZERO, expected: now }
    }

    /// Returns the loop's time for the system's time, and whether the process was stopped before.
    /// The next reading is expected at once.
    pub fn read(&mut self, system: Time) -> (Time, bool) {
        let time = system - self.stopped;
        let was_stopped = time.since(self.expected) > STOPPED_MIN;
        match was_stopped {
            true => self.stopped += time.since(self.now),
            false => self.now = time,
        }
        self.expected = self.now;
        (self.now, was_stopped)
    }

    /// Returns how much later than expected the system's time is. Returns `None` if it is sooner.
    pub fn lateness(&self, system: Time) -> Option<Duration> {
        let time = system - self.stopped;
        (time >= self.expected).then(|| time.since(self.expected))
    }

    /// Expects the next reading after a wait of at most `timeout`; `None`: at any time.
    pub fn waits(&mut self, timeout: Option<Duration>) {
        self.expected = timeout.map_or(Time(u64::MAX), |timeout| self.now + timeout);
    }
}

const TICK_NANOS: u64 = 16_000_000;

/// A moment in units of 16 ms, the precision of every deadline.
///
/// Ticks wrap after 795 days. So [`Tick::distance_from`] compares two ticks by their distance,
/// which is right for moments less than 397 days apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// The length of a tick, 16 ms.
    pub const LENGTH: Duration = Duration::from_nanos(TICK_NANOS);

    /// Returns the number of ticks from `earlier` to this one. Negative if this one is the earlier.
    pub fn distance_from(self, earlier: Tick) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Returns the tick this many ticks later.
    pub fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// Returns the length of a timeout in ticks: rounded up, and one more for the part of the
    /// present tick that has passed. So a deadline fires up to two ticks late, and never early.
    pub fn count(timeout: Duration) -> u32 {
        u32::try_from(timeout.as_nanos().div_ceil(TICK_NANOS as u128) + 1).unwrap_or(u32::MAX / 2)
    }

    /// Returns the time from `now` to the start of this tick, or zero if it has begun.
    pub fn wait_from(self, now: Time) -> Duration {
        let ticks = self.distance_from(now.tick());
        if ticks <= 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(ticks as u64 * TICK_NANOS - now.0 % TICK_NANOS)
    }
}

/// The real clock, and the processor time of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts a clock. Its [`Time::ZERO`] is the moment of this call.
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Returns the time since the start of this clock.
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the time since 1970 in UTC.
    pub fn unix_time() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Returns the processor time of the process, user and system together. Its growth divided by
    /// the elapsed time is the share of time that the loop was busy. It costs nothing per turn.
    pub fn cpu_time() -> Duration {
        crate::sys::cpu_time()
    }

    /// Returns the time since the machine started, on the clock that service managers compare with
    /// their own (CLOCK_MONOTONIC).
    pub fn since_boot() -> Duration {
        crate::sys::monotonic_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_clock_of_the_loop_leaves_out_a_stop_and_counts_every_wait() {
        let second = Duration::from_secs(1);
        let at = |ms: u64| Time(ms * MS);
        let mut clock = LoopClock::start(at(0));
        assert_eq!(clock.read(at(100)), (at(100), false), "late by no more than the bound");
        assert_eq!(clock.read(at(201)), (at(100), true), "late by more");
        clock.waits(Some(second));
        assert_eq!(clock.read(at(1201)), (at(1100), false), "a whole wait");
        clock.waits(Some(second));
        assert_eq!(clock.read(at(1301)), (at(1200), false), "an event ended the wait");
        clock.waits(Some(second));
        assert_eq!(clock.read(at(9_301)), (at(1200), true), "stopped in a wait");
        clock.waits(None);
        assert_eq!(clock.read(at(99_301)), (at(91_200), false), "a wait without an end");
    }

    #[test]
    fn the_clock_tells_how_late_a_wait_ended_and_nothing_of_a_wait_that_an_event_ended() {
        let at = |ms: u64| Time(ms * MS);
        let late = |ms: u64| Some(Duration::from_millis(ms));
        let mut clock = LoopClock::start(at(0));
        clock.waits(Some(Duration::from_millis(50)));
        assert_eq!(clock.lateness(at(49)), None);
        assert_eq!(clock.lateness(at(50)), late(0));
        assert_eq!(clock.lateness(at(53)), late(3));
        clock.waits(Some(Duration::ZERO));
        assert_eq!(clock.lateness(at(2)), late(2), "a poll that does not wait");
        clock.waits(None);
        assert_eq!(clock.lateness(at(1 << 40)), None, "a wait without an end");
    }

    #[test]
    fn distances_of_ticks_are_right_across_the_wrap() {
        let before = Tick(u32::MAX - 1);
        let after = before.plus(3);
        assert_eq!(after, Tick(1));
        assert_eq!(after.distance_from(before), 3);
        assert_eq!(before.distance_from(after), -3);
    }

    #[test]
    fn a_timeout_fires_never_early_and_at_most_two_ticks_late() {
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
    fn the_wait_for_a_past_tick_is_zero() {
        let now = Time(100 * 16 * MS);
        assert_eq!(Tick(99).wait_from(now), Duration::ZERO);
        assert_eq!(Tick(100).wait_from(now), Duration::ZERO);
        assert_eq!(Tick(101).wait_from(now), Tick::LENGTH);
    }
}
