//! The names that the hub wants from the broker, and what the broker has been told of them.
//!
//! Each name is kept once. [`WantedNames::next_batch`] makes the next command out of what the
//! broker has not been told yet: first of all names after a connect, then of changes.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use slab::Slab;

use super::SharedKind;
use crate::clock::Tick;
use crate::limits::{BROKER_BATCH_BYTES, BROKER_BATCH_NAMES, BROKER_LINGER};

/// The broker's knowledge of a name on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtBroker {
    Absent,
    /// A SUBSCRIBE is under way.
    Asked,
    Subscribed,
    /// The broker refused the SUBSCRIBE.
    Refused,
    /// An UNSUBSCRIBE is under way.
    Leaving,
}

#[derive(Debug)]
struct WantedName {
    name: Rc<[u8]>,
    kind: SharedKind,
    wanted: bool,
    /// What the broker knows, and whether the name is in a queue. Both hold for one connection.
    at_broker: AtBroker,
    is_queued: bool,
    connection: u32,
    /// When the broker is told that the name is not wanted, if it is in the queue of those.
    leaves: Option<Tick>,
}

/// The names of one SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug)]
pub struct NameBatch {
    pub kind: SharedKind,
    pub subscribes: bool,
    pub places: Vec<u32>,
    /// How many of them the broker has confirmed.
    pub confirmed: usize,
}

/// The table of wanted names.
#[derive(Debug, Default)]
pub struct WantedNames {
    names: Slab<WantedName>,
    channels: HashMap<Rc<[u8]>, u32>,
    patterns: HashMap<Rc<[u8]>, u32>,
    /// Memory of the names themselves, in bytes.
    name_bytes: usize,
    /// The number of the connection, so that a new one forgets all at once.
    connection: u32,
    /// Names below this place have been told to the broker after the connect. Changes of names
    /// behind it need no queue.
    restored: usize,
    /// All names are below this place.
    end: usize,
    /// Names that have changed.
    changes: VecDeque<u32>,
    /// Names that were refused together with others, and are tried alone.
    alone: VecDeque<u32>,
    /// Names that nobody wants any more, in the order of their time.
    lingering: VecDeque<(Tick, u32)>,
}

/// Memory of a name besides its bytes: the counts of its `Rc`.
const NAME_BYTES: usize = 2 * size_of::<usize>();

