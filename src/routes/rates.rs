//! How often each socket has used each route: a bounded table of leaky buckets.
//!
//! An entry is one moment, at which the events of a socket so far no longer count (GCRA). So an
//! entry whose moment has passed is free, and nothing needs to sweep the table. A place has several
//! entries. If all of them are taken, the one that ends first is forgotten, so a full table refuses
//! nobody.

use std::hash::{BuildHasher, RandomState};

use super::EventRate;
use crate::clock::Time;
use crate::limits::{RATES_MAX, RATES_PER_PLACE};

/// The rates of all sockets and routes.
pub struct EventRates {
    /// Empty until the first event. A place is [`RATES_PER_PLACE`] entries.
    entries: Vec<RateEntry>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct RateEntry {
    /// The socket and the route; 0: the entry was never used.
    key: u64,
    /// The moment from which its events no longer count, in nanoseconds.
    ends: u64,
}

const _: () = assert!(size_of::<RateEntry>() == 16);

impl Default for EventRates {
    fn default() -> EventRates {
        EventRates { entries: Vec::new(), hasher: RandomState::new() }
    }
}

impl EventRates {
    /// Counts an event of a socket, and returns whether it is within the rate. An event that is not
    /// does not count. `socket` is the serial number of its session.
    pub fn allow(&mut self, socket: u32, route: u16, rate: EventRate, now: Time) -> bool {
        if self.entries.is_empty() {
            self.entries = vec![RateEntry::default(); RATES_MAX];
        }
        let key = key_of(socket, route);
        let entries = self.place(key);
        let first_to_end = |entries: &[RateEntry]| {
            (0..entries.len()).min_by_key(|at| entries[*at].ends).unwrap_or_default()
        };
        let known = entries.iter().position(|entry| entry.key == key);
        let at = known.unwrap_or_else(|| first_to_end(entries));
        let entry = &mut entries[at];
        let now = now.as_nanos();
        let ends = if known.is_some() { entry.ends.max(now) } else { now };
        let step = step_of(rate);
        if ends + step > now + rate.per.as_nanos() as u64 {
            return false;
        }
        *entry = RateEntry { key, ends: ends + step };
        true
    }

    /// Returns the entries that a key may have.
    fn place(&mut self, key: u64) -> &mut [RateEntry] {
        let places = self.entries.len() / RATES_PER_PLACE;
        if places == 0 {
            return &mut [];
        }
        let place = (self.hasher.hash_one(key) % places as u64) as usize * RATES_PER_PLACE;
        &mut self.entries[place..place + RATES_PER_PLACE]
    }

    /// Returns the bytes held, for the ledger.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<RateEntry>()
    }
}

fn key_of(socket: u32, route: u16) -> u64 {
    ((u64::from(socket) << 16) | u64::from(route)) + 1
}

/// Returns the time that one event takes up, in nanoseconds.
fn step_of(rate: EventRate) -> u64 {
    rate.per.as_nanos() as u64 / u64::from(rate.count.max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(millis: u64) -> Time {
        Time::from_nanos(SECOND + millis * 1_000_000)
    }

    const TEN: EventRate = EventRate { count: 10, per: Duration::from_secs(1) };

    fn allowed(rates: &mut EventRates, socket: u32, events: usize, now: Time) -> usize {
        (0..events).filter(|_| rates.allow(socket, 0, TEN, now)).count()
    }

    #[test]
    fn a_socket_has_its_count_at_once_and_then_its_rate() {
        let mut rates = EventRates::default();
        assert_eq!(rates.bytes(), 0);
        assert_eq!(allowed(&mut rates, 1, 30, at(0)), 10);
        assert_eq!(allowed(&mut rates, 1, 30, at(99)), 0);
        assert_eq!(allowed(&mut rates, 1, 30, at(100)), 1);
        assert_eq!(allowed(&mut rates, 1, 30, at(350)), 2);
        assert_eq!(allowed(&mut rates, 1, 30, at(5000)), 10);
        assert_eq!(rates.bytes(), RATES_MAX * 16);
    }

    #[test]
    fn each_socket_and_each_route_has_its_own_rate() {
        let mut rates = EventRates::default();
        assert_eq!(allowed(&mut rates, 0, 30, at(0)), 10);
        assert_eq!(allowed(&mut rates, 1, 30, at(0)), 10);
        assert!(rates.allow(0, 1, TEN, at(0)));
        assert!(!rates.allow(0, 0, TEN, at(0)));
    }

    #[test]
    fn a_full_table_forgets_and_does_not_grow() {
        let mut rates = EventRates::default();
        for socket in 0..4 * RATES_MAX as u32 {
            assert!(rates.allow(socket, 0, TEN, at(0)));
        }
        assert_eq!(rates.bytes(), RATES_MAX * 16);
        // The sockets that have most to wait are kept.
        assert_eq!(allowed(&mut rates, u32::MAX, 30, at(1)), 10);
        for socket in 0..RATES_MAX as u32 {
            rates.allow(socket, 0, TEN, at(1));
        }
        assert_eq!(allowed(&mut rates, u32::MAX, 30, at(2)), 0);
    }
}
