//! The commands that have no reply yet, in the order of their replies.

use std::collections::VecDeque;

use super::fault::GreetingStep;
use super::names::NameBatch;

/// A command, or several of one kind, without its reply.
#[derive(Debug)]
pub enum AwaitedReply {
    Greeting(GreetingStep),
    /// A SUBSCRIBE or UNSUBSCRIBE, which is confirmed name by name.
    Names(NameBatch),
    /// The SUBSCRIBE to the channel of the probe.
    ProbeChannel,
    /// The PUBLISH of a probe.
    Probe,
    /// This many publishes in a row.
    Publishes(u32),
    /// A script that keeps a message and publishes it. The owner gets an error under this number.
    KeptPublish(u32),
    /// A script of the owner, who gets the reply under this number.
    Call(u32),
}

/// The commands of a connection without their replies.
#[derive(Debug, Default)]
pub struct AwaitedReplies {
    queue: VecDeque<AwaitedReply>,
    /// The names in it, for their memory.
    names: usize,
    /// The publishes in it.
    publishes: u64,
}

impl AwaitedReplies {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn publishes(&self) -> u64 {
        self.publishes
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<AwaitedReply>() + self.names * size_of::<u32>()
    }

    pub fn push(&mut self, awaited: AwaitedReply) {
        if let AwaitedReply::Names(batch) = &awaited {
            self.names += batch.places.len();
        }
        self.queue.push_back(awaited);
    }

    /// Adds a publish. Publishes in a row take one place.
    pub fn push_publish(&mut self) {
        self.publishes += 1;
        match self.queue.back_mut() {
            Some(AwaitedReply::Publishes(count)) if *count < u32::MAX => *count += 1,
            _ => self.queue.push_back(AwaitedReply::Publishes(1)),
        }
    }

    /// Adds a publish that is kept.
    pub fn push_kept_publish(&mut self, number: u32) {
        self.publishes += 1;
        self.queue.push_back(AwaitedReply::KeptPublish(number));
    }

    /// Returns true if the next reply is that to a script of the owner.
    pub fn is_call_next(&self) -> bool {
        matches!(self.queue.front(), Some(AwaitedReply::Call(_)))
    }

    pub fn front_mut(&mut self) -> Option<&mut AwaitedReply> {
        self.queue.front_mut()
    }

    /// Takes the command that the next reply belongs to. Of publishes in a row, it takes one.
    pub fn pop(&mut self) -> Option<AwaitedReply> {
        if let Some(AwaitedReply::Publishes(count)) = self.queue.front_mut() {
            self.publishes -= 1;
            if *count > 1 {
                *count -= 1;
                return Some(AwaitedReply::Publishes(1));
            }
        }
        let awaited = self.queue.pop_front();
        match &awaited {
            Some(AwaitedReply::Names(batch)) => self.names -= batch.places.len(),
            Some(AwaitedReply::KeptPublish(_)) => self.publishes -= 1,
            _ => {}
        }
        awaited
    }

    pub fn clear(&mut self) {
        *self = AwaitedReplies::default();
    }
}
