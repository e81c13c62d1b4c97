//! Commands that look at all sessions: CLIENT LIST, CLIENT KILL, MEMORY USAGE. Each goes on in the
//! turns that follow, a slice at a time, so that nobody waits for it but its asker.
//!
//! The asker's connection is read no more meanwhile. When the walk is over the same command comes
//! again, and finds what the walk has found.

use std::collections::VecDeque;

use super::Call;
use super::listing::{DESCRIBE_STEPS, Filter, describe};
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::limits::{LIST_MAX, WALK_STEPS_PER_TURN, WALKS_KEPT};
use crate::service::Output;
use crate::service::server::Server;

/// What a walk does with the sessions that are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WalkTask {
    /// Describes each in a line.
    List,
    /// Ends each but the asker's.
    Kill,
    /// Adds up their memory.
    Usage,
}

/// What a walk has found.
#[derive(Default)]
pub struct Found {
    pub sessions: usize,
    pub asker: bool,
    pub text: String,
    pub bytes: usize,
}

struct Walk {
    asker: SessionId,
    task: WalkTask,
    filter: Filter,
    /// The place in the table of sessions to go on at.
    at: u32,
    found: Found,
}

#[derive(Default)]
pub struct Walks {
    /// One after the other: only the first holds a text.
    queue: VecDeque<Walk>,
    /// Walks that are over and whose askers have yet to come again, in their order.
    done: Vec<(SessionId, Found)>,
    /// Steps of this turn that have been used.
    used: usize,
}

impl Call<'_, '_> {
    /// What a walk over all sessions finds; `None`: it is not over, and the command comes again.
    pub fn walk(&mut self, shared: &Shared, task: WalkTask, filter: impl FnOnce() -> Filter) -> Option<Found> {
        let asker = self.session;
        let mut found = self.walks.take(asker);
        if found.is_none() {
            let walk = Walk { asker, task, filter: filter(), at: 0, found: Found::default() };
            self.walks.queue.push_back(walk);
            // A short one is over at once.
            self.walks.go_on(shared, self.server);
            found = self.walks.take(asker);
        }
        if found.is_none() {
            self.wait();
        }
        found
    }

    /// Whether this command has come again because its walk is over.
    pub fn has_walked(&self) -> bool {
        self.walks.done.iter().any(|(asker, _)| *asker == self.session)
    }
}

impl Walks {
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Goes on with what this turn has left, and with those whose walk is over.
    pub fn collect(&mut self, shared: &Shared, output: &mut Output<'_>) {
        self.go_on(shared, output.server);
        self.used = 0;
        let connections = self.done.iter().filter_map(|(asker, _)| shared.sessions.get(*asker).connection());
        connections.for_each(|connection| output.resume(connection));
    }

    /// The asker is gone.
    pub fn closed(&mut self, session: SessionId) {
        self.take(session);
    }

    fn take(&mut self, session: SessionId) -> Option<Found> {
        let place = self.done.iter().position(|(asker, _)| *asker == session)?;
        Some(self.done.remove(place).1)
    }

    pub fn bytes(&self) -> usize {
        let text = self.queue.front().map_or(0, |walk| walk.found.text.capacity());
        let done: usize = self.done.iter().map(|(_, found)| found.text.capacity()).sum();
        text + done + self.queue.capacity() * size_of::<Walk>()
    }

    fn go_on(&mut self, shared: &Shared, server: &mut dyn Server) {
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

impl Walk {
    /// Looks at the next session; returns the steps that took.
    fn step(&mut self, shared: &Shared, server: &mut dyn Server) -> usize {
        let session = shared.sessions.at(self.at);
        self.at += 1;
        let mut steps = 1;
        if session.serial == 0 || !self.filter.means(shared, server, session, self.asker, &mut steps) {
            return steps;
        }
        self.found.sessions += 1;
        let connection = shared.sessions.get(session).connection();
        match self.task {
            WalkTask::List if self.found.text.len() <= LIST_MAX => {
                steps += DESCRIBE_STEPS;
                describe(shared, server, session, &mut self.found.text);
            }
            WalkTask::List => {}
            WalkTask::Kill if session == self.asker => self.found.asker = true,
            WalkTask::Kill => connection.into_iter().for_each(|connection| server.kill(connection)),
            WalkTask::Usage => {
                steps += DESCRIBE_STEPS;
                let facts = connection.and_then(|connection| server.connection(connection));
                self.found.bytes += facts.map_or(0, |facts| facts.user_bytes) + shared.bytes_of(session);
            }
        }
        steps
    }
}
