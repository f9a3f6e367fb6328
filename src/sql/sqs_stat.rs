//! The function behind the view `sqs_stat`: a row for each queue of the current database.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::board;
use crate::pg::datum::{bigint, interval, timestamp};
use crate::stat::{State, rows};

/// What is counted of each queue that was ingested from since the server was started, or is subscribed to.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity, reason = "the columns are the type")]
fn sqs_stat_get_queues() -> Result<
    TableIterator<
        'static,
        (
            name!(queue_url, String),
            name!(received, i64),
            name!(inserted, i64),
            name!(duplicates, i64),
            name!(rejected, i64),
            name!(deleted, i64),
            name!(delete_failures, i64),
            name!(errors, i64),
            name!(last_error, Option<String>),
            name!(last_error_at, Option<TimestampWithTimeZone>),
            name!(last_commit, Option<TimestampWithTimeZone>),
            name!(lag_p50, Option<Interval>),
            name!(lag_p99, Option<Interval>),
            name!(workers, i32),
            name!(state, Option<&'static str>),
            name!(reason, Option<String>),
            name!(backlog, Option<i64>),
            name!(backlog_at, Option<TimestampWithTimeZone>),
            name!(stats_reset, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let rows = rows::queues()?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        let workers = board::running(&row.queue_url);
        // What the last worker did before it ended says nothing now.
        let state = row
            .state
            .filter(|state| state.is_without_worker() == (workers == 0));
        (
            row.queue_url,
            bigint(row.received),
            bigint(row.inserted),
            bigint(row.duplicates),
            bigint(row.rejected),
            bigint(row.deleted),
            bigint(row.delete_failures),
            bigint(row.errors),
            row.last_error,
            row.last_error_at.and_then(timestamp),
            row.last_commit.and_then(timestamp),
            row.lag_p50.and_then(interval),
            row.lag_p99.and_then(interval),
            workers,
            state.map(State::name),
            row.reason,
            row.backlog.map(bigint),
            row.backlog_at.and_then(timestamp),
            timestamp(row.counted_since),
        )
    })))
}
