//! The last sessions that ended, as CLIENT CLOSED lists them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::Shared;
use super::protocol;
use super::sessions::{PeerProtocol, SessionId};
use crate::limits::{CLOSED_KEPT, LABEL_MAX};
use crate::net::Transferred;
use crate::service::server::Parting;

/// A session that has ended.
pub struct Closed {
    pub serial: u32,
    pub peer: Option<SocketAddr>,
    pub age: Duration,
    pub transferred: Transferred,
    pub reason: &'static str,
    pub protocol: PeerProtocol,
    /// The path and the User-Agent of a client of HTTP, behind a blank. Empty for others.
    pub request: Box<str>,
}

/// The sessions that have ended, at most [`CLOSED_KEPT`].
#[derive(Default)]
pub struct History {
    /// Oldest first.
    pub closed: VecDeque<Closed>,
    /// Length of the texts in `closed`, in bytes.
    texts: usize,
    /// The path and User-Agent of sessions that close now.
    closing: HashMap<SessionId, Box<str>>,
}

impl History {
    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.closed.capacity() * size_of::<Closed>()
            + self.closing.capacity() * size_of::<(SessionId, Box<str>)>()
            + self.texts
    }
}

impl Shared {
    /// Keeps the path and User-Agent of a client of HTTP that closes, as long as its subscriptions
    /// are there.
    pub fn note_closing(&mut self, session: SessionId) {
        let own = self.sessions.get(session);
        let has_none = matches!(own.protocol, PeerProtocol::Unknown | PeerProtocol::Resp);
        if has_none || self.history.closing.contains_key(&session) {
            return;
        }
        let path = protocol::path_of(self, session);
        let agent = String::from_utf8_lossy(self.agents.get(own.agent));
        let text = format!(" path={path:.LABEL_MAX$} agent={agent}");
        self.history.closing.insert(session, text.into());
    }

    /// Adds a session that has ended to the history.
    pub fn remember_closed(&mut self, session: SessionId, parting: &Parting) {
        self.note_closing(session);
        let own = self.sessions.get(session);
        let History { closed, texts, closing } = &mut self.history;
        if closed.len() >= CLOSED_KEPT {
            *texts -= closed.pop_front().map_or(0, |first| first.request.len());
        }
        let Parting { peer, reason, transferred, now } = *parting;
        let request = closing.remove(&session).unwrap_or_default();
        *texts += request.len();
        closed.push_back(Closed {
            serial: own.serial,
            peer: own.peer().or(peer),
            age: own.age(now.tick()),
            transferred,
            reason,
            protocol: own.protocol,
            request,
        });
    }
}
