//! `sqs_forget(value)`: what the vault has of a value is deleted.

use login::{Mask, Masker};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::errors::Failure;
use crate::ingest::source::mask_key;
use crate::vault;

/// Deletes the entries of `value`, an `ip` or a `device_id`, under every mask that it has here; returns how many.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_forget(value: Option<&str>) -> Result<i64, ErrorReport> {
    let value = value.ok_or(Failure::NullArgument("value"))?;
    let masks: Vec<_> = masks(value)?.iter().map(vault::vault_mask).collect();
    Ok(vault::forget(&masks)?)
}

/// With the key and without: it may have been set when some rows were there already.
fn masks(value: &str) -> Result<Vec<Mask>, Failure> {
    let mut maskers = vec![Masker::plain()];
    maskers.extend(mask_key()?.as_deref().map(Masker::keyed));
    Ok(maskers
        .iter()
        .flat_map(|masker| masker.masks_of(value))
        .collect())
}
