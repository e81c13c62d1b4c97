//! One connection of the link: its bytes to send, the replies it waits for, and its deadline.

use super::awaited::AwaitedReplies;
use super::queue::OutputQueue;
use crate::clock::Tick;
use crate::codec::resp::reader::{ReplyLimits, ReplyReader};
use crate::limits::{BROKER_CONNECT_TIME, BROKER_REPLY_TIME};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WirePhase {
    Closed,
    Dialling,
    /// Commands of the handshake are under way.
    Greeting,
    Ready,
}

pub struct LinkConnection {
    pub phase: WirePhase,
    pub output: OutputQueue,
    pub awaited: AwaitedReplies,
    pub reader: ReplyReader,
    /// When the connection fails, unless the broker answers before.
    pub answer_by: Option<Tick>,
}

impl LinkConnection {
    pub fn new(limits: ReplyLimits) -> LinkConnection {
        LinkConnection {
            phase: WirePhase::Closed,
            output: OutputQueue::default(),
            awaited: AwaitedReplies::default(),
            reader: ReplyReader::new(limits),
            answer_by: None,
        }
    }

    /// Returns true while bytes come and go.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, WirePhase::Greeting | WirePhase::Ready)
    }

    pub fn dial(&mut self, now: Tick) {
        self.close();
        self.phase = WirePhase::Dialling;
        self.answer_by = Some(now.plus(Tick::count(BROKER_CONNECT_TIME)));
    }

    pub fn close(&mut self) {
        self.phase = WirePhase::Closed;
        self.output.clear();
        self.awaited.clear();
        self.reader.reset();
        self.answer_by = None;
    }

    /// Starts the time for a reply, if one is awaited and the time does not run yet.
    pub fn expect_answer(&mut self, now: Tick) {
        if self.answer_by.is_none() && !self.awaited.is_empty() {
            self.answer_by = Some(now.plus(Tick::count(BROKER_REPLY_TIME)));
        }
    }

    /// Starts the time anew, because the broker has sent something.
    pub fn note_answer(&mut self, now: Tick) {
        self.answer_by = None;
        self.expect_answer(now);
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.output.bytes() + self.awaited.bytes() + self.reader.bytes()
    }
}
