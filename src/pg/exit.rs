//! What is to be done when this process ends.

use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::thread::LocalKey;

unsafe extern "C-unwind" {
    /// Not among pgrx' bindings.
    fn PostmasterIsAliveInternal() -> bool;
}

type Finish = Cell<Option<fn()>>;

thread_local! {
    static AT_EXIT: Finish = const { Cell::new(None) };
    static BEFORE_SHARED_MEMORY: Finish = const { Cell::new(None) };
}

/// Calls `finish` once when the process ends in good order, as one of the first things, before it waits for anything.
/// Nothing of Postgres may be called there. Later calls replace `finish`.
pub fn before_shared_memory_is_left(finish: fn()) {
    if BEFORE_SHARED_MEMORY.replace(Some(finish)).is_none() {
        // SAFETY: as in `at_exit`.
        unsafe {
            pg_sys::before_shmem_exit(
                Some(run_before_shared_memory_is_left),
                pg_sys::Datum::from(0usize),
            );
        }
    }
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

/// Whether the postmaster has died. May be asked until the process ends.
pub fn is_orphan() -> bool {
    // SAFETY: looks whether the pipe is closed that the postmaster holds the other end of.
    unsafe { !PostmasterIsAliveInternal() }
}

#[pg_guard]
unsafe extern "C-unwind" fn run(_code: i32, _arg: pg_sys::Datum) {
    run_once(&AT_EXIT);
}

#[pg_guard]
unsafe extern "C-unwind" fn run_before_shared_memory_is_left(_code: i32, _arg: pg_sys::Datum) {
    run_once(&BEFORE_SHARED_MEMORY);
}

fn run_once(finish: &'static LocalKey<Finish>) {
    if let Some(finish) = finish.take() {
        // An error here would send proc_exit round again.
        let _ = std::panic::catch_unwind(finish);
    }
}
