//! Sessions that have ended with so many subscriptions that these end over several turns.
//!
//! Such a session keeps its slot without a connection until its last subscription has ended. So no
//! later session gets its subscriptions, and no message is delivered for it.

use std::collections::VecDeque;

use super::channels::Channels;
use super::sessions::{SessionId, Sessions};
use crate::limits::{LEAVES_AT_ONCE, LEAVES_PER_TURN};

/// The queue of these sessions.
#[derive(Default)]
pub struct Leaving(VecDeque<SessionId>);

impl Leaving {
    /// Ends the subscriptions of a session: at once if they are few, and else over the next turns.
    /// Returns true if they have ended.
    pub fn end(
        &mut self,
        channels: &mut Channels,
        sessions: &Sessions,
        session: SessionId,
    ) -> bool {
        let ends_now = channels.len(session.index) <= LEAVES_AT_ONCE;
        match ends_now {
            true => channels.close(sessions, session.index),
            // A session that closes and has closed is listed twice, which does no harm.
            false => self.0.push_back(session),
        }
        ends_now
    }

    /// Ends further subscriptions, and frees the slots of sessions that have none left.
    pub fn collect(&mut self, channels: &mut Channels, sessions: &mut Sessions) {
        let mut most = LEAVES_PER_TURN;
        while most > 0
            && let Some(session) = self.0.front().copied()
        {
            let own = sessions.get(session);
            if own.serial != 0 {
                let before = channels.len(session.index);
                let goes_on = channels.close_some(sessions, session.index, most);
                most -= before - channels.len(session.index);
                if goes_on {
                    return;
                }
                if own.destination().is_none() {
                    sessions.close(session);
                }
            }
            self.0.pop_front();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<SessionId>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Returns true if the subscriptions of a session end over the next turns. For tests.
    pub fn contains(&self, session: SessionId) -> bool {
        self.0.contains(&session)
    }
}
