//! Retained values: the hub keeps the last message of a channel, or of each key, for newcomers.
//!
//! Rules say which channels keep what. A publish to such a channel puts its message into the
//! channel's [`log`]. A newcomer reads the log over some turns ([`catch_up`]) and gets each later
//! change after it.
//!
//! All logs together have a bound in bytes. Beyond it, the channel that holds most loses the value
//! that has not changed for longest. So no channel can push out the values of the others.

pub mod catch_up;
mod index;
mod key;
mod log;
mod record;

use std::borrow::Cow;
use std::collections::HashMap;

use super::subscriptions::table_bytes;
use crate::limits::{
    EVICTED_AT_ONCE, EVICTED_PER_LOOK, RETAINED_MEMORY, RETAINED_VALUE_MAX, SWEEPS_PER_TURN,
};
use crate::retain_rule::RetainRule;
use key::{MessageKey, key_of};
use log::Log;

pub use log::ReadStamp;
pub use record::KeptRecord;

/// The number of a channel with a rule.
pub type LogId = u16;

/// The kept messages of all channels that have a rule.
pub struct Retained {
    logs: Vec<RetainedChannel>,
    by_channel: HashMap<Box<[u8]>, LogId>,
    /// Maximum memory of all logs, in bytes.
    pub memory_max: usize,
    /// Memory of all logs, in bytes.
    held: usize,
    /// Values that made room for others.
    pub evicted: u64,
    /// Messages that a rule applies to, and that were not kept.
    pub refused: u64,
    /// Logs that may have graves which no session needs.
    to_sweep: Vec<LogId>,
}

/// A channel that has a rule.
struct RetainedChannel {
    rule: RetainRule,
    log: Log,
    /// Number of sessions that catch up.
    readers: usize,
    /// True if removals are kept, too, because they have yet to go to the broker.
    is_apart: bool,
}

impl Retained {
    /// Creates the logs of some rules. Of several rules for a channel, the first counts.
    pub fn new(rules: impl IntoIterator<Item = RetainRule>) -> Retained {
        let mut retained = Retained {
            logs: Vec::new(),
            by_channel: HashMap::new(),
            memory_max: RETAINED_MEMORY,
            held: 0,
            evicted: 0,
            refused: 0,
            to_sweep: Vec::new(),
        };
        for rule in rules {
            let number = retained.logs.len() as LogId;
            if retained.by_channel.contains_key(rule.channel.as_bytes()) {
                continue;
            }
            retained.by_channel.insert(rule.channel.as_bytes().into(), number);
            let log = Log::new(rule.max);
            retained.held += log.bytes();
            retained.logs.push(RetainedChannel { rule, log, readers: 0, is_apart: false });
        }
        retained
    }

    /// Returns true if no channel has a rule.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Returns the log of a channel that has a rule.
    pub fn find(&self, channel: &[u8]) -> Option<LogId> {
        if self.logs.is_empty() { None } else { self.by_channel.get(channel).copied() }
    }

    /// Keeps a message if its channel has a rule. Returns true if it is in the log, so that a
    /// session that catches up reads it there.
    pub fn store(&mut self, channel: &[u8], payload: &[u8]) -> bool {
        let Some(id) = self.find(channel) else { return false };
        let own = &mut self.logs[usize::from(id)];
        let before = own.log.bytes();
        let stored = own.store(payload);
        self.held = self.held + own.log.bytes() - before;
        match stored {
            Stored::Logged { number, evicted } => {
                self.evicted += evicted;
                !self.make_room(id, number)
            }
            Stored::Removed => false,
            Stored::Refused => {
                self.refused += 1;
                false
            }
        }
    }

    /// Evicts values until the memory is within its bound, at most [`EVICTED_AT_ONCE`]. Returns
    /// true if the message of this number was among them.
    fn make_room(&mut self, id: LogId, number: u64) -> bool {
        let (mut is_lost, mut most) = (false, EVICTED_AT_ONCE);
        while self.held > self.memory_max && most > 0 {
            let logs = self.logs.iter().zip(0..).filter(|(own, _)| !own.log.is_empty());
            let fullest = logs.max_by_key(|(own, _)| own.log.bytes());
            let Some((_, fullest)) = fullest else { break };
            let log = &mut self.logs[usize::from(fullest)].log;
            for _ in 0..EVICTED_PER_LOOK.min(most) {
                let before = log.bytes();
                let Some(gone) = log.remove_oldest() else { break };
                self.held = self.held + log.bytes() - before;
                self.evicted += 1;
                most -= 1;
                is_lost |= fullest == id && gone == number;
                if self.held <= self.memory_max {
                    break;
                }
            }
        }
        is_lost
    }

