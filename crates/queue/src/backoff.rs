//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// Exponential backoff with full jitter: each pause is random between nothing and a bound that doubles
/// up to a cap ("Exponential Backoff And Jitter", AWS Architecture Blog).
pub(crate) struct Backoff {
    bound: Duration,
    cap: Duration,
}

impl Backoff {
    pub(crate) fn up_to(cap: Duration) -> Backoff {
        Backoff {
            bound: FIRST.min(cap),
            cap,
        }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(self.cap);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_under_a_bound_that_doubles_up_to_the_cap() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        for bound_ms in [100, 200, 400, 800, 1000, 1000] {
            assert!(backoff.pause() <= Duration::from_millis(bound_ms));
        }
    }
}
