//! Admission of newcomers: the silent set, the caps per source, and the decision at their limits.
//!
//! A connection is *silent* until its first complete message. While there is room, it may stay
//! silent: a pool that connects early and speaks late harms nobody. Peers that connect and say
//! nothing must not keep honest clients out, so the silent set is bounded and ordered by age. When
//! there is no room, the oldest silent connection is recycled: it is reset, and its slot goes to
//! the newcomer. An honest client sends a message long before it is the oldest. The *eviction age*
//! is the time until a silent connection is recycled: about the size of the set divided by the rate
//! of the flood.
//!
//! A source at its share of the silent set is not refused: its newcomer takes the place of its own
//! oldest silent connection. So an honest client gets in, whatever others at its address do. When
//! no connection is silent, the longest idle one makes way ([`Decision::Evict`]).
//!
//! The two other policies exist for comparison. In a flood, they serve at most a tenth of the
//! honest clients.

use std::collections::{HashSet, VecDeque};
use std::io;

use crate::clock::Tick;
pub use crate::limits::Policy;
use crate::limits::{LOOK_AHEAD, Limits, SILENT_SAMPLE, STALE_MIN};
use crate::sources::{SourceId, Sources};
use crate::sys::errno;
use crate::token::Token;

/// The reason why a newcomer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No slot is free. No silent connection can be recycled, and no idle one evicted.
    Full,
    /// The memory budget has no room for another connection, and none can be recycled.
    Memory,
    /// The silent set is full, and the policy does not recycle or no silent connection is old
    /// enough.
    SilentSet,
    /// The source has reached its share of the silent set, and none of its silent connections is
    /// old enough to be recycled.
    SourceSilent,
    /// The source has reached `max-connections-per-source`, and none of its connections can be
    /// evicted.
    SourceConnections,
}

impl Refusal {
    /// All refusals with their names, in the order of the arms.
    pub const ALL: [(Refusal, &'static str); 5] = [
        (Refusal::Full, "full"),
        (Refusal::Memory, "memory"),
        (Refusal::SilentSet, "silent"),
        (Refusal::SourceSilent, "source silent"),
        (Refusal::SourceConnections, "source"),
    ];
}

/// The decision about a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Admit,
    /// Admit the newcomer in the place of the oldest silent connection. With a source, only those
    /// of that source or network count, because it has reached its share.
    Recycle(Option<SourceId>),
    /// Admit the newcomer in the place of the longest idle connection. With a source, only those of
    /// that source or network count, because it has reached its cap.
    Evict(Option<SourceId>),
    Refuse(Refusal),
}

impl Decision {
    /// Returns the reason to refuse a newcomer if nobody can make way for it.
    pub fn refusal(self, is_full: bool) -> Refusal {
        match self {
            Decision::Refuse(refusal) => refusal,
            Decision::Recycle(Some(_)) => Refusal::SourceSilent,
            Decision::Evict(Some(_)) => Refusal::SourceConnections,
            Decision::Recycle(None) if !is_full => Refusal::SilentSet,
            Decision::Admit | Decision::Recycle(None) | Decision::Evict(None) => Refusal::Full,
        }
    }
}

/// The state of admission: the silent set, the sources and the accept gate.
#[derive(Default)]
pub struct Admission {
    /// Connections in the order of accept, the oldest first. A connection that has spoken or closed
    /// stays in it until it reaches the front, or until half of the entries are stale.
    by_age: VecDeque<Token>,
    /// Number of connections in `by_age` that are still silent.
    silent: usize,
    pub sources: Sources,
    /// The slots of the connections by the operator's listener, in the order of accept.
    pub door: Vec<u32>,
    pub gate: Gate,
    /// Newcomers that got an error in this turn.
    pub told: usize,
    /// When a search for an idle connection last found none, and of which source.
    pub found_no_idle: Option<(Tick, Option<SourceId>)>,
    random: fastrand::Rng,
}

