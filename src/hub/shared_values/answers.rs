//! The replies of the broker about retained values, and what they change here.

use std::collections::HashSet;

use log::{info, warn};

use super::steps::ValuePhase;
use super::{CallKind, EPOCH_MASK, SharedValues, call_number};
use crate::clock::Tick;
use crate::hub::Shared;
use crate::hub::broker::notices::value_of;
use crate::hub::broker::{CallAnswer, CallReply, scripts};
use crate::hub::channels::{Kind, TopicId};
use crate::hub::retained::{LogId, Retained};
use crate::limits::{REOPEN_AFTER, VALUES_READ_COUNT};

/// Returns the kind of a call from its number.
fn kind_of(number: u32) -> CallKind {
    match number >> 16 & 3 {
        0 => CallKind::Publish,
        1 => CallKind::Push,
        2 => CallKind::Step,
        _ => CallKind::Adopt,
    }
}

/// Returns a number of a reply.
fn integer(item: Option<&Option<&[u8]>>) -> u64 {
    let text = item.copied().flatten().and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl SharedValues {
    /// Goes on without values at the broker, until the link is up anew.
    pub(super) fn give_up(&mut self, id: LogId, why: &str, retained: &mut Retained) {
        let Some(own) = self.channel_mut(id) else { return };
        if matches!(own.phase, ValuePhase::Apart | ValuePhase::Plain) {
            return;
        }
        own.enter(ValuePhase::Plain);
        own.heard = HashSet::new();
        own.foreign.clear();
        own.rereads_at = None;
        own.end_apart(id, retained);
        if !std::mem::replace(&mut self.has_warned, true) {
            warn!(
                "retained values stay on each server: the broker does not run the script for {} \
                 ({why})",
                retained.channel(id).escape_ascii()
            );
        }
    }

    /// Goes on without values at the broker for a while, because it has refused a script.
    fn put_off(&mut self, id: LogId, why: &str, retained: &mut Retained, now: Tick) {
        let Some(own) = self.channel_mut(id) else { return };
        let is_off = own.opens_at.is_some();
        if is_off || matches!(own.phase, ValuePhase::Apart | ValuePhase::Plain) {
            return;
        }
        own.enter(ValuePhase::Opening);
        own.opens_at = Some(now.plus(Tick::count(REOPEN_AFTER)));
        own.rereads_at = None;
        own.on_way = HashSet::new();
        own.foreign.retry(false);
        own.go_apart(id, retained);
        if !std::mem::replace(&mut self.has_warned, true) {
            warn!(
                "the broker has refused the script for {} ({why}); the next attempt is in {} s",
                retained.channel(id).escape_ascii(),
                REOPEN_AFTER.as_secs()
            );
        }
    }
}

impl Shared {
    /// Takes the reply to a script.
    pub(in crate::hub) fn take_reply(&mut self, answer: CallAnswer<'_>) {
        let Shared { sharing: Some(sharing), retained, now, .. } = self else { return };
        let values = &mut sharing.values;
        let id = answer.number as LogId;
        let (kind, epoch) = (kind_of(answer.number), (answer.number >> 18) as u16);
        let items = match answer.reply {
            CallReply::Items(items) => items,
            CallReply::Refused { code, is_final: true } => {
                return values.give_up(id, &code, retained);
            }
            CallReply::Refused { code, is_final: false } => {
                return values.put_off(id, &code, retained, *now);
            }
            CallReply::TooLong => {
                return match values.channel_mut(id).map(|own| &mut own.phase) {
                    // A value that is too long for this server.
                    Some(ValuePhase::Reading(reading)) if reading.is_fetching => {
                        self.take_fetched(id, None);
                    }
                    _ => values.put_off(id, "a reply is too long", retained, *now),
                };
            }
        };
        values.has_work = true;
        let Some(own) = values.channel_mut(id) else { return };
        if kind == CallKind::Adopt {
            let taken = integer(items.first());
            if own.foreign.arrived() {
                own.rereads_at = Some(now.plus(1));
                let notice = [b"+", &values.token[..]].concat();
                let number = call_number(id, CallKind::Publish, 0);
                let channel = retained.channel(id);
                sharing.link.call(number, scripts::NOTIFY, channel, &[&notice]);
            }
            let Some(own) = values.channel_mut(id) else { return };
            let waits = !own.foreign.is_empty();
            values.counters.adopted += taken;
            if waits {
                values.adopt_soon(*now, true);
            }
            return;
        }
        if epoch != own.epoch & EPOCH_MASK {
            return;
        }
        match (&mut own.phase, kind) {
            (ValuePhase::Pushing { unanswered, .. }, CallKind::Push) => {
                *unanswered = unanswered.saturating_sub(1);
            }
            (ValuePhase::Restoring { .. }, CallKind::Step) => {
                let count = integer(items.first());
                own.awaits_reply = false;
                values.counters.restored += count;
                if count > 0 {
                    info!("the broker has got back {count} values that it had lost");
                }
            }
            (ValuePhase::Reading(reading), CallKind::Step) if reading.is_fetching => {
                self.take_fetched(id, items.first().copied().flatten());
            }
            (ValuePhase::Reading(_) | ValuePhase::Sweeping { .. }, CallKind::Step) => {
                own.awaits_reply = false;
                let is_same_life = items.first().copied().flatten() == Some(b"1");
                if is_same_life {
                    self.take_read_or_absent(id, items.get(1..).unwrap_or_default());
                } else {
                    // The broker has lost all values.
                    own.enter(ValuePhase::Opening);
                }
            }
            // The notice says that the hash is open.
            _ => {}
        }
    }

    /// Takes some values of the broker, or fields that it does not have.
    fn take_read_or_absent(&mut self, id: LogId, items: &[Option<&[u8]>]) {
        let Shared { sharing: Some(sharing), .. } = self else { return };
        let Some(own) = sharing.values.channel_mut(id) else { return };
        let ValuePhase::Reading(reading) = &mut own.phase else {
            return self.take_absent(id, items);
        };
        reading.count = integer(items.get(1)) as usize;
        let next = items.first().copied().flatten().unwrap_or(b"0");
        reading.cursor = (next != b"0").then(|| next.to_vec());
        let pairs = items.get(2..).unwrap_or_default().chunks_exact(2);
        reading.looks_at = match pairs.clone().any(|pair| pair[1].is_none()) {
            true => (reading.looks_at / 2).max(1),
            false => (reading.looks_at * 2).min(VALUES_READ_COUNT),
        };
        let (epoch, mut topics) = (own.epoch, None);
        for pair in pairs {
            let Shared { sharing: Some(sharing), .. } = self else { return };
            let Some(own) = sharing.values.channel_mut(id) else { return };
            match (pair, &mut own.phase) {
                ([Some(field), None], ValuePhase::Reading(reading)) => {
                    reading.large.push((*field).into());
                }
                ([Some(field), Some(value)], ValuePhase::Reading(reading))
                    if epoch == own.epoch =>
                {
                    let floor = reading.floor;
                    self.take_stored(id, (field, value), floor, &mut topics);
                }
                _ => return,
            }
        }
    }

    /// Takes the value of a field that was read alone.
    fn take_fetched(&mut self, id: LogId, value: Option<&[u8]>) {
        let Shared { sharing: Some(sharing), .. } = self else { return };
        let Some(own) = sharing.values.channel_mut(id) else { return };
        own.awaits_reply = false;
        let ValuePhase::Reading(reading) = &mut own.phase else { return };
        reading.is_fetching = false;
        let floor = reading.floor;
        if let (Some(field), Some(value)) = (reading.large.pop(), value) {
            self.take_stored(id, (&field, value), floor, &mut None);
        }
    }

    /// Takes a value of the broker, unless a later one was heard or will be. If the copy is full,
    /// a value that it does not have was evicted, or would push out another.
    fn take_stored(
        &mut self,
        id: LogId,
        (field, value): (&[u8], &[u8]),
        floor: u64,
        topics: &mut Option<Vec<TopicId>>,
    ) {
        let Some((number, payload)) = value_of(value) else { return };
        let own = self.retained.value(id, field);
        let is_known = own == Some(payload);
        if own.is_none() && self.retained.is_full(id) {
            return;
        }
        let key = self.retained.change(id, payload);
        let fits = key.is_some_and(|key| *key.text == *field && !key.removes);
        if number <= floor && fits && !is_known && !self.is_heard(id, field) {
            self.deliver_missed(id, payload, topics);
        }
    }

    /// Removes values that the broker has no more.
    fn take_absent(&mut self, id: LogId, fields: &[Option<&[u8]>]) {
        let mut topics = None;
        for field in fields.iter().flatten() {
            if self.retained.value(id, field).is_some() && !self.is_heard(id, field) {
                let removal = self.retained.removal(id, field);
                self.deliver_missed(id, &removal, &mut topics);
            }
        }
    }

    /// Returns true if a message of a key is newer than what is read.
    fn is_heard(&self, id: LogId, key: &[u8]) -> bool {
        let Some(sharing) = &self.sharing else { return false };
        let hash = sharing.values.hash(key);
        let own = sharing.values.channel(id);
        own.is_some_and(|own| own.heard.contains(&hash) || own.foreign.contains(key))
    }

    /// Delivers a change of others that this server has missed. The topics of its channel are
    /// found once.
    fn deliver_missed(&mut self, id: LogId, payload: &[u8], topics: &mut Option<Vec<TopicId>>) {
        let channel = self.retained.channel(id).to_vec();
        match topics {
            Some(topics) => self.topics.clone_from(topics),
            None => {
                if self.find_topics(&channel).is_err() {
                    let own = self.channels.topic(Kind::Channel, &channel);
                    self.topics.clear();
                    self.topics.extend(own);
                }
                *topics = Some(self.topics.clone());
            }
        }
        self.post(&channel, payload);
        if self.fanout.routes().has_forwards() {
            self.forward(&channel, payload);
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.values.counters.read_back += 1;
        }
    }
}
