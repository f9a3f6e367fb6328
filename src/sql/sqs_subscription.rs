//! The triggers of `sqs_subscription`: they check what is written there, and wake the launcher.

use pgrx::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::errors::Failure;
use crate::installation;
use crate::pg::identity::{may_act_for, role_name};
use crate::pg::replication;
use crate::worker::subscription;

/// What a trigger function may fail with, other than by an error that it raises.
type Failed = Box<dyn std::error::Error>;

/// The column of the number of an installation.
const NUMBER: &str = "installation";

/// What a row carries that no installation carries out.
const NO_INSTALLATION: i64 = -1;

/// BEFORE INSERT OR UPDATE, for each row, ENABLE ALWAYS: sets the number of this installation.
///
/// A new row that already has a number keeps it: it comes from a dump, and may be a copy of a subscription that runs
/// where it was made. An UPDATE adopts. A replicated row keeps its number too, unless that is ours: it was not
/// written here, and nothing has checked here whose rights it takes.
#[pg_trigger]
fn sqs_subscription_stamp<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, Failed> {
    let Some(row) = trigger.new() else {
        return Ok(None);
    };
    let mut row = row.into_owned();
    let brought = row.get_by_name::<i64>(NUMBER)?;
    let ours = installation::number();
    let is_new = matches!(trigger.op()?, PgTriggerOperation::Insert);
    if replication::is_replica() {
        if brought == ours {
            row.set_by_name(NUMBER, NO_INSTALLATION)?;
        }
    } else if !is_new || brought.is_none() {
        row.set_by_name(NUMBER, ours)?;
    }
    Ok(Some(row))
}

/// AFTER INSERT OR UPDATE, for each row: refuses a role whose rights the writer does not have, since workers run as
/// that role.
///
/// After, so that no other trigger changes the row later.
#[pg_trigger]
fn sqs_subscription_check_role<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, Failed> {
    if let Some(row) = trigger.new()
        && let Some(role) = row.get_by_name::<pg_sys::Oid>("role")?
        && !may_act_for(subscription::writer(), role)
    {
        let role = role_name(role);
        ErrorReport::from(Failure::NotMember { role }).report(PgLogLevel::ERROR);
    }
    Ok(None::<PgHeapTuple<'a, AllocatedByRust>>)
}

/// AFTER any change, for each statement: wakes the launcher once it is committed.
#[pg_trigger]
fn sqs_subscription_changed<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, Failed> {
    let _ = trigger;
    subscription::changed();
    Ok(None::<PgHeapTuple<'a, AllocatedByRust>>)
}
