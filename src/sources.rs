//! Where connections come from: how many each source has, how many of them are silent, and its penalty.
//!
//! A source is an IPv4 address, or the 64 bits of an IPv6 network that one subscriber has whole. The table has a fixed size and works like a
//! processor's cache: a source's hash, which is keyed so that nobody can aim, names a set of eight places, and the source is in one of them. A
//! place is free again when its source has neither connections nor a penalty. Should a set be full, a newcomer is not tracked, and
//! no cap applies to it. A connection keeps the number of its place: two bytes.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Tick;
use crate::limits::{PENALTY_MAX, PENALTY_MIN, SOURCES_MAX};

/// Places that one source may be in: three cache lines.
const SET: usize = 8;

/// A place in the table. The last two numbers are kept for no place at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(u16);

impl SourceId {
    /// A source that is not tracked.
    pub const NONE: SourceId = SourceId(u16::MAX);
    /// The operator, wherever they come from.
    pub const OPERATOR: SourceId = SourceId(u16::MAX - 1);

    fn place(self) -> Option<usize> {
        (self.0 < SourceId::OPERATOR.0).then_some(usize::from(self.0))
    }
}

#[derive(Clone, Copy, Default)]
struct SourceEntry {
    key: u64,
    connections: u32,
    /// When the penalty is over; meaningful while `has_penalty`.
    penalty_until: Tick,
    silent: u16,
    has_penalty: bool,
    is_refused: bool,
    /// Counted, but neither capped nor penalised.
    is_trusted: bool,
}

const _: () = assert!(size_of::<SourceEntry>() == 24);

impl SourceEntry {
    /// Ticks that are left of its penalty.
    fn penalty(&self, now: Tick) -> u32 {
        if self.has_penalty { self.penalty_until.distance_from(now).max(0) as u32 } else { 0 }
    }

    fn is_free(&self, now: Tick) -> bool {
        self.connections == 0 && self.penalty(now) == 0
    }
}

pub struct Sources {
    /// Each set when it is first needed.
    sets: Vec<Option<Box<[SourceEntry; SET]>>>,
    sets_used: usize,
    hasher: RandomState,
    /// Connections of the operator.
    operators: usize,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { sets: Vec::new(), sets_used: 0, hasher: RandomState::new(), operators: 0 }
    }
}

