//! Bounded waits: a test never sleeps for luck.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(10);

/// Looks repeatedly until what is seen is `ok`, and returns it.
///
/// # Panics
/// When `within` is over; the message shows what was seen last.
#[track_caller]
pub fn eventually<T: Debug>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> T,
    ok: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if ok(&seen) {
            return seen;
        }
        assert!(
            start.elapsed() < within,
            "not within {within:?}: {what}; last seen: {seen:?}"
        );
        sleep(STEP);
    }
}

/// Looks repeatedly for as long as `during`.
///
/// # Panics
/// As soon as what is seen is not `ok`.
#[track_caller]
pub fn throughout<T: Debug>(
    what: &str,
    during: Duration,
    mut look: impl FnMut() -> T,
    ok: impl Fn(&T) -> bool,
) {
    let start = Instant::now();
    while start.elapsed() < during {
        let seen = look();
        assert!(
            ok(&seen),
            "no longer so after {:?}: {what}; seen: {seen:?}",
            start.elapsed()
        );
        sleep(STEP);
    }
}
