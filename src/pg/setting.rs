//! Settings: read, and changed for the length of one piece of work.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::pg_sys;

/// The value of a setting, as `postgresql.conf` would have it: numbers in the setting's own unit. Empty where there is
/// none of this name.
pub fn value(name: &CStr) -> String {
    // SAFETY: gives null, or a string that is valid until the next call; it is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            String::new()
        } else {
            CStr::from_ptr(value).to_string_lossy().into_owned()
        }
    }
}

/// Runs `work` with `lock_timeout` set, as a function with a SET clause does. An error that leaves `work` ends its
/// (sub)transaction, which puts the old value back.
pub fn with_lock_timeout<R>(timeout: Duration, work: impl FnOnce() -> R) -> R {
    let milliseconds = CString::new(timeout.as_millis().to_string()).unwrap_or_default();
    with_setting(c"lock_timeout", &milliseconds, work)
}

/// Runs `work` and restores every setting that it changed, as at the end of a function with a SET clause. An error that
/// leaves `work` ends its (sub)transaction, which does the same.
pub fn with_settings_of_its_own<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the nest level begun here is ended below, or with the (sub)transaction that an error ends.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    let result = work();
    // SAFETY: as above. As if it was rolled back: what is nested is undone, what is SET LOCAL, too.
    unsafe { pg_sys::AtEOXact_GUC(false, level) };
    result
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
