//! Encodings: the form in which a receiver of each protocol gets a message.
//!
//! A new protocol adds a variant here and changes nothing else in the hub. Fan-out encodes a
//! message for the first receiver that needs an encoding, and shares the bytes with all later ones.

use super::channels::{Channels, Kind, TopicId};
use crate::codec::resp::{self, Protocol};

/// The form in which a session gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    Resp2,
    Resp3,
}

/// The kind of subscription through which a message reaches a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    Channel,
    Shard,
    Pattern(&'a [u8]),
    /// MONITOR: the payload is a finished line.
    Feed,
}

impl<'a> By<'a> {
    /// Returns the kind of subscription that the subscribers of a topic have.
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

    /// Appends what precedes the payload of a large message. [`Encoding::END`] follows it.
    pub fn encode_head(self, out: &mut Vec<u8>, by: By<'_>, channel: &[u8], payload: usize) {
        let protocol = self.protocol();
        match by {
            By::Channel => resp::push_before(out, protocol, &[b"message", channel], payload),
            By::Shard => resp::push_before(out, protocol, &[b"smessage", channel], payload),
            By::Pattern(pattern) => {
                resp::push_before(out, protocol, &[b"pmessage", pattern, channel], payload);
            }
            // A line of MONITOR is never large.
            By::Feed => {}
        }
    }

    /// The bytes behind the payload of a large message.
    pub const END: &'static [u8] = b"\r\n";

    fn protocol(self) -> Protocol {
        match self {
            Encoding::Resp2 => Protocol::Resp2,
            Encoding::Resp3 => Protocol::Resp3,
        }
    }

    /// Appends a message in this encoding.
    pub fn encode(self, out: &mut Vec<u8>, by: By<'_>, channel: &[u8], payload: &[u8]) {
        let protocol = self.protocol();
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
