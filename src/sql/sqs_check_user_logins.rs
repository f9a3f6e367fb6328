//! `sqs_check_user_logins()`: the check that every ingest makes before it receives anything, for a look ahead.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::ingest::target;

/// Raises an error that says what is wrong if `user_logins` cannot take rows from the current user.
#[pg_extern(stable, parallel_restricted)]
fn sqs_check_user_logins() -> Result<(), ErrorReport> {
    Ok(target::check_current()?)
}
