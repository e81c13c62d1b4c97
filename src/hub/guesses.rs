//! Wrong passwords: how late each is answered, and which unauthenticated connections make way.
//!
//! The hub checks every password as soon as it has read it, so the right one is accepted at once.
//! The answer to a wrong one comes late, and until then its connection is not read. Two rules set
//! the time of the answer:
//! - On its own connection, each further wrong password is answered later than the one before.
//! - All connections of a source together get at most [`GUESSES_PER_SECOND`] answers a second. A
//!   wrong password that the source repeats is not counted, because it reveals nothing new.
//!
//! A source is an address or network, as [`access`](super::access) defines it. Sources share a
//! table of fixed size. A keyed hash, which a peer cannot predict, gives each source its place.
//! Sources with the same place share its answers and its cap on connections.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::sessions::SessionId;
use crate::clock::{Tick, Time};
use crate::limits::{ANSWERED_PER_TURN, GUESS_PLACES, GUESSES_PER_SECOND, WRONG_DELAYS};

/// Time between two answers to the wrong passwords of one source.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / GUESSES_PER_SECOND as u64);

/// The wrong passwords of all sources.
#[derive(Default)]
pub struct Guesses {
    places: Places,
    /// The senders of datagrams have their own table. Their addresses can be forged, so they must
    /// not delay an answer to a connection.
    senders: Places,
    /// The sessions that have been refused and have not authenticated since, and their places.
    refused: HashMap<SessionId, u16>,
    /// The same sessions by place, in the order of their first refusal.
    groups: HashMap<u16, Vec<RefusedSession>>,
    /// The answers to come, by time.
    due: BTreeSet<(Time, u32, u32)>,
    /// Number of wrong passwords so far.
    pub wrong: u64,
}

/// A table of sources, allocated at the first wrong password.
#[derive(Default)]
struct Places {
    table: Vec<LastGuess>,
    hasher: RandomState,
}

/// The facts about the sources of one place.
#[derive(Clone, Copy, Default)]
struct LastGuess {
    /// When the next new guess may be answered.
    free_at: Time,
    /// A keyed hash of the last wrong password.
    last_wrong: u64,
}

/// A session that has been refused.
#[derive(Clone, Copy)]
struct RefusedSession {
    session: SessionId,
    /// Number of wrong passwords.
    wrong: u8,
    answer: AnswerTime,
}

/// The answer to the last wrong password of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerTime {
    Given,
    /// The answer waits until this time. `is_new`: it counts for the source.
    At(Time, bool),
    /// The command is about to run again, and to be answered.
    Due,
}

impl Guesses {
    /// Returns true if a session has been refused and has not authenticated since.
    pub fn knows(&self, session: SessionId) -> bool {
        self.refused.contains_key(&session)
    }

    /// Notes the first refusal of an unauthenticated session of a source. Of more than
    /// `most` such sessions, returns the one to close: that with the most wrong passwords, and of
    /// several the oldest.
    pub fn refuse(&mut self, source: u64, session: SessionId, most: usize) -> Option<SessionId> {
        let place = self.places.find(source);
        self.refused.insert(session, place);
        let group = self.groups.entry(place).or_default();
        // Of equal sessions, `max_by_key` returns the last, which is the oldest here.
        let worst = (group.len() >= most)
            .then(|| group.iter().rev().max_by_key(|one| one.wrong))
            .flatten()
            .map(|one| one.session);
        group.push(RefusedSession { session, wrong: 0, answer: AnswerTime::Given });
        if let Some(worst) = worst {
            self.forget(worst);
        }
        worst
    }

    /// Notes a wrong password of a session that [`Self::refuse`] knows. Returns true if its answer
    /// must wait until [`Self::collect`] names the session.
    pub fn is_answered_later(&mut self, session: SessionId, given: &[u8], now: Time) -> bool {
        self.wrong += 1;
        let Some(place) = self.refused.get(&session).copied() else { return false };
        let (is_new, free_at) = self.places.count(place, given, now);
        let Some(one) = self.group(place, session) else { return false };
        one.wrong = one.wrong.saturating_add(1);
        let delay = WRONG_DELAYS[usize::from(one.wrong - 1).min(WRONG_DELAYS.len() - 1)];
        let due = (now + delay).max(free_at);
        one.answer = if due > now { AnswerTime::At(due, is_new) } else { AnswerTime::Given };
        if due > now {
            self.due.insert((due, session.index, session.serial));
        }
        due > now
    }

