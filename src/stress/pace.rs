//! The schedule of requests and connects at a rate, with even or random gaps.

use std::time::Duration;

use fastrand::Rng;

use crate::clock::Time;

/// The gaps between requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    #[default]
    Even,
    /// Exponentially distributed gaps, as very many independent users produce them.
    Poisson,
}

/// A schedule at a fixed rate. A late request stays due since its own moment, so lateness does not
/// slow the schedule down.
pub struct Pace {
    gap_s: f64,
    arrivals: Arrivals,
    rng: Rng,
    began: Time,
    /// Moment at which the next request is due, in seconds since `began`.
    next_s: f64,
}

impl Pace {
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64, now: Time) -> Pace {
        Pace { gap_s: 1.0 / rate, arrivals, rng: Rng::with_seed(seed), began: now, next_s: 0.0 }
    }

    /// Returns the moment at which the next request is due.
    pub fn next(&self) -> Time {
        self.began + Duration::from_secs_f64(self.next_s)
    }

    /// Returns how many requests are due before `end`: exactly for even gaps, else on average.
    pub fn due_before(&self, end: Time) -> u64 {
        let left_s = end.since(self.next()).as_secs_f64();
        (left_s / self.gap_s).ceil() as u64
    }

    /// Takes the next request and returns the moment at which it was due.
    pub fn take(&mut self) -> Time {
        let due = self.next();
        self.next_s += match self.arrivals {
            Arrivals::Even => self.gap_s,
            // Inverse of the distribution function; 1 - x lies in (0, 1].
            Arrivals::Poisson => -(1.0 - self.rng.f64()).ln() * self.gap_s,
        };
        due
    }
}

/// The moment at which a shape wants to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    At(Time),
    /// After the next event.
    OnEvent,
    Done,
}

/// Returns the earliest of several moments; `OnEvent` if none of them is a time.
pub fn earliest<const COUNT: usize>(moments: [Next; COUNT]) -> Next {
    let times = moments.into_iter().filter_map(|next| match next {
        Next::At(time) => Some(time),
        _ => None,
    });
    times.min().map_or(Next::OnEvent, Next::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_keeps_its_rate_with_even_and_with_random_gaps() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let mut pace = Pace::new(1000.0, arrivals, 7, Time::ZERO);
            let dues: Vec<f64> = (0..10_000).map(|_| pace.take().as_secs_f64()).collect();
            assert!(dues.is_sorted());
            assert!((9.7..10.3).contains(&dues[9999]), "{arrivals:?}: {}", dues[9999]);
            let is_even = dues.windows(2).all(|two| (two[1] - two[0] - 0.001).abs() < 1e-6);
            assert_eq!(is_even, arrivals == Arrivals::Even);
        }
    }
}
