//! The retained values of shared channels: they live in the broker, and each hub has a copy.
//!
//! A publish of a hub changes the hash of its channel at the broker in the same step. A notice
//! comes directly before the message ([`super::broker::notices`]). A message without one was
//! published by somebody else; the hubs write it to the hash later ([`foreign`]).
//!
//! While the link is down, a hub goes on alone. When it is up again, the hub opens the hash, pushes
//! its own changes, restores what the broker has lost, and reads back the changes of others
//! ([`steps`]). Meanwhile, messages go on: one that is heard is newer than what is read back.

mod answers;
mod foreign;
mod steps;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::Shared;
use super::broker::notices::{Life, NOTICES, Notice};
use super::broker::{KeptMessage, Link, Published, SharedKind};
use super::retained::{LogId, Retained};
use crate::clock::Tick;
use crate::limits::{HEARD_KEYS_MAX, HEARD_KEYS_MIN};
use foreign::ForeignKeys;
use steps::ValuePhase;

/// The values of all channels that are shared and have a rule.
pub struct SharedValues {
    /// By the number of the log. `None`: the channel is not shared.
    channels: Vec<Option<Box<ValueChannel>>>,
    /// Names this server in notices.
    token: Box<[u8]>,
    random: fastrand::Rng,
    hasher: RandomState,
    /// Maximum number of keys in each [`ValueChannel::heard`].
    heard_max: usize,
    is_linked: bool,
    has_warned: bool,
    /// True if a step is to be done, and whether it waits for room on the link or in the backlog.
    has_work: bool,
    is_blocked: bool,
    /// When the keys of messages of others are written to the broker.
    adopts_at: Option<Tick>,
    /// The log whose own message has come back without being delivered again. Its copies for
    /// patterns follow.
    silent: Option<LogId>,
    pub counters: ValueCounters,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueCounters {
    /// Values that were published and kept in one step.
    pub written: u64,
    /// Values of messages of others that were written to the broker.
    pub adopted: u64,
    /// Values of messages of others that had no room on the way to the broker.
    pub unadopted: u64,
    /// Values that were changed here because the broker had others.
    pub read_back: u64,
    /// Values that the broker had lost, and got back from here.
    pub restored: u64,
}

/// The state of a channel's synchronization.
struct ValueChannel {
    phase: ValuePhase,
    /// The number of the phase, so that late replies are recognized.
    epoch: u16,
    /// True while a step has no reply.
    awaits_reply: bool,
    /// When the hash is opened, if not at once.
    opens_at: Option<Tick>,
    /// The life of the hash as far as it is known.
    life: Life,
    /// True if the broker has lost values that may be here.
    has_lost: bool,
    /// The number of the last write that was noticed.
    seen: u64,
    /// The values here are no older than those of this number.
    copied: u64,
    /// Set between a notice and its message. True: this server has delivered it already.
    noticed: Option<bool>,
    /// Changes behind this number of the log have yet to go to the broker.
    apart_from: Option<u64>,
    /// The keys, as hashes, of the messages since the link went down, or since reading began.
    heard: HashSet<u64>,
    /// The keys, as hashes, of publishes since the link came up. They come back, or are lost with
    /// the link.
    on_way: HashSet<u64>,
    /// True if a change was not pushed because of them.
    has_hidden: bool,
    foreign: ForeignKeys,
    /// When the values are read once more.
    rereads_at: Option<Tick>,
    /// True if they are read once more some time after the first reading.
    rereads: bool,
}

impl ValueChannel {
    /// Returns true while publishes go by script.
    fn is_open(&self) -> bool {
        !matches!(self.phase, ValuePhase::Apart | ValuePhase::Opening | ValuePhase::Plain)
    }

    /// Returns true if it matters which keys are heard.
    fn listens(&self) -> bool {
        let reads = matches!(self.phase, ValuePhase::Reading { .. } | ValuePhase::Sweeping { .. });
        self.apart_from.is_some() || reads
    }

    /// Notes that changes from now on go to the broker later.
    fn go_apart(&mut self, id: LogId, retained: &mut Retained) {
        if self.apart_from.is_none() {
            self.apart_from = Some(retained.last(id));
            self.heard = HashSet::new();
            retained.begin_apart(id);
        }
    }

