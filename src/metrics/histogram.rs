//! A histogram whose bounds are powers of two, so that counting a value takes no search.

use std::fmt;

/// Buckets of a histogram. The first has the value 0, the last the values above 2^34.
const BUCKETS: usize = 37;

/// Counts whole numbers: how many there were in each bucket, and their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket 0 counts zeros. Bucket i counts the values above 2^(i-2), up to 2^(i-1).
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// The largest value that has a bucket with an upper bound.
    pub const MAX: u64 = 1 << (BUCKETS - 3);

    /// Counts a value.
    pub fn count(&mut self, value: u64) {
        // A value and a half less rounds each power of two down, and all above it up.
        let index = u64::BITS - value.saturating_mul(2).saturating_sub(1).leading_zeros();
        self.buckets[(index as usize).min(BUCKETS - 1)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the number of values.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the mean, rounded down. Returns `None` without values.
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.total())
    }

    /// Returns each upper bound from 0 on, and the number of values up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let bounds = std::iter::once(0).chain((0..BUCKETS - 2).map(|power| 1 << power));
        bounds.zip(&self.buckets).scan(0, |values, (bound, count)| {
            *values += count;
            Some((bound, *values))
        })
    }

    /// Returns the bound that at least `percent` of the values do not exceed: at most twice the
    /// exact percentile. Returns [`u64::MAX`] beyond the last bound, and `None` without values.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let total = self.total();
        let reaches = |values: u64| values as u128 * 100 >= total as u128 * percent as u128;
        let bound = self.cumulative().find(|(_, values)| reaches(*values));
        (total > 0).then(|| bound.map_or(u64::MAX, |(bound, _)| bound))
    }
}

/// Writes a summary in the form that Redis has for commands. `p99` is an upper bound.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, p99) = (self.mean().unwrap_or(0), self.percentile(99).unwrap_or(0));
        f.pad(&format!("count={},mean={mean},p99={p99}", self.total()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.count(*value));
        histogram
    }

    #[test]
    fn a_value_counts_up_to_the_first_bound_that_it_does_not_exceed() {
        for power in 0..34 {
            let bound = 1 << power;
            for (value, least) in [(bound, bound), (bound + 1, 2 * bound)] {
                let histogram = of(&[value]);
                let counted = histogram.cumulative().find(|(_, values)| *values == 1);
                assert_eq!(counted, Some((least, 1)), "{value}");
            }
        }
        assert_eq!(of(&[0]).cumulative().next(), Some((0, 1)));
        assert_eq!(of(&[1]).cumulative().take(2).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_value_beyond_the_last_bound_counts_in_the_total_alone() {
        assert_eq!(of(&[]).cumulative().last(), Some((Histogram::MAX, 0)));
        assert_eq!(of(&[Histogram::MAX]).cumulative().last(), Some((Histogram::MAX, 1)));
        for value in [Histogram::MAX + 1, u64::MAX / 2 + 1, u64::MAX] {
            let histogram = of(&[value]);
            assert_eq!(histogram.cumulative().last(), Some((Histogram::MAX, 0)), "{value}");
            assert_eq!((histogram.total(), histogram.sum()), (1, value));
        }
        assert_eq!(of(&[u64::MAX, 7]).sum(), u64::MAX, "the sum stays at its maximum");
    }

    #[test]
    fn mean_and_percentile_are_those_of_the_values() {
        let values: Vec<u64> = (1..=1000).collect();
        let histogram = of(&values);
        assert_eq!(
            (histogram.total(), histogram.sum(), histogram.mean()),
            (1000, 500_500, Some(500))
        );
        for (percent, exact) in [(0, 0), (1, 10), (50, 500), (99, 990), (100, 1000)] {
            let bound = histogram.percentile(percent).unwrap();
            assert!((exact..=2 * exact).contains(&bound), "{percent} %: {bound}");
        }
        assert_eq!(of(&[u64::MAX]).percentile(99), Some(u64::MAX));
        assert_eq!((of(&[]).mean(), of(&[]).percentile(99)), (None, None));
        assert_eq!(of(&[2, 3, 900]).to_string(), "count=3,mean=301,p99=1024");
        assert_eq!(of(&[]).to_string(), "count=0,mean=0,p99=0");
    }
}
