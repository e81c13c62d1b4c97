//! The sources of connections: how many connections each has, how many are silent, and its penalty.
//!
//! A source is an IPv4 address or a /64 network of IPv6, which a provider gives to one customer.
//! The /64 networks of one /48 are also counted together, because one customer can have a whole
//! /48 with 65,536 of them. Such a *network* has an entry of its own. When
//! [`NETWORK_SOURCES_MAX`] of its sources have connections, further ones count as the network.
//!
//! The table has a fixed size and works like a processor's cache. A keyed hash of the source, which
//! an attacker cannot predict, selects a set of eight places. A place is free when its source has
//! no connections; a penalty keeps it only until another source needs it. If a set is full, a
//! newcomer's source is not tracked, and no cap applies to it. A connection stores the number of
//! its place in two bytes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Tick;
use crate::limits::{
    Limits, NETWORK_SHARE, NETWORK_SOURCES_MAX, PENALISED_SHARE, PENALTY_MAX, PENALTY_MIN,
    PENALTY_NOTED, SOURCES_MAX,
};

/// Places per set: three cache lines.
const SET: usize = 8;

/// A place in the table. The last three numbers name no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceId(u16);

impl SourceId {
    /// A source that is not tracked.
    pub const NONE: SourceId = SourceId(u16::MAX);
    /// The operator, from any address.
    pub const OPERATOR: SourceId = SourceId(u16::MAX - 1);
    /// The loop itself: the connection was dialled.
    pub const DIALLED: SourceId = SourceId(u16::MAX - 2);

    fn place(self) -> Option<usize> {
        (self.0 < SourceId::DIALLED.0).then_some(usize::from(self.0))
    }
}

/// The standing of a source, which follows from its address alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Ordinary,
    /// This machine. Its programs share an address, so a penalty would hit all of them.
    Loopback,
    /// One of `trusted-sources`: counted, but neither capped nor penalised.
    Trusted,
}

impl Standing {
    /// Returns the standing of an address. An IPv4 address in IPv6 notation is an IPv4 address.
    pub fn of(address: IpAddr, limits: &Limits) -> Standing {
        let address = address.to_canonical();
        match limits.trusted_sources.contain(address) {
            true => Standing::Trusted,
            false if address.is_loopback() => Standing::Loopback,
            false => Standing::Ordinary,
        }
    }
}

/// Whether a source has a penalty, which ends by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PenaltyState {
    Clean,
    Penalty,
    /// The penalty has reached [`PENALTY_MIN`]. The share is smaller until it ends.
    SmallShare,
}

#[derive(Clone, Copy)]
struct SourceEntry {
    key: u64,
    connections: u32,
    /// When the penalty ends. Valid unless the record is clean.
    penalty_until: Tick,
    silent: u16,
    /// The /48 network that the source belongs to, or [`SourceId::NONE`].
    network: SourceId,
    /// Sources of this network that have connections and a place of their own.
    sources: u16,
    record: PenaltyState,
    standing: Standing,
}

const _: () = assert!(size_of::<SourceEntry>() == 24);

impl SourceEntry {
    const FREE: SourceEntry = SourceEntry {
        key: 0,
        connections: 0,
        penalty_until: Tick(0),
        silent: 0,
        network: SourceId::NONE,
        sources: 0,
        record: PenaltyState::Clean,
        standing: Standing::Ordinary,
    };

    /// Returns the remaining ticks of the penalty.
    fn penalty(&self, now: Tick) -> u32 {
        match self.record {
            PenaltyState::Clean => 0,
            _ => self.penalty_until.distance_from(now).max(0) as u32,
        }
    }

    fn is_free(&self, now: Tick) -> bool {
        self.connections == 0 && self.penalty(now) == 0
    }

    fn is_penalised(&self, now: Tick) -> bool {
        self.standing == Standing::Ordinary
            && self.record == PenaltyState::SmallShare
            && self.penalty(now) > 0
    }

    fn set_penalty(&mut self, ticks: u32, now: Tick) {
        self.penalty_until = now.plus(ticks);
        self.record = match ticks {
            0 => PenaltyState::Clean,
            _ if ticks >= Tick::count(PENALTY_MIN) => PenaltyState::SmallShare,
            _ => PenaltyState::Penalty,
        };
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
    /// Number of connections that the loop has dialled, or is dialling.
    dialled: usize,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            sets: Vec::new(),
            sets_used: 0,
            hasher: RandomState::new(),
            operators: 0,
            dialled: 0,
        }
    }
}

