//! The extension's own tables, and the one way to write them.
//!
//! A caller needs no right on them: they are written with the rights of their owner. `GRANT ALL` includes TRIGGER,
//! so whoever was granted that could have a function of his own run with those rights, too. Therefore nothing is
//! written to a table of ours while anything is attached to it that would run code of others, and writing is a
//! security-restricted operation.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};
use pgrx::{PgLogLevel, Spi};

use crate::errors::Failure;
use crate::pg::identity::as_role;
use crate::pg::relation::{self, Trigger};

/// The name of the extension.
pub const EXTENSION: &CStr = c"user_logins_sqs";

/// The messages that have become rows.
pub const LEDGER: &CStr = c"sqs_ledger";
/// The messages that cannot become rows.
pub const REJECTED: &CStr = c"sqs_rejected";
/// The queues that background workers ingest from.
pub const SUBSCRIPTION: &CStr = c"sqs_subscription";
/// Sealed originals, by mask.
pub const VAULT: &CStr = c"sqs_vault";
/// The data keys that they are sealed with, wrapped.
pub const VAULT_KEY: &CStr = c"sqs_vault_key";

/// A table of the extension.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnTable {
    oid: Oid,
    /// With its schema, quoted.
    name: String,
}

impl OwnTable {
    /// Finds the table `name` beside the extension.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn find(name: &CStr) -> Result<OwnTable, Failure> {
        let schema = relation::extension_schema(EXTENSION).ok_or(Failure::NotInstalled)?;
        OwnTable::find_in(schema, name)
    }

    /// The same, in the schema that the extension is known to be in.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn find_in(schema: Oid, name: &CStr) -> Result<OwnTable, Failure> {
        let oid = relation::find(schema, name).ok_or(Failure::NotInstalled)?;
        Ok(OwnTable {
            oid,
            name: relation::qualified_name(schema, name),
        })
    }

    /// What it is to Postgres.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// Its name with its schema, quoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks that nothing attached to the table, or to a partition of it, runs code of others: triggers, rules, and
    /// functions in constraints, defaults and indexes.
    ///
    /// # Errors
    /// [`Failure::ForeignCode`].
    pub fn check(&self) -> Result<(), Failure> {
        self.check_triggers_and_rules()?;
        let relations = self.with_partitions();
        match foreign_expression(&relations).unwrap_or_else(|error| pgrx::error!("{error}")) {
            None => Ok(()),
            Some(Used { what, by }) => Err(Failure::ForeignCode {
                what: format!("{what}, used by {by},"),
                remedy: format!("Drop the {by}, or have it use functions of Postgres only."),
            }),
        }
    }

    /// Runs `work`, statements that write this table, as its owner. An error is raised instead where triggers or rules
    /// of others would run: those can be added by roles that own nothing, at any time until the lock taken here.
    pub fn write<R>(&self, work: impl FnOnce() -> R) -> R {
        for relation in self.with_partitions() {
            relation::lock_for_writing(relation);
        }
        if let Err(failure) = self.check_triggers_and_rules() {
            ErrorReport::from(failure).report(PgLogLevel::ERROR);
        }
        as_role(relation::owner(self.oid), work)
    }

    /// Runs `work`, statements that read this table, as its owner.
    pub fn read<R>(&self, work: impl FnOnce() -> R) -> R {
        as_role(relation::owner(self.oid), work)
    }

    fn check_triggers_and_rules(&self) -> Result<(), Failure> {
        for relation in self.with_partitions() {
            let triggers = relation::triggers(relation);
            if let Some(trigger) = triggers.iter().find(|trigger| !self.is_ours(trigger)) {
                return Err(Failure::ForeignCode {
                    what: format!("trigger \"{}\" on table {}", trigger.name, self.name),
                    remedy: format!("Use DROP TRIGGER \"{}\" ON {}.", trigger.name, self.name),
                });
            }
            if relation::has_rules(relation) {
                return Err(Failure::ForeignCode {
                    what: format!("a rule on table {}", self.name),
                    remedy: format!("\\d {} shows it; use DROP RULE.", self.name),
                });
            }
        }
        Ok(())
    }

    /// Only subscriptions and the vault have triggers of ours. Their functions may be called by others, to whom all
    /// functions were granted, from other tables.
    fn is_ours(&self, trigger: &Trigger) -> bool {
        ["sqs_subscription", "sqs_vault"]
            .iter()
            .any(|table| self.name.ends_with(table))
            && relation::is_function_of(trigger.function, EXTENSION)
    }

    fn with_partitions(&self) -> Vec<Oid> {
        let mut all = vec![self.oid];
        let mut next = 0;
        while let Some(&relation) = all.get(next) {
            all.extend(relation::partitions(relation));
            next += 1;
        }
        all
    }
}

