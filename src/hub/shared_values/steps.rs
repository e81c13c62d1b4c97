//! The steps that bring a hub and the broker together after the link was down.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::{CallKind, SharedValues, ValueChannel, call_number};
use crate::clock::Tick;
use crate::hub::Shared;
use crate::hub::broker::{KeptMessage, Link, LinkWire, Published, scripts};
use crate::hub::retained::{LogId, Retained};
use crate::limits::{
    BROKER_QUEUE_HIGH, PUSHES_PER_TURN, PUSHES_UNANSWERED, REREAD_AFTER, RETAINED_KEY_MAX,
    VALUES_BATCH_BYTES, VALUES_BATCH_KEYS, VALUES_READ_BYTES, VALUES_READ_FIRST,
};

/// How far the values of a channel are.
#[derive(Debug, PartialEq, Eq)]
pub enum ValuePhase {
    /// The link is down.
    Apart,
    /// The link is up, and the hash is being opened. Publishes are like those of others.
    Opening,
    /// The broker runs no scripts. Values stay here.
    Plain,
    /// Changes from the time without a link go to the broker. `None`: there are none.
    Pushing { sent: Option<u64>, unanswered: u32 },
    /// The broker gets back the values that it has lost: those up to `end`, behind the cursor.
    Restoring { cursor: u64, end: u64 },
    /// The values of the broker are read. Those with a number above `floor` come as messages.
    Reading(ValueReading),
    /// Values up to `end`, behind the cursor, are removed if the broker has them no more.
    Sweeping { cursor: u64, end: u64 },
    /// The hub and the broker have the same values.
    InStep,
}

#[derive(Debug, PartialEq, Eq)]
pub struct ValueReading {
    pub floor: u64,
    /// The last number of the log when reading began.
    pub end: u64,
    /// The cursor of HSCAN; `None`: all fields have been looked at.
    pub cursor: Option<Vec<u8>>,
    /// Number of fields that the next script looks at.
    pub looks_at: usize,
    /// Fields whose values come one by one, and whether the last of them is under way.
    pub large: Vec<Box<[u8]>>,
    pub is_fetching: bool,
    /// Number of values at the broker.
    pub count: usize,
}

impl ValuePhase {
    pub fn bytes(&self) -> usize {
        match self {
            ValuePhase::Reading(ValueReading { large, .. }) => {
                large.capacity() * size_of::<Box<[u8]>>() + large.len() * RETAINED_KEY_MAX
            }
            _ => 0,
        }
    }
}

impl ValueChannel {
    /// Begins to read the values of the broker. All that was heard so far is also there, or is
    /// among the keys of others.
    pub(super) fn read(&mut self, last: u64) {
        self.heard.clear();
        self.enter(ValuePhase::Reading(ValueReading {
            floor: self.seen,
            end: last,
            cursor: Some(b"0".to_vec()),
            looks_at: VALUES_READ_FIRST,
            large: Vec::new(),
            is_fetching: false,
            count: 0,
        }));
        self.rereads_at = None;
    }

    /// Reads from the beginning, because too many keys were heard meanwhile.
    pub(super) fn start_again(&mut self, last: u64) {
        match self.phase {
            ValuePhase::Reading(_) => self.read(last),
            ValuePhase::Sweeping { .. } => self.enter(ValuePhase::InStep),
            _ => {}
        }
    }

    /// Ends the reading.
    fn settle(&mut self, now: Tick, random: &mut fastrand::Rng) {
        self.heard = HashSet::new();
        self.enter(ValuePhase::InStep);
        if std::mem::take(&mut self.rereads) {
            // A message of others from before the link was up may come to the broker this late.
            let after = Tick::count(REREAD_AFTER);
            self.rereads_at = Some(now.plus(random.u32(after..2 * after)));
        }
    }
}

impl Shared {
    /// Does what is due for the retained values at the broker.
    pub(in crate::hub) fn keep_values(&mut self) {
        let Shared { sharing: Some(sharing), retained, fanout, now, .. } = self else { return };
        let (values, link) = (&mut sharing.values, &mut sharing.link);
        values.follow_link(link.is_up(), retained);
        values.is_blocked = false;
        let is_due = |at: Tick| at.distance_from(*now) <= 0;
        let is_woken = values.wakes_at(*now).is_some_and(is_due);
        if !values.has_work && !is_woken || !values.is_linked {
            values.has_work = false;
            return;
        }
        // Values that are read back are delivered, at the pace of the receivers. These and the link
        // wake the loop when there is room again.
        let is_full = |link: &Link| link.queued(LinkWire::First) >= BROKER_QUEUE_HIGH;
        values.is_blocked = fanout.has_backlog() || is_full(link);
        if values.is_blocked {
            values.has_work = true;
            return;
        }
        values.adopt_all(link, retained, *now);
        values.has_work = false;
        for id in values.ids() {
            values.has_work |= values.step(id, link, retained, *now);
            if is_full(link) {
                break;
            }
        }
        values.is_blocked = is_full(link);
        values.has_work |= values.is_blocked;
    }
}

