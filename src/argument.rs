//! Checks of the arguments of SQL functions.

use std::ops::RangeBounds;

use crate::errors::Failure;

/// `value`, if `range` has it. `described` finishes the hint "It must be ...".
///
/// # Errors
/// [`Failure::OutOfRange`].
pub fn in_range<T: Copy + Into<i64>>(
    argument: &'static str,
    value: T,
    range: impl RangeBounds<i64>,
    described: &'static str,
) -> Result<T, Failure> {
    if range.contains(&value.into()) {
        return Ok(value);
    }
    Err(Failure::OutOfRange {
        argument,
        value: value.into(),
        range: described,
    })
}

/// `value`, if it is at least 1.
///
/// # Errors
/// [`Failure::OutOfRange`].
pub fn positive<T: Copy + Into<i64>>(argument: &'static str, value: T) -> Result<T, Failure> {
    in_range(argument, value, 1.., "at least 1")
}
