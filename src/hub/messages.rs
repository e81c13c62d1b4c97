//! Undelivered messages. Each is stored once, as channel and payload, for all topics and receivers.
//!
//! Messages lie in one buffer in the order of their publishes. The oldest is usually delivered
//! first, so memory is freed from the front. The payload of a large message is apart, because the
//! output of its receivers shares it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::audience::EventAudience;
use super::channels::{Channels, Kind, TopicId};
use crate::limits::{LARGE_PAYLOAD, SPARE_MESSAGES_MAX};
use crate::payload::Payload;

/// A queue of messages, numbered in the order of their publishes.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Offset of `bytes[0]`, counted in bytes since the first message ever stored.
    start: u64,
    entries: VecDeque<Message>,
    /// The number of `entries[0]`.
    first: u32,
    /// Bytes of the large payloads. One that messages in a row share counts once.
    large: usize,
    /// The audiences of messages that have one, in the order of their numbers.
    audiences: VecDeque<(u32, Rc<EventAudience>)>,
    /// Memory of the audiences, in bytes. One that messages in a row share counts once.
    audience_bytes: usize,
    /// Number of entries of `audiences` that are picky.
    picky: usize,
}

struct Message {
    /// Offset of the message, counted in bytes since the first message ever stored.
    at: u64,
    /// Length of the channel's name, in bytes.
    channel: u32,
    /// Length of the payload in the buffer, in bytes.
    payload: u32,
    /// The payload, if it is large.
    large: Option<Rc<Payload>>,
    /// Number of topics that have not released the message.
    topics: u32,
    kind: MessageKind,
}

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A publish.
    Plain,
    /// A publish that is in the log of its channel.
    Logged,
    /// A notice: the subscribers of the topic may have missed messages.
    Gap,
    /// An event of a cluster of Socket.IO: the payload is the event and its arguments.
    Event,
    /// The same with attachments: the payload is as
    /// [`pack_event`](super::encoding::pack_event) makes it.
    BinaryEvent,
}

impl Messages {
    /// Stores a message until `topics` topics have released it. Returns its number.
    pub fn push(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        topics: usize,
        kind: MessageKind,
    ) -> u32 {
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(channel);
        let is_large = payload.len() >= LARGE_PAYLOAD;
        let large = is_large.then(|| Rc::new(Payload::new(payload)));
        let payload = if is_large { &[] } else { payload };
        self.large += large.as_ref().map_or(0, |large| large.len());
        self.bytes.extend_from_slice(payload);
        let (channel, payload) = (channel.len() as u32, payload.len() as u32);
        let topics = topics as u32;
        self.entries.push_back(Message { at, channel, payload, large, topics, kind });
        self.last()
    }

    /// Stores the last message once more, with another channel. Both share a large payload and the
    /// audience. Returns the new message's number.
    pub fn repeat(&mut self, channel: &[u8], topics: usize) -> u32 {
        let Message { at, channel: before, payload, ref large, kind, .. } =
            self.entries[self.entries.len() - 1];
        let large = large.clone();
        let from = (at - self.start) as usize + before as usize;
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(channel);
        self.bytes.extend_from_within(from..from + payload as usize);
        let (channel, topics) = (channel.len() as u32, topics as u32);
        let audience = self.audience_of(self.last()).cloned();
        self.entries.push_back(Message { at, channel, payload, large, topics, kind });
        if let Some(audience) = audience {
            self.set_audience(&audience);
        }
        self.last()
    }

    /// Returns the number of the last message.
    fn last(&self) -> u32 {
        self.first.wrapping_add(self.entries.len() as u32 - 1)
    }

    /// Returns the channel and the payload of a message.
    pub fn get(&self, number: u32) -> (&[u8], &[u8]) {
        let entry = &self.entries[number.wrapping_sub(self.first) as usize];
        let bytes = &self.bytes[(entry.at - self.start) as usize..];
        let (channel, payload) =
            bytes[..(entry.channel + entry.payload) as usize].split_at(entry.channel as usize);
        (channel, entry.large.as_ref().map_or(payload, |large| large.bytes()))
    }

