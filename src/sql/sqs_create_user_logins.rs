//! `sqs_create_user_logins()`: the part of CREATE EXTENSION that makes `user_logins` where there is none.
//!
//! The table belongs to its users, not to the extension: DROP EXTENSION keeps it and pg_dump dumps it. So a restore
//! runs CREATE EXTENSION first, and then a CREATE TABLE of its own, which finds the name taken. Nothing reliably
//! distinguishes a restore from any other session. What can be known is whether this session made the table and nobody
//! has touched it since: then it makes way.

use std::cell::RefCell;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use crate::errors::Failure;
use crate::ingest::target;
use crate::own_tables::EXTENSION;
use crate::pg::extension;
use crate::pg::identity::as_role;
use crate::pg::or_raise::OrRaise;
use crate::pg::relation;
use crate::pg::utility::{self, Creation};

/// The table that this session made.
#[derive(Clone)]
struct Made {
    schema: pg_sys::Oid,
    table: pg_sys::Oid,
    /// Where its row of `pg_class` is, and who wrote it: nearly every ALTER TABLE and GRANT writes another.
    row: String,
}

thread_local! {
    static MADE: RefCell<Option<Made>> = const { RefCell::new(None) };
}

/// Makes `user_logins` beside the extension, if there is none. For CREATE EXTENSION only, which drops this function.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_create_user_logins() -> Result<(), ErrorReport> {
    let schema = extension::schema(EXTENSION).ok_or(Failure::NotInstalled)?;
    if relation::find(schema, target::USER_LOGINS).is_some() {
        return Ok(());
    }
    let name = relation::qualified_name(schema, target::USER_LOGINS);
    let create = format!(
        "{}
         COMMENT ON TABLE {name} IS 'Logins, one row a message, ip and device_id masked';
         ALTER EXTENSION user_logins_sqs DROP TABLE {name}",
        target::create_table(&name)
    );
    Spi::run(&create).or_raise();
    let table = relation::find(schema, target::USER_LOGINS);
    let made = table.and_then(|table| {
        let row = row_if_untouched(table).ok()??;
        Some(Made { schema, table, row })
    });
    MADE.set(made);
    utility::on_create_relation(drop_untouched_table);
    Ok(())
}

/// Drops the table that this session made, if `creation` wants its name and it is as it was made.
fn drop_untouched_table(creation: &Creation) {
    let Some(made) = MADE.with_borrow(|made| made.clone()) else {
        return;
    };
    if creation.schema != made.schema
        || creation.name.as_bytes() != target::USER_LOGINS.to_bytes()
        || relation::find(made.schema, target::USER_LOGINS) != Some(made.table)
    {
        return;
    }
    let row = row_if_untouched(made.table).or_raise();
    if row.as_ref() != Some(&made.row) {
        return;
    }
    let name = relation::qualified_name(made.schema, target::USER_LOGINS);
    // The role that creates a table there now need not own the one that is dropped.
    as_role(relation::owner(made.table), || {
        Spi::run(&format!("DROP TABLE {name}")).or_raise();
    });
}

/// Which row of `pg_class` is the table's, if nothing was ever written to it and nothing depends on it: no index,
/// default, constraint, trigger or view.
fn row_if_untouched(table: pg_sys::Oid) -> SpiResult<Option<String>> {
    // Not in the surrounding statement's snapshot, which has not seen the table made.
    Spi::connect_mut(|client| {
        let rows = client.update(
            "SELECT pg_catalog.format('%s %s', c.xmin, c.ctid) FROM pg_catalog.pg_class AS c \
             WHERE c.oid OPERATOR(pg_catalog.=) $1 \
               AND pg_catalog.pg_relation_size(c.oid) OPERATOR(pg_catalog.=) 0 \
               AND NOT EXISTS ( \
                   SELECT FROM pg_catalog.pg_depend AS d \
                   WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
                     AND d.refobjid OPERATOR(pg_catalog.=) c.oid \
                     AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['n', 'a']::pg_catalog.\"char\"[]))",
            Some(1),
            &[table.into()],
        )?;
        match rows.into_iter().next() {
            Some(row) => row.get(1),
            None => Ok(None),
        }
    })
}
