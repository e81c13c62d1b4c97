//! The invariants of channels, checked after each change in tests and in the simulator.

use std::collections::HashMap;

use super::{
    Channels, Kind, KindCounts, LARGE_FROM, Subscriber, Subscription, TopicId, table_bytes,
};

impl Channels {
    /// Returns the number of queues that [`Self::take_orphan`] has yet to give out.
    pub fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// Panics unless membership agrees in both directions and every running count is right. O(n).
    pub fn check_invariants(&self) {
        let (mut halves, mut held) = (0, 0);
        for (index, topic) in &self.topics {
            let id = TopicId::new(topic.kind, index);
            assert!(!topic.subscribers.is_empty(), "a topic has no subscribers");
            assert_eq!(
                self.topic(topic.kind, &topic.name),
                Some(id),
                "the name leads to another topic"
            );
            for (subscriber, position) in topic.subscribers.iter().zip(0..) {
                let other =
                    self.sessions[subscriber.session as usize].iter().nth(subscriber.slot as usize);
                assert_eq!(
                    other,
                    Some(Subscription { topic: id, position }),
                    "the session's half does not name the topic's half"
                );
            }
            halves += topic.subscribers.len();
            held += topic.bytes();
        }
        for (own, session) in self.sessions.iter().zip(0..) {
            let mut counts = KindCounts::default();
            for (subscription, slot) in own.iter().zip(0..) {
                let other = self.topics[subscription.topic.index()].subscribers
                    [subscription.position as usize];
                assert_eq!(
                    other,
                    Subscriber { session, slot },
                    "the topic's half does not name the session's half"
                );
                assert_eq!(
                    self.slot_of(session, subscription.topic),
                    Some(slot),
                    "the index is wrong, or a topic occurs twice"
                );
                counts[subscription.topic.kind() as usize] += 1;
            }
            assert_eq!(counts, self.counts(session));
            let confirmations: usize =
                self.topics_of(session).map(|topic| self.confirmation(topic)).sum();
            assert_eq!(confirmations, self.confirmations(session));
            let is_large = self.large.contains_key(&session);
            assert!(if is_large { own.len() >= LARGE_FROM / 2 } else { own.len() < LARGE_FROM });
            halves -= own.len();
            held += own.bytes();
        }
        assert_eq!(halves, 0, "sessions and topics count different numbers of subscriptions");
        assert_eq!(self.names.iter().map(HashMap::len).sum::<usize>(), self.topics.len());
        assert_eq!(self.patterns.len(), self.names[Kind::Pattern as usize].len());
        assert!(
            self.patterns.iter().all(|pattern| self.topics[pattern.index()].kind == Kind::Pattern)
        );
        held += self.large.values().map(|large| table_bytes(&large.index)).sum::<usize>();
        assert_eq!(held, self.held, "the memory is miscounted");
    }
}
