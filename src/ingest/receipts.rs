//! Receipts of the current transaction, by subtransaction: only what really commits is deleted.

use std::cell::RefCell;

use pgrx::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use queue::{Fate, Receipt};

use crate::errors::Failure;
use crate::io;
use crate::pg::transaction::{self, Listener};

static LISTENER: Listener = Listener {
    committed,
    aborted,
    preparing,
    subtransaction_committed,
    subtransaction_aborted,
};

thread_local! {
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
}

/// Receipts that share what happens to them.
struct Pending {
    level: i32,
    at_commit: Fate,
    at_abort: AtAbort,
    receipts: Vec<Receipt>,
}

/// What happens to messages whose transaction is rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtAbort {
    /// They are visible in the queue again at once.
    Release,
    /// Whoever wrote them still has them and will write them again.
    Keep,
}

/// Settles `receipts` when the current (sub)transaction, and all above it, have committed; does as `at_abort` says
/// as soon as one of those is rolled back.
pub fn settle_at_commit(at_commit: Fate, at_abort: AtAbort, receipts: Vec<Receipt>) {
    if receipts.is_empty() {
        return;
    }
    transaction::listen(&LISTENER);
    let level = transaction::nest_level();
    PENDING.with_borrow_mut(|pending| match pending.last_mut() {
        Some(last)
            if (last.level, last.at_commit, last.at_abort) == (level, at_commit, at_abort) =>
        {
            last.receipts.extend(receipts);
        }
        _ => pending.push(Pending {
            level,
            at_commit,
            at_abort,
            receipts,
        }),
    });
}

/// Gives messages back to the queue at once.
pub fn release(receipts: Vec<Receipt>) {
    if !receipts.is_empty() {
        io::if_started(|io| io.settle(receipts, Fate::Release));
    }
}

fn committed() {
    for pending in PENDING.take() {
        io::if_started(|io| io.settle(pending.receipts, pending.at_commit));
    }
}

fn aborted() {
    roll_back(PENDING.take());
}

/// Raises an error where the transaction holds receipts: the session that would commit a prepared transaction need
/// not be the one that can delete.
fn preparing() {
    if PENDING.with_borrow(|pending| !pending.is_empty()) {
        ErrorReport::from(Failure::CannotPrepare).report(PgLogLevel::ERROR);
    }
}

fn subtransaction_committed(level: i32) {
    PENDING.with_borrow_mut(|pending| {
        for pending in pending.iter_mut().filter(|pending| pending.level >= level) {
            pending.level = level - 1;
        }
    });
}

fn subtransaction_aborted(level: i32) {
    let rolled_back: Vec<Pending> = PENDING.with_borrow_mut(|pending| {
        pending
            .extract_if(.., |pending| pending.level >= level)
            .collect()
    });
    roll_back(rolled_back);
}

fn roll_back(rolled_back: Vec<Pending>) {
    for pending in rolled_back {
        match pending.at_abort {
            AtAbort::Release => release(pending.receipts),
            AtAbort::Keep => {}
        }
    }
}