    /// Returns the channel and the payload of a message for the subscribers of a topic. An event of
    /// a cluster is stored once for all its rooms, and each room is the channel of its own.
    pub fn get_for<'a>(
        &'a self,
        number: u32,
        channels: &'a Channels,
        topic: TopicId,
    ) -> (&'a [u8], &'a [u8]) {
        let (channel, payload) = self.get(number);
        let is_event = matches!(self.kind(number), MessageKind::Event | MessageKind::BinaryEvent);
        match is_event && topic.kind() == Kind::Channel {
            true => (channels.name(topic), payload),
            false => (channel, payload),
        }
    }

    /// Returns the payload of a message if it is large.
    pub fn large(&self, number: u32) -> Option<&Rc<Payload>> {
        self.entries[number.wrapping_sub(self.first) as usize].large.as_ref()
    }

    /// Gives the last message an audience.
    pub fn set_audience(&mut self, audience: &Rc<EventAudience>) {
        if !self.audiences.back().is_some_and(|(_, last)| Rc::ptr_eq(last, audience)) {
            self.audience_bytes += audience.bytes();
        }
        self.picky += usize::from(audience.is_picky());
        self.audiences.push_back((self.last(), Rc::clone(audience)));
    }

    /// Returns the audience of a message. `None`: all subscribers of its topics.
    pub fn audience(&self, number: u32) -> Option<&EventAudience> {
        self.audience_of(number).map(|audience| &**audience)
    }

    fn audience_of(&self, number: u32) -> Option<&Rc<EventAudience>> {
        let place = |of: u32| of.wrapping_sub(self.first);
        let at = self.audiences.binary_search_by_key(&place(number), |(of, _)| place(*of)).ok()?;
        Some(&self.audiences[at].1)
    }

    /// Returns true if sessions with the same encoding may get different messages.
    pub fn has_picky(&self) -> bool {
        self.picky > 0
    }

    pub fn kind(&self, number: u32) -> MessageKind {
        self.entries[number.wrapping_sub(self.first) as usize].kind
    }

    /// Releases a message for one of its topics, and frees the messages at the front that no topic
    /// needs any more.
    pub fn release(&mut self, number: u32) {
        self.entries[number.wrapping_sub(self.first) as usize].topics -= 1;
        while self.entries.front().is_some_and(|entry| entry.topics == 0) {
            let gone = self.entries.pop_front().and_then(|entry| entry.large);
            let next = self.entries.front().and_then(|entry| entry.large.as_ref());
            if let Some(gone) = gone
                && !next.is_some_and(|next| Rc::ptr_eq(next, &gone))
            {
                self.large -= gone.len();
            }
            if self.audiences.front().is_some_and(|(number, _)| *number == self.first) {
                self.release_audience();
            }
            self.first = self.first.wrapping_add(1);
        }
        let Some(front) = self.entries.front() else { return self.clear() };
        // Compact only once half of the buffer is free, so no more bytes move than are freed.
        let free = (front.at - self.start) as usize;
        if free >= self.bytes.len() / 2 {
            self.bytes.drain(..free);
            self.start += free as u64;
        }
    }

    fn release_audience(&mut self) {
        let Some((_, gone)) = self.audiences.pop_front() else { return };
        self.picky -= usize::from(gone.is_picky());
        if !self.audiences.front().is_some_and(|(_, next)| Rc::ptr_eq(next, &gone)) {
            self.audience_bytes -= gone.bytes();
        }
    }

    fn clear(&mut self) {
        self.start += self.bytes.len() as u64;
        self.bytes.clear();
        if self.bytes.capacity() > SPARE_MESSAGES_MAX {
            self.bytes = Vec::new();
        }
    }

    /// Returns the number of stored messages. Delivered ones behind an undelivered one count.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of the stored messages and their audiences. Delivered ones behind an
    /// undelivered one count.
    pub fn held(&self) -> usize {
        let front = self.entries.front();
        let small = front.map_or(0, |front| self.bytes.len() - (front.at - self.start) as usize);
        self.large + self.audience_bytes + small
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let audiences = self.audiences.capacity() * size_of::<(u32, Rc<EventAudience>)>();
        let entries = self.entries.capacity() * size_of::<Message>();
        self.large + self.audience_bytes + self.bytes.capacity() + entries + audiences
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.audiences.shrink_to_fit();
    }

    /// Panics unless the messages are contiguous and their counts of topics are right. `topics`
    /// maps the number of each undelivered message to its number of topics. For tests.
    pub fn check_invariants(&self, topics: &HashMap<u32, u32>) {
        let end = self.start + self.bytes.len() as u64;
        let mut at = self.entries.front().map_or(end, |front| front.at);
        assert!(at >= self.start, "the bytes of the first message were freed");
        let mut undelivered = 0;
        for (entry, place) in self.entries.iter().zip(0..) {
            let number = self.first.wrapping_add(place);
            let expected = topics.get(&number).copied().unwrap_or(0);
            assert_eq!(
                entry.topics, expected,
                "message {number} counts the wrong number of topics"
            );
            assert_eq!(entry.at, at, "message {number} starts at the wrong offset");
            at += u64::from(entry.channel) + u64::from(entry.payload);
            undelivered += usize::from(expected > 0);
        }
        let mut large: Vec<_> =
            self.entries.iter().filter_map(|entry| entry.large.as_ref()).collect();
        large.dedup_by(|one, other| Rc::ptr_eq(one, other));
        let bytes = large.iter().map(|large| large.len()).sum::<usize>();
        assert_eq!(self.large, bytes, "large payloads");
        let mut audiences: Vec<_> = self.audiences.iter().map(|(_, audience)| audience).collect();
        let picky = audiences.iter().filter(|audience| audience.is_picky()).count();
        assert_eq!(self.picky, picky, "picky audiences");
        audiences.dedup_by(|one, other| Rc::ptr_eq(one, other));
        let bytes = audiences.iter().map(|audience| audience.bytes()).sum::<usize>();
        assert_eq!(self.audience_bytes, bytes, "the memory of the audiences");
        assert_eq!(at, end, "the last message does not end with the buffer");
        assert_eq!(undelivered, topics.len(), "an undelivered message is not stored");
        assert!(
            self.entries.front().is_none_or(|front| front.topics > 0),
            "a delivered message is at the front"
        );
        assert!(
            !self.entries.is_empty() || self.bytes.is_empty(),
            "bytes are stored without a message"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::audience::RoomMembers;

    #[test]
    fn a_message_is_kept_until_its_last_topic_releases_it_and_its_memory_is_reused() {
        let mut messages = Messages { first: u32::MAX - 3, ..Messages::default() };
        let mut numbers = Vec::new();
        for round in 0..100usize {
            let payload = vec![round as u8; 10 * round];
            numbers.push((
                messages.push(b"channel", &payload, 1 + round % 3, MessageKind::Plain),
                round,
            ));
            if round % 2 == 1 {
                let (number, round) = numbers.remove(numbers.len() / 2);
                (0..1 + round % 3).for_each(|_| messages.release(number));
            }
            for (number, round) in &numbers {
                let (channel, payload) = messages.get(*number);
                assert_eq!(
                    (channel, payload),
                    (&b"channel"[..], &vec![*round as u8; 10 * round][..])
                );
            }
        }
        for (number, round) in numbers {
            (0..1 + round % 3).for_each(|_| messages.release(number));
        }
        assert_eq!((messages.held(), messages.entries.len()), (0, 0));
        let capacity = messages.bytes.capacity();
        assert!(capacity <= SPARE_MESSAGES_MAX);
        for _ in 0..1000 {
            let number = messages.push(b"c", b"p", 1, MessageKind::Plain);
            assert_eq!(messages.held(), 2);
            messages.release(number);
        }
        assert_eq!(messages.bytes.capacity(), capacity, "a warm buffer does not grow");
        let number = messages.push(b"c", &[0; 1 << 20], 1, MessageKind::Plain);
        messages.release(number);
        assert_eq!((messages.bytes.capacity(), messages.large), (capacity, 0), "a large message");
        for length in [LARGE_PAYLOAD - 1, LARGE_PAYLOAD] {
            let number = messages.push(b"c", &vec![b'x'; length], 2, MessageKind::Plain);
            assert_eq!(messages.large(number).is_some(), length == LARGE_PAYLOAD);
            assert_eq!(messages.get(number), (&b"c"[..], &vec![b'x'; length][..]));
            assert_eq!(messages.held(), length + 1);
            assert!(messages.bytes() > length);
            messages.check_invariants(&HashMap::from([(number, 2)]));
            (0..2).for_each(|_| messages.release(number));
            assert_eq!((messages.held(), messages.large), (0, 0));
        }
    }

    #[test]
    fn messages_that_share_a_payload_and_an_audience_hold_them_once() {
        for length in [10, LARGE_PAYLOAD] {
            let mut messages = Messages::default();
            let members = RoomMembers { topic: TopicId::NONE, only: None };
            let audience =
                Rc::new(EventAudience { except: vec![members; 1000], ..EventAudience::default() });
            assert!(audience.bytes() > 10_000);
            for round in 1..3 {
                let payload = vec![b'x'; length];
                let first = messages.push(b"", &payload, 1, MessageKind::Event);
                messages.set_audience(&audience);
                let (second, third) = (messages.repeat(b"r", 1), messages.repeat(b"long", 2));
                let copies = if length < LARGE_PAYLOAD { 3 } else { 1 };
                assert_eq!(messages.held(), audience.bytes() + 5 + copies * length, "{round}");
                assert!(messages.bytes() < 2 * audience.bytes() + 8 * length);
                let known = HashMap::from([(first, 1), (second, 1), (third, 2)]);
                messages.check_invariants(&known);
                messages.release(first);
                assert_eq!(messages.get(second), (&b"r"[..], &payload[..]));
                messages.release(third);
                messages.release(second);
                messages.check_invariants(&HashMap::from([(third, 1)]));
                assert!(messages.has_picky());
                assert_eq!(messages.get(third), (&b"long"[..], &payload[..]));
                assert_eq!(messages.audience(third).unwrap().except.len(), 1000);
                messages.release(third);
                assert_eq!((messages.held(), messages.has_picky()), (0, false));
            }
        }
    }

    #[test]
    fn the_memory_of_messages_is_that_of_their_bytes_and_their_entries() {
        let mut messages = Messages::default();
        messages.bytes.reserve_exact(1000);
        messages.entries.reserve_exact(10);
        assert_eq!(messages.bytes(), 1000 + 10 * size_of::<Message>());
        messages.shrink();
        assert_eq!(messages.bytes(), 0);
    }
}
