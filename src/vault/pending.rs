//! Entries of the current transaction, by subtransaction: what is rolled back takes its own along, and the rest is
//! written when the transaction commits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

use pgrx::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use vault::{Mask, Sealed};

use super::dictionary::Dictionary;
use super::{Day, known};
use crate::errors::Failure;
use crate::pg::subtransaction::ByLevel;
use crate::pg::transaction::{self, INDIFFERENT, Listener, with_snapshot};

/// An entry that the vault is to have.
pub struct Entry {
    /// The sealed original.
    pub sealed: Arc<Sealed>,
    /// The first day of its logins in this transaction.
    pub first_seen: Day,
    /// The last one.
    pub last_seen: Day,
}

impl Entry {
    fn was_seen_too(&mut self, first_seen: Day, last_seen: Day) {
        self.first_seen = self.first_seen.min(first_seen);
        self.last_seen = self.last_seen.max(last_seen);
    }
}

/// What a transaction that is about to commit has written.
struct Written {
    state: u64,
    masks: Vec<(Mask, Day)>,
}

static LISTENER: Listener = Listener {
    committing,
    committed,
    aborted,
    subtransaction_committed,
    subtransaction_aborted,
    ..INDIFFERENT
};

thread_local! {
    static PENDING: RefCell<ByLevel<HashMap<Mask, Entry>>> = const { RefCell::new(ByLevel::new()) };
    static WRITTEN: Cell<Option<Written>> = const { Cell::new(None) };
}

/// Has the vault know these originals, each with the day of its login, if the current (sub)transaction commits, and all
/// above it.
pub fn write_at_commit<'a>(originals: impl Iterator<Item = (&'a Arc<Sealed>, Day)>) {
    let mut originals = originals.peekable();
    if originals.peek().is_none() {
        return;
    }
    transaction::listen(&LISTENER);
    PENDING.with_borrow_mut(|pending| {
        if pending.last_of_current_level().is_none() {
            pending.push(HashMap::new());
        }
        let Some(entries) = pending.last_of_current_level() else {
            return;
        };
        for (sealed, day) in originals {
            match entries.entry(sealed.mask()) {
                hash_map::Entry::Occupied(mut known) => known.get_mut().was_seen_too(day, day),
                hash_map::Entry::Vacant(place) => {
                    place.insert(Entry {
                        sealed: Arc::clone(sealed),
                        first_seen: day,
                        last_seen: day,
                    });
                }
            }
        }
    });
}

/// Raises an error if the entries cannot be written: then there are no rows either.
fn committing() {
    let mut entries = each_once(PENDING.take().take());
    if entries.is_empty() {
        return;
    }
    let written = with_snapshot(|| {
        let dictionary = Dictionary::prepared()?;
        let state = known::take_out_known(dictionary.oid(), &mut entries);
        dictionary.write(&entries);
        Ok::<_, Failure>(state)
    });
    let state = match written {
        Ok(state) => state,
        Err(failure) => return ErrorReport::from(failure).report(PgLogLevel::ERROR),
    };
    WRITTEN.set(Some(Written {
        state,
        masks: entries
            .iter()
            .map(|(mask, entry)| (*mask, entry.last_seen))
            .collect(),
    }));
}

/// The entries of all levels, each mask once, in the order of masks.
fn each_once(levels: Vec<HashMap<Mask, Entry>>) -> Vec<(Mask, Entry)> {
    let mut entries: Vec<(Mask, Entry)> = levels.into_iter().flatten().collect();
    entries.sort_unstable_by_key(|(mask, _)| *mask);
    entries.dedup_by(|(again, later), (mask, entry)| {
        let is_same = again == mask;
        if is_same {
            entry.was_seen_too(later.first_seen, later.last_seen);
        }
        is_same
    });
    entries
}

fn committed() {
    if let Some(Written { state, masks }) = WRITTEN.take() {
        known::committed(state, masks.into_iter());
    }
}

fn aborted() {
    drop(PENDING.take());
    WRITTEN.set(None);
}

fn subtransaction_committed(level: i32) {
    PENDING.with_borrow_mut(|pending| pending.committed(level));
}

fn subtransaction_aborted(level: i32) {
    PENDING.with_borrow_mut(|pending| drop(pending.aborted(level)));
}
