//! The receivers of an event of a cluster, where they are fewer than the subscribers of a channel.

use super::channels::{Channels, TopicId};

/// Sockets that a room of a cluster names: the subscribers of a channel, or one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomMembers {
    pub topic: TopicId,
    /// The only session of the room.
    pub only: Option<u32>,
}

impl RoomMembers {
    fn has(self, channels: &Channels, session: u32) -> bool {
        match self.only {
            Some(only) => only == session,
            None => channels.is_member(session, self.topic),
        }
    }
}

/// The receivers of an event, among the subscribers of the topics that it is posted to.
///
/// Sessions get what is pending before their subscriptions change. So memberships at the time of
/// the delivery are those at the time of the event.
#[derive(Debug, Default)]
pub struct EventAudience {
    /// The namespace of Socket.IO. Sockets of others do not get the event.
    pub namespace: u8,
    /// True if the event has attachments. Only sockets get it.
    pub is_binary: bool,
    /// True if slow sockets miss the event.
    pub volatile: bool,
    /// The event is posted to the topic of each of these rooms. Empty: to one topic.
    pub to: Vec<RoomMembers>,
    pub except: Vec<RoomMembers>,
}

impl EventAudience {
    /// Returns true if sessions with the same encoding may differ.
    pub fn is_picky(&self) -> bool {
        self.to.len() > 1 || !self.except.is_empty() || self.volatile
    }

    /// Returns true if a subscriber of a topic gets the event by it. `namespace` is that of a
    /// socket, which gets an event for several of its rooms by the first. Clients of other
    /// protocols have none, and get it by each.
    pub fn has(
        &self,
        channels: &Channels,
        session: u32,
        namespace: Option<u8>,
        topic: TopicId,
    ) -> bool {
        if self.except.iter().any(|room| room.has(channels, session)) {
            return false;
        }
        let Some(namespace) = namespace else { return !self.is_binary };
        let first = || self.to.iter().find(|room| room.has(channels, session));
        namespace == self.namespace
            && (self.to.len() < 2 || first().is_some_and(|room| room.topic == topic))
    }

    /// Returns the number of rooms that each receiver is compared with.
    pub fn steps(&self) -> usize {
        self.to.len() + self.except.len()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + (self.to.capacity() + self.except.capacity()) * size_of::<RoomMembers>()
    }
}
