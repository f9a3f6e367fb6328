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
        let old: Vec<Oid> = (0..LEAVES)
            .filter(|&place| last_day_of(place, today) < last_day_kept)
            .map(|place| self.leaves[place])
            .collect();
        // All are counted before the first is truncated, which stays locked until the transaction ends.
        let entries: Vec<i64> = match counting {
            Counting::No => vec![0; old.len()],
            Counting::Yes => old
                .iter()
                .map(|leaf| entries_if_expired(ledger, *leaf, &oldest_kept))
                .collect(),
        };
        let truncated = old
            .into_iter()
            .zip(entries)
            .filter(|(leaf, _)| truncate_if_expired(ledger, *leaf, &oldest_kept));
        truncated.map(|(_, entries)| entries).sum()
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

/// How many entries a leaf has, if all of them are expired.
fn entries_if_expired(ledger: &OwnTable, leaf: Oid, oldest_kept: &impl Fn() -> i64) -> i64 {
    let entries = if_free(ledger, leaf, |name| {
        if !is_expired(name, oldest_kept)? {
            return Ok(None);
        }
        Spi::get_one(&format!("SELECT pg_catalog.count(*) FROM {name}"))
    });
    entries.unwrap_or(0)
}

/// Truncates a leaf if all of its entries are expired; returns whether they were.
fn truncate_if_expired(ledger: &OwnTable, leaf: Oid, oldest_kept: &impl Fn() -> i64) -> bool {
    let truncated = if_free(ledger, leaf, |name| {
        if !is_expired(name, oldest_kept)? {
            return Ok(None);
        }
        Spi::run(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))?;
        // TRUNCATE removes what an older snapshot does not see as well.
        if !is_expired(name, oldest_kept)? {
            return Ok(None);
        }
        Spi::run(&format!("TRUNCATE {name}")).map(Some)
    });
    truncated.is_some()
}

/// Runs `work` with the name of a leaf that has entries. Keeps no lock where it returns `None`, and waits for nobody
/// for long: even looking at a leaf has to wait for a session that is truncating it.
fn if_free<T>(
    ledger: &OwnTable,
    leaf: Oid,
    work: impl FnOnce(&str) -> SpiResult<Option<T>>,
) -> Option<T> {
    let done = attempt_to_keep(
        || {
            with_lock_timeout(TRUNCATE_WITHIN, || {
                if relation::blocks(leaf) == 0 {
                    return None;
                }
                let leaf = ledger.partition(leaf);
                leaf.write(|| work(leaf.name()).or_raise())
            })
        },
        Option::is_some,
    );
    match done {
        Ok(result) => result,
        Err(error) if error.is_contention() => None,
        Err(error) => error.rethrow(),
    }
}

fn is_expired(name: &str, oldest_kept: &impl Fn() -> i64) -> SpiResult<bool> {
    with_latest_snapshot(|| {
        // Read from the right end of the primary key.
        let youngest: Option<TimestampWithTimeZone> = query::one(
            &format!(
                "SELECT pg_catalog.max(sent_at) FROM {name} WHERE sent_at OPERATOR(pg_catalog.<) \
                   (pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => $1))"
            ),
            &[DAYS_AHEAD_THAT_COUNT.into()],
        )?;
        Ok(youngest.is_none_or(|youngest| i64::from(youngest) < oldest_kept()))
    })
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
