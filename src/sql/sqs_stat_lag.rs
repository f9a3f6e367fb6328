//! The function behind the view `sqs_stat_lag`: the lags of each queue as a histogram, in Prometheus' form.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::datum::{bigint, seconds};
use crate::stat::rows;

/// How many messages of each queue took how long from being sent to being committed.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity, reason = "the columns are the type")]
fn sqs_stat_get_lags() -> Result<
    TableIterator<
        'static,
        (
            name!(queue_url, String),
            name!(le, f64),
            name!(count, i64),
            name!(sum, f64),
        ),
    >,
    ErrorReport,
> {
    let queues = rows::lags()?;
    Ok(TableIterator::new(queues.into_iter().flat_map(|queue| {
        let (url, sum) = (queue.queue_url, seconds(queue.sum));
        queue.cumulative.into_iter().map(move |(bound, count)| {
            let le = bound.map_or(f64::INFINITY, seconds);
            (url.clone(), le, bigint(count), sum)
        })
    })))
}
