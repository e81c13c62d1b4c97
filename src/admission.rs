//! Who may come in when many want to: the set of silent connections, the caps per source, and what to do at either's limit.
//!
//! A connection is *silent* until its first complete message. A flood of peers that connect and say nothing must not take the place of
//! those who would speak, so silent connections are bounded, in order of age; when there is no room, the oldest makes way for
//! the newcomer: who is honest has spoken long before its turn comes. How long that takes is the *eviction age*, about the size of the set ÷
//! the flood's rate. The other two policies are there to be compared with: they serve a tenth of the honest or fewer.

use std::collections::VecDeque;
use std::io;

use crate::clock::Tick;
pub use crate::limits::Policy;
use crate::limits::{LOOK_AHEAD, Limits, STALE_MIN};
use crate::sources::{SourceId, Sources};
use crate::sys::errno;
use crate::token::Token;

/// Why a newcomer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// `max-connections` are held, and none of them is silent.
    Full,
    /// The silent set is full: under another policy than to recycle, or of none but those who had no time to speak yet.
    SilentSet,
    /// Its source has `max-silent-per-source`, and more than half of the set is taken.
    SourceSilent,
    /// Its source has `max-connections-per-source`.
    SourceConnections,
    /// Its source has let too many deadlines pass.
    Penalty,
}

impl Refusal {
    /// With their names, in the order of the arms.
    pub const ALL: [(Refusal, &'static str); 5] = [
        (Refusal::Full, "full"),
        (Refusal::SilentSet, "silent"),
        (Refusal::SourceSilent, "source silent"),
        (Refusal::SourceConnections, "source"),
        (Refusal::Penalty, "penalty"),
    ];
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Admit,
    /// It takes the place of the oldest silent connection.
    Recycle,
    Refuse(Refusal),
}

#[derive(Default)]
pub struct Admission {
    /// The silent set by age, the oldest first. Who has spoken or gone stays in it until it comes to the front, or half of it are such.
    by_age: VecDeque<Token>,
    /// Those in it that are silent still.
    silent: usize,
    pub sources: Sources,
    pub gate: Gate,
    /// Newcomers told in this turn that there is no slot.
    pub told: usize,
    random: fastrand::Rng,
}

impl Admission {
    /// Has random-drop play as this seed says.
    pub fn seed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// Judges a newcomer. `is_full`: there is no slot for it.
    pub fn judge(&mut self, source: SourceId, is_full: bool, limits: &Limits, now: Tick) -> Decision {
        let (connections, silent) = match self.sources.is_trusted(source) {
            true => (0, 0),
            false => self.sources.counts(source),
        };
        if self.sources.is_refused(source, now) {
            return Decision::Refuse(Refusal::Penalty);
        }
        if connections >= limits.connections_per_source() {
            return Decision::Refuse(Refusal::SourceConnections);
        }
        // While there is room, a crowd behind one address is nobody's loss.
        let half = limits.max_silent.min(limits.max_connections) / 2;
        if silent >= limits.max_silent_per_source && self.silent > half {
            return Decision::Refuse(Refusal::SourceSilent);
        }
        if limits.admission == Policy::RandomDrop && self.silent >= half {
            let chance = 0.3 + 0.7 * (self.silent - half) as f64 / (limits.max_silent - half).max(1) as f64;
            if self.random.f64() < chance {
                return Decision::Refuse(Refusal::SilentSet);
            }
        }
        let is_set_full = self.silent >= limits.max_silent;
        let recycles = limits.admission == Policy::Recycle;
        if recycles && (is_set_full || (is_full && self.silent > 0)) {
            Decision::Recycle
        } else if is_full {
            Decision::Refuse(Refusal::Full)
        } else if is_set_full {
            Decision::Refuse(Refusal::SilentSet)
        } else {
            Decision::Admit
        }
    }

    /// A connection that was let in, and is silent.
    pub fn enters(&mut self, token: Token, source: SourceId) {
        self.by_age.push_back(token);
        self.silent += 1;
        self.sources.connected(source, true);
    }

    /// It has spoken, or ends.
    pub fn no_longer_silent(&mut self, source: SourceId) {
        self.silent -= 1;
        if self.silent == 0 {
            self.by_age.clear();
            self.by_age.shrink_to(STALE_MIN);
        }
        self.sources.no_longer_silent(source);
    }

