//! The replies of the broker about retained values, and what they change here.

use log::info;

use super::steps::ValuePhase;
use super::{CallKind, EPOCH_MASK, call_number};
use crate::hub::Shared;
use crate::hub::broker::notices::value_of;
use crate::hub::broker::{CallAnswer, CallReply, scripts};
use crate::hub::retained::LogId;

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

impl Shared {
    /// Takes the reply to a script.
    pub(in crate::hub) fn take_reply(&mut self, answer: CallAnswer<'_>) {
        let Shared { sharing: Some(sharing), retained, now, .. } = self else { return };
        let values = &mut sharing.values;
        let id = answer.number as LogId;
        let (kind, epoch) = (kind_of(answer.number), (answer.number >> 18) as u16);
        let items = match answer.reply {
            CallReply::Items(items) => items,
            CallReply::Refused(code) => return values.give_up(id, &code, retained),
            CallReply::TooLong => {
                return match values.channel_mut(id).map(|own| &mut own.phase) {
                    // A value that is too long for this server.
                    Some(ValuePhase::Reading(reading)) if reading.is_fetching => {
                        self.take_fetched(id, None);
                    }
                    _ => values.give_up(id, "a reply is too long", retained),
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
                own.waits = false;
                values.counters.restored += count;
                if count > 0 {
                    info!("the broker has got back {count} values that it had lost");
                }
            }
            (ValuePhase::Reading(reading), CallKind::Step) if reading.is_fetching => {
                self.take_fetched(id, items.first().copied().flatten());
            }
            (ValuePhase::Reading(_) | ValuePhase::Sweeping { .. }, CallKind::Step) => {
                own.waits = false;
                match items.split_first() {
                    Some((Some(b"1"), rest)) => self.take_read_or_absent(id, rest),
                    // The broker has lost all values.
                    _ => own.enter(ValuePhase::Opening),
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
        let epoch = own.epoch;
        for pair in items.get(2..).unwrap_or_default().chunks_exact(2) {
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
                    self.take_stored(id, field, value, floor);
                }
                _ => return,
            }
        }
    }

    /// Takes the value of a field that was read alone.
    fn take_fetched(&mut self, id: LogId, value: Option<&[u8]>) {
        let Shared { sharing: Some(sharing), .. } = self else { return };
        let Some(own) = sharing.values.channel_mut(id) else { return };
        own.waits = false;
        let ValuePhase::Reading(reading) = &mut own.phase else { return };
        reading.is_fetching = false;
        let floor = reading.floor;
        if let (Some(field), Some(value)) = (reading.large.pop(), value) {
            self.take_stored(id, &field, value, floor);
        }
    }

    /// Takes a value of the broker, unless a later one was heard or will be.
    fn take_stored(&mut self, id: LogId, field: &[u8], value: &[u8], floor: u64) {
        let Some((number, payload)) = value_of(value) else { return };
        let is_known = self.retained.value(id, field) == Some(payload);
        let key = self.retained.change(id, payload);
        let fits = key.is_some_and(|key| *key.text == *field && !key.removes);
        if number <= floor && fits && !is_known && !self.is_heard(id, field) {
            self.bring(id, payload);
        }
    }

    /// Removes values that the broker has no more.
    fn take_absent(&mut self, id: LogId, fields: &[Option<&[u8]>]) {
        for field in fields.iter().flatten() {
            if self.retained.value(id, field).is_some() && !self.is_heard(id, field) {
                let removal = self.retained.removal(id, field);
                self.bring(id, &removal);
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

    /// Delivers a change of others that this server has missed.
    fn bring(&mut self, id: LogId, payload: &[u8]) {
        let channel = self.retained.channel(id).to_vec();
        if self.find_topics(&channel).is_err() {
            self.topics.clear();
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
