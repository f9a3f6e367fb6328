//! Converts our counts and times to the SQL values that show them.

use pgrx::datum::{Date, Interval, TimestampWithTimeZone};

/// A count as a `bigint`.
pub fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Microseconds since 2000-01-01 UTC as a `timestamptz`; none outside of its range.
pub fn timestamp(microseconds: i64) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(microseconds).ok()
}

/// Days since 2000-01-01 as a `date`.
pub fn date(days: i32) -> Date {
    Date::saturating_from_raw(days)
}

/// Milliseconds as an `interval`.
pub fn interval(milliseconds: u64) -> Option<Interval> {
    let microseconds = i64::try_from(milliseconds).ok()?.checked_mul(1_000)?;
    Interval::new(0, 0, microseconds).ok()
}

/// Milliseconds as seconds, for a `double precision`.
pub fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1_000.0
}
