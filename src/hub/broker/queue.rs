//! The bytes that wait to be sent on one connection of the link.

use std::collections::VecDeque;

use crate::codec::resp;
use crate::limits::BROKER_SPARE_QUEUE;

/// Bytes to send. Some may have to wait for a subscription.
#[derive(Debug, Default)]
pub struct OutputQueue {
    bytes: Vec<u8>,
    /// The bytes at the front that have been sent.
    sent: usize,
    /// Number of bytes that have been sent before those.
    before: u64,
    /// Bytes from a place on wait until this many subscriptions are confirmed.
    holds: VecDeque<(u64, u64)>,
}

impl OutputQueue {
    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity() + self.holds.capacity() * size_of::<(u64, u64)>()
    }

    /// Appends a command of whole words.
    pub fn command(&mut self, words: &[&[u8]]) {
        resp::array(&mut self.bytes, words.len());
        words.iter().for_each(|word| resp::bulk(&mut self.bytes, word));
    }

    /// Begins a command of this many words.
    pub fn begin(&mut self, words: usize) {
        resp::array(&mut self.bytes, words);
    }

    /// Appends a word of a command, in parts.
    pub fn word(&mut self, parts: &[&[u8]]) {
        resp::bulk_of(&mut self.bytes, parts);
    }

    /// Holds everything from here on until this many subscriptions are confirmed.
    pub fn hold(&mut self, subscriptions: u64) {
        if self.holds.back().is_none_or(|(_, before)| *before < subscriptions) {
            self.holds.push_back((self.before + self.bytes.len() as u64, subscriptions));
        }
    }

    /// Lets everything go that waits for no more than this many subscriptions.
    pub fn release(&mut self, confirmed: u64) {
        while self.holds.front().is_some_and(|(_, needed)| *needed <= confirmed) {
            self.holds.pop_front();
        }
    }

    /// Returns the bytes that may be sent now.
    pub fn front(&self) -> &[u8] {
        let held = self.holds.front().map(|(place, _)| (place - self.before) as usize);
        &self.bytes[self.sent..held.unwrap_or(self.bytes.len())]
    }

    /// Removes bytes at the front, which have been sent.
    pub fn consume(&mut self, length: usize) {
        self.sent += length.min(self.len());
        let is_empty = self.sent == self.bytes.len();
        // The rest moves at most once for each byte that was sent.
        if is_empty || self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.before += self.sent as u64;
            self.sent = 0;
        }
        if is_empty {
            self.bytes.shrink_to(BROKER_SPARE_QUEUE);
        }
    }

    pub fn clear(&mut self) {
        *self = OutputQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_out_what_was_appended_in_order_and_keeps_little_memory() {
        let mut queue = OutputQueue::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..2000 {
            let word = vec![round as u8; random.usize(..300)];
            queue.command(&[b"X", &word]);
            resp::array(&mut expected, 2);
            resp::bulk(&mut expected, b"X");
            resp::bulk(&mut expected, &word);
            let length = random.usize(..=queue.len());
            sent.extend_from_slice(&queue.front()[..length]);
            queue.consume(length);
        }
        sent.extend_from_slice(queue.front());
        queue.consume(queue.len());
        assert_eq!(sent, expected);
        assert!(queue.bytes() <= BROKER_SPARE_QUEUE, "{}", queue.bytes());
    }

    #[test]
    fn held_bytes_wait_for_their_subscriptions_and_those_before_them_do_not() {
        let mut queue = OutputQueue::default();
        queue.command(&[b"A"]);
        let first = queue.len();
        queue.hold(1);
        queue.hold(1);
        queue.command(&[b"B"]);
        queue.hold(3);
        queue.command(&[b"C"]);
        assert_eq!(queue.front().len(), first);
        queue.consume(first);
        assert_eq!(queue.front(), b"");
        queue.release(2);
        assert_eq!(queue.front(), b"*1\r\n$1\r\nB\r\n");
        queue.consume(3);
        assert_eq!(queue.front(), b"\n$1\r\nB\r\n");
        queue.release(3);
        assert!(queue.front().ends_with(b"C\r\n"));
    }
}
