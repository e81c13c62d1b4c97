//! Walks over all sessions, for CLIENT LIST, CLIENT KILL and MEMORY USAGE. A walk takes a slice of
//! each turn, so other connections do not wait for it.
//!
//! The command is deferred until its walk has finished. Then its bytes are read again, and the
//! command replies with the result of the walk.

use std::collections::VecDeque;

use super::Call;
use super::listing::{DESCRIBE_STEPS, Filter, describe};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::sessions::{OPERATOR, SessionId};
use crate::limits::{LIST_MAX, WALK_STEPS_PER_TURN, WALKS_KEPT};
use crate::service::Output;
use crate::service::server::Server;

/// The work of a walk on each session that the filter selects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WalkTask {
    /// Appends a line that describes the session.
    List,
    /// Closes the session's connection, except that of the caller.
    Kill,
    /// Adds up the session's memory.
    Usage,
}

/// The result of a walk.
#[derive(Default)]
pub struct Found {
    /// Number of selected sessions.
    pub sessions: usize,
    /// True if [`WalkTask::Kill`] selected the session that runs the command.
    pub asker: bool,
    /// The lines of [`WalkTask::List`].
    pub text: String,
    /// The sum of [`WalkTask::Usage`], in bytes.
    pub bytes: usize,
}

struct Walk {
    /// The session that runs the command.
    asker: SessionId,
    task: WalkTask,
    filter: Filter,
    /// The next slot in the table of sessions.
    at: u32,
    found: Found,
}

/// All walks. They run one after the other, so only one builds a text at a time.
#[derive(Default)]
pub struct Walks {
    queue: VecDeque<Walk>,
    /// Results of finished walks whose commands have not been read again, oldest first.
    done: Vec<(SessionId, Found)>,
    /// Steps used in this turn.
    used: usize,
}

impl Call<'_, '_> {
    /// Returns the result of the command's walk over all sessions, and starts the walk if it has
    /// not started yet. Returns `None` and defers the command if the walk needs more turns.
    pub fn walk(
        &mut self,
        shared: &mut Shared,
        task: WalkTask,
        filter: impl FnOnce() -> Filter,
    ) -> Option<Found> {
        let asker = self.session;
        let mut found = self.walks.take(asker);
        if found.is_none() {
            let walk = Walk { asker, task, filter: filter(), at: 0, found: Found::default() };
            self.walks.queue.push_back(walk);
            // A short walk finishes at once.
            self.walks.go_on(shared, self.server);
            found = self.walks.take(asker);
        }
        if found.is_none() {
            self.wait();
        }
        found
    }

    /// Returns true if this command's walk has finished.
    pub fn has_walked(&self) -> bool {
        self.walks.done.iter().any(|(asker, _)| *asker == self.session)
    }
}

impl Walks {
    /// Returns true if a walk is unfinished.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Continues the walks with the rest of this turn's steps, and resumes the commands of finished
    /// walks.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.go_on(shared, output.server);
        self.used = 0;
        let connections =
            self.done.iter().filter_map(|(asker, _)| shared.sessions.get(*asker).connection());
        connections.for_each(|connection| output.resume(connection));
    }

    /// Drops the result for a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.take(session);
    }

    /// Returns the sessions for which the result of a walk is kept.
    pub fn askers(&self) -> impl Iterator<Item = SessionId> {
        self.done.iter().map(|(asker, _)| *asker)
    }

    fn take(&mut self, session: SessionId) -> Option<Found> {
        let place = self.done.iter().position(|(asker, _)| *asker == session)?;
        Some(self.done.remove(place).1)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let text = self.queue.front().map_or(0, |walk| walk.found.text.capacity());
        let done: usize = self.done.iter().map(|(_, found)| found.text.capacity()).sum();
        text + done + self.queue.capacity() * size_of::<Walk>()
    }

    /// Continues the walks, up to this turn's budget of steps.
    fn go_on(&mut self, shared: &mut Shared, server: &mut dyn Server) {
        while self.used < WALK_STEPS_PER_TURN {
            let Some(walk) = self.queue.front_mut() else { return };
            let is_wanted = shared.sessions.get(walk.asker).serial != 0;
            if is_wanted && walk.at < shared.sessions.places() {
                self.used += walk.step(shared, server);
                continue;
            }
            let over = self.queue.pop_front().filter(|_| is_wanted);
            self.done.extend(over.map(|walk| (walk.asker, walk.found)));
            if self.done.len() > WALKS_KEPT {
                self.done.remove(0);
            }
        }
    }
}

/// Returns true if a session may not be killed: it belongs to the operator's listener, and the
/// asker does not.
fn is_out_of_reach(shared: &Shared, session: SessionId, asker: SessionId) -> bool {
    shared.sessions.get(session).is(OPERATOR) && !shared.sessions.get(asker).is(OPERATOR)
}

impl Walk {
    /// Visits the next session. Returns the steps taken.
    fn step(&mut self, shared: &mut Shared, server: &mut dyn Server) -> usize {
        let session = shared.sessions.at(self.at);
        self.at += 1;
        let mut steps = 1;
        let is_spared = self.task == WalkTask::Kill && is_out_of_reach(shared, session, self.asker);
        let destination = shared.sessions.get(session).destination();
        let connection = shared.sessions.get(session).connection();
        // A session without a destination has ended.
        if session.serial == 0
            || destination.is_none()
            || is_spared
            || !self.filter.means(shared, server, session, self.asker, &mut steps)
        {
            return steps;
        }
        self.found.sessions += 1;
        match self.task {
            WalkTask::List if self.found.text.len() <= LIST_MAX => {
                steps += DESCRIBE_STEPS;
                describe(shared, server, session, &mut self.found.text);
            }
            WalkTask::List => {}
            WalkTask::Kill if session == self.asker => self.found.asker = true,
            WalkTask::Kill => match connection {
                Some(connection) => server.kill(connection, Reason::Killed),
                None => shared.polls.doom(session),
            },
            WalkTask::Usage => {
                steps += DESCRIBE_STEPS;
                let facts = connection.and_then(|connection| server.connection(connection));
                self.found.bytes +=
                    facts.map_or(0, |facts| facts.user_bytes) + shared.bytes_of(session);
            }
        }
        steps
    }
}