    /// Notes that the changes from here are at the broker, or will not go there.
    fn end_apart(&mut self, id: LogId, retained: &mut Retained) {
        self.on_way = HashSet::new();
        if self.apart_from.take().is_some() {
            retained.end_apart(id);
        }
    }

    fn enter(&mut self, phase: ValuePhase) {
        self.note_copied();
        self.phase = phase;
        self.epoch = self.epoch.wrapping_add(1);
        self.awaits_reply = false;
        self.has_hidden = false;
        self.opens_at = None;
    }

    /// Notes how new the values here are, before that may change.
    fn note_copied(&mut self) {
        if self.phase == ValuePhase::InStep && self.rereads_at.is_none() {
            self.copied = self.seen;
        }
    }
}

impl SharedValues {
    /// Creates the state of the logs whose channels are shared, and subscribes to their notices.
    pub fn new(
        retained: &mut Retained,
        is_shared: impl Fn(&[u8]) -> bool,
        link: &mut Link,
        seed: u64,
    ) -> SharedValues {
        let mut random = fastrand::Rng::with_seed(seed);
        let token = format!("{:016x}", random.u64(..)).into_bytes().into();
        let ids: Vec<LogId> = (0..retained.channels().count() as LogId).collect();
        let shared = ids.iter().filter(|id| is_shared(retained.channel(**id))).count();
        let mut channels = Vec::new();
        for id in ids {
            let is_shared = is_shared(retained.channel(id));
            if is_shared {
                let name = [NOTICES, retained.channel(id)].concat();
                link.subscribe(SharedKind::Channel, &name);
                retained.begin_apart(id);
            }
            channels.push(is_shared.then(|| {
                Box::new(ValueChannel {
                    phase: ValuePhase::Apart,
                    epoch: 0,
                    awaits_reply: false,
                    opens_at: None,
                    life: Life::default(),
                    has_lost: false,
                    seen: 0,
                    copied: 0,
                    noticed: None,
                    apart_from: Some(0),
                    heard: HashSet::new(),
                    on_way: HashSet::new(),
                    has_hidden: false,
                    foreign: ForeignKeys::new(shared),
                    rereads_at: None,
                    rereads: false,
                })
            }));
        }
        SharedValues {
            channels: if shared > 0 { channels } else { Vec::new() },
            token,
            random,
            hasher: RandomState::new(),
            heard_max: (HEARD_KEYS_MAX / shared.max(1)).max(HEARD_KEYS_MIN),
            is_linked: false,
            has_warned: false,
            has_work: false,
            is_blocked: false,
            adopts_at: None,
            silent: None,
            counters: ValueCounters::default(),
        }
    }

    /// Returns the log of a shared channel that has a rule.
    fn find(&self, retained: &Retained, channel: &[u8]) -> Option<LogId> {
        let id = if self.channels.is_empty() { None } else { retained.find(channel) }?;
        self.channel(id).map(|_| id)
    }

    fn channel(&self, id: LogId) -> Option<&ValueChannel> {
        self.channels.get(usize::from(id))?.as_deref()
    }

    fn channel_mut(&mut self, id: LogId) -> Option<&mut ValueChannel> {
        self.channels.get_mut(usize::from(id))?.as_deref_mut()
    }

