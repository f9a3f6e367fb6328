//! `sqs_check(queue_url)`: whether messages can become rows here, and why not.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::check::{self, Check};

/// Checks everything that an ingest needs: this database, the settings, workers, and the queue, if one is named, or
/// the queues of all subscriptions. Receives nothing, and raises no error for what it can report.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns are the type")]
fn sqs_check(
    queue_url: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(check, String),
            name!(status, &'static str),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let checks = check::all(queue_url);
    Ok(TableIterator::new(checks.into_iter().map(row)))
}

fn row(check: Check) -> (String, &'static str, String, Option<String>) {
    let Check { name, finding } = check;
    (name, finding.status.name(), finding.detail, finding.hint)
}
