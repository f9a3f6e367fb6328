//! Deleting entries: of values that were not seen for long, and of one that is to be forgotten; and data keys that seal
//! nothing any more.

use std::time::Duration;

use pgrx::spi::{SpiClient, SpiResult};
use pgrx::{Spi, Uuid};

use super::Day;
use crate::errors::Failure;
use crate::own_tables::{OwnTable, VAULT, VAULT_KEY};
use crate::pg::array::{self, rows_of};
use crate::pg::clock;
use crate::pg::or_raise::OrRaise;
use crate::pg::replication::is_subscribed;
use crate::pg::transaction::has_fixed_snapshot;

/// Deletes at most `most` entries of values that were not seen for `retention` (zero: none), and the data keys that
/// seal nothing any more; returns how many entries. None where the extension is not installed, or logical replication
/// brings the vault here.
pub fn prune(retention: Duration, most: i64) -> i64 {
    let (Ok(vault), Ok(keys)) = (OwnTable::find(VAULT), OwnTable::find(VAULT_KEY)) else {
        return 0;
    };
    // The publisher prunes, and what it deletes is deleted here. An entry that goes here first would be missing if it
    // is seen there in time, and a data key that comes before what it seals looks unused.
    if is_subscribed(vault.oid()) || is_subscribed(keys.oid()) {
        return 0;
    }
    let deleted = if retention.is_zero() {
        Ok(0)
    } else {
        delete_unseen_since(&vault, day_before_now(retention), most)
    };
    let deleted = deleted.or_raise();
    delete_unused_keys(&vault, &keys).or_raise();
    deleted
}

/// Deletes the entries of these masks; returns how many there were.
///
/// # Errors
/// [`Failure::NotInstalled`].
pub fn forget(masks: &[vault::Mask]) -> Result<i64, Failure> {
    let (vault, keys) = (OwnTable::find(VAULT)?, OwnTable::find(VAULT_KEY)?);
    let deleted = delete_masks(&vault, masks).or_raise();
    if deleted > 0 && !is_subscribed(keys.oid()) {
        delete_unused_keys(&vault, &keys).or_raise();
    }
    Ok(deleted)
}

fn day_before_now(duration: Duration) -> Day {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    clock::day_of(clock::now().saturating_sub(microseconds))
}

/// A value that was seen on the day itself may have been seen at its end.
///
/// The index on `key_id` and `last_seen` has them together for each data key, of which there are few.
fn delete_unseen_since(vault: &OwnTable, day: Day, most: i64) -> SpiResult<i64> {
    let table = vault.name();
    let day = format!("('2000-01-01'::pg_catalog.date OPERATOR(pg_catalog.+) {day})");
    let find = format!(
        "WITH RECURSIVE key (id) AS ( \
           (SELECT key_id FROM {table} ORDER BY key_id LIMIT 1) \
           UNION ALL \
           SELECT (SELECT key_id FROM {table} WHERE key_id OPERATOR(pg_catalog.>) key.id ORDER BY key_id LIMIT 1) \
           FROM key WHERE key.id IS NOT NULL) \
         SELECT unseen.mask FROM key, LATERAL ( \
           SELECT mask FROM {table} AS entry WHERE entry.key_id OPERATOR(pg_catalog.=) key.id \
           AND entry.last_seen OPERATOR(pg_catalog.<) {day} LIMIT $1) AS unseen LIMIT $1"
    );
    // An entry that a session is about to update is left to that session.
    let delete = format!(
        "DELETE FROM {table} WHERE mask OPERATOR(pg_catalog.=) ANY (ARRAY( \
           SELECT mask FROM {table} WHERE mask OPERATOR(pg_catalog.=) ANY ($1) \
           AND last_seen OPERATOR(pg_catalog.<) {day} FOR UPDATE SKIP LOCKED))"
    );
    vault.write(|| {
        Spi::connect_mut(|client| {
            let masks: Vec<String> = client
                .update(find.as_str(), None, &[most.into()])?
                .filter_map(|row| row.get(1).transpose())
                .collect::<SpiResult<_>>()?;
            // Each DELETE makes every process forget what it knows, even if it deletes nothing.
            if masks.is_empty() {
                return Ok(0);
            }
            let masks = array::text(masks.iter().map(|mask| Some(mask.as_str())));
            let deleted = client.update(delete.as_str(), None, &[masks])?;
            Ok(deleted.len() as i64)
        })
    })
}

