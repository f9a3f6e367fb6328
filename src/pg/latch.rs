//! Sleeping: on the process latch, a file descriptor and a bound, with interrupts checked in one place.

use std::os::fd::RawFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgrx::{check_for_interrupts, pg_sys};

/// Sleeps until the latch is set or `timeout` is over, then handles interrupts.
pub fn wait(timeout: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: `MyLatch` belongs to this process for as long as it lives. Main thread only.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            milliseconds(timeout),
            wait_event(),
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_for_interrupts!();
}

/// A timeout as Postgres takes it; never 0, which would be no sleep at all.
fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}

/// What `pg_stat_activity.wait_event` shows while the process waits: for its I/O thread, or, as the launcher and a
/// worker that backs off do, for time to pass.
///
/// Postgres 17 and later show a name of our own, earlier ones `Extension`.
fn wait_event() -> u32 {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        pg_sys::PG_WAIT_EXTENSION
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    {
        use std::sync::OnceLock;
        static EVENT: OnceLock<u32> = OnceLock::new();
        // SAFETY: called on the main thread with a nul-terminated name; Postgres copies the name.
        *EVENT.get_or_init(|| unsafe { pg_sys::WaitEventExtensionNew(c"SqsReceive".as_ptr()) })
    }
}

/// Sleeps until `fd` is readable, the latch is set, or `timeout` is over, then handles interrupts.
///
/// A cancel leaves here as a Postgres error, which unwinds; a terminate through `proc_exit`, which does not.
pub fn wait_readable(fd: RawFd, timeout: Option<Duration>) {
    let timeout_flag = if timeout.is_some() {
        pg_sys::WL_TIMEOUT
    } else {
        0
    };
    let events = pg_sys::WL_LATCH_SET
        | pg_sys::WL_SOCKET_READABLE
        | pg_sys::WL_EXIT_ON_PM_DEATH
        | timeout_flag;
    let milliseconds = timeout.map_or(-1, milliseconds);
    // SAFETY: `MyLatch` belongs to this process for as long as it lives, and `fd` is an open descriptor of its
    // I/O thread. Main thread only.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            fd,
            milliseconds,
            wait_event(),
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_for_interrupts!();
}

/// A place in shared memory where other processes find the latch of this one. All bytes zero: nobody's.
pub struct SharedLatch(AtomicUsize);

impl SharedLatch {
    /// Stores this process' latch.
    pub fn show(&self) {
        // SAFETY: only the main thread, which runs this, writes `MyLatch`.
        self.0.store(unsafe { pg_sys::MyLatch } as usize, Relaxed);
    }

    /// Stores none.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Whether one is stored.
    pub fn is_shown(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Wakes the process whose latch is stored, if any.
    pub fn set(&self) {
        let latch = self.0.load(Relaxed);
        if latch != 0 {
            // SAFETY: `show` stored it, so it is a latch in the array of processes, which lies in shared memory at the
            // same address everywhere. Should its process have ended meanwhile, it is still a latch.
            unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) };
        }
    }
}
