//! `sqs_masks(value)`: how a person is found in `user_logins`, also across a change of keys.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::errors::Failure;
use crate::mask_keys::MaskKeys;

/// The masks that `value`, an `ip` or a `device_id`, has here: under the current key, under older ones, and without
/// one.
#[pg_extern(stable, parallel_restricted)]
fn sqs_masks(value: Option<&str>) -> Result<Vec<String>, ErrorReport> {
    let value = value.ok_or(Failure::NullArgument("value"))?;
    let masks = MaskKeys::read()?
        .maskers()
        .flat_map(|masker| masker.masks_of(value))
        .map(|mask| mask.as_str().to_owned())
        .collect();
    Ok(masks)
}
