//! Tells Postgres of files that it did not open, so that it keeps within the limit of the process.

use pgrx::pg_sys;

/// Has Postgres count up to `files` open files more; how many it agrees to. It keeps two thirds of what the process may
/// have open for itself.
pub fn acquire(files: usize) -> usize {
    // SAFETY: only counts, after closing files that Postgres can open again; on the main thread, as all of this module.
    let is_granted = |_: &usize| unsafe { pg_sys::AcquireExternalFD() };
    (0..files).take_while(is_granted).count()
}

/// Has Postgres count `files` open files more that cannot be done without.
pub fn reserve(files: usize) {
    for _ in 0..files {
        // SAFETY: as above.
        unsafe { pg_sys::ReserveExternalFD() };
    }
}
