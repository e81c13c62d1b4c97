//! Scripts that the owner of the link runs at the broker, on the retained values of a channel.

use super::super::LinkWire;
use super::super::Published;
use super::super::awaited::AwaitedReply;
use super::super::notices::NOTICES;
use super::super::scripts;
use super::Link;
use crate::codec::resp::bulk_length;
use crate::codec::resp::reader::{ReplyKind, ReplyView};
use crate::limits::BROKER_QUEUE_MAX;

/// Length of an EVAL on the wire without its script and its texts, in bytes.
const EVAL_LENGTH: usize = b"*99999\r\n$4\r\nEVAL\r\n$1\r\n1\r\n".len();

/// A message that the broker keeps.
#[derive(Clone, Copy, Debug)]
pub struct KeptMessage<'a> {
    pub channel: &'a [u8],
    pub payload: &'a [u8],
    /// The field of its key.
    pub field: &'a [u8],
    /// Maximum number of fields; 0: the message removes the field.
    pub max: usize,
    /// The token of this server if it has delivered the message while the link was down.
    pub token: Option<&'a [u8]>,
}

impl Link {
    /// Publishes a message that the broker keeps in the same step. An error comes under the number.
    /// If the message has a token, any reply does.
    pub fn publish_kept(&mut self, number: u32, message: &KeptMessage<'_>) -> Published {
        let KeptMessage { channel, payload, field, max, token } = *message;
        let max = max.to_string();
        let notice = token.map_or_else(Vec::new, |token| [b" ", token].concat());
        let arguments = [payload, field, max.as_bytes(), &notice];
        let admitted = self.admit(channel, self.eval_length(scripts::WRITE, channel, &arguments));
        if admitted == Published::Sent {
            self.eval(scripts::WRITE, channel, &arguments);
            let awaited = &mut self.connections[LinkWire::First as usize].awaited;
            match token {
                None => awaited.push_kept_publish(number),
                Some(_) => awaited.push(AwaitedReply::Call(number)),
            }
            // A change from an outage is counted already, and is pushed again if it fails.
            self.counters.published += u64::from(token.is_none());
        }
        admitted
    }

    /// Runs a script on the values of a channel. The reply comes under the number. Returns false if
    /// the link is down or has no room.
    pub fn call(
        &mut self,
        number: u32,
        script: &[u8],
        channel: &[u8],
        arguments: &[&[u8]],
    ) -> bool {
        let length = self.eval_length(script, channel, arguments);
        let waiting = self.queued(LinkWire::First);
        if !self.is_up() || waiting > 0 && waiting + length > BROKER_QUEUE_MAX {
            return false;
        }
        self.eval(script, channel, arguments);
        let connection = &mut self.connections[LinkWire::First as usize];
        connection.awaited.push(AwaitedReply::Call(number));
        true
    }

    /// Returns the longest message that is taken from the broker, in bytes.
    pub fn max_message(&self) -> usize {
        self.settings.max_message
    }

    fn eval_length(&self, script: &[u8], channel: &[u8], arguments: &[&[u8]]) -> usize {
        let name = self.settings.prefix.0.len() + scripts::VALUES.len() + channel.len();
        let texts: usize = arguments.iter().map(|text| bulk_length(text.len())).sum();
        EVAL_LENGTH + bulk_length(script.len()) + 3 * bulk_length(name) + texts
    }

    fn eval(&mut self, script: &[u8], channel: &[u8], arguments: &[&[u8]]) {
        let prefix = self.settings.prefix.0.as_bytes();
        let output = &mut self.connections[LinkWire::First as usize].output;
        output.begin(6 + arguments.len());
        output.word(&[b"EVAL"]);
        output.word(&[script]);
        output.word(&[b"1"]);
        output.word(&[prefix, scripts::VALUES, channel]);
        output.word(&[prefix, NOTICES, channel]);
        output.word(&[prefix, channel]);
        arguments.iter().for_each(|text| output.word(&[text]));
    }
}

/// Returns the texts and numbers of a reply.
pub fn items<'i>(reply: &ReplyView<'_, 'i>) -> Vec<Option<&'i [u8]>> {
    let kinds = (0..reply.count()).filter_map(|index| Some((index, reply.kind_of(index)?)));
    let is_plain = |kind: &ReplyKind| {
        !matches!(kind, ReplyKind::Array | ReplyKind::Map | ReplyKind::Set | ReplyKind::Push)
    };
    kinds
        .filter(|(_, kind)| is_plain(kind))
        .map(|(index, kind)| (kind != ReplyKind::Null).then(|| reply.text_of(index)))
        .collect()
}
