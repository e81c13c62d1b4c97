//! Sessions with a deferred command. A publish is deferred while the backlog is full, a search
//! while the turn's search budget is used up. Deferred commands run in the order of their arrival.

use std::collections::VecDeque;

use super::sessions::{RESUMED, SessionId, Sessions, WAITING};
use crate::service::Output;

/// A queue of sessions with a deferred command.
#[derive(Default)]
pub struct Waiting {
    queue: VecDeque<SessionId>,
    /// Number of sessions at the front that were resumed in this turn and deferred again.
    again: usize,
}

impl Waiting {
    /// Returns true if a session's command must wait, because the hub is busy or others wait
    /// already. The session is then in the queue, and [`Self::collect`] resumes it.
    pub fn must_wait(
        &mut self,
        sessions: &mut Sessions,
        session: SessionId,
        is_busy: bool,
    ) -> bool {
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

    /// Resumes the first sessions of the queue, at most `most`.
    pub fn collect(&mut self, sessions: &mut Sessions, most: usize, output: &mut Output<'_>) {
        self.again = 0;
        for _ in 0..most {
            let Some(session) = self.queue.pop_front() else { return };
            // The session may have ended since then.
            if let Some(own) = sessions.get_mut(session) {
                own.put(WAITING, false);
                own.put(RESUMED, true);
                own.connection().into_iter().for_each(|connection| output.resume(connection));
            }
        }
    }

    /// Returns the number of sessions in the queue, including those that have ended.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<SessionId>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }

    /// Returns the sessions in the queue, including those that have ended.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.queue.iter().copied()
    }

    /// Panics if the count of sessions deferred again exceeds the length of the queue. For tests.
    pub fn check_invariants(&self) {
        assert!(self.again <= self.queue.len(), "more sessions are deferred again than queued");
    }
}