    fn ids(&self) -> impl Iterator<Item = LogId> + use<> {
        0..self.channels.len() as LogId
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Returns true if [`Shared::keep_values`] has something to do.
    pub fn has_work(&self) -> bool {
        self.has_work && !self.is_blocked
    }

    /// Returns when [`Shared::keep_values`] must be called at the latest.
    pub fn wakes_at(&self, now: Tick) -> Option<Tick> {
        if !self.is_linked || self.is_blocked {
            return None;
        }
        let times = self.channels.iter().flatten().filter_map(|own| match own.phase {
            ValuePhase::InStep => own.rereads_at,
            ValuePhase::Opening => own.opens_at,
            _ => None,
        });
        times.chain(self.adopts_at).min_by_key(|due| due.distance_from(now))
    }

    /// Follows the link up or down.
    pub fn follow_link(&mut self, is_up: bool, retained: &mut Retained) {
        if self.channels.is_empty() || is_up == self.is_linked {
            return;
        }
        self.is_linked = is_up;
        self.has_work = true;
        self.silent = None;
        for (own, id) in self.channels.iter_mut().zip(0..) {
            let Some(own) = own else { continue };
            own.noticed = None;
            own.on_way = HashSet::new();
            own.enter(if is_up { ValuePhase::Opening } else { ValuePhase::Apart });
            own.rereads_at = None;
            if !is_up {
                own.foreign.retry(true);
                own.go_apart(id, retained);
            }
        }
    }

    /// Publishes a message at the broker. If its channel has a rule, the broker keeps it.
    pub fn publish(
        &mut self,
        link: &mut Link,
        retained: &mut Retained,
        channel: &[u8],
        payload: &[u8],
    ) -> Published {
        self.follow_link(link.is_up(), retained);
        let id = self.find(retained, channel);
        let change = id.and_then(|id| Some((id, retained.change(id, payload)?)));
        let Some((id, key)) = change else { return link.publish(channel, payload) };
        let hash = self.hash(&key.text);
        let heard_max = self.heard_max;
        let Some(own) = self.channel_mut(id) else { return link.publish(channel, payload) };
        let published = match own.is_open() {
            false => link.publish(channel, payload),
            true => {
                let max = if key.removes { 0 } else { retained.most(id) };
                let field = &key.text;
                let message = KeptMessage { channel, payload, field, max, token: None };
                link.publish_kept(call_number(id, CallKind::Publish, 0), &message)
            }
        };
        let is_open = own.is_open();
        match published {
            // It comes back, so an older change is not pushed any more.
            Published::Sent if own.apart_from.is_some() && own.on_way.len() < heard_max => {
                own.on_way.insert(hash);
            }
            Published::StaysHere => {
                own.heard.remove(&hash);
                own.on_way.remove(&hash);
            }
            _ => {}
        }
        self.counters.written += u64::from(is_open && published == Published::Sent);
        published
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let each = |own: &ValueChannel| {
            size_of::<ValueChannel>()
                + (own.heard.capacity() + own.on_way.capacity()) * size_of::<u64>() * 2
                + own.foreign.bytes()
                + own.phase.bytes()
        };
        let channels: usize = self.channels.iter().flatten().map(|own| each(own)).sum();
        channels + self.channels.capacity() * size_of::<Option<Box<ValueChannel>>>()
    }

    /// Panics if an invariant is broken. For tests.
    pub fn check_invariants(&self, retained: &Retained) {
        for (own, id) in self.channels.iter().zip(0..) {
            let Some(own) = own else { continue };
            assert_eq!(own.apart_from.is_some(), retained.is_apart(id), "{:?}", own.phase);
            assert!(own.heard.len() <= self.heard_max, "too many keys are remembered");
            assert!(own.on_way.len() <= self.heard_max, "too many keys are remembered");
            assert!(own.on_way.is_empty() || own.apart_from.is_some(), "{:?}", own.phase);
            assert_eq!(self.is_linked, own.phase != ValuePhase::Apart, "{:?}", own.phase);
            let is_apart = match own.phase {
                ValuePhase::Pushing { sent, .. } => sent.is_some(),
                ref phase => *phase == ValuePhase::Apart,
            };
            assert!(!is_apart || own.apart_from.is_some(), "changes here are not found later");
            own.foreign.check_invariants();
        }
    }
}

/// The kinds of scripts whose replies come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallKind {
    /// A publish that is kept.
    Publish,
    /// A change from the time without a link.
    Push,
    /// A step of a phase.
    Step,
    /// Values of messages of others.
    Adopt,
}

/// Returns the number of a call: the log, the kind, and 14 bits of the phase's number.
fn call_number(id: LogId, kind: CallKind, epoch: u16) -> u32 {
    u32::from(id) | (kind as u32) << 16 | u32::from(epoch & EPOCH_MASK) << 18
}

const EPOCH_MASK: u16 = (1 << 14) - 1;

impl Shared {
    /// Takes a message of the broker before it is delivered. Returns false if the subscribers have
    /// got it already.
    pub(super) fn take_value(&mut self, channel: &[u8], payload: &[u8]) -> bool {
        let Shared { sharing: Some(sharing), retained, now, .. } = self else { return true };
        let values = &mut sharing.values;
        values.silent = None;
        let Some(id) = values.find(retained, channel) else { return true };
        let heard_max = values.heard_max;
        let Some(own) = values.channel_mut(id) else { return true };
        let noticed = own.noticed.take();
        if own.phase == ValuePhase::Plain {
            return true;
        }
        let is_known = noticed == Some(false) && !own.listens() && own.foreign.is_empty();
        if is_known && !matches!(own.phase, ValuePhase::Restoring { .. }) {
            return true;
        }
        let Some(key) = retained.change(id, payload) else { return true };
        let hash = values.hasher.hash_one(&*key.text);
        let Some(own) = values.channels[usize::from(id)].as_deref_mut() else { return true };
        if own.listens() && !own.heard.contains(&hash) {
            match own.heard.len() < heard_max {
                true => drop(own.heard.insert(hash)),
                false => own.start_again(retained.last(id)),
            }
        }
        match noticed {
            None => {
                values.note_foreign(id, &key.text, false, *now);
                true
            }
            Some(is_own) => {
                let was_sent = own.foreign.forget(&key.text);
                let restores = matches!(own.phase, ValuePhase::Restoring { .. });
                if key.removes && (was_sent || restores) {
                    // The value may just be on its way to the broker.
                    values.note_foreign(id, &key.text, true, *now);
                }
                let value = retained.value(id, &key.text);
                let is_same = if key.removes { value.is_none() } else { value == Some(payload) };
                let is_silent = is_own && is_same;
                values.silent = is_silent.then_some(id);
                !is_silent
            }
        }
    }

