//! The time, as Postgres has it.

use pgrx::pg_sys;

/// Microseconds since 2000-01-01 UTC, as a `timestamptz` has them, at this moment.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
