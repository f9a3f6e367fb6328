//! The ledger is for redeliveries, and SQS keeps a message for 14 days at most: older entries are pruned.

use std::ffi::CStr;

use pgrx::Spi;
use pgrx::spi::SpiResult;

use crate::ingest::target::EXTENSION;
use crate::pg::identity::as_role;
use crate::pg::relation;
use crate::settings;

/// Deletes at most `most` entries of the ledger, and of the rejections, that are older than
/// `user_logins_sqs.ledger_retention`; returns how many of the ledger.
pub fn prune(most: i64) -> i64 {
    let Some(schema) = relation::extension_schema(EXTENSION) else {
        return 0;
    };
    let Some(ledger) = relation::find(schema, c"sqs_ledger") else {
        return 0;
    };
    let retention = settings::ledger_retention().as_secs_f64();
    let delete = |table: &CStr, time: &str| {
        let table = relation::qualified_name(schema, table);
        let sql = format!(
            "WITH deleted AS ( \
               DELETE FROM {table} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
                 SELECT ctid FROM {table} \
                 WHERE {time} OPERATOR(pg_catalog.<) \
                       (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1)) \
                 ORDER BY {time} LIMIT $2)) RETURNING 1) \
             SELECT pg_catalog.count(*) FROM deleted"
        );
        let deleted: SpiResult<Option<i64>> = Spi::connect_mut(|client| {
            client
                .update(sql.as_str(), None, &[retention.into(), most.into()])?
                .first()
                .get_one()
        });
        deleted
            .unwrap_or_else(|error| pgrx::error!("{error}"))
            .unwrap_or(0)
    };
    as_role(relation::owner(ledger), || {
        delete(c"sqs_rejected", "last_seen");
        delete(c"sqs_ledger", "sent_at")
    })
}
