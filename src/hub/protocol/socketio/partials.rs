//! Events and acknowledgements whose attachments have not all arrived.
//!
//! The loop knows nothing of them, so they have a deadline and a bound of their own: each must be
//! complete within `message-timeout`, and when all together hold too much, the oldest goes.

use std::collections::{HashMap, VecDeque};

use crate::clock::Tick;
use crate::connection::Reason;
use crate::hub::sessions::SessionId;
use crate::limits::{Limits, PARTIALS_SHARE, SPARE_PARTIALS};

/// A packet whose attachments have not all arrived.
pub struct Partial {
    /// The packet itself.
    pub text: Box<[u8]>,
    /// The attachments so far.
    pub attachments: Vec<Box<[u8]>>,
    /// Number of attachments in all.
    pub wanted: usize,
    /// Bytes of the text and the attachments.
    pub length: usize,
    /// When the packet came.
    pub since: Tick,
}

/// The partial packets of all clients. A client has one at most.
#[derive(Default)]
pub struct Partials {
    by_client: HashMap<SessionId, Partial>,
    /// The clients in the order of their packets, with the time of each. Packets that are complete
    /// stay in the list for a while.
    order: VecDeque<(Tick, SessionId)>,
    /// Bytes of all packets.
    held: usize,
}

impl Partials {
    pub fn has(&self, client: SessionId) -> bool {
        !self.by_client.is_empty() && self.by_client.contains_key(&client)
    }

    /// Keeps a packet until more of it arrives. `is_new`: its time has just begun.
    pub fn keep(&mut self, client: SessionId, partial: Partial, is_new: bool) {
        if is_new {
            if self.order.len() > 2 * self.by_client.len() + SPARE_PARTIALS {
                let by_client = &self.by_client;
                self.order.retain(|(since, one)| {
                    by_client.get(one).is_some_and(|partial| partial.since == *since)
                });
            }
            self.order.push_back((partial.since, client));
        }
        self.held += partial.length;
        self.by_client.insert(client, partial);
    }

    /// Returns the clients that have one. For tests.
    pub fn clients(&self) -> impl Iterator<Item = &SessionId> {
        self.by_client.keys()
    }

    /// Takes the packet of a client.
    pub fn take(&mut self, client: SessionId) -> Option<Partial> {
        if self.by_client.is_empty() {
            return None;
        }
        let partial = self.by_client.remove(&client)?;
        self.held -= partial.length;
        Some(partial)
    }

    /// Returns a client that must end, and why: its packet is too late, or the oldest of too many.
    /// The caller ends it, which takes its packet.
    pub fn next_overdue(&mut self, now: Tick, limits: &Limits) -> Option<(SessionId, Reason)> {
        while let Some((since, client)) = self.order.front().copied() {
            let is_live = self.by_client.get(&client).is_some_and(|own| own.since == since);
            let due = due(since, limits);
            if is_live && due.is_some_and(|due| due.distance_from(now) <= 0) {
                return Some((client, Reason::MessageTimeout));
            }
            if is_live && self.held > limits.memory_budget / PARTIALS_SHARE {
                return Some((client, Reason::MemoryBudget));
            }
            if is_live {
                return None;
            }
            self.order.pop_front();
        }
        None
    }

    /// Returns when [`Self::next_overdue`] must be asked at the latest.
    pub fn wakes_at(&self, limits: &Limits) -> Option<Tick> {
        due(self.order.front()?.0, limits)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.by_client.capacity() * size_of::<(SessionId, Partial)>()
            + self.order.capacity() * size_of::<(Tick, SessionId)>()
            + self.held
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.by_client.shrink_to_fit();
        self.order.shrink_to_fit();
    }
}

/// Returns the deadline of a packet, if there is one.
fn due(since: Tick, limits: &Limits) -> Option<Tick> {
    let timeout = limits.message_timeout;
    (!timeout.is_zero()).then(|| since.plus(Tick::count(timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn client(index: u32) -> SessionId {
        SessionId { index, serial: index + 1 }
    }

    fn partial(since: Tick, length: usize) -> Partial {
        Partial { text: Box::default(), attachments: Vec::new(), wanted: 2, length, since }
    }

    #[test]
    fn the_oldest_packet_is_overdue_by_time_and_beyond_the_share_of_the_memory() {
        let timeout = Duration::from_secs(1);
        let memory_budget = 100 * PARTIALS_SHARE;
        let limits = Limits { message_timeout: timeout, memory_budget, ..Limits::default() };
        let mut partials = Partials::default();
        partials.keep(client(1), partial(Tick(0), 50), true);
        partials.keep(client(2), partial(Tick(1), 50), true);
        assert_eq!(partials.next_overdue(Tick(1), &limits), None, "at the limit");
        partials.keep(client(3), partial(Tick(1), 1), true);
        assert_eq!(
            partials.next_overdue(Tick(1), &limits),
            Some((client(1), Reason::MemoryBudget))
        );
        assert!(partials.take(client(1)).is_some());
        assert_eq!(partials.next_overdue(Tick(1), &limits), None);
        let due = partials.wakes_at(&limits).unwrap();
        assert_eq!(partials.next_overdue(Tick(due.0 - 1), &limits), None);
        let overdue = Some((client(2), Reason::MessageTimeout));
        assert_eq!(partials.next_overdue(due, &limits), overdue);
    }

    #[test]
    fn packets_that_are_complete_leave_nothing_behind() {
        let limits = Limits::default();
        let mut partials = Partials::default();
        partials.keep(client(0), partial(Tick(0), 1), true);
        for round in 1..10_000 {
            partials.keep(client(1), partial(Tick(round), 10), true);
            assert!(partials.take(client(1)).is_some());
        }
        assert!(partials.order.len() <= 2 + SPARE_PARTIALS + 1);
        assert_eq!(partials.held, 1);
        assert!(partials.take(client(0)).is_some());
        assert_eq!(partials.next_overdue(Tick(0), &limits), None);
        assert!(partials.order.is_empty() && partials.wakes_at(&limits).is_none());
    }
}
