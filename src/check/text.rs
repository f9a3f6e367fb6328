//! Numbers and times as findings tell them.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in the largest unit that tells it well enough: "15 days", "90 minutes", "12 s".
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        _ if seconds >= 2 * HOUR => format!("{} hours", seconds / HOUR),
        _ if seconds >= 2 * MINUTE => format!("{} minutes", seconds / MINUTE),
        _ => format!("{seconds} s"),
    }
}

/// "1 worker", "2 workers".
pub fn count(count: u64, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_its_largest_unit() {
        for (seconds, told) in [
            (0, "0 s"),
            (119, "119 s"),
            (5400, "90 minutes"),
            (129_600, "36 hours"),
            (1_296_000, "15 days"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "worker"), "1 worker");
        assert_eq!(count(0, "worker"), "0 workers");
    }
}