impl Sources {
    /// Returns the place of a source, and gives it one if it has none. Returns the place of its
    /// network if that has too many sources, and [`SourceId::NONE`] if its set is full.
    pub fn find(&mut self, address: IpAddr, standing: Standing, now: Tick) -> SourceId {
        let (key, network_key) = keys(address.to_canonical());
        // The connections of a trusted source must not count against its neighbours.
        let network_key = network_key.filter(|_| standing != Standing::Trusted);
        let network =
            network_key.map_or(SourceId::NONE, |key| self.place_of(key, SourceId::NONE, now));
        let is_crowded = |entry: &SourceEntry| usize::from(entry.sources) >= NETWORK_SOURCES_MAX;
        if self.get(network).is_some_and(is_crowded) && !self.has_connections(key) {
            return network;
        }
        let source = self.place_of(key, network, now);
        if let Some(entry) = self.get_mut(source) {
            // A source with connections is counted in its network already.
            if entry.connections == 0 {
                entry.network = network;
            }
            entry.standing = standing;
        }
        source
    }

    fn set_of(&mut self, key: u64) -> (usize, &mut [SourceEntry; SET]) {
        if self.sets.is_empty() {
            self.sets = vec![None; SOURCES_MAX / SET];
        }
        let number = self.hasher.hash_one(key) as usize % self.sets.len();
        let set = self.sets[number].get_or_insert_with(|| {
            self.sets_used += 1;
            Box::new([SourceEntry::FREE; SET])
        });
        (number, set)
    }

    fn has_connections(&mut self, key: u64) -> bool {
        self.set_of(key).1.iter().any(|entry| entry.key == key && entry.connections > 0)
    }

    /// Returns the place of a key, and gives it one if it has none: a free one, or that of a source
    /// that has only a penalty. The place `taken` is given to no other key.
    fn place_of(&mut self, key: u64, taken: SourceId, now: Tick) -> SourceId {
        let (number, set) = self.set_of(key);
        let id = |place: usize| SourceId((number * SET + place) as u16);
        let own = set.iter().position(|entry| entry.key == key && !entry.is_free(now));
        let place = own.or_else(|| {
            // The last three places are never used, because their numbers have another meaning.
            let open = set.iter().enumerate().filter(|(place, entry)| {
                let id = id(*place);
                entry.connections == 0 && id != taken && id.place().is_some()
            });
            // A place without a penalty comes first.
            let (place, _) = open.min_by_key(|(_, entry)| entry.penalty(now))?;
            set[place] = SourceEntry { key, ..SourceEntry::FREE };
            Some(place)
        });
        place.map_or(SourceId::NONE, id)
    }

    pub fn is_trusted(&self, source: SourceId) -> bool {
        self.get(source).is_some_and(|entry| entry.standing == Standing::Trusted)
    }

    /// Returns the number of connections of the operator.
    pub fn operators(&self) -> usize {
        self.operators
    }

    /// Returns the number of connections that the loop has dialled, or is dialling.
    pub fn dialled(&self) -> usize {
        self.dialled
    }

    /// Returns the connections of a source, and how many of them are silent.
    pub fn counts(&self, source: SourceId) -> (usize, usize) {
        self.get(source)
            .map_or((0, 0), |entry| (entry.connections as usize, usize::from(entry.silent)))
    }

    /// Returns whether a connection's source is `scope` or belongs to that network.
    pub fn belongs(&self, source: SourceId, scope: SourceId) -> bool {
        source == scope || self.network(source) == scope
    }

    fn network(&self, source: SourceId) -> SourceId {
        self.get(source).map_or(SourceId::NONE, |entry| entry.network)
    }

    /// Returns the source, or its network, that has reached its cap on connections.
    pub fn at_connection_cap(&self, source: SourceId, limits: &Limits) -> Option<SourceId> {
        let cap = limits.connections_per_source();
        let scopes = [source, self.network(source)].into_iter();
        let mut capped = scopes.filter(|_| !self.is_trusted(source));
        capped.find(|scope| self.counts(*scope).0 >= cap)
    }

