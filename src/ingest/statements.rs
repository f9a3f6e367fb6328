//! The statements that write a chunk, prepared once for the life of the backend.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::Spi;
use pgrx::pg_sys::{BuiltinOid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};

use super::ledger::{Key, Ledger, Patience};
use super::message::Row;
use super::target::Target;
use crate::pg::array::{self, rows_of};
use crate::pg::error::Caught;
use crate::pg::subtransaction::attempt;

thread_local! {
    static PREPARED: RefCell<Option<Rc<Statements>>> = const { RefCell::new(None) };
}

/// Prepared statements for one target.
pub struct Statements {
    target: Target,
    ledger: Ledger,
    user_logins: OwnedPreparedStatement,
}

/// Why rows were not inserted.
pub struct NotInserted {
    /// What was raised.
    pub error: Caught,
    /// The ledger raised it, not `user_logins`.
    pub in_ledger: bool,
}

impl Statements {
    /// The statements for `target`: those of the last call, if its target was the same.
    pub fn prepared(target: &Target) -> Rc<Statements> {
        let last = PREPARED.with_borrow(|prepared| prepared.clone());
        if let Some(last) = last.filter(|last| last.target == *target) {
            return last;
        }
        let fresh =
            Rc::new(Statements::prepare(target).unwrap_or_else(|error| pgrx::error!("{error}")));
        PREPARED.set(Some(fresh.clone()));
        fresh
    }

    fn prepare(target: &Target) -> SpiResult<Statements> {
        use BuiltinOid::*;
        // Two statements, not one with a CTE, so that user_logins may be a foreign, distributed or partitioned
        // table, or a view.
        let user_logins = format!(
            "INSERT INTO {} (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date) \
             SELECT * FROM {}",
            target.user_logins,
            rows_of(1..=7)
        );
        let texts = TEXTARRAYOID;
        let types = [
            texts,
            texts,
            texts,
            texts,
            texts,
            INT4ARRAYOID,
            DATEARRAYOID,
        ]
        .map(PgOid::BuiltIn);
        Ok(Statements {
            target: target.clone(),
            ledger: Ledger::prepare(&target.ledger)?,
            user_logins: Spi::connect(|client| {
                client
                    .prepare_mut(user_logins.as_str(), &types)
                    .map(|plan| plan.keep())
            })?,
        })
    }

    /// Inserts `rows`, except those whose messages are in the ledger already, and enters the rest there: all of it, or
    /// nothing. No two rows may share a key. Returns those that were new.
    ///
    /// Rows keep their order of arrival.
    ///
    /// # Errors
    /// What the ledger or the table raised.
    pub fn insert<'r>(
        &self,
        rows: &[&'r Row],
        patience: Patience,
    ) -> Result<Vec<&'r Row>, NotInserted> {
        let in_ledger = Cell::new(true);
        attempt(|| {
            let mut keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
            keys.sort_unstable();
            let new = self.ledger.enter(&keys, patience);
            in_ledger.set(false);
            let rows: Vec<&'r Row> = rows
                .iter()
                .filter(|row| new.contains(&row.key))
                .copied()
                .collect();
            self.insert_logins(&rows);
            rows
        })
        .map_err(|error| NotInserted {
            error,
            in_ledger: in_ledger.get(),
        })
    }

    fn insert_logins(&self, rows: &[&Row]) {
        if rows.is_empty() {
            return;
        }
        let texts = |of: fn(&Row) -> Option<&str>| array::text(rows.iter().map(move |row| of(row)));
        Spi::connect_mut(|client| {
            let arguments = [
                texts(|row| Some(row.login.user_id())),
                texts(|row| row.login.device_type()),
                texts(|row| row.login.masked_ip()),
                texts(|row| row.login.masked_device_id()),
                texts(|row| row.login.locale()),
                array::int4(rows.iter().map(|row| row.login.app_version())),
                array::date(rows.iter().map(|row| row.key.day())),
            ];
            client
                .update(&self.user_logins, None, &arguments)
                .unwrap_or_else(|error| pgrx::error!("{error}"));
        });
    }
}
