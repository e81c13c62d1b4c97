//! The undelivered messages of one topic: posts, each with the place of its encoded forms.

use std::rc::Rc;

use super::Fanout;
use crate::hub::audience::EventAudience;
use crate::hub::channels::{Channels, TopicId};
use crate::hub::encoding::Encoding;
use crate::hub::messages::MessageKind;

/// The undelivered messages of one topic, and the progress of the walk over its subscribers.
pub(super) struct Queue {
    pub(super) topic: TopicId,
    pub(super) posts: Vec<Post>,
    /// Number of subscribers not visited yet: the first ones of the topic's list. The walk runs
    /// from the last to the first, because the last subscriber takes the place of one that leaves.
    /// So the walk may meet a moved subscriber twice, but misses none.
    pub(super) unvisited: usize,
    /// When the walk ends, posts up to this number are delivered to all. 0: no walk has begun.
    pub(super) until: u32,
}

/// Stands for no session.
const NOBODY: u32 = u32::MAX;

/// Stands for all sessions that are not in the audience of the message.
const OTHERS: u32 = u32::MAX - 1;

/// A message on its way to the subscribers of one topic.
#[derive(Clone, Copy)]
pub(super) struct Post {
    pub(super) number: u32,
    pub(super) message: u32,
    /// The turn in which the message was encoded.
    pub(super) turn: u32,
    /// The session that does not get the message, [`NOBODY`] or [`OTHERS`].
    pub(super) except: u32,
    /// By kind of encoding. An empty range: not encoded.
    pub(super) encoded: [(u32, u32); Encoding::KINDS],
    /// The namespaces of the last two kinds.
    pub(super) namespaces: [u8; 2],
}

impl Post {
    /// Returns true if the message has an audience.
    pub(super) fn is_select(&self) -> bool {
        self.except == OTHERS
    }

    /// Returns the place of the range of an encoding. It is empty if the message is not encoded.
    pub(super) fn range(&mut self, encoding: Encoding) -> &mut (u32, u32) {
        let kind = encoding.kind();
        let range = &mut self.encoded[kind];
        if let Some(namespace) = encoding.namespace() {
            let known = &mut self.namespaces[kind + 2 - Encoding::KINDS];
            if std::mem::replace(known, namespace) != namespace {
                *range = (0, 0);
            }
        }
        range
    }
}

impl Fanout {
    /// Queues a message for the subscribers of some topics. Returns the number of
    /// receivers. A session counts once for each topic that it is subscribed to.
    pub fn publish(
        &mut self,
        channels: &mut Channels,
        topics: &[TopicId],
        channel: &[u8],
        payload: &[u8],
        kind: MessageKind,
    ) -> usize {
        self.forget_orphans(channels);
        if topics.is_empty() {
            return 0;
        }
        let message = self.messages.push(channel, payload, topics.len(), kind);
        self.post(channels, topics, message, NOBODY)
    }

    /// Queues a stored message. Returns the number of receivers.
    fn post(
        &mut self,
        channels: &mut Channels,
        topics: &[TopicId],
        message: u32,
        except: u32,
    ) -> usize {
        if let Some(payload) = self.messages.large(message) {
            self.in_flight.add(payload, topics);
        }
        let mut receivers = 0;
        for topic in topics {
            receivers += channels.subscribers(*topic).len();
            self.latest += 1;
            self.posts += 1;
            let queue =
                channels.queue(*topic).unwrap_or_else(|| self.start_queue(channels, *topic));
            let (encoded, namespaces) = Default::default();
            let (number, turn) = (self.latest, self.turn);
            let post = Post { number, message, turn, except, encoded, namespaces };
            let posts = &mut self.queues[queue as usize].posts;
            let before = posts.capacity();
            posts.push(post);
            self.post_bytes += (posts.capacity() - before) * size_of::<Post>();
        }
        receivers
    }

    /// Leaves a session out of the latest post of some topics, because the message is its own.
    pub fn leave_out(&mut self, session: u32, channels: &Channels, topics: &[TopicId]) {
        for queue in topics.iter().filter_map(|topic| channels.queue(*topic)) {
            if let Some(post) = self.queues[queue as usize].posts.last_mut() {
                post.except = session;
                self.excepted.insert(session);
            }
        }
    }

    /// Queues an event of a cluster for its audience among the subscribers of some topics. There is
    /// at least one topic.
    pub fn publish_event(
        &mut self,
        channels: &mut Channels,
        topics: &[TopicId],
        (channel, payload): (&[u8], &[u8]),
        kind: MessageKind,
        audience: &Rc<EventAudience>,
    ) {
        self.forget_orphans(channels);
        let message = self.messages.push(channel, payload, topics.len(), kind);
        self.messages.set_audience(audience);
        self.has_volatile |= audience.volatile;
        self.post(channels, topics, message, OTHERS);
    }

    /// Queues the last message, an event, for the patterns that match another channel. There is at
    /// least one pattern.
    pub fn repeat_event(&mut self, channels: &mut Channels, patterns: &[TopicId], channel: &[u8]) {
        let message = self.messages.repeat(channel, patterns.len());
        self.post(channels, patterns, message, OTHERS);
    }

    /// Gives a topic a queue and appends it to the order of walks. Returns its number.
    fn start_queue(&mut self, channels: &mut Channels, topic: TopicId) -> u32 {
        let queue = self.spare.pop_back().unwrap_or_else(|| {
            self.queues.push(Queue { topic, posts: Vec::new(), unvisited: 0, until: 0 });
            self.queues.len() as u32 - 1
        });
        self.warm = self.warm.saturating_sub(1);
        let own = &mut self.queues[queue as usize];
        (own.topic, own.unvisited, own.until) = (topic, 0, 0);
        channels.set_queue(topic, Some(queue));
        self.order.push_back(queue);
        queue
    }
}
