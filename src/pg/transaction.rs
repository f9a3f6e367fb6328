//! Transactions: running them, and listeners for their ends.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use std::panic::AssertUnwindSafe;

use pgrx::{PgTryBuilder, Spi, pg_guard, pg_sys};

use super::error::{Caught, Watch};
use super::or_raise::OrRaise;

/// What to call at the end of a transaction or subtransaction. Nest levels count from 1, the transaction itself.
pub struct Listener {
    /// The transaction is about to commit: deferred triggers have run, and statements can still be. May raise an error,
    /// which rolls the transaction back.
    pub committing: fn(),
    /// The transaction is committed and visible, its locks are still held. Must not block or fail.
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

impl Listener {
    /// Does nothing: the rest of a listener that handles only some of the ends.
    pub const NOOP: Listener = Listener {
        committing: || {},
        committed: || {},
        aborted: || {},
        preparing: || {},
        subtransaction_committed: |_| {},
        subtransaction_aborted: |_| {},
    };
}

thread_local! {
    static LISTENERS: RefCell<Vec<&'static Listener>> = const { RefCell::new(Vec::new()) };
}

/// Registers `listener`, once in the life of a backend; later calls with the same one do nothing.
///
/// pgrx's own `register_xact_callback` is for one transaction only, and a PREPARE leaves its hooks behind for the
/// next one.
pub fn listen(listener: &'static Listener) {
    let is_first = LISTENERS.with_borrow_mut(|listeners| {
        if !listeners.iter().any(|known| std::ptr::eq(*known, listener)) {
            listeners.push(listener);
        }
        listeners.len() == 1
    });
    thread_local! {
        static REGISTERED: Cell<bool> = const { Cell::new(false) };
    }
    if is_first && !REGISTERED.replace(true) {
        // SAFETY: both functions have the signatures that Postgres asks for and stay in memory: the library is
        // never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        }
    }
}

/// Calls `tell` for each listener. One that is registered meanwhile is told of what comes next.
fn each(tell: impl Fn(&Listener)) {
    let listeners = LISTENERS.with_borrow(Vec::clone);
    listeners.iter().for_each(|listener| tell(listener));
}

/// Whether the current transaction outlives the statement, so that its user decides when it ends.
pub fn is_in_block() -> bool {
    // SAFETY: there always is a current state, outside of transactions, too, and only the main thread, which runs this,
    // changes it.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// The nest level of the current (sub)transaction.
pub fn nest_level() -> i32 {
    // SAFETY: as in `is_in_block`.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Makes the current transaction's commit wait for its WAL, whatever `synchronous_commit` says: for a
/// transaction with an effect outside of the database.
pub fn force_synchronous_commit() {
    // SAFETY: sets a flag of the current transaction.
    unsafe { pg_sys::ForceSyncCommit() };
}

/// Whether every statement of the current transaction sees the same state of the database, as with REPEATABLE READ.
pub fn has_fixed_snapshot() -> bool {
    // SAFETY: only the main thread, which runs this, writes `XactIsoLevel`.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Makes each statement of the current transaction check deferred constraints, so that a row that breaks one can be
/// told from the others. For transactions of our own: in a user's it is the user's choice.
pub fn check_constraints_immediately() {
    Spi::run("SET CONSTRAINTS ALL IMMEDIATE").or_raise();
}

/// Runs `work`, which runs statements, where no statement of a user's is being run that they would be part of: when the
/// transaction is about to commit.
pub fn with_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: in a transaction, as every caller is. Pushed and popped in pairs, unless an error leaves, which clears
    // the stack of snapshots.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// Runs `work`, whose reading statements see what is committed now, also where every statement of the transaction
/// otherwise sees the same.
pub fn with_latest_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: as in `with_snapshot`.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// Runs `work` in a transaction of this process' own, for a process that has none: a background worker. Commits it
/// when `work` returns `Ok`, rolls it back when it returns `Err` or an error is raised.
///
/// # Errors
/// What was raised, by `work` or by the commit. It is not in the log yet.
pub fn run<R, E>(work: impl FnOnce() -> Result<R, E>) -> Result<Result<R, E>, Caught> {
    // SAFETY: no transaction is open, and the process is connected to a database. Names the time that
    // pg_stat_activity shows.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    let watch = Watch::start();
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: pushed and popped in pairs, unless an error leaves, which clears the stack of snapshots.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let result = work();
        // SAFETY: as above; the transaction begun above is still the current one.
        unsafe {
            pg_sys::PopActiveSnapshot();
            match result {
                Ok(_) => pg_sys::CommitTransactionCommand(),
                Err(_) => pg_sys::AbortCurrentTransaction(),
            }
        }
        Ok(result)
    }))
    .catch_others(Err)
    .execute();
    let last_state = watch.last();
    drop(watch);
    outcome.map_err(|error| {
        // SAFETY: what Postgres' own main loops do after an error.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Caught::new(error, last_state)
    })
}

/// Runs a callback that Postgres calls where an error would take the whole cluster down.
fn shielded(callback: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback));
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => each(|listener| (listener.committing)()),
        XACT_EVENT_COMMIT => each(|listener| shielded(listener.committed)),
        XACT_EVENT_ABORT => each(|listener| shielded(listener.aborted)),
        XACT_EVENT_PRE_PREPARE => each(|listener| (listener.preparing)()),
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
    match event {
        SUBXACT_EVENT_COMMIT_SUB => {
            each(|listener| shielded(|| (listener.subtransaction_committed)(nest_level())));
        }
        SUBXACT_EVENT_ABORT_SUB => {
            each(|listener| shielded(|| (listener.subtransaction_aborted)(nest_level())));
        }
        _ => {}
    }
}
