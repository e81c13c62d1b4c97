//! The hub's verbs as a peer asks for them: publish, subscribe, log in. They check the hub's
//! limits, and say in plain text why they refuse. Each protocol puts that text into its own form.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Shared;
use super::access::{self, Attempt};
use super::channels::{Kind, LimitReached, Refused, TopicLimits};
use super::encoding::CatchUpForm;
use super::sessions::{OPERATOR, RETAINED, SessionId};
use crate::clock::Time;
use crate::connection::Reason;
use crate::limits::{Limits, SHARE};
use crate::service::server::Server;

/// The outcome of a verb that may have to wait. After [`VerbResult::Later`], the same bytes are
/// passed again.
#[derive(Debug, PartialEq, Eq)]
pub enum VerbResult<T> {
    Done(T),
    Later,
    Refused(String),
}

impl Shared {
    /// Publishes a message of a session whose protocol has no transactions. Returns the number of
    /// receivers.
    pub fn publish_from(
        &mut self,
        session: SessionId,
        channel: &[u8],
        payload: &[u8],
        server: &dyn Server,
    ) -> VerbResult<usize> {
        if let Some(error) = too_long(Kind::Channel, channel, server.limits()) {
            return VerbResult::Refused(error);
        }
        let is_busy = self.is_held_up || self.fanout.is_backlogged();
        if self.publishers.must_wait(&mut self.sessions, session, is_busy)
            || self.must_pace(session, Kind::Channel, channel, payload)
        {
            return VerbResult::Later;
        }
        self.publish_now(session, channel, payload, server)
    }

    /// Publishes a message of a session, however large the backlog is.
    pub fn publish_now(
        &mut self,
        session: SessionId,
        channel: &[u8],
        payload: &[u8],
        server: &dyn Server,
    ) -> VerbResult<usize> {
        match self.publish(channel, payload) {
            Ok(receivers) => {
                if self.has_monitors() {
                    self.show(session, server, [&b"PUBLISH"[..], channel, payload].into_iter());
                }
                VerbResult::Done(receivers)
            }
            Err(unpublished) => VerbResult::Refused(unpublished.text(channel)),
        }
    }

    /// Returns true if a command of a session that searches or compiles patterns must wait for the
    /// next turn.
    pub fn must_wait_to_search(&mut self, session: SessionId) -> bool {
        let is_used_up = self.has_asked_enough();
        self.searchers.must_wait(&mut self.sessions, session, is_used_up)
    }

    /// Subscribes a session to one name. Its pending messages are appended to `out` first. Returns
    /// true if the subscription is new.
    pub fn subscribe_to(
        &mut self,
        session: SessionId,
        kind: Kind,
        name: &[u8],
        server: &dyn Server,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        if let Some(error) = too_long(kind, name, server.limits()) {
            return Err(error);
        }
        let mut limits = TopicLimits::of(server.limits());
        self.subscribe_within(session, kind, name, &mut limits, server, out)
            .map_err(|refused| too_many(&refused, server.limits()))
    }

    /// Subscribes a session to one name. A trusted source may have more than its share. The kernel
    /// is asked for the address only when that matters.
    pub fn subscribe_within(
        &mut self,
        session: SessionId,
        kind: Kind,
        name: &[u8],
        limits: &mut TopicLimits,
        server: &dyn Server,
        out: &mut Vec<u8>,
    ) -> Result<bool, Refused> {
        let refused = match self.subscribe(session, kind, name, limits, out) {
            Err(refused) if refused.by_share => refused,
            other => return other,
        };
        let peer = self.peer(session, server);
        limits.is_trusted =
            peer.is_some_and(|peer| server.limits().trusted_sources.contain(peer.ip()));
        match limits.is_trusted {
            true => self.subscribe(session, kind, name, limits, out),
            false => Err(refused),
        }
    }

    /// Sets whether new subscriptions of a session begin with the kept messages of their channel.
    pub fn set_retained(&mut self, session: SessionId, on: bool) {
        if let Some(own) = self.sessions.get_mut(session) {
            own.put(RETAINED, on);
        }
    }

