//! Encodings: how a message looks to a receiver of each protocol.
//!
//! A new protocol adds a row here and touches nothing else of the hub: fan-out makes an encoding
//! when the first receiver that needs it is met, and shares it among all of them.

use super::channels::{Channels, Kind, TopicId};
use crate::codec::resp::{self, Protocol};

/// What a session is sent messages as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    Resp2,
    Resp3,
}

/// How a message reached a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    Channel,
    Shard,
    Pattern(&'a [u8]),
    /// It is a line of MONITOR.
    Feed,
}

impl<'a> By<'a> {
    pub fn topic(channels: &'a Channels, topic: TopicId) -> By<'a> {
        match topic.kind() {
            Kind::Channel => By::Channel,
            Kind::Shard => By::Shard,
            Kind::Pattern => By::Pattern(channels.name(topic)),
            Kind::Feed => By::Feed,
        }
    }
}

impl Encoding {
    pub const ALL: [Encoding; 2] = [Encoding::Resp2, Encoding::Resp3];

    /// Appends a message as receivers of this encoding have it.
    pub fn encode(self, out: &mut Vec<u8>, by: By<'_>, channel: &[u8], payload: &[u8]) {
        let protocol = match self {
            Encoding::Resp2 => Protocol::Resp2,
            Encoding::Resp3 => Protocol::Resp3,
        };
        match by {
            By::Channel => resp::pushed(out, protocol, &[b"message", channel, payload]),
            By::Shard => resp::pushed(out, protocol, &[b"smessage", channel, payload]),
            By::Pattern(pattern) => {
                resp::pushed(out, protocol, &[b"pmessage", pattern, channel, payload]);
            }
            By::Feed => out.extend_from_slice(payload),
        }
    }
}
