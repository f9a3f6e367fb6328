//! Postgres' own way to make every process of a database forget what it remembers of a table: invalidations of the
//! relation cache. They are sent when a transaction commits, also where there is no shared memory of ours, and a
//! process that has missed some is told to forget everything.

use std::cell::Cell;

use pgrx::pg_sys::{self, Datum, Oid};

thread_local! {
    static WATCHED: Cell<Oid> = const { Cell::new(pg_sys::InvalidOid) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// The last relation that was announced, and the full id of the (sub)transaction that did.
    static ANNOUNCED: Cell<(Oid, u64)> = const { Cell::new((pg_sys::InvalidOid, 0)) };
    static IS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Tells every process that `relation` has changed, once the current transaction commits. This one knows at once.
///
/// A (sub)transaction that has written needs to say so once, whatever else it does: the others learn of it when it
/// commits. Each further message would be WAL, and would have this process build the relation's cache entry again.
pub fn announce_change(relation: Oid) {
    if relation == WATCHED.get() {
        note_change();
    }
    // SAFETY: in a transaction, as every caller is, which this gives an id if it has none.
    let transaction = unsafe { pg_sys::GetCurrentFullTransactionId() }.value;
    if ANNOUNCED.replace((relation, transaction)) == (relation, transaction) {
        return;
    }
    // SAFETY: queues the message until the transaction ends; raises an error if the relation does not exist.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

/// Processes what other processes have announced so far, as taking a new lock on a table does.
pub fn accept() {
    // SAFETY: in a transaction, as every caller is.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// A number that is another one than before if `relation` may have changed since it was asked for last: if it was
/// [announced](announce_change) by a transaction that has committed, if its definition was altered, if some news was
/// lost, or if it was another relation. One relation can be watched at a time.
pub fn changes_of(relation: Oid) -> u64 {
    if !IS_REGISTERED.replace(true) {
        // SAFETY: the function stays in memory: the library is never unloaded.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), Datum::from(0)) };
    }
    if WATCHED.replace(relation) != relation {
        note_change();
    }
    accept();
    changes_so_far()
}

/// The same, from the invalidations that this process has already processed. Calls nothing of Postgres.
pub fn changes_so_far() -> u64 {
    CHANGES.get()
}

fn note_change() {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

/// Called by Postgres in many places, while it processes invalidations, so it must not fail or call Postgres.
unsafe extern "C-unwind" fn on_invalidation(_argument: Datum, relation: Oid) {
    if relation == pg_sys::InvalidOid || relation == WATCHED.get() {
        note_change();
    }
}
