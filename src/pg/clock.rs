//! The time, as Postgres has it.

use std::time::{Duration, SystemTime};

use pgrx::pg_sys;

const MICROSECONDS_FROM_1970_TO_2000: i64 = 946_684_800_000_000;
const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

/// Microseconds since 2000-01-01 UTC, as a `timestamptz` has them, at this moment.
pub fn now() -> i64 {
    // SAFETY: the function takes no arguments and only calls gettimeofday.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// How long ago `time` was, in microseconds since 2000-01-01 UTC; zero if it is yet to come.
pub fn since(time: i64) -> Duration {
    Duration::from_micros(u64::try_from(now().saturating_sub(time)).unwrap_or(0))
}

/// Microseconds since 2000-01-01 UTC at `time`.
pub fn at(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_micros() as i64 - MICROSECONDS_FROM_1970_TO_2000
}

/// Microseconds since 2000-01-01 UTC at a time in milliseconds since 1970 that a `timestamptz` can hold.
pub fn at_unix_milliseconds(milliseconds: i64) -> i64 {
    milliseconds * 1_000 - MICROSECONDS_FROM_1970_TO_2000
}

/// The UTC day of a time, in days since 2000-01-01, as a `date` has them; the time is in microseconds since then.
pub fn day_of(time: i64) -> i32 {
    // A timestamptz holds fewer than 2^31 days.
    time.div_euclid(MICROSECONDS_A_DAY) as i32
}

/// When a UTC day begins, in microseconds since 2000-01-01.
pub fn start_of_day(day: i32) -> i64 {
    i64::from(day) * MICROSECONDS_A_DAY
}

/// Microseconds since 2000-01-01 UTC at this moment, on any thread.
pub fn now_off_main_thread() -> i64 {
    at(SystemTime::now())
}
