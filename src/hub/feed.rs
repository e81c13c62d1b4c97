//! The feed of MONITOR: the lines of one turn, which go to all monitors as one message.
//!
//! A line for each command must cost the command little. So the commands of a turn share one
//! message, and those of a pipeline share the beginning of their lines.

use super::Shared;
use super::channels::Kind;
use super::sessions::SessionId;
use crate::limits::FEED_LINES_MAX;

/// Lines that are not published yet.
#[derive(Default)]
pub struct Feed {
    lines: Vec<u8>,
    /// True from the first monitor on. Checked again while it is true.
    pub is_watched: bool,
    /// The beginning of a line: time and address.
    start: Vec<u8>,
    /// The session that `start` belongs to. `None` after the lines are published, at the latest in
    /// the next turn.
    start_of: Option<SessionId>,
}

impl Feed {
    /// Begins a line. Returns the buffer that it is appended to, and where it begins there. `start`
    /// makes the beginning of the line if the last line was of another session or turn.
    pub fn begin_line(
        &mut self,
        session: SessionId,
        start: impl FnOnce() -> String,
    ) -> (&mut Vec<u8>, usize) {
        let at = self.lines.len();
        if self.start_of != Some(session) {
            self.start = start().into_bytes();
            self.start_of = Some(session);
        }
        self.lines.extend_from_slice(&self.start);
        (&mut self.lines, at)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.capacity()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.lines.shrink_to_fit();
    }
}

impl Shared {
    /// Returns true if a session runs MONITOR.
    pub fn has_monitors(&mut self) -> bool {
        self.feed.is_watched =
            self.feed.is_watched && self.channels.topic(Kind::Feed, b"").is_some();
        self.feed.is_watched
    }

    /// Publishes the lines so far if they are many.
    pub fn end_line(&mut self) {
        if self.feed.lines.len() >= FEED_LINES_MAX {
            self.publish_feed();
        }
    }

    /// Publishes the lines so far to the monitors. Runs at the end of a turn, and before the
    /// subscriptions of a session change.
    pub fn publish_feed(&mut self) {
        if self.feed.lines.is_empty() {
            return;
        }
        if let Some(feed) = self.channels.topic(Kind::Feed, b"") {
            self.fanout.publish(&mut self.channels, &[feed], b"", &self.feed.lines);
        }
        self.feed.lines.clear();
        self.feed.start_of = None;
    }
}
