//! SIGTERM as a request to end, which becomes an order after a while.
//!
//! A backend that handles SIGTERM as Postgres does ends where it next handles interrupts, and rolls back what it was
//! doing. A process that has a few milliseconds of work left needs a warning first.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr};
use std::time::Duration;

use pgrx::pg_sys;

use super::background_worker::set_handler;

unsafe extern "C-unwind" {
    // pgrx's own names for these are Rust wrappers, which must not run in a signal handler.
    fn die(signal: i32);
    fn SetLatch(latch: *mut pg_sys::Latch);
}

static REQUESTED: AtomicBool = AtomicBool::new(false);
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
static PATIENCE_NS: AtomicI64 = AtomicI64::new(0);

/// The signal that the timer sends; Postgres makes background workers ignore it.
const ORDER: i32 = libc::SIGUSR2;

/// From now on SIGTERM only [requests](is_end_requested) the end of this process. When `patience`, which is shorter
/// than a second, has passed since the first, the process ends where it next handles interrupts. If no
/// timer can be created, nothing changes.
pub fn defer_sigterm(patience: Duration) {
    let mut timer = ptr::null_mut();
    // SAFETY: all zero is a valid sigevent, whose fields that matter here are then set; both pointers are to live
    // locals. The signal is delivered to the main thread: all others are born with every signal blocked.
    let result = unsafe {
        let mut event: libc::sigevent = MaybeUninit::zeroed().assume_init();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = ORDER;
        libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer)
    };
    if result != 0 {
        return;
    }
    TIMER.store(timer, Relaxed);
    PATIENCE_NS.store(i64::from(patience.subsec_nanos()), Relaxed);
    // SAFETY: the handlers call nothing that is not safe in a signal handler.
    unsafe {
        set_handler(ORDER, order_end);
        set_handler(pg_sys::SIGTERM as i32, request_end);
    }
}

/// Whether this process has been asked to end.
pub fn is_end_requested() -> bool {
    REQUESTED.load(Relaxed)
}

/// Calls only what POSIX or Postgres allow in a signal handler.
unsafe extern "C-unwind" fn request_end(_signal: i32) {
    // SAFETY: `timer_settime` is async-signal-safe, is given the timer that `defer_sigterm` made before it
    // installed this handler, and a live local; `SetLatch` is what Postgres' own handlers call; `errno` is this
    // thread's, and left as it was.
    unsafe {
        let errno = *libc::__errno_location();
        if !REQUESTED.swap(true, Relaxed) {
            let none = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let once = libc::itimerspec {
                it_interval: none,
                it_value: libc::timespec {
                    tv_sec: 0,
                    tv_nsec: PATIENCE_NS.load(Relaxed),
                },
            };
            libc::timer_settime(TIMER.load(Relaxed), 0, &once, ptr::null_mut());
            SetLatch(pg_sys::MyLatch);
        }
        *libc::__errno_location() = errno;
    }
}

/// Does what Postgres does at SIGTERM.
unsafe extern "C-unwind" fn order_end(_signal: i32) {
    // SAFETY: `die` is Postgres' own handler.
    unsafe { die(pg_sys::SIGTERM as i32) };
}
