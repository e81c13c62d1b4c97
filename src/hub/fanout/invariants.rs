//! The invariants between the queues of fan-out, the undelivered messages and the topics.

use std::collections::{HashMap, HashSet};

use super::super::channels::{Channels, Kind};
use super::{Fanout, Post};

impl Fanout {
    /// Panics unless the queues, the messages and the topics of `channels` agree. O(n).
    pub fn check_undelivered(&self, channels: &Channels) {
        self.check_queues();
        self.check_messages();
        self.check_topics(channels);
        self.check_watermarks();
    }

    /// Each queue is either in use or spare. Of the spare queues, only the warm ones keep memory.
    fn check_queues(&self) {
        let order: HashSet<u32> = self.order.iter().copied().collect();
        assert_eq!(order.len(), self.order.len(), "a queue is in the order twice");
        assert!(
            self.spare.iter().all(|queue| !order.contains(queue)),
            "a queue is both in use and spare"
        );
        assert!(self.warm <= self.spare.len(), "more warm queues than spare ones");
        let cold = self.spare.len() - self.warm;
        for (place, queue) in self.spare.iter().enumerate() {
            let posts = &self.queues[*queue as usize].posts;
            assert!(posts.is_empty(), "a spare queue has posts");
            assert!(place >= cold || posts.capacity() == 0, "a cold queue holds memory");
        }
        let held: usize =
            self.queues.iter().map(|queue| queue.posts.capacity() * size_of::<Post>()).sum();
        assert_eq!(self.post_bytes, held, "the memory of the posts is miscounted");
    }

    /// The number of topics of each message equals the number of its posts in all queues.
    fn check_messages(&self) {
        let mut topics: HashMap<u32, u32> = HashMap::new();
        let mut numbers = HashSet::new();
        for post in self.order.iter().flat_map(|queue| &self.queues[*queue as usize].posts) {
            *topics.entry(post.message).or_default() += 1;
            assert!(numbers.insert(post.number), "two posts have the same number");
            assert!(
                (1..=self.latest).contains(&post.number),
                "a post has a number above the latest"
            );
        }
        self.messages.check_invariants(&topics);
    }

    /// Each topic with undelivered messages has one queue. Each queue belongs to one topic or is
    /// orphaned.
    fn check_topics(&self, channels: &Channels) {
        let mut queues = 0;
        for (topic, _) in Kind::ALL.iter().flat_map(|kind| channels.topics(*kind)) {
            if let Some(queue) = channels.queue(topic) {
                assert!(self.order.contains(&queue), "the queue of a topic is not in the order");
                let own = self.queues[queue as usize].topic;
                assert_eq!(own, topic, "the queue of a topic belongs to another topic");
                queues += 1;
            }
        }
        let orphans = channels.orphans();
        assert_eq!(
            self.order.len(),
            queues + orphans,
            "a queue in use has no topic and is not orphaned"
        );
    }

    /// No watermark is above the latest post. Each session with a watermark is listed once.
    fn check_watermarks(&self) {
        assert_eq!(
            self.latest == 0,
            self.order.is_empty(),
            "the numbering does not start again when the backlog is empty"
        );
        assert!(
            self.had.iter().all(|had| *had <= self.latest),
            "a watermark is above the latest post"
        );
        let met: HashSet<u32> = self.met.iter().copied().collect();
        assert_eq!(met.len(), self.met.len(), "a session with a watermark is listed twice");
        let is_met = |session: u32| self.had.get(session as usize).is_some_and(|had| *had > 0);
        assert!(met.into_iter().all(is_met), "a session without a watermark is listed");
    }
}
