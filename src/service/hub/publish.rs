//! The way of a publish to its subscribers: encoded once, delivered within the turn's budget, in order.
//!
//! Publishes that follow each other on one topic make one *run*: their encodings lie side by side, so each subscriber gets them in one
//! write. Runs are delivered in the order they were made, so what a subscriber sees of several channels is in order too.
//!
//! RESP3 differs from RESP2 in a message's first byte alone, so a run is encoded as RESP2 and remembers where its messages begin.

use std::collections::VecDeque;

use super::channels::{Channels, Kind, TopicId};
use super::{Session, State};
use crate::codec::resp::{self, Protocol};
use crate::service::{Deliveries, Reply};

/// Bytes of runs, receivers included, at which no more input is taken until they are delivered: a publish is small, and its deliveries
/// are many.
const BACKLOG_MAX: usize = 1 << 20;

/// Receivers that sessions may be searched among in one turn; then input waits for the next. A thousandth of a second.
const SEARCHED_MAX: usize = 1 << 20;

/// Free runs kept, so that a publish allocates nothing once warm.
const SPARE_MAX: usize = 16;

#[derive(Default)]
pub struct Publisher {
    runs: VecDeque<Run>,
    spare: Vec<Run>,
    /// Bytes of `runs`.
    backlog: usize,
    /// Receivers looked at in this turn by [`Publisher::deliver_now`].
    searched: usize,
    pub published: u64,
    pub delivered: u64,
}

/// Messages to one topic, and those subscribed to it when they were published.
#[derive(Default)]
struct Run {
    /// `None` where no more messages may join it.
    topic: Option<TopicId>,
    /// Of the channels as a whole: while it stands, so do the receivers.
    version: u64,
    receivers: Vec<Receiver>,
    bytes: Vec<u8>,
    /// Where in `bytes` each message begins: the byte in which RESP3 differs.
    heads: Vec<u32>,
    /// Receivers that have been served.
    served: usize,
}

/// A session and its id: should the number be another's by the time it is served, it misses.
#[derive(Clone, Copy)]
struct Receiver {
    session: u32,
    id: u32,
}

/// No session: a receiver that has been served out of turn.
const SERVED: Receiver = Receiver { session: u32::MAX, id: 0 };

/// What the messages of a run begin with.
pub enum Announce<'a> {
    Message,
    ShardMessage,
    /// Through this pattern.
    PatternMessage(&'a [u8]),
}

impl Run {
    /// What counts as backlog.
    fn size(&self) -> usize {
        size_of::<Run>()
            + self.bytes.len()
            + self.heads.len() * size_of::<u32>()
            + self.receivers.len() * size_of::<Receiver>()
    }

    fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.heads.capacity() * size_of::<u32>()
            + self.receivers.capacity() * size_of::<Receiver>()
    }

    fn clear(&mut self) {
        self.receivers.clear();
        self.bytes.clear();
        self.heads.clear();
        self.served = 0;
    }
}

impl Publisher {
    pub fn has_output(&self) -> bool {
        !self.runs.is_empty()
    }

    pub fn is_backlogged(&self) -> bool {
        self.backlog >= BACKLOG_MAX || self.searched >= SEARCHED_MAX
    }

    /// Queues one message for the subscribers of a topic; returns how many they are.
    fn publish(
        &mut self,
        channels: &Channels,
        sessions: &[Session],
        topic: TopicId,
        announce: &Announce<'_>,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let version = channels.version();
        let last = self.runs.back();
        if !last.is_some_and(|run| run.topic == Some(topic) && run.version == version && run.served == 0) {
            self.start_run(sessions, channels.subscribers(topic));
        }
        let Some(run) = self.runs.back_mut() else { return 0 };
        (run.topic, run.version) = (Some(topic), version);
        self.backlog -= run.size();
        run.heads.push(run.bytes.len() as u32);
        encode(&mut run.bytes, announce, channel, payload);
        self.backlog += run.size();
        run.receivers.len()
    }

