//! How many rows a worker writes in one transaction, so that little is rolled back when it is told to end.

use std::time::Duration;

/// Half of the time that a worker has to end: a batch that has just begun is still finished.
const LONGEST_WRITE: Duration = Duration::from_millis(50);

/// Batches are not made smaller than this: what a transaction costs beside its rows would take over.
const SMALLEST_BATCH: usize = 100;

/// How fast `user_logins` has taken rows lately.
#[derive(Default)]
pub struct Pace {
    time_per_row: Option<Duration>,
}

impl Pace {
    /// Records that `rows` were written in this time, the commit not included: a commit that waits for a standby is
    /// no reason for smaller batches.
    pub fn note(&mut self, rows: usize, time: Duration) {
        let Ok(rows) = u32::try_from(rows.max(1)) else {
            return;
        };
        let time_per_row = time / rows;
        self.time_per_row = Some(match self.time_per_row {
            None => time_per_row,
            Some(before) => (before * 3 + time_per_row) / 4,
        });
    }

    /// The most rows to write next, of at most `batch_size`.
    pub fn batch(&self, batch_size: usize) -> usize {
        let Some(time_per_row) = self.time_per_row.filter(|time| !time.is_zero()) else {
            return batch_size;
        };
        let fits = LONGEST_WRITE.as_nanos() / time_per_row.as_nanos();
        usize::try_from(fits)
            .unwrap_or(usize::MAX)
            .max(SMALLEST_BATCH)
            .min(batch_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_table_gets_full_batches() {
        let mut pace = Pace::default();
        assert_eq!(pace.batch(1_000), 1_000);
        pace.note(1_000, Duration::from_millis(15));
        assert_eq!(pace.batch(1_000), 1_000);
    }

    #[test]
    fn a_slow_table_gets_batches_that_are_written_soon() {
        let mut pace = Pace::default();
        pace.note(1_000, Duration::from_millis(200));
        assert_eq!(pace.batch(1_000), 250);
        pace.note(10, Duration::from_secs(10));
        assert_eq!(pace.batch(1_000), 100);
        assert_eq!(pace.batch(50), 50);
    }

    #[test]
    fn a_slow_table_that_becomes_fast_gets_full_batches_again() {
        let mut pace = Pace::default();
        pace.note(100, Duration::from_secs(1));
        for _ in 0..30 {
            pace.note(100, Duration::from_millis(1));
        }
        assert_eq!(pace.batch(1_000), 1_000);
    }
}
