//! The invariants between the parts of the hub. Each part checks its own counts. This file checks
//! the parts against the sessions, and the sessions against the connections of the loop.

use std::collections::HashSet;

use super::channels::Kind;
use super::protocol::Resp;
use super::sessions::{Destination, RESUMED, SessionId, WAITING};
use super::{Hub, Shared};
use crate::limits::CLOSED_KEPT;
use crate::service::ConnectionId;

impl Hub {
    /// Panics if an invariant of the hub is broken, and names it. Walks everything that the hub
    /// holds.
    pub(super) fn check(&self) {
        let Hub { protocols, shared } = self;
        let resp = &protocols.resp;
        shared.sessions.check_invariants();
        shared.channels.check_invariants(&shared.sessions);
        shared.fanout.check_invariants();
        shared.fanout.check_undelivered(&shared.channels);
        shared.check_subscribers();
        shared.check_labels();
        shared.check_waiting();
        shared.check_history();
        shared.check_guesses();
        shared.check_walks(resp);
        shared.check_leaving();
        shared.check_agents();
        shared.retained.check_invariants();
        if let Some(sharing) = &shared.sharing {
            sharing.values.check_invariants(&shared.retained);
        }
        for session in protocols.http.sessions().chain(protocols.websocket.sessions()) {
            assert!(shared.is_live(session.index), "{session:?} has ended and still has a message");
        }
        resp.check_tables(shared);
        shared.polls.check_invariants();
        shared.check_polls();
        protocols
            .socketio
            .check_invariants(|session| shared.sessions.get(session).serial == session.serial);
    }
}

impl Shared {
    fn is_live(&self, index: u32) -> bool {
        self.sessions.at(index).serial != 0
    }

    /// Every subscriber is a live session.
    fn check_subscribers(&self) {
        for (topic, _) in Kind::ALL.iter().flat_map(|kind| self.channels.topics(*kind)) {
            let mut subscribers = self.channels.subscribers(topic);
            assert!(
                subscribers.all(|session| self.is_live(session)),
                "an ended session is still subscribed to {:?}",
                self.channels.name(topic).escape_ascii().to_string()
            );
        }
    }

    /// Every label belongs to a live session.
    fn check_labels(&self) {
        self.labels.check_invariants();
        for session in self.labels.sessions() {
            assert!(self.is_live(session), "session {session} has ended but still has a label");
        }
    }

    /// Every use of a User-Agent is that of a live session with a connection.
    fn check_agents(&self) {
        let sessions = (0..self.sessions.places()).map(|index| self.sessions.at(index));
        self.agents.check_invariants(sessions.map(|session| self.sessions.get(session).agent));
    }

    /// Each session with the flag WAITING is in exactly one queue, and no other live session is.
    fn check_waiting(&self) {
        let queues = [&self.publishers, &self.large_publishers, &self.searchers];
        let queued: Vec<SessionId> = queues.iter().flat_map(|waiting| waiting.sessions()).collect();
        let live: HashSet<SessionId> =
            queued.iter().copied().filter(|id| self.sessions.get(*id).serial != 0).collect();
        let unique: HashSet<SessionId> = queued.iter().copied().collect();
        assert_eq!(unique.len(), queued.len(), "a session is queued twice");
        for id in (0..self.sessions.places()).map(|index| self.sessions.at(index)) {
            let own = self.sessions.get(id);
            assert_eq!(
                own.is(WAITING),
                live.contains(&id),
                "{id:?}: the flag WAITING and the queues disagree"
            );
            assert!(
                !own.is(WAITING) || !own.is(RESUMED),
                "{id:?} has both flags, WAITING and RESUMED"
            );
        }
        queues.iter().for_each(|waiting| waiting.check_invariants());
    }

