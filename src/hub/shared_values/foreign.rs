//! Keys of messages that were published at the broker by somebody else. The hash does not have them
//! yet. Each hub writes them to it after a while, unless a later write has come first.

use std::collections::HashMap;

use super::{CallKind, SharedValues, call_number};
use crate::clock::Tick;
use crate::hub::broker::{Link, scripts};
use crate::hub::retained::{LogId, Retained};
use crate::limits::{
    ADOPT_WITHIN, FOREIGN_KEYS_MAX, FOREIGN_KEYS_MIN, RETAINED_KEY_MAX, VALUES_BATCH_BYTES,
    VALUES_BATCH_KEYS,
};

/// The keys of one channel.
pub struct ForeignKeys {
    keys: HashMap<Box<[u8]>, ForeignKey>,
    /// Memory of the keys themselves, in bytes.
    held: usize,
    /// Maximum number of keys.
    max: usize,
    /// The number of keys on their way.
    sent: usize,
}

/// The fate of a key of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Later,
    /// The keys are worth a script.
    Due,
    /// There are too many: its value stays out of the hash.
    NoRoom,
}

#[derive(Clone, Copy)]
struct ForeignKey {
    /// The number of the last write before the message.
    seen: u64,
    is_sent: bool,
    /// True if not all servers may know the message: it is from before an outage, or the value
    /// that it removes has come back from another server. They are told to read the values.
    is_old: bool,
}

