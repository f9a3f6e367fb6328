//! How much processor time this thread has used.

use std::mem::MaybeUninit;
use std::time::Duration;

/// The processor time of the thread that asks, since it began.
pub(crate) fn thread_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to memory of the type that clock_gettime fills in, and every thread has this clock, so
    // that the call succeeds and the value is initialised.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_takes_time_and_sleep_does_not() {
        let before = thread_time();
        std::thread::sleep(Duration::from_millis(50));
        let after_sleep = thread_time();
        assert!(after_sleep - before < Duration::from_millis(40));
        let began = Instant::now();
        while thread_time() - after_sleep < Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(60));
        }
    }
}
