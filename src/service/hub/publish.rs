//! The way of a publish to its subscribers: encoded once per protocol, delivered within the turn's budget, in order.
//!
//! Publishes that follow each other on one topic make one *run*: their encodings lie side by side, so each subscriber gets them in one
//! write. Runs are delivered in the order they were made, so what a subscriber sees of several channels is in order too.

use std::collections::VecDeque;

use super::channels::{Channels, Kind, TopicId};
use super::{Session, State};
use crate::codec::resp::{self, Protocol};
use crate::service::Deliveries;

/// Bytes of runs at which no more input is taken until they are delivered: a publish is small, and its deliveries are many.
const BACKLOG_MAX: usize = 1 << 20;

/// Free runs kept, so that a publish allocates nothing once warm.
const SPARE_MAX: usize = 16;

#[derive(Default)]
pub struct Publisher {
    runs: VecDeque<Run>,
    spare: Vec<Run>,
    /// Encoded bytes in `runs`.
    backlog: usize,
    pub published: u64,
    pub delivered: u64,
}

/// Messages to one topic, and those subscribed to it when they were published.
#[derive(Default)]
struct Run {
    topic: Option<TopicId>,
    /// Of the channels as a whole: while it stands, so do the receivers.
    version: u64,
    receivers: Vec<Receiver>,
    resp2: Vec<u8>,
    resp3: Vec<u8>,
    /// Receivers that have been served.
    served: usize,
}

/// A session and its id: should the number be another's by the time it is served, it misses.
#[derive(Clone, Copy)]
struct Receiver {
    session: u32,
    id: u32,
}

/// What the messages of a run begin with.
pub enum Announce<'a> {
    Message,
    ShardMessage,
    /// Through this pattern.
    PatternMessage(&'a [u8]),
}

impl Publisher {
    pub fn has_output(&self) -> bool {
        !self.runs.is_empty()
    }

    pub fn is_backlogged(&self) -> bool {
        self.backlog >= BACKLOG_MAX
    }

    /// Queues one message for the subscribers of a topic; returns how many they are.
    pub fn publish(
        &mut self,
        channels: &Channels,
        sessions: &[Session],
        topic: TopicId,
        announce: &Announce<'_>,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let version = channels.version();
        let joins =
            self.runs.back().is_some_and(|run| run.topic == Some(topic) && run.version == version && run.served == 0);
        if !joins {
            let mut run = self.spare.pop().unwrap_or_default();
            (run.topic, run.version) = (Some(topic), version);
            run.receivers.extend(channels.subscribers(topic).map(|session| {
                let id = sessions.get(session as usize).map_or(0, |session| session.id);
                Receiver { session, id }
            }));
            self.runs.push_back(run);
        }
        let Some(run) = self.runs.back_mut() else { return 0 };
        let before = run.resp2.len() + run.resp3.len();
        encode(&mut run.resp2, Protocol::Resp2, announce, channel, payload);
        encode(&mut run.resp3, Protocol::Resp3, announce, channel, payload);
        self.backlog += run.resp2.len() + run.resp3.len() - before;
        run.receivers.len()
    }

    /// Queues bytes for these sessions, as they are.
    pub fn tell(&mut self, sessions: &[Session], receivers: &[u32], bytes: &[u8]) {
        let mut run = self.spare.pop().unwrap_or_default();
        run.topic = None;
        run.receivers.extend(receivers.iter().map(|session| {
            let id = sessions.get(*session as usize).map_or(0, |session| session.id);
            Receiver { session: *session, id }
        }));
        run.resp2.extend_from_slice(bytes);
        run.resp3.extend_from_slice(bytes);
        self.backlog += 2 * bytes.len();
        self.runs.push_back(run);
    }

    /// Memory held, the encodings of a warm publisher and what waits.
    pub fn bytes(&self) -> usize {
        let of_run =
            |run: &Run| run.resp2.capacity() + run.resp3.capacity() + run.receivers.capacity() * size_of::<Receiver>();
        let tables = (self.runs.capacity() + self.spare.capacity()) * size_of::<Run>();
        tables + self.runs.iter().chain(&self.spare).map(of_run).sum::<usize>()
    }

    pub fn shrink(&mut self) {
        self.spare = Vec::new();
        self.runs.shrink_to_fit();
    }

    /// Delivers what the turn's budget allows.
    pub fn poll_output(&mut self, deliveries: &mut Deliveries<'_>, sessions: &[Session]) {
        while let Some(run) = self.runs.front_mut() {
            let (mut resp2, mut resp3) = (None, None);
            while let Some(receiver) = run.receivers.get(run.served) {
                let present = sessions.get(receiver.session as usize).filter(|session| session.id == receiver.id);
                if let Some(session) = present {
                    let range = match session.protocol() {
                        Protocol::Resp2 => resp2.get_or_insert_with(|| deliveries.put(&run.resp2)),
                        Protocol::Resp3 => resp3.get_or_insert_with(|| deliveries.put(&run.resp3)),
                    };
                    if !deliveries.deliver(receiver.session, range) {
                        return;
                    }
                    self.delivered += 1;
                }
                run.served += 1;
            }
            self.backlog -= run.resp2.len() + run.resp3.len();
            if let Some(mut run) = self.runs.pop_front()
                && self.spare.len() < SPARE_MAX
            {
                run.receivers.clear();
                run.resp2.clear();
                run.resp3.clear();
                run.served = 0;
                self.spare.push(run);
            }
        }
    }
}

/// `message channel payload`, or `pmessage pattern channel payload`.
fn encode(out: &mut Vec<u8>, protocol: Protocol, announce: &Announce<'_>, channel: &[u8], payload: &[u8]) {
    match announce {
        Announce::Message => {
            resp::push(out, 3, protocol);
            resp::bulk(out, b"message");
        }
        Announce::ShardMessage => {
            resp::push(out, 3, protocol);
            resp::bulk(out, b"smessage");
        }
        Announce::PatternMessage(pattern) => {
            resp::push(out, 4, protocol);
            resp::bulk(out, b"pmessage");
            resp::bulk(out, pattern);
        }
    }
    resp::bulk(out, channel);
    resp::bulk(out, payload);
}

impl State {
    /// Publishes to a channel and to the patterns that match it; returns the receivers.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let State { channels, publisher, sessions, .. } = self;
        publisher.published += 1;
        let exact = channels
            .topic(Kind::Channel, channel)
            .map_or(0, |topic| publisher.publish(channels, sessions, topic, &Announce::Message, channel, payload));
        let patterns = channels.matching_patterns(channel).map(|topic| {
            let announce = Announce::PatternMessage(channels.name(topic));
            publisher.publish(channels, sessions, topic, &announce, channel, payload)
        });
        exact + patterns.sum::<usize>()
    }

    /// Publishes to a shard channel, which no pattern matches; returns the receivers.
    pub(super) fn publish_shard(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let State { channels, publisher, sessions, .. } = self;
        publisher.published += 1;
        channels
            .topic(Kind::Shard, channel)
            .map_or(0, |topic| publisher.publish(channels, sessions, topic, &Announce::ShardMessage, channel, payload))
    }
}
