//! Looks up counts, members, names and matching patterns in the tables of subscriptions.

use super::{Channels, Kind, TopicId};
use crate::hub::patterns::TooDear;
use crate::hub::subscriptions::Subscriptions;

impl Channels {
    /// Returns the count in a confirmation: a session's shard channels, or its channels and
    /// patterns.
    pub fn count_of(&self, session: u32, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_count(session),
            _ => self.count(session),
        }
    }

    /// Returns a session's number of channels and patterns, which Redis's replies count together.
    pub fn count(&self, session: u32) -> usize {
        let counts = self.counts(session);
        (counts[Kind::Channel as usize] + counts[Kind::Pattern as usize]) as usize
    }

    /// Returns a session's number of shard channels, which Redis's replies count apart.
    pub fn shard_count(&self, session: u32) -> usize {
        self.counts(session)[Kind::Shard as usize] as usize
    }

    /// Returns true if a session has a subscription of any kind, MONITOR included.
    pub fn listens(&self, session: u32) -> bool {
        self.len(session) > 0
    }

    /// Returns true if a session has a subscription other than MONITOR.
    pub fn is_subscribed(&self, session: u32) -> bool {
        match self.len(session) {
            0 => false,
            1 => self.sessions[session as usize].iter().all(|only| only.topic.kind() != Kind::Feed),
            _ => true,
        }
    }

    /// Returns a session's number of subscriptions of all kinds.
    pub fn len(&self, session: u32) -> usize {
        self.sessions.get(session as usize).map_or(0, Subscriptions::len)
    }

    /// Returns the topics that a session is subscribed to.
    pub fn topics_of(&self, session: u32) -> impl Iterator<Item = TopicId> {
        let own = self.sessions.get(session as usize);
        own.into_iter().flat_map(Subscriptions::iter).map(|subscription| subscription.topic)
    }

    /// Returns the number of places in the table of topics. Some are vacant.
    pub fn places(&self) -> usize {
        self.topics.capacity()
    }

    /// Returns the topic at a place of the table.
    pub fn topic_at(&self, place: usize) -> Option<TopicId> {
        Some(TopicId::new(self.topics.get(place)?.kind, place))
    }

    /// Returns true if a session is subscribed to a topic.
    pub fn is_member(&self, session: u32, topic: TopicId) -> bool {
        self.slot_of(session, topic).is_some()
    }

    /// Returns the topic with this name, if it has subscribers.
    pub fn topic(&self, kind: Kind, name: &[u8]) -> Option<TopicId> {
        self.names[kind as usize].get(name).map(|&index| TopicId::new(kind, index as usize))
    }

    /// Returns the name of a topic.
    pub fn name(&self, topic: TopicId) -> &[u8] {
        &self.topics[topic.index()].name
    }

    /// Returns the session at a position of the topic's list of subscribers.
    pub fn subscriber(&self, topic: TopicId, position: usize) -> Option<u32> {
        self.topics[topic.index()].subscribers.get(position).map(|subscriber| subscriber.session)
    }

    /// Returns the sessions subscribed to a topic: at least one.
    pub fn subscribers(&self, topic: TopicId) -> impl ExactSizeIterator<Item = u32> {
        self.topics[topic.index()].subscribers.iter().map(|subscriber| subscriber.session)
    }

    /// Adds the patterns that match a channel's name to `found`. Returns the steps taken, or an
    /// error if it would take more than `steps_max`.
    pub fn match_patterns(
        &self,
        channel: &[u8],
        found: &mut Vec<TopicId>,
        steps_max: usize,
    ) -> Result<usize, TooDear> {
        self.patterns.find(channel, |topic| self.name(topic), found, steps_max)
    }

    /// Returns every topic of a kind with its name. Takes time for the topics of all kinds.
    pub fn topics(&self, kind: Kind) -> impl Iterator<Item = (TopicId, &[u8])> {
        let of_kind = self.topics.iter().filter(move |(_, topic)| topic.kind == kind);
        of_kind.map(move |(index, topic)| (TopicId::new(kind, index), &*topic.name))
    }

    /// Returns the number of topics of all kinds.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Returns the number of distinct patterns.
    pub fn pattern_count(&self) -> usize {
        self.names[Kind::Pattern as usize].len()
    }

    /// Returns the number of distinct patterns that no index finds.
    pub fn other_patterns(&self) -> usize {
        self.patterns.others()
    }
}
