//! The ends of transactions and subtransactions, told to whoever registered for them.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::{pg_guard, pg_sys};

/// What to call at the end of a transaction or subtransaction. Nest levels count from 1, the transaction itself.
pub struct Listener {
    /// The transaction is committed and visible, its locks are still held. Must neither block nor fail.
    pub committed: fn(),
    /// The transaction is rolled back.
    pub aborted: fn(),
    /// PREPARE TRANSACTION is about to happen; may raise an error to refuse it.
    pub preparing: fn(),
    /// The subtransaction at this nest level became part of the one above.
    pub subtransaction_committed: fn(level: i32),
    /// The subtransaction at this nest level was rolled back.
    pub subtransaction_aborted: fn(level: i32),
}

thread_local! {
    static LISTENER: Cell<Option<&'static Listener>> = const { Cell::new(None) };
}

/// Registers `listener`, once in the life of a backend; later calls do nothing.
///
/// pgrx's own `register_xact_callback` is for one transaction only, and a PREPARE leaves its hooks behind for the
/// next one.
pub fn listen(listener: &'static Listener) {
    if LISTENER.replace(Some(listener)).is_none() {
        // SAFETY: both functions have the signatures that Postgres asks for and stay in memory: the library is
        // never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        }
    }
}

/// The nest level of the current (sub)transaction.
pub fn nest_level() -> i32 {
    // SAFETY: reads backend state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Makes the current transaction's commit wait for its WAL, whatever `synchronous_commit` says: for a
/// transaction with an effect outside of the database.
pub fn force_synchronous_commit() {
    // SAFETY: sets a flag of the current transaction.
    unsafe { pg_sys::ForceSyncCommit() };
}

/// Runs a callback that Postgres calls where an error would take the whole cluster down.
fn shielded(callback: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback));
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    let Some(listener) = LISTENER.get() else {
        return;
    };
    match event {
        XACT_EVENT_COMMIT => shielded(listener.committed),
        XACT_EVENT_ABORT => shielded(listener.aborted),
        XACT_EVENT_PRE_PREPARE => (listener.preparing)(),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    let Some(listener) = LISTENER.get() else {
        return;
    };
    match event {
        SUBXACT_EVENT_COMMIT_SUB => shielded(|| (listener.subtransaction_committed)(nest_level())),
        SUBXACT_EVENT_ABORT_SUB => shielded(|| (listener.subtransaction_aborted)(nest_level())),
        _ => {}
    }
}
