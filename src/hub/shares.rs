//! The share of each source in what the hub's tables may hold: memory, channels and patterns.
//!
//! A source may hold at most [`SHARE`] times what is left free. So a source alone may take seven
//! eighths of everything, and several greedy sources leave room for a newcomer, however many they
//! are. Nothing is reserved for sources that want nothing.
//!
//! Each topic is charged to one of its subscribers: first to the one that created it, and when that
//! one leaves, to another. A session's first few subscriptions to topics of others are free, so an
//! ordinary subscriber has no entry here.

use std::collections::HashMap;

use super::subscriptions::{release_table, table_bytes};
use crate::limits::SHARE;

/// A source as the hub tells them apart: an IPv4 address or the hash of an IPv6 /64.
pub type SourceKey = u64;

/// The sources of all sessions.
pub trait SessionSources {
    /// Returns the source of the session in a slot.
    fn source(&self, session: u32) -> SourceKey;
}

/// An amount of each resource.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    pub bytes: usize,
    /// Channels and shard channels.
    pub channels: u32,
    /// Patterns that the index finds.
    pub indexed: u32,
    /// Other patterns.
    pub others: u32,
}

impl Amount {
    fn change(&mut self, by: &Amount, change: impl Fn(usize, usize) -> usize) {
        let Amount { bytes, channels, indexed, others } = self;
        *bytes = change(*bytes, by.bytes);
        for (own, by) in [(channels, by.channels), (indexed, by.indexed), (others, by.others)] {
            *own = change(*own as usize, by as usize) as u32;
        }
    }
}

/// The amounts charged to the sources.
#[derive(Default)]
pub struct Shares(HashMap<SourceKey, Amount>);

impl Shares {
    pub fn of(&self, source: SourceKey) -> Amount {
        self.0.get(&source).copied().unwrap_or_default()
    }

    pub fn charge(&mut self, source: SourceKey, amount: &Amount) {
        self.0.entry(source).or_default().change(amount, usize::saturating_add);
    }

    pub fn refund(&mut self, source: SourceKey, amount: &Amount) {
        let Some(own) = self.0.get_mut(&source) else { return };
        own.change(amount, usize::saturating_sub);
        if *own == Amount::default() {
            self.0.remove(&source);
            release_table(&mut self.0);
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes(&self.0)
    }

    /// Panics unless these amounts are charged, and no others.
    pub fn check_invariants(&self, expected: &HashMap<SourceKey, Amount>) {
        assert_eq!(&self.0, expected, "a source is charged a wrong amount");
    }
}

/// Returns true if a source that holds `own` may take `cost` more, where `total` of `max` is held.
/// A source that holds nothing always may, while anything is left.
pub fn allows(own: usize, cost: usize, total: usize, max: usize) -> bool {
    let Some(free) = max.checked_sub(total.saturating_add(cost)) else { return false };
    own == 0 || own.saturating_add(cost) <= free.saturating_mul(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets greedy sources take one by one in turn until all are refused. Returns what each holds.
    fn fill(sources: usize, max: usize) -> Vec<usize> {
        let mut held = vec![0; sources];
        loop {
            let before = held.clone();
            for source in 0..sources {
                let total = held.iter().sum();
                held[source] += usize::from(allows(held[source], 1, total, max));
            }
            if held == before {
                return held;
            }
        }
    }

    #[test]
    fn one_source_may_take_seven_eighths() {
        for (max, held) in [(8, 7), (16, 14), (1024, 896), (65_536, 57_344), (1, 1), (0, 0), (7, 6)]
        {
            assert_eq!(fill(1, max), [held], "of {max}");
        }
    }

    #[test]
    fn greedy_sources_hold_equal_shares_and_leave_room_for_a_newcomer() {
        for sources in [2, 8, 64, 100] {
            let held = fill(sources, 65_536);
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 1, "{least} to {most}");
            let mut newcomer = 0;
            let total: usize = held.iter().sum();
            while allows(newcomer, 1, total + newcomer, 65_536) {
                newcomer += 1;
            }
            assert!(newcomer >= 50, "{sources} sources leave {newcomer}");
        }
    }

    #[test]
    fn a_source_without_charges_has_no_entry() {
        let mut shares = Shares::default();
        let amount = Amount { bytes: 5, channels: 1, indexed: 0, others: 0 };
        shares.charge(7, &amount);
        shares.charge(7, &amount);
        assert_eq!(shares.of(7), Amount { bytes: 10, channels: 2, ..amount });
        shares.refund(7, &amount);
        shares.refund(7, &amount);
        assert_eq!(shares.of(7), Amount::default());
        shares.check_invariants(&HashMap::new());
    }
}