impl SharedValues {
    /// Does the next step of a channel. Returns true if another one can follow at once.
    fn step(&mut self, id: LogId, link: &mut Link, retained: &mut Retained, now: Tick) -> bool {
        if link.refuses(retained.channel(id)) {
            self.give_up(id, "its user may not subscribe to the channel", retained);
            return false;
        }
        let SharedValues { channels, token, hasher, random, .. } = self;
        let own = channels.get_mut(usize::from(id)).and_then(|own| own.as_deref_mut());
        let Some(own) = own.filter(|own| !own.awaits_reply) else { return false };
        let number = call_number(id, CallKind::Step, own.epoch);
        let mut step = ValueStep { own, id, number, token, hasher, random, link, retained, now };
        match step.own.phase {
            ValuePhase::Apart | ValuePhase::Plain => false,
            ValuePhase::Opening => step.open(),
            ValuePhase::Pushing { sent: Some(from), unanswered } => step.push(from, unanswered),
            ValuePhase::Pushing { .. } => step.pushed(),
            ValuePhase::Restoring { cursor, end } => step.restore(cursor, end),
            ValuePhase::Reading(_) => step.read(),
            ValuePhase::Sweeping { cursor, end } => step.sweep(cursor, end),
            ValuePhase::InStep => {
                let is_due = step.own.rereads_at.is_some_and(|at| at.distance_from(now) <= 0);
                if is_due {
                    step.own.read(step.retained.last(id));
                }
                is_due
            }
        }
    }
}

/// The parts that a step needs.
struct ValueStep<'a> {
    own: &'a mut ValueChannel,
    id: LogId,
    /// The number of its script.
    number: u32,
    token: &'a [u8],
    hasher: &'a RandomState,
    random: &'a mut fastrand::Rng,
    link: &'a mut Link,
    retained: &'a mut Retained,
    now: Tick,
}