impl Admission {
    /// Seeds the random decisions of the policy `random-drop`.
    pub fn seed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// Returns a random number below `bound`.
    pub fn random(&mut self, bound: usize) -> usize {
        self.random.usize(..bound)
    }

    /// Judges a newcomer. `is_full` is true when no slot is free for it.
    pub fn judge(
        &mut self,
        source: SourceId,
        is_full: bool,
        limits: &Limits,
        now: Tick,
    ) -> Decision {
        let recycles = limits.admission == Policy::Recycle;
        if let Some(scope) = self.sources.at_connection_cap(source, limits) {
            return match recycles {
                true => Decision::Evict(Some(scope)),
                false => Decision::Refuse(Refusal::SourceConnections),
            };
        }
        // While the silent set has room, many silent connections behind one address harm no other
        // client.
        let half = limits.max_silent.min(limits.max_connections) / 2;
        if self.silent > half
            && let Some(scope) = self.sources.at_silent_share(source, limits, now)
        {
            return match recycles {
                true => Decision::Recycle(Some(scope)),
                false => Decision::Refuse(Refusal::SourceSilent),
            };
        }
        if limits.admission == Policy::RandomDrop && self.silent >= half {
            let chance =
                0.3 + 0.7 * (self.silent - half) as f64 / (limits.max_silent - half).max(1) as f64;
            if self.random.f64() < chance {
                return Decision::Refuse(Refusal::SilentSet);
            }
        }
        let is_set_full = self.silent >= limits.max_silent;
        match (recycles, is_full, is_set_full) {
            (true, true, _) if self.silent == 0 => Decision::Evict(None),
            (true, true, _) | (true, _, true) => Decision::Recycle(None),
            (false, true, _) => Decision::Refuse(Refusal::Full),
            (false, _, true) => Decision::Refuse(Refusal::SilentSet),
            (_, false, false) => Decision::Admit,
        }
    }

    /// Adds an admitted connection to the silent set.
    pub fn enters(&mut self, token: Token, source: SourceId) {
        self.by_age.push_back(token);
        self.silent += 1;
        self.sources.connected(source, true);
    }

    /// Takes a connection out of the count, because it has spoken or closes.
    pub fn no_longer_silent(&mut self, source: SourceId) {
        self.silent -= 1;
        if self.silent == 0 {
            self.by_age.clear();
            self.by_age.shrink_to(STALE_MIN);
        }
        self.sources.no_longer_silent(source);
    }

    /// Removes and returns the connection to recycle. Among the oldest silent connections, it
    /// prefers one without unread input whose source floods, so that a flood from few sources
    /// evicts itself first. The second choice is one without unread input, the third any that is
    /// not new. `of` returns the facts about a token, or `None` if it is not silent any more.
    pub fn take_oldest(
        &mut self,
        now: Tick,
        of: impl Fn(Token) -> Option<Silent>,
    ) -> Option<Token> {
        let mut oldest = [None; LOOK_AHEAD];
        let mut count = 0;
        while count < LOOK_AHEAD
            && let Some(token) = self.by_age.pop_front()
        {
            // Stale entries are dropped on the way.
            if let Some(silent) = of(token) {
                oldest[count] = Some((token, silent));
                count += 1;
            }
        }
        let first = |wanted: &dyn Fn(Silent) -> bool| {
            oldest.iter().flatten().position(|(_, silent)| !silent.is_new && wanted(*silent))
        };
        let chosen = first(&|silent| !silent.has_unread && self.sources.floods(silent.source, now));
        let chosen =
            chosen.or_else(|| first(&|silent| !silent.has_unread)).or_else(|| first(&|_| true));
        for (index, looked_at) in oldest.iter().enumerate().rev() {
            if let Some((token, _)) = looked_at
                && Some(index) != chosen
            {
                self.by_age.push_front(*token);
            }
        }
        oldest[chosen?].map(|(token, _)| token)
    }

