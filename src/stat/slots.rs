//! Which slot a queue has, and which it gets.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use pgrx::pg_sys::Oid;

use super::shared::{QueueSlot, STATISTICS, SlotRef, Statistics};
use crate::board::{self, Assignment};
use crate::pg::{clock, database};

/// The slot of the queue, if it has one.
pub fn find(all: &'static Statistics, database: Oid, url: &str) -> Option<SlotRef> {
    all.queues
        .iter()
        .filter_map(|slot| SlotRef::of(slot, database))
        .find(|slot_ref| slot_ref.is_of(url))
}

/// Gives the queue a free slot; if there is none, one of a database that was dropped, else the one that was
/// unused for longest and has no worker.
pub fn allocate_slot(database: Oid, url: &str) -> Option<SlotRef> {
    allocate_free_slot(database, url).or_else(|| {
        let at_work = board::assignments();
        allocate(database, url, |all| unused_for_longest(all, &at_work))
    })
}

/// Gives the queue a free slot, if there is one or can be.
pub fn allocate_free_slot(database: Oid, url: &str) -> Option<SlotRef> {
    allocate(database, url, free).or_else(|| {
        free_those_of_dropped_databases();
        allocate(database, url, free)
    })
}

/// Gives the queue the slot that `choose` finds.
fn allocate(
    database: Oid,
    url: &str,
    choose: impl FnOnce(&'static Statistics) -> Option<&'static QueueSlot>,
) -> Option<SlotRef> {
    let now = clock::now();
    STATISTICS.locked(|all| {
        // Another process may have been faster.
        find(all, database, url).or_else(|| {
            let slot = choose(all)?;
            slot.free();
            slot.give_to(database, url, now);
            SlotRef::of(slot, database)
        })
    })?
}

fn free(all: &'static Statistics) -> Option<&'static QueueSlot> {
    all.queues.iter().find(|slot| slot.database().is_none())
}

/// There are fewer workers than slots, so there is one.
fn unused_for_longest(
    all: &'static Statistics,
    at_work: &[Assignment],
) -> Option<&'static QueueSlot> {
    let has_worker = |slot: &QueueSlot| {
        at_work
            .iter()
            .any(|assignment| slot.is_of(assignment.database, &assignment.queue_url))
    };
    all.queues
        .iter()
        .filter(|slot| !has_worker(slot))
        .min_by_key(|slot| slot.last_used.load(Relaxed))
}

/// Nobody can still count in a database that is gone: it is not dropped before every process has left it.
fn free_those_of_dropped_databases() {
    let Some(all) = STATISTICS.get() else { return };
    let dropped: HashSet<Oid> = all
        .queues
        .iter()
        .filter_map(QueueSlot::database)
        .filter(|&oid| database::exists(oid) == Some(false))
        .collect();
    STATISTICS.locked(|all| {
        for slot in &all.queues {
            if slot.database().is_some_and(|oid| dropped.contains(&oid)) {
                slot.free();
            }
        }
    });
}
