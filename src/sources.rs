//! The sources of connections: how many connections each has, how many are silent, and its penalty.
//!
//! A source is an IPv4 address or a /64 network of IPv6, which a provider gives to one customer.
//! The table has a fixed size and works like a processor's cache. A keyed hash of the source, which
//! an attacker cannot predict, selects a set of eight places. A place is free when its source has
//! neither connections nor a penalty. If a set is full, a newcomer's source is not tracked, and no
//! cap applies to it. A connection stores the number of its place in two bytes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Tick;
use crate::limits::{PENALTY_MAX, PENALTY_MIN, SOURCES_MAX};

/// Places per set: three cache lines.
const SET: usize = 8;

/// A place in the table. The last two numbers name no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(u16);

impl SourceId {
    /// A source that is not tracked.
    pub const NONE: SourceId = SourceId(u16::MAX);
    /// The operator, from any address.
    pub const OPERATOR: SourceId = SourceId(u16::MAX - 1);

    fn place(self) -> Option<usize> {
        (self.0 < SourceId::OPERATOR.0).then_some(usize::from(self.0))
    }
}

#[derive(Clone, Copy, Default)]
struct SourceEntry {
    key: u64,
    connections: u32,
    /// When the penalty ends. Valid while `has_penalty`.
    penalty_until: Tick,
    silent: u16,
    has_penalty: bool,
    is_refused: bool,
    /// Exempt from caps and penalties, but still counted.
    is_trusted: bool,
}

const _: () = assert!(size_of::<SourceEntry>() == 24);

impl SourceEntry {
    /// Returns the remaining ticks of the penalty.
    fn penalty(&self, now: Tick) -> u32 {
        if self.has_penalty { self.penalty_until.distance_from(now).max(0) as u32 } else { 0 }
    }

    fn is_free(&self, now: Tick) -> bool {
        self.connections == 0 && self.penalty(now) == 0
    }
}

/// The table of sources.
pub struct Sources {
    /// Each set is allocated when it is first needed.
    sets: Vec<Option<Box<[SourceEntry; SET]>>>,
    sets_used: usize,
    hasher: RandomState,
    /// Number of connections of the operator.
    operators: usize,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { sets: Vec::new(), sets_used: 0, hasher: RandomState::new(), operators: 0 }
    }
}

impl Sources {
    /// Returns the place of a source, and gives it one if it has none. Returns [`SourceId::NONE`]
    /// if its set is full.
    pub fn find(&mut self, address: IpAddr, now: Tick) -> SourceId {
        if self.sets.is_empty() {
            self.sets = vec![None; SOURCES_MAX / SET];
        }
        let key = key(address);
        let number = self.hasher.hash_one(key) as usize % self.sets.len();
        let set = self.sets[number].get_or_insert_with(|| {
            self.sets_used += 1;
            Default::default()
        });
        let own = set.iter().position(|entry| entry.key == key && !entry.is_free(now));
        let place = own.or_else(|| {
            let free = set.iter().position(|entry| entry.is_free(now))?;
            set[free] = SourceEntry { key, ..SourceEntry::default() };
            Some(free)
        });
        // The last two places are never used, because their numbers have another meaning.
        let found = place.map(|place| SourceId((number * SET + place) as u16));
        found.filter(|source| source.place().is_some()).unwrap_or(SourceId::NONE)
    }

    /// Sets whether a source is exempt from caps and penalties.
    pub fn trust(&mut self, source: SourceId, is_trusted: bool) {
        if let Some(entry) = self.get_mut(source) {
            entry.is_trusted = is_trusted;
        }
    }

    pub fn is_trusted(&self, source: SourceId) -> bool {
        self.get(source).is_some_and(|entry| entry.is_trusted)
    }

    /// Returns the number of connections of the operator.
    pub fn operators(&self) -> usize {
        self.operators
    }

    /// Returns the connections of a source, and how many of them are silent.
    pub fn counts(&self, source: SourceId) -> (usize, usize) {
        self.get(source)
            .map_or((0, 0), |entry| (entry.connections as usize, usize::from(entry.silent)))
    }

    /// Counts a new connection.
    pub fn connected(&mut self, source: SourceId, is_silent: bool) {
        self.operators += usize::from(source == SourceId::OPERATOR);
        if let Some(entry) = self.get_mut(source) {
            entry.connections += 1;
            entry.silent = entry.silent.saturating_add(u16::from(is_silent));
        }
    }

    /// Counts a connection as no longer silent, because it has spoken or closes.
    pub fn no_longer_silent(&mut self, source: SourceId) {
        if let Some(entry) = self.get_mut(source) {
            entry.silent = entry.silent.saturating_sub(1);
        }
    }