    /// Notes that a session begins to read a log.
    pub fn join(&mut self, id: LogId) {
        self.logs[usize::from(id)].readers += 1;
    }

    /// Notes that a session reads a log no more.
    pub fn leave(&mut self, id: LogId) {
        let own = &mut self.logs[usize::from(id)];
        own.readers -= 1;
        if own.readers == 0 && own.log.has_graves() {
            self.to_sweep.push(id);
        }
    }

    /// Notes that changes of a log must be found later, removals included.
    pub fn begin_apart(&mut self, id: LogId) {
        self.logs[usize::from(id)].is_apart = true;
        self.join(id);
    }

    /// Notes that the changes since [`Self::begin_apart`] have been found.
    pub fn end_apart(&mut self, id: LogId) {
        self.logs[usize::from(id)].is_apart = false;
        self.leave(id);
    }

    /// Returns the key of a message, and whether the message leaves it without a value. Returns
    /// `None` for a message that changes no value.
    pub fn change<'p>(&self, id: LogId, payload: &'p [u8]) -> Option<MessageKey<'p>> {
        self.logs[usize::from(id)].change(payload)
    }

    /// Returns the value of a key.
    pub fn value(&self, id: LogId, key: &[u8]) -> Option<&[u8]> {
        self.logs[usize::from(id)].log.value(key)
    }

    /// Evicts the value of a key.
    pub fn evict(&mut self, id: LogId, key: &[u8]) {
        let log = &mut self.logs[usize::from(id)].log;
        let before = log.bytes();
        self.evicted += u64::from(log.remove(key));
        self.held = self.held + log.bytes() - before;
    }

    /// Returns a message that removes a key.
    pub fn removal(&self, id: LogId, key: &[u8]) -> Vec<u8> {
        let Some(field) = &self.logs[usize::from(id)].rule.key else { return Vec::new() };
        let field = serde_json::to_vec(field).unwrap_or_default();
        [&b"{"[..], &field, b":", key, b",\"deleted\":true}"].concat()
    }

    /// Returns true between [`Self::begin_apart`] and [`Self::end_apart`].
    pub fn is_apart(&self, id: LogId) -> bool {
        self.logs[usize::from(id)].is_apart
    }

    /// Returns the maximum number of values of a log.
    pub fn most(&self, id: LogId) -> usize {
        self.logs[usize::from(id)].rule.max
    }

    /// Returns true if a further key pushes out another value of the log, or soon will.
    pub fn is_full(&self, id: LogId) -> bool {
        let own = &self.logs[usize::from(id)];
        let most = self.logs.iter().map(|own| own.log.bytes()).max();
        // Memory is freed by whole segments, so it is mostly a little below the bound.
        let is_at_bound = self.held > self.memory_max - self.memory_max / 64;
        own.log.values() >= own.rule.max || is_at_bound && most == Some(own.log.bytes())
    }

    /// Returns the number of values of a log.
    pub fn values_of(&self, id: LogId) -> usize {
        self.logs[usize::from(id)].log.values()
    }

    /// Removes graves that no session needs any more, within the budget of a turn.
    pub fn sweep(&mut self) {
        for _ in 0..SWEEPS_PER_TURN {
            let Some(id) = self.to_sweep.last() else { return };
            let own = &mut self.logs[usize::from(*id)];
            if own.readers > 0 || !own.log.has_graves() {
                self.to_sweep.pop();
                continue;
            }
            let before = own.log.bytes();
            own.log.sweep();
            self.held = self.held + own.log.bytes() - before;
        }
    }

    /// Returns true if [`Self::sweep`] has work to do.
    pub fn has_work(&self) -> bool {
        !self.to_sweep.is_empty()
    }

    /// Returns the channels that have a rule.
    pub fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.logs.iter().map(|own| own.rule.channel.as_bytes())
    }

    /// Returns the name of the channel of a log.
    pub fn channel(&self, id: LogId) -> &[u8] {
        self.logs[usize::from(id)].rule.channel.as_bytes()
    }

    /// Returns the number of the latest message of a log; 0: none.
    pub fn last(&self, id: LogId) -> u64 {
        self.logs[usize::from(id)].log.last()
    }

    /// Returns whether a log has no value.
    pub fn has_none(&self, id: LogId) -> bool {
        self.logs[usize::from(id)].log.values() == 0
    }

    /// Calls `each` with the records behind a cursor. See [`Log::read`].
    pub fn read<'a>(
        &'a self,
        id: LogId,
        cursor: u64,
        each: impl FnMut(&KeptRecord<'a>) -> bool,
    ) -> (u64, ReadStamp) {
        self.logs[usize::from(id)].log.read(cursor, each)
    }

    /// Returns true if the records read with a stamp are still what newcomers get.
    pub fn is_current(&self, id: LogId, stamp: ReadStamp) -> bool {
        self.logs[usize::from(id)].log.is_current(stamp)
    }

    /// Returns the number of values of all channels.
    pub fn values(&self) -> usize {
        self.logs.iter().map(|own| own.log.values()).sum()
    }

    /// Returns the memory of the values, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the memory held, in bytes. O(1).
    pub fn bytes(&self) -> usize {
        let logs = self.logs.capacity() * size_of::<RetainedChannel>();
        self.held + logs + table_bytes(&self.by_channel)
    }

    /// Panics unless the logs and the counts agree. For tests.
    pub fn check_invariants(&self) {
        self.logs.iter().for_each(|own| own.log.check_invariants());
        let held: usize = self.logs.iter().map(|own| own.log.bytes()).sum();
        assert_eq!(self.held, held, "the memory of retained values is miscounted");
        let within = |own: &RetainedChannel| own.log.values() <= own.rule.max;
        assert!(self.logs.iter().all(within), "a channel has more values than its rule allows");
    }
}

