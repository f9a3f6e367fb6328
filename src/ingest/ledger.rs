//! The ledger: which messages have become rows, so that a redelivered one never makes a second.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::{BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult, SpiTupleTable};
use pgrx::{Spi, Uuid};

use super::message::Row;
use super::ring::Ring;
use crate::errors::Failure;
use crate::own_tables::OwnTable;
use crate::pg::array::{self, rows_of};
use crate::pg::or_raise::OrRaise;
use crate::pg::setting::with_lock_timeout;
use crate::pg::subtransaction::attempt_to_keep;
use crate::pg::{clock, query, relation};

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
    /// Hardly at all: the statement then fails with 55P03.
    Hurried,
}

/// The lock timeout of a hurried entry: long enough only for a session that is extending the table at that moment.
const LOCK_TIMEOUT: Duration = Duration::from_millis(10);

/// The statement that enters messages in the ledger, prepared.
pub struct Ledger {
    table: OwnTable,
    ring: RefCell<Option<Ring>>,
    enter: OwnedPreparedStatement,
    /// The same without telling which were new. A foreign table takes rows one by one if it is asked that.
    enter_untold: Option<OwnedPreparedStatement>,
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
    /// Those of SPI.
    pub fn prepare(table: &OwnTable) -> SpiResult<Ledger> {
        let insert = format!(
            "INSERT INTO {} (sent_at, message_id) \
             SELECT sent_at, message_id FROM {} AS entry (sent_at, message_id) \
             ON CONFLICT DO NOTHING",
            table.name(),
            rows_of(1..=2)
        );
        // RETURNING is read through a CTE, since Citus counts the rows that it sent, not those that it returns.
        let telling = format!(
            "WITH entered AS ({insert} RETURNING sent_at, message_id) SELECT sent_at, message_id FROM entered"
        );
        let types = [BuiltinOid::TIMESTAMPTZARRAYOID, BuiltinOid::UUIDARRAYOID].map(PgOid::BuiltIn);
        // As the owner: row-level security does not concern it, whatever row_security says.
        let prepare = |sql: &str| {
            table.read(|| {
                Spi::connect(|client| client.prepare_mut(sql, &types).map(|plan| plan.keep()))
            })
        };
        let is_foreign = relation::foreign_server(table.oid()).is_some();
        Ok(Ledger {
            table: table.clone(),
            ring: RefCell::new(Ring::of(table)),
            enter: prepare(&telling)?,
            enter_untold: is_foreign.then(|| prepare(&insert)).transpose()?,
        })
    }

    /// Enters `keys`, in ascending order and each once, except those that are there already; returns which were new.
    ///
    /// The order makes concurrent sessions wait for each other in one direction only, within one chunk. An error that
    /// [`is_contention`](crate::pg::error::Caught::is_contention) means that another session holds some of them.
    pub fn enter(&self, keys: &[Key], patience: Patience) -> New {
        if let Some(untold) = &self.enter_untold {
            let entered = attempt_to_keep(
                || self.enter_by(untold, keys, patience),
                |entered| matches!(entered, New::All),
            );
            match entered {
                Ok(New::All) => return New::All,
                Ok(New::Only(_)) => {}
                Err(error) => error.rethrow(),
            }
        }
        self.enter_by(&self.enter, keys, patience)
    }

    fn enter_by(
        &self,
        statement: &OwnedPreparedStatement,
        keys: &[Key],
        patience: Patience,
    ) -> New {
        Spi::connect_mut(|client| {
            let arguments = [
                array::timestamptz(keys.iter().map(|key| key.sent_at)),
                array::uuid(keys.iter().map(|key| key.message_id)),
            ];
            let mut enter = || self.write(keys, || client.update(statement, None, &arguments));
            let entered = match patience {
                Patience::UntilItEnds => enter(),
                Patience::Hurried => with_lock_timeout(LOCK_TIMEOUT, enter),
            };
            let entered = entered.or_raise();
            if entered.len() == keys.len() {
                New::All
            } else {
                New::Only(keys_of(entered))
            }
        })
    }

