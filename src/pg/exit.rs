//! What is to be done when this process ends.

use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;

thread_local! {
    static AT_EXIT: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Calls `finish` once when the process ends in good order, after its transaction was aborted and its locks were
/// released. Nothing of Postgres may be called there any more. Later calls replace `finish`.
pub fn at_exit(finish: fn()) {
    if AT_EXIT.replace(Some(finish)).is_none() {
        // SAFETY: the callback has the signature that Postgres asks for and lives as long as the library, which
        // is never unloaded.
        unsafe { pg_sys::on_proc_exit(Some(run), pg_sys::Datum::from(0usize)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn run(_code: i32, _arg: pg_sys::Datum) {
    if let Some(finish) = AT_EXIT.take() {
        // An error here would send proc_exit round again.
        let _ = std::panic::catch_unwind(finish);
    }
}
