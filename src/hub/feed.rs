//! The feed of MONITOR: the lines of one turn, which go to all monitors as one message.
//!
//! A line for each command must cost the command little. So the commands of a turn share one
//! message, and those of a pipeline share the beginning of their lines.

use super::Shared;
use super::channels::Kind;
use super::messages::MessageKind;
use super::sessions::SessionId;
use crate::limits::{FEED_LINES_MAX, MONITOR_LINE_MAX};
use crate::service::server::Server;

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
    fn begin_line(
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

    /// Shows a command of a session to the monitors, in the form of Redis. Counts it instead if the
    /// backlog is too large.
    pub fn show<'a>(
        &mut self,
        session: SessionId,
        server: &dyn Server,
        words: impl Iterator<Item = &'a [u8]>,
    ) {
        if self.fanout.is_overfull() {
            self.commands_not_shown += 1;
            return;
        }
        let own = self.sessions.get(session);
        let (line, start) = self.feed.begin_line(session, || {
            let time = server.system_time();
            let peer = own.peer().or_else(|| server.peer(own.connection()?));
            let peer = peer.map_or("?:0".into(), |peer| peer.to_string());
            format!("+{}.{:06} [0 {peer}]", time.as_secs(), time.subsec_micros())
        });
        let end = start + MONITOR_LINE_MAX;
        for word in words {
            line.extend_from_slice(b" \"");
            escape(word, line, end);
            line.push(b'"');
            if line.len() >= end {
                line.extend_from_slice(b" ...");
                break;
            }
        }
        line.extend_from_slice(b"\r\n");
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
            let Shared { fanout, channels, feed: own, .. } = self;
            fanout.publish(channels, &[feed], b"", &own.lines, MessageKind::Plain);
        }
        self.feed.lines.clear();
        self.feed.start_of = None;
    }
}

/// Appends a text, escaped as by Redis's `sdscatrepr`, until `out` has `end` bytes or some more.
fn escape(text: &[u8], out: &mut Vec<u8>, end: usize) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'"');
    let mut rest = text;
    while let Some(first) = rest.first()
        && out.len() < end
    {
        let room = rest.len().min(end - out.len());
        let plain = rest[..room].iter().position(|byte| !is_plain(byte)).unwrap_or(room);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain.max(1)..];
        if plain > 0 {
            continue;
        }
        match first {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', *first]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            other => out.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
}
