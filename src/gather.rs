//! Whether to let events gather before a poll: adaptive interrupt moderation, as network drivers have it (ethtool(8), `adaptive-rx`).
//!
//! A server that is quicker than its clients together is woken for each few of them, and a sleep with its wake-up costs more than a
//! command. When very many are about to ask anyway, waiting a moment serves all of them for one sleep, and nobody waits longer, because
//! the clients are what is slow. When only a few are, all of them wait for the server, and every moment is lost. Which it is shows only in
//! what a wait brought: so it is tried, kept up as long as it brings a crowd, and else left alone for a while.

/// Sources that a poll must have found ready for a wait to be tried.
const WORTH_A_TRY: usize = 6;

/// Sources that the polls after a wait must have found, on average, for another to follow. With 12 clients a wait of 50 us costs throughput, with 20 little, with 24 none, with
/// 50 it gains a quarter (redis-benchmark on a core of its own).
pub const CROWD: usize = 15;

/// The average over how many polls, so that one of them may bring fewer.
const AVERAGED: f32 = 8.0;

/// Polls until a wait that brought no crowd is tried again: it then costs a hundredth.
const REST: u32 = 128;

#[derive(Default)]
pub struct Gather {
    /// The last poll came after a wait.
    waited: bool,
    /// What the last waits brought.
    average: f32,
    /// Polls left until the next try.
    rest: u32,
}

impl Gather {
    /// Whether to wait before the next poll, when the last found so many sources ready.
    pub fn pays(&mut self, found: usize) -> bool {
        self.rest = self.rest.saturating_sub(1);
        if !self.waited {
            self.average = CROWD as f32;
        } else {
            self.average += (found as f32 - self.average) / AVERAGED;
            if self.average < CROWD as f32 {
                self.rest = REST;
            }
        }
        self.waited = self.rest == 0 && found >= WORTH_A_TRY;
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_never_waited_for() {
        let mut gather = Gather::default();
        assert!((0..1000).all(|_| !gather.pays(WORTH_A_TRY - 1)));
    }

    #[test]
    fn a_wait_is_kept_up_while_it_brings_a_crowd() {
        let mut gather = Gather::default();
        assert!(gather.pays(WORTH_A_TRY));
        assert!((0..1000).all(|_| gather.pays(CROWD)));
        assert!((0..10).all(|_| gather.pays(CROWD + 1)));
        assert!(gather.pays(CROWD - 1), "one dip is no reason");
        assert!((0..10).any(|_| !gather.pays(CROWD - 1)), "many are");
        assert!(!gather.pays(CROWD), "then it rests, whatever comes without a wait");
    }

    #[test]
    fn a_wait_that_brings_no_crowd_is_tried_rarely() {
        let mut gather = Gather::default();
        let waits = (0..10_000).filter(|_| gather.pays(CROWD - 1)).count();
        assert!((70..90).contains(&waits), "{waits} waits");
    }
}
