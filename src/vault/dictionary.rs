//! The tables of the vault, and the statements that write them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use pgrx::pg_sys::{BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult, SpiTupleTable};
use pgrx::{Spi, Uuid};
use vault::{Entry, KeyId, WrappedKey};

use super::originals::wrapped_key;
use super::pending::Row;
use crate::errors::Failure;
use crate::own_tables::{OwnTable, VAULT, VAULT_KEY};
use crate::pg::array::{self, elements_of};
use crate::pg::clock;
use crate::pg::datum::timestamp;
use crate::pg::or_raise::OrRaise;
use crate::pg::relation;
use crate::pg::setting::with_index_scans;
use crate::pg::subtransaction::attempt;
use crate::pg::transaction::has_fixed_snapshot;

/// Entries that one statement writes.
const CHUNK: usize = 1_000;

/// How often to try to insert what is missing: a retry means that another session inserted one of the entries first.
const MOST_TRIES: usize = 10;

/// Checks, before anything is received, that entries can be written, and that processes learn of those that are
/// deleted.
///
/// # Errors
/// [`Failure::NotInstalled`], [`Failure::ForeignCode`], [`Failure::IdleTrigger`].
pub fn check() -> Result<(), Failure> {
    let (vault, keys) = (OwnTable::find(VAULT)?, OwnTable::find(VAULT_KEY)?);
    for table in [&vault, &keys] {
        table.check()?;
        check_open_to_its_owner_only(table)?;
    }
    if let Some(trigger) = vault.idle_trigger() {
        return Err(Failure::IdleTrigger(trigger));
    }
    // What keeps the statements from being prepared would otherwise come up at COMMIT.
    Dictionary::prepared().map(drop)
}

/// Rights on all tables, which roles have for other reasons, must not be enough to read or write these two: row-level
/// security without a policy lets nobody in but the owner. It is not enabled from the start, since pg_dump by a role
/// other than the owner fails where it is, and most databases keep no originals.
fn check_open_to_its_owner_only(table: &OwnTable) -> Result<(), Failure> {
    if relation::has_row_level_security(table.oid()) {
        Ok(())
    } else {
        let table = table.name().to_owned();
        Err(Failure::VaultOpenToOthers { table })
    }
}

/// `sqs_vault` and `sqs_vault_key`, and what writes them, prepared once for the life of the backend.
///
/// Entries that are missing are inserted first, then those that are there are brought up to date, both in the order of
/// masks: so sessions wait for each other in one direction. What is there and up to date is only looked at.
pub struct Dictionary {
    vault: OwnTable,
    keys: OwnTable,
    insert_missing: OwnedPreparedStatement,
    bring_up_to_date: OwnedPreparedStatement,
    insert_key: OwnedPreparedStatement,
}

thread_local! {
    static PREPARED: RefCell<Option<Rc<Dictionary>>> = const { RefCell::new(None) };
}