    /// Returns the source, or its network, that has reached its share of the silent set. The share
    /// of a penalised source is smaller.
    pub fn at_silent_share(
        &self,
        source: SourceId,
        limits: &Limits,
        now: Tick,
    ) -> Option<SourceId> {
        let entry = self.get(source).filter(|entry| entry.standing != Standing::Trusted)?;
        let cap = limits.max_silent_per_source;
        let share = if entry.is_penalised(now) { (cap / PENALISED_SHARE).max(1) } else { cap };
        if usize::from(entry.silent) >= share {
            return Some(source);
        }
        let of_network = self.counts(entry.network).1;
        (of_network >= cap.saturating_mul(NETWORK_SHARE)).then_some(entry.network)
    }

    /// Returns whether connections of a source are recycled before others: it has several silent
    /// ones, and lately others of it were recycled or late.
    pub fn floods(&self, source: SourceId, now: Tick) -> bool {
        self.get(source).is_some_and(|entry| {
            entry.silent > 1
                && entry.standing != Standing::Trusted
                && entry.penalty(now) >= Tick::count(PENALTY_NOTED)
        })
    }

    /// Returns how many connections of a source count when slots have run out. Those of a network
    /// count in part, so that many sources of one network do not look like many customers.
    pub fn weight(&self, source: SourceId) -> usize {
        if self.is_trusted(source) {
            return 1;
        }
        let of_network = self.counts(self.network(source)).0;
        self.counts(source).0.max(of_network / NETWORK_SHARE)
    }

    /// Calls `change` with the entry of a source and that of its network.
    fn change(&mut self, source: SourceId, change: impl Fn(&mut SourceEntry)) {
        for scope in [source, self.network(source)] {
            if let Some(entry) = self.get_mut(scope) {
                change(entry);
            }
        }
    }

    /// Counts a new connection.
    pub fn connected(&mut self, source: SourceId, is_silent: bool) {
        self.operators += usize::from(source == SourceId::OPERATOR);
        self.dialled += usize::from(source == SourceId::DIALLED);
        self.change(source, |entry| {
            entry.connections += 1;
            entry.silent = entry.silent.saturating_add(u16::from(is_silent));
        });
        let network = self.network(source);
        let is_first = self.counts(source).0 == 1;
        if let Some(entry) = self.get_mut(network).filter(|_| is_first) {
            entry.sources = entry.sources.saturating_add(1);
        }
    }

    /// Counts a connection as no longer silent, because it has spoken or closes.
    pub fn no_longer_silent(&mut self, source: SourceId) {
        self.change(source, |entry| entry.silent = entry.silent.saturating_sub(1));
    }

    /// Counts a closed connection.
    pub fn closed(&mut self, source: SourceId) {
        self.operators -= usize::from(source == SourceId::OPERATOR);
        self.dialled -= usize::from(source == SourceId::DIALLED);
        self.change(source, |entry| entry.connections = entry.connections.saturating_sub(1));
        let network = self.network(source);
        let is_last = self.counts(source).0 == 0;
        if let Some(entry) = self.get_mut(network).filter(|_| is_last) {
            entry.sources = entry.sources.saturating_sub(1);
        }
    }

    /// Adds to the penalty of a source, up to [`PENALTY_MAX`]. From [`PENALTY_MIN`] on, its share
    /// is smaller until its penalty ends.
    pub fn punish(&mut self, source: SourceId, penalty: Duration, now: Tick) {
        if let Some(entry) = self.get_mut(source).filter(|_| !penalty.is_zero()) {
            let was_penalised = entry.is_penalised(now);
            let sum = entry.penalty(now).saturating_add(Tick::count(penalty));
            entry.set_penalty(sum.min(Tick::count(PENALTY_MAX)), now);
            if was_penalised {
                entry.record = PenaltyState::SmallShare;
            }
        }
    }

    /// Takes from the penalty of a source, because one of its connections has spoken.
    pub fn forgive(&mut self, source: SourceId, penalty: Duration, now: Tick) {
        if let Some(entry) =
            self.get_mut(source).filter(|entry| entry.record != PenaltyState::Clean)
        {
            entry.set_penalty(entry.penalty(now).saturating_sub(Tick::count(penalty)), now);
        }
    }

    /// Forgets expired penalties, and returns whether others remain. Ticks wrap, so an old end of a
    /// penalty would lie in the future again after 397 days. This walks the table, which takes 80
    /// us when it is full. Once a minute is enough, while there are penalties.
    pub fn forget_penalties(&mut self, now: Tick) -> bool {
        let mut any = false;
        for entry in self.sets.iter_mut().flatten().flat_map(|set| set.iter_mut()) {
            if entry.penalty(now) == 0 {
                entry.record = PenaltyState::Clean;
            }
            any |= entry.record != PenaltyState::Clean;
        }
        any
    }

