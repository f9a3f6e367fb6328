//! `sqs_prune(max_entries)`: what the launcher does on its own, for installations without one.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::argument::positive;
use crate::errors::Failure;
use crate::ingest::{Counting, prune};
use crate::settings;
use crate::vault;

/// Removes what is older than `user_logins_sqs.ledger_retention`: from the ledger whole days, whatever they hold, and
/// up to `max_entries` rejections; and up to `max_entries` entries of the vault that were not seen for
/// `vault_retention`. Returns the number of ledger entries removed. A ledger that is not a ring of days, since
/// somebody has replaced it, loses up to `max_entries`, too.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_prune(max_entries: default!(Option<i64>, 100_000)) -> Result<i64, ErrorReport> {
    let most = max_entries.ok_or(Failure::NullArgument("max_entries"))?;
    let most = positive("max_entries", most)?;
    let pruned = prune(settings::ledger_retention(), most, Counting::Yes);
    vault::prune(settings::vault_retention(), most);
    Ok(pruned.entries)
}