    /// Returns true if the command of a session runs again only to be answered.
    pub fn is_due(&mut self, session: SessionId) -> bool {
        let Some(place) = self.refused.get(&session).copied() else { return false };
        let Some(one) = self.group(place, session) else { return false };
        let is_due = one.answer == AnswerTime::Due;
        if is_due {
            one.answer = AnswerTime::Given;
        }
        is_due
    }

    /// Forgets a session, because it has authenticated or ended.
    pub fn forget(&mut self, session: SessionId) {
        let Some(place) = self.refused.remove(&session) else { return };
        let Some(group) = self.groups.get_mut(&place) else { return };
        let Some(at) = group.iter().position(|one| one.session == session) else { return };
        let one = group.remove(at);
        if group.is_empty() {
            self.groups.remove(&place);
        }
        if let AnswerTime::At(due, is_new) = one.answer {
            self.due.remove(&(due, session.index, session.serial));
            // Another guess may have the answer that is not given.
            if is_new {
                self.places.give_back(place);
            }
        }
    }

    /// Returns true if a datagram's password may be checked. `sender` is its address with the
    /// port. A sender may guess wrong [`GUESSES_PER_SECOND`] times a second.
    pub fn hears(&mut self, sender: u64, now: Time) -> bool {
        self.senders.get(sender).is_none_or(|place| place.free_at <= now + Duration::from_secs(1))
    }

    /// Notes the wrong password of a datagram.
    pub fn wrong_by_datagram(&mut self, sender: u64, given: &[u8], now: Time) {
        self.wrong += 1;
        let place = self.senders.find(sender);
        self.senders.count(place, given, now);
    }

    /// Returns when [`Self::collect`] has an answer to give.
    pub fn wakes_at(&self) -> Option<Tick> {
        self.due.first().map(|(due, ..)| due.tick().plus(1))
    }

    /// Calls `resume` with each session whose answer is due, at most [`ANSWERED_PER_TURN`].
    pub fn collect(&mut self, now: Time, mut resume: impl FnMut(SessionId)) {
        for _ in 0..ANSWERED_PER_TURN {
            let Some(&(due, index, serial)) = self.due.first() else { return };
            if due > now {
                return;
            }
            self.due.pop_first();
            let session = SessionId { index, serial };
            let place = self.refused.get(&session).copied();
            if let Some(one) = place.and_then(|place| self.group(place, session)) {
                one.answer = AnswerTime::Due;
                resume(session);
            }
        }
    }

    fn group(&mut self, place: u16, session: SessionId) -> Option<&mut RefusedSession> {
        self.groups.get_mut(&place)?.iter_mut().find(|one| one.session == session)
    }

    /// Returns the number of sessions that have been refused and have not authenticated since.
    pub fn len(&self) -> usize {
        self.refused.len()
    }

    /// Returns the memory held for sessions, in bytes. A refused session takes at most an entry of
    /// each table; the tables keep twice the room.
    pub fn bytes(&self) -> usize {
        self.refused.capacity() * size_of::<(SessionId, u16)>()
            + self.groups.capacity() * size_of::<(u16, Vec<RefusedSession>)>()
            + self.refused.len() * 2 * size_of::<RefusedSession>()
            + self.due.len() * 2 * size_of::<(Time, u32, u32)>()
    }

    /// Returns the memory of the table of sources, in bytes.
    pub fn fixed_bytes(&self) -> usize {
        (self.places.table.capacity() + self.senders.table.capacity()) * size_of::<LastGuess>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.refused.shrink_to_fit();
        self.groups.shrink_to_fit();
    }

