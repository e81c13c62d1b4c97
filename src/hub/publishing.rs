//! Publishes: the topics of a message, its retention, and the rooms that routes forward it to.

use super::Shared;
use super::channels::Kind;
use super::patterns::TooDear;
use super::sessions::SessionId;
use crate::limits::{LARGE_PAYLOAD, MATCH_STEP, PUBLISH_STEPS_MAX};

impl Shared {
    /// Returns true if the publish of a large message must wait, so that receivers that read all
    /// the time keep up. [`Service::collect`] resumes the session.
    pub(super) fn must_pace(
        &mut self,
        session: SessionId,
        kind: Kind,
        channel: &[u8],
        payload: &[u8],
    ) -> bool {
        if payload.len() < LARGE_PAYLOAD || !self.fanout.has_in_flight() {
            return false;
        }
        if kind == Kind::Shard {
            self.topics.clear();
            self.topics.extend(self.channels.topic(kind, channel));
        } else if self.find_topics(channel).is_err() {
            // The publish itself reports the error.
            return false;
        }
        let is_full = self.fanout.is_full(&self.topics);
        is_full && self.large_publishers.must_wait(&mut self.sessions, session, true)
    }

    /// Finds the channel and the patterns that match it.
    pub(super) fn find_topics(&mut self, channel: &[u8]) -> Result<(), TooDear> {
        self.topics.clear();
        self.topics.extend(self.channels.topic(Kind::Channel, channel));
        let steps = self.channels.match_patterns(channel, &mut self.topics, PUBLISH_STEPS_MAX)?;
        self.fanout.note_searched(MATCH_STEP * steps);
        Ok(())
    }

    /// Publishes to a channel and to the patterns that match it. Returns the number of receivers.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Result<usize, TooDear> {
        self.find_topics(channel)?;
        let receivers = self.post(channel, payload);
        if self.fanout.routes().has_forwards() {
            self.forward(channel, payload);
        }
        Ok(receivers)
    }

    /// Publishes to the topics that [`Self::find_topics`] has found, and keeps the message if its
    /// channel has a rule. Returns the number of receivers.
    pub(super) fn post(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        self.fanout.published += 1;
        let is_logged = !self.retained.is_empty() && self.retained.store(channel, payload);
        self.fanout.publish(&mut self.channels, &self.topics, channel, payload, is_logged)
    }

    /// Publishes a message to the rooms that routes of Socket.IO name for it. That publish goes to
    /// no further room, so routes make no loop.
    pub(super) fn forward(&mut self, channel: &[u8], payload: &[u8]) {
        let routes = self.fanout.routes().clone();
        for (room, message) in routes.forward(channel, payload) {
            if self.find_topics(&room).is_ok() {
                self.post(&room, &message);
            }
        }
    }

    /// Publishes to a shard channel, which no pattern matches. Returns the number of receivers.
    pub(super) fn publish_shard(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let topic = self.channels.topic(Kind::Shard, channel);
        self.fanout.published += 1;
        self.fanout.publish(&mut self.channels, topic.as_slice(), channel, payload, false)
    }
}