    /// Takes the connection out that is to make way for another: the oldest silent one, but among the oldest rather one whose source has more, and none
    /// that has said something which is not read yet. So a flood from few sources pushes itself out before it pushes others. `of` tells about
    /// a token while it is silent.
    pub fn take_oldest(&mut self, of: impl Fn(Token) -> Option<Silent>) -> Option<Token> {
        let mut oldest = [None; LOOK_AHEAD];
        let mut count = 0;
        while count < LOOK_AHEAD
            && let Some(token) = self.by_age.pop_front()
        {
            // What is out of date is dropped on the way.
            if let Some(silent) = of(token) {
                oldest[count] = Some((token, silent));
                count += 1;
            }
        }
        let first = |wanted: &dyn Fn(Silent) -> bool| {
            oldest.iter().flatten().position(|(_, silent)| !silent.is_new && wanted(*silent))
        };
        let is_one_of_many =
            |silent: Silent| self.sources.counts(silent.source).1 > 1 && !self.sources.is_trusted(silent.source);
        let chosen = first(&|silent| !silent.has_unread && is_one_of_many(silent));
        let chosen = chosen.or_else(|| first(&|silent| !silent.has_unread)).or_else(|| first(&|_| true));
        for (index, looked_at) in oldest.iter().enumerate().rev() {
            if let Some((token, _)) = looked_at
                && Some(index) != chosen
            {
                self.by_age.push_front(*token);
            }
        }
        oldest[chosen?].map(|(token, _)| token)
    }

    /// Drops what is out of date: at the front at once, elsewhere when there is much of it. Costs what has come since, on average.
    pub fn forget_stale(&mut self, of: &impl Fn(Token) -> Option<Silent>) {
        while self.by_age.front().is_some_and(|token| of(*token).is_none()) {
            self.by_age.pop_front();
        }
        if self.by_age.len() > 2 * self.silent + STALE_MIN {
            self.by_age.retain(|token| of(*token).is_some());
        }
    }

    /// Silent connections now.
    pub fn silent(&self) -> usize {
        self.silent
    }

    /// Bytes of the set; the table of sources counts for itself.
    pub fn bytes(&self) -> usize {
        self.by_age.capacity() * size_of::<Token>()
    }

    pub fn shrink(&mut self) {
        self.by_age.shrink_to_fit();
    }
}

/// What is known of a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Something has come from it that has not been read.
    pub has_unread: bool,
    /// It has had no time to say anything, so it is no less honest than a newcomer.
    pub is_new: bool,
    pub source: SourceId,
}

/// Whether connections are accepted at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gate {
    #[default]
    Open,
    /// `max-connections` are held: newcomers are told so and closed. Opens when a few slots are free again ([`crate::limits::GATE_REOPENS`]), not at the
    /// first: else each that is freed would be fought for by whoever asks again most often.
    Full,
    /// No file or memory to accept with; those that wait, wait in the kernel's accept queue. Opens when a connection is reaped, or after [`crate::limits::ACCEPT_RETRY`].
    Exhausted,
}

/// What to do after an accept that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The queue is empty.
    Drained,
    /// That connection is gone, and out of the queue; the next may be fine.
    Aborted,
    /// It failed for a reason of its listener or of that connection, which may wait on and fail again: a firewall or a security module
    /// forbids it, say. accept(2) asks to retry after network errors; so it is, but not without end
    /// ([`crate::limits::ACCEPT_FAILURES`]).
    Failed,
    /// Every accept will fail until something is freed.
    Exhausted,
}

/// Whether an accept failed for want of a file, so that the spare one helps to turn the connection away.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(errno::EMFILE | errno::ENFILE))
}

