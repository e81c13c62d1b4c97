//! The batch of one receiver: its pending messages of all topics, as one range of the outbox.

use std::mem;
use std::ops::Range;
use std::rc::Rc;

use super::super::channels::Channels;
use super::super::encoding::{By, Encoding};
use super::super::messages::MessageKind;
use super::{Fanout, Queue};
use crate::limits::BATCH_MAX;
use crate::payload::Payload;
use crate::service::Output;

/// The batch of the last receiver. The next receiver often gets the same one.
#[derive(Default)]
pub(super) struct Batch {
    /// The queues of the batch, in the order of [`Self::found`].
    pub queues: Vec<u32>,
    /// The batch holds posts with numbers above this one.
    pub had: u32,
    /// The encoding of the batch. `None`: there is no batch in this turn yet.
    pub encoding: Option<Encoding>,
    /// The range in the outbox. If the batch is a large message, that is all before its payload.
    pub range: Range<u32>,
    /// The payload of a large message, and the range in the outbox that follows it.
    pub large: Option<(Rc<Payload>, Range<u32>)>,
    /// True if the receiver catches up with kept messages. Others have another batch.
    pub is_private: bool,
    /// The batch was cut at a large message, so the next one follows at once.
    pub goes_on: bool,
    /// Number of posts.
    pub count: usize,
    /// Watermark of a receiver after the batch.
    pub last: u32,
    /// Scratch: the queues of the current receiver's topics.
    pub found: Vec<u32>,
    /// Scratch: the posts of these queues above the receiver's watermark, as number, queue and
    /// position in the queue.
    pub posts: Vec<(u32, u32, u32)>,
    /// Scratch: the posts' ranges in the outbox. Adjacent ones are joined.
    pub parts: Vec<Range<u32>>,
}

impl Fanout {
    /// Makes the batch of a session, unless the last batch is the same.
    pub(super) fn make_batch(
        &mut self,
        session: u32,
        encoding: Encoding,
        is_slow: bool,
        channels: &Channels,
        output: &mut Output<'_>,
    ) {
        self.looked_through += self.find_queues(channels, session);
        let (had, is_private) = (self.had(session), self.is_apart(session) || is_slow);
        let batch = &self.batch;
        let is_shared = !is_private && !batch.is_private;
        if is_shared
            && batch.encoding == Some(encoding)
            && batch.had == had
            && batch.queues == batch.found
        {
            return;
        }
        self.find_posts(session, encoding.namespace(), channels);
        if is_slow {
            self.leave_out_volatile(encoding, channels);
        }
        self.cut_batch(channels);
        self.encode(encoding, channels, output);
        let batch = &mut self.batch;
        mem::swap(&mut batch.queues, &mut batch.found);
        (batch.had, batch.encoding, batch.count) = (had, Some(encoding), batch.posts.len());
        batch.is_private = is_private;
        // Messages that were encoded for other receivers may lie apart in the outbox; copy them.
        let mut parts = batch.parts.drain(..);
        let first = parts.next().unwrap_or_default();
        batch.large = batch.posts.first().and_then(|(_, queue, place)| {
            let post = &self.queues[*queue as usize].posts[*place as usize];
            let payload = self.messages.large(post.message)?;
            let end = first.end..first.end + encoding.end().len() as u32;
            match encoding.keeps_payload() {
                // Such a post is encoded with what follows its payload.
                true => Some((payload.clone(), end)),
                false => Some((self.rendered.get(post.number, encoding)?.clone(), 0..0)),
            }
        });
        batch.range = match parts.len() {
            0 => first,
            _ => {
                let bytes = output.bytes_mut();
                let start = bytes.len() as u32;
                for part in std::iter::once(first).chain(parts) {
                    bytes.extend_from_within(part.start as usize..part.end as usize);
                }
                start..bytes.len() as u32
            }
        };
    }

    /// Returns true if a session may get fewer messages than others of its topics.
    fn is_apart(&self, session: u32) -> bool {
        let is_excepted = !self.excepted.is_empty() && self.excepted.contains(&session);
        is_excepted || self.messages.has_picky() || self.mutes.has(session)
    }

    /// Cuts a batch at `BATCH_MAX` bytes and at large messages, which go alone; the rest goes in
    /// the next turn. Overlapping patterns can multiply a backlog beyond the amount that a reader
    /// takes at once.
    fn cut_batch(&mut self, channels: &Channels) {
        let (queues, messages, latest) = (&self.queues, &self.messages, self.latest);
        let Batch { posts, last, goes_on, .. } = &mut self.batch;
        let mut bytes = 0;
        let most = posts.iter().position(|(_, queue, place)| {
            let Queue { topic, posts, .. } = &queues[*queue as usize];
            let message = posts[*place as usize].message;
            let (channel, payload) = messages.get_for(message, channels, *topic);
            bytes += channel.len() + payload.len();
            bytes > BATCH_MAX || messages.large(message).is_some()
        });
        (*last, *goes_on) = (latest, false);
        let is_cut_by_large = |most: usize| {
            let mut around = posts[..=most].iter().rev().take(2);
            around.any(|(_, queue, place)| {
                messages.large(queues[*queue as usize].posts[*place as usize].message).is_some()
            })
        };
        if let Some(most) = most.map(|most| most.max(1)).filter(|most| *most < posts.len()) {
            *goes_on = is_cut_by_large(most);
            posts.truncate(most);
            *last = posts[most - 1].0;
        }
    }