    /// Gives a session the kept messages of a channel before its later ones. The session has just
    /// subscribed to the channel.
    pub fn catch_up(&mut self, session: SessionId, channel: &[u8], form: CatchUpForm) {
        let log = self.retained.find(channel).filter(|log| !self.retained.has_none(*log));
        let topic = self.channels.topic(Kind::Channel, channel);
        if let (Some(log), Some(topic)) = (log, topic)
            && self.channels.is_member(session.index, topic)
        {
            let mute = self.fanout.mutes.begin(session.index, topic);
            self.retained.join(log);
            self.catch_ups.begin(session, log, mute, form);
        }
    }

    /// Checks the password of an unauthenticated session. The answer to a wrong one may have to
    /// wait, and then the password is not checked again.
    pub fn log_in(
        &mut self,
        session: SessionId,
        user: Option<&[u8]>,
        password: &[u8],
        now: Time,
        server: &mut dyn Server,
    ) -> VerbResult<Attempt> {
        if self.access.guesses.is_due(session) {
            return VerbResult::Done(Attempt::Wrong);
        }
        let attempt = self.access.attempt(user, password);
        if attempt == Attempt::Right {
            self.access.guesses.forget(session);
        }
        // An authenticated client knows the password, so it need not guess.
        if attempt == Attempt::Wrong && !self.is_authenticated(session) {
            self.note_refused(session, server);
            if self.access.guesses.is_answered_later(session, password, now) {
                return VerbResult::Later;
            }
        }
        VerbResult::Done(attempt)
    }

    /// Notes that an unauthenticated client was refused, and closes another connection of its
    /// source if there are too many.
    pub fn note_refused(&mut self, session: SessionId, server: &mut dyn Server) {
        if self.access.guesses.knows(session) {
            return;
        }
        let address =
            self.peer(session, server).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let source = access::source(address, self.sessions.get(session).is(OPERATOR));
        let most = server.limits().max_unauthenticated_per_source;
        let evicted = self.access.guesses.refuse(source, session, most);
        if let Some(connection) = evicted.and_then(|worst| self.sessions.get(worst).connection()) {
            server.kill(connection, Reason::Unauthenticated);
        }
    }

    /// Returns a session's peer address. Asks the kernel unless it is an IPv4 address.
    pub fn peer(&self, session: SessionId, server: &dyn Server) -> Option<SocketAddr> {
        let own = self.sessions.get(session);
        own.peer().or_else(|| server.peer(own.connection()?))
    }
}

/// Returns the error for a name or pattern that is too long.
pub fn too_long(kind: Kind, name: &[u8], limits: &Limits) -> Option<String> {
    let (what, most, setting) = match kind {
        Kind::Pattern => ("pattern", limits.max_pattern, "max-pattern"),
        _ => ("channel name", limits.max_channel_name, "max-channel-name"),
    };
    let length = name.len();
    (length > most).then(|| {
        format!("the {what} has {length} bytes; accepted: up to {most} bytes (--{setting})")
    })
}

/// Returns the error for a subscription beyond a limit.
pub fn too_many(refused: &Refused, limits: &Limits) -> String {
    let (most, what, setting) = match refused.limit {
        LimitReached::PatternsOfSession => (
            limits.max_patterns_per_connection,
            "patterns per connection",
            "max-patterns-per-connection",
        ),
        LimitReached::Patterns => (limits.max_patterns, "patterns in total", "max-patterns"),
        LimitReached::OtherPatterns => {
            (limits.max_other_patterns, "patterns of this form in total", "max-other-patterns")
        }
        LimitReached::Channels => (limits.max_channels, "channels in total", "max-channels"),
        LimitReached::Memory => {
            (limits.subscription_memory, "bytes of memory in total", "subscription-memory")
        }
    };
    match refused.by_share {
        false => format!("too many subscriptions; the limit is {most} {what} (--{setting})"),
        true => format!(
            "too many subscriptions from this address; it may have {SHARE} times what is left of \
             {most} {what} (--{setting})"
        ),
    }
}