    /// Counts a closed connection.
    pub fn closed(&mut self, source: SourceId) {
        self.operators -= usize::from(source == SourceId::OPERATOR);
        if let Some(entry) = self.get_mut(source) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// Adds to the penalty of a source, up to [`PENALTY_MAX`]. From [`PENALTY_MIN`] on, the source
    /// is refused until its penalty ends.
    pub fn punish(&mut self, source: SourceId, penalty: Duration, now: Tick) {
        let Some(entry) =
            self.get_mut(source).filter(|entry| !penalty.is_zero() && !entry.is_trusted)
        else {
            return;
        };
        let left = entry.penalty(now);
        let sum = left.saturating_add(Tick::count(penalty)).min(Tick::count(PENALTY_MAX));
        // A source starts anew when its penalty has ended.
        entry.is_refused = (entry.is_refused && left > 0) || sum >= Tick::count(PENALTY_MIN);
        (entry.has_penalty, entry.penalty_until) = (true, now.plus(sum));
    }

    /// Forgets expired penalties, and returns whether others remain. Ticks wrap, so an old end of a
    /// penalty would lie in the future again after 397 days. This walks the table, which takes 80
    /// us when it is full. Once in ten minutes is enough, while there are penalties.
    pub fn forget_penalties(&mut self, now: Tick) -> bool {
        let mut any = false;
        for entry in self.sets.iter_mut().flatten().flat_map(|set| set.iter_mut()) {
            entry.has_penalty &= entry.penalty(now) > 0;
            any |= entry.has_penalty;
        }
        any
    }

    /// Returns whether a source is refused because of its penalty.
    pub fn is_refused(&self, source: SourceId, now: Tick) -> bool {
        self.get(source)
            .is_some_and(|entry| entry.is_refused && !entry.is_trusted && entry.penalty(now) > 0)
    }

    /// Returns the number of sources with connections, and of refused sources. Walks the table, so
    /// only metrics call it.
    pub fn totals(&self, now: Tick) -> (usize, usize) {
        let entries = || self.sets.iter().flatten().flat_map(|set| set.iter());
        let connected = entries().filter(|entry| entry.connections > 0).count();
        (connected, entries().filter(|entry| entry.is_refused && entry.penalty(now) > 0).count())
    }

    /// Returns the memory held in bytes. O(1), because the loop calls it whenever its last
    /// connection has gone.
    pub fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<usize>() + self.sets_used * size_of::<[SourceEntry; SET]>()
    }

    /// Panics unless the counts of the sources match the connections. `connections` yields the
    /// source of every connection, and true if it is silent. With `walks_table`, the check also
    /// finds other sources with a count above zero. For tests.
    pub fn check_invariants(
        &self,
        connections: impl Iterator<Item = (SourceId, bool)>,
        walks_table: bool,
    ) {
        let mut operators = 0;
        let mut expected: HashMap<SourceId, (usize, usize)> = HashMap::new();
        for (source, is_silent) in connections {
            operators += usize::from(source == SourceId::OPERATOR);
            if source.place().is_some() {
                let counts = expected.entry(source).or_default();
                *counts = (counts.0 + 1, counts.1 + usize::from(is_silent));
            }
        }
        assert_eq!(self.operators, operators, "the operator's connections are miscounted");
        for (source, counts) in &expected {
            assert_eq!(
                self.counts(*source),
                *counts,
                "{source:?} counts wrong numbers of connections"
            );
        }
        if walks_table {
            let entries = self.sets.iter().flatten().flat_map(|set| set.iter());
            let connected: Vec<u64> = entries
                .filter(|entry| entry.connections > 0 || entry.silent > 0)
                .map(|entry| entry.key)
                .collect();
            assert_eq!(connected.len(), expected.len(), "a source without connections has a count");
            let keys: HashSet<u64> = connected.iter().copied().collect();
            assert_eq!(keys.len(), connected.len(), "a source has two places");
            let used = self.sets.iter().flatten().count();
            assert_eq!(self.sets_used, used, "the sets in use are miscounted");
        }
    }

    fn get(&self, source: SourceId) -> Option<&SourceEntry> {
        let place = source.place()?;
        self.sets.get(place / SET)?.as_ref()?.get(place % SET)
    }

    fn get_mut(&mut self, source: SourceId) -> Option<&mut SourceEntry> {
        let place = source.place()?;
        self.sets.get_mut(place / SET)?.as_mut()?.get_mut(place % SET)
    }
}