    /// Which of `keys` are in the ledger.
    pub fn known(&self, keys: &[Key]) -> HashSet<Key> {
        // OFFSET 0 makes the planner look up each key by itself, in the primary keys, however many entries there are.
        let sql = format!(
            "SELECT sent_at, message_id FROM {} AS wanted (sent_at, message_id) WHERE EXISTS ( \
               SELECT FROM {} AS entry WHERE entry.sent_at OPERATOR(pg_catalog.=) wanted.sent_at \
                 AND entry.message_id OPERATOR(pg_catalog.=) wanted.message_id OFFSET 0)",
            rows_of(1..=2),
            self.table.name()
        );
        let found: SpiResult<HashSet<Key>> = self.table.read(|| {
            Spi::connect(|client| {
                let arguments = [
                    array::timestamptz(keys.iter().map(|key| key.sent_at)),
                    array::uuid(keys.iter().map(|key| key.message_id)),
                ];
                client.select(sql.as_str(), None, &arguments).map(keys_of)
            })
        });
        found.or_raise()
    }

    /// Takes the locks of the tables that entries for `keys` are written to. A session that keeps those from being
    /// written at all, as CREATE INDEX does, is waited for here, or fails the call: it holds none of the messages.
    pub fn lock(&self, rows: &[&Row]) {
        // Its leaves stay where they are from now on.
        self.table.lock_partitions(&[]);
        match self.ring() {
            Some(ring) => {
                let keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
                self.table.lock_partitions(&ring.leaves_of(&keys));
            }
            None => self.table.lock(),
        }
    }

    /// The leaves as they are now.
    fn ring(&self) -> Option<Ring> {
        let mut ring = self.ring.borrow_mut();
        if !ring.as_ref().is_some_and(|ring| ring.is_of(&self.table)) {
            *ring = Ring::of(&self.table);
        }
        ring.clone()
    }

    /// Runs statements that write entries for `keys`.
    fn write<R>(&self, keys: &[Key], work: impl FnOnce() -> R) -> R {
        match self.ring() {
            Some(ring) => self.table.write_partitions(&ring.leaves_of(keys), work),
            None => self.table.write(work),
        }
    }
}

/// Checks that a message can be entered once only, where somebody has replaced the ledger: the ring has its keys. That
/// of a foreign table is on the other server.
///
/// # Errors
/// [`Failure::NoLedgerKey`].
pub fn check_key(ledger: &OwnTable) -> Result<(), Failure> {
    const WITHOUT_KEY: &str = "\
        SELECT class.oid FROM pg_catalog.pg_class AS class \
        WHERE class.oid OPERATOR(pg_catalog.=) ANY ($1) AND class.relkind OPERATOR(pg_catalog.=) 'r' \
          AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_index AS index \
            WHERE index.indrelid OPERATOR(pg_catalog.=) class.oid \
              AND index.indisunique AND index.indimmediate AND index.indisvalid \
              AND index.indpred IS NULL AND index.indexprs IS NULL \
              AND index.indnkeyatts OPERATOR(pg_catalog.=) 2 \
              AND 2 OPERATOR(pg_catalog.=) ( \
                SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS attribute \
                WHERE attribute.attrelid OPERATOR(pg_catalog.=) class.oid \
                  AND attribute.attname OPERATOR(pg_catalog.=) ANY (ARRAY['sent_at', 'message_id']) \
                  AND (attribute.attnum OPERATOR(pg_catalog.=) index.indkey[0] \
                    OR attribute.attnum OPERATOR(pg_catalog.=) index.indkey[1]))) \
        LIMIT 1";
    if Ring::of(ledger).is_some() {
        return Ok(());
    }
    let without: SpiResult<Option<Oid>> =
        query::one(WITHOUT_KEY, &[ledger.with_partitions().into()]);
    match without.or_raise() {
        None => Ok(()),
        Some(table) => Err(Failure::NoLedgerKey {
            ledger: relation::name_of(table),
        }),
    }
}

fn keys_of(entries: SpiTupleTable<'_>) -> HashSet<Key> {
    entries
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