impl WantedNames {
    /// Returns the number of names, those included that linger.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let places = self.channels.capacity() + self.patterns.capacity();
        let queued = self.changes.capacity() + self.alone.capacity();
        self.names.capacity() * size_of::<WantedName>()
            + places * (size_of::<(Rc<[u8]>, u32)>() + 1)
            + self.name_bytes
            + queued * size_of::<u32>()
            + self.lingering.capacity() * size_of::<(Tick, u32)>()
    }

    /// Frees unused memory.
    pub fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.channels.shrink_to_fit();
        self.patterns.shrink_to_fit();
        self.changes.shrink_to_fit();
        self.alone.shrink_to_fit();
        self.lingering.shrink_to_fit();
    }

    fn places(&mut self, kind: SharedKind) -> &mut HashMap<Rc<[u8]>, u32> {
        match kind {
            SharedKind::Channel => &mut self.channels,
            SharedKind::Pattern => &mut self.patterns,
        }
    }

    /// Returns the name at a place, with what is known of it on this connection.
    fn at(&mut self, place: u32) -> Option<&mut WantedName> {
        let connection = self.connection;
        let name = self.names.get_mut(place as usize)?;
        if name.connection != connection {
            name.connection = connection;
            name.at_broker = AtBroker::Absent;
            name.is_queued = false;
        }
        Some(name)
    }

    /// Returns the bytes of the name at a place.
    pub fn name(&self, place: u32) -> Option<&Rc<[u8]>> {
        self.names.get(place as usize).map(|name| &name.name)
    }

    /// Returns true if the broker has refused a name on this connection.
    pub fn is_refused(&self, kind: SharedKind, name: &[u8]) -> bool {
        let places = match kind {
            SharedKind::Channel => &self.channels,
            SharedKind::Pattern => &self.patterns,
        };
        let own = places.get(name).and_then(|place| self.names.get(*place as usize));
        own.is_some_and(|own| {
            own.connection == self.connection && own.at_broker == AtBroker::Refused
        })
    }

    /// Wants a name from now on.
    pub fn want(&mut self, kind: SharedKind, name: &[u8]) {
        let place = match self.places(kind).get(name) {
            Some(place) => *place,
            None => {
                let name: Rc<[u8]> = name.into();
                self.name_bytes += name.len() + NAME_BYTES;
                let place = self.names.insert(WantedName {
                    name: Rc::clone(&name),
                    kind,
                    wanted: false,
                    at_broker: AtBroker::Absent,
                    is_queued: false,
                    connection: self.connection,
                    leaves: None,
                });
                self.end = self.end.max(place + 1);
                self.places(kind).insert(name, place as u32);
                place as u32
            }
        };
        if let Some(name) = self.at(place)
            && !name.wanted
        {
            name.wanted = true;
            self.change(place);
        }
    }

    /// Wants a name no more. The broker is told after [`BROKER_LINGER`].
    pub fn unwant(&mut self, kind: SharedKind, name: &[u8], now: Tick) {
        let Some(&place) = self.places(kind).get(name) else { return };
        let Some(name) = self.at(place) else { return };
        if !name.wanted {
            return;
        }
        name.wanted = false;
        let leaves = now.plus(Tick::count(BROKER_LINGER));
        // A name is in the queue once. It goes to its end again if its time is not up there.
        if name.leaves.replace(leaves).is_none() {
            self.lingering.push_back((leaves, place));
        }
    }

    /// Returns when [`Self::leave`] must be called.
    pub fn leaves_at(&self) -> Option<Tick> {
        self.lingering.front().map(|(at, _)| *at)
    }

    /// Lets go of the names that have lingered long enough.
    pub fn leave(&mut self, now: Tick) {
        while let Some(&(at, place)) = self.lingering.front()
            && at.distance_from(now) <= 0
        {
            self.lingering.pop_front();
            let Some(name) = self.at(place) else { continue };
            let leaves = name.leaves.take();
            match leaves {
                _ if name.wanted => {}
                Some(later) if later.distance_from(now) > 0 => {
                    name.leaves = Some(later);
                    let last = self.lingering.back().map_or(later, |(last, _)| *last);
                    let at = if last.distance_from(later) > 0 { last } else { later };
                    self.lingering.push_back((at, place));
                }
                _ => self.change(place),
            }
        }
    }

    /// Remembers to tell the broker of a name, or removes it if there is nothing to tell.
    fn change(&mut self, place: u32) {
        let restored = self.restored;
        let Some(name) = self.at(place) else { return };
        if name.is_queued {
            return;
        }
        if name.is_gone() {
            self.remove(place);
        } else if name.next().is_some() && (place as usize) < restored {
            name.is_queued = true;
            self.changes.push_back(place);
        }
    }

    fn remove(&mut self, place: u32) {
        let gone = self.names.remove(place as usize);
        self.name_bytes -= gone.name.len() + NAME_BYTES;
        self.places(gone.kind).remove(&gone.name);
        if self.names.is_empty() {
            self.end = 0;
        }
    }

    /// Forgets what the broker knew: there is no connection.
    pub fn disconnect(&mut self) {
        self.connection = self.connection.wrapping_add(1);
        self.restored = 0;
        self.changes.clear();
        self.alone.clear();
    }

    /// Returns whether the broker is told of more names by [`Self::next_batch`].
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty() || !self.alone.is_empty() || self.restored < self.end
    }

    /// Returns the place of the next name to tell the broker of, without taking it.
    fn next_place(&mut self) -> Option<(u32, NameSource)> {
        if let Some(place) = self.alone.front() {
            return Some((*place, NameSource::Alone));
        }
        if let Some(place) = self.changes.front() {
            return Some((*place, NameSource::Changes));
        }
        (self.restored < self.end).then_some((self.restored as u32, NameSource::Restored))
    }

    fn take(&mut self, source: NameSource) {
        match source {
            NameSource::Alone => drop(self.alone.pop_front()),
            NameSource::Changes => drop(self.changes.pop_front()),
            NameSource::Restored => self.restored += 1,
        }
    }

    /// Returns the names of the next command, and marks them as under way. `None`: the broker has
    /// been told of everything.
    pub fn next_batch(&mut self) -> Option<NameBatch> {
        let mut batch: Option<NameBatch> = None;
        let mut bytes = 0;
        while let Some((place, source)) = self.next_place() {
            let next = self.at(place).and_then(|name| Some((name.kind, name.next()?)));
            let Some((kind, subscribes)) = next else {
                self.take(source);
                self.settle(place);
                continue;
            };
            let fits = batch.as_ref().is_none_or(|batch| {
                (batch.kind, batch.subscribes) == (kind, subscribes)
                    && batch.places.len() < BROKER_BATCH_NAMES
                    && bytes < BROKER_BATCH_BYTES
                    && source != NameSource::Alone
            });
            if !fits {
                break;
            }
            self.take(source);
            if let Some(name) = self.at(place) {
                name.is_queued = false;
                name.at_broker = if subscribes { AtBroker::Asked } else { AtBroker::Leaving };
                bytes += name.name.len();
            }
            let empty = NameBatch { kind, subscribes, places: Vec::new(), confirmed: 0 };
            batch.get_or_insert(empty).places.push(place);
            if source == NameSource::Alone {
                break;
            }
        }
        batch
    }

    /// Removes a name that has left a queue, if nothing is left of it.
    fn settle(&mut self, place: u32) {
        if let Some(name) = self.at(place) {
            name.is_queued = false;
            if name.is_gone() {
                self.remove(place);
            }
        }
    }

    /// Notes that the broker has confirmed a command for a name.
    pub fn confirm(&mut self, place: u32, subscribes: bool) {
        let Some(name) = self.at(place) else { return };
        match (name.at_broker, subscribes) {
            (AtBroker::Asked, true) => name.at_broker = AtBroker::Subscribed,
            (AtBroker::Leaving, false) => {
                name.at_broker = AtBroker::Absent;
                self.change(place);
            }
            // A further command is under way.
            _ => {}
        }
    }

    /// Notes that the broker has refused to subscribe the names of a batch that it has not
    /// confirmed. If there were several names, each is tried alone. Returns the one that is
    /// refused.
    pub fn refuse(&mut self, batch: &NameBatch) -> Option<u32> {
        let is_alone = batch.places.len() == 1;
        for place in batch.places.iter().skip(batch.confirmed) {
            let Some(name) = self.at(*place) else { continue };
            if name.at_broker != AtBroker::Asked {
                continue;
            }
            name.at_broker = if is_alone { AtBroker::Refused } else { AtBroker::Absent };
            if name.wanted && !is_alone && !name.is_queued {
                name.is_queued = true;
                self.alone.push_back(*place);
            } else {
                self.settle_unqueued(*place);
            }
        }
        batch.places.first().copied().filter(|_| is_alone)
    }

    /// Removes a name that is in no queue, if nothing is left of it.
    fn settle_unqueued(&mut self, place: u32) {
        if self.at(place).is_some_and(|name| !name.is_queued && name.is_gone()) {
            self.remove(place);
        }
    }

    /// Panics if the table has broken its own invariants. For tests.
    pub fn check_invariants(&self) {
        assert_eq!(self.names.len(), self.channels.len() + self.patterns.len());
        let mut bytes = 0;
        let mut lingering = 0;
        for (place, name) in &self.names {
            assert!(place < self.end);
            let places = match name.kind {
                SharedKind::Channel => &self.channels,
                SharedKind::Pattern => &self.patterns,
            };
            assert_eq!(places.get(&name.name), Some(&(place as u32)));
            assert_eq!(Rc::strong_count(&name.name), 2, "a name is kept once");
            bytes += name.name.len() + NAME_BYTES;
            lingering += usize::from(name.leaves.is_some());
            let is_queued = name.connection == self.connection && name.is_queued;
            let queues = self.changes.iter().chain(&self.alone);
            let queued = queues.filter(|queued| **queued as usize == place).count();
            assert_eq!(queued, usize::from(is_queued), "{name:?}");
        }
        assert_eq!(bytes, self.name_bytes);
        assert_eq!(lingering, self.lingering.len());
    }

    /// Returns the names of a kind that the broker has confirmed, and that are wanted. For tests.
    #[cfg(test)]
    pub fn subscribed(&self, kind: SharedKind) -> Vec<&[u8]> {
        let is_there = |name: &&WantedName| {
            name.connection == self.connection && name.at_broker == AtBroker::Subscribed
        };
        let all = self.names.iter().map(|(_, name)| name).filter(|name| name.kind == kind);
        let mut found: Vec<&[u8]> = all.filter(is_there).map(|name| &*name.name).collect();
        found.sort_unstable();
        found
    }
}

impl WantedName {
    /// Returns what to tell the broker: true to subscribe. `None`: nothing.
    fn next(&self) -> Option<bool> {
        match (self.wanted, self.at_broker) {
            (true, AtBroker::Absent | AtBroker::Leaving) => Some(true),
            (false, AtBroker::Asked | AtBroker::Subscribed) if self.leaves.is_none() => Some(false),
            _ => None,
        }
    }

    /// Returns true if nobody wants the name, and the broker does not have it.
    fn is_gone(&self) -> bool {
        let is_absent = matches!(self.at_broker, AtBroker::Absent | AtBroker::Refused);
        !self.wanted && is_absent && self.leaves.is_none()
    }
}

/// Where the next name comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameSource {
    Alone,
    Changes,
    Restored,
}