    /// Encodes the posts that this turn has not encoded yet, and collects the ranges of all posts.
    fn encode(&mut self, encoding: Encoding, channels: &Channels, output: &mut Output<'_>) {
        let Batch { posts, parts, .. } = &mut self.batch;
        for (_, queue, place) in posts.iter() {
            let Queue { topic, posts, .. } = &mut self.queues[*queue as usize];
            let post = &mut posts[*place as usize];
            if post.turn != self.turn {
                (post.turn, post.encoded) = (self.turn, Default::default());
            }
            let message = post.message;
            let kind = self.messages.kind(message);
            let is_large = self.messages.large(message).is_some();
            if is_large && !encoding.keeps_payload() {
                let (channel, payload) = self.messages.get_for(post.message, channels, *topic);
                let (by, at) = (By::topic(channels, *topic, kind), (*queue, post.number));
                let encode =
                    |out: &mut Vec<u8>| encoding.encode(out, by, channel, payload, &self.routes);
                if let Some(made) = self.rendered.make(at, encoding, payload.len(), encode) {
                    self.in_flight.add(made, &[*topic]);
                }
                continue;
            }
            let (start, end) = post.range(encoding);
            if start == end {
                let bytes = output.bytes_mut();
                *start = bytes.len() as u32;
                let (channel, payload) = self.messages.get_for(message, channels, *topic);
                let by = By::topic(channels, *topic, kind);
                if let Some(payload) = self.messages.large(message) {
                    encoding.encode_head(bytes, by, channel, payload);
                    *end = bytes.len() as u32;
                    bytes.extend_from_slice(encoding.end());
                } else {
                    encoding.encode(bytes, by, channel, payload, &self.routes);
                    *end = bytes.len() as u32;
                }
            }
            match parts.last_mut() {
                Some(last) if last.end == *start => last.end = *end,
                _ => parts.push(*start..*end),
            }
        }
    }

    /// Leaves out the messages that a slow socket misses.
    fn leave_out_volatile(&mut self, encoding: Encoding, channels: &Channels) {
        let Some(namespace) = encoding.namespace() else { return };
        let Fanout { batch, queues, messages, routes, .. } = self;
        batch.posts.retain(|(_, queue, place)| {
            let Queue { topic, posts, .. } = &queues[*queue as usize];
            let message = posts[*place as usize].message;
            match messages.audience(message) {
                Some(audience) => !audience.volatile,
                None => {
                    let from = routes.from(namespace, channels.name(*topic));
                    from.is_none_or(|from| !from.volatile)
                }
            }
        });
    }

    /// Finds the queues of a session's topics. Scans the queues or the subscriptions, whichever are
    /// fewer. Returns the number of steps.
    pub(super) fn find_queues(&mut self, channels: &Channels, session: u32) -> usize {
        let found = &mut self.batch.found;
        found.clear();
        let subscriptions = channels.len(session);
        if self.order.len() <= subscriptions {
            let own = self
                .order
                .iter()
                .filter(|queue| channels.is_member(session, self.queues[**queue as usize].topic));
            found.extend(own);
        } else {
            found.extend(channels.topics_of(session).filter_map(|topic| channels.queue(topic)));
        }
        self.order.len().min(subscriptions)
    }

    /// Finds the posts of these queues above a session's watermark, in the order of their
    /// publishes. A session that catches up gets kept messages from the log.
    pub(super) fn find_posts(&mut self, session: u32, namespace: Option<u8>, channels: &Channels) {
        let had = self.had(session);
        let is_muted = self.mutes.has(session);
        let Fanout { batch: Batch { found, posts, .. }, queues, messages, mutes, .. } = self;
        posts.clear();
        let mut compared = 0;
        for queue in found.iter() {
            let own = &queues[*queue as usize];
            let is_logged = is_muted && mutes.covers(session, own.topic);
            let first = own.posts.partition_point(|post| post.number <= had);
            let behind = (first as u32..).zip(&own.posts[first..]);
            let wanted = behind.filter(|(_, post)| {
                let is_in_log = is_logged && messages.kind(post.message) == MessageKind::Logged;
                !is_in_log
                    && post.except != session
                    && (!post.is_select()
                        || messages.audience(post.message).is_none_or(|audience| {
                            compared += audience.steps();
                            audience.has(channels, session, namespace, own.topic)
                        }))
            });
            posts.extend(wanted.map(|(place, post)| (post.number, *queue, place)));
        }
        if found.len() > 1 {
            posts.sort_unstable();
        }
        self.looked_through += compared;
    }
}