    /// Returns the number of sources with connections, and of penalised sources. Walks the table,
    /// so only metrics call it.
    pub fn totals(&self, now: Tick) -> (usize, usize) {
        let entries = || self.sets.iter().flatten().flat_map(|set| set.iter());
        let connected = entries().filter(|entry| entry.connections > 0 && entry.sources == 0);
        (connected.count(), entries().filter(|entry| entry.is_penalised(now)).count())
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
        let (mut operators, mut dialled) = (0, 0);
        let mut expected: HashMap<SourceId, (usize, usize)> = HashMap::new();
        for (source, is_silent) in connections {
            operators += usize::from(source == SourceId::OPERATOR);
            dialled += usize::from(source == SourceId::DIALLED);
            for scope in [source, self.network(source)] {
                if scope.place().is_some() {
                    let counts = expected.entry(scope).or_default();
                    *counts = (counts.0 + 1, counts.1 + usize::from(is_silent));
                }
            }
        }
        assert_eq!(self.operators, operators, "the operator's connections are miscounted");
        assert_eq!(self.dialled, dialled, "the dialled connections are miscounted");
        for (source, counts) in &expected {
            assert_eq!(
                self.counts(*source),
                *counts,
                "{source:?} counts wrong numbers of connections"
            );
        }
        if walks_table {
            let entries = || self.sets.iter().flatten().flat_map(|set| set.iter());
            let connected: Vec<u64> = entries()
                .filter(|entry| entry.connections > 0 || entry.silent > 0)
                .map(|entry| entry.key)
                .collect();
            assert_eq!(connected.len(), expected.len(), "a source without connections has a count");
            let keys: HashSet<u64> = connected.iter().copied().collect();
            assert_eq!(keys.len(), connected.len(), "a source has two places");
            let used = self.sets.iter().flatten().count();
            assert_eq!(self.sets_used, used, "the sets in use are miscounted");
            let counted: usize = entries().map(|entry| usize::from(entry.sources)).sum();
            let in_networks =
                entries().filter(|entry| entry.connections > 0 && entry.network.place().is_some());
            assert_eq!(counted, in_networks.count(), "the sources of networks are miscounted");
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

/// Returns the key of an address's source, and for IPv6 that of its /48 network.
fn keys(address: IpAddr) -> (u64, Option<u64>) {
    match address {
        IpAddr::V4(address) => (u64::from(address.to_bits()), None),
        // The two top bits keep the keys of addresses and networks apart.
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ((bits >> 64) as u64 | 1 << 63, Some((bits >> 80) as u64 | 1 << 62))
        }
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
        let one = sources.find(ip("10.0.0.1"), Standing::Ordinary, at(0));
        sources.connected(one, true);
        sources.connected(one, false);
        let other = sources.find(ip("10.0.0.2"), Standing::Ordinary, at(0));
        sources.connected(other, true);
        assert_eq!((sources.counts(one), sources.counts(other)), ((2, 1), (1, 1)));
        assert_eq!(sources.find(ip("10.0.0.1"), Standing::Ordinary, at(0)), one);
        sources.no_longer_silent(one);
        assert_eq!(sources.counts(one), (2, 0));
        sources.closed(one);
        sources.closed(one);
        assert_eq!(sources.totals(at(0)), (1, 0));
    }

    #[test]
    fn a_64_bit_ipv6_network_is_one_source() {
        let mut sources = Sources::default();
        let one = sources.find(ip("2001:db8::1"), Standing::Ordinary, at(0));
        sources.connected(one, true);
        assert_eq!(sources.find(ip("2001:db8::ffff:1"), Standing::Ordinary, at(0)), one);
        assert_ne!(sources.find(ip("2001:db8:0:1::1"), Standing::Ordinary, at(0)), one);
    }

    /// Returns whether one silent connection of eight is the share of a source, as of a penalised
    /// one.
    fn is_penalised(sources: &Sources, source: SourceId, now: Tick) -> bool {
        let limits = Limits { max_silent_per_source: 8, ..Limits::default() };
        sources.at_silent_share(source, &limits, now).is_some()
    }

    fn silent_source(sources: &mut Sources, address: &str, standing: Standing) -> SourceId {
        let source = sources.find(ip(address), standing, at(0));
        sources.connected(source, true);
        source
    }

    #[test]
    fn penalties_add_up_and_lower_the_share_of_a_source_from_a_bound() {
        let mut sources = Sources::default();
        let source = silent_source(&mut sources, "10.0.0.1", Standing::Ordinary);
        sources.punish(source, 7 * SECOND, at(0));
        sources.punish(source, 7 * SECOND, at(0));
        assert!(!is_penalised(&sources, source, at(0)), "14 s: below the bound");
        sources.punish(source, SECOND, at(0));
        assert!(is_penalised(&sources, source, at(0)), "15 s: at the bound");
        assert!(is_penalised(&sources, source, at(14)), "until the penalty ends");
        assert!(!is_penalised(&sources, source, at(16)), "the penalty has ended");
        sources.punish(source, 5 * SECOND, at(16));
        assert!(!is_penalised(&sources, source, at(16)), "a source starts anew");
        (0..1000).for_each(|_| sources.punish(source, 5 * SECOND, at(20)));
        assert!(is_penalised(&sources, source, at(79)), "a minute at most");
        assert!(!is_penalised(&sources, source, at(81)), "a minute at most");
        sources.punish(source, Duration::ZERO, at(700));
        assert!(!is_penalised(&sources, source, at(700)));
    }

    #[test]
    fn a_source_that_speaks_is_forgiven() {
        let mut sources = Sources::default();
        let source = silent_source(&mut sources, "10.0.0.1", Standing::Ordinary);
        (0..20).for_each(|_| sources.punish(source, SECOND, at(0)));
        assert!(is_penalised(&sources, source, at(0)));
        sources.forgive(source, 8 * SECOND, at(0));
        assert!(!is_penalised(&sources, source, at(0)), "12 s are left");
        (0..2).for_each(|_| sources.forgive(source, 8 * SECOND, at(0)));
        assert!(!sources.forget_penalties(at(0)), "nothing is left");
    }

    #[test]
    fn loopback_and_trusted_sources_are_never_penalised() {
        let mut sources = Sources::default();
        let limits =
            Limits { trusted_sources: "10.9.0.0/16".parse().unwrap(), ..Limits::default() };
        for (address, penalised) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.2", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("127.200.3.4", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.9.1.1", false),
            ("::ffff:10.9.1.2", false),
        ] {
            let standing = Standing::of(ip(address), &limits);
            let source = silent_source(&mut sources, address, standing);
            sources.punish(source, 60 * SECOND, at(0));
            assert_eq!(is_penalised(&sources, source, at(0)), penalised, "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_notation_is_the_same_source() {
        let mut sources = Sources::default();
        let one = silent_source(&mut sources, "10.0.0.1", Standing::Ordinary);
        assert_eq!(sources.find(ip("::ffff:10.0.0.1"), Standing::Ordinary, at(0)), one);
        assert_ne!(sources.find(ip("::ffff:10.0.0.2"), Standing::Ordinary, at(0)), one);
    }

    /// Returns the address of a /64 in a /48.
    fn in_network(network: u16, part: u16) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, network, part, 0, 0, 0, 1])
    }

    #[test]
    fn one_ipv6_48_cannot_fill_the_table() {
        let mut sources = Sources::default();
        let mut places = HashSet::new();
        for part in 0..=u16::MAX {
            let source = sources.find(in_network(1, part), Standing::Ordinary, at(0));
            sources.connected(source, true);
            places.insert(source);
        }
        assert_eq!(places.len(), NETWORK_SOURCES_MAX + 1, "its sources, and the network");
        let used = sources.sets.iter().flatten().flat_map(|set| set.iter());
        let used = used.filter(|entry| entry.connections > 0).count();
        assert_eq!(used, NETWORK_SOURCES_MAX + 1);
        // Others are tracked as before.
        for last in 0..=255 {
            let other = sources.find(IpAddr::from([10, 0, 0, last]), Standing::Ordinary, at(0));
            sources.connected(other, false);
            assert_eq!(sources.counts(other), (1, 0));
            let other = sources.find(in_network(2, u16::from(last)), Standing::Ordinary, at(0));
            sources.connected(other, false);
            assert_eq!(sources.counts(other), (1, 0), "{last}");
        }
    }

    #[test]
    fn a_48_has_eight_times_the_share_of_its_64_and_the_same_cap_on_connections() {
        let limits = Limits {
            max_silent_per_source: 4,
            max_connections_per_source: 40,
            ..Limits::default()
        };
        let mut sources = Sources::default();
        let shares = |sources: &Sources, source| {
            let silent = sources.at_silent_share(source, &limits, at(0));
            (silent.is_some(), sources.at_connection_cap(source, &limits).is_some())
        };
        for part in 0..40 {
            let source = sources.find(in_network(1, part), Standing::Ordinary, at(0));
            assert_eq!(shares(&sources, source), (part >= 32, false), "{part}");
            sources.connected(source, true);
        }
        let next = sources.find(in_network(1, 99), Standing::Ordinary, at(0));
        assert_eq!(shares(&sources, next), (true, true));
        let scope = sources.at_silent_share(next, &limits, at(0)).unwrap();
        let member = sources.find(in_network(1, 5), Standing::Ordinary, at(0));
        assert!(sources.belongs(member, scope) && sources.belongs(next, scope));
        let other = sources.find(in_network(2, 0), Standing::Ordinary, at(0));
        assert_eq!(shares(&sources, other), (false, false));
        assert!(!sources.belongs(other, scope));
        // A trusted neighbour neither has caps nor counts against the network.
        let trusted = sources.find(in_network(1, 77), Standing::Trusted, at(0));
        assert_eq!(shares(&sources, trusted), (false, false));
    }

    /// A flood of random operations over few networks and many sources.
    #[test]
    fn the_counts_of_sources_and_networks_agree_with_a_list_of_connections() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut sources, mut held) = (Sources::default(), Vec::new());
            for _ in 0..3000 {
                if held.is_empty() || random.u8(..) < 140 {
                    let address = match random.bool() {
                        true => in_network(random.u16(..3), random.u16(..400)),
                        false => IpAddr::from([10, 0, 0, random.u8(..)]),
                    };
                    let source = sources.find(address, Standing::Ordinary, at(0));
                    sources.connected(source, true);
                    held.push((source, true));
                } else {
                    let index = random.usize(..held.len());
                    if held[index].1 {
                        sources.no_longer_silent(held[index].0);
                        held[index].1 = false;
                    } else {
                        sources.closed(held.swap_remove(index).0);
                    }
                }
            }
            sources.check_invariants(held.iter().copied(), true);
        }
    }

    /// A source with a penalty and no connection gives way, so penalties cannot fill the table.
    #[test]
    fn a_penalty_without_connections_keeps_no_other_source_out() {
        let mut sources = Sources::default();
        for number in 0..(4 * SOURCES_MAX as u32) {
            let address = IpAddr::from(number.to_be_bytes());
            let source = sources.find(address, Standing::Ordinary, at(0));
            sources.connected(source, true);
            sources.punish(source, 60 * SECOND, at(0));
            sources.no_longer_silent(source);
            sources.closed(source);
        }
        let source = sources.find(ip("200.0.0.1"), Standing::Ordinary, at(0));
        assert_ne!(source, SourceId::NONE);
    }

    #[test]
    fn expired_penalties_are_forgotten_and_others_remain() {
        let mut sources = Sources::default();
        let [short, long] = ["10.0.0.1", "10.0.0.2"]
            .map(|address| silent_source(&mut sources, address, Standing::Ordinary));
        sources.punish(short, 20 * SECOND, at(0));
        sources.punish(long, 600 * SECOND, at(0));
        assert!(sources.forget_penalties(at(30)));
        let wrapped = at(30).plus(u32::MAX / 2);
        assert!(!is_penalised(&sources, short, wrapped) && is_penalised(&sources, long, at(30)));
        assert!(!sources.forget_penalties(at(700)));
        assert!(!is_penalised(&sources, long, wrapped));
    }

    #[test]
    fn sources_beyond_the_table_are_not_tracked_and_not_capped() {
        let mut sources = Sources::default();
        let mut untracked = 0;
        for number in 0..(2 * SOURCES_MAX as u32) {
            let source =
                sources.find(IpAddr::from(number.to_be_bytes()), Standing::Ordinary, at(0));
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
        let networks = ["8000:0:a00:1::1", "0:0:a00:1::1"].map(|network| keys(ip(network)).0);
        assert!(!networks.contains(&keys(ip("10.0.0.1")).0));
    }

    #[test]
    fn totals_count_sources_with_connections_and_sources_refused_now() {
        let mut sources = Sources::default();
        let [connected, refused, warned] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| {
            let source = sources.find(ip(address), Standing::Ordinary, at(0));
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
