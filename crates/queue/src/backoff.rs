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

/// A pause close to `pace`, so that many who wait for the same thing do not all ask at once.
pub(crate) fn around(pace: Duration) -> Duration {
    pace.mul_f64(0.75 + fastrand::f64() / 4.0)
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