    /// Returns true if a copy of a message for a pattern is not delivered, as the message was not.
    pub(super) fn is_silent(&self, channel: &[u8]) -> bool {
        let silent = self.sharing.as_ref().and_then(|sharing| sharing.values.silent);
        silent.is_some_and(|id| self.retained.channel(id) == channel)
    }

    /// Takes a notice about the values of a channel.
    pub(super) fn take_notice(&mut self, channel: &[u8], payload: &[u8]) {
        let Shared { sharing: Some(sharing), retained, now, .. } = self else { return };
        let values = &mut sharing.values;
        values.silent = None;
        let Some(id) = values.find(retained, channel) else { return };
        let Some(notice) = Notice::of(payload) else { return };
        let is_own = |token: &[u8]| *token == *values.token;
        let wait = values.random.u32(..8);
        let Some(own) = values.channels[usize::from(id)].as_deref_mut() else { return };
        own.noticed = None;
        match notice {
            Notice::Written { number, token } => {
                own.noticed = Some(token.is_some_and(is_own));
                own.note_copied();
                if own.is_open() && number <= own.seen {
                    // The broker has lost all values while the link was up.
                    own.enter(ValuePhase::Opening);
                } else if own.is_open() && number > own.seen + 1 {
                    own.rereads_at = Some(now.plus(1));
                }
                own.seen = own.seen.max(number);
            }
            Notice::Evicted(field) if own.is_open() => {
                let was_sent = own.foreign.forget(field);
                retained.evict(id, field);
                if was_sent {
                    values.note_foreign(id, field, true, *now);
                }
            }
            Notice::Opened { token, life, number } if is_own(token) => {
                if own.phase == ValuePhase::Opening {
                    own.has_lost |= own.life != Life::default() && own.life != life;
                    (own.life, own.seen, own.rereads) = (life, number, true);
                    own.foreign.opened(number);
                    own.enter(ValuePhase::Pushing { sent: own.apart_from, unanswered: 0 });
                    if !own.foreign.is_empty() {
                        values.adopt_soon(*now, false);
                    }
                }
            }
            Notice::Opened { life, number, .. } if own.is_open() => {
                own.note_copied();
                own.seen = number;
                if own.life != life {
                    own.life = life;
                    own.has_lost = true;
                    if !matches!(own.phase, ValuePhase::Pushing { .. }) {
                        own.enter(ValuePhase::Pushing { sent: None, unanswered: 0 });
                    }
                }
            }
            Notice::Restored(token) if own.is_open() && !is_own(token) => {
                own.rereads_at = Some(now.plus(1 + wait));
            }
            Notice::Reached(token) if is_own(token) && own.awaits_reply => {
                if let ValuePhase::Pushing { sent: Some(_), .. } = own.phase {
                    own.enter(ValuePhase::Pushing { sent: own.apart_from, unanswered: 0 });
                }
            }
            Notice::Evicted(_)
            | Notice::Reached(_)
            | Notice::Opened { .. }
            | Notice::Restored(_) => {}
        }
        values.has_work = true;
    }
}

#[cfg(test)]
mod tests;