/// A function, operator or type, and the constraint, default or index that uses it, as Postgres describes them.
struct Used {
    what: String,
    by: String,
}

/// The first function, operator or type which is neither Postgres' nor ours that a constraint, default or index of
/// `relations` uses.
fn foreign_expression(relations: &[Oid]) -> SpiResult<Option<Used>> {
    thread_local! {
        static PREPARED: RefCell<Option<OwnedPreparedStatement>> = const { RefCell::new(None) };
    }
    Spi::connect(|client| {
        PREPARED.with_borrow_mut(|prepared| {
            let statement = match prepared {
                Some(statement) => statement,
                None => prepared.insert(
                    client
                        .prepare(
                            FOREIGN_EXPRESSION,
                            &[PgOid::BuiltIn(BuiltinOid::OIDARRAYOID)],
                        )?
                        .keep(),
                ),
            };
            let mut found = client.select(&*statement, Some(1), &[relations.to_vec().into()])?;
            let Some(row) = found.next() else {
                return Ok(None);
            };
            Ok(Some(Used {
                what: row.get(1)?.unwrap_or_default(),
                by: row.get(2)?.unwrap_or_default(),
            }))
        })
    })
}

/// Dependencies on what initdb made are not recorded, so every recorded one is on something that was added later.
const FOREIGN_EXPRESSION: &str = "\
    SELECT pg_catalog.pg_describe_object(used.refclassid, used.refobjid, used.refobjsubid), \
        pg_catalog.pg_describe_object(used.classid, used.objid, used.objsubid) \
    FROM ( \
        SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid \
        FROM pg_catalog.pg_constraint WHERE conrelid OPERATOR(pg_catalog.=) ANY ($1) \
        UNION ALL \
        SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid \
        FROM pg_catalog.pg_attrdef WHERE adrelid OPERATOR(pg_catalog.=) ANY ($1) \
        UNION ALL \
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid \
        FROM pg_catalog.pg_index WHERE indrelid OPERATOR(pg_catalog.=) ANY ($1) \
        UNION ALL \
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.unnest($1) \
    ) AS attached (classid, objid) \
    JOIN pg_catalog.pg_depend AS used \
        ON used.classid OPERATOR(pg_catalog.=) attached.classid::pg_catalog.oid \
        AND used.objid OPERATOR(pg_catalog.=) attached.objid \
    WHERE used.refclassid OPERATOR(pg_catalog.=) ANY (ARRAY[ \
            'pg_catalog.pg_proc', 'pg_catalog.pg_operator', 'pg_catalog.pg_opclass', 'pg_catalog.pg_type' \
        ]::pg_catalog.regclass[]::pg_catalog.oid[]) \
        AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_depend AS member \
            JOIN pg_catalog.pg_extension AS extension ON extension.oid OPERATOR(pg_catalog.=) member.refobjid \
            WHERE member.classid OPERATOR(pg_catalog.=) used.refclassid \
                AND member.objid OPERATOR(pg_catalog.=) used.refobjid \
                AND member.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid \
                AND member.deptype OPERATOR(pg_catalog.=) 'e' \
                AND extension.extname OPERATOR(pg_catalog.=) 'user_logins_sqs')";