/// A step returns true if another one can follow at once.
impl ValueStep<'_> {
    /// Runs the script of the phase, and waits for its reply. Returns false if the link has no
    /// room.
    fn call(&mut self, script: &[u8], words: &[&[u8]]) -> bool {
        let channel = self.retained.channel(self.id);
        self.own.awaits_reply = self.link.call(self.number, script, channel, words);
        self.own.awaits_reply
    }

    fn open(&mut self) -> bool {
        let is_later = |at: Tick| at.distance_from(self.now) > 0;
        if self.own.opens_at.is_some_and(is_later) {
            return false;
        }
        self.own.opens_at = None;
        let (life, seen) = (self.own.life.text(), self.own.seen.to_string());
        let new_life = format!("{:016x}", self.random.u64(1..));
        let words = [self.token, life.as_bytes(), seen.as_bytes(), new_life.as_bytes()];
        self.call(scripts::OPEN, &words);
        false
    }

    /// Publishes some more changes from the time without a link.
    fn push(&mut self, from: u64, unanswered: u32) -> bool {
        let ValueStep { own, id, token, hasher, link, retained, .. } = self;
        let number = call_number(*id, CallKind::Push, own.epoch);
        let (most, channel) = (retained.most(*id), retained.channel(*id));
        let (mut left, mut unanswered) = (PUSHES_PER_TURN, unanswered);
        let (to, _) = retained.read(*id, from, |record| {
            let is_full = link.queued(LinkWire::First) >= BROKER_QUEUE_HIGH;
            if left == 0 || unanswered >= PUSHES_UNANSWERED || is_full {
                return false;
            }
            left -= 1;
            let hash = hasher.hash_one(record.key);
            let is_heard = own.heard.contains(&hash);
            if is_heard || own.on_way.contains(&hash) {
                own.has_hidden |= !is_heard;
                return true;
            }
            let max = if record.is_grave { 0 } else { most };
            let (payload, field, token) = (record.payload, record.key, Some(*token));
            let message = KeptMessage { channel, payload, field, max, token };
            let is_sent = link.publish_kept(number, &message) == Published::Sent;
            unanswered += u32::from(is_sent);
            is_sent
        });
        let is_done = to >= retained.last(*id) && unanswered == 0;
        own.phase = ValuePhase::Pushing { sent: (!is_done).then_some(to), unanswered };
        if is_done && self.own.has_hidden {
            // Only publishes that come back before this notice are newer than what is pushed.
            self.own.phase = ValuePhase::Pushing { sent: Some(to), unanswered: 0 };
            let notice = [b"*", self.token].concat();
            if self.call(scripts::NOTIFY, &[&notice]) {
                self.own.on_way.clear();
            }
            return false;
        }
        if is_done {
            return self.pushed();
        }
        to < retained.last(*id) && unanswered < PUSHES_UNANSWERED
    }

    /// Goes on after the changes from here are at the broker.
    fn pushed(&mut self) -> bool {
        self.own.end_apart(self.id, self.retained);
        let end = self.retained.last(self.id);
        match self.own.has_lost {
            true => self.own.enter(ValuePhase::Restoring { cursor: 0, end }),
            false => self.own.read(end),
        }
        true
    }

    /// Gives the broker some more values that it has lost.
    fn restore(&mut self, cursor: u64, end: u64) -> bool {
        let (values, to) = batch(self.id, cursor, end, self.retained);
        if values.is_empty() {
            // Even if another server has restored all: it may have ended before its notice.
            let notice = [b"+", self.token].concat();
            if self.call(scripts::NOTIFY, &[&notice]) {
                self.own.has_lost = false;
                self.own.read(self.retained.last(self.id));
            }
            return true;
        }
        let max = self.retained.most(self.id).to_string().into_bytes();
        // Of the values from before this life, those that are newer than here stay.
        let number = self.own.life.from.min(self.own.copied + 1).to_string().into_bytes();
        let values = values.iter().map(|(key, value)| (key, [b"*", &value[1..]].concat()));
        let values: Vec<_> = values.collect();
        let mut words: Vec<&[u8]> = vec![&max];
        for (key, value) in &values {
            words.extend([&key[..], &number, value]);
        }
        if self.call(scripts::ADOPT, &words) {
            self.own.phase = ValuePhase::Restoring { cursor: to, end };
        }
        false
    }

    /// Reads some more values of the broker.
    fn read(&mut self) -> bool {
        let ValuePhase::Reading(reading) = &mut self.own.phase else { return false };
        if let Some(field) = reading.large.last().cloned() {
            reading.is_fetching = true;
            if !self.call(scripts::FETCH, &[&field])
                && let ValuePhase::Reading(reading) = &mut self.own.phase
            {
                reading.is_fetching = false;
            }
        } else if let Some(cursor) = reading.cursor.clone() {
            let bytes = VALUES_READ_BYTES.min(self.link.max_message()).to_string();
            let (life, count) = (self.own.life.text(), reading.looks_at.to_string());
            let words = [life.as_bytes(), &cursor, count.as_bytes(), bytes.as_bytes()];
            self.call(scripts::READ, &words);
        } else if reading.count != self.retained.values_of(self.id) {
            let end = reading.end;
            self.own.enter(ValuePhase::Sweeping { cursor: 0, end });
            return true;
        } else {
            self.own.settle(self.now, self.random);
        }
        false
    }

    /// Asks which of some more values the broker has no more.
    fn sweep(&mut self, cursor: u64, end: u64) -> bool {
        let (values, to) = batch(self.id, cursor, end, self.retained);
        if values.is_empty() {
            self.own.settle(self.now, self.random);
            return false;
        }
        let life = self.own.life.text();
        let keys = values.iter().map(|(key, _)| &**key);
        let words: Vec<&[u8]> = [life.as_bytes()].into_iter().chain(keys).collect();
        if self.call(scripts::ABSENT, &words) {
            self.own.phase = ValuePhase::Sweeping { cursor: to, end };
        }
        false
    }
}

/// A key, and `+` with its message.
type KeyedValue = (Vec<u8>, Vec<u8>);

/// Returns some values behind a number, each key with `+` and its message, and the last number.
fn batch(id: LogId, from: u64, end: u64, retained: &Retained) -> (Vec<KeyedValue>, u64) {
    let (mut values, mut size, mut at) = (Vec::new(), 0, from);
    // Behind a segment of graves alone, the search goes on.
    while values.is_empty() && at < end {
        let mut any = false;
        let (to, _) = retained.read(id, at, |record| {
            size += RETAINED_KEY_MAX + record.payload.len();
            let fits = values.len() < VALUES_BATCH_KEYS && size <= VALUES_BATCH_BYTES;
            let is_taken = record.number <= end && (fits || values.is_empty());
            any |= is_taken;
            if is_taken && !record.is_grave {
                values.push((record.key.to_vec(), [b"+", record.payload].concat()));
            }
            is_taken
        });
        at = to;
        if !any {
            break;
        }
    }
    (values, at)
}