    /// Returns the connection of one source or network to recycle: its oldest silent connection
    /// without unread input, among a sample of up to [`SILENT_SAMPLE`] entries.
    pub fn oldest_of(
        &mut self,
        scope: SourceId,
        of: impl Fn(Token) -> Option<Silent>,
    ) -> Option<Token> {
        let step = self.by_age.len().div_ceil(SILENT_SAMPLE).max(1);
        let sample = self.by_age.iter().skip(self.random.usize(..step)).step_by(step);
        let mut spare = None;
        for token in sample {
            let own = of(*token)
                .filter(|silent| !silent.is_new && self.sources.belongs(silent.source, scope));
            match own {
                Some(silent) if !silent.has_unread => return Some(*token),
                Some(_) => spare = spare.or(Some(*token)),
                None => {}
            }
        }
        spare
    }

    /// Returns the oldest silent connection if it is overdue at `now`, else when to look again. It
    /// is overdue as well if one that came later is: a part of a message begins another wait, but
    /// no longer one than silence. Returns `None` if no connection is silent.
    pub fn overdue(
        &mut self,
        timeout: u32,
        now: Tick,
        of: &impl Fn(Token) -> Option<Silent>,
    ) -> Option<Result<Token, Tick>> {
        self.forget_stale(of);
        let oldest = *self.by_age.front()?;
        let has_unread = of(oldest)?.has_unread;
        let looked_at = self.by_age.iter().take(LOOK_AHEAD).filter_map(|token| of(*token));
        let wait = looked_at.map(|silent| silent.since.plus(timeout).distance_from(now)).min()?;
        Some(match wait <= 0 && !has_unread {
            true => Ok(oldest),
            false => Err(now.plus(wait.max(1) as u32)),
        })
    }

    /// Drops stale entries: at the front at once, elsewhere when there are many. On average, the
    /// cost is constant per newcomer.
    pub fn forget_stale(&mut self, of: &impl Fn(Token) -> Option<Silent>) {
        while self.by_age.front().is_some_and(|token| of(*token).is_none()) {
            self.by_age.pop_front();
        }
        if self.by_age.len() > 2 * self.silent + STALE_MIN {
            self.by_age.retain(|token| of(*token).is_some());
        }
    }

    /// Returns the number of silent connections.
    pub fn silent(&self) -> usize {
        self.silent
    }

    /// Returns the memory of the silent set in bytes, without the table of sources.
    pub fn bytes(&self) -> usize {
        self.by_age.capacity() * size_of::<Token>()
    }

    /// Frees the unused memory of the silent set.
    pub fn shrink(&mut self) {
        self.by_age.shrink_to_fit();
    }

    /// Panics unless the silent set consists of these connections, each in the queue by age. For
    /// tests.
    pub fn check_invariants(&self, mut silent: HashSet<Token>) {
        assert_eq!(self.silent, silent.len(), "the silent connections are miscounted");
        self.by_age.iter().for_each(|token| {
            silent.remove(token);
        });
        assert!(
            silent.is_empty(),
            "silent connections are missing from the queue by age: {silent:?}"
        );
    }
}

/// The facts about a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// True if the connection has sent input that the loop has not read yet.
    pub has_unread: bool,
    /// True if the connection has had no time to send a message, so it is as likely to be honest as
    /// the newcomer.
    pub is_new: bool,
    /// When its wait for the first message, or for the rest of it, began.
    pub since: Tick,
    pub source: SourceId,
}

/// The accept gate: whether the loop accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gate {
    #[default]
    Open,
    /// All slots are in use: newcomers get an error. The gate opens when a few slots are free
    /// ([`crate::limits::GATE_REOPENS`]). If it opened at the first free slot, the client that
    /// retries most often would get it.
    Full,
    /// No file or memory is left to accept with. Newcomers wait in the kernel's accept queue. The
    /// gate opens when a connection is reaped, or after [`crate::limits::ACCEPT_RETRY`].
    Exhausted,
}

