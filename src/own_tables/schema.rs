//! The schema of our tables, which statements name: whoever may rename it could put another one in its place, with
//! tables of the same names, whose triggers, defaults and views would run with the rights of the owner of ours.

use std::cell::RefCell;

use pgrx::pg_sys::Oid;

use crate::pg::or_raise::OrRaise;
use crate::pg::subtransaction::ByLevel;
use crate::pg::transaction::{self, Listener};
use crate::pg::{database, invalidation, schema};

thread_local! {
    /// The schemas that cannot be renamed until the (sub)transaction ends.
    static KEPT: RefCell<ByLevel<Oid>> = const { RefCell::new(ByLevel::new()) };
}

static LISTENER: Listener = Listener {
    committed: forget,
    aborted: forget,
    subtransaction_committed: |level| KEPT.with_borrow_mut(|kept| kept.committed(level)),
    // The locks are gone as well.
    subtransaction_aborted: |level| KEPT.with_borrow_mut(|kept| drop(kept.aborted(level))),
    ..Listener::NOOP
};

/// Whether the name of a schema can be relied on for as long as the transaction lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// It is the one that the caches have.
    Reliable,
    /// It has been changed, and not every cache says so yet; or the schema is gone.
    Changed,
    /// Somebody may change it at any moment.
    Unreliable,
}

/// Sees to it that `schema` keeps its name, unless only those may rename it who have the rights of `owner` anyway: they
/// gain nothing by it. So the usual installation, in a schema of a superuser's, pays nothing for the others.
pub fn keep_name(schema: Oid, owner: Oid) -> Name {
    invalidation::accept();
    let is_kept = || KEPT.with_borrow(|kept| kept.iter().any(|kept| *kept == schema));
    if is_kept() || schema::is_in_the_hands_of(schema, owner) {
        return Name::Reliable;
    }
    if database::is_in_recovery() {
        return Name::Unreliable;
    }
    transaction::listen(&LISTENER);
    let name = schema::keep_name(schema).or_raise();
    invalidation::accept();
    // The row is the truth. The caches, by which statements find tables, may lag behind for a moment.
    if name.is_none() || name != schema::name(schema) {
        return Name::Changed;
    }
    KEPT.with_borrow_mut(|kept| kept.push(schema));
    Name::Reliable
}

fn forget() {
    drop(KEPT.take());
}
