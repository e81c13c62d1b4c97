//! Clients that poll: their output waits here, because no connection is theirs.
//!
//! The output of each such client has [`Destination::Poll`](super::sessions::Destination). Fan-out
//! and replies append to it. A poll is an HTTP request on a connection of any session: it takes all
//! that waits, or waits itself until something does.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::sessions::SessionId;
use crate::clock::Tick;
use crate::limits::POLLS_LOOKED_AT;
use crate::timer::TimerWheel;

/// A client that polls, in 40 bytes.
pub struct PollClient {
    /// The first session of the client.
    pub session: SessionId,
    /// The session whose request waits for output, or [`SessionId::NONE`].
    pub poll: SessionId,
    /// The WebSocket that is to replace the polls, or [`SessionId::NONE`].
    pub probe: SessionId,
    /// When the last output was taken.
    seen: Tick,
    /// Output that waits.
    #[expect(clippy::box_collection, reason = "most clients have none, and a Vec has 24 bytes")]
    out: Option<Box<Vec<u8>>>,
}

const _: () = assert!(size_of::<PollClient>() == 40);

/// A request that waits for output.
pub struct WaitingPoll {
    /// The client, by its number.
    pub client: u32,
    /// The head of the answer, up to the value of its last field, Content-Length.
    pub head: Box<[u8]>,
    /// True if the connection closes behind the answer.
    pub closes: bool,
}

/// All clients that poll, by number.
#[derive(Default)]
pub struct PollClients {
    clients: Slab<PollClient>,
    /// By the session of its connection: a request that waits.
    waiting: HashMap<SessionId, WaitingPoll>,
    /// Clients that may have output for a request that waits.
    ready: VecDeque<u32>,
    /// Clients that are to end, because they have more output than they may have, or as an operator
    /// wants it.
    doomed: Vec<SessionId>,
    /// The time of this turn.
    pub now: Tick,
    /// When each client wants to be woken. Made for the first client.
    timers: Option<TimerWheel>,
    /// Output that a client may have, in bytes. `None` before the first turn.
    most: Option<usize>,
    /// Bytes of waiting output, with its unused capacity.
    held: usize,
    /// The client at which the next look at some begins.
    looked_at: usize,
    /// Places of the table that were taken since it shrank. Those beyond them are vacant.
    places: usize,
}

impl PollClients {
    /// Adds a client. Returns its number.
    pub fn add(&mut self, session: SessionId) -> u32 {
        let (poll, probe, seen) = (SessionId::NONE, SessionId::NONE, self.now);
        grow_by_an_eighth(&mut self.clients);
        let number = self.clients.insert(PollClient { session, poll, probe, seen, out: None });
        self.places = self.places.max(number + 1);
        number as u32
    }

    /// Returns the number that the next client gets.
    pub fn next(&self) -> u32 {
        self.clients.vacant_key() as u32
    }

    pub fn get(&self, client: u32) -> Option<&PollClient> {
        self.clients.get(client as usize)
    }

    pub fn get_mut(&mut self, client: u32) -> Option<&mut PollClient> {
        self.clients.get_mut(client as usize)
    }

    /// Removes a client. Returns it with the head of the answer to its request that waits, if one
    /// does, and its output.
    pub fn remove(&mut self, client: u32) -> Option<(PollClient, Option<WaitingPoll>, Vec<u8>)> {
        let mut gone = self.clients.try_remove(client as usize)?;
        self.timers.iter_mut().for_each(|timers| timers.disarm(client));
        let out = gone.out.take().map(|out| *out).unwrap_or_default();
        self.held -= out.capacity();
        let poll = self.waiting.remove(&gone.poll);
        Some((gone, poll, out))
    }

    /// Sets the output that a client may have, in bytes.
    pub fn set_most(&mut self, most: usize) {
        self.most = Some(most);
    }

    /// Appends packets, each behind a separator, to the output of a client.
    pub fn put_out(&mut self, client: u32, packets: &[u8]) {
        self.append(client, |out| out.extend_from_slice(packets));
    }

    /// Appends what `write` writes to the output of a client.
    pub fn append<T>(&mut self, client: u32, write: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
        let own = self.clients.get_mut(client as usize)?;
        let mut out = own.out.take().unwrap_or_default();
        let before = out.capacity();
        let result = write(&mut out);
        self.held = self.held + out.capacity() - before;
        if self.most.is_some_and(|most| out.len() > most) {
            self.doomed.push(own.session);
        }
        if !out.is_empty() {
            own.out = Some(out);
            if own.poll != SessionId::NONE {
                self.ready.push_back(client);
            }
        } else {
            self.held -= out.capacity();
        }
        Some(result)
    }

    /// Returns the bytes of output that wait for a client.
    pub fn waits(&self, client: u32) -> usize {
        self.get(client).and_then(|own| own.out.as_ref()).map_or(0, |out| out.len())
    }

    /// Returns the bytes of all output that waits.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the session of the client that has most output among the next ones in the table.
    pub fn most_owed(&mut self) -> Option<SessionId> {
        let owed = |own: &&PollClient| own.out.as_ref().map_or(0, |out| out.capacity());
        let most = self.next_looked_at().map(|(_, own)| own).max_by_key(owed)?;
        (owed(&most) > 0).then_some(most.session)
    }

    /// Takes all output of a client.
    pub fn take(&mut self, client: u32) -> Vec<u8> {
        let now = self.now;
        let out = self.get_mut(client).and_then(|own| {
            own.seen = now;
            own.out.take()
        });
        let out = out.map(|out| *out).unwrap_or_default();
        self.held -= out.capacity();
        out
    }

