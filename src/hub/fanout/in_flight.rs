//! Large messages on their way to receivers. Publishes of large messages keep the pace of the
//! receivers that read: a publish waits while too much to its topics is in flight.

use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use super::super::channels::TopicId;
use super::super::subscriptions::{release_table, table_bytes};
use crate::clock::Tick;
use crate::limits::{IN_FLIGHT_MAX, IN_FLIGHT_PER_TURN, IN_FLIGHT_TIME};
use crate::payload::Payload;

/// The large messages that no receiver has refused to take for long.
#[derive(Default)]
pub struct InFlight {
    messages: VecDeque<Moving>,
    /// Bytes in flight, by topic.
    topics: HashMap<TopicId, usize>,
    /// Memory of the lists of topics, in bytes.
    held: usize,
}

struct Moving {
    /// Gone once all receivers have it.
    payload: Weak<Payload>,
    length: usize,
    topics: Box<[TopicId]>,
    /// Bytes that its receivers had taken at the last progress, and the time until which they must
    /// take one more copy. `None`: nobody has looked at the message yet.
    progress: Option<(u64, Tick)>,
}

impl InFlight {
    /// Adds a message.
    pub fn add(&mut self, payload: &Rc<Payload>, topics: &[TopicId]) {
        let length = payload.len();
        topics.iter().for_each(|topic| *self.topics.entry(*topic).or_default() += length);
        self.held += size_of_val(topics);
        self.messages.push_back(Moving {
            payload: Rc::downgrade(payload),
            length,
            topics: topics.into(),
            progress: None,
        });
    }

    /// Returns true if a large message to these topics must wait.
    pub fn is_full(&self, topics: &[TopicId]) -> bool {
        let bytes = |topic| self.topics.get(topic).copied().unwrap_or(0);
        topics.iter().any(|topic| bytes(topic) >= IN_FLIGHT_MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Removes messages that have arrived, and those whose receivers stall. Returns true if there
    /// were any.
    pub fn collect(&mut self, now: Tick) -> bool {
        let mut any = false;
        for _ in 0..self.messages.len().min(IN_FLIGHT_PER_TURN) {
            let Some(mut message) = self.messages.pop_front() else { break };
            if message.moves(now) {
                self.messages.push_back(message);
            } else {
                self.remove(&message);
                any = true;
            }
        }
        any
    }

    fn remove(&mut self, message: &Moving) {
        self.held -= size_of_val(&*message.topics);
        for topic in &message.topics {
            if let Some(bytes) = self.topics.get_mut(topic) {
                *bytes -= message.length;
                if *bytes == 0 {
                    self.topics.remove(topic);
                }
            }
        }
        release_table(&mut self.topics);
    }

    /// Returns the memory held, in bytes, without the payloads.
    pub fn bytes(&self) -> usize {
        self.messages.capacity() * size_of::<Moving>() + table_bytes(&self.topics) + self.held
    }

    /// Returns unused memory to the allocator.
    pub fn shrink(&mut self) {
        self.messages.shrink_to_fit();
        self.topics.shrink_to_fit();
    }

    /// Panics unless the bytes of each topic are the sum over its messages. For tests.
    pub fn check_invariants(&self) {
        let mut topics: HashMap<TopicId, usize> = HashMap::new();
        for message in &self.messages {
            for topic in &message.topics {
                *topics.entry(*topic).or_default() += message.length;
            }
        }
        assert_eq!(self.topics, topics, "the bytes in flight are miscounted");
    }
}

impl Moving {
    /// Returns true while receivers take the message.
    fn moves(&mut self, now: Tick) -> bool {
        let Some(payload) = self.payload.upgrade() else { return false };
        let taken = payload.taken.get();
        let due = now.plus(Tick::count(IN_FLIGHT_TIME));
        match self.progress {
            Some((before, _)) if taken >= before + self.length as u64 => {}
            Some((_, until)) => return until.distance_from(now) > 0,
            None => {}
        }
        self.progress = Some((taken, due));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channels::Kind;

    #[test]
    fn a_topic_is_full_until_its_messages_have_arrived_or_stall() {
        let topic = |index| TopicId::new(Kind::Channel, index);
        let (second, mut own) = (Tick::count(IN_FLIGHT_TIME), InFlight::default());
        let payload = Rc::new(Payload::new(&vec![0; IN_FLIGHT_MAX]));
        for (length, full) in [(IN_FLIGHT_MAX - 1, false), (IN_FLIGHT_MAX, true)] {
            let mut own = InFlight::default();
            let payload = Rc::new(Payload::new(&vec![0; length]));
            own.add(&payload, &[topic(1), topic(2)]);
            let found = [topic(1), topic(2), topic(3)].map(|topic| own.is_full(&[topic]));
            assert_eq!(found, [full, full, false]);
            drop(payload);
            assert!(own.collect(Tick(0)) && own.is_empty() && !own.is_full(&[topic(1)]));
            own.check_invariants();
        }
        own.add(&payload, &[topic(1)]);
        assert!(!own.collect(Tick(5)));
        // One byte less than a copy in a second is no progress.
        payload.taken.set(IN_FLIGHT_MAX as u64);
        assert!(!own.collect(Tick(5 + second - 1)));
        payload.taken.set(2 * IN_FLIGHT_MAX as u64 - 1);
        assert!(!own.collect(Tick(5 + 2 * second - 2)) && own.is_full(&[topic(1)]));
        assert!(own.collect(Tick(5 + 2 * second - 1)));
        assert!(!own.is_full(&[topic(1)]) && own.is_empty());
        own.check_invariants();
        own.shrink();
        assert_eq!(own.bytes(), 0);
    }
}
