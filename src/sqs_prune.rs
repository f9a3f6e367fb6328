//! `sqs_prune(max_entries)`: what the launcher does by itself, for those without one.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::errors::Failure;
use crate::worker::prune;

/// Deletes up to `max_entries` entries of the ledger that are older than `user_logins_sqs.ledger_retention`, as many old
/// rejections, and as many entries of the vault that are older than `vault_retention`; returns how many entries of the
/// ledger that were.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_prune(max_entries: default!(Option<i64>, 100_000)) -> Result<i64, ErrorReport> {
    let most = max_entries.ok_or(Failure::NullArgument("max_entries"))?;
    if most < 1 {
        let failure = Failure::OutOfRange {
            argument: "max_entries",
            value: most,
            range: "at least 1",
        };
        return Err(failure.into());
    }
    Ok(prune::prune(most).ledger)
}
