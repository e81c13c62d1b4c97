//! When things are due: requests and connects at a given rate, evenly or as strangers arrive.

use std::time::Duration;

use fastrand::Rng;

use crate::clock::Time;

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    #[default]
    Even,
    /// As from very many independent users: the gaps are exponentially distributed.
    Poisson,
}

/// A schedule at a fixed rate. It does not wait for anybody: what is late stays due since its own moment.
pub struct Pace {
    gap_s: f64,
    arrivals: Arrivals,
    rng: Rng,
    began: Time,
    /// When the next one is due, in seconds since then.
    next_s: f64,
}

impl Pace {
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64, now: Time) -> Pace {
        Pace { gap_s: 1.0 / rate, arrivals, rng: Rng::with_seed(seed), began: now, next_s: 0.0 }
    }

    /// When the next one is due.
    pub fn next(&self) -> Time {
        self.began + Duration::from_secs_f64(self.next_s)
    }

    /// How many are due before `end`, the next included: exactly, or at random arrivals on average.
    pub fn due_before(&self, end: Time) -> u64 {
        let left_s = end.since(self.next()).as_secs_f64();
        (left_s / self.gap_s).ceil() as u64
    }

    /// Takes it; the next is due a gap later.
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

/// When a shape wants to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    At(Time),
    /// Not before something happens.
    OnEvent,
    Done,
}

/// The first of several moments.
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
    fn the_rate_is_kept_evenly_and_on_average() {
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