    /// Returns the sessions in the tables. For tests.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.refused.keys().copied()
    }

    /// Panics unless each refused session is in the group of its place, and each answer to come
    /// belongs to one. For tests.
    pub fn check_invariants(&self) {
        let grouped: usize = self.groups.values().map(Vec::len).sum();
        assert_eq!(grouped, self.refused.len(), "a refused session has no group, or two");
        let mut waiting = 0;
        for (place, group) in &self.groups {
            for one in group {
                assert_eq!(self.refused.get(&one.session), Some(place), "another place");
                if let AnswerTime::At(due, _) = one.answer {
                    let answer = (due, one.session.index, one.session.serial);
                    assert!(self.due.contains(&answer), "an answer is not scheduled");
                    waiting += 1;
                }
            }
        }
        assert_eq!(waiting, self.due.len(), "an answer belongs to no session");
    }
}

impl Places {
    fn find(&mut self, source: u64) -> u16 {
        if self.table.is_empty() {
            self.table = vec![LastGuess::default(); GUESS_PLACES];
        }
        (self.hasher.hash_one(source) as usize % GUESS_PLACES) as u16
    }

    /// Returns the place of a source, or `None` if there has been no wrong password.
    fn get(&self, source: u64) -> Option<&LastGuess> {
        self.table.get(self.hasher.hash_one(source) as usize % GUESS_PLACES)
    }

    /// Counts a wrong password for its place. Returns whether it is new there, and the earliest
    /// time of the answer.
    fn count(&mut self, place: u16, given: &[u8], now: Time) -> (bool, Time) {
        let hash = self.hasher.hash_one((place, given));
        let place = &mut self.table[usize::from(place)];
        if place.last_wrong == hash {
            return (false, now);
        }
        let earliest = place.free_at.max(now);
        *place = LastGuess { free_at: earliest + INTERVAL, last_wrong: hash };
        (true, earliest)
    }