/// The meaning of a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The accept queue is empty.
    Drained,
    /// The connection has gone and has left the queue. The next accept may succeed.
    Aborted,
    /// The listener or the connection causes an error that may repeat, such as a firewall rule.
    /// accept(2) asks to retry after network errors. The loop retries, but only
    /// [`crate::limits::ACCEPT_FAILURES`] times in a row.
    Failed,
    /// Every accept fails until a file or memory is freed.
    Exhausted,
}

/// Returns whether an accept failed because no file was left. Then the spare file helps to close
/// the connection.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(errno::EMFILE | errno::ENFILE))
}

impl AcceptError {
    /// Classifies the error of an accept.
    pub fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => AcceptError::Drained,
            Some(errno::ECONNABORTED) => AcceptError::Aborted,
            Some(errno::EMFILE | errno::ENFILE | errno::ENOBUFS | errno::ENOMEM) => {
                AcceptError::Exhausted
            }
            // epoll_ctl(2) returns it when the user has too many watches.
            Some(errno::ENOSPC) => AcceptError::Exhausted,
            _ => AcceptError::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Generation;
    use std::net::IpAddr;
    use std::time::Duration;

    use crate::sources::Standing;

    fn limits(admission: Policy) -> Limits {
        Limits {
            admission,
            max_silent: 4,
            max_silent_per_source: 2,
            max_connections_per_source: 3,
            ..Limits::default()
        }
    }

    fn source(admission: &mut Admission, last: u8) -> SourceId {
        admission.sources.find(IpAddr::from([10, 0, 0, last]), Standing::Ordinary, Tick(0))
    }

    fn fill(admission: &mut Admission, count: u32) {
        for slot in 0..count {
            let source = source(admission, slot as u8);
            admission.enters(Token::connection(slot, Generation::FIRST), source);
        }
    }

    #[test]
    fn a_newcomer_is_admitted_only_below_the_limit_of_the_silent_set() {
        for (policy, verdict) in [
            (Policy::Recycle, Decision::Recycle(None)),
            (Policy::Refuse, Decision::Refuse(Refusal::SilentSet)),
        ] {
            for (silent, expected) in [(3, Decision::Admit), (4, verdict), (5, verdict)] {
                let mut admission = Admission::default();
                fill(&mut admission, silent);
                let newcomer = source(&mut admission, 200);
                assert_eq!(
                    admission.judge(newcomer, false, &limits(policy), Tick(0)),
                    expected,
                    "{policy}, {silent}"
                );
            }
        }
    }

    #[test]
    fn a_full_slab_recycles_a_silent_connection_before_it_evicts_an_idle_one() {
        let mut admission = Admission::default();
        let newcomer = source(&mut admission, 200);
        let full = Decision::Refuse(Refusal::Full);
        assert_eq!(
            admission.judge(newcomer, true, &limits(Policy::Recycle), Tick(0)),
            Decision::Evict(None)
        );
        fill(&mut admission, 1);
        assert_eq!(
            admission.judge(newcomer, true, &limits(Policy::Recycle), Tick(0)),
            Decision::Recycle(None)
        );
        assert_eq!(admission.judge(newcomer, true, &limits(Policy::Refuse), Tick(0)), full);
    }

    #[test]
    fn random_drop_starts_at_half_the_silent_set_and_refuses_all_at_its_limit() {
        let refused = |silent: u32| {
            let mut admission =
                Admission { random: fastrand::Rng::with_seed(7), ..Admission::default() };
            fill(&mut admission, silent);
            let newcomer = source(&mut admission, 200);
            let limits = limits(Policy::RandomDrop);
            (0..1000)
                .filter(|_| admission.judge(newcomer, false, &limits, Tick(0)) != Decision::Admit)
                .count()
        };
        assert_eq!(refused(1), 0);
        assert!((250..350).contains(&refused(2)), "{}", refused(2));
        assert!((600..700).contains(&refused(3)), "{}", refused(3));
        assert_eq!(refused(4), 1000);
    }

