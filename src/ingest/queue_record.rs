//! Which queues feed the ledger, and for how long each may hand a message out again: `sqs_queue`.
//!
//! The ledger has to remember a message for as long as its queue may redeliver it. A session that ingests records
//! the queue, once a day, in the same transaction as its entries; one that may ask the queue for its retention
//! period records the answer. Rows are only ever inserted, under the time of recording, so that no session waits
//! for the transaction of another, unless both record in the same microsecond.

use std::time::Duration;

use pgrx::Spi;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::SpiResult;

use crate::own_tables::OwnTable;
use crate::pg::clock;
use crate::pg::datum::timestamp;
use crate::pg::or_raise::OrRaise;
use crate::pg::query;

/// A queue counts for as long after it was last recorded as the ledger can remember, and the day for which it is
/// recorded.
const DAYS_THAT_COUNT: i32 = 32;

/// An answer counts for a day, and for a day longer than it says: should the queue keep its messages for longer from
/// the moment on that it answered, those that the ledger forgets until the answer is renewed were too old for the queue
/// already.
const DAYS_AN_ANSWER_COUNTS: i32 = 1;

/// An answer is recorded again after this many hours.
const HOURS_UNTIL_RENEWED: i32 = 12;

/// Records that messages of `queue_url` are entered in the ledger today.
pub fn note_ingest(table: &OwnTable, queue_url: &str) {
    let noted = is_noted(table, queue_url).and_then(|is_noted| {
        if is_noted {
            return Ok(());
        }
        let insert = format!(
            "INSERT INTO {} (queue_url) VALUES ($1) ON CONFLICT DO NOTHING",
            table.name()
        );
        table.write(|| Spi::run_with_args(&insert, &[queue_url.into()]))
    });
    noted.or_raise();
}

fn is_noted(table: &OwnTable, queue_url: &str) -> SpiResult<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} WHERE queue_url OPERATOR(pg_catalog.=) $1 \
           AND recorded OPERATOR(pg_catalog.>=) $2 AND message_retention IS NULL)",
        table.name()
    );
    let arguments = [queue_url.into(), start_of_today().into()];
    let found: Option<bool> = table.read(|| query::one(&sql, &arguments))?;
    Ok(found == Some(true))
}

fn start_of_today() -> Option<TimestampWithTimeZone> {
    timestamp(clock::start_of_day(clock::day_of(clock::now())))
}

/// Records that `queue_url`, and the dead-letter queue that its messages may go to, keep messages for this long.
pub fn note_retention(table: &OwnTable, queue_url: &str, retention: Duration) {
    let name = table.name();
    let sql = format!(
        "INSERT INTO {name} (queue_url, message_retention) \
         SELECT $1, pg_catalog.make_interval(secs => $2) WHERE NOT EXISTS ( \
           SELECT FROM {name} WHERE queue_url OPERATOR(pg_catalog.=) $1 \
             AND message_retention OPERATOR(pg_catalog.=) pg_catalog.make_interval(secs => $2) \
             AND recorded OPERATOR(pg_catalog.>) \
               (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(hours => $3))) \
         ON CONFLICT DO NOTHING"
    );
    let arguments = [
        queue_url.into(),
        retention.as_secs_f64().into(),
        HOURS_UNTIL_RENEWED.into(),
    ];
    table
        .write(|| Spi::run_with_args(&sql, &arguments))
        .or_raise();
}

/// For how long the ledger has to remember a message, by what the queues that feed it have answered: at most `bound`,
/// which also stands for each queue that could not be asked.
pub fn needed_retention(table: &OwnTable, bound: Duration) -> Duration {
    let sql = format!(
        "SELECT EXTRACT(epoch FROM pg_catalog.max(COALESCE( \
             answer OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => 1), \
             pg_catalog.make_interval(secs => $1))))::pg_catalog.float8 \
         FROM ( \
           SELECT pg_catalog.max(message_retention) FILTER (WHERE recorded OPERATOR(pg_catalog.>) \
               (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => $2))) AS answer \
           FROM {} \
           WHERE recorded OPERATOR(pg_catalog.>) \
               (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => $3)) \
           GROUP BY queue_url \
           HAVING pg_catalog.bool_or(message_retention IS NULL) \
         ) AS feeding",
        table.name()
    );
    let arguments = [
        bound.as_secs_f64().into(),
        DAYS_AN_ANSWER_COUNTS.into(),
        DAYS_THAT_COUNT.into(),
    ];
    let needed: SpiResult<Option<f64>> = table.read(|| query::one(&sql, &arguments));
    let needed = needed.or_raise();
    // Without a row it is not known which queues fed the ledger.
    needed
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or(bound, |needed| needed.min(bound))
}

/// Whether a queue was recorded more than a day later than it is now: the clock was set back, or was ahead then. How
/// old an entry of the ledger is cannot be known before the clock is right.
pub fn is_ahead_of_the_clock(table: &OwnTable) -> bool {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} WHERE recorded OPERATOR(pg_catalog.>) \
           (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => 1)))",
        table.name()
    );
    let found: SpiResult<Option<bool>> = table.read(|| query::one(&sql, &[]));
    found.or_raise() == Some(true)
}

/// Deletes what no longer counts.
pub fn prune(table: &OwnTable) {
    let sql = format!(
        "DELETE FROM {} WHERE recorded OPERATOR(pg_catalog.<) \
           (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => $1))",
        table.name()
    );
    table
        .write(|| Spi::run_with_args(&sql, &[DAYS_THAT_COUNT.into()]))
        .or_raise();
}
