//! Publishes: the topics of a message, its retention, and the rooms that routes forward it to.

use super::Shared;
use super::channels::Kind;
use super::messages::MessageKind;
use super::patterns::TooDear;
use super::sessions::SessionId;
use crate::limits::{BROKER_QUEUE_MAX, LARGE_PAYLOAD, MATCH_STEP, PUBLISH_STEPS_MAX};

/// The reason why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpublished {
    /// Too many patterns would have to be tried for it.
    TooDear,
    /// Too much waits to be sent to the broker.
    QueueFull,
}

impl Unpublished {
    /// Returns the error for the publisher.
    pub fn text(self, channel: &[u8]) -> String {
        match self {
            Unpublished::TooDear => format!(
                "matching a channel name of {} bytes with the patterns would take too long; the \
                 limit is {PUBLISH_STEPS_MAX} steps: use a shorter name",
                channel.len()
            ),
            Unpublished::QueueFull => format!(
                "the broker does not take messages: {BROKER_QUEUE_MAX} bytes wait to be sent to \
                 it; publish again later"
            ),
        }
    }
}

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

    /// Publishes to a channel and to the patterns that match it. Returns the number of receivers
    /// here.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Result<usize, Unpublished> {
        self.find_topics(channel).map_err(|TooDear| Unpublished::TooDear)?;
        if self.share(channel, payload)? {
            return Ok(self.receivers());
        }
        let receivers = self.post(channel, payload);
        if self.fanout.routes().has_forwards() {
            self.forward(channel, payload);
        }
        Ok(receivers)
    }

    /// Returns the number of subscribers of the topics of the current publish.
    fn receivers(&self) -> usize {
        self.topics.iter().map(|topic| self.channels.subscribers(*topic).len()).sum()
    }

    /// Publishes to the topics that [`Self::find_topics`] has found, and keeps the message if its
    /// channel has a rule. Returns the number of receivers.
    pub(super) fn post(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        self.fanout.published += 1;
        let is_logged = !self.retained.is_empty() && self.retained.store(channel, payload);
        let kind = if is_logged { MessageKind::Logged } else { MessageKind::Plain };
        let Shared { fanout, channels, topics, .. } = self;
        let receivers = fanout.publish(channels, topics, channel, payload, kind);
        if let Some(session) = self.except {
            fanout.leave_out(session.index, channels, topics);
        }
        receivers
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
        let Shared { fanout, channels, .. } = self;
        fanout.publish(channels, topic.as_slice(), channel, payload, MessageKind::Plain)
    }
}
