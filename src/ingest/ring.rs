//! The leaves of the ledger: a ring of days, in which the same leaf has its turn every 32 days.

use std::ffi::CString;
use std::rc::Rc;
use std::time::Duration;

use pgrx::Spi;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiResult;

use super::ledger::Key;
use crate::own_tables::OwnTable;
use crate::pg::or_raise::OrRaise;
use crate::pg::setting::with_lock_timeout;
use crate::pg::subtransaction::attempt_to_keep;
use crate::pg::transaction::with_latest_snapshot;
use crate::pg::{clock, query, relation};

/// How many leaves there are. A power of two, so that the table's partition key is a mask.
const LEAVES: usize = 32;

/// An insert into an expired leaf, which only a very late redelivery does, waits no longer than this.
const TRUNCATE_WITHIN: Duration = Duration::from_millis(10);

/// Entries that were sent by a clock ahead of ours count like others: their messages may come again, too. Those that
/// were sent further ahead than this would keep their leaf almost for ever.
const DAYS_AHEAD_THAT_COUNT: i32 = 400;

/// Whether to count what is pruned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    Yes,
    No,
}

/// The leaves of a ledger that is as CREATE EXTENSION made it.
#[derive(Clone)]
pub struct Ring {
    leaves: [Oid; LEAVES],
    /// The same, in the order in which Postgres has them.
    partitions: Rc<[Oid]>,
}

impl Ring {
    /// The leaves of `ledger`; none if it was replaced by a table of another kind.
    pub fn of(ledger: &OwnTable) -> Option<Ring> {
        let partitions = relation::partitions(ledger.oid());
        if partitions.len() != LEAVES {
            return None;
        }
        let mut leaves = [Oid::INVALID; LEAVES];
        for (place, leaf) in leaves.iter_mut().enumerate() {
            let name = CString::new(format!("sqs_ledger_{place:02}")).ok()?;
            *leaf = relation::find(ledger.schema(), &name)?;
            if !partitions.contains(leaf) {
                return None;
            }
        }
        Some(Ring {
            leaves,
            partitions: partitions.into(),
        })
    }

    /// Whether these are still the leaves of `ledger`, each in its place: its owner can detach and attach them.
    pub fn is_of(&self, ledger: &OwnTable) -> bool {
        relation::partitions(ledger.oid()) == *self.partitions
    }

    /// The leaves that entries with these keys belong to.
    pub fn leaves_of(&self, keys: &[Key]) -> Vec<Oid> {
        let needed = keys
            .iter()
            .fold(0u32, |needed, key| needed | 1 << place_of(key.day()));
        (0..LEAVES)
            .filter(|place| needed & 1 << place != 0)
            .map(|place| self.leaves[place])
            .collect()
    }

    /// Truncates the leaves of `ledger` whose youngest entry was sent longer than `retention` ago, which is asked once
    /// more when a leaf is locked: it may be fed by another queue by then. A leaf that somebody else has locked is left
    /// for the next time. Returns how many entries those had, if it is to count them, which takes longer than
    /// truncating.
    pub fn truncate_expired(
        &self,
        ledger: &OwnTable,
        retention: impl Fn() -> Duration,
        counting: Counting,
    ) -> i64 {
        let oldest_kept = || clock::now().saturating_sub(microseconds(retention()));
        let last_day_kept = clock::day_of(oldest_kept());
        let today = clock::day_of(clock::now());
        (0..LEAVES)
            .filter(|&place| last_day_of(place, today) < last_day_kept)
            .map(|place| truncate_if_expired(ledger, self.leaves[place], &oldest_kept, counting))
            .sum()
    }
}

fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The place of the leaf that a day has, by the table's partition key.
fn place_of(day: i32) -> usize {
    (day & (LEAVES as i32 - 1)) as usize
}

/// The last day up to `latest` that has the leaf in `place`.
fn last_day_of(place: usize, latest: i32) -> i32 {
    let since = place_of(latest - place as i32);
    latest - since as i32
}

/// Even looking at a leaf has to wait for a session that is truncating it.
fn truncate_if_expired(
    ledger: &OwnTable,
    leaf: Oid,
    oldest_kept: &impl Fn() -> i64,
    counting: Counting,
) -> i64 {
    // Releases a lock that was of no use.
    let truncated = attempt_to_keep(
        || {
            with_lock_timeout(TRUNCATE_WITHIN, || {
                if relation::blocks(leaf) == 0 {
                    return None;
                }
                let leaf = ledger.partition(leaf);
                leaf.write(|| truncate_older_than(leaf.name(), oldest_kept, counting).or_raise())
            })
        },
        Option::is_some,
    );
    match truncated {
        Ok(entries) => entries.unwrap_or(0),
        Err(error) if error.is_contention() => 0,
        Err(error) => error.rethrow(),
    }
}

/// How many entries it had, as far as they are counted; `None` if it is not expired.
fn truncate_older_than(
    name: &str,
    oldest_kept: &impl Fn() -> i64,
    counting: Counting,
) -> SpiResult<Option<i64>> {
    let is_expired = || -> SpiResult<bool> {
        // Read from the right end of the primary key.
        let youngest: Option<TimestampWithTimeZone> = query::one(
            &format!(
                "SELECT pg_catalog.max(sent_at) FROM {name} WHERE sent_at OPERATOR(pg_catalog.<) \
                   (pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => $1))"
            ),
            &[DAYS_AHEAD_THAT_COUNT.into()],
        )?;
        Ok(youngest.is_none_or(|youngest| i64::from(youngest) < oldest_kept()))
    };
    if !with_latest_snapshot(is_expired)? {
        return Ok(None);
    }
    let entries = match counting {
        Counting::No => 0,
        Counting::Yes => {
            Spi::get_one(&format!("SELECT pg_catalog.count(*) FROM {name}"))?.unwrap_or(0)
        }
    };
    Spi::run(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))?;
    // TRUNCATE removes what an older snapshot does not see as well.
    if !with_latest_snapshot(is_expired)? {
        return Ok(None);
    }
    Spi::run(&format!("TRUNCATE {name}"))?;
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_day_of_a_leaf_is_its_last_one(place in 0usize..LEAVES, latest in 0i32..3_000_000) {
            let day = last_day_of(place, latest);
            prop_assert_eq!(place_of(day), place);
            prop_assert!(day <= latest && day > latest - LEAVES as i32);
        }
    }
}
