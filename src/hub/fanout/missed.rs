//! Slow consumers that miss messages by their own choice (`?slow=drop`), and are told how many.
//!
//! Such a session misses whole messages from the high watermark of unsent output on, until its
//! output is down to the low watermark. Then it is told, before its next message or by itself.

use std::collections::HashMap;

use super::Fanout;
use crate::clock::Tick;
use crate::codec::websocket::{Opcode, encode};
use crate::hub::channels::Channels;
use crate::hub::sessions::{SessionId, Sessions};
use crate::limits::{MISSED_INTERVAL, MISSED_PER_TURN};
use crate::service::{ConnectionId, Output};

/// The sessions that miss messages now, with the number missed.
#[derive(Default)]
pub struct Missed {
    sessions: HashMap<SessionId, u64>,
    /// When the sessions are looked at next.
    due: Option<Tick>,
}

impl Missed {
    /// Returns unused capacity to the allocator.
    pub(super) fn shrink(&mut self) {
        self.sessions.shrink_to_fit();
    }
}

impl Fanout {
    /// Counts the pending messages of a session as missed if its connection is too slow. Returns
    /// true if so. `session` has the flag [`DROPS`](crate::hub::sessions::DROPS).
    pub(super) fn misses(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        channels: &Channels,
        output: &mut Output<'_>,
    ) -> bool {
        let limits = output.server.limits();
        let most = match self.missed.sessions.contains_key(&session) {
            true => limits.low_watermark,
            false => limits.high_watermark,
        };
        if output.server.unsent(connection) <= most {
            self.tell(session, connection, output);
            return false;
        }
        self.looked_through += self.find_queues(channels, session.index);
        // Sockets cannot choose to miss messages.
        self.find_posts(session.index, None, channels);
        *self.missed.sessions.entry(session).or_default() += self.batch.posts.len() as u64;
        self.missed.due.get_or_insert(output.now.tick().plus(Tick::count(MISSED_INTERVAL)));
        self.has_had_all(session.index);
        true
    }

    /// Tells a session how many messages it has missed, if any.
    fn tell(&mut self, session: SessionId, connection: ConnectionId, output: &mut Output<'_>) {
        if self.missed.sessions.is_empty() || !output.has_room(0) {
            return;
        }
        if let Some(count) = self.missed.sessions.remove(&session) {
            let start = output.bytes_mut().len() as u32;
            let text = format!("{{\"dropped\":{count}}}");
            encode(output.bytes_mut(), Opcode::Text, text.as_bytes());
            let range = start..output.bytes_mut().len() as u32;
            output.deliver(connection, &range);
        }
    }

    /// Returns when [`Self::collect_missed`] must run at the latest.
    pub fn wakes_at(&self) -> Option<Tick> {
        self.missed.due
    }

    /// Tells the sessions whose output has been sent, and forgets those that have ended.
    pub fn collect_missed(&mut self, sessions: &Sessions, output: &mut Output<'_>) {
        let now = output.now.tick();
        if self.missed.due.is_none_or(|due| due.distance_from(now) > 0) {
            return;
        }
        let low = output.server.limits().low_watermark;
        let route = |session: SessionId| sessions.get(session).connection();
        self.missed.sessions.retain(|session, _| route(*session).is_some());
        let ready: Vec<(SessionId, ConnectionId)> = self
            .missed
            .sessions
            .keys()
            .filter_map(|session| Some((*session, route(*session)?)))
            .filter(|(_, connection)| output.server.unsent(*connection) <= low)
            .take(MISSED_PER_TURN)
            .collect();
        for (session, connection) in ready {
            self.tell(session, connection, output);
        }
        let is_empty = self.missed.sessions.is_empty();
        self.missed.due = (!is_empty).then(|| now.plus(Tick::count(MISSED_INTERVAL)));
    }

    /// Returns the memory of the table, in bytes.
    pub(super) fn missed_bytes(&self) -> usize {
        self.missed.sessions.capacity() * size_of::<(SessionId, u64)>()
    }
}