impl Dictionary {
    /// The dictionary of this database.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn prepared() -> Result<Rc<Dictionary>, Failure> {
        let (vault, keys) = (OwnTable::find(VAULT)?, OwnTable::find(VAULT_KEY)?);
        let last = PREPARED.with_borrow(|prepared| prepared.clone());
        if let Some(last) = last.filter(|last| last.vault == vault && last.keys == keys) {
            return Ok(last);
        }
        let fresh = Dictionary::prepare(vault, keys).or_raise();
        let fresh = Rc::new(fresh);
        PREPARED.set(Some(Rc::clone(&fresh)));
        Ok(fresh)
    }

    fn prepare(vault: OwnTable, keys: OwnTable) -> SpiResult<Dictionary> {
        use BuiltinOid::*;
        let table = vault.name();
        let insert_unless_there_is = |an_entry: &str| {
            // Not NOT EXISTS, of which the planner could make a join that reads all of the table.
            format!(
                "INSERT INTO {table} AS known (mask, kind, key_id, sealed, first_seen, last_seen) \
                 SELECT * FROM (SELECT {}) AS new (mask, kind, key_id, sealed, first_seen, last_seen) \
                 WHERE (SELECT true FROM {table} AS entry \
                        WHERE entry.mask OPERATOR(pg_catalog.=) new.mask{an_entry}) IS NULL",
                elements_of(1..=6)
            )
        };
        let insert_missing = insert_unless_there_is("");
        // What is there keeps its sealed original. Read through a CTE to have each key once.
        let bring_up_to_date = format!(
            "WITH written AS ({} \
               ON CONFLICT (mask) DO UPDATE SET last_seen = EXCLUDED.last_seen \
               WHERE known.last_seen OPERATOR(pg_catalog.<) EXCLUDED.last_seen RETURNING key_id) \
             SELECT DISTINCT key_id FROM written",
            insert_unless_there_is(" AND entry.last_seen OPERATOR(pg_catalog.>=) new.last_seen")
        );
        let types = [
            TEXTARRAYOID,
            TEXTARRAYOID,
            UUIDARRAYOID,
            BYTEAARRAYOID,
            DATEARRAYOID,
            DATEARRAYOID,
        ]
        .map(PgOid::BuiltIn);
        // DO UPDATE locks an existing key, though it changes nothing: a session that would delete it, since it seals
        // nothing yet, either has or sees what it seals now.
        let insert_key = format!(
            "INSERT INTO {} (key_id, wrapped, recipients, created) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (key_id) DO UPDATE SET wrapped = EXCLUDED.wrapped WHERE false",
            keys.name()
        );
        let key_types = [UUIDOID, BYTEAOID, TEXTARRAYOID, TIMESTAMPTZOID].map(PgOid::BuiltIn);
        // As the owner, whom row-level security does not concern: where row_security is off, a statement that it does
        // concern is not even analyzed.
        let prepare = |of: &OwnTable, sql: &str, types: &[PgOid]| {
            of.read(|| {
                Spi::connect(|client| client.prepare_mut(sql, types).map(|plan| plan.keep()))
            })
        };
        Ok(Dictionary {
            insert_missing: prepare(&vault, &insert_missing, &types)?,
            bring_up_to_date: prepare(&vault, &bring_up_to_date, &types)?,
            insert_key: prepare(&keys, &insert_key, &key_types)?,
            vault,
            keys,
        })
    }

    /// What `sqs_vault` is to Postgres.
    pub fn oid(&self) -> Oid {
        self.vault.oid()
    }

    /// Writes `rows`, which are in the order of their masks, each once, and the data keys that they are sealed with. Of
    /// what is there already only `last_seen` moves, if it does.
    ///
    /// # Errors
    /// [`Failure::DataKeyLost`].
    pub fn write(&self, rows: &[Row<'_>]) -> Result<(), Failure> {
        let ours: BTreeSet<KeyId> = rows.iter().map(|row| row.entry.key_id()).collect();
        let mut sealing = BTreeSet::new();
        let mut there_before = Vec::new();
        for chunk in rows.chunks(CHUNK) {
            let inserted = self.insert_missing(chunk);
            if inserted > 0 {
                sealing.extend(chunk.iter().map(|row| row.entry.key_id()));
            }
            if inserted < chunk.len() {
                there_before.push(chunk);
            }
        }
        for chunk in there_before {
            sealing.extend(self.bring_up_to_date(chunk));
        }
        // Entries of other sessions are there, with what those sealed.
        for id in ours.intersection(&sealing) {
            let key = wrapped_key(*id).ok_or(Failure::DataKeyLost)?;
            self.insert_key(&key);
        }
        Ok(())
    }

    /// Inserts those that are missing; returns how many.
    ///
    /// A plain INSERT is cheaper than one with ON CONFLICT by a quarter, and locks nothing that is there. Where another
    /// session turns out to have inserted one of them, it is there at the next try.
    fn insert_missing(&self, rows: &[Row<'_>]) -> usize {
        for _ in 0..MOST_TRIES {
            let inserted =
                attempt(|| self.run(&self.insert_missing, rows, |inserted| inserted.len()));
            match inserted {
                Ok(inserted) => return inserted,
                // A fixed snapshot would never see it.
                Err(error) if error.is_unique_violation() && has_fixed_snapshot() => break,
                Err(error) if error.is_unique_violation() => {}
                Err(error) => error.rethrow(),
            }
        }
        0
    }

    /// Moves `last_seen` of those that are there, and inserts those that are not any more; returns the data keys of
    /// both.
    fn bring_up_to_date(&self, rows: &[Row<'_>]) -> Vec<KeyId> {
        self.run(&self.bring_up_to_date, rows, |keys| {
            keys.filter_map(|row| row.get::<Uuid>(1).ok().flatten())
                .map(|id| KeyId::from_bytes(*id.as_bytes()))
                .collect()
        })
    }

    fn run<R>(
        &self,
        statement: &OwnedPreparedStatement,
        rows: &[Row<'_>],
        read: impl FnOnce(SpiTupleTable<'_>) -> R,
    ) -> R {
        let masks: Vec<[u8; 64]> = rows.iter().map(|row| row.mask.digits()).collect();
        let entries = || rows.iter().map(|row| row.entry);
        let result: SpiResult<R> = Spi::connect_mut(|client| {
            let arguments = [
                array::text(masks.iter().map(|digits| str::from_utf8(digits).ok())),
                array::text(entries().map(|entry| Some(entry.kind().as_str()))),
                array::uuid(entries().map(|entry| *entry.key_id().as_bytes())),
                array::bytea(entries().map(Entry::sealed)),
                array::date(rows.iter().map(|row| row.days.first)),
                array::date(rows.iter().map(|row| row.days.last)),
            ];
            let written = self
                .vault
                .write(|| with_index_scans(|| client.update(statement, None, &arguments)))?;
            Ok(read(written))
        });
        result.or_raise()
    }

    fn insert_key(&self, key: &WrappedKey) {
        let inserted: SpiResult<()> = Spi::connect_mut(|client| {
            let arguments = [
                Uuid::from_bytes(*key.id().as_bytes()).into(),
                key.wrapped().to_vec().into(),
                key.recipients().to_vec().into(),
                timestamp(clock::at(key.created())).into(),
            ];
            self.keys
                .write(|| client.update(&self.insert_key, None, &arguments))?;
            Ok(())
        });
        inserted.or_raise();
    }
}
