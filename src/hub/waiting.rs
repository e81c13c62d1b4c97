//! Sessions whose command must wait: because much is undelivered, or because others have searched
//! enough in this turn. They are served in turn.

use std::collections::VecDeque;

use super::sessions::{RESUMED, SessionId, Sessions, WAITING};
use crate::limits::RESUMED_PER_TURN;
use crate::service::Output;

#[derive(Default)]
pub struct Waiting {
    queue: VecDeque<SessionId>,
    /// Sessions at the front whose turn had come, and who must wait again.
    again: usize,
}

impl Waiting {
    /// Whether a session's command must wait: because the hub is busy, or behind others that wait.
    /// The session is then in the queue, and its turn comes by [`Self::collect`].
    pub fn must_wait(&mut self, sessions: &mut Sessions, session: SessionId, is_busy: bool) -> bool {
        let is_empty = self.queue.is_empty();
        let Some(own) = sessions.get_mut(session) else { return is_busy };
        let was_resumed = own.is(RESUMED);
        own.put(RESUMED, false);
        if !is_busy && (was_resumed || is_empty) {
            return false;
        }
        if !own.is(WAITING) {
            own.put(WAITING, true);
            let place = if was_resumed { self.again } else { self.queue.len() };
            self.queue.insert(place, session);
            self.again += usize::from(was_resumed);
        }
        true
    }

    /// Goes on with the first of those that wait.
    pub fn collect(&mut self, sessions: &mut Sessions, output: &mut Output<'_>) {
        self.again = 0;
        for _ in 0..RESUMED_PER_TURN {
            let Some(session) = self.queue.pop_front() else { return };
            // It may have ended meanwhile.
            if let Some(own) = sessions.get_mut(session) {
                own.put(WAITING, false);
                own.put(RESUMED, true);
                own.connection().into_iter().for_each(|connection| output.resume(connection));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<SessionId>()
    }

    pub fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }
}