impl Sources {
    /// The place of a source, which gets one if there is none.
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
        // The last two places are never given out: their numbers mean something else.
        let found = place.map(|place| SourceId((number * SET + place) as u16));
        found.filter(|source| source.place().is_some()).unwrap_or(SourceId::NONE)
    }

    /// Whether a source is exempt from caps and penalties.
    pub fn trust(&mut self, source: SourceId, is_trusted: bool) {
        if let Some(entry) = self.get_mut(source) {
            entry.is_trusted = is_trusted;
        }
    }

    pub fn is_trusted(&self, source: SourceId) -> bool {
        self.get(source).is_some_and(|entry| entry.is_trusted)
    }

    /// Connections of the operator.
    pub fn operators(&self) -> usize {
        self.operators
    }

    /// Connections of a source, and how many of them are silent.
    pub fn counts(&self, source: SourceId) -> (usize, usize) {
        self.get(source).map_or((0, 0), |entry| (entry.connections as usize, usize::from(entry.silent)))
    }

    pub fn connected(&mut self, source: SourceId, is_silent: bool) {
        self.operators += usize::from(source == SourceId::OPERATOR);
        if let Some(entry) = self.get_mut(source) {
            entry.connections += 1;
            entry.silent = entry.silent.saturating_add(u16::from(is_silent));
        }
    }

    /// A silent one has spoken, or ends.
    pub fn no_longer_silent(&mut self, source: SourceId) {
        if let Some(entry) = self.get_mut(source) {
            entry.silent = entry.silent.saturating_sub(1);
        }
    }

    pub fn closed(&mut self, source: SourceId) {
        self.operators -= usize::from(source == SourceId::OPERATOR);
        if let Some(entry) = self.get_mut(source) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// Adds to the penalty of a source.
    pub fn punish(&mut self, source: SourceId, penalty: Duration, now: Tick) {
        let Some(entry) = self.get_mut(source).filter(|entry| !penalty.is_zero() && !entry.is_trusted) else { return };
        let left = entry.penalty(now);
        let sum = left.saturating_add(Tick::count(penalty)).min(Tick::count(PENALTY_MAX));
        // One that was refused before and has served its time starts anew.
        entry.is_refused = (entry.is_refused && left > 0) || sum >= Tick::count(PENALTY_MIN);
        (entry.has_penalty, entry.penalty_until) = (true, now.plus(sum));
    }

    /// Forgets the penalties that are over: ticks wrap, and the time that one is over would come again 397 days later. Whether there are others
    /// still. Walks the table, which takes 80 us when it is full; once in ten minutes, while there are penalties, is enough.
    pub fn forget_penalties(&mut self, now: Tick) -> bool {
        let mut any = false;
        for entry in self.sets.iter_mut().flatten().flat_map(|set| set.iter_mut()) {
            entry.has_penalty &= entry.penalty(now) > 0;
            any |= entry.has_penalty;
        }
        any
    }

    /// Whether a source is refused for its penalty.
    pub fn is_refused(&self, source: SourceId, now: Tick) -> bool {
        self.get(source).is_some_and(|entry| entry.is_refused && !entry.is_trusted && entry.penalty(now) > 0)
    }

    /// Sources with connections, and sources refused. Walks the table: for a status that someone asked for.
    pub fn totals(&self, now: Tick) -> (usize, usize) {
        let entries = || self.sets.iter().flatten().flat_map(|set| set.iter());
        let connected = entries().filter(|entry| entry.connections > 0).count();
        (connected, entries().filter(|entry| entry.is_refused && entry.penalty(now) > 0).count())
    }

    /// Memory held, in bytes. O(1): the loop asks whenever its last connection has gone.
    pub fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<usize>() + self.sets_used * size_of::<[SourceEntry; SET]>()
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

/// What counts as one source.
fn key(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // A network of all zeros is no one's (RFC 4291), so no IPv4 address has the key of one.
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
    fn connections_are_counted_by_source_and_a_source_is_forgotten_when_it_has_none() {
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
    fn an_ipv6_network_of_64_bits_is_one_source() {
        let mut sources = Sources::default();
        let one = sources.find(ip("2001:db8::1"), at(0));
        sources.connected(one, true);
        assert_eq!(sources.find(ip("2001:db8::ffff:1"), at(0)), one);
        assert_ne!(sources.find(ip("2001:db8:0:1::1"), at(0)), one);
    }

    #[test]
    fn penalties_add_up_count_from_a_bound_on_and_pass() {
        let mut sources = Sources::default();
        let source = sources.find(ip("10.0.0.1"), at(0));
        sources.punish(source, 7 * SECOND, at(0));
        sources.punish(source, 7 * SECOND, at(0));
        assert!(!sources.is_refused(source, at(0)), "14 s: one below");
        sources.punish(source, SECOND, at(0));
        assert!(sources.is_refused(source, at(0)), "15 s: at the bound");
        assert!(sources.is_refused(source, at(14)), "to the end");
        assert_eq!(sources.find(ip("10.0.0.1"), at(14)), source, "it is remembered without a connection");
        assert!(!sources.is_refused(source, at(16)));
        sources.punish(source, 5 * SECOND, at(16));
        assert!(!sources.is_refused(source, at(16)), "who has served its time starts anew");
        (0..1000).for_each(|_| sources.punish(source, 5 * SECOND, at(20)));
        assert!(sources.is_refused(source, at(619)) && !sources.is_refused(source, at(621)), "ten minutes at most");
        sources.punish(source, Duration::ZERO, at(700));
        assert!(!sources.is_refused(source, at(700)));
    }

    #[test]
    fn penalties_that_are_over_are_forgotten_and_others_are_not() {
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
    fn more_sources_than_there_are_places_are_not_tracked_and_harm_none() {
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
}
