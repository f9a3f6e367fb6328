//! How long messages took from being sent to being committed: a histogram that any number of processes add to.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets to each doubling, as a power of two: a value is off by half a bucket at most, one part in 32.
const SUB_BITS: u32 = 4;
const SUB_BUCKETS: usize = 1 << SUB_BITS;

/// 24 days: SQS keeps a message for 14 at most.
const LONGEST: u64 = (1 << 31) - 1;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Counts of lags in milliseconds. Log-linear: exact up to 31 ms, then 16 buckets to each doubling.
pub struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    /// Counts one lag. A negative one, as clocks that disagree make it, counts as none at all.
    pub fn record(&self, milliseconds: i64) {
        let milliseconds = u64::try_from(milliseconds).unwrap_or(0);
        self.0[bucket(milliseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0
            .iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let counts: Vec<u64> = self
            .0
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let total = counts.iter().sum();
        Snapshot { counts, total }
    }
}

/// The counts of a histogram, as they were at one moment.
pub struct Snapshot {
    counts: Vec<u64>,
    total: u64,
}

impl Snapshot {
    /// The lag, in milliseconds, that `percent` of all lags are not above; none where there is none.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = u64::try_from((u128::from(self.total) * u128::from(percent)).div_ceil(100))
            .unwrap_or(self.total)
            .max(1);
        let mut below = 0;
        self.counts
            .iter()
            .position(|count| {
                below += count;
                below >= rank
            })
            .map(middle)
    }
}

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

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let Some(doubling) = (bucket / SUB_BUCKETS).checked_sub(1) else {
        return bucket as u64;
    };
    let first = ((bucket - doubling * SUB_BUCKETS) as u64) << doubling;
    first + ((1 << doubling) - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lags: &[i64]) -> Snapshot {
        let histogram = Histogram([const { AtomicU64::new(0) }; BUCKETS]);
        lags.iter().for_each(|lag| histogram.record(*lag));
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
    fn short_lags_are_exact() {
        for lag in 0..32 {
            assert_eq!(of(&[lag]).percentile(50), Some(lag as u64));
        }
    }

    #[test]
    fn clocks_that_disagree_make_no_lag() {
        assert_eq!(of(&[-5, i64::MIN]).percentile(99), Some(0));
    }

    #[test]
    fn what_no_queue_keeps_for_so_long_counts_as_the_longest() {
        let longest = of(&[i64::MAX]).percentile(99);
        assert_eq!(longest, of(&[LONGEST as i64]).percentile(99));
        assert!(longest > Some(14 * 24 * 3_600_000));
    }

    #[test]
    fn one_in_a_hundred_is_what_the_99th_percentile_leaves_out() {
        let mut lags = vec![10; 99];
        lags.push(1_000_000);
        assert_eq!(of(&lags).percentile(99), Some(10));
        lags.push(1_000_000);
        assert!(of(&lags).percentile(99) > Some(900_000));
    }

    proptest! {
        #[test]
        fn percentiles_are_off_by_one_part_in_32_at_most(
            lags in prop::collection::vec(prop_oneof![0..100_i64, 0..100_000_i64, 0..1_209_600_000_i64], 1..200),
            percent in 0..=100_usize,
        ) {
            let exact = exact_percentile(&lags, percent);
            let seen = of(&lags).percentile(percent as u64).unwrap() as i64;
            prop_assert!((seen - exact).abs() * 32 <= exact, "{seen} instead of {exact}");
        }

        #[test]
        fn a_longer_lag_is_never_in_an_earlier_bucket(lag in 0..LONGEST, more in 0..1_000_000_u64) {
            prop_assert!(bucket(lag) <= bucket(lag + more));
        }
    }
}
