//! Numbers and times as findings show them.

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

/// A short time: "12 ms", "0.4 ms".
pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1_000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

/// "1 worker", "2 workers".
pub fn count(count: u64, what: &str) -> String {
    count_of(count, what, &format!("{what}s"))
}

/// "1 address", "2 addresses".
pub fn count_of(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
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
