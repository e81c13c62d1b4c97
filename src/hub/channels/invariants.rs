//! The invariants of channels, checked after each change in tests and in the simulator.

use std::collections::HashMap;

use super::super::shares::{Amount, SessionSources, SourceKey};
use super::{
    Channels, FEW_SUBSCRIPTIONS, Kind, KindCounts, LARGE_FROM, SUBSCRIPTION, Subscriber,
    Subscription, TopicId, price, table_bytes,
};

impl Channels {
    /// Returns the number of queues that [`Self::take_orphan`] has yet to give out.
    pub fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// Panics unless membership agrees in both directions and every running count is right. O(n).
    pub fn check_invariants(&self, all: &dyn SessionSources) {
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
            let is_large = self.large.contains_key(&session);
            assert!(if is_large { own.len() >= LARGE_FROM / 2 } else { own.len() < LARGE_FROM });
            halves -= own.len();
            held += own.bytes();
        }
        assert_eq!(halves, 0, "sessions and topics count different numbers of subscriptions");
        assert_eq!(self.names.iter().map(HashMap::len).sum::<usize>(), self.topics.len());
        self.patterns.check_invariants(self.topics(Kind::Pattern));
        self.check_shares(all);
        held += self.large.values().map(|large| table_bytes(&large.index)).sum::<usize>();
        assert_eq!(held, self.held, "the memory is miscounted");
    }

    /// Each topic is charged to the source of one of its subscribers, and each session to its own
    /// source for the subscriptions beyond its first few.
    fn check_shares(&self, all: &dyn SessionSources) {
        let mut expected: HashMap<SourceKey, Amount> = HashMap::new();
        let mut charge = |session: u32, amount: &Amount| {
            let own = expected.entry(all.source(session)).or_default();
            own.bytes += amount.bytes;
            own.channels += amount.channels;
            own.indexed += amount.indexed;
            own.others += amount.others;
        };
        for (_, topic) in &self.topics {
            let mut subscribers = topic.subscribers.iter().map(|subscriber| subscriber.session);
            assert!(
                subscribers.any(|session| session == topic.payer),
                "a topic is charged to a session that is not subscribed to it"
            );
            charge(topic.payer, &price(topic.kind, &topic.name));
        }
        for (own, session) in self.sessions.iter().zip(0..) {
            (FEW_SUBSCRIPTIONS..own.len()).for_each(|_| charge(session, &SUBSCRIPTION));
        }
        self.shares.check_invariants(&expected);
    }
}
