//! What the current transaction has written, by subtransaction: only what really commits is counted.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;

use super::shared::SlotRef;
use crate::pg::clock;
use crate::pg::subtransaction::ByLevel;
use crate::pg::transaction::{self, Listener};

/// What became of the messages of a chunk.
#[derive(Default)]
pub struct Written {
    /// For each new row, when its message was sent: microseconds since 2000-01-01 UTC.
    pub sent_at: Vec<i64>,
    /// Messages that were in the ledger already.
    pub duplicates: u64,
    /// Messages that cannot become rows.
    pub rejected: u64,
}

struct Uncounted {
    slot_ref: SlotRef,
    written: Written,
}

thread_local! {
    static PENDING: RefCell<ByLevel<Uncounted>> = const { RefCell::new(ByLevel::new()) };
}

static LISTENER: Listener = Listener {
    committed,
    aborted: || drop(PENDING.take()),
    subtransaction_committed,
    subtransaction_aborted,
    ..Listener::NOOP
};

/// Counts `written` when the current (sub)transaction, and all above it, have committed.
pub fn count_at_commit(slot_ref: SlotRef, written: Written) {
    transaction::listen(&LISTENER);
    PENDING.with_borrow_mut(|pending| pending.push(Uncounted { slot_ref, written }));
}

fn committed() {
    let pending = PENDING.take().take();
    if pending.is_empty() {
        return;
    }
    let now = clock::now();
    for Uncounted { slot_ref, written } in pending {
        let Some(slot) = slot_ref.slot() else {
            continue;
        };
        slot.last_used.fetch_max(now, Relaxed);
        slot.inserted
            .fetch_add(written.sent_at.len() as u64, Relaxed);
        slot.duplicates.fetch_add(written.duplicates, Relaxed);
        slot.rejected.fetch_add(written.rejected, Relaxed);
        slot.last_commit.fetch_max(now, Relaxed);
        let lags = written.sent_at.into_iter().map(|sent_at| now - sent_at);
        slot.lag.record(lags);
    }
}

fn subtransaction_committed(level: i32) {
    PENDING.with_borrow_mut(|pending| pending.committed(level));
}

fn subtransaction_aborted(level: i32) {
    PENDING.with_borrow_mut(|pending| drop(pending.aborted(level)));
}
