//! `sqs_forget(value)`: deletes what the vault has of a value.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::errors::Failure;
use crate::mask_keys::MaskKeys;
use crate::vault;

/// Deletes the entries of `value`, an `ip` or a `device_id`, under every mask that it has here; returns how many.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_forget(value: Option<&str>) -> Result<i64, ErrorReport> {
    let value = value.ok_or(Failure::NullArgument("value"))?;
    let masks: Vec<_> = MaskKeys::read()?
        .maskers()
        .flat_map(|masker| masker.masks_of(value))
        .map(|mask| vault::vault_mask(&mask))
        .collect();
    Ok(vault::forget(&masks)?)
}
