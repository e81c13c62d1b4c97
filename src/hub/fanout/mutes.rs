//! Sessions that catch up with the kept messages of a channel. They get these from its log, so
//! fan-out leaves out the messages that are in the log.
//!
//! A mute belongs to one subscription of a session. When the session has read the whole log, it has
//! had all undelivered messages as well, so the mute ends.

use std::collections::HashMap;

use crate::hub::channels::TopicId;
use crate::hub::subscriptions::{release_table, table_bytes};

/// The mutes of all sessions.
#[derive(Default)]
pub struct Mutes {
    sessions: HashMap<u32, Vec<Mute>>,
    /// The number of the latest mute.
    latest: u32,
}

/// A subscription whose kept messages come from the log.
struct Mute {
    topic: TopicId,
    /// The number of the mute.
    id: u32,
}

impl Mutes {
    /// Begins a mute, in place of an earlier one. Returns its number.
    pub fn begin(&mut self, session: u32, topic: TopicId) -> u32 {
        self.forget(session, topic);
        self.latest = self.latest.wrapping_add(1);
        let mute = Mute { topic, id: self.latest };
        self.sessions.entry(session).or_default().push(mute);
        self.latest
    }

    /// Removes the mute of a subscription, because the subscription is a new one.
    pub fn forget(&mut self, session: u32, topic: TopicId) {
        self.retain(session, |mute| mute.topic != topic);
    }

    /// Ends a mute.
    pub fn end(&mut self, session: u32, id: u32) {
        self.retain(session, |mute| mute.id != id);
    }

    fn retain(&mut self, session: u32, keep: impl FnMut(&Mute) -> bool) {
        if self.sessions.is_empty() {
            return;
        }
        let Some(own) = self.sessions.get_mut(&session) else { return };
        own.retain(keep);
        if own.is_empty() {
            self.sessions.remove(&session);
            release_table(&mut self.sessions);
        }
    }

    /// Returns true while a mute lasts.
    pub fn lasts(&self, session: u32, topic: TopicId, id: u32) -> bool {
        let own = self.sessions.get(&session);
        own.is_some_and(|own| own.iter().any(|mute| mute.id == id && mute.topic == topic))
    }

    /// Returns true if a session has a mute.
    pub fn has(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    /// Returns true if a session gets the kept messages of a topic from the log.
    pub fn covers(&self, session: u32, topic: TopicId) -> bool {
        let own = self.sessions.get(&session);
        own.is_some_and(|own| own.iter().any(|mute| mute.topic == topic))
    }

    /// Returns the memory held, in bytes. A list has room for four at first.
    pub fn bytes(&self) -> usize {
        table_bytes(&self.sessions) + self.sessions.len() * 4 * size_of::<Mute>()
    }

    /// Returns unused memory to the allocator.
    pub fn shrink(&mut self) {
        self.sessions.shrink_to_fit();
    }
}