impl AcceptError {
    pub fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => AcceptError::Drained,
            Some(errno::ECONNABORTED) => AcceptError::Aborted,
            Some(errno::EMFILE | errno::ENFILE | errno::ENOBUFS | errno::ENOMEM) => AcceptError::Exhausted,
            // Of epoll: too many watches.
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
        admission.sources.find(IpAddr::from([10, 0, 0, last]), Tick(0))
    }

    fn fill(admission: &mut Admission, count: u32) {
        for slot in 0..count {
            let source = source(admission, slot as u8);
            admission.enters(Token::connection(slot, Generation::FIRST), source);
        }
    }

    #[test]
    fn the_silent_set_at_its_limit_one_below_and_one_above() {
        for (policy, verdict) in
            [(Policy::Recycle, Decision::Recycle), (Policy::Refuse, Decision::Refuse(Refusal::SilentSet))]
        {
            for (silent, expected) in [(3, Decision::Admit), (4, verdict), (5, verdict)] {
                let mut admission = Admission::default();
                fill(&mut admission, silent);
                let newcomer = source(&mut admission, 200);
                assert_eq!(admission.judge(newcomer, false, &limits(policy), Tick(0)), expected, "{policy}, {silent}");
            }
        }
    }

    #[test]
    fn a_full_slab_recycles_while_there_is_a_silent_one() {
        let mut admission = Admission::default();
        let newcomer = source(&mut admission, 200);
        let full = Decision::Refuse(Refusal::Full);
        assert_eq!(admission.judge(newcomer, true, &limits(Policy::Recycle), Tick(0)), full);
        fill(&mut admission, 1);
        assert_eq!(admission.judge(newcomer, true, &limits(Policy::Recycle), Tick(0)), Decision::Recycle);
        assert_eq!(admission.judge(newcomer, true, &limits(Policy::Refuse), Tick(0)), full);
    }

    #[test]
    fn random_drop_begins_at_half_the_set_and_is_certain_at_its_limit() {
        let refused = |silent: u32| {
            let mut admission = Admission { random: fastrand::Rng::with_seed(7), ..Admission::default() };
            fill(&mut admission, silent);
            let newcomer = source(&mut admission, 200);
            let limits = limits(Policy::RandomDrop);
            (0..1000).filter(|_| admission.judge(newcomer, false, &limits, Tick(0)) != Decision::Admit).count()
        };
        assert_eq!(refused(1), 0);
        assert!((250..350).contains(&refused(2)), "{}", refused(2));
        assert!((600..700).contains(&refused(3)), "{}", refused(3));
        assert_eq!(refused(4), 1000);
    }

    #[test]
    fn caps_of_one_source_at_their_limit_one_below_and_one_above() {
        let judge = |of_source: u32, others: u32, speak: bool| {
            let mut admission = Admission::default();
            fill(&mut admission, others);
            let one = source(&mut admission, 200);
            for slot in 0..of_source {
                admission.enters(Token::connection(100 + slot, Generation::FIRST), one);
                if speak {
                    admission.no_longer_silent(one);
                }
            }
            admission.judge(one, false, &limits(Policy::Recycle), Tick(0))
        };
        assert_eq!(judge(1, 2, false), Decision::Admit);
        assert_eq!(judge(2, 0, false), Decision::Admit, "half of the set is free");
        assert_eq!(judge(2, 1, false), Decision::Refuse(Refusal::SourceSilent));
        assert_eq!(judge(2, 0, true), Decision::Admit);
        assert_eq!(judge(3, 0, true), Decision::Refuse(Refusal::SourceConnections));
        assert_eq!(judge(4, 0, true), Decision::Refuse(Refusal::SourceConnections));
    }

    fn slot(token: Token) -> u32 {
        match token.source() {
            crate::token::Source::Connection { slot, .. } => slot,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_oldest_makes_way_and_not_one_that_has_just_said_something() {
        let mut admission = Admission::default();
        fill(&mut admission, 4);
        let sources: Vec<SourceId> = (0..4).map(|last| source(&mut admission, last)).collect();
        let silent =
            |token, has_unread| Some(Silent { has_unread, is_new: false, source: sources[slot(token) as usize] });
        // Slot 0 has spoken, slot 1 has something unread.
        let oldest = admission.take_oldest(|token| silent(token, slot(token) == 1).filter(|_| slot(token) != 0));
        assert_eq!(oldest.map(slot), Some(2));
        assert_eq!(admission.take_oldest(|token| silent(token, true)).map(slot), Some(1), "if all have, the oldest");
        let new = |token| silent(token, false).map(|silent| Silent { is_new: true, ..silent });
        assert_eq!(admission.take_oldest(new), None, "who has just come stays");
        assert_eq!(admission.take_oldest(|_| None), None);
        assert!(admission.by_age.is_empty());
    }

    #[test]
    fn a_source_with_several_makes_way_before_one_with_one() {
        let mut admission = Admission::default();
        let (alone, many) = (source(&mut admission, 1), source(&mut admission, 2));
        for (number, source) in [alone, many, many].into_iter().enumerate() {
            admission.enters(Token::connection(number as u32, Generation::FIRST), source);
        }
        let of = |token| {
            Some(Silent { has_unread: false, is_new: false, source: if slot(token) == 0 { alone } else { many } })
        };
        assert_eq!(admission.take_oldest(of).map(slot), Some(1), "not the oldest, which is its source's only one");
        admission.no_longer_silent(many);
        assert_eq!(admission.take_oldest(of).map(slot), Some(0), "where each has one, the oldest");
    }

    #[test]
    fn who_has_spoken_is_forgotten_in_time_though_an_older_one_stays_silent() {
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
                    source: SourceId::NONE,
                })
            });
        }
        assert!(admission.by_age.len() <= STALE_MIN + 2, "{}", admission.by_age.len());
    }

    #[test]
    fn errors_are_sorted_as_the_man_page_says() {
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