    /// Queues a line for these sessions, as it is.
    pub fn tell(&mut self, sessions: &[Session], receivers: &[u32], line: &[u8]) {
        let same = |run: &Run| run.receivers.iter().map(|receiver| receiver.session).eq(receivers.iter().copied());
        if !self.runs.back().is_some_and(|run| run.heads.is_empty() && run.served == 0 && same(run)) {
            self.start_run(sessions, receivers.iter().copied());
        }
        if let Some(run) = self.runs.back_mut() {
            run.bytes.extend_from_slice(line);
            self.backlog += line.len();
        }
    }

    fn start_run(&mut self, sessions: &[Session], receivers: impl Iterator<Item = u32>) {
        let mut run = self.spare.pop().unwrap_or_default();
        run.topic = None;
        run.receivers.extend(receivers.map(|session| {
            let id = sessions.get(session as usize).map_or(0, |session| session.id);
            Receiver { session, id }
        }));
        self.backlog += run.size();
        self.runs.push_back(run);
    }

    /// Gives a session what waits for it, ahead of others and as part of its answer: what was published before it unsubscribed comes before
    /// the confirmation, and nothing after.
    pub fn deliver_now(&mut self, session: u32, protocol: Protocol, reply: &mut Reply<'_>) {
        for run in &mut self.runs {
            self.searched += run.receivers.len() - run.served;
            for receiver in run.receivers[run.served..].iter_mut().filter(|receiver| receiver.session == session) {
                *receiver = SERVED;
                // Who has had its messages would miss one that joins them.
                run.topic = None;
                let start = reply.bytes_mut().len();
                reply.send(&run.bytes);
                if protocol == Protocol::Resp3 {
                    mark_as_push(&mut reply.bytes_mut()[start..], &run.heads);
                }
                self.delivered += 1;
            }
        }
    }

    /// Memory held, the encodings of a warm publisher and what waits.
    pub fn bytes(&self) -> usize {
        let tables = (self.runs.capacity() + self.spare.capacity()) * size_of::<Run>();
        tables + self.runs.iter().chain(&self.spare).map(Run::capacity_bytes).sum::<usize>()
    }

    pub fn shrink(&mut self) {
        self.spare = Vec::new();
        self.runs.shrink_to_fit();
    }

    /// Delivers what the turn's budget allows.
    pub fn poll_output(&mut self, deliveries: &mut Deliveries<'_>, sessions: &[Session]) {
        self.searched = 0;
        while let Some(run) = self.runs.front_mut() {
            let (mut resp2, mut resp3) = (None, None);
            while let Some(receiver) = run.receivers.get(run.served) {
                let present = sessions.get(receiver.session as usize).filter(|session| session.id == receiver.id);
                if let Some(session) = present {
                    let range = match session.protocol() {
                        Protocol::Resp2 => resp2.get_or_insert_with(|| deliveries.put(&run.bytes)),
                        Protocol::Resp3 => resp3.get_or_insert_with(|| {
                            let range = deliveries.put(&run.bytes);
                            mark_as_push(deliveries.bytes_mut(&range), &run.heads);
                            range
                        }),
                    };
                    if !deliveries.deliver(receiver.session, range) {
                        return;
                    }
                    self.delivered += 1;
                }
                run.served += 1;
            }
            self.backlog -= run.size();
            if let Some(mut run) = self.runs.pop_front()
                && self.spare.len() < SPARE_MAX
            {
                run.clear();
                self.spare.push(run);
            }
        }
    }
}

/// Makes messages of RESP2 those of RESP3: `*3` becomes `>3`.
fn mark_as_push(bytes: &mut [u8], heads: &[u32]) {
    heads.iter().for_each(|head| bytes[*head as usize] = b'>');
}

/// `message channel payload`, or `pmessage pattern channel payload`.
fn encode(out: &mut Vec<u8>, announce: &Announce<'_>, channel: &[u8], payload: &[u8]) {
    match announce {
        Announce::Message => {
            resp::array(out, 3);
            resp::bulk(out, b"message");
        }
        Announce::ShardMessage => {
            resp::array(out, 3);
            resp::bulk(out, b"smessage");
        }
        Announce::PatternMessage(pattern) => {
            resp::array(out, 4);
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