    /// The history of closed sessions is bounded and contains no live session.
    fn check_history(&self) {
        assert!(
            self.history.closed.len() <= CLOSED_KEPT,
            "the history holds more than {CLOSED_KEPT} sessions"
        );
        let all = (0..self.sessions.places()).map(|index| self.sessions.at(index));
        let live: HashSet<u32> = all
            .filter(|session| self.sessions.get(*session).destination().is_some())
            .map(|session| session.serial)
            .collect();
        assert!(
            self.history.closed.iter().all(|closed| !live.contains(&closed.serial)),
            "the history of closed sessions contains a live session"
        );
    }

    /// Each session that waits to authenticate is live.
    fn check_guesses(&self) {
        self.access.guesses.check_invariants();
        assert!(
            self.access.guesses.sessions().all(|session| self.sessions.get(session).serial != 0),
            "a refused session has ended"
        );
    }

    /// Each kept result of a walk and each unfinished command belongs to a live session.
    fn check_walks(&self, resp: &Resp) {
        assert!(
            resp.senders().all(|sender| self.sessions.get(sender).serial != 0),
            "an unfinished command is kept for an ended session"
        );
        let mut askers = resp.askers();
        assert!(
            askers.all(|asker| self.sessions.get(asker).serial != 0),
            "the result of a walk is kept for an ended session"
        );
        let mut served = resp.in_slices();
        assert!(
            served.all(|session| self.sessions.get(session).serial != 0),
            "a command of an ended session is partly served"
        );
    }

    /// Each session without a connection is about to leave.
    fn check_leaving(&self) {
        for session in (0..self.sessions.places()).map(|index| self.sessions.at(index)) {
            let own = self.sessions.get(session);
            assert!(
                own.serial == 0 || own.destination().is_some() || self.leaving.contains(session),
                "{session:?} has ended and is kept"
            );
        }
    }

    /// Each client that polls is a live session that knows it.
    fn check_polls(&self) {
        for (number, client) in self.polls.iter() {
            let destination = self.sessions.get(client.session).destination();
            assert_eq!(
                destination,
                Some(Destination::Poll(number)),
                "a client that polls is not known"
            );
        }
    }

    /// Each open connection has a session. Each attached session has a connection in `held`.
    pub(super) fn check_connections(&self, held: &[(ConnectionId, bool)]) {
        let mut attached = 0;
        for (connection, is_open) in held {
            let has_session = self.sessions.of(*connection) != SessionId::NONE;
            assert!(has_session || !is_open, "{connection:?} is open but has no session");
            attached += usize::from(has_session);
        }
        assert_eq!(
            self.sessions.attached(),
            attached,
            "a session is attached to a connection that does not exist"
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::channels::Kind;
    use crate::hub::tests::{disconnect, exchange, hub, subscribe, turn};
    use crate::limits::{BACKLOG_MAX, WALK_STEPS_PER_TURN};
    use crate::service::{Service, Taken};

    #[test]
    fn the_result_of_a_walk_is_dropped_when_its_asker_ends() {
        let mut hub = hub(WALK_STEPS_PER_TURN as u32 + 10);
        assert_eq!(exchange(&mut hub, 0, b"CLIENT KILL ID 99999999\r\n").1, Taken::Later);
        // The first turn has no steps left, and the second one ends the walk.
        (0..2).for_each(|_| drop(turn(&mut hub, 10, 1 << 20)));
        assert_eq!(hub.protocols.resp.askers().count(), 1, "the walk has ended");
        disconnect(&mut hub, 0);
        hub.check_invariants();
    }

    #[test]
    fn a_session_that_ends_while_its_publish_waits_leaves_nothing_behind() {
        let mut hub = hub(4);
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        for connection in 1..4 {
            assert_eq!(exchange(&mut hub, connection, b"PUBLISH a x\r\n").1, Taken::Later);
        }
        (0..3).for_each(|connection| disconnect(&mut hub, connection));
        hub.check_invariants();
        turn(&mut hub, 10, 1 << 20);
        assert_eq!(exchange(&mut hub, 3, b"PUBLISH a x\r\n").1, Taken::Message(13));
        disconnect(&mut hub, 3);
        hub.check_invariants();
        assert_eq!((hub.shared.sessions.len(), hub.shared.fanout.has_output()), (0, false));
    }
}
