//! Functions, operators and types that a table of ours uses and that are neither Postgres' nor ours: they would run
//! with the rights of its owner.

use std::cell::RefCell;

use pgrx::Spi;
use pgrx::pg_sys::{BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};

/// A function, operator or type, and the constraint, default or index that uses it, as Postgres describes them.
pub struct Used {
    /// What is used.
    pub what: String,
    /// What uses it.
    pub by: String,
}

/// The first function, operator or type which is neither Postgres' nor ours that a constraint, default or index of
/// `relations` uses.
pub fn foreign_expression(relations: &[Oid]) -> SpiResult<Option<Used>> {
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
                AND member.refclassid \
                    OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid \
                AND member.deptype OPERATOR(pg_catalog.=) 'e' \
                AND extension.extname OPERATOR(pg_catalog.=) 'user_logins_sqs')";