impl ForeignKeys {
    /// Creates the keys of one of some channels, which share the memory for them.
    pub fn new(channels: usize) -> ForeignKeys {
        let max = (FOREIGN_KEYS_MAX / channels.max(1)).max(FOREIGN_KEYS_MIN);
        ForeignKeys { keys: HashMap::new(), held: 0, max, sent: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// Notes the key of a message.
    pub fn note(&mut self, key: &[u8], seen: u64, is_old: bool) -> Noted {
        let entry = ForeignKey { seen, is_sent: false, is_old };
        if let Some(own) = self.keys.get_mut(key) {
            *own = entry;
        } else if self.keys.len() < self.max {
            self.held += key.len();
            self.keys.insert(key.into(), entry);
        } else {
            return Noted::NoRoom;
        }
        let is_due = self.keys.len() >= VALUES_BATCH_KEYS.min(self.max / 2);
        if is_due { Noted::Due } else { Noted::Later }
    }

    /// Forgets a key, because the hash has a later value. Returns true if its value is on the way
    /// there.
    pub fn forget(&mut self, key: &[u8]) -> bool {
        let gone = if self.keys.is_empty() { None } else { self.keys.remove(key) };
        self.held -= if gone.is_some() { key.len() } else { 0 };
        gone.is_some_and(|own| own.is_sent)
    }

    /// Notes that the keys on their way have arrived. Returns true if others are to read them.
    pub fn arrived(&mut self) -> bool {
        self.sent = 0;
        let mut is_old = false;
        self.keys.retain(|key, own| {
            is_old |= own.is_sent && own.is_old;
            self.held -= if own.is_sent { key.len() } else { 0 };
            !own.is_sent
        });
        if self.keys.is_empty() {
            self.clear();
        }
        is_old
    }

    /// Notes that the keys on their way may not have arrived, maybe because the link is down.
    pub fn retry(&mut self, is_down: bool) {
        self.sent = 0;
        for own in self.keys.values_mut() {
            (own.is_sent, own.is_old) = (false, own.is_old || is_down);
        }
    }

    /// Notes the number of the last write so far. Any write after a message was heard.
    pub fn opened(&mut self, number: u64) {
        self.keys.values_mut().filter(|own| !own.is_old).for_each(|own| own.seen = number);
    }

    pub fn clear(&mut self) {
        (self.keys, self.held, self.sent) = (HashMap::new(), 0, 0);
    }

    pub fn bytes(&self) -> usize {
        self.held + self.keys.capacity() * size_of::<(Box<[u8]>, ForeignKey)>() * 2
    }

    pub fn check_invariants(&self) {
        assert!(self.keys.len() <= self.max, "too many keys wait for the broker");
        assert_eq!(self.held, self.keys.keys().map(|key| key.len()).sum::<usize>());
        let sent = self.keys.values().filter(|own| own.is_sent).count();
        assert!(sent <= self.sent, "keys are on their way that nobody waits for");
    }
}

impl SharedValues {
    /// Notes the key of a value that the broker is to get.
    pub(super) fn note_foreign(&mut self, id: LogId, key: &[u8], is_old: bool, now: Tick) {
        let Some(own) = self.channel_mut(id) else { return };
        let noted = own.foreign.note(key, own.seen, is_old);
        self.counters.unadopted += u64::from(noted == Noted::NoRoom);
        self.adopt_soon(now, noted != Noted::Later);
    }

    /// Sets the time at which keys are written. It differs between servers.
    pub(super) fn adopt_soon(&mut self, now: Tick, is_due: bool) {
        let within = Tick::count(ADOPT_WITHIN);
        let wait = if is_due { 0 } else { self.random.u32(within / 4..within) };
        let at = now.plus(wait);
        let is_sooner = self.adopts_at.is_none_or(|before| at.distance_from(before) < 0);
        self.adopts_at = if is_sooner { Some(at) } else { self.adopts_at };
        self.has_work |= is_due;
    }

    /// Writes keys to the broker whose time has come.
    pub(super) fn adopt_all(&mut self, link: &mut Link, retained: &Retained, now: Tick) {
        if self.adopts_at.is_none_or(|at| at.distance_from(now) > 0) {
            return;
        }
        self.adopts_at = None;
        for id in self.ids() {
            let Some(own) = self.channel_mut(id) else { continue };
            let is_ready = own.is_open() && !own.foreign.is_empty() && own.foreign.sent == 0;
            if is_ready && !own.foreign.send(id, link, retained) {
                self.adopt_soon(now, false);
            }
        }
    }
}

impl ForeignKeys {
    /// Writes some keys to the broker. Returns false if the link has no room.
    fn send(&mut self, id: LogId, link: &mut Link, retained: &Retained) -> bool {
        let max = retained.most(id).to_string();
        let (mut texts, mut size) = (vec![max.into_bytes()], 0);
        let mut sent = Vec::new();
        for (key, own) in &self.keys {
            let value = match retained.value(id, key) {
                Some(payload) => [b"+", payload].concat(),
                None => b"-".to_vec(),
            };
            size += RETAINED_KEY_MAX + value.len();
            if !sent.is_empty() && (sent.len() >= VALUES_BATCH_KEYS || size > VALUES_BATCH_BYTES) {
                break;
            }
            sent.push(key.clone());
            texts.extend([key.to_vec(), own.seen.to_string().into_bytes(), value]);
        }
        let texts: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        let number = call_number(id, CallKind::Adopt, 0);
        if !link.call(number, scripts::ADOPT, retained.channel(id), &texts) {
            return false;
        }
        self.sent = sent.len();
        for key in sent {
            self.keys.entry(key).and_modify(|own| own.is_sent = true);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_others_are_noted_up_to_a_bound() {
        for channels in [1, 4, 10_000] {
            let mut foreign = ForeignKeys::new(channels);
            let most = (FOREIGN_KEYS_MAX / channels).max(FOREIGN_KEYS_MIN);
            for number in 0..most + 2 {
                let noted = foreign.note(number.to_string().as_bytes(), 7, false);
                let is_due = number + 1 >= 256.min(most / 2);
                let expected = if is_due { Noted::Due } else { Noted::Later };
                assert_eq!(noted, if number < most { expected } else { Noted::NoRoom });
                assert_eq!(foreign.keys.len(), most.min(number + 1));
            }
            foreign.check_invariants();
            foreign.forget(b"0");
            foreign.note(b"another", 7, false);
            assert!(foreign.contains(b"another"));
            foreign.check_invariants();
            foreign.clear();
            assert_eq!(foreign.bytes(), 0);
        }
    }
}
