//! The trigger function of `sqs_vault`.

use pgrx::prelude::*;

use crate::pg::invalidation::announce_change;

/// Entries were deleted, so no process can rely any more on what it knows to be there. Called once a statement, or once
/// a row where logical replication applies changes.
#[pg_trigger]
fn sqs_vault_deleted<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    if !keeps_its_mask(trigger) {
        announce_change(trigger.relid()?);
    }
    Ok(None::<PgHeapTuple<'a, AllocatedByRust>>)
}

/// Logical replication says of most columns that an UPDATE changed them, so that one of `last_seen` alone comes here.
fn keeps_its_mask(trigger: &PgTrigger<'_>) -> bool {
    let (Some(old), Some(new)) = (trigger.old(), trigger.new()) else {
        return false;
    };
    let old: Result<Option<String>, _> = old.get_by_name("mask");
    let new: Result<Option<String>, _> = new.get_by_name("mask");
    matches!((old, new), (Ok(Some(old)), Ok(Some(new))) if old == new)
}
