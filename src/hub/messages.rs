//! Messages that are undelivered: each kept once, as channel and payload, however many topics and
//! receivers it goes to.
//!
//! Messages lie one after the other in the order of their publishes. The first are mostly the first
//! to be delivered, so memory is freed from the front.

use std::collections::VecDeque;

use crate::limits::SPARE_MESSAGES_MAX;

#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Bytes before `bytes[0]` that there have ever been.
    start: u64,
    entries: VecDeque<Message>,
    /// The number of `entries[0]`.
    first: u32,
}

struct Message {
    /// Where it starts, in bytes since the first message ever.
    at: u64,
    channel: u32,
    payload: u32,
    /// Topics that have yet to be delivered.
    topics: u32,
}

impl Messages {
    /// Keeps a message until so many topics have released it; returns its number.
    pub fn push(&mut self, channel: &[u8], payload: &[u8], topics: usize) -> u32 {
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(channel);
        self.bytes.extend_from_slice(payload);
        let (channel, payload) = (channel.len() as u32, payload.len() as u32);
        self.entries.push_back(Message { at, channel, payload, topics: topics as u32 });
        self.first.wrapping_add(self.entries.len() as u32 - 1)
    }

    /// Channel and payload.
    pub fn get(&self, number: u32) -> (&[u8], &[u8]) {
        let entry = &self.entries[number.wrapping_sub(self.first) as usize];
        let bytes = &self.bytes[(entry.at - self.start) as usize..];
        bytes[..(entry.channel + entry.payload) as usize].split_at(entry.channel as usize)
    }

    /// One of its topics has been delivered.
    pub fn release(&mut self, number: u32) {
        self.entries[number.wrapping_sub(self.first) as usize].topics -= 1;
        while self.entries.front().is_some_and(|entry| entry.topics == 0) {
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        let Some(front) = self.entries.front() else { return self.clear() };
        // Moved once half of it is free, so no more bytes are moved than are freed.
        let free = (front.at - self.start) as usize;
        if free >= self.bytes.len() / 2 {
            self.bytes.drain(..free);
            self.start += free as u64;
        }
    }

    fn clear(&mut self) {
        self.start += self.bytes.len() as u64;
        self.bytes.clear();
        if self.bytes.capacity() > SPARE_MESSAGES_MAX {
            self.bytes = Vec::new();
        }
    }

    /// Messages that are kept, delivered ones behind an undelivered one included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the messages that are undelivered, and of those behind which they lie.
    pub fn held(&self) -> usize {
        self.entries.front().map_or(0, |front| self.bytes.len() - (front.at - self.start) as usize)
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Message>()
    }

    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_until_their_last_topic_and_their_memory_is_used_again() {
        let mut messages = Messages { first: u32::MAX - 3, ..Messages::default() };
        let mut numbers = Vec::new();
        for round in 0..100usize {
            let payload = vec![round as u8; 10 * round];
            numbers.push((messages.push(b"channel", &payload, 1 + round % 3), round));
            if round % 2 == 1 {
                let (number, round) = numbers.remove(numbers.len() / 2);
                (0..1 + round % 3).for_each(|_| messages.release(number));
            }
            for (number, round) in &numbers {
                let (channel, payload) = messages.get(*number);
                assert_eq!((channel, payload), (&b"channel"[..], &vec![*round as u8; 10 * round][..]));
            }
        }
        for (number, round) in numbers {
            (0..1 + round % 3).for_each(|_| messages.release(number));
        }
        assert_eq!((messages.held(), messages.entries.len()), (0, 0));
        let capacity = messages.bytes.capacity();
        assert!(capacity <= SPARE_MESSAGES_MAX);
        for _ in 0..1000 {
            let number = messages.push(b"c", b"p", 1);
            assert_eq!(messages.held(), 2);
            messages.release(number);
        }
        assert_eq!(messages.bytes.capacity(), capacity, "once warm, nothing is allocated");
        let number = messages.push(b"c", &[0; 1 << 20], 1);
        messages.release(number);
        assert_eq!(messages.bytes.capacity(), 0, "a rare large message gives its memory back");
    }
}
