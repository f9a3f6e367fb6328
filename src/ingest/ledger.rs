//! The ledger: which messages have become rows, so that a redelivered one never makes a second.

use std::collections::HashSet;
use std::time::Duration;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::{BuiltinOid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult, SpiTupleTable};
use pgrx::{Spi, Uuid};

use crate::own_tables::OwnTable;
use crate::pg::array::{self, rows_of};
use crate::pg::clock;
use crate::pg::setting::with_lock_timeout;

/// The ledger's key. A redelivery carries the same time of sending, so the pair is as exact as the id alone, and
/// new entries go to the right edge of the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Microseconds since 2000-01-01 UTC, as a `timestamptz` has them.
    pub sent_at: i64,
    /// The message id.
    pub message_id: [u8; 16],
}

impl Key {
    /// The UTC day of sending, in days since 2000-01-01, as a `date` has them.
    pub fn day(&self) -> i32 {
        clock::day_of(self.sent_at)
    }
}

/// How long to wait for another session that has entered the same message and not committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Until it ends: then the message is a duplicate, or ours.
    UntilItEnds,
    /// Hardly at all, which fails with 55P03.
    Hurried,
}

/// In hurry, a lock that is not there at once is not waited for; 0 would mean no limit.
const HARDLY_AT_ALL: Duration = Duration::from_millis(1);

/// The statement that enters messages in the ledger, prepared.
pub struct Ledger {
    table: OwnTable,
    enter: OwnedPreparedStatement,
}

/// Which messages of a chunk were not in the ledger yet.
pub enum New {
    /// All of them.
    All,
    /// These.
    Only(HashSet<Key>),
}

impl New {
    /// Whether the message with this key was not in the ledger yet.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            New::All => true,
            New::Only(keys) => keys.contains(key),
        }
    }
}

impl Ledger {
    /// Prepares the statement for the ledger `table`.
    ///
    /// # Errors
    /// As SPI has them.
    pub fn prepare(table: &OwnTable) -> SpiResult<Ledger> {
        // RETURNING is read through a CTE, since Citus counts the rows that it sent, not those that it returns.
        let sql = format!(
            "WITH entered AS ( \
               INSERT INTO {} (sent_at, message_id) \
               SELECT sent_at, message_id FROM {} AS entry (sent_at, message_id) \
               ON CONFLICT DO NOTHING RETURNING sent_at, message_id) \
             SELECT sent_at, message_id FROM entered",
            table.name(),
            rows_of(1..=2)
        );
        let types = [BuiltinOid::TIMESTAMPTZARRAYOID, BuiltinOid::UUIDARRAYOID].map(PgOid::BuiltIn);
        let enter = Spi::connect(|client| {
            client
                .prepare_mut(sql.as_str(), &types)
                .map(|plan| plan.keep())
        })?;
        Ok(Ledger {
            table: table.clone(),
            enter,
        })
    }

    /// Enters `keys`, in ascending order and each once, except those that are there already; says which were not.
    ///
    /// The order makes concurrent sessions wait for each other in one direction only, within one chunk. An error that
    /// [`is_contention`](crate::pg::error::Caught::is_contention) means that another session holds some of them.
    pub fn enter(&self, keys: &[Key], patience: Patience) -> New {
        Spi::connect_mut(|client| {
            let arguments = [
                array::timestamptz(keys.iter().map(|key| key.sent_at)),
                array::uuid(keys.iter().map(|key| key.message_id)),
            ];
            let mut enter = || {
                self.table
                    .write(|| client.update(&self.enter, None, &arguments))
            };
            let entered = match patience {
                Patience::UntilItEnds => enter(),
                Patience::Hurried => with_lock_timeout(HARDLY_AT_ALL, enter),
            };
            let entered = entered.unwrap_or_else(|error| pgrx::error!("{error}"));
            if entered.len() == keys.len() {
                New::All
            } else {
                New::Only(entered_keys(entered))
            }
        })
    }
}

fn entered_keys(entered: SpiTupleTable<'_>) -> HashSet<Key> {
    entered
        .filter_map(|entry| {
            let sent_at: TimestampWithTimeZone = entry.get(1).ok()??;
            let message_id: Uuid = entry.get(2).ok()??;
            Some(Key {
                sent_at: sent_at.into(),
                message_id: *message_id.as_bytes(),
            })
        })
        .collect()
}

/// Deletes at most `most` entries that were sent longer than `retention` ago; returns how many.
pub fn prune(ledger: &OwnTable, retention: Duration, most: i64) -> i64 {
    let table = ledger.name();
    let sql = format!(
        "WITH deleted AS ( \
           DELETE FROM {table} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
             SELECT ctid FROM {table} \
             WHERE sent_at OPERATOR(pg_catalog.<) \
                   (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1)) \
             ORDER BY sent_at LIMIT $2)) RETURNING 1) \
         SELECT pg_catalog.count(*) FROM deleted"
    );
    let arguments = [retention.as_secs_f64().into(), most.into()];
    let deleted: SpiResult<Option<i64>> = ledger.write(|| {
        Spi::connect_mut(|client| {
            client
                .update(sql.as_str(), None, &arguments)?
                .first()
                .get_one()
        })
    });
    deleted
        .unwrap_or_else(|error| pgrx::error!("{error}"))
        .unwrap_or(0)
}