fn delete_masks(vault: &OwnTable, masks: &[vault::Mask]) -> SpiResult<i64> {
    let table = vault.name();
    let of_masks = format!("FROM {table} WHERE mask OPERATOR(pg_catalog.=) ANY ($1)");
    // In the order in which sessions write them.
    let lock = format!("SELECT 1 {of_masks} ORDER BY mask FOR UPDATE");
    let delete = format!("DELETE {of_masks}");
    let masks: Vec<String> = masks.iter().map(vault::Mask::to_string).collect();
    let argument = || array::text(masks.iter().map(|mask| Some(mask.as_str())));
    vault.write(|| {
        Spi::connect_mut(|client| {
            if client
                .update(lock.as_str(), None, &[argument()])?
                .is_empty()
            {
                return Ok(0);
            }
            let deleted = client.update(delete.as_str(), None, &[argument()])?;
            Ok(deleted.len() as i64)
        })
    })
}

/// A session that writes entries locks their keys. So a key is locked here before it is looked at for the last time:
/// a session that used it before has committed, so its entries are seen; one that uses it later waits, and rewrites it.
fn delete_unused_keys(vault: &OwnTable, keys: &OwnTable) -> SpiResult<()> {
    // Every look would be at the same state of the vault.
    if has_fixed_snapshot() {
        return Ok(());
    }
    let table = keys.name();
    let all = format!("SELECT key_id FROM {table}");
    let lock = format!(
        "SELECT key_id FROM {table} WHERE key_id OPERATOR(pg_catalog.=) ANY ($1) FOR UPDATE SKIP LOCKED"
    );
    let delete = format!("DELETE FROM {table} WHERE key_id OPERATOR(pg_catalog.=) ANY ($1)");
    let all = keys.read(|| Spi::connect_mut(|client| ids(client, &all, None)))?;
    let unused = unused(vault, &all)?;
    if unused.is_empty() {
        return Ok(());
    }
    keys.write(|| {
        let locked = Spi::connect_mut(|client| ids(client, &lock, Some(&unused)))?;
        let unused = self::unused(vault, &locked)?;
        Spi::connect_mut(|client| ids(client, &delete, Some(&unused)))?;
        Ok(())
    })
}

/// Those of `keys` that seal nothing now. By the index on `key_id`, one at a time: keys are few, entries are many.
fn unused(vault: &OwnTable, keys: &[Uuid]) -> SpiResult<Vec<Uuid>> {
    let sql = format!(
        "SELECT id FROM {} AS key (id) WHERE ( \
           SELECT pg_catalog.count(*) FROM ( \
             SELECT FROM {} AS entry WHERE entry.key_id OPERATOR(pg_catalog.=) key.id LIMIT 1) AS first \
         ) OPERATOR(pg_catalog.=) 0",
        rows_of(1..=1),
        vault.name()
    );
    vault.read(|| Spi::connect_mut(|client| ids(client, &sql, Some(keys))))
}

/// Runs a statement that may be about some keys. `update` makes each run see what was committed before it.
fn ids(client: &mut SpiClient<'_>, sql: &str, about: Option<&[Uuid]>) -> SpiResult<Vec<Uuid>> {
    let found = match about {
        None => client.update(sql, None, &[])?,
        Some(keys) => {
            let keys = array::uuid(keys.iter().map(|key| *key.as_bytes()));
            client.update(sql, None, &[keys])?
        }
    };
    found
        .filter_map(|row| row.get::<Uuid>(1).transpose())
        .collect()
}
