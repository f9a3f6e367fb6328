//! The clocks that measurements are made with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The time on the clock that every process of the machine shares and nobody sets.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// The processor time that all threads of this process have used, those that ended included.
pub fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
