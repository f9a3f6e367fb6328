//! The trigger of `sqs_vault`.

use pgrx::prelude::*;

use crate::pg::invalidation::announce_change;

/// Statement trigger: entries were deleted, so no process can rely any more on what it knows to be there.
#[pg_trigger]
fn sqs_vault_deleted<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    announce_change(trigger.relid()?);
    Ok(None::<PgHeapTuple<'a, AllocatedByRust>>)
}
