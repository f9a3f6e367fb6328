//! What this process knows to be in the vault.

use std::cell::RefCell;

use pgrx::pg_sys::Oid;
use vault::{Cache, Mask};

use super::Day;
use super::pending::Row;
use crate::pg::invalidation::{changes_of, changes_so_far};

/// Masks that a process remembers, at least.
const REMEMBERED: usize = 65_536;

struct Known {
    masks: Cache,
    /// The state of the vault that they were learned in: as long as nobody deletes from it, they are there.
    state: u64,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// Takes those out of `rows` that `vault` has, and returns the state of it that this holds for.
pub fn take_out_known(vault: Oid, rows: &mut Vec<Row<'_>>) -> u64 {
    let state = changes_of(vault);
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.bring_to(state);
            rows.retain(|row| !known.masks.contains(row.mask, row.days.last));
        }
    });
    state
}

/// A transaction has committed that found the vault in this state, and wrote these rows. Calls nothing of Postgres.
pub fn committed(state: u64, rows: impl Iterator<Item = (Mask, Day)>) {
    // An entry that was found may have been deleted from the vault since.
    if state != changes_so_far() {
        return;
    }
    KNOWN.with_borrow_mut(|known| {
        let known = known.get_or_insert_with(|| Known {
            masks: Cache::new(REMEMBERED),
            state,
        });
        known.bring_to(state);
        known.masks.committed(rows);
    });
}

impl Known {
    fn bring_to(&mut self, state: u64) {
        if self.state != state {
            self.masks.clear();
            self.state = state;
        }
    }
}
