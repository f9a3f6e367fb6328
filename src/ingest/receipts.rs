//! Receipts of the current transaction, by subtransaction: only what really commits is deleted.

use std::cell::RefCell;

use pgrx::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use queue::{Fate, Receipt};

use crate::errors::Failure;
use crate::io_thread;
use crate::pg::replication;
use crate::pg::subtransaction::ByLevel;
use crate::pg::transaction::{self, Listener};

static LISTENER: Listener = Listener {
    committed,
    aborted,
    preparing,
    subtransaction_committed,
    subtransaction_aborted,
    ..Listener::NOOP
};

thread_local! {
    static PENDING: RefCell<ByLevel<Unsettled>> = const { RefCell::new(ByLevel::new()) };
}

/// Receipts that share a fate.
struct Unsettled {
    at_commit: Fate,
    at_abort: AtAbort,
    receipts: Vec<Receipt>,
}

/// What happens to messages whose transaction is rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtAbort {
    /// They are visible in the queue again at once.
    Release,
    /// The caller still has them and will write them again.
    Keep,
}

/// Settles `receipts` when the current (sub)transaction, and all above it, have committed; does as `at_abort` says
/// as soon as one of those is rolled back.
pub fn settle_at_commit(at_commit: Fate, at_abort: AtAbort, receipts: Vec<Receipt>) {
    if receipts.is_empty() {
        return;
    }
    transaction::listen(&LISTENER);
    PENDING.with_borrow_mut(|pending| match pending.last_of_current_level() {
        Some(last) if (last.at_commit, last.at_abort) == (at_commit, at_abort) => {
            last.receipts.extend(receipts);
        }
        _ => pending.push(Unsettled {
            at_commit,
            at_abort,
            receipts,
        }),
    });
}

/// Whether the current transaction will decide what becomes of this message.
pub fn is_undecided(receipt: Receipt) -> bool {
    PENDING.with_borrow(|pending| {
        pending
            .iter()
            .any(|pending| pending.receipts.contains(&receipt))
    })
}

/// Gives messages back to the queue at once.
pub fn release(receipts: Vec<Receipt>) {
    if !receipts.is_empty() {
        io_thread::if_started(|io| io.settle(receipts, Fate::Release));
    }
}

fn committed() {
    let pending = PENDING.take().take();
    if pending.is_empty() {
        return;
    }
    let is_confirmed = replication::is_commit_confirmed();
    for pending in pending {
        let fate = match pending.at_commit {
            // A failover would lose the rows: they come back as rows then, and as duplicates otherwise.
            Fate::Delete if !is_confirmed => Fate::Leave,
            fate => fate,
        };
        io_thread::if_started(|io| io.settle(pending.receipts, fate));
    }
}

fn aborted() {
    roll_back(PENDING.take().take());
}

/// Raises an error where the transaction holds receipts: the session that would commit a prepared transaction need
/// not be the one that can delete.
fn preparing() {
    if PENDING.with_borrow(|pending| !pending.is_empty()) {
        ErrorReport::from(Failure::CannotPrepare).report(PgLogLevel::ERROR);
    }
}

fn subtransaction_committed(level: i32) {
    PENDING.with_borrow_mut(|pending| pending.committed(level));
}

fn subtransaction_aborted(level: i32) {
    roll_back(PENDING.with_borrow_mut(|pending| pending.aborted(level)));
}

fn roll_back(rolled_back: Vec<Unsettled>) {
    for pending in rolled_back {
        match pending.at_abort {
            AtAbort::Release => release(pending.receipts),
            AtAbort::Keep => {}
        }
    }
}
