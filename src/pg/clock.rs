//! The time, as Postgres has it.

use std::time::SystemTime;

use pgrx::pg_sys;

const MICROSECONDS_FROM_1970_TO_2000: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 UTC, as a `timestamptz` has them, at this moment.
pub fn now() -> i64 {
    // SAFETY: the function takes nothing and calls nothing but gettimeofday.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Microseconds since 2000-01-01 UTC at `time`.
pub fn at(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_micros() as i64 - MICROSECONDS_FROM_1970_TO_2000
}

/// Microseconds since 2000-01-01 UTC at this moment, on any thread.
pub fn now_off_main_thread() -> i64 {
    at(SystemTime::now())
}
