//! Tells Postgres of files that it did not open, so that it keeps within the limit of the process.

use pgrx::pg_sys;

/// Postgres lets a third of what a process may have open be opened by others. Its own waits need some of these, and so
/// do other extensions: this many are left to them.
const LEFT_TO_OTHERS: usize = 16;

/// Makes Postgres count up to `files` more open files; returns how many it agrees to.
pub fn acquire(files: usize) -> usize {
    // SAFETY: only counts, after closing files that Postgres can open again. It is called on the main thread, as
    // everything in this module.
    let is_granted = |_: &usize| unsafe { pg_sys::AcquireExternalFD() };
    let granted = (0..files + LEFT_TO_OTHERS).take_while(is_granted).count();
    let left = granted.min(LEFT_TO_OTHERS);
    for _ in 0..left {
        // SAFETY: gives back what was acquired above.
        unsafe { pg_sys::ReleaseExternalFD() };
    }
    granted - left
}

/// Makes Postgres count `files` more open files, which are needed in any case.
pub fn reserve(files: usize) {
    for _ in 0..files {
        // SAFETY: as above.
        unsafe { pg_sys::ReserveExternalFD() };
    }
}