    #[test]
    fn a_source_at_its_caps_gets_only_places_of_its_own() {
        let judge = |of_source: u32, others: u32, speak: bool, policy| {
            let mut admission = Admission::default();
            fill(&mut admission, others);
            let one = source(&mut admission, 200);
            for slot in 0..of_source {
                admission.enters(Token::connection(100 + slot, Generation::FIRST), one);
                if speak {
                    admission.no_longer_silent(one);
                }
            }
            let decision = admission.judge(one, false, &limits(policy), Tick(0));
            match decision {
                Decision::Recycle(Some(scope)) | Decision::Evict(Some(scope)) => {
                    assert_eq!(scope, one);
                    assert_eq!(policy, Policy::Recycle);
                    Err(decision.refusal(false))
                }
                Decision::Refuse(refusal) => Err(refusal),
                _ => Ok(decision),
            }
        };
        for policy in [Policy::Recycle, Policy::Refuse] {
            assert_eq!(judge(1, 2, false, policy), Ok(Decision::Admit));
            let room = judge(2, 0, false, policy);
            assert_eq!(room, Ok(Decision::Admit), "more than half of the silent set is free");
            assert_eq!(judge(2, 1, false, policy), Err(Refusal::SourceSilent));
            assert_eq!(judge(2, 0, true, policy), Ok(Decision::Admit));
            assert_eq!(judge(3, 0, true, policy), Err(Refusal::SourceConnections));
            assert_eq!(judge(4, 0, true, policy), Err(Refusal::SourceConnections));
        }
    }