    /// Makes a request of a session wait for output.
    pub fn wait(&mut self, session: SessionId, poll: WaitingPoll) {
        if let Some(own) = self.get_mut(poll.client) {
            own.poll = session;
            self.waiting.insert(session, poll);
        }
    }

    /// Ends the wait of a client's request, if one waits. Returns it with the session that sent it.
    pub fn end_wait(&mut self, client: u32) -> Option<(SessionId, WaitingPoll)> {
        let now = self.now;
        let own = self.get_mut(client)?;
        own.seen = now;
        let session = std::mem::replace(&mut own.poll, SessionId::NONE);
        Some((session, self.waiting.remove(&session)?))
    }

    /// Returns true if a request of a client waits.
    pub fn is_waiting(&self, client: u32) -> bool {
        self.get(client).is_some_and(|own| own.poll != SessionId::NONE)
    }

    /// Returns the client that has not polled for longest, among the next ones in the table. One
    /// whose request waits is there.
    pub fn longest_absent(&mut self) -> Option<u32> {
        let now = self.now;
        let absent = self.next_looked_at().filter(|(_, own)| own.poll == SessionId::NONE);
        let longest = absent.max_by_key(|(_, own)| now.distance_from(own.seen))?;
        Some(longest.0 as u32)
    }

    /// Returns the next clients in the table, with their numbers. To look at all takes too long.
    fn next_looked_at(&mut self) -> impl Iterator<Item = (usize, &PollClient)> {
        let places = self.places.max(1);
        let from = self.looked_at;
        self.looked_at = (from + POLLS_LOOKED_AT) % places;
        let next = (from..from + POLLS_LOOKED_AT).map(move |at| at % places);
        next.filter_map(|at| Some((at, self.clients.get(at)?)))
    }

    /// Returns the request of a session that waits.
    pub fn waiting(&self, session: SessionId) -> Option<&WaitingPoll> {
        if self.waiting.is_empty() { None } else { self.waiting.get(&session) }
    }

    /// Takes a client whose request may be answered.
    pub fn next_ready(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// Notes that a client's request may be answered in the next turn.
    pub fn put_ready(&mut self, client: u32) {
        self.ready.push_front(client);
    }

    /// Ends a client at the end of the turn.
    pub fn doom(&mut self, session: SessionId) {
        self.doomed.push(session);
    }

    /// Takes the session of a client that is to end.
    pub fn next_doomed(&mut self) -> Option<SessionId> {
        self.doomed.pop()
    }

    /// Arms the timer of a client, at the latest at this time.
    pub fn arm_by(&mut self, client: u32, due: Tick, now: Tick) {
        self.timers.get_or_insert_with(|| TimerWheel::new(0, now)).arm_by(client, due);
    }

    /// Takes a client whose timer has fired.
    pub fn next_woken(&mut self, now: Tick) -> Option<u32> {
        self.timers.as_mut()?.poll_expired(now)
    }

    /// Returns when the next timer fires.
    pub fn wakes_at(&self) -> Option<Tick> {
        self.timers.as_ref()?.next_fires()
    }

    /// Returns the memory that does not depend on the number of clients, in bytes.
    pub fn fixed_bytes(&self) -> usize {
        self.timers.as_ref().map_or(0, TimerWheel::fixed_bytes)
    }

    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.doomed.is_empty()
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let heads = self.waiting.len() * WAITING_HEAD_BYTES;
        self.clients.capacity() * size_of::<PollClient>()
            + self.waiting.capacity() * size_of::<(SessionId, WaitingPoll)>()
            + self.ready.capacity() * size_of::<u32>()
            + self.doomed.capacity() * size_of::<SessionId>()
            + heads
            + self.timers.as_ref().map_or(0, TimerWheel::bytes)
            + self.held
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.clients.shrink_to_fit();
        self.places = self.clients.iter().next_back().map_or(0, |(number, _)| number + 1);
        if self.clients.is_empty() {
            self.timers.iter_mut().for_each(|timers| timers.truncate(0));
        }
        self.waiting.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.doomed.shrink_to_fit();
    }

    /// Panics unless the counts are right, and clients and their requests name each other. For
    /// tests.
    pub fn check_invariants(&self) {
        let capacity = |own: &PollClient| own.out.as_ref().map_or(0, |out| out.capacity());
        let held = self.clients.iter().map(|(_, own)| capacity(own)).sum::<usize>();
        assert_eq!(self.held, held, "the output of polls");
        for (session, poll) in &self.waiting {
            let own = self.get(poll.client);
            let is_own = own.is_some_and(|own| own.poll == *session);
            assert!(is_own, "a request waits for a client that does not know it");
        }
        for (number, own) in &self.clients {
            let is_known = own.poll == SessionId::NONE || self.waiting.contains_key(&own.poll);
            assert!(is_known, "client {number} has a request that does not wait");
            let fires = self.timers.as_ref().and_then(|timers| timers.fires(number as u32));
            assert!(fires.is_some(), "client {number} has no timer");
        }
    }

    /// Returns the clients, by number. For tests.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &PollClient)> {
        self.clients.iter().map(|(number, own)| (number as u32, own))
    }
}

/// About the length of the head of an answer, in bytes. Heads differ by their origin.
const WAITING_HEAD_BYTES: usize = 256;

/// Makes room for one more entry. A table of many clients must not double.
fn grow_by_an_eighth(clients: &mut Slab<PollClient>) {
    if clients.len() == clients.capacity() {
        clients.reserve_exact((clients.len() / 8).max(4));
    }
}