    /// Takes back the answer to a new guess, because its session is gone. Another guess may have
    /// it.
    fn give_back(&mut self, place: u16) {
        let place = &mut self.table[usize::from(place)];
        let interval = INTERVAL.as_nanos() as u64;
        place.free_at = Time::from_nanos(place.free_at.as_nanos().saturating_sub(interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        SessionId { index: number, serial: number + 1 }
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// Lets a session guess. Returns the time of the answer in milliseconds, to within a tick.
    fn guess(guesses: &mut Guesses, number: u32, text: &str, now: Time) -> u64 {
        let session = session(number);
        if !guesses.knows(session) {
            assert_eq!(guesses.refuse(7, session, 5000), None);
        }
        let is_later = guesses.is_answered_later(session, text.as_bytes(), now);
        guesses.check_invariants();
        let one = guesses.groups.values().flatten().find(|one| one.session == session).unwrap();
        match one.answer {
            AnswerTime::At(due, _) => {
                assert!(is_later);
                due.as_nanos() / 1_000_000
            }
            _ => now.as_nanos() / 1_000_000,
        }
    }

    /// Gives all answers that are due. Returns their sessions.
    fn collect(guesses: &mut Guesses, now: Time) -> Vec<u32> {
        let mut answered = Vec::new();
        guesses.collect(now, |session| answered.push(session.index));
        answered.iter().for_each(|number| assert!(guesses.is_due(session(*number))));
        answered
    }

    #[test]
    fn each_further_wrong_password_of_a_connection_is_answered_later() {
        let mut guesses = Guesses::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for number in 0..9 {
            let due = guess(&mut guesses, 1, &format!("guess {number}"), at(now));
            delays.push(due - now);
            assert!(due == now || collect(&mut guesses, at(due - 1)).is_empty());
            now = due + 16;
            collect(&mut guesses, at(now));
        }
        assert_eq!(delays, [0, 125, 250, 500, 1000, 2000, 4000, 4000, 4000]);
        assert!(!guesses.is_due(session(1)), "an answer is given once");
    }

    #[test]
    fn a_source_gets_64_answers_a_second_however_many_connections_it_has() {
        let mut guesses = Guesses::default();
        let mut dues: Vec<u64> =
            (0..300).map(|n| guess(&mut guesses, n, &format!("guess {n}"), at(5000))).collect();
        dues.sort_unstable();
        for start in [5000, 5500, 6000, 8000] {
            let within = dues.iter().filter(|due| (start..start + 1000).contains(*due)).count();
            assert!((63..=65).contains(&within), "{within} answers in the second after {start}");
        }
        // The answers of closed connections go to others.
        (0..300).for_each(|n| guesses.forget(session(n)));
        assert!(guess(&mut guesses, 301, "new", at(5000)) < 5020);
        let other = session(400);
        assert_eq!(guesses.refuse(8, other, 1000), None);
        assert!(!guesses.is_answered_later(other, b"x", at(5000)), "another source");
    }

    #[test]
    fn a_password_that_a_source_repeats_does_not_count_for_its_neighbours() {
        let mut guesses = Guesses::default();
        (0..1000).for_each(|n| assert!(guess(&mut guesses, n, "stale", at(20)) <= 20));
        assert!(guess(&mut guesses, 1001, "typo", at(20)) <= 36);
        assert!(guess(&mut guesses, 1, "stale again", at(60)) >= 185, "its own delay still grows");
    }

    #[test]
    fn the_connection_with_the_most_wrong_passwords_makes_way_and_then_the_oldest() {
        for most in [1, 2, 3] {
            let mut guesses = Guesses::default();
            for number in 0..most {
                assert_eq!(guesses.refuse(7, session(number), most as usize), None);
            }
            assert_eq!(guesses.refuse(7, session(10), most as usize), Some(session(0)), "oldest");
            assert!(!guesses.knows(session(0)) && guesses.knows(session(10)));
            guesses.is_answered_later(session(10), b"x", at(1));
            assert_eq!(guesses.refuse(7, session(11), most as usize), Some(session(10)), "wrong");
            assert_eq!(guesses.len(), most as usize);
            assert_eq!(guesses.refuse(8, session(20), most as usize), None, "another source");
            guesses.check_invariants();
        }
    }

    #[test]
    fn a_session_that_ends_leaves_nothing_behind() {
        let mut guesses = Guesses::default();
        for number in 0..50 {
            guess(&mut guesses, number, &number.to_string(), at(0));
        }
        assert!(guesses.wakes_at().is_some() && guesses.bytes() > 0 && guesses.fixed_bytes() > 0);
        (0..50).for_each(|number| guesses.forget(session(number)));
        guesses.check_invariants();
        guesses.shrink();
        assert_eq!((guesses.wakes_at(), guesses.len(), guesses.bytes()), (None, 0, 0));
    }

    #[test]
    fn one_turn_gives_a_bounded_number_of_answers() {
        let mut guesses = Guesses::default();
        for number in 0..ANSWERED_PER_TURN as u32 + 10 {
            let session = session(number);
            guesses.refuse(u64::from(number), session, 10);
            (0..2).for_each(|_| {
                guesses.is_answered_later(session, b"x", at(0));
            });
        }
        assert_eq!(collect(&mut guesses, at(10_000)).len(), ANSWERED_PER_TURN);
        assert_eq!(collect(&mut guesses, at(10_000)).len(), 10);
        assert_eq!(collect(&mut guesses, at(10_000)).len(), 0);
    }

    #[test]
    fn a_sender_of_datagrams_is_heard_unless_it_guesses_wrong_all_the_time() {
        let mut guesses = Guesses::default();
        let mut heard = 0;
        for number in 0..200_u32 {
            if guesses.hears(1, at(0)) {
                heard += 1;
                guesses.wrong_by_datagram(1, &number.to_be_bytes(), at(0));
            }
        }
        assert!((64..=66).contains(&heard), "{heard}");
        assert!(guesses.hears(2, at(0)) && guesses.hears(1, at(100)));
        (0..1000).for_each(|_| guesses.wrong_by_datagram(3, b"stale", at(0)));
        assert!(guesses.hears(3, at(0)), "a repeated password is not counted");
        assert_eq!(guess(&mut guesses, 1, "x", at(0)), 0, "connections do not wait for datagrams");
    }
}
