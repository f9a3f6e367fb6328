//! `sqs_stat_reset()` and `sqs_stat_reset(queue_url)`: set counts to zero.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use queue::QueueUrl;

use crate::errors::Failure;
use crate::stat::rows;

/// Sets all that is counted in the current database to zero.
#[pg_extern(volatile, parallel_restricted)]
fn sqs_stat_reset() -> Result<(), ErrorReport> {
    Ok(rows::reset(None)?)
}

/// Sets all that is counted of one queue to zero.
#[pg_extern(name = "sqs_stat_reset", volatile, parallel_restricted)]
fn sqs_stat_reset_queue(queue_url: Option<&str>) -> Result<(), ErrorReport> {
    let queue_url = queue_url.ok_or(Failure::NullArgument("queue_url"))?;
    let url = QueueUrl::parse(queue_url).map_err(Failure::from)?;
    Ok(rows::reset(Some(url.as_str()))?)
}
