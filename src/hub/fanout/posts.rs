//! The undelivered messages of one topic: posts, each with the place of its encoded forms.

use crate::hub::channels::TopicId;
use crate::hub::encoding::Encoding;

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

/// A message on its way to the subscribers of one topic.
#[derive(Clone, Copy)]
pub(super) struct Post {
    pub(super) number: u32,
    pub(super) message: u32,
    /// The turn in which the message was encoded.
    pub(super) turn: u32,
    /// By kind of encoding. An empty range: not encoded.
    pub(super) encoded: [(u32, u32); Encoding::KINDS],
    /// The namespaces of the last two kinds.
    pub(super) namespaces: [u8; 2],
}

impl Post {
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
