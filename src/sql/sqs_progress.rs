//! The function behind the view `sqs_progress`: a row for each running call in the current database.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::datum::{bigint, timestamp};
use crate::stat::progress;

/// What each running call has done so far.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity, reason = "the columns are the type")]
fn sqs_stat_get_calls() -> Result<
    TableIterator<
        'static,
        (
            name!(pid, i32),
            name!(queue_url, String),
            name!(target, Option<i64>),
            name!(received, i64),
            name!(inserted, i64),
            name!(started, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let rows = progress::rows()?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.pid,
            row.queue_url,
            row.target.map(bigint),
            bigint(row.received),
            bigint(row.inserted),
            timestamp(row.started),
        )
    })))
}
