//! Settings of Postgres' own, changed for the length of one piece of work.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::pg_sys;

/// Runs `work` with `lock_timeout` set, as a function with a SET clause does. An error that leaves `work` ends its
/// (sub)transaction, which puts the old value back.
pub fn with_lock_timeout<R>(timeout: Duration, work: impl FnOnce() -> R) -> R {
    let milliseconds = CString::new(timeout.as_millis().to_string()).unwrap_or_default();
    with_setting(c"lock_timeout", &milliseconds, work)
}

/// Runs `work`, whose statements find rows by an index however small the table was when they were planned: a plan is
/// kept, and the table grows.
pub fn with_index_scans<R>(work: impl FnOnce() -> R) -> R {
    with_setting(c"enable_seqscan", c"off", work)
}

fn with_setting<R>(name: &CStr, value: &CStr, work: impl FnOnce() -> R) -> R {
    // SAFETY: both are nul-terminated, and Postgres copies them; the nest level begun here is ended below, or with the
    // (sub)transaction that an error ends.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}