/// The fate of a message.
enum Stored {
    /// It is in the log under this number, and has displaced some values.
    Logged { number: u64, evicted: u64 },
    /// It has removed its key.
    Removed,
    /// It has no key, or is too long.
    Refused,
}

impl RetainedChannel {
    /// Returns the key of a message, and whether the message leaves it without a value. A message
    /// that is too long still ends the value before it, because that is no longer the last one.
    fn change<'p>(&self, payload: &'p [u8]) -> Option<MessageKey<'p>> {
        let is_too_long = payload.len() > RETAINED_VALUE_MAX;
        match &self.rule.key {
            None => {
                let removes = payload.is_empty() || is_too_long;
                Some(MessageKey { text: Cow::Borrowed(&[]), removes })
            }
            Some(field) => {
                let mut key = key_of(payload, field)?;
                key.removes |= is_too_long;
                Some(key)
            }
        }
    }

    /// Keeps a message, or removes what it says.
    fn store(&mut self, payload: &[u8]) -> Stored {
        let Some(MessageKey { text: key, removes }) = self.change(payload) else {
            return Stored::Refused;
        };
        let is_too_long = payload.len() > RETAINED_VALUE_MAX;
        // A session that catches up may have read the value already.
        let needs_grave = removes && !is_too_long && self.readers > 0;
        if needs_grave && !self.is_apart && !self.log.has(&key) {
            return Stored::Removed;
        }
        if removes && !needs_grave {
            self.log.remove(&key);
            return if is_too_long { Stored::Refused } else { Stored::Removed };
        }
        let (number, mut evicted) = (self.log.append(&key, payload, needs_grave), 0);
        while self.log.values() > self.rule.max && self.log.remove_oldest().is_some() {
            evicted += 1;
        }
        Stored::Logged { number, evicted }
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    pub fn keyed(channel: &str, max: usize) -> RetainRule {
        RetainRule { channel: channel.into(), key: Some("k".into()), max }
    }

    pub fn message(key: u32, number: u32, padding: usize) -> Vec<u8> {
        format!(r#"{{"k":{key},"n":{number},"x":"{}"}}"#, "x".repeat(padding)).into_bytes()
    }

    /// Returns the payloads behind a cursor, by steps of one segment.
    fn read_all(retained: &Retained, id: LogId, mut cursor: u64) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while cursor < retained.last(id) {
            let each = |record: &KeptRecord<'_>| {
                payloads.push(record.payload.to_vec());
                true
            };
            (cursor, _) = retained.read(id, cursor, each);
        }
        payloads
    }

    #[test]
    fn a_log_agrees_with_a_list_of_the_last_messages() {
        for seed in 0..12 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (keys, max) = random.choice([(8, 8), (8, 5), (300, 300), (2000, 900)]).unwrap();
            let mut retained = Retained::new([keyed("a", max), RetainRule::last_of("b")]);
            // The key and the payload of each value, in the order of the last changes.
            let mut model: Vec<(u32, Vec<u8>)> = Vec::new();
            for step in 0..6000 {
                let key = random.u32(..keys);
                let known = model.iter().position(|(own, _)| *own == key);
                if random.u32(..10) == 0 {
                    let payload = format!(r#"{{"deleted":true,"k":{key}}}"#);
                    assert!(!retained.store(b"a", payload.as_bytes()));
                    known.map(|at| model.remove(at));
                } else {
                    let payload = message(key, step, random.usize(..60).pow(2) / 30);
                    assert!(retained.store(b"a", &payload));
                    known.map(|at| model.remove(at));
                    model.push((key, payload));
                    if model.len() > max {
                        model.remove(0);
                    }
                }
                if step % 500 == 0 {
                    retained.check_invariants();
                    let kept: Vec<_> = model.iter().map(|(_, payload)| payload.clone()).collect();
                    assert_eq!(read_all(&retained, 0, 0), kept, "seed {seed}, step {step}");
                }
            }
            assert_eq!(retained.values(), model.len());
            let values: usize = model.iter().map(|(_, payload)| payload.len() + 10).sum();
            assert!(retained.held() < 3 * values + 64 * 1024, "{} for {values}", retained.held());
        }
    }

    /// A cursor may be anywhere while messages change, are removed, and segments are written anew.
    #[test]
    fn each_cursor_meets_each_value_once_and_again_only_when_it_changes() {
        for seed in 0..12 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut retained = Retained::new([keyed("a", 1000)]);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            // For each cursor: its place, and the last number that it has met of each key.
            let mut cursors: Vec<(u64, BTreeMap<u32, u32>)> = Vec::new();
            for step in 1..8000u32 {
                let key = random.u32(..1000);
                match random.u32(..8) {
                    0 => {
                        let payload = format!(r#"{{"k":{key},"n":{step},"deleted":true}}"#);
                        retained.store(b"a", payload.as_bytes());
                        model.remove(&key);
                    }
                    1 if cursors.len() < 4 => {
                        retained.join(0);
                        cursors.push((0, BTreeMap::new()));
                    }
                    2..5 if !cursors.is_empty() => {
                        let at = random.usize(..cursors.len());
                        meet(&retained, &mut cursors[at]);
                        if cursors[at].0 == retained.last(0) {
                            let (_, met) = cursors.swap_remove(at);
                            assert_eq!(met, model, "seed {seed}, step {step}");
                            retained.leave(0);
                        }
                    }
                    _ => {
                        retained.store(b"a", &message(key, step, random.usize(..30)));
                        model.insert(key, step);
                    }
                }
                retained.sweep();
                if step % 400 == 0 {
                    retained.check_invariants();
                }
            }
            for mut cursor in cursors {
                while cursor.0 < retained.last(0) {
                    meet(&retained, &mut cursor);
                }
                assert_eq!(cursor.1, model);
                retained.leave(0);
            }
            while retained.has_work() {
                retained.sweep();
            }
            retained.check_invariants();
            assert!(!retained.logs[0].log.has_graves());
        }
    }

    fn meet(retained: &Retained, (cursor, met): &mut (u64, BTreeMap<u32, u32>)) {
        let mut most = 40;
        let each = |record: &KeptRecord<'_>| {
            most -= 1;
            if most == 0 {
                return false;
            }
            let value: Value = serde_json::from_slice(record.payload).unwrap();
            let [key, number] = ["k", "n"].map(|name| value[name].as_u64().unwrap() as u32);
            let before = met.insert(key, number);
            assert!(before.is_none_or(|before| before < number), "key {key} came twice");
            if record.is_grave {
                met.remove(&key);
            }
            true
        };
        *cursor = retained.read(0, *cursor, each).0;
    }

    #[test]
    fn the_memory_is_bounded_and_the_fullest_channel_loses_the_oldest_value() {
        let mut retained = Retained::new([keyed("a", 100_000), keyed("b", 100)]);
        let empty = retained.held();
        retained.memory_max = empty + 100_000;
        (0..20).for_each(|key| assert!(retained.store(b"b", &message(key, 0, 100))));
        for key in 0..20_000 {
            assert!(retained.store(b"a", &message(key, 0, 20)), "the newest value is kept");
            assert!(retained.held() <= retained.memory_max);
        }
        retained.check_invariants();
        assert_eq!(read_all(&retained, 1, 0).len(), 20, "the smaller channel lost nothing");
        let left = read_all(&retained, 0, 0);
        assert!(left.len() > 500, "{} values are left", left.len());
        let first = 20_000 - left.len() as u32;
        assert_eq!(left[0], message(first, 0, 20), "the oldest ones are gone");
        assert_eq!(retained.evicted, u64::from(first));
        retained.memory_max = 0;
        assert!(!retained.store(b"a", &message(1, 1, 0)), "a message that has no room is not kept");
        assert_eq!(retained.values(), 0);
    }

    #[test]
    fn a_value_has_at_most_a_mebibyte_and_a_longer_one_ends_the_one_before() {
        for (length, fits) in [
            (RETAINED_VALUE_MAX - 1, true),
            (RETAINED_VALUE_MAX, true),
            (RETAINED_VALUE_MAX + 1, false),
        ] {
            let mut retained = Retained::new([RetainRule::last_of("a")]);
            assert!(retained.store(b"a", b"before"));
            let payload = vec![b'x'; length];
            assert_eq!(retained.store(b"a", &payload), fits);
            assert_eq!(read_all(&retained, 0, 0), if fits { vec![payload] } else { vec![] });
            assert_eq!(retained.refused, u64::from(!fits));
            retained.check_invariants();
        }
    }

    #[test]
    fn an_empty_message_removes_the_only_value_and_a_message_without_a_key_is_not_kept() {
        let mut retained = Retained::new([RetainRule::last_of("a"), keyed("b", 3)]);
        assert!(retained.store(b"a", b"1") && retained.store(b"a", b"2"));
        assert_eq!(read_all(&retained, 0, 0), [b"2"]);
        assert!(!retained.store(b"a", b"") && retained.values() == 0);
        for payload in [&b"5"[..], b"{}", b"{\"k\":null}", b""] {
            assert!(!retained.store(b"b", payload));
        }
        assert_eq!((retained.values(), retained.refused), (0, 4));
        assert!(!retained.store(b"other", b"1"), "a channel without a rule");
        for (keys, kept) in [(2, 2), (3, 3), (4, 3)] {
            (0..keys).for_each(|key| assert!(retained.store(b"b", &message(key, keys, 0))));
            assert_eq!(retained.values(), kept, "{keys} keys");
        }
    }

    #[test]
    fn a_million_checkboxes_take_less_than_64_mib() {
        let keys = if cfg!(miri) { 100 } else { 1_000_000u32 };
        let rule = RetainRule { channel: "a".into(), key: Some("index".into()), max: 1_000_000 };
        let mut retained = Retained::new([rule]);
        for key in 0..keys {
            let payload = format!(r#"{{"index":{key},"checked":true}}"#);
            retained.store(b"a", payload.as_bytes());
        }
        let each = retained.held() / keys as usize;
        println!("{each} bytes for each of {keys} keys");
        assert_eq!((retained.values(), retained.evicted), (keys as usize, 0));
        assert!(retained.bytes() < RETAINED_MEMORY);
    }
}
