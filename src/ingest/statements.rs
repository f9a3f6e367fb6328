//! The statements that write a chunk, prepared once for the life of the backend.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use pgrx::Spi;
use pgrx::pg_sys::{BuiltinOid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};

use super::fault::Fault;
use super::ledger::{Key, Ledger, Patience};
use super::message::Row;
use super::target::Target;
use crate::pg::array::{self, rows_of};
use crate::pg::error::Caught;
use crate::pg::or_raise::OrRaise;
use crate::pg::subtransaction::attempt;

thread_local! {
    static PREPARED: RefCell<Option<Rc<Statements>>> = const { RefCell::new(None) };
}

/// Prepared statements for one target.
pub struct Statements {
    target: Target,
    ledger: Ledger,
    user_logins: OwnedPreparedStatement,
    one_login: OwnedPreparedStatement,
}

/// How rows are put into `user_logins`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// All with one INSERT ... SELECT.
    Together,
    /// A single row with INSERT ... VALUES, which a distributed table sends to the node of that row, and which
    /// reports an error as that node raised it.
    Alone,
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
        let fresh = Rc::new(Statements::prepare(target).or_raise());
        PREPARED.set(Some(fresh.clone()));
        fresh
    }

    fn prepare(target: &Target) -> SpiResult<Statements> {
        use BuiltinOid::*;
        // Two statements, not one with a CTE, so that user_logins may be a foreign, distributed or partitioned
        // table, or a view.
        let insert = format!(
            "INSERT INTO {} (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)",
            target.user_logins
        );
        let user_logins = format!("{insert} SELECT * FROM {}", rows_of(1..=7));
        let firsts: Vec<String> = (1..=7).map(|n| format!("(${n})[1]")).collect();
        let one_login = format!("{insert} VALUES ({})", firsts.join(", "));
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
        let prepare = |sql: &str| {
            Spi::connect(|client| client.prepare_mut(sql, &types).map(|plan| plan.keep()))
        };
        Ok(Statements {
            target: target.clone(),
            ledger: Ledger::prepare(&target.ledger)?,
            user_logins: prepare(&user_logins)?,
            one_login: prepare(&one_login)?,
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
        match self.insert_in(Form::Together, rows, patience) {
            Err(NotInserted {
                error,
                in_ledger: false,
            }) if rows.len() == 1 && Fault::of(&error) == Fault::Unclear => {
                self.insert_in(Form::Alone, rows, patience)
            }
            outcome => outcome,
        }
    }

    fn insert_in<'r>(
        &self,
        form: Form,
        rows: &[&'r Row],
        patience: Patience,
    ) -> Result<Vec<&'r Row>, NotInserted> {
        self.ledger.lock(rows);
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
            if !rows.is_empty() {
                self.insert_logins(form, &rows);
            }
            rows
        })
        .map_err(|error| NotInserted {
            error,
            in_ledger: in_ledger.get(),
        })
    }

    /// Reaches the tables without writing anything: if they are on another server that is down, this raises an error.
    pub fn touch(&self) {
        self.ledger.enter(&[], Patience::UntilItEnds);
        self.insert_logins(Form::Together, &[]);
    }

    /// Inserts one row into `user_logins`, and enters nothing in the ledger.
    ///
    /// # Errors
    /// What the table raised.
    pub fn insert_login(&self, row: &Row) -> Result<(), Caught> {
        let insert = |form| attempt(|| self.insert_logins(form, &[row]));
        match insert(Form::Together) {
            Err(error) if Fault::of(&error) == Fault::Unclear => insert(Form::Alone),
            outcome => outcome,
        }
    }

    /// Which of these messages are in the ledger.
    pub fn known(&self, keys: &[Key]) -> HashSet<Key> {
        self.ledger.known(keys)
    }

    fn insert_logins(&self, form: Form, rows: &[&Row]) {
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
            let statement = match form {
                Form::Together => &self.user_logins,
                Form::Alone => &self.one_login,
            };
            client.update(statement, None, &arguments).or_raise();
        });
    }
}