/// Returns the key of an address's source.
fn key(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // The top bit marks an IPv6 network, so it cannot have the key of an IPv4 address.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Tick {
        Tick(1000).plus(Tick::count(SECOND * seconds as u32))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_counts_its_connections_and_is_forgotten_without_any() {
        let mut sources = Sources::default();
        let one = sources.find(ip("10.0.0.1"), at(0));
        sources.connected(one, true);
        sources.connected(one, false);
        let other = sources.find(ip("10.0.0.2"), at(0));
        sources.connected(other, true);
        assert_eq!((sources.counts(one), sources.counts(other)), ((2, 1), (1, 1)));
        assert_eq!(sources.find(ip("10.0.0.1"), at(0)), one);
        sources.no_longer_silent(one);
        assert_eq!(sources.counts(one), (2, 0));
        sources.closed(one);
        sources.closed(one);
        assert_eq!(sources.totals(at(0)), (1, 0));
    }

    #[test]
    fn a_64_bit_ipv6_network_is_one_source() {
        let mut sources = Sources::default();
        let one = sources.find(ip("2001:db8::1"), at(0));
        sources.connected(one, true);
        assert_eq!(sources.find(ip("2001:db8::ffff:1"), at(0)), one);
        assert_ne!(sources.find(ip("2001:db8:0:1::1"), at(0)), one);
    }

    #[test]
    fn penalties_add_up_and_refuse_a_source_from_a_bound_until_they_end() {
        let mut sources = Sources::default();
        let source = sources.find(ip("10.0.0.1"), at(0));
        sources.punish(source, 7 * SECOND, at(0));
        sources.punish(source, 7 * SECOND, at(0));
        assert!(!sources.is_refused(source, at(0)), "14 s: below the bound");
        sources.punish(source, SECOND, at(0));
        assert!(sources.is_refused(source, at(0)), "15 s: at the bound");
        assert!(sources.is_refused(source, at(14)), "until the penalty ends");
        assert_eq!(
            sources.find(ip("10.0.0.1"), at(14)),
            source,
            "a source with a penalty keeps its place without a connection"
        );
        assert!(!sources.is_refused(source, at(16)));
        sources.punish(source, 5 * SECOND, at(16));
        assert!(
            !sources.is_refused(source, at(16)),
            "a source starts anew when its penalty has ended"
        );
        (0..1000).for_each(|_| sources.punish(source, 5 * SECOND, at(20)));
        assert!(
            sources.is_refused(source, at(619)) && !sources.is_refused(source, at(621)),
            "ten minutes at most"
        );
        sources.punish(source, Duration::ZERO, at(700));
        assert!(!sources.is_refused(source, at(700)));
    }

    #[test]
    fn expired_penalties_are_forgotten_and_others_remain() {
        let mut sources = Sources::default();
        let [short, long] = ["10.0.0.1", "10.0.0.2"].map(|text| sources.find(ip(text), at(0)));
        sources.punish(short, 20 * SECOND, at(0));
        sources.punish(long, 600 * SECOND, at(0));
        assert!(sources.forget_penalties(at(30)));
        let wrapped = at(30).plus(u32::MAX / 2);
        assert!(!sources.is_refused(short, wrapped) && sources.is_refused(long, at(30)));
        assert!(!sources.forget_penalties(at(700)));
        assert!(!sources.is_refused(long, wrapped));
    }

    #[test]
    fn sources_beyond_the_table_are_not_tracked_and_not_capped() {
        let mut sources = Sources::default();
        let mut untracked = 0;
        for number in 0..(2 * SOURCES_MAX as u32) {
            let source = sources.find(IpAddr::from(number.to_be_bytes()), at(0));
            sources.connected(source, true);
            untracked += usize::from(source == SourceId::NONE);
        }
        let (connected, _) = sources.totals(at(0));
        assert_eq!(connected + untracked, 2 * SOURCES_MAX);
        assert!(connected > SOURCES_MAX * 9 / 10, "{connected} places are taken");
        sources.no_longer_silent(SourceId::NONE);
        sources.closed(SourceId::NONE);
        assert_eq!(sources.counts(SourceId::NONE), (0, 0));
    }

    #[test]
    fn an_ipv6_network_never_counts_as_an_ipv4_address() {
        let keys = ["8000:0:a00:1::1", "0:0:a00:1::1"].map(|network| key(ip(network)));
        assert!(!keys.contains(&key(ip("10.0.0.1"))));
    }

    #[test]
    fn totals_count_sources_with_connections_and_sources_refused_now() {
        let mut sources = Sources::default();
        let [connected, refused, warned] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| {
            let source = sources.find(ip(address), at(0));
            sources.connected(source, true);
            source
        });
        assert_eq!(sources.totals(at(0)), (3, 0));
        sources.punish(refused, 20 * SECOND, at(0));
        sources.punish(warned, SECOND, at(0));
        [refused, warned].iter().for_each(|source| sources.closed(*source));
        assert_eq!(sources.totals(at(0)), (1, 1));
        assert_eq!(sources.totals(at(21)), (1, 0), "the penalty has ended");
        sources.closed(connected);
        assert_eq!(sources.totals(at(21)), (0, 0));
    }
}
