//! Callbacks for the end of this process.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};

unsafe extern "C-unwind" {
    /// Not among pgrx' bindings.
    fn PostmasterIsAliveInternal() -> bool;
}

/// A callback for when this process ends in good order.
pub struct Finish(pub fn());

thread_local! {
    static AT_EXIT: Cell<Option<fn()>> = const { Cell::new(None) };
    static BEFORE_SHARED_MEMORY: RefCell<Vec<&'static Finish>> = const { RefCell::new(Vec::new()) };
}

/// Calls `finish` once when the process ends, before it waits for anything: the last registered first. It may use what
/// lies in shared memory, and nothing else of Postgres. Registering it again does nothing.
pub fn before_shared_memory_is_left(finish: &'static Finish) {
    let is_first = BEFORE_SHARED_MEMORY.with_borrow_mut(|finishes| {
        if !finishes.iter().any(|known| std::ptr::eq(*known, finish)) {
            finishes.push(finish);
        }
        finishes.len() == 1
    });
    thread_local! {
        static REGISTERED: Cell<bool> = const { Cell::new(false) };
    }
    if is_first && !REGISTERED.replace(true) {
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
    if let Some(finish) = AT_EXIT.take() {
        shielded(finish);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn run_before_shared_memory_is_left(_code: i32, _arg: pg_sys::Datum) {
    for finish in BEFORE_SHARED_MEMORY.take().into_iter().rev() {
        shielded(finish.0);
    }
}

/// An error would make proc_exit start over.
fn shielded(finish: fn()) {
    let _ = std::panic::catch_unwind(finish);
}
