//! Long commands of pub/sub, served slice by slice.
//!
//! A SUBSCRIBE may have more names than a turn has time for, and its confirmations may be more than
//! its client reads at a time. Each slice serves the first names of the command and uses their
//! bytes. The rest of the command stays in the connection's input. So the loop treats a slice like
//! a message: it stops at the budgets of the turn, and while the client does not read.
//!
//! The subscriptions that a command ends without names, and RESET, take no bytes of the command.
//! They are counted in slices, too.

use std::collections::HashMap;

use super::{Call, MUTE, Resp, RespState, SlicedWork, pubsub};
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::sessions::SessionId;
use crate::hub::subscriptions::{release_table, table_bytes};
use crate::limits::{SLICE_BYTES, SLICE_NAMES, SLICE_PATTERNS, SLICE_STEPS};
use crate::service::server::Server;
use crate::service::{Reply, Taken};

/// A command of which a part is served.
#[derive(Clone, Copy)]
struct Running {
    work: SlicedWork,
    is_inline: bool,
    /// Number of bytes of the command that are not used yet.
    left: usize,
}

/// The commands of which a part is served, by session.
#[derive(Default)]
pub struct Slices(HashMap<SessionId, Running>);

impl Slices {
    /// Drops the command of a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        if !self.0.is_empty() && self.0.remove(&session).is_some() {
            release_table(&mut self.0);
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes(&self.0)
    }

    /// Returns the sessions with such a command.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.0.keys().copied()
    }
}

impl Call<'_, '_> {
    /// Returns true if a command with this many names must be served in slices.
    pub fn is_long(&self, names: usize) -> bool {
        self.length > 0 && (names > SLICE_NAMES || self.length > SLICE_BYTES && names > 1)
    }

    /// Serves the command in slices, beginning after this call.
    pub fn begin(&mut self, work: SlicedWork) {
        self.begun = Some(work);
    }
}

impl Resp {
    /// Begins to serve a complete command in slices. It stands behind `blanks` bytes of input.
    pub(super) fn begin(
        &mut self,
        session: SessionId,
        work: SlicedWork,
        blanks: usize,
        command: &[u8],
    ) -> Taken {
        let used = match work {
            SlicedWork::Names { .. } => self.parser.first_bytes(command),
            SlicedWork::All { .. } | SlicedWork::Reset => 0,
        };
        let is_inline = command.first() != Some(&b'*');
        let running = Running { work, is_inline, left: command.len() - used };
        self.slices.0.insert(session, running);
        Taken::Part(blanks + used)
    }

    /// Serves the next slice of a session's command. Returns `None` if it has none, or if the
    /// command can now run as a whole.
    pub(super) fn go_on(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        input: &[u8],
        reply: &mut Reply<'_>,
        server: &dyn Server,
    ) -> Option<Taken> {
        if self.slices.0.is_empty() {
            return None;
        }
        let Running { work, is_inline, left } = self.slices.0.get_mut(&session)?;
        let Shared { searchers, sessions, fanout, .. } = shared;
        if searchers.must_wait(sessions, session, fanout.has_searched_enough()) {
            return Some(Taken::Later);
        }
        fanout.note_searched(SLICE_STEPS);
        let rest = input.get(..*left).unwrap_or(input);
        let out = reply.bytes_mut();
        let (used, goes_on) = match work {
            SlicedWork::Names { kind, subscribes } => {
                let names = match kind {
                    Kind::Pattern => SLICE_PATTERNS,
                    _ => SLICE_NAMES,
                };
                let part = self.parser.parse_rest(rest, *is_inline, names, SLICE_BYTES);
                let (names, used) = part.unwrap_or_default();
                let served = pubsub::serve(shared, server, session, *kind, *subscribes, names, out);
                if let Err(refused) = &served
                    && RespState::of(&shared.sessions.get(session)).flags & MUTE == 0
                {
                    pubsub::refuse(refused, server.limits(), out);
                }
                (used, served.is_ok() && (1..rest.len()).contains(&used))
            }
            SlicedWork::All { kind, next } => {
                (0, pubsub::end_some(shared, session, *kind, next, SLICE_NAMES, out))
            }
            SlicedWork::Reset => {
                shared.deliver_now(session, out);
                let goes_on =
                    shared.channels.close_some(&shared.sessions, session.index, SLICE_NAMES);
                if !goes_on {
                    self.slices.closed(session);
                    return None;
                }
                (0, true)
            }
        };
        if goes_on {
            *left -= used;
            return Some(Taken::Part(used));
        }
        let length = rest.len();
        self.slices.closed(session);
        Some(Taken::Message(length))
    }
}
