//! How long messages took from being sent to being committed: a histogram that any number of processes add to.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets to each doubling, as a power of two: a bucket's upper bound is above what it counts by one part in 16 at
/// most.
const SUB_BITS: u32 = 4;
const SUB_BUCKETS: usize = 1 << SUB_BITS;

/// In milliseconds, 24 days: SQS keeps a message for 14 at most.
const LONGEST: u64 = (1 << 31) - 1;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Counts of lags. Log-linear: a bucket for each millisecond up to 32 ms, then 16 to each doubling. A bucket counts
/// what is above the upper bound of the one before it, and not above its own.
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    /// In milliseconds: microseconds would be too many for a backlog that waited for days.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts lags, in microseconds. A negative one, as clocks that disagree make it, counts as none at all.
    pub fn record(&self, lags: impl IntoIterator<Item = i64>) {
        let mut sum: u64 = 0;
        for lag in lags {
            let lag = u64::try_from(lag).unwrap_or(0);
            self.counts[bucket(lag.saturating_sub(1) / 1_000)].fetch_add(1, Ordering::Relaxed);
            sum = sum.saturating_add(lag);
        }
        self.sum.fetch_add(sum / 1_000, Ordering::Relaxed);
    }

    /// Forgets all.
    pub fn clear(&self) {
        let of_buckets = self.counts.iter();
        of_buckets
            .chain([&self.sum])
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        Snapshot {
            total: counts.iter().sum(),
            counts,
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// The counts of a histogram, as they were at one moment.
pub struct Snapshot {
    counts: Vec<u64>,
    total: u64,
    sum: u64,
}

impl Snapshot {
    /// The lag, in milliseconds, that `percent` of all lags are not above: the upper bound of a bucket. None where
    /// there is none.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = u64::try_from((u128::from(self.total) * u128::from(percent)).div_ceil(100))
            .unwrap_or(self.total)
            .max(1);
        let mut not_above = self.not_above();
        not_above
            .find(|(_, count)| *count >= rank)
            .map(|(bucket, _)| upper_bound(bucket))
    }

    /// For each bucket that has counted something: its upper bound in milliseconds, and how many lags are not above
    /// that. Last all lags, with no bound: the longest ones are in no bucket that has one.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounded = self
            .not_above()
            .take(BUCKETS - 1)
            .filter(|(bucket, _)| self.counts[*bucket] > 0)
            .map(|(bucket, count)| (Some(upper_bound(bucket)), count));
        bounded.chain([(None, self.total)])
    }

    /// The sum of all lags, in milliseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The buckets in their order, each with what it and those before it have counted.
    fn not_above(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.scan(0, |so_far, (bucket, count)| {
            *so_far += count;
            Some((bucket, *so_far))
        })
    }
}

/// The bucket of a lag of more than this many whole milliseconds.
const fn bucket(milliseconds: u64) -> usize {
    let capped = if milliseconds < LONGEST {
        milliseconds
    } else {
        LONGEST
    };
    if capped < SUB_BUCKETS as u64 {
        return capped as usize;
    }
    let doubling = capped.ilog2() - SUB_BITS;
    (doubling as usize) * SUB_BUCKETS + (capped >> doubling) as usize
}

/// The longest lag, in milliseconds, that a bucket counts.
fn upper_bound(bucket: usize) -> u64 {
    let doubling = (bucket / SUB_BUCKETS).saturating_sub(1);
    let first = ((bucket - doubling * SUB_BUCKETS) as u64) << doubling;
    first + (1 << doubling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: i64 = 1_000;

    fn of(lags: &[i64]) -> Snapshot {
        let histogram = Histogram {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        };
        histogram.record(lags.iter().copied());
        histogram.snapshot()
    }

    /// By the definition: the value at the nearest rank.
    fn exact_percentile(lags: &[i64], percent: usize) -> i64 {
        let mut sorted = lags.to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(of(&[]).percentile(50), None);
        assert_eq!(of(&[]).percentile(0), None);
    }

    #[test]
    fn nothing_is_counted_without_a_bound_alone() {
        assert_eq!(of(&[]).cumulative().collect::<Vec<_>>(), [(None, 0)]);
        assert_eq!(of(&[]).sum(), 0);
    }

    #[test]
    fn short_lags_are_exact_to_the_millisecond() {
        for lag in 1..=32 {
            assert_eq!(of(&[lag * MS]).percentile(50), Some(lag as u64));
            assert!(of(&[lag * MS + 1]).percentile(50) > Some(lag as u64));
        }
    }

    #[test]
    fn clocks_that_disagree_make_no_lag() {
        let none = of(&[-5, i64::MIN, 0]);
        assert_eq!(none.percentile(99), Some(1));
        assert_eq!(none.sum(), 0);
    }

    #[test]
    fn what_no_queue_keeps_for_so_long_is_below_no_bound() {
        let longest = of(&[i64::MAX, (LONGEST as i64 + 2) * MS, 5 * MS]);
        assert!(longest.percentile(99) > Some(14 * 24 * 3_600_000));
        assert_eq!(
            longest.cumulative().collect::<Vec<_>>(),
            [(Some(5), 1), (None, 3)]
        );
    }

    #[test]
    fn one_in_a_hundred_is_what_the_99th_percentile_leaves_out() {
        let mut lags = vec![10 * MS; 99];
        lags.push(1_000_000 * MS);
        assert_eq!(of(&lags).percentile(99), Some(10));
        lags.push(1_000_000 * MS);
        assert!(of(&lags).percentile(99) > Some(900_000));
    }

    #[test]
    fn every_doubling_of_a_millisecond_is_a_bound() {
        for doubling in 0..31 {
            let bound = 1 << doubling;
            assert_eq!(of(&[bound * MS]).percentile(50), Some(bound as u64));
        }
    }

    fn lags() -> impl Strategy<Value = Vec<i64>> {
        let lag = prop_oneof![0..100 * MS, 0..100_000 * MS, 0..1_209_600_000 * MS];
        prop::collection::vec(lag, 1..200)
    }

    proptest! {
        #[test]
        fn percentiles_are_above_by_one_part_in_16_or_a_millisecond_at_most(
            lags in lags(),
            percent in 0..=100_usize,
        ) {
            let exact = exact_percentile(&lags, percent);
            let seen = of(&lags).percentile(percent as u64).unwrap() as i64 * MS;
            prop_assert!(exact <= seen, "{seen} instead of {exact}");
            prop_assert!(seen - exact <= (exact / 16).max(MS), "{seen} instead of {exact}");
        }

        #[test]
        fn each_bound_has_as_many_lags_below_it_as_it_says(lags in lags()) {
            for (bound, count) in of(&lags).cumulative() {
                let below = lags.iter().filter(|lag| bound.is_none_or(|bound| **lag <= bound as i64 * MS));
                prop_assert_eq!(below.count() as u64, count, "not above {:?} ms", bound);
            }
        }

        #[test]
        fn the_sum_is_that_of_all(lags in lags()) {
            prop_assert_eq!(of(&lags).sum(), lags.iter().sum::<i64>() as u64 / 1_000);
        }

        #[test]
        fn a_longer_lag_is_never_in_an_earlier_bucket(lag in 0..LONGEST, more in 0..1_000_000_u64) {
            prop_assert!(bucket(lag) <= bucket(lag + more));
        }
    }
}