    fn slot(token: Token) -> u32 {
        match token.source() {
            crate::token::Source::Connection { slot, .. } => slot,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_oldest_silent_connection_is_recycled_unless_it_has_unread_input() {
        let mut admission = Admission::default();
        fill(&mut admission, 4);
        let sources: Vec<SourceId> = (0..4).map(|last| source(&mut admission, last)).collect();
        let silent = |token, has_unread| {
            Some(Silent {
                has_unread,
                is_new: false,
                since: Tick(0),
                source: sources[slot(token) as usize],
            })
        };
        // Slot 0 has spoken, and slot 1 has unread input.
        let oldest = admission.take_oldest(Tick(0), |token| {
            silent(token, slot(token) == 1).filter(|_| slot(token) != 0)
        });
        assert_eq!(oldest.map(slot), Some(2));
        assert_eq!(
            admission.take_oldest(Tick(0), |token| silent(token, true)).map(slot),
            Some(1),
            "the oldest, if all have unread input"
        );
        let new = |token| silent(token, false).map(|silent| Silent { is_new: true, ..silent });
        assert_eq!(admission.take_oldest(Tick(0), new), None, "a new connection is not recycled");
        assert_eq!(admission.take_oldest(Tick(0), |_| None), None);
        assert!(admission.by_age.is_empty());
    }

    /// A source with several silent connections is an office as well as a flood. Only its record
    /// tells.
    #[test]
    fn a_source_that_floods_is_recycled_first_and_an_office_is_not() {
        for (recycled, chosen) in [(0, 0), (1, 0), (2, 1)] {
            let mut admission = Admission::default();
            let (alone, many) = (source(&mut admission, 1), source(&mut admission, 2));
            for (number, source) in [alone, many, many].into_iter().enumerate() {
                admission.enters(Token::connection(number as u32, Generation::FIRST), source);
            }
            let of = |token| {
                let source = if slot(token) == 0 { alone } else { many };
                Some(Silent { has_unread: false, is_new: false, since: Tick(0), source })
            };
            for _ in 0..recycled {
                admission.sources.punish(many, Duration::from_secs(1), Tick(0));
            }
            let oldest = admission.take_oldest(Tick(0), of).map(slot);
            assert_eq!(oldest, Some(chosen), "{recycled} recycled before");
            admission.no_longer_silent(many);
            if chosen == 1 {
                let next = admission.take_oldest(Tick(0), of).map(slot);
                assert_eq!(next, Some(0), "the oldest, if each source has one");
            }
        }
    }

    #[test]
    fn a_source_at_its_share_loses_its_own_oldest_silent_connection() {
        let mut admission = Admission::default();
        fill(&mut admission, 3000);
        let many = source(&mut admission, 250);
        for slot in 5000..5064 {
            admission.enters(Token::connection(slot, Generation::FIRST), many);
        }
        fill(&mut admission, 1000);
        let other = source(&mut admission, 251);
        let of = |token| {
            let source = if slot(token) >= 5000 { many } else { SourceId::NONE };
            let has_unread = slot(token) == 5000;
            Some(Silent { has_unread, is_new: false, since: Tick(0), source })
        };
        for _ in 0..100 {
            let found = admission.oldest_of(many, of).map(slot).unwrap();
            assert!((5001..5008).contains(&found), "{found} is among its oldest");
        }
        assert_eq!(admission.oldest_of(other, of), None);
    }

    #[test]
    fn the_oldest_is_overdue_when_it_or_a_later_one_is() {
        for (since, now, expected) in [
            ([0, 0], 9, Err(Tick(10))),
            ([0, 0], 10, Ok(0)),
            ([5, 5], 10, Err(Tick(15))),
            ([5, 0], 10, Ok(0)),
        ] {
            let mut admission = Admission::default();
            fill(&mut admission, 2);
            let of = |token| {
                let since = Tick(since[slot(token) as usize]);
                let source = SourceId::NONE;
                Some(Silent { has_unread: false, is_new: false, since, source })
            };
            let overdue = admission.overdue(10, Tick(now), &of).unwrap();
            assert_eq!(overdue.map(slot), expected, "{since:?} at {now}");
            let unread = |token| of(token).map(|silent| Silent { has_unread: true, ..silent });
            assert!(admission.overdue(10, Tick(now), &unread).unwrap().is_err());
        }
        assert_eq!(Admission::default().overdue(10, Tick(99), &|_| None), None);
    }

    #[test]
    fn stale_entries_are_dropped_behind_an_older_silent_connection() {
        let mut admission = Admission::default();
        fill(&mut admission, 1);
        for slot in 1..100_000 {
            let source = source(&mut admission, 7);
            admission.enters(Token::connection(slot, Generation::FIRST), source);
            admission.no_longer_silent(source);
            admission.forget_stale(&|token| {
                (token == Token::connection(0, Generation::FIRST)).then_some(Silent {
                    has_unread: false,
                    is_new: false,
                    since: Tick(0),
                    source: SourceId::NONE,
                })
            });
        }
        assert!(admission.by_age.len() <= STALE_MIN + 2, "{}", admission.by_age.len());
    }

    #[test]
    fn accept_errors_are_classified_as_in_the_man_page() {
        let of = |errno| AcceptError::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(errno::EAGAIN), AcceptError::Drained);
        assert_eq!(of(errno::ECONNABORTED), AcceptError::Aborted);
        for errno in [errno::EMFILE, errno::ENFILE, errno::ENOBUFS, errno::ENOMEM, errno::ENOSPC] {
            assert_eq!(of(errno), AcceptError::Exhausted, "{errno}");
        }
        for errno in [
            errno::EINTR,
            errno::EPERM,
            errno::EACCES,
            errno::EPROTO,
            errno::ENETDOWN,
            errno::EHOSTUNREACH,
            errno::EINVAL,
        ] {
            assert_eq!(of(errno), AcceptError::Failed, "{errno}");
        }
    }
}
