//! Server-sent events: sessions that only listen. Their messages come from fan-out, and comments
//! keep their streams alive.

use crate::clock::Tick;
use crate::codec::events;
use crate::hub::Shared;
use crate::hub::sessions::{Session, SessionId};
use crate::limits::Limits;
use crate::service::Reply;
use crate::service::server::Server;

/// Begins a stream, behind the head of its answer.
pub fn begin(shared: &mut Shared, session: SessionId, reply: &mut Reply<'_>, server: &dyn Server) {
    // The clock of the stream runs from its start, not from that of the connection.
    let now = reply.now.tick();
    if let Some(own) = shared.sessions.get_mut(session) {
        own.protocol_state = intervals(own, now, server.limits()) as u8;
    }
    let due = wakes(&shared.sessions.get(session), now, server.limits());
    due.into_iter().for_each(|due| reply.wake_by(due));
}

/// Returns the number of whole intervals since a session began.
fn intervals(session: &Session, now: Tick, limits: &Limits) -> u32 {
    let interval = Tick::count(limits.event_interval).max(1);
    now.distance_from(session.since).max(0) as u32 / interval
}

/// Returns when the next comment is due. The state counts the intervals that have passed, in one
/// byte.
pub fn wakes(session: &Session, now: Tick, limits: &Limits) -> Option<Tick> {
    if limits.event_interval.is_zero() {
        return None;
    }
    let passed = intervals(session, now, limits);
    let behind = u32::from((passed as u8).wrapping_sub(session.protocol_state));
    let next = passed - behind.min(passed) + 1;
    Some(session.since.plus(next * Tick::count(limits.event_interval)))
}

/// Sends a comment.
pub fn wake(shared: &mut Shared, session: SessionId, reply: &mut Reply<'_>, server: &dyn Server) {
    let now = reply.now.tick();
    if let Some(own) = shared.sessions.get_mut(session) {
        own.protocol_state = intervals(own, now, server.limits()) as u8;
        reply.send(events::COMMENT);
    }
}
