//! The ledger is for redeliveries, and SQS keeps a message for 14 days at most: older entries are pruned, in small
//! steps, each a transaction of its own.

use std::convert::Infallible;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::Spi;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::spi::SpiResult;

use crate::ingest::target::EXTENSION;
use crate::pg::identity::as_role;
use crate::pg::{relation, transaction};
use crate::report;
use crate::settings;

/// Entries that one step deletes: a few milliseconds of work.
const STEP: i64 = 1_000;

/// How long the launcher rests between steps, and after one that found nothing more to do.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// The launcher's rounds of pruning.
#[derive(Default)]
pub struct Pruning {
    not_before: Option<Instant>,
}

impl Pruning {
    /// Does a step if one is due; says when to come again.
    pub fn step(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            return not_before - now;
        }
        let rest = match transaction::run(|| Ok::<_, Infallible>(prune_without_waiting())) {
            Ok(Ok(deleted)) if deleted >= STEP => BETWEEN_STEPS,
            Ok(_) => BETWEEN_ROUNDS,
            Err(error) if error.code() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                BETWEEN_ROUNDS
            }
            Err(error) => {
                report::warn("pruning the ledger failed", &error);
                BETWEEN_ROUNDS
            }
        };
        self.not_before = Some(now + rest);
        rest
    }
}

/// A step, unless somebody holds a lock that is in its way, as CREATE INDEX does: the launcher has subscriptions to
/// look after.
fn prune_without_waiting() -> i64 {
    Spi::run("SET LOCAL lock_timeout = '100ms'").unwrap_or_else(|error| pgrx::error!("{error}"));
    prune(STEP)
}

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
