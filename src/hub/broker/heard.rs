//! The meaning of a reply of the broker.

use super::{Arrival, SharedKind};
use crate::codec::resp::reader::{ReplyKind, ReplyView};

/// A reply, or a message of a subscription. Names are as they are at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeardReply<'i> {
    Message(Arrival<'i>),
    /// A SUBSCRIBE or UNSUBSCRIBE is confirmed for one name.
    Confirmed {
        kind: SharedKind,
        subscribes: bool,
        name: &'i [u8],
    },
    /// The reply to a command.
    Replied(Replied<'i>),
    /// A push of a kind that nobody asked for.
    Other,
}

/// The reply to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replied<'i> {
    /// An error, and its first word.
    Error {
        code: &'i [u8],
        text: &'i [u8],
    },
    Text,
    Integer,
    Null,
    /// An aggregate, and its first two items if they are texts.
    Items(Option<&'i [u8]>, Option<&'i [u8]>),
    Map,
    /// A reply that was too long to be kept.
    TooLong,
    Other,
}

/// Returns what a reply means. In RESP2, the arrays of a connection that subscribes are pushes.
/// Returns `None` for a push that is malformed, and for an array that is none of them.
pub fn heard<'i>(reply: &ReplyView<'_, 'i>, arrays_are_pushes: bool) -> Option<HeardReply<'i>> {
    let answer = match reply.kind() {
        ReplyKind::Push => return pushed(reply),
        ReplyKind::Array if arrays_are_pushes => return pushed(reply),
        ReplyKind::Array => Replied::Items(reply.string(1), reply.string(2)),
        ReplyKind::Error => Replied::Error { code: reply.code(), text: reply.text() },
        ReplyKind::Text => Replied::Text,
        ReplyKind::Integer => Replied::Integer,
        ReplyKind::Null => Replied::Null,
        ReplyKind::Map => Replied::Map,
        _ => Replied::Other,
    };
    Some(HeardReply::Replied(answer))
}

fn pushed<'i>(reply: &ReplyView<'_, 'i>) -> Option<HeardReply<'i>> {
    let confirmed = |kind, subscribes| {
        let is_whole = reply.count() == 4 && reply.kind_of(3) == Some(ReplyKind::Integer);
        let name = reply.string(2).filter(|_| is_whole)?;
        Some(HeardReply::Confirmed { kind, subscribes, name })
    };
    match reply.string(1)? {
        b"message" => {
            let (channel, payload) = (reply.string(2)?, reply.string(3)?);
            let kind = SharedKind::Channel;
            let arrival = Arrival { kind, topic: channel, channel, payload };
            (reply.count() == 4).then_some(HeardReply::Message(arrival))
        }
        b"pmessage" => {
            let (topic, channel) = (reply.string(2)?, reply.string(3)?);
            let (kind, payload) = (SharedKind::Pattern, reply.string(4)?);
            let arrival = Arrival { kind, topic, channel, payload };
            (reply.count() == 5).then_some(HeardReply::Message(arrival))
        }
        b"subscribe" => confirmed(SharedKind::Channel, true),
        b"unsubscribe" => confirmed(SharedKind::Channel, false),
        b"psubscribe" => confirmed(SharedKind::Pattern, true),
        b"punsubscribe" => confirmed(SharedKind::Pattern, false),
        _ => (reply.kind() == ReplyKind::Push).then_some(HeardReply::Other),
    }
}
